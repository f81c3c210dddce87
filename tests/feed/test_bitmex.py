"""BitMEX: rules one by one, damage, and a real recording against a book of plain dictionaries."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microrisk.errors import UsageError
from microrisk.feed import open_feed
from microrisk.spec.features import mask
from microrisk.spec.records import Action, Flag

ONE = 10**8
URL = "wss://www.bitmex.com/realtime"
TIME = "2021-07-22T22:36:10.014Z"
TS = 1_626_993_370_014_000_000


def row(ident: int, side: str, size: int | None = None, price: float | None = None, **more: Any) -> dict[str, Any]:
    out = {"symbol": "XBTUSD", "id": ident, "side": side, "size": size, "price": price} | more
    return {k: v for k, v in out.items() if v is not None}


def table(action: str, *rows: Any, name: str = "orderBookL2", **more: Any) -> dict[str, Any]:
    return {"table": name, "action": action, "data": list(rows)} | more


IMAGE = table("partial", row(1, "Sell", 7, 101.5), row(2, "Sell", 5, 101), row(3, "Buy", 4, 100), row(4, "Buy", 9, 99))


def trade(side: str = "Buy", size: Any = 100, price: Any = 101, symbol: str = "XBTUSD") -> dict[str, Any]:
    return {"timestamp": TIME, "symbol": symbol, "side": side, "size": size, "price": price, "trdMatchID": "0ddc259b"}


def quote(bid: float | None, bids: int, ask: float | None, asks: int) -> dict[str, Any]:
    return {"timestamp": TIME, "symbol": "XBTUSD", "bidSize": bids, "bidPrice": bid, "askPrice": ask, "askSize": asks}


def test_a_book_by_ids(write_capture: Callable[..., Path], replayed: Callable[[Any], Any]) -> None:
    messages = [
        IMAGE,
        table("update", row(2, "Sell", 50), row(3, "Buy", 40)),
        table("delete", row(4, "Buy")),
        table("insert", row(5, "Buy", 1, 100.5), row(6, "Buy", 2, 98.5)),
        # as later versions write it, and a level that comes back on the other side
        table("delete", row(2, "Sell", price=101, timestamp=TIME)),
        table("insert", row(2, "Buy", 3, 101)),
    ]
    run = replayed(open_feed([write_capture(URL, messages)]))
    assert (run.feed.format, run.feed.messages, run.found) == ("cryptofeed", 6, {})
    assert run.feed.instruments()[0].id == "XBTUSD.BITMEX"
    assert run.levels("XBTUSD") == (
        [[101 * ONE, 3 * ONE], [10_050_000_000, ONE], [100 * ONE, 40 * ONE], [9_850_000_000, 2 * ONE]],
        [[10_150_000_000, 7 * ONE]],
    )
    stamps = run.rows("seq", "ts_event", "ts_recv", "flags")
    assert stamps[0] == (2, 1_600_000_001_250_000_000, 1_600_000_001_250_000_000, Flag.SNAPSHOT)
    assert stamps[-2] == (6, TS, 1_600_000_005_250_000_000, Flag.LAST)
    assert run.feed.mask == mask("l1", "l5", "l10", "trades")


def test_trades(write_capture: Callable[..., Path], replayed: Callable[[Any], Any]) -> None:
    news = table("insert", trade(), trade("Sell", 3, 100.5), name="trade")
    run = replayed(open_feed([write_capture(URL, [table("partial", trade(), name="trade"), news])]))
    assert run.found == {"skipped": 1}
    assert run.rows("action", "side", "px", "qty", "ref", "ts_event", "flags") == [
        (Action.TRADE, -1, 101 * ONE, 100 * ONE, 0, TS, Flag.LAST),
        (Action.TRADE, 1, 10_050_000_000, 3 * ONE, 0, TS, Flag.LAST),
    ]


def test_quotes_are_states_of_the_book(write_capture: Callable[..., Path], replayed: Callable[[Any], Any]) -> None:
    def quotes(*rows: Any) -> dict[str, Any]:
        return table("insert", *rows, name="quote")

    book = [IMAGE, table("update", row(2, "Sell", 6)), table("update", row(2, "Sell", 8))]
    old, first, second, third = (quote(100, 4, 101, size) for size in (3, 5, 6, 8))
    good = replayed(open_feed([write_capture(URL, [*book, quotes(first, second), quotes(third)])]))
    assert good.found == {"quote_ok": 3}
    lenient = replayed(open_feed([write_capture(URL, [*book, quotes(old, second, third)])]))
    assert lenient.found == {"quote_ok": 2}
    strict = replayed(open_feed([write_capture(URL, [*book, quotes(second, third), quotes(second)])]))
    assert strict.found == {"quote_ok": 2, "quote_mismatch": 1}
    empty = [table("partial", row(3, "Buy", 4, 100)), quotes(quote(100, 4, None, 0))]
    assert replayed(open_feed([write_capture(URL, empty)])).found == {"quote_ok": 1}


def test_prices_of_ten_decimals(write_capture: Callable[..., Path], replayed: Callable[[Any], Any]) -> None:
    """The unit is told by the first messages; later prices that are finer spoil the book."""
    text = json.dumps(table("partial", row(1, "Buy", 5, 7), row(2, "Sell", 6, 8)))
    fine = text.replace("7,", "0.0000016425,").replace('"price": 7', '"price": 0.0000016425').replace("8}", "1.65e-6}")
    run = replayed(open_feed([write_capture(URL, [fine])]))
    assert run.feed.instruments()[0].px_exp == 10
    assert run.levels("XBTUSD") == ([[16_425, 5 * ONE]], [[16_500, 6 * ONE]])
    assert run.found == {"px_range": 1}
    late = json.dumps(table("insert", row(9, "Buy", 5, 7))).replace('"price": 7', '"price": 0.0000016425')
    spoiled = replayed(open_feed([write_capture(URL, [IMAGE, late])]))
    assert spoiled.found == {"px_range": 1, "invalidated": 1}
    assert spoiled.suspect("XBTUSD")


WRONG = {
    "update of an unknown id": table("update", row(77, "Sell", 5)),
    "update on the other side": table("update", row(2, "Buy", 5)),
    "delete of an unknown id": table("delete", row(3, "Buy"), row(77, "Buy")),
    "insert of a known id": table("insert", row(2, "Sell", 5, 101)),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_an_id_that_does_not_fit(
    wrong: dict[str, Any], write_capture: Callable[..., Path], replayed: Callable[[Any], Any]
) -> None:
    later = table("update", row(2, "Sell", 6))
    run = replayed(open_feed([write_capture(URL, [IMAGE, wrong, later])]))
    assert run.found == {"gap": 1, "invalidated": 1, "awaiting_image": 1}
    assert run.levels("XBTUSD") == ([], [])
    assert run.suspect("XBTUSD")
    healed = replayed(open_feed([write_capture(URL, [IMAGE, wrong, IMAGE, later])]))
    assert (healed.levels("XBTUSD")[1][0], healed.suspect("XBTUSD")) == ([101 * ONE, 6 * ONE], False)


def test_before_the_partial_and_twice(write_capture: Callable[..., Path], replayed: Callable[[Any], Any]) -> None:
    messages = [table("update", row(2, "Sell", 6)), IMAGE, table("update", row(2, "Sell", 6)), IMAGE]
    run = replayed(open_feed([write_capture(URL, messages)]))
    assert run.found == {"awaiting_image": 1}
    assert run.levels("XBTUSD")[1][0] == [101 * ONE, 5 * ONE]
    none = table("partial", filter={"symbol": "XBTUSD"})
    assert replayed(open_feed([write_capture(URL, [IMAGE, none])])).levels("XBTUSD") == ([], [])
    other = table("update", row(2, "Sell", 6), name="orderBookL2_25")
    assert replayed(open_feed([write_capture(URL, [IMAGE, other])])).found == {"skipped": 1}


BROKEN = {
    "no price": table("insert", row(9, "Buy", 5)),
    "no size": table("update", row(2, "Sell")),
    "size 0": table("update", row(2, "Sell", 0)),
    "negative size": table("insert", row(9, "Buy", -5, 98)),
    "size with decimals": json.dumps(table("update", row(2, "Sell", 5))).replace("5}", "5.5}"),
    "another price": table("delete", row(2, "Sell", price=102)),
    "price as a word": table("insert", row(9, "Buy", 5) | {"price": "low"}),
    "unknown side": table("insert", row(9, "buy", 5, 98)),
    "unknown action": table("replace", row(2, "Sell", 5)),
    "level twice": table("partial", row(1, "Buy", 5, 98), row(2, "Buy", 5, 98)),
    "bad time": table("update", row(2, "Sell", 5, timestamp="now")),
    "cut text": json.dumps(IMAGE)[:-40],
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_book_message_that_cannot_be_read(
    broken: Any, write_capture: Callable[..., Path], replayed: Callable[[Any], Any]
) -> None:
    other = json.loads(json.dumps(IMAGE).replace("XBTUSD", "ETHUSD"))
    run = replayed(open_feed([write_capture(URL, [other, IMAGE, broken, table("update", row(2, "Sell", 6))])]))
    assert run.found == {"malformed": 1, "invalidated": 1, "awaiting_image": 1}
    assert (run.suspect("XBTUSD"), run.suspect("ETHUSD"), run.feed.messages) == (True, False, 4)
    assert len(run.levels("ETHUSD")[0]) == 2


def test_what_is_not_a_book(write_capture: Callable[..., Path], replayed: Callable[[Any], Any]) -> None:
    bad = [
        table("insert", trade(size=0), name="trade"),
        table("insert", trade(side="buy"), name="trade"),
        table("insert", trade(price=None), name="trade"),
        table("insert", {"symbol": 7}, name="quote"),
    ]
    quiet = [{"info": "Welcome"}, {"success": True, "subscribe": "trade:XBTUSD"}, table("insert", name="funding")]
    other = [table("partial", name="orderBook10"), {"error": "no such table", "status": 400}]
    run = replayed(open_feed([write_capture(URL, [IMAGE, *bad, *quiet, *other])]))
    assert run.found == {"malformed": 4, "unknown_type": 1}
    assert not run.suspect("XBTUSD")
    assert "refused" in run.feed.notices[-1]


def test_garbage_and_a_cut(write_capture: Callable[..., Path], replayed: Callable[[Any], Any]) -> None:
    run = replayed(open_feed([write_capture(URL, [IMAGE, "{]", table("update", row(2, "Sell", 6))])]))
    assert run.found == {"malformed": 1}
    assert (run.levels("XBTUSD")[1][0][1], run.suspect("XBTUSD")) == (6 * ONE, True)
    many = [IMAGE] + [table("update", row(2, "Sell", 6 + i * i)) for i in range(400)]
    run = replayed(open_feed([write_capture(URL, many, cut=200)]))
    assert run.found == {"malformed": 1}
    assert 300 < run.feed.messages < 401
    with pytest.raises(UsageError, match="no use"):
        open_feed([write_capture(URL, [IMAGE])], snapshot=write_capture(URL, [IMAGE], name="image"))


# -- recording ----------------------------------------------------------------------------------------------------


def naive(path: Path) -> Iterator[tuple[str, int, np.ndarray, np.ndarray]]:
    books: dict[str, dict[str, dict[int, int]]] = {}
    prices: dict[tuple[str, int], int] = {}
    for number, line in enumerate(gzip.decompress(path.read_bytes()).decode().split("\n"), 1):
        m = json.loads(line.partition(": ")[2], parse_float=Decimal) if line[:1].isdigit() else {}
        if m.get("table") != "orderBookL2":
            continue
        symbol = m["data"][0]["symbol"]
        one = 10**10 if symbol == "TRXU21" else ONE
        held = books.setdefault(symbol, {"Buy": {}, "Sell": {}})
        for r in m["data"]:
            if "price" in r:
                prices[symbol, r["id"]] = int(Decimal(r["price"]) * one)
            px = prices[symbol, r["id"]]
            held[r["side"]][px] = 0 if m["action"] == "delete" else r["size"] * ONE
            if m["action"] == "delete":
                del held[r["side"]][px]
        yield symbol, number, ladder(held["Buy"])[::-1], ladder(held["Sell"])


def ladder(held: dict[int, int]) -> np.ndarray:
    px, qty = (np.fromiter(values, np.int64, len(held)) for values in (held.keys(), held.values()))
    order = np.argsort(px)
    return np.stack([px[order], qty[order]], axis=1)


@pytest.mark.realdata
def test_recording(
    data_dir: Path, book_after_every_message: Callable[..., Any], findings_of: Callable[[Any], dict[str, int]]
) -> None:
    path = data_dir / "cryptofeed_raw" / "BITMEX.ws.1.0.gz"
    feed, n = open_feed([path]), 0
    for ours, theirs in zip(book_after_every_message(feed, arrays=True), naive(path), strict=True):
        assert ours[:2] == theirs[:2]
        assert all(np.array_equal(a, b) for a, b in zip(ours[2:], theirs[2:], strict=True))
        n += 1
    assert (feed.messages, n) == (2120, 1979)
    # 10 last trades before the session; every quote is a state of our best; TRXU21 has prices finer than 1e-9
    assert findings_of(feed) == {"skipped": 10, "quote_ok": 426, "px_range": 80}
    assert {i.symbol: i.px_exp for i in feed.instruments().values() if i.px_exp != 8} == {"TRXU21": 10}
