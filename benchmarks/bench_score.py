"""Four heads over 100,000 code vectors. Rivals: the NumPy reference, torch on the CPU, and an isolation forest."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from microrisk.score.cpu_scorer import CpuScorer
from microrisk.score.reference_scorer import ReferenceScorer
from microrisk.score.registry import load_model

pytestmark = pytest.mark.benchmark(group="heads")


@pytest.fixture(scope="module")
def codes() -> NDArray[np.int8]:
    return np.random.default_rng(1).normal(0, 24, (100_000, 32)).clip(-128, 127).astype(np.int8)


def test_cpu(benchmark, codes: NDArray[np.int8]) -> None:
    scorer = CpuScorer()
    scorer.load(load_model("default"))
    benchmark.extra_info["rows"] = len(codes)
    heads = benchmark.pedantic(scorer.score, (codes,), rounds=7, warmup_rounds=1)
    assert np.array_equal(heads[:1_000], load_model("default").compute(codes[:1_000]))


def test_reference(benchmark, codes: NDArray[np.int8]) -> None:
    scorer = ReferenceScorer()
    scorer.load(load_model("default"))
    benchmark.extra_info["rows"] = len(codes)
    assert benchmark.pedantic(scorer.score, (codes,), rounds=3).shape == (100_000, 4)


def test_torch_cpu(benchmark, codes: NDArray[np.int8]) -> None:
    torch_scorer = pytest.importorskip("microrisk.score.torch_scorer", reason="torch is not installed")
    scorer = torch_scorer.TorchScorer("cpu")
    scorer.load(load_model("default"))
    benchmark.extra_info["rows"] = len(codes)
    heads = benchmark.pedantic(scorer.score, (codes,), rounds=5, warmup_rounds=1)
    assert np.array_equal(heads[:1_000], load_model("default").compute(codes[:1_000]))


def test_isolation_forest(benchmark, codes: NDArray[np.int8]) -> None:
    ensemble = pytest.importorskip("sklearn.ensemble", reason="scikit-learn is not installed")
    forest = ensemble.IsolationForest(n_estimators=200, random_state=0).fit(codes[:10_000])
    benchmark.extra_info["rows"] = 10_000
    assert len(benchmark.pedantic(forest.score_samples, (codes[:10_000],), rounds=3)) == 10_000
