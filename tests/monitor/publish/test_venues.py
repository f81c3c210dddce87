"""Generated markets through plain websocket clients into the project's own decoders: every check of a venue must hold.

What the client receives is written down as a recorder would, and replayed; the books must be those of the market.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from venue_recorder import BEATS, Recorder, get, held, marked, run
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from microrisk.core import Engine
from microrisk.feed import open_feed
from microrisk.monitor.publish import Pace, StreamPlan
from microrisk.monitor.publish.binance import BinanceMarket, BinanceServer
from microrisk.monitor.publish.bitstamp import BitstampMarket, BitstampServer
from microrisk.monitor.publish.coinbase import CoinbaseMarket, CoinbaseServer
from microrisk.monitor.publish.kraken import KrakenMarket, KrakenServer
from microrisk.monitor.publish.market_text import Deed, Product, TextMarket
from microrisk.monitor.publish.order_text import OrderBook

SEED = 20261127


def market(*names: str, seed: int = SEED) -> TextMarket:
    return TextMarket([Product(n, 2, 6, 60_000_00 + 1000 * i) for i, n in enumerate(names)], seed)


def kraken() -> KrakenServer:
    return KrakenServer(KrakenMarket(market("BTC/USD", "ETH/USD")))


def coinbase() -> CoinbaseServer:
    return CoinbaseServer(CoinbaseMarket(market("BTC-USD", "ETH-USD")))


def binance() -> BinanceServer:
    return BinanceServer(BinanceMarket(market("BTCUSDT", "ETHUSDT")))


def futures() -> BinanceServer:
    return BinanceServer(BinanceMarket(market("BTCUSDT", "ETHUSDT"), futures=True))


def bitstamp() -> BitstampServer:
    return BitstampServer(BitstampMarket(market("btcusd", "ethusd")))


def levels(book: OrderBook, depth: int | None = None) -> tuple[list[list[int]], list[list[int]]]:
    """As the engine has them, in 1e-8."""
    p, q = 10 ** (8 - book.px_decimals), 10 ** (8 - book.qty_decimals)
    bids, asks = ([[px * p, qty * q] for px, qty in side.levels(depth)] for side in (book.bids, book.asks))
    return bids, asks


# -- the market ----------------------------------------------------------------------------------------------------


def test_the_market_repeats_by_seed_and_never_crosses() -> None:
    def tale(m: TextMarket) -> list[tuple[Any, ...]]:
        return [
            (d.ts_ns, d.kind, d.order.label, d.order.px, d.order.qty, d.levels) for d in (m.step() for _ in range(2000))
        ]

    m = market("A", "B")
    assert tale(m) == tale(market("A", "B"))
    assert tale(market("A", "B", seed=1)) != tale(market("A", "B"))
    kinds: dict[str, int] = {}
    for _ in range(5000):
        deed: Deed = m.step()
        kinds[deed.kind] = kinds.get(deed.kind, 0) + 1
        bid, ask = deed.book.best()
        assert bid is not None
        assert ask is not None
        assert 0 < bid < ask, f"seed {SEED}"
    assert min(kinds.values()) > 200
    for book in m.books.values():
        for side in (book.bids, book.asks):
            assert side.sizes == {px: sum(o.qty for o in q.values()) for px, q in side.queues.items()}
            assert min(side.sizes.values()) > 0
            assert side.prices == sorted(side.queues)
            assert 20 < len(side.orders()) < 4000


# -- kraken --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [10, 25, 100])
def test_kraken_checksums_all_agree(tmp_path: Path, depth: int) -> None:
    async def work() -> tuple[Any, ...]:
        async with kraken() as server:
            recorder = Recorder("KRAKEN", "ws.kraken.com/v2", tmp_path, server)
            async with await recorder.open() as ws:
                params = {"channel": "book", "symbol": ["BTC/USD", "ETH/USD"], "depth": depth}
                await recorder.send(ws, {"method": "subscribe", "params": params, "req_id": 5})
                await recorder.send(ws, {"method": "subscribe", "params": {"channel": "trade", "symbol": ["BTC/USD"]}})
                await recorder.send(ws, {"method": "ping"})
                await recorder.until(ws, lambda t: "pong" in t)
                await recorder.until(ws, marked(server))
            recorder.lines.pop()
            return recorder, server.flow.market.books

    recorder, books = run(work())
    engine, found, index = recorder.replay()
    assert "checksum_mismatch" not in found
    assert found.pop("checksum_ok") == sum('"channel":"book","type"' in t for t in recorder.received) > BEATS / 4
    assert found == {}
    for name, book in books.items():
        assert held(engine, index[name.replace("/", "-")]) == levels(book, depth)


def test_kraken_answers_and_a_fresh_image(tmp_path: Path) -> None:
    async def work() -> tuple[list[Any], KrakenServer]:
        async with kraken() as server:
            recorder = Recorder("KRAKEN", "ws.kraken.com/v2", tmp_path, server)
            async with await recorder.open() as ws:
                book = {"channel": "book", "symbol": ["BTC/USD"]}
                for method in ("subscribe", "subscribe", "unsubscribe", "unsubscribe"):
                    await recorder.send(ws, {"method": method, "params": book})
                await recorder.send(ws, {"method": "subscribe", "params": {"channel": "book", "symbol": ["X/Y"]}})
                await recorder.send(
                    ws, {"method": "subscribe", "params": {"channel": "book", "symbol": [], "depth": 7}}
                )
                await recorder.send(ws, {"method": "subscribe", "params": {"channel": "instrument"}})
                await recorder.send(ws, {"method": "nonsense"})
                await recorder.until(ws, lambda t: "not found" in t)
                server.advance(50)
                await recorder.send(ws, {"method": "subscribe", "params": book})
                await recorder.until(ws, lambda t: '"snapshot"' in t and '"book"' in t and "result" not in t)
            return [json.loads(t) for t in recorder.received], server

    said, server = run(work())
    assert [m.get("error") for m in said if "success" in m] == [
        None, "Already subscribed", None, "Subscription Not Found", "Currency pair not supported X/Y",
        "Unsupported channel or depth: book 7", None, "Method not found", None,
    ]  # fmt: skip
    first, last = (m for m in said if m.get("type") == "snapshot" and m["channel"] == "book")
    assert first["data"][0]["checksum"] != last["data"][0]["checksum"]
    pairs = next(m for m in said if m.get("channel") == "instrument")["data"]["pairs"]
    assert [(p["symbol"], p["price_precision"], p["qty_precision"]) for p in pairs] == [
        ("BTC/USD", 2, 6),
        ("ETH/USD", 2, 6),
    ]
    assert server.counts["subscriptions"] == 2


def test_kraken_a_corrupted_checksum_is_seen_and_a_resubscription_heals_it(tmp_path: Path) -> None:
    async def work() -> tuple[Recorder, Any]:
        async with kraken() as server:
            recorder = Recorder("KRAKEN", "ws.kraken.com/v2", tmp_path, server)
            book = {"channel": "book", "symbol": ["BTC/USD"], "depth": 10}
            async with await recorder.open() as ws:
                await recorder.send(ws, {"method": "subscribe", "params": book})
                await recorder.until(ws, marked(server, 100))
                server.plan.corrupt_next(1, "BTC/USD")
                await recorder.until(ws, marked(server, 100))
                for method in ("unsubscribe", "subscribe"):
                    await recorder.send(ws, {"method": method, "params": book})
                await recorder.until(ws, lambda t: '"snapshot"' in t and "result" not in t)
                await recorder.until(ws, marked(server, 100))
            recorder.lines = [line for line in recorder.lines if '"mark"' not in line]
            return recorder, server

    recorder, server = run(work())
    engine, found, index = recorder.replay()
    assert found.pop("checksum_mismatch") == 1
    assert found.pop("awaiting_image") > 0
    assert found.pop("checksum_ok") > 10
    assert held(engine, index["BTC-USD"]) == levels(server.flow.market.books["BTC/USD"], 10)
    assert [(f.where, f.what) for f in server.plan.log.entries()] == [("BTC/USD", "corrupt")]


# -- coinbase ------------------------------------------------------------------------------------------------------


def image_of(tmp_path: Path, image: Any) -> Path:
    path = tmp_path / "image.json"
    path.write_text(json.dumps(image))
    return path


def test_coinbase_orders_on_a_rest_image(tmp_path: Path) -> None:
    async def work() -> tuple[list[str], Any, CoinbaseServer]:
        async with coinbase() as server:
            recorder = Recorder("COINBASE", "ws-feed.exchange.coinbase.com", tmp_path, server)
            async with await recorder.open() as ws:
                wish = {"type": "subscribe", "product_ids": ["BTC-USD"], "channels": ["full", "heartbeat"]}
                await recorder.send(ws, wish)
                await recorder.until(ws, lambda t: "subscriptions" in t)
                await recorder.until(ws, marked(server, 200))
                image = await recorder.rest("/products/BTC-USD/book?level=3")
                await recorder.until(ws, marked(server))
            return [t for t in recorder.received if '"mark"' not in t], image, server

    texts, image, server = run(work())
    path = tmp_path / "full.json"
    path.write_text("\n".join(texts) + "\n")
    feed, engine = open_feed([str(path)], snapshot=str(image_of(tmp_path, image))), Engine(always_open=True)
    while feed.pump(engine):
        pass
    found = {k: v for k, v in engine.integrity().items() if v}
    assert found.pop("skipped") > 100
    assert found.pop("never_rested") > 10  # takers
    assert found == {}
    book = server.flow.market.books["BTC-USD"]
    assert held(engine, 0) == levels(book)
    labels = [[o.label for o in side.orders()] for side in (book.bids, book.asks)]
    uuids = [feed.order_label(int(o)).replace("-", "") for o in engine.orders(0)["order_id"]]
    assert [str(int(u, 16)) for u in uuids] == labels[0] + labels[1]  # queues, too


def test_coinbase_levels(tmp_path: Path) -> None:
    async def work() -> tuple[Recorder, CoinbaseServer]:
        async with coinbase() as server:
            server.advance(30)
            recorder = Recorder("COINBASE", "ws-feed.exchange.coinbase.com", tmp_path, server)
            async with await recorder.open() as ws:
                wish = {"type": "subscribe", "product_ids": ["BTC-USD", "ETH-USD"], "channels": ["level2", "matches"]}
                await recorder.send(ws, wish)
                await recorder.until(ws, lambda t: "snapshot" in t and "ETH" in t)
                await recorder.until(ws, marked(server))
            recorder.lines.pop()
            two = await recorder.rest("/products/BTC-USD/book?level=2")
            one = await recorder.rest("/products/BTC-USD/book")
            recorder.answers.clear()
            assert (one["bids"], one["asks"]) == (two["bids"][:1], two["asks"][:1])
            assert len(two["bids"]) == len(server.flow.market.books["BTC-USD"].bids.prices)
            return recorder, server

    recorder, server = run(work())
    engine, found, index = recorder.replay()
    assert found == {}
    for name in ("BTC-USD", "ETH-USD"):
        assert held(engine, index[name]) == levels(server.flow.market.books[name])


def test_coinbase_heartbeats_errors_and_silence() -> None:
    async def work() -> CoinbaseServer:
        server = CoinbaseServer(CoinbaseMarket(market("BTC-USD")), heartbeat_s=0.02)
        server.subscribe_within_s = 0.3
        async with server, connect(server.url) as ws, connect(server.url) as silent:
            await ws.send("no json")
            assert json.loads(await ws.recv())["type"] == "error"
            await ws.send('{"type":"subscribe","product_ids":["BTC-USD"],"channels":["level9"]}')
            assert "level9" in json.loads(await ws.recv())["reason"]
            channels = [{"name": "heartbeat", "product_ids": ["BTC-USD"]}]
            await ws.send(json.dumps({"type": "subscribe", "channels": channels}))
            assert json.loads(await ws.recv())["channels"] == channels
            beat = json.loads(await ws.recv())
            assert (beat["type"], beat["sequence"] >= 1000, beat["product_id"]) == ("heartbeat", True, "BTC-USD")
            await ws.send('{"type":"unsubscribe","product_ids":["BTC-USD"],"channels":["heartbeat"]}')
            while json.loads(await ws.recv()) != {"type": "subscriptions", "channels": []}:
                pass
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(silent.recv(), 10)
        return server

    assert run(work()).counts["silent_clients"] >= 1


# -- binance -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [binance, futures])
def test_binance_diffs_on_rest_images(tmp_path: Path, make: Callable[[], BinanceServer]) -> None:
    host, prefix = ("fstream.binance.com", "/fapi/v1") if make is futures else ("stream.binance.com:9443", "/api/v3")
    names = "/".join(f"{s}@{c}" for s in ("btcusdt", "ethusdt") for c in ("depth@100ms", "bookTicker", "trade"))

    async def work() -> tuple[Recorder, BinanceServer]:
        async with make() as server:
            recorder = Recorder("BINANCE", host, tmp_path, server)
            async with await recorder.open(f"/stream?streams={names}") as ws:
                await ws.ping()
                await recorder.until(ws, marked(server, 50))
                for symbol in ("BTCUSDT", "ETHUSDT"):
                    await recorder.rest(f"{prefix}/depth?symbol={symbol}&limit=5000")
                await recorder.until(ws, marked(server))
            recorder.lines = [line for line in recorder.lines if '"mark"' not in line]
            rest = "fapi.binance.com" if make is futures else "api.binance.com"
            recorder.answers = [a.replace(host, rest) for a in recorder.answers]
            return recorder, server

    recorder, server = run(work())
    engine, found, index = recorder.replay()
    assert found.pop("skipped", 0) > 0
    assert found.pop("quote_ok") > BEATS / 2
    # the futures rule applies the image's own update again: what it took away is not there a second time
    assert found.pop("unknown_level", 0) <= 2 * (make is futures)
    assert found == {}
    for symbol, book in server.flow.market.books.items():
        assert held(engine, index[symbol + "-PERP" * (make is futures)]) == levels(book)


def test_binance_requests_and_a_single_stream() -> None:
    async def work() -> None:
        async with binance() as server, connect(server.url + "/ws/btcusdt@depth@100ms") as ws:
            server.advance(0)
            await ws.send('{"method":"SUBSCRIBE","params":["ethusdt@depth"],"id":7}')
            assert json.loads(await ws.recv()) == {"result": None, "id": 7}
            await ws.send('{"method":"LIST_SUBSCRIPTIONS","id":8}')
            names = ["btcusdt@depth@100ms", "ethusdt@depth"]
            answer = json.loads(await ws.recv())
            assert answer == {"result": names, "id": 8} or answer["e"] == "depthUpdate"
            status, body, _ = await asyncio.to_thread(get, server.rest_url + "/api/v3/depth?symbol=NONE")
            assert (status, json.loads(body)["code"]) == (400, -1121)
            status, _, _ = await asyncio.to_thread(get, server.rest_url + "/elsewhere")
            assert status == 404

    run(work())


# -- bitstamp ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channel", "query"), [("diff_order_book", ""), ("live_orders", "?group=2")])
def test_bitstamp_on_rest_images(tmp_path: Path, channel: str, query: str) -> None:
    async def work() -> tuple[Recorder, BitstampServer]:
        async with bitstamp() as server:
            recorder = Recorder("BITSTAMP", "ws.bitstamp.net", tmp_path, server)
            async with await recorder.open() as ws:
                for name in (f"{channel}_btcusd", "live_trades_btcusd"):
                    await recorder.send(ws, {"event": "bts:subscribe", "data": {"channel": name}})
                await recorder.until(ws, lambda t: "succeeded" in t and "trades" in t)
                await recorder.until(ws, marked(server, 60))
                await recorder.rest(f"/api/v2/order_book/btcusd/{query}")
                await recorder.until(ws, marked(server))
            recorder.lines = [line for line in recorder.lines if '"mark"' not in line]
            return recorder, server

    recorder, server = run(work())
    engine, found, index = recorder.replay()
    found.pop("skipped", 0)
    assert found == {}
    (number,) = index.values()
    assert held(engine, number) == levels(server.flow.market.books["btcusd"])


def test_bitstamp_requests() -> None:
    async def work() -> list[Any]:
        server = BitstampServer(BitstampMarket(market("btcusd")), heartbeat_s=0.02)
        async with server, connect(server.url) as ws:
            out = []
            for event, channel in (
                ("bts:heartbeat", ""),
                ("bts:subscribe", "nonsense_btcusd"),
                ("bts:subscribe", "detail_order_book_btcusd"),
            ):
                await ws.send(json.dumps({"event": event, "data": {"channel": channel}}))
                out.append(json.loads(await ws.recv()))
            out.append(json.loads(await ws.recv()))
            server.request_reconnect()
            while (message := json.loads(await ws.recv()))["event"] == "data":
                pass
            return [*out, message]

    said = run(work())
    assert [m["event"] for m in said] == [
        "bts:heartbeat", "bts:error", "bts:subscription_succeeded", "data", "bts:request_reconnect"
    ]  # fmt: skip
    assert len(said[3]["data"]["bids"]) == 100
    assert len(said[3]["data"]["bids"][0]) == 3


# -- faults and pace -----------------------------------------------------------------------------------------------


def test_refused_rest_requests_and_what_they_say() -> None:
    async def work() -> StreamPlan:
        plan = StreamPlan(refuse=2, retry_after_s=7)
        async with BinanceServer(BinanceMarket(market("BTCUSDT")), plan=plan) as server:
            url = server.rest_url + "/api/v3/depth?symbol=BTCUSDT"
            for want in (429, 429, 200):
                status, _, headers = await asyncio.to_thread(get, url)
                assert status == want
                assert headers.get("Retry-After") == ("7" if want == 429 else None)
            assert server.counts["refused"] == 2
        return plan

    assert run(work()).log.counts == {"refuse": 2}


def test_dropped_messages_leave_a_hole_that_the_numbers_show() -> None:
    async def work() -> list[int]:
        plan = StreamPlan(drop=[5, 9])
        async with CoinbaseServer(CoinbaseMarket(market("BTC-USD")), plan=plan) as server, connect(server.url) as ws:
            await ws.send('{"type":"subscribe","product_ids":["BTC-USD"],"channels":["full"]}')
            await ws.recv()
            server.advance(40)
            server.say('{"sequence":0}')
            out = []
            while (number := json.loads(await asyncio.wait_for(ws.recv(), 10))["sequence"]) != 0:
                out.append(number)
            return out

    seen = run(work())
    holes = [b - a for a, b in pairwise(seen) if b - a != 1]
    assert holes
    assert set(holes) == {2}


def test_disconnect_half_open_and_refused_connections() -> None:
    async def work() -> StreamPlan:
        plan = StreamPlan()
        async with BitstampServer(BitstampMarket(market("btcusd")), plan=plan, heartbeat_s=0.01) as server:
            async with connect(server.url) as ws:
                plan.disconnect()
                with pytest.raises(ConnectionClosed):
                    await asyncio.wait_for(ws.recv(), 10)
            plan.refuse_connect(1)
            async with connect(server.url) as ws:
                with pytest.raises(ConnectionClosed):
                    await asyncio.wait_for(ws.recv(), 10)
            async with connect(server.url) as ws:
                plan.half_open()
                await ws.send('{"event":"bts:heartbeat"}')
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(ws.recv(), 0.1)
                plan.resume()
                await ws.send('{"event":"bts:heartbeat"}')
                assert "success" in str(await asyncio.wait_for(ws.recv(), 10))
        return plan

    assert run(work()).log.counts == {"disconnect": 1, "refuse_connect": 1, "half_open": 1}


def test_two_thousand_messages_a_second_hold_their_pace() -> None:
    async def work() -> tuple[float, int]:
        server = KrakenServer(KrakenMarket(market("BTC/USD")), pace=Pace(rate=2000))
        async with server, connect(server.url, compression=None) as ws:
            await ws.send('{"method":"subscribe","params":{"channel":"book","symbol":["BTC/USD"],"depth":100}}')
            begin, n = time.monotonic(), 0
            while n < 1000:
                await asyncio.wait_for(ws.recv(), 10)
                n += 1
            return time.monotonic() - begin, server.sent

    took, sent = run(work())
    assert took >= 0.4
    assert sent >= 990
