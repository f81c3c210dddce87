"""How the cost of a message grows with depth, names and live orders: python -m benchmarks.record_curves.

Each point is a stream that first fills the books (not timed) and then changes them without growing; every engine in a
process of its own, rounds as in record_books. Writes benchmarks/recorded/curves.json and curves.svg.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.curves_chart import chart
from benchmarks.daystream import cached_day
from benchmarks.depthstream import cached_depth
from benchmarks.engines import PACKAGES
from benchmarks.measure import RECORDED, machine, save, say
from benchmarks.record_books import compare

DEPTHS = (10, 30, 100, 300, 1_000, 3_000, 10_000)
NAMES = (1, 10, 100, 1_000, 10_000)
LIVE = (10_000, 100_000, 1_000_000, 3_000_000, 10_000_000)
STEADY_LIVE = 100_000
"""Live orders of the curve over names."""
STEADY_NAMES = 8_000
"""Names of the curve over live orders."""

Stream = Callable[[int, int], tuple[Path, dict[str, Any]]]


def by_names(names: int, messages: int) -> tuple[Path, dict[str, Any]]:
    """A steady day over so many names, 100,000 live orders."""
    return cached_day(messages=messages, symbols=names, live_orders=STEADY_LIVE, steady=True)


def by_live(live: int, messages: int) -> tuple[Path, dict[str, Any]]:
    """A steady day of 8,000 names; three cancels in four fall on any live order, so caches help little."""
    return cached_day(messages=messages, symbols=STEADY_NAMES, live_orders=live, lifetime="long", steady=True)


CURVES: dict[str, tuple[str, tuple[int, ...], Stream]] = {
    "depth_near": (
        "levels a side, 90 % of changes within ten ticks of the best",
        DEPTHS,
        lambda x, n: cached_depth(x, "near", n),
    ),
    "depth_uniform": (
        "levels a side, changes anywhere (the worst case)",
        DEPTHS,
        lambda x, n: cached_depth(x, "uniform", n),
    ),
    "names": ("names, 100,000 live orders in all", NAMES, by_names),
    "live": ("live orders, 8,000 names, mostly old orders cancelled", LIVE, by_live),
}


def curve(name: str, messages: int, rounds: int, xs: Iterable[int] | None = None) -> dict[str, Any]:
    """Points of one curve: x, levels, live orders, engines as in record_books."""
    label, every, stream = CURVES[name]
    points = []
    for x in xs or every:
        path, truth = stream(x, messages)
        found = compare(path, truth, rounds, f"{name} {x:,}", truth["fill_bytes"])
        points.append({"x": x, "levels": truth["levels"], "live_orders": truth["live_orders"], "engines": found})
    return {"label": label, "points": points}


def growth(found: dict[str, Any]) -> dict[str, float]:
    """Per engine: median at the last point over the least of all points."""
    out = {}
    for engine in found["points"][0]["engines"]:
        costs = [p["engines"][engine]["cpu_ns"]["median"] for p in found["points"]]
        out[engine] = round(costs[-1] / min(costs), 2)
    return out


def main() -> None:
    """Parse the command line; write record and picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record_curves", description=__doc__)
    parser.add_argument("--messages", type=lambda text: int(float(text)), default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--curves", nargs="+", default=list(CURVES), choices=CURVES)
    parser.add_argument("--name", default="curves", help="files in benchmarks/recorded")
    asked = parser.parse_args()
    facts = machine()
    curves = {name: curve(name, asked.messages, asked.rounds) for name in asked.curves}
    for found in curves.values():
        found["growth"] = growth(found)
    rivals = {name: version(package) for name, package in PACKAGES.items()}
    found = {"machine": facts, "rivals": rivals, "messages": asked.messages, "rounds": asked.rounds, "curves": curves}
    say(str(save(asked.name, " ".join(["python -m benchmarks.record_curves", *sys.argv[1:]]), found)))
    (RECORDED / f"{asked.name}.svg").write_text(chart(found))


if __name__ == "__main__":
    main()
