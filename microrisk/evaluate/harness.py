"""evaluate(split, detectors): thresholds from calibration sessions, figures from test sessions, intervals by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microrisk.errors import EvaluationError
from microrisk.evaluate import bootstrap
from microrisk.evaluate.alarms import HOUR_BINS, MERGE_NS, clusters, curve, delays, near_episode, normal_bins
from microrisk.evaluate.detectors import Detector
from microrisk.evaluate.grid import BIN_NS, Floats, Grid, grid
from microrisk.evaluate.metrics import WINDOW, add_up, point, pr_auc_of_kind, sums, thresholds
from microrisk.evaluate.result import AtBudget, Figure, Outcome, Result, Row
from microrisk.evaluate.split import EpisodeLike, Split, Track

SHIFTS = 20
"""Random turns of each session's alarms that measure what chance alone would find."""
COMPRESSED = 400
"""Thresholds of the curves inside the bootstrap; the point figures use every distinct score."""


@dataclass(frozen=True)
class _Common:
    """The same for every detector: kinds of episodes, blocks (test sessions) and their draws, seed."""

    kinds: Sequence[str]
    blocks: Sequence[str]
    drawn: NDArray[np.int64]
    seed: int


@dataclass(frozen=True)
class _Graded:
    """One detector on the test sessions, one entry a track; `parts` as Detector.drivers."""

    tracks: Sequence[Track]
    smoothed: Sequence[Floats]
    grids: Sequence[Grid]
    parts: Sequence[NDArray[np.int64] | None]
    part_names: Sequence[str]


def evaluate(
    split: Split,
    detectors: Sequence[Detector],
    budgets: Sequence[float] = (2.0, 10.0),
    *,
    draws: int = bootstrap.DRAWS,
    seed: int = 0,
) -> Result:
    """Grade every detector on the same grid.

    split : checked first; EvaluationError when it leaks or has nothing to grade.
    budgets : false alarms an hour for which thresholds are fixed on the calibration sessions.
    draws, seed : of the block bootstrap and of the chance shifts.
    """
    split.check()
    names = [d.name for d in detectors]
    if len(set(names)) != len(names):
        raise EvaluationError(f"two detectors of one name in {names}")
    kinds = sorted({e.kind for t in split.test for e in t.episodes})
    blocks = sorted({t.session for t in split.test})
    common = _Common(kinds, blocks, bootstrap.weights(len(blocks), draws, seed), seed)
    rows = [_grade(split, d, budgets, common) for d in detectors]
    return Result(
        rows=rows,
        kinds={k: sum(e.kind == k for t in split.test for e in t.episodes) for k in kinds},
        sessions={"train": _sessions(split.train), "calibration": _sessions(split.calibration), "test": len(blocks)},
        hours={"calibration": _hours(split.calibration), "test": _hours(split.test)},
        settings={
            "bin_ms": BIN_NS // 1_000_000,
            "vus_window_bins": WINDOW,
            "budgets_per_hour": list(budgets),
            "draws": draws,
            "seed": seed,
            "chance_shifts": SHIFTS,
        },
    )


def _sessions(tracks: Sequence[Track]) -> int:
    return len({t.session for t in tracks})


def _hours(tracks: Sequence[Track]) -> float:
    return sum((t.span[1] // BIN_NS - t.span[0] // BIN_NS + 1) / HOUR_BINS for t in tracks)


def _grade(split: Split, detector: Detector, budgets: Sequence[float], common: _Common) -> Row:
    """One row of the table."""
    detector.fit(split.train)
    detector.calibrate(split.calibration)
    calibrated = curve([grid(t, detector.smoothed(t), ()) for t in split.calibration])
    smoothed = [detector.smoothed(t) for t in split.test]
    grids = [grid(t, s, common.kinds) for t, s in zip(split.test, smoothed, strict=True)]
    parts = [detector.drivers(t) for t in split.test]
    exact = point(grids)
    ap, vus = _area_intervals(grids, common)
    graded = _Graded(split.test, smoothed, grids, parts, detector.parts)
    return Row(
        name=detector.name,
        base_rate=exact.base_rate,
        pr_auc=Figure(exact.pr_auc(), *ap),
        vus_pr=Figure(exact.vus_pr(), *vus),
        pr_auc_by_kind={k: pr_auc_of_kind(grids, i) for i, k in enumerate(common.kinds)},
        at=[_at_budget(graded, b, calibrated.threshold(b), common) for b in budgets],
    )


def _area_intervals(grids: Sequence[Grid], common: _Common) -> tuple[tuple[float, float], tuple[float, float]]:
    """Intervals of PR-AUC and VUS-PR."""
    at = thresholds(grids, COMPRESSED)
    per_block: dict[str, list[Grid]] = {b: [] for b in common.blocks}
    for g in grids:
        per_block[g.session].append(g)
    parts = [sums(per_block[b], at) for b in common.blocks]
    resampled = [add_up(parts, w.tolist()) for w in common.drawn]
    return bootstrap.interval([s.pr_auc() for s in resampled]), bootstrap.interval([s.vus_pr() for s in resampled])


def _at_budget(graded: _Graded, budget: float, level: float, common: _Common) -> AtBudget:
    """Everything at one threshold."""
    late = [delays(t, s, level) for t, s in zip(graded.tracks, graded.smoothed, strict=True)]
    outcomes = _outcomes(graded, late)
    every = np.concatenate(late)
    found = every[np.isfinite(every)]
    return AtBudget(
        budget=budget,
        threshold=level,
        false_per_hour=_false_per_hour(graded, level, common),
        recall=_recall(outcomes, common),
        recall_by_kind={k: _recall([o for o in outcomes if o.kind == k], common) for k in common.kinds},
        chance=_chance(graded.tracks, graded.grids, level, common.seed),
        delay_median_s=_quantile(every, 0.5),
        delay_p90_s=_quantile(every, 0.9),
        found_delay_median_s=_quantile(found, 0.5),
        found_delay_p90_s=_quantile(found, 0.9),
        outcomes=outcomes,
    )


def _false_per_hour(graded: _Graded, level: float, common: _Common) -> Figure:
    """False alarms of the test sessions by the hours in which an alarm would have been false."""
    count, hours = np.zeros(len(common.blocks)), np.zeros(len(common.blocks))
    for t, g in zip(graded.tracks, graded.grids, strict=True):
        alarms = clusters(g.score > level)
        block = common.blocks.index(t.session)
        count[block] += int((~near_episode(alarms, g.first, t.episodes)).sum())
        hours[block] += normal_bins(g.first, len(g.score), t.episodes) / HOUR_BINS
    return _ratio(count, hours, common.drawn)


def _recall(outcomes: Sequence[Outcome], common: _Common) -> Figure:
    """Share of the episodes that were found."""
    found, total = np.zeros(len(common.blocks)), np.zeros(len(common.blocks))
    for o in outcomes:
        block = common.blocks.index(o.session)
        total[block] += 1
        found[block] += o.delay_s is not None
    return _ratio(found, total, common.drawn)


def _ratio(top: Floats, bottom: Floats, drawn: NDArray[np.int64]) -> Figure:
    """Sum over blocks of `top` by that of `bottom`, with its interval."""
    total = float(bottom.sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        resampled = (drawn @ top) / (drawn @ bottom)
    value = float(top.sum()) / total if total else float("nan")
    return Figure(value, *bootstrap.interval(np.where(np.isfinite(resampled), resampled, np.nan)))


def _quantile(values: Floats, q: float) -> float | None:
    """Order statistic (not an average, so a missed episode stays infinite = None)."""
    if not len(values):
        return None
    v = float(np.quantile(values, q, method="higher"))
    return v if np.isfinite(v) else None


def _outcomes(graded: _Graded, late: Sequence[Floats]) -> list[Outcome]:
    """What became of every episode, in the order of the tracks."""
    out = []
    for track, delay, part in zip(graded.tracks, late, graded.parts, strict=True):
        for e, d in zip(track.episodes, delay.tolist(), strict=True):
            by = None
            if part is not None and np.isfinite(d):
                row = int(np.searchsorted(track.now, e.start_ns + round(d * 1e9), "left"))
                by = graded.part_names[int(part[min(row, len(part) - 1)])]
            out.append(_outcome(track, e, d, by))
    return out


def _outcome(track: Track, e: EpisodeLike, delay: float, by: str | None) -> Outcome:
    return Outcome(track.session, track.instrument, e.kind, e.start_ns, delay if np.isfinite(delay) else None, by)


def _chance(tracks: Sequence[Track], grids: Sequence[Grid], level: float, seed: int) -> float:
    """Recall that remains when every session's alarms are turned by a random time: what luck and alarm length give."""
    rng = np.random.default_rng(seed)
    found = total = 0
    for track, g in zip(tracks, grids, strict=True):
        firing = g.score > level
        for _ in range(SHIFTS):
            moved = np.roll(firing, int(rng.integers(len(firing))))
            for e in track.episodes:
                a, b = e.start_ns // BIN_NS - g.first, (e.end_ns + MERGE_NS) // BIN_NS - g.first
                found += bool(moved[max(a, 0) : b + 1].any())
                total += 1
    return found / total
