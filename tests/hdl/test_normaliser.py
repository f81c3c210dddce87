# amaranth: UnusedElaboratable=no
"""The normaliser in block RAM is fixed.normalise: all values of a feature, random tables, masks, gaps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from amaranth.sim import Simulator

from hdl.credit import Chain
from hdl.normaliser import LANES, Normaliser, written_out
from hdl.unrolled import UnrolledCore
from hdl.verilog import load, to_rtlil
from microrisk import fixed
from microrisk.errors import UsageError
from microrisk.spec.formats import CODE, FEATURE, TABLE_POINTS
from microrisk.spec.records import N_FEATURES
from microrisk.spec.weightfile import HEADS
from microrisk.weights import InstrumentTable

EVERY = np.arange(FEATURE.low, FEATURE.high + 1)


@pytest.fixture(scope="module")
def default_table():
    return load("default").table_for()


def rows(table, chosen):
    """The table of some features only."""
    parts = {p: getattr(table, p)[chosen] for p in ("breaks", "value", "slope")}
    return dataclasses.replace(table, **parts)


def random_table(n, seed):
    """Breaks anywhere, values beyond both ends of CODE, slopes of both signs, not continuous: ties and saturations."""
    rng = np.random.default_rng(seed)
    breaks = np.array([np.sort(rng.choice(EVERY, TABLE_POINTS, replace=False)) for _ in range(n)], np.int32)
    value = rng.integers(-60_000, 60_000, (n, TABLE_POINTS), dtype=np.int32)
    slope = rng.integers(-3000, 3000, (n, TABLE_POINTS + 1), dtype=np.int32)
    return InstrumentTable(breaks, value, slope, 0, 0, own=False)


def run(dut, vectors, gap=0, read=list):
    """Results of every vector; `gap` idle cycles with rubbish on the payload after each."""
    sim, got = Simulator(dut), []
    sim.add_clock(1e-8)

    async def send(ctx):
        for v in vectors:
            ctx.set(dut.i.payload, [int(x) for x in v])
            ctx.set(dut.i.valid, 1)
            await ctx.tick()
            ctx.set(dut.i.valid, 0)
            ctx.set(dut.i.payload, [FEATURE.low] * len(v))
            for _ in range(gap):
                await ctx.tick()

    async def receive(ctx):
        async for _, _, valid, payload in ctx.tick().sample(dut.o.valid, dut.o.payload):
            if valid:
                got.append(read(payload))
            if len(got) == len(vectors):
                return

    async def limit(ctx):
        await ctx.tick().repeat(len(vectors) * (gap + 1) + dut.latency + 4)

    sim.add_testbench(send)
    sim.add_testbench(receive, background=True)
    sim.add_testbench(limit)
    sim.run()
    return np.array(got)


def reference(table, vectors):
    parts = (table.breaks, table.value, table.slope)
    return np.stack([fixed.normalise(vectors[:, k], *(p[k] for p in parts)) for k in range(len(table.breaks))], axis=1)


def test_every_value_of_some_features_of_the_shipped_model(default_table):
    table = rows(default_table, [0, 7, 31])
    vectors = np.stack([EVERY, EVERY[::-1], np.roll(EVERY, 1000)], axis=1)
    assert (run(Normaliser(table), vectors) == reference(table, vectors)).all()


def test_every_value_of_random_tables():
    table = random_table(2, 3)
    vectors = np.stack([EVERY, EVERY[::-1]], axis=1)
    expected = reference(table, vectors)
    assert {CODE.low, CODE.high} <= set(expected.ravel().tolist()), "the sample must saturate at both ends"
    assert (run(Normaliser(table), vectors) == expected).all()


def test_all_features_at_once_with_gaps(default_table):
    rng = np.random.default_rng(1)
    vectors = rng.integers(FEATURE.low, FEATURE.high + 1, (40, N_FEATURES))
    vectors[:2] = [[FEATURE.low], [FEATURE.high]]
    assert (run(Normaliser(default_table), vectors, gap=2) == reference(default_table, vectors)).all()


def test_written_out_is_indexed_by_bits(default_table):
    codes = written_out(default_table, 5)
    one = [getattr(default_table, p)[5] for p in ("breaks", "value", "slope")]
    assert codes[EVERY & ((1 << FEATURE.width) - 1)].tolist() == fixed.normalise(EVERY, *one).tolist()


def test_masked_features_are_zero_and_take_no_memory(default_table):
    table = rows(default_table, [0, 1, 2, 3])
    dut = Normaliser(table, mask=0b0101)
    vectors = np.stack([EVERY[::64]] * 4, axis=1)
    expected = reference(table, vectors)
    expected[:, [1, 3]] = 0
    assert (run(dut, vectors) == expected).all()
    text = to_rtlil(Normaliser(table, mask=0b0101), "normaliser")
    assert text.count("\n  memory ") == 2 * LANES


def test_latency_is_one_register():
    dut = Normaliser(random_table(1, 0))
    sim = Simulator(dut)
    sim.add_clock(1e-8)

    async def bench(ctx):
        seen = []
        for cycle in range(4):
            ctx.set(dut.i.valid, cycle == 0)
            seen.append(ctx.get(dut.o.valid))
            await ctx.tick()
        assert seen.index(1) == dut.latency + 1
        assert sum(seen) == 1

    sim.add_testbench(bench)
    sim.run()


def test_before_a_core_it_costs_one_cycle():
    """Features to heads: normaliser and unrolled core as one pipe, equal to fixed.normalise and Weights.compute."""
    weights = load("default")
    table, core = weights.table_for(), UnrolledCore(weights, ("maxz",))
    dut = Chain(Normaliser(table), core)
    assert dut.latency == core.latency + 1
    vectors = np.random.default_rng(2).integers(FEATURE.low, FEATURE.high + 1, (30, N_FEATURES)) // 8
    expected = weights.compute(reference(table, vectors).astype(np.int8))[:, HEADS.index("maxz")]
    got = run(dut, vectors, read=lambda payload: payload.maxz)
    assert got.tolist() == expected.tolist()


def test_a_mask_outside_the_format_is_refused(default_table):
    with pytest.raises(UsageError, match="feature mask 0x100000000 is outside"):
        Normaliser(default_table, mask=1 << N_FEATURES)
