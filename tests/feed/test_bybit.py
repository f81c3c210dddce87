"""Bybit: rules one by one, damage, and two real recordings against a book of plain dictionaries."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from microrisk.errors import FeedError, UsageError
from microrisk.feed import open_feed
from microrisk.spec.features import mask
from microrisk.spec.records import Action, Flag
from microrisk.spec.units import NULL_TS

ONE = 10**8
URL = "wss://stream.bybit.com/realtime_public"
TS = 1_618_677_786_389_362_000
PUSHED = Flag.EXEC | Flag.NO_PRINT


def row(side: str, price: str, size: float | None = None) -> dict[str, Any]:
    out = {"price": price, "symbol": "ABC", "id": price.replace(".", ""), "side": side}
    return out if size is None else out | {"size": size}


def book(seq: int, bids: dict[str, float], asks: dict[str, float], **fields: Any) -> dict[str, Any]:
    rows = [row("Buy", p, s) for p, s in bids.items()] + [row("Sell", p, s) for p, s in asks.items()]
    return v2("snapshot", seq, {"order_book": rows}, **fields)


def v2(kind: str, seq: int, data: Any, symbol: str = "ABC", **fields: Any) -> dict[str, Any]:
    stamps = {"cross_seq": str(seq), "timestamp_e6": "1618677786389362"}
    return {"topic": f"orderBookL2_25.{symbol}", "type": kind, "data": data, **stamps, **fields}


def delta(
    seq: int, delete: list[Any] = (), update: list[Any] = (), insert: list[Any] = (), **more: Any
) -> dict[str, Any]:
    return v2("delta", seq, {"delete": list(delete), "update": list(update), "insert": list(insert)}, **more)


def v5(kind: str, u: int, bids: list[Any], asks: list[Any], depth: int = 50) -> dict[str, Any]:
    data = {"s": "ABC", "b": bids, "a": asks, "u": u, "seq": 10 * u}
    return {"topic": f"orderbook.{depth}.ABC", "type": kind, "ts": 1733011200691, "data": data, "cts": 1733011200589}


IMAGE = book(10, {"100": 1, "99.5": 2}, {"101": 3.9001, "102": 4})


def trade(side: str = "Buy", price: str = "101", size: float = 0.5) -> dict[str, Any]:
    fields = {"symbol": "ABC", "price": price, "size": size, "trade_time_ms": "1618677785116", "side": side}
    return {"topic": "trade.ABC", "data": [fields]}


def test_v2_image_and_deltas(write_capture: Callable[..., Path], replayed: Callable[[Any], Any]) -> None:
    change = delta(12, [row("Buy", "100")], [row("Sell", "101", 2243.9001)], [row("Buy", "99.75", 7)])
    run = replayed(open_feed([write_capture(URL, [IMAGE, change])]))
    assert (run.feed.format, run.feed.messages, run.found) == ("cryptofeed", 2, {})
    assert run.feed.instruments()[0].id == "ABC.BYBIT"
    assert run.levels("ABC") == (
        [[9_975_000_000, 7 * ONE], [9_950_000_000, 2 * ONE]],
        [[101 * ONE, 224_390_010_000], [102 * ONE, 4 * ONE]],
    )
    first, last = run.events[0], run.events[-1]
    assert (first["action"], first["flags"], first["seq"]) == (Action.CLEAR, Flag.SNAPSHOT, 10)
    assert run.events["flags"].tolist() == [2, 2, 2, 2, 3, 0, 0, 1]
    assert (last["seq"], last["ts_event"], last["ts_recv"]) == (12, TS, 1_600_000_002_250_000_000)
    assert run.feed.mask == mask("l1", "l5", "l10", "trades")


def test_sizes_are_what_is_written(write_capture: Callable[..., Path], replayed: Callable[[Any], Any]) -> None:
    text = json.dumps(IMAGE).replace("3.9001", "15.76999950")
    assert replayed(open_feed([write_capture(URL, [text])])).levels("ABC")[1][0][1] == 1_576_999_950
    fine = json.dumps(IMAGE).replace("3.9001", "0.0030000001")
    run = replayed(open_feed([write_capture(URL, [IMAGE, fine])]))
    assert run.found == {"px_range": 1, "invalidated": 1}
    assert run.suspect("ABC")


def test_trades(write_capture: Callable[..., Path], replayed: Callable[[Any], Any]) -> None:
    ask = {"op": "subscribe", "args": ["trade.ABC"]}
    confirmed = {"success": True, "ret_msg": "", "request": ask}
    messages = [trade(size=9), confirmed, trade("Buy"), trade("Sell", "100")]
    run = replayed(open_feed([write_capture(URL, messages, sent=[ask])]))
    assert run.found == {"skipped": 1}
    assert run.rows("action", "side", "px", "qty", "flags", "seq") == [
        (Action.TRADE, -1, 101 * ONE, ONE // 2, Flag.LAST, 5),
        (Action.TRADE, 1, 100 * ONE, ONE // 2, Flag.LAST, 6),
    ]
    assert run.rows("ts_event")[0] == (1_618_677_785_116_000_000,)
    assert replayed(open_feed([write_capture(URL, messages)])).found == {}


def test_v5(tmp_path: Path, replayed: Callable[[Any], Any]) -> None:
    messages = [
        v5("snapshot", 7, [["100", "1"], ["99", "2"]], [["101", "3"]]),
        v5("delta", 8, [["100", "0"], ["99.5", "5"]], []),
        v5("delta", 8, [["99.5", "6"]], []),
        v5("delta", 9, [], [["101", "0"], ["103", "0"], ["102", "1.5"]]),
    ]
    path = tmp_path / "book.data"
    path.write_text("\n".join(map(json.dumps, messages)))
    run = replayed(open_feed([path]))
    assert run.feed.format == "bybit"
    assert run.found == {"skipped": 1, "unknown_level": 1}
    assert run.levels("ABC") == ([[9_950_000_000, 5 * ONE], [99 * ONE, 2 * ONE]], [[102 * ONE, 3 * ONE // 2]])
    assert run.rows("ts_event", "ts_recv", "seq")[-1] == (1_733_011_200_589_000_000, NULL_TS, 9)


def test_v5_trades(write_capture: Callable[..., Path], replayed: Callable[[Any], Any]) -> None:
    data = [
        {"T": 1733011200589, "s": "ABC", "S": "Sell", "v": "2", "p": "100.5", "L": "PlusTick", "i": "x", "BT": False}
    ]
    run = replayed(open_feed([write_capture(URL, [{"topic": "publicTrade.ABC", "type": "snapshot", "data": data}])]))
    assert run.rows("action", "side", "px", "qty") == [(Action.TRADE, 1, 10_050_000_000, 2 * ONE)]


@pytest.mark.parametrize("version", [2, 5])
def test_levels_pushed_out_of_a_full_side(
    version: int, write_capture: Callable[..., Path], replayed: Callable[[Any], Any]
) -> None:
    bids = {str(100 - i): 1 for i in range(25)}
    if version == 2:
        new, old = row("Buy", "100.5", 3), [row("Buy", "76"), row("Buy", "99")]
        messages = [book(1, bids, {"101": 1}), delta(2, old, [], [new, row("Buy", "76.5", 1)])]
    else:
        change = [["100.5", "3"], ["76.5", "1"], ["76", "0"], ["99", "0"]]
        messages = [v5("snapshot", 1, [[p, "1"] for p in bids], [["101", "1"]], 25), v5("delta", 2, change, [], 25)]
    run = replayed(open_feed([write_capture(URL, messages)]))
    assert run.found == {}
    gone = {px: flags & PUSHED for px, qty, flags in run.rows("px", "qty", "flags") if qty == 0 and px}
    assert gone == {76 * ONE: PUSHED, 99 * ONE: 0}
    assert len(run.levels("ABC")[0]) == 25


WRONG_DELTAS = {
    "deletes what is not held": delta(11, [row("Buy", "98")]),
    "updates what is not held": delta(11, [], [row("Sell", "100", 1)]),
    "inserts what is held": delta(11, [], [], [row("Buy", "100", 1)]),
    "too many levels": delta(11, [], [], [row("Buy", str(50 + i), 1) for i in range(24)]),
}


@pytest.mark.parametrize("wrong", WRONG_DELTAS.values(), ids=WRONG_DELTAS.keys())
def test_a_delta_that_does_not_fit(
    wrong: dict[str, Any], write_capture: Callable[..., Path], replayed: Callable[[Any], Any]
) -> None:
    """The book goes at once, the next deltas wait, the next snapshot heals; another product is not touched."""
    other = json.loads(json.dumps(IMAGE).replace("ABC", "XYZ"))
    later = delta(13, [], [row("Buy", "100", 5)])
    run = replayed(open_feed([write_capture(URL, [IMAGE, other, wrong, later])]))
    assert run.found == {"gap": 1, "invalidated": 1, "awaiting_image": 1}
    assert run.levels("ABC") == ([], [])
    assert (run.suspect("ABC"), run.suspect("XYZ")) == (True, False)
    assert len(run.levels("XYZ")[0]) == 2
    healed = replayed(open_feed([write_capture(URL, [IMAGE, wrong, later, IMAGE | {"cross_seq": 20}])]))
    assert (len(healed.levels("ABC")[0]), healed.suspect("ABC")) == (2, False)


def test_v5_gap_and_new_beginning(write_capture: Callable[..., Path], replayed: Callable[[Any], Any]) -> None:
    image = v5("snapshot", 7, [["100", "1"]], [["101", "3"]])
    jump = replayed(open_feed([write_capture(URL, [image, v5("delta", 9, [["99", "1"]], [])])]))
    assert jump.found == {"gap": 1, "invalidated": 1}
    assert "update 9 follows 7" in jump.feed.notices[-1]
    anew = replayed(open_feed([write_capture(URL, [image, v5("delta", 1, [["99", "1"]], [])])]))
    assert anew.found == {"session_reset": 1}
    assert anew.levels("ABC") == ([[99 * ONE, ONE]], [])
    again = replayed(open_feed([write_capture(URL, [image, image])]))
    assert (again.found, len(again.levels("ABC")[0])) == ({}, 1)


def test_before_an_image_and_stale(write_capture: Callable[..., Path], replayed: Callable[[Any], Any]) -> None:
    early, stale = delta(9, [], [row("Buy", "100", 8)]), delta(10, [], [row("Buy", "100", 8)])
    run = replayed(open_feed([write_capture(URL, [early, IMAGE, stale, IMAGE])]))
    assert run.found == {"awaiting_image": 1, "skipped": 1}
    assert run.levels("ABC")[0][0] == [100 * ONE, ONE]


BROKEN = {
    "missing field": {k: v for k, v in IMAGE.items() if k != "cross_seq"},
    "missing size": v2("snapshot", 11, {"order_book": [row("Buy", "100")]}),
    "wrong type": v2("snapshot", 11, {"order_book": 7}),
    "unknown kind": v2("update", 11, {"order_book": []}),
    "negative size": book(11, {"100": -1}, {}),
    "size of nothing": book(11, {"100": 0}, {}),
    "level twice": v2("snapshot", 11, {"order_book": [row("Buy", "100", 1)] * 2}),
    "price as a word": book(11, {"one": 1}, {}),
    "unknown side": v2("snapshot", 11, {"order_book": [row("buy", "100", 1)]}),
    "v5 with negative size": v5("snapshot", 11, [["100", "-1"]], []),
    "v5 without u": {"topic": "orderbook.50.ABC", "type": "delta", "data": {"s": "ABC", "b": [], "a": []}},
    "cut text": json.dumps(IMAGE)[:-40],
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_book_message_that_cannot_be_read(
    broken: Any, write_capture: Callable[..., Path], replayed: Callable[[Any], Any]
) -> None:
    """It may have changed the book it names, so that one waits for an image; the one it does not name goes on."""
    other = json.loads(json.dumps(IMAGE).replace("ABC", "XYZ"))
    later = delta(13, [], [row("Buy", "100", 5)])
    run = replayed(open_feed([write_capture(URL, [other, IMAGE, broken, later])]))
    assert run.found == {"malformed": 1, "invalidated": 1, "awaiting_image": 1}
    assert (run.suspect("ABC"), run.suspect("XYZ"), run.feed.messages) == (True, False, 4)
    assert "line 4 cannot be read" in run.feed.notices[-1]


def test_garbage_that_names_nothing_marks_every_book(
    write_capture: Callable[..., Path], replayed: Callable[[Any], Any]
) -> None:
    run = replayed(open_feed([write_capture(URL, [IMAGE, "{]", delta(12, [], [row("Buy", "100", 5)])])]))
    assert run.found == {"malformed": 1}
    assert run.levels("ABC")[0][0] == [100 * ONE, 5 * ONE]
    assert run.suspect("ABC")
    healed = replayed(open_feed([write_capture(URL, [IMAGE, "{]", IMAGE | {"cross_seq": 11}])]))
    assert not healed.suspect("ABC")


def test_what_is_not_a_book(write_capture: Callable[..., Path], replayed: Callable[[Any], Any]) -> None:
    bad = [trade(side="buy"), trade(size=0), trade(price="x"), {"topic": "trade.ABC", "data": [{}]}]
    quiet = [{"topic": "instrument_info.100ms.ABC", "data": {}}, {"op": "pong"}, {"topic": "novelty.ABC", "data": {}}]
    run = replayed(open_feed([write_capture(URL, [IMAGE, *bad, *quiet])]))
    assert run.found == {"malformed": 4, "unknown_type": 1}
    assert not run.suspect("ABC")


def test_cut_and_empty(write_capture: Callable[..., Path], replayed: Callable[[Any], Any], tmp_path: Path) -> None:
    many = [IMAGE] + [delta(11 + i, [], [row("Buy", "100", i + 1.5)]) for i in range(400)]
    run = replayed(open_feed([write_capture(URL, many, cut=200)]))
    assert run.found == {"malformed": 1}
    assert 300 < run.feed.messages < 401
    with pytest.raises(FeedError, match="no whole"):
        replayed(open_feed([write_capture(URL, ["nothing"])]))
    with pytest.raises(UsageError, match="no use"):
        open_feed([write_capture(URL, [IMAGE])], snapshot=write_capture(URL, [IMAGE], name="image"))


# -- recordings ---------------------------------------------------------------------------------------------------


def units(number: Any) -> int:
    return int(Decimal(str(number)) * ONE)


def sides(held: dict[tuple[str, int], int]) -> tuple[list[list[int]], list[list[int]]]:
    bids = sorted(([p, q] for (s, p), q in held.items() if s == "Buy"), reverse=True)
    return bids, sorted([p, q] for (s, p), q in held.items() if s == "Sell")


def naive_v2(path: Path) -> Iterator[tuple[str, int, list[list[int]], list[list[int]]]]:
    books: dict[str, dict[tuple[str, int], int]] = {}
    for line in gzip.decompress(path.read_bytes()).decode().split("\n"):
        if not line[:1].isdigit() or '"topic":"orderBookL2_25' not in line:
            continue
        m = json.loads(line.partition(": ")[2], parse_float=Decimal)
        held = books.setdefault(m["topic"].split(".")[1], {})
        if m["type"] == "snapshot":
            held.clear()
        data = m["data"]
        for r in data.get("delete", []):
            del held[r["side"], units(r["price"])]
        for r in data.get("order_book", []) + data.get("update", []) + data.get("insert", []):
            held[r["side"], units(r["price"])] = units(r["size"])
        yield m["topic"].split(".")[1], int(m["cross_seq"]), *sides(held)


def naive_v5(path: Path) -> Iterator[tuple[str, int, list[list[int]], list[list[int]]]]:
    held: dict[tuple[str, int], int] = {}
    archive = zipfile.ZipFile(path)
    for line in archive.open(archive.namelist()[0]):
        m = json.loads(line)["data"]
        for side, rows in (("Buy", m["b"]), ("Sell", m["a"])):
            for price, size in rows:
                held[side, units(price)] = units(size)
                if not units(size):
                    del held[side, units(price)]
        yield m["s"], m["u"], *sides(held)


@pytest.mark.realdata
def test_recording_of_v2(
    data_dir: Path, book_after_every_message: Callable[[Any], Any], findings_of: Callable[[Any], dict[str, int]]
) -> None:
    path = data_dir / "cryptofeed_raw" / "BYBIT.ws.25.0.gz"
    feed, n, depths = open_feed([path]), 0, Counter[tuple[int, int]]()
    for ours, theirs in zip(book_after_every_message(feed), naive_v2(path), strict=True):
        assert ours == theirs
        n += 1
        depths[len(ours[2]), len(ours[3])] += 1
    assert (feed.messages, n, depths) == (3342, 3260, {(25, 25): 3260})
    # the last trades before the session
    assert findings_of(feed) == {"skipped": 10}


@pytest.mark.realdata
def test_recording_of_v5(
    data_dir: Path, book_after_every_message: Callable[[Any], Any], findings_of: Callable[[Any], dict[str, int]]
) -> None:
    path = data_dir / "bybit_ob500_2024" / "xrpusdt-ob500.data.zip"
    feed = open_feed([path])
    books = list(book_after_every_message(feed))
    assert books == list(naive_v5(path))
    assert [(len(bids), len(asks)) for _, _, bids, asks in books] == [(500, 500)] * 50
    assert (feed.format, feed.messages, findings_of(feed)) == ("bybit", 50, {})
    assert feed.instruments()[0].id == "XRPUSDT.BYBIT"
