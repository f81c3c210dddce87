"""Tracks whose scores have a quality that can be computed by hand."""

from __future__ import annotations

import numpy as np

from microrisk.evaluate.split import Span, Split, Track

SECOND = 1_000_000_000
STEP = SECOND // 4
HALF_HOUR = 1800 * SECOND
KINDS = ("layering", "stuffing", "withdrawal")


def clock(start: int = 0, length: int = HALF_HOUR) -> np.ndarray:
    """A row per 250 ms."""
    return np.arange(start, start + length, STEP, dtype=np.int64)


def plateau(score: np.ndarray, now: np.ndarray, start: int, seconds: float, height: float) -> None:
    """Raise the score for so long that the smoothing reaches it to within 0.1 %."""
    score[(now >= start) & (now < start + int(seconds * SECOND))] = height


def session(
    name: str,
    *,
    bumps: list[float] | None = None,
    heights: list[float] | None = None,
    seed: int | None = None,
    length: int = HALF_HOUR,
) -> Track:
    """Bumps = heights of false excursions, heights = what each episode reaches; 20 s each, one slot a minute."""
    now, bumps, heights = clock(length=length), bumps or [], heights or []
    score, episodes = np.zeros(len(now)), []
    slots = np.linspace(20, length / SECOND - 60, len(bumps) + len(heights)).round().astype(np.int64)
    # alternate so that episodes are not all at one end
    kinds_of_slot = np.argsort(np.random.default_rng(7).random(len(slots)))
    for i, slot in enumerate(slots[kinds_of_slot]):
        at = int(slot) * SECOND
        if i < len(bumps):
            plateau(score, now, at, 20, bumps[i])
        else:
            k = i - len(bumps)
            plateau(score, now, at, 20, heights[k])
            episodes.append(Span(KINDS[k % len(KINDS)], at, at + 20 * SECOND))
    return Track(name, "TEST.SIM", now, columns={"score": score}, episodes=episodes, seed=seed)


def noise_split(sessions: int = 6, episodes: int = 6, rows_per_second: int = 4) -> Split:
    """Codes and a score of pure noise, with episodes that nothing knows of."""
    rng = np.random.default_rng(3)

    def track(name: str, planted: int, seed: int) -> Track:
        now = np.arange(0, HALF_HOUR, SECOND // rows_per_second, dtype=np.int64)
        at = np.sort(rng.choice(np.arange(30, 1700, 40), planted, replace=False)) * SECOND
        spans = [Span(KINDS[i % 3], int(a), int(a) + int(rng.integers(2, 20)) * SECOND) for i, a in enumerate(at)]
        codes = np.clip(rng.normal(0, 16, (len(now), 32)), -128, 127).astype(np.int8)
        return Track(
            name, "TEST.SIM", now, codes=codes, columns={"score": rng.random(len(now))}, episodes=spans, seed=seed
        )

    return Split(
        train=[track("train", 0, 1)],
        calibration=[track(f"calibration {i}", 0, 10 + i) for i in range(3)],
        test=[track(f"test {i}", episodes, 20 + i) for i in range(sessions)],
    )
