"""The unrolled core: graph and gates equal Weights.compute, masks and extremes included; latency as promised."""

# amaranth: UnusedElaboratable=no
from __future__ import annotations

import numpy as np
import pytest
from amaranth.sim import Simulator

from hdl.heads import heads_graph
from hdl.pipe import Pipe
from hdl.schedule import schedule
from hdl.unrolled import UnrolledCore
from microrisk.errors import SpecMismatch, UsageError
from microrisk.model.synthetic import random_weights
from microrisk.score.registry import load_model
from microrisk.spec.features import ALL_MASK, mask
from microrisk.spec.weightfile import HEADS
from microrisk.weights import Weights

LEVELS = mask("l1", "l5", "l10", "trades")


def corners(rng: np.random.Generator, n: int) -> np.ndarray:
    """Extremes first, then random codes: int8[n + 7, 32]."""
    fixed = [np.full(32, v) for v in (-128, 127, 0, -1, 1)]
    fixed += [np.where(np.arange(32) % 2, 127, -128), np.where(np.arange(32) % 2, -128, 127)]
    return np.concatenate([np.stack(fixed), rng.integers(-128, 128, (n, 32))]).astype(np.int8)


@pytest.mark.parametrize("which", ["default", "random", "at_bound"])
@pytest.mark.parametrize("carried", [ALL_MASK, LEVELS])
def test_graph_equals_the_reference(which: str, carried: int) -> None:
    weights = load_model("default") if which == "default" else random_weights(11, at_bound=which == "at_bound")
    codes = corners(np.random.default_rng(3), 2000)
    graph = heads_graph(weights, HEADS, carried)
    got = graph.evaluate(codes.T.astype(np.int64))
    assert np.array_equal(np.stack([got[h] for h in HEADS], axis=1), weights.compute(codes, carried))


def simulated(core: Pipe, codes: np.ndarray, head: str, gaps: np.ndarray) -> list[tuple[int, int]]:
    """(edges after its own payload was taken, result) of each row; `gaps` idle cycles in front of each."""
    sent: list[int] = []
    seen: list[tuple[int, int]] = []

    async def source(ctx) -> None:
        for row, gap in zip(codes, gaps, strict=True):
            ctx.set(core.i.valid, 0)
            if gap:
                await ctx.tick().repeat(int(gap))
            ctx.set(core.i.payload.as_value(), int.from_bytes(row.tobytes(), "little"))
            ctx.set(core.i.valid, 1)
            sent.append(clock[0])
            await ctx.tick()
        ctx.set(core.i.valid, 0)

    clock = [0]

    async def sink(ctx) -> None:
        for _ in range(len(codes) + int(gaps.sum()) + core.latency + 4):
            await ctx.tick()
            clock[0] += 1
            if ctx.get(core.o.valid):
                seen.append((clock[0] - 1 - sent[len(seen)], ctx.get(core.o.payload[head])))

    sim = Simulator(core)
    sim.add_clock(1e-6)
    sim.add_testbench(sink)
    sim.add_testbench(source)
    sim.run()
    return seen


@pytest.mark.parametrize("period", [2.2, 9.0])
@pytest.mark.parametrize("head", ["maxz", "exposure"])
def test_gates_equal_the_reference(head: str, period: float) -> None:
    """Short stages and long ones, with idle cycles; the latency is that of the schedule, one result a cycle."""
    weights, rng = load_model("default"), np.random.default_rng(5)
    codes = corners(rng, 20)
    core = UnrolledCore(weights, (head,), period_ns=period)
    seen = simulated(core, codes, head, rng.integers(0, 2, len(codes)) * rng.integers(0, 4, len(codes)))
    assert [value for _, value in seen] == weights.compute(codes)[:, HEADS.index(head)].tolist()
    assert {edges for edges, _ in seen} == {core.latency}


def test_shorter_stages_are_more_and_hold_more_registers() -> None:
    graph = heads_graph(load_model("default"), ("exposure",))
    made = [schedule(graph, period) for period in (2.2, 4.0, 9.0, 1000.0)]
    latencies, registers = [s.latency for s in made], [s.registers() for s in made]
    assert latencies == sorted(latencies, reverse=True)
    assert latencies[-1] == 1
    assert registers == sorted(registers, reverse=True)


def test_unknown_heads_and_unusable_weights_are_refused() -> None:
    weights = load_model("default")
    with pytest.raises(UsageError, match=r"no head \['nose'\]; there are maxz, maha, vae, exposure, encoder"):
        heads_graph(weights, ("nose",))
    with pytest.raises(UsageError, match="no head"):
        heads_graph(weights, ())
    other = Weights(weights.tensors, {**weights.card, "format_hash": "0" * 16})
    with pytest.raises(SpecMismatch, match="made for format 0000000000000000"):
        heads_graph(other, ("maxz",))
