"""Warm-up of an instrument under a generic table: feature_tick and feature_lot from its first WARMUP_EVENTS events.

Only events with both sides count. The tick is the smallest positive price step between adjacent levels, across the
spread, or of a best price from one event to the next (1 if there is none); the lot is the power of ten nearest the
lower median of the best sizes. normalise.fit_instrument does the same on arrays.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from microrisk.features import state as st
from microrisk.features.arith import clip, compiled
from microrisk.spec.formats import FEATURE_LOT_PARTS, WARMUP_EVENTS
from microrisk.spec.records import DEPTH

_HALF_DECADE = np.array([math.isqrt(10 ** (2 * d + 1)) + 1 for d in range(st.DECADES - 1)], np.int64)
"""Smallest size that is nearer (as a ratio) to 10^(d+1) than to 10^d."""


@compiled
def _note_step(s: Any, difference: int) -> None:
    """A price step of the warm-up: keep the smallest positive one."""
    if difference > 0 and (s.step == 0 or difference < s.step):
        s.step = difference


@compiled
def _note_levels(s: Any, px: Any, n: int) -> None:
    """Steps between adjacent levels of one side."""
    for i in range(1, min(n, DEPTH)):
        _note_step(s, abs(clip(px[i - 1], -st.PX_MAX, st.PX_MAX) - clip(px[i], -st.PX_MAX, st.PX_MAX)))


@compiled
def _note_size(s: Any, qty: int) -> None:
    """One best size into the histogram of decades."""
    decade = 0
    for bound in _HALF_DECADE:
        decade += qty >= bound
    s.decade[decade] += 1


@compiled
def _settle(s: Any) -> None:
    """End of the warm-up: smallest step, and the decade of the lower median of the best sizes."""
    s.tick = max(s.step, 1)
    half = WARMUP_EVENTS  # two sizes an event
    lot = 1
    seen = s.decade[0]
    for d in range(1, st.DECADES):
        if seen >= half:
            break
        lot *= 10
        seen += s.decade[d]
    s.lot = lot
    s.unit = max(lot // FEATURE_LOT_PARTS, 1)


@compiled
def warm_up(v: Any, s: Any) -> None:
    """One event without a known tick; only two-sided books count."""
    if v.tick != 0 or v.n_bid == 0 or v.n_ask == 0:
        return
    bid, ask = clip(v.bid_px[0], -st.PX_MAX, st.PX_MAX), clip(v.ask_px[0], -st.PX_MAX, st.PX_MAX)
    _note_levels(s, v.bid_px, v.n_bid)
    _note_levels(s, v.ask_px, v.n_ask)
    _note_step(s, abs(ask - bid))
    if s.seen > 0:
        _note_step(s, abs(bid - s.bid_px))
        _note_step(s, abs(ask - s.ask_px))
    _note_size(s, v.bid_qty[0])
    _note_size(s, v.ask_qty[0])
    s.bid_px, s.ask_px = bid, ask
    s.seen += 1
    if s.seen == WARMUP_EVENTS:
        _settle(s)
