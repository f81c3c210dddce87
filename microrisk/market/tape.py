"""A recording that is edited while it runs: messages put in, later messages of orders that went too early taken out.

What a tape guarantees: every reference stays known, no order is taken twice, and the edited book is never crossed where
the recording's own was not. To that end only whole orders of the recording are taken, and an inserted order leaves
before a message of the recording would meet it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from microrisk.market.ladder import Ladder
from microrisk.market.rng import Stream
from microrisk.spec.records import EVENT, Action, Flag, TradingState
from microrisk.spec.units import NULL_TS

Events = NDArray[np.void]
Row = tuple[int, int, int, int, int, int, int]
"""action, order_id, ref, side, px, qty, flags"""

ADD, MODIFY, REDUCE, DELETE = int(Action.ADD), int(Action.MODIFY), int(Action.REDUCE), int(Action.DELETE)
REPLACE, CLEAR, TRADE, STATE = int(Action.REPLACE), int(Action.CLEAR), int(Action.TRADE), int(Action.STATE)
FILL = int(Action.FILL)
LAST, EXEC, HIDDEN, CROSS = int(Flag.LAST), int(Flag.EXEC), int(Flag.HIDDEN), int(Flag.CROSS)
SNAPSHOT = int(Flag.SNAPSHOT)
OPEN_STATES = (int(TradingState.TRADING), int(TradingState.ALWAYS))
ALL_INSTRUMENTS = 0xFFFFFFFF
FIRST_ID = 1 << 62


@dataclass
class Scale:
    """What is usual in the recording: prices and sizes in feed units, rates a second."""

    tick: int
    median_qty: int
    sizes: NDArray[np.int64]  # sorted sizes of new orders
    side_rate: float  # aggressive orders a second on one side

    def size(self, share: float) -> int:
        """A size that occurs: the quantile `share` of the recording's new orders."""
        return int(self.sizes[min(int(share * len(self.sizes)), len(self.sizes) - 1)])


@dataclass
class Tape:
    """One instrument of a recording, from its first event on.

    Attributes
    ----------
    ladder : the edited book, inserted orders too
    own : ids of inserted orders that rest
    thin : share of the recording's new orders that are left out, by side
    """

    events: Events
    mine: NDArray[np.int64]  # places of the instrument's events (and those of all instruments) in the recording
    scale: Scale
    rng: Stream
    next_id: int
    ladder: Ladder = field(default_factory=Ladder)
    own: dict[int, None] = field(default_factory=dict)
    thin: dict[int, float] = field(default_factory=lambda: {1: 0.0, -1: 0.0})
    now: int = 0
    _gone: dict[int, int] = field(default_factory=dict)
    _at: int = 0
    _whole: bool = True
    _open: bool = False
    _rows: list[tuple[int, int, Row]] = field(default_factory=list)
    _out: list[int] = field(default_factory=list)

    # -- what an episode may do -----------------------------------------------------------------------------------

    def ready(self) -> bool:
        """Whether messages may be put in here: complete events, continuous trading, a proper two-sided book."""
        bid, ask = self.ladder.best(1), self.ladder.best(-1)
        return self._whole and self._open and bid is not None and ask is not None and bid < ask

    def add(self, side: int, px: int, qty: int) -> int:
        """An inserted order; its id, or 0 when the price would cross."""
        other = self.ladder.best(-side)
        if other is not None and (px - other) * side >= 0:
            return 0
        self.next_id += 1
        self._put((ADD, self.next_id, 0, side, px, qty, 0))
        self.own[self.next_id] = None
        return self.next_id

    def cancel(self, order_id: int) -> None:
        """Withdraw an order, whosever it is; one that is gone already is let be."""
        order = self.ladder.orders.get(order_id)
        if order is not None:
            self._forget(order_id, order[2])
            self._put((DELETE, order_id, 0, order[0], order[1], order[2], 0))

    def execute(self, order_id: int) -> int:
        """Trade against the whole of an order; its size."""
        order = self.ladder.orders.get(order_id)
        if order is None:
            return 0
        self._forget(order_id, order[2])
        self._put((REDUCE, order_id, 0, order[0], order[1], order[2], EXEC))
        return order[2]

    def trade(self, side: int, px: int, qty: int) -> None:
        """A print that changes no displayed order; `side` is the resting one."""
        self._put((TRADE, 0, 0, side, px, qty, HIDDEN))

    # -- running --------------------------------------------------------------------------------------------------

    def move(self, at: int, now: int, latest: int) -> None:
        """The next inserted messages are sent at `now`: before the place `at`, or `latest`, the next event's."""
        self.now = now
        self._at = min(max(self._at, at), latest)

    def step(self, place: int, row: Row) -> None:
        """The recording's next event of this instrument (place in the recording): edit, then apply."""
        action, order_id, ref, side, px, qty, flags = row
        self._at = place
        if action == STATE:
            self._open = ref in OPEN_STATES
        elif (action == TRADE or flags & EXEC) and not flags & CROSS:
            self._open = True
        if self._dead(action, order_id, ref, side, qty, flags):
            self._out.append(place)
        else:
            self._make_way(action, order_id, side, px, flags)
            if action == CLEAR:
                self.own.clear()
                self._gone.clear()
            self.ladder.apply(*row)
        self._whole = bool(flags & LAST) and not flags & SNAPSHOT
        self._at = place + 1

    def _dead(self, action: int, order_id: int, ref: int, side: int, qty: int, flags: int) -> bool:
        """Whether the event is about an order that is no longer there, or is one that must not come."""
        left = self._gone.get(order_id)
        if action == ADD:
            self._gone.pop(order_id, None)  # an id that the venue uses again
            thin = self.thin.get(side, 0.0)
            if thin > 0.0 and not flags & SNAPSHOT and self.rng.uniform() < thin:
                self._gone[order_id] = qty
                return True
            return False
        if left is None or action not in (MODIFY, REDUCE, DELETE, REPLACE, FILL):
            return False
        if action == REPLACE:
            self._gone[ref] = qty
        if action == MODIFY:
            self._gone[order_id] = left = qty
        if action == REDUCE:
            self._gone[order_id] = left = left - qty
        if action in (DELETE, REPLACE) or left <= 0:
            del self._gone[order_id]
        return True

    def _make_way(self, action: int, order_id: int, side: int, px: int, flags: int) -> None:
        """Inserted orders leave before the recording's message would lock, cross or trade through them."""
        if not self.own or action not in (ADD, MODIFY, REPLACE, REDUCE, DELETE):
            return
        known = self.ladder.orders.get(order_id)
        if action in (REDUCE, DELETE):
            if known is None or not flags & EXEC:
                return
            side, px = -known[0], known[1] + known[0]  # what lies beyond the traded price is traded through
        elif known is not None:
            side = side or known[0]
        for own in [k for k in self.own if self._meets(k, side, px)]:
            self.cancel(own)

    def _meets(self, own: int, side: int, px: int) -> bool:
        mine = self.ladder.orders[own]
        return mine[0] == -side and (px - mine[1]) * side >= 0

    def _forget(self, order_id: int, qty: int) -> None:
        """The recording's later messages of this order are to be left out."""
        if order_id in self.own:
            del self.own[order_id]
        else:
            self._gone[order_id] = qty

    def _put(self, row: Row) -> None:
        self.ladder.apply(*row)
        self._rows.append((self._at, self.now, row))

    # -- result ---------------------------------------------------------------------------------------------------

    def edits(self) -> tuple[Events, NDArray[np.int64], NDArray[np.int64]]:
        """Inserted events, the place in the recording that each comes before, and the places that are left out.

        An inserted event is complete (LAST) unless it stands inside an event of several records.
        """
        out = np.zeros(len(self._rows), EVENT)
        places = np.array([at for at, _, _ in self._rows], np.int64)
        if len(out):
            model = self.events[self.mine[np.maximum(np.searchsorted(self.mine, places) - 1, 0)]]
            out["seq"], out["feed"] = self.events["seq"][np.maximum(places - 1, 0)], model["feed"]
            clock = np.array([now for _, now, _ in self._rows], np.int64)
            null = model["ts_recv"] == NULL_TS
            delay = np.where(null, 0, model["ts_recv"] - model["ts_event"])
            out["ts_event"], out["ts_recv"] = clock - delay, np.where(null, NULL_TS, clock)
            out["instrument"] = self.events["instrument"][self.mine[0]]
            rows = list(zip(*(row for _, _, row in self._rows), strict=True))
            for name, values in zip(("action", "order_id", "ref", "side", "px", "qty", "flags"), rows, strict=True):
                out[name] = values
            out["flags"] |= np.where(self._at_boundary(places), LAST, 0).astype(np.uint8)
        return out, places, np.array(self._out, np.int64)

    def _at_boundary(self, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the instrument's event before each place completes an event."""
        k = np.searchsorted(self.mine, places) - 1
        last = (self.events["flags"][self.mine] & LAST) != 0
        return np.asarray((k < 0) | last[np.maximum(k, 0)])
