"""A component behind three pins, for place and route of designs with more ports than the package has.

Inputs come from a shift register, outputs go into one; both are registers of the wrapper, so that paths of the
component begin and end at registers as inside a larger design. The wrapper is counted with it.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Folded(wiring.Component):
    """`inner` with its inputs shifted in through `data` and its outputs shifted out through `result`.

    Parameters
    ----------
    inner : its clock is this component's
    """

    def __init__(self, inner: wiring.Component) -> None:
        self._inner = inner
        super().__init__({"data": In(1), "load": In(1), "result": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        """Shift registers around it."""
        m = Module()
        m.submodules.inner = self._inner
        members = list(self._inner.signature.flatten(self._inner))
        # a member that is a constant (always ready) has no wire to drive
        inputs = [Value.cast(v) for _, member, v in members if member.flow == In and isinstance(Value.cast(v), Signal)]
        outputs = [Value.cast(v) for _, member, v in members if member.flow == Out]
        shifted = Signal(sum(map(len, inputs)))
        held = Signal.like(shifted)
        m.d.sync += [shifted.eq(Cat(self.data, shifted)), held.eq(Mux(self.load, shifted, held))]
        at = 0
        for wire in inputs:
            m.d.comb += wire.eq(held[at : at + len(wire)])
            at += len(wire)
        seen, out = Signal(sum(map(len, outputs))), Signal(sum(map(len, outputs)))
        m.d.sync += [seen.eq(Cat(outputs)), out.eq(Mux(self.load, seen, out >> 1))]
        m.d.comb += self.result.eq(out[0])
        return m
