"""One event on a GPU, recorded: a CUDA graph from codes in pinned host memory to heads in pinned host memory.

Copy in, kernels and copy out are one graph, so that a call is one submission and one wait, as a caller sees it. The
kernels are torch's own here, about a hundred of them; cuda_fused.py has all four heads in one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from microrisk.score.torch_scorer import TorchScorer, exact_products
from microrisk.spec.features import ALL_MASK
from microrisk.spec.records import N_FEATURES, N_HEADS
from microrisk.weights import Weights

if TYPE_CHECKING:
    import torch

Step = Callable[["torch.Tensor", "torch.Tensor"], None]
"""Submits what makes heads (second, int32[1, N_HEADS]) of codes (first, int8[1, N_FEATURES]), both pinned."""


class Replay:
    """A step recorded as a graph.

    Parameters
    ----------
    step : what to record
    times : how often the graph holds it, one after the other; 1 except to time the device alone
    """

    def __init__(self, step: Step, times: int = 1) -> None:
        import torch

        self.times = times
        self._in = torch.zeros((1, N_FEATURES), dtype=torch.int8, pin_memory=True)
        self._out = torch.zeros((1, N_HEADS), dtype=torch.int32, pin_memory=True)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.inference_mode(), exact_products("cuda"):
            with torch.cuda.stream(side):
                for _ in range(3):  # allocations and compilations happen before recording
                    step(self._in, self._out)
            torch.cuda.current_stream().wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                for _ in range(times):
                    step(self._in, self._out)
        self._stream = torch.cuda.current_stream()
        self._codes, self._heads = self._in.numpy(), self._out.numpy()

    def __call__(self, codes: NDArray[np.int8]) -> NDArray[np.int32]:
        """int8[1, N_FEATURES] -> int32[1, N_HEADS]."""
        self._codes[:] = codes
        self._graph.replay()
        self._stream.synchronize()
        heads: NDArray[np.int32] = self._heads.copy()
        return heads

    def device_ns(self, replays: int = 2000) -> float:
        """Mean ns of a step by the device's own clock, replays back to back."""
        import torch

        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(replays):
            self._graph.replay()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) * 1e6 / (replays * self.times)


class CudaGraphScorer(TorchScorer):
    """TorchScorer on the first CUDA device whose calls with one row replay a recorded graph."""

    name = "cuda graph"

    def __init__(self) -> None:
        super().__init__("cuda")

    def load(self, weights: Weights, mask: int = ALL_MASK) -> None:
        """Copy the model to the device and record the graph of one row."""
        import torch

        super().load(weights, mask)
        self._x = torch.zeros((1, N_FEATURES), dtype=torch.int8, device=self.device)
        self.replay = Replay(self._one)

    def score(self, codes: NDArray[np.int8]) -> NDArray[np.int32]:
        """One row by the graph, more as TorchScorer does."""
        return self.replay(codes) if len(codes) == 1 else super().score(codes)

    def _one(self, codes: torch.Tensor, heads: torch.Tensor) -> None:
        import torch

        self._x.copy_(codes, non_blocking=True)
        heads.copy_(self._heads(self._x.to(torch.int32) * self._mask), non_blocking=True)


def energy(call: Callable[[], object], seconds: float) -> dict[str, float | str]:
    """Watts of the whole card, idle and during `seconds` of calls, and joules a call; says why where NVML cannot."""
    import torch

    try:
        idle = [_watts() for _ in range(20)]
    except (ImportError, RuntimeError) as why:
        return {"unavailable": f"{type(why).__name__}: {why}"}
    torch.cuda.synchronize()
    begin, calls, watts = time.perf_counter(), 0, []
    while (spent := time.perf_counter() - begin) < seconds:
        for _ in range(1000):
            call()
        calls += 1000
        if spent > min(2.0, seconds / 2):  # NVML's figure is a mean over about a second
            watts.append(_watts())
    mean = float(np.mean(watts))
    return {"idle_watts": float(np.mean(idle)), "watts": mean, "joules_per_call": mean * spent / calls}


def _watts() -> float:
    import torch

    return float(torch.cuda.power_draw()) / 1000.0
