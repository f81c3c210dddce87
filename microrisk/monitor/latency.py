"""Latency by stage: the core's buckets (those of HdrHistogram with two significant digits) as percentiles."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

from microrisk.core import paced_edges
from microrisk.monitor.hub import Stage

EDGES: NDArray[np.uint64] = paced_edges()
"""Smallest ns of each bucket."""
_EDGES: list[int] = EDGES.tolist()
_UPPER = np.append(EDGES[1:], EDGES[-1:] * np.uint64(2))


def stage_of(name: str, counts: NDArray[np.uint64]) -> Stage:
    """Percentiles of a histogram; each is the upper end of its bucket, so none is told smaller than it was."""
    total = int(counts.sum())
    if total == 0:
        return Stage(name, 0, 0, 0, 0, 0)
    below = np.cumsum(counts)

    def at(share: float) -> int:
        return int(_UPPER[int(np.searchsorted(below, max(1, np.ceil(share * total))))])

    return Stage(name, total, at(0.5), at(0.99), at(0.999), int(_UPPER[int(np.flatnonzero(counts)[-1])]))


def buckets(counts: NDArray[np.uint64]) -> list[list[int]]:
    """[upper end in ns, count] of the buckets that hold something."""
    return [[int(_UPPER[i]), int(counts[i])] for i in np.flatnonzero(counts)]


def bucket_of(ns: int) -> int:
    """The bucket of a latency; below 0 counts as 0."""
    return bisect_right(_EDGES, max(ns, 0)) - 1
