"""Area measures on the grid: PR-AUC (average precision) and VUS-PR, from sums that add up over sessions.

Both use the step rule: the area under a curve is the sum of (recall gained) * (precision reached).

VUS-PR follows the definition used by the TSB-AD benchmark, with the window fixed and printed. For every width w
from 0 to WINDOW the labels get soft edges: a bin d bins outside an episode, d <= w // 2, has label sqrt(1 - d/w). At a
threshold with firing bins F: TP = sum of labels in F; recall = TP / ((P + P + soft labels in F) / 2), at most 1, times
the share of episodes (with their edges; those that touch are one) that hold a firing bin; precision = TP / |F|. The
volume is the mean over the widths of the areas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microrisk.errors import EvaluationError
from microrisk.evaluate.grid import NORMAL, Floats, Grid

WINDOW = 20
"""Bins, 5 s: the widest soft edge (half of it on each side) of VUS-PR."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Sums:
    """Counts of one or more sessions at T thresholds (falling); sums of Sums are the Sums of the union.

    Attributes
    ----------
    inside : float64[T], firing bins inside episodes
    fired : float64[T], firing bins
    soft : float64[W + 1, T], soft labels of firing bins outside episodes, by width
    hit : float64[W + 1, T], episodes with a firing bin, by width
    positives : bins inside episodes
    bins : all bins
    episodes : float64[W + 1], episodes by width
    """

    inside: Floats
    fired: Floats
    soft: Floats
    hit: Floats
    positives: float
    bins: float
    episodes: Floats

    def pr_auc(self) -> float:
        """Average precision."""
        return _area(self.inside / max(self.positives, 1), self.inside / np.maximum(self.fired, 1))

    def vus_pr(self) -> float:
        """Mean over the widths of the soft average precision."""
        tp = self.inside + self.soft
        recall = np.minimum(tp / np.maximum((2 * self.positives + self.soft) / 2, 1), 1)
        recall = recall * self.hit / np.maximum(self.episodes, 1)[:, None]
        precision = tp / np.maximum(self.fired, 1)
        return float(np.mean([_area(r, p) for r, p in zip(recall, precision, strict=True)]))

    @property
    def base_rate(self) -> float:
        """PR-AUC of a score that knows nothing."""
        return self.positives / self.bins if self.bins else 0.0


def _area(recall: Floats, precision: Floats) -> float:
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def add_up(parts: Sequence[Sums], times: Sequence[int] | None = None) -> Sums:
    """Sums of the union of parts, each taken `times` times."""
    w = np.ones(len(parts)) if times is None else np.asarray(times, float)

    def total(name: str) -> Floats:
        return np.tensordot(w, np.stack([getattr(p, name) for p in parts]), 1)

    return Sums(
        total("inside"), total("fired"), total("soft"), total("hit"),
        float(total("positives")), float(total("bins")), total("episodes"),
    )  # fmt: skip


def thresholds(grids: Sequence[Grid], most: int | None = None) -> Floats:
    """Distinct scores, falling; at most `most` of them, denser at the top where alarms are."""
    values = np.unique(np.concatenate([g.score for g in grids]))[::-1]
    if most is None or len(values) <= most:
        return values
    ranks = np.unique(np.r_[np.geomspace(1, len(values), most // 2), np.linspace(1, len(values), most // 2)].round())
    return np.asarray(values[ranks.astype(np.int64) - 1])


def sums(grids: Sequence[Grid], at: Floats, window: int = WINDOW) -> Sums:
    """Sums of some tracks at thresholds `at` (falling): a bin fires when its score is at or above."""
    # number of the first (highest) threshold at which each bin fires; len(at) = never
    ranks = [np.searchsorted(-at, -g.score, "left") for g in grids]
    edges = [_edges(g.positive) for g in grids]
    rank, positive = np.concatenate(ranks), np.concatenate([g.positive for g in grids])
    soft, hit, episodes = [], [], []
    for width in range(window + 1):
        label = np.concatenate([soft_label(g.positive, e, width) for g, e in zip(grids, edges, strict=True)])
        outside = np.flatnonzero((label > 0) & ~positive)
        first = np.concatenate([_first_hits(r, e, width // 2) for r, e in zip(ranks, edges, strict=True)])
        soft.append(_fired(rank[outside], len(at), label[outside]))
        hit.append(_fired(first, len(at)))
        episodes.append(len(first))
    return Sums(
        _fired(rank[positive], len(at)), _fired(rank, len(at)), np.stack(soft), np.stack(hit),
        float(positive.sum()), float(len(positive)), np.asarray(episodes, float),
    )  # fmt: skip


def _fired(rank: NDArray[np.int64], n: int, weight: Floats | None = None) -> Floats:
    """Running total of weights (1 each) by the threshold at which they begin to fire."""
    return np.cumsum(np.bincount(rank, weight, n + 1)[:n].astype(float))


def _edges(positive: Bools) -> NDArray[np.int64]:
    """int64[e, 2]: first and last bin of each run of True."""
    step = np.diff(np.r_[0, positive.astype(np.int8), 0])
    return np.stack([np.flatnonzero(step == 1), np.flatnonzero(step == -1) - 1], axis=1)


def _first_hits(rank: NDArray[np.int64], edges: NDArray[np.int64], reach: int) -> NDArray[np.int64]:
    """Per episode (with edges of `reach` bins) the first threshold at which one of its bins fires."""
    return np.asarray([rank[a : b + 1].min() for a, b in _merged(edges, reach, len(rank))], np.int64)


def soft_label(positive: Bools, edges: NDArray[np.int64], width: int) -> Floats:
    """Labels with soft edges; where two edges meet they add up, to 1 at most."""
    label = np.zeros(len(positive))
    reach = width // 2
    for d in range(1, reach + 1):
        value = np.sqrt(1 - d / width)
        for at in (edges[:, 0] - d, edges[:, 1] + d):
            at = at[(at >= 0) & (at < len(label))]
            np.add.at(label, at, value)
    label[positive] = 1
    return np.minimum(label, 1)


def _merged(edges: NDArray[np.int64], reach: int, bins: int) -> list[tuple[int, int]]:
    """Episodes with their edges; those that touch are one."""
    out: list[tuple[int, int]] = []
    for start, end in edges.tolist():
        low, high = max(start - reach, 0), min(end + reach, bins - 1)
        if out and low <= out[-1][1]:
            out[-1] = (out[-1][0], high)
        else:
            out.append((low, high))
    return out


def point(grids: Sequence[Grid], window: int = WINDOW) -> Sums:
    """Exact Sums over all tracks: every distinct score is a threshold."""
    if not grids:
        raise EvaluationError("nothing to grade: no track")
    return sums(grids, thresholds(grids), window)


def only_kind(grid: Grid, kind: int) -> Grid:
    """One kind against normal time: the bins of the other kinds are taken out."""
    keep = (grid.kind == kind) | (grid.kind == NORMAL)
    return Grid(grid.session, grid.first, grid.score[keep], grid.kind[keep])


def pr_auc_of_kind(grids: Sequence[Grid], kind: int) -> float | None:
    """Average precision of one kind against normal time; None when the kind does not occur."""
    if not any((g.kind == kind).any() for g in grids):
        return None
    return point([only_kind(g, kind) for g in grids], 0).pr_auc()
