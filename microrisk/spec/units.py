"""Units, sides and sentinels. Time is int64 ns since the Unix epoch, UTC, unless a name says otherwise."""

from __future__ import annotations

from enum import IntEnum


class Side(IntEnum):
    """Side of a RESTING order. The aggressor of a trade is always the other side."""

    NONE = 0
    BID = 1
    ASK = -1


NS_PER_S = 1_000_000_000
TICK_NS = 250_000_000
"""Staleness tick and evaluation grid: 250 ms (design, section 3 'Clock')."""
MAX_TICKS = 40
"""Staleness ticks after an instrument's last event."""

NULL_TS = -(2**63)
"""No time: the feed has no recorder's clock."""
NULL_PX = -(2**63)
"""No price: an empty side of the book."""

PX_NANO = 9
"""Decimal exponent of every Int64 price column that leaves the program: 1e-9."""
