"""From a component to simulated text: Amaranth -> RTLIL -> pyosys -> Verilog, kept by content under build/sim.

Two forms are written. `plain` is what `hdl.verilog` hands out, to the byte. `fast` has gone through Yosys' `opt` and
`wreduce` as synthesis does first: Icarus runs it three times faster. Benches of single units and Verilator take the
plain form; the long Icarus benches of cores take the fast one, so that both are covered by the same vectors.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from microrisk.errors import MicroriskError
from sim.tools import BUILD, ROOT, need_module

TOP = "dut"
"""Name of the top module in every simulation."""
TOLD = ("latency", "interval", "depth")
"""Attributes of a component that its benches need."""
FAST = ("opt -full", "wreduce", "opt_clean -purge")
_TOOLS = ("amaranth", "pyosys")


class ToolFailed(MicroriskError, RuntimeError):
    """A tool of the benches ended with an error; the text carries the end of its output."""


@dataclass(frozen=True)
class Design:
    """A design that simulators can read.

    Attributes
    ----------
    key : content hash of everything that it was made from
    folder : holds dut.il, dut.v (plain) and dut_fast.v
    latency : the component's own, in cycles; -1 where it has none
    facts : what else the component tells of itself: `interval` and `depth`, where it has them
    """

    key: str
    folder: Path
    latency: int
    facts: dict[str, Any] = field(default_factory=dict)

    def verilog(self, form: str = "plain") -> Path:
        """Verilog file of a form, "plain" or "fast"."""
        return self.folder / ("dut_fast.v" if form == "fast" else "dut.v")

    @property
    def rtlil(self) -> Path:
        """RTLIL as Amaranth wrote it."""
        return self.folder / "dut.il"


def make_design(make: Callable[[], Any], *identity: Any) -> Design:
    """The design of a component, from the cache where everything it depends on is the same.

    Parameters
    ----------
    make : makes the component; its module's sources, and all of the project's that they import, are part of the key
    identity : what `make` closes over: parameters, hash of weights; anything with a stable repr
    """
    key = _key(make, identity)
    folder = BUILD / "designs" / key
    about = folder / "design.json"
    if not about.is_file():
        component = make()
        from hdl.verilog import to_rtlil

        told = {name: getattr(component, name) for name in TOLD if isinstance(getattr(component, name, None), int)}
        write_texts(folder, to_rtlil(component, TOP))
        _write(about, json.dumps(told))
    told = json.loads(about.read_text())
    return Design(key, folder, told.pop("latency", -1), told)


def write_texts(folder: Path, rtlil: str) -> None:
    """Put dut.il and its two Verilog forms into a folder; the folder appears only when all of them are there."""
    from hdl.verilog import to_verilog

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        scratch = Path(made)
        (scratch / "dut.il").write_text(rtlil)
        (scratch / "dut.v").write_text(to_verilog(rtlil))
        fast = [f"read_rtlil {scratch / 'dut.il'}", "proc", *FAST, f"write_verilog -noattr {scratch / 'dut_fast.v'}"]
        yosys(fast)
        folder.mkdir(exist_ok=True)
        for name in ("dut.il", "dut.v", "dut_fast.v"):
            (scratch / name).replace(folder / name)


def yosys(commands: Sequence[str], *, limit_s: float = 600) -> str:
    """Run Yosys commands in a process of their own; returns what it printed.

    Raises ToolFailed with the end of the output; a crash of the library does not take this process along.
    """
    need_module("pyosys")
    code = "import sys; from pyosys import libyosys as ys; d = ys.Design(); [ys.run_pass(c, d) for c in sys.argv[1:]]"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *commands], capture_output=True, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired as e:
        raise ToolFailed(f"yosys did not end within {limit_s} s: {'; '.join(commands)}") from e
    if done.returncode:
        raise ToolFailed(
            f"yosys ended with {done.returncode} in {'; '.join(commands)}:\n{tail(done.stdout + done.stderr)}"
        )
    return done.stdout


def tail(text: str, lines: int = 25) -> str:
    """The last lines of a tool's output."""
    return "\n".join(line[:240] for line in text.splitlines()[-lines:])


def _write(path: Path, text: str) -> None:
    scratch = path.with_suffix(".tmp")
    scratch.write_text(text)
    scratch.replace(path)


# ---- what a design depends on ----


def _key(make: Callable[[], Any], identity: Sequence[Any]) -> str:
    digest = hashlib.sha256(repr((TOP, FAST, TOLD, identity)).encode())
    for tool in _TOOLS:
        digest.update(f"{tool} {importlib.metadata.version(tool)}\n".encode())
    module = getattr(make, "func", make).__module__  # a partial has the module of functools
    for path in sorted({*sources_of(module), *sources_of("hdl.verilog")}):
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()[:20]


@cache
def sources_of(module: str) -> tuple[str, ...]:
    """Files of this project that a module is and imports, directly or not."""
    found: set[str] = set()
    todo = [module]
    while todo:
        path = _file(todo.pop())
        if path is not None and str(path) not in found:
            found.add(str(path))
            todo += list(_imports(path))
    return tuple(sorted(found))


def _file(module: str) -> Path | None:
    if module.partition(".")[0] not in ("hdl", "sim", "microrisk"):
        return None
    base = ROOT / Path(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
