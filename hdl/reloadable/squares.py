"""Sums of squares with exponents that may be reloaded: (a - b)**2 << exponent over the features, one sum a cycle.

Residuals of the vae, its latents (a = 0) and the whitened features (a = 0, exponents 0) all go this way.
"""

from functools import cache
from typing import Any

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hdl.graph import Graph
from hdl.layers import square
from hdl.pipe import Pipe
from hdl.reloadable.plan import ROWS
from hdl.schedule import Schedule, schedule
from hdl.shapes import shape_of
from microrisk.spec.formats import CODE, HEAD

PERIOD_NS = 3.6
EXPONENT = unsigned((HEAD.width - 1).bit_length())


@cache
def _squares() -> Schedule:
    """Squares of ROWS differences of codes, inputs a then b, in stages."""
    graph = Graph()
    for k in range(ROWS):
        a, b = (graph.input(j, CODE.low, CODE.high) for j in (k, ROWS + k))
        graph.outputs[f"square_{k}"] = square(graph, graph.add(a, b, 0, -1))
    return schedule(graph, PERIOD_NS)


def latency() -> int:
    """Cycles from the inputs of SumSquares to `total`: the pipe with its input register, the shift, the additions."""
    return _squares().latency + 1 + 1 + (ROWS - 1).bit_length()


class SumSquares(wiring.Component):
    """`total` = sum of (a - b)**2 << exponent over the places where `counts` is set, latency() cycles ago."""

    a: In(data.ArrayLayout(shape_of(CODE), ROWS))
    b: In(data.ArrayLayout(shape_of(CODE), ROWS))
    exponents: In(data.ArrayLayout(EXPONENT, ROWS))
    counts: In(ROWS)
    total: Out(shape_of(HEAD))

    def elaborate(self, platform: Any) -> Module:
        """Squares, shift, tree."""
        m = Module()
        m.submodules.squares = pipe = Pipe(_squares(), 2 * ROWS)
        for k in range(ROWS):
            m.d.comb += [pipe.i.payload[k].eq(self.a[k]), pipe.i.payload[ROWS + k].eq(self.b[k])]
        exponents, counts = self.exponents.as_value(), self.counts
        for k in range(pipe.latency + 1):
            late, seen = Signal.like(exponents, reset_less=True, name=f"exponents_{k}"), Signal(ROWS, reset_less=True)
            m.d.sync += [late.eq(exponents), seen.eq(counts)]
            exponents, counts = late, seen
        level = []
        for k in range(ROWS):
            shifted = Signal(HEAD.width - 1, reset_less=True, name=f"shifted_{k}")
            amount = exponents.word_select(k, EXPONENT.width)
            value = pipe.o.payload[f"square_{k}"].as_unsigned()[: 2 * CODE.width]
            m.d.sync += shifted.eq(Mux(counts[k], value << amount, 0))
            level.append(shifted)
        while len(level) > 1:
            sums = [Signal(HEAD.width - 1, reset_less=True) for _ in range(len(level) // 2)]
            m.d.sync += [s.eq(x + y) for s, x, y in zip(sums, level[::2], level[1::2], strict=True)]
            level = sums
        m.d.comb += self.total.eq(level[0])
        return m
