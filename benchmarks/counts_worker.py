"""One engine for callgrind: python -m benchmarks.counts_worker NAME FILE FILL_BYTES SWITCH, see counts.switch."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

from benchmarks.engines import ENGINES


def main(name: str, file: str, fill: str, library: str) -> None:
    """Fill uncounted, then count the rest."""
    data, cut, switch = Path(file).read_bytes(), int(fill), ctypes.CDLL(library)
    first, rest, engine = data[:cut], data[cut:], ENGINES[name]()
    switch.begin()
    engine.feed(first)
    switch.collect()
    engine.feed(rest)
    switch.collect()


if __name__ == "__main__":
    main(*sys.argv[1:])
