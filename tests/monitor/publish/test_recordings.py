"""Recordings of real venues played to a client that joins early or in the middle: the same books come out."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from venue_recorder import Recorder, held, marked, run

from microrisk.core import Engine
from microrisk.feed import open_feed
from microrisk.monitor.publish import BinanceRecording, BinanceServer, BitstampRecording, BitstampServer, CoinbaseServer
from microrisk.monitor.publish.coinbase import recording
from microrisk.monitor.publish.kraken import KrakenPlayer, KrakenRecording

ALL = 1 << 30
Want = Callable[[str], Any]


def books(engine: Engine, index: dict[str, int]) -> dict[str, Any]:
    return {name: held(engine, i) for name, i in index.items()}


def replayed(path: Path, **options: Any) -> dict[str, Any]:
    """Books of the recording itself."""
    feed, engine = open_feed([str(path)], **options), Engine(always_open=True)
    while feed.pump(engine):
        pass
    return books(engine, {i.symbol: n for n, i in feed.instruments().items()})


@pytest.mark.realdata
@pytest.mark.parametrize("before", [0, 1500])
def test_kraken_v1(data_dir: Path, tmp_path: Path, before: int) -> None:
    path = data_dir / "cryptofeed_raw" / "KRAKEN.ws.50.0.gz"

    async def work() -> tuple[Recorder, KrakenPlayer]:
        async with KrakenPlayer(KrakenRecording([path])) as server:
            server.advance(before)
            recorder = Recorder("KRAKEN", "ws.kraken.com", tmp_path, server)
            async with await recorder.open() as ws:
                with gzip.open(path, "rt") as lines:
                    (wish,) = [json.loads(t.partition(": ")[2]) for t in lines if " <- " in t and '"book"' in t]
                await recorder.send(ws, wish)
                await recorder.until(ws, lambda t: "ADA/XBT" in t)
                await recorder.until(ws, marked(server, ALL))
            recorder.lines.pop()
            return recorder, server

    recorder, _ = run(work())
    engine, found, index = recorder.replay()
    if not before:
        assert found["checksum_ok"] == 4269
    assert found.pop("checksum_ok") > 2000
    assert found == {}
    assert books(engine, index) == replayed(path)


@pytest.mark.realdata
@pytest.mark.parametrize("before", [0, 3000])
def test_coinbase_level2(data_dir: Path, tmp_path: Path, before: int) -> None:
    path = data_dir / "cryptofeed_raw" / "COINBASE.ws.28.0.gz"

    async def work() -> Recorder:
        async with CoinbaseServer(recording([path])) as server:
            server.advance(before)
            recorder = Recorder("COINBASE", "ws-feed.exchange.coinbase.com", tmp_path, server)
            async with await recorder.open() as ws:
                with gzip.open(path, "rt") as lines:
                    (wish,) = [json.loads(t.partition(": ")[2]) for t in lines if " <- " in t and '["level2"]' in t]
                await recorder.send(ws, {**wish, "channels": ["level2", "ticker", "matches"]})
                await recorder.until(ws, lambda t: "subscriptions" in t)
                await recorder.until(ws, marked(server, ALL))
            recorder.lines.pop()
            return recorder

    engine, found, index = run(work()).replay()
    assert found.pop("quote_ok") > 50
    found.pop("skipped", 0)
    assert found == {}
    assert books(engine, index) == replayed(path)


@pytest.mark.realdata
@pytest.mark.parametrize("before", [0, 5000])
def test_coinbase_full(data_dir: Path, tmp_path: Path, before: int) -> None:
    folder = data_dir / "coinbase_l3_2018"
    path, first = folder / "messages.json.gz", folder / "beginning_level_3.json.gz"

    async def work() -> tuple[list[str], Any, Any]:
        async with CoinbaseServer(recording([path], first)) as server:
            server.advance(before)
            recorder = Recorder("COINBASE", "ws-feed.exchange.coinbase.com", tmp_path, server)
            async with await recorder.open() as ws:
                await recorder.send(ws, {"type": "subscribe", "product_ids": ["BTC-USD"], "channels": ["full"]})
                await recorder.until(ws, lambda t: "subscriptions" in t)
                image = await recorder.rest("/products/BTC-USD/book?level=3")
                await recorder.until(ws, marked(server, ALL))
            last = await recorder.rest("/products/BTC-USD/book?level=3")
            return recorder.received[:-1], image, last

    texts, image, last = run(work())
    out, given = tmp_path / "full.json", tmp_path / "image.json"
    out.write_text("\n".join(texts) + "\n")
    given.write_text(json.dumps(image))
    assert replayed(out, snapshot=str(given)) == replayed(path, snapshot=str(first))
    end = json.loads(gzip.decompress((folder / "ending_level_3.json.gz").read_bytes()))
    if last["sequence"] == end["sequence"]:
        assert [o[2] for o in last["bids"]] == [o[2] for o in end["bids"]]
        assert [o[2] for o in last["asks"]] == [o[2] for o in end["asks"]]


@pytest.mark.realdata
@pytest.mark.parametrize("before", [300, 4000])
@pytest.mark.parametrize("name", ["spot", "usdm"])
def test_binance(data_dir: Path, tmp_path: Path, before: int, name: str) -> None:
    path = data_dir / "binance_btc_2024" / f"{name}_btcusdt_20240808.gz"
    futures = name == "usdm"
    host = "fstream.binance.com" if futures else "stream.binance.com:9443"
    rest = "/fapi/v1" if futures else "/api/v3"

    async def work() -> Recorder:
        async with BinanceServer(BinanceRecording([path])) as server:
            server.advance(before)
            recorder = Recorder("BINANCE", host, tmp_path, server)
            streams = "/".join(f"btcusdt@{c}" for c in ("depth@100ms", "bookTicker", "trade"))
            async with await recorder.open(f"/stream?streams={streams}") as ws:
                await recorder.until(ws, marked(server, 30))
                await recorder.rest(f"{rest}/depth?symbol=BTCUSDT&limit=5000")
                await recorder.until(ws, marked(server, ALL))
            recorder.lines = [line for line in recorder.lines if '"mark"' not in line]
            recorder.answers = [
                a.replace("fstream", "fapi").replace("stream.binance.com:9443", "api.binance.com")
                for a in recorder.answers
            ]
            return recorder

    engine, found, index = run(work()).replay()
    for normal in ("skipped", "unknown_level"):
        found.pop(normal, 0)
    assert found.pop("quote_ok") > 1000
    assert found == {}
    want = replayed(path)
    ((symbol, number),) = index.items()
    # levels far from the best are known from whichever image was taken
    for have, true in zip(held(engine, number, 100), (s[:100] for s in want[symbol]), strict=True):
        assert have == true


@pytest.mark.realdata
@pytest.mark.parametrize("before", [60, 300])
def test_bitstamp_diffs(data_dir: Path, tmp_path: Path, before: int) -> None:
    path = data_dir / "cryptofeed_raw" / "BITSTAMP.ws.1.0.gz"

    async def work() -> tuple[Recorder, dict[str, Any]]:
        async with BitstampServer(BitstampRecording([path])) as server:
            server.advance(before)
            recorder = Recorder("BITSTAMP", "ws.bitstamp.net", tmp_path, server)
            async with await recorder.open() as ws:
                for pair in ("ethusd", "batbtc"):
                    channel = {"channel": f"diff_order_book_{pair}"}
                    await recorder.send(ws, {"event": "bts:subscribe", "data": channel})
                await recorder.until(ws, lambda t: "succeeded" in t and "batbtc" in t)
                await recorder.until(ws, marked(server, 100))
                for pair in ("ethusd", "batbtc"):
                    await recorder.rest(f"/api/v2/order_book/{pair}/")
                await recorder.until(ws, marked(server, ALL))
            recorder.lines = [line for line in recorder.lines if '"mark"' not in line]
            return recorder, {}

    recorder, _ = run(work())
    engine, found, index = recorder.replay()
    found.pop("skipped", 0)
    assert found == {}
    want = replayed(path)
    have = books(engine, index)
    assert len(have) == 2
    assert have == {name: want[name] for name in have}
