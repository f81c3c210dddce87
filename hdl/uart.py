"""Serial line, 8N1: a byte is a start bit (0), eight data bits with the lowest first, and a stop bit (1)."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

from microrisk.errors import UsageError
from microrisk.spec.uart import BITS_PER_BYTE, DATA_BITS

DIVISOR_MIN = 4
"""Cycles a bit: with fewer the middle of a bit cannot be told from its ends."""


def _checked(divisor: int) -> int:
    if divisor < DIVISOR_MIN:
        raise UsageError(f"{divisor} clock cycles a bit: at least {DIVISOR_MIN}, so a faster clock or a slower line")
    return divisor


class UartTransmitter(wiring.Component):
    """Bytes to a line, without pauses while there are any.

    Parameters
    ----------
    divisor : clock cycles a bit, at least DIVISOR_MIN

    Attributes
    ----------
    i : stream of bytes; tx : the line, 1 at rest
    """

    def __init__(self, divisor: int) -> None:
        self._divisor = _checked(divisor)
        super().__init__({"i": In(stream.Signature(DATA_BITS)), "tx": Out(1, init=1)})

    def elaborate(self, platform: Any) -> Module:
        """A shift register that holds the bits still to be sent; the next byte is taken in the last cycle of one."""
        m = Module()
        bits = Signal(BITS_PER_BYTE, init=(1 << BITS_PER_BYTE) - 1)
        left, cycle = Signal(range(BITS_PER_BYTE + 1)), Signal(range(self._divisor))
        last = Signal()
        m.d.comb += [
            self.tx.eq(bits[0]),
            last.eq(cycle == self._divisor - 1),
            self.i.ready.eq((left == 0) | ((left == 1) & last)),
        ]
        with m.If(self.i.ready & self.i.valid):
            frame = Cat(Const(0, 1), self.i.payload, Const(1, 1))
            m.d.sync += [bits.eq(frame), left.eq(BITS_PER_BYTE), cycle.eq(0)]
        with m.Elif(last):
            m.d.sync += [cycle.eq(0), bits.eq(Cat(bits[1:], Const(1, 1)))]
            with m.If(left != 0):
                m.d.sync += left.eq(left - 1)
        with m.Elif(left != 0):
            m.d.sync += cycle.eq(cycle + 1)
        return m


class UartReceiver(wiring.Component):
    """A line to bytes; each bit is looked at once, in its middle.

    Parameters
    ----------
    divisor : clock cycles a bit, at least DIVISOR_MIN; the sender's clock may differ by three percent

    Attributes
    ----------
    rx : the line, from another clock
    o : stream of bytes; what is offered stays until it is taken
    framing : for one cycle, a byte without its stop bit was dropped
    overrun : for one cycle, a byte was dropped because the one before it had not been taken
    """

    def __init__(self, divisor: int) -> None:
        self._divisor = _checked(divisor)
        super().__init__(
            {"rx": In(1, init=1), "o": Out(stream.Signature(DATA_BITS)), "framing": Out(1), "overrun": Out(1)}
        )

    def elaborate(self, platform: Any) -> Module:
        """Rest, start bit, data bits, stop bit; after a missing stop bit it waits until the line rests again."""
        m = Module()
        line = Signal(init=1)
        m.submodules.synchronizer = FFSynchronizer(self.rx, line, init=1)
        wait = Signal(range(self._divisor + 1))
        count, bits = Signal(range(DATA_BITS)), Signal(DATA_BITS)
        m.d.sync += [self.framing.eq(0), self.overrun.eq(0)]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        m.d.sync += wait.eq(wait - 1)
        with m.FSM():
            with m.State("REST"), m.If(~line):
                m.d.sync += wait.eq(self._divisor // 2 - 1)
                m.next = "START"
            with m.State("START"), m.If(wait == 0):
                m.d.sync += [wait.eq(self._divisor - 1), count.eq(0)]
                m.next = "REST"
                with m.If(~line):
                    m.next = "DATA"
            with m.State("DATA"), m.If(wait == 0):
                m.d.sync += [wait.eq(self._divisor - 1), bits.eq(Cat(bits[1:], line)), count.eq(count + 1)]
                with m.If(count == DATA_BITS - 1):
                    m.next = "STOP"
            with m.State("STOP"), m.If(wait == 0):
                self._end(m, line, bits)
            with m.State("BREAK"), m.If(line):
                m.next = "REST"
        return m

    def _end(self, m: Module, line: Signal, bits: Signal) -> None:
        m.next = "REST"
        with m.If(~line):
            m.d.sync += self.framing.eq(1)
            m.next = "BREAK"
        with m.Elif(self.o.valid & ~self.o.ready):
            m.d.sync += self.overrun.eq(1)
        with m.Else():
            m.d.sync += [self.o.valid.eq(1), self.o.payload.eq(bits)]
