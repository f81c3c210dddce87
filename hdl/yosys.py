"""Yosys through pyosys, in a process of its own: an error in a pass ends the process that the library lives in."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from microrisk.errors import UsageError

_SCRIPT = """
import sys
from pyosys import libyosys as ys
design = ys.Design()
for command in sys.argv[2:]:
    ys.run_pass(f"tee -q -a {sys.argv[1]} {command}", design)
"""


def run_passes(source: Path, commands: Sequence[str]) -> None:
    """Read an RTLIL (.il) or Verilog file and run passes on it; the log goes beside it (NAME.yosys.log).

    Raises UsageError when pyosys is not installed, and with the last lines of the log when a pass fails.
    """
    if find_spec("pyosys") is None:
        raise UsageError("this needs pyosys: pip install 'microrisk[hdl]'")
    log = source.with_suffix(".yosys.log")
    log.unlink(missing_ok=True)
    read = "read_rtlil" if source.suffix == ".il" else "read_verilog -sv"
    command = [sys.executable, "-c", _SCRIPT, str(log), f"{read} {source}", *commands]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = log.read_text() if log.exists() else ""
        raise UsageError(f"Yosys failed on {source}: " + " / ".join((said + done.stderr).strip().splitlines()[-3:]))
