"""ROWS x COLUMNS multipliers, row sums, accumulators and requantisers: one step a cycle.

Registers after an issue at cycle 0: operands 2 (they arrive), products 5, pair sums 6, row sums 7, halves joined 8,
accumulators 9, shifted 10; the codes are there combinationally in cycle 10, for a register that holds them from 11 on.
"""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hdl.reloadable.multiply import Multiply
from hdl.reloadable.plan import COLUMNS, ROWS
from hdl.shapes import shape_of
from microrisk.spec.formats import ACC, CODE, SHIFT_MAX, WEIGHT

SHIFT = unsigned(SHIFT_MAX.bit_length())
PARAMETERS = data.StructLayout({"bias": shape_of(ACC), "shift": SHIFT})
"""Of one row: bias with the rounding term in it, and the shift."""
_SUM = signed(CODE.width + WEIGHT.width + (2 * COLUMNS - 1).bit_length())


class Lanes(wiring.Component):
    """The arithmetic of a layer, without memory or control.

    Members are named by the cycle after issue in which they are looked at or valid.

    low_2, high_2 : COLUMNS operands of the lower and the upper half of the rows
    weights_2 : ROWS x COLUMNS weights
    split_7, first_8, relu_10 : both halves belong to one set of rows; a new sum begins; cut below zero
    parameters_8 : of each row, ROWS
    acc_9 : accumulators; codes_10 : requantised, no register behind them
    """

    low_2: In(data.ArrayLayout(shape_of(CODE), COLUMNS))
    high_2: In(data.ArrayLayout(shape_of(CODE), COLUMNS))
    weights_2: In(data.ArrayLayout(shape_of(WEIGHT), ROWS * COLUMNS))
    split_7: In(1)
    first_8: In(1)
    relu_10: In(1)
    parameters_8: In(data.ArrayLayout(PARAMETERS, ROWS))
    acc_9: Out(data.ArrayLayout(shape_of(ACC), ROWS))
    codes_10: Out(data.ArrayLayout(shape_of(CODE), ROWS))

    def __init__(self, *, ecp5: bool = False) -> None:
        super().__init__()
        self._ecp5 = ecp5

    def elaborate(self, platform: Any) -> Module:
        """Row by row."""
        m = Module()
        sums_7 = [self._row_sum(m, row) for row in range(ROWS)]
        half = ROWS // 2
        for row in range(ROWS):
            joined_8 = Signal(_SUM, reset_less=True, name=f"joined_{row}")
            other = sums_7[row + half] if row < half else 0
            m.d.sync += joined_8.eq(sums_7[row] + Mux(self.split_7, other, 0))
            self._finish(m, row, joined_8)
        return m

    def _row_sum(self, m: Module, row: int) -> Signal:
        """Products of one row, added by twos, a register behind each addition."""
        operands = self.low_2 if row < ROWS // 2 else self.high_2
        level = []
        for column in range(COLUMNS):
            m.submodules[f"multiply_{row}_{column}"] = lane = Multiply(ecp5=self._ecp5)
            m.d.comb += [lane.x.eq(operands[column]), lane.weight.eq(self.weights_2[row * COLUMNS + column])]
            level.append(lane.product)
        while len(level) > 1:
            sums = [
                Signal(signed(len(level[0]) + 1), reset_less=True, name=f"sum_{row}_{k}")
                for k in range(len(level) // 2)
            ]
            m.d.sync += [s.eq(a + b) for s, a, b in zip(sums, level[::2], level[1::2], strict=True)]
            level = sums
        return level[0]

    def _finish(self, m: Module, row: int, joined_8: Signal) -> None:
        """Accumulate, shift, saturate."""
        parameters = self.parameters_8[row]
        shift_9 = Signal(SHIFT, reset_less=True, name=f"shift_{row}")
        shifted_10 = Signal(shape_of(ACC), reset_less=True, name=f"shifted_{row}")
        acc_9 = Signal(shape_of(ACC), reset_less=True, name=f"acc_{row}")
        m.d.sync += [
            acc_9.eq(Mux(self.first_8, parameters.bias, acc_9) + joined_8),
            shift_9.eq(parameters.shift),
            shifted_10.eq(acc_9 >> shift_9),
        ]
        kept = CODE.width - 1
        upper = shifted_10[kept:]
        negative = shifted_10[-1]
        fits = Mux(negative, upper.all(), ~upper.any())
        held = Mux(fits, shifted_10[: CODE.width].as_signed(), Mux(negative, CODE.low, CODE.high))
        m.d.comb += [self.acc_9[row].eq(acc_9), self.codes_10[row].eq(Mux(self.relu_10 & negative, 0, held))]
