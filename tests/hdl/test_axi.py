# amaranth: UnusedElaboratable=no
"""The AXI4-Stream shell: every result is that of its event under any pattern of pauses, and the registers tell so.

The same patterns run twice: here on Amaranth's simulator, and on Icarus, on the Verilog a user gets, driven by the
bus models of cocotbext.axi (`bus_models` below, which cocotb starts in a process of its own).
"""

from __future__ import annotations

import itertools
import os
import random
from itertools import pairwise
from pathlib import Path

import cocotb
import numpy as np
import pytest
from amaranth.hdl import Module, ResetInserter, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge, with_timeout
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiStreamBus, AxiStreamFrame, AxiStreamSink, AxiStreamSource

from hdl.alert import AlertedCore, AlertStage
from hdl.axi import OKAY, SLVERR, AxiShell, bus_members, stream_bytes, stream_members
from hdl.credit import Credited, TaggedStream, payload_shape
from hdl.registers import IDENT, REGISTERS
from hdl.unrolled import UnrolledCore
from hdl.verilog import load, to_rtlil, to_verilog
from microrisk.errors import UsageError
from microrisk.model.synthetic import market_like_codes
from microrisk.weights import FORMAT_HASH

ROOT = Path(__file__).parents[2]
AT = {r.name: r.address for r in REGISTERS}
ODD = data.ArrayLayout(5, 3)
"""A payload of fifteen bits: one bit of its two bytes is padding."""


class Sum(wiring.Component):
    """A pipe of two registers: the sum of three numbers, and a mark for odd ones as `unknown`."""

    latency = 1

    def __init__(self):
        super().__init__(
            {
                "i": In(stream.Signature(ODD, always_ready=True)),
                "o": Out(stream.Signature(7, always_ready=True)),
                "unknown": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        total, valid = Signal(7), Signal(2)
        m.d.sync += [total.eq(sum(self.i.p)), self.o.payload.eq(total), valid.eq((valid << 1) | self.i.valid)]
        m.d.comb += [self.o.valid.eq(valid[1]), self.unknown.eq(self.i.valid & (self.i.p[0] == 31))]
        return m


class Slow(wiring.Component):
    """A core that stalls by itself: it takes an event every fifth cycle at most."""

    def __init__(self):
        super().__init__({"i": In(stream.Signature(ODD)), "o": Out(stream.Signature(7))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = Credited(Sum())
        wait = Signal(3)
        with m.If(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        with m.Elif(self.i.valid & self.i.ready):
            m.d.sync += wait.eq(4)
        m.d.comb += [
            inner.i.payload.eq(self.i.payload),
            inner.i.valid.eq(self.i.valid & (wait == 0)),
            self.i.ready.eq(inner.i.ready & (wait == 0)),
            self.o.payload.eq(inner.o.payload),
            self.o.valid.eq(inner.o.valid),
            inner.o.ready.eq(self.o.ready),
        ]
        return m


def beats(n, seed, frame=4):
    """(tdata, tlast, expected tdata) of n events for the two cores above."""
    rng = random.Random(seed)
    numbers = [[rng.choice([0, 31, rng.randrange(32)]) for _ in range(3)] for _ in range(n)]
    last = [rng.random() < 1 / frame for _ in range(n - 1)] + [True]
    return [(a | b << 5 | c << 10, end, a + b + c) for (a, b, c), end in zip(numbers, last, strict=True)]


class Bench:
    """Drives the ports of a shell on Amaranth's simulator and watches the rules of both streams."""

    def __init__(self, dut, sent, *, offer=1.0, take=1.0, seed=0):
        self.dut, self.sent, self.offer, self.take = dut, sent, offer, take
        self.rng, self.got, self.taken_at, self.given_at = random.Random(seed), [], [], []

    async def run(self, ctx, cycles=20_000):
        dut, queue, held, valid = self.dut, list(self.sent), None, False
        for cycle in range(cycles):
            valid = bool(queue) and (valid or self.rng.random() < self.offer)
            ready = self.rng.random() < self.take
            ctx.set(dut.s_axis_tvalid, valid)
            ctx.set(dut.s_axis_tdata, queue[0][0] if valid else self.rng.getrandbits(15))
            ctx.set(dut.s_axis_tlast, queue[0][1] if valid else self.rng.getrandbits(1))
            ctx.set(dut.m_axis_tready, ready)
            result = (ctx.get(dut.m_axis_tdata), ctx.get(dut.m_axis_tlast))
            if held is not None:
                assert (ctx.get(dut.m_axis_tvalid), result) == (1, held), "a result changed before it was taken"
            held = None
            if ctx.get(dut.m_axis_tvalid):
                held = None if ready else result
                if ready:
                    self.got.append(result)
                    self.given_at.append(cycle)
            if valid and ctx.get(dut.s_axis_tready):
                self.taken_at.append(cycle)
                queue.pop(0)
                valid = False
            await ctx.tick()
            if len(self.got) == len(self.sent):
                ctx.set(dut.s_axis_tvalid, 0)
                return

    def check(self):
        assert self.got == [(result, last) for _, last, result in self.sent]


def simulate(top, *benches):
    sim = Simulator(top)
    sim.add_clock(1e-8)
    for bench in benches:
        sim.add_testbench(bench)
    sim.run()


async def bus_read(ctx, dut, address, patience=0):
    """(data, response); the answer is left waiting for `patience` cycles."""
    ctx.set(dut.s_axil_araddr, address)
    ctx.set(dut.s_axil_arvalid, 1)
    await within(ctx, dut.s_axil_arready)
    ctx.set(dut.s_axil_arvalid, 0)
    await hold(ctx, dut.s_axil_rvalid, patience)
    answer = ctx.get(dut.s_axil_rdata), ctx.get(dut.s_axil_rresp)
    ctx.set(dut.s_axil_rready, 1)
    await within(ctx, dut.s_axil_rvalid)
    ctx.set(dut.s_axil_rready, 0)
    return answer


async def bus_write(ctx, dut, address, value, patience=0, data_late=0):
    """Response; the data come `data_late` cycles after the address."""
    ctx.set(dut.s_axil_awaddr, address)
    ctx.set(dut.s_axil_awvalid, 1)
    for _ in range(data_late):
        assert ctx.get(dut.s_axil_awready) == 0
        await ctx.tick()
    ctx.set(dut.s_axil_wdata, value)
    ctx.set(dut.s_axil_wstrb, 0b1111)
    ctx.set(dut.s_axil_wvalid, 1)
    await within(ctx, dut.s_axil_wready)
    ctx.set(dut.s_axil_awvalid, 0)
    ctx.set(dut.s_axil_wvalid, 0)
    await hold(ctx, dut.s_axil_bvalid, patience)
    answer = ctx.get(dut.s_axil_bresp)
    ctx.set(dut.s_axil_bready, 1)
    await within(ctx, dut.s_axil_bvalid)
    ctx.set(dut.s_axil_bready, 0)
    return answer


async def within(ctx, signal, cycles=20):
    """A handshake: until the end of the first cycle in which `signal` is high."""
    for _ in range(cycles):
        high = ctx.get(signal)
        await ctx.tick()
        if high:
            return
    raise AssertionError(f"{signal} stayed low for {cycles} cycles")


async def hold(ctx, valid, patience):
    """An answer that nobody takes stays."""
    for _ in range(20):
        if ctx.get(valid):
            break
        await ctx.tick()
    for _ in range(patience):
        assert ctx.get(valid) == 1
        await ctx.tick()


# ---- streams ----


@pytest.mark.parametrize("core", [Sum, Slow])
@pytest.mark.parametrize(("offer", "take"), [(1, 1), (0.3, 1), (1, 0.3), (0.6, 0.5), (1, 0.03)])
def test_every_result_is_that_of_its_event(core, offer, take):
    dut = AxiShell(core())
    bench = Bench(dut, beats(150, 1), offer=offer, take=take)
    simulate(dut, bench.run)
    bench.check()


def test_one_event_per_cycle_and_latency():
    dut = AxiShell(Sum())
    bench = Bench(dut, beats(100, 2))
    simulate(dut, bench.run)
    assert bench.taken_at == list(range(100))
    assert bench.given_at == [c + dut.latency + 1 for c in bench.taken_at]


@pytest.mark.parametrize("core", [Sum, Slow])
def test_reset_in_mid_stream(core):
    dut, reset = AxiShell(core()), Signal()
    first, second = Bench(dut, beats(60, 3), take=0.2), Bench(dut, beats(60, 4), take=0.5)

    async def bench(ctx):
        await first.run(ctx, cycles=50)
        assert 0 < len(first.got) < 60
        ctx.set(dut.s_axis_tvalid, 0)
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        assert ctx.get(dut.m_axis_tvalid) == 0
        await second.run(ctx)
        second.check()
        assert await bus_read(ctx, dut, AT["ACCEPTED"]) == (60, OKAY)

    simulate(ResetInserter(reset)(dut), bench)


def test_tags_fill_before_the_core_does():
    dut = TaggedStream(Slow(), 1, depth=2)
    taken = []

    async def bench(ctx):
        ctx.set(dut.i.valid, 1)
        for _ in range(60):
            taken.append(ctx.get(dut.i.ready))
            await ctx.tick()
        assert (sum(taken), ctx.get(dut.used)) == (2, 2)

    simulate(dut, bench)


def test_tdata_is_whole_bytes():
    assert [stream_bytes(w) for w in (0, 1, 8, 9, 256, 258)] == [1, 1, 1, 2, 32, 33]
    dut = AxiShell(Sum())
    assert (len(dut.s_axis_tdata), len(dut.m_axis_tdata)) == (16, 8)


# ---- registers over the bus ----


def test_the_bus_reads_what_the_streams_did():
    dut = AxiShell(Sum(), weights_hash="00000001000000a5")
    sent = beats(80, 5)
    bench = Bench(dut, sent, offer=0.9, take=0.5)

    async def with_bus(ctx):
        assert await bus_read(ctx, dut, AT["IDENT"]) == (IDENT, OKAY)
        assert await bus_read(ctx, dut, AT["FORMAT_HASH_HIGH"], patience=3) == (int(FORMAT_HASH[:8], 16), OKAY)
        assert await bus_read(ctx, dut, AT["WEIGHTS_HASH_LOW"]) == (0xA5, OKAY)
        assert await bus_read(ctx, dut, AT["IN_BYTES"]) == (1 << 16 | 2, OKAY)
        assert await bus_read(ctx, dut, AT["LATENCY"]) == (dut.latency, OKAY)
        assert await bus_write(ctx, dut, AT["CLEAR"], 0b11, patience=2, data_late=2) == OKAY
        await bench.run(ctx)
        bench.check()
        offered = bench.taken_at[-1] + 1
        ctx.set(dut.m_axis_tready, 0)
        counts = {n: (await bus_read(ctx, dut, AT[n]))[0] for n in ("ACCEPTED", "DELIVERED", "IN_STALLS", "OUT_STALLS")}
        assert counts["ACCEPTED"] == counts["DELIVERED"] == 80
        assert 0 < counts["IN_STALLS"] < offered
        assert counts["OUT_STALLS"] > 20
        assert await bus_read(ctx, dut, AT["BUSY"]) == (0, OKAY)

    simulate(dut, with_bus)


def test_stall_counts_are_exact():
    dut = AxiShell(Sum())
    room = dut._inner.depth

    async def bench(ctx):
        ctx.set(dut.s_axis_tvalid, 1)
        await ctx.tick().repeat(room + 9)
        ctx.set(dut.s_axis_tvalid, 0)
        assert await bus_read(ctx, dut, AT["ACCEPTED"]) == (room, OKAY)
        assert await bus_read(ctx, dut, AT["IN_STALLS"]) == (9, OKAY)
        assert await bus_read(ctx, dut, AT["BUSY"]) == (room << 16 | 0b101, OKAY)
        ctx.set(dut.m_axis_tready, 1)
        await ctx.tick().repeat(room)
        assert await bus_read(ctx, dut, AT["DELIVERED"]) == (room, OKAY)
        assert await bus_read(ctx, dut, AT["BUSY"]) == (0, OKAY)

    simulate(dut, bench)


def test_run_at_zero_stops_the_input_and_lets_results_out():
    dut = AxiShell(Sum())

    async def bench(ctx):
        ctx.set(dut.s_axis_tvalid, 1)
        await ctx.tick().repeat(3)
        assert await bus_write(ctx, dut, AT["RUN"], 0) == OKAY
        taken = (await bus_read(ctx, dut, AT["ACCEPTED"]))[0]
        ctx.set(dut.m_axis_tready, 1)
        await ctx.tick().repeat(30)
        assert await bus_read(ctx, dut, AT["DELIVERED"]) == (taken, OKAY)
        assert ctx.get(dut.s_axis_tready) == 0
        assert await bus_write(ctx, dut, AT["RUN"], 1) == OKAY
        assert ctx.get(dut.s_axis_tready) == 1

    simulate(dut, bench)


def test_errors_are_told_and_cleared():
    dut = AxiShell(Sum())

    async def bench(ctx):
        ctx.set(dut.m_axis_tready, 1)
        for tdata, error in ((0, 0b0000), (1 << 15, 0b0010), (31, 0b0100)):
            ctx.set(dut.s_axis_tdata, tdata)
            ctx.set(dut.s_axis_tvalid, 1)
            await ctx.tick()
            ctx.set(dut.s_axis_tvalid, 0)
            assert await bus_read(ctx, dut, AT["LOST"]) == (error, OKAY)
            assert await bus_write(ctx, dut, AT["LOST"], 0b1111) == OKAY
        assert await bus_read(ctx, dut, 0x60) == (0, SLVERR)
        assert await bus_write(ctx, dut, AT["IDENT"], 1) == SLVERR
        assert await bus_read(ctx, dut, AT["ACCESS"]) == (0b1000, OKAY)

    simulate(dut, bench)


def test_a_write_and_a_read_at_once_are_both_answered():
    dut = AxiShell(Sum())

    async def bench(ctx):
        for name, value in (("awaddr", AT["RUN"]), ("wdata", 0), ("wstrb", 15), ("araddr", AT["RUN"])):
            ctx.set(getattr(dut, f"s_axil_{name}"), value)
        for name in ("awvalid", "wvalid", "arvalid"):
            ctx.set(getattr(dut, f"s_axil_{name}"), 1)
        assert (ctx.get(dut.s_axil_awready), ctx.get(dut.s_axil_arready)) == (1, 0)
        await ctx.tick()
        ctx.set(dut.s_axil_awvalid, 0)
        ctx.set(dut.s_axil_wvalid, 0)
        ctx.set(dut.s_axil_bready, 1)
        await within(ctx, dut.s_axil_bvalid)
        await within(ctx, dut.s_axil_arready)
        ctx.set(dut.s_axil_arvalid, 0)
        await hold(ctx, dut.s_axil_rvalid, 2)
        assert ctx.get(dut.s_axil_rdata) == 0

    simulate(dut, bench)


def test_the_interface_is_described_for_other_tools():
    described = AxiShell(Sum()).metadata.as_json()["interface"]["members"]
    port = {"type": "port", "name": "s_axis_tdata", "dir": "in", "width": 16, "signed": False, "init": "0"}
    assert described["s_axis_tdata"] == port
    assert set(described) == set(stream_members(2, 1)) | set(bus_members())


def test_a_hash_that_is_none_is_refused():
    with pytest.raises(UsageError, match="WEIGHTS_HASH 'abc': a hash here is 16 hexadecimal digits"):
        AxiShell(Sum(), weights_hash="abc")


# ---- a scoring core, in Verilog, on Icarus, with bus models ----

HEADS = ("maxz",)
INSTRUMENTS = 3


def scoring_shell(weights):
    stage = AlertStage([weights.level_for()], heads=HEADS, instruments=INSTRUMENTS)
    core = AlertedCore(UnrolledCore(weights, HEADS), stage)
    return core, AxiShell(core, weights.heads_hash())


def scoring_beats(weights, core, n):
    """(tdata, expected tdata) as bytes: Weights.compute, then score/alert.py instrument by instrument."""
    from microrisk.score import alert

    codes, who = market_like_codes(n, 11), np.random.default_rng(12).integers(0, INSTRUMENTS, n)
    codes[n // 3 : n // 2] = np.clip(codes[n // 3 : n // 2].astype(int) * 8, -128, 127)
    heads, params = weights.compute(codes), alert.make_params(weights.level_for())
    states = [alert.initial_state() for _ in range(INSTRUMENTS)]
    pairs = []
    for row, instrument, head in zip(codes, who, heads, strict=True):
        level, bits, fresh = alert.step_reference(head, params, states[instrument])
        event = {"event": row.tolist(), "instrument": int(instrument)}
        result = {"heads": {"maxz": int(head[0])}, "level": {"maxz": int(level[0])}}
        result |= {"alert": bits & 1, "fresh": fresh & 1, "instrument": int(instrument)}
        pairs.append((packed(payload_shape(core.i), event), packed(payload_shape(core.o), result)))
    return pairs


def packed(layout, value):
    """The payload as the bytes of tdata."""
    bits = Value.cast(layout.const(value)).value
    return bits.to_bytes(stream_bytes(layout), "little")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Folder with the simulation, the events and the expected results; the shell."""
    from cocotb_tools.runner import get_runner

    folder, weights = tmp_path_factory.mktemp("axi"), load("default")
    core, shell = scoring_shell(weights)
    pairs = scoring_beats(weights, core, 400)
    np.savez(folder / "beats.npz", **{n: np.array([list(p[k]) for p in pairs], np.uint8) for k, n in enumerate("io")})
    (folder / "shell.v").write_text(to_verilog(to_rtlil(shell, "microrisk_axi")))
    runner = get_runner("icarus")
    quiet = {"log_file": str(folder / "build.log")}
    runner.build(
        sources=[folder / "shell.v"], hdl_toplevel="microrisk_axi", build_dir=folder, timescale=("1ns", "1ps"), **quiet
    )
    return folder, shell, runner


def test_verilog_on_icarus_with_bus_models(built, monkeypatch):
    folder, shell, runner = built
    for place in (ROOT, Path(__file__).parent):  # the simulator's Python gets this path
        monkeypatch.syspath_prepend(str(place))
    environment = {"MICRORISK_BENCH": str(folder), "MICRORISK_LATENCY": str(shell.latency)}
    log = folder / "run.log"
    try:
        results = runner.test(
            hdl_toplevel="microrisk_axi",
            test_module=Path(__file__).stem,
            build_dir=folder,
            test_dir=folder,
            extra_env=environment,
            log_file=str(log),
        )
    except SystemExit:
        pytest.fail(f"the bench in the simulator failed:\n{log.read_text()[-4000:]}")
    assert Path(results).read_text().count("<testcase") == 1


def test_top_level_names_are_those_of_the_bus(built):
    text = (built[0] / "shell.v").read_text()
    header = text[text.index("module microrisk_axi(") :].split(";", 1)[0]
    names = {n.strip() for n in header.split("(", 1)[1].rstrip(")").split(",")}
    streams = {f"{side}_axis_{n}" for side in "sm" for n in ("tdata", "tvalid", "tready", "tlast")}
    assert streams | {"clk", "rst"} <= names
    assert all(n.startswith("s_axil_") for n in names - streams - {"clk", "rst"})


@cocotb.test(timeout_time=200, timeout_unit="us")
async def bus_models(dut):
    """Runs inside the simulator: frames of random length, pauses on both sides, registers read over the bus."""
    folder = Path(os.environ["MICRORISK_BENCH"])
    with np.load(folder / "beats.npz") as stored:
        events, results = stored["i"], stored["o"]
    Clock(dut.clk, 4, "ns").start()
    source = AxiStreamSource(AxiStreamBus.from_prefix(dut, "s_axis"), dut.clk, dut.rst)
    sink = AxiStreamSink(AxiStreamBus.from_prefix(dut, "m_axis"), dut.clk, dut.rst)
    bus = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst)
    dut.rst.value = 1
    await ClockCycles(dut.clk, 3)
    dut.rst.value = 0
    await RisingEdge(dut.clk)
    rng = random.Random(6)
    sent = 0
    for pauses_in, pauses_out in ((0, 0), (0.5, 0), (0, 0.6), (0.3, 0.3), (0, 0.95)):
        source.set_pause_generator(rng.random() < pauses_in for _ in itertools.count())
        sink.set_pause_generator(rng.random() < pauses_out for _ in itertools.count())
        cuts = [sent]
        while cuts[-1] < sent + len(events) // 5:
            cuts.append(min(cuts[-1] + rng.randrange(1, 10), sent + len(events) // 5))
        for start, stop in pairwise(cuts):
            source.send_nowait(AxiStreamFrame(events[start:stop].tobytes()))
        for start, stop in pairwise(cuts):
            frame = await with_timeout(sink.recv(), 20, "us")
            assert bytes(frame.tdata) == results[start:stop].tobytes(), f"events {start}..{stop - 1} differ"
        sent = cuts[-1]
    assert await bus.read_dword(AT["IDENT"]) == IDENT
    assert await bus.read_dword(AT["ACCEPTED"]) == sent == len(events)
    assert await bus.read_dword(AT["DELIVERED"]) == sent
    assert await bus.read_dword(AT["LOST"]) == 0
    assert await bus.read_dword(AT["LATENCY"]) == int(os.environ["MICRORISK_LATENCY"])
    assert await bus.read_dword(AT["OUT_STALLS"]) > 100
