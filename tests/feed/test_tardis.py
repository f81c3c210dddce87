"""Tardis CSV: rules one by one, damage, several files at once, and the real samples against plain dictionaries."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from microrisk.errors import FeedError, UsageError
from microrisk.feed import open_feed
from microrisk.feed.tardis import difference, kind_of
from microrisk.spec.features import mask
from microrisk.spec.records import Action, Flag

ONE = 10**8
US = 1_598_918_403_696_000
PUSHED = Flag.EXEC | Flag.NO_PRINT
COMMON = "exchange,symbol,timestamp,local_timestamp,"
INCREMENTAL = COMMON + "is_snapshot,side,price,amount"
QUOTES = COMMON + "ask_amount,ask_price,bid_price,bid_amount"
TRADES = COMMON + "id,side,price,amount"
SNAPSHOT_2 = COMMON + ",".join(f"{s}[{i}].{w}" for i in (0, 1) for s in ("asks", "bids") for w in ("price", "amount"))

Write = Callable[..., Path]


def at(i: int, symbol: str = "BTC-PERPETUAL", exchange: str = "deribit") -> str:
    """The first cells of a row: the exchange's time `i`, arrival 50 later."""
    return f"{exchange},{symbol},{US + i},{US + i + 50},"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to(header: str, *rows: str, name: str = "data.csv", packed: int = -1) -> Path:
        data = "\n".join([header, *rows, ""]).encode()
        path = tmp_path / name
        path.write_bytes(data if packed < 0 else gzip.compress(data)[: -packed or None])
        return path

    return to


BOOK = [
    at(0) + "true,ask,101,3",
    at(0) + "true,bid,100,2.5",
    at(0) + "true,bid,99.5,1",
]


def test_incremental(write: Write, replayed: Callable[[Any], Any]) -> None:
    news = [at(9) + "false,bid,100,0", at(9) + "false,bid,99.75,7", at(20) + "false,ask,101,1e-8"]
    run = replayed(open_feed([write(INCREMENTAL, *BOOK, *news)]))
    assert (run.feed.format, run.feed.messages, run.found, run.feed.notices) == ("tardis", 6, {}, [])
    assert run.feed.instruments()[0].id == "BTC-PERPETUAL.DERIBIT"
    assert run.levels("BTC-PERPETUAL") == ([[9_975_000_000, 7 * ONE], [9_950_000_000, ONE]], [[101 * ONE, 1]])
    assert run.rows("action", "flags", "seq") == [
        (Action.CLEAR, Flag.SNAPSHOT, 1),
        (Action.MODIFY, Flag.SNAPSHOT, 1),
        (Action.MODIFY, Flag.SNAPSHOT, 2),
        (Action.MODIFY, Flag.SNAPSHOT | Flag.LAST, 3),
        (Action.MODIFY, 0, 4),
        (Action.MODIFY, Flag.LAST, 5),
        (Action.MODIFY, Flag.LAST, 6),
    ]
    assert run.rows("ts_event", "ts_recv")[-1] == ((US + 20) * 1000, (US + 70) * 1000)
    assert run.feed.mask == mask("l1", "l5", "l10")


def test_incremental_images_again_and_rows_before_one(write: Write, replayed: Callable[[Any], Any]) -> None:
    early = at(-5) + "false,bid,98,1"
    news, again = at(5) + "false,bid,100,9", [row.replace(str(US), str(US + 10)) for row in BOOK[:2]]
    run = replayed(open_feed([write(INCREMENTAL, early, *BOOK, news, *again)]))
    assert run.found == {"awaiting_image": 1}
    assert run.levels("BTC-PERPETUAL") == ([[100 * ONE, 250_000_000]], [[101 * ONE, 3 * ONE]])
    # a snapshot that comes in two messages is one image
    two = [BOOK[0], *(row.replace(str(US + 50), str(US + 51)) for row in BOOK[1:])]
    run = replayed(open_feed([write(INCREMENTAL, *two)]))
    assert run.rows("action").count((Action.CLEAR,)) == 1
    assert len(run.levels("BTC-PERPETUAL")[0]) == 2


def image(i: int, *levels: str) -> str:
    """A row of book_snapshot_2: ask price, ask amount, bid price, bid amount, twice."""
    return at(i, "BTCUSDT", "binance-futures") + ",".join(levels)


FIRST = image(0, "101", "1", "100", "2", "102", "3", "99", "4")


def test_snapshots_become_changes(write: Write, replayed: Callable[[Any], Any]) -> None:
    rows = [
        FIRST,
        image(10, "101", "1", "100.5", "7", "102", "5", "100", "2"),  # a better bid pushes 99 out
        image(20, "102", "5", "100.5", "7", "104", "1", "99", "4"),  # 101 and 100 are gone
        image(30, "102", "5", "100.5", "7", "104", "1", "99", "4"),
        image(40, "102", "5", "", "", "", "", "", ""),  # nobody bids
    ]
    run = replayed(open_feed([write(SNAPSHOT_2, *rows)]))
    assert (run.feed.messages, run.found) == (5, {})
    assert run.feed.instruments()[0].id == "BTCUSDT-PERP.BINANCE"
    news = [row for row in run.rows("seq", "action", "side", "px", "qty", "flags") if row[0] > 1]
    assert [(s, side, px / ONE, qty / ONE, flags) for s, _, side, px, qty, flags in news] == [
        (2, 1, 99, 0, PUSHED),
        (2, 1, 100.5, 7, 0),
        (2, -1, 102, 5, Flag.LAST),
        (3, 1, 100, 0, 0),
        (3, 1, 99, 4, 0),
        (3, -1, 101, 0, 0),
        (3, -1, 104, 1, Flag.LAST),
        (5, 1, 100.5, 0, 0),
        (5, 1, 99, 0, 0),
        (5, -1, 104, 0, Flag.LAST),
    ]
    assert run.levels("BTCUSDT-PERP") == ([], [[102 * ONE, 5 * ONE]])
    assert run.feed.mask == mask("l1")


def test_the_first_row_has_its_best(write: Write) -> None:
    from microrisk.core import Engine

    feed, engine = open_feed([write(SNAPSHOT_2, FIRST)]), Engine(always_open=True)
    engine.record_bbo()
    while feed.pump(engine):
        pass
    best = engine.take_bbo()
    assert best[["seq", "bid_px", "bid_qty", "ask_px"]].tolist() == [(1, 100 * ONE, 2 * ONE, 101 * ONE)]


def test_quotes(write: Write, replayed: Callable[[Any], Any]) -> None:
    rows = [
        at(0, "BTC-USD", "huobi-dm-swap") + "5494,8629.3,8629.2,806",
        at(9, "BTC-USD", "huobi-dm-swap") + "5493,8629.3,,",
    ]
    run = replayed(open_feed([write(QUOTES, *rows)]))
    assert run.feed.instruments()[0].id == "BTC-USD.HUOBI"
    assert run.levels("BTC-USD") == ([], [[862_930_000_000, 5493 * ONE]])
    assert run.feed.mask == mask("l1")


def test_trades_have_no_book(write: Write, replayed: Callable[[Any], Any]) -> None:
    rows = [at(0) + "abc-1,buy,100,2", at(1) + "77,sell,100.5,1.5", at(1) + ",unknown,100,1"]
    run = replayed(open_feed([write(TRADES, *rows)]))
    assert run.rows("action", "side", "px", "qty", "ref", "seq", "flags") == [
        (Action.TRADE, -1, 100 * ONE, 2 * ONE, 0, 1, Flag.LAST),
        (Action.TRADE, 1, 10_050_000_000, 150_000_000, 77, 2, Flag.LAST),
        (Action.TRADE, 0, 100 * ONE, ONE, 0, 3, Flag.LAST),
    ]
    assert run.engine.instruments().tolist() == []
    assert run.feed.mask == mask("trades")


def test_files_side_by_side(write: Write, replayed: Callable[[Any], Any]) -> None:
    """Trades between the book's messages in the order of arrival; days after one another; one book an instrument."""
    book = write(INCREMENTAL, *BOOK, at(9) + "false,bid,100,4", name="deribit_book_2020-04-01_X.csv")
    later = write(INCREMENTAL, at(90) + "true,bid,98,1", name="deribit_book_2020-04-02_X.csv.gz", packed=0)
    trades = write(TRADES, at(5) + "1,buy,101,1", at(95) + "2,buy,101,1", name="deribit_trades_2020-04-01_X.csv")
    quotes = write(QUOTES, at(7) + "1,101,100,1", name="deribit_quotes_2020-04-01_X.csv")
    run = replayed(open_feed([quotes, book, later, trades]))
    assert (run.feed.messages, run.found) == (8, {"skipped": 1})
    assert "deribit_quotes_2020-04-01_X.csv is skipped" in run.feed.notices[0]
    assert [(int(a), ref) for a, ref in run.rows("action", "ref")][4:] == [(7, 1), (2, 0), (6, 0), (2, 0), (7, 2)]
    assert run.levels("BTC-PERPETUAL") == ([[98 * ONE, ONE]], [])
    assert run.feed.mask == mask("l1", "l5", "l10", "trades")
    assert [seq for (seq,) in run.rows("seq")][-3:] == [5, 5, 2]


NAMES = {
    ("binance", "BTCUSDT"): "BTCUSDT.BINANCE",
    ("binance-futures", "BTCUSDT_210625"): "BTCUSDT_210625.BINANCE",
    ("bitmex", "XBTUSD"): "XBTUSD.BITMEX",
    ("huobi-dm-linear-swap", "BTC-USDT"): "BTC-USDT.HUOBI",
    ("binance-us", "BTCUSD"): "BTCUSD.BINANCEUS",
    ("cryptofacilities", "PI_XBTUSD"): "PI_XBTUSD.KRAKEN",
    ("okex-swap", "BTC-USD-SWAP"): "BTC-USD-SWAP.OKEX",
}


def test_names_of_instruments(write: Write, replayed: Callable[[Any], Any]) -> None:
    rows = [at(0, symbol, exchange) + "1,buy,1,1" for exchange, symbol in NAMES]
    feed = replayed(open_feed([write(TRADES, *rows)])).feed
    assert [i.id for i in feed.instruments().values()] == list(NAMES.values())
    given = replayed(open_feed([write(TRADES, *rows[:1])], venue="HERE")).feed
    assert given.instruments()[0].id == "BTCUSDT.HERE"


BAD_LEVELS = {
    "missing cell": at(9) + "false,bid,100",
    "one cell more": at(9) + "false,bid,100,1,1",
    "unknown side": at(9) + "false,buy,100,1",
    "unknown kind": at(9) + "maybe,bid,100,1",
    "negative amount": at(9) + "false,bid,100,-1",
    "price as a word": at(9) + "false,bid,low,1",
    "time as a word": at(9).replace(str(US + 9), "now") + "false,bid,100,1",
    "time of the far future": at(9).replace(str(US + 59), "9" * 18) + "false,bid,100,1",
    "finer than the unit": at(9) + "false,bid,100,0.000000001",
    "garbage": "deribit,BTC-PERPETUAL,\x00\xff",
}


@pytest.mark.parametrize("bad", BAD_LEVELS.values(), ids=BAD_LEVELS.keys())
def test_a_bad_row_marks_its_book(bad: str, write: Write, replayed: Callable[[Any], Any]) -> None:
    other = [row.replace("BTC-PERPETUAL", "ETH-PERPETUAL") for row in BOOK]
    rows = [*other, *BOOK, at(5) + "false,bid,100,8", bad, at(10) + "false,ask,101,1"]
    run = replayed(open_feed([write(INCREMENTAL, *rows)]))
    assert (run.found, run.feed.messages) == ({"malformed": 1}, 9)
    assert run.levels("BTC-PERPETUAL") == ([[100 * ONE, 8 * ONE], [9_950_000_000, ONE]], [[101 * ONE, ONE]])
    assert (run.suspect("BTC-PERPETUAL"), run.suspect("ETH-PERPETUAL")) == (True, False)
    assert "row 8" in run.feed.notices[-1]
    healed = replayed(open_feed([write(INCREMENTAL, *rows, at(20) + "true,bid,100,1")]))
    assert not healed.suspect("BTC-PERPETUAL")


def test_a_bad_row_inside_an_image(write: Write, replayed: Callable[[Any], Any]) -> None:
    run = replayed(open_feed([write(INCREMENTAL, BOOK[0], at(0) + "true,bid,x,1", BOOK[2])]))
    assert (run.found, run.suspect("BTC-PERPETUAL")) == ({"malformed": 1}, True)
    large = replayed(open_feed([write(INCREMENTAL, *BOOK, at(9) + "false,bid,100,1e12")]))
    assert (large.found, large.suspect("BTC-PERPETUAL")) == ({"px_range": 1, "malformed": 1}, True)


BAD_IMAGES = {
    "half a level": image(9, "101", "", "100", "2", "102", "3", "99", "4"),
    "out of order": image(9, "101", "1", "99", "2", "102", "3", "100", "4"),
    "level twice": image(9, "101", "1", "100", "2", "101", "3", "99", "4"),
    "empty level": image(9, "101", "0", "100", "2", "102", "3", "99", "4"),
    "negative amount": image(9, "101", "-1", "100", "2", "102", "3", "99", "4"),
    "missing cells": image(9, "101", "1", "100", "2"),
}


@pytest.mark.parametrize("bad", BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
def test_the_row_behind_a_bad_image_heals(bad: str, write: Write, replayed: Callable[[Any], Any]) -> None:
    run = replayed(open_feed([write(SNAPSHOT_2, FIRST, bad)]))
    assert (run.found, run.suspect("BTCUSDT-PERP")) == ({"malformed": 1}, True)
    healed = replayed(open_feed([write(SNAPSHOT_2, FIRST, bad, FIRST)]))
    assert (healed.found, healed.suspect("BTCUSDT-PERP")) == ({"malformed": 1}, False)
    assert healed.rows("action").count((Action.CLEAR,)) == 2


def test_bad_trades(write: Write, replayed: Callable[[Any], Any]) -> None:
    rows = ["1,bid,100,1", "1,buy,100,0", "1,buy,100,-1", "1,buy,,1", "1,buy,100"]
    run = replayed(open_feed([write(TRADES, *(at(0) + row for row in rows), at(0) + "1,buy,100,1")]))
    assert (run.found, run.feed.messages, len(run.events)) == ({"malformed": 5}, 6, 1)
    nameless = replayed(open_feed([write(TRADES, at(0, symbol="") + "1,buy,100,1", at(0) + "1,buy,100,1")]))
    assert nameless.found == {"malformed": 1}


def test_cut_empty_and_of_no_use(write: Write, replayed: Callable[[Any], Any]) -> None:
    rows = [at(i) + f"{i * i},buy,100,{i + 1}" for i in range(500)]
    run = replayed(open_feed([write(TRADES, *rows, name="cut.csv.gz", packed=200)]))
    assert run.found == {"malformed": 1}
    assert 300 < run.feed.messages < 500
    assert "breaks off" in run.feed.notices[-1]
    with pytest.raises(FeedError, match="no whole tardis message"):
        replayed(open_feed([write(TRADES)]))
    with pytest.raises(FeedError, match="empty"):
        open_feed([write("")], format="tardis")
    with pytest.raises(UsageError, match="images"):
        open_feed([write(TRADES, *rows)], snapshot=write(TRADES, name="image.csv"))
    with pytest.raises(UsageError, match="no Tardis file"):
        open_feed([write(COMMON + "funding_timestamp,funding_rate", at(0) + "1,2")])
    with pytest.raises(UsageError, match="no Tardis file"):
        open_feed([write(TRADES, *rows, name="bitmex_liquidations_2020-01-01_X.csv")])
    both = [write(TRADES, *rows, name="a.csv"), write(TRADES, name="b_liquidations.csv")]
    assert "left out" in replayed(open_feed(both)).feed.notices[0]


def test_windows_line_ends_and_a_mark(write: Write, replayed: Callable[[Any], Any], tmp_path: Path) -> None:
    path = write(INCREMENTAL, *BOOK)
    (tmp_path / "crlf.csv").write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    a, b = (replayed(open_feed([p])) for p in (path, tmp_path / "crlf.csv"))
    assert a.events.tobytes() == b.events.tobytes()


def test_kinds_are_told_by_the_header() -> None:
    assert kind_of("exchange,symbol,timestamp", "x") is None
    wide = SNAPSHOT_2 + ",asks[2].price,asks[2].amount,bids[2].price"
    assert kind_of(wide, "x") is None
    kind = kind_of(SNAPSHOT_2, "x")
    assert kind is not None
    assert (kind.name, kind.depth, kind.width) == ("book_snapshot_2", 2, 12)


def test_difference_of_sides() -> None:
    old, new = {100: 1, 99: 2, 98: 3}, {101: 5, 100: 1, 98: 4}
    assert list(difference(old, new, 1, 3)) == [(99, 0, 0), (101, 5, 0), (98, 4, 0)]
    assert list(difference(old, {102: 1, 101: 1, 100: 1}, 1, 3))[:2] == [(99, 0, PUSHED), (98, 0, PUSHED)]
    assert list(difference(old, {}, 1, 3)) == [(100, 0, 0), (99, 0, 0), (98, 0, 0)]


# -- samples ------------------------------------------------------------------------------------------------------


def units(text: str) -> int:
    return int(Decimal(text) * ONE)


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def naive_images(path: Path, names: list[tuple[str, str, str, str]]) -> Iterator[tuple[int, Any, Any]]:
    """Each row as the whole book; `names` are the columns of ask price and amount, bid price and amount."""
    for number, row in enumerate(table(path), 1):
        bids = [[units(row[bid]), units(row[size])] for _, _, bid, size in names]
        yield number, bids, [[units(row[ask]), units(row[size])] for ask, size, _, _ in names]


def columns(depth: int) -> list[tuple[str, str, str, str]]:
    return [tuple(f"{s}[{i}].{w}" for s in ("asks", "bids") for w in ("price", "amount")) for i in range(depth)]  # type: ignore[misc]


SAMPLES = {
    "binance-futures_book_snapshot_25_BTCUSDT.csv": columns(25),
    "binance-futures_book_snapshot_5_BTCUSDT.csv": columns(5),
    "huobi-dm-swap_quotes_BTC-USD.csv": [("ask_price", "ask_amount", "bid_price", "bid_amount")],
}


@pytest.mark.realdata
@pytest.mark.parametrize("name", SAMPLES)
def test_samples_of_images(name: str, data_dir: Path, book_after_every_message: Callable[..., Any]) -> None:
    path = data_dir / "tardis_csv_samples" / name
    feed = open_feed([path])
    books = {seq: (bids, asks) for _, seq, bids, asks in book_after_every_message(feed)}
    wanted = {seq: (bids, asks) for seq, bids, asks in naive_images(path, SAMPLES[name])}
    held = None
    for seq in wanted:
        held = books.get(seq, held)  # a row that changes nothing has no event
        assert held == wanted[seq]
    assert (feed.messages, feed.drain()) == (10, [])


@pytest.mark.realdata
def test_other_samples(data_dir: Path, replayed: Callable[[Any], Any]) -> None:
    folder = data_dir / "tardis_csv_samples"
    path = folder / "deribit_incremental_book_L2_BTC-PERPETUAL.csv"
    run = replayed(open_feed([path]))
    asks = sorted([units(row["price"]), units(row["amount"])] for row in table(path))
    assert (run.feed.messages, run.found, run.levels("BTC-PERPETUAL")) == (15, {}, ([], asks))
    path = folder / "bitmex_trades_XBTUSD.csv"
    run = replayed(open_feed([path]))
    wanted = [({"buy": -1, "sell": 1}[r["side"]], units(r["price"]), units(r["amount"])) for r in table(path)]
    assert (run.feed.messages, run.rows("side", "px", "qty")) == (10, wanted)


@pytest.mark.realdata
def test_all_samples_at_once(data_dir: Path, replayed: Callable[[Any], Any]) -> None:
    run = replayed(open_feed([data_dir / "tardis_csv_samples"]))
    assert (run.feed.messages, run.found) == (55, {"skipped": 10})
    assert sorted(i.id for i in run.feed.instruments().values()) == [
        "BTC-PERPETUAL.DERIBIT",
        "BTC-USD.HUOBI",
        "BTCUSDT-PERP.BINANCE",
        "XBTUSD.BITMEX",
    ]
    times = [ts for _, group in groupby(run.rows("ts_recv")) for (ts,) in group]
    assert times == sorted(times)
