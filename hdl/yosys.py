"""Yosys inside this process (pyosys): passes over a design, silently."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from microrisk.errors import UsageError


def run_passes(source: Path, commands: Sequence[str]) -> None:
    """Read an RTLIL (.il) or Verilog file and run passes on it; the log goes beside it (NAME.yosys.log).

    Raises UsageError when pyosys is not installed.
    """
    ys = _yosys()
    log = source.with_suffix(".yosys.log")
    read = "read_rtlil" if source.suffix == ".il" else "read_verilog -sv"
    with _quiet():
        design = ys.Design()
        for command in (f"{read} {source}", *commands):
            ys.run_pass(f"tee -q -o {log} {command}", design)


def _yosys() -> Any:
    try:
        from pyosys import libyosys
    except ImportError as missing:
        raise UsageError(f"this needs pyosys ({missing}): pip install 'microrisk[hdl]'") from missing
    return libyosys


@contextmanager
def _quiet() -> Iterator[None]:
    """The library announces each pass on standard output, which may be somebody's JSON."""
    sys.stdout.flush()
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
