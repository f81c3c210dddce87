"""RTLIL as text, cell by cell: enough to change one cell and leave the rest of a design as it is."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from sim.design import yosys

_CELL = re.compile(r"(?P<lead>(?:  attribute .*\n)*)  cell (?P<type>\S+) (?P<name>\S+)\n(?P<body>(?:    .*\n)*)  end\n")
_CONNECT = re.compile(r"    connect \\(\w+) (.*)\n")
_PARAMETER = re.compile(r"    parameter (?:signed )?\\(\w+) (.*)\n")
_CONSTANT = re.compile(r"(\d+)'([01]+)")


@dataclass(frozen=True)
class Cell:
    """One cell in the text of a netlist.

    Attributes
    ----------
    type, name : as in RTLIL, such as $add and $123
    start, end : its place in the text
    body : parameters and connections
    """

    type: str
    name: str
    start: int
    end: int
    body: str

    @property
    def ports(self) -> dict[str, str]:
        """Port -> signal that it is connected to."""
        return dict(_CONNECT.findall(self.body))

    def number(self, parameter: str) -> int:
        """A parameter that is a plain number."""
        return int(dict(_PARAMETER.findall(self.body))[parameter])

    def connect(self, port: str, signal: str) -> Cell:
        """The cell with another signal at a port."""
        line = re.search(rf"    connect \\{port} .*\n", self.body)
        assert line is not None
        return replace(self, body=self.body.replace(line.group(), f"    connect \\{port} {signal}\n"))

    def set(self, parameter: str, value: int) -> Cell:
        """The cell with another value of a parameter."""
        line = re.search(rf"    parameter (signed )?\\{parameter} .*\n", self.body)
        assert line is not None
        return replace(self, body=self.body.replace(line.group(), f"    parameter \\{parameter} {value}\n"))

    def text(self) -> str:
        """RTLIL of the cell."""
        return f"  cell {self.type} {self.name}\n{self.body}  end\n"

    def result(self) -> str:
        """What it drives, for people."""
        return self.ports.get("Y", self.ports.get("Q", self.name)).replace("\\", "")


def constant(signal: str) -> tuple[int, int] | None:
    """(width, value) of a signal that is a constant, else None."""
    found = _CONSTANT.fullmatch(signal)
    return (int(found[1]), int(found[2], 2)) if found else None


def literal(width: int, value: int) -> str:
    """A constant of some width, wrapped round."""
    return f"{width}'{value & ((1 << width) - 1):0{width}b}"


@cache
def flat_netlist(rtlil: Path) -> str:
    """RTLIL text of a design after `proc` and `flatten`: cells and wires of one module only."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "flat.il"
        yosys([f"read_rtlil {rtlil}", "proc", "flatten", "opt_clean", f"write_rtlil {out}"])
        return out.read_text()


def cells(text: str) -> list[Cell]:
    """Every cell of a netlist, in order."""
    return [Cell(m["type"], m["name"], m.start(), m.end(), m["body"]) for m in _CELL.finditer(text)]


def put(text: str, cell: Cell, new: str) -> str:
    """The netlist with other text in the place of a cell."""
    return text[: cell.start] + new + text[cell.end :]
