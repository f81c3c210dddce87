"""One instrument in the naive engine: a dictionary of orders, and everything else computed when asked."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from microrisk.spec.records import Integrity, TradingState
from microrisk.spec.units import NULL_PX, NULL_TS, Side

MAX_QTY = 2**63 - 1

Level = tuple[int, int]
"""(price, quantity)"""


class Event(NamedTuple):
    """One EVENT record as plain integers; fields in the order of the dtype."""

    ts_event: int
    ts_recv: int
    seq: int
    order_id: int
    ref: int
    px: int
    qty: int
    instrument: int
    feed: int
    action: int
    side: int
    flags: int


@dataclass
class Resting:
    """A resting order. `place` grows with every arrival at a queue: smaller is earlier."""

    order_id: int
    side: int
    px: int
    qty: int
    place: int


@dataclass
class Pending:
    """Quantities since the last completed event, and where the last of them happened."""

    add: int = 0
    cancel: int = 0
    trade: int = 0
    px: int = 0
    side: int = 0
    posted: bool = False


@dataclass
class Book:
    """Everything about one instrument. `flat` holds the levels of an L2 feed: (side, px) -> quantity."""

    state: TradingState
    orders: dict[int, Resting] = field(default_factory=dict)
    flat: dict[tuple[int, int], int] = field(default_factory=dict)
    integrity: Counter[Integrity] = field(default_factory=Counter)
    pending: Pending = field(default_factory=Pending)
    stamps: tuple[int, int, int] = (NULL_TS, NULL_TS, 0)
    best: tuple[int, int, int, int] = (NULL_PX, 0, NULL_PX, 0)
    had_event: bool = False
    changed: bool = False
    in_snapshot: bool = False
    suspect: bool = False
    ticks_left: int = 0
    next_view: int = -(2**63)

    def levels(self, side: int) -> list[Level]:
        """(price, total quantity) of one side, best first."""
        total: defaultdict[int, int] = defaultdict(int)
        for order in self.orders.values():
            if order.side == side:
                total[order.px] += order.qty
        for (flat_side, px), qty in self.flat.items():
            if flat_side == side:
                total[px] += qty
        return sorted(total.items(), reverse=side == Side.BID)

    def queue(self, side: int, px: int) -> list[Resting]:
        """Orders of one level, first in the queue first."""
        return sorted((o for o in self.orders.values() if (o.side, o.px) == (side, px)), key=lambda o: o.place)

    def room(self, side: int, px: int) -> int:
        """Quantity that a level of orders can still take without leaving 64 bits; -1 on an L2 level."""
        return -1 if (side, px) in self.flat else MAX_QTY - sum(o.qty for o in self.queue(side, px))
