"""One event at a time and in bulk through every scorer: python -m benchmarks.record_scorers [--seconds 4].

Latency is from codes in memory to heads in memory, one row a call, in a histogram; the bulk figure is rows a second
of calls of 65,536 rows. Each scorer's answers are compared with Weights.compute first. Without a CUDA device its row
says so; with one, the CUDA graph replays a recorded batch of one and energy is read from NVML around a minute of it
(record_gpu.py looks at the GPU more closely).
Writes benchmarks/recorded/scorers.json.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.cuda_graph import CudaGraphScorer, energy
from benchmarks.measure import RECORDED
from benchmarks.onnx_heads import OnnxScorer
from microrisk.score.backend import open_scorer
from microrisk.score.registry import load_model
from microrisk.score.torch_scorer import TorchScorer
from microrisk.weights import Weights

BULK = 1 << 16
HIGHEST_NS = 10**9
Score = Callable[[NDArray[np.int8]], NDArray[np.int32]]


def percentiles(score: Score, codes: NDArray[np.int8], seconds: float) -> dict[str, Any]:
    """Histogram of calls with one row, ns."""
    from hdrh.histogram import HdrHistogram

    rows = [codes[k : k + 1] for k in range(2048)]
    for row in rows[:200]:
        score(row)
    held, k, until = HdrHistogram(1, HIGHEST_NS, 3), 0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        row = rows[k & 2047]
        begin = time.perf_counter_ns()
        score(row)
        held.record_value(min(time.perf_counter_ns() - begin, HIGHEST_NS))
        k += 1
    at = {f"p{p:g}_ns": held.get_value_at_percentile(p) for p in (50, 99, 99.9)}
    return {"calls": k, **at, "max_ns": held.get_max_value()}


def bulk(score: Score, codes: NDArray[np.int8], rounds: int = 5) -> dict[str, float]:
    """Rows a second: median, least, greatest."""
    score(codes)
    rates = []
    for _ in range(rounds):
        begin = time.perf_counter()
        score(codes)
        rates.append(len(codes) / (time.perf_counter() - begin))
    return {"median": float(np.median(rates)), "low": min(rates), "high": max(rates)}


def scorers(weights: Weights) -> list[tuple[str, Any, str | None]]:
    """(name, loaded scorer or None, why not)."""
    out: list[tuple[str, Any, str | None]] = []
    for name in ("reference", "cpu"):
        scorer = open_scorer(name)
        scorer.load(weights)
        out.append((name, scorer, None))
    for name, make in (("torch CPU", lambda: TorchScorer("cpu")), ("onnxruntime", OnnxScorer)):
        try:
            scorer = make()
            scorer.load(weights)
            out.append((name, scorer, None))
        except ImportError as missing:
            out.append((name, None, f"{missing}: pip install onnxruntime onnx torch"))
    why = TorchScorer("cuda").unavailable()
    if why is None:
        scorer = CudaGraphScorer()
        scorer.load(weights)
        out.append(("CUDA graph", scorer, None))
    else:
        out.append(("CUDA graph", None, why))
    return out


def record(seconds: float) -> dict[str, Any]:
    """All rows."""
    weights = load_model("default")
    codes = np.random.default_rng(1).normal(0, 24, (BULK, 32)).clip(-128, 127).astype(np.int8)
    expected = weights.compute(codes)
    rows: dict[str, Any] = {}
    for name, scorer, why in scorers(weights):
        if scorer is None:
            rows[name] = {"unavailable": why}
            continue
        assert np.array_equal(scorer.score(codes), expected), name
        assert np.array_equal(scorer.score(codes[:1]), expected[:1]), name
        rows[name] = {
            "one_row": percentiles(scorer.score, codes, seconds),
            "bulk_rows_per_s": bulk(scorer.score, codes),
        }
        if name == "CUDA graph":
            rows[name]["energy"] = energy(lambda scorer=scorer: scorer.score(codes[:1]), seconds=60.0)
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(), "machine": platform.machine(), "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2), "weights_hash": weights.heads_hash(),
        "what": "all four heads of `default`; one row a call, and calls of 65,536 rows; one thread", "rows": rows,
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="of calls with one row, a scorer")
    found = record(parser.parse_args().seconds)
    (RECORDED / "scorers.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found["rows"], indent=1))
