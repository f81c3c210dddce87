"""Deribit order books of full depth with trades, by JSON-RPC notifications of the websocket v2.

Rules (Deribit API documentation, "book.(instrument_name).(interval)", "trades.(...)", "ticker.(...)"):

1. `book.NAME.INTERVAL`: the first notification is a `snapshot` of every level, the following ones are `change`. Rows
   are [`new` | `change` | `delete`, price, amount]; the amount is absolute, and 0 in a deletion.
2. Every change names the `change_id` before its own in `prev_change_id`. Another one means that a message is missing:
   `gap`, and the book waits for a snapshot. A change at or below the last id is `skipped`.
3. Trades: `direction` is that of the taker. `trade_id` is a number on some markets and text (ETH-1234) on others.
4. `ticker` carries the venue's own best prices and amounts. By the recording one with time T comes before or behind the
   change of that time, and shows the book after it. So it is compared with the book after each change of time T, and
   with the book as it was before the first later one: `quote_ok` when one of them is equal, else `quote_mismatch`. At
   the end of the input a ticker that is later than the last change of its book and differs is left out: its change may
   be behind the end. Tickers before the snapshot are not compared.
5. Numbers are JSON numbers, taken as written. Amounts are in dollars on futures and in the coin on options.
6. seq is `change_id`, of a trade the line number; ts_event is `timestamp`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from microrisk.feed.capture import Capture, Line
from microrisk.feed.l2 import L2Feed, Product, Stamp, ms_ns, no_snapshot, number_text
from microrisk.feed.ladder import Level
from microrisk.feed.open import Source
from microrisk.spec.records import FeedId, Integrity
from microrisk.spec.units import Side

_BID, _ASK = int(Side.BID), int(Side.ASK)
_RESTING = {"buy": _ASK, "sell": _BID}
_QUIET = frozenset(
    {"deribit_price_index", "deribit_price_ranking", "deribit_volatility_index", "estimated_expiration_price"}
    | {
        "incremental_ticker",
        "instrument",
        "markprice",
        "perpetual",
        "platform_state",
        "announcements",
        "chart",
        "quote",
    }
)
"""Channels without book or trades."""
QUOTES_KEPT = 64
"""Tickers of a product that wait at most; older ones are left out (times that run backwards or far ahead)."""
SETTLE_MS = 1000
"""A ticker is settled when the venue's clock has gone on by this much and no change came."""

Best = tuple[int, int, int, int]
"""Bid price and amount, ask price and amount; 0 and 0 for an empty side."""


class Params(msgspec.Struct):
    """What a notification is about."""

    channel: str
    data: msgspec.Raw


class Envelope(msgspec.Struct):
    """A notification, or a reply (without params)."""

    method: str = ""
    params: Params | None = None
    error: msgspec.Raw = msgspec.Raw(b"")


Row = tuple[Literal["new", "change", "delete"], msgspec.Raw, msgspec.Raw]


class Book(msgspec.Struct):
    """A book notification."""

    type: Literal["snapshot", "change"]
    timestamp: int
    change_id: int
    bids: list[Row]
    asks: list[Row]
    prev_change_id: int | None = None


class Trade(msgspec.Struct):
    """A trade."""

    instrument_name: str
    direction: Literal["buy", "sell"]
    price: msgspec.Raw
    amount: msgspec.Raw
    timestamp: int
    trade_id: str = ""


class Ticker(msgspec.Struct):
    """The part of a ticker that the book must agree with."""

    timestamp: int
    best_bid_price: msgspec.Raw
    best_bid_amount: msgspec.Raw
    best_ask_price: msgspec.Raw
    best_ask_amount: msgspec.Raw


_ENVELOPE = msgspec.json.Decoder(Envelope)
_BOOK = msgspec.json.Decoder(Book)
_TRADES = msgspec.json.Decoder(list[Trade])
_TICKER = msgspec.json.Decoder(Ticker)


@dataclass
class Quote:
    """A ticker that is not settled yet: venue time in ms, what it says, and whether the book has said so too."""

    ms: int
    best: Best
    met: bool


class DeribitProduct(Product):
    """A product with its book and the tickers that wait for it.

    Attributes
    ----------
    last : change_id of the last message applied
    ms : its venue time
    levels : amounts by price, by side
    quotes : tickers not settled, oldest first
    """

    __slots__ = ("last", "levels", "ms", "quotes")

    def __init__(self, index: int, name: str) -> None:
        super().__init__(index, name)
        self.last = self.ms = 0
        self.levels: dict[int, dict[int, int]] = {_BID: {}, _ASK: {}}
        self.quotes: deque[Quote] = deque(maxlen=QUOTES_KEPT)

    def best(self) -> Best:
        """The book's best prices and amounts."""
        bids, asks = self.levels[_BID], self.levels[_ASK]
        bid, ask = max(bids, default=0), min(asks, default=0)
        return bid, bids.get(bid, 0), ask, asks.get(ask, 0)


def open_capture(capture: Capture, *, venue: str | None, snapshot: Source | None) -> DeribitFeed:
    """The feed of a captured session.

    Raises
    ------
    UsageError : a snapshot was given
    """
    no_snapshot(snapshot, "Deribit")
    return DeribitFeed(capture, venue)


def open_sources(
    sources: Sequence[Source], *, date: str | None, venue: str | None, snapshot: Source | None
) -> DeribitFeed:
    """The feed of files; `date` is not needed, the messages carry full times."""
    return open_capture(Capture(sources), venue=venue, snapshot=snapshot)


class DeribitFeed(L2Feed[DeribitProduct]):
    """Notifications about any number of products; see the rules of the module."""

    format = "deribit"
    feed_id = FeedId.DERIBIT
    default_venue = "DERIBIT"
    product_type = DeribitProduct

    def _message(self, line: Line) -> None:
        m = _ENVELOPE.decode(line.body)
        if m.params is None:
            if bytes(m.error):
                self._note(f"{line.place} line {line.number}: the venue refused a request: {bytes(m.error)[:200]!r}")
            return
        channel, *rest = m.params.channel.split(".")
        if channel == "book" and len(rest) == 2:
            self._book(line, rest[0], m.params.data)
        elif channel == "trades":
            self._trades(line, m.params.data)
        elif channel == "ticker":
            self._ticker(rest[0], m.params.data)
        elif channel not in _QUIET:
            self._find(Integrity.unknown_type)

    def invalidate(self, product: Product, kind: Integrity, stamp: Stamp, why: str) -> None:
        """The tickers that wait go with the book."""
        self._by_symbol[product.name].quotes.clear()
        super().invalidate(product, kind, stamp, why)

    # -- book ---------------------------------------------------------------------------------------------------

    def _book(self, line: Line, name: str, data: msgspec.Raw) -> None:
        product = self._product(name)
        try:
            book = _BOOK.decode(data)
            bids, asks = self._levels_of(book.bids), self._levels_of(book.asks)
            if not 0 <= book.change_id < 1 << 63:
                raise ValueError(f"change_id {book.change_id}")
        except (msgspec.MsgspecError, ValueError) as why:
            self.spoil(product, line, why)
            return
        stamp = Stamp(ms_ns(book.timestamp), line.ts_recv, book.change_id)
        if book.type == "snapshot":
            self._settle(product, book.timestamp)
            product.levels = {_BID: {}, _ASK: {}}
            self.image(product, stamp, bids, asks)
            self._applied(product, book, bids, asks)
        elif product.waiting:
            self.awaiting(product)
        elif book.change_id <= product.last:
            self._find(Integrity.skipped, 1, product.index)
        elif book.prev_change_id != product.last:
            broken = f"change {book.change_id} follows {book.prev_change_id}, the book is at {product.last}"
            self.invalidate(product, Integrity.gap, stamp, broken)
        else:
            self._settle(product, book.timestamp)
            self.update(product, stamp, bids, asks)
            self._applied(product, book, bids, asks)

    def _levels_of(self, rows: list[Row]) -> list[Level]:
        out = []
        for action, price, amount in rows:
            qty = self.sizes[number_text(amount)]
            if (qty == 0) != (action == "delete"):
                raise ValueError(f"{action} with an amount of {number_text(amount)}")
            out.append((self.prices[number_text(price)], qty))
        return out

    def _applied(self, product: DeribitProduct, book: Book, bids: list[Level], asks: list[Level]) -> None:
        product.last, product.ms = book.change_id, book.timestamp
        for levels, rows in ((product.levels[_BID], bids), (product.levels[_ASK], asks)):
            for px, qty in rows:
                if qty:
                    levels[px] = qty
                else:
                    levels.pop(px, None)
        if any(q.ms == product.ms and not q.met for q in product.quotes):
            best = product.best()
            for quote in product.quotes:
                quote.met |= quote.ms == product.ms and quote.best == best

    # -- tickers ------------------------------------------------------------------------------------------------

    def _ticker(self, name: str, data: msgspec.Raw) -> None:
        t = _TICKER.decode(data)
        bid, ask = self._quoted(t.best_bid_price, t.best_bid_amount), self._quoted(t.best_ask_price, t.best_ask_amount)
        product = self._product(name)
        if product.waiting:
            return
        self._settle(product, t.timestamp - SETTLE_MS)
        best = (*bid, *ask)
        product.quotes.append(Quote(t.timestamp, best, t.timestamp == product.ms and best == product.best()))

    def _quoted(self, price: msgspec.Raw, amount: msgspec.Raw) -> Level:
        """A best price and its amount; an empty side is written as null or as amount 0."""
        if bytes(price) == b"null" or bytes(amount) == b"null":
            return 0, 0
        qty = self.sizes[number_text(amount)]
        return (self.prices[number_text(price)], qty) if qty else (0, 0)

    def _settle(self, product: DeribitProduct, before: int) -> None:
        """Tickers older than `before` are compared with the book as it is: nothing of their time can come any more."""
        while product.quotes and product.quotes[0].ms < before:
            quote = product.quotes.popleft()
            ok = quote.met or quote.best == product.best()
            self._find(Integrity.quote_ok if ok else Integrity.quote_mismatch, 1, product.index)

    def _end(self) -> None:
        for product in self._by_symbol.values():
            told = [q for q in product.quotes if q.met or q.ms <= product.ms or q.best == product.best()]
            product.quotes = deque(told)
            self._settle(product, 1 << 64)

    # -- trades -------------------------------------------------------------------------------------------------

    def _trades(self, line: Line, data: msgspec.Raw) -> None:
        trades = [
            (self._product(t.instrument_name), t, self.prices[number_text(t.price)], self.sizes[number_text(t.amount)])
            for t in _TRADES.decode(data)
        ]
        for product, t, px, qty in trades:
            if qty == 0:
                raise ValueError(f"a trade of nothing: {t.trade_id}")
            ref = int(t.trade_id) if t.trade_id.isascii() and t.trade_id.isdecimal() and len(t.trade_id) < 20 else 0
            self.trade(
                product, Stamp(ms_ns(t.timestamp), line.ts_recv, line.number), _RESTING[t.direction], px, qty, ref
            )
