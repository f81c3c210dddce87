"""Full-depth books beside the rivals on six streams: python -m benchmarks.record_books --messages 40000000.

Three lifetimes by two gaps between references. A round runs every engine once, each in its own process on one pinned
core, in an order that turns with the round; ratios are made inside the round. Writes benchmarks/recorded/books.json.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.daystream import LIVES, REFS, cached_day
from benchmarks.engines import ENGINES, PACKAGES, WITHOUT
from benchmarks.measure import child, machine, save, say, summary

SHOWN = (
    "messages", "bytes", "sha256", "live_orders", "peak_live", "levels", "shares", "bbo_changes", "near_share",
    "life_median_s", "last_ref",
)  # fmt: skip


def prepare(days: Iterable[dict[str, Any]]) -> None:
    """Generate what is missing, a process each core at a time."""
    running: list[subprocess.Popen[bytes]] = []
    for day in days:
        options = [f"--{k.replace('_', '-')}={v}" for k, v in day.items() if not isinstance(v, bool)]
        options += [f"--{k}" for k, v in day.items() if v is True]
        command = [sys.executable, "-m", "benchmarks.workloads", "day", *options]
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        if len(running) >= (os.cpu_count() or 1):
            _wait(running.pop(0))
    while running:
        _wait(running.pop(0))


def _wait(process: subprocess.Popen[bytes]) -> None:
    if process.wait():
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}")


def compare(
    path: Path, truth: dict[str, Any], rounds: int, label: str, split: int = 0, engines: Iterable[str] = ENGINES
) -> dict[str, Any]:
    """Every engine over one file, `rounds` times; times a message behind `split`, and memory."""
    rows: list[dict[str, Any]] = []
    names = list(engines)
    messages = truth["messages"] - (truth["fill_messages"] if split else 0)
    for k in range(rounds):
        turn = k % len(names)
        row = {n: child("benchmarks.worker", n, path, f"--split={split}") for n in names[turn:] + names[:turn]}
        rows.append({n: row[n] for n in names})
        parts = [
            f"{n} {row[n]['cpu_ns'] / messages:.0f} ns ({row[n]['cpu_ns'] / row[names[0]]['cpu_ns']:.2f})"
            for n in names
        ]
        say(f"{label} round {k + 1}/{rounds}: " + ", ".join(parts))
    found = summary(rows, messages)
    for n in names:
        found[n]["memory_mb"] = round(max(r[n]["memory_kb"] for r in rows) / 1024, 1)
        found[n]["compared"] = rows[0][n]["compared"]
        found[n]["system_share"] = round(sum(r[n]["system_ns"] for r in rows) / sum(r[n]["cpu_ns"] for r in rows), 3)
    return found


def record(messages: int, rounds: int, lifetimes: Iterable[str], refs: Iterable[str]) -> dict[str, Any]:
    """All streams; `rounds` each."""
    facts = machine()
    days = [{"messages": messages, "lifetime": a, "refs": b} for a, b in itertools.product(lifetimes, refs)]
    say("streams")
    prepare(days)
    streams = []
    for day in days:
        path, truth = cached_day(**day)
        label = f"{day['lifetime']}, {day['refs']}"
        found = compare(path, truth, rounds, label, engines=WITHOUT)
        streams.append({"stream": label, "truth": {k: truth[k] for k in SHOWN}, "engines": found})
    rivals = {name: version(package) for name, package in PACKAGES.items()}
    return {"machine": facts, "rivals": rivals, "rounds": rounds, "streams": streams}


def main() -> None:
    """Parse the command line and write the record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record_books", description=__doc__)
    parser.add_argument("--messages", type=lambda text: int(float(text)), default=40_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lifetimes", nargs="+", default=["published", "short", "long"], choices=sorted(LIVES))
    parser.add_argument("--refs", nargs="+", default=list(REFS), choices=sorted(REFS))
    parser.add_argument("--name", default="books", help="file in benchmarks/recorded")
    asked = parser.parse_args()
    found = record(asked.messages, asked.rounds, asked.lifetimes, asked.refs)
    say(str(save(asked.name, " ".join(["python -m benchmarks.record_books", *sys.argv[1:]]), found)))


if __name__ == "__main__":
    main()
