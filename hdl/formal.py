"""Hardware that exists for proofs: the smallest pipe, so that a proof about what is around it is small too."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class Shift(wiring.Component):
    """A pipe that only delays. The wrappers do not look at payloads, so what holds around it holds around any pipe.

    Parameters
    ----------
    latency : as in hdl.credit: latency + 1 registers in a row
    shape : of the payload
    """

    def __init__(self, latency: int, shape: Any) -> None:
        self.latency, self._shape = latency, shape
        super().__init__(
            {
                "i": In(stream.Signature(shape, always_ready=True)),
                "o": Out(stream.Signature(shape, always_ready=True)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Registers `payload_k` and `valid_k`, k counted from the input."""
        m = Module()
        payload, valid = self.i.payload, self.i.valid
        for k in range(self.latency + 1):
            p, v = Signal(self._shape, name=f"payload_{k}"), Signal(name=f"valid_{k}")
            m.d.sync += [p.eq(payload), v.eq(valid)]
            payload, valid = p, v
        m.d.comb += [self.o.payload.eq(payload), self.o.valid.eq(valid)]
        return m
