# amaranth: UnusedElaboratable=no
"""The alert stage is score/alert.py in every row: tables, smoothing, alarms, instruments in any order."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from amaranth.hdl import Const, Module, ResetInserter, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from hdl import alert_table
from hdl.alert import AlertedCore, AlertStage
from hdl.alert_table import STEPS, Lookup, Piecewise, level_table
from hdl.shapes import heads as heads_layout
from hdl.verilog import load
from microrisk import fixed
from microrisk.errors import UsageError
from microrisk.model.synthetic import random_level
from microrisk.score import alert
from microrisk.spec.formats import CODE, FEATURE, HEAD, TABLE_FRAC, TABLE_POINTS
from microrisk.spec.weightfile import HEADS

REST, LAST = -1, TABLE_POINTS - 1


@pytest.fixture(scope="module")
def shipped():
    """The shipped model's table, with thresholds amid the levels of the walks below, whatever the model."""
    table = load("default").level_for()
    who, heads = walk([table], 1, 600, 0)
    level, _, _ = expected_rows([table], who, heads, 1)
    on, off = (np.quantile(level, q, axis=0).astype(np.int32) for q in (0.6, 0.5))
    return dataclasses.replace(table, on=on, off=off)


def simulate(top, *benches):
    sim = Simulator(top)
    sim.add_clock(1e-8, if_exists=True)
    for bench in benches:
        sim.add_testbench(bench)
    sim.run()


# ---- the table ----


def look_up(tables, table, which, xs, steps=STEPS):
    """Answers of the hardware for inputs xs with table numbers `which`, one a cycle."""
    m, got = Module(), []
    x, w = Signal(signed(table.x.width)), Signal(range(tables))
    found = Lookup(m, "table", table, x, w, steps)

    async def bench(ctx):
        for k in range(len(xs) + found.registers):
            if k < len(xs):
                ctx.set(x, int(xs[k]))
                ctx.set(w, int(which[k]))
            if k >= found.registers:
                got.append(ctx.get(found.answer))
            await ctx.tick()

    simulate(m, bench)
    assert found.registers == Lookup.registers_of(table, steps)
    return got


def interesting(table, n, seed):
    """Inputs at and beside the breaks, the ends of the piece table, the ends of the format, anywhere; table numbers."""
    rng = np.random.default_rng(seed)
    which = rng.integers(0, table.tables, n)
    kind = rng.integers(0, 3, n)
    at_break = table.breaks[which, rng.integers(0, table.points, n)] + rng.integers(-2, 3, n)
    anywhere = rng.integers(table.x.low, table.x.high, n, endpoint=True)
    within = rng.integers(table.low - 3, table.high + 4, n)
    xs = np.choose(kind, [at_break, anywhere, within])
    edges = [table.x.low, table.x.high, table.low, table.low - 1, table.high, table.high + 1, 0, -1]
    xs[: len(edges)] = edges
    return which, np.clip(xs, table.x.low, table.x.high)


@pytest.mark.parametrize("head", range(len(HEADS)))
def test_lookup_equals_fixed_level_on_the_shipped_model(shipped, head):
    table = level_table([shipped], head)
    which, xs = interesting(table, 500, head)
    expected = fixed.level(xs, shipped.breaks[head], shipped.value[head], shipped.slope[head])
    assert look_up(1, table, which, xs) == expected.tolist()
    assert len(set(expected.tolist())) > 50
    assert table.high - table.low < 1 << 26, "the shipped heads are held within far fewer bits than they have"


@pytest.mark.parametrize("steps", [(3, 3), (2, 2, 2), (6,), (1, 2, 3), (1,) * 6])
def test_lookup_with_a_table_an_instrument(shipped, steps):
    tables = [random_level(1), shipped, random_level(2)]
    table = level_table(tables, 2)
    which, xs = interesting(table, 300, 7)
    rows = [(t.breaks[2], t.value[2], t.slope[2]) for t in tables]
    expected = [int(fixed.level(x, *rows[t])) for t, x in zip(which, xs, strict=True)]
    assert look_up(3, table, which, xs, steps) == expected


def wild_table(seed, frac=TABLE_FRAC):
    """Slopes of both signs, jumps, breaks that are neighbours, sums beyond both ends of the answer."""
    rng = np.random.default_rng(seed)
    breaks = np.sort(rng.choice(np.arange(FEATURE.low, FEATURE.high + 1), TABLE_POINTS, replace=False))
    value = rng.integers(-60_000, 60_000, TABLE_POINTS)
    slope = rng.integers(-3000, 3000, TABLE_POINTS + 1)
    if seed % 2:
        breaks[: TABLE_POINTS // 2] = FEATURE.low + np.arange(TABLE_POINTS // 2)
    return breaks, value, slope


@pytest.mark.parametrize("seed", range(4))
def test_lookup_is_the_normaliser_too(seed):
    breaks, value, slope = wild_table(seed)
    table = Piecewise(breaks[None], value[None], slope[None], FEATURE, CODE, TABLE_FRAC)
    xs = np.arange(FEATURE.low, FEATURE.high + 1, 3)
    assert look_up(1, table, np.zeros(len(xs)), xs) == fixed.normalise(xs, breaks, value, slope).tolist()


@given(st.integers(0, 10_000))
@settings(max_examples=60)
def test_holding_the_input_between_the_ends_changes_no_answer(seed):
    tables = [random_level(seed), random_level(seed + 1)]
    for head in range(len(HEADS)):
        table = level_table(tables, head)
        _, xs = interesting(table, 60, seed)
        for t in range(2):
            assert (table.answer(t, xs) == table.answer(t, np.clip(xs, table.low, table.high))).all()


def test_factors_are_cut_for_the_multiplier():
    for shape in (signed(40), signed(18), signed(19), Signal(17).shape(), Signal(18).shape(), Signal(64).shape()):
        for value in (0, 1, (1 << (shape.width - 1)) - 1, -(1 << (shape.width - 1)) if shape.signed else 5):
            parts = alert_table.limbs(Const(value, shape))
            widths = [len(p) + (not p.shape().signed) for p, _ in parts]
            assert max(widths) <= alert_table.MULTIPLIER_WIDTH
            got = []

            async def bench(ctx, parts=parts, got=got):
                got.append(sum(ctx.get(p) << at for p, at in parts))

            simulate(Module(), bench)
            assert got == [value]


# ---- the stage ----


def walk(tables, instruments, n, seed):
    """Heads that wander over the pieces of their instrument's table, alarms coming and going; extremes in between."""
    rng = np.random.default_rng(seed)
    who = rng.integers(0, instruments, n)
    who[n // 4 : n // 2] = np.repeat(who[n // 4 : n // 2 : 8], 8)[: n // 2 - n // 4]
    place = rng.integers(0, TABLE_POINTS, (instruments, len(HEADS)))
    heads = np.empty((n, len(HEADS)), np.int32)
    for k, i in enumerate(who):
        place[i] = np.clip(place[i] + rng.choice([-9, 0, 0, 1, 12], len(HEADS)), 0, LAST)
        table = tables[i % len(tables)]
        heads[k] = table.breaks[np.arange(len(HEADS)), place[i]] + rng.integers(-1, 2, len(HEADS))
    heads[rng.random(n) < 0.03] = HEAD.high
    heads[rng.random(n) < 0.03] = HEAD.low
    return who, heads


def expected_rows(tables, who, heads, instruments):
    """score/alert.py, instrument by instrument: level int[n, heads], alert, fresh."""
    level, bits, fresh = np.empty(heads.shape, np.int64), np.empty(len(who), int), np.empty(len(who), int)
    for i in range(instruments):
        mine = who == i
        params = alert.make_params(tables[i % len(tables)])
        out = alert.run_reference(heads[mine], params, alert.initial_state())
        level[mine], bits[mine], fresh[mine] = out.level, out.alert, out.fresh
    return level, bits, fresh


async def feed(ctx, dut, who, heads, names, pauses):
    for i, row, pause in zip(who, heads, pauses, strict=True):
        one = {"heads": {n: int(row[HEADS.index(n)]) for n in names}, "instrument": int(i)}
        ctx.set(dut.i.payload, one)
        ctx.set(dut.i.valid, 1)
        await ctx.tick()
        ctx.set(dut.i.valid, 0)
        for _ in range(pause):
            await ctx.tick()


def run(dut, who, heads, *, names=HEADS, pauses=None):
    """Rows that come out: (levels, alert, fresh, instrument)."""
    pauses = np.zeros(len(who), int) if pauses is None else pauses
    sim, got = Simulator(dut), []
    sim.add_clock(1e-8)

    async def send(ctx):
        await feed(ctx, dut, who, heads, names, pauses)
        await ctx.tick().repeat(dut.latency + 2)

    async def receive(ctx):
        async for _, _, valid, p in ctx.tick().sample(dut.o.valid, dut.o.payload):
            if valid:
                got.append(([p.level[n] for n in names], p.alert, p.fresh, p.instrument))

    sim.add_testbench(send)
    sim.add_testbench(receive, background=True)
    sim.run()
    return got


def assert_rows(got, expected, who):
    level, bits, fresh = expected
    assert len(got) == len(who)
    assert [g[3] for g in got] == who.tolist()
    assert [g[0] for g in got] == level.tolist()
    assert [g[1] for g in got] == bits.tolist()
    assert [g[2] for g in got] == fresh.tolist()


def assert_eventful(expected):
    _, bits, fresh = expected
    for head in range(len(HEADS)):
        assert set((bits >> head) & 1) == {0, 1}, "every head must enter and leave alarm"
    assert (fresh > 0).sum() > 5


def test_one_instrument_every_cycle(shipped):
    who, heads = walk([shipped], 1, 1200, 1)
    expected = expected_rows([shipped], who, heads, 1)
    assert_eventful(expected)
    assert_rows(run(AlertStage([shipped]), who, heads), expected, who)


@pytest.mark.parametrize("instruments", [2, 5, 16])
def test_instruments_in_any_order_with_and_without_pauses(shipped, instruments):
    who, heads = walk([shipped], instruments, 900, instruments)
    expected = expected_rows([shipped], who, heads, instruments)
    assert_eventful(expected)
    pauses = np.where(np.arange(900) > 600, np.random.default_rng(0).integers(0, 3, 900), 0)
    dut = AlertStage([shipped], instruments=instruments)
    assert_rows(run(dut, who, heads, pauses=pauses), expected, who)


@pytest.mark.parametrize("distance", [1, 2, 3, 4, 5])
def test_the_next_event_of_an_instrument_finds_the_last(shipped, distance):
    """Same instrument again 1 to 5 cycles later: past the memory in three ways, and through it."""
    _, heads = walk([shipped], 1, 120, distance)
    who = np.resize(np.arange(distance), 120)
    expected = expected_rows([shipped], who, heads, distance)
    assert_rows(run(AlertStage([shipped], instruments=8), who, heads), expected, who)


def test_a_table_for_each_instrument(shipped):
    tables = [random_level(1), shipped, random_level(3)]
    who, heads = walk(tables, 3, 700, 5)
    expected = expected_rows(tables, who, heads, 3)
    assert_eventful(expected)
    assert_rows(run(AlertStage(tables, instruments=3), who, heads), expected, who)


def test_thresholds_never_and_always(shipped):
    off = np.array([0, -5, alert.NEVER, 0], np.int32)
    table = dataclasses.replace(shipped, on=np.array([alert.NEVER, -5, alert.NEVER, 0], np.int32), off=off)
    who, heads = walk([shipped], 1, 200, 2)
    expected = expected_rows([table], who, heads, 1)
    assert set(expected[1]) == {0b1010}
    assert_rows(run(AlertStage([table]), who, heads), expected, who)


def test_some_heads_only(shipped):
    names = ("exposure", "maxz")
    who, heads = walk([shipped], 2, 300, 9)
    level, bits, fresh = expected_rows([shipped], who, heads, 2)
    columns = [HEADS.index(n) for n in names]
    chosen = [sum(((b >> c) & 1) << k for k, c in enumerate(columns)) for b in bits]
    chosen_fresh = [sum(((b >> c) & 1) << k for k, c in enumerate(columns)) for b in fresh]
    got = run(AlertStage([shipped], heads=names, instruments=2), who, heads, names=names)
    assert_rows(got, (level[:, columns], np.array(chosen), np.array(chosen_fresh)), who)


@pytest.mark.parametrize("instruments", [1, 4])
def test_reset_forgets(shipped, instruments):
    """After a reset in mid-stream the same rows give the same answers as after the start."""
    who, heads = walk([shipped], instruments, 60, 4)
    expected = expected_rows([shipped], who, heads, instruments)
    dut, reset, got = AlertStage([shipped], instruments=instruments), Signal(), []
    sim = Simulator(ResetInserter(reset)(dut))
    sim.add_clock(1e-8)

    async def send(ctx):
        for again in (False, True):
            if again:
                ctx.set(reset, 1)
                await ctx.tick()
                ctx.set(reset, 0)
                await ctx.tick()
                got.clear()
            await feed(ctx, dut, who, heads, HEADS, np.zeros(60, int))
        await ctx.tick().repeat(dut.latency + 2)

    async def receive(ctx):
        async for _, _, valid, p in ctx.tick().sample(dut.o.valid, dut.o.payload):
            if valid:
                got.append(([p.level[n] for n in HEADS], p.alert, p.fresh, p.instrument))

    sim.add_testbench(send)
    sim.add_testbench(receive, background=True)
    sim.run()
    assert_rows(got, expected, who)


def test_latency_in_cycles(shipped):
    dut = AlertStage([shipped])
    at = []

    async def bench(ctx):
        for cycle in range(dut.latency + 5):
            ctx.set(dut.i.valid, cycle == 0)
            if ctx.get(dut.o.valid):
                at.append(cycle)
            await ctx.tick()

    simulate(dut, bench)
    assert at == [dut.latency + 1]
    assert dut.latency <= 13


def test_an_instrument_beyond_the_last_is_told_and_disturbs_no_other(shipped):
    who, heads = walk([shipped], 3, 200, 8)
    expected = expected_rows([shipped], who, heads, 3)
    mixed, rows = np.repeat(who, 2), np.repeat(heads, 2, axis=0)
    mixed[1::2], rows[1::2] = 3, HEAD.high
    dut = AlertStage([shipped], instruments=3)
    got = run(dut, mixed, rows)
    assert_rows([g for g in got if g[3] != 3], expected, who)
    told = []

    async def bench(ctx):
        ctx.set(dut.i.valid, 1)
        for i in range(4):
            ctx.set(dut.i.p.instrument, i)
            told.append(ctx.get(dut.unknown))

    simulate(dut, bench)
    assert told == [0, 0, 0, 1]


# ---- behind a core ----


class Negate(wiring.Component):
    """A core of three registers: each head is the negative of its input."""

    latency = 2

    def __init__(self):
        super().__init__(
            {
                "i": In(stream.Signature(data.ArrayLayout(HEAD.width, len(HEADS)), always_ready=True)),
                "o": Out(stream.Signature(heads_layout(HEADS), always_ready=True)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        stages = [Signal(heads_layout(HEADS), name=f"stage_{k}") for k in range(3)]
        valid = Signal(3)
        m.d.sync += [b.eq(a) for a, b in pairwise(stages)]
        m.d.sync += [stages[0][n].eq(-self.i.p[k].as_signed()) for k, n in enumerate(HEADS)]
        m.d.sync += valid.eq((valid << 1) | self.i.valid)
        m.d.comb += [self.o.payload.eq(stages[-1]), self.o.valid.eq(valid[-1])]
        return m


def test_core_and_stage_are_one_pipe(shipped):
    who, heads = walk([shipped], 3, 150, 6)
    heads = np.maximum(heads, -HEAD.high)
    level, bits, fresh = expected_rows([shipped], who, heads, 3)
    dut = AlertedCore(Negate(), AlertStage([shipped], instruments=3))
    at, got = [], []

    async def bench(ctx):
        for cycle in range(len(who) + dut.latency + 1):
            ctx.set(dut.i.valid, cycle < len(who))
            if cycle < len(who):
                event = [int(-h) & 0xFFFFFFFF for h in heads[cycle]]
                ctx.set(dut.i.payload, {"event": event, "instrument": int(who[cycle])})
            if ctx.get(dut.o.valid):
                p = ctx.get(dut.o.payload)
                got.append(([p.level[n] for n in HEADS], p.alert, p.fresh, p.instrument))
                assert [p.heads[n] for n in HEADS] == heads[len(at)].tolist()
                at.append(cycle)
            await ctx.tick()

    simulate(dut, bench)
    assert at == list(range(dut.latency + 1, dut.latency + 1 + len(who)))
    assert_rows(got, (level, bits, fresh), who)


def test_refusals_name_the_numbers(shipped):
    with pytest.raises(UsageError, match="2 level tables for 3 instruments"):
        AlertStage([shipped] * 2, instruments=3)
    with pytest.raises(UsageError, match="0 instruments"):
        AlertStage([shipped], instruments=0)
    with pytest.raises(UsageError, match="heads maxz, nonsense: choose of maxz, maha, vae, exposure"):
        AlertStage([shipped], heads=("maxz", "nonsense"))
    with pytest.raises(UsageError, match=r"search steps \(3, 2\) find 5 bits, 64 points"):
        AlertStage([shipped], steps=(3, 2))
    with pytest.raises(UsageError, match=r"Negate gives .*, the alert stage takes"):
        AlertedCore(Negate(), AlertStage([shipped], heads=("maxz",)))
