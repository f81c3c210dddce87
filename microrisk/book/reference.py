"""Naive order books: dictionaries and sorting, the twin of the C++ `Engine`.

It is meant to be read and believed. Every level is computed from the orders each time it is asked for; nothing is kept
that could go stale. The rules are those that the engine promises; the tests hold both to the same numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from microrisk.book.reference_book import Book, Event, Pending, Resting
from microrisk.spec.records import BBO, DEPTH, FINDING, HARD, ORDER, VIEW, Action, Flag, Integrity, TradingState
from microrisk.spec.units import MAX_TICKS, NULL_PX, NULL_TS, TICK_NS, Side

ALL_INSTRUMENTS = 0xFFFFFFFF
MAX_INSTRUMENTS = 1 << 20
MAX_FINDINGS = 10_000
NO_LEVEL = 255


def _wrap(x: int) -> int:
    """Two's complement of 64 bits: what hostile sums do in the engine."""
    return (x + 2**63) % 2**64 - 2**63


class ReferenceEngine:
    """Books of many instruments with the methods of the C++ engine; see there for what each does.

    Parameters
    ----------
    always_open : every instrument is in continuous trading at all times
    """

    def __init__(self, *, always_open: bool = False) -> None:
        self.n_events = 0
        self.now = NULL_TS
        self._books: dict[int, Book] = {}
        self._first_state = TradingState.ALWAYS if always_open else TradingState.UNKNOWN
        self._integrity: Counter[Integrity] = Counter()
        self._findings: list[tuple[int, ...]] = []
        self._arrivals = 0
        self._ticks = self._views_on = self._bbo_on = False
        self._every_ns = 0
        self._bbo: list[tuple[int, ...]] = []
        self._views: list[NDArray[np.void]] = []
        self._actions: dict[int, Callable[[Book, Event], None]] = {
            Action.NONE: lambda book, e: None,
            Action.ADD: self._add,
            Action.MODIFY: self._modify,
            Action.REDUCE: self._reduce,
            Action.DELETE: self._delete,
            Action.REPLACE: self._replace,
            Action.CLEAR: self._clear,
            Action.TRADE: self._trade,
            Action.STATE: self._state,
            Action.FILL: self._fill,
        }

    # -- what can be asked --------------------------------------------------------------------------------------

    @property
    def live_orders(self) -> int:
        """Resting orders of all instruments."""
        return sum(len(b.orders) for b in self._books.values())

    def instruments(self) -> NDArray[np.uint32]:
        """Every instrument that had a book event, in rising order."""
        return np.array(sorted(i for i, b in self._books.items() if b.had_event), np.uint32)

    def orders(self, instrument: int) -> NDArray[np.void]:
        """ORDER records: bids best first, asks best first, queue order inside a level; L2 levels have order_id 0."""
        book = self._books.get(instrument)
        rows: list[tuple[int, ...]] = []
        for side in (Side.BID, Side.ASK):
            for px, qty in book.levels(side) if book else ():
                assert book is not None
                queue = book.queue(side, px)
                rows += [(o.order_id, px, o.qty, n, instrument, side) for n, o in enumerate(queue)]
                rows += [] if queue else [(0, px, qty, 0, instrument, side)]
        return np.array(rows, ORDER)

    def levels(self, instrument: int, depth: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Bid and ask levels (n, 2), price and quantity, best first; depth 0 = all."""
        book = self._books.get(instrument, Book(TradingState.UNKNOWN))
        bids, asks = (book.levels(s)[: depth or None] for s in (Side.BID, Side.ASK))
        return np.array(bids, np.int64).reshape(-1, 2), np.array(asks, np.int64).reshape(-1, 2)

    def queue_position(self, instrument: int, order_id: int) -> tuple[int, int]:
        """(orders ahead, quantity ahead) in the order's level; KeyError when it does not rest."""
        book = self._books.get(instrument, Book(TradingState.UNKNOWN))
        order = book.orders[order_id]
        ahead = [o for o in book.queue(order.side, order.px) if o.place < order.place]
        return len(ahead), sum(o.qty for o in ahead)

    def integrity(self, instrument: int | None = None) -> dict[str, int]:
        """Count of every kind of finding, of one instrument or in all."""
        book = self._books.get(-1 if instrument is None else instrument)
        counts = self._integrity if instrument is None else book.integrity if book else Counter()
        return {kind.name: counts[kind] for kind in Integrity}

    def findings(self) -> NDArray[np.void]:
        """The first 10,000 findings, FINDING."""
        return np.array(self._findings, FINDING)

    def suspect(self, instrument: int) -> bool:
        """Whether the instrument's book is marked as not to be trusted."""
        return instrument in self._books and self._books[instrument].suspect

    # -- what can be told ---------------------------------------------------------------------------------------

    def record_bbo(self) -> None:
        """Keep a row for each change of a best price or size."""
        self._bbo_on = True

    def record_views(self, every_ns: int = 0) -> None:
        """Keep a view of each completed event, at most one per `every_ns` and instrument."""
        self._views_on, self._every_ns = True, every_ns

    def ticks(self, on: bool) -> None:
        """Make staleness views on the 250 ms grid."""
        self._ticks = on

    def take_bbo(self) -> NDArray[np.void]:
        """Hand over and forget the BBO rows."""
        rows, self._bbo = self._bbo, []
        return np.array(rows, BBO)

    def take_views(self) -> NDArray[np.void]:
        """Hand over and forget the VIEW records."""
        rows, self._views = self._views, []
        return np.array(rows, VIEW).reshape(-1)

    def count(self, kind: int, n: int = 1, instrument: int | None = None) -> None:
        """Add findings of a decoder; a gap on no instrument in particular marks all books."""
        if n == 0:
            return
        instrument = ALL_INSTRUMENTS if instrument is None else instrument
        book = self._book(instrument) if instrument < MAX_INSTRUMENTS else None
        self._note(Integrity(kind), n, book, (self.now, 0, 0, 0, 0, instrument, kind))
        if book is None and kind == Integrity.gap:
            for each in self._books.values():
                each.suspect = True

    def reset_book(self, instrument: int) -> None:
        """Throw the book away; its mark goes too. No message says so: its stamps are the clock and number 0."""
        if instrument in self._books:
            self._empty(self._books[instrument])
            self._books[instrument].stamps = (self.now, NULL_TS, 0)

    def run_events(self, events: NDArray[np.void]) -> None:
        """Apply EVENT records in order."""
        for row in events.tolist():
            self._apply(Event(*row))

    def finish(self) -> None:
        """End of the input: snapshots end, and last changes are recorded."""
        for index in sorted(self._books):
            book = self._books[index]
            book.in_snapshot = False
            self._record_bbo(index, book)

    # -- findings -----------------------------------------------------------------------------------------------

    def _note(self, kind: Integrity, n: int, book: Book | None, finding: tuple[int, ...]) -> None:
        self._integrity[kind] += n
        if len(self._findings) < MAX_FINDINGS:
            self._findings.append(finding)
        if book is not None:
            book.integrity[kind] += n
            book.suspect |= kind in HARD or kind == Integrity.unknown_order

    def _report(self, kind: Integrity, book: Book | None, e: Event) -> None:
        self._note(kind, 1, book, (e.ts_event, e.seq, e.order_id, e.px, e.qty, e.instrument, kind))

    # -- one event ----------------------------------------------------------------------------------------------

    def _book(self, instrument: int) -> Book:
        if instrument not in self._books:
            self._books[instrument] = Book(self._first_state)
        return self._books[instrument]

    def _apply(self, e: Event) -> None:
        self._advance(e.ts_event if e.ts_recv == NULL_TS else e.ts_recv)
        if e.instrument >= MAX_INSTRUMENTS:
            self._whole_market(e)
            return
        book = self._book(e.instrument)
        book.stamps = (e.ts_event, e.ts_recv, e.seq)
        snapshot = bool(e.flags & Flag.SNAPSHOT)
        if snapshot and not book.in_snapshot:
            book.suspect = False
        book.in_snapshot = snapshot
        book.suspect |= bool(e.flags & Flag.SUSPECT)
        action = self._actions.get(e.action)
        if action is None:
            self._report(Integrity.malformed, book, e)
        else:
            action(book, e)
        if e.flags & Flag.LAST and not snapshot:
            self._complete(book, e)

    def _advance(self, to: int) -> None:
        """The clock never goes back; ticks at the grid points on the way, before the event."""
        if to <= self.now:
            return
        if self._ticks and self.now != NULL_TS:
            point = (self.now // TICK_NS + 1) * TICK_NS
            while point <= to and any(b.ticks_left for b in self._books.values()):
                self._tick(point)
                point += TICK_NS
        self.now = to

    def _tick(self, point: int) -> None:
        for index in sorted(self._books):
            book = self._books[index]
            if book.ticks_left:
                book.ticks_left -= 1
                self._record_view(index, book, point, Pending(), action=0, flags=0, tick=1)

    def _whole_market(self, e: Event) -> None:
        """A state for all instruments, present and future; an opening does not end a halt or an auction."""
        known = e.ref in set(TradingState) and e.action == Action.STATE and e.instrument == ALL_INSTRUMENTS
        if not known:
            self._report(Integrity.malformed, None, e)
            return
        if self._first_state == TradingState.ALWAYS:
            return
        self._first_state = TradingState(e.ref)
        for book in self._books.values():
            held = book.state in (TradingState.HALTED, TradingState.AUCTION)
            if not (held and e.ref == TradingState.TRADING):
                book.state = self._first_state

    def _applied(self, book: Book, e: Event) -> None:
        self.n_events += 1
        book.had_event = True
        book.changed |= not e.flags & Flag.SNAPSHOT

    def _quantity(self, book: Book, e: Event, kind: str, side: int, px: int, qty: int) -> None:
        """Add one quantity to the view in the making; parts of a snapshot are no news."""
        if e.flags & Flag.SNAPSHOT or qty <= 0 or not self._views_on:
            return
        p = book.pending
        setattr(p, kind, _wrap(getattr(p, kind) + qty))
        p.px, p.side, p.posted = px, side, kind == "add"

    # -- one method an action -----------------------------------------------------------------------------------

    def _enter(self, book: Book, side: int, px: int, order_id: int, qty: int) -> bool:
        """A new order at the back of its level; False when the level cannot take it."""
        if qty > book.room(side, px):
            return False
        self._arrivals += 1
        book.orders[order_id] = Resting(order_id, side, px, qty, self._arrivals)
        return True

    def _post(self, book: Book, e: Event, side: int, order_id: int) -> bool:
        """Enter an order as news."""
        if e.px == 0 and not e.flags & Flag.SNAPSHOT:
            self._report(Integrity.zero_price, book, e)
        if not self._enter(book, side, e.px, order_id, e.qty):
            self._report(Integrity.malformed, book, e)
            return False
        self._quantity(book, e, "add", side, e.px, e.qty)
        return True

    def _add(self, book: Book, e: Event) -> None:
        if e.side not in (Side.BID, Side.ASK):
            self._report(Integrity.malformed, book, e)
        elif e.qty <= 0:
            self._report(Integrity.zero_qty, book, e)
        elif e.order_id in book.orders:
            self._report(Integrity.duplicate_order, book, e)
        elif self._post(book, e, e.side, e.order_id):
            self._applied(book, e)

    def _modify(self, book: Book, e: Event) -> None:
        if e.flags & Flag.EXEC:
            self._traded(book, e)
        if e.order_id == 0:
            self._modify_level(book, e)
        elif e.order_id not in book.orders:
            self._report(Integrity.unknown_order, book, e)
            if e.qty != 0:
                self._add(book, e)
        elif e.qty == 0:
            self._delete(book, e)
        elif e.qty < 0:
            self._report(Integrity.zero_qty, book, e)
        else:
            self._modify_order(book, e, book.orders[e.order_id])

    def _modify_order(self, book: Book, e: Event, order: Resting) -> None:
        old_side, old_px, old_qty = order.side, order.px, order.qty
        side = old_side if e.side == Side.NONE else Side.ASK if e.side == Side.ASK else Side.BID
        if side != old_side:
            self._report(Integrity.side_mismatch, book, e)
        stays = (side, e.px) == (old_side, old_px)
        if stays and (e.qty <= old_qty or e.flags & Flag.PRIORITY_KEPT):
            if e.qty - old_qty > book.room(side, e.px):
                self._report(Integrity.malformed, book, e)
                return
            order.qty = e.qty
        else:
            if not stays and e.px == 0 and not e.flags & Flag.SNAPSHOT:
                self._report(Integrity.zero_price, book, e)
            del book.orders[e.order_id]
            if not self._enter(book, side, e.px, e.order_id, e.qty):
                self._report(Integrity.malformed, book, e)
        self._applied(book, e)
        if e.flags & Flag.EXEC:
            return
        if stays:
            self._difference(book, e, side, e.qty - old_qty)
        else:
            self._quantity(book, e, "cancel", old_side, old_px, old_qty)
            self._quantity(book, e, "add", side, e.px, e.qty)

    def _difference(self, book: Book, e: Event, side: int, more: int) -> None:
        """Quantity added to or (negative) taken off the price of the event."""
        self._quantity(book, e, "add" if more > 0 else "cancel", side, e.px, abs(more))

    def _modify_level(self, book: Book, e: Event) -> None:
        if e.side not in (Side.BID, Side.ASK):
            self._report(Integrity.malformed, book, e)
        elif e.qty < 0:
            self._report(Integrity.zero_qty, book, e)
        elif book.queue(e.side, e.px):
            self._report(Integrity.malformed, book, e)
        elif e.qty == 0 and (e.side, e.px) not in book.flat:
            self._report(Integrity.unknown_level, book, e)
        else:
            before = book.flat.pop((e.side, e.px), 0)
            if e.qty:
                book.flat[e.side, e.px] = e.qty
            self._applied(book, e)
            if not e.flags & Flag.EXEC:
                self._difference(book, e, e.side, e.qty - before)

    def _reduce(self, book: Book, e: Event) -> None:
        executed = bool(e.flags & Flag.EXEC)
        if executed:
            self._traded(book, e)
        order = book.orders.get(e.order_id)
        if order is None:
            self._report(Integrity.unknown_order, book, e)
            return
        if e.qty <= 0:
            self._report(Integrity.zero_qty, book, e)
            return
        gone = min(e.qty, order.qty)
        if e.qty > order.qty:
            self._report(Integrity.over_execute, book, e)
        order.qty -= gone
        if order.qty == 0:
            del book.orders[e.order_id]
        self._applied(book, e)
        if not executed:
            self._quantity(book, e, "cancel", order.side, order.px, gone)
        elif not e.flags & Flag.NO_PRINT:
            self._quantity(book, e, "trade", order.side, e.px or order.px, gone)

    def _delete(self, book: Book, e: Event) -> None:
        if e.flags & Flag.EXEC:
            self._traded(book, e)
        order = book.orders.pop(e.order_id, None)
        if order is None:
            self._report(Integrity.unknown_order, book, e)
            return
        self._applied(book, e)
        if not e.flags & Flag.EXEC:
            self._quantity(book, e, "cancel", order.side, order.px, order.qty)

    def _replace(self, book: Book, e: Event) -> None:
        order = book.orders.pop(e.order_id, None)
        if order is None:
            self._report(Integrity.unknown_order, book, e)
            return
        self._applied(book, e)
        self._quantity(book, e, "cancel", order.side, order.px, order.qty)
        if e.qty <= 0:
            self._report(Integrity.zero_qty, book, e)
        elif e.ref in book.orders:
            self._report(Integrity.duplicate_order, book, e)
        else:
            self._post(book, e, order.side, e.ref)

    def _empty(self, book: Book) -> None:
        book.orders.clear()
        book.flat.clear()
        book.suspect = False

    def _clear(self, book: Book, e: Event) -> None:
        self._empty(book)
        self._applied(book, e)

    def _trade(self, book: Book, e: Event) -> None:
        self._traded(book, e)
        if not e.flags & Flag.NO_PRINT:
            self._quantity(book, e, "trade", e.side, e.px, e.qty)

    def _traded(self, book: Book, e: Event) -> None:
        """The first trade outside an auction opens the session."""
        if book.state in (TradingState.UNKNOWN, TradingState.PREOPEN) and not e.flags & Flag.CROSS:
            book.state = TradingState.TRADING

    def _state(self, book: Book, e: Event) -> None:
        if e.ref not in set(TradingState):
            self._report(Integrity.malformed, book, e)
        elif book.state != TradingState.ALWAYS:
            book.state = TradingState(e.ref)

    def _fill(self, book: Book, e: Event) -> None:
        if e.order_id not in book.orders:
            self._report(Integrity.unknown_fill, book, e)

    # -- the end of an event ------------------------------------------------------------------------------------

    def _complete(self, book: Book, e: Event) -> None:
        if book.changed:
            book.changed = False
            self._check_crossed(book, e)
        self._record_bbo(e.instrument, book)
        if self._views_on:
            pending, book.pending = book.pending, Pending()
            book.ticks_left = MAX_TICKS
            self._record_view(e.instrument, book, self.now, pending, action=e.action, flags=e.flags, tick=0)

    def _check_crossed(self, book: Book, e: Event) -> None:
        bids, asks = book.levels(Side.BID), book.levels(Side.ASK)
        if not bids or not asks or bids[0][0] < asks[0][0]:
            return
        name = "locked" if bids[0][0] == asks[0][0] else "crossed"
        open_now = book.state in (TradingState.TRADING, TradingState.ALWAYS)
        self._report(Integrity[name if open_now else name + "_preopen"], book, e)

    def _record_bbo(self, instrument: int, book: Book) -> None:
        empty = (NULL_PX, 0)
        bid = (book.levels(Side.BID) or [empty])[0]
        ask = (book.levels(Side.ASK) or [empty])[0]
        if self._bbo_on and (*bid, *ask) != book.best:
            book.best = (*bid, *ask)
            self._bbo.append((*book.stamps, *bid, *ask, instrument, 0))

    def _record_view(
        self, instrument: int, book: Book, now: int, p: Pending, *, action: int, flags: int, tick: int
    ) -> None:
        if now < book.next_view:
            return
        if self._every_ns > 0:
            book.next_view = now + self._every_ns
        view = np.zeros((), VIEW)
        view["now"] = now
        view["ts_event"], view["ts_recv"], view["seq"] = book.stamps
        view["px"], view["side"], view["action"], view["flags"] = p.px, p.side, action, flags
        view["add_qty"], view["cancel_qty"], view["trade_qty"] = p.add, p.cancel, p.trade
        view["instrument"], view["tick"], view["suspect"] = instrument, tick, book.suspect
        for side, name in ((Side.BID, "bid"), (Side.ASK, "ask")):
            top = book.levels(side)[:DEPTH]
            view["n_" + name] = len(top)
            view[name + "_px"][: len(top)] = [px for px, _ in top]
            view[name + "_qty"][: len(top)] = [qty for _, qty in top]
        prices = [px for px, _ in book.levels(p.side)[:DEPTH]]
        view["level"] = prices.index(p.px) if p.posted and p.px in prices else NO_LEVEL
        self._views.append(view)
