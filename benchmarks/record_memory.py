"""Memory over two passes of one stream with the file mapped: python -m benchmarks.record_memory.

8,000 names and 600,000 live orders. Between the passes every book is reset and a new decoder begins, as on a new day;
the third pass shows that nothing creeps. Anonymous memory is RssAnon of /proc/self/status for the whole process, Python
and NumPy included (`before_mb` had gone to those); pages of the mapped file are not in it. Writes
benchmarks/recorded/memory.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.bbo_path import mapped
from benchmarks.daystream import cached_day
from benchmarks.measure import child, machine, pin, save, say, status_kb
from microrisk.core import Engine, ItchDecoder

PASSES = 3
LIMITS = {"arenas_mb": 150.0, "anonymous_mb": 300.0}
"""Figures to reach: bytes of the engine's arenas, anonymous memory of the whole process."""


def arenas(engine: Engine) -> dict[str, int]:
    """Bytes by arena, empty when this build cannot tell."""
    memory = getattr(engine, "memory", None)
    return {str(k): int(v) for k, v in memory().items()} if memory else {}


def one_pass(engine: Engine, path: Path) -> tuple[int, int]:
    """Reset all books, read the whole file; messages and live orders."""
    for i in engine.instruments():
        engine.reset_book(int(i))
    assert engine.live_orders == 0
    decoder = ItchDecoder()
    with mapped(path) as data:
        assert engine.run_itch(decoder, data, 0, 1 << 62) == len(data)
    assert not any(engine.integrity().values())
    return decoder.messages, engine.live_orders


def measure(path: Path) -> dict[str, Any]:
    """All passes in this process; kB and counts after each."""
    pin()
    before = status_kb("RssAnon")["RssAnon"]
    engine, rows = Engine(), []
    for _ in range(PASSES):
        messages, live = one_pass(engine, path)
        kb = status_kb("RssAnon", "RssFile", "VmHWM")
        held = arenas(engine)
        rows.append(
            {
                "messages": messages,
                "live_orders": live,
                "anonymous_mb": round(kb["RssAnon"] / 1024, 2),
                "engine_mb": round((kb["RssAnon"] - before) / 1024, 2),
                "arenas_mb": round(sum(held.values()) / 2**20, 2) if held else None,
                "arenas": held,
                "growths": engine.allocations,
            }
        )
    return {"before_mb": round(before / 1024, 2), "passes": rows}


def record(messages: int, live_orders: int) -> dict[str, Any]:
    """The steady stream, and the published day at its larger peak."""
    facts, streams = machine(), []
    for label, day in (
        ("steady", {"live_orders": live_orders, "steady": True}),
        ("published", {"live_orders": live_orders}),
        ("published, sparse", {"live_orders": live_orders, "refs": "sparse"}),
    ):
        path, truth = cached_day(messages=messages, **day)
        found = child("benchmarks.record_memory", "--child", path)
        first, last = found["passes"][0], found["passes"][-1]
        assert first["live_orders"] == last["live_orders"] == truth["live_orders"]
        grown = round(last["anonymous_mb"] - first["anonymous_mb"], 2)
        keys = ("messages", "live_orders", "peak_live", "levels", "last_ref")
        streams.append({"stream": label, "truth": {k: truth[k] for k in keys}, "growth_mb": grown, **found})
        say(f"memory, {label}: {last['anonymous_mb']} MB, arenas {last['arenas_mb']}, grown {grown}")
    return {"machine": facts, "limits": LIMITS, "streams": streams}


def main() -> None:
    """Parse the command line; with --child one measurement in this process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record_memory", description="Memory of two passes.")
    parser.add_argument("--messages", type=lambda text: int(float(text)), default=4_000_000)
    parser.add_argument("--live-orders", type=lambda text: int(float(text)), default=600_000)
    parser.add_argument("--child", type=Path)
    asked = parser.parse_args()
    if asked.child:
        sys.stdout.write(json.dumps(measure(asked.child)) + "\n")
        return
    command = " ".join(["python -m benchmarks.record_memory", *sys.argv[1:]])
    say(str(save("memory", command, record(asked.messages, asked.live_orders))))


if __name__ == "__main__":
    main()
