"""ITCH bytes -> book -> 32 features -> four heads -> alert step, event by event on one core, with tick-to-alert times.

Nobody else's package does this whole path; the rows to compare with are those of the book group.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.workloads import Workload
from microrisk.core import Engine, Heads, ItchDecoder, latency_edges
from microrisk.features.kernels import kernel_address
from microrisk.features.normalise import expand
from microrisk.features.state import initial_state
from microrisk.score.alert import alert_address, make_params
from microrisk.score.alert import initial_state as alert_state
from microrisk.score.registry import load_model
from microrisk.weights import Weights

pytestmark = pytest.mark.benchmark(group="spine")


def _run(weights: Weights, data: bytes) -> Engine:
    engine = Engine()
    engine.watch(
        kernel_address(),
        initial_state(100, 100),
        expand(weights.table_for()),
        Heads(weights.heads_tensors()),
        alert_address(),
        make_params(weights.level_for()).tobytes(),
        alert_state().tobytes(),
        rows=True,
    )
    engine.latency(True)
    decoder, offset = ItchDecoder(), 0
    while (after := engine.run_itch(decoder, data, offset, 65_536)) != offset:
        offset = after
        engine.take_rows()
    return engine


def quantiles_ns(counts: np.ndarray) -> dict[str, int]:
    """Upper edge of the histogram bucket that holds each quantile."""
    edges, total = latency_edges(), np.cumsum(counts)
    return {
        name: int(edges[min(np.searchsorted(total, q * total[-1]) + 1, len(edges) - 1)])
        for name, q in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))
    }


def test_whole_path(benchmark, stream: Workload) -> None:
    weights = load_model("default")
    engine = benchmark.pedantic(_run, (weights, stream.data), rounds=5, warmup_rounds=1)
    counts = engine.take_latency()
    benchmark.extra_info |= {"messages": stream.messages, "tick_to_alert_ns": quantiles_ns(counts)}
    assert engine.live_orders == stream.live_orders
    assert counts.sum() > 900_000
