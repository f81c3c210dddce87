# amaranth: UnusedElaboratable=no
"""The register map: its table contradicts nothing, hardware and page say the same, every kind of access works."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from amaranth.sim import Simulator

from hdl.registers import (
    ADDRESS_BITS,
    BYTES,
    IDENT,
    REGISTERS,
    WORD,
    Access,
    RegisterFile,
    check_map,
    hash_words,
    markdown,
)
from microrisk.errors import UsageError

CONSTANTS = {
    **hash_words("FORMAT_HASH", "0123456789abcdef"),
    **hash_words("WEIGHTS_HASH", "fedcba9876543210"),
    "IN_BYTES": 32,
    "OUT_BYTES": 16,
    "LATENCY": 19,
}
AT = {r.name: r.address for r in REGISTERS}
EVERY_BYTE = (1 << BYTES) - 1


def simulate(bench):
    dut = RegisterFile(CONSTANTS)
    sim = Simulator(dut)
    sim.add_clock(1e-8)

    async def with_dut(ctx):
        await bench(ctx, dut)

    sim.add_testbench(with_dut)
    sim.run()


async def access(ctx, dut, kind, address):
    """An access; returns when its answer shows."""
    ctx.set(dut.word, address // BYTES)
    ctx.set(getattr(dut, kind), 1)
    await ctx.tick()
    ctx.set(getattr(dut, kind), 0)
    await ctx.tick().repeat(RegisterFile.ANSWER - 1)


async def read(ctx, dut, address):
    """(data, fault) of a read."""
    await access(ctx, dut, "read", address)
    return ctx.get(dut.r_data), ctx.get(dut.fault)


async def write(ctx, dut, address, value, strobe=EVERY_BYTE):
    """Fault of a write."""
    ctx.set(dut.w_data, value)
    ctx.set(dut.w_strobe, strobe)
    await access(ctx, dut, "write", address)
    return ctx.get(dut.fault)


def test_reset_values_of_every_word_are_those_of_the_table():
    expected = {}
    for r in REGISTERS:
        value = CONSTANTS.get(r.name, r.reset)
        expected[r.address] = expected.get(r.address, 0) | value << r.bits[1]

    async def bench(ctx, dut):
        got = {a: await read(ctx, dut, a) for a in expected if a != AT["CYCLES"]}
        assert got == {a: (v, 0) for a, v in expected.items() if a != AT["CYCLES"]}

    simulate(bench)
    assert expected[AT["IDENT"]] == IDENT == 0x4D52534B
    assert (expected[AT["FORMAT_HASH_HIGH"]], expected[AT["FORMAT_HASH_LOW"]]) == (0x01234567, 0x89ABCDEF)


def test_faults_where_nothing_is_and_where_nothing_can_be_written():
    writable = {r.address for r in REGISTERS if r.access in (Access.SETTING, Access.PULSE, Access.STICKY)}

    async def bench(ctx, dut):
        for address in range(0, 1 << ADDRESS_BITS, BYTES):
            assert (await read(ctx, dut, address))[1] == (address not in AT.values())
            assert await write(ctx, dut, address, 0, 0) == (address not in writable)
        await ctx.tick()
        assert ctx.get(dut.fault) == 0

    simulate(bench)


def test_setting_by_bytes_and_pulse():
    async def bench(ctx, dut):
        assert ctx.get(dut.run) == 1
        await write(ctx, dut, AT["RUN"], 0, strobe=0b1110)
        assert ctx.get(dut.run) == 1, "the byte was not strobed"
        await write(ctx, dut, AT["RUN"], 0)
        assert ctx.get(dut.run) == 0
        assert await read(ctx, dut, AT["RUN"]) == (0, 0)
        ctx.set(dut.word, AT["CLEAR"] // BYTES)
        ctx.set(dut.w_data, 0b11)
        ctx.set(dut.w_strobe, EVERY_BYTE)
        ctx.set(dut.write, 1)
        seen = []
        for _ in range(4):
            seen.append((ctx.get(dut.clear), ctx.get(dut.run)))
            await ctx.tick()
            ctx.set(dut.write, 0)
        assert seen == [(0, 0), (1, 0), (0, 1), (0, 1)]

    simulate(bench)


def test_status_follows_and_sticky_stays_until_cleared():
    async def bench(ctx, dut):
        ctx.set(dut.inside, 0x1234)
        ctx.set(dut.out_stalled, 1)
        assert await read(ctx, dut, AT["BUSY"]) == (0x1234_0004, 0)
        ctx.set(dut.padding, 1)
        await ctx.tick()
        ctx.set(dut.padding, 0)
        ctx.set(dut.lost, 1)
        await ctx.tick()
        ctx.set(dut.lost, 0)
        assert await read(ctx, dut, AT["LOST"]) == (0b0011, 0)
        await write(ctx, dut, AT["LOST"], 0b0001)
        assert await read(ctx, dut, AT["LOST"]) == (0b0010, 0)
        ctx.set(dut.padding, 1)  # in the very cycle in which the bits are cleared, and no longer
        ctx.set(dut.w_data, 0b1111)
        ctx.set(dut.word, AT["LOST"] // BYTES)
        ctx.set(dut.write, 1)
        await ctx.tick()
        ctx.set(dut.padding, 0)
        ctx.set(dut.write, 0)
        await ctx.tick()
        assert await read(ctx, dut, AT["LOST"]) == (0b0010, 0)
        await write(ctx, dut, AT["LOST"], 0b0010, strobe=0b1110)
        assert await read(ctx, dut, AT["LOST"]) == (0b0010, 0)
        await write(ctx, dut, AT["LOST"], 0b0010)
        assert await read(ctx, dut, AT["LOST"]) == (0, 0)

    simulate(bench)


def test_counters_count_are_cleared_and_keep_their_high_word():
    async def bench(ctx, dut):
        ctx.set(dut.cycles, 1)
        for k in range(9):
            ctx.set(dut.accepted, k % 3 == 0)
            await ctx.tick()
        ctx.set(dut.accepted, 0)
        assert await read(ctx, dut, AT["ACCEPTED"]) == (3, 0)
        assert await read(ctx, dut, AT["COUNT_HIGH"]) == (0, 0)
        assert await read(ctx, dut, AT["DELIVERED"]) == (0, 0)
        await write(ctx, dut, AT["CLEAR"], 0b11)
        assert await read(ctx, dut, AT["ACCEPTED"]) == (0, 0)
        assert await read(ctx, dut, AT["CYCLES"]) == (2 * RegisterFile.ANSWER - 1, 0)

    simulate(bench)


def test_a_count_that_wraps_between_two_reads_is_read_whole():
    """Low and high word are of the same moment, also when the low word wraps before the high word is read."""
    start = (1 << 33) + (1 << WORD) - 3

    async def bench(ctx, dut):
        ctx.set(dut.accepted, 1)
        ctx.set(dut.counts["ACCEPTED"], start)
        whole = []
        for _ in range(2):
            low, _ = await read(ctx, dut, AT["ACCEPTED"])
            await ctx.tick().repeat(5)  # the low word wraps in here
            high, _ = await read(ctx, dut, AT["COUNT_HIGH"])
            whole.append(high << WORD | low)
        assert start <= whole[0] < (start | (1 << WORD) - 1)
        assert whole[1] == whole[0] + 2 * RegisterFile.ANSWER + 5

    simulate(bench)


def test_the_page_has_every_row_and_is_what_the_command_prints():
    page = markdown()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `0x")]
    assert [(int(r[0][3:-1], 16), r[2].strip("`")) for r in rows] == [(r.address, r.name) for r in REGISTERS]
    assert all(r.text.endswith(".") for r in REGISTERS)
    root = Path(__file__).parents[2]
    printed = subprocess.run(
        [sys.executable, "-m", "hdl.registers"], cwd=root, capture_output=True, text=True, check=True, timeout=60
    )
    assert printed.stdout == page


def test_contradictions_are_refused_with_their_place():
    first = REGISTERS[0]
    with pytest.raises(UsageError, match=r"register TWIN: bits 31\.\.0 at address 0x0 are taken"):
        check_map([first, dataclasses.replace(first, name="TWIN")])
    with pytest.raises(UsageError, match="at address 0x2 are no part of a word"):
        check_map([dataclasses.replace(first, address=2)])
    with pytest.raises(UsageError, match=r"bits 32\.\.0"):
        check_map([dataclasses.replace(first, bits=(32, 0))])
    with pytest.raises(UsageError, match=r"same name: .'IDENT'"):
        check_map([first, dataclasses.replace(first, address=4)])
    with pytest.raises(UsageError, match=r"missing \['LATENCY'\], unknown \['SPEED'\]"):
        RegisterFile({**{k: v for k, v in CONSTANTS.items() if k != "LATENCY"}, "SPEED": 1})
    with pytest.raises(UsageError, match="register IN_BYTES: 65536 does not fit its 16 bits"):
        RegisterFile({**CONSTANTS, "IN_BYTES": 1 << 16})
    for digits in ("123", "0" * 15 + "g", "0" * 17):
        with pytest.raises(UsageError, match="16 hexadecimal digits"):
            hash_words("FORMAT_HASH", digits)
