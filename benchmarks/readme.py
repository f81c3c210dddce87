"""The speed table of the project's README, between its two marks, out of the records of benchmarks/recorded.

Written by `python -m benchmarks.page`, which writes the long page too. Nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.record import RECORDED, Record, flow, load, number, ranged, table

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- speed: written by python -m benchmarks.page -->", "<!-- end of speed -->"
RIVALS = ("itchcpp", "itch-book")
Row = tuple[str, str, str]


def _books(record: Record) -> Iterator[Row]:
    for s in record["streams"]:
        e = s["engines"]
        beside = ", ".join(f"{n} {number(e[n]['cpu_ns']['median'])} ns ({ranged(e[n]['ratio'], 'x')})" for n in RIVALS)
        yield f"books, {s['stream']}", f"{number(e['microrisk']['cpu_ns']['median'])} ns a message", beside


def _tables(record: Record) -> Iterator[Row]:
    for name, title in (("bbo", "best prices to Parquet"), ("depth", "depth 10 to Parquet")):
        found = record[name]
        ours, theirs = (number(found["cpu_s"][n]["median"]) for n in ("ours", "itch-book"))
        less = ranged(found["ratio_without_start_and_parquet"], "x")
        beside = f"itch-book {theirs} s ({ranged(found['ratio_whole'], 'x')}; less start-up and Parquet {less})"
        yield f"ITCH file, {title}", f"{ours} s CPU, {found['rows'] / 1e6:.1f} M rows", beside


def _memory(record: Record) -> Iterator[Row]:
    for s in record["streams"]:
        last, live = s["passes"][-1], s["truth"]["live_orders"]
        held = f"{number(last['arenas_mb'])} MB of arenas, {number(last['anonymous_mb'])} MB anonymous"
        yield (
            f"memory, {s['stream']}, {live:,} live orders",
            held,
            f"growth over two more days {s['growth_mb']:+.1f} MB",
        )


def _latency(record: Record) -> Iterator[Row]:
    for run in record["sets"][record["quietest"]]["runs"]:
        p50, p99, p999 = (f"{run['latency'][k] / 1000:,.2f}" for k in ("p50", "p99", "p99.9"))
        load = f"paced latency, {run['stage']}, {run['load']:.0%} of capacity, {run['arrivals']}"
        yield load, f"p50 {p50}, p99 {p99}, p99.9 {p999} us", f"{run['rate_per_second']:,} messages/s, from due time"


QUICK = (
    ("parse to records", "messages", ("parse", "microrisk"), {"itchcpp, one object a message": "itchcpp"}),
    ("32 features and codes, a view", "views", ("features", "kernel"), {"the same in float NumPy": "float_form"}),
    ("four heads, a row", "rows", ("heads", "cpu"), {
        "NumPy reference": "reference", "torch on the CPU": "torch_cpu", "isolation forest of 200": "isolation_forest",
    }),
)  # fmt: skip
"""Title, what a cost is of, our row, rivals by title."""


def _quick(record: Record) -> Iterator[Row]:
    by = {(b["group"], b["name"].removeprefix("test_")): b for b in record["benchmarks"]}

    def cost(group: str, name: str, unit: str) -> str:
        ns = by[group, name]["stats"]["median"] * 1e9 / by[group, name]["extra_info"][unit]
        return f"{number(ns)} ns"

    for title, unit, (group, name), rivals in QUICK:
        beside = ", ".join(f"{words} {cost(group, rival, unit)}" for words, rival in rivals.items())
        yield title, cost(group, name, unit), beside
    spine = by["spine", "whole_path"]
    marks = {k: v / 1000 for k, v in spine["extra_info"]["tick_to_alert_ns"].items()}
    rate = spine["extra_info"]["messages"] / spine["stats"]["median"] / 1e6
    low, high = (spine["extra_info"]["messages"] / spine["stats"][k] / 1e6 for k in ("max", "min"))
    words = f"{rate:.2f} M messages/s [{low:.2f}-{high:.2f}]"
    tick = ", ".join(f"{k} {v:.2f}" for k, v in marks.items())
    yield "bytes to alarm decision, every event", words, f"tick to alert {tick} us; no rival does this path"


WRITERS: dict[str, Any] = {
    "books": _books, "tables": _tables, "memory": _memory, "latency": _latency, "bench": _quick
}  # fmt: skip


def speed(folder: Path = RECORDED) -> str:
    """The table, and where it is from."""
    rows, days = [], set()
    for name, write in WRITERS.items():
        if record := load(name, folder):
            rows += list(write(record))
            days.add(record["machine"]["date"] if "machine" in record else record["datetime"][:10])
    words = flow(
        f"""Medians [lowest-highest], taken {" and ".join(sorted(days))} on one core of a two-core virtual machine (AMD
        EPYC); a ratio is the rival's CPU time over ours in the same round. Generated days of 8,000 names, the last four
        rows a million messages of 1,000 names; for books and
        Parquet 40 million messages, names of streams are order lifetimes and gaps between references. Latency
        tails hold what the virtual
        machine took away, recorded beside them. How, with what
        beside it, and all other figures: [benchmarks/README.md](benchmarks/README.md)."""
    )
    return f"{words}\n\n{table(('what', 'microrisk', 'beside it'), rows)}"


def filled(text: str, folder: Path = RECORDED) -> str:
    """The README with the table between its marks."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{speed(folder)}\n{END}{after}"
