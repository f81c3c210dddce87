"""Heads to levels and alarms: everything of scoring that has memory, in integers, with its state in the open.

One step of a row, for each head: look the head up in the level table (fixed.level), smooth it (fixed.ewma_step), and
compare with two thresholds (fixed.hysteresis_step). `step_reference` says it in those words; the Numba form is the same
step for C++ (a C function pointer) and for whole recordings, and a test holds the two equal.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numba import cfunc, njit, types
from numpy.typing import NDArray

from microrisk import fixed
from microrisk.spec.formats import EWMA_GUARD, EWMA_SHIFT, LEVEL, LEVEL_TABLE_FRAC, TABLE_POINTS
from microrisk.spec.records import N_HEADS
from microrisk.weights import LEVEL_PARTS, LevelTable

PARAMS = np.dtype(
    [
        ("breaks", "<i4", (N_HEADS, TABLE_POINTS)),
        ("value", "<i4", (N_HEADS, TABLE_POINTS)),
        ("slope", "<i4", (N_HEADS, TABLE_POINTS + 1)),
        ("on", "<i4", (N_HEADS,)),  # LEVEL code at which a head enters alarm
        ("off", "<i4", (N_HEADS,)),  # and below which it leaves
    ]
)
"""Read-only parameters of an instrument; every field int32, so the kernel sees one flat array."""

STATE = np.dtype(
    [
        ("smooth", "<i4", (N_HEADS,)),  # smoothed level with EWMA_GUARD more fraction bits than LEVEL
        ("alert", "<i4"),  # bit h: head h is in alarm
        ("reserved", "<i4"),
    ]
)
"""Memory of an instrument between rows; all zero at the start."""

NEVER = (1 << 31) - 1
"""A threshold that no level reaches: the head never alarms."""

_VALUE = N_HEADS * TABLE_POINTS
_SLOPE = 2 * _VALUE
_ON = _SLOPE + N_HEADS * (TABLE_POINTS + 1)
_OFF = _ON + N_HEADS
_ALERT = N_HEADS
_ROUND = 1 << (LEVEL_TABLE_FRAC - 1)
_HIGH = LEVEL.high


class Alerts(NamedTuple):
    """What a recording's rows became."""

    level: NDArray[np.int32]
    """int32[n, N_HEADS]: smoothed LEVEL codes."""
    alert: NDArray[np.uint8]
    """uint8[n]: bit h = head h is in alarm."""
    fresh: NDArray[np.uint8]
    """uint8[n]: bit h = head h went into alarm with this row."""


def make_params(table: LevelTable) -> NDArray[Any]:
    """PARAMS[1] of a level table; `.tobytes()` is what Engine.watch takes."""
    params = np.zeros(1, PARAMS)
    for part in LEVEL_PARTS:
        params[part][0] = getattr(table, part)
    return params


def initial_state() -> NDArray[Any]:
    """STATE[1] before the first row."""
    return np.zeros(1, STATE)


def run_alert(heads: NDArray[np.int32], params: NDArray[Any], state: NDArray[Any]) -> Alerts:
    """All rows of one instrument in order; `state` (STATE[1]) is carried on in place."""
    n = len(heads)
    out = Alerts(np.empty((n, N_HEADS), np.int32), np.empty(n, np.uint8), np.empty(n, np.uint8))
    _run(np.ascontiguousarray(heads, np.int32), params.view(np.int32), state.view(np.int32), *out)
    return out


def step_reference(heads: NDArray[np.int32], params: NDArray[Any], state: NDArray[Any]) -> tuple[fixed.Ints, int, int]:
    """One row (int32[N_HEADS]) through fixed.py: (levels, alert bits, fresh bits); `state` is carried on in place."""
    p, s = params[0], state[0]
    codes = [fixed.level(heads[h], p["breaks"][h], p["value"][h], p["slope"][h]) for h in range(N_HEADS)]
    s["smooth"] = fixed.ewma_step(s["smooth"], np.array(codes))
    level = s["smooth"].astype(np.int64) >> EWMA_GUARD
    bits = 1 << np.arange(N_HEADS)
    was = (int(s["alert"]) & bits) != 0
    now = fixed.hysteresis_step(was, level, p["on"], p["off"])
    s["alert"] = int(bits[now].sum())
    return level, int(s["alert"]), int(bits[now & ~was].sum())


def run_reference(heads: NDArray[np.int32], params: NDArray[Any], state: NDArray[Any]) -> Alerts:
    """`run_alert`, row by row through step_reference."""
    n = len(heads)
    out = Alerts(np.empty((n, N_HEADS), np.int32), np.empty(n, np.uint8), np.empty(n, np.uint8))
    for i in range(n):
        out.level[i], out.alert[i], out.fresh[i] = step_reference(heads[i], params, state)
    return out


@functools.cache
def alert_address() -> int:
    """Address of the C form of one step.

    `void step(const int32_t* heads, const void* params, void* state, int32_t* level, uint8_t* alert_fresh)`:
    params and state lie as PARAMS and STATE; alert_fresh[0] gets the alert bits, [1] the fresh bits. The code lives as
    long as the process.
    """
    i4, u1 = types.CPointer(types.int32), types.CPointer(types.uint8)
    return int(_compiled(types.void(i4, i4, i4, i4, u1)).address)


@functools.cache
def _compiled(signature: Any) -> Any:
    """The C function; kept here, because it is freed with its last reference."""
    return cfunc(signature, cache=True)(_step_pointers)


@njit(cache=True)
def _level(x: int, params: NDArray[np.int32], head: int) -> int:
    """fixed.level by bisection; `params` is flat PARAMS."""
    row = head * TABLE_POINTS
    low, high = 0, TABLE_POINTS  # number of breaks <= x lies in low..high
    while low < high:
        middle = (low + high) >> 1
        if params[row + middle] <= x:
            low = middle + 1
        else:
            high = middle
    base = row + max(low - 1, 0)
    slope = int(params[_SLOPE + head * (TABLE_POINTS + 1) + low])  # int() widens to 64 bits here
    y = int(params[_VALUE + base]) + slope * (int(x) - int(params[base]))
    y = (y + _ROUND) >> LEVEL_TABLE_FRAC
    return min(max(y, 0), _HIGH)


@njit(cache=True)
def _step(
    heads: NDArray[np.int32],
    params: NDArray[np.int32],
    state: NDArray[np.int32],
    level: NDArray[np.int32],
    alert_fresh: NDArray[np.uint8],
) -> None:
    """One row. Arguments are pointers (from C++) or arrays (from `_run`): only indexing is used."""
    was, now = state[_ALERT], 0
    for h in range(N_HEADS):
        smooth = np.int64(state[h])
        smooth += ((np.int64(_level(heads[h], params, h)) << EWMA_GUARD) - smooth) >> EWMA_SHIFT
        code = smooth >> EWMA_GUARD
        threshold = params[_OFF + h] if (was >> h) & 1 else params[_ON + h]
        if code >= threshold:
            now |= 1 << h
        state[h] = np.int32(smooth)
        level[h] = np.int32(code)
    state[_ALERT] = np.int32(now)
    alert_fresh[0] = np.uint8(now)
    alert_fresh[1] = np.uint8(now & ~was)


def _step_pointers(heads: Any, params: Any, state: Any, level: Any, alert_fresh: Any) -> None:
    _step(heads, params, state, level, alert_fresh)


@njit(cache=True)
def _run(
    heads: NDArray[np.int32],
    params: NDArray[np.int32],
    state: NDArray[np.int32],
    level: NDArray[np.int32],
    alert: NDArray[np.uint8],
    fresh: NDArray[np.uint8],
) -> None:
    bits = np.zeros(2, np.uint8)
    for i in range(len(heads)):
        _step(heads[i], params, state, level[i], bits)
        alert[i], fresh[i] = bits[0], bits[1]
