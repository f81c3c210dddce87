"""What a LOBSTER feed must know of its book to turn rows into events that any engine can apply.

A LOBSTER file shows the levels 1..N only: orders leave that were never shown to come, levels come into the window from
beyond it and go out again, and nothing is told about them meanwhile. The orderbook file says what the window holds
after every message. `Tracker` therefore puts parts of a book image (flag SNAPSHOT: no news) before a message:

1. A level of the image that is not held as the image says is made so. If it was held when it left the window, and the
   sum of its orders still is the one shown, the orders come back in their queue; otherwise the level becomes one
   aggregate order with an id of the feed's own (SYNTHETIC and above).
2. A level that the image does not show leaves the book: outside the window nothing vouches for it.
3. An order that leaves without having been shown is taken out of its level's aggregate first, so that the message
   itself always names the order that LOBSTER names.

After the message the book holds exactly the levels of its image row.
"""

from __future__ import annotations

from microrisk.spec.records import Action, Flag
from microrisk.spec.units import Side

SYNTHETIC = 1 << 63
"""First id of aggregate orders; venue order numbers are far below."""
BUY, SELL = int(Side.BID), int(Side.ASK)
ADDED, REDUCED, DELETED, EXECUTED = 1, 2, 3, 4
_ADD, _REDUCE, _DELETE = int(Action.ADD), int(Action.REDUCE), int(Action.DELETE)
_SNAPSHOT = int(Flag.SNAPSHOT)

Sums = dict[int, int]
"""Price -> size of the levels of one side."""
Part = tuple[int, int, int, int, int]
"""action, order id, price, size, side of one event with flag SNAPSHOT."""


class _Ladder:
    """One side: the orders of each level in view (in queue order), their sums, and the levels put aside."""

    __slots__ = ("aside", "levels", "sums")

    def __init__(self) -> None:
        self.levels: dict[int, dict[int, int]] = {}
        self.sums: Sums = {}
        self.aside: dict[int, dict[int, int]] = {}


class Tracker:
    """The book as a LOBSTER pair tells it, and the corrections that keep an engine's book equal to it.

    Attributes
    ----------
    beyond_depth : orders that left without ever having been shown
    contradictions : messages that take more from a level than the image row leaves room for
    """

    def __init__(self) -> None:
        self.beyond_depth = 0
        self.contradictions = 0
        self._sides = {BUY: _Ladder(), SELL: _Ladder()}
        self._where: dict[int, tuple[int, int]] = {}
        self._next = SYNTHETIC
        self._parts: list[Part] = []

    def sums(self, side: int) -> Sums:
        """Price -> size of the levels held on one side."""
        return dict(self._sides[side].sums)

    def parts_before(
        self, kind: int, order: int, size: int, price: int, side: int, image: tuple[Sums, Sums] | None
    ) -> list[Part]:
        """What has to be applied before this message so that after it the book equals `image`; then take it as applied.

        Parameters
        ----------
        kind, order, size, price, side : the message row (types 1 to 4 change the book)
        image : levels (bids, asks) after the message, or None: then only rule 3 acts
        """
        self._parts = []
        if image is not None:
            for which, after in ((BUY, image[0]), (SELL, image[1])):
                own = which == side and ADDED <= kind <= EXECUTED
                before = self._before(kind, size, price, after) if own else after
                if self._sides[which].sums != before:
                    self._conform(which, before, after)
        if kind == ADDED:
            if order not in self._where and size > 0:
                self._push(side, price, order, size)
        elif kind == DELETED or (REDUCED <= kind <= EXECUTED and size > 0):
            self._settle(kind, order, size, price, side, exact=image is not None)
        return self._parts

    def _before(self, kind: int, size: int, price: int, after: Sums) -> Sums:
        """The image of the message's own side without the message's effect."""
        left = after.get(price, 0) + (-size if kind == ADDED else size)
        self.contradictions += left < 0
        before = dict(after)
        if left > 0:
            before[price] = left
        else:
            before.pop(price, None)
        return before

    def _conform(self, side: int, want: Sums, after: Sums) -> None:
        """Make one side hold `want`, which a message then turns into the image `after`."""
        ladder = self._sides[side]
        for price in [p for p in ladder.sums if p not in want]:
            ladder.aside[price] = self._drop(side, price)
        # a level that the image passes over is gone; only one beyond its last level may come back
        worst = min((side * p for p in after), default=None)
        for price in [p for p in ladder.aside if worst is None or (side * p > worst and p not in want)]:
            del ladder.aside[price]
        for price, total in want.items():
            if ladder.sums.get(price) != total:
                self._set(side, price, total)

    def _set(self, side: int, price: int, total: int) -> None:
        """Make the level's sum `total`: out of the orders put aside if they still add up, else as an aggregate."""
        ladder = self._sides[side]
        if price in ladder.levels:
            self._drop(side, price)
        orders = ladder.aside.pop(price, {})
        if sum(orders.values()) != total or any(i in self._where for i in orders):
            orders = {self._fresh(): total}
        for order, qty in orders.items():
            self._part(_ADD, order, price, qty, side)
            self._push(side, price, order, qty)

    def _fresh(self) -> int:
        self._next += 1
        return self._next - 1

    def _part(self, action: int, order: int, price: int, qty: int, side: int) -> None:
        self._parts.append((action, order, price, qty, side))

    def _drop(self, side: int, price: int) -> dict[int, int]:
        """Take a whole level out of the book; returns its orders."""
        ladder = self._sides[side]
        orders = ladder.levels.pop(price)
        del ladder.sums[price]
        for order, qty in orders.items():
            del self._where[order]
            self._part(_DELETE, order, price, qty, side)
        return orders

    def _push(self, side: int, price: int, order: int, qty: int) -> None:
        ladder = self._sides[side]
        ladder.levels.setdefault(price, {})[order] = qty
        ladder.sums[price] = ladder.sums.get(price, 0) + qty
        self._where[order] = side, price

    def _take(self, order: int, qty: int) -> None:
        """Reduce an order that is held; nothing left = it is gone."""
        side, price = self._where[order]
        ladder = self._sides[side]
        orders = ladder.levels[price]
        qty = min(qty, orders[order])
        orders[order] -= qty
        ladder.sums[price] -= qty
        if orders[order] == 0:
            del orders[order], self._where[order]
        if not orders:
            del ladder.levels[price], ladder.sums[price]

    def _settle(self, kind: int, order: int, size: int, price: int, side: int, *, exact: bool) -> None:
        """See to it that the order is there with enough size, then take the size off."""
        place = self._where.get(order)
        held = self._sides[place[0]].levels[place[1]][order] if place else 0
        fits = place == (side, price) and (held == size if kind == DELETED else held >= size)
        if not fits and size > 0 and (exact or place is None):
            self._reveal(order, size, price, side, place)
            held = size
        if order in self._where:
            self._take(order, held if kind == DELETED else size)

    def _reveal(self, order: int, size: int, price: int, side: int, place: tuple[int, int] | None) -> None:
        """Rule 3: an order of `size` comes out of the level's aggregate (out of nothing where there is none)."""
        self.beyond_depth += 1
        if place is not None:
            self._merge(*place)
        orders = self._sides[side].levels.get(price, {})
        source = next((i for i, qty in orders.items() if i >= SYNTHETIC and qty >= size), None)
        if source is None and self._sides[side].sums.get(price, 0) >= size:
            source = self._merge(side, price)
        if source is not None:
            self._part(_REDUCE, source, price, size, side)
            self._take(source, size)
        self._part(_ADD, order, price, size, side)
        self._push(side, price, order, size)

    def _merge(self, side: int, price: int) -> int:
        """Make one aggregate of a level whose orders have turned out to be uncertain."""
        total = self._sides[side].sums[price]
        self._drop(side, price)
        source = self._fresh()
        self._part(_ADD, source, price, total, side)
        self._push(side, price, source, total)
        return source
