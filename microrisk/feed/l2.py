"""What every level feed shares: instruments in order of first sight, batches of level changes, books that wait.

A venue is one module with a subclass of `L2Feed[P]`, P its product, and two doors:

    def open_capture(capture: Capture, *, venue: str | None, snapshot: Source | None) -> L2Feed[P]
    def open_sources(sources, *, date, venue, snapshot) -> L2Feed[P]:   # `--format NAME`
        return open_capture(Capture(sources), venue=venue, snapshot=snapshot)

The cryptofeed format finds the module by the host of the capture's URL (`feed/cryptofeed.py`). A module without a use
for `snapshot` refuses it (`no_snapshot`).

The subclass gives `_message(line)`, for each RECEIVED and RESPONSE line, and there

1. decodes the whole message first (typed msgspec, numbers as text; `PRICES[...]`, `SIZES[...]` make integers of 1e-8);
   whatever is wrong with it is a ValueError, which becomes one `malformed` with its place and changes nothing;
2. asks for its product (`self._product(symbol)`, an object of `product_type`, where venue state may live);
3. calls `image`, `update` or `trade`, each of which is one batch that LAST closes; `invalidate` when a rule of the
   venue is broken; `awaiting` for an update that finds no book; `_find(Integrity.skipped, 1, product.index)` for a
   stale one.

`spoil` is `invalidate` for a message of a known product that cannot be read: its diff is missing from the book.
Counting of messages, damaged lines, notices, progress and EVENT arrays is done here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import ClassVar, Generic, NamedTuple, TypeVar

import msgspec
import numpy as np

from microrisk.errors import UsageError
from microrisk.feed.base import ALL_INSTRUMENTS, ChunkFeed, Events, Instrument, empty_events, instrument, venue_of
from microrisk.feed.capture import BROKEN, CUT, LOST, OPENED, RESPONSE, SENT, Capture, Line
from microrisk.feed.ladder import Level
from microrisk.feed.open import Source
from microrisk.feed.text import to_units
from microrisk.spec.features import mask
from microrisk.spec.records import EVENT, Action, FeedId, Flag, Integrity
from microrisk.spec.units import NULL_TS, Side

EXP = 8
"""Decimal exponent of prices and sizes of all these venues."""
TEXTS_KEPT = 1 << 16
"""Decimal strings that a Units table remembers before it starts anew."""
LEVELS = mask("l1", "l5", "l10", "trades")
"""Features of a feed of levels with its trades: nothing that needs single orders."""

_BID, _ASK = int(Side.BID), int(Side.ASK)
_MODIFY, _CLEAR, _TRADE = int(Action.MODIFY), int(Action.CLEAR), int(Action.TRADE)
_LAST, _SNAPSHOT = int(Flag.LAST), int(Flag.SNAPSHOT)
MARK = (int(Action.NONE) | 1 << 8 | int(Flag.SUSPECT) << 16, 0, 0, 0)
"""Row of an event that changes nothing but marks its book until the next image."""
PUSHED_OUT = int(Flag.EXEC | Flag.NO_PRINT)
"""Flags of a removal that nobody asked for: the level only left the subscribed depth."""

FEW = 32
"""Rows up to which EVENT records are made one by one."""
assert EVENT.names == (
    "ts_event", "ts_recv", "seq", "order_id", "ref", "px", "qty", "instrument", "feed", "action", "side", "flags"
)  # fmt: skip

_DECIMAL = re.compile(r"-?\d{1,40}(\.\d{1,40})?([eE][+-]?\d{1,2})?")
_UNREADABLE = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)


class RangeError(ValueError):
    """A proper number that does not fit int64 of the unit, or is finer than the unit."""


class Units(dict[str, int]):
    """Decimal strings -> integers of 10**-exp, exactly; `units[text]`. Texts met before cost one look-up.

    Raises
    ------
    RangeError : finer than the unit, or outside int64
    ValueError : no decimal number, or below 0 when `signed` is False
    """

    def __init__(self, exp: int = EXP, *, signed: bool = False) -> None:
        super().__init__()
        self._exp, self._signed = exp, signed

    def __missing__(self, text: str) -> int:
        whole, point, frac = text.partition(".")
        digits = whole + frac.ljust(self._exp, "0")
        # the usual form in one step; 18 digits fit int64 whatever they are
        usual = len(digits) <= 18 and len(frac) <= self._exp and digits.isdecimal() and digits.isascii()
        plain = usual and whole and (frac or not point)
        value = int(digits) if plain else self._unusual(text)
        if len(self) >= TEXTS_KEPT:
            self.clear()
        self[text] = value
        return value

    def _unusual(self, text: str) -> int:
        if not _DECIMAL.fullmatch(text) or not text.isascii():
            raise ValueError(f"{text[:40]!r} is not a decimal number")
        try:
            value = to_units(text, self._exp)
        except ValueError as why:
            raise RangeError(str(why)) from why
        if value < 0 and not self._signed:
            raise ValueError(f"{text} is below zero")
        if not -(1 << 63) < value < 1 << 63:
            raise RangeError(f"{text} does not fit int64 in units of 1e-{self._exp}")
        return value


def number_text(raw: msgspec.Raw) -> str:
    """The text of a JSON number, or of a string that holds one, as it was written.

    Raises
    ------
    ValueError : neither
    """
    text = bytes(raw).decode("ascii", "replace").strip('"')
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not a number")
    return text


class Stamp(NamedTuple):
    """When and which: venue time and receive time in ns UTC (NULL_TS = none), sequence for `--bbo`."""

    ts_event: int
    ts_recv: int
    seq: int


class Product:
    """What a feed knows of one instrument; venues add to it.

    Attributes
    ----------
    index : EVENT.instrument
    name : the venue's own symbol
    waiting : there is no book: updates wait for the next image
    marked : there is one, but something that could not be read may have changed it
    """

    __slots__ = ("index", "marked", "name", "waiting")

    def __init__(self, index: int, name: str) -> None:
        self.index, self.name, self.waiting, self.marked = index, name, True, False


P = TypeVar("P", bound=Product)


class L2Feed(ChunkFeed, Generic[P]):
    """Messages of one venue about any number of products; see the module for what a subclass does."""

    venue_always_open = True
    mask = LEVELS
    feed_id: ClassVar[FeedId]
    default_venue: ClassVar[str]
    product_type: type[P]

    def __init__(self, capture: Capture, venue: str | None) -> None:
        super().__init__()
        self.prices = Units(signed=True)
        self.sizes = Units()
        self._venue = venue_of(venue, self.default_venue)
        self._capture = capture
        self._batches = capture.batches()
        self._by_symbol: dict[str, P] = {}
        self._instruments: dict[int, Instrument] = {}
        self._rows: list[tuple[int, int, int, int]] = []
        self._heads: list[tuple[int, int, int, int, int]] = []
        self._bad = 0
        self._connections = 0
        self._ended = False
        if capture.found:
            self._note(f"read beside the session: {', '.join(capture.found)}")

    # -- what a venue gives -----------------------------------------------------------------------------------

    def _message(self, line: Line) -> None:
        """One message; ValueError (or a decoding error of msgspec) when it cannot be read."""
        raise NotImplementedError

    def _sent(self, line: Line) -> None:
        """What the recorder asked for; most venues have no use for it."""

    def _reopened(self, line: Line) -> None:
        """The connection was made again: what happened between is lost, every book waits for its next image."""
        self._disbelieve(line, "the connection was made again")

    def _lost(self, line: Line) -> None:
        """The connection is gone: the same, at once, whatever the numbers of the next one may say."""
        self._disbelieve(line, "the connection was lost: the book waits")

    def _end(self) -> None:
        """The input is finished; the place for notices about what never came."""

    def _symbol(self, name: str) -> str:
        """The venue's own symbol in the spelling of instrument ids."""
        return name

    # -- what a venue calls -----------------------------------------------------------------------------------

    def _disbelieve(self, line: Line, why: str) -> None:
        """Throw away every book that there is."""
        for product in self._by_symbol.values():
            if not product.waiting:
                stamp = Stamp(line.ts_recv, line.ts_recv, line.number)
                self.invalidate(product, Integrity.session_reset, stamp, why)

    def _product(self, name: str) -> P:
        """The product of this symbol, made at first sight."""
        product = self._by_symbol.get(name)
        if product is None:
            if not name or len(name) > 64 or not name.isprintable():
                raise ValueError(f"{name[:64]!r} is no symbol")
            product = self._by_symbol[name] = self.product_type(len(self._by_symbol), name)
            self._instruments[product.index] = instrument(self._symbol(name), self._venue)
        return product

    def levels(self, rows: Iterable[Sequence[str]]) -> list[Level]:
        """Rows that begin with price and size as text, as integers.

        Raises
        ------
        ValueError : one of them is no number, below zero or out of range
        """
        prices, sizes = self.prices, self.sizes
        return [(prices[row[0]], sizes[row[1]]) for row in rows]

    def image(self, product: Product, stamp: Stamp, bids: Iterable[Level], asks: Iterable[Level]) -> None:
        """A whole book: it takes the place of whatever there was."""
        start = len(self._rows)
        self._rows.append((_CLEAR | _SNAPSHOT << 16 | 1 << 8, 0, 0, 0))
        self._put(_BID, bids, _SNAPSHOT)
        self._put(_ASK, asks, _SNAPSHOT)
        product.waiting = product.marked = False
        self._close(product, stamp, start)

    def update(
        self,
        product: Product,
        stamp: Stamp,
        bids: Iterable[Level],
        asks: Iterable[Level],
        pushed_bids: Sequence[int] = (),
        pushed_asks: Sequence[int] = (),
    ) -> None:
        """Changed levels; `pushed_*` are prices that left the subscribed depth through them."""
        start = len(self._rows)
        self._put(_BID, bids, 0)
        self._put(_ASK, asks, 0)
        if pushed_bids or pushed_asks:
            before = len(self._rows)
            self._put(_BID, [(px, 0) for px in pushed_bids], PUSHED_OUT)
            self._put(_ASK, [(px, 0) for px in pushed_asks], PUSHED_OUT)
            self.synthetic += len(self._rows) - before
        self._close(product, stamp, start)

    def trade(self, product: Product, stamp: Stamp, side: int, px: int, qty: int, ref: int = 0) -> None:
        """A trade; `side` is that of the RESTING order (the aggressor bought -> ASK)."""
        self._rows.append((_TRADE | side + 1 << 8, px, qty, ref))
        self._close(product, stamp, len(self._rows) - 1)

    def invalidate(self, product: Product, kind: Integrity, stamp: Stamp, why: str) -> None:
        """A rule is broken: the finding, and the book is thrown away and marked until the next image."""
        if not product.waiting:
            # the mark comes behind the CLEAR, which takes marks off, and not by the finding alone: not every kind marks
            self._rows += [(_CLEAR | 1 << 8, 0, 0, 0), MARK]
            self._close(product, stamp, len(self._rows) - 2)
            self._find(Integrity.invalidated, 1, product.index, before=len(self._rows))
            product.waiting = True
        self._find(kind, 1, product.index, before=len(self._rows))
        self._note(f"{product.name}: {why}")

    def spoil(self, product: Product, line: Line, why: Exception) -> None:
        """A message about the book of a known product cannot be read: the book is no longer the venue's."""
        kind = Integrity.px_range if isinstance(why, RangeError) else Integrity.malformed
        stamp = Stamp(line.ts_recv, line.ts_recv, line.number)
        self._bad += kind == Integrity.malformed
        self.invalidate(product, kind, stamp, f"{line.place} line {line.number} cannot be read: {why}")

    def awaiting(self, product: Product) -> None:
        """An update that is not applied because there is no book."""
        self._find(Integrity.awaiting_image, 1, product.index)

    # -- ChunkFeed --------------------------------------------------------------------------------------------

    @property
    def progress(self) -> float:
        """Share of the stored bytes read."""
        return self._capture.progress

    def instruments(self) -> dict[int, Instrument]:
        """Index (order of first sight) -> instrument."""
        return dict(self._instruments)

    def waiting(self) -> dict[int, str]:
        """Number -> the venue's own symbol of products whose book waits for an image, or needs one."""
        return {p.index: p.name for p in self._by_symbol.values() if p.waiting or p.marked}

    def _readable(self) -> int:
        return self.messages - self._bad

    def _chunk(self) -> Events | None:
        batch = next(self._batches, None)
        if batch is None:
            if not self._ended:
                self._ended = True
                self._end()
            return self._take_events() if self._rows else None
        for line in batch:
            if line.kind <= RESPONSE:
                self.messages += 1
                try:
                    self._message(line)
                except _UNREADABLE as why:
                    self._malformed(line, str(why))
            else:
                self._aside(line)
        return self._take_events()

    def _aside(self, line: Line) -> None:
        """What is no message of the feed: requests, connections, damage."""
        if line.kind == SENT:
            self._sent(line)
        elif line.kind == OPENED:
            self._connections += 1
            if self._connections > 1:
                self._reopened(line)
        elif line.kind == LOST:
            self._lost(line)
        elif line.kind == BROKEN:
            self.messages += 1
            self._malformed(line, line.body.decode("utf-8", "replace"))
        elif line.kind == CUT:
            self._find(Integrity.malformed)
            self._note(line.body.decode("utf-8", "replace"))

    def _malformed(self, line: Line, why: str) -> None:
        self._bad += 1
        self._find(Integrity.malformed, 1, ALL_INSTRUMENTS, before=len(self._rows))
        self._note(f"{line.place} line {line.number} cannot be read: {why}")

    # -- rows -------------------------------------------------------------------------------------------------

    def _put(self, side: int, levels: Iterable[Level], flags: int) -> None:
        code = _MODIFY | side + 1 << 8 | flags << 16
        self._rows += [(code, px, qty, 0) for px, qty in levels]

    def _close(self, product: Product, stamp: Stamp, start: int) -> None:
        """The rows from `start` are one batch; a batch without a row is none."""
        n = len(self._rows) - start
        if n:
            code, px, qty, ref = self._rows[-1]
            self._rows[-1] = (code | _LAST << 16, px, qty, ref)
            self._heads.append((n, stamp.ts_event, stamp.ts_recv, stamp.seq, product.index))

    def _take_events(self) -> Events:
        """The batches so far as EVENT records."""
        if 0 < len(self._rows) <= FEW:
            return self._take_few()
        out = empty_events(len(self._rows))
        if self._rows:
            codes, out["px"], out["qty"], out["ref"] = zip(*self._rows, strict=True)
            packed = np.array(codes, np.uint32)
            # action in bits 0-7, side + 1 in 8-15, flags from 16 on
            out["action"], out["flags"] = packed & 0xFF, packed >> 16
            out["side"] = (packed >> 8 & 0xFF).astype(np.int8) - 1
            counts, *stamps = zip(*self._heads, strict=True)
            for name, column in zip(("ts_event", "ts_recv", "seq", "instrument"), stamps, strict=True):
                out[name] = np.repeat(np.array(column, out.dtype[name]), counts)
            out["feed"] = self.feed_id
            self._rows, self._heads = [], []
        return out

    def _take_few(self) -> Events:
        """The same row by row: a live feed brings one message at a time, and columns of one value cost far more."""
        feed, rows = int(self.feed_id), iter(self._rows)
        out = [
            (ts_event, ts_recv, seq, 0, ref, px, qty, index, feed, code & 0xFF, (code >> 8 & 0xFF) - 1, code >> 16)
            for n, ts_event, ts_recv, seq, index in self._heads
            for code, px, qty, ref in islice(rows, n)
        ]
        self._rows, self._heads = [], []
        return np.array(out, EVENT)


def no_snapshot(snapshot: Source | None, name: str) -> None:
    """Refuse a book image where the venue sends its images in the stream.

    Raises
    ------
    UsageError : one was given
    """
    if snapshot is not None:
        raise UsageError(f"{name} sends its book images in the stream: --snapshot has no use here")


def ms_ns(ms: int) -> int:
    """Venue milliseconds as ns; NULL_TS for a time before 1970 or past int64."""
    return ms * 1_000_000 if 0 <= ms <= (1 << 63) // 1_000_000 - 1 else NULL_TS
