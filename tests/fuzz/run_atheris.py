"""Coverage-guided run of the Python edge: `python tests/fuzz/run_atheris.py CORPUS... [-max_total_time=60 ...]`.

The first byte of an input chooses the surface (edge.SURFACES). Needs `pip install atheris`, which is made for Linux
and a few versions of Python. Memory is limited by the operating system, time for each input by libFuzzer (-timeout).
"""

from __future__ import annotations

import gc
import resource
import shlex
import sys
from importlib import import_module
from pathlib import Path
from types import FunctionType

import atheris
from edge import one_input

from microrisk.feed import DECODERS

MEMORY = 6 << 30


def instrument() -> int:
    """Make every function of the package report its branches; returns how many there are.

    The functions are taken as they lie in memory: atheris' own import hook does not see editable installs.
    """
    for module in DECODERS.values():
        import_module(module)
    found = [
        f for f in gc.get_objects() if isinstance(f, FunctionType) and (f.__module__ or "").startswith("microrisk.")
    ]
    for function in found:
        atheris.instrument_func(function)
    return len(found)


def main() -> None:
    """Hand the arguments to libFuzzer."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    print(f"{instrument()} functions instrumented", file=sys.stderr)
    # what a merge runs again, through a shell
    again = f"{shlex.quote(sys.executable)} {shlex.quote(str(Path(__file__).resolve()))}"
    atheris.Setup([again, *sys.argv[1:]], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
