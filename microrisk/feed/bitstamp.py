"""Bitstamp: websocket and REST messages in JSON, and the door to order logs in CSV (`bitstamp_csv`).

Rules (Bitstamp API v2, "WebSocket": public channels, and "Order book"; what a recording shows is marked *):

1. A message is `{"event", "channel", "data"}`, the channel a prefix and the pair. `microtimestamp` (us) is venue time
   and the only thing that orders messages of different kinds; there are no sequence numbers, `seq` is the line number.
2. `diff_order_book_*` gives changed levels, absolute, 0 removes. Its start is the book of REST `order_book/PAIR`:
   diffs are kept until an image comes, those at or below its microtimestamp are `skipped`, the others follow it. A diff
   older than the last one is `skipped`, too. *
3. `live_orders_*` gives single orders (`bitstamp_orders` has their rules). Its image is REST `order_book/PAIR?group=2`
   or `detail_order_book_*`, rows with order ids, in the order of the queue; merged as in rule 2. Without an image the
   book has only the orders that the messages name. Messages of one millisecond are one event.
4. `order_book_*` and `detail_order_book_*` are images of the best 100: the first one is the book, of the next ones only
   the differences are news. What lies below the worst level shown has only been pushed out.
5. `live_trades_*`: type 0 = the aggressor bought. A pair with `live_orders_*` has its trades there: they are not told
   twice. *
6. Of several channels about one pair one makes the book: live orders, else diffs, else images; others are `skipped`.
7. `bts:request_reconnect` announces the end of the connection: every book is thrown away (`session_reset`) and waits
   for its next image. A diff that cannot be read is missing from its book: the same for its pair. Behind such a hole an
   image must be as late as the first diff behind it.
8. Prices and amounts are taken from text (`price_str`, or the text of the number), in 1e-8 exactly.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from microrisk.errors import FeedError, UsageError
from microrisk.feed.base import ChunkFeed, Events, venue_of
from microrisk.feed.bitstamp_csv import HEADER, BitstampCsvFeed, symbol_of
from microrisk.feed.bitstamp_messages import (
    BOOK,
    BOOKS,
    DETAIL,
    DIFF,
    ENVELOPE,
    ORDER,
    ORDERS,
    TRADE,
    Book,
    Order,
    Pair,
    Trade,
)
from microrisk.feed.bitstamp_orders import (
    CHANGED,
    CREATED,
    DELETED,
    ROW,
    OrderBook,
    Output,
    clear_event,
    moments,
)
from microrisk.feed.capture import RESPONSE, Capture, Line
from microrisk.feed.l2 import Stamp, number_text
from microrisk.feed.ladder import Level
from microrisk.feed.open import Source
from microrisk.feed.stale import StaleFinder
from microrisk.feed.unnumbered import UnnumberedFeed
from microrisk.spec.features import ALL_MASK
from microrisk.spec.records import Action, FeedId, Flag, Integrity
from microrisk.spec.units import NULL_TS, Side

KEPT = 10_000
"""Messages of a pair that are kept until an image comes; older ones are counted in `awaiting_image`."""
NS_PER_US = 1000

_TRADES = "live_trades"
_ACTIONS = {"order_created": CREATED, "order_changed": CHANGED, "order_deleted": DELETED}
QUIET = frozenset(
    {"bts:subscription_succeeded", "bts:unsubscription_succeeded", "bts:subscribe", "bts:heartbeat", "bts:error"}
)
"""Events without a book."""
_CHANNEL = re.compile(rb'"channel": ?"(\w+)_([\w-]+)"')
_REST = re.compile(r"/order_book/([\w-]+)")


def open_sources(
    sources: Sequence[Source], *, date: str | None, venue: str | None, snapshot: Source | None
) -> ChunkFeed:
    """Order logs in CSV, or JSON lines in any wrapping of `capture.py`; `date` is not needed.

    Raises
    ------
    UsageError : CSV and JSON together, or a snapshot for a CSV, which brings its own image
    FeedError : neither
    """
    logs = [s for s in sources if s.head(len(HEADER) + 3).removeprefix(b"\xef\xbb\xbf").startswith(HEADER[:3])]
    others = [s for s in sources if s not in logs]
    if not logs:
        return open_capture(Capture(sources), venue=venue, snapshot=snapshot)
    beside = [s for s in others if s.name != "meta.json" and not s.head(16).startswith(b"trade_id,")]
    if beside:
        raise UsageError(f"an order log and {beside[0].label} cannot be one feed")
    if snapshot is not None:
        raise UsageError("an order log begins with its own image: --snapshot has no use here")
    return BitstampCsvFeed(logs, venue_of(venue, "BITSTAMP"))


def open_capture(capture: Capture, *, venue: str | None, snapshot: Source | None) -> BitstampFeed:
    """The feed of captured sessions; `snapshot` is an answer of REST `order_book` for the first pair met.

    Raises
    ------
    FeedError : the snapshot cannot be read
    """
    feed = BitstampFeed(capture, venue)
    if snapshot is not None:
        feed.give_image(snapshot)
    return feed


class BitstampFeed(UnnumberedFeed[Pair]):
    """Books, orders and trades of any number of pairs.

    Attributes
    ----------
    told : findings that name an order: (kind, EVENT)
    crossing_excluded : False with live orders, where a taker is told before it is matched
    """

    format = "bitstamp"
    feed_id = FeedId.BITSTAMP
    default_venue = "BITSTAMP"
    product_type = Pair

    def __init__(self, capture: Capture, venue: str | None) -> None:
        super().__init__(capture, venue)
        self._first_image: Book | None = None
        self._of_orders: list[tuple[int, Output]] = []
        self._channels: defaultdict[str, set[str]] = defaultdict(set)
        self._expected: set[str] = set()
        for source in capture.sources:
            for prefix, pair in _CHANNEL.findall(source.head()):
                self._channels[pair.decode()].add(prefix.decode())
        self.crossing_excluded = not any(ORDERS in c for c in self._channels.values())
        if not self.crossing_excluded:
            self.mask = ALL_MASK

    def expect(self, channels: Iterable[str]) -> None:
        """Channels (their prefixes) that every pair has, where no recording can be looked into beforehand."""
        self._expected = set(channels)
        if ORDERS in self._expected:
            self.crossing_excluded, self.mask = False, ALL_MASK

    def give_image(self, source: Source) -> None:
        """An answer of REST `order_book` from outside the stream, for the first pair in it.

        Raises
        ------
        FeedError : it cannot be read
        """
        stream = source.stream()
        data = b"".join(stream)
        try:
            self._first_image = BOOK.decode(data)
            self._checked(self._first_image)
        except (msgspec.MsgspecError, ValueError, IndexError) as why:
            raise FeedError(f"the book image cannot be read: {stream.cut or why}", path=source.label) from why

    def _symbol(self, name: str) -> str:
        return symbol_of(name)

    def order_label(self, order_id: int) -> str:
        """The venue's number."""
        return str(order_id)

    def _message(self, line: Line) -> None:
        if line.kind == RESPONSE:
            self._response(line)
            return
        m = ENVELOPE.decode(line.body)
        if m.event == "bts:request_reconnect":
            self._reopened(line)
            return
        prefix, _, pair = m.channel.rpartition("_")
        if m.event in QUIET:
            return
        if m.event == "trade" and prefix == _TRADES:
            self._trade(self._pair(pair, prefix), TRADE.decode(m.data), line)
        elif m.event in _ACTIONS and prefix == ORDERS:
            self._order(self._pair(pair, prefix), _ACTIONS[m.event], ORDER.decode(m.data), line)
        elif m.event == "data" and prefix in BOOKS:
            self._book(self._pair(pair, prefix), prefix, m.data, line)
        else:
            self._find(Integrity.unknown_type)

    def _pair(self, name: str, prefix: str = "") -> Pair:
        product = self._product(name)
        if not product.channels:
            product.channels |= self._channels[name] | self._expected
            if self._first_image is not None:
                ts = int(self._first_image.microtimestamp) * NS_PER_US
                product.image, self._first_image = (self._first_image, Stamp(ts, NULL_TS, 0)), None
        if prefix:
            product.channels.add(prefix)
        if product.image is not None and product.book:
            (image, stamp), product.image = product.image, None
            self._load(product, image, stamp)
        return product

    # -- images ---------------------------------------------------------------------------------------------------

    def _response(self, line: Line) -> None:
        match = _REST.search(line.url)
        if match is None:
            self._find(Integrity.unknown_type)
            return
        try:
            book = BOOK.decode(line.body)
            self._checked(book)
        except (msgspec.MsgspecError, ValueError, IndexError) as why:
            self._harmless(line, why)
            return
        self._pair(match[1]).image = book, _stamp(book.microtimestamp, line)
        self._pair(match[1])

    def _checked(self, book: Book) -> None:
        """Whether every row of an image can be read; ValueError or IndexError when one cannot."""
        self.levels(book.bids)
        self.levels(book.asks)
        for row in book.bids + book.asks:
            if len(row) > 2 and not (row[2].isascii() and row[2].isdecimal() and 0 < int(row[2]) < 1 << 63):
                raise ValueError(f"{row[2][:40]!r} is no order id")

    def _load(self, product: Pair, book: Book, stamp: Stamp) -> None:
        """An image from outside the channel of the book, and what was kept for it."""
        micros, of_orders = int(book.microtimestamp), product.book == ORDERS
        late = product.floor is None or product.floor <= micros
        # one of the very moment takes its place too: nothing else would show that a diff is missing
        late &= product.waiting or (micros >= product.last and not of_orders)
        if product.book not in (ORDERS, DIFF) or not late or (of_orders and any(len(r) < 3 for r in book.bids)):
            self._find(Integrity.skipped, 1, product.index)
            return
        product.base = product.last = micros
        product.floor = -1
        if of_orders:
            self._load_orders(product, book, stamp)
            return
        self.image(product, stamp, self.levels(book.bids), self.levels(book.asks))
        kept, product.kept = product.kept, deque()
        for told, when, bids, asks in sorted(kept, key=lambda k: k[0]):
            # nobody knew the book before the image came
            self._diff(product, told, when._replace(ts_recv=max(when.ts_recv, stamp.ts_recv)), bids, asks)

    # -- books of levels ------------------------------------------------------------------------------------------

    def _book(self, product: Pair, prefix: str, data: msgspec.Raw, line: Line) -> None:
        if prefix != product.book and not (prefix == DETAIL and product.book == ORDERS and product.waiting):
            self._find(Integrity.skipped, 1, product.index)
            return
        try:
            book = BOOK.decode(data)
            if product.book == ORDERS:
                self._checked(book)
                self._load(product, book, _stamp(book.microtimestamp, line))
                return
            bids, asks = self.levels(book.bids), self.levels(book.asks)
        except (msgspec.MsgspecError, ValueError, IndexError) as why:
            self.spoil(product, line, why)
            self._forget(product)
            return
        apply = self._diff if prefix == DIFF else self._best
        apply(product, int(book.microtimestamp), _stamp(book.microtimestamp, line), bids, asks)

    def _diff(self, product: Pair, micros: int, stamp: Stamp, bids: list[Level], asks: list[Level]) -> None:
        """Rule 2."""
        if product.waiting:
            product.floor = micros if product.floor is None else product.floor
            if len(product.kept) == KEPT:
                product.kept.popleft()
                self.awaiting(product)
            product.kept.append((micros, stamp, bids, asks))
        elif micros <= product.base or micros < product.last:
            self._find(Integrity.skipped, 1, product.index)
        else:
            product.last = micros
            self.update(product, stamp, bids, asks)

    def _best(self, product: Pair, micros: int, stamp: Stamp, bids: list[Level], asks: list[Level]) -> None:
        """Rule 4."""
        if micros < product.last and not product.waiting:
            self._find(Integrity.skipped, 1, product.index)
            return
        shown = _summed(bids), _summed(asks)
        if product.waiting:
            self.image(product, stamp, shown[0].items(), shown[1].items())
        else:
            more_bids, lost_bids = _difference(product.shown[0], shown[0], 1)
            more_asks, lost_asks = _difference(product.shown[1], shown[1], -1)
            self.update(product, stamp, more_bids, more_asks, lost_bids, lost_asks)
        product.last, product.shown = micros, shown

    def _forget(self, product: Pair) -> None:
        """A hole in the stream: an image helps only when it is as late as what comes behind the hole."""
        for _ in product.kept:
            self.awaiting(product)
        product.kept.clear()
        product.floor = None

    def _reopened(self, line: Line) -> None:
        stamp = Stamp(line.ts_recv, line.ts_recv, line.number)
        for product in self._by_symbol.values():
            if product.orders is not None:
                self._close_orders(product, stamp)
            elif not product.waiting:
                self.invalidate(product, Integrity.session_reset, stamp, "the connection ends: the book waits")
            self._forget(product)

    def _lost(self, line: Line) -> None:
        self._reopened(line)

    def _malformed(self, line: Line, why: str) -> None:
        """The channel in the damaged text says what it has cost."""
        told = {(prefix.decode(), pair.decode()) for prefix, pair in _CHANNEL.findall(line.body)}
        product = self._by_symbol.get(next(iter(told))[1]) if len(told) == 1 else None
        if product is None:
            super()._malformed(line, why)
        elif (_TRADES, product.name) in told:
            self._harmless(line, ValueError(why))
        elif product.book == ORDERS:
            self._bad += 1
            self._find(Integrity.malformed, 1, product.index, before=len(self._rows))
            self._note(f"{line.place} line {line.number} cannot be read: {why}")
        else:
            self.spoil(product, line, ValueError(why))
            self._forget(product)

    # -- trades and orders ----------------------------------------------------------------------------------------

    def _trade(self, product: Pair, trade: Trade, line: Line) -> None:
        if product.book == ORDERS:
            return
        side = int(Side.BID) if trade.type else int(Side.ASK)
        px, qty = self.prices[_text(trade.price_str, trade.price)], self.sizes[_text(trade.amount_str, trade.amount)]
        self.trade(product, _stamp(trade.microtimestamp, line), side, px, qty, trade.id)

    def _order(self, product: Pair, action: int, order: Order, line: Line) -> None:
        micros, side = int(order.microtimestamp), int(Side.ASK) if order.order_type else int(Side.BID)
        px, qty = self.prices[_text(order.price_str, order.price)], self.sizes[_text(order.amount_str, order.amount)]
        if not product.waiting and micros <= product.base:
            self._find(Integrity.skipped, 1, product.index)
            return
        product.floor = micros if product.floor is None else product.floor
        row = (order.id, line.ts_recv, micros * NS_PER_US, px, qty, line.number, action, side)
        product.rows.append(row)
        if product.waiting and len(product.rows) > KEPT:
            self._note(f"{product.name}: no image within {KEPT} messages, the book has only the orders that they name")
            self._open_orders(product)

    def _open_orders(self, product: Pair) -> OrderBook:
        product.waiting = product.marked = False
        product.orders = product.orders or OrderBook(product.index, StaleFinder())
        return product.orders

    def _load_orders(self, product: Pair, book: Book, stamp: Stamp) -> None:
        """A book of orders: the rows of an image, then the messages kept that are later than it."""
        rows = [
            (int(i), stamp.ts_recv, stamp.ts_event, self.prices[px], self.sizes[qty], stamp.seq, CREATED, int(side))
            for side, orders in ((Side.BID, book.bids), (Side.ASK, book.asks))
            for px, qty, i in orders
        ]
        image = np.array(rows, ROW)
        orders = self._open_orders(product)
        orders.clear()
        empty = np.array([(0, stamp.ts_recv, stamp.ts_event, 0, 0, stamp.seq, 0, 0)], ROW)
        self._of_orders.append((product.index, Output(clear_event(empty, product.index))))
        self._of_orders.append((product.index, orders.apply(image, image=True)))
        self.synthetic += 1 + len(image)
        late = [row for row in product.rows if row[2] > product.base * NS_PER_US]
        self._find(Integrity.skipped, len(product.rows) - len(late), product.index)
        # nobody knew the book before the image came
        late = [(row[0], max(row[1], stamp.ts_recv), *row[2:]) for row in late]
        product.rows = sorted(late, key=lambda row: row[2])

    def _close_orders(self, product: Pair, stamp: Stamp) -> None:
        """The book of orders is thrown away and waits for its next image."""
        assert product.orders is not None
        self._flush(product, last=True)
        if product.waiting:
            return
        product.orders.clear()
        product.waiting = True
        row = np.array([(0, stamp.ts_recv, stamp.ts_recv, 0, 0, stamp.seq, 0, 0)], ROW)
        gone = np.concatenate([clear_event(row, product.index)] * 2)
        gone["flags"] = 0, Flag.SUSPECT | Flag.LAST
        gone["action"] = Action.CLEAR, Action.NONE
        kinds = (Integrity.invalidated, Integrity.session_reset)
        self._of_orders.append((product.index, Output(gone, [(2, kind, 1) for kind in kinds])))
        self._note(f"{product.name}: the connection ends: the book waits")

    def _flush(self, product: Pair, *, last: bool) -> None:
        """The orders of whole moments become events; the last moment only when it is certain to be whole."""
        if product.orders is None or product.waiting or not product.rows:
            return
        rows = np.array(product.rows, ROW)
        whole = len(rows) if last else int(moments(rows)[-1])
        product.rows = product.rows[whole:]
        if whole:
            self._of_orders.append((product.index, product.orders.apply(rows[:whole])))

    # -- ChunkFeed ------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        for product in self._by_symbol.values():
            if product.waiting and product.rows:
                self._note(f"{product.name}: no image, the book has only the orders that the messages name")
                self._open_orders(product)
            self._flush(product, last=True)
            if product.kept:
                self._find(Integrity.awaiting_image, len(product.kept), product.index)
                self._note(f"{product.name}: {len(product.kept)} diffs at the end wait for an image that never came")

    def _chunk(self) -> Events | None:
        events = super()._chunk()
        return self._take_events() if events is None and self._of_orders else events

    def _take_events(self) -> Events:
        """Levels and trades as everywhere; orders between them, in the order of their lines."""
        events = super()._take_events()
        if not self._ended:
            for product in self._by_symbol.values():
                self._flush(product, last=False)
        outputs, self._of_orders = self._of_orders, []
        if not outputs:
            return events
        parts = [events, *(out.events for _, out in outputs)]
        keys = [np.maximum.accumulate(events["seq"])]
        latest: dict[int, np.uint64] = {}
        for index, out in outputs:
            # what waited for an image has a smaller number and stays behind it
            key = np.maximum.accumulate(np.maximum(out.events["seq"], latest.get(index, np.uint64(0))))
            keys.append(key)
            latest[index] = key[-1] if len(key) else latest.get(index, np.uint64(0))
        order = np.argsort(np.concatenate(keys), kind="stable")
        place = np.append(np.argsort(order, kind="stable"), len(order))
        self._placed = [(int(place[before]), kind, n, index) for before, kind, n, index in self._placed]
        at = len(events)
        for index, out in outputs:
            self._report(index, out, place, at)
            at += len(out.events)
        return np.concatenate(parts)[order]

    def _report(self, index: int, out: Output, place: NDArray[np.intp], at: int) -> None:
        for before, kind, n in out.findings:
            self._find(kind, n, index, before=int(place[at + before]))
        for notice in out.notices:
            self._note(notice)
        self.told += [(Integrity.stale_order, event) for event in out.stale]
        self.synthetic += len(out.stale)


def _text(text: str, raw: msgspec.Raw) -> str:
    return text or number_text(raw)


def _stamp(micros: str, line: Line) -> Stamp:
    return Stamp(int(micros) * NS_PER_US, line.ts_recv, line.number)


def _summed(levels: list[Level]) -> dict[int, int]:
    """Sizes by price; rows of single orders are added up."""
    out: dict[int, int] = {}
    for px, qty in levels:
        out[px] = out.get(px, 0) + qty
    return out


def _difference(old: dict[int, int], new: dict[int, int], side: int) -> tuple[list[Level], list[int]]:
    """What changed between two images of one side, and the prices that were only pushed out of them."""
    worst = min((px * side for px in new), default=0)
    gone = [px for px in old if px not in new]
    pushed = [px for px in gone if new and px * side < worst]
    changed = [(px, qty) for px, qty in new.items() if old.get(px) != qty]
    return changed + [(px, 0) for px in gone if px not in pushed], pushed
