"""Which ITCH messages an event stream becomes: the table of live orders, without any bytes.

Rules of the book are those of the engine: a duplicate add is ignored, a removal beyond the remaining size removes the
order, an unknown modify is an add. What ITCH cannot say is counted in `Planner.counts` under a name of its own.
An order whose price or size does not fit is left out, and so is every later message of it, until a modify or replace
gives it a form that fits: then it comes in as a new order (at the back of its level). An order that is changed into a
form that does not fit is deleted. So the encoded book is the source's book restricted to the orders that fit.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from microrisk.errors import EncodeError
from microrisk.feed.itch_pack import Out
from microrisk.feed.scale import UNFIT
from microrisk.spec.records import Action, Flag, TradingState
from microrisk.spec.units import Side

SYNTHETIC = 1 << 63
"""References from here on are made by the planner: for a modify (ITCH needs a new one) and for ids that collide."""
NO_PRICE = -2
"""Scaled price of an execution that names none."""
NEGATIVE = -2
"""Scaled size of a quantity below 0, which no engine applies; UNFIT is a positive one that ITCH cannot hold."""
ALL_INSTRUMENTS = 0xFFFFFFFF

_EXEC, _NO_PRINT, _KEEP, _CROSS = int(Flag.EXEC), int(Flag.NO_PRINT), int(Flag.PRIORITY_KEPT), int(Flag.CROSS)
_ASK = int(Side.ASK)
_SIDE_CODE = {Side.BID: ord("B"), Side.ASK: ord("S"), Side.NONE: ord("B")}
_ACTION_CODE = {
    TradingState.TRADING: "T",
    TradingState.ALWAYS: "T",
    TradingState.HALTED: "H",
    TradingState.AUCTION: "Q",
}
_SYSTEM_CODE = {TradingState.TRADING: "Q", TradingState.CLOSED: "M"}
_PX, _QTY, _REF, _SIDE = range(4)

_BUY, _SELL, _EXECUTED, _PRICED, _QUIET, _CANCEL, _DELETE, _REPLACE, _TRADE, _CROSSED, _ACTION, _SYSTEM = map(int, Out)

Order = list[int]
Row = tuple[int, int, int, int, int, int, int, int, int]
"""(row, instrument, action, order_id, price, size, side, flags, ref); price and size scaled, or UNFIT / NO_PRICE."""


class Planner:
    """Turns rows of scaled events into flat plan numbers (six per message, itch_pack.COLUMNS); keeps the live orders.

    Attributes
    ----------
    counts : what was left out or said differently, by reason

    Parameters
    ----------
    feed_size : (instrument, ITCH size) -> size in feed units
    """

    def __init__(self, feed_size: Callable[[int, int], int]) -> None:
        self.counts: Counter[str] = Counter()
        self._feed_size = feed_size
        self._raw: Sequence[int] = ()
        self._books: defaultdict[int, dict[int, Order]] = defaultdict(dict)
        self._left: defaultdict[int, dict[int, list[int]]] = defaultdict(dict)  # id -> size in feed units, side
        self._taken: set[int] = set()
        self._fresh = SYNTHETIC
        self._out: list[int] = []
        self._handlers: list[Callable[[int, int, int, int, int, int, int, int], None]] = [
            {
                Action.ADD: self._add,
                Action.MODIFY: self._modify,
                Action.REDUCE: self._reduce,
                Action.DELETE: self._delete,
                Action.REPLACE: self._replace,
                Action.CLEAR: self._clear,
                Action.TRADE: self._trade,
                Action.STATE: self._state,
            }.get(action, self._nothing)
            for action in Action
        ]

    def plan(self, rows: Iterable[Row], raw: Sequence[int]) -> list[int]:
        """Flat list of six numbers a message, in order; `raw` holds the sizes of the rows in feed units.

        Raises EncodeError for an L2 modify or an unknown action.
        """
        self._out, self._raw = [], raw
        handlers = self._handlers
        for i, inst, action, oid, px, qty, side, flags, ref in rows:
            if action >= len(handlers):
                raise EncodeError("action", action, "a member of Action")
            handlers[action](i, inst, oid, px, qty, side, flags, ref)
        return self._out

    def live(self) -> int:
        """Orders in the encoded book."""
        return len(self._taken)

    def left_out(self) -> int:
        """Orders of the source that the encoded book does not hold now."""
        return sum(map(len, self._left.values()))

    # -- references ---------------------------------------------------------------------------------------------

    def _synthetic(self) -> int:
        self._fresh += 1
        return self._fresh - 1

    def _reference(self, oid: int) -> int:
        """The order's own id where ITCH can carry it: not used by a live order of another instrument, not reserved."""
        return self._synthetic() if oid in self._taken or oid >= SYNTHETIC else oid

    def _enter(self, i: int, inst: int, oid: int, px: int, qty: int, side: int) -> None:
        """A new order: A, or left out."""
        if px < 0 or qty < 0 or side == 0:
            self._leave(inst, oid, px, qty, side, self._raw[i])
            return
        ref = self._reference(oid)
        if qty:
            self._books[inst][oid] = [px, qty, ref, side]
            self._taken.add(ref)
        self._out += (i, _SELL if side == _ASK else _BUY, ref, 0, qty, px)

    def _leave(self, inst: int, oid: int, px: int, qty: int, side: int, raw: int) -> None:
        """Leave an order out from now on; one of negative size is none."""
        if qty == NEGATIVE:
            self.counts["qty_negative"] += 1
            return
        self.counts["px_unfit" if px < 0 else "qty_unfit" if qty < 0 else "side_unknown"] += 1
        if raw and side:
            self._left[inst][oid] = [raw, side]

    def _drop(self, inst: int, oid: int, order: Order) -> None:
        del self._books[inst][oid]
        self._taken.discard(order[_REF])

    def _is_ours(self, inst: int, oid: int) -> bool:
        """Whether a message about an order that is not in the table may go out under its own id."""
        if oid in self._left[inst]:
            self.counts["of_left_out"] += 1
        elif oid in self._taken or oid >= SYNTHETIC:
            self.counts["unknown_order"] += 1
        else:
            return True
        return False

    # -- one method an action -----------------------------------------------------------------------------------

    def _nothing(self, i: int, inst: int, oid: int, px: int, qty: int, side: int, flags: int, ref: int) -> None:
        return

    def _add(self, i: int, inst: int, oid: int, px: int, qty: int, side: int, flags: int, ref: int) -> None:
        known = self._books[inst].get(oid)
        if known is None:
            if oid in self._left[inst]:
                self.counts["of_left_out"] += 1
            else:
                self._enter(i, inst, oid, px, qty, side)
        elif px >= 0 and qty >= 0 and side:
            self._out += (i, _SELL if side == _ASK else _BUY, known[_REF], 0, qty, px)
        else:
            self.counts["duplicate_unfit"] += 1

    def _reduce(self, i: int, inst: int, oid: int, px: int, qty: int, side: int, flags: int, ref: int) -> None:
        order = self._books[inst].get(oid)
        if qty == NEGATIVE:
            self.counts["qty_negative"] += 1
        elif order is None:
            self._reduce_absent(i, inst, oid, px, qty, flags)
        elif qty == UNFIT:
            self._reduce_unfit(i, inst, oid, px, flags, order)
        else:
            self._remove(i, order[_REF], px, qty, flags, order[_PX])
            order[_QTY] -= qty
            if order[_QTY] <= 0:
                self._drop(inst, oid, order)

    def _reduce_absent(self, i: int, inst: int, oid: int, px: int, qty: int, flags: int) -> None:
        """Of an order that is left out (its size goes on) or unknown (the engine will say so)."""
        if self._is_ours(inst, oid):
            self._remove(i, oid, px, max(qty, 0), flags, NO_PRICE)
        elif oid in self._left[inst]:
            left = self._left[inst][oid]
            left[0] -= self._raw[i]
            if left[0] <= 0:
                del self._left[inst][oid]

    def _reduce_unfit(self, i: int, inst: int, oid: int, px: int, flags: int, order: Order) -> None:
        """By a size that ITCH cannot hold: the rest does not fit either, or nothing is left."""
        rest = self._feed_size(inst, order[_QTY]) - self._raw[i]
        self._drop(inst, oid, order)
        if rest > 0:
            self._leave(inst, oid, 0, UNFIT, order[_SIDE], rest)
            self._out += (i, _DELETE, order[_REF], 0, 0, 0)
        else:
            self._remove(i, order[_REF], px, order[_QTY], flags, order[_PX])

    def _remove(self, i: int, ref: int, px: int, qty: int, flags: int, own: int) -> None:
        """E, C or X for `qty` taken off an order at price `own`."""
        if not flags & _EXEC:
            self._out += (i, _CANCEL, ref, 0, qty, 0)
            return
        if px == UNFIT:
            self.counts["exec_px_unfit"] += 1
        quiet = flags & _NO_PRINT
        if px < 0 and quiet:
            px = max(own, 0)
        if px < 0 or (px == own and not quiet):
            self._out += (i, _EXECUTED, ref, 0, qty, 0)
        else:
            self._out += (i, _QUIET if quiet else _PRICED, ref, 0, qty, px)

    def _delete(self, i: int, inst: int, oid: int, px: int, qty: int, side: int, flags: int, ref: int) -> None:
        order = self._books[inst].get(oid)
        if order is None:
            if self._is_ours(inst, oid):
                self._out += (i, _DELETE, oid, 0, 0, 0)
            self._left[inst].pop(oid, None)
            return
        self._drop(inst, oid, order)
        if flags & _EXEC:  # a trade printed elsewhere took it: as C that is not printable, no cancel is counted
            self._out += (i, _QUIET, order[_REF], 0, order[_QTY], order[_PX])
        else:
            self._out += (i, _DELETE, order[_REF], 0, 0, 0)

    def _replace(self, i: int, inst: int, oid: int, px: int, qty: int, side: int, flags: int, ref: int) -> None:
        order = self._books[inst].get(oid)
        if order is None:
            self._replace_absent(i, inst, oid, px, qty, ref)
            return
        self._drop(inst, oid, order)
        other = self._books[inst].get(ref)
        if other is not None and px >= 0 and qty >= 0:  # the engine removes the old one and reports the duplicate
            self._out += (i, _REPLACE, order[_REF], other[_REF], qty, px)
        elif other is not None or ref in self._left[inst] or px < 0 or qty < 0:
            self._out += (i, _DELETE, order[_REF], 0, 0, 0)
            if other is None and ref not in self._left[inst]:
                self._leave(inst, ref, px, qty, order[_SIDE], self._raw[i])
        else:
            self._follow(i, inst, ref, order, px, qty, order[_SIDE])

    def _follow(self, i: int, inst: int, oid: int, order: Order, px: int, qty: int, side: int) -> None:
        """U from a dropped order to the order `oid`."""
        new = self._reference(oid)
        if qty:
            self._books[inst][oid] = [px, qty, new, side]
            self._taken.add(new)
        self._out += (i, _REPLACE, order[_REF], new, qty, px)

    def _replace_absent(self, i: int, inst: int, oid: int, px: int, qty: int, new: int) -> None:
        """The old order is left out (the new one may fit) or unknown (the engine will say so)."""
        left = self._left[inst].pop(oid, None)
        if left is None:
            free = new not in self._taken and new < SYNTHETIC
            if px >= 0 and qty >= 0 and free and self._is_ours(inst, oid):
                self._out += (i, _REPLACE, oid, new, qty, px)
        elif new not in self._books[inst] and new not in self._left[inst]:
            self.counts["of_left_out"] += 1
            self._enter(i, inst, new, px, qty, left[1])

    def _modify(self, i: int, inst: int, oid: int, px: int, qty: int, side: int, flags: int, ref: int) -> None:
        if oid == 0:
            raise EncodeError("order_id", 0, "an order of an L3 feed: ITCH has no levels")
        order = self._books[inst].get(oid)
        if qty == 0:
            self._delete(i, inst, oid, px, qty, side, flags, ref)
        elif qty == NEGATIVE:
            self.counts["qty_negative"] += 1
        elif order is None:
            self._modify_absent(i, inst, oid, px, qty, side)
        elif px < 0 or qty < 0:
            self._drop(inst, oid, order)
            self._leave(inst, oid, px, qty, side or order[_SIDE], self._raw[i])
            self._out += (i, _DELETE, order[_REF], 0, 0, 0)
        elif px == order[_PX] and qty <= order[_QTY] and side in (0, order[_SIDE]):
            self._shrink(i, order, qty, flags)
        else:
            self._move(i, inst, oid, order, px, qty, side, flags)

    def _modify_absent(self, i: int, inst: int, oid: int, px: int, qty: int, side: int) -> None:
        """Of an order that is left out (it may fit now, at the back of its level) or unknown: an add."""
        left = self._left[inst].pop(oid, None)
        if left is not None:
            side = side or left[1]
            self.counts["came_in_late"] += px >= 0 and qty >= 0
        self._enter(i, inst, oid, px, qty, side)

    def _shrink(self, i: int, order: Order, qty: int, flags: int) -> None:
        """In place: X, or C that is not printable when a trade printed elsewhere is the reason."""
        gone = order[_QTY] - qty
        order[_QTY] = qty
        if gone:
            kind = _QUIET if flags & _EXEC else _CANCEL
            self._out += (i, kind, order[_REF], 0, gone, order[_PX])

    def _move(self, i: int, inst: int, oid: int, order: Order, px: int, qty: int, side: int, flags: int) -> None:
        """New price, larger size or other side: U with a fresh reference; D and A when the side changes."""
        if flags & _KEEP:
            self.counts["priority_lost"] += 1
        self._drop(inst, oid, order)
        if side in (0, order[_SIDE]):
            new = self._synthetic()
            self._books[inst][oid] = [px, qty, new, order[_SIDE]]
            self._taken.add(new)
            self._out += (i, _REPLACE, order[_REF], new, qty, px)
        else:
            self._out += (i, _DELETE, order[_REF], 0, 0, 0)
            self._enter(i, inst, oid, px, qty, side)

    def _clear(self, i: int, inst: int, oid: int, px: int, qty: int, side: int, flags: int, ref: int) -> None:
        for order in self._books.pop(inst, {}).values():
            self._taken.discard(order[_REF])
            self._out += (i, _DELETE, order[_REF], 0, 0, 0)
        self._left.pop(inst, None)

    def _trade(self, i: int, inst: int, oid: int, px: int, qty: int, side: int, flags: int, ref: int) -> None:
        if px < 0 or qty < 0 or flags & _NO_PRINT:
            self.counts["trade_no_print" if flags & _NO_PRINT else "trade_unfit"] += 1
        elif flags & _CROSS:
            self._out += (i, _CROSSED, 0, 0, qty, px)
        else:
            self.counts["trade_side_unknown"] += side == 0
            self._out += (i, _TRADE, oid, _SIDE_CODE[Side(side)], qty, px)

    def _state(self, i: int, inst: int, oid: int, px: int, qty: int, side: int, flags: int, ref: int) -> None:
        everyone = inst == ALL_INSTRUMENTS
        code = (_SYSTEM_CODE if everyone else _ACTION_CODE).get(ref)  # type: ignore[call-overload]
        if code is None:
            self.counts["state_unknown"] += 1
        else:
            self._out += (i, _SYSTEM if everyone else _ACTION, 0, ord(code), 0, 0)
