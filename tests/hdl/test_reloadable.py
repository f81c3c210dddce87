"""The reloadable core: three models at once, equal to the reference; reload while events stream; latency."""

# amaranth: UnusedElaboratable=no
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from amaranth.sim import Simulator

from hdl.reloadable.banks import READ_CYCLES
from hdl.reloadable.core import ReloadableCore
from hdl.reloadable.image import bus_writes
from hdl.reloadable.plan import DELAY, SETS, make_plan
from hdl.reloadable.registers import BY_NAME, WEIGHTS, address, markdown
from hdl.verilog import to_rtlil
from microrisk.errors import UsageError
from microrisk.model.synthetic import extreme_codes, random_codes, random_weights
from microrisk.score.registry import load_model
from microrisk.spec.features import ALL_MASK, mask
from microrisk.spec.weightfile import HEADS
from microrisk.weights import Weights

LIMIT = 4000
"""Cycles that a bench waits for anything."""
LEVELS = mask("l1", "l5", "l10", "trades")


class Bench:
    """Drives one core: bus, source and sink as they are asked for."""

    def __init__(self, core: ReloadableCore, around: Any = None) -> None:
        self.core, self.sim = core, Simulator(core if around is None else around)
        self.sim.add_clock(1e-6)
        self.results: list[np.ndarray] = []
        self.taken: list[int] = []
        self.shown: list[int] = []
        self.clock = 0

    async def write(self, ctx, writes: Sequence[tuple[int, int]]) -> None:
        bus = self.core.bus
        for where, what in writes:
            ctx.set(bus.address, where)
            ctx.set(bus.write_data, what)
            ctx.set(bus.write, 1)
            await ctx.tick()
        ctx.set(bus.write, 0)

    async def read(self, ctx, name: str) -> int:
        ctx.set(self.core.bus.address, BY_NAME[name].address)
        await ctx.tick().repeat(READ_CYCLES)
        return ctx.get(self.core.bus.read_data)

    async def committed(self, ctx) -> None:
        for _ in range(LIMIT):
            if not await self.read(ctx, "STATUS") & 1:
                return
        raise AssertionError("the commit never happened")

    async def put(self, ctx, codes: np.ndarray, idle: Sequence[int] = ()) -> None:
        i = self.core.i
        for k, row in enumerate(codes):
            for _ in range(idle[k] if len(idle) else 0):
                await ctx.tick()
            ctx.set(i.payload.as_value(), int.from_bytes(row.astype(np.int8).tobytes(), "little"))
            ctx.set(i.valid, 1)
            for _ in range(LIMIT):
                _, _, ready = await ctx.tick().sample(i.ready)
                if ready:
                    break
            else:
                raise AssertionError(f"event {k} was never taken")
            ctx.set(i.valid, 0)

    async def take(self, ctx, count: int, stall: Sequence[int] = ()) -> None:
        o = self.core.o
        for k in range(count):
            for _ in range(stall[k] if len(stall) else 0):
                await ctx.tick()
            ctx.set(o.ready, 1)
            for _ in range(LIMIT):
                _, _, valid, payload = await ctx.tick().sample(o.valid, o.payload)
                if valid:
                    break
            else:
                raise AssertionError(f"result {k} never came")
            ctx.set(o.ready, 0)
            self.results.append(np.array([[payload[s][h] for h in self.core.heads] for s in range(len(SETS))]))

    async def watch(self, ctx) -> None:
        """Edges at which events are taken, and after which a result is first shown; runs beside the others."""
        shown = False
        i, o = self.core.i, self.core.o
        async for _, _, taking, valid, ready in ctx.tick().sample(i.valid & i.ready, o.valid, o.ready):
            self.clock += 1
            if taking:
                self.taken.append(self.clock)
            if valid and not shown:
                self.shown.append(self.clock - 1)
            shown = bool(valid and not ready)


def run(
    core: ReloadableCore, models: Sequence[tuple[Weights, int]], codes: np.ndarray, **pauses: Sequence[int]
) -> Bench:
    """Load a model and mask into each set, then score all codes."""
    bench = Bench(core)
    loaded = [False]

    async def source(ctx) -> None:
        for s, (weights, carried) in enumerate(models):
            await bench.write(ctx, bus_writes(weights, core.plan, s, carried))
            await bench.committed(ctx)
        loaded[0] = True
        await bench.put(ctx, codes, pauses.get("idle", ()))

    async def sink(ctx) -> None:
        while not loaded[0]:
            await ctx.tick()
        await bench.take(ctx, len(codes), pauses.get("stall", ()))

    bench.sim.add_testbench(source)
    bench.sim.add_testbench(sink)
    bench.sim.add_testbench(bench.watch, background=True)
    bench.sim.run()
    return bench


def reference(core: ReloadableCore, models: Sequence[tuple[Weights, int]], codes: np.ndarray) -> np.ndarray:
    columns = [HEADS.index(h) for h in core.heads]
    return np.stack([w.compute(codes, m)[:, columns] for w, m in models], axis=1)


MODELS = [(load_model("default"), ALL_MASK), (random_weights(3), LEVELS), (random_weights(4, at_bound=True), ALL_MASK)]


@pytest.mark.parametrize("heads", [("exposure",), ("maxz",), ("maha",), ("vae",), HEADS])
def test_three_models_at_once(heads: tuple[str, ...]) -> None:
    core = ReloadableCore(heads)
    codes = np.concatenate([extreme_codes()[:10], random_codes(5, 1)])
    bench = run(core, MODELS, codes)
    assert np.array_equal(np.stack(bench.results), reference(core, MODELS, codes))


def test_latency_and_interval() -> None:
    """As promised by the attributes, when nobody stalls; exposure in 250 ns at 250 MHz, vae in 470."""
    core = ReloadableCore(("exposure",))
    bench = run(core, MODELS, random_codes(6, 2))
    # a result is seen one edge after it is shown
    assert {b - a for a, b in zip(bench.taken, bench.shown, strict=True)} == {core.latency}
    assert set(np.diff(bench.taken)) == {core.interval}
    assert core.latency <= 62
    longer = ReloadableCore(("vae",))
    assert longer.latency <= 117
    assert "module" in to_rtlil(longer, "core"), "it can be written out"


def test_idle_and_stalls_change_nothing() -> None:
    core, rng, codes = ReloadableCore(("exposure",)), np.random.default_rng(5), random_codes(8, 3)
    bench = run(core, MODELS, codes, idle=rng.integers(0, 90, 8), stall=rng.integers(0, 150, 8))
    assert np.array_equal(np.stack(bench.results), reference(core, MODELS, codes))


def test_reload_while_events_stream() -> None:
    """Every event is scored by whole sets, old or new; the change comes between two events, and none is lost."""
    core, codes = ReloadableCore(("exposure",)), random_codes(24, 4)
    bench, fresh = Bench(core), random_weights(9)
    loaded = [False]

    async def source(ctx) -> None:
        for s, (weights, carried) in enumerate(MODELS):
            await bench.write(ctx, bus_writes(weights, core.plan, s, carried))
            await bench.committed(ctx)
        loaded[0] = True
        await bench.put(ctx, codes)

    async def reload(ctx) -> None:
        while not loaded[0]:
            await ctx.tick()
        await ctx.tick().repeat(100)
        await bench.write(ctx, bus_writes(fresh, core.plan, 1, LEVELS))
        await bench.committed(ctx)
        assert await bench.read(ctx, "STATUS") >> 1 & 1 == 0, "no error"
        assert await bench.read(ctx, "HASH_CURRENT_LOW") == int(fresh.heads_hash(), 16) & 0xFFFFFFFF

    async def sink(ctx) -> None:
        while not loaded[0]:
            await ctx.tick()
        await bench.take(ctx, len(codes))

    for part in (source, reload, sink):
        bench.sim.add_testbench(part)
    bench.sim.run()
    got = np.stack(bench.results)
    before = reference(core, MODELS, codes)
    after = reference(core, [MODELS[0], (fresh, LEVELS), MODELS[2]], codes)
    old = [np.array_equal(got[k], before[k]) for k in range(len(codes))]
    new = [np.array_equal(got[k], after[k]) for k in range(len(codes))]
    switch = new.index(True)
    assert 1 < switch < len(codes), "events before and after"
    assert all(old[:switch])
    assert all(new[switch:])


def test_reset_in_mid_event_forgets_it() -> None:
    from amaranth.hdl import ResetInserter, Signal

    core, codes, reset = ReloadableCore(("exposure",)), random_codes(3, 6), Signal()
    bench = Bench(core, ResetInserter(reset)(core))

    async def both(ctx) -> None:
        for s, (weights, carried) in enumerate(MODELS):
            await bench.write(ctx, bus_writes(weights, core.plan, s, carried))
            await bench.committed(ctx)
        await bench.put(ctx, codes[:1])
        await ctx.tick().repeat(20)
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        assert not ctx.get(core.o.valid)
        await ctx.tick().repeat(2 * core.latency)
        assert not ctx.get(core.o.valid), "nothing comes of the event that was inside"
        for s, (weights, carried) in enumerate(MODELS):
            await bench.write(ctx, bus_writes(weights, core.plan, s, carried))
            await bench.committed(ctx)
        for row in codes[1:]:
            await bench.put(ctx, row[None])
            await bench.take(ctx, 1)

    bench.sim.add_testbench(both)
    bench.sim.run()
    assert np.array_equal(np.stack(bench.results), reference(core, MODELS, codes[1:]))


def test_wrong_writes_are_flagged_and_change_nothing() -> None:
    core = ReloadableCore(("exposure",))
    bench, codes = Bench(core), random_codes(2, 7)
    beyond = address(WEIGHTS, core.plan.depth)

    async def both(ctx) -> None:
        for s, (weights, carried) in enumerate(MODELS):
            await bench.write(ctx, bus_writes(weights, core.plan, s, carried))
            await bench.committed(ctx)
        for wrong in ((beyond, 1), (BY_NAME["STATUS"].address, 1), (BY_NAME["COMMIT"].address, len(SETS))):
            assert await bench.read(ctx, "STATUS") >> 1 & 1 == 0
            await bench.write(ctx, [wrong])
            assert await bench.read(ctx, "STATUS") >> 1 & 1 == 1, wrong
            await bench.write(ctx, [(BY_NAME["CLEAR"].address, 0)])
        await bench.put(ctx, codes[:1])
        await bench.write(ctx, [(BY_NAME["COMMIT"].address, 0), (address(WEIGHTS), 0xFF)])
        assert await bench.read(ctx, "STATUS") & 3 == 3, "a commit waits, and the write behind it is an error"
        await bench.take(ctx, 1)

    bench.sim.add_testbench(both)
    bench.sim.run()
    assert np.array_equal(bench.results[0], reference(core, MODELS, codes[:1])[0])


def test_the_plan_issues_each_step_once_and_in_order() -> None:
    plan = make_plan(HEADS)
    steps = [s for s in plan.program if s]
    assert len(steps) == len(set(steps)) == len(SETS) * sum(j.steps for j in plan.jobs)
    for k, job in enumerate(plan.jobs):
        for s in range(len(SETS)):
            cycles = [c for c, x in enumerate(plan.program) if x and (x.job, x.weight_set) == (k, s)]
            assert cycles == list(range(cycles[0], cycles[0] + job.steps))
            if not job.first:
                assert cycles[0] >= plan.last_issue(k - 1, s) + DELAY


def test_refusals() -> None:
    with pytest.raises(UsageError, match=r"no head \['nose'\]"):
        make_plan(("nose",))
    with pytest.raises(UsageError, match="no weight set 3; there are 3: stable, current, experimental"):
        bus_writes(load_model("default"), make_plan(("exposure",)), 3)
    with pytest.raises(UsageError, match="40 features: this core has 32 lanes"):
        ReloadableCore(("exposure",), 40)


def test_every_register_is_documented() -> None:
    assert all(f"| {r.name} |" in markdown() for r in BY_NAME.values())
