"""Normaliser tables: raw features to Gaussian scores, fitted on data, looked up by the kernel.

A table is piecewise linear through 64 points a feature (meaning: fixed.interpolate). Training data enter as counts of
each of the 4096 raw values, so samples of any size merge by addition. Every value has the mean score of its ties, the
mean of a standard normal over the stretch of probability that it fills. Points lie evenly in *score*, not in
probability: quantiles down to 1e-5 are among them, because the extremes decide what max|z| says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from microrisk import fixed
from microrisk.errors import UsageError, WeightFileError
from microrisk.spec.features import ALL_MASK
from microrisk.spec.formats import CODE, FEATURE, TABLE_FRAC, TABLE_POINTS
from microrisk.spec.records import DEPTH, N_FEATURES, VIEW

N_RAW = FEATURE.high - FEATURE.low + 1
"""Raw values a feature can have: 4096."""
Z_END = 4.2649
"""Outermost score of the grid of points: quantile 1e-5 and its mirror."""
TAIL = 1.0
"""The end slopes are fitted to the points within this many scores of the outermost one."""
MIN_END_SLOPE = 16
"""Least slope beyond the ends, 1/256 code a raw step: from one end of FEATURE to the other is still eight scores."""
MAX_END_SLOPE = 4096
"""Largest: one score a raw step."""
LONE_SLOPE = 512
"""Slope beside a feature that had a single value in training: 8 scores for 4 doublings."""

_SCORE = (1 << CODE.frac) << TABLE_FRAC
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Table:
    """Normaliser of 32 features, as stored in model files (spec.weightfile).

    Attributes
    ----------
    breaks : int32[32, 64], raw values, strictly increasing along a row; may lie outside FEATURE (padding)
    value : int32[32, 64], codes with TABLE_FRAC fraction bits
    slope : int32[32, 65], the same per raw step; [0] below the first break, [64] above the last

    Raises WeightFileError for another dtype, shape, or order of breaks.
    """

    breaks: NDArray[np.int32]
    value: NDArray[np.int32]
    slope: NDArray[np.int32]

    def __post_init__(self) -> None:
        for name, width in (("breaks", TABLE_POINTS), ("value", TABLE_POINTS), ("slope", TABLE_POINTS + 1)):
            array = getattr(self, name)
            if array.dtype != np.int32 or array.shape != (N_FEATURES, width):
                raise WeightFileError(
                    f"table {name} must be int32[{N_FEATURES}, {width}], is {array.dtype}{list(array.shape)}"
                )
        flat = np.flatnonzero((np.diff(self.breaks.astype(np.int64)) <= 0).any(axis=1))
        if flat.size:
            raise WeightFileError(f"breaks of feature {flat[0]} are not strictly increasing")


def count_values(raw: NDArray[np.integer]) -> NDArray[np.int64]:
    """How often each feature had each raw value: int64[32, 4096], place raw + 2048.

    raw : integers [n, 32] within FEATURE. Raises UsageError for another shape or a value outside.
    """
    if raw.ndim != 2 or raw.shape[1] != N_FEATURES:
        raise UsageError(f"raw features must be [n, {N_FEATURES}], not {list(raw.shape)}")
    places = raw.astype(np.int64) - FEATURE.low
    if places.size and not (places.min() >= 0 and places.max() < N_RAW):
        raise UsageError(f"a raw feature lies outside {FEATURE.low}..{FEATURE.high}")
    return np.stack([np.bincount(places[:, i], minlength=N_RAW) for i in range(N_FEATURES)])


def fit_table(
    raw: NDArray[np.integer] | Sequence[NDArray[np.integer]], weights: Sequence[float] | None = None
) -> Table:
    """Table from raw features.

    Parameters
    ----------
    raw : [n, 32] within FEATURE, or several such arrays (sessions, instruments), merged
    weights : one per array: its share of the merged sample, whatever its length; None = every row counts alike

    Raises UsageError without a row, or for weights that are not positive, one for each array.
    """
    counts = [count_values(r) for r in ([raw] if isinstance(raw, np.ndarray) else raw)]
    if weights is None:
        return fit_counts(np.sum(counts, axis=0) if counts else np.zeros((N_FEATURES, N_RAW)))
    if len(weights) != len(counts) or not all(w > 0 for w in weights):
        raise UsageError(f"{len(counts)} arrays need {len(counts)} positive weights, got {list(weights)}")
    return fit_counts(np.sum([w * c / max(c[0].sum(), 1) for w, c in zip(weights, counts, strict=True)], axis=0))


def fit_counts(counts: NDArray[np.integer] | NDArray[np.floating]) -> Table:
    """Table from (weighted) counts of raw values, [32, 4096]; raises UsageError when a feature has no count."""
    if counts.shape != (N_FEATURES, N_RAW) or not (counts.sum(axis=1) > 0).all():
        raise UsageError(f"counts must be [{N_FEATURES}, {N_RAW}] with at least one row of data")
    rows = [_fit_feature(row.astype(np.float64)) for row in counts]
    breaks, value, slope = (np.array(part, np.int64).astype(np.int32) for part in zip(*rows, strict=True))
    return Table(breaks, value, slope)


def mean_scores(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of a standard normal over each stretch of probability; `share` > 0 in order of the values, sum 1."""
    edges = np.concatenate([[0.0], np.cumsum(share)])
    inner = np.clip(edges[1:-1], 1e-15, 1 - 1e-15)
    density = np.array([0.0, *(_NORMAL.pdf(_NORMAL.inv_cdf(float(p))) for p in inner), 0.0])
    return -np.diff(density) / share


def _choose(score: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices of at most 64 values: those nearest an even grid of scores, then halving the widest gaps."""
    if len(score) <= TABLE_POINTS:
        return np.arange(len(score))
    grid = np.linspace(-Z_END, Z_END, TABLE_POINTS - 2)
    nearest = np.abs(score[None, :] - grid[:, None]).argmin(axis=1)
    chosen = set(nearest.tolist()) | {0, len(score) - 1}
    while len(chosen) < TABLE_POINTS:
        points = np.array(sorted(chosen))
        width = np.where(np.diff(points) > 1, np.diff(score[points]), -1.0)
        k = int(width.argmax())
        chosen.add(int(points[k] + points[k + 1]) // 2)
    return np.array(sorted(chosen))


def _end_slope(x: NDArray[np.int64], z: NDArray[np.float64]) -> int:
    """Slope that continues the outer points (the last of x, z is outermost).

    Least squares over the tail, but at most the chord from the median: a heavy tail goes on flat, while one that ended
    steeply (a bounded feature, a short sample) does not turn the first step beyond it into an alarm.
    """
    if len(x) < 2:
        return LONE_SLOPE
    tail = np.abs(z - z[-1]) <= TAIL
    tail[-2:] = True
    dx, dz = x[tail] - x[tail].mean(), z[tail] - z[tail].mean()
    slope = float((dx * dz).sum() / (dx * dx).sum())
    middle = min(int(np.searchsorted(z, 0.0)), len(x) - 2)
    chord = float(z[-1] - z[middle]) / float(x[-1] - x[middle])
    return int(np.clip(round(min(slope, chord) * _SCORE), MIN_END_SLOPE, MAX_END_SLOPE))


def _fit_feature(count: NDArray[np.float64]) -> tuple[list[int], list[int], list[int]]:
    """Breaks, values and slopes of one feature; unused points are put above the last one, on its line."""
    held = np.flatnonzero(count)
    score = mean_scores(count[held] / count.sum())
    pick = _choose(score)
    x, z = held[pick] + FEATURE.low, score[pick]
    value = [round(s * _SCORE) for s in z.tolist()]
    # floor: a piece never overshoots the next point, so codes never fall as the feature rises
    inner = [(v1 - v0) // int(d) for v0, v1, d in zip(value, value[1:], np.diff(x), strict=False)]
    below, above = _end_slope(-x[::-1], -z[::-1]), _end_slope(x, z)
    spare = range(1, TABLE_POINTS - len(x) + 1)
    breaks = [*x.tolist(), *(int(x[-1]) + i for i in spare)]
    return breaks, [*value, *(value[-1] + i * above for i in spare)], [below, *inner, above, *(above for _ in spare)]


def expand(table: Table, mask: int = ALL_MASK) -> NDArray[np.int8]:
    """Lookup table int8[32, 4096] of the kernel: codes by raw + 2048 (fixed.normalise); 0 outside `mask`."""
    raw = np.arange(FEATURE.low, FEATURE.high + 1)
    out = np.zeros((N_FEATURES, N_RAW), np.int8)
    for i in range(N_FEATURES):
        if mask >> i & 1:
            out[i] = fixed.normalise(raw, table.breaks[i], table.value[i], table.slope[i])
    return out


def fit_instrument(views: NDArray[np.void]) -> tuple[int, int]:
    """feature_tick and feature_lot of one instrument, in feed units, by the rule of the warm-up over all its views.

    tick = smallest positive price step between adjacent levels, across the spread, or of a best price from one event to
    the next (1 if there is none); lot = the power of ten nearest the lower median of the best sizes.
    Only events with both sides count. Raises UsageError when there is none.
    """
    both = views[(views["tick"] == 0) & (views["n_bid"] > 0) & (views["n_ask"] > 0)]
    if views.dtype != VIEW or not len(both):
        raise UsageError(f"{len(views)} views hold no event with both sides: no tick or lot can be taken")
    steps = [both["ask_px"][:, 0] - both["bid_px"][:, 0]]
    for side in ("bid", "ask"):
        px, level = both[f"{side}_px"], np.arange(1, DEPTH)
        steps.append(np.diff(px[:, 0]))
        steps.append(np.diff(px, axis=1)[level[None, :] < both[f"n_{side}"][:, None]])
    step = np.abs(np.concatenate(steps))
    step = step[step > 0]
    sizes = np.sort(np.concatenate([both["bid_qty"][:, 0], both["ask_qty"][:, 0]]))
    return int(step.min()) if step.size else 1, nearest_power_of_ten(int(sizes[(len(sizes) - 1) // 2]))


def nearest_power_of_ten(size: int) -> int:
    """The power of ten with the smallest ratio to `size` (1 for 0 and below), at most 10^18."""
    lot = 1
    while lot < 10**18 and size > 0 and size * size > 10 * lot * lot:
        lot *= 10
    return lot
