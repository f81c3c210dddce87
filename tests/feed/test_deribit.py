"""Deribit: rules one by one, damage, and a real recording against a book of plain dictionaries."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from microrisk.errors import UsageError
from microrisk.feed import open_feed
from microrisk.spec.features import mask
from microrisk.spec.records import Action, Flag

ONE = 10**8
URL = "wss://www.deribit.com/ws/api/v2"
NAME = "BTC-24SEP21-8000-P"
MS = 1_626_993_724_318


def note(channel: str, data: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "subscription", "params": {"channel": channel, "data": data}}


def book(kind: str, change: int, before: int | None, bids: list[Any], asks: list[Any], **more: Any) -> dict[str, Any]:
    name, ms = more.pop("name", NAME), more.pop("ms", MS)
    data = {"type": kind, "timestamp": ms, "instrument_name": name, "change_id": change, "bids": bids, "asks": asks}
    return note(f"book.{name}.raw", data | ({} if before is None else {"prev_change_id": before}) | more)


IMAGE = book("snapshot", 100, None, [["new", 0.0005, 153.1]], [["new", 0.0015, 94.7], ["new", 0.002, 22.0]])
NEW = book("change", 103, 100, [], [["new", 0.001, 2.6]], ms=MS + 10)
GONE = book("change", 107, 103, [["change", 0.0005, 1.5]], [["delete", 0.001, 0.0]], ms=MS + 20)


def ticker(ms: int, bid: Any, bids: Any, ask: Any, asks: Any) -> dict[str, Any]:
    best = {"best_bid_price": bid, "best_bid_amount": bids, "best_ask_price": ask, "best_ask_amount": asks}
    return note(f"ticker.{NAME}.raw", {"timestamp": ms, "instrument_name": NAME} | best)


BEFORE, AFTER = (0.0005, 153.1, 0.0015, 94.7), (0.0005, 153.1, 0.001, 2.6)


def test_image_and_changes(write_capture: Callable[..., Path], replayed: Callable[[Any], Any]) -> None:
    run = replayed(open_feed([write_capture(URL, [IMAGE, NEW, GONE])]))
    assert (run.feed.format, run.feed.messages, run.found) == ("cryptofeed", 3, {})
    assert run.feed.instruments()[0].id == f"{NAME}.DERIBIT"
    assert run.levels(NAME) == ([[50_000, 150_000_000]], [[150_000, 9_470_000_000], [200_000, 2_200_000_000]])
    stamps = run.rows("seq", "ts_event", "flags")
    assert stamps[0] == (100, MS * 1_000_000, Flag.SNAPSHOT)
    assert stamps[-1] == (107, (MS + 20) * 1_000_000, Flag.LAST)
    assert run.feed.mask == mask("l1", "l5", "l10", "trades")


def test_trades(write_capture: Callable[..., Path], replayed: Callable[[Any], Any]) -> None:
    fields = {"instrument_name": NAME, "timestamp": MS, "price": 0.001, "amount": 0.5, "trade_seq": 3}
    data = [fields | {"direction": "buy", "trade_id": "48079573"}, fields | {"direction": "sell", "trade_id": "ETH-1"}]
    run = replayed(open_feed([write_capture(URL, [note(f"trades.{NAME}.raw", data)])]))
    assert run.rows("action", "side", "px", "qty", "ref", "flags") == [
        (Action.TRADE, -1, 100_000, 50_000_000, 48_079_573, Flag.LAST),
        (Action.TRADE, 1, 100_000, 50_000_000, 0, Flag.LAST),
    ]


TICKERS = {
    "before its change": ([IMAGE, ticker(MS + 10, *AFTER), NEW, GONE], {"quote_ok": 1}),
    "behind its change": ([IMAGE, NEW, ticker(MS + 10, *AFTER), GONE], {"quote_ok": 1}),
    "of an older state": ([IMAGE, ticker(MS + 9, *BEFORE), NEW, GONE], {"quote_ok": 1}),
    "too old": ([IMAGE, ticker(MS + 10, *BEFORE), NEW, GONE], {"quote_mismatch": 1}),
    "too early": ([IMAGE, ticker(MS + 5, *AFTER), NEW, GONE], {"quote_mismatch": 1}),
    "nothing comes": ([IMAGE, ticker(MS, *BEFORE), ticker(MS + 5000, *BEFORE)], {"quote_ok": 2}),
    "settled by time": (
        [IMAGE, ticker(MS + 1, *AFTER), ticker(MS + 5000, *BEFORE)],
        {"quote_mismatch": 1, "quote_ok": 1},
    ),
    "behind the end": ([IMAGE, ticker(MS + 10, *AFTER)], {}),
    "wrong at the end": ([IMAGE, ticker(MS, *AFTER)], {"quote_mismatch": 1}),
    "before the image": ([ticker(MS, *AFTER), IMAGE], {}),
    "empty side": ([book("snapshot", 1, None, [], [["new", 1, 2]]), ticker(MS, 0.0, 0.0, 1, 2.0)], {"quote_ok": 1}),
    "null side": ([book("snapshot", 1, None, [], [["new", 1, 2]]), ticker(MS, None, None, 1, 2)], {"quote_ok": 1}),
}


@pytest.mark.parametrize(("messages", "found"), TICKERS.values(), ids=TICKERS.keys())
def test_tickers(
    messages: list[Any], found: dict[str, int], write_capture: Callable[..., Path], replayed: Callable[[Any], Any]
) -> None:
    assert replayed(open_feed([write_capture(URL, messages)])).found == found


def test_waiting_tickers_are_few_and_go_with_their_book(
    write_capture: Callable[..., Path], replayed: Callable[[Any], Any]
) -> None:
    """A time far ahead holds the ones behind it up; they are left out, not kept for ever."""
    ahead = [ticker(MS * 1000, *BEFORE), *(ticker(MS, *BEFORE) for _ in range(500))]
    assert replayed(open_feed([write_capture(URL, [IMAGE, *ahead])])).found == {"quote_ok": 64}
    jump = book("change", 110, 109, [], [])
    run = replayed(open_feed([write_capture(URL, [IMAGE, ticker(MS, *AFTER), jump, IMAGE])]))
    assert run.found == {"gap": 1, "invalidated": 1}


def test_a_broken_chain(write_capture: Callable[..., Path], replayed: Callable[[Any], Any]) -> None:
    other = json.loads(json.dumps(IMAGE).replace(NAME, "OTHER"))
    jump = book("change", 110, 109, [["new", 0.0001, 1.0]], [])
    later = book("change", 111, 110, [["new", 0.0001, 1.0]], [])
    run = replayed(open_feed([write_capture(URL, [IMAGE, other, jump, later])]))
    assert run.found == {"gap": 1, "invalidated": 1, "awaiting_image": 1}
    assert run.levels(NAME) == ([], [])
    assert (run.suspect(NAME), run.suspect("OTHER"), len(run.levels("OTHER")[1])) == (True, False, 2)
    assert "change 110 follows 109, the book is at 100" in run.feed.notices[-1]
    healed = replayed(open_feed([write_capture(URL, [IMAGE, jump, IMAGE, NEW])]))
    assert (len(healed.levels(NAME)[1]), healed.suspect(NAME)) == (3, False)


def test_stale_early_and_repeated(write_capture: Callable[..., Path], replayed: Callable[[Any], Any]) -> None:
    run = replayed(open_feed([write_capture(URL, [NEW, IMAGE, NEW, NEW, IMAGE])]))
    assert run.found == {"awaiting_image": 1, "skipped": 1}
    assert len(run.levels(NAME)[1]) == 2
    without = book("change", 103, None, [], [])
    assert replayed(open_feed([write_capture(URL, [IMAGE, without])])).found == {"gap": 1, "invalidated": 1}
    unheld = book("change", 103, 100, [["delete", 0.0001, 0.0]], [])
    assert replayed(open_feed([write_capture(URL, [IMAGE, unheld])])).found == {"unknown_level": 1}


BROKEN = {
    "missing field": note(f"book.{NAME}.raw", {"type": "change", "timestamp": MS, "bids": [], "asks": []}),
    "wrong type": book("change", 103, 100, [], []) | {"params": {"channel": f"book.{NAME}.raw", "data": 7}},
    "unknown kind": book("update", 103, 100, [], []),
    "unknown action": book("change", 103, 100, [["set", 0.0005, 1.0]], []),
    "negative amount": book("change", 103, 100, [["change", 0.0005, -1.0]], []),
    "new of nothing": book("change", 103, 100, [["new", 0.0004, 0.0]], []),
    "delete of something": book("change", 103, 100, [["delete", 0.0005, 1.0]], []),
    "price as a word": book("change", 103, 100, [["new", "low", 1.0]], []),
    "half a row": book("change", 103, 100, [["new", 0.0004]], []),
    "negative id": book("change", -3, 100, [], []),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_book_message_that_cannot_be_read(
    broken: Any, write_capture: Callable[..., Path], replayed: Callable[[Any], Any]
) -> None:
    run = replayed(open_feed([write_capture(URL, [IMAGE, broken, NEW])]))
    assert run.found == {"malformed": 1, "invalidated": 1, "awaiting_image": 1}
    assert (run.suspect(NAME), run.feed.messages) == (True, 3)
    fine = book("change", 103, 100, [["new", "0.0000000001", 1.0]], [])
    assert replayed(open_feed([write_capture(URL, [IMAGE, fine])])).found == {"px_range": 1, "invalidated": 1}


def test_garbage_shows_in_the_chain(write_capture: Callable[..., Path], replayed: Callable[[Any], Any]) -> None:
    run = replayed(open_feed([write_capture(URL, [IMAGE, "{]", GONE])]))
    assert run.found == {"malformed": 1, "gap": 1, "invalidated": 1}
    bad = [note(f"trades.{NAME}.raw", [{"price": 1}]), note(f"ticker.{NAME}.raw", {}), note(f"trades.{NAME}.raw", 3)]
    quiet = [note("deribit_price_index.btc_usd", {}), {"id": 0, "result": []}, note("novelty.x", {})]
    refused = {"id": 0, "error": {"code": 11050, "message": "bad_request"}}
    run = replayed(open_feed([write_capture(URL, [IMAGE, *bad, *quiet, refused])]))
    assert run.found == {"malformed": 3, "unknown_type": 1}
    assert "bad_request" in run.feed.notices[-1]


def test_a_cut(write_capture: Callable[..., Path], replayed: Callable[[Any], Any]) -> None:
    many = [IMAGE] + [book("change", 101 + i, 100 + i, [["change", 0.0005, i * i + 1.5]], []) for i in range(400)]
    run = replayed(open_feed([write_capture(URL, many, cut=200)]))
    assert run.found == {"malformed": 1}
    assert 300 < run.feed.messages < 401
    with pytest.raises(UsageError, match="no use"):
        open_feed([write_capture(URL, [IMAGE])], snapshot=write_capture(URL, [IMAGE], name="image"))


# -- recording ----------------------------------------------------------------------------------------------------


def naive(path: Path) -> Iterator[tuple[str, int, list[list[int]], list[list[int]]]]:
    books: dict[str, tuple[dict[int, int], dict[int, int]]] = {}
    for line in gzip.decompress(path.read_bytes()).decode().split("\n"):
        m = json.loads(line.partition(": ")[2], parse_float=Decimal) if line[:1].isdigit() else {}
        if not m.get("params", {}).get("channel", "").startswith("book."):
            continue
        data = m["params"]["data"]
        if data["type"] == "snapshot":
            books[data["instrument_name"]] = {}, {}
        both = books[data["instrument_name"]]
        for held, rows in zip(both, (data["bids"], data["asks"]), strict=True):
            for action, price, amount in rows:
                held[int(price * ONE)] = int(amount * ONE)
                if action == "delete":
                    del held[int(price * ONE)]
        bids, asks = (sorted([p, q] for p, q in held.items()) for held in both)
        yield data["instrument_name"], data["change_id"], bids[::-1], asks


@pytest.mark.realdata
def test_recording(
    data_dir: Path, book_after_every_message: Callable[[Any], Any], findings_of: Callable[[Any], dict[str, int]]
) -> None:
    path = data_dir / "cryptofeed_raw" / "DERIBIT.ws.1.0.gz"
    feed = open_feed([path])
    books = list(book_after_every_message(feed))
    assert books == list(naive(path))
    # 10 of the 89 tickers come before their snapshots
    assert (feed.messages, len(books), findings_of(feed)) == (136, 46, {"quote_ok": 79})
