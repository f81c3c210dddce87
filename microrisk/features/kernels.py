"""The feature kernel: one view in, 32 raw features and their codes out; integers only, O(1), no allocation.

This is the only source of codes. The engine calls it through a C pointer (`kernel_address`), batches go through
`run_views`; both compile the same `_step`. Formulas: spec.features; bounds and the meaning of every state field: state.

An event goes: clock and decay, book, messages, then features. A staleness tick moves the clock and decays; nothing is
counted, and the book features keep the values of the last event.
"""

from __future__ import annotations

import functools
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numba import cfunc, from_dtype, njit, types
from numba.np.numpy_support import carray
from numpy.typing import NDArray

from microrisk import spec
from microrisk.errors import UsageError
from microrisk.features import state as st
from microrisk.features.arith import (
    TANH_ROM,
    bump,
    clip,
    compiled,
    decay,
    feature,
    lg,
    lg_frac,
    mean_step,
    mean_value,
    size_units,
)
from microrisk.features.warmup import warm_up
from microrisk.spec.formats import (
    COUNT_FRAC,
    DECAY_ROM_BITS,
    DECAY_STEP_NS_SHIFT,
    TAU_SLOW_SHIFT,
)
from microrisk.spec.records import DEPTH, N_FEATURES, VIEW

TABLE_SIZE = 4096
"""Entries of a feature's expanded table: one per raw value, index raw + TABLE_SIZE // 2."""
_ZERO = TABLE_SIZE // 2
_ONE = 1 << COUNT_FRAC
_SLOW_STEP_SHIFT = TAU_SLOW_SHIFT - DECAY_ROM_BITS
_GAP_SHIFT, _LIFE_SHIFT, _DEPTH_SHIFT, _SPREAD_SHIFT, _WASH_SHIFT = 4, 4, 8, 8, 4
"""Running means over 16, 16, 256, 256 and 16 values."""
_TIME_UNIT_SHIFT = 10
"""Times enter lg in 2^10 ns."""
_FAR_LEVEL = 2
"""0-based: an order at the third level or deeper is far."""
_TICK_REACH = 2 * st.PX_MAX // DEPTH + 1
"""Ten of these are more than any difference of two prices."""


# --- clock -------------------------------------------------------------------------------------------------------


@compiled
def _advance(s: Any, time: int) -> None:
    """Move the clock, never backwards, and decay at every crossing of the two global grids."""
    now = max(clip(time, 0, st.TIME_MAX), s.now)
    fast = (now >> DECAY_STEP_NS_SHIFT) - (s.now >> DECAY_STEP_NS_SHIFT)
    if fast > 0:
        decay(s.fast, fast)
        slow = (now >> _SLOW_STEP_SHIFT) - (s.now >> _SLOW_STEP_SHIFT)
        if slow > 0:
            decay(s.slow, slow)
    s.now = now


# --- book --------------------------------------------------------------------------------------------------------


@compiled
def _set_size(s: Any, place: int, total: int) -> bool:
    """A summed size in lot parts and its lg; the division is skipped while the sum stands. True if it moved."""
    if total == s.total[place]:
        return False
    size = size_units(total, s.unit)
    s.total[place], s.parts[place], s.parts_lg[place] = total, size, lg(size)
    return True


@compiled
def _set_side(s: Any, qty: Any, first: int) -> bool:
    """Sizes to level 1, 5 and 10 of one side, from place `first` on; levels that are not there hold 0."""
    best = clip(qty[0], 0, st.QTY_MAX)
    five = best
    for i in range(1, 5):
        five += clip(qty[i], 0, st.QTY_MAX)
    ten = five
    for i in range(5, DEPTH):
        ten += clip(qty[i], 0, st.QTY_MAX)
    moved = _set_size(s, first, best)
    moved |= _set_size(s, first + 1, five)
    moved |= _set_size(s, first + 2, ten)
    return moved


@compiled
def _depth_features(s: Any) -> None:
    """Depth, imbalance and slope (1..8) from the sizes."""
    raw, x = s.raw, s.parts_lg
    raw[1] = lg(s.parts[st.B1] + s.parts[st.A1])
    raw[2] = lg(s.parts[st.B5] + s.parts[st.A5])
    raw[3] = lg(s.parts[st.B10] + s.parts[st.A10])
    raw[4] = x[st.B1] - x[st.A1]
    raw[5] = x[st.B5] - x[st.A5]
    raw[6] = x[st.B10] - x[st.A10]
    raw[7] = x[st.B1] - x[st.B10]
    raw[8] = x[st.A1] - x[st.A10]


@compiled
def _flow_imbalance(s: Any, bid: int, ask: int, old_bid_size: int, old_ask_size: int) -> None:
    """Contribution of one change at the best to order-flow imbalance (10, 11)."""
    e = 0
    if bid >= s.bid_px:
        e += s.parts[st.B1]
    if bid <= s.bid_px:
        e -= old_bid_size
    if ask <= s.ask_px:
        e -= s.parts[st.A1]
    if ask >= s.ask_px:
        e += old_ask_size
    bump(s.fast, st.F_OFI, e << COUNT_FRAC)
    bump(s.slow, st.L_OFI, e << COUNT_FRAC)


@compiled
def _move_mid(s: Any, mid: int) -> None:
    """Squared move of the mid (24, 25): half ticks, so a square counts a quarter."""
    if s.depth_mean >= 0:
        half_ticks = min(abs(mid - s.mid) // s.tick, st.MOVE_MAX)
        square = (half_ticks * half_ticks) << (COUNT_FRAC - 2)
        bump(s.fast, st.F_RV, square)
        bump(s.slow, st.L_RV, square)
    s.mid = mid


@compiled
def _quote(s: Any, bid: int, ask: int, two_sided: bool) -> None:
    """Spread (0) and microprice (9) after a change at the best."""
    s.spread = clip((ask - bid) // s.tick, 0, st.SPREAD_MAX) if two_sided else st.SPREAD_MAX
    s.raw[0] = lg(s.spread << 4)
    lean = s.raw[4]
    shift = (TANH_ROM[min(abs(lean), 127)] * s.spread) >> 4 if two_sided else 0
    s.raw[9] = feature(shift if lean >= 0 else -shift)


@compiled
def _against_habit(s: Any, two_sided: bool) -> None:
    """Depth and spread against their own mean so far (26, 27); the means see two-sided books only."""
    depth, spread = int(s.raw[2]), s.spread << 4  # int: plain NumPy would shift within 16 bits
    known = s.depth_mean >= 0
    s.raw[26] = feature(depth - mean_value(s.depth_mean)) if known else 0
    s.raw[27] = feature(spread - mean_value(s.spread_mean)) if known else 0
    if two_sided:
        s.depth_mean = mean_step(s.depth_mean, depth, _DEPTH_SHIFT)
        s.spread_mean = mean_step(s.spread_mean, spread, _SPREAD_SHIFT)


@compiled
def _occupied(px: Any, n: int, reach: int) -> int:
    """Levels less than `reach` away from the best of their side."""
    best = clip(px[0], -st.PX_MAX, st.PX_MAX)
    count = 0
    for i in range(DEPTH):
        count += (abs(best - clip(px[i], -st.PX_MAX, st.PX_MAX)) < reach) & (i < n)
    return count


@compiled
def _book(v: Any, s: Any) -> None:
    """Everything that follows from the shown levels."""
    old_bid_size, old_ask_size = s.parts[st.B1], s.parts[st.A1]
    if _set_side(s, v.bid_qty, st.B1) | _set_side(s, v.ask_qty, st.A1):
        _depth_features(s)
    bid = clip(v.bid_px[0], -st.PX_MAX, st.PX_MAX) if v.n_bid > 0 else st.NO_BID
    ask = clip(v.ask_px[0], -st.PX_MAX, st.PX_MAX) if v.n_ask > 0 else st.NO_ASK
    two_sided = v.n_bid > 0 and v.n_ask > 0
    bid_qty, ask_qty = s.total[st.B1], s.total[st.A1]
    changed = bid != s.bid_px or ask != s.ask_px or bid_qty != s.bid_qty or ask_qty != s.ask_qty
    if s.started == 0:
        _quote(s, bid, ask, two_sided)
        s.since = s.now
    elif changed:
        _flow_imbalance(s, bid, ask, old_bid_size, old_ask_size)
        _quote(s, bid, ask, two_sided)
        s.life_mean = mean_step(s.life_mean, lg((s.now - s.since) >> _TIME_UNIT_SHIFT), _LIFE_SHIFT)
        s.since = s.now
    s.bid_px, s.ask_px, s.bid_qty, s.ask_qty = bid, ask, bid_qty, ask_qty
    if two_sided:
        _move_mid(s, bid + ask)
    _against_habit(s, two_sided)
    reach = min(s.tick, _TICK_REACH) * DEPTH
    s.raw[28] = (2 * DEPTH - _occupied(v.bid_px, v.n_bid, reach) - _occupied(v.ask_px, v.n_ask, reach)) << 4


# --- messages ----------------------------------------------------------------------------------------------------


@compiled
def _added(v: Any, s: Any) -> None:
    """Count what was posted: number, side, near or far."""
    size = size_units(min(v.add_qty, st.QTY_MAX), s.unit) << COUNT_FRAC
    bump(s.fast, st.F_ADD, _ONE)
    if v.side != 0:
        bump(s.fast, st.F_ADD_B if v.side > 0 else st.F_ADD_A, size)
    bump(s.fast, st.F_FAR if v.level >= _FAR_LEVEL else st.F_NEAR, size)


@compiled
def _cancelled(v: Any, s: Any) -> None:
    """Count what was withdrawn without a trade."""
    size = size_units(min(v.cancel_qty, st.QTY_MAX), s.unit) << COUNT_FRAC
    bump(s.fast, st.F_CANCEL, _ONE)
    bump(s.slow, st.L_CANCEL, _ONE)
    if v.side != 0:
        bump(s.fast, st.F_CANCEL_B if v.side > 0 else st.F_CANCEL_A, size)


@compiled
def _traded(v: Any, s: Any) -> None:
    """Count a trade; its sign is the aggressor's, the other side of the resting one (0 = unknown)."""
    size = size_units(min(v.trade_qty, st.QTY_MAX), s.unit) << COUNT_FRAC
    bump(s.fast, st.F_TRADE, _ONE)
    bump(s.slow, st.L_TRADE, _ONE)
    bump(s.slow, st.L_VOLUME, size)
    if v.side == 0:
        return
    buy = v.side < 0
    bump(s.fast, st.F_BUY if buy else st.F_SELL, _ONE)
    bump(s.slow, st.L_BUY if buy else st.L_SELL, _ONE)
    bump(s.slow, st.L_SIGNED, size if buy else -size)
    sign = 1 if buy else -1
    reversal = 1 if v.trade_qty == s.trade_qty and sign == -s.trade_sign else 0
    s.wash_mean = mean_step(s.wash_mean, reversal, _WASH_SHIFT)
    s.trade_qty, s.trade_sign = v.trade_qty, sign


@compiled
def _messages(v: Any, s: Any) -> int:
    """Count the event and what it did; returns the time since the last event in 2^10 ns."""
    age = 0
    if s.started != 0:
        age = (s.now - s.last) >> _TIME_UNIT_SHIFT
        s.gap_mean = mean_step(s.gap_mean, lg(age), _GAP_SHIFT)
    s.last = s.now
    bump(s.fast, st.F_MSG, _ONE)
    bump(s.slow, st.L_MSG, _ONE)
    if v.add_qty > 0:
        _added(v, s)
    if v.cancel_qty > 0:
        _cancelled(v, s)
    if v.trade_qty > 0:
        _traded(v, s)
    return age


@compiled
def _rate(counter: int) -> int:
    """Level of 16 times a decayed number of events."""
    return lg_frac(counter, COUNT_FRAC - 4)


@compiled
def _size(counter: int) -> int:
    """Level of a decayed, unsigned size."""
    return lg_frac(counter, COUNT_FRAC)


@compiled
def _signed_size(counter: int) -> int:
    """Level of a decayed, signed size."""
    return _size(counter) if counter >= 0 else -_size(-counter)


@compiled
def _flow_features(s: Any) -> None:
    """Features of decayed counters: 10..21, 24, 25, 29..31."""
    raw, f, w = s.raw, s.fast, s.slow
    adds, cancels = _rate(f[st.F_ADD]), _rate(f[st.F_CANCEL])
    raw[10] = _signed_size(f[st.F_OFI])
    raw[11] = _signed_size(w[st.L_OFI])
    raw[12] = _rate(f[st.F_BUY]) - _rate(f[st.F_SELL])
    raw[13] = _rate(w[st.L_BUY]) - _rate(w[st.L_SELL])
    raw[14] = adds
    raw[15] = cancels
    raw[16] = _rate(f[st.F_TRADE])
    raw[17] = _rate(w[st.L_CANCEL]) - _rate(w[st.L_TRADE])
    raw[18] = cancels - adds
    raw[19] = _size(f[st.F_ADD_B]) - _size(f[st.F_ADD_A])
    raw[20] = _size(f[st.F_CANCEL_B]) - _size(f[st.F_CANCEL_A])
    raw[21] = _rate(f[st.F_MSG]) - _size(w[st.L_MSG])
    raw[24] = _rate(f[st.F_RV])
    raw[25] = _rate(w[st.L_RV])
    raw[29] = _size(abs(w[st.L_SIGNED])) - _size(w[st.L_VOLUME])
    raw[30] = _size(f[st.F_FAR]) - _size(f[st.F_NEAR])
    raw[31] = s.wash_mean >> (st.EWMA_FRAC - 8)


@compiled
def _time_features(s: Any, age: int) -> None:
    """Gap (22) and quote age against habit (23)."""
    s.raw[22] = max(mean_value(s.gap_mean), lg(age))
    quote = lg((s.now - s.since) >> _TIME_UNIT_SHIFT) - mean_value(s.life_mean)
    s.raw[23] = quote if s.life_mean >= 0 else 0


# --- one step, and its two ways in -------------------------------------------------------------------------------


@compiled
def _codes(s: Any, table: Any, codes: Any, row: int) -> None:
    """Look the raws up into a row of `codes`; a feature outside the mask is 0."""
    for i in range(N_FEATURES):
        place = (s.raw[i] + _ZERO) & (
            TABLE_SIZE - 1
        )  # the cut changes nothing; it spares the test for a negative index
        codes[row, i] = table[i, place] if (s.mask >> i) & 1 else 0


@compiled
def _step(v: Any, s: Any, table: Any, codes: Any, row: int) -> int:
    """One view; 1 if row `row` of `codes` was written, 0 during the warm-up and for ticks before the first event."""
    if s.tick == 0:
        warm_up(v, s)
        return 0
    if v.tick != 0 and s.started == 0:
        return 0
    _advance(s, v.now)
    if v.tick == 0:
        _book(v, s)
        age = _messages(v, s)
        s.started = 1
    else:
        age = (s.now - s.last) >> _TIME_UNIT_SHIFT
    _flow_features(s)
    _time_features(s, age)
    _codes(s, table, codes, row)
    return 1


def _fingerprint() -> int:
    """Checksum of every source file that is compiled into the kernel.

    Numba's cache looks only at the file of the cached function; this number is a closure cell of it and so part of the
    cache key: a change of a format or of the arithmetic never meets an older binary.
    """
    here, specs = Path(__file__).parent, Path(spec.__file__).parent
    sources = [here / "state.py", here / "arith.py", here / "warmup.py", specs / "formats.py", specs / "records.py"]
    return functools.reduce(lambda crc, p: zlib.crc32(p.read_bytes(), crc), sources, 0)


def _make_loop(fingerprint: int) -> Any:
    @njit(cache=True, nogil=True)
    def loop(views: Any, state: Any, table: Any, raw: Any, codes: Any, produced: Any) -> int:
        """Every view in turn; raw is copied out where codes were produced."""
        s = state[0]
        for i in range(len(views)):
            if _step(views[i], s, table, codes, i) != 0:
                produced[i] = True
                for j in range(N_FEATURES):
                    raw[i, j] = s.raw[j]
        return fingerprint

    return loop


def _make_callback(fingerprint: int) -> Any:
    def step(view: Any, state: Any, table: Any, codes: Any) -> int:
        """The C form of _step."""
        lookup = carray(table, (N_FEATURES, TABLE_SIZE))
        return (
            _step(carray(view, 1)[0], carray(state, 1)[0], lookup, carray(codes, (1, N_FEATURES)), 0) + 0 * fingerprint
        )

    view_pointer, state_pointer = types.CPointer(from_dtype(VIEW)), types.CPointer(from_dtype(st.STATE))
    bytes_pointer = types.CPointer(types.int8)
    return cfunc(types.int32(view_pointer, state_pointer, bytes_pointer, bytes_pointer), cache=True)(step)


_loop = _make_loop(_fingerprint())


@functools.lru_cache(maxsize=1)
def _callback() -> Any:
    """The compiled C callback, kept alive by this cache."""
    return _make_callback(_fingerprint())


def kernel_address() -> int:
    """Address of `int32 step(const View*, void* state, const int8_t* table, int8_t* codes)`.

    `state` is one STATE record, 8-byte aligned; `table` is int8[32, 4096] (normalise.expand); `codes` int8[32] is
    written, and 1 returned, unless the instrument is still in its warm-up. Valid for the life of the process; the call
    needs no GIL. The first call in a fresh installation compiles for some seconds; later processes load the result.
    """
    return int(_callback().address)


def run_views(
    views: NDArray[np.void], state: bytes | NDArray[np.void], table: NDArray[np.int8]
) -> tuple[NDArray[np.int16], NDArray[np.int8], NDArray[np.bool_]]:
    """The views of one instrument through the kernel.

    Parameters
    ----------
    views : VIEW[n], in order
    state : `initial_state(...)`, or STATE[1], which is advanced in place so that batches continue each other
    table : int8[32, 4096]

    Returns raw int16[n, 32] (FEATURE), codes int8[n, 32] (CODE) and produced bool[n]; rows not produced are 0.
    Raises UsageError for another dtype or shape.
    """
    if views.dtype != VIEW or views.ndim != 1:
        raise UsageError(f"views must be VIEW[n], not {views.dtype} of shape {views.shape}")
    if table.dtype != np.int8 or table.shape != (N_FEATURES, TABLE_SIZE):
        raise UsageError(f"table must be int8[{N_FEATURES}, {TABLE_SIZE}], not {table.dtype}{list(table.shape)}")
    record, n = st.as_state(state), len(views)
    raw, codes = np.zeros((n, N_FEATURES), np.int16), np.zeros((n, N_FEATURES), np.int8)
    produced = np.zeros(n, np.bool_)
    if not hasattr(_loop, "signatures"):  # plain NumPy records give their fields as items, compiled code as attributes
        views, record = views.view(np.recarray), record.view(np.recarray)
    _loop(np.ascontiguousarray(views), record, np.ascontiguousarray(table), raw, codes, produced)
    return raw, codes, produced
