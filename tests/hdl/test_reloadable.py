"""The reloadable core: three models at once, equal to the reference; reload while events stream; latency and interval."""

# amaranth: UnusedElaboratable=no
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from amaranth.sim import Simulator

from hdl.reloadable.core import ReloadableCore
from hdl.reloadable.image import bus_writes
from hdl.reloadable.plan import DELAY, SETS, make_plan
from hdl.reloadable.registers import BY_NAME, WEIGHTS, address, markdown
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

    def __init__(self, core: ReloadableCore) -> None:
        self.core, self.sim = core, Simulator(core)
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
        await ctx.tick()
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
                ready = ctx.get(i.ready)
                await ctx.tick()
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
                if ctx.get(o.valid):
                    break
                await ctx.tick()
            else:
                raise AssertionError(f"result {k} never came")
            got = [[ctx.get(getattr(o.payload[s], h)) for h in self.core.heads] for s in range(len(SETS))]
            self.results.append(np.array(got))
            await ctx.tick()
            ctx.set(o.ready, 0)

    async def watch(self, ctx) -> None:
        """Edges at which events are taken and results first seen."""
        seen = False
        while True:
            take = ctx.get(self.core.i.valid) and ctx.get(self.core.i.ready)
            _, valid, gone = await ctx.tick().sample(self.core.o.valid, self.core.o.ready), 0, 0
            self.clock += 1
            if take:
                self.taken.append(self.clock)
            valid = ctx.get(self.core.o.valid)
            if valid and not seen:
                self.shown.append(self.clock)
            seen = bool(valid) and not ctx.get(self.core.o.ready)
            del gone


def run(core: ReloadableCore, models: Sequence[tuple[Weights, int]], codes: np.ndarray, **pauses: Sequence[int]) -> Bench:
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
