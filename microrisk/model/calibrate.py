"""From clean recordings to level tables (head -> -log2 of its tail probability) and alarm thresholds.

A level is a statement about clean rows: level L in bits means that a clean row's head is that large with probability
2**-L. Inside the data the table follows the empirical tail; beyond, an exponential tail fitted to the largest rows.
Thresholds are not read off levels: smoothed levels of neighbouring rows move together, so alarms are counted, on the
clean sessions themselves, as clusters on the wall clock, each head against a false-alarm budget of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from microrisk import fixed
from microrisk.errors import EvaluationError
from microrisk.spec.formats import EWMA_GUARD, EWMA_SHIFT, HEAD, LEVEL, LEVEL_TABLE_FRAC, TABLE_POINTS
from microrisk.spec.records import N_HEADS
from microrisk.spec.units import NS_PER_S
from microrisk.spec.weightfile import HEADS
from microrisk.weights import LevelTable

BUDGETS: Mapping[str, float] = {"exposure": 6.0, "maxz": 2.0, "vae": 1.0, "maha": 1.0}
"""False alarms an hour that each head may raise on clean data."""
MERGE_NS = 5 * NS_PER_S
"""Alarms closer than this are one."""
HYSTERESIS = 128
"""LEVEL codes (half a bit) by which `off` lies below `on`."""
NEVER = (1 << 31) - 1
"""Threshold of a head that says nothing; no level reaches it."""

_BIT = 1 << LEVEL.frac
_VALUE_BIT = _BIT << LEVEL_TABLE_FRAC
_TAIL_ROWS = 50
"""Rows beyond the last empirical point; the exponential tail is fitted to them."""
_LOWEST_ON = _BIT
_COARSE = 64


@dataclass(frozen=True)
class Session:
    """Clean rows of one instrument in time order.

    Attributes
    ----------
    now : int64[n], ns, not decreasing
    heads : int32[n, N_HEADS]
    """

    now: NDArray[np.int64]
    heads: NDArray[np.int32]

    @property
    def hours(self) -> float:
        """Wall-clock length."""
        return float(self.now[-1] - self.now[0]) / (3600 * NS_PER_S) if len(self.now) else 0.0


@dataclass(frozen=True)
class Calibration:
    """Result of `calibrate`: the table for the model folder, and for its card what was measured (plain numbers)."""

    level: LevelTable
    report: dict[str, Any]


def calibrate(sessions: Sequence[Session], budgets: Mapping[str, float] = BUDGETS) -> Calibration:
    """Level table and thresholds of one instrument (or the generic ones) under one feature mask.

    Parameters
    ----------
    sessions : clean sessions, none of which the model was trained on
    budgets : false alarms an hour for each head

    Raises
    ------
    EvaluationError : no rows, time running backwards, or a head without a budget
    """
    _check(sessions, budgets)
    tables = [_table(np.concatenate([s.heads[:, h] for s in sessions])) for h in range(N_HEADS)]
    breaks, value, slope = (np.array([t[i] for t in tables], np.int32) for i in range(3))
    hours = sum(s.hours for s in sessions)
    on = np.full(N_HEADS, NEVER, np.int32)
    report: dict[str, Any] = {"hours": round(hours, 4), "rows": sum(len(s.now) for s in sessions), "heads": {}}
    for h, name in enumerate(HEADS):
        smooth = [smooth_levels(fixed.level(s.heads[:, h], breaks[h], value[h], slope[h])) for s in sessions]
        silent = np.ptp(np.concatenate([s.heads[:, h] for s in sessions])) == 0
        entry = {"silent": True} if silent else _threshold(sessions, smooth, budgets[name] * hours)
        on[h] = entry.get("on", NEVER)
        report["heads"][name] = {**entry, "budget_per_hour": budgets[name]}
    off = np.where(on == NEVER, NEVER, np.maximum(on - HYSTERESIS, 0)).astype(np.int32)
    return Calibration(LevelTable(breaks, value, slope, on, off, calibrated=True), report)


def clusters(now: NDArray[np.int64], alarmed: NDArray[np.bool_], merge_ns: int = MERGE_NS) -> int:
    """Number of alarms when rows in alarm that are no more than `merge_ns` apart count as one."""
    times = now[alarmed]
    return int(len(times) > 0) + int((np.diff(times) > merge_ns).sum())


def smooth_levels(codes: fixed.Ints) -> NDArray[np.int64]:
    """What the alarm compares with its thresholds: LEVEL codes int64[n] through fixed.ewma_step, from state 0."""
    return np.asarray(_smooth(codes))


def in_alarm(smooth: NDArray[np.int64], on: int, off: int) -> NDArray[np.bool_]:
    """fixed.hysteresis_step along a session: bool[n]."""
    return np.asarray(_in_alarm(smooth, on, off))


# ---- tables ----


def _table(head: NDArray[np.int32]) -> tuple[fixed.Ints, fixed.Ints, fixed.Ints]:
    """breaks[P], value[P], slope[P+1] of one head's clean values: empirical points, then the exponential tail."""
    points, bits = _empirical(np.sort(head.astype(np.int64)))
    per_bit = _tail_scale(head.astype(np.int64), int(points[-1]))
    missing = np.arange(1, TABLE_POINTS - len(points) + 1)
    room = (HEAD.high - int(points[-1])) // TABLE_POINTS
    if room:
        extra = int(np.clip(per_bit, 1, room)) * missing
        points, bits = np.append(points, points[-1] + extra), np.append(bits, bits[-1] + extra / per_bit)
    else:  # at the very end of int32: the points that ties left over go below instead
        points, bits = np.append(points[0] - missing[::-1], points), np.append(np.zeros(len(missing)), bits)
    value = np.minimum(np.round(bits * _VALUE_BIT), (1 << 31) - 1).astype(np.int64)
    last = max(round(_VALUE_BIT / per_bit), 1)
    # rounded down, so that no piece overshoots the next point: levels never fall as heads rise
    inner = np.diff(value) // np.diff(points)
    return points, value, np.concatenate([[0], inner, [min(last, (1 << 31) - 1)]])


def _empirical(sorted_head: fixed.Ints) -> tuple[fixed.Ints, NDArray[np.float64]]:
    """At most P distinct values, evenly spread in bits, and -log2 P(head >= value) there.

    The last one still has _TAIL_ROWS rows at or above it (fewer where ties leave no such value).
    """
    n = len(sorted_head)
    deepest = np.log2(max(n / _TAIL_ROWS, 1.0))
    wanted = 2.0 ** -np.linspace(0.0, deepest, TABLE_POINTS)
    places = np.minimum(np.ceil(n * (1.0 - wanted)).astype(np.int64), n - 1)
    points = np.unique(sorted_head[places])
    at_or_above = n - np.searchsorted(sorted_head, points, side="left")
    return points, -np.log2(at_or_above / n)


def _tail_scale(head: fixed.Ints, start: int) -> float:
    """Head units per bit of an exponential tail from `start`: mean excess * ln 2 (its maximum-likelihood fit)."""
    excess = head[head >= start] - start
    return max(float(excess.mean()) * float(np.log(2.0)), 0.5)


# ---- thresholds ----


def _threshold(sessions: Sequence[Session], smooth: list[NDArray[np.int64]], allowed: float) -> dict[str, Any]:
    """The lowest threshold above which no threshold raises more than `allowed` alarms, and what it raised."""

    def count(on: int) -> int:
        parts = zip(sessions, smooth, strict=True)
        return sum(clusters(s.now, in_alarm(x, on, max(on - HYSTERESIS, 0))) for s, x in parts)

    highest = max(int(x.max()) for x in smooth)
    if allowed < 1.0:
        # not one alarm is allowed in so little time: go above everything seen, by the bits that the time is short
        short = float(np.log2(1.0 / max(allowed, 1e-6)))
        return {"on": min(highest + 1 + round(short * _BIT), LEVEL.high), "alarms": 0, "extrapolated_bits": short}
    # from above: far below the budget's threshold alarms merge into few long ones, and a bisection would stop there
    on = highest + 1
    for step in (_COARSE, 1):
        while on - step >= _LOWEST_ON and count(on - step) <= allowed:
            on -= step
    return {"on": on, "alarms": count(on), "bits": on / _BIT}


@njit(cache=True)
def _smooth(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    out = np.empty(len(codes), np.int64)
    state = 0
    for i in range(len(codes)):
        state += ((codes[i] << EWMA_GUARD) - state) >> EWMA_SHIFT
        out[i] = state >> EWMA_GUARD
    return out


@njit(cache=True)
def _in_alarm(smooth: NDArray[np.int64], on: int, off: int) -> NDArray[np.bool_]:
    out = np.empty(len(smooth), np.bool_)
    now = False
    for i in range(len(smooth)):
        now = smooth[i] >= (off if now else on)
        out[i] = now
    return out


def _check(sessions: Sequence[Session], budgets: Mapping[str, float]) -> None:
    missing = [h for h in HEADS if h not in budgets]
    if missing:
        raise EvaluationError(f"no false-alarm budget for head {', '.join(missing)}")
    if not any(len(s.now) for s in sessions):
        raise EvaluationError("calibration needs clean sessions with rows; there are none")
    for i, s in enumerate(sessions):
        if s.heads.shape != (len(s.now), N_HEADS):
            raise EvaluationError(f"calibration session {i}: heads {s.heads.shape} for {len(s.now)} times")
        back = np.flatnonzero(np.diff(s.now) < 0)
        if len(back):
            raise EvaluationError(f"calibration session {i}: time runs backwards at row {back[0] + 1}")
