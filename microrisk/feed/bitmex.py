"""BitMEX order books of full depth (orderBookL2), trades, and the venue's quotes as a check.

Rules (BitMEX websocket API: "orderBookL2", "trade", "quote", partial images; what it leaves open is told by the
recording and said so):

1. `partial` is the whole book: rows with id, side, size and price. `insert` brings a level with its price; `update`
   gives its new size and `delete` removes it, both by id and side: the price is that of the id. Later versions repeat
   the price and add a time. What comes before the partial is not applied (`awaiting_image`).
2. An id that is updated or deleted is held, one that is inserted is not (2,587 rows of the recording without an
   exception): a message that says otherwise shows that one is missing: `gap`, and the book waits for a partial.
3. Trades: `side` is that of the taker. The partial of the trade table is the last trade before the session and no news:
   `skipped`. Match ids are no numbers.
4. Quotes come about once a second, several in a message. By the recording each one, in order, is a state that the
   book's best went through since the quote before (426 of 426). So every quote is looked for behind the last one met:
   `quote_ok`, else `quote_mismatch`. Of the first message after an image, whose quotes may be older than it, only those
   that are met count. The partial of the quote table is older than the session.
5. Sizes are whole contracts, prices JSON numbers, taken as written. A contract whose prices have more than eight
   decimals (TRXU21: ten) has its books in a finer unit, told by the prices of its first messages and then fixed. Levels
   at prices that the 1e-9 columns cannot show are counted in `px_range`.
6. There is no sequence: seq is the line number. ts_event is the time of the row; rows of 2021 have none, and the
   receive time stands in for it.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import groupby, islice
from operator import attrgetter
from typing import Literal

import msgspec

from microrisk.feed.base import Instrument
from microrisk.feed.capture import Capture, Line
from microrisk.feed.l2 import EXP, Product, Stamp, Units, no_snapshot, number_text
from microrisk.feed.open import Source
from microrisk.feed.text import iso_ns
from microrisk.feed.unnumbered import UnnumberedFeed
from microrisk.spec.records import FeedId, Integrity
from microrisk.spec.units import PX_NANO, Side

_BID, _ASK = int(Side.BID), int(Side.ASK)
_SIDES = {"Buy": _BID, "Sell": _ASK}
_RESTING = {"Buy": _ASK, "Sell": _BID}
_QUIET = frozenset(
    {"instrument", "funding", "liquidation", "settlement", "insurance", "announcement", "publicNotifications", "chat"}
    | {"connected"}
    | {kind + size for kind in ("tradeBin", "quoteBin") for size in ("1m", "5m", "1h", "1d")}
)
"""Tables without book, trades or quotes."""
MAX_EXP = 12
"""Finest unit of a price."""
STATES_KEPT = 4096
"""States of the best that wait for the quote that shows them."""

Sided = Literal["Buy", "Sell"]
Best = tuple[int, int, int, int]
"""Bid price and size, ask price and size; 0 and 0 for an empty side."""


class Envelope(msgspec.Struct):
    """A message of a table, its rows still unread; the greeting and replies have none."""

    table: str = ""
    action: str = ""
    data: msgspec.Raw = msgspec.Raw(b"")
    filter: dict[str, str] = {}
    error: str = ""


class Row(msgspec.Struct):
    """A level, as far as the action carries it."""

    symbol: str
    id: int
    side: Sided
    size: int | None = None
    price: msgspec.Raw = msgspec.Raw(b"")
    timestamp: str = ""


class Trade(msgspec.Struct):
    """A trade."""

    symbol: str
    side: Sided
    size: int
    price: msgspec.Raw
    timestamp: str


class Quote(msgspec.Struct):
    """The venue's own best."""

    symbol: str
    bidSize: msgspec.Raw = msgspec.Raw(b"null")
    bidPrice: msgspec.Raw = msgspec.Raw(b"null")
    askPrice: msgspec.Raw = msgspec.Raw(b"null")
    askSize: msgspec.Raw = msgspec.Raw(b"null")


_ENVELOPE = msgspec.json.Decoder(Envelope)
_ROWS = msgspec.json.Decoder(list[Row])
_TRADES = msgspec.json.Decoder(list[Trade])
_QUOTES = msgspec.json.Decoder(list[Quote])

Change = tuple[int, int, int, int]
"""Side, id, price, new size (0 = removed)."""


class Levels:
    """One side: sizes by price, and the best of them at hand (a heap whose stale entries are dropped when met)."""

    def __init__(self, side: int) -> None:
        self._side = side
        self._sizes: dict[int, int] = {}
        self._heap: list[int] = []

    def set(self, px: int, qty: int) -> None:
        """Size of one price; 0 removes it."""
        if not qty:
            self._sizes.pop(px, None)
            return
        if px not in self._sizes:
            heapq.heappush(self._heap, -px * self._side)
        self._sizes[px] = qty

    def best(self) -> tuple[int, int]:
        """Price and size, (0, 0) of an empty side."""
        while self._heap:
            px = -self._heap[0] * self._side
            if px in self._sizes:
                return px, self._sizes[px]
            heapq.heappop(self._heap)
        return 0, 0


class BitmexProduct(Product):
    """A product with its ids and the states of its best.

    Attributes
    ----------
    exp : decimal exponent of its prices, None while no event has used it
    seen : most decimals of the prices met before
    units : price texts to integers of 10**-exp
    table : the table its book comes from
    prices : (side, id) -> price of the levels held
    sides : sizes by price
    path : states of the best since the last quote that was met, that one first
    strict : a quote that is not among them is a mismatch
    """

    __slots__ = ("exp", "path", "prices", "seen", "sides", "strict", "table", "units")

    def __init__(self, index: int, name: str) -> None:
        super().__init__(index, name)
        self.exp: int | None = None
        self.seen = EXP
        self.units = Units(signed=True)
        self.table = ""
        self.empty()

    def see(self, prices: Iterable[msgspec.Raw]) -> None:
        """Look at the decimals of prices before the first event."""
        if self.exp is None:
            self.seen = min(MAX_EXP, max([self.seen, *map(_decimals, prices)]))

    def fix(self, prices: Iterable[msgspec.Raw]) -> None:
        """The first event: from now on the unit stays."""
        if self.exp is None:
            self.see(prices)
            self.exp, self.units = self.seen, Units(self.seen, signed=True)

    def unshown(self, prices: Iterable[int]) -> int:
        """How many of these prices 1e-9 cannot show."""
        step = 10 ** max(0, (self.exp or EXP) - PX_NANO)
        return sum(px % step != 0 for px in prices)

    def empty(self) -> None:
        """Forget the book."""
        self.prices: dict[tuple[int, int], int] = {}
        self.sides = {_BID: Levels(_BID), _ASK: Levels(_ASK)}
        self.path: deque[Best] = deque(maxlen=STATES_KEPT)
        self.strict = False

    def change(self, changes: Sequence[Change]) -> None:
        """Apply one message, and remember the best behind it."""
        for side, ident, px, qty in changes:
            if qty:
                self.prices[side, ident] = px
            else:
                del self.prices[side, ident]
            self.sides[side].set(px, qty)
        best = (*self.sides[_BID].best(), *self.sides[_ASK].best())
        if not self.path or self.path[-1] != best:
            self.path.append(best)

    def went_through(self, quote: Best) -> bool:
        """Whether the best was this since the last quote that was met; then this is the last one met."""
        for at, state in enumerate(self.path):
            if state == quote:
                self.path = deque(islice(self.path, at, None), maxlen=STATES_KEPT)
                return True
        return False


def _decimals(price: msgspec.Raw) -> int:
    """Digits behind the point, however the number is written; 0 for null."""
    text = bytes(price).decode("ascii", "replace")
    exponent = Decimal(number_text(price)).normalize().as_tuple().exponent if text != "null" else 0
    return -exponent if isinstance(exponent, int) and exponent < 0 else 0


def open_capture(capture: Capture, *, venue: str | None, snapshot: Source | None) -> BitmexFeed:
    """The feed of a captured session.

    Raises
    ------
    UsageError : a snapshot was given
    """
    no_snapshot(snapshot, "BitMEX")
    return BitmexFeed(capture, venue)


def open_sources(
    sources: Sequence[Source], *, date: str | None, venue: str | None, snapshot: Source | None
) -> BitmexFeed:
    """The feed of files; `date` is not needed, the messages carry full times."""
    return open_capture(Capture(sources), venue=venue, snapshot=snapshot)


class BitmexFeed(UnnumberedFeed[BitmexProduct]):
    """Tables of any number of products; see the rules of the module."""

    format = "bitmex"
    feed_id = FeedId.BITMEX
    default_venue = "BITMEX"
    product_type = BitmexProduct

    def instruments(self) -> dict[int, Instrument]:
        """Index (order of first sight) -> instrument; one without an event has no unit yet and is left out."""
        known = {p.index: p.exp for p in self._by_symbol.values() if p.exp is not None}
        return {index: replace(self._instruments[index], px_exp=exp) for index, exp in known.items()}

    def _message(self, line: Line) -> None:
        m = _ENVELOPE.decode(line.body)
        if m.table in ("orderBookL2", "orderBookL2_25"):
            self._book(line, m)
        elif m.table in ("trade", "quote"):
            try:
                (self._trades if m.table == "trade" else self._quotes)(line, m)
            except (msgspec.MsgspecError, ValueError) as why:
                self._harmless(line, why)
        elif m.error:
            self._note(f"{line.place} line {line.number}: the venue refused a request: {m.error[:200]}")
        elif m.table and m.table not in _QUIET:
            self._find(Integrity.unknown_type)

    # -- book ---------------------------------------------------------------------------------------------------

    def _book(self, line: Line, m: Envelope) -> None:
        rows = _ROWS.decode(m.data)
        if m.action not in ("partial", "insert", "update", "delete"):
            raise ValueError(f"action {m.action!r}")
        if m.action == "partial" and not rows and m.filter.get("symbol"):
            self._part(line, m, self._product(m.filter["symbol"]), [])
        for symbol, part in groupby(rows, attrgetter("symbol")):
            self._part(line, m, self._product(symbol), list(part))

    def _part(self, line: Line, m: Envelope, product: BitmexProduct, rows: list[Row]) -> None:
        """The rows of one product, one batch."""
        try:
            ts = iso_ns(rows[-1].timestamp) if rows and rows[-1].timestamp else line.ts_recv
            stamp = Stamp(ts, line.ts_recv, line.number)
            if m.action == "partial":
                product.fix(row.price for row in rows)
                self._image(product, stamp, m.table, [self._posted(product, row) for row in rows])
            elif product.waiting:
                self.awaiting(product)
            elif product.table != m.table:
                self._find(Integrity.skipped, 1, product.index)
            else:
                self._change(product, stamp, m.action, rows)
        except (msgspec.MsgspecError, ValueError) as why:
            self.spoil(product, line, why)

    def _posted(self, product: BitmexProduct, row: Row) -> Change:
        return _SIDES[row.side], row.id, product.units[number_text(row.price)], self._size(row)

    def _image(self, product: BitmexProduct, stamp: Stamp, table: str, rows: list[Change]) -> None:
        if len({(side, px) for side, _, px, _ in rows}) != len(rows):
            raise ValueError("a partial with a level twice")
        product.empty()
        product.table = table
        product.change(rows)
        bids, asks = ([(px, qty) for of, _, px, qty in rows if of == side] for side in (_BID, _ASK))
        self._find(Integrity.px_range, product.unshown(px for _, _, px, _ in rows), product.index)
        self.image(product, stamp, bids, asks)

    def _change(self, product: BitmexProduct, stamp: Stamp, action: str, rows: list[Row]) -> None:
        changes: list[Change] = []
        held = {(_SIDES[row.side], row.id) for row in rows} & product.prices.keys()
        if len(held) != (0 if action == "insert" else len(rows)):
            why = f"{action} of {len(rows)} ids, of which {len(held)} are held"
            self.invalidate(product, Integrity.gap, stamp, why)
            return
        for row in rows:
            if action == "insert":
                changes.append(self._posted(product, row))
                continue
            side, px = _SIDES[row.side], product.prices[_SIDES[row.side], row.id]
            if bytes(row.price) and product.units[number_text(row.price)] != px:
                raise ValueError(f"id {row.id} has another price than before: {number_text(row.price)}")
            qty = 0 if action == "delete" else self._size(row)
            changes.append((side, row.id, px, qty))
        product.change(changes)
        if action == "insert":
            self._find(Integrity.px_range, product.unshown(px for _, _, px, _ in changes), product.index)
        bids, asks = ([(px, qty) for of, _, px, qty in changes if of == side] for side in (_BID, _ASK))
        self.update(product, stamp, bids, asks)

    def _size(self, row: Row) -> int:
        if not row.size or row.size < 0:
            raise ValueError(f"id {row.id}: a size of {row.size}")
        return self.sizes[str(row.size)]

    # -- trades and quotes --------------------------------------------------------------------------------------

    def _trades(self, line: Line, m: Envelope) -> None:
        trades = [(self._product(t.symbol), t, iso_ns(t.timestamp)) for t in _TRADES.decode(m.data)]
        news = m.action == "insert"
        for product, t, _ in trades:
            product.fix([t.price]) if news else product.see([t.price])
        events = [(product, t, product.units[number_text(t.price)], ts) for product, t, ts in trades if news]
        if any(t.size <= 0 for _, t, _ in trades):
            raise ValueError("a trade of nothing")
        for product, t, px, ts in events:
            stamp = Stamp(ts, line.ts_recv, line.number)
            self.trade(product, stamp, _RESTING[t.side], px, self.sizes[str(t.size)])
        if not news:
            for product, _, _ in trades:
                self._find(Integrity.skipped, 1, product.index)

    def _quotes(self, line: Line, m: Envelope) -> None:
        quotes = [(self._product(q.symbol), q) for q in _QUOTES.decode(m.data)]
        for product, q in quotes:
            product.see([q.bidPrice, q.askPrice])
        held = [
            (product, self._best(product, q)) for product, q in quotes if m.action == "insert" and not product.waiting
        ]
        for product, best in held:
            if product.went_through(best):
                self._find(Integrity.quote_ok, 1, product.index)
            elif product.strict:
                self._find(Integrity.quote_mismatch, 1, product.index)
        for product, _ in held:
            product.strict = True

    def _best(self, product: BitmexProduct, q: Quote) -> Best:
        bid, ask = self._quoted(product, q.bidPrice, q.bidSize), self._quoted(product, q.askPrice, q.askSize)
        return (*bid, *ask)

    def _quoted(self, product: BitmexProduct, price: msgspec.Raw, size: msgspec.Raw) -> tuple[int, int]:
        if bytes(price) == b"null" or bytes(size) == b"null":
            return 0, 0
        return product.units[number_text(price)], self.sizes[number_text(size)]
