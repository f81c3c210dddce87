"""Databento DBN, schema `mbp-1` (the best price of each side, and every trade), versions 1 to 3.

Rules (Databento: schema `mbp-1`; flags; "Standards and conventions"), beside those of `dbn` for files and times:

1. Every record carries the best level of both sides after it: bid and ask price, size and number of orders. They
   replace what stood before. A price of INT64_MAX, or a size of 0, is an empty side.
2. T is also a trade, before its effect: it changes no level, the C or M with it does. The side is the aggressor's; the
   event carries the resting side.
3. R, and a record flagged SNAPSHOT, begin with an empty book.
4. LAST completes the event of its instrument; flags and findings are as in `mbo`.
5. The other best price that comes to light when a level goes is not news, nor is one that is pushed out: the feed
   carries no single orders, and its mask says so.

A record becomes as many level events as it changes levels, at least one event (NONE when nothing changed).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from microrisk.feed.base import Events, empty_events
from microrisk.feed.dbn import SIDES, Bools, DbnFeed, Records, flags_of, record_dtype, stamp
from microrisk.feed.open import Source
from microrisk.spec.features import mask
from microrisk.spec.messages import DBN_LAST, DBN_MAYBE_BAD_BOOK, DBN_MBP1, DBN_SNAPSHOT, DBN_UNDEF_PX
from microrisk.spec.records import Action, Flag, Integrity
from microrisk.spec.units import Side

RECORD = record_dtype(DBN_MBP1)
RTYPE_MBP1 = 0x01
_SLOTS = 7
"""Events that a record may have, in order: clear, trade, old bid, old ask, new bid, new ask, nothing."""
_CLEAR, _TRADE, _OLD, _NEW, _NOTHING = 0, 1, 2, 4, 6
_BOTH = (("bid", Side.BID), ("ask", Side.ASK))

Quote = tuple[int, int, int, int]
"""Bid price and size, ask price and size; size 0 = empty side."""


class MbpFeed(DbnFeed):
    """DBN files of schema `mbp-1` that continue each other."""

    mask = mask("l1", "trades")
    schemas = ("mbp-1",)
    layout = DBN_MBP1
    record = RECORD
    rtype = RTYPE_MBP1

    def __init__(self, sources: Sequence[Source], venue: str | None) -> None:
        self._quotes: dict[int, Quote] = {}
        super().__init__(sources, venue)

    def _events(self, records: Records) -> Events:
        before = previous(records, self._quotes)
        events, problems = to_events(records, before)
        for index in np.unique(records["instrument_id"]).tolist():
            self._quotes[index] = _quote(records[np.flatnonzero(records["instrument_id"] == index)[-1]])
            self._seen.add(index)
        self._find_in(records, problems)
        self.synthetic += int(((events["action"] == Action.CLEAR) & (events["flags"] & Flag.SNAPSHOT != 0)).sum())
        return events


def levels(records: Records) -> NDArray[np.int64]:
    """(n, 4): bid price and size, ask price and size; an empty side is 0, 0."""
    out = np.zeros((len(records), 4), np.int64)
    for k, (name, _) in enumerate(_BOTH):
        px, qty = records[name + "_px"], records[name + "_sz"].astype(np.int64)
        held = (px != DBN_UNDEF_PX) & (qty > 0)
        out[:, 2 * k], out[:, 2 * k + 1] = np.where(held, px, 0), np.where(held, qty, 0)
    return out


def _quote(record: np.void) -> Quote:
    bid_px, bid_qty, ask_px, ask_qty = levels(np.array([record], RECORD))[0].tolist()
    return bid_px, bid_qty, ask_px, ask_qty


def previous(records: Records, quotes: dict[int, Quote]) -> NDArray[np.int64]:
    """(n, 4) as `levels`: what stood before each record; `quotes` holds what stood before the first."""
    now = levels(records)
    out = np.zeros_like(now)
    for index in np.unique(records["instrument_id"]).tolist():
        own = np.flatnonzero(records["instrument_id"] == index)
        out[own[1:]] = now[own[:-1]]
        out[own[0]] = quotes.get(index, (0, 0, 0, 0))
    return out


def to_events(records: Records, before: NDArray[np.int64]) -> tuple[Events, dict[Integrity, Bools]]:
    """Events of the records, and which records are findings of which kind."""
    n = len(records)
    raw, action = records["flags"], records["action"]
    known = np.isin(action, np.frombuffer(b"ACMRTFN", np.uint8))
    clear = (action == ord("R")) | ((raw & DBN_SNAPSHOT) != 0)
    out, used = empty_events(n * _SLOTS).reshape(n, _SLOTS), np.zeros((n, _SLOTS), bool)
    each = empty_events(n)
    stamp(each, records)
    each["flags"] = flags_of(raw) & ~np.uint8(Flag.LAST)
    out[:] = each[:, None]
    used[:, _CLEAR] = clear
    out["action"][:, _CLEAR] = Action.CLEAR
    _trades(out, used, records)
    _levels(out, used, levels(records), np.where(clear[:, None], 0, before))
    used[:, _NOTHING] = ~used.any(axis=1)
    last = _SLOTS - 1 - np.argmax(used[:, ::-1], axis=1)
    out["flags"][np.arange(n), last] |= np.where(raw & DBN_LAST, np.uint8(Flag.LAST), np.uint8(0))
    suspect = (raw & DBN_MAYBE_BAD_BOOK) != 0
    return out[used], {Integrity.unknown_type: ~known, Integrity.suspect_flag: suspect}


def _trades(out: Events, used: Bools, records: Records) -> None:
    used[:, _TRADE] = records["action"] == ord("T")
    trade = out[:, _TRADE]
    trade["action"], trade["side"] = Action.TRADE, -SIDES[records["side"]]
    trade["px"] = np.where(records["price"] == DBN_UNDEF_PX, 0, records["price"])
    trade["qty"] = records["size"]


def _levels(out: Events, used: Bools, now: NDArray[np.int64], before: NDArray[np.int64]) -> None:
    """Old levels that go, then new or changed ones."""
    for k, (_, side) in enumerate(_BOTH):
        px, qty, old_px, old_qty = now[:, 2 * k], now[:, 2 * k + 1], before[:, 2 * k], before[:, 2 * k + 1]
        moved = (px != old_px) | (qty == 0)
        used[:, _OLD + k] = (old_qty > 0) & moved
        used[:, _NEW + k] = (qty > 0) & (moved | (qty != old_qty))
        for slot, at, size in ((_OLD + k, old_px, 0), (_NEW + k, px, qty)):
            out["action"][:, slot], out["side"][:, slot] = Action.MODIFY, side
            out["px"][:, slot], out["qty"][:, slot] = at, size
