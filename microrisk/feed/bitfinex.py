"""Bitfinex order books of price levels (P0 to P4) and trades, by channels of the websocket v2.

Rules (Bitfinex API documentation, "Books", "Trades", "Conf flags", "WebSocket checksum"; what it leaves open is told by
the recording and said so):

1. `subscribed` gives a channel id to a symbol; data are [id, data, ...]. The first data of a book channel, and any
   later list of rows, is the whole book; after it each message is one row [price, count, amount]. Count 0 removes the
   level; the sign of the amount is the side (bids above 0), its size the level's.
2. With flag 65536 every data message ends in a number that goes up by 1 over all channels (heartbeats and tickers too):
   a number met before is a `duplicate_seq`, a jump a `gap` of unknown channels: every book waits for its next image.
   The number starts anew with the connection.
3. With flag 131072 the venue sends [id, "cs", sum]: CRC32, signed, of the best 25 levels, bid price, bid amount, ask
   price, ask amount of each in turn, as the venue writes them, joined by colons. `checksum_ok`, or `checksum_mismatch`
   and the book waits for an image. (No recording has them; the rule is tested with made-up ones.)
4. Depth, by the recording: the venue removes what it pushes out itself, before the level that pushes it out is sent
   (no side ever has more than the 100 levels asked for; the removals of the last level of a full side, 30, are each
   followed by a better level at once). Such a removal is flagged as pushed out. More levels are not taken for a broken
   rule: the venue promises no order inside a burst.
5. Trades: [id, "te", [trade id, ms, amount, price]] when it happens and the same as "tu" when it is booked: only "te"
   counts. The amount is above 0 when the taker buys. The list at the beginning is history: `skipped`.
6. `unsubscribed`, and an info code that announces a restart or maintenance (20051, 20060, 20061), end the books they
   concern: `session_reset`. Raw books (R0) and funding (symbols that begin with f) are not read: `unknown_type`.
7. Numbers are JSON numbers, taken as written. There is no venue time in a book: the receive time stands in for it.
   seq is the number of rule 2, else the line number.
8. Instruments: tBTCUSD is BTC-USD, tTESTBTC:TESTUSD is TESTBTC-TESTUSD.
"""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from microrisk.feed.capture import OPENED, Capture, Line
from microrisk.feed.l2 import MARK, PUSHED_OUT, L2Feed, Product, Stamp, ms_ns, no_snapshot, number_text
from microrisk.feed.open import Source
from microrisk.spec.records import Action, FeedId, Integrity
from microrisk.spec.units import Side

_BID, _ASK = int(Side.BID), int(Side.ASK)
SEQ_ALL = 65536
"""Conf flag: every data message is numbered."""
CHECKED_LEVELS = 25
_RESTARTS = frozenset({20051, 20060, 20061})


class Event(msgspec.Struct):
    """What is no data: replies and news of the connection."""

    event: str
    channel: str = ""
    chanId: int = 0
    symbol: str = ""
    prec: str = ""
    len: int | str = 0
    flags: int = 0
    code: int = 0
    msg: str = ""


Raw = msgspec.Raw
_EVENT = msgspec.json.Decoder(Event)
_DATA = msgspec.json.Decoder(list[Raw])
_ROW = msgspec.json.Decoder(tuple[Raw, int, Raw])
_ROWS = msgspec.json.Decoder(list[tuple[Raw, int, Raw]])
_TRADE = msgspec.json.Decoder(tuple[int, int, Raw, Raw])
_INTEGER = msgspec.json.Decoder(int)


@dataclass(frozen=True)
class Row:
    """One level as sent: side, price, size (0 = removed), and the texts of price and amount for the checksum."""

    side: int
    px: int
    qty: int
    texts: tuple[str, str]


class BitfinexBook(Product):
    """A product with its book.

    Attributes
    ----------
    depth : levels a side that were asked for
    levels : price -> texts of price and amount, by side
    """

    __slots__ = ("depth", "levels")

    def __init__(self, index: int, name: str) -> None:
        super().__init__(index, name)
        self.depth = 0
        self.levels: dict[int, dict[int, tuple[str, str]]] = {_BID: {}, _ASK: {}}

    def change(self, row: Row) -> bool:
        """Apply one row; whether it removed the last level of a full side."""
        levels = self.levels[row.side]
        if row.qty:
            levels[row.px] = row.texts
            return False
        full = 0 < self.depth <= len(levels)
        pushed = full and row.px == (min(levels) if row.side == _BID else max(levels))
        levels.pop(row.px, None)
        return pushed

    def checksum(self) -> int:
        """The sum of rule 3."""
        bids = heapq.nlargest(CHECKED_LEVELS, self.levels[_BID])
        asks = heapq.nsmallest(CHECKED_LEVELS, self.levels[_ASK])
        words: list[str] = []
        for at in range(CHECKED_LEVELS):
            words += self.levels[_BID][bids[at]] if at < len(bids) else ()
            words += self.levels[_ASK][asks[at]] if at < len(asks) else ()
        total = zlib.crc32(":".join(words).encode())
        return total - (1 << 32) if total >> 31 else total


@dataclass
class Channel:
    """A subscription: "book", "trades", or "" for one that is not read."""

    kind: str
    book: BitfinexBook | None = None


def open_capture(capture: Capture, *, venue: str | None, snapshot: Source | None) -> BitfinexFeed:
    """The feed of a captured session.

    Raises
    ------
    UsageError : a snapshot was given
    """
    no_snapshot(snapshot, "Bitfinex")
    return BitfinexFeed(capture, venue)


def open_sources(
    sources: Sequence[Source], *, date: str | None, venue: str | None, snapshot: Source | None
) -> BitfinexFeed:
    """The feed of files; `date` is not needed, receive times are full."""
    return open_capture(Capture(sources), venue=venue, snapshot=snapshot)


class BitfinexFeed(L2Feed[BitfinexBook]):
    """Channels of one connection; see the rules of the module."""

    format = "bitfinex"
    feed_id = FeedId.BITFINEX
    default_venue = "BITFINEX"
    product_type = BitfinexBook

    def __init__(self, capture: Capture, venue: str | None) -> None:
        super().__init__(capture, venue)
        self._channels: dict[int, Channel] = {}
        self._numbered = False
        self._last = 0

    def _symbol(self, name: str) -> str:
        pair = name.removeprefix("t")
        return pair.replace(":", "-") if ":" in pair else f"{pair[:-3]}-{pair[-3:]}"

    def _aside(self, line: Line) -> None:
        super()._aside(line)
        if line.kind == OPENED:
            self._channels.clear()
            self._numbered, self._last = False, 0

    def _message(self, line: Line) -> None:
        if line.body.lstrip()[:1] == b"{":
            self._event(line, _EVENT.decode(line.body))
            return
        data = _DATA.decode(line.body)
        if len(data) < 2:
            raise ValueError(f"{len(data)} parts instead of a channel and its data")
        ident, seq = _INTEGER.decode(data[0]), line.number
        if self._numbered:
            seq = _INTEGER.decode(data[-1])
            if not self._in_sequence(line, seq):
                return
        channel = self._channels.get(ident)
        if channel is None and bytes(data[1]) != b'"hb"':
            self._find(Integrity.unknown_type)
        elif channel is not None and channel.book is not None:
            stamp = Stamp(line.ts_recv, line.ts_recv, seq)
            if channel.kind == "book":
                self._book(line, stamp, channel.book, data)
            elif channel.kind == "trades":
                self._trades(line, channel.book, data)

    # -- connection ---------------------------------------------------------------------------------------------

    def _event(self, line: Line, m: Event) -> None:
        if m.event == "conf":
            self._numbered = bool(m.flags & SEQ_ALL)
        elif m.event == "subscribed":
            self._channels[m.chanId] = self._channel(m)
        elif m.event == "unsubscribed":
            channel = self._channels.pop(m.chanId, None)
            if channel is not None and channel.kind == "book" and channel.book is not None:
                self._end_of(channel.book, line, "unsubscribed")
        elif m.event == "info" and m.code in _RESTARTS:
            for book in self._by_symbol.values():
                self._end_of(book, line, f"the venue says {m.code}")
        elif m.event == "error":
            self._note(f"{line.place} line {line.number}: the venue refused a request: {m.code} {m.msg[:100]}")

    def _channel(self, m: Event) -> Channel:
        """What a subscription is about; a second book of a symbol is not read."""
        if m.channel not in ("book", "trades"):
            return Channel("")
        if not m.symbol.startswith("t") or m.prec.startswith("R"):
            return self._unread(f"{m.channel} {m.prec} of {m.symbol}")
        book = self._product(m.symbol)
        if m.channel == "book":
            if any(c.kind == "book" and c.book is book for c in self._channels.values()):
                return self._unread(f"a second book of {m.symbol}")
            book.depth = int(m.len)
        return Channel(m.channel, book)

    def _unread(self, what: str) -> Channel:
        self._find(Integrity.unknown_type)
        self._note(f"not read: {what}")
        return Channel("")

    def _end_of(self, book: BitfinexBook, line: Line, why: str) -> None:
        if not book.waiting:
            stamp = Stamp(line.ts_recv, line.ts_recv, line.number)
            self.invalidate(book, Integrity.session_reset, stamp, why)

    def _in_sequence(self, line: Line, seq: int) -> bool:
        """Whether the message is news; a jump throws every book away, once."""
        if seq <= self._last:
            self._find(Integrity.duplicate_seq)
            return False
        last, self._last = self._last, seq
        if seq != last + 1:
            stamp = Stamp(line.ts_recv, line.ts_recv, line.number)
            for book in self._by_symbol.values():
                self._throw_away(book, stamp)
            self._find(Integrity.gap, before=len(self._rows))
            self._note(f"{line.place} line {line.number}: messages {last + 1} to {seq - 1} are missing")
        return True

    def _throw_away(self, book: BitfinexBook, stamp: Stamp) -> None:
        """As `invalidate`, but for the finding, which concerns the whole connection."""
        if not book.waiting:
            self._rows += [(int(Action.CLEAR) | 1 << 8, 0, 0, 0), MARK]
            self._close(book, stamp, len(self._rows) - 2)
            self._find(Integrity.invalidated, 1, book.index, before=len(self._rows))
            book.waiting = True

    # -- books --------------------------------------------------------------------------------------------------

    def _book(self, line: Line, stamp: Stamp, book: BitfinexBook, data: list[Raw]) -> None:
        first = bytes(data[1])
        if first == b'"hb"':
            return
        try:
            if first == b'"cs"':
                self._check(book, stamp, _INTEGER.decode(data[2]))
            elif first in (b"[]", b"[ ]") or first[1:].lstrip()[:1] == b"[":
                self._image(book, stamp, [self._row(row) for row in _ROWS.decode(first)])
            else:
                self._update(book, stamp, self._row(_ROW.decode(first)))
        except (msgspec.MsgspecError, ValueError, IndexError) as why:
            self.spoil(book, line, why)

    def _row(self, row: tuple[Raw, int, Raw]) -> Row:
        price, count, amount = number_text(row[0]), row[1], number_text(row[2])
        size = self.sizes[amount.removeprefix("-")]
        if count < 0 or size == 0:
            raise ValueError(f"a level of {count} orders and {amount}")
        return Row(_ASK if amount[0] == "-" else _BID, self.prices[price], size if count else 0, (price, amount))

    def _image(self, book: BitfinexBook, stamp: Stamp, rows: list[Row]) -> None:
        levels: dict[int, dict[int, tuple[str, str]]] = {_BID: {}, _ASK: {}}
        for row in rows:
            levels[row.side][row.px] = row.texts
        if sum(map(len, levels.values())) != len(rows) or any(row.qty == 0 for row in rows):
            raise ValueError("an image with a level twice, or with an empty one")
        book.levels = levels
        bids, asks = ([(row.px, row.qty) for row in rows if row.side == side] for side in (_BID, _ASK))
        self.image(book, stamp, bids, asks)

    def _update(self, book: BitfinexBook, stamp: Stamp, row: Row) -> None:
        if book.waiting:
            self.awaiting(book)
            return
        start = len(self._rows)
        self._put(row.side, [(row.px, row.qty)], PUSHED_OUT if book.change(row) else 0)
        self._close(book, stamp, start)

    def _check(self, book: BitfinexBook, stamp: Stamp, given: int) -> None:
        if book.waiting:
            return
        if book.checksum() == given:
            self._find(Integrity.checksum_ok, 1, book.index)
        else:
            why = f"checksum {book.checksum()}, the venue says {given}"
            self.invalidate(book, Integrity.checksum_mismatch, stamp, why)

    # -- trades -------------------------------------------------------------------------------------------------

    def _trades(self, line: Line, book: BitfinexBook, data: list[Raw]) -> None:
        first = bytes(data[1])
        if first == b'"te"':
            ident, ms, amount, price = _TRADE.decode(data[2])
            text = number_text(amount)
            qty = self.sizes[text.removeprefix("-")]
            if qty == 0 or ident < 0:
                raise ValueError(f"trade {ident} of {text}")
            stamp = Stamp(ms_ns(ms), line.ts_recv, line.number)
            side = _BID if text[0] == "-" else _ASK
            self.trade(book, stamp, side, self.prices[number_text(price)], qty, ident)
        elif first[:1] == b"[":
            self._find(Integrity.skipped, len(_DATA.decode(first)), book.index)
