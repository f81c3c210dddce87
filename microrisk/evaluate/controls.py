"""Scores that know nothing, sent through the whole harness: a harness that rewards one of them is broken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from microrisk.evaluate import bootstrap
from microrisk.evaluate.baselines import AllPositive, Constant, Random
from microrisk.evaluate.detectors import Detector
from microrisk.evaluate.grid import grid
from microrisk.evaluate.harness import evaluate
from microrisk.evaluate.metrics import point
from microrisk.evaluate.result import Result
from microrisk.evaluate.split import Span, Split, Track

TURNS = 40
"""Random time shifts of the labels."""


@dataclass(frozen=True)
class Control:
    """One control.

    Attributes
    ----------
    name : what was sent through
    pr_auc, base_rate : measured, and what knowing nothing is worth
    noise : how far the two may be apart
    recall, chance : at the largest budget; recall may not exceed chance by more than `recall_noise`
    passed : both hold, or the detector broke its budget in the open (all positive)
    """

    name: str
    pr_auc: float
    base_rate: float
    noise: float
    recall: float
    chance: float
    recall_noise: float
    kept: bool

    @property
    def passed(self) -> bool:
        """No reward for knowing nothing."""
        area = abs(self.pr_auc - self.base_rate) <= self.noise
        return area and (not self.kept or self.recall <= self.chance + self.recall_noise)


def run_controls(
    split: Split, detector: Detector | None = None, budgets: Sequence[float] = (2.0, 10.0), *, seed: int = 0
) -> list[Control]:
    """Random, constant and all-positive scores, and `detector` with the labels turned in time."""
    result = evaluate(split, [Random(seed), Constant(), AllPositive()], budgets, seed=seed)
    out = [_control(result, name) for name in ("random", "constant", "all positive")]
    return out if detector is None else [*out, shifted(split, detector, budgets, seed=seed)]


def _control(result: Result, name: str) -> Control:
    row = result.row(name)
    at = row.at[-1]
    noise = 0.1 * row.base_rate + (row.pr_auc.high - row.pr_auc.low) / 2
    n = sum(result.kinds.values())
    return Control(
        name, row.pr_auc.value, row.base_rate, noise, at.recall.value, at.chance, _three_sigma(at.chance, n), at.kept
    )


def _three_sigma(p: float, n: int) -> float:
    """Of a share p among n episodes; the rule of succession keeps it above zero."""
    q = (p * n + 1) / (n + 2)
    return 3 * float(np.sqrt(q * (1 - q) / n))


def turned(track: Track, by_ns: int) -> Track:
    """The same rows with every episode moved on by `by_ns`, around the end of the session."""
    start, end = track.span
    span = end - start

    def move(s: int, e: int) -> tuple[int, int]:
        # an episode is never cut: one that would cross the end begins anew at the start
        length = e - s
        at = start + (s - start + by_ns) % span
        return (at, at + length) if at + length <= end else (start, start + length)

    moved = [Span(e.kind, *move(e.start_ns, e.end_ns)) for e in track.episodes]
    return replace(track, episodes=moved)


def shifted(split: Split, detector: Detector, budgets: Sequence[float] = (10.0,), *, seed: int = 0) -> Control:
    """`detector` against labels that were moved by a random time in every session, TURNS times."""
    rng = np.random.default_rng(seed)
    result = evaluate(replace(split, test=_turn(split.test, rng)), [detector], budgets, draws=100, seed=seed)
    row = result.rows[0]
    smoothed = [detector.smoothed(t) for t in split.test]
    kinds = sorted({e.kind for t in split.test for e in t.episodes})
    areas, rates = [], []
    for _ in range(TURNS):
        tracks = _turn(split.test, rng)
        exact = point([grid(t, s, kinds) for t, s in zip(tracks, smoothed, strict=True)], 0)
        areas.append(exact.pr_auc())
        rates.append(exact.base_rate)
    at, n = row.at[-1], sum(result.kinds.values())
    low, high = bootstrap.interval(areas)
    noise = (high - low) / 2 + 0.1 * float(np.mean(rates))
    return Control(
        f"{detector.name}, labels shifted", float(np.mean(areas)), float(np.mean(rates)), noise,
        at.recall.value, at.chance, _three_sigma(at.chance, n), True,
    )  # fmt: skip


def _turn(tracks: Sequence[Track], rng: np.random.Generator) -> list[Track]:
    """Every session by its own time, at least a tenth of it."""
    return [turned(t, int(rng.uniform(0.1, 0.9) * (t.span[1] - t.span[0]))) for t in tracks]
