"""Scores on the wall clock: the same smoothing for every detector, then the maximum of each 250 ms.

Grading rows instead of time would let a burst of messages count for more than a minute of trading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from microrisk.errors import EvaluationError
from microrisk.evaluate.split import Track
from microrisk.spec.formats import EWMA_SHIFT

BIN_NS = 250_000_000
"""A bin of the grid."""
NORMAL = -1
"""Kind of a bin without an episode."""

Floats = NDArray[np.float64]


@numba.njit(cache=True)
def _ewma(x: Floats, alpha: float) -> Floats:  # pragma: no cover - compiled
    out = np.empty_like(x)
    s = x[0]
    for i in range(x.shape[0]):
        # written as a difference so that a constant stays exactly constant
        s += (x[i] - s) * alpha
        out[i] = s
    return out


def ewma(score: ArrayLike, shift: int = EWMA_SHIFT) -> Floats:
    """S += (x - s) / 2**shift per row, beginning at the first value; float64[n]."""
    x = np.ascontiguousarray(score, np.float64)
    if not np.isfinite(x).all():
        raise EvaluationError(f"a score holds {int((~np.isfinite(x)).sum())} values that are not finite")
    if not len(x):
        return x
    return np.asarray(_ewma(x, 2.0**-shift), np.float64)


@dataclass(frozen=True)
class Grid:
    """One track on the grid.

    Attributes
    ----------
    session : block of the bootstrap
    first : number of the first bin (its start is first * BIN_NS)
    score : float64[m], maximum of the rows in the bin, -inf where there is no row
    kind : int16[m], index into `kinds`, NORMAL outside episodes
    """

    session: str
    first: int
    score: Floats
    kind: NDArray[np.int16]

    @property
    def positive(self) -> NDArray[np.bool_]:
        """Bins in which an episode is active."""
        return np.asarray(self.kind != NORMAL)


def pool(track: Track, smoothed: Floats) -> tuple[int, Floats]:
    """Number of the first bin and the maximum of `smoothed` in every bin of the session."""
    start, end = track.span
    first, last = start // BIN_NS, end // BIN_NS
    out = np.full(last - first + 1, -np.inf)
    k = track.now // BIN_NS - first
    if len(k) and (k[0] < 0 or k[-1] >= len(out)):
        raise EvaluationError(f"{track.name}: rows outside the session {start}..{end}")
    if len(k):
        heads = np.flatnonzero(np.r_[True, np.diff(k) > 0])
        out[k[heads]] = np.maximum.reduceat(smoothed, heads)
    return int(first), out


def labels(track: Track, first: int, bins: int, kinds: Sequence[str]) -> NDArray[np.int16]:
    """Kind of every bin; where two episodes overlap the one that began later is kept."""
    out = np.full(bins, NORMAL, np.int16)
    for e in sorted(track.episodes, key=lambda e: e.start_ns):
        a, b = e.start_ns // BIN_NS - first, e.end_ns // BIN_NS - first
        out[max(a, 0) : b + 1] = kinds.index(e.kind)
    return out


def grid(track: Track, smoothed: Floats, kinds: Sequence[str]) -> Grid:
    """A track's smoothed score and labels on the grid."""
    first, score = pool(track, smoothed)
    return Grid(track.session, first, score, labels(track, first, len(score), kinds))
