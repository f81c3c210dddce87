"""32 features and codes for each view of the busiest name. Rival: the float form in NumPy over the same views."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.workloads import Workload
from microrisk.core import Engine, ItchDecoder
from microrisk.features.kernels import run_views
from microrisk.features.normalise import expand
from microrisk.features.reference import features_float
from microrisk.features.state import initial_state
from microrisk.score.registry import load_model

pytestmark = pytest.mark.benchmark(group="features")
TICK, LOT = 100, 100


@pytest.fixture(scope="module")
def views(stream: Workload) -> NDArray[np.void]:
    engine = Engine()
    engine.record_views()
    engine.run_itch(ItchDecoder(), stream.data, 0, 1 << 62)
    taken = engine.take_views()
    return taken[taken["instrument"] == np.bincount(taken["instrument"]).argmax()]


def test_kernel(benchmark, views: NDArray[np.void]) -> None:
    table = expand(load_model("default").table_for())
    _raw, codes, produced = benchmark.pedantic(
        lambda: run_views(views, initial_state(TICK, LOT), table), rounds=7, warmup_rounds=1
    )
    benchmark.extra_info["views"] = len(views)
    assert produced.all()
    assert codes.any()


def test_float_form(benchmark, views: NDArray[np.void]) -> None:
    part = views[:5_000]
    benchmark.extra_info["views"] = len(part)
    floats = benchmark.pedantic(lambda: features_float(part, TICK, LOT), rounds=3)
    assert np.isfinite(floats).all()
