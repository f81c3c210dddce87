"""ROWS x COLUMNS multipliers, row sums, accumulators and requantisers: one step a cycle, see hdl.reloadable.stages."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hdl.reloadable.multiply import Multiply
from hdl.reloadable.stages import COLUMNS, REGIONS, ROWS
from hdl.shapes import shape_of
from microrisk.spec.formats import ACC, CODE, SHIFT_MAX, WEIGHT

SHIFT = unsigned(SHIFT_MAX.bit_length())
PARAMETERS = data.StructLayout({"bias": shape_of(ACC), "shift": SHIFT})
"""Of one row: bias with the rounding term in it, and the shift."""
A_REGION = ROWS // REGIONS
_SUM = signed(CODE.width + WEIGHT.width + (2 * COLUMNS - 1).bit_length())
_KEPT = CODE.width - 1


class Lanes(wiring.Component):
    """The arithmetic of a layer, without memory or control.

    Each member belongs to a cycle of hdl.reloadable.stages. `split` and `first` are given once a row, `relu` once a
    region: what stands in front of an adder must come from nearby.

    operands : COLUMNS codes a region, in OPERANDS
    weights : ROWS x COLUMNS, in OPERANDS
    split : both halves belong to one set of rows; in ROW_SUMS
    first : a new sum begins; in JOINED
    parameters : of each row, in JOINED
    accumulators : in ACCUMULATED
    relu : cut below zero; in SHIFTED
    codes : requantised, in SHIFTED, without a register behind them
    """

    operands: In(data.ArrayLayout(data.ArrayLayout(shape_of(CODE), COLUMNS), REGIONS))
    weights: In(data.ArrayLayout(shape_of(WEIGHT), ROWS * COLUMNS))
    split: In(ROWS // 2)
    first: In(ROWS)
    relu: In(REGIONS)
    parameters: In(data.ArrayLayout(PARAMETERS, ROWS))
    accumulators: Out(data.ArrayLayout(shape_of(ACC), ROWS))
    codes: Out(data.ArrayLayout(shape_of(CODE), ROWS))

    def __init__(self, *, ecp5: bool = False) -> None:
        super().__init__()
        self._ecp5 = ecp5

    def elaborate(self, platform: Any) -> Module:
        """Row by row."""
        m = Module()
        sums = [self._row_sum(m, row) for row in range(ROWS)]
        half = ROWS // 2
        for row in range(ROWS):
            joined = Signal(_SUM, reset_less=True, name=f"joined_{row}")
            total = sums[row]
            if row < half:
                total = total + Mux(self.split[row], sums[row + half], 0)
            m.d.sync += joined.eq(total)
            self._finish(m, row, joined)
        return m

    def _row_sum(self, m: Module, row: int) -> Signal:
        """Products of one row, added by twos, a register behind each addition."""
        operands = self.operands[row // A_REGION]
        level: list[Any] = []
        for column in range(COLUMNS):
            lane = Multiply(CODE.width, WEIGHT.width, ecp5=self._ecp5)
            m.submodules[f"multiply_{row}_{column}"] = lane
            m.d.comb += [lane.a.eq(operands[column]), lane.b.eq(self.weights[row * COLUMNS + column])]
            near = Signal.like(lane.product, reset_less=True, name=f"product_{row}_{column}")
            m.d.sync += near.eq(lane.product)
            level.append(near)
        while len(level) > 1:
            sums = [
                Signal(signed(len(level[0]) + 1), reset_less=True, name=f"sum_{row}_{len(level)}_{k}")
                for k in range(len(level) // 2)
            ]
            m.d.sync += [s.eq(a + b) for s, a, b in zip(sums, level[::2], level[1::2], strict=True)]
            level = sums
        return level[0]

    def _finish(self, m: Module, row: int, joined: Signal) -> None:
        """Accumulate, shift, saturate."""
        parameters, region = self.parameters[row], row // A_REGION
        total = Signal(shape_of(ACC), reset_less=True, name=f"total_{row}")
        m.d.sync += total.eq(Mux(self.first[row], parameters.bias, total) + joined)
        m.d.comb += self.accumulators[row].eq(total)
        shift = Signal(SHIFT, reset_less=True, name=f"shift_{row}")
        reach = Signal(SHIFT_MAX, reset_less=True, name=f"reach_{row}")
        m.d.sync += [shift.eq(parameters.shift), reach.eq(Cat(parameters.shift <= k for k in range(len(reach))))]
        low, over, sign = Signal(_KEPT + 1, reset_less=True), Signal(reset_less=True), Signal(reset_less=True)
        fine = Signal(reset_less=True)
        m.d.sync += [low.eq(_shifted(total, shift)), over.eq(_overflow(total, reach)), sign.eq(total[-1])]
        m.d.sync += fine.eq(shift[0])
        kept = Mux(fine, low[1:], low[:_KEPT])
        held = Cat(Mux(over, (~sign).replicate(_KEPT), kept), sign)
        m.d.comb += self.codes[row].eq(Mux(self.relu[region] & sign, 0, held))


def _shifted(total: Value, shift: Value) -> Value:
    """The lowest bits of total >> shift, and one more: shift[0] is left for behind the register.

    At each halving only the bits that can still be asked for are kept.
    """
    kept = total[: _KEPT + SHIFT_MAX]
    for k in reversed(range(1, SHIFT.width)):
        below = _KEPT + (1 << k) - 1
        kept = Mux(shift[k], kept[1 << k : below + (1 << k)], kept[:below])
    return kept


def _overflow(total: Value, reach: Value) -> Value:
    """Whether total >> shift is outside CODE: `reach[k]` = bit _KEPT + k of the accumulator is above the kept ones."""
    # bits from _KEPT + SHIFT_MAX on are above the kept ones whatever the shift is
    bits = [total[_KEPT + k] for k in range(len(reach))]
    always = total[_KEPT + len(reach) : -1]
    differs = [(b ^ total[-1]) & r for b, r in zip(bits, reach, strict=True)]
    return Cat(*differs, always ^ total[-1].replicate(len(always))).any()
