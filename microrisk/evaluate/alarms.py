"""Alarms as a desk counts them: clusters, false alarms per hour, found episodes, thresholds for a budget.

Firing bins at most 5 s apart are one alarm. An alarm that stays on is raised again every minute, so that a detector
which is never silent pays for it. An alarm is false when no episode lies within 5 s. No point is ever adjusted.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microrisk.errors import EvaluationError
from microrisk.evaluate.grid import BIN_NS, Floats, Grid
from microrisk.evaluate.split import EpisodeLike, Track

MERGE_NS = 5_000_000_000
"""Firing bins this close are one alarm; an episode is still found this long after its end."""
MERGE_BINS = MERGE_NS // BIN_NS
REPEAT_BINS = 60_000_000_000 // BIN_NS
"""An alarm that stays on counts once per this many bins."""
HOUR_BINS = 3_600_000_000_000 // BIN_NS

Ints = NDArray[np.int64]


def clusters(firing: NDArray[np.bool_]) -> Ints:
    """Alarms of one track: int64[a, 2], first and last bin of each, both inside."""
    at = np.flatnonzero(firing)
    if not len(at):
        return np.zeros((0, 2), np.int64)
    new = np.r_[True, np.diff(at) > MERGE_BINS]
    starts, ends = at[new], at[np.r_[new[1:], True]]
    pieces = [
        (a, min(a + REPEAT_BINS - 1, end))
        for start, end in zip(starts, ends, strict=True)
        for a in range(start, end + 1, REPEAT_BINS)
    ]
    return np.asarray(pieces, np.int64)


def near_episode(alarms: Ints, first: int, episodes: Sequence[EpisodeLike]) -> NDArray[np.bool_]:
    """bool[a]: an episode lies within MERGE_NS of the alarm (times of the bins' edges)."""
    start, end = (alarms[:, 0] + first) * BIN_NS, (alarms[:, 1] + first + 1) * BIN_NS
    hit = np.zeros(len(alarms), bool)
    for e in episodes:
        hit |= (start <= e.end_ns + MERGE_NS) & (end >= e.start_ns - MERGE_NS)
    return hit


def normal_bins(first: int, bins: int, episodes: Sequence[EpisodeLike]) -> int:
    """Bins in which an alarm would be false: those farther than MERGE_NS from every episode."""
    normal = np.ones(bins, bool)
    for e in episodes:
        a, b = (e.start_ns - MERGE_NS) // BIN_NS - first, (e.end_ns + MERGE_NS) // BIN_NS - first
        normal[max(a, 0) : max(b + 1, 0)] = False
    return int(normal.sum())


def delays(track: Track, smoothed: Floats, threshold: float) -> Floats:
    """Per episode, seconds from its start to the first row above the threshold in [start, end + 5 s]; inf if missed."""
    out = np.full(len(track.episodes), np.inf)
    for i, e in enumerate(track.episodes):
        a = int(np.searchsorted(track.now, e.start_ns, "left"))
        b = int(np.searchsorted(track.now, e.end_ns + MERGE_NS, "right"))
        above = np.flatnonzero(smoothed[a:b] > threshold)
        if len(above):
            out[i] = (int(track.now[a + above[0]]) - e.start_ns) / 1e9
    return out


class _Clusters:
    """The alarms of one track while its bins begin to fire one by one, in any order."""

    def __init__(self) -> None:
        self.spans: list[tuple[int, int]] = []
        self.count = 0

    def fire(self, k: int) -> None:
        """Bin k fires; merge what is now within reach."""
        i = bisect_right(self.spans, (k, k))
        low = high = k
        if i < len(self.spans) and self.spans[i][0] - k <= MERGE_BINS:
            high = max(high, self._take(i)[1])
        if i > 0 and k - self.spans[i - 1][1] <= MERGE_BINS:
            before = self._take(i - 1)
            low, high = before[0], max(high, before[1])
        insort(self.spans, (low, high))
        self.count += _repeats(low, high)

    def _take(self, i: int) -> tuple[int, int]:
        span = self.spans.pop(i)
        self.count -= _repeats(*span)
        return span


def _repeats(low: int, high: int) -> int:
    return (high - low) // REPEAT_BINS + 1


@dataclass(frozen=True)
class Curve:
    """Alarms of clean sessions as a function of the threshold.

    Attributes
    ----------
    value : float64[v], distinct scores of bins, falling
    count : int64[v], the most alarms that any threshold at or above `value` raises
    bins : int64[v], bins at or above `value`
    hours : length of the sessions
    """

    value: Floats
    count: Ints
    bins: Ints
    hours: float

    def threshold(self, budget: float) -> float:
        """Score that must be exceeded for an alarm: at most `budget` alarms an hour on these sessions.

        It lies just below the peak of the last alarm that the budget allows, because a threshold at the next peak
        would on average let one more through on new sessions. Where even one value fires too often (a constant, a
        rule that is 0 in clean time), only what lies above it is an alarm. Raises EvaluationError when the sessions
        are too short to see one alarm of the budget.
        """
        allowed = budget * self.hours
        if allowed < 1:
            raise EvaluationError(
                f"calibration of {self.hours:.2f} h is too short for {budget:g} false alarms/h: "
                f"it needs {1 / budget:.2f} h"
            )
        if not len(self.value):
            return -np.inf
        steps = np.flatnonzero(np.diff(self.count, prepend=0) > 0)
        within = steps[self.count[steps] <= allowed]
        return float(np.nextafter(self.value[within[-1]], -np.inf) if len(within) else self.value[0])


def curve(grids: Sequence[Grid]) -> Curve:
    """Count alarms at every threshold, from the highest score down."""
    score = np.concatenate([g.score for g in grids])
    track = np.concatenate([np.full(len(g.score), i) for i, g in enumerate(grids)])
    place = np.concatenate([np.arange(len(g.score)) for g in grids])
    order = np.argsort(-score, kind="stable")
    order = order[np.isfinite(score[order])]
    counts = _count_down([_Clusters() for _ in grids], track[order].tolist(), place[order].tolist())
    ordered = score[order]
    # a threshold cannot fall between equal scores
    last = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True]) if len(ordered) else np.zeros(0, np.int64)
    hours = sum(len(g.score) for g in grids) / HOUR_BINS
    return Curve(ordered[last], np.maximum.accumulate(counts[last]), last + 1, hours)


def _count_down(tracks: list[_Clusters], which: list[int], place: list[int]) -> Ints:
    """Alarms of all tracks after each bin has begun to fire."""
    out, total = np.zeros(len(which), np.int64), 0
    for i, (t, k) in enumerate(zip(which, place, strict=True)):
        total -= tracks[t].count
        tracks[t].fire(k)
        total += tracks[t].count
        out[i] = total
    return out
