"""Sums of squares with exponents that may be reloaded: sum of (a - b)**2 << exponent, in multipliers.

Residuals of the vae, its latents (a = 0) and the whitened features (a = 0, exponents 0) all go this way. There are
multipliers for half of the places, so each vector takes two cycles.
"""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hdl.reloadable.multiply import LATENCY as PRODUCT
from hdl.reloadable.multiply import OPERAND, Multiply
from hdl.reloadable.stages import REGIONS, ROWS
from hdl.shapes import shape_for, shape_of
from microrisk.spec.formats import CODE, RESIDUAL_EXP_MAX

PLACES = ROWS // 2
"""Squares of a cycle."""
HALVES = 2
SQUARE_HIGH = (CODE.high - CODE.low) ** 2 << RESIDUAL_EXP_MAX
EXPONENT = unsigned(RESIDUAL_EXP_MAX.bit_length())
DIFFERENCE = shape_for(CODE.low - CODE.high, CODE.high - CODE.low)
DIFFERENCES, OPERANDS = 1, 2
"""Cycles after the codes in which differences and the operands of the first half are in registers."""
SUMMED = OPERANDS + PRODUCT + (PLACES - 1).bit_length()
"""Cycles from the codes to `half_sum` of their first half; that of the second is one later."""
_LEFT = (1, 4)
"""Exponent bits that shift the left operand; the others shift the right one, so that both keep OPERAND bits."""


class SumSquares(wiring.Component):
    """`half_sum`: of places 0..PLACES-1 SUMMED cycles after the codes, of the others one cycle later.

    a, b : codes; a counts as 0 unless `residual`; this and `second` are given once a region
    exponents, counts : of the half whose differences are in registers, one cycle after its codes and two
    second : set in the second of these cycles
    """

    a: In(data.ArrayLayout(shape_of(CODE), ROWS))
    b: In(data.ArrayLayout(shape_of(CODE), ROWS))
    residual: In(REGIONS)
    exponents: In(data.ArrayLayout(EXPONENT, PLACES))
    counts: In(PLACES)
    second: In(REGIONS)
    half_sum: Out(shape_for(0, PLACES * SQUARE_HIGH))

    def __init__(self, *, ecp5: bool = False) -> None:
        super().__init__()
        self._ecp5 = ecp5

    def elaborate(self, platform: Any) -> Module:
        """Differences, products, tree."""
        m = Module()
        level = [self._square(m, k) for k in range(PLACES)]
        high = SQUARE_HIGH
        while len(level) > 1:
            high *= 2
            sums = [
                Signal(shape_for(0, high), reset_less=True, name=f"sum_{len(level)}_{k}")
                for k in range(len(level) // 2)
            ]
            m.d.sync += [s.eq(x + y) for s, x, y in zip(sums, level[::2], level[1::2], strict=True)]
            level = sums
        m.d.comb += self.half_sum.eq(level[0])
        return m

    def _square(self, m: Module, k: int) -> Signal:
        """One place and its twin in the second half."""
        first, later, last = (
            Signal(DIFFERENCE, reset_less=True, name=f"{n}_{k}") for n in ("first", "later", "last")
        )  # fmt: skip
        for place, difference in ((k, first), (PLACES + k, later)):
            m.d.sync += difference.eq(Mux(self.residual[place * REGIONS // ROWS], self.a[place], 0) - self.b[place])
        m.d.sync += last.eq(later)
        value = Mux(self.second[k * REGIONS // PLACES], last, first)
        left, right = (Signal(OPERAND_SHAPES[n], reset_less=True, name=f"{n}_{k}") for n in ("left", "right"))
        m.d.sync += left.eq(Mux(self.counts[k], _scaled(value, self.exponents[k], _LEFT), 0))
        m.d.sync += right.eq(_scaled(value, self.exponents[k], _RIGHT))
        m.submodules[f"multiply_{k}"] = lane = Multiply(len(left), len(right), ecp5=self._ecp5)
        m.d.comb += [lane.a.eq(left), lane.b.eq(right)]
        square = Signal(shape_for(0, SQUARE_HIGH), name=f"square_{k}")
        m.d.comb += square.eq(lane.product)
        return square


def _reach(parts: tuple[int, ...]) -> int:
    """Largest shift by these parts of an exponent that is allowed."""
    return max(sum(e & p for p in parts) for e in range(RESIDUAL_EXP_MAX + 1))


_RIGHT = tuple(1 << k for k in range(EXPONENT.width) if 1 << k not in _LEFT)
OPERAND_SHAPES = {
    n: shape_for((CODE.low - CODE.high) << _reach(p), (CODE.high - CODE.low) << _reach(p))
    for n, p in (("left", _LEFT), ("right", _RIGHT))
}
assert max(s.width for s in OPERAND_SHAPES.values()) <= OPERAND


def _scaled(value: Any, exponent: Any, parts: tuple[int, ...]) -> Any:
    """The value shifted by those parts of the exponent that are set."""
    for part in parts:
        value = Mux(exponent[part.bit_length() - 1], value << part, value)
    return value
