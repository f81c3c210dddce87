"""Exports read back by the packages they are for.

Those packages pin versions of their own, so they live in an environment of their own: `nox -s exports` makes it and
runs these tests with MICRORISK_EXPORTS_PYTHON = its interpreter. Without it the files are still read by their
documented layout, and the tests with the real readers say that they were skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from microrisk.errors import EncodeError
from microrisk.feed.base import Instrument
from microrisk.pipeline import convert, replay
from microrisk.pipeline.catalog import CatalogWriter, split
from microrisk.pipeline.changes import Change, Changes, Rows
from microrisk.pipeline.hftbacktest_out import EVENT_DTYPE, EXCH, LOCAL, HftWriter
from microrisk.pipeline.memory import Recorded
from microrisk.pipeline.nautilus_out import NautilusWriter
from microrisk.pipeline.rebuild import Outputs, write_outputs
from microrisk.pipeline.spine import Spine
from microrisk.spec.records import EVENT, Action, Flag
from microrisk.spec.units import NULL_TS, Side

ENTRY = {1: Instrument("X.VENUE", "VENUE", "X", 2, 0)}
READERS = Path(__file__).parents[1] / "exports"


@pytest.fixture(scope="session")
def reader() -> Callable[..., Path]:
    """Run a script of tests/exports where the packages are."""
    python = os.environ.get("MICRORISK_EXPORTS_PYTHON")
    if not python:
        pytest.skip("nautilus_trader and hftbacktest are not here: `nox -s exports` installs them and runs this")

    def run(script: str, *words: str | Path) -> None:
        done = subprocess.run([python, str(READERS / script), *map(str, words)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]

    return run  # type: ignore[return-value]


def best_of(path: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(path).filter(pl.col("instrument").cast(pl.String) == name)


def text(px: int | None, qty: int | None, digits: int, lots: int) -> list[str | None]:
    if px is None or qty is None:
        return [None, None]
    return [f"{Decimal(px).scaleb(-9):.{digits}f}", f"{Decimal(qty).scaleb(-lots):.8f}"]


def same_in_nautilus(
    reader: Any, folder: Path, files: dict[str, Path], name: str, digits: int, lots: int, *, orders: bool = True
) -> int:
    """Best path, queues, trades and quotes as that package sees them equal ours; how many best states."""
    out = folder / "seen.json"
    reader("nautilus_reader.py", folder / "nautilus", name, out)
    seen = json.loads(out.read_text())
    best = best_of(files["bbo"], name).to_dicts()
    bid, ask = ("bid_px", "bid_qty"), ("ask_px", "ask_qty")
    path = [[r["seq"], *(x for a, b in (bid, ask) for x in text(r[a], r[b], digits, lots))] for r in best]
    assert [p[1:] for p in seen["path"]] == [p[1:] for p in path]
    # the end of an image that opens the day is a state of theirs; ours comes with the first news behind it
    # the last change of a batch is the one that is marked, and some end with an event that changes nothing
    late = [b[0] - a[0] for a, b in zip(seen["path"], path, strict=True)][1:]
    assert not any(late) if orders else set(late) <= {0, 1, 2}
    assert seen["sorted"]
    if not orders:
        return len(path)
    resting = pl.read_parquet(files["orders"]).filter(pl.col("instrument").cast(pl.String) == name)
    for half, letter in zip(seen["queues"], "BA", strict=True):
        mine = resting.filter(pl.col("side") == letter)
        assert [o for _, orders in half for o, _ in orders] == [int(i) for i in mine["id"]]
        sizes = [Decimal(size) for _, orders in half for _, size in orders]
        assert sizes == [Decimal(q).scaleb(-lots) for q in mine["qty"]]
    trades = best_of(files["trades"], name)
    assert [Decimal(t[0]).scaleb(9) for t in seen["trades"]] == trades["px"].to_list()
    assert [Decimal(t[1]).scaleb(lots) for t in seen["trades"]] == trades["qty"].to_list()
    words = {"B": "BUYER", "A": "SELLER", "N": "NO_AGGRESSOR"}
    assert [t[2] for t in seen["trades"]] == [words[a] for a in trades["aggressor"].cast(pl.String)]
    assert [t[4] for t in seen["trades"]] == trades["ts_event"].to_list()
    both = [r for r in best if r["bid_px"] is not None and r["ask_px"] is not None]
    assert [Decimal(q[0]).scaleb(9) for q in seen["quotes"]] == [r["bid_px"] for r in both]
    assert [Decimal(q[3]).scaleb(lots) for q in seen["quotes"]] == [r["ask_qty"] for r in both]
    return len(path)


def same_in_hftbacktest(
    reader: Any, folder: Path, bbo: Path, name: str, tick: float, lot: float, *, kind: str = "L3"
) -> int:
    """Best prices and sizes of its backtest at the last row of each time equal ours; how many times."""
    out = folder / "seen.npz"
    reader("hftbacktest_reader.py", folder / "hft" / f"{name}.npz", tick, lot, kind, out)
    seen = np.load(out)
    ends = np.flatnonzero(np.append(np.diff(seen["ts"]) != 0, True))
    ts, found = seen["ts"][ends], seen["found"][ends]
    best = best_of(bbo, name)
    clock = best["ts_event"].fill_null(strategy="forward") if best["ts_recv"].null_count() else best["ts_recv"]
    at = np.searchsorted(clock.to_numpy(), ts, side="right") - 1
    # the end of an image that opens the day is a state of theirs; ours comes with the first news behind it
    ts, found, at = ts[at >= 0], found[at >= 0], at[at >= 0]
    crossed = np.flatnonzero((best["bid_px"] >= best["ask_px"]).fill_null(False).to_numpy())
    open_ = at > (crossed[-1] if len(crossed) else -1)
    ts, found, at = ts[open_], found[open_], at[open_]
    px = best.select("bid_px", "ask_px").to_numpy().astype(float)[at] / 1e9
    qty = best.select("bid_qty", "ask_qty").fill_null(0).to_numpy().astype(float)[at] * lot
    same = np.isclose(found[:, 0::2], px, rtol=1e-12, atol=0, equal_nan=True)
    same &= np.isclose(found[:, 1::2], qty, rtol=1e-9, atol=lot / 100)
    # its depth knows no crossed book: before the opening it moves the other side's best away, until that side changes
    start = int(np.argmax(same.all(axis=1))) if len(crossed) else 0
    assert start <= len(ts) // 1000
    # a time at which an event has begun and not ended is no state of ours
    whole = np.isin(ts, complete_times(bbo.with_name("events.parquet"), name))
    assert np.count_nonzero(whole) > 0.9 * len(ts)
    assert (same.all(axis=1) | ~whole)[start:].all()
    return len(ts) - start


def complete_times(events: Path, name: str) -> np.ndarray[Any, Any]:
    """Times whose last event is complete."""
    frame = best_of(events, name).with_columns(at=pl.coalesce("ts_recv", "ts_event"))
    ends = frame.group_by("at", maintain_order=True).agg(pl.col("flags").last())
    return ends.filter(pl.col("flags") & int(Flag.LAST) != 0)["at"].to_numpy()


def outputs(source: Path | list[Path], folder: Path, **options: str) -> dict[str, Path]:
    files = {k: folder / f"{k}.parquet" for k in ("bbo", "orders", "trades", "events")}
    replay(source, **files, **options)  # type: ignore[arg-type]
    return files


def test_simulated_days_in_the_real_packages(
    reader: Any, itch: Path, tmp_path: Path, exercised: Callable[[str], None]
) -> None:
    files = outputs(itch, tmp_path)
    convert(itch, to="nautilus", out=tmp_path / "nautilus")
    convert(itch, to="hftbacktest", out=tmp_path / "hft")
    for name in ("SIM1.XNAS", "SIM2.XNAS"):
        states = same_in_nautilus(reader, tmp_path, files, name, 4, 0)
        times = same_in_hftbacktest(reader, tmp_path, files["bbo"], name, 1e-4, 1.0)
        exercised(f"{name}: {states} best states equal in nautilus_trader, {times} times equal in hftbacktest")


@pytest.mark.realdata
def test_cme_orders_in_the_real_packages(
    reader: Any, data_dir: Path, tmp_path: Path, exercised: Callable[[str], None]
) -> None:
    source = sorted((data_dir / "databento_cme_es").glob("esh4*.dbn.zst"))
    files = outputs(source, tmp_path)
    convert(source, to="nautilus", out=tmp_path / "nautilus")
    convert(source, to="hftbacktest", out=tmp_path / "hft")
    states = same_in_nautilus(reader, tmp_path, files, "ESH4.GLBX", 9, 0)
    times = same_in_hftbacktest(reader, tmp_path, files["bbo"], "ESH4.GLBX", 0.25, 1.0)
    exercised(f"ESH4.GLBX: {states} best states equal in nautilus_trader, {times} times equal in hftbacktest")


def levels_feed(n: int = 3_000) -> np.ndarray[Any, Any]:
    """Level updates of one instrument that never cross; batches of three; a new image in the middle."""
    rng = np.random.default_rng(4)
    e = np.zeros(n, EVENT)
    e["instrument"], e["action"], e["ts_recv"] = 1, int(Action.MODIFY), NULL_TS
    e["ts_event"] = 1_700_000_000 * 10**9 + np.arange(n) // 3 * 10**6
    e["seq"], e["side"] = np.arange(n) + 1, rng.choice([1, -1], n)
    e["px"] = 1_000 - e["side"].astype(np.int64) * rng.integers(1, 12, n)
    e["qty"] = rng.integers(0, 4, n)
    e["flags"] = np.where(np.arange(n) % 3 == 2, int(Flag.LAST), 0)
    e["action"][n // 2 - n // 2 % 3] = int(Action.CLEAR)
    return e


def test_levels_in_the_real_packages(reader: Any, tmp_path: Path, exercised: Callable[[str], None]) -> None:
    files = {k: tmp_path / f"{k}.parquet" for k in ("bbo", "orders", "trades", "events")}
    spine = Spine(Recorded(levels_feed(), ENTRY))
    write_outputs(spine, Outputs(**files))
    for kind in ("bbo", "events"):
        writer = NautilusWriter(tmp_path / "nautilus", lambda _: ENTRY[1])
        split(files[kind], kind, tmp_path, writer)
    split(files["events"], "events", tmp_path, HftWriter(tmp_path / "hft", lambda _: ENTRY[1]))
    states = same_in_nautilus(reader, tmp_path, files, "X.VENUE", 2, 0, orders=False)
    times = same_in_hftbacktest(reader, tmp_path, files["bbo"], "X.VENUE", 0.01, 1.0, kind="L2")
    exercised(f"levels: {states} best states equal in nautilus_trader, {times} times equal in hftbacktest")


# -- without the packages: the documented layouts ---------------------------------------------------------------------


def fixed(cell: bytes) -> Decimal:
    return Decimal(int.from_bytes(cell, "little", signed=True)).scaleb(-16)


def test_nautilus_files_have_the_layout_of_its_catalog(itch: Path, tmp_path: Path) -> None:
    result = convert(itch, to="nautilus", out=tmp_path / "cat")
    assert len(result.files) == 6
    for path in map(Path, result.files):
        data, kind, name = path.relative_to(tmp_path / "cat").parts[:3]
        assert (data, name) in {("data", "SIM1.XNAS"), ("data", "SIM2.XNAS")}
        table = pq.read_table(path)
        meta = {k.decode(): v.decode() for k, v in table.schema.metadata.items()}
        assert meta["instrument_id"] == name
        assert (meta["price_precision"], meta["size_precision"]) == ("4", "0")
        init = table["ts_init"].to_pylist()
        assert init == sorted(init)
        first, last = path.stem.split("_")
        assert first.endswith(f"{init[0] % 10**9:09d}Z")
        assert last.endswith(f"{init[-1] % 10**9:09d}Z")
        if kind == "quote_tick":
            replay(itch, bbo=tmp_path / "bbo")
            both = best_of(tmp_path / "bbo", name).drop_nulls(["bid_px", "ask_px"])
            assert [fixed(b) for b in table["ask_price"].to_pylist()] == [Decimal(p).scaleb(-9) for p in both["ask_px"]]
            assert [int(fixed(b)) for b in table["bid_size"].to_pylist()] == both["bid_qty"].to_list()


def test_hftbacktest_files_are_event_arrays(itch: Path, tmp_path: Path) -> None:
    convert(itch, to="hftbacktest", out=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["SIM1.XNAS.npz", "SIM2.XNAS.npz"]
    data = np.load(tmp_path / "SIM1.XNAS.npz")["data"]
    assert data.dtype == EVENT_DTYPE
    assert data.dtype.itemsize == 64
    assert (data["ev"] & (EXCH | LOCAL) == EXCH | LOCAL).all()
    assert set((data["ev"] & 0xFF).tolist()) <= {2, 10, 11, 12, 13}
    replay(itch, trades=tmp_path / "t", events=tmp_path / "e")
    mine = best_of(tmp_path / "t", "SIM1.XNAS")
    assert np.count_nonzero(data["ev"] & 0xFF == 2) == len(mine)
    np.testing.assert_array_equal(data["qty"][data["ev"] & 0xFF == 2], mine["qty"].to_numpy())


def event(action: Action, **fields: int) -> np.ndarray[Any, Any]:
    e = np.zeros(1, EVENT)
    e["action"], e["instrument"], e["ts_recv"], e["flags"], e["side"] = int(action), 1, NULL_TS, int(Flag.LAST), 1
    for name, value in fields.items():
        e[name] = value
    return e


def table_of(events: list[np.ndarray[Any, Any]], folder: Path) -> Any:
    whole = np.concatenate(events)
    whole["seq"] = np.arange(len(whole)) + 1
    write_outputs(Spine(Recorded(whole, ENTRY)), Outputs(events=folder / "events.parquet"))
    return pq.read_table(folder / "events.parquet")


def test_what_an_event_does_in_elementary_changes(tmp_path: Path) -> None:
    rest, kept = int(Flag.LAST), int(Flag.LAST | Flag.PRIORITY_KEPT)
    rows = Rows.of(
        table_of(
            [
                event(Action.ADD, order_id=1, px=10, qty=5),
                event(Action.ADD, order_id=1, px=11, qty=5),  # twice: refused
                event(Action.REDUCE, order_id=1, qty=2),
                event(Action.REDUCE, order_id=9, qty=2),  # nobody knows it
                event(Action.MODIFY, order_id=1, px=10, qty=2),
                event(Action.MODIFY, order_id=1, px=10, qty=4),  # grows: loses its place
                event(Action.MODIFY, order_id=1, px=10, qty=6, flags=kept),
                event(Action.REPLACE, order_id=1, ref=2, px=12, qty=1, side=0),
                event(Action.REDUCE, order_id=2, qty=7, flags=rest | int(Flag.EXEC)),
                event(Action.MODIFY, order_id=3, px=9, qty=1, flags=0),  # unknown: comes in
                event(Action.DELETE, order_id=3, flags=0),
                event(Action.TRADE, px=9, qty=1),
                event(Action.CLEAR),
                event(Action.MODIFY, px=7, qty=3, side=int(Side.ASK)),
                event(Action.MODIFY, px=7, qty=0, side=int(Side.ASK), flags=0),
            ],
            tmp_path,
        ),
        "X.VENUE",
    )
    c = Changes.of(rows)
    add, update, delete, clear = Change.ADD, Change.UPDATE, Change.DELETE, Change.CLEAR
    nano = 10**7
    arrays = (c.row, c.kind, c.order_id, c.px // nano, c.qty)
    assert list(zip(*(a.tolist() for a in arrays), strict=True)) == [
        (0, add, 1, 10, 5), (2, update, 1, 10, 3), (4, update, 1, 10, 2), (5, delete, 1, 10, 0), (5, add, 1, 10, 4),
        (6, update, 1, 10, 6), (7, delete, 1, 10, 0), (7, add, 2, 12, 1), (8, delete, 2, 12, 0), (9, add, 3, 9, 1),
        (10, delete, 3, 9, 0), (12, clear, 0, 0, 0), (13, add, 0, 7, 3), (14, delete, 0, 7, 0),
    ]  # fmt: skip
    # events 9 to 11 are one batch, and the last one is not complete
    assert c.last(rows).tolist() == [1, 1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 1, 1, 0]
    assert c.side.tolist() == [1] * 11 + [0, -1, -1]


def test_prices_that_fit_no_nano_are_refused(tmp_path: Path) -> None:
    fine = {1: Instrument("X.VENUE", "VENUE", "X", 12, 0)}
    whole = event(Action.ADD, order_id=1, px=5, qty=5)
    write_outputs(Spine(Recorded(whole, fine)), Outputs(events=tmp_path / "e"))
    with pytest.raises(EncodeError, match="X"):
        Rows.of(pq.read_table(tmp_path / "e"), "X.VENUE")


def test_clocks_that_go_back_are_put_in_order(tmp_path: Path) -> None:
    ts = [(10, 12), (9, 13), (20, 18), (21, 40)]  # the venue's goes back, then is ahead of the recorder's
    events = [event(Action.ADD, order_id=i + 1, px=10 + i, qty=1, ts_event=e, ts_recv=r) for i, (e, r) in enumerate(ts)]
    table = table_of(events, tmp_path)
    writer = HftWriter(tmp_path, lambda _: ENTRY[1])
    found = writer("events", "X.VENUE", [table])
    assert found is not None
    data = np.load(found[0])["data"]
    assert writer.notices == ["X.VENUE: receive times moved by 2 ns, the venue's clock was ahead of them"]
    for flag, clock, expected in ((EXCH, "exch_ts", [9, 10, 20, 21]), (LOCAL, "local_ts", [14, 15, 20, 42])):
        assert data[clock][data["ev"] & flag != 0].tolist() == expected
    assert data["order_id"][data["ev"] & LOCAL != 0].tolist() == [1, 2, 3, 4]


def test_splitting_keeps_order_and_bounds_memory(session: Any, tmp_path: Path) -> None:
    known = {i: Instrument(f"S{i}.X", "X", f"S{i}", 4, 0) for i in range(1, 301)}
    events = session.events.copy()
    events["instrument"] = 1 + np.arange(len(events)) % 300
    write_outputs(Spine(Recorded(events, known)), Outputs(events=tmp_path / "events"))
    files = split(tmp_path / "events", "events", tmp_path / "cat", CatalogWriter(tmp_path / "cat"), held_rows=4_000)
    assert len(files) == 300
    whole = pl.read_parquet(tmp_path / "events")
    assert sum(files.values()) == len(whole)
    for path in list(files)[::37]:
        frame = pl.read_parquet(path)
        mine = whole.filter(pl.col("instrument").cast(pl.String) == Path(path).parent.name)
        assert frame.columns == mine.columns
        assert frame.with_columns(pl.col(pl.Categorical).cast(pl.String)).equals(
            mine.with_columns(pl.col(pl.Categorical).cast(pl.String))
        )
    assert [p.name for p in (tmp_path / "cat").iterdir()] == ["data"]


def test_the_catalog_holds_sampled_books(itch: Path, tmp_path: Path, run: Callable[..., Any]) -> None:
    words = ["--to", "parquet", "--types", "book", "--depth", "2", "--every", "1s", "--out", tmp_path, "--json"]
    code, out, _ = run("convert", itch, *words)
    assert code == 0
    replay(itch, book=tmp_path / "whole", depth=2, every_ns=10**9)
    whole = pl.read_parquet(tmp_path / "whole")
    assert sum(out["files"].values()) == len(whole)
    assert {Path(p).parts[-3] for p in out["files"]} == {"samples"}
    assert run("convert", itch, "--to", "parquet", "--types", "ticks", "--out", tmp_path)[0] == 2


def test_a_lobster_export_by_its_own_description(itch: Path, tmp_path: Path) -> None:
    """Columns as LOBSTER documents them, read by polars alone: replaying them gives their own orderbook rows."""
    result = convert(itch, to="lobster", out=tmp_path)
    message = next(p for p in map(Path, result.files) if "SIM1" in p.name and "_message_" in p.name)
    columns = ["time", "type", "id", "size", "price", "direction"]
    kinds = dict(zip(columns, [pl.Float64, *[pl.Int64] * 5], strict=True))
    rows = pl.read_csv(message, has_header=False, schema=kinds)
    assert rows["time"].is_sorted()
    assert set(rows["type"]) <= {1, 2, 3, 4, 5}
    images = np.loadtxt(str(message).replace("_message_", "_orderbook_"), delimiter=",", dtype=np.int64)
    assert images.shape == (len(rows), 40)
    before, seen = np.tile([9999999999, 0, -9999999999, 0], 10), 0
    for (_, kind, _, qty, px, side), image in zip(rows.iter_rows(), images, strict=True):
        at = 0 if side == -1 else 2  # ask price, ask size, bid price, bid size, level by level
        held, now = ({int(p): int(q) for p, q in zip(x[at::4], x[at + 1 :: 4], strict=True)} for x in (before, image))
        if kind != 5 and (px in held or px in now):
            step = qty if kind == 1 else -qty
            # a level may also come into the window or leave it
            assert now.get(px, 0) - held.get(px, 0) == step or len(held) + len(now) == 20
            seen += now.get(px, 0) - held.get(px, 0) == step
        before = image
    assert seen > 0.98 * len(rows.filter(pl.col("type") != 5))
