"""Coinbase Exchange `level2` (and `level2_batch`) with `ticker` and `matches`: books of levels, by product.

Rules (Coinbase Exchange documentation: "WebSocket channels", level2, ticker and match channels; what the recording of
cryptofeed, 2021-04-17, shows is marked *):

1. `snapshot` is the whole book, rows [price, size]; `l2update` gives changes [side, price, size], absolute, 0 removes.
   The channel has no numbers: its delivery is guaranteed. A change of an unknown side is `malformed`.
2. An update that cannot be read is missing from its book, which is thrown away until the next snapshot; updates before
   a snapshot are counted in `awaiting_image`. An update with a time before the last one's is applied as it comes:
   the channel is in order. *
3. `match`: `side` is that of the maker, `trade_id` goes to `ref`. `last_match` repeats a trade from before the
   subscription: `skipped`. `sequence` counts per product and over channels that are not here, so a jump says nothing; a
   match at or below the last one is a `duplicate_seq`. Trade ids follow each other; where some are missing a notice
   says how many, for the venue may drop matches, and the book is not touched by that.
4. `ticker` changes no book. Where its time is that of the last update of its product, its best bid and ask must be
   those of the book: `quote_ok` or `quote_mismatch` (97 of 97 in the recording); others are not compared. *
5. `seq` is the line number, venue time is `time` (a snapshot without one: the receive time).
6. Prices and sizes are decimal strings, kept in 1e-8 exactly.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from microrisk.feed.capture import Capture, Line
from microrisk.feed.l2 import Product, Stamp, no_snapshot
from microrisk.feed.ladder import Ladder, Level
from microrisk.feed.open import Source
from microrisk.feed.text import iso_ns
from microrisk.feed.unnumbered import UnnumberedFeed
from microrisk.spec.records import FeedId, Integrity
from microrisk.spec.units import Side

_SIDES = {"buy": int(Side.BID), "sell": int(Side.ASK)}
_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
QUIET = frozenset({"subscriptions", "heartbeat", "status", "error"})
MARKS = (b'"l2update"', b'"type":"snapshot"', b'"type": "snapshot"')
"""What the beginning of such a recording holds, and one of the `full` channel does not."""


class Message(msgspec.Struct, gc=False):
    """The fields that a book of levels needs; absent ones are empty."""

    type: str
    product_id: str = ""
    time: str = ""
    changes: list[tuple[str, str, str]] = []
    bids: list[tuple[str, str]] | None = None
    asks: list[tuple[str, str]] | None = None
    sequence: _Count = 0
    trade_id: _Count = 0
    side: str = ""
    price: str = ""
    size: str = ""
    best_bid: str = ""
    best_ask: str = ""


_DECODE = msgspec.json.Decoder(Message)


class Ticked(Product):
    """One product with its own two ladders, for comparison with the venue's quotes."""

    __slots__ = ("asks", "bids", "missing", "sequence", "time", "trade")

    def __init__(self, index: int, name: str) -> None:
        super().__init__(index, name)
        self.bids, self.asks = Ladder(), Ladder()
        self.time = ""
        self.sequence = self.trade = self.missing = 0


def is_level2(source: Source) -> bool:
    """Whether a file of Coinbase messages is one of the level2 channel."""
    head = source.head()
    return any(mark in head for mark in MARKS)


def open_capture(capture: Capture, *, venue: str | None, snapshot: Source | None) -> Level2Feed:
    """The feed of captured sessions; images are part of the stream, `snapshot` is refused."""
    no_snapshot(snapshot, "Coinbase level2")
    return Level2Feed(capture, venue)


class Level2Feed(UnnumberedFeed[Ticked]):
    """Books and trades of any number of products."""

    format = "coinbase"
    feed_id = FeedId.COINBASE
    default_venue = "COINBASE"
    product_type = Ticked

    def _message(self, line: Line) -> None:
        m = _DECODE.decode(line.body)
        if m.type == "l2update":
            self._update(m, line)
        elif m.type == "match":
            self._match(m, line)
        elif m.type == "ticker":
            self._ticker(m)
        elif m.type == "snapshot":
            self._snapshot(m, line)
        elif m.type == "last_match":
            product = self._product(m.product_id)
            product.sequence, product.trade = max(product.sequence, m.sequence), m.trade_id
            self._find(Integrity.skipped, 1, product.index)
        elif m.type not in QUIET:
            self._find(Integrity.unknown_type)

    def _snapshot(self, m: Message, line: Line) -> None:
        if m.bids is None or m.asks is None:
            raise ValueError("a snapshot without its two sides")
        bids, asks = self.levels(m.bids), self.levels(m.asks)
        product = self._product(m.product_id)
        product.bids.load(bids)
        product.asks.load(asks)
        product.time = m.time
        self.image(product, Stamp(iso_ns(m.time) if m.time else line.ts_recv, line.ts_recv, line.number), bids, asks)

    def _update(self, m: Message, line: Line) -> None:
        prices, sizes = self.prices, self.sizes
        bids: list[Level] = []
        asks: list[Level] = []
        for side, px, qty in m.changes:
            if side not in _SIDES:
                raise ValueError(f"{side[:20]!r} is no side")
            (bids if side == "buy" else asks).append((prices[px], sizes[qty]))
        stamp = Stamp(iso_ns(m.time), line.ts_recv, line.number)
        product = self._product(m.product_id)
        if product.waiting:
            self.awaiting(product)
            return
        product.time = m.time
        product.bids.apply(bids)
        product.asks.apply(asks)
        self.update(product, stamp, bids, asks)

    def _match(self, m: Message, line: Line) -> None:
        try:
            side, px, qty, ts = _SIDES[m.side], self.prices[m.price], self.sizes[m.size], iso_ns(m.time)
        except (ValueError, KeyError) as why:
            self._harmless(line, why)
            return
        product = self._product(m.product_id)
        if m.sequence <= product.sequence:
            self._find(Integrity.duplicate_seq, 1, product.index)
            return
        if product.trade and m.trade_id > product.trade + 1:
            product.missing += m.trade_id - product.trade - 1
        product.sequence, product.trade = m.sequence, m.trade_id
        self.trade(product, Stamp(ts, line.ts_recv, line.number), side, px, qty, m.trade_id)

    def _ticker(self, m: Message) -> None:
        """Rule 4."""
        product = self._product(m.product_id)
        if product.waiting or not m.time or m.time != product.time:
            return
        bids, asks = product.bids.prices, product.asks.prices
        have = (bids[-1] if bids else 0), (asks[0] if asks else 0)
        told = self.prices[m.best_bid or "0"], self.prices[m.best_ask or "0"]
        self._find(Integrity.quote_ok if have == told else Integrity.quote_mismatch, 1, product.index)

    def _end(self) -> None:
        for product in self._by_symbol.values():
            if product.missing:
                self._note(f"{product.name}: {product.missing} trades are missing between the trade ids")
