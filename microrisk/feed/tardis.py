"""Tardis.dev CSV files: books (book_snapshot_N, incremental_book_L2, quotes, book_ticker) and trades of any exchange.

Rules (Tardis.dev documentation: "Downloadable CSV files, data types", and "FAQ, order books"):

1. The header says what a file holds. `timestamp` is the exchange's time (the arrival where it gives none),
   `local_timestamp` the arrival, both in microseconds; rows are in the order of their arrival.
2. incremental_book_L2: a row sets the amount of one level, 0 removes it. Rows with one local_timestamp are one message;
   the book is whole after the last of them. A snapshot row behind a row that is none throws the book away first;
   updates before the first snapshot are not applied and counted in `awaiting_image`.
3. book_snapshot_N: every row is the whole image of the best N levels a side. The first row of an instrument is loaded
   as an image, closed by an empty event, so that its best is the first of the BBO table; each later one is one event
   that turns the image before it into this one, so that features see what changed. A level that is missing at the far
   end of a side with N levels was pushed out of the window and is not counted as cancelled; any other missing level is
   gone. Empty cells are levels that are not there.
4. quotes and book_ticker: the same with one level a side.
5. trades: `side` is that of the taker, so the resting side is the other one; `unknown` has none. There is no book.
6. Prices and amounts are decimal text, kept in 1e-8 exactly. A row that says anything else is `malformed`: its book is
   marked until the next image, which is the next row of a snapshot file and the next snapshot of an incremental one.
7. Files of one name (apart from the date) continue each other; different ones run side by side in the order of
   local_timestamp. One kind of file makes the book of an instrument, the fullest one; the rows of others are `skipped`.
8. Liquidations look like trades but are in the trades file too; they, tickers and options chains are not read.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, groupby
from operator import attrgetter, itemgetter
from typing import NamedTuple

from microrisk.errors import FeedError, UsageError
from microrisk.feed.base import ALL_INSTRUMENTS, CHUNK_EVENTS, ChunkFeed, Events, Instrument, empty_events
from microrisk.feed.capture import split_lines
from microrisk.feed.open import Source
from microrisk.feed.text import to_units
from microrisk.spec.features import mask
from microrisk.spec.records import Action, FeedId, Flag, Integrity
from microrisk.spec.units import Side

EXP = 8
US = 1000
"""ns in the files' unit of time."""
MAX_US = (2**63 - 1) // US

COMMON = ["exchange", "symbol", "timestamp", "local_timestamp"]
LEVEL = ["is_snapshot", "side", "price", "amount"]
QUOTE = ["ask_amount", "ask_price", "bid_price", "bid_amount"]
TRADE = ["id", "side", "price", "amount"]

VENUE_OF = {"cryptofacilities": "KRAKEN", "binance-us": "BINANCEUS", "crypto-com": "CRYPTOCOM", "gate-io": "GATEIO"}
"""Tardis's name of an exchange -> venue; others are the part of the name before its first hyphen, in capitals."""

_BIDS, _ASKS, _NO_SIDE = int(Side.BID), int(Side.ASK), int(Side.NONE)
_SIDES = {"bid": _BIDS, "ask": _ASKS}
_RESTING = {"buy": _ASKS, "sell": _BIDS, "unknown": _NO_SIDE}
_NONE, _MODIFY, _CLEAR, _TRADE = map(int, (Action.NONE, Action.MODIFY, Action.CLEAR, Action.TRADE))
_LAST, _SNAPSHOT, _PUSHED_OUT = int(Flag.LAST), int(Flag.SNAPSHOT), int(Flag.EXEC | Flag.NO_PRINT)
_COLUMNS = ("instrument", "ts_event", "ts_recv", "seq", "action", "side", "px", "qty", "flags", "ref")
_FLAGS = _COLUMNS.index("flags")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")

Fields = list[str]
Row = tuple[int, ...]
Levels = dict[int, int]


def open_sources(
    sources: Sequence[Source], *, date: str | None, venue: str | None, snapshot: Source | None
) -> ChunkFeed:
    """The feed of CSV files; `date` is not needed, rows carry full times.

    Raises
    ------
    UsageError : no file holds a book or trades; a --snapshot
    """
    if snapshot is not None:
        raise UsageError("Tardis files carry their own images: --snapshot is not for them")
    return TardisFeed(sources, venue)


@dataclass(frozen=True)
class Kind:
    """What a file holds.

    Attributes
    ----------
    name : as Tardis calls it
    depth : levels a side, 0 = no book, a large number for incremental files
    """

    name: str
    depth: int

    @property
    def width(self) -> int:
        """Cells of a row."""
        return len(COMMON) + 4 * (self.depth if self.name.startswith("book_snapshot") else 1)

    def cells(self) -> tuple[slice, slice, slice, slice]:
        """Places of ask prices, ask amounts, bid prices and bid amounts in a row that is an image."""
        asks_px, asks_qty, bids_px, bids_qty = (5, 4, 6, 7) if self.name == "quotes" else (4, 5, 6, 7)
        return slice(asks_px, None, 4), slice(asks_qty, None, 4), slice(bids_px, None, 4), slice(bids_qty, None, 4)


def kind_of(header: str, file_name: str) -> Kind | None:
    """What the header (and, for liquidations, the name) of a file says; None for a file without book or trades."""
    names = header.split(",")
    if names[:4] != COMMON:
        return None
    rest = names[4:]
    if rest == LEVEL:
        return Kind("incremental_book_L2", 1 << 30)
    if rest == QUOTE:
        return Kind("quotes", 1)
    if rest == TRADE and "liquidations" not in file_name:
        return Kind("trades", 0)
    depth = len(rest) // 4
    image = [f"{side}[{i}].{what}" for i in range(depth) for side in ("asks", "bids") for what in ("price", "amount")]
    if depth and rest == image:
        return Kind(f"book_snapshot_{depth}", depth)
    return None


@lru_cache(maxsize=1 << 16)
def units(text: str) -> int:
    """A price or amount in 1e-8.

    Raises
    ------
    ValueError : not a decimal number, or finer than 1e-8
    OverflowError : does not fit 64 bits
    """
    value = to_units(text, EXP)
    if not -(2**63) < value < 2**63:
        raise OverflowError(f"{text} does not fit 64 bits in 1e-{EXP}")
    return value


def amount(text: str) -> int:
    """An amount in 1e-8; ValueError also when it is negative."""
    value = units(text)
    if value < 0:
        raise ValueError(f"the amount {text} is negative")
    return value


@lru_cache(maxsize=256)
def time_ns(text: str) -> int:
    """Microseconds as ns; ValueError when they are no time."""
    if not (text.isascii() and text.isdecimal() and int(text) <= MAX_US):
        raise ValueError(f"{text!r} is no time in microseconds")
    return int(text) * US


class Message(NamedTuple):
    """Rows that arrived together, as events of one instrument.

    Attributes
    ----------
    ts_recv : arrival, orders messages of different files
    rows : events in the order of `_COLUMNS`
    findings : (kind, number, instrument, note) met behind the events
    lines : rows of the file
    """

    ts_recv: int
    rows: list[Row]
    findings: list[tuple[Integrity, int, int, str]]
    lines: int


@dataclass
class Book:
    """What a file's book of one instrument looked like at its last row; `levels` only where rows are whole images."""

    index: int
    shown: bool = False
    in_snapshot: bool = False
    levels: dict[int, Levels] = field(default_factory=lambda: {_BIDS: {}, _ASKS: {}})


class Names:
    """Instruments of all files, and which series makes the book of each."""

    def __init__(self, venue: str | None) -> None:
        self._venue = venue
        self._index: dict[tuple[str, str], int] = {}
        self.owner: dict[int, Series] = {}
        self.known: dict[int, Instrument] = {}

    def index(self, exchange: str, symbol: str) -> int:
        """Number of an instrument, in the order of first sight; ValueError without a name."""
        number = self._index.get((exchange, symbol))
        if number is None:
            if not exchange or not symbol or not (exchange + symbol).isprintable():
                raise ValueError(f"{exchange!r}, {symbol!r} name no instrument")
            number = self._index[exchange, symbol] = len(self._index)
            self.known[number] = self._instrument(exchange, symbol)
        return number

    def find(self, cells: Fields) -> int:
        """Number of the known instrument that damaged cells begin with, else ALL_INSTRUMENTS."""
        return self._index.get((cells[0], cells[1]), ALL_INSTRUMENTS) if len(cells) > 1 else ALL_INSTRUMENTS

    def _instrument(self, exchange: str, symbol: str) -> Instrument:
        venue = self._venue or VENUE_OF.get(exchange) or exchange.split("-")[0].upper()
        # the perpetual of Binance has the name of its spot pair; dated futures carry their date
        if exchange == "binance-futures" and "_" not in symbol:
            symbol += "-PERP"
        return Instrument(f"{symbol}.{venue}", venue, symbol, EXP, EXP)


class Series:
    """Files of one name that continue each other: an iterator of messages.

    What is malformed costs its own row and marks its book.
    """

    def __init__(self, kind: Kind, sources: list[Source], names: Names) -> None:
        self.kind = kind
        self.label = sources[0].name
        self.consumed = 0
        self._sources, self._names = sources, names
        self._books: dict[int, Book] = {}
        self._seq = 0
        self._width, self._cells = kind.width, kind.cells()
        self._incremental = kind.name == "incremental_book_L2"
        self._decode: Callable[[int, Fields], Message] = {0: self._trade}.get(kind.depth, self._image)

    def __iter__(self) -> Iterator[Message]:
        rows = self._rows()
        if not self._incremental:
            return map(self._one, rows)
        return chain.from_iterable(self._groups(key, list(same)) for key, same in groupby(rows, _together))

    def first_instrument(self) -> int | None:
        """Number of the instrument of the first row, None when it has none."""
        lines = self._sources[0].head(1 << 16).decode("utf-8", "replace").split("\n")[1:2]
        try:
            exchange, symbol, *_ = lines[0].split(",")
            return self._names.index(exchange, symbol)
        except (IndexError, ValueError):
            return None

    def _rows(self) -> Iterator[Fields]:
        """Cells of every row; a single cell holds the sentence about the place where a file broke off."""
        for source in self._sources:
            stream, before = source.stream(), self.consumed
            lines = split_lines(stream)
            next(lines, None)  # the header
            for line in lines:
                self.consumed = before + stream.consumed
                if line is None:
                    yield ["", ""]
                elif line and not line.isspace():
                    yield line.rstrip(b"\r").decode("utf-8", "replace").split(",")
            if stream.cut:
                yield [stream.cut]

    def _one(self, cells: Fields) -> Message:
        """A row that is a message of its own."""
        self._seq += 1
        index = self._names.find(cells)
        try:
            if len(cells) != self._width:
                return self._not_a_row(cells)
            index = self._names.index(cells[0], cells[1])
            if self._foreign(index):
                return Message(time_ns(cells[3]), [], [(Integrity.skipped, 1, index, "")], 1)
            return self._decode(index, cells)
        except (ValueError, OverflowError) as why:
            if index in self._books and not self._incremental:
                self._books[index].shown = False
            return self._bad(index, why)

    def _not_a_row(self, cells: Fields) -> Message:
        if len(cells) == 1:
            self._seq -= 1
            return Message(0, [], [(Integrity.malformed, 1, ALL_INSTRUMENTS, cells[0])], 0)
        raise ValueError(f"{len(cells)} cells instead of {self._width}")

    def _bad(self, index: int, why: Exception) -> Message:
        kind = Integrity.px_range if isinstance(why, OverflowError) else Integrity.malformed
        found = [(kind, 1, index, f"{self.label}, row {self._seq}: {why}")]
        if kind is not Integrity.malformed:
            # the level is missing from the book, which has to be marked
            found.append((Integrity.malformed, 1, index, ""))
        return Message(0, [], found, 1)

    def _foreign(self, index: int) -> bool:
        """Whether another series makes the book of the instrument."""
        return self.kind.depth > 0 and self._names.owner.setdefault(index, self) is not self

    def _book(self, index: int) -> Book:
        if index not in self._books:
            self._books[index] = Book(index)
        return self._books[index]

    def _trade(self, index: int, cells: Fields) -> Message:
        _, _, event, recv, ident, taker, price, size = cells
        qty = amount(size)
        if qty == 0 or taker not in _RESTING:
            raise ValueError(f"no trade: side {taker!r}, amount {size}")
        ref = int(ident) if ident.isascii() and ident.isdecimal() and len(ident) < 20 else 0
        ts = time_ns(recv)
        row = (index, time_ns(event), ts, self._seq, _TRADE, _RESTING[taker], units(price), qty, _LAST, ref)
        return Message(ts, [row], [], 1)

    def _image(self, index: int, cells: Fields) -> Message:
        stamps = (index, time_ns(cells[2]), time_ns(cells[3]), self._seq)
        ask_px, ask_qty, bid_px, bid_qty = (cells[place] for place in self._cells)
        new = {_BIDS: _side(bid_px, bid_qty, _BIDS), _ASKS: _side(ask_px, ask_qty, _ASKS)}
        book = self._book(index)
        rows: list[Row]
        if not book.shown:
            rows = [(*stamps, _CLEAR, _NO_SIDE, 0, 0, _SNAPSHOT, 0)]
            rows += [(*stamps, _MODIFY, s, p, q, _SNAPSHOT, 0) for s in new for p, q in new[s].items()]
            rows += [(*stamps, _NONE, _NO_SIDE, 0, 0, 0, 0)]
        else:
            rows = [
                (*stamps, _MODIFY, side, px, qty, flags, 0)
                for side in new
                for px, qty, flags in difference(book.levels[side], new[side], side, self.kind.depth)
            ]
        book.shown, book.levels = True, new
        return Message(stamps[2], _closed(rows), [], 1)

    def _groups(self, key: tuple[str, ...], rows: list[Fields]) -> Iterator[Message]:
        """One message of an incremental file: rows of one instrument, arrival and kind (news or snapshot)."""
        if len(rows[0]) != self._width:
            yield from map(self._one, rows)
            return
        found: list[tuple[Integrity, int, int, str]] = []
        events: list[Row] = []
        index = ALL_INSTRUMENTS
        for cells in rows:
            self._seq += 1
            try:
                index = self._names.index(cells[0], cells[1])
                events.append(self._level(index, cells))
            except (ValueError, OverflowError) as why:
                found += self._bad(index, why).findings
        yield self._message(index, key, events, found, len(rows))

    def _level(self, index: int, cells: Fields) -> Row:
        _, _, event, recv, image, side, price, size = cells
        if side not in _SIDES or image not in ("true", "false"):
            raise ValueError(f"side {side!r}, is_snapshot {image!r}")
        flags = _SNAPSHOT if image == "true" else 0
        stamps = (index, time_ns(event), time_ns(recv), self._seq)
        return (*stamps, _MODIFY, _SIDES[side], units(price), amount(size), flags, 0)

    def _message(
        self,
        index: int,
        key: tuple[str, ...],
        rows: list[Row],
        found: list[tuple[Integrity, int, int, str]],
        lines: int,
    ) -> Message:
        if not rows:
            return Message(0, [], found, lines)
        if self._foreign(index):
            return Message(rows[0][2], [], [*found, (Integrity.skipped, len(rows), index, "")], lines)
        book = self._book(index)
        if key[-1] == "true" and not book.in_snapshot:
            rows.insert(0, (*rows[0][:4], _CLEAR, _NO_SIDE, 0, 0, _SNAPSHOT, 0))
            book.shown = True
        elif not book.shown:
            return Message(rows[0][2], [], [*found, (Integrity.awaiting_image, len(rows), index, "")], lines)
        book.in_snapshot = key[-1] == "true"
        return Message(rows[0][2], _closed(rows), found, lines)


def _together(cells: Fields) -> tuple[str, ...]:
    """Equal for the rows of one message; rows of another width stay alone."""
    return (cells[0], cells[1], cells[3], cells[4]) if len(cells) == 8 else tuple(cells)


def _side(prices: Fields, sizes: Fields, side: int) -> Levels:
    """Levels of one side, best first.

    Raises
    ------
    ValueError : half a level, a level without an amount, or prices that do not go away from the best
    """
    out: Levels = {}
    last = None
    for price, size in zip(prices, sizes, strict=True):
        if not price and not size:
            continue
        px, qty = units(price), amount(size)
        if qty == 0 or (last is not None and (px - last) * side >= 0):
            raise ValueError(f"level {price} with {size} is out of order or empty")
        out[px] = qty
        last = px
    return out


def difference(old: Levels, new: Levels, side: int, depth: int) -> Iterator[tuple[int, int, int]]:
    """(price, amount, flags) that turn one image of a side into the next one, both of at most `depth` levels.

    Levels that are gone come first, with amount 0; one beyond the last level of a full window is flagged as pushed out.
    """
    last = next(reversed(new)) if len(new) >= depth else None
    for px in old:
        if px not in new:
            yield px, 0, _PUSHED_OUT if last is not None and (px - last) * side < 0 else 0
    for px, qty in new.items():
        if old.get(px) != qty:
            yield px, qty, 0


def _closed(rows: list[Row]) -> list[Row]:
    """The rows with LAST on the last of them."""
    if rows:
        row = rows[-1]
        rows[-1] = (*row[:_FLAGS], row[_FLAGS] | _LAST, *row[_FLAGS + 1 :])
    return rows


class TardisFeed(ChunkFeed):
    """Books and trades of any number of files and instruments, in the order of arrival."""

    format = "tardis"
    venue_always_open = True

    def __init__(self, sources: Sequence[Source], venue: str | None) -> None:
        super().__init__()
        self._names = Names(venue)
        self._total = max(1, sum(s.size() for s in sources))
        self._series = self._open(sources)
        self._messages: Iterator[Message] = (
            iter(self._series[0])
            if len(self._series) == 1
            else heapq.merge(*map(iter, self._series), key=attrgetter("ts_recv"))
        )
        self._own_books()
        self.mask = _mask([s.kind for s in self._series])

    @property
    def progress(self) -> float:
        """Share of the stored bytes read."""
        return min(1.0, sum(s.consumed for s in self._series) / self._total)

    def instruments(self) -> dict[int, Instrument]:
        """Index (order of first sight) -> instrument."""
        return dict(self._names.known)

    def _open(self, sources: Sequence[Source]) -> list[Series]:
        """One series for each name; files of no use are left out, with a notice."""
        found: dict[tuple[Kind, str], list[Source]] = {}
        for source in sources:
            header = source.head(1 << 14).lstrip(b"\xef\xbb\xbf").split(b"\n", 1)[0].rstrip(b"\r")
            if not header:
                raise FeedError("the file is empty", path=source.label)
            kind = kind_of(header.decode("utf-8", "replace"), source.name)
            if kind is None:
                self.notices.append(f"left out, neither a book nor trades: {source.label}")
                continue
            found.setdefault((kind, _DATE.sub("", source.name)), []).append(source)
        if not found:
            raise UsageError(f"no Tardis file with a book or trades: {', '.join(s.label for s in sources)}")
        return [Series(kind, files, self._names) for (kind, _), files in found.items()]

    def _own_books(self) -> None:
        """The fullest kind of file makes the book of an instrument."""
        for series in sorted(self._series, key=lambda s: -s.kind.depth):
            index = series.first_instrument() if series.kind.depth else None
            if index is not None and self._names.owner.setdefault(index, series) is not series:
                name, other = self._names.known[index].id, self._names.owner[index].label
                self.notices.append(f"{series.label} is skipped: the book of {name} comes from {other}")

    def _chunk(self) -> Events | None:
        rows: list[Row] = []
        lines = -1
        for message in self._messages:
            lines = max(lines, 0) + message.lines
            rows += message.rows
            # behind the events, so that the beginning of an image does not take its own mark away
            for kind, n, index, note in message.findings:
                self._find(kind, n, index, before=len(rows))
                if note:
                    self._note(note)
            if len(rows) >= CHUNK_EVENTS or lines >= CHUNK_EVENTS:
                break
        self.messages += max(lines, 0)
        return _to_events(rows) if lines >= 0 else None


def _mask(kinds: Sequence[Kind]) -> int:
    """Features that files of these kinds can produce: by the depth of the fullest book, and trades."""
    depth = max(kind.depth for kind in kinds)
    carries = [name for name, least in (("l1", 1), ("l5", 5), ("l10", 10)) if depth >= least]
    return mask(*carries, *(["trades"] if any(kind.depth == 0 for kind in kinds) else []))


def _to_events(rows: list[Row]) -> Events:
    out = empty_events(len(rows))
    for at, name in enumerate(_COLUMNS if rows else ()):
        out[name] = list(map(itemgetter(at), rows))
    out["feed"] = FeedId.TARDIS
    return out
