"""One event on a GPU at its best: the heads recorded as a CUDA graph, replayed for each row; energy from NVML.

Latency is from codes in host memory to heads in host memory: copy in, replay, copy out, synchronise, as a caller sees
it; `events` gives the device's own time of a replay by CUDA events.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microrisk.score.torch_scorer import TorchScorer, _exact_products
from microrisk.spec.features import ALL_MASK
from microrisk.weights import Weights


class CudaGraphScorer(TorchScorer):
    """TorchScorer on the first CUDA device whose calls with one row replay a recorded graph."""

    name = "cuda graph"

    def __init__(self) -> None:
        super().__init__("cuda")

    def load(self, weights: Weights, mask: int = ALL_MASK) -> None:
        """Copy the model to the device and record the graph of one row."""
        import torch

        super().load(weights, mask)
        self._host_in = torch.empty((1, len(self._mask)), dtype=torch.int8, pin_memory=True)
        self._host_out = torch.empty((1, 4), dtype=torch.int32, pin_memory=True)
        self._x = torch.zeros((1, len(self._mask)), dtype=torch.int8, device=self.device)
        side = torch.cuda.Stream()
        with torch.inference_mode(), _exact_products():
            with torch.cuda.stream(side):
                for _ in range(3):  # allocations happen before recording
                    self._one()
            torch.cuda.current_stream().wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._y = self._one()

    def _one(self) -> Any:
        import torch

        return self._heads(self._x.to(torch.int32) * self._mask)

    def score(self, codes: NDArray[np.int8]) -> NDArray[np.int32]:
        """One row by the graph, more as TorchScorer does."""
        if len(codes) != 1:
            return super().score(codes)
        import torch

        self._host_in.numpy()[:] = codes
        self._x.copy_(self._host_in, non_blocking=True)
        self._graph.replay()
        self._host_out.copy_(self._y, non_blocking=True)
        torch.cuda.current_stream().synchronize()
        return self._host_out.numpy().copy()

    def events(self, replays: int = 2000) -> float:
        """Mean ns of a replay by the device's own clock, copies left out."""
        import torch

        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(replays):
            self._graph.replay()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) * 1e6 / replays

    def energy(self, codes: NDArray[np.int8], seconds: float) -> dict[str, float]:
        """Joules an event over `seconds` of calls with one row: the whole card; absent where NVML has no counter."""
        import torch

        if not hasattr(torch.cuda, "power_draw"):
            return {"graph_ns_by_events": self.events()}
        until, calls, watts = time.perf_counter() + seconds, 0, []
        while time.perf_counter() < until:
            for _ in range(1000):
                self.score(codes)
            calls += 1000
            watts.append(torch.cuda.power_draw() / 1000.0)
        return {
            "graph_ns_by_events": self.events(), "watts_mean": float(np.mean(watts)),
            "joules_per_event": float(np.mean(watts)) * seconds / calls,
        }  # fmt: skip
