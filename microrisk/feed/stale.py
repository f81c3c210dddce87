"""Stale orders: orders that live on in the feed although the venue must have removed them.

A feed without sequence numbers cannot show that a deletion was lost. What shows it is the market: a venue that matches
by price does not let an order rest beyond the price of an older one that still rests on the other side.

1. Only complete events count: what a venue announces within one of its moments (a taker that is created, filled and
   deleted) crosses nothing.
2. An order is accused when a younger order of the other side rests beyond its price at the end of an event; that
   younger order is a witness. Of two such orders the older one is accused: the younger has just been told by the venue.
3. An accusation stands as long as one of its witnesses rests; it then starts from nothing.
4. An order is stale when its accusation has stood for AFTER_NS of venue time and has had WITNESSES different
   witnesses that are not accused themselves. One order whose own deletion was lost can accuse many, but it is a single
   witness, and those that come after it speak against it.
5. Orders of one image, or of one event, are of the same age: they do not accuse each other.

The constants were chosen on the first half of a Bitstamp recording (30 minutes, 2026-05-02) and checked on the second.
At the end of a complete event no two live orders of it cross, so with the recording as it is any constants find its
two stale orders and no other. What they are for is a feed that loses much: with one deletion in a thousand taken out,
they set no live order aside (four trials); with one in two hundred, 0 and 6 of 279 and 297 set aside in the first half,
2 and 0 of 206 and 206 in the second. With 3 witnesses it was 63 to 72 of some 390: a maker that posts again and again
at one price, each time taken back at once, leaves three false witnesses within seconds.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

AFTER_NS = 1_000_000_000
"""An accusation must have stood this long. A recorder's lag is some 80 ms, at most 600 ms, in that recording."""
WITNESSES = 20
"""Different orders that must have rested beyond the price and are not accused themselves."""


@dataclass(frozen=True)
class Lives:
    """Orders over a run of events 0..n-1, arrays of one length in the order of their birth.

    Attributes
    ----------
    id : uint64
    side : int8, Side
    px : int64
    born : event that told the order, -1 for those that rested before the run
    gone : event at whose end it no longer rests, n when it outlives the run
    ts : int64[n], venue time of every event
    """

    id: NDArray[np.uint64]
    side: NDArray[np.int8]
    px: NDArray[np.int64]
    born: NDArray[np.int64]
    gone: NDArray[np.int64]
    ts: NDArray[np.int64]


@dataclass
class Accusation:
    """Since when, who ever was a witness, who may still rest, and the event at whose end the last of them is gone.

    `gone` is that event for the accused order itself; both count within one run.
    """

    since: int
    gone: int
    ever: set[int] = field(default_factory=set)
    resting: set[int] = field(default_factory=set)
    until: int = -1


class StaleFinder:
    """Finds the stale orders of one instrument; keeps accusations from one run of events to the next."""

    def __init__(self, *, after_ns: int = AFTER_NS, witnesses: int = WITNESSES) -> None:
        self._after_ns, self._witnesses = after_ns, witnesses
        self._accused: dict[int, Accusation] = {}

    def clear(self) -> None:
        """A new image: nobody is accused."""
        self._accused.clear()

    def scan(self, lives: Lives) -> tuple[int, list[int]] | None:
        """The first event at whose end orders are found stale, and their ids; None when there is no such event.

        The caller takes these orders away and goes on with the events behind that one.
        """
        lives = _that_may_cross(lives)
        self._resume(lives)
        n, at = len(lives.ts), 0
        while at < n:
            if not self._accused:
                at = _first_crossing(lives, at)
                if at == n:
                    break
            self._hear(lives, at)
            for order in [o for o, case in self._accused.items() if case.until <= at or case.gone <= at]:
                del self._accused[order]
            if stale := self._judge(int(lives.ts[at])):
                return at, stale
            at += 1
        return None

    def _resume(self, lives: Lives) -> None:
        """The accusations from before, seen from this run: who of the accused and of the witnesses is still there."""
        if not self._accused:
            return
        before = lives.born < 0
        gone = dict(zip(lives.id[before].tolist(), lives.gone[before].tolist(), strict=True))
        for case_of, case in self._accused.items():
            case.gone = gone.get(case_of, -1)
            case.resting &= gone.keys()
            case.until = max((gone[w] for w in case.resting), default=-1)

    def _hear(self, lives: Lives, at: int) -> None:
        """Every order told by this event accuses the older ones that it rests beyond."""
        here = (lives.born <= at) & (lives.gone > at)
        for k in np.flatnonzero(here & (lives.born == at)).tolist():
            side, witness = int(lives.side[k]), int(lives.id[k])
            passed = lives.px < lives.px[k] if side > 0 else lives.px > lives.px[k]
            older = np.flatnonzero(here & (lives.born < at) & (lives.side == -side) & passed)
            for accused, gone in zip(lives.id[older].tolist(), lives.gone[older].tolist(), strict=True):
                case = self._accused.setdefault(accused, Accusation(int(lives.ts[at]), gone))
                case.ever.add(witness)
                case.resting.add(witness)
                case.until = max(case.until, int(lives.gone[k]))

    def _judge(self, now: int) -> list[int]:
        """Those found stale; the case is closed, and the others begin anew without these orders."""
        stale = [
            order
            for order, case in self._accused.items()
            if now - case.since >= self._after_ns and len(case.ever - self._accused.keys()) >= self._witnesses
        ]
        for order in stale:
            del self._accused[order]
        for case in self._accused.values():
            case.resting.difference_update(stale)
            case.ever.difference_update(stale)
        return stale


def _that_may_cross(lives: Lives) -> Lives:
    """Only the orders that rest at the end of some event, inside the range of prices where the two sides meet."""
    rests = lives.gone > lives.born
    bid, ask = rests & (lives.side > 0), rests & (lives.side < 0)
    top = lives.px[bid].max(initial=-(2**63))
    bottom = lives.px[ask].min(initial=2**63 - 1)
    near = (bid & (lives.px > bottom)) | (ask & (lives.px < top))
    return Lives(lives.id[near], lives.side[near], lives.px[near], lives.born[near], lives.gone[near], lives.ts)


def _first_crossing(lives: Lives, start: int) -> int:
    """The first event from `start` on that tells an order which rests beyond an older one; n when there is none."""
    bids: list[tuple[int, int]] = []
    asks: list[tuple[int, int]] = []
    there = np.flatnonzero(lives.gone > start)
    columns = (lives.side, lives.px, lives.born, lives.gone)
    for side, px, born, gone in zip(*(c[there].tolist() for c in columns), strict=True):
        own, other, key = (bids, asks, -px) if side > 0 else (asks, bids, px)
        if born >= start:
            while other and other[0][1] <= born:
                heapq.heappop(other)
            # keys of the other side have the other sign: beyond means that they sum up to less than nothing
            if other and other[0][0] + key < 0:
                return int(born)
        heapq.heappush(own, (key, gone))
    return len(lives.ts)
