"""The record of a machine with a GPU: without one it has the processor's rows; the kernels equal the reference."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import record_gpu
from microrisk.model.synthetic import extreme_codes, market_like_codes, random_codes, random_weights
from microrisk.score.registry import load_model
from microrisk.score.torch_scorer import CudaScorer
from microrisk.spec.features import ALL_MASK

L2_MASK = record_gpu.L2_MASK
INTERPRETED = """
from benchmarks.cuda_fused import FusedScorer
from tests.benchmarks.test_record_gpu import fused_differences
print(fused_differences(FusedScorer("cpu"), 12))
"""


def fused_differences(scorer, rows: int) -> int:
    codes = np.concatenate([extreme_codes()[:9], market_like_codes(rows, 2), random_codes(rows, 1)])
    unequal = 0
    for weights in (load_model("default"), random_weights(1), random_weights(2, at_bound=True)):
        for mask in (ALL_MASK, L2_MASK, 0):
            scorer.load(weights, mask)
            unequal += int((scorer.score(codes) != weights.compute(codes, mask)).any(axis=1).sum())
    return unequal


def test_record_compares_and_times_what_runs_here() -> None:
    found = record_gpu.record(seconds=0.02, rows=2048)
    compared = found["differences"]
    assert compared["rows"] > 2048
    for title, _, _ in record_gpu.models():
        assert compared[title]["cpu"] == {"whole": 0, "single": 0}
    assert found["one_row"]["cpu"]["p50_ns"] <= found["one_row"]["cpu"]["max_ns"]
    assert set(found["rows_per_second"]["cpu"]) == {"1", "10", "100", "1000"}
    assert ("device_ns" in found) == (found["gpu"]["name"] is not None)


def test_a_failing_scorer_is_recorded_and_costs_no_other() -> None:
    def broken() -> None:
        raise ValueError("no such device")

    assert record_gpu.attempt("x", broken) == {"failed": "ValueError: no such device"}


def test_the_kernel_interpreted() -> None:
    pytest.importorskip("triton")
    env = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED], capture_output=True, text=True, env=env, timeout=300, check=False
    )
    assert done.stdout.strip() == "0", done.stderr[-2000:]


@pytest.mark.gpu
def test_one_row_through_graphs_and_kernel() -> None:
    if reason := CudaScorer().unavailable():
        pytest.skip(f"cuda: {reason}")
    pytest.importorskip("triton")
    weights, codes = load_model("default"), random_codes(300, 4)
    expected = weights.compute(codes)
    tried = 0
    for name, make in record_gpu.calls(weights):
        if name != record_gpu.NOTHING:
            call = make()
            found = np.concatenate([call(codes[i : i + 1]) for i in range(len(codes))])
            assert (found == expected).all(), name
            tried += 1
    assert tried >= 6


@pytest.mark.gpu
def test_the_kernel_on_many_rows() -> None:
    if reason := CudaScorer().unavailable():
        pytest.skip(f"cuda: {reason}")
    pytest.importorskip("triton")
    from benchmarks.cuda_fused import FusedScorer

    assert fused_differences(FusedScorer(), 50_000) == 0
