"""Recorded figures as Markdown: python -m benchmarks.page writes benchmarks/README.md, the README's speed table
and the measured section of docs/monitor.md.

Each section reads one file of benchmarks/recorded and is left out while that file is missing. Nothing is measured here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from benchmarks import live_page
from benchmarks.readme import README, filled
from benchmarks.record import RECORDED, Record, flow, load, number, ranged, table

OUT = Path(__file__).parent / "README.md"
ENGINES = ("microrisk", "itch-book", "itchcpp")
ALONE = "microrisk, no look-ahead"


def taken(record: Record) -> str:
    """Where and how a record was taken."""
    m = record["machine"]
    caches = ", ".join(f"{k} {v}" for k, v in m.get("caches", {}).items())
    rivals = ", ".join(f"{n} {v}" for n, v in record.get("rivals", {}).items())
    parts = [
        f"`{record['command']}`, {m['date']}, commit {m['commit']}",
        f"{m.get('processor', 'unknown processor')}, {m['cores']} cores ({caches}), load before {m['load_before']}",
    ]
    if "rounds" in record:
        parts.append(f"n = {record['rounds']} rounds, median [range]")
    if rivals:
        parts.append(f"rivals {rivals}")
    return "; ".join(parts) + "."


def books(record: Record) -> str:
    """CPU ns a message, ratios in the same round, memory."""
    rows = []
    for s in record["streams"]:
        e, t = s["engines"], s["truth"]
        cost = [ranged(e[n]["cpu_ns"]) for n in ENGINES]
        ratio = [ranged(e[n]["ratio"], "x") for n in (*ENGINES[1:], ALONE) if n in e]
        memory = " / ".join(number(e[n]["memory_mb"]) for n in ENGINES)
        life = f"{t['life_median_s']:.3g} s"
        rows.append([s["stream"], life, f"{t['peak_live'] / 1e6:.2f} M", *cost, *ratio, memory])
    head = ["stream (lifetimes, references)", "median life", "peak live", *(f"{n}, ns" for n in ENGINES)]
    first = record["streams"][0]
    head += [f"{n} / ours" for n in (*ENGINES[1:], ALONE) if n in first["engines"]] + ["MB, same order"]
    checks = "; ".join(f"{n}: {', '.join(first['engines'][n]['compared'])}" for n in ENGINES)
    words = flow(
        f"""{first["truth"]["messages"]:,} messages of 8,000 names, parse included on all sides, one pinned core,
        thread CPU time, a process for each engine and round. The clock holds building the engine and every page it
        touches first; the file is in memory before. Ours keeps queue position and runs every check; itchcpp is
        `BookManager.process_stream`, itch-book a `Session` without tables. Ratios are made inside a round. MB is the
        highest resident size less the input. Compared with the generator after every pass: {checks}."""
    )
    return f"{words}\n\n{table(head, rows)}"


def bbo_path(record: Record) -> str:
    """Equal rows."""
    rows = [[s["stream"], f"{s['messages']:,}", f"{s['names']:,}", f"{s['rows']:,}"] for s in record["streams"]]
    words = flow(
        """Row by row in file order: message number, name, price and size of both sides, ours against itch-book's
        `bbo` table; and as many rows as the generator counted changes. All equal. Where the rules of the two part
        (broken feeds only) is said in `bbo_path.py` and tested in `tests/benchmarks/test_bbo_path.py`."""
    )
    return f"{words}\n\n{table(['stream', 'messages', 'names', 'rows, all equal'], rows)}"


def curves(record: Record) -> str:
    """First and last point of each curve."""
    rows = []
    for found in record["curves"].values():
        points = found["points"]
        ends = [points[0], points[len(points) // 2], points[-1]]
        for n in ENGINES:
            cost = [f"{p['x']:,}: {ranged(p['engines'][n]['cpu_ns'])}" for p in ends]
            rows.append([found["label"] if n == ENGINES[0] else "", n, *cost, f"{found['growth'][n]}x"])
    words = flow(
        f"""{record["messages"]:,} messages behind a fill that is not timed. The depth curves have one name with one
        to four orders a level and adds and deletes only, a quarter of which make or end a level. Last column: the last
        point over the least."""
    )
    picture = "![Cost curves](recorded/curves.svg)"
    return f"{words}\n\n{picture}\n\n{table(['against', 'engine', 'first, ns', 'middle', 'last', 'growth'], rows)}"


def memory(record: Record) -> str:
    """Passes and growth."""
    rows = []
    for s in record["streams"]:
        first, last, t = s["passes"][0], s["passes"][-1], s["truth"]
        arenas = "-" if last["arenas_mb"] is None else number(last["arenas_mb"])
        live = f"{t['live_orders']:,} (peak {t['peak_live']:,})"
        anonymous = f"{number(first['anonymous_mb'])}, {number(last['anonymous_mb'])}"
        grown = str(last["growths"] - first["growths"])
        rows.append([s["stream"], live, arenas, anonymous, f"{s['growth_mb']:+.1f}", grown, number(s["before_mb"])])
    head = ["stream", "live orders", "arenas, MB", "anonymous MB: pass 1, last", "growth, MB", "growths behind pass 1"]
    limits, one = record["limits"], record["streams"][0]
    words = flow(
        f"""{one["truth"]["messages"]:,} messages, the file mapped, {len(one["passes"])} passes with all books reset
        between them. Anonymous memory is that of the whole process, Python and NumPy included. To reach: arenas
        {limits["arenas_mb"]:g} MB, anonymous {limits["anonymous_mb"]:g} MB, no growth."""
    )
    return f"{words}\n\n{table([*head, 'before the engine, MB'], rows)}"


def counts(record: Record) -> str:
    """Instructions, misses, lines."""
    keys = ("instructions", "data_references", "d1_misses", "l2_512k_misses", "l3_32m_misses")
    rows = [
        [life, f"{c['live_orders']:,}", *(number(c[k]) if k in c else "" for k in keys)]
        for life, c in record["exact"].items()
    ]
    head = ["lifetimes", "live orders", "instructions", "data references", "misses, 32 KiB", "512 KiB", "32 MiB"]
    one = record["lines"]
    kinds = ", ".join(f"{k} {v}" for k, v in one["cold_by_type"].items())
    model = f"A message on average, by callgrind ({record['valgrind']}); its caches have no prefetcher."
    lines = flow(
        f"""Distinct 64-byte lines outside stack and input (address trace of {one["messages"]:,} messages):
        {one["cold_a_message"]} cold ones a message ({kinds}), and {one["hot_a_message"]} of {one["hot_lines"]} that
        nearly every message touches."""
    )
    return "\n\n".join([model, table(head, rows), lines, *_beside(record)])


def _beside(record: Record) -> list[str]:
    if "beside" not in record:
        return []
    found = record["beside"]
    keys = ("instructions", "data_references", "d1_misses", "last_level_misses")
    rows = [[n, *(number(found["engines"][n][k]) for k in keys)] for n in ENGINES]
    words = flow(
        f"""The packages under Python beside each other, {found["messages"]:,} messages behind a fill of
        {found["live_orders"]:,} live orders:"""
    )
    return [words, table(["engine", "instructions", "data references", "misses, 32 KiB", "32 MiB"], rows)]


def tables(record: Record) -> str:
    """Whole processes to Parquet: CPU seconds, ratios, memory."""
    rows = []
    for name, title in (("bbo", "best prices"), ("depth", "depth 10")):
        if name not in record:
            continue
        found = record[name]
        cost = [ranged(found["cpu_s"][n]) for n in ("ours", "itch-book")]
        ratio = [ranged(found[k], "x") for k in ("ratio_whole", "ratio_without_start_and_parquet")]
        memory = " / ".join(number(found["rss_mb"][n]["high"]) for n in ("ours", "itch-book"))
        rows.append([title, f"{found['rows']:,}", *cost, *ratio, memory])
    head = ["table", "rows, all equal", "microrisk, CPU s", "itch-book, CPU s", "ratio", "less start and Parquet"]
    one, one_table = record["stream"], next(record[n] for n in ("bbo", "depth") if n in record)
    words = flow(
        f"""{one["messages"]:,} messages ({one["lifetime"]}, {one["refs"]}) to zstd Parquet of every name,
        `microrisk replay` beside `itch_book convert`: user and system seconds of whole processes with all threads,
        median [range] over {one_table["ratio_whole"]["n"]} rounds. The last ratio takes off process start and Parquet
        writing on both sides. The files are compared row by row."""
    )
    return f"{words}\n\n{table([*head, 'peak MB, same order'], rows)}"


def latency(record: Record) -> str:
    """Paced latency of the quietest set."""
    rows = []
    for run in record["sets"][record["quietest"]]["runs"]:
        marks = [f"{run['latency'][k] / 1000:,.2f}" for k in ("p50", "p99", "p99.9", "max")]
        rows.append([run["stage"], f"{run['load']:.0%}", run["arrivals"], f"{run['rate_per_second']:,}", *marks])
    head = ["stage", "of capacity", "arrivals", "messages/s", "p50, us", "p99", "p99.9", "max"]
    words = flow(
        f"""{record["stream"]}, replayed at a stated pace; each message is timed from when it was due, so a late start
        counts. The quietest of {len(record["sets"])} sets."""
    )
    return f"{words}\n\n![Latency](recorded/latency.svg)\n\n{table(head, rows)}"


def quick(record: Record) -> str:
    """pytest-benchmark's rows."""
    rows = []
    for b in sorted(record["benchmarks"], key=lambda b: (b["group"], b["stats"]["median"])):
        s = b["stats"]
        ms = f"{s['median'] * 1e3:.4g} [{s['min'] * 1e3:.4g}-{s['max'] * 1e3:.4g}]"
        rows.append([b["group"], b["name"].removeprefix("test_"), ms, str(s["rounds"])])
    m = record["machine_info"]
    words = flow(
        f"""`nox -s bench`, {record["datetime"][:10]}, commit {m["commit"]}, {m["cpu_model"]}. About a million generated
        messages of 1,000 names; features, heads and the spine in their own units. For a look: claims are made from the
        sections above."""
    )
    return f"{words}\n\n{table(['group', 'row', 'ms, median [range]', 'rounds'], rows)}"


SECTIONS: dict[str, tuple[str, Callable[[Record], str]]] = {
    "books": ("Books beside the rivals", books),
    "bbo_path": ("Equal best prices", bbo_path),
    "curves": ("How the cost grows", curves),
    "memory": ("Memory", memory),
    "counts": ("Instructions and cache lines", counts),
    "tables": ("Tables out", tables),
    "latency": ("Paced latency", latency),
}
INTRO = (
    """
Written by `python -m benchmarks.page` from the records in `recorded/`; do not edit. `nox -s bench_record` takes the
records anew (about 50 minutes on a quiet machine; streams are generated once and kept in MICRORISK_BENCH_DIR),
`nox -s bench` the quick table, `nox -s harness` the grades of the packaged model. `microrisk bench --input FILE` is the
table for your own recording.
""",
    """
Ratios inside one round may be compared, absolute times only on one machine. Every benchmark asserts its final state
against the generator and the module that its rival comes from.
""",
    """
**The streams are generated** (`daystream.py`): mix of types, share of the busiest name and how many messages change a
best follow published figures of 2019-12-30; order lifetimes, gaps between references, that names are drawn
independently and where orders are placed are assumptions. Books are smaller than a real day's (median 16 levels, the
busiest 390). A real day can change a ranking.
""",
)


FILES = (
    ("`record_books.py`", "bytes to full-depth books, 8,000 names, six streams", "itch-book, itchcpp"),
    ("`bbo_path.py`", "every best price and size of every name", "itch-book, row by row"),
    ("`record_curves.py`", "cost against depth, names, live orders", "itch-book, itchcpp"),
    ("`record_memory.py`", "arenas, anonymous memory, growth over passes", "none: figures to stay under"),
    ("`counts.py`", "instructions, cache misses, cache lines a message", "itch-book, itchcpp"),
    ("`bench_latency.py`", "due time to done at 10, 50, 90 % of capacity", "an empty loop on the same core"),
    ("`bench_tables.py`", "ITCH to Parquet as whole processes", "itch-book"),
    ("`bench_feed.py`", "bytes to records", "itchcpp (one object a message), the naive twin"),
    ("`bench_book.py`", "bytes to books of 1,000 names, small", "itch-book, itchcpp"),
    ("`bench_features.py`", "views to 32 features and codes", "the float form in NumPy"),
    ("`bench_score.py`", "codes to four heads", "NumPy reference, torch on the CPU, an isolation forest"),
    ("`bench_spine.py`", "bytes to alarm decision, event by event", "none does this path"),
)


def page(folder: Path = RECORDED) -> str:
    """The whole page."""
    parts = ["# Benchmarks\n", *(flow(words) + "\n" for words in INTRO)]
    parts.append(table(("file", "measures", "beside"), FILES) + "\n")
    for name, (title, write) in SECTIONS.items():
        record = load(name, folder)
        if record:
            parts.append(f"## {title}\n\n{write(record)}\n\n{taken(record)}\n")
    if record := load("bench", folder):
        parts.append(f"## Quick table\n\n{quick(record)}\n")
    return "\n".join(parts)


def main() -> None:
    """Write the page and the README's table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description="Recorded figures as Markdown.")
    parser.parse_args()
    OUT.write_text(page())
    README.write_text(filled(README.read_text()))
    live_page.PAGE.write_text(live_page.filled(live_page.PAGE.read_text()))


if __name__ == "__main__":
    main()
