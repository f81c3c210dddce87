"""One pass of one engine and nothing else, for valgrind: python -m benchmarks.counts_worker NAME FILE."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.engines import ENGINES

if __name__ == "__main__":
    ENGINES[sys.argv[1]]().feed(Path(sys.argv[2]).read_bytes())
