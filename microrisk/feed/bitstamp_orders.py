"""Orders of one Bitstamp instrument: rows of the order log or of `live_orders_*` to EVENTs, without a loop over rows.

Rules (Bitstamp API v2, WebSocket: channel "live orders"; what the recording of 2026-05-02 shows is marked *):

1. `created` tells an order with its limit price and amount. A taker is told too, at its limit price, before it is
   matched: between the messages of one moment the book crosses, at the end of the moment it does not. Rows of one
   millisecond are therefore one event, whose last row carries LAST. *
2. `changed` is a partial fill: the amount is what remains, the price is that of the trade and not of the order. An
   amount that has not changed, or has grown, is an amendment; the order stays where it rests. *
3. `deleted` with amount 0 is a complete fill at the price of the row; with an amount it is a cancel, and the price is
   that of the order that replaces it, so the order leaves from where it rests. *
4. A trade shows as two rows, one of each side, with one price. The order with the smaller id was there first: its fill
   is printed, the other one carries NO_PRINT. Trades in the same moment equal the rows so marked, 284 of 284. *
5. `created` of amount 0, or of an ask at price 0, is a market order: it never rests, and what is said about it is
   counted in `never_rested`; so is what follows about an order whose remaining amount has been told as 0. Bids below
   half a step come at price 0 in an image of grouped prices: they rest. *
6. `changed` or `deleted` of an order that does not rest is an `unknown_order`; it is not added. `created` of one that
   rests is a `duplicate_order`; the first one stays.
7. There are no sequence numbers. An order that the market shows to be gone is set aside (see `stale`): a DELETE behind
   the event that proved it, flags EXEC and NO_PRINT, so that it is no cancel and no trade; `stale_order` names it. What
   the venue says about it later is counted in `never_rested`; should it trade, the finding was wrong and a notice
   says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from microrisk.feed.base import CHUNK_EVENTS, Events, empty_events
from microrisk.feed.stale import Lives, StaleFinder
from microrisk.spec.records import Action, FeedId, Flag, Integrity

NS_PER_MS = 1_000_000
EXP = 8
"""Decimal exponent of prices and amounts."""
UNREADABLE, CREATED, CHANGED, DELETED = 0, 1, 2, 3
MARKET = 4
"""A created order without a price or an amount."""
SPENT = 5
"""A change that leaves nothing: the end of an order, told before its deletion."""


def _kinds(*members: int) -> NDArray[np.bool_]:
    """A table to ask whether an action is one of these."""
    table = np.zeros(SPENT + 1, bool)
    table[list(members)] = True
    return table


_ENDS = _kinds(DELETED, SPENT)
_TOLD = _kinds(CREATED, MARKET)
_STATES = _kinds(CREATED, MARKET, DELETED, SPENT)
_AMOUNTS = _kinds(CREATED, CHANGED)
_OVER = _kinds(MARKET, SPENT)

ROW = np.dtype(
    [
        ("id", "<u8"),
        ("recv", "<i8"),  # recorder's time, ns, or NULL_TS
        ("event", "<i8"),  # venue time, ns
        ("px", "<i8"),  # 1e-8
        ("qty", "<i8"),  # 1e-8, what remains
        ("seq", "<u8"),  # EVENT.seq
        ("action", "i1"),  # UNREADABLE, CREATED, CHANGED or DELETED
        ("side", "i1"),  # Side of the order
    ]
)
Rows = NDArray[np.void]
_LAST, _EXEC, _PRINTED = int(Flag.LAST), int(Flag.EXEC), int(Flag.NO_PRINT)
_SNAPSHOT, _KEPT = int(Flag.SNAPSHOT), int(Flag.PRIORITY_KEPT)

Index = NDArray[np.int64]


@dataclass
class Output:
    """What rows became.

    Attributes
    ----------
    events : EVENT
    findings : (index of the event in front of which it was met, Integrity, number)
    stale : the DELETE events of orders set aside, which no row of the feed stands for
    notices : sentences for the user
    """

    events: Events
    findings: list[tuple[int, Integrity, int]] = field(default_factory=list)
    stale: list[np.void] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


class OrderBook:
    """The orders of one instrument as far as the feed must know them: what rests, and what will still be spoken of.

    Parameters
    ----------
    index : EVENT.instrument
    finder : None = stale orders stay in the book
    """

    def __init__(self, index: int, finder: StaleFinder | None) -> None:
        self.index = index
        self.finder = finder
        self.resting = np.zeros(0, ROW)
        self._ended: set[int] = set()
        self._aside: set[int] = set()

    def clear(self) -> None:
        """Nothing rests, nobody is suspected."""
        self.resting = np.zeros(0, ROW)
        self._ended.clear()
        self._aside.clear()
        if self.finder is not None:
            self.finder.clear()

    def apply(self, rows: Rows, *, image: bool = False) -> Output:
        """Rows of whole moments, in the order of the feed; `image` = parts of a book image, which are no news."""
        parts: list[Output] = []
        while True:
            run = _Run(self, rows)
            found = None if self.finder is None or image else self.finder.scan(run.lives())
            if found is None:
                parts.append(self._take(run, image=image))
                return _joined(parts)
            moment, stale = found
            end = int(run.ends[moment])
            out = self._take(_Run(self, rows[:end]), image=False)
            parts += [out, self._set_aside(stale, rows[end - 1])]
            _pass_on_last(out.events, parts[-1].events)
            rows = rows[end:]

    def _take(self, run: _Run, *, image: bool) -> Output:
        out = run.output(image=image)
        self.resting = run.resting()
        return out

    def _set_aside(self, stale: list[int], row: np.void) -> Output:
        """One DELETE for each stale order, with the times of the row that proved it."""
        keep = np.isin(self.resting["id"], np.array(stale, np.uint64), invert=True)
        gone, self.resting = self.resting[~keep], self.resting[keep]
        events = empty_events(len(gone))
        _stamp(events, np.repeat(row, len(gone)), self.index)
        events["order_id"], events["side"], events["px"], events["qty"] = (gone[n] for n in ("id", "side", "px", "qty"))
        events["action"], events["flags"] = Action.DELETE, _EXEC | _PRINTED
        self._aside.update(gone["id"].tolist())
        findings = [(len(events), Integrity.stale_order, len(events))]
        return Output(events, findings, stale=list(events))

    def ended(self, ids: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which orders have had their end told in another way: market orders, spent ones, stale ones."""
        past = [*self._ended, *self._aside]
        return np.isin(ids, np.array(past, np.uint64)) if past else np.zeros(len(ids), bool)

    def farewell(self, silent: Rows, over: NDArray[np.uint64], done: NDArray[np.uint64]) -> list[str]:
        """Remember the orders of which more will be said, forget those that are done; notices about wrong findings.

        `silent` are the rows that speak of ended orders: a stale one that trades was not stale.
        """
        notices = [
            f"order {int(row['id'])} was set aside as stale, and trades at line {int(row['seq'])}"
            for row in (silent if self._aside else silent[:0])
            if int(row["id"]) in self._aside and (row["action"] != DELETED or row["qty"] == 0)
        ]
        if self._ended or self._aside:
            self._ended.difference_update(done.tolist())
            self._aside.difference_update(done.tolist())
        self._ended.update(over.tolist())
        return notices


class _Run:
    """Rows of whole moments over the orders that rest before them, sorted into the life of each order.

    `all` holds the resting orders as rows in front of the new ones; everything else here is indexed alike. Orders are
    followed in a stable sort by id: a state row (created, deleted, market, spent) sets the state, a change does not.
    """

    def __init__(self, book: OrderBook, rows: Rows) -> None:
        self.book = book
        self.held = len(book.resting)
        self.all = np.concatenate([book.resting, rows])
        self.rows = self.all[self.held :]
        _classify(self.rows)
        starts = moments(rows)
        self.ends: Index = np.append(starts[1:], len(rows)) if len(rows) else starts
        self.moment = np.full(len(self.all), -1, np.int64)
        self.moment[self.held :] = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(rows))))
        self._follow()

    def _follow(self) -> None:
        """For each row, by its order: the state row before, the row of the amount before, the next state row.

        -1 where there is none. `final` is the last row of the order that says an amount.
        """
        sort = np.argsort(self.all["id"], kind="stable")
        ids, kind = self.all["id"][sort], self.all["action"][sort]
        first = _starts(ids)
        told = _TOLD[kind]
        twice = told & (_previous(kind == CREATED, first) > _previous(_ENDS[kind], first))
        state = _STATES[kind] & ~twice
        says = _AMOUNTS[kind] & ~twice
        self.twice = np.zeros(len(sort), bool)
        self.twice[sort] = twice
        self.before = _unsorted(_previous(state, first), sort)
        self.amount = _unsorted(_previous(says, first), sort)
        self.after = _unsorted(_next(state, first), sort)
        self.final = _unsorted(_last(says, first), sort)
        self.rests = (self.before >= 0) & (self.all["action"][self.before] == CREATED)

    def lives(self) -> Lives:
        """Every order of the run for the stale finder."""
        told = np.flatnonzero((self.all["action"] == CREATED) & ~self.twice)
        after = self.after[told]
        gone = np.where(after >= 0, self.moment[after], len(self.ends))
        ids, sides, prices = (self.all[name][told] for name in ("id", "side", "px"))
        return Lives(ids, sides, prices, self.moment[told], gone, self.rows["event"][self.ends - 1])

    def resting(self) -> Rows:
        """The orders that rest behind the run, each with what is left of it."""
        told = (self.all["action"] == CREATED) & ~self.twice & (self.after < 0)
        out: Rows = self.all[told]
        out["qty"] = self.all["qty"][self.final[told]]
        return out

    def output(self, *, image: bool) -> Output:
        """EVENTs of the rows, and what was found."""
        rows, rests, action = self.rows, self.rests[self.held :], self.rows["action"]
        told, end = _TOLD[action], _ENDS[action]
        left = np.where(rests, self.all["qty"][self.amount[self.held :]], 0)
        less = left - rows["qty"]
        told &= (action == CREATED) | self.twice[self.held :]
        about = (action == CHANGED) | end
        filled = about & rests & ((rows["qty"] == 0) | (~end & (less > 0)))
        gone, amended = end & rests & ~filled, about & ~end & rests & ~filled
        unknown = about & ~rests & ~self._over(about & ~rests)

        out = empty_events(len(rows))
        _stamp(out, rows, self.book.index)
        out["order_id"], out["side"], out["px"] = rows["id"], rows["side"], rows["px"]
        home = self.all["px"][self.before[self.held :]]
        out["px"][gone | amended] = home[gone | amended]
        out["qty"] = np.where(filled, less, np.where(gone, left, rows["qty"]))
        reduced = filled | (unknown & ~end)
        actions = (Action.ADD, Action.REDUCE, Action.MODIFY, Action.DELETE)
        for is_one, name in zip((told, reduced, amended, gone | (unknown & end)), actions, strict=True):
            out["action"][is_one] = name
        out["flags"] = np.where(filled, _EXEC, 0) | np.where(amended & (less == 0), _KEPT, 0)
        out["flags"][self._takers()] |= _PRINTED
        if image:
            out["flags"] = _SNAPSHOT
        return self._finish(out, told | filled | gone | amended | unknown, image=image)

    def _over(self, about: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which of these rows speak of orders whose end has been told: in this run, or before it."""
        if not about.any():
            return about
        before = self.before[self.held :]
        here = (before >= 0) & _OVER[self.all["action"][before]]
        over: NDArray[np.bool_] = about & (here | ((before < 0) & self.book.ended(self.rows["id"])))
        return over

    def _takers(self) -> Index:
        """Of two fills after one another, of both sides and with one price, the row of the larger id."""
        rows, ends, action = self.rows, self.moment[self.held :], self.rows["action"]
        fill = (action == CHANGED) | (action == SPENT) | ((action == DELETED) & (rows["qty"] == 0))
        takers, free = [], 0
        for a in np.flatnonzero(fill[:-1] & fill[1:] & (ends[:-1] == ends[1:])).tolist() if len(rows) else []:
            pair = rows["px"][a] == rows["px"][a + 1] and rows["side"][a] == -rows["side"][a + 1]
            if pair and a >= free:
                takers.append(a if rows["id"][a] > rows["id"][a + 1] else a + 1)
                free = a + 2
        return np.array(takers, np.int64)

    def _finish(self, out: Events, made: NDArray[np.bool_], *, image: bool) -> Output:
        """Keep the rows that became events, close each moment with LAST, count the other rows."""
        rows, book = self.rows, self.book
        place: Index = np.cumsum(made) - made
        bad, silent = (rows["action"] == UNREADABLE), ~made & (rows["action"] != UNREADABLE)
        turned = (rows["side"] != self.all["side"][self.before[self.held :]]) & self.rests[self.held :]
        turned &= made & (out["action"] != Action.ADD)
        kinds = ((bad, Integrity.malformed), (silent, Integrity.never_rested), (turned, Integrity.side_mismatch))
        findings = [(int(place[k]), kind, 1) for which, kind in kinds for k in np.flatnonzero(which)]
        final = _STATES[rows["action"]] & ~self.twice[self.held :] & (self.after[self.held :] < 0)
        over = _OVER[rows["action"]]
        notices = book.farewell(rows[silent], rows["id"][final & over], rows["id"][final & ~over])
        notices += [f"line {int(rows['seq'][k])} cannot be read" for k in np.flatnonzero(bad)]
        moment = self.moment[self.held :][made]
        last = np.append(moment[1:] != moment[:-1], True)[: len(moment)]
        if image:
            last[:-1] = False
        out = out[made]
        out["flags"] |= np.where(last, _LAST, 0).astype(np.uint8)
        return Output(out, sorted(findings, key=lambda f: f[0]), notices=notices)


def moments(rows: Rows) -> Index:
    """Where the moments (runs of one millisecond of the venue) begin."""
    return np.flatnonzero(_starts(rows["event"] // NS_PER_MS))


def blocks(rows: Rows, most: int = CHUNK_EVENTS) -> Iterator[Rows]:
    """Rows of whole moments, cut between moments into blocks of `most` rows or, where a moment is longer, more."""
    starts = np.append(moments(rows), len(rows))
    at = 0
    while at < len(rows):
        fits = starts[np.searchsorted(starts, at + most, side="right") - 1]
        end = int(fits if fits > at else starts[np.searchsorted(starts, at, side="right")])
        yield rows[at:end]
        at = end


def clear_event(row: Rows, index: int) -> Events:
    """One CLEAR that begins an image, with the times of the (one) row."""
    out = empty_events(1)
    _stamp(out, row, index)
    out["action"], out["flags"] = Action.CLEAR, _SNAPSHOT
    return out


def _classify(rows: Rows) -> None:
    """Tell market orders and spent ones apart; what cannot be an order is unreadable."""
    action, px, qty = rows["action"], rows["px"], rows["qty"]
    action[(action == CREATED) & ((qty == 0) | ((px == 0) & (rows["side"] < 0)))] = MARKET
    action[(action == CHANGED) & (qty == 0)] = SPENT
    action[(qty < 0) | (px < 0) | (rows["id"] == 0)] = UNREADABLE


def _starts(values: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Where a run of equal values begins."""
    out = np.ones(len(values), bool)
    out[1:] = values[1:] != values[:-1]
    return out


def _previous(marked: NDArray[np.bool_], first: NDArray[np.bool_]) -> Index:
    """For each place the last marked place before it in the same group (a group begins where `first` is), or -1."""
    place = np.arange(len(marked))
    seen = np.full(len(marked), -1, np.int64)
    seen[1:] = np.maximum.accumulate(np.where(marked, place, -1))[:-1]
    begin = np.maximum.accumulate(np.where(first, place, 0))
    return np.where(seen >= begin, seen, -1)


def _next(marked: NDArray[np.bool_], first: NDArray[np.bool_]) -> Index:
    """As `_previous`, behind each place."""
    back = _previous(marked[::-1], np.append(first[1:], True)[: len(first)][::-1])[::-1]
    return np.where(back >= 0, len(marked) - 1 - back, -1)


def _last(marked: NDArray[np.bool_], first: NDArray[np.bool_]) -> Index:
    """For each place the last marked place of its group, or -1."""
    starts = np.flatnonzero(first)
    place = np.maximum.reduceat(np.where(marked, np.arange(len(marked)), -1), starts) if len(starts) else starts
    return np.repeat(place, np.diff(np.append(starts, len(marked))))


def _unsorted(place: Index, sort: Index) -> Index:
    """Places in a sorted run as places in the original one, at the original places."""
    out = np.empty(len(sort), np.int64)
    out[sort] = np.where(place >= 0, sort[place], -1)
    return out


def _stamp(events: Events, rows: Rows, index: int) -> None:
    events["ts_event"], events["ts_recv"], events["seq"] = rows["event"], rows["recv"], rows["seq"]
    events["instrument"], events["feed"] = index, FeedId.BITSTAMP


def _pass_on_last(events: Events, behind: Events) -> None:
    """The events behind belong to the last moment of `events`: they close it."""
    if len(behind):
        behind["flags"][-1] |= _LAST
        if len(events):
            events["flags"][-1] &= 0xFF ^ _LAST


def _joined(parts: list[Output]) -> Output:
    if len(parts) == 1:
        return parts[0]
    out = Output(np.concatenate([p.events for p in parts]))
    at = 0
    for part in parts:
        out.findings += [(at + place, kind, n) for place, kind, n in part.findings]
        out.stale += part.stale
        out.notices += part.notices
        at += len(part.events)
    return out
