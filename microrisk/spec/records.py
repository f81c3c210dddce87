"""Records that cross file, NumPy, Numba and C++ without a copy. Little-endian, naturally aligned, no padding holes.

EVENT  what every decoder makes out of its feed, one per book-relevant message
VIEW   what the engine shows to the feature kernel after each event
ROW    what the scoring engine writes per scored event
BBO    one change of best price or size
ORDER  one resting order, in queue order
FINDING one typed integrity event
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

import numpy as np

DEPTH = 10
"""Levels a side that a VIEW carries."""
N_FEATURES = 32
N_HEADS = 4


class Action(IntEnum):
    """What an event does to the book."""

    NONE = 0  # nothing; keeps clocks and sequence running
    ADD = 1  # order_id, side, px, qty
    MODIFY = 2  # L3: order_id, new px and qty; L2: order_id 0, side, px, absolute qty (0 removes the level)
    REDUCE = 3  # order_id, qty taken off; EXEC = by a trade at px, else a partial cancel
    DELETE = 4  # order_id; whatever remains
    REPLACE = 5  # order_id becomes ref with px and qty, same side, priority lost; atomic
    CLEAR = 6  # every order of the instrument goes
    TRADE = 7  # px, qty, side; the displayed book does not change
    STATE = 8  # trading state in ref (TradingState)
    FILL = 9  # a fill of order_id that changes no book by itself (DBN F)


class Flag(IntFlag):
    """Bits of EVENT.flags."""

    LAST = 0x01  # the book is consistent after this event
    SNAPSHOT = 0x02  # part of a book image, not news
    HIDDEN = 0x04  # TRADE against hidden liquidity
    SUSPECT = 0x08  # the venue itself doubts the book
    PRIORITY_KEPT = 0x10  # MODIFY that keeps the place in the queue whatever it changes
    EXEC = 0x20  # the reduction is an execution, not a cancel
    NO_PRINT = 0x40  # the execution is printed by another event: do not count its volume twice
    CROSS = 0x80  # auction print


class TradingState(IntEnum):
    """Gates the crossed check. UNKNOWN becomes TRADING with the first trade that is not an auction print."""

    UNKNOWN = 0
    PREOPEN = 1
    TRADING = 2
    HALTED = 3
    AUCTION = 4
    CLOSED = 5
    ALWAYS = 6  # a venue that never closes


class FeedId(IntEnum):
    """EVENT.feed."""

    NONE = 0
    ITCH50 = 1
    DBN = 2
    COINBASE = 3
    LOBSTER = 4
    KRAKEN = 5
    BINANCE = 6
    BITSTAMP = 7
    BYBIT = 8
    IEX = 9
    BITFINEX = 10
    BITMEX = 11
    DERIBIT = 12
    TARDIS = 13
    SIMULATOR = 15


class Integrity(IntEnum):
    """Kinds of finding; the names are the keys of `integrity` in `replay --json`.

    Hard ones (is_hard) make `replay --strict` end with 3.
    """

    malformed = 0
    unknown_type = 1
    unknown_order = 2
    duplicate_order = 3
    over_execute = 4
    crossed = 5
    locked = 6
    crossed_preopen = 7
    gap = 8
    checksum_mismatch = 9
    checksum_ok = 10
    px_range = 11
    zero_price = 12  # an order at price 0
    zero_qty = 13  # an order of size 0
    side_mismatch = 14  # a modify that names the other side
    unknown_level = 15  # deletion of a level not held: normal on L2 feeds
    never_rested = 16  # done of an order that never rested: normal on Coinbase
    skipped = 17  # at or below the snapshot's sequence
    duplicate_seq = 18  # a sequence number seen before (retransmission)
    session_reset = 19  # the venue began a new session or sequence
    trailing = 20  # bytes after the end mark, or behind the last block of a packet
    suspect_flag = 21  # the venue flagged its own book
    unknown_fill = 22  # a fill of an order already gone
    beyond_depth = 23  # LOBSTER: an order that was never shown (outside the window) leaves
    locked_preopen = 24
    stale_order = 25  # rests in the feed although the market traded through it: set aside, reported
    quote_ok = 26  # the venue's own best quote equals the book's
    quote_mismatch = 27  # it does not
    invalidated = 28  # a book thrown away because a rule of its venue was broken
    awaiting_image = 29  # an update that was not applied: its book waits for the next image
    unknown_trade = 30  # a trade that names an order not known


HARD = frozenset(
    {
        Integrity.malformed,
        Integrity.gap,
        Integrity.checksum_mismatch,
        Integrity.over_execute,
        Integrity.duplicate_order,
        Integrity.crossed,
    }
)

EVENT = np.dtype(
    [
        ("ts_event", "<i8"),  # venue time, ns UTC
        ("ts_recv", "<i8"),  # recorder's time, ns UTC, or NULL_TS
        ("seq", "<u8"),  # see the contract of --bbo for what each feed puts here
        ("order_id", "<u8"),  # handle; 0 on L2 feeds
        ("ref", "<u8"),  # REPLACE: new order id; trades and executions: match id; STATE: TradingState
        ("px", "<i8"),  # feed units
        ("qty", "<i8"),  # feed units
        ("instrument", "<u4"),  # index into the feed's instrument list (ITCH: stock locate)
        ("feed", "u1"),  # FeedId
        ("action", "u1"),  # Action
        ("side", "i1"),  # Side of the resting order
        ("flags", "u1"),  # Flag
    ]
)

VIEW = np.dtype(
    [
        ("now", "<i8"),  # the core's clock: largest receive (else event) time so far, or the tick's time
        ("ts_event", "<i8"),
        ("ts_recv", "<i8"),
        ("seq", "<u8"),
        ("px", "<i8"),  # price of the add, else of the trade, else of the removal
        ("add_qty", "<i8"),  # posted by this event, feed units
        ("cancel_qty", "<i8"),  # withdrawn by this event without a trade
        ("trade_qty", "<i8"),  # traded (hidden too) and not NO_PRINT
        ("instrument", "<u4"),
        ("action", "u1"),
        ("side", "i1"),  # resting side of add, cancel and trade; aggressor = -side
        ("flags", "u1"),
        ("level", "u1"),  # 0-based level at which add_qty was posted after the event; 255 = below DEPTH or no add
        ("n_bid", "u1"),  # valid levels in the arrays below, 0..DEPTH
        ("n_ask", "u1"),
        ("tick", "u1"),  # 1: a staleness tick, not an event
        ("suspect", "u1"),  # 1: the book of this instrument is marked
        ("reserved", "<u4"),
        ("bid_px", "<i8", (DEPTH,)),  # best first; entries beyond n_bid are 0
        ("bid_qty", "<i8", (DEPTH,)),
        ("ask_px", "<i8", (DEPTH,)),
        ("ask_qty", "<i8", (DEPTH,)),
    ]
)

ROW = np.dtype(
    [
        ("now", "<i8"),
        ("ts_event", "<i8"),
        ("ts_recv", "<i8"),
        ("seq", "<u8"),
        ("codes", "i1", (N_FEATURES,)),
        ("heads", "<i4", (N_HEADS,)),  # maxz, maha, vae, exposure
        ("level", "<i4", (N_HEADS,)),  # smoothed level code: -log2(tail probability) in Q.8 (ALERT format)
        ("instrument", "<u4"),
        ("alert", "u1"),  # bit h: head h is in alarm
        ("fresh", "u1"),  # bit h: head h went into alarm with this row
        ("tick", "u1"),
        ("suspect", "u1"),
    ]
)

BBO = np.dtype(
    [
        ("ts_event", "<i8"),
        ("ts_recv", "<i8"),
        ("seq", "<u8"),
        ("bid_px", "<i8"),  # feed units, NULL_PX for an empty side
        ("bid_qty", "<i8"),
        ("ask_px", "<i8"),
        ("ask_qty", "<i8"),
        ("instrument", "<u4"),
        ("reserved", "<u4"),
    ]
)

ORDER = np.dtype(
    [
        ("order_id", "<u8"),
        ("px", "<i8"),
        ("qty", "<i8"),
        ("priority", "<u8"),  # 0-based place in its level's queue
        ("instrument", "<u4"),
        ("side", "<i4"),
    ]
)

FINDING = np.dtype(
    [
        ("ts_event", "<i8"),
        ("seq", "<u8"),
        ("order_id", "<u8"),
        ("px", "<i8"),
        ("qty", "<i8"),
        ("instrument", "<u4"),
        ("kind", "<u4"),  # Integrity
    ]
)

TRADE = np.dtype(
    [
        ("now", "<i8"),  # the core's clock
        ("px", "<i8"),  # feed units
        ("qty", "<i8"),
        ("instrument", "<u4"),
        ("side", "<i4"),  # of the aggressor: 1 bought, -1 sold, 0 not known
    ]
)
"""What was traded with one event of a watched instrument."""

CROSSING = np.dtype(
    [
        ("now", "<i8"),  # the core's clock
        ("seq", "<u8"),  # of the event behind which the book was crossed
        ("bid_px", "<i8"),  # feed units
        ("ask_px", "<i8"),
        ("instrument", "<u4"),
        ("reserved", "<u4"),
    ]
)
"""A book that has become crossed in continuous trading; the next one comes when it was in order in between."""

RECORDS = {
    "Event": EVENT,
    "View": VIEW,
    "Row": ROW,
    "Bbo": BBO,
    "RestingOrder": ORDER,
    "Finding": FINDING,
    "Trade": TRADE,
    "Crossing": CROSSING,
}
ENUMS = {"Action": Action, "Flag": Flag, "TradingState": TradingState, "FeedId": FeedId, "Integrity": Integrity}
