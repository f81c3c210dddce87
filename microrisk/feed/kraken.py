"""Kraken spot: the `book` and `trade` channels of the websocket API, v1 (arrays) and v2 (objects).

Rules (Kraken API Center: "Spot Websockets (v1) Book Checksum", "Spot Websockets (v2) Book Checksum", channel pages
`book`, `trade`, `instrument`; v1 as in the captures of the cryptofeed project):

1. A v1 message is `[channel id, part, "book-DEPTH", pair]` or has two parts, asks and bids apart; `as`/`bs` are the
   image, `a`/`b` changed levels; rows are [price, size, time] strings, sizes are absolute, 0 removes. A v2 message is
   `{"channel": "book", "type": "snapshot" or "update", "data": [{symbol, bids, asks, checksum, timestamp}]}` with JSON
   numbers, taken from their text.
2. All levels of a message are applied, in order; then each side is cut to the subscribed depth, for which no removals
   are sent. The depth is that of the channel name (v1) or of the subscription (v2, asked or confirmed); of a v2
   recording without either it is the smallest offered depth that holds the image.
3. After that the CRC32 of the ten best levels must equal the message's checksum: v1 updates in `c` of the last part, v2
   in images and updates. Each is counted in `checksum_ok` or `checksum_mismatch`; a mismatch invalidates the book until
   the next image (the venue's advice: subscribe again). An update without a checksum is `malformed`.
4. The checksum is over numbers written with the precision of the pair. It is taken from the `instrument` channel when
   the recording has it, else from the decimals of the image, which the venue writes in full; where a recorder has
   dropped trailing zeros, the precision is found by trying (`kraken_book.py`).
5. Trades name the aggressor's side; v2 trade ids go to `ref`. A v2 trade image repeats old trades: `skipped`.
6. There is no sequence: `seq` is the line number. Venue time of a book message is its latest row (v1) or `timestamp`.
7. Symbols keep the venue's names with a dash for the slash: WAVES-EUR, XBT-CHF (v1), BTC-USD (v2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from microrisk.feed.capture import Capture, Line, seconds_ns
from microrisk.feed.kraken_book import DEPTHS, TOP, KrakenBook, decimals
from microrisk.feed.l2 import L2Feed, Stamp, no_snapshot
from microrisk.feed.ladder import Level
from microrisk.feed.open import Source
from microrisk.feed.text import iso_ns
from microrisk.spec.records import FeedId, Integrity
from microrisk.spec.units import Side

_Id = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_SIDES = {"b": int(Side.ASK), "s": int(Side.BID), "buy": int(Side.ASK), "sell": int(Side.BID)}
"""The aggressor's side -> that of the resting order."""


class Row(msgspec.Struct, array_like=True, gc=False):
    """One level of v1; a fourth member "r" marks a level that is published again."""

    price: str
    size: str
    time: str


class Part(msgspec.Struct, gc=False):
    """One part of a v1 book message."""

    image_asks: list[Row] | None = msgspec.field(name="as", default=None)
    image_bids: list[Row] | None = msgspec.field(name="bs", default=None)
    asks: list[Row] = msgspec.field(name="a", default_factory=list)
    bids: list[Row] = msgspec.field(name="b", default_factory=list)
    checksum: str | None = msgspec.field(name="c", default=None)


class Trade1(msgspec.Struct, array_like=True, gc=False):
    """One trade of v1."""

    price: str
    size: str
    time: str
    side: str


class Level2(msgspec.Struct, gc=False):
    """One level of v2."""

    price: msgspec.Raw
    qty: msgspec.Raw


class Book2(msgspec.Struct, gc=False):
    """One book of a v2 message."""

    symbol: str
    checksum: int
    bids: list[Level2] = []
    asks: list[Level2] = []
    timestamp: str = ""


class Trade2(msgspec.Struct, gc=False):
    """One trade of v2."""

    symbol: str
    side: str
    price: msgspec.Raw
    qty: msgspec.Raw
    timestamp: str
    trade_id: _Id = 0


class Pair(msgspec.Struct, gc=False):
    """What the `instrument` channel says about a pair."""

    symbol: str
    price_precision: Annotated[int, msgspec.Meta(ge=0, le=32)]
    qty_precision: Annotated[int, msgspec.Meta(ge=0, le=32)]


class Pairs(msgspec.Struct):
    """Data of an `instrument` message."""

    pairs: list[Pair] = []


class Named(msgspec.Struct):
    """The symbol alone, of a book that cannot be read otherwise."""

    symbol: str = ""


class Envelope(msgspec.Struct, gc=False):
    """A v2 message, or an object of v1 (event)."""

    channel: str = ""
    type: str = ""
    event: str = ""
    method: str = ""
    data: msgspec.Raw = msgspec.Raw(b"[]")
    params: msgspec.Raw = msgspec.Raw(b"{}")
    result: msgspec.Raw = msgspec.Raw(b"{}")


class Subscription(msgspec.Struct):
    """Asked (`params`) or confirmed (`result`) by a v2 subscription."""

    channel: str = ""
    symbol: str | list[str] = ""
    depth: int = 0


_BOOK1 = msgspec.json.Decoder(list[Part | str | int])
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_TEXT = msgspec.json.Decoder(str)
_PART = msgspec.json.Decoder(Part)
_TRADES1 = msgspec.json.Decoder(list[Trade1])
_ENVELOPE = msgspec.json.Decoder(Envelope)
_BOOKS2 = msgspec.json.Decoder(list[Book2])
_TRADES2 = msgspec.json.Decoder(list[Trade2])
_NAMES = msgspec.json.Decoder(list[Named])
_PAIRS = msgspec.json.Decoder(Pairs)
_SUBSCRIPTION = msgspec.json.Decoder(Subscription)

_DEPTH_OF = {f"book-{depth}": depth for depth in DEPTHS}
QUIET1 = ("ticker", "ohlc", "spread")
"""v1 channels that neither change a book nor trade."""
QUIET2 = frozenset({"", "heartbeat", "status", "ticker", "ohlc", "instrument"})
"""v2 channels of that kind; "" are answers to requests."""


def open_capture(capture: Capture, *, venue: str | None, snapshot: Source | None) -> KrakenFeed:
    """The feed of captured sessions; images are part of the stream, `snapshot` is refused."""
    no_snapshot(snapshot, "Kraken")
    return KrakenFeed(capture, venue)


def open_sources(
    sources: Sequence[Source], *, date: str | None, venue: str | None, snapshot: Source | None
) -> KrakenFeed:
    """The feed of files in order, in any wrapping of `capture.py`; `date` is not needed."""
    return open_capture(Capture(sources), venue=venue, snapshot=snapshot)


class KrakenFeed(L2Feed[KrakenBook]):
    """Books and trades of any number of pairs."""

    format = "kraken"
    feed_id = FeedId.KRAKEN
    default_venue = "KRAKEN"
    product_type = KrakenBook

    def __init__(self, capture: Capture, venue: str | None) -> None:
        super().__init__(capture, venue)
        self._depths: dict[str, int] = {}
        self._precision: dict[str, tuple[int, int]] = {}

    def _symbol(self, name: str) -> str:
        return name.replace("/", "-")

    def _message(self, line: Line) -> None:
        if line.body[:1] == b"[":
            self._array(line)
            return
        m = _ENVELOPE.decode(line.body)
        if m.channel == "book":
            self._book2(m, line)
        elif m.channel == "trade":
            self._trade2(m, line)
        elif m.channel == "instrument":
            for pair in _PAIRS.decode(m.data).pairs:
                self._precision[pair.symbol] = pair.price_precision, pair.qty_precision
        elif m.method == "subscribe":
            self._subscribed(_SUBSCRIPTION.decode(m.result))
        elif m.channel not in QUIET2:
            self._find(Integrity.unknown_type)

    # -- v1 -------------------------------------------------------------------------------------------------------

    def _array(self, line: Line) -> None:
        """A book message in one step; whatever does not fit that shape is taken apart first."""
        try:
            _, *members, channel, pair = _BOOK1.decode(line.body)
            depth = _DEPTH_OF[channel]  # type: ignore[index]
            parts = [p for p in members if isinstance(p, Part)]
            if len(parts) < len(members) or not isinstance(pair, str):
                raise ValueError("not the members of a book message")
            product = self._product(pair)
        except (msgspec.ValidationError, ValueError, KeyError, TypeError):
            self._other_array(line)
            return
        try:
            product.depth = depth
            self._book1(product, parts, line)
        except ValueError as why:
            self.spoil(product, line, why)

    def _other_array(self, line: Line) -> None:
        members = _ARRAY.decode(line.body)
        if len(members) < 4:
            raise ValueError("an array of fewer than four members")
        channel, pair = _TEXT.decode(members[-2]), _TEXT.decode(members[-1])
        if channel.startswith("book-"):
            self.spoil(self._product(pair), line, ValueError(_why_no_book(members, channel)))
        elif channel == "trade":
            trades = [(t, self.prices[t.price], self.sizes[t.size]) for t in _TRADES1.decode(members[1])]
            for t, px, qty in trades:
                stamp = Stamp(seconds_ns(t.time.encode()), line.ts_recv, line.number)
                self.trade(self._product(pair), stamp, _side(t.side), px, qty)
        elif not channel.startswith(QUIET1):
            self._find(Integrity.unknown_type)

    def _book1(self, product: KrakenBook, parts: list[Part], line: Line) -> None:
        if not parts:
            raise ValueError("a book message without a part")
        first, last = parts[0], parts[-1]
        if first.image_asks is not None or first.image_bids is not None:
            bids = [r for p in parts for r in p.image_bids or ()]
            asks = [r for p in parts for r in p.image_asks or ()]
            texts = [(r.price, r.size) for r in bids + asks]
            self._image(product, self._stamp1(bids + asks, line), self._levels1(bids), self._levels1(asks), texts)
            return
        bids, asks = first.bids, first.asks
        for more in parts[1:]:
            bids, asks = bids + more.bids, asks + more.asks
        text = last.checksum
        if text is None or not text.isdecimal() or len(text) > 10:
            raise ValueError(f"an update without a checksum (c = {text!r})")
        stamp = self._stamp1(bids + asks, line)
        self._update(product, stamp, self._levels1(bids), self._levels1(asks), int(text))

    def _levels1(self, rows: list[Row]) -> list[Level]:
        prices, sizes = self.prices, self.sizes
        return [(prices[r.price], sizes[r.size]) for r in rows]

    def _stamp1(self, rows: list[Row], line: Line) -> Stamp:
        """The latest row; of an empty image the receive time."""
        if len(rows) == 1:
            return Stamp(seconds_ns(rows[0].time.encode()), line.ts_recv, line.number)
        times = [r.time for r in rows]
        # texts of one length are in the order of their times
        latest = [max(times)] if len(set(map(len, times))) == 1 else times
        ts = max([seconds_ns(t.encode()) for t in latest], default=line.ts_recv)
        return Stamp(ts, line.ts_recv, line.number)

    # -- v2 -------------------------------------------------------------------------------------------------------

    def _sent(self, line: Line) -> None:
        """A v2 subscription that asks for a depth."""
        try:
            m = _ENVELOPE.decode(line.body)
            if m.method == "subscribe":
                self._subscribed(_SUBSCRIPTION.decode(m.params))
        except (msgspec.MsgspecError, ValueError, RecursionError) as why:
            self._note(f"{line.place} line {line.number}: a request that cannot be read: {why}")

    def _subscribed(self, s: Subscription) -> None:
        if s.channel == "book" and s.depth in DEPTHS:
            for symbol in [s.symbol] if isinstance(s.symbol, str) else s.symbol:
                self._depths[symbol] = s.depth

    def _book2(self, m: Envelope, line: Line) -> None:
        try:
            books = _BOOKS2.decode(m.data)
        except (msgspec.MsgspecError, ValueError) as why:
            known = [p for n in _NAMES.decode(m.data) if (p := self._by_symbol.get(n.symbol))]
            if not known:
                raise
            for product in known:
                self.spoil(product, line, why)
            return
        for book in books:
            product = self._product(book.symbol)
            try:
                self._one2(product, book, line, image=m.type == "snapshot")
            except ValueError as why:
                self.spoil(product, line, why)

    def _one2(self, product: KrakenBook, book: Book2, line: Line, *, image: bool) -> None:
        stamp = Stamp(iso_ns(book.timestamp) if book.timestamp else line.ts_recv, line.ts_recv, line.number)
        bids, asks = ([(_number(r.price), _number(r.qty)) for r in rows] for rows in (book.bids, book.asks))
        if not image:
            self._update(product, stamp, self.levels(bids), self.levels(asks), book.checksum)
            return
        product.depth = self._depths.get(book.symbol) or self._guess_depth(product, max(len(bids), len(asks)))
        self._image(product, stamp, self.levels(bids), self.levels(asks), bids + asks, book.checksum)

    def _guess_depth(self, product: KrakenBook, levels: int) -> int:
        if product.depth >= levels:
            return product.depth
        depth = next((d for d in DEPTHS if d >= levels), levels)
        self._note(
            f"{product.name}: no subscription in the recording; depth {depth}, from its image of {levels} levels"
        )
        return depth

    def _trade2(self, m: Envelope, line: Line) -> None:
        trades = [(t, self.prices[_number(t.price)], self.sizes[_number(t.qty)]) for t in _TRADES2.decode(m.data)]
        for t, px, qty in trades:
            product = self._product(t.symbol)
            if m.type == "snapshot":
                self._find(Integrity.skipped, 1, product.index)
            else:
                stamp = Stamp(iso_ns(t.timestamp), line.ts_recv, line.number)
                self.trade(product, stamp, _side(t.side), px, qty, t.trade_id)

    # -- the book -------------------------------------------------------------------------------------------------

    def _image(
        self,
        product: KrakenBook,
        stamp: Stamp,
        bids: list[Level],
        asks: list[Level],
        texts: list[tuple[str, str]],
        checksum: int | None = None,
    ) -> None:
        product.bids.load(bids)
        product.asks.load(asks)
        px_decimals, qty_decimals = self._precision.get(product.name) or (
            max((decimals(px) for px, _ in texts[:TOP]), default=0),
            max((decimals(qty) for _, qty in texts[:TOP]), default=0),
        )
        product.set_precision(px_decimals, qty_decimals)
        if checksum is None or self._checked(product, stamp, checksum):
            self.image(product, stamp, bids, asks)

    def _update(self, product: KrakenBook, stamp: Stamp, bids: list[Level], asks: list[Level], checksum: int) -> None:
        if product.waiting:
            self.awaiting(product)
            return
        product.bids.apply(bids)
        product.asks.apply(asks)
        pushed_bids, pushed_asks = product.truncate()
        if self._checked(product, stamp, checksum):
            self.update(product, stamp, bids, asks, pushed_bids, pushed_asks)

    def _checked(self, product: KrakenBook, stamp: Stamp, checksum: int) -> bool:
        """Rule 3. A book that is not the venue's is never shown: its update is not applied, it is thrown away."""
        if product.agrees(checksum):
            self._find(Integrity.checksum_ok, 1, product.index)
            return True
        have = product.checksum()
        why = f"line {stamp.seq}: the venue's checksum is {checksum}, the book's {have}"
        self.invalidate(product, Integrity.checksum_mismatch, stamp, why)
        return False


def _why_no_book(members: list[msgspec.Raw], channel: str) -> str:
    """What is wrong with a v1 message of a book channel."""
    if channel not in _DEPTH_OF:
        return f"{channel[:40]!r} is no depth that Kraken offers"
    try:
        for part in members[1:-2]:
            _PART.decode(part)
    except (msgspec.MsgspecError, ValueError) as why:
        return str(why)
    return "not the members of a book message"


def _number(raw: msgspec.Raw) -> str:
    """The text of a JSON number; whether it is one, the unit tables find out."""
    return bytes(raw).decode("ascii", "replace")


def _side(text: str) -> int:
    side = _SIDES.get(text)
    if side is None:
        raise ValueError(f"{text[:20]!r} is no side")
    return side
