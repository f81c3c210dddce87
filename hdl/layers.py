"""The parts of the scoring heads as dataflow graphs, each equal to a line of microrisk.fixed.

`dense` (accumulate, requantise, ReLU) shares sub-expressions over the rows of a layer; `sum_squares` builds 8-bit
squares from 4-bit tables; `max_abs` is the maxz head.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from hdl.graph import Graph, Term, balanced
from hdl.sharing import Sums
from microrisk.spec.formats import CODE, Format

NIBBLE = 4
"""Width of the tables that squares are made of: the inputs of one look-up table of the target."""


def inputs(graph: Graph, n: int, fmt: Format = CODE) -> list[int]:
    """Nodes of inputs 0..n-1 over the whole range of a format."""
    return [graph.input(k, fmt.low, fmt.high) for k in range(n)]


def accumulate(graph: Graph, x: Sequence[int], weight: ArrayLike, bias: ArrayLike, *, slack: int = 0) -> list[int]:
    """fixed.accumulate: nodes of weight[out, in] @ x + bias[out]."""
    sums = Sums(graph, weight, x, bias)
    sums.share(slack)
    return sums.finish()


def dense(
    graph: Graph, x: Sequence[int], weight: ArrayLike, bias: ArrayLike, shift: ArrayLike, *, relu: bool = False,
    slack: int = 0, fmt: Format = CODE,
) -> list[int]:  # fmt: skip
    """fixed.dense. The rounding term lies in the bias, so that rounding costs nothing."""
    s = np.asarray(shift, np.int64)
    half = np.where(s > 0, np.int64(1) << np.maximum(s - 1, 0), 0)
    acc = accumulate(graph, x, weight, np.asarray(bias, np.int64) + half, slack=slack)
    low = 0 if relu else fmt.low
    return [graph.clip(a, int(k), low, fmt.high) for a, k in zip(acc, s, strict=True)]


def sum_squares(graph: Graph, x: Sequence[int], exponent: Sequence[int] | int = 0) -> int:
    """fixed.sum_squares: node of sum x**2 << exponent; x within 9 bits (signed)."""
    exponents = [exponent] * len(x) if isinstance(exponent, int) else list(exponent)
    terms = [Term(square(graph, a), int(e)) for a, e in zip(x, exponents, strict=True)]
    return add_terms(graph, terms)


def square(graph: Graph, a: int) -> int:
    """Node of a**2. With m = |a| = 16 h + l: 256 h**2 + l**2 needs no adder, 32 h l is one more."""
    node = graph.nodes[a]
    if node.op == "const":
        return graph.const(node.numbers[0] ** 2)
    m = a if node.low >= 0 else graph.abs(a)
    if graph.nodes[m].width <= NIBBLE:
        return graph.table(m, lambda v: v * v)
    low = graph.bits(m, 0, NIBBLE, signed=False)
    high = graph.bits(m, NIBBLE, graph.nodes[m].width, signed=False)
    squares = graph.join(graph.table(low, lambda v: v * v), square(graph, high), 2 * NIBBLE)
    return graph.add(squares, _product(graph, low, high), NIBBLE + 1)


def _product(graph: Graph, a: int, b: int) -> int:
    """Product of two small unsigned values: a, gated by each bit of b."""
    rows = [Term(graph.gate(a, b, bit), bit) for bit in range(graph.nodes[b].width)]
    return add_terms(graph, rows)


def add_terms(graph: Graph, terms: Sequence[Term]) -> int:
    """Node of a sum of positive terms, narrow ones first."""
    shifts = min(t.shift for t in terms)

    def combine(s: Term, t: Term) -> Term:
        a, b = sorted((s, t), key=lambda x: x.shift)
        return Term(graph.add(a.node, b.node, b.shift - a.shift), a.shift)

    level = sorted((Term(t.node, t.shift - shifts) for t in terms), key=lambda t: t.shift)
    while len(level) > 1:
        pairs = [combine(a, b) for a, b in zip(level[::2], level[1::2], strict=False)]
        level = pairs + level[2 * len(pairs) :]
    (left,) = level
    total = left.shift + shifts
    return graph.join(graph.const(0), left.node, total) if total else left.node


def max_abs(graph: Graph, x: Sequence[int]) -> int:
    """Largest magnitude."""
    return balanced([graph.abs(a) for a in x], graph.max)


def requantise(graph: Graph, a: int, shift: int, fmt: Format = CODE) -> int:
    """fixed.requantise of one accumulator."""
    rounded = graph.add(a, graph.const(1 << shift - 1)) if shift else a
    return graph.clip(rounded, shift, fmt.low, fmt.high)
