"""Binance spot, USD-M and COIN-M futures: diff depth with a REST image in the stream, trades, best quotes.

Rules (Binance: "Diff. Depth Stream", "How to manage a local order book correctly" for spot and for futures; REST
"Order book"; captures of hftbacktest and of cryptofeed):

1. A depth update holds absolute sizes (0 removes; of a level not held that is normal) and the update ids U..u; futures
   add pu, the u of the update before.
2. The REST image comes after updates that belong on top of it: updates without a book are kept (the last MAX_KEPT of an
   instrument; what is dropped or never used is `awaiting_image`). With the image, spot drops u <= lastUpdateId, futures
   u < lastUpdateId (`skipped`); the first one used must have U <= lastUpdateId + 1 (futures: U <= lastUpdateId), else
   the image is too old: a `gap`, and the next image is awaited. An update that waited carries the receive time of
   the image, because before it nobody knew the book.
3. Later updates: u at or below the book's is `skipped`. Spot: U above the book's u + 1 is a `gap`. Futures: pu other
   than the book's u is a `gap`. A gap invalidates the book until the next image; updates from there on are kept as
   in 2.
4. The image's symbol is the one that its URL asked for, or its own (COIN-M); else it is the only instrument of its
   market in the stream, or the only one whose kept updates it fits. An image before any message waits for the first
   depth update. An image older than a book in order is `skipped`, a newer one takes its place.
5. Best quotes (`bookTicker`) change no book; they are compared with it. After every depth update that was applied the
   book's best prices and sizes must be those of the last quote with id <= u: `quote_ok` or `quote_mismatch`. A quote
   may be received after the update that contains it, so the comparison is made when a quote with a larger id (or the
   end) has come; an update before the first quote is not compared. On the recordings of 2024-08-08 this makes 3,449
   (spot), 6,547 (USD-M) and 26,824 (COIN-M) comparisons, one for every update applied, all equal. The continuation of
   the spot file has two of 3,044 that differ: in both the update removes the best bid, and a quote of that never came.
6. Trades: `m` says that the buyer was the maker, so the resting side is the bid. The stream of single trades or of
   aggregate ones is used, whichever comes first for an instrument; the other one would double the volume.
7. `seq` is u (images: lastUpdateId; trades: the book's u). Venue time is T (matching engine), or E where there is no T.
8. Without an image nothing can be built: files that continue earlier ones must be given after them, or with --snapshot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from microrisk.errors import FeedError, UsageError
from microrisk.feed import binance_files
from microrisk.feed.base import ChunkFeed
from microrisk.feed.binance_messages import (
    QUIET,
    Data,
    Message,
    Rows,
    decode,
    depth_symbol,
    is_futures,
    market_of,
    name_of,
    resting_side,
    symbol_of,
    venue_ns,
)
from microrisk.feed.capture import Capture, Line
from microrisk.feed.l2 import L2Feed, Product, Stamp
from microrisk.feed.ladder import Ladder, Level
from microrisk.feed.open import Source
from microrisk.spec.records import FeedId, Integrity
from microrisk.spec.units import NULL_TS

MAX_KEPT = 8192
"""Updates of an instrument that wait for an image: minutes of the busiest stream, some tens of MiB."""
MAX_UNCOMPARED = 4096
"""Updates of an instrument whose comparison waits for a quote."""
MAX_QUOTES = 65_536
"""Quotes of an instrument that wait for an update."""

Best = tuple[Level, Level]
"""Best bid and ask; (0, 0) for an empty side."""


@dataclass(frozen=True, slots=True)
class Update:
    """A depth update, read."""

    first: int
    last: int
    previous: int | None
    ts_event: int
    ts_recv: int
    bids: list[Level]
    asks: list[Level]


@dataclass(frozen=True, slots=True)
class Image:
    """A REST image, read. `futures` None: not known."""

    last: int
    symbol: str
    futures: bool | None
    ts_event: int
    ts_recv: int
    bids: list[Level]
    asks: list[Level]
    given: bool = False


class Pair(Product):
    """An instrument.

    Attributes
    ----------
    futures : which rules
    last : u of the book
    fresh : the next update is the first one on top of an image
    kept : updates without a book
    trades : "trade" or "aggTrade", the stream that is used
    quotes : id and best of quotes from the last one that an update was compared with
    uncompared : u and best of updates whose comparison waits for a later quote
    awaiting : updates that found no book and were dropped
    """

    __slots__ = ("asks", "awaiting", "bids", "fresh", "futures", "kept", "last", "quotes", "trades", "uncompared")

    def __init__(self, index: int, name: str) -> None:
        super().__init__(index, name)
        self.futures = self.fresh = False
        self.last = self.awaiting = 0
        self.bids, self.asks = Ladder(), Ladder()
        self.kept: deque[Update] = deque()
        self.trades = ""
        self.quotes: deque[tuple[int, Best]] = deque(maxlen=MAX_QUOTES)
        self.uncompared: deque[tuple[int, Best]] = deque()


def open_capture(capture: Capture, *, venue: str | None, snapshot: Source | None) -> BinanceFeed:
    """The feed of captured sessions; `snapshot`: a REST depth answer, loaded first."""
    return BinanceFeed(capture, venue, snapshot)


def open_sources(
    sources: Sequence[Source], *, date: str | None, venue: str | None, snapshot: Source | None
) -> ChunkFeed:
    """The feed of files in order, `date` is not needed: captures in any wrapping of `capture.py`, or files of trades.

    Raises
    ------
    UsageError : captures and files of trades together
    """
    tables = [binance_files.kind_of(s.head(4096).removeprefix(b"\xef\xbb\xbf")) is not None for s in sources]
    if all(tables):
        return binance_files.open_sources(sources, date=date, venue=venue, snapshot=snapshot)
    if any(tables):
        raise UsageError("captures and files of trades or bars cannot be one feed")
    return open_capture(Capture(sources), venue=venue, snapshot=snapshot)


class BinanceFeed(L2Feed[Pair]):
    """Books, trades and quote checks of any number of instruments."""

    format = "binance"
    feed_id = FeedId.BINANCE
    default_venue = "BINANCE"
    product_type = Pair

    def __init__(self, capture: Capture, venue: str | None, snapshot: Source | None = None) -> None:
        super().__init__(capture, venue)
        self._orphan: Image | None = None
        self._pairs: dict[tuple[str, bool], Pair] = {}
        if snapshot is not None:
            self._orphan = self._read_snapshot(snapshot)

    # -- lines ----------------------------------------------------------------------------------------------------

    def _message(self, line: Line) -> None:
        try:
            m = decode(line.body)
        except (msgspec.MsgspecError, ValueError) as why:
            named = depth_symbol(line.body)
            if named is None:
                raise
            self.spoil(self._pair(*named), line, why)
            return
        d = m.data
        if m.lastUpdateId is not None:
            self._rest_image(self._read_image(m, line.url, line.ts_recv), line)
        elif isinstance(d, Data):
            self._event(d, m.stream, line)

    def _event(self, d: Data, stream: str, line: Line) -> None:
        if d.e == "depthUpdate":
            self._depth(d, line)
        elif d.e in ("trade", "aggTrade"):
            self._traded(d, line)
        elif d.e == "bookTicker" or (not d.e and d.B is not None):
            self._quoted(d, line)
        elif d.e not in QUIET and (d.e or stream):  # without both it answers a request
            self._find(Integrity.unknown_type)

    def _reopened(self, line: Line) -> None:
        """A new connection goes on with the same ids: they say by themselves whether something is missing."""

    def _lost(self, line: Line) -> None:
        """As `L2Feed`; quotes were lost too, so that those before say nothing about the updates behind."""
        super()._lost(line)
        for pair in self._pairs.values():
            pair.quotes.clear()
            pair.uncompared.clear()

    def waiting(self) -> dict[int, str]:
        """As `L2Feed.waiting`; a future has the symbol that its own market gives it."""
        return {p.index: symbol for (symbol, _), p in self._pairs.items() if p.waiting}

    def _pair(self, symbol: str, futures: bool) -> Pair:
        pair = self._pairs.get((symbol, futures))
        if pair is None:
            pair = self._pairs[symbol, futures] = self._product(name_of(symbol, futures))
            pair.futures = futures
        return pair

    def _pair_of(self, d: Data, line: Line) -> Pair:
        market = market_of(line.url) if line.url else None
        return self._pair(d.s, is_futures(d) if market is None else market)

    def _end(self) -> None:
        for pair in self._pairs.values():
            self._compare_rest(pair)
            if pair.waiting and pair.kept:
                self._find(Integrity.awaiting_image, len(pair.kept), pair.index)
                self._note(
                    f"{pair.name}: {pair.awaiting + len(pair.kept)} updates found no book image; give the recording "
                    "that this one continues before it, or an image as --snapshot"
                )
        if self._orphan is not None:
            self._note("a book image was not used: no depth update names its instrument")

    # -- images -----------------------------------------------------------------------------------------------------

    def _read_snapshot(self, source: Source) -> Image:
        stream = source.stream()
        data = b"".join(stream)
        if stream.cut:
            raise FeedError(f"the book image is cut: {stream.cut}", path=source.label)
        try:
            m = decode(data.partition(b"\n")[0] if data.lstrip()[:1] != b"{" else data)
            if m.lastUpdateId is None:
                raise ValueError("no lastUpdateId")
            image = self._read_image(m, "", NULL_TS)
        except (msgspec.MsgspecError, ValueError) as why:
            raise UsageError(f"{source.label} is not a REST depth answer of Binance: {why}") from why
        # spot and USD-M answers name no symbol, and an old recording of any may lack its time
        return Image(image.last, image.symbol, None, image.ts_event, NULL_TS, image.bids, image.asks, given=True)

    def _read_image(self, m: Message, url: str, ts_recv: int) -> Image:
        assert m.lastUpdateId is not None
        market = market_of(url) if url else None
        time = m.T if m.T is not None else m.E
        return Image(
            m.lastUpdateId,
            symbol_of(url) or m.symbol,
            m.T is not None if market is None else market,
            venue_ns(time) if time else ts_recv,
            ts_recv,
            self.levels(m.bids),
            self.levels(m.asks),
        )

    def _rest_image(self, image: Image, line: Line) -> None:
        """Rule 4: whose image it is."""
        if image.symbol:
            self._load(self._pair(image.symbol, bool(image.futures)), image)
            return
        pairs = [p for p in self._pairs.values() if p.futures == image.futures]
        fit = [p for p in pairs if p.waiting and any(_fits(image, u, p.futures) for u in p.kept)]
        if len(pairs) == 1 or len(fit) == 1:
            self._load((fit or pairs)[0], image)
        elif not pairs and self._orphan is None:
            self._orphan = image
        else:
            raise ValueError("a book image without a symbol, which fits no instrument of the stream")

    def _load(self, pair: Pair, image: Image) -> None:
        """Rule 2: the image, then what was kept and belongs on top of it."""
        if not pair.waiting and image.last <= pair.last:
            self._find(Integrity.skipped, 1, pair.index)
            return
        usable = [u for u in pair.kept if not _stale(image.last, u, pair.futures)]
        if usable and not _fits(image, usable[0], pair.futures):
            self._find(Integrity.gap, 1, pair.index, before=len(self._rows))
            self._note(
                f"{pair.name}: the book image {image.last} is older than the recording: its updates begin with "
                f"{usable[0].first}; the next image is awaited"
            )
            return
        self._find(Integrity.skipped, len(pair.kept) - len(usable), pair.index)
        pair.kept.clear()
        pair.bids.load(image.bids)
        pair.asks.load(image.asks)
        pair.last, pair.fresh = image.last, True
        before = len(self._rows)
        self.image(pair, Stamp(image.ts_event, image.ts_recv, image.last), image.bids, image.asks)
        self.synthetic += (len(self._rows) - before) * image.given
        for update in usable:
            self._next(pair, update, max(update.ts_recv, image.ts_recv))

    # -- depth ------------------------------------------------------------------------------------------------------

    def _depth(self, d: Data, line: Line) -> None:
        pair = self._pair_of(d, line)
        try:
            if d.u is None or (pair.futures and d.pu is None):
                raise ValueError("a depth update without its ids")
            time = venue_ns(d.E if d.T is None else d.T)
            bids, asks = self.levels(_rows(d.b)), self.levels(_rows(d.a))
            update = Update(d.U, d.u, d.pu, time, line.ts_recv, bids, asks)
        except ValueError as why:
            self.spoil(pair, line, why)
            return
        image = self._orphan
        if image is not None and pair.waiting and image.symbol in ("", d.s) and image.futures in (None, pair.futures):
            self._orphan = None
            self._load(pair, image)
        if pair.waiting:
            self._keep(pair, update)
        else:
            self._next(pair, update, line.ts_recv)

    def _keep(self, pair: Pair, update: Update) -> None:
        if len(pair.kept) >= MAX_KEPT:
            pair.kept.popleft()
            pair.awaiting += 1
            self.awaiting(pair)
        pair.kept.append(update)

    def _next(self, pair: Pair, update: Update, ts_recv: int) -> None:
        """Rule 3: the update, if it is the next one."""
        if pair.waiting:  # an update before this one, also kept, broke the book
            self._keep(pair, update)
            return
        stamp = Stamp(update.ts_event, ts_recv, update.last)
        if _stale(pair.last, update, pair.futures and pair.fresh):
            self._find(Integrity.skipped, 1, pair.index)
            return
        missing = self._missing(pair, update)
        if missing:
            self.invalidate(pair, Integrity.gap, stamp, missing)
            self._keep(pair, update)
            return
        pair.last, pair.fresh = update.last, False
        pair.bids.apply(update.bids)
        pair.asks.apply(update.asks)
        self.update(pair, stamp, update.bids, update.asks)
        pair.uncompared.append((update.last, (pair.bids.level(-1), pair.asks.level(0))))
        self._settle(pair)
        if len(pair.uncompared) > MAX_UNCOMPARED:
            self._compare(pair, *pair.uncompared.popleft())

    def _missing(self, pair: Pair, update: Update) -> str:
        """What lies between the book and the update, in words; "" when nothing does."""
        if pair.futures and not pair.fresh:
            if update.previous == pair.last:
                return ""
            return f"update {update.last} follows {update.previous}, the book is at {pair.last}"
        if update.first <= pair.last + (not pair.futures):
            return ""
        return f"updates {pair.last + 1} to {update.first - 1} missing"

    # -- quotes -----------------------------------------------------------------------------------------------------

    def _quoted(self, d: Data, line: Line) -> None:
        if d.u is None or not all(isinstance(x, str) for x in (d.b, d.B, d.a, d.A)):
            raise ValueError("a quote without id, prices or sizes")
        prices, sizes = self.prices, self.sizes
        best = _level(prices[str(d.b)], sizes[str(d.B)]), _level(prices[str(d.a)], sizes[str(d.A)])
        pair = self._pair_of(d, line)
        quotes = pair.quotes
        if quotes and d.u <= quotes[-1][0]:
            self._find(Integrity.duplicate_seq, 1, pair.index)
            return
        quotes.append((d.u, best))
        self._settle(pair)

    def _settle(self, pair: Pair) -> None:
        """Rule 5: the comparisons for which a quote with a larger id has come."""
        while pair.uncompared and pair.quotes and pair.quotes[-1][0] > pair.uncompared[0][0]:
            self._compare(pair, *pair.uncompared.popleft())

    def _compare(self, pair: Pair, last: int, best: Best) -> None:
        """The book after update `last` with the last quote up to it, which is the first one still kept."""
        quotes = pair.quotes
        while len(quotes) > 1 and quotes[1][0] <= last:
            quotes.popleft()
        if not quotes or quotes[0][0] > last:
            return
        quote, quoted = quotes[0]
        if quoted == best:
            self._find(Integrity.quote_ok, 1, pair.index)
            return
        self._find(Integrity.quote_mismatch, 1, pair.index)
        self._note(f"{pair.name}: after update {last} the book's best is {best}, quote {quote} says {quoted}")

    def _compare_rest(self, pair: Pair) -> None:
        for last, best in pair.uncompared:
            self._compare(pair, last, best)
        pair.uncompared.clear()

    # -- trades -----------------------------------------------------------------------------------------------------

    def _traded(self, d: Data, line: Line) -> None:
        ref = d.t if d.e == "trade" else d.a
        if d.p is None or not isinstance(d.q, str) or d.m is None or not isinstance(ref, int):
            raise ValueError("a trade without id, price, size or side")
        px, qty = self.prices[d.p], self.sizes[d.q]
        pair = self._pair_of(d, line)
        if not pair.trades:
            pair.trades = d.e
        if pair.trades != d.e:
            return
        stamp = Stamp(venue_ns(d.E if d.T is None else d.T), line.ts_recv, pair.last)
        self.trade(pair, stamp, resting_side(d.m), px, qty, ref)


def _rows(value: Rows | str | int | None) -> Rows:
    if not isinstance(value, list):
        raise ValueError("a depth update without a side")
    return value


def _level(px: int, qty: int) -> Level:
    """A side of a quote; an empty one has size 0 and no price."""
    return (px, qty) if qty else (0, 0)


def _stale(last: int, update: Update, futures: bool) -> bool:
    """At or below the book; the last id of a futures image itself belongs on top of it."""
    return update.last < last if futures else update.last <= last


def _fits(image: Image, update: Update, futures: bool) -> bool:
    """Whether the update is the first one on top of the image."""
    return not _stale(image.last, update, futures) and update.first <= image.last + (not futures)
