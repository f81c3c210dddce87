"""Integer dataflow graphs: what a scoring head does, one node for each adder, clip, table or comparison.

A graph is the form between weights and gates. It knows the exact interval of every value, so widths follow from the
numbers and not from declarations; `evaluate` runs it on arrays and is the twin of the hardware that `hdl.pipe` makes
of it. A node's value may be used times a power of two and with a sign: that is a Term, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Term(NamedTuple):
    """sign * (value of `node` << shift), sign 1 or -1."""

    node: int
    shift: int = 0
    sign: int = 1


@dataclass(frozen=True, slots=True)
class Node:
    """One operation; `args` are earlier nodes.

    op, numbers: meaning of the value

    - input, (k,): input k
    - const, (c,): c
    - add, (shift, sign): args[0] + sign * (args[1] << shift); the low `shift` bits pass
    - rsub, (shift,): (args[1] << shift) - args[0]
    - clip, (shift, low, high): args[0] >> shift (floor), held in low..high
    - bits, (start, stop, signed): bits start..stop-1 as an integer
    - table, (offset, *values): values[args[0] - offset]
    - gate, (bit,): args[0] if that bit of args[1] is set, else 0
    - join, (width,): args[0] + (args[1] << width), where args[0] fills 0..2**width-1
    - max, (): the larger of two
    - abs, (): magnitude
    """

    op: str
    args: tuple[int, ...]
    numbers: tuple[int, ...]
    low: int
    high: int

    @property
    def width(self) -> int:
        """Bits that hold low..high; two's complement when low < 0."""
        if self.low >= 0:
            return self.high.bit_length()
        return max((-self.low - 1).bit_length(), max(self.high, 0).bit_length()) + 1


@dataclass
class Graph:
    """Nodes in an order in which arguments come first, and named outputs.

    Attributes
    ----------
    nodes : equal operations are held once
    outputs : name -> node
    """

    nodes: list[Node] = field(default_factory=list)
    outputs: dict[str, int] = field(default_factory=dict)
    _known: dict[tuple[object, ...], int] = field(default_factory=dict, repr=False)

    # ---- making nodes; each returns its number ----

    def input(self, index: int, low: int, high: int) -> int:
        """Input `index` with values low..high."""
        return self._node("input", (), (index,), low, high)

    def const(self, value: int) -> int:
        """A constant."""
        return self._node("const", (), (value,), value, value)

    def add(self, a: int, b: int, shift: int = 0, sign: int = 1) -> int:
        """The sum a + sign * (b << shift)."""
        x, y = self.nodes[a], self.nodes[b]
        lo, hi = sorted((sign * y.low << shift, sign * y.high << shift))
        return self._node("add", (a, b), (shift, sign), x.low + lo, x.high + hi)

    def rsub(self, a: int, b: int, shift: int = 0) -> int:
        """(b << shift) - a."""
        x, y = self.nodes[a], self.nodes[b]
        return self._node("rsub", (a, b), (shift,), (y.low << shift) - x.high, (y.high << shift) - x.low)

    def clip(self, a: int, shift: int, low: int, high: int) -> int:
        """The value a >> shift, held in low..high; a constant where only one value is left."""
        x = self.nodes[a]
        lo, hi = (min(max(v >> shift, low), high) for v in (x.low, x.high))
        return self.const(lo) if lo == hi else self._node("clip", (a,), (shift, low, high), lo, hi)

    def bits(self, a: int, start: int, stop: int, *, signed: bool) -> int:
        """Bits start..stop-1 of a (beyond its width its sign goes on)."""
        n = stop - start
        low, high = (-(1 << n - 1), (1 << n - 1) - 1) if signed else (0, (1 << n) - 1)
        return self._node("bits", (a,), (start, stop, int(signed)), low, high)

    def table(self, a: int, function: Callable[[int], int]) -> int:
        """function(a), as a table over every value of a."""
        x = self.nodes[a]
        values = tuple(function(v) for v in range(x.low, x.high + 1))
        return self._node("table", (a,), (x.low, *values), min(values), max(values))

    def gate(self, a: int, b: int, bit: int) -> int:
        """The value a where bit `bit` of b is set, else 0."""
        x = self.nodes[a]
        return self._node("gate", (a, b), (bit,), min(x.low, 0), max(x.high, 0))

    def join(self, a: int, b: int, width: int) -> int:
        """The value a + (b << width) without an adder: 0 <= a < 2**width."""
        x, y = self.nodes[a], self.nodes[b]
        if x.low < 0 or x.high >> width:
            raise ValueError(f"join: the low part reaches {x.low}..{x.high}, {width} bits hold 0..{(1 << width) - 1}")
        return self._node("join", (a, b), (width,), (y.low << width) + x.low, (y.high << width) + x.high)

    def max(self, a: int, b: int) -> int:
        """The larger one."""
        x, y = self.nodes[a], self.nodes[b]
        return self._node("max", (a, b), (), max(x.low, y.low), max(x.high, y.high))

    def abs(self, a: int) -> int:
        """Magnitude."""
        x = self.nodes[a]
        low = 0 if x.low <= 0 <= x.high else min(abs(x.low), abs(x.high))
        return self._node("abs", (a,), (), low, max(-x.low, x.high))

    def _node(self, op: str, args: tuple[int, ...], numbers: tuple[int, ...], low: int, high: int) -> int:
        key = (op, args, numbers)
        if key not in self._known:
            self._known[key] = len(self.nodes)
            self.nodes.append(Node(op, args, numbers, low, high))
        return self._known[key]

    # ---- looking at it ----

    def live(self) -> list[int]:
        """Nodes that an output depends on, in order."""
        wanted = set(self.outputs.values())
        for k in range(len(self.nodes) - 1, -1, -1):
            if k in wanted:
                wanted.update(self.nodes[k].args)
        return sorted(wanted)

    def adders(self) -> int:
        """How many adders and subtracters the outputs need."""
        return sum(self.nodes[k].op in ("add", "rsub") for k in self.live())

    def evaluate(self, inputs: Sequence[Ints] | Ints) -> dict[str, Ints]:
        """Outputs of many input vectors: inputs[k] is int64[n] for input k. Raises ValueError outside an interval."""
        value: dict[int, Ints] = {}
        for k in self.live():
            node = self.nodes[k]
            value[k] = _evaluate(node, [value[a] for a in node.args], inputs)
            if value[k].size and not (node.low <= value[k].min() and value[k].max() <= node.high):
                raise ValueError(
                    f"node {k} ({node.op}): {value[k].min()}..{value[k].max()} outside {node.low}..{node.high}"
                )
        return {name: value[k] for name, k in self.outputs.items()}


def _evaluate(node: Node, x: list[Ints], inputs: Sequence[Ints] | Ints) -> Ints:
    n = node.numbers
    match node.op:
        case "input":
            return np.asarray(inputs[n[0]], np.int64)
        case "const":
            return np.full(np.shape(inputs[0]), n[0], np.int64)
        case "add":
            return x[0] + n[1] * (x[1] << n[0])
        case "rsub":
            return (x[1] << n[0]) - x[0]
        case "clip":
            return np.clip(x[0] >> n[0], n[1], n[2])
        case "bits":
            part = (x[0] >> n[0]) & ((1 << n[1] - n[0]) - 1)
            return np.where(part >> (n[1] - n[0] - 1), part - (1 << n[1] - n[0]), part) if n[2] else part
        case "table":
            return np.asarray(n[1:], np.int64)[x[0] - n[0]]
        case "gate":
            return np.where((x[1] >> n[0]) & 1, x[0], 0)
        case "join":
            return x[0] + (x[1] << n[0])
        case "max":
            return np.maximum(x[0], x[1])
        case "abs":
            return np.abs(x[0])
    raise ValueError(f"no operation {node.op!r}")


def balanced(items: Iterable[int], combine: Callable[[int, int], int]) -> int:
    """Combine neighbours, level by level, until one is left."""
    level = list(items)
    while len(level) > 1:
        pairs = [combine(a, b) for a, b in zip(level[::2], level[1::2], strict=False)]
        level = pairs + level[2 * len(pairs) :]
    return level[0]
