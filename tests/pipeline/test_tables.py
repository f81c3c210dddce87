"""The tables of a replay against naive twins: rows made one by one in Python from the naive book."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microrisk.book.reference import ReferenceEngine
from microrisk.cli.durations import every, to_ns
from microrisk.core import Engine, Naming, Table
from microrisk.errors import OutputError, UsageError
from microrisk.feed.base import Instrument
from microrisk.market.simulator import Session
from microrisk.pipeline import replay
from microrisk.pipeline.memory import Recorded
from microrisk.pipeline.rebuild import Outputs, paged_sink, write_outputs
from microrisk.pipeline.spine import Source, Spine
from microrisk.pipeline.tables import SCHEMAS, Names
from microrisk.pipeline.thrift import I8, I64, struct
from microrisk.spec.records import EVENT, Action, Flag
from microrisk.spec.units import NULL_PX, NULL_TS, Side

LAST, SNAPSHOT = int(Flag.LAST), int(Flag.SNAPSHOT)
CENT = Instrument("X.VENUE", "VENUE", "X", 2, 0)
FINE = Instrument("Y.VENUE", "VENUE", "Y", 12, 0)
"""Prices finer than 1e-9: what is no multiple of 1000 of them fits no column."""
FEW = {1: CENT, 2: FINE, 3: Instrument("Z.VENUE", "VENUE", "Z", 9, 0)}


def chaos(seed: int, n: int = 4_000) -> np.ndarray[Any, Any]:
    """Events of three instruments, most of them sensible: L3 orders on 1 and 3, levels on 2, snapshots, batches."""
    rng = np.random.default_rng(seed)
    e = np.zeros(n, EVENT)
    e["instrument"] = rng.integers(1, 4, n)
    e["ts_event"] = 10**9 + np.cumsum(rng.integers(0, 60, n)) * 10**6
    e["ts_recv"] = np.where(rng.random(n) < 0.1, NULL_TS, e["ts_event"] + rng.integers(-5, 50, n) * 10**6)
    e["seq"] = np.arange(n, dtype=np.uint64) + np.uint64(2**63 * (seed % 2))
    actions = [Action.ADD, Action.MODIFY, Action.REDUCE, Action.DELETE, Action.REPLACE, Action.TRADE, Action.FILL]
    e["action"] = rng.choice([int(a) for a in actions], n, p=[0.42, 0.1, 0.14, 0.14, 0.1, 0.07, 0.03])
    e["action"][rng.random(n) < 0.002] = int(Action.CLEAR)
    e["action"][rng.random(n) < 0.01] = int(rng.choice([int(Action.NONE), int(Action.STATE)]))
    e["side"] = rng.choice([1, -1], n)
    e["order_id"] = rng.integers(1, 60, n)
    e["ref"] = rng.integers(1, 60, n)
    e["px"] = 1_000 + e["side"].astype(np.int64) * -rng.integers(1, 30, n)
    e["qty"] = rng.integers(1, 9, n)
    levels = e["instrument"] == 2
    e["px"][levels] *= rng.choice([1, 1000], np.count_nonzero(levels), p=[0.1, 0.9])
    e["action"][levels & np.isin(e["action"], [1, 3, 4, 5])] = int(Action.MODIFY)
    e["order_id"][levels] = 0
    e["qty"][levels & (rng.random(n) < 0.4)] = 0
    e["flags"] = LAST
    e["flags"][rng.random(n) < 0.2] = 0
    e["flags"][rng.random(n) < 0.05] |= SNAPSHOT
    executed = np.isin(e["action"], [int(Action.REDUCE), int(Action.TRADE)])
    for flag, share in ((Flag.EXEC, 0.6), (Flag.NO_PRINT, 0.2), (Flag.HIDDEN, 0.2), (Flag.CROSS, 0.1)):
        e["flags"][executed & (rng.random(n) < share)] |= int(flag)
    e["px"][(e["action"] == int(Action.REDUCE)) & (rng.random(n) < 0.5)] = 0
    return e


def written(feed: np.ndarray[Any, Any], folder: Path, **outputs: Any) -> tuple[dict[str, pl.DataFrame], list[str]]:
    """What a run over `feed` writes, by output; and the names by instrument number."""
    asked = {k: folder / f"{k}.parquet" if v is True else v for k, v in outputs.items()}
    spine = Spine(Recorded(feed, FEW))
    rows = write_outputs(spine, Outputs(**asked))
    frames = {k: pl.read_parquet(v) for k, v in asked.items() if isinstance(v, Path)}
    assert rows == {k: len(v) for k, v in frames.items()}
    for frame in frames.values():
        assert frame.width in {len(s) for s in SCHEMAS.values()}
    return frames, [FEW[i].id if i in FEW else "" for i in range(4)]


def nano(px: int, index: int) -> int | None:
    """Feed units to 1e-9, None when it does not fit or is none."""
    if px == NULL_PX:
        return None
    exp = FEW[index].px_exp
    value = px * 10 ** max(9 - exp, 0)
    step = 10 ** max(exp - 9, 0)
    return value // step if value % step == 0 and abs(value // step) < 2**63 else None


def stamps(e: Any) -> list[Any]:
    recv = int(e["ts_recv"])
    return [int(e["ts_event"]), None if recv == NULL_TS else recv, int(e["seq"]), FEW[int(e["instrument"])].id]


def rows_of(frame: pl.DataFrame) -> list[list[Any]]:
    cats = [c for c, t in frame.schema.items() if t == pl.Categorical]
    return [list(r) for r in frame.with_columns(pl.col(c).cast(pl.String) for c in cats).iter_rows()]


# -- twins -----------------------------------------------------------------------------------------------------------


class Naive:
    """Every output from the naive book, one event at a time."""

    def __init__(self, events: np.ndarray[Any, Any], depth: int, every_ns: int) -> None:
        self.depth, self.every_ns = depth, every_ns
        self.engine = ReferenceEngine()
        self.bbo: list[list[Any]] = []
        self.book: list[list[Any]] = []
        self.samples: list[list[Any]] = []
        self.trades: list[list[Any]] = []
        self.events: list[list[Any]] = []
        self.stable: dict[int, tuple[Any, Any]] = {}  # instrument -> stamps and image of its last complete event
        self.sampled: dict[int, Any] = {}
        self.shown: dict[int, Any] = {}
        self.best: dict[int, Any] = {}
        self.grid: int | None = None
        for i in range(len(events)):
            self.one(events[i : i + 1])
        for index in sorted(self.stamps_now):
            self.complete(index, self.stamps_now[index])
        self.sample()

    stamps_now: dict[int, list[Any]]

    def image(self, index: int) -> tuple[Any, Any]:
        bids, asks = self.engine.levels(index, self.depth)
        return tuple(map(tuple, bids.tolist())), tuple(map(tuple, asks.tolist()))

    def one(self, event: np.ndarray[Any, Any]) -> None:
        e = event[0]
        index = int(e["instrument"])
        if not hasattr(self, "stamps_now"):
            self.stamps_now = {}
        t = int(e["ts_event"] if e["ts_recv"] == NULL_TS else e["ts_recv"])
        if t > self.engine.now:
            if self.grid is not None and t > self.grid:
                self.sample()
            if self.grid is None or t > self.grid:
                self.grid = -(-t // self.every_ns) * self.every_ns
        self.note(e, index)
        self.engine.run_events(event)
        self.stamps_now[index] = stamps(e)
        if e["flags"] & LAST and not e["flags"] & SNAPSHOT:
            self.complete(index, stamps(e))

    def held(self, e: Any, index: int) -> tuple[int, int, int] | None:
        if e["order_id"]:
            for o in self.engine.orders(index):
                if o["order_id"] == e["order_id"]:
                    return int(o["side"]), int(o["px"]), int(o["qty"])
        elif e["action"] == int(Action.MODIFY):
            for px, qty in self.engine.levels(index)[0 if e["side"] == 1 else 1].tolist():
                if px == e["px"]:
                    return int(e["side"]), px, qty
        return None

    def note(self, e: Any, index: int) -> None:
        action, flags, held = Action(int(e["action"])), int(e["flags"]), self.held(e, index)
        if action in (Action.NONE, Action.STATE):
            return
        side, px, qty = int(e["side"]), int(e["px"]), int(e["qty"])
        if held and action not in (Action.ADD, Action.TRADE, Action.MODIFY):
            side = held[0]
        if action == Action.CLEAR or (px == 0 and action in (Action.REDUCE, Action.DELETE, Action.FILL)):
            px = held[1] if held else NULL_PX
        if held and action == Action.DELETE:
            qty = held[2]
        if held and action == Action.REDUCE:
            qty = min(qty, held[2])
        old = (nano(held[1], index), held[2]) if held else (None, None)
        self.events.append(
            [
                *stamps(e),
                action.name,
                "ANB"[side + 1],
                nano(px, index),
                qty,
                *old,
                int(e["order_id"]),
                int(e["ref"]),
                flags,
            ]
        )
        if flags & (Flag.NO_PRINT | Flag.SNAPSHOT) or qty <= 0:
            return
        if action == Action.TRADE or (action == Action.REDUCE and flags & Flag.EXEC and held):
            ids = [int(e["order_id"]) or None, int(e["ref"]) or None]
            kinds = [bool(flags & Flag.HIDDEN), bool(flags & Flag.CROSS)]
            self.trades.append([*stamps(e), nano(px, index), qty, "BNA"[side + 1], *ids, *kinds])

    def complete(self, index: int, at: list[Any]) -> None:
        image = self.image(index)
        first = [side[0] if side else (NULL_PX, None) for side in image]
        row = [nano(px, index) for px, _ in first] + [qty for _, qty in first]
        if first != self.best.get(index, [(NULL_PX, None)] * 2):
            self.best[index] = first
            self.bbo.append([*at, *row])
        if image != self.shown.get(index, ((), ())):
            self.shown[index] = image
            self.book.append([*at, *row, *self.lists(image, index)])
        self.stable[index] = at, image

    def lists(self, image: Any, index: int) -> list[list[Any]]:
        return [x for side in image for x in ([nano(px, index) for px, _ in side], [qty for _, qty in side])]

    def sample(self) -> None:
        for index, (at, image) in sorted(self.stable.items()):
            if image != self.sampled.get(index, ((), ())):
                self.sampled[index] = image
                first = [side[0] if side else (NULL_PX, None) for side in image]
                row = [nano(px, index) for px, _ in first] + [qty for _, qty in first]
                self.samples.append([self.grid, *at, *row, *self.lists(image, index)])


@pytest.mark.parametrize(("seed", "depth"), [(1, 1), (2, 3), (3, 10), (4, 12)])
def test_every_table_is_that_of_the_naive_book(seed: int, depth: int, tmp_path: Path) -> None:
    events, grid = chaos(seed, 1_000), 100 * 10**6
    naive = Naive(events, depth, grid)
    frames, _ = written(events, tmp_path, bbo=True, book=True, trades=True, events=True, depth=depth)
    for name, frame in frames.items():
        assert rows_of(frame) == getattr(naive, name), name
        assert len(frame) > 20
    (tmp_path / "again").mkdir()
    sampled, _ = written(events, tmp_path / "again", book=True, depth=depth, every_ns=grid)
    found = rows_of(sampled["book"])
    # the stamps of a sample are those of the last event that touched its book
    assert [r[0] for r in found] == [r[0] for r in naive.samples]
    assert [[r[0], *r[4:]] for r in found] == [[r[0], *r[4:]] for r in naive.samples]
    assert len(found) > 50
    # prices of instrument 2 that fit no column
    assert frames["book"].filter(pl.col("ask_qty_levels").list.len() > 0)["ask_px_levels"].explode().null_count() > 0


def test_samples_lie_on_the_grid_and_follow_a_change(itch: Path, tmp_path: Path) -> None:
    ns = 250_000_000
    replay(itch, book=tmp_path / "s", depth=3, every_ns=ns, bbo=tmp_path / "bbo")
    frame = pl.read_parquet(tmp_path / "s")
    assert (frame["ts_sample"] % ns == 0).all()
    assert frame["ts_sample"].is_sorted()
    assert (frame["ts_event"] <= frame["ts_sample"]).all()
    assert frame.select("ts_sample", "instrument").is_unique().all()
    # the best of a sample is the last best price at or before it
    for name in frame["instrument"].cast(pl.String).unique():
        mine = frame.filter(pl.col("instrument").cast(pl.String) == name).sort("ts_sample")
        best = pl.read_parquet(tmp_path / "bbo").filter(pl.col("instrument").cast(pl.String) == name)
        at = np.searchsorted(best["ts_event"].to_numpy(), mine["ts_sample"].to_numpy(), side="right") - 1
        for column in ("bid_px", "ask_px", "bid_qty", "ask_qty"):
            assert mine[column].to_list() == best[column][at.tolist()].to_list()


def test_an_incomplete_event_does_not_reach_a_sample(tmp_path: Path) -> None:
    def level(ms: int, px: int, qty: int, flags: int) -> tuple[Any, ...]:
        return (ms * 10**6, NULL_TS, ms, 0, 0, px, qty, 1, 0, int(Action.MODIFY), int(Side.BID), flags)

    parts = [level(1, 5, 1, LAST), level(2, 6, 1, 0), level(12, 7, 1, LAST), level(25, 8, 1, 0)]
    frames, _ = written(np.array(parts, EVENT), tmp_path, book=True, depth=5, every_ns=10**7)
    rows = frames["book"].select("ts_sample", "bid_qty_levels", "ts_event", "seq").rows()
    assert rows[:2] == [(10**7, [1], 10**6, 1), (2 * 10**7, [1, 1, 1], 12 * 10**6, 12)]
    assert rows[2:] == [(3 * 10**7, [1, 1, 1, 1], 25 * 10**6, 25)]  # the end of the input completes it


# -- pages -----------------------------------------------------------------------------------------------------------


def bbo_file(path: Path, columns: dict[str, list[Any]], *, row_group: int = 1 << 18) -> pq.ParquetFile:
    """Best prices of instrument 3 (1e-9): each row is an L2 level that moves there."""
    n = len(columns["bid_px"])
    e = np.zeros(n, EVENT)
    e["instrument"], e["action"], e["side"], e["flags"] = 3, int(Action.MODIFY), int(Side.BID), LAST
    e["ts_event"], e["ts_recv"], e["seq"] = columns["ts_event"], NULL_TS, columns["seq"]
    e["px"], e["qty"] = columns["bid_px"], columns["bid_qty"]
    engine, names = Engine(always_open=True), Names(FEW)
    engine.record_bbo()
    with paged_sink(path, "bbo", names) as sink:
        sink._row_group = row_group
        for start in range(0, n, 1000):
            engine.run_events(np.ascontiguousarray(e[start : start + 1000]))
            sink.drain(engine)
    return pq.ParquetFile(path)


int64s = st.integers(-(2**63) + 1, 2**63 - 1)


@given(st.lists(st.tuples(int64s, st.integers(0, 2**64 - 1)), min_size=1, max_size=300))
def test_any_times_and_numbers_survive_their_differences(tmp_path_factory: Any, pairs: list[tuple[int, int]]) -> None:
    path = tmp_path_factory.mktemp("delta") / "a.parquet"
    n = len(pairs)
    columns = {"ts_event": [t for t, _ in pairs], "seq": [s for _, s in pairs]}
    columns |= {"bid_px": list(range(1, n + 1)), "bid_qty": [1] * n}
    file = bbo_file(path, columns)
    table = file.read()
    assert table["ts_event"].to_pylist() == columns["ts_event"]
    assert table["seq"].to_pylist() == columns["seq"]
    for name, i in (("ts_event", 0), ("seq", 2)):
        statistics = file.metadata.row_group(0).column(i).statistics
        assert (statistics.min, statistics.max) == (min(columns[name]), max(columns[name]))
    assert pl.read_parquet(path)["seq"].to_list() == columns["seq"]


@pytest.mark.parametrize("distinct", [1, 2, 3, 255, 256, 257, 140_000])
def test_dictionaries_of_any_size(distinct: int, tmp_path: Path) -> None:
    n = max(3 * distinct, 10) if distinct < 1000 else distinct
    px = [1 + (i * 7919) % distinct if distinct < 1000 else i + 1 for i in range(n)]
    px = [p + (k % 2) * 0 for k, p in enumerate(px)]
    qty = list(range(1, n + 1))
    file = bbo_file(tmp_path / "a", {"ts_event": list(range(n)), "seq": list(range(n)), "bid_px": px, "bid_qty": qty})
    table = file.read()
    best = np.maximum.accumulate(np.array(px))
    assert table["seq"].to_pylist() == [i for i in range(n) if i == 0 or best[i] > best[i - 1] or px[i] == best[i]]
    assert table["bid_px"].to_pylist() == best[table["seq"].to_numpy()].tolist()
    encodings = file.metadata.row_group(0).column(6).encodings
    assert ("RLE_DICTIONARY" in encodings) == (distinct > 0)
    assert pl.read_parquet(tmp_path / "a").equals(pl.from_arrow(table))  # type: ignore[arg-type]


def test_row_groups_pages_and_names_that_come_late(itch: Path, tmp_path: Path) -> None:
    replay(itch, bbo=tmp_path / "whole", book=tmp_path / "book", depth=2)
    spine = Spine(Source((str(itch),)))
    spine.engine.record_bbo()
    with paged_sink(tmp_path / "parts", "bbo", spine.names) as sink:
        sink._row_group = 100
        for _ in spine.chunks():
            sink.drain(spine.engine)
    assert pq.ParquetFile(tmp_path / "parts").num_row_groups > 1
    one, other = (pl.read_parquet(tmp_path / name) for name in ("whole", "parts"))
    assert rows_of(one) == rows_of(other)
    for column in pq.read_metadata(tmp_path / "book").row_group(0).to_dict()["columns"]:
        assert column["compression"] == "ZSTD"


def test_an_empty_table_is_a_readable_file(tmp_path: Path) -> None:
    for kind, schema in SCHEMAS.items():
        with paged_sink(tmp_path / kind, kind, Names(FEW)):
            pass
        assert pq.read_schema(tmp_path / kind).equals(schema)
        assert pl.read_parquet(tmp_path / kind).height == 0


def test_types_are_those_of_the_contract(itch: Path, tmp_path: Path) -> None:
    replay(itch, **{k: tmp_path / k for k in ("bbo", "book", "trades", "events")})
    for kind in ("bbo", "book", "trades", "events"):
        assert pq.read_schema(tmp_path / kind).equals(SCHEMAS[kind])
        assert pq.read_table(tmp_path / kind).schema.equals(SCHEMAS[kind])


@pytest.mark.parametrize("kind", ["bbo", "book", "trades", "events"])
def test_other_readers_see_the_same(kind: str, itch: Path, tmp_path: Path) -> None:
    replay(itch, **{kind: tmp_path / kind}, depth=3)
    arrow = pl.from_arrow(pq.read_table(tmp_path / kind))
    assert isinstance(arrow, pl.DataFrame)
    assert rows_of(pl.read_parquet(tmp_path / kind)) == rows_of(arrow)
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed: its reader was not tried")
    found = duckdb.sql(f"select * from read_parquet('{tmp_path / kind}')").fetchall()
    assert [list(r) for r in found] == rows_of(arrow)


def test_a_table_that_cannot_be_written_on_names_its_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nowhere/x"):
        paged_sink(tmp_path / "nowhere" / "x", "bbo", Names(FEW))


def test_what_was_written_stays_when_a_run_breaks(itch: Path, tmp_path: Path) -> None:
    spine = Spine(Source((str(itch),)))
    spine.engine.record_bbo()

    def broken() -> Iterator[None]:
        with paged_sink(tmp_path / "a", "bbo", spine.names) as sink:
            for _ in spine.chunks():
                sink.drain(spine.engine)
            raise KeyError("broke")
        yield

    with pytest.raises(KeyError):
        next(broken())
    assert not (tmp_path / "a").exists()
    assert pl.read_parquet(tmp_path / "a.partial").height > 100


def test_unknown_tables_units_and_depths_are_refused() -> None:
    naming = Naming()
    with pytest.raises(ValueError, match="no table of x"):
        Table("x", naming)
    for exp in (-10, 28):
        with pytest.raises(IndexError):
            naming.set(1, 0, exp)
    with pytest.raises(IndexError):
        naming.set(1 << 20, 0, 9)
    with pytest.raises(ValueError, match="every_ns"):
        Engine().record_samples(5, 0)
    with pytest.raises(UsageError, match="--depth"):
        Outputs(depth=10_001).check()
    with pytest.raises(UsageError, match="--every"):
        Outputs(every_ns=0).check()


def test_memory_does_not_grow_with_the_input(session: Session, tmp_path: Path) -> None:
    """The core's blocks reach their size with the first chunks and stay there."""
    spine = Spine(Recorded(session.events, {i: Instrument(f"S{i}.X", "X", f"S{i}", 4, 0) for i in range(1, 9)}))
    spine.engine.record_bbo()
    spine.engine.record_prints()
    spine.engine.record_deeds()
    grown = []
    tables = [paged_sink(tmp_path / k, k, spine.names) for k in ("bbo", "trades", "events")]
    for _ in spine.chunks():
        for sink in tables:
            sink.drain(spine.engine)
        grown.append(spine.engine.allocations)
    assert len(grown) > 2
    assert grown[-1] == grown[1]
    for sink in tables:
        sink.close()


# -- command line ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ns"),
    [("100ms", 10**8), ("1s", 10**9), ("250us", 250_000), ("1.5min", 9 * 10**10), ("7 ns", 7), ("1H", 36 * 10**11)],
)
def test_times_on_the_command_line(text: str, ns: int) -> None:
    assert to_ns(text) == ns
    assert every(text) == ns
    assert every("change") is None


@pytest.mark.parametrize("text", ["", "5", "ms", "0s", "-1s", "1.5ns", "1e3s", "999999999h", "changes"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="is no time"):
        every(text)


def test_the_outputs_of_the_command(itch: Path, tmp_path: Path, run: Callable[..., Any]) -> None:
    files = {k: tmp_path / k for k in ("bbo", "book", "trades", "events", "orders")}
    words = [w for k, p in files.items() for w in (f"--{k}", p)]
    code, out, _ = run("replay", itch, *words, "--depth", "2", "--every", "100ms", "--json")
    assert code == 0
    assert out["outputs"] == {k: pq.read_metadata(p).num_rows for k, p in files.items()}
    assert pq.read_schema(files["book"]).names[0] == "ts_sample"
    assert run("replay", itch, "--book", tmp_path / "x", "--every", "soon")[0] == 2


# -- thrift ----------------------------------------------------------------------------------------------------------


def test_compact_structs() -> None:
    assert struct({1: 5, 2: None, 3: I64(-1)}) == b"\x15\x0a\x26\x01\x00"
    assert struct({1: {1: I8(64), 2: False}}) == b"\x1c\x13\x40\x12\x00\x00"
    assert struct({16: "ab"}) == b"\x08\x20\x02ab\x00"
    assert struct({1: [1] * 15}) == b"\x19\xf5\x0f" + b"\x02" * 15 + b"\x00"
    assert struct({1: [], 2: [b"x"]}) == b"\x19\x0c\x19\x18\x01x\x00"


def test_deep_lists_are_cut_into_pages(tmp_path: Path) -> None:
    """A page holds about a million values whatever the depth, so that deep tables need no more memory."""
    n = 1_600
    e = np.zeros(n, EVENT)
    e["instrument"], e["action"], e["side"], e["flags"] = 3, int(Action.MODIFY), int(Side.ASK), LAST
    e["ts_event"], e["ts_recv"], e["seq"] = np.arange(n), NULL_TS, np.arange(n)
    e["px"], e["qty"] = np.arange(1, n + 1), 1
    frames, _ = written(e, tmp_path, book=True, depth=2_000)
    lists = frames["book"]["ask_px_levels"].to_list()
    assert lists == [list(range(1, k + 1)) for k in range(1, n + 1)]
    assert pq.read_table(tmp_path / "book.parquet")["ask_qty_levels"].to_pylist()[-1] == [1] * n
    column = pq.read_metadata(tmp_path / "book.parquet").row_group(0).column(10)
    assert column.num_values == n * (n + 1) // 2 > 1 << 20
