"""Bitstamp order logs: exact numbers, the vectorised orders against a loop over rows, damage, and a real recording."""

from __future__ import annotations

import csv
import gzip
import heapq
import json
import random
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microrisk.core import Engine
from microrisk.errors import FeedError, UsageError
from microrisk.feed import bitstamp_csv, open_feed
from microrisk.feed.bitstamp_csv import HEADER, pair_in_name, read_rows, symbol_of
from microrisk.feed.bitstamp_orders import CHANGED, CREATED, DELETED, ROW, OrderBook, blocks
from microrisk.spec.records import EVENT, Action, Flag, Integrity

ONE = 10**8
MS = 10**6
LAST, EXEC, PRINTED, SNAPSHOT, KEPT = (
    int(f) for f in (Flag.LAST, Flag.EXEC, Flag.NO_PRINT, Flag.SNAPSHOT, Flag.PRIORITY_KEPT)
)


def row(order: int, at: int, action: str, px: str = "100.0", qty: str = "1.0", side: str = "bid") -> str:
    return f"{order},{1000 + at},{at},{px},{qty},{action},{side}"


def log(tmp_path: Path, *rows: str, name: str = "btcusd.csv", end: str = "\n") -> Path:
    path = tmp_path / name
    path.write_bytes("\n".join([HEADER.decode(), *rows]).encode() + end.encode())
    return path


def everything(feed: Any) -> np.ndarray:
    return np.concatenate([np.zeros(0, EVENT), *feed.events()])


def findings(feed: Any) -> dict[str, int]:
    out: Counter[str] = Counter()
    for kind, n, _ in feed.drain():
        out[Integrity(kind).name] += n
    return dict(out)


def pumped(feed: Any, engine: Any) -> dict[str, int]:
    while feed.pump(engine):
        pass
    engine.finish()
    return {k: n for k, n in engine.integrity().items() if n}


def short(events: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(int(e[n]) for n in ("action", "order_id", "side", "px", "qty", "flags")) for e in events]


# -- numbers ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 10**17), st.integers(0, 10**17)), min_size=1, max_size=20))
def test_prices_and_volumes_are_the_decimals_of_their_text(values: list[tuple[int, int]]) -> None:
    texts = [(str(Decimal(p).scaleb(-8)), str(Decimal(q).scaleb(-8))) for p, q in values]
    rows = read_rows("\n".join(f"7,1,1,{p},{q},created,ask" for p, q in texts).encode())
    assert rows["action"].tolist() == [CREATED] * len(values)
    assert list(zip(rows["px"].tolist(), rows["qty"].tolist(), strict=True)) == values


@given(st.floats(1e-8, 1e8).map(lambda x: round(x, 8)).filter(lambda x: x > 0))
def test_the_shortest_text_of_a_float_is_read_as_written(value: float) -> None:
    (one,) = read_rows(f"7,1,1,{value!r},1.0,created,ask".encode())
    expected = Decimal(repr(value)) * ONE
    if expected == int(expected):
        assert int(one["px"]) == expected
    else:
        assert one["action"] == 0


BAD = [
    "x,1,1,1,1,created,bid",
    "1,1,1,1,1,created",
    "1,1,1,1,1,created,bid,9",
    "1,1,1,abc,1,created,bid",
    "1,1,1,1,1e-9,created,bid",
    "1,1,1,,1,created,bid",
    "1,1,1,1,1,moved,bid",
    "1,1,1,1,1,created,left",
    "0,1,1,1,1,created,bid",
    "-4,1,1,1,1,created,bid",
    "1,-1,1,1,1,created,bid",
    "1,1,10000000000000000,1,1,created,bid",
    "1,1,1,1e30,1,created,bid",
    "1,1,1,nan,1,created,bid",
    '"1,1,1,1,1,created,bid',
    "1,1,1,1\xe9,1,created,bid",
    "99999999999999999999999,1,1,1,1,created,bid",
]


@pytest.mark.parametrize("bad", BAD)
def test_a_line_that_is_no_row_costs_only_itself(bad: str) -> None:
    good = "5,1000,10,100.5,2.6e-06,deleted,ask"
    rows = read_rows(f"{good}\n{bad}\n{good}\n".encode("latin-1"))
    assert (rows["action"].tolist(), len(rows)) == ([DELETED, 0, DELETED], 3)
    assert [tuple(r) for r in rows[[0, 2]].tolist()] == [
        (5, 1000 * MS, 10 * MS, 10_050_000_000, 260, 0, DELETED, -1)
    ] * 2


def test_names_of_pairs() -> None:
    assert [symbol_of(p) for p in ("btcusd", "usdteur", "batbtc", "BTCUSDT", "xyzjpy")] == [
        "BTC-USD", "USDT-EUR", "BAT-BTC", "BTC-USDT", "XYZJPY"]  # fmt: skip
    assert [pair_in_name(n) for n in ("orders-ethusd.csv", "btcusd.csv", "orders.csv")] == ["ethusd", "btcusd", None]


# -- orders -----------------------------------------------------------------------------------------------------------

A, M, R, D = int(Action.ADD), int(Action.MODIFY), int(Action.REDUCE), int(Action.DELETE)


def test_a_sweep_is_one_event_that_prints_each_trade_once(tmp_path: Path) -> None:
    """The rows of 2026-05-02 02:36:23.817 in small: a taker over two makers, the second of them filled in part."""
    path = log(
        tmp_path,
        row(1, 10, "created", "100.0", "1.0", "ask"),
        row(2, 11, "created", "101.0", "3.0", "ask"),
        row(9, 12, "created", "105.0", "2.5"),
        row(9, 12, "changed", "100.0", "1.5"),
        row(1, 12, "deleted", "100.0", "0.0", "ask"),
        row(2, 12, "changed", "101.0", "1.5", "ask"),
        row(9, 12, "deleted", "101.0", "0.0"),
    )
    feed, engine = open_feed([path]), Engine(always_open=True)
    assert short(everything(feed)) == [
        (A, 1, -1, 100 * ONE, ONE, LAST),
        (A, 2, -1, 101 * ONE, 3 * ONE, LAST),
        (A, 9, 1, 105 * ONE, 250_000_000, 0),
        (R, 9, 1, 100 * ONE, ONE, EXEC | PRINTED),
        (R, 1, -1, 100 * ONE, ONE, EXEC),
        (R, 2, -1, 101 * ONE, 150_000_000, EXEC),
        (R, 9, 1, 101 * ONE, 150_000_000, EXEC | PRINTED | LAST),
    ]
    assert pumped(open_feed([path]), engine) == {}
    assert [(int(o["order_id"]), int(o["qty"])) for o in engine.orders(0)] == [(2, 150_000_000)]


def test_a_cancelled_order_leaves_from_where_it_rests(tmp_path: Path) -> None:
    rows = (row(1, 10, "created", "100.0"), row(1, 11, "deleted", "99.0"), row(2, 11, "created", "99.0"))
    assert short(everything(open_feed([log(tmp_path, *rows)])))[1] == (D, 1, 1, 100 * ONE, ONE, 0)


def test_amendments_stay_where_they_rest(tmp_path: Path) -> None:
    rows = (row(1, 10, "created"), row(1, 11, "changed", "99.0", "1.0"), row(1, 12, "changed", "99.0", "4.0"))
    events = short(everything(open_feed([log(tmp_path, *rows)])))
    assert events[1:] == [(M, 1, 1, 100 * ONE, ONE, LAST | KEPT), (M, 1, 1, 100 * ONE, 4 * ONE, LAST)]


def test_market_orders_never_rest(tmp_path: Path) -> None:
    path = log(
        tmp_path,
        row(1, 10, "created", "100.0", "1.0", "ask"),
        row(7, 11, "created", "999999999.0", "0.0"),
        row(7, 11, "changed", "100.0", "0.0"),
        row(1, 11, "changed", "100.0", "0.4", "ask"),
        row(7, 11, "deleted", "100.0", "0.0"),
        row(8, 12, "created", "0.0", "1.0", "ask"),
        row(8, 12, "deleted", "0.0", "1.0", "ask"),
    )
    feed = open_feed([path])
    assert short(everything(feed))[1:] == [(R, 1, -1, 100 * ONE, 60_000_000, EXEC | LAST)]
    assert findings(feed) == {"never_rested": 5}


def test_references_that_do_not_resolve_are_counted_and_not_added(tmp_path: Path) -> None:
    rows = (row(1, 10, "created"), row(2, 11, "changed"), row(3, 12, "deleted"), row(1, 13, "created", "98.0"))
    engine = Engine(always_open=True)
    assert pumped(open_feed([log(tmp_path, *rows)]), engine) == {"unknown_order": 2, "duplicate_order": 1}
    assert engine.findings()["order_id"].tolist() == [2, 3, 1]
    assert [(int(o["order_id"]), int(o["px"])) for o in engine.orders(0)] == [(1, 100 * ONE)]


def test_a_first_order_stays_when_its_id_comes_twice(tmp_path: Path) -> None:
    rows = [row(1, 10, "created"), row(1, 11, "created", "98.0", "7.0"), row(1, 12, "created", "97.0", "0.0"),
            row(1, 13, "changed", "100.0", "0.25"), row(1, 14, "deleted", "100.0", "0.0")]  # fmt: skip
    events = short(everything(open_feed([log(tmp_path, *rows)])))
    assert events[3:] == [
        (R, 1, 1, 100 * ONE, 75_000_000, EXEC | LAST),
        (R, 1, 1, 100 * ONE, 25_000_000, EXEC | LAST),
    ]


class Loop:
    """The rules of `bitstamp_orders`, row by row: (action, id, px, qty, executed) of each event, and the counts."""

    def __init__(self) -> None:
        self.rest: dict[int, list[int]] = {}
        self.over: set[int] = set()
        self.events: list[tuple[int, ...]] = []
        self.quiet = 0

    def row(self, r: Any) -> None:
        order, action, px, qty, side = (int(r[n]) for n in ("id", "action", "px", "qty", "side"))
        if action == CREATED and order in self.rest:
            self.events.append((A, order, px, qty, 0))
        elif action == CREATED and (qty == 0 or (px == 0 and side < 0)):
            self.over.add(order)
            self.quiet += 1
        elif action == CREATED:
            self.over.discard(order)
            self.rest[order] = [px, qty]
            self.events.append((A, order, px, qty, 0))
        elif order not in self.rest and order in self.over:
            self.quiet += 1
            if action == DELETED:
                self.over.discard(order)
        elif order not in self.rest:
            self.events.append((D if action == DELETED or qty == 0 else R, order, px, qty, 0))
            if action == CHANGED and qty == 0:
                self.over.add(order)
        else:
            self.known(order, action, px, qty)

    def known(self, order: int, action: int, px: int, qty: int) -> None:
        home, left = self.rest[order]
        if qty == 0:
            self.events.append((R, order, px, left, EXEC))
            del self.rest[order]
            if action == CHANGED:
                self.over.add(order)
        elif action == DELETED:
            self.events.append((D, order, home, left, 0))
            del self.rest[order]
        elif qty < left:
            self.events.append((R, order, px, left - qty, EXEC))
            self.rest[order][1] = qty
        else:
            self.events.append((M, order, home, qty, 0))
            self.rest[order][1] = qty


def random_rows(rng: random.Random, n: int) -> np.ndarray:
    out = np.zeros(n, ROW)
    out["id"] = [rng.randint(1, 12) for _ in range(n)]
    out["event"] = np.cumsum([rng.choice((0, 0, 1)) for _ in range(n)]) * MS
    out["px"] = [rng.choice((0, 1, 2, 3, 4, 5)) * ONE for _ in range(n)]
    out["qty"] = [rng.choice((0, 1, 2, 3)) * ONE for _ in range(n)]
    out["action"] = [rng.choice((CREATED, CREATED, CHANGED, DELETED)) for _ in range(n)]
    out["side"] = [rng.choice((1, -1)) for _ in range(n)]
    out["seq"] = np.arange(1, n + 1)
    return out


def test_whole_blocks_equal_a_loop_over_rows() -> None:
    rng = random.Random(5)
    for _ in range(300):
        rows, loop = random_rows(rng, rng.randint(1, 60)), Loop()
        for r in rows:
            loop.row(r)
        book, events, quiet = OrderBook(0, None), [], 0
        for block in blocks(rows.copy(), rng.choice((1, 3, 1000))):
            out = book.apply(block)
            events.append(out.events)
            quiet += sum(n for _, kind, n in out.findings if kind == Integrity.never_rested)
        got = np.concatenate(events)
        assert [(a, i, p, q, f & EXEC) for a, i, _, p, q, f in short(got)] == loop.events
        assert quiet == loop.quiet
        assert {int(r["id"]): [int(r["px"]), int(r["qty"])] for r in book.resting} == loop.rest
        # each millisecond that has an event has one LAST, on its last event
        moment = got["ts_event"] // MS
        assert (got["flags"] & LAST > 0).tolist() == np.append(moment[1:] != moment[:-1], True)[: len(got)].tolist()


# -- what the recorder made up ----------------------------------------------------------------------------------------


def image(n: int = 100, at: int = 5) -> list[str]:
    bids = [f"{i},9000,{at},{100 - i / 10},1.0,created,bid" for i in range(1, n // 2 + 1)]
    return bids + [f"{1000 + i},9000,{at},{101 + i / 10},1.0,created,ask" for i in range(n - len(bids))]


def test_the_first_rows_are_an_image(tmp_path: Path) -> None:
    e = everything(open_feed([log(tmp_path, *image(), row(7777, 6, "created"))]))
    assert set(e["flags"][:99].tolist()) == {SNAPSHOT}
    assert e["flags"][99:].tolist() == [SNAPSHOT | LAST, LAST]
    few = everything(open_feed([log(tmp_path, *image(20))]))
    assert set(few["flags"].tolist()) == {0, LAST}


def test_meta_says_what_is_made_up_and_which_pair(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text(json.dumps({"pair": "ethbtc", "synthetic_created": 4, "synthetic_deleted": 2}))
    marks = ("1,77,77,100.0,1.0,deleted,bid", "1000,77,77,101.0,1.0,deleted,ask")
    feed = open_feed([log(tmp_path, *image(4), row(5, 6, "created"), *marks, name="orders.csv")])
    e = everything(feed)
    assert (e["action"].tolist(), e["flags"][3]) == ([A] * 5, SNAPSHOT | LAST)
    assert findings(feed) == {"skipped": 2}
    assert feed.instruments()[0].id == "ETH-BTC.BITSTAMP"
    assert "end marks" in feed.notices[-1]


def test_without_meta_the_file_gives_the_name(tmp_path: Path) -> None:
    feed = open_feed([log(tmp_path, row(1, 10, "created"), name="orders.csv")])
    assert feed.instruments()[0].id == "ORDERS.BITSTAMP"
    assert "meta.json" in feed.notices[0]


def test_a_second_file_with_an_image_replaces_the_book(tmp_path: Path) -> None:
    first, second = log(tmp_path, *image(), name="btcusd1.csv"), log(tmp_path, *image(104, 50), name="btcusd2.csv")
    engine, feed = Engine(always_open=True), open_feed([first, second])
    assert pumped(feed, engine) == {}
    assert (engine.live_orders, feed.messages, feed.synthetic) == (104, 204, 1)


def test_trades_beside_the_orders_are_left_out(tmp_path: Path) -> None:
    log(tmp_path, row(1, 10, "created"), name="orders.csv")
    (tmp_path / "trades.csv").write_text("trade_id,timestamp,exchange_timestamp,price\n1,1,1,1.0\n")
    feed = open_feed([tmp_path])
    assert len(everything(feed)) == 1
    assert "left out, not bitstamp: trades.csv" in feed.notices
    with pytest.raises(UsageError, match="its own image"):
        open_feed([tmp_path / "orders.csv"], snapshot=tmp_path / "trades.csv")


# -- damage -----------------------------------------------------------------------------------------------------------


def test_damaged_rows_are_counted_in_their_place(tmp_path: Path) -> None:
    path = log(tmp_path, row(1, 10, "created"), "garbage", row(2, 10, "created", qty="-1.0"), row(3, 10, "created"))
    feed, engine = open_feed([path]), Engine(always_open=True)
    assert pumped(feed, engine) == {"malformed": 2}
    assert (feed.messages, engine.live_orders, engine.suspect(0)) == (4, 2, True)
    assert feed.notices == ["line 2 cannot be read", "line 3 cannot be read"]
    assert everything(open_feed([path]))["flags"].tolist() == [0, LAST]


def test_a_cut_file_keeps_what_came_before(tmp_path: Path) -> None:
    rows = [row(i, 10 + i, "created", f"{i}.5") for i in range(1, 3000)]
    whole = gzip.compress("\n".join([HEADER.decode(), *rows]).encode(), mtime=0)
    (tmp_path / "btcusd.csv.gz").write_bytes(whole[: len(whole) // 2])
    feed, engine = open_feed([tmp_path / "btcusd.csv.gz"]), Engine(always_open=True)
    assert pumped(feed, engine) == {"malformed": 1}
    assert 0 < engine.live_orders == feed.messages < 2999
    assert "breaks off" in feed.notices[-1]


@pytest.mark.parametrize("rows", [[], ["garbage"], ["1,1,1,x,1,created,bid"] * 3])
def test_nothing_to_read_is_an_error(tmp_path: Path, rows: list[str]) -> None:
    with pytest.raises(FeedError, match="no whole bitstamp message"):
        everything(open_feed([log(tmp_path, *rows)], format="bitstamp"))


def test_another_header_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("id,timestamp,exchange_timestamp,price\n1,1,1,1\n")
    with pytest.raises(FeedError, match="first line"):
        everything(open_feed([path]))


def test_windows_line_ends_and_a_missing_last_one(tmp_path: Path) -> None:
    path = log(tmp_path, row(1, 10, "created") + "\r", row(2, 11, "created"), end="")
    path.write_bytes(path.read_bytes().replace(HEADER, HEADER + b"\r", 1))
    assert everything(open_feed([path]))["order_id"].tolist() == [1, 2]


# -- the recording ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recording(data_dir: Path) -> tuple[Path, list[list[str]]]:
    folder = data_dir / "bitstamp_l3_2026"
    with gzip.open(folder / "orders.csv.gz", "rt") as f:
        return folder, list(csv.reader(f))[1:]


MADE_UP = 6518
"""End marks of the recording (README)."""


@pytest.mark.realdata
def test_every_number_of_the_recording_is_exact(recording: tuple[Path, list[list[str]]]) -> None:
    folder, lines = recording
    reader, parts = bitstamp_csv.RowReader(open_source(folder)), []
    while (part := reader.take()) is not None:
        parts.append(part)
    rows = np.concatenate(parts)
    assert Counter(rows["action"].tolist()) == {CREATED: 156_889, DELETED: 156_902, CHANGED: 266}
    expected = [(int(x[0]), int(x[1]) * MS, int(x[2]) * MS, Decimal(x[3]) * ONE, Decimal(x[4]) * ONE) for x in lines]
    columns = [rows[n].tolist() for n in ("id", "recv", "event", "px", "qty")]
    assert list(zip(*columns, strict=True)) == expected


def open_source(folder: Path) -> Any:
    from microrisk.feed.open import Source

    return Source(folder / "orders.csv.gz")


def log_feed(folder: Path, *, find_stale: bool = True) -> Any:
    return bitstamp_csv.BitstampCsvFeed([open_source(folder)], "BITSTAMP", find_stale=find_stale)


@pytest.mark.realdata
def test_the_book_of_the_recording_is_the_recorders_own(recording: tuple[Path, list[list[str]]]) -> None:
    """The end marks list what rested when the recorder stopped; the engine rests the same, to the last unit."""
    folder, lines = recording
    feed, engine = log_feed(folder, find_stale=False), Engine(always_open=True)
    counts = pumped(feed, engine)
    rows = engine.orders(0)
    have = {(int(r["order_id"]), int(r["side"]), int(r["px"]), int(r["qty"])) for r in rows}
    sides = {"bid": 1, "ask": -1}
    last = {(int(x[0]), sides[x[6]], int(Decimal(x[3]) * ONE), int(Decimal(x[4]) * ONE)) for x in lines[-MADE_UP:]}
    assert (have, len(rows)) == (last, MADE_UP)
    assert feed.messages == 314_057
    # 5 market asks and 2 market bids, with all that is said of them
    assert {k: counts[k] for k in ("unknown_order", "skipped", "never_rested")} == {
        "unknown_order": 13, "skipped": 6518, "never_rested": 23}  # fmt: skip
    assert counts["crossed"] > 100_000


@pytest.mark.realdata
def test_best_prices_equal_a_dictionary_at_every_moment(recording: tuple[Path, list[list[str]]]) -> None:
    """An independent book: id -> (side, price, amount), asked at the end of every millisecond."""
    folder, lines = recording
    feed, engine = log_feed(folder, find_stale=False), Engine(always_open=True)
    engine.record_bbo()
    got = []
    while feed.pump(engine):
        got.append(engine.take_bbo())
    bbo = np.concatenate(got)
    columns = [bbo[n].tolist() for n in ("seq", "bid_px", "bid_qty", "ask_px", "ask_qty")]
    assert list(zip(*columns, strict=True)) == naive_bbo(lines)


def naive_bbo(lines: list[list[str]]) -> list[tuple[int, ...]]:
    """(line, bid, size, ask, size) whenever one has changed, from the rows alone."""
    orders: dict[str, tuple[Half, int]] = {}
    left: dict[str, int] = {}
    halves = {"bid": Half(-1), "ask": Half(1)}
    out: list[tuple[int, ...]] = []
    before: tuple[int, ...] = ()
    body = lines[:-MADE_UP]
    for n, (order, _, when, price, amount, action, side) in enumerate(body, 1):
        qty = int(Decimal(amount) * ONE)
        if action == "created":
            px = int(Decimal(price) * ONE)
            if qty and (px or side == "bid"):
                orders[order], left[order] = (halves[side], px), qty
                halves[side].put(px, qty)
        elif order in orders:
            half, px = orders[order]
            half.put(px, (qty if action == "changed" else 0) - left[order])
            left[order] = qty
            if action == "deleted" or qty == 0:
                del orders[order], left[order]
        if n > 6512 and (n == len(body) or body[n][2] != when):
            now = (*halves["bid"].best(), *halves["ask"].best())
            if now != before:
                out.append((n, *now))
            before = now
    return out


class Half:
    """One side: price -> amount, and a heap of prices that may be gone."""

    def __init__(self, sign: int) -> None:
        self.sign, self.sizes, self.heap = sign, Counter[int](), list[int]()

    def put(self, px: int, qty: int) -> None:
        self.sizes[px] += qty
        if self.sizes[px] == qty:
            heapq.heappush(self.heap, px * self.sign)

    def best(self) -> tuple[int, int]:
        while not self.sizes[self.heap[0] * self.sign]:
            heapq.heappop(self.heap)
        px = self.heap[0] * self.sign
        return px, self.sizes[px]


@pytest.mark.realdata
def test_the_fills_are_the_trades_that_the_venue_printed(recording: tuple[Path, list[list[str]]]) -> None:
    folder, _ = recording
    e = everything(log_feed(folder))
    printed = e[(e["action"] == R) & (e["flags"] & EXEC > 0) & (e["flags"] & PRINTED == 0)]
    with (folder / "trades.csv").open() as f:
        trades = list(csv.DictReader(f))
    maker = {"buy": ("sell_order_id", -1), "sell": ("buy_order_id", 1)}
    expected = [
        (
            int(t[maker[t["side"]][0]]),
            maker[t["side"]][1],
            int(Decimal(t["price"]) * ONE),
            int(Decimal(t["amount"]) * ONE),
        )
        for t in trades
    ]
    columns = [printed[n].tolist() for n in ("order_id", "side", "px", "qty")]
    assert list(zip(*columns, strict=True)) == expected
    assert len(expected) == 284


@pytest.mark.realdata
def test_a_replay_names_the_stale_orders_and_is_not_strict_about_crossing(
    recording: tuple[Path, list[list[str]]], tmp_path: Path
) -> None:
    from microrisk.pipeline import replay

    out = replay([str(recording[0])], bbo=tmp_path / "bbo.parquet", orders=tmp_path / "orders.parquet")
    stale = [f for f in out.findings if f["kind"] == "stale_order"]
    assert [(f["order"], f["px"], f["instrument"]) for f in stale] == [
        ("2002347646152704", "78333", "BTC-USD.BITSTAMP"),
        ("2002347642003458", "78374", "BTC-USD.BITSTAMP"),
    ]
    # two seconds of crossing, until both were certain, against 153,626 events with them in the book
    assert (out.integrity["crossed"], out.integrity["stale_order"]) == (536, 2)
    assert (out.strict_exit_code(), out.crossing_excluded) == (0, False)
    # 314,057 rows less 6,518 end marks, 23 rows about market orders, 13 without an order
    assert (out.messages, out.events, out.live_orders) == (314_057, 307_503, 6516)
    assert out.outputs["orders"] == 6516
