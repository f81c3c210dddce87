"""THE integer arithmetic: every rounding, saturation and table of scoring is a line here and nowhere else.

Plain NumPy on int64; the fast forms (Numba, C++, CUDA, hardware) are tested equal to these functions, extremes
included.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microrisk.spec.formats import CODE, EWMA_GUARD, EWMA_SHIFT, LEVEL, LEVEL_TABLE_FRAC, LG, TABLE_FRAC, Format

Ints = NDArray[np.int64]


def saturate(x: ArrayLike, fmt: Format) -> Ints:
    """The nearest integer that `fmt` holds."""
    return np.clip(np.asarray(x, np.int64), fmt.low, fmt.high)


def round_shift(x: ArrayLike, shift: ArrayLike) -> Ints:
    """Quotient x / 2**shift, halves up; no rounding term at shift 0. `shift` broadcasts, 0..62."""
    s = np.asarray(shift, np.int64)
    half = np.where(s > 0, np.int64(1) << np.maximum(s - 1, 0), 0)
    return (np.asarray(x, np.int64) + half) >> s


def requantise(acc: ArrayLike, shift: ArrayLike, fmt: Format = CODE) -> Ints:
    """Accumulator to `fmt`: round half up by a power of two, then saturate."""
    return saturate(round_shift(acc, shift), fmt)


def accumulate(x: ArrayLike, weight: ArrayLike, bias: ArrayLike) -> Ints:
    """x[n, in] @ weight[out, in].T + bias[out], exact."""
    return np.asarray(x, np.int64) @ np.asarray(weight, np.int64).T + np.asarray(bias, np.int64)


def dense(x: ArrayLike, weight: ArrayLike, bias: ArrayLike, shift: ArrayLike, *, relu: bool = False) -> Ints:
    """One layer: accumulate, requantise to CODE, then (hidden layers) cut below zero. Shapes as in spec.weightfile."""
    y = requantise(accumulate(x, weight, bias), shift)
    return np.maximum(y, 0) if relu else y


def sum_squares(x: ArrayLike, exponent: ArrayLike = 0) -> Ints:
    """Sum over the last axis of x**2 << exponent."""
    v = np.asarray(x, np.int64)
    return np.asarray(((v * v) << np.asarray(exponent, np.int64)).sum(axis=-1))


def lg(x: ArrayLike) -> Ints:
    """log2(1+x) of 0 <= x < 2**63 in 1/16: position of the leading one of 1+x, then the next 4 bits (LG)."""
    v = np.asarray(x, np.int64).astype(np.uint64) + np.uint64(1)
    top = np.floor(np.log2(v.astype(np.float64))).astype(np.int64)
    # the float logarithm may be one off next to a power of two
    top = np.where((v >> top.clip(0, 63).astype(np.uint64)) == 0, top - 1, top)
    top = np.where((v >> (top + 1).clip(0, 63).astype(np.uint64) > 0) & (top < 63), top + 1, top)
    left = (v << (63 - top).astype(np.uint64)) >> np.uint64(59)
    return saturate((top << LG.frac) + (left & np.uint64(15)).astype(np.int64), LG)


def slg(x: ArrayLike) -> Ints:
    """sign(x) * lg(|x|)."""
    v = np.asarray(x, np.int64)
    return np.sign(v) * lg(np.abs(v))


def interpolate(x: ArrayLike, breaks: ArrayLike, value: ArrayLike, slope: ArrayLike) -> Ints:
    """Piecewise linear table with P points, before the final rounding.

    breaks, value: int32[P], breaks strictly increasing; slope: int32[P+1].
    Below breaks[0]: value[0] + slope[0]*(x - breaks[0]). From breaks[k] on: value[k] + slope[k+1]*(x - breaks[k]).
    slope[P] continues the last piece without end.
    """
    v, b = np.asarray(x, np.int64), np.asarray(breaks, np.int64)
    k = np.searchsorted(b, v, side="right")  # 0..P
    base = np.maximum(k - 1, 0)
    return np.asarray(value, np.int64)[base] + np.asarray(slope, np.int64)[k] * (v - b[base])


def normalise(x: ArrayLike, breaks: ArrayLike, value: ArrayLike, slope: ArrayLike) -> Ints:
    """Feature (FEATURE) to code (CODE): interpolate, round half up, saturate."""
    return requantise(interpolate(x, breaks, value, slope), TABLE_FRAC, CODE)


def level(head: ArrayLike, breaks: ArrayLike, value: ArrayLike, slope: ArrayLike) -> Ints:
    """Head (HEAD) to level code (LEVEL, never negative): interpolate, round half up, saturate."""
    return np.maximum(requantise(interpolate(head, breaks, value, slope), LEVEL_TABLE_FRAC, LEVEL), 0)


def ewma_step(state: ArrayLike, level_code: ArrayLike) -> Ints:
    """One step of the smoothing of levels; `state` has EWMA_GUARD more fraction bits than LEVEL."""
    s = np.asarray(state, np.int64)
    return s + (((np.asarray(level_code, np.int64) << EWMA_GUARD) - s) >> EWMA_SHIFT)


def hysteresis_step(on: ArrayLike, smoothed: ArrayLike, enter: ArrayLike, leave: ArrayLike) -> NDArray[np.bool_]:
    """In alarm after this step: entered at `enter` and above, left below `leave`."""
    was, s = np.asarray(on, bool), np.asarray(smoothed, np.int64)
    return np.asarray(np.where(was, s >= np.asarray(leave), s >= np.asarray(enter)))
