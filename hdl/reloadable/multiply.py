"""One product of two codes through three registers: a DSP block of the target, used with all its registers.

The behaviour is written once, below; for ECP5 the same three registers are those inside MULT18X18D, which Yosys does
not find by itself. With them the block is not on the critical path, without them it is (2.5 ns in nextpnr's timing).
"""

from typing import Any

from amaranth.hdl import ClockSignal, Const, Instance, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.shapes import shape_of
from microrisk.spec.formats import CODE, WEIGHT

LATENCY = 3
"""Registers: inputs, inside, output."""
_OPERAND, _RESULT = 18, 36  # of MULT18X18D, Lattice TN1267


class Multiply(wiring.Component):
    """`product` = x * weight of LATENCY cycles ago.

    Parameters
    ----------
    ecp5 : use MULT18X18D; False = plain registers, for simulation and other targets
    """

    x: In(shape_of(CODE))
    weight: In(shape_of(WEIGHT))
    product: Out(signed(CODE.width + WEIGHT.width))

    def __init__(self, *, ecp5: bool = False) -> None:
        super().__init__()
        self._ecp5 = ecp5

    def elaborate(self, platform: Any) -> Module:
        """The block, or what it does."""
        m = Module()
        if self._ecp5:
            result = Signal(_RESULT)
            m.submodules.block = self._block(result)
            m.d.comb += self.product.eq(result[: len(self.product)])
            return m
        x, weight = Signal.like(self.x, reset_less=True), Signal.like(self.weight, reset_less=True)
        inside = Signal.like(self.product, reset_less=True)
        m.d.sync += [x.eq(self.x), weight.eq(self.weight), inside.eq(x * weight), self.product.eq(inside)]
        return m

    def _block(self, result: Signal) -> Instance:
        ports: dict[str, Any] = {"i_SIGNEDA": Const(1), "i_SIGNEDB": Const(1), "i_CLK0": ClockSignal()}
        ports |= {"i_CE0": Const(1), "i_RST0": Const(0)}
        for k in range(_OPERAND):
            ports[f"i_A{k}"] = self.x[min(k, len(self.x) - 1)]
            ports[f"i_B{k}"] = self.weight[min(k, len(self.weight) - 1)]
        ports |= {f"o_P{k}": result[k] for k in range(_RESULT)}
        registers = {f"p_REG_{name}_CLK": "CLK0" for name in ("INPUTA", "INPUTB", "PIPELINE", "OUTPUT")}
        return Instance("MULT18X18D", **registers, **ports)
