"""One signed product through three registers: a DSP block of the target, used with all its registers.

The behaviour is written once, below; for ECP5 the same three registers are those inside MULT18X18D, which Yosys does
not find by itself. With them the block is not on the critical path, without them it is (2.5 ns in nextpnr's timing).
"""

from typing import Any

from amaranth.hdl import ClockSignal, Const, Instance, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

LATENCY = 3
"""Registers: inputs, inside, output."""
_RESULT = 36  # of MULT18X18D, Lattice TN1267
OPERAND = 18
"""Bits that an operand may have."""


class Multiply(wiring.Component):
    """`product` = a * b of LATENCY cycles ago, both signed.

    Parameters
    ----------
    width_a, width_b : of the operands, at most OPERAND
    ecp5 : use MULT18X18D; False = plain registers, for simulation and other targets
    """

    def __init__(self, width_a: int, width_b: int, *, ecp5: bool = False) -> None:
        if max(width_a, width_b) > OPERAND:
            raise ValueError(f"operands of {width_a} and {width_b} bits, a multiplier takes {OPERAND}")
        self._ecp5 = ecp5
        super().__init__(
            {"a": In(signed(width_a)), "b": In(signed(width_b)), "product": Out(signed(width_a + width_b))}
        )

    def elaborate(self, platform: Any) -> Module:
        """The block, or what it does."""
        m = Module()
        if self._ecp5:
            result = Signal(_RESULT)
            m.submodules.block = self._block(result)
            m.d.comb += self.product.eq(result[_RESULT - len(self.product) :])
            return m
        a, b = Signal.like(self.a, reset_less=True), Signal.like(self.b, reset_less=True)
        inside, product = (Signal.like(self.product, reset_less=True, name=n) for n in ("inside", "outside"))
        m.d.sync += [a.eq(self.a), b.eq(self.b), inside.eq(a * b), product.eq(inside)]
        m.d.comb += self.product.eq(product)
        return m

    def _block(self, result: Signal) -> Instance:
        ports: dict[str, Any] = {"i_SIGNEDA": Const(1), "i_SIGNEDB": Const(1), "i_CLK0": ClockSignal()}
        ports |= {"i_CE0": Const(1), "i_RST0": Const(0)}
        # at the upper end: zeros below cost no wire, copies of the sign above would cost one each
        for name, operand in (("A", self.a), ("B", self.b)):
            empty = OPERAND - len(operand)
            ports |= {f"i_{name}{k}": operand[k - empty] if k >= empty else Const(0) for k in range(OPERAND)}
        ports |= {f"o_P{k}": result[k] for k in range(_RESULT)}
        registers = {f"p_REG_{name}_CLK": "CLK0" for name in ("INPUTA", "INPUTB", "PIPELINE", "OUTPUT")}
        return Instance("MULT18X18D", **registers, **ports)
