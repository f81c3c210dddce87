"""The vectors of the gates meet every corner of the arithmetic that the network can reach, layer by layer."""

from __future__ import annotations

import numpy as np
import pytest

from microrisk import fixed
from microrisk.spec.formats import CODE
from microrisk.spec.weightfile import HEADS
from microrisk.weights import Weights
from sim import catalogue, coverage, vectors
from sim.coverage import KINDS, Outputs
from sim.models import thinned

SEED = 20_261
OPEN = {("vae.dec.2", kind) for kind in ("saturated_high", "saturated_low", "at_high", "at_low")}
"""Corners that interval bounds allow but no vector found reaches through the whole network of the packaged model; the
unit bench "dense vae.dec.2 linear" meets them (below)."""


@pytest.mark.parametrize("head", ["maha", "vae", "exposure"])
def test_gate_vectors_meet_what_can_be_reached(weights, head, exercised):
    codes = vectors.for_core(weights, (head,), 10_000, SEED)
    counts, bounds = coverage.count(weights, codes, (head,)), coverage.reach(weights, (head,))
    empty = {(layer, kind) for layer, kinds in counts.items() for kind, n in kinds.items() if n == 0}
    proved = {(layer, kind) for layer, kind in empty if bounds[layer].excludes(kind)}
    assert empty - proved <= OPEN, sorted(empty - proved - OPEN)
    for layer, kinds in counts.items():
        exercised(f"corners of {layer}: " + ", ".join(f"{k} {n:,}" for k, n in kinds.items()))


@pytest.mark.parametrize("at_bound", [False, True], ids=["ordinary", "at-bound"])
def test_directed_vectors_for_other_weights(at_bound):
    """First layers have exact bounds: whatever they allow for saturation and ReLU must be met."""
    weights = thinned(5, at_bound=at_bound)
    codes = vectors.directed(weights, HEADS, SEED)
    counts, bounds = coverage.count(weights, codes), coverage.reach(weights)
    for layer in ("maha.0", "vae.enc.0", "exposure.0"):
        for kind in ("saturated_high", "saturated_low", "relu_cut", "tie"):
            if kind in counts[layer]:
                assert bounds[layer].excludes(kind) or counts[layer][kind] > 0, (layer, kind)


def test_unit_bench_meets_the_open_corners(weights):
    """Driven directly, the last layer of the vae saturates both ways and lands on both ends."""
    weight, bias, shift = weights.layer("vae.dec.2")
    codes = vectors.mixture(2000, 3, weight.shape[1])
    acc = fixed.accumulate(codes, weight, bias)
    outputs = Outputs("vae.dec.2", acc, fixed.round_shift(acc, shift), np.asarray(shift, np.int64))
    for _, kind in sorted(OPEN):
        assert outputs.meets(kind).any(), kind
    assert "dense vae.dec.2 linear" in {case.name for case in catalogue.units(weights)}


def test_counters_agree_with_the_weights_own(weights):
    """Saturations are counted by Weights.saturations too, independently."""
    codes = vectors.uniform(500, 1)
    theirs = weights.saturations(codes)
    for outputs in coverage.walk(weights, codes):
        low = outputs.meets("saturated_low")
        ours = int(outputs.meets("saturated_high").sum()) + (0 if low is None else int(low.sum()))
        assert ours == theirs[outputs.name]


def test_a_bound_excludes_only_what_is_impossible():
    """One layer with tiny weights: nothing saturates, ties cannot occur with an even common divisor."""
    weights = thinned(5)
    tensors = {k: v.copy() for k, v in weights.tensors.items()}
    tensors["maha.0.weight"] = (np.eye(32) * 4).astype(np.int8)
    tensors["maha.0.bias"][:] = 1
    tensors["maha.0.shift"][:] = 3
    small = Weights(tensors, weights.card)
    bound = coverage.reach(small, ("maha",))["maha.0"]
    assert [k for k in KINDS if k in ("saturated_high", "saturated_low", "tie") and not bound.excludes(k)] == []
    counts = coverage.count(small, vectors.mixture(2000, 1), ("maha",))["maha.0"]
    assert counts["saturated_high"] == counts["saturated_low"] == counts["tie"] == 0
    tensors["maha.0.bias"][:] = 0
    even = coverage.count(Weights(tensors, weights.card), vectors.mixture(2000, 1), ("maha",))["maha.0"]
    assert even["tie"] > 0
    assert not coverage.reach(Weights(tensors, weights.card), ("maha",))["maha.0"].excludes("tie")


def test_corner_vectors_hold_the_ends():
    rows = vectors.corners()
    assert {CODE.low, CODE.high, 0} <= set(rows.ravel().tolist())
    assert len(np.unique(rows, axis=0)) > 4 * 32


def test_the_same_seed_gives_the_same_vectors(weights):
    first, second, other = (vectors.for_core(weights, ("exposure",), 1000, s) for s in (1, 1, 2))
    assert (first == second).all()
    assert (first != other).any()
    assert first.shape == (1000, 32)
