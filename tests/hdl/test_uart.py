"""The serial line: every byte, clocks that differ, noise, a consumer that is late."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator

from hdl.uart import DIVISOR_MIN, UartReceiver, UartTransmitter
from microrisk.errors import UsageError
from microrisk.spec.uart import BITS_PER_BYTE


def simulate(top, *benches, limit=200_000):
    """Run testbenches; the first decides the end, and a limit of cycles ends it in any case."""
    sim = Simulator(top)
    sim.add_clock(1e-6)
    ended = []

    async def watch(ctx):
        for _ in range(limit):
            await ctx.tick()
            if ended:
                return
        raise AssertionError(f"not done after {limit} cycles")

    async def first(ctx):
        await benches[0](ctx)
        ended.append(True)

    sim.add_testbench(first)
    for bench in benches[1:]:
        sim.add_testbench(bench, background=True)
    sim.add_testbench(watch)
    sim.run()


def line_bits(values, divisor, gap=0):
    """The line, a sample a cycle, of bytes with `gap` cycles of idle after each."""
    bits = []
    for value in values:
        frame = [0, *((value >> k) & 1 for k in range(8)), 1]
        bits += [b for b in frame for _ in range(divisor)] + [1] * gap
    return bits


async def put(ctx, port, values):
    for value in values:
        ctx.set(port.payload, int(value))
        ctx.set(port.valid, 1)
        await ctx.tick().until(port.ready)
    ctx.set(port.valid, 0)


async def get(ctx, port, n, stalls=None):
    found = []
    for _ in range(n):
        if stalls is not None:
            await ctx.tick().repeat(int(stalls.integers(0, 20)) + 1)
        ctx.set(port.ready, 1)
        (value,) = await ctx.tick().sample(port.payload).until(port.valid)
        ctx.set(port.ready, 0)
        found.append(value)
    return found


@pytest.mark.parametrize("divisor", [4, 5, 12])
def test_every_byte_from_transmitter_to_receiver(divisor):
    m = Module()
    m.submodules.sender = sender = UartTransmitter(divisor)
    m.submodules.taker = taker = UartReceiver(divisor)
    m.d.comb += taker.rx.eq(sender.tx)
    values = [*range(256), 0, 0, 255, 255]

    async def take(ctx):
        assert await get(ctx, taker.o, len(values)) == values

    async def send(ctx):
        await put(ctx, sender.i, values)

    simulate(m, take, send)


@pytest.mark.parametrize("divisor", [4, 12])
def test_transmitter_writes_8n1_without_pauses(divisor):
    sender = UartTransmitter(divisor)
    values = [0x00, 0xFF, 0x5A, 0x01, 0x80]
    due = line_bits(values, divisor)
    seen = []

    async def watch(ctx):
        for _ in range(len(due) + 10):
            await ctx.tick()
            seen.append(ctx.get(sender.tx))

    async def send(ctx):
        await put(ctx, sender.i, values)

    simulate(sender, watch, send)
    start = seen.index(0)
    assert seen[start : start + len(due)] == due
    assert set(seen[:start] + seen[start + len(due) :]) <= {1}


@pytest.mark.parametrize("off", [-0.03, 0.03])
def test_a_sender_whose_clock_differs_by_three_percent(off):
    divisor, values = 12, [0x55, 0xAA, 0x00, 0xFF, 0x0F]
    exact = np.array(line_bits(values, 100))
    line = exact[np.minimum((np.arange(int(len(exact) * divisor / 100)) * (1 + off) * 100 / divisor), len(exact) - 1)
                 .astype(int)].tolist()  # fmt: skip
    assert received(divisor, [*line, *[1] * 40])[0] == values


def received(divisor, line, taken=True):
    """(bytes, framing errors, overruns) of a line given cycle by cycle."""
    taker = UartReceiver(divisor)
    found, counts = [], [0, 0]

    async def drive(ctx):
        ctx.set(taker.o.ready, taken)
        for bit in line:
            ctx.set(taker.rx, bit)
            if ctx.get(taker.o.valid) and taken:
                found.append(ctx.get(taker.o.payload))
            counts[0] += ctx.get(taker.framing)
            counts[1] += ctx.get(taker.overrun)
            await ctx.tick()
        if not taken:
            found.append(ctx.get(taker.o.payload))

    simulate(taker, drive)
    return found, *counts


@pytest.mark.parametrize("phase", range(5))
def test_a_start_at_any_phase_and_idle_between(phase):
    line = [1] * (20 + phase) + line_bits([3, 0xC0], 8, gap=phase) + [1] * 20
    assert received(8, line) == ([3, 0xC0], 0, 0)


def test_a_glitch_is_no_byte():
    line = [1] * 20 + [0] * 2 + [1] * 100 + line_bits([7], 12) + [1] * 30
    assert received(12, line) == ([7], 0, 0)


def test_a_missing_stop_bit_drops_the_byte_and_counts():
    broken = line_bits([0xF0], 8)
    broken[-8:] = [0] * 8
    line = [1] * 20 + broken + [1] * 100 + line_bits([9], 8) + [1] * 30
    assert received(8, line) == ([9], 1, 0)


def test_a_break_counts_once():
    line = [1] * 20 + [0] * 500 + [1] * 50 + line_bits([9], 8) + [1] * 30
    assert received(8, line) == ([9], 1, 0)


def test_what_is_shown_stays_and_later_bytes_are_counted_as_lost():
    line = [1] * 20 + line_bits([11, 12, 13], 8) + [1] * 30
    assert received(8, line, taken=False) == ([11], 0, 2)


def test_too_few_cycles_a_bit():
    for unit in (UartTransmitter, UartReceiver):
        with pytest.raises(UsageError, match=f"at least {DIVISOR_MIN}"):
            unit(3)
    assert BITS_PER_BYTE == 10
