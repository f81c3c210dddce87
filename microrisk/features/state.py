"""What the feature kernel remembers of one instrument: one fixed-size record of 8-byte fields, legible from C.

The bounds of this page make every sum of the kernel fit 64 bits; where one is met, the value saturates there by
definition (a venue that shows 2^62 units at a level gets a defined feature, not an overflow).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from microrisk.errors import UsageError
from microrisk.spec.features import ALL_MASK
from microrisk.spec.formats import FEATURE_LOT_PARTS
from microrisk.spec.records import N_FEATURES

QTY_MAX = 1 << 59
"""A size in feed units enters a sum as min(max(size, 0), QTY_MAX): ten levels stay below 2^63."""
SIZE_MAX = 1 << 32
"""A size in sixteenths of feature_lot saturates here (2.7e8 lots)."""
PX_MAX = 1 << 60
"""Prices in feed units saturate at +-PX_MAX before any difference is taken."""
NO_BID, NO_ASK = -(1 << 62), 1 << 62
"""Price of an empty side: worse than every price, which is all that order-flow imbalance needs."""
SPREAD_MAX = 1 << 20
"""Spread in feature ticks: saturates here, and is this when a side is empty."""
MOVE_MAX = 1 << 15
"""Mid move in half ticks: saturates here before it is squared."""
ACC_MAX = 1 << 46
"""Decayed counters saturate at +-ACC_MAX (COUNT_FRAC fraction bits included): times a Q0.16 factor below 2^63."""
TIME_MAX = 1 << 62
"""The clock is cut to 0..TIME_MAX ns."""
EWMA_FRAC = 16
"""Fraction bits of the running means."""
EWMA_NONE = -1
"""A running mean that has seen nothing yet; its rounded value reads 0."""
DECADES = 19
"""Warm-up histogram: sizes nearest 10^0 .. 10^18, the largest power of ten that an int64 holds."""

# decayed with TAU_FAST: places in STATE["fast"]
F_OFI, F_BUY, F_SELL, F_ADD, F_CANCEL, F_TRADE, F_ADD_B, F_ADD_A, F_CANCEL_B, F_CANCEL_A = range(10)
F_MSG, F_RV, F_FAR, F_NEAR = range(10, 14)
N_FAST = 14
# decayed with TAU_SLOW: places in STATE["slow"]
L_OFI, L_BUY, L_SELL, L_CANCEL, L_TRADE, L_MSG, L_RV, L_SIGNED, L_VOLUME = range(9)
N_SLOW = 9
# size summed to a level: places in STATE["total"], ["parts"], ["parts_lg"]
B1, B5, B10, A1, A5, A10 = range(6)
N_SIZE = 6

STATE = np.dtype(
    [
        ("tick", "<i8"),  # feature_tick, feed units; 0 = warm-up still looks for it
        ("lot", "<i8"),  # feature_lot, feed units
        ("unit", "<i8"),  # max(1, lot // 16): one sixteenth of the lot, feed units
        ("mask", "<i8"),  # bit i: feature i is carried by the feed; other codes are 0
        ("seen", "<i8"),  # warm-up events so far
        ("step", "<i8"),  # smallest positive price step of the warm-up, 0 = none yet
        ("decade", "<i8", (DECADES,)),  # warm-up: best sizes by nearest power of ten
        ("started", "<i8"),  # 1 after the first event under a known tick
        ("now", "<i8"),  # the clock, never backwards
        ("last", "<i8"),  # time of the last event
        ("since", "<i8"),  # time of the last change of best price or size
        ("bid_px", "<i8"),  # best prices and sizes after the last event, saturated; NO_BID, NO_ASK when empty
        ("ask_px", "<i8"),
        ("bid_qty", "<i8"),
        ("ask_qty", "<i8"),
        ("spread", "<i8"),  # feature ticks, 0..SPREAD_MAX
        ("mid", "<i8"),  # bid + ask of the last two-sided event
        ("total", "<i8", (N_SIZE,)),  # feed units
        ("parts", "<i8", (N_SIZE,)),  # sixteenths of feature_lot
        ("parts_lg", "<i8", (N_SIZE,)),
        ("fast", "<i8", (N_FAST,)),  # COUNT_FRAC fraction bits
        ("slow", "<i8", (N_SLOW,)),
        ("gap_mean", "<i8"),  # running means, EWMA_FRAC fraction bits, EWMA_NONE before their first value
        ("life_mean", "<i8"),
        ("depth_mean", "<i8"),
        ("spread_mean", "<i8"),
        ("wash_mean", "<i8"),  # starts at 0
        ("trade_qty", "<i8"),  # last signed trade
        ("trade_sign", "<i8"),
        ("raw", "<i2", (N_FEATURES,)),  # the features after the last view
    ]
)
"""Kernel state of one instrument; `initial_state` makes one. Its size is a multiple of 8."""


def initial_state(tick: int = 0, lot: int = 0, mask: int = ALL_MASK) -> bytes:
    """State of an instrument that has seen nothing.

    Parameters
    ----------
    tick, lot : feature_tick and feature_lot in feed units; both 0 = found in the first WARMUP_EVENTS events
    mask : bit i = the feed carries feature i (spec.features.mask)

    Raises UsageError for a negative value, or when only one of tick and lot is given.
    """
    if tick < 0 or lot < 0 or (tick == 0) != (lot == 0):
        raise UsageError(f"tick {tick} and lot {lot} must both be positive, or both 0 for a warm-up")
    state = np.zeros(1, STATE)
    state["mask"] = mask & ALL_MASK
    state["tick"], state["lot"], state["unit"] = tick, lot, max(1, lot // FEATURE_LOT_PARTS)
    state["bid_px"], state["ask_px"] = NO_BID, NO_ASK
    for mean in ("gap_mean", "life_mean", "depth_mean", "spread_mean"):
        state[mean] = EWMA_NONE
    return state.tobytes()


def as_state(state: bytes | NDArray[np.void]) -> NDArray[np.void]:
    """STATE[1] from bytes (a copy) or from an array of one record (itself, so that steps continue in it)."""
    if isinstance(state, bytes):
        if len(state) != STATE.itemsize:
            raise UsageError(f"a kernel state has {STATE.itemsize} bytes, this has {len(state)}")
        return np.frombuffer(state, STATE).copy()
    if state.dtype != STATE or state.shape != (1,):
        raise UsageError(f"a kernel state is one STATE record, this is {state.dtype} of shape {state.shape}")
    return state
