"""JSON venues as they speak: the decoders of recordings, fed line by line.

`open_live` gives a `LiveText`. `take` hands it one text, `feed.pump(engine)` applies what has been taken. Receive time
and number come with each line, so the same lines give the same events, whenever they are taken.

1. One connection a feed. A line that was received has the URL of the last connection opened, before that the given one.
2. A lost connection (`doubt`) has lost messages, also where numbers would show it only later: every book is thrown away
   at once (`session_reset`, `invalidated`), marked, and waits for an image. Updates with numbers (Binance, Coinbase
   `full`) are kept meanwhile; whether they follow the image their numbers say.
3. `waiting` names products whose book waits for an image. It must be asked for after the subscription is confirmed:
   an image from before it may end ahead of the first update (a `gap` where there are numbers, and it goes on waiting).
4. `dump` and `restore` carry everything that decides which events further lines become. A restored feed has counted
   the same messages and its instruments have the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from microrisk.errors import FeedError, UsageError
from microrisk.feed import binance, bitstamp, bitstamp_messages, coinbase, coinbase_level2, kraken, kraken_book, stale
from microrisk.feed.base import Instrument
from microrisk.feed.bitstamp_orders import ROW, OrderBook
from microrisk.feed.capture import LOST, OPENED, RECEIVED, RESPONSE, SENT, Capture, Line
from microrisk.feed.coinbase_live import Followed, LiveCoinbaseFeed
from microrisk.feed.interning import PassingInterner
from microrisk.feed.l2 import L2Feed, Product, Stamp
from microrisk.feed.ladder import Ladder
from microrisk.feed.state import Codec, known

TextFeed = L2Feed[Any] | LiveCoinbaseFeed
"""What reads the lines: `pump`, `instruments`, `messages`, `mask` as every feed."""


class LiveCapture(Capture):
    """Lines that come one at a time; `batches` gives those that came since it was last asked, maybe none.

    Parameters
    ----------
    url : of the connection, until one is opened
    place : name for notices
    """

    def __init__(self, url: str, place: str) -> None:
        super().__init__([])
        self.connection = url
        self._place = place
        self.pending: list[Line] = []
        self.ended = False

    @property
    def progress(self) -> float:
        """Always 0: nobody knows how much will come."""
        return 0.0

    def add(self, number: int, ts_recv: int, kind: int, body: bytes, url: str) -> None:
        """One line; UsageError behind the end."""
        if self.ended:
            raise UsageError("a line behind the end of the feed: open another one")
        if kind == OPENED:
            self.connection = url
        self.pending.append(Line(number, ts_recv, kind, body, url or self.connection, self._place))

    def batches(self) -> Iterator[list[Line]]:
        """One list for each time it is asked, until `ended`."""
        while self.pending or not self.ended:
            batch, self.pending = self.pending, []
            yield batch


class LiveText:
    """One feed of a JSON venue.

    Attributes
    ----------
    feed : the decoder; `feed.pump(engine)` applies what was taken
    """

    def __init__(self, name: str, capture: LiveCapture, feed: TextFeed) -> None:
        self.feed = feed
        self._name, self._capture = name, capture

    def take(self, kind: int, recv_ns: int, seq: int, body: bytes) -> None:
        """One text.

        Parameters
        ----------
        kind : RECEIVED, RESPONSE, SENT or OPENED of `capture.py`
        recv_ns : when it was read, ns UTC
        seq : number of the line, rising
        body : the text; of RESPONSE, SENT and OPENED the URL, a line feed, the text

        Raises
        ------
        UsageError : another kind, or the feed has been ended
        """
        if kind not in (RECEIVED, RESPONSE, SENT, OPENED):
            raise UsageError(f"line {seq} is of kind {kind}: a text is of kind 0 to 3")
        url = b""
        if kind != RECEIVED:
            url, _, body = body.partition(b"\n")
        # findings that name an order are for recordings; here nobody takes them away
        self.feed.told.clear()
        self._capture.add(seq, recv_ns, kind, body, url.decode("utf-8", "replace"))

    def doubt(self, recv_ns: int, seq: int) -> None:
        """The connection was lost, or is not believed: every book waits for an image (rule 2)."""
        self._capture.add(seq, recv_ns, LOST, b"", "")

    def end(self) -> None:
        """No further line: once all are applied, `pump` answers False, and what still waited is counted."""
        self._capture.ended = True

    def waiting(self) -> list[str]:
        """Products that need an image, in the venue's spelling, in order of first sight."""
        return list(self.feed.waiting().values())

    def waiting_numbers(self) -> set[int]:
        """EVENT.instrument of the same."""
        return set(self.feed.waiting())

    def dump(self) -> bytes:
        """The state between two lines.

        Raises
        ------
        UsageError : a line has been taken that was not applied
        """
        if self._capture.pending:
            raise UsageError(f"{len(self._capture.pending)} lines have not been applied: pump, then dump")
        held = {name: value for name, value in vars(self.feed).items() if name not in _REBUILT}
        return _CODEC.dump([self._name, self._capture.connection, held])

    def restore(self, data: bytes) -> None:
        """Go on where `dump` was called; on a feed that was opened in the same way and has taken nothing.

        Raises
        ------
        FeedError : damaged, no state, or that of another feed
        SpecMismatch : written by another build
        UsageError : the feed has already read something
        """
        if self.feed.messages or self._capture.pending:
            raise UsageError("a feed that has read messages cannot be restored: open another one")
        loaded = _CODEC.load(data)
        if not isinstance(loaded, list) or len(loaded) != 3 or not isinstance(loaded[2], dict):
            raise FeedError("the state of a feed cannot be read: other members than a feed's")
        name, connection, held = loaded
        if name != self._name:
            raise FeedError(f"the state is that of {name!r}, the feed is {self._name!r}")
        if held.keys() != vars(self.feed).keys() - _REBUILT:
            raise FeedError(f"the state of {name!r} has other members than the feed")
        vars(self.feed).update(held)
        self._capture.connection = connection


def open_live(scheme: str, *, url: str = "", channel: str | None = None, venue: str | None = None) -> LiveText:
    """The feed of a venue, without a line yet.

    Parameters
    ----------
    scheme : coinbase, kraken, binance or bitstamp
    url : of the connection; for Binance its host tells spot (`stream.`) from futures (`fstream.`, `dstream.`)
    channel : coinbase: `full` (taken when None), `level2` or `level2_batch`; bitstamp: the prefix of the channel that
        makes the books, `diff_order_book` (taken when None), `live_orders`, `order_book` or `detail_order_book`; the
        others have none
    venue : of the instruments, else the scheme's own

    Raises
    ------
    UsageError : an unknown scheme or channel
    """
    make = _MAKERS.get(scheme)
    if make is None:
        raise UsageError(f"no live feed {scheme!r}; there are {', '.join(sorted(_MAKERS))}")
    capture = LiveCapture(url, scheme)
    feed = make(capture, channel, venue)
    return LiveText(f"{scheme}:{channel or ''}:{venue or ''}", capture, feed)


def _coinbase(capture: Capture, channel: str | None, venue: str | None) -> TextFeed:
    if channel in (None, "full"):
        return LiveCoinbaseFeed(capture, venue)
    if channel in ("level2", "level2_batch"):
        return coinbase_level2.open_capture(capture, venue=venue, snapshot=None)
    raise UsageError(f"coinbase has no channel {channel!r}; there are full, level2, level2_batch")


def _bitstamp(capture: Capture, channel: str | None, venue: str | None) -> TextFeed:
    asked = channel or bitstamp_messages.DIFF
    if asked not in bitstamp_messages.BOOKS:
        raise UsageError(f"bitstamp has no channel {channel!r}; there are {', '.join(bitstamp_messages.BOOKS)}")
    feed = bitstamp.open_capture(capture, venue=venue, snapshot=None)
    feed.expect([asked])
    return feed


def _kraken(capture: Capture, channel: str | None, venue: str | None) -> TextFeed:
    _no_channel("kraken", channel)
    return kraken.open_capture(capture, venue=venue, snapshot=None)


def _binance(capture: Capture, channel: str | None, venue: str | None) -> TextFeed:
    _no_channel("binance", channel)
    return binance.open_capture(capture, venue=venue, snapshot=None)


def _no_channel(scheme: str, channel: str | None) -> None:
    if channel is not None:
        raise UsageError(f"{scheme} has one channel of books: channel={channel!r} has no use here")


_MAKERS: dict[str, Callable[[Capture, str | None, str | None], TextFeed]] = {
    "binance": _binance,
    "bitstamp": _bitstamp,
    "coinbase": _coinbase,
    "kraken": _kraken,
}

# -- the classes of the state ------------------------------------------------------------------------------------------

_REBUILT = frozenset({"_batches", "_capture", "_lines", "_reader", "prices", "sizes", "told"})
"""Attributes of feeds that are no state: the source of lines, and tables that only save time."""


def _sorted_prices(ladder: Ladder) -> None:
    ladder.prices = sorted(ladder.sizes)


def _sided(side: kraken_book.Sided) -> None:
    _sorted_prices(side)
    side.write_with(0, 0)


def _kraken_book(book: kraken_book.KrakenBook) -> None:
    if not 0 <= book.px_decimals <= 64 or not 0 <= book.qty_decimals <= 64:
        raise ValueError(f"a precision of {book.px_decimals} and {book.qty_decimals} decimals")
    book.set_precision(book.px_decimals, book.qty_decimals, proven=book.proven)


def _interner(ids: PassingInterner) -> None:
    ids._names = {handle: text for text, handle in ids._handles.items()}
    ids._labels = [""]


_CODEC = Codec(
    [
        known(Instrument),
        known(Stamp),
        known(Product),
        known(Ladder, left_out=["prices"], rebuild=_sorted_prices),
        known(kraken_book.Sided, left_out=["prices", "texts"], rebuild=_sided),
        known(kraken_book.KrakenBook, rebuild=_kraken_book),
        known(coinbase_level2.Ticked),
        known(coinbase.Message),
        known(coinbase.Resting, table=True),
        known(Followed),
        known(PassingInterner, fields=["_handles", "_next"], left_out=["_names", "_labels"], rebuild=_interner),
        known(binance.Pair),
        known(binance.Update),
        known(binance.Image),
        known(bitstamp_messages.Pair),
        known(bitstamp_messages.Book),
        known(OrderBook, fields=["index", "finder", "resting", "_ended", "_aside"]),
        known(stale.StaleFinder, fields=["_after_ns", "_witnesses", "_accused"]),
        known(stale.Accusation),
    ],
    [ROW],
)
