"""The scorers on a machine with a GPU: equality, one row a call, rows a second by batch size, energy.

python -m benchmarks.record_gpu [--seconds 5] [--rows 1000000] [--folder F] [--commit C]; writes gpu.json. All times are
from codes in host memory to heads in host memory as a Python caller sees them, unless a key says `device`. GPU rows:
`cuda` is the back end; `cuda graph` the same kernels recorded once; `fused kernel` all heads in one kernel, launched,
recorded with its copies, and recorded reading and writing pinned host memory itself; `nothing` a graph of the two
copies and no kernel, which no scorer with one submission an event can beat. Without a GPU the CPU rows are taken.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import cuda_graph
from benchmarks.measure import RECORDED, machine, save, say, spread
from benchmarks.onnx_heads import OnnxScorer
from benchmarks.record_scorers import percentiles
from microrisk.model.synthetic import extreme_codes, market_like_codes, random_codes, random_weights
from microrisk.score import torch_scorer
from microrisk.score.cpu_scorer import CpuScorer
from microrisk.score.reference_scorer import ReferenceScorer
from microrisk.score.registry import load_model
from microrisk.spec.features import ALL_MASK
from microrisk.weights import Weights

Codes = NDArray[np.int8]
Score = Callable[[Codes], NDArray[np.int32]]
SIZES = (1, 10, 100, 1_000, 10_000, 65_536, 100_000, 1_000_000)
MOST = {"reference": 65_536}
"""Largest batch of a scorer that is too slow for more."""
ONE_BY_ONE = 5_000
L2_MASK = 0x3FF8_3FFF
"""What feeds of levels carry."""
WARPS = (1, 2, 4, 8)
NOTHING = "nothing"


def graphics() -> dict[str, Any]:
    """What the GPU is, from torch and nvidia-smi."""
    import torch

    if not torch.cuda.is_available():
        return {"torch": torch.__version__, "name": None}
    facts: dict[str, Any] = {"torch": torch.__version__, "cuda": torch.version.cuda}
    facts |= {
        "name": torch.cuda.get_device_name(),
        "processors": torch.cuda.get_device_properties(0).multi_processor_count,
    }
    asked = ("driver_version", "pcie.link.gen.current", "pcie.link.width.current", "clocks.sm", "power.limit")
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["nvidia-smi", f"--query-gpu={','.join(asked)}", "--format=csv,noheader"]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
        facts |= dict(zip(asked, (v.strip() for v in said.splitlines()[0].split(",")), strict=True))
    return facts


def models() -> Iterator[tuple[str, Weights, int]]:
    """Name, model, mask."""
    yield "default", load_model("default"), ALL_MASK
    yield "random", random_weights(11), ALL_MASK
    yield "random, at bound", random_weights(12, at_bound=True), ALL_MASK
    yield "random, at bound, levels only", random_weights(12, at_bound=True), L2_MASK


def attempt(name: str, work: Callable[[], Any]) -> Any:
    """What `work` finds, or why it failed; said in both cases."""
    try:
        found = work()
    except Exception as why:  # one scorer's trouble must not cost the others their figures
        found = {"failed": f"{type(why).__name__}: {why}"}
    say(f"{name}: {json.dumps(found)[:400]}")
    return found


def differences(rows: int) -> dict[str, Any]:
    """Rows that differ from Weights.compute: random codes, extremes, market-like ones; whole, and one a call."""
    codes = np.concatenate([extreme_codes(), market_like_codes(2_500, 1), random_codes(rows, 11)])
    found: dict[str, Any] = {"rows": len(codes), "one_by_one": min(ONE_BY_ONE, len(codes))}
    for title, weights, mask in models():
        expected = weights.compute(codes, mask)
        found[title] = {}
        for name, scorer in compared().items():

            def work(scorer: Any = scorer, model: Weights = weights, mask: int = mask, e: Any = expected) -> Any:
                scorer.load(model, mask)
                few = np.concatenate([scorer.score(codes[i : i + 1]) for i in range(len(codes[:ONE_BY_ONE]))])
                return {"whole": _unequal(scorer.score(codes), e), "single": _unequal(few, e[: len(few)])}

            found[title][name] = attempt(f"{title}, {name}", work)
    return found


def reduced(rows: int) -> dict[str, Any]:
    """Rows that differ when the guard is taken away and TF32 is on: what the guard is worth on this GPU."""
    import torch

    codes = np.concatenate([extreme_codes(), random_codes(rows, 11)])
    guard, before = torch_scorer.exact_products, torch.backends.cuda.matmul.fp32_precision
    torch_scorer.exact_products = lambda device: contextlib.nullcontext()
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        found: dict[str, Any] = {"error_of_a_float_product": _product_error()}
        for title, weights, mask in models():
            scorer = torch_scorer.CudaScorer()
            scorer.load(weights, mask)
            found[title] = _unequal(scorer.score(codes), weights.compute(codes, mask))
    finally:
        torch_scorer.exact_products, torch.backends.cuda.matmul.fp32_precision = guard, before
    return found | {"error_of_a_float_product_guarded": _product_error()}


def _product_error() -> float:
    """Relative error of a product of normal numbers: about 3e-4 with TF32, below 1e-6 without."""
    import torch

    a, b = torch.randn((2, 512, 512), device="cuda", generator=torch.Generator("cuda").manual_seed(1))
    exact = a.double() @ b.double()
    return float((a @ b - exact).norm() / exact.norm())


def compared() -> dict[str, Any]:
    """Scorers whose answers are compared; the C++ one too, as it is the yardstick here."""
    cuda = torch_scorer.CudaScorer()
    found: dict[str, Any] = {"cpu": CpuScorer(), "cuda": cuda, "cuda graph": cuda_graph.CudaGraphScorer()}
    if _triton():
        found["fused kernel"] = _fused()
    return {name: s for name, s in found.items() if s.unavailable() is None}


def one_row(weights: Weights, codes: Codes, seconds: float) -> dict[str, Any]:
    """Percentiles of calls with one row."""
    expected = weights.compute(codes[:100])

    def work(name: str, make: Callable[[], Score]) -> Any:
        call = make()
        if name != NOTHING:
            assert all(np.array_equal(call(codes[i : i + 1])[0], expected[i]) for i in range(100)), "not equal"
        return percentiles(call, codes, seconds)

    return {name: attempt(f"one row, {name}", lambda n=name, m=make: work(n, m)) for name, make in calls(weights)}


def calls(weights: Weights) -> Iterator[tuple[str, Callable[[], Score]]]:
    """Name of every way to score one row that runs here, and what makes it."""
    for name, scorer in (plain() | compared()).items():
        if name != "fused kernel":
            yield name, lambda s=scorer: _loaded(s, weights).score
    if not _triton():
        return
    fused = _fused()
    yield "fused kernel, launched", lambda: _loaded(fused, weights).score
    yield "fused kernel, graph", lambda: cuda_graph.Replay(_between_copies(fused.submit))
    yield "fused kernel, graph, pinned memory", lambda: cuda_graph.Replay(fused.submit)
    yield NOTHING, lambda: cuda_graph.Replay(_between_copies(lambda codes, heads: None))


def plain() -> dict[str, Any]:
    """The scorers of the processor alone."""
    found = {"reference": ReferenceScorer(), "torch CPU": torch_scorer.TorchScorer("cpu")}
    return found | ({"onnxruntime": OnnxScorer()} if importlib.util.find_spec("onnxruntime") else {})


def _loaded(scorer: Any, weights: Weights) -> Any:
    scorer.load(weights)
    return scorer


def _triton() -> bool:
    return torch_scorer.CudaScorer().unavailable() is None and importlib.util.find_spec("triton") is not None


def _fused(**choices: Any) -> Any:
    from benchmarks.cuda_fused import FusedScorer

    return FusedScorer(**choices)


def _between_copies(submit: cuda_graph.Step) -> cuda_graph.Step:
    """Copy in, `submit` on device memory, copy out."""
    import torch

    x = torch.zeros((1, 32), dtype=torch.int8, device="cuda")
    y = torch.zeros((1, 4), dtype=torch.int32, device="cuda")

    def step(codes: torch.Tensor, heads: torch.Tensor) -> None:
        x.copy_(codes, non_blocking=True)
        submit(x, y)
        heads.copy_(y, non_blocking=True)

    return step


def device(weights: Weights) -> dict[str, float]:
    """Mean ns of one row by the device's clock, host and copies left out; graphs replayed back to back."""
    import torch

    x = torch.zeros((1, 32), dtype=torch.int8, device="cuda")
    y = torch.zeros((1, 4), dtype=torch.int32, device="cuda")
    graph = cuda_graph.CudaGraphScorer()
    graph.load(weights)
    found = {"cuda graph, with its copies": graph.replay.device_ns()}
    for title, model, alone in (("all heads", weights, False), ("exposure of sparse", load_model("sparse"), True)):
        for warps in WARPS:
            fused = _fused(exposure_alone=alone, warps=warps)
            fused.load(model)
            inner = cuda_graph.Replay(lambda codes, heads, s=fused.submit: s(x, y), times=64)
            found[f"fused kernel, {title}, {warps} warps"] = inner.device_ns(200)
    return {k: round(v, 1) for k, v in found.items()}


def by_size(weights: Weights, codes: Codes, seconds: float) -> dict[str, Any]:
    """Rows a second of calls of each size: median, least, greatest."""

    def work(name: str, scorer: Any) -> Any:
        score = _loaded(scorer, weights).score
        sizes = [n for n in SIZES if n <= min(MOST.get(name, len(codes)), len(codes))]
        return {str(n): _rate(score, codes[:n], seconds) for n in sizes}

    named = {n: s for n, s in (plain() | compared()).items() if n != "cuda graph"}
    return {n: attempt(f"rows a second, {n}", lambda n=n, s=s: work(n, s)) for n, s in named.items()}


def _rate(score: Score, codes: Codes, seconds: float) -> dict[str, float]:
    for _ in range(3):
        score(codes)
    rates: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(rates) < 5:
        begin = time.perf_counter()
        score(codes)
        rates.append(len(codes) / (time.perf_counter() - begin))
    return spread(rates)


def resident(weights: Weights, codes: Codes) -> dict[str, float]:
    """Rows a second by the device's clock with codes and heads in device memory."""
    import torch

    cuda, fused = torch_scorer.CudaScorer(), _fused()
    cuda.load(weights)
    fused.load(weights)
    x = torch.from_numpy(codes.copy()).to("cuda")
    y = torch.zeros((len(codes), 4), dtype=torch.int32, device="cuda")
    works: dict[str, Callable[[], Any]] = {"fused kernel": lambda: fused.submit(x, y)}
    works["cuda"] = lambda: cuda._heads(x.to(torch.int32) * cuda._mask)
    found = {}
    for name, work in works.items():
        with torch.inference_mode(), torch_scorer.exact_products("cuda"):
            work()
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for _ in range(20):
                work()
            end.record()
            end.synchronize()
        found[name] = float(f"{20 * len(codes) / (begin.elapsed_time(end) / 1000):.4g}")
    return found


def record(seconds: float, rows: int) -> dict[str, Any]:
    """All parts; those that need a GPU only with one."""
    weights = load_model("default")
    found: dict[str, Any] = {"machine": machine(), "gpu": graphics(), "weights_hash": weights.heads_hash()}
    codes = np.random.default_rng(1).normal(0, 24, (rows, 32)).clip(-128, 127).astype(np.int8)
    parts: dict[str, Callable[[], Any]] = {
        "differences": lambda: differences(rows),
        "one_row": lambda: one_row(weights, codes, seconds),
        "rows_per_second": lambda: by_size(weights, codes, seconds / 10),
    }
    if found["gpu"]["name"] is not None:
        parts |= {
            "device_ns": lambda: device(weights),
            "device_rows_per_second": lambda: resident(weights, codes),
            "differences_tf32_unguarded": lambda: reduced(rows),
            "energy": lambda: energies(weights, codes, 2 * seconds),
        }
    return found | {name: attempt(name, part) for name, part in parts.items()}


def energies(weights: Weights, codes: Codes, seconds: float) -> dict[str, Any]:
    """Watts and joules a call, one row: the graph, and the one kernel."""
    graph, fused = cuda_graph.CudaGraphScorer(), _fused()
    _loaded(graph, weights)
    replay = cuda_graph.Replay(_between_copies(_loaded(fused, weights).submit))
    return {
        "cuda graph": cuda_graph.energy(lambda: graph.score(codes[:1]), seconds),
        "fused kernel, graph": cuda_graph.energy(lambda: replay(codes[:1]), seconds),
    }


def _unequal(found: NDArray[np.int32], expected: NDArray[np.int32]) -> int:
    return int((found != expected).any(axis=1).sum())


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of calls with one row, a scorer")
    parser.add_argument("--rows", type=int, default=1_000_000, help="random rows compared, and the largest batch")
    parser.add_argument("--folder", type=Path, default=RECORDED, help="of gpu.json")
    parser.add_argument("--commit", help="where git cannot be asked")
    given = parser.parse_args()
    found = record(given.seconds, given.rows)
    found["machine"]["commit"] = given.commit or found["machine"]["commit"]
    command = f"python -m benchmarks.record_gpu --seconds {given.seconds:g} --rows {given.rows}"
    say(f"wrote {save('gpu', command, found, given.folder)}")


if __name__ == "__main__":
    main()
