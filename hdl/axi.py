# amaranth: UnusedElaboratable=no
"""AXI4-Stream shell around a core, with a register port (AXI4-Lite): what a user drops into a design of their own.

One event is one beat. `s_axis_tdata` is the payload of the core's input, bit 0 first, filled up with zeros to whole
bytes; `m_axis_tdata` likewise the payload of its output; `tlast` comes out with the result of its event.
Clock and reset are those of the domain `sync`: `clk`, and `rst`, synchronous and high while it resets.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.credit import Credited, Tagged, TaggedStream, is_pipe, payload_shape
from hdl.registers import ADDRESS_BITS, BYTES, WORD, RegisterFile, hash_words
from microrisk.weights import FORMAT_HASH

OKAY, SLVERR = 0, 2
"""Responses of AXI4-Lite (ARM IHI 0022, A3.4.4)."""
RESPONSE = unsigned(2)
PROTECTION = unsigned(3)
BYTE = 8
STREAM_DEPTH = 64
"""Events at a time inside a core that stalls by itself."""
NO_HASH = "0" * 16
"""Weight hash of a core whose weights are loaded while it runs."""


def stream_bytes(payload: Any) -> int:
    """Bytes of `tdata` for a payload."""
    return max(-(-Shape.cast(payload).width // BYTE), 1)


class AxiShell(wiring.Component):
    """AXI4-Stream slave and master around a core, and the registers of hdl.registers.

    Parameters
    ----------
    core : a pipe (it is put behind credits), or a core with ready and valid that answers every event once, in order;
        an output `unknown` of it, where it has one, sets the register of that name
    weights_hash : `Weights.heads_hash()` of the weights in it; None = they are loaded while it runs
    format_hash : of the specification that it is made for

    Attributes
    ----------
    s_axis_*, m_axis_* : streams; s_axil_* : registers
    latency : clock periods from the edge that takes an event to the edge after which its result is offered

    Raises
    ------
    UsageError : a hash that is none
    """

    def __init__(self, core: Any, weights_hash: str | None = None, format_hash: str = FORMAT_HASH) -> None:
        self._core = core
        last = unsigned(1)
        self._inner = Credited(Tagged(core, last)) if is_pipe(core) else TaggedStream(core, last, STREAM_DEPTH)
        self.latency = self._inner.latency
        self._bytes = [stream_bytes(payload_shape(port)) for port in (core.i, core.o)]
        self._constants = {
            **hash_words("FORMAT_HASH", format_hash),
            **hash_words("WEIGHTS_HASH", weights_hash or NO_HASH),
            "IN_BYTES": self._bytes[0],
            "OUT_BYTES": self._bytes[1],
            "LATENCY": self.latency,
        }
        super().__init__({**stream_members(*self._bytes), **bus_members()})

    def elaborate(self, platform: Any) -> Module:
        """Core, registers, and the wires between."""
        m = Module()
        m.submodules.inner = self._inner
        m.submodules.registers = registers = RegisterFile(self._constants)
        m.submodules.bus = bus = AxiLite()
        for name in bus_members():
            ours, theirs = getattr(self, name), getattr(bus, name)
            m.d.comb += theirs.eq(ours) if bus_members()[name].flow is In else ours.eq(theirs)
        m.d.comb += [getattr(registers, name).eq(getattr(bus, name)) for name in AxiLite.REQUEST]
        m.d.comb += [getattr(bus, name).eq(getattr(registers, name)) for name in AxiLite.ANSWER]
        self._connect_streams(m, registers.run)
        self._connect_status(m, registers)
        return m

    def _connect_streams(self, m: Module, run: Value) -> None:
        i, o = self._inner.i, self._inner.o
        event, result = Value.cast(i.p.payload), Value.cast(o.p.payload)
        m.d.comb += [
            event.eq(self.s_axis_tdata[: len(event)]),
            i.p.tag.eq(self.s_axis_tlast),
            i.valid.eq(self.s_axis_tvalid & run),
            self.s_axis_tready.eq(i.ready & run),
            self.m_axis_tdata.eq(result.as_unsigned()),
            self.m_axis_tlast.eq(o.p.tag),
            self.m_axis_tvalid.eq(o.valid),
            o.ready.eq(self.m_axis_tready),
        ]

    def _connect_status(self, m: Module, registers: RegisterFile) -> None:
        taken = self.s_axis_tvalid & self.s_axis_tready
        padding = self.s_axis_tdata[len(Value.cast(self._core.i.payload)) :]
        in_stalled = self.s_axis_tvalid & ~self.s_axis_tready
        out_stalled = self.m_axis_tvalid & ~self.m_axis_tready
        m.d.comb += [
            registers.busy.eq(self._inner.used != 0),
            registers.inside.eq(self._inner.used),
            registers.in_stalled.eq(in_stalled),
            registers.out_stalled.eq(out_stalled),
            registers.lost.eq(self._inner.lost),
            registers.padding.eq(taken & padding.any()),
            registers.unknown.eq(getattr(self._core, "unknown", Const(0, 1))),
            registers.access.eq(registers.fault),
            registers.cycles.eq(1),
            registers.accepted.eq(taken),
            registers.delivered.eq(self.m_axis_tvalid & self.m_axis_tready),
            registers.in_stalls.eq(in_stalled),
            registers.out_stalls.eq(out_stalled),
        ]


def stream_members(in_bytes: int, out_bytes: int) -> dict[str, wiring.Member]:
    """Ports of the two streams."""
    return {
        "s_axis_tdata": In(in_bytes * BYTE),
        "s_axis_tvalid": In(1),
        "s_axis_tready": Out(1),
        "s_axis_tlast": In(1),
        "m_axis_tdata": Out(out_bytes * BYTE),
        "m_axis_tvalid": Out(1),
        "m_axis_tready": In(1),
        "m_axis_tlast": Out(1),
    }


def bus_members() -> dict[str, wiring.Member]:
    """Ports of the register bus, AXI4-Lite; the protection bits are not looked at."""
    return {
        "s_axil_awaddr": In(ADDRESS_BITS),
        "s_axil_awprot": In(PROTECTION),
        "s_axil_awvalid": In(1),
        "s_axil_awready": Out(1),
        "s_axil_wdata": In(WORD),
        "s_axil_wstrb": In(BYTES),
        "s_axil_wvalid": In(1),
        "s_axil_wready": Out(1),
        "s_axil_bresp": Out(RESPONSE),
        "s_axil_bvalid": Out(1),
        "s_axil_bready": In(1),
        "s_axil_araddr": In(ADDRESS_BITS),
        "s_axil_arprot": In(PROTECTION),
        "s_axil_arvalid": In(1),
        "s_axil_arready": Out(1),
        "s_axil_rdata": Out(WORD),
        "s_axil_rresp": Out(RESPONSE),
        "s_axil_rvalid": Out(1),
        "s_axil_rready": In(1),
    }


class AxiLite(wiring.Component):
    """AXI4-Lite slave to the access port of a RegisterFile: one access at a time, a write before a read.

    An access takes six cycles when the master takes the answer at once; address and data of a write come together.
    """

    REQUEST = ("word", "read", "write", "w_data", "w_strobe")
    ANSWER = ("r_data", "fault")

    def __init__(self) -> None:
        word = ADDRESS_BITS - (BYTES - 1).bit_length()
        super().__init__(
            {
                **bus_members(),
                "word": Out(word),
                "read": Out(1),
                "write": Out(1),
                "w_data": Out(WORD),
                "w_strobe": Out(BYTES),
                "r_data": In(WORD),
                "fault": In(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Take an access, wait for the registers, answer the master."""
        m = Module()
        take_write, take_read, busy = Signal(), Signal(), Signal()
        reading, writing = Signal(RegisterFile.ANSWER), Signal(RegisterFile.ANSWER)
        m.d.comb += [
            take_write.eq(~busy & self.s_axil_awvalid & self.s_axil_wvalid),
            take_read.eq(~busy & self.s_axil_arvalid & ~take_write),
            self.s_axil_awready.eq(take_write),
            self.s_axil_wready.eq(take_write),
            self.s_axil_arready.eq(take_read),
        ]
        skip = len(self.s_axil_awaddr) - len(self.word)
        m.d.sync += [
            self.write.eq(take_write),
            self.read.eq(take_read),
            self.word.eq(Mux(take_write, self.s_axil_awaddr[skip:], self.s_axil_araddr[skip:])),
            self.w_data.eq(self.s_axil_wdata),
            self.w_strobe.eq(self.s_axil_wstrb),
            writing.eq(Cat(self.write, writing)),
            reading.eq(Cat(self.read, reading)),
        ]
        self._respond(m, reading[-1], writing[-1])
        given = (self.s_axil_rvalid & self.s_axil_rready) | (self.s_axil_bvalid & self.s_axil_bready)
        with m.If(take_write | take_read):
            m.d.sync += busy.eq(1)
        with m.Elif(given):
            m.d.sync += busy.eq(0)
        return m

    def _respond(self, m: Module, reading: Value, writing: Value) -> None:
        """Answers are registers, which stay until the master takes them."""
        response = Cat(Const(OKAY, 1), self.fault)  # SLVERR is the upper of the two bits
        with m.If(self.s_axil_rready):
            m.d.sync += self.s_axil_rvalid.eq(0)
        with m.If(self.s_axil_bready):
            m.d.sync += self.s_axil_bvalid.eq(0)
        with m.If(reading):
            m.d.sync += [self.s_axil_rvalid.eq(1), self.s_axil_rdata.eq(self.r_data), self.s_axil_rresp.eq(response)]
        with m.If(writing):
            m.d.sync += [self.s_axil_bvalid.eq(1), self.s_axil_bresp.eq(response)]
