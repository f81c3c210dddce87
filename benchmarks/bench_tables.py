"""ITCH file to Parquet, ours beside itch-book's own converter: python -m benchmarks.bench_tables --messages 4e6.

Whole processes, user and system seconds of all their threads. Both write zstd Parquet of every name: best prices, then
depth 10. Theirs is `python -m itch_book convert` without hashing the input and with integer prices, the fastest that it
documents (its tables have the number of orders at each level too); ours is `python -m microrisk replay`. Beside them
the same processes on the stream's directory alone (their start-up), and processes that make the same rows in memory and
write none: rows less start-up is what is left when start-up and Parquet encoding are taken off both sides.

The files are compared row by row (sequence, time, name, prices, sizes; with depth every level), so the path of every
name is the same. Both rules: at most one row a message, a replace is one step, only when a price or size differs from
the name's last row; an empty side is null here and 0 there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.daystream import LIVES, REFS, cached_day
from benchmarks.measure import machine, save, spread
from benchmarks.workloads import itch_stream
from microrisk.pipeline import replay

pytestmark = pytest.mark.benchmark(group="tables")

DATE = "2025-01-06"
DEPTH = 10
# a small process in between: the peak memory of a child begins with that of the process that starts it
LAUNCH = """
import json, os, subprocess, sys, time
start = time.perf_counter()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(child.pid, 0)
child.returncode = os.waitstatus_to_exitcode(status)
print(json.dumps([used.ru_utime + used.ru_stime, time.perf_counter() - start, used.ru_maxrss]))
sys.exit(child.returncode)
"""
OURS_ROWS = """
import sys
from microrisk.pipeline.spine import Source, Spine
spine = Spine(Source((sys.argv[1],), format="itch50", date="2025-01-06"))
depth = int(sys.argv[2])
spine.engine.record_depth(depth) if depth else spine.engine.record_bbo()
n = 0
for _ in spine.chunks():
    n += len(spine.engine.take_depth()[0] if depth else spine.engine.take_bbo())
print(n)
"""
THEIR_ROWS = """
import datetime, sys
import itch_book
depth = int(sys.argv[2])
feed = itch_book.Feed(sys.argv[1], date=datetime.date(2025, 1, 6), price_type="fixed")
n = 0
for batch in feed.batches(tables=("depth",) if depth else ("bbo",), depth=depth or 10):
    n += len((batch.depth if depth else batch.bbo)["seq"])
print(n)
"""


def run(command: Sequence[object]) -> dict[str, float]:
    """CPU and wall seconds and peak memory (MB) of one process with all its threads."""
    done = subprocess.run([sys.executable, "-IS", "-c", LAUNCH, *map(str, command)], capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr[-2000:].decode()}")
    found = json.loads(done.stdout)
    return {"cpu_s": found[0], "wall_s": found[1], "rss_mb": found[2] / 1024}


def commands(path: Path, out: Path, depth: int) -> dict[str, list[object]]:
    """What each contender runs for one table; depth 0 = best prices."""
    table = ["--tables", "depth", "--depth", depth] if depth else ["--tables", "bbo"]
    ours = ["--book", out / "ours.parquet", "--depth", depth] if depth else ["--bbo", out / "ours.parquet"]
    options = ["--date", DATE, "--no-md5", "--price-type", "fixed"]
    return {
        "ours": [
            sys.executable,
            "-m",
            "microrisk",
            "replay",
            path,
            "--format",
            "itch50",
            "--date",
            DATE,
            *ours,
            "--json",
        ],
        "itch-book": [sys.executable, "-m", "itch_book", "convert", path, out / "theirs", *table, *options],
        "ours_rows": [sys.executable, "-c", OURS_ROWS, path, depth],
        "itch-book_rows": [sys.executable, "-c", THEIR_ROWS, path, depth],
    }


def head_of(path: Path, out: Path) -> Path:
    """The stream's first messages (the directory) as a file of its own: what a process costs before it has work."""
    with path.open("rb") as file:
        data = file.read(1 << 20)
    end = 0
    while end + 2 <= len(data) and data[end + 2 : end + 3] in (b"S", b"R", b"H", b""):
        end += 2 + int.from_bytes(data[end : end + 2], "big")
    target = out / "head.itch"
    target.write_bytes(data[:end])
    return target


def measure(path: Path, depth: int, rounds: int) -> dict[str, Any]:
    """Rounds of all contenders on one table; ratios are made inside a round."""
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="tables-") as folder:
        out = Path(folder)
        full, head = commands(path, out, depth), commands(head_of(path, out), out, depth)
        sizes: dict[str, int] = {}
        for _ in range(rounds):
            for name, command in head.items():
                found.setdefault(f"{name}_start", []).append(run(command))
            for name, command in full.items():
                found.setdefault(name, []).append(run(command))
            sizes = {"ours": (out / "ours.parquet").stat().st_size, "itch-book": _theirs(out, depth).stat().st_size}
        rows = compare(out / "ours.parquet", _theirs(out, depth), depth)
        writer = by_pyarrow(out / "ours.parquet", out / "again.parquet")
    ratios = _ratios(found)
    cpu = ratios["cpu_s"]
    ours = {"cpu_s": cpu["ours"]["median"] - cpu["ours_rows"]["median"], "bytes": sizes["ours"]}
    with_it = cpu["ours_rows"]["median"] + writer["cpu_s"]
    writer["ratio_whole"] = float(f"{cpu['itch-book']['median'] / with_it:.3g}")
    return {"rows": rows, "bytes": sizes, "encoding": {"ours": ours, "pyarrow": writer}, **ratios}


def by_pyarrow(path: Path, out: Path) -> dict[str, float]:
    """CPU seconds and bytes of pyarrow's writer for the same rows, which it gets as finished Arrow tables.

    Making those tables out of the engine's records is not counted, so this is the least that it could cost.
    """
    file, spent = pq.ParquetFile(path), 0.0
    with pq.ParquetWriter(out, file.schema_arrow, compression="zstd", compression_level=1) as writer:
        for i in range(file.num_row_groups):
            table = file.read_row_group(i)
            start = time.process_time()
            writer.write_table(table, row_group_size=table.num_rows)
            spent += time.process_time() - start
    return {"cpu_s": round(spent, 2), "bytes": out.stat().st_size}


def _theirs(out: Path, depth: int) -> Path:
    return out / "theirs" / ("depth.parquet" if depth else "bbo.parquet")


def _ratios(found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    cpu = {name: np.array([r["cpu_s"] for r in rounds]) for name, rounds in found.items()}
    core = {who: cpu[f"{who}_rows"] - cpu[f"{who}_rows_start"] for who in ("ours", "itch-book")}
    return {
        "ratio_whole": spread((cpu["itch-book"] / cpu["ours"]).tolist()),
        "ratio_without_start_and_parquet": spread((core["itch-book"] / core["ours"]).tolist()),
        "cpu_s": {name: spread(values.tolist()) for name, values in cpu.items()},
        "wall_s": {name: spread([r["wall_s"] for r in rounds]) for name, rounds in found.items()},
        "rss_mb": {name: spread([r["rss_mb"] for r in rounds]) for name, rounds in found.items()},
    }


# -- equality --------------------------------------------------------------------------------------------------------


def _blocks(path: Path, columns: list[str], size: int) -> Iterator[pa.Table]:
    """The file in tables of exactly `size` rows (the last is shorter)."""
    held: list[pa.RecordBatch] = []
    for batch in pq.ParquetFile(path).iter_batches(size, columns=columns):
        held.append(batch)
        while sum(b.num_rows for b in held) >= size:
            whole = (
                pa.Table.from_batches(held)
                if len(held) == 1
                else pa.concat_tables([pa.Table.from_batches([b]) for b in held]).unify_dictionaries()
            )
            yield whole.slice(0, size)
            held = whole.slice(size).to_batches()
    if held:
        yield pa.concat_tables([pa.Table.from_batches([b]) for b in held]).unify_dictionaries()


def _plain(column: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    return np.asarray(column.fill_null(0))


def _names(column: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    whole = column.unify_dictionaries().combine_chunks()
    return np.array([n.split(".")[0] for n in whole.dictionary.to_pylist()], object)[np.asarray(whole.indices)]


def _level_matrix(table: pa.Table, name: str, depth: int) -> np.ndarray[Any, Any]:
    """A list column as (rows, depth), 0 where there is no level."""
    lists = table[name].combine_chunks()
    offsets = np.asarray(lists.offsets)
    lengths = np.diff(offsets)
    out = np.zeros((len(lists), depth), np.int64)
    row = np.repeat(np.arange(len(lists)), lengths)
    out[row, np.arange(lengths.sum()) - np.repeat(offsets[:-1] - offsets[0], lengths)] = np.asarray(lists.flatten())
    return out


def _pairs(ours: pa.Table, theirs: pa.Table, depth: int) -> Iterator[tuple[str, Any, Any]]:
    """What must be equal: name, our values, theirs."""
    yield "seq", _plain(ours["seq"]), _plain(theirs["seq"])
    yield "ts_event", _plain(ours["ts_event"]), _plain(theirs["ts_event"].cast(pa.int64()))
    yield "name", _names(ours["instrument"]), _names(theirs["symbol"])
    for side in ("bid", "ask"):
        if not depth:
            yield f"{side}_px", _plain(ours[f"{side}_px"]), _plain(theirs[f"{side}_px"]).astype(np.int64) * 100_000
            yield f"{side}_qty", _plain(ours[f"{side}_qty"]), _plain(theirs[f"{side}_sz"])
            continue
        px, qty = (_level_matrix(ours, f"{side}_{what}_levels", depth) for what in ("px", "qty"))
        for n in range(depth):
            yield f"{side}_px_{n}", px[:, n], _plain(theirs[_column(side, "px", n)]).astype(np.int64) * 100_000
            yield f"{side}_qty_{n}", qty[:, n], _plain(theirs[_column(side, "sz", n)])


def _column(side: str, what: str, n: int) -> str:
    return f"{side}_{what}_{n:02d}"


def compare(ours: Path, theirs: Path, depth: int) -> int:
    """Rows of both files; AssertionError with the first that differs."""
    mine = ["seq", "ts_event", "instrument"]
    other = ["seq", "ts_event", "symbol"]
    for side in ("bid", "ask"):
        mine += [f"{side}_{w}_levels" for w in ("px", "qty")] if depth else [f"{side}_px", f"{side}_qty"]
        levels = [_column(side, w, n) for n in range(depth) for w in ("px", "sz")]
        other += levels if depth else [f"{side}_px", f"{side}_sz"]
    rows = pq.read_metadata(ours).num_rows
    assert rows == pq.read_metadata(theirs).num_rows, (rows, pq.read_metadata(theirs).num_rows)
    done, size = 0, 1 << (17 if depth else 20)
    for a, b in zip(_blocks(ours, mine, size), _blocks(theirs, other, size), strict=True):
        for name, x, y in _pairs(a, b, depth):
            differ = np.flatnonzero(x != y)
            assert not len(differ), (name, done + int(differ[0]), x[differ[0]], y[differ[0]])
        done += a.num_rows
    assert done == rows
    return rows


# -- commands --------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--messages", type=lambda text: int(float(text)), default=4_000_000)
    parser.add_argument("--lifetime", choices=sorted(LIVES), default="published")
    parser.add_argument("--refs", choices=sorted(REFS), default="dense")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tables", default="bbo,depth")
    parser.add_argument("--save", action="store_true", help="write benchmarks/recorded/tables.json")
    args = parser.parse_args()
    path, truth = cached_day(messages=args.messages, lifetime=args.lifetime, refs=args.refs)
    stream = {k: truth[k] for k in ("messages", "bytes", "live_orders", "books", "sha256")}
    result: dict[str, Any] = {"machine": machine(), "stream": stream | {"lifetime": args.lifetime, "refs": args.refs}}
    for table in args.tables.split(","):
        result[table] = measure(path, DEPTH if table == "depth" else 0, args.rounds)
        _tell(table, result[table])
    if args.save:
        command = f"python -m benchmarks.bench_tables {' '.join(sys.argv[1:])}"
        save("tables", command, result)


def _tell(table: str, found: dict[str, Any]) -> None:
    lines = [f"{table}: {found['rows']:,} equal rows, bytes {found['bytes']}"]
    lines += [f"  {key}: {found[key]}" for key in ("ratio_whole", "ratio_without_start_and_parquet")]
    lines.append(f"  encoding: {found['encoding']}")
    for name, cpu in found["cpu_s"].items():
        lines.append(
            f"  {name:24s} cpu {cpu['median']:8.2f} s [{cpu['low']}, {cpu['high']}]"
            f"  wall {found['wall_s'][name]['median']:7.2f} s  peak {found['rss_mb'][name]['high']:6.0f} MB"
        )
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def test_bbo_to_parquet(benchmark: Any, tmp_path: Path) -> None:
    """In this process: engine, rows and Parquet of best prices."""
    stream = itch_stream()
    path = tmp_path / f"stream_{DATE}.itch"
    path.write_bytes(stream.data)
    result = benchmark.pedantic(lambda: replay(path, bbo=tmp_path / "bbo"), rounds=3)
    assert result.messages == stream.messages
    assert result.outputs["bbo"] > stream.messages // 10
    benchmark.extra_info["messages"] = stream.messages


def test_depth_to_parquet(benchmark: Any, tmp_path: Path) -> None:
    """In this process: engine, rows and Parquet of ten levels a side."""
    stream = itch_stream()
    path = tmp_path / f"stream_{DATE}.itch"
    path.write_bytes(stream.data)
    result = benchmark.pedantic(lambda: replay(path, book=tmp_path / "book", depth=DEPTH), rounds=3)
    assert result.outputs["book"] > stream.messages // 2
    benchmark.extra_info["messages"] = stream.messages


if __name__ == "__main__":
    main()
