"""Unrolled cores in cocotb: 10,000 vectors a core on Icarus, equal to Weights.compute; exact latency, interval 1."""

from __future__ import annotations

import numpy as np
import pytest

from microrisk.spec.features import ALL_MASK
from microrisk.spec.records import N_FEATURES
from microrisk.spec.weightfile import HEADS
from sim import catalogue, vectors
from sim.models import thinned
from sim.runner import run, run_split

SEED = 20_261
N = 10_000
PARTS = 2
"""Simulations beside each other."""
L2_MASK = 0x3FF8_3FFF


def rows_for(weights, heads, n, mask=ALL_MASK):
    market = vectors.market(weights, n // 4, SEED)
    return vectors.for_core(weights, heads, n, SEED, mask, market=market)


@pytest.mark.parametrize("head", [*HEADS, "encoder"])
def test_ten_thousand_on_icarus(weights, head, exercised):
    """The encoder alone, a comparison and no head of the model, with a fifth of them."""
    n = N // 5 if head == "encoder" else N
    case = catalogue.core(weights, (head,))
    design = case.design()
    codes = rows_for(weights, (head,), n)
    how = {"form": "fast", "seed": SEED, "parts": PARTS}
    result = run_split(design, "sim.tb_pipe", "back_to_back", codes, case.compute(codes), **how)
    assert result.passed, result.message
    assert (result.vectors, result.differences) == (n, 0)
    assert result.cycles == n + PARTS * (design.latency + 1), "interval 1: a row a cycle, and the latency once a part"
    sources = "+".join(vectors.market_sources())
    exercised(f"rtl core {head}: {n:,} vectors on Icarus, latency {design.latency}, interval 1, market rows: {sources}")


@pytest.mark.parametrize("head", HEADS)
def test_emitted_text_with_gaps_and_resets(weights, head):
    """The text that hdl.verilog hands out, unchanged."""
    case = catalogue.core(weights, (head,))
    codes = rows_for(weights, (head,), 300)
    result = run(case.design(), "sim.tb_pipe", "everything", codes, case.compute(codes), seed=SEED)
    assert result.passed, result.message
    assert result.vectors >= 3 * len(codes)


def test_emitted_text_on_verilator(weights, exercised):
    case = catalogue.core(weights, ("exposure",))
    codes = rows_for(weights, ("exposure",), N)
    result = run(case.design(), "sim.tb_pipe", "back_to_back", codes, case.compute(codes), simulator_name="verilator")
    assert result.passed, result.message
    assert (result.vectors, result.differences) == (N, 0)
    exercised(f"rtl core exposure: {N:,} vectors on Verilator, {result.vectors / result.seconds:,.0f} vectors/s")


@pytest.mark.parametrize("at_bound", [False, True], ids=["ordinary", "at-bound"])
def test_other_weights_under_a_mask(at_bound):
    """All heads in one core, of weights that no market made, under the mask of a level feed."""
    weights = thinned(5, at_bound=at_bound)
    case = catalogue.core(weights, HEADS, L2_MASK)
    codes = vectors.for_core(weights, HEADS, 2000, SEED, L2_MASK)
    result = run(case.design(), "sim.tb_pipe", "back_to_back", codes, case.compute(codes), form="fast", seed=SEED)
    assert result.passed, result.message
    differ = (weights.compute(codes) != case.compute(codes)).any(axis=0)
    assert differ.any() if at_bound else differ.all(), "the mask changes nothing: it was not tested"


@pytest.mark.parametrize("test", ["full_rate", "patterns", "reset_in_mid_stream", "back_pressure"])
def test_credits_around_a_core(weights, test):
    case = catalogue.core(weights, ("maxz",))
    design = catalogue.credited(case)
    codes = vectors.mixture(200 if test == "back_pressure" else 1200, SEED, N_FEATURES)
    result = run(design, "sim.tb_stream", test, codes, case.compute(codes), seed=SEED, limit=300)
    assert result.passed, result.message
    assert result.vectors >= len(codes)
    if test == "full_rate":
        assert result.cycles == len(codes) + design.latency + 1
    if test == "back_pressure":
        assert result.extra["stalled"] == "stream: nothing moved for 300 cycles"


def test_a_wrong_result_is_seen_and_named(weights):
    case = catalogue.core(weights, ("maxz",))
    codes = vectors.mixture(300, SEED)
    expected = case.compute(codes)
    expected[123, 0] += 1
    result = run(case.design(), "sim.tb_pipe", "back_to_back", codes, expected)
    assert not result.passed
    assert result.differences == 1
    assert result.first[0] == 123
    assert f"vector 123: {expected[123, 0] - 1:#x}, reference {expected[123, 0]:#x}" in result.message


def test_a_wrong_latency_is_seen(weights):
    case = catalogue.core(weights, ("maxz",))
    design = case.design()
    wrong = type(design)(design.key, design.folder, design.latency + 1)
    codes = vectors.mixture(60, SEED)
    result = run(wrong, "sim.tb_pipe", "back_to_back", codes, case.compute(codes))
    assert not result.passed
    assert "result in cycle" in result.message
    assert np.ndim(result.vectors) == 0
