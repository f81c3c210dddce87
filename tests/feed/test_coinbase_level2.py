"""Coinbase level2: images, absolute changes, trades, the venue's own quotes, damage, and a real recording."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microrisk.core import Engine
from microrisk.errors import FeedError, UsageError
from microrisk.feed import open_feed
from microrisk.feed.text import to_units
from microrisk.spec.records import EVENT, Action, Flag, Integrity
from microrisk.spec.units import NULL_TS, Side

ONE = 10**8
TIME = "2021-04-17T16:43:37.{:06d}Z"
TS = 1_618_677_817 * 10**9
LAST, SNAPSHOT = int(Flag.LAST), int(Flag.SNAPSHOT)
BID, ASK = int(Side.BID), int(Side.ASK)
M, CLEAR, TRADE = int(Action.MODIFY), int(Action.CLEAR), int(Action.TRADE)


def image(product: str = "SKL-USD") -> dict[str, Any]:
    return {"type": "snapshot", "product_id": product, "asks": [["101", "1"], ["102", "4"]], "bids": [["100", "1.5"]]}


def update(at: int, *changes: Any, product: str = "SKL-USD") -> dict[str, Any]:
    return {"type": "l2update", "product_id": product, "changes": list(changes), "time": TIME.format(at)}


def match(at: int, sequence: int, trade_id: int, kind: str = "match", **more: Any) -> dict[str, Any]:
    out = {"type": kind, "trade_id": trade_id, "side": "sell", "size": "0.5", "price": "101", "product_id": "SKL-USD"}
    return out | {"sequence": sequence, "time": TIME.format(at)} | more


def ticker(at: int, bid: str, ask: str) -> dict[str, Any]:
    out = {"type": "ticker", "sequence": 1, "product_id": "SKL-USD", "price": "101", "time": TIME.format(at)}
    return out | {"best_bid": bid, "best_ask": ask}


def write(tmp_path: Path, *messages: Any) -> Path:
    path = tmp_path / "level2.jsonl"
    path.write_text("\n".join(m if isinstance(m, str) else json.dumps(m) for m in messages) + "\n")
    return path


def everything(feed: Any) -> np.ndarray:
    return np.concatenate([np.zeros(0, EVENT), *feed.events()])


def findings(feed: Any) -> dict[str, int]:
    out: Counter[str] = Counter()
    for kind, n, _ in feed.drain():
        out[Integrity(kind).name] += n
    return dict(out)


def run(path: Path) -> tuple[Any, Any, dict[str, int]]:
    feed, engine = open_feed([path]), Engine(always_open=True)
    while feed.pump(engine):
        pass
    engine.finish()
    return feed, engine, {k: n for k, n in engine.integrity().items() if n}


def levels(engine: Any, instrument: int = 0) -> list[list[list[float]]]:
    return [(side / ONE).tolist() for side in engine.levels(instrument)]


def test_images_changes_and_trades(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {"type": "subscriptions", "channels": []},
        match(0, 10, 5, "last_match"),
        image(),
        update(1, ["sell", "101", "0"], ["buy", "100.00000001", "0.00000001"]),
        match(2, 12, 6),
        match(3, 11, 6),
    )
    feed, engine, counts = run(path)
    assert (feed.format, feed.messages, counts) == ("coinbase", 6, {"skipped": 1, "duplicate_seq": 1})
    assert levels(engine) == [[[100.00000001, 1e-8], [100, 1.5]], [[102, 4]]]
    e = everything(open_feed([path]))
    assert e["action"].tolist() == [CLEAR, M, M, M, M, M, TRADE]
    assert e["flags"].tolist() == [SNAPSHOT] * 3 + [SNAPSHOT | LAST, 0, LAST, LAST]
    assert e["seq"].tolist() == [3] * 4 + [4] * 2 + [5]
    assert e["ts_event"].tolist()[4:] == [TS + 1000, TS + 1000, TS + 2000]
    assert set(e["ts_recv"].tolist()) == {NULL_TS}
    assert [int(e[-1][n]) for n in ("side", "px", "qty", "ref")] == [ASK, 101 * ONE, ONE // 2, 6]
    assert feed.instruments()[0].id == "SKL-USD.COINBASE"


def test_the_venues_quote_is_compared_where_its_time_is_that_of_the_book(tmp_path: Path) -> None:
    path = write(tmp_path, image(), update(1, ["sell", "101", "2"]), ticker(1, "100", "101"), ticker(1, "100", "102"),
                 ticker(2, "1", "2"))  # fmt: skip
    assert run(path)[2] == {"quote_ok": 1, "quote_mismatch": 1}


def test_missing_trades_are_told_and_touch_no_book(tmp_path: Path) -> None:
    feed, engine, counts = run(write(tmp_path, image(), match(1, 5, 100), match(2, 9, 104)))
    assert (counts, engine.suspect(0)) == ({}, False)
    assert feed.notices[-1] == "SKL-USD: 3 trades are missing between the trade ids"


def test_an_update_before_its_image_waits(tmp_path: Path) -> None:
    _, engine, counts = run(write(tmp_path, update(1, ["buy", "90", "1"]), image(), update(2, ["buy", "90", "2"])))
    assert (counts, levels(engine)[0]) == ({"awaiting_image": 1}, [[100, 1.5], [90, 2]])


BAD = [
    update(2, ["buy", "90", "-1"]),
    update(2, ["buy", "x", "1"]),
    update(2, ["left", "90", "1"]),
    update(2, ["buy", "90"]),
    update(2, ["buy", 90, 1]),
    update(2) | {"time": "yesterday"},
    update(2) | {"changes": "none"},
    update(2, ["buy", "90", "0.000000001"]),
    '{"type": "l2update", "product_id": "SKL-USD", "chan',
    {"type": "snapshot", "product_id": "SKL-USD", "bids": []},
]


@pytest.mark.parametrize("bad", BAD)
def test_an_update_that_cannot_be_read_invalidates_its_book_until_the_next_image(tmp_path: Path, bad: Any) -> None:
    start = (image(), image("BTC-USD"), update(1, ["buy", "90", "1"]), bad, update(3, ["buy", "80", "1"]))
    _, engine, counts = run(write(tmp_path, *start))
    named = counts.pop("malformed", 0) + counts.pop("px_range", 0)
    assert (named, counts) == (1, {"invalidated": 1, "awaiting_image": 1})
    assert (levels(engine), engine.suspect(0), engine.suspect(1)) == ([[], []], True, False)
    _, engine, _ = run(write(tmp_path, *start, image(), update(4, ["buy", "70", "1"])))
    assert (levels(engine)[0], engine.suspect(0)) == ([[100, 1.5], [70, 1]], False)


@pytest.mark.parametrize("bad", [match(2, 5, 6, size="-1"), match(2, 5, 6, side="up"), match(2, 5, 6, price="")])
def test_a_damaged_trade_costs_no_book(tmp_path: Path, bad: Any) -> None:
    _, engine, counts = run(write(tmp_path, image(), bad, update(3, ["buy", "80", "1"])))
    assert (counts, levels(engine)[0]) == ({"malformed": 1}, [[100, 1.5], [80, 1]])


def test_unknown_types_are_counted_and_nothing_is_an_error(tmp_path: Path) -> None:
    assert run(write(tmp_path, image(), {"type": "news"}))[2] == {"unknown_type": 1}
    with pytest.raises(FeedError, match="no whole"):
        everything(open_feed([write(tmp_path, '{"type":"l2update"', '{"type":"l2upd')], format="coinbase"))
    with pytest.raises(UsageError, match="images in the stream"):
        open_feed([write(tmp_path, image(), update(1))], snapshot=write(tmp_path, image()))


def test_a_full_channel_keeps_its_own_decoder(tmp_path: Path) -> None:
    opened = {"type": "open", "sequence": 1, "product_id": "A-B", "side": "buy", "price": "1", "remaining_size": "1"}
    feed = open_feed([write(tmp_path, opened | {"order_id": "x", "time": TIME.format(1)})])
    assert everything(feed)["action"].tolist() == [Action.ADD]


# -- the recording ----------------------------------------------------------------------------------------------------


@pytest.mark.realdata
@pytest.mark.parametrize("raw", [False, True])
def test_every_message_of_the_recording_against_books_of_dictionaries(
    data_dir: Path, tmp_path: Path, *, raw: bool
) -> None:
    """README: 9,946 messages, 10 snapshots, 9,719 updates, 0 crossed; as captured, and as bare lines."""
    path = data_dir / "cryptofeed_raw" / "COINBASE.ws.28.0.gz"
    with gzip.open(path, "rt") as f:
        lines = [x.partition(": ")[2] for x in f if x.strip() and not x.startswith("wss")]
    if raw:
        path = write(tmp_path, *(x.strip() for x in lines))
    feed, engine = open_feed([path]), Engine(always_open=True)
    engine.record_bbo()
    rows = []
    while feed.pump(engine):
        rows.append(engine.take_bbo())
    engine.finish()
    counts = {k: n for k, n in engine.integrity().items() if n}
    assert counts == {"skipped": 10, "quote_ok": 97}
    assert (feed.messages, feed.format) == (9946, "coinbase" if raw else "cryptofeed")
    names = {n: i.symbol for n, i in feed.instruments().items()}
    bbo = np.concatenate([*rows, engine.take_bbo()])
    got = [(names[int(r["instrument"])], *(int(r[n]) for n in ("bid_px", "bid_qty", "ask_px", "ask_qty"))) for r in bbo]
    expected, books = naive(lines)
    assert got == expected
    for index, name in names.items():
        for side, have in zip(books[name], engine.levels(index), strict=True):
            assert dict(have.tolist()) == side


def naive(lines: list[str]) -> tuple[list[tuple[Any, ...]], dict[str, tuple[dict[int, int], dict[int, int]]]]:
    """Best prices whenever they have changed behind an update or a trade, and the books at the end."""
    books: dict[str, tuple[dict[int, int], dict[int, int]]] = {}
    best: dict[str, tuple[int, ...]] = {}
    out: list[tuple[Any, ...]] = []
    for line in lines:
        m = json.loads(line)
        name = m.get("product_id", "")
        if m["type"] == "snapshot":
            books[name] = tuple({units(p): units(q) for p, q in m[s]} for s in ("bids", "asks"))  # type: ignore[assignment]
        for side, price, size in m.get("changes", ()):
            half = books[name][side == "sell"]
            half[units(price)] = units(size)
            if not units(size):
                del half[units(price)]
        if m["type"] in ("l2update", "match"):
            bids, asks = books[name]
            now = (max(bids), bids[max(bids)], min(asks), asks[min(asks)])
            if best.get(name) != now:
                best[name] = now
                out.append((name, *now))
    return out, books


def units(text: str) -> int:
    return to_units(text, 8)
