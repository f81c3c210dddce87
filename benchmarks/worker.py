"""One engine over one file in a process of its own: python -m benchmarks.worker ENGINE FILE [--split BYTES].

Prints one JSON object: times of the pass, memory, and what of the final state was compared. The file is in memory
before the clock starts; building the engine, parsing, and every page the engine touches for the first time are inside
it. With --split the clock starts behind the first BYTES (a fill), and the times are those of the rest.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.engines import WITHOUT, check
from benchmarks.measure import pin, status_kb, timed
from benchmarks.truth import best_of, truth_of


def run(engine: str, path: Path, split: int = 0) -> dict[str, Any]:
    """Feed the whole file; the final state must be the generator's."""
    data = path.read_bytes()
    parts = [data[:split], data[split:]] if split else [data]
    before = status_kb("VmRSS")["VmRSS"]
    held: list[Any] = []

    def work() -> None:
        if not held:
            held.append(WITHOUT[engine]())
        held[0].feed(parts[-1])

    if split:
        held.append(WITHOUT[engine]())
        held[0].feed(parts[0])
    found: dict[str, Any] = timed(work)
    found["memory_kb"] = status_kb("VmHWM")["VmHWM"] - before
    found["compared"] = check(held[0], truth_of(path), best_of(path))
    return found


def main() -> None:
    """Parse the command line, pin, run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker", description=__doc__)
    parser.add_argument("engine", choices=WITHOUT)
    parser.add_argument("file", type=Path)
    parser.add_argument("--split", type=int, default=0)
    asked = parser.parse_args()
    pin()
    sys.stdout.write(json.dumps(run(asked.engine, asked.file, asked.split)) + "\n")


if __name__ == "__main__":
    main()
