"""Coinbase Exchange `full` channel (one order at a time), as a JSON list or as JSON lines, with a level-3 book image.

Rules (Coinbase Exchange documentation: "WebSocket channels", full channel; "Get product book", level 3):

1. `sequence` counts the messages of one product: the next one is one higher, a jump is a `gap`, a number at or below
   the last one is a `duplicate_seq` and is not applied. Heartbeats repeat the last number and are not counted.
2. The book image is loaded first, orders in the order of the file (best first, in their queues); messages at or below
   its sequence are `skipped`, the next one must be its sequence plus one.
3. `received` and `activate` change no book; `open` rests an order with `remaining_size`.
4. `match` takes `size` off the maker, whose side the message names; the taker never rested.
5. `done` takes away what is left of an order. Of an order that never rested it is normal and counted in
   `never_rested`; of one that a match has used up there is nothing left to do.
6. `change` sets `new_size` and keeps the place in the queue; with a `new_price` the order goes to the back of its new
   level. Of an order that does not rest it is counted in `never_rested`.
7. Prices and sizes are decimal strings, kept in 1e-8 exactly; a message that says anything else is `malformed`.
8. There is no receive time in the feed; an image without a time of its own takes that of the first message after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from microrisk.errors import FeedError, UsageError
from microrisk.feed.base import CHUNK_EVENTS, ChunkFeed, Events, Instrument, empty_events, instrument, venue_of
from microrisk.feed.capture import Capture
from microrisk.feed.coinbase_level2 import is_level2, open_capture
from microrisk.feed.interning import Interner
from microrisk.feed.open import CHUNK, Source, Stream
from microrisk.feed.text import iso_ns, to_units
from microrisk.spec.features import ALL_MASK
from microrisk.spec.records import Action, FeedId, Flag, Integrity
from microrisk.spec.units import NULL_TS, Side

EXP = 8
_I64, _U64 = 1 << 63, 1 << 64
SIDES = {"buy": int(Side.BID), "sell": int(Side.ASK)}
QUIET = frozenset({"subscriptions", "heartbeat", "ticker", "status", "error", "last_match", "rfq_match"})
"""Types outside the numbered sequence."""
NO_BOOK = frozenset({"received", "activate"})


class Message(msgspec.Struct, frozen=True, gc=False):
    """The fields of a message that a book needs; absent ones are empty."""

    type: str
    sequence: int = -1
    product_id: str = ""
    time: str = ""
    side: str = ""
    order_id: str = ""
    maker_order_id: str = ""
    price: str | None = None
    size: str | None = None
    remaining_size: str | None = None
    new_size: str | None = None
    new_price: str | None = None
    trade_id: int = 0


class BookImage(msgspec.Struct):
    """Level-3 book: [price, size, order id] a row, best first, in queue order inside a price."""

    bids: list[tuple[str, str, str]]
    asks: list[tuple[str, str, str]]
    sequence: int
    time: str = ""


_DECODE_LIST = msgspec.json.Decoder(list[Message])
DECODE_ONE = msgspec.json.Decoder(Message)
DECODE_IMAGE = msgspec.json.Decoder(BookImage)

UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_BETWEEN = re.compile(rb"\}\s*,\s*(?=\{)")
_COLUMNS = ("ts_event", "seq", "order_id", "ref", "px", "qty", "action", "side", "flags", "instrument")
# plain integers: enum members cost more than everything else in a loop over messages
_ADD, _MODIFY, _REDUCE, _DELETE = int(Action.ADD), int(Action.MODIFY), int(Action.REDUCE), int(Action.DELETE)
_LAST, _SNAPSHOT = int(Flag.LAST), int(Flag.SNAPSHOT)
_EXEC, _KEPT = int(Flag.EXEC), int(Flag.PRIORITY_KEPT)


Part = tuple[int, int, int, str]
"""An order of an image: side, price and size in 1e-8, the venue's id."""


class Resting:
    """A resting order as far as the feed must know it: handle, price, what is left."""

    __slots__ = ("handle", "left", "px")

    def __init__(self, handle: int, px: int, left: int) -> None:
        self.handle, self.px, self.left = handle, px, left


@dataclass
class Listed:
    """State of one product.

    Attributes
    ----------
    index, name : EVENT.instrument, the venue's symbol
    last : the last sequence
    after_image : nothing has followed the image yet
    orders : what rests, by the venue's id
    """

    index: int
    name: str
    last: int | None = None
    after_image: bool = False
    orders: dict[str, Resting] = field(default_factory=dict)


def open_sources(
    sources: Sequence[Source], *, date: str | None, venue: str | None, snapshot: Source | None
) -> ChunkFeed:
    """The feed of message files in order; `date` is not needed, the messages carry full times.

    Recordings of the level2 channel (they begin with its images) have a module of their own.
    """
    if sources and is_level2(sources[0]):
        return open_capture(Capture(sources), venue=venue, snapshot=snapshot)
    return CoinbaseFeed(sources, venue_of(venue, "COINBASE"), snapshot)


def read_image(source: Source) -> BookImage:
    """A level-3 book image.

    Raises
    ------
    UsageError : not a level-3 book
    FeedError : cut or damaged
    """
    stream = source.stream()
    data = b"".join(stream)
    if stream.cut:
        raise FeedError(f"the book image is cut: {stream.cut}", path=source.label)
    try:
        return DECODE_IMAGE.decode(data)
    except msgspec.ValidationError as why:
        raise UsageError(f"{source.label} is not a level-3 book image: {why}") from why
    except UNDECODABLE as why:
        raise FeedError(f"the book image cannot be read: {why}", path=source.label) from why


class CoinbaseFeed(ChunkFeed):
    """Messages of any number of products; a book image belongs to the product of the first message."""

    format = "coinbase"
    venue_always_open = True
    mask = ALL_MASK

    def __init__(self, sources: Sequence[Source], venue: str, snapshot: Source | None) -> None:
        super().__init__()
        self._venue = venue
        self._ids = Interner()
        self._products: dict[str, Listed] = {}
        self._image = read_image(snapshot) if snapshot is not None else None
        if snapshot is None and sources:
            self.notices.append("no --snapshot: orders that rested before the recording are missing from the book")
        self._reader = MessageReader(sources)
        self._batches = iter(self._reader)
        self._rows: list[tuple[int, ...]] = []
        self._decoded = 0

    @property
    def progress(self) -> float:
        """Share of the stored bytes read."""
        return self._reader.progress

    def instruments(self) -> dict[int, Instrument]:
        """Index (order of first sight) -> instrument."""
        return {p.index: instrument(p.name, self._venue) for p in self._products.values()}

    def order_label(self, order_id: int) -> str:
        """The order's UUID."""
        return self._ids.label(order_id)

    def _readable(self) -> int:
        return self._decoded

    def _chunk(self) -> Events | None:
        batch = next(self._batches, None)
        self.messages += self._reader.take_lines()
        for kind, n in self._reader.take_findings():
            self._find(kind, n)
        for notice in self._reader.take_notices():
            self._note(notice)
        if batch is None:
            return self._image_alone()
        self._rows = []
        self._decoded += len(batch)
        for message in batch:
            self._message(message)
        return to_events(self._rows)

    def _image_alone(self) -> Events | None:
        """Nothing came behind an image: there was no message to name its product."""
        if self._image is not None and self.messages:
            self.notices.append("the book image was not used: no message names its product")
            self._image = None
        return None

    def _message(self, m: Message) -> None:
        if not self._is_numbered(m):
            return
        product = self._product(m)
        if self._in_sequence(product, m) and (why := self._act(product, m)):
            self._find(Integrity.malformed, 1, product.index, before=len(self._rows))
            self._note(why)

    def _is_numbered(self, m: Message) -> bool:
        """Whether a message belongs to the sequence of its product; counts what it is otherwise."""
        if m.type in QUIET:
            return False
        if m.type not in _HANDLERS:
            self._find(Integrity.unknown_type)
            return False
        if not (0 <= m.sequence < _U64 and 0 <= m.trade_id < _U64):
            self._find(Integrity.malformed, before=len(self._rows))
            self._note(f"{m.type} cannot be read: sequence {m.sequence}, trade_id {m.trade_id}")
            return False
        return True

    def _act(self, product: Listed, m: Message) -> str:
        """Do what a message says; why it cannot be read, "" when it can."""
        handle = _HANDLERS[m.type]
        try:
            if handle is not None:
                handle(self, product, m, iso_ns(m.time))
        except (ValueError, TypeError, KeyError, AttributeError) as why:
            return f"sequence {m.sequence}: {m.type} cannot be read: {why}"
        return ""

    def _product(self, m: Message) -> Listed:
        product = self._products.get(m.product_id)
        if product is None:
            product = self._products[m.product_id] = Listed(len(self._products), m.product_id)
            if self._image is not None:
                self._load(product, self._image, m)
                self._image = None
        return product

    def _in_sequence(self, product: Listed, m: Message) -> bool:
        """Whether the message is the next one or later; counts what it is otherwise."""
        last = product.last
        if last is not None and m.sequence <= last:
            self._find(Integrity.skipped if product.after_image else Integrity.duplicate_seq, 1, product.index)
            return False
        if last is not None and m.sequence > last + 1:
            self._find(Integrity.gap, 1, product.index, before=len(self._rows))
            self._note(f"{product.name}: sequence {last + 1} to {m.sequence - 1} missing")
        product.last, product.after_image = m.sequence, False
        return True

    def _load(self, product: Listed, image: BookImage, first: Message) -> None:
        """The given image; raises FeedError when it has a value which is no number."""
        try:
            ts = iso_ns(image.time) if image.time else time_or_null(first.time)
            parts = parts_of(image)
        except ValueError as why:
            raise FeedError(f"the book image cannot be read: {why}") from why
        self._put_image(product, image.sequence, parts, ts)
        if self._rows:
            self._close_rows()
        self.synthetic += len(self._rows)

    def _put_image(self, product: Listed, sequence: int, parts: Sequence[Part], ts: int) -> None:
        """Every order of the image, in file order, as parts of one snapshot; LAST is still to be set."""
        product.last, product.after_image = sequence, True
        for side, px, qty, text in parts:
            order = product.orders[text] = Resting(self._ids.intern(text), px, qty)
            self._rows.append((ts, sequence, order.handle, 0, px, qty, _ADD, side, _SNAPSHOT, product.index))

    def _close_rows(self) -> None:
        """The last row closes its batch."""
        *rest, flags, index = self._rows[-1]
        self._rows[-1] = (*rest, flags | _LAST, index)

    def _stranger(self, order_id: str) -> int:
        """Handle of an order that was never told."""
        return self._ids.intern(order_id)

    def _open(self, p: Listed, m: Message, ts: int) -> None:
        px, qty, side = _units(m.price), _units(m.remaining_size), SIDES[m.side]
        order = p.orders[m.order_id] = Resting(self._ids.intern(m.order_id), px, qty)
        self._rows.append((ts, m.sequence, order.handle, 0, px, qty, _ADD, side, _LAST, p.index))

    def _done(self, p: Listed, m: Message, ts: int) -> None:
        order = p.orders.pop(m.order_id, None)
        if order is None:
            self._find(Integrity.never_rested, 1, p.index)
            return
        self._ids.forget(m.order_id)
        if order.left > 0:
            side = SIDES[m.side]
            self._rows.append((ts, m.sequence, order.handle, 0, order.px, order.left, _DELETE, side, _LAST, p.index))

    def _match(self, p: Listed, m: Message, ts: int) -> None:
        px, qty, side = _units(m.price), _units(m.size), SIDES[m.side]
        order = p.orders.get(m.maker_order_id)
        # the maker of a feed without an image may be unknown: the book says so
        handle = order.handle if order else self._stranger(m.maker_order_id)
        if order:
            order.left = max(0, order.left - qty)
        self._rows.append((ts, m.sequence, handle, m.trade_id, px, qty, _REDUCE, side, _LAST | _EXEC, p.index))

    def _change(self, p: Listed, m: Message, ts: int) -> None:
        order = p.orders.get(m.order_id)
        if order is None:
            self._find(Integrity.never_rested, 1, p.index)
            return
        qty, side = _units(m.new_size), SIDES[m.side]
        kept = m.new_price is None
        px = order.px if kept else _units(m.new_price)
        flags = _LAST | _KEPT if kept else _LAST
        order.px, order.left = px, qty
        self._rows.append((ts, m.sequence, order.handle, 0, px, qty, _MODIFY, side, flags, p.index))


_HANDLERS: dict[str, Any] = {
    "open": CoinbaseFeed._open,
    "done": CoinbaseFeed._done,
    "match": CoinbaseFeed._match,
    "change": CoinbaseFeed._change,
} | dict.fromkeys(NO_BOOK)


def _units(text: str | None) -> int:
    """A price or size in 1e-8; ValueError when it is missing, no number, or beyond 64 bits."""
    if text is None:
        raise ValueError("a price or size is missing")
    units = to_units(text, EXP)
    if not -_I64 < units < _I64:
        raise ValueError(f"{text[:40]!r} does not fit 64 bits")
    return units


def parts_of(image: BookImage) -> list[Part]:
    """The orders of an image, best first, bids before asks.

    Raises
    ------
    ValueError : a price, a size or the sequence is no number of its range
    """
    if not 0 <= image.sequence < _U64:
        raise ValueError(f"sequence {image.sequence}")
    return [
        (side, _units(price), _units(size), text)
        for side, rows in ((int(Side.BID), image.bids), (int(Side.ASK), image.asks))
        for price, size, text in rows
    ]


def time_or_null(text: str) -> int:
    """Venue time of a message that may be unreadable: the message itself says so."""
    try:
        return iso_ns(text)
    except ValueError:
        return NULL_TS


def to_events(rows: list[tuple[int, ...]]) -> Events:
    """Rows of `_COLUMNS` as EVENT records without receive times."""
    out = empty_events(len(rows))
    if rows:
        for name, column in zip(_COLUMNS, zip(*rows, strict=True), strict=True):
            out[name] = column
        out["ts_recv"], out["feed"] = NULL_TS, FeedId.COINBASE
    return out


class MessageReader:
    """Messages of JSON lists or JSON lines, batch by batch, from streams that never lie in memory as a whole.

    A list is cut between two objects (`}` `,` `{`); where such a cut falls inside an object, the batch does not decode
    and an earlier cut is tried. What cannot be decoded at all is one `malformed` each, with its place in a notice.
    """

    def __init__(self, sources: Sequence[Source], chunk: int = CHUNK) -> None:
        self._sources = list(sources)
        self._chunk = chunk
        self._lines = 0
        self._findings: list[tuple[Integrity, int]] = []
        self._notices: list[str] = []
        self.progress = 0.0

    def take_lines(self) -> int:
        """Messages read since the last call, undecodable ones too."""
        n, self._lines = self._lines, 0
        return n

    def take_findings(self) -> list[tuple[Integrity, int]]:
        """Findings since the last call."""
        out, self._findings = self._findings, []
        return out

    def take_notices(self) -> list[str]:
        """Notices since the last call."""
        out, self._notices = self._notices, []
        return out

    def __iter__(self) -> Iterator[list[Message]]:
        for done, source in enumerate(self._sources):
            stream = source.stream()
            total = max(1, source.size())
            for batch in self._of_stream(stream):
                self.progress = (done + min(1.0, stream.consumed / total)) / len(self._sources)
                for at in range(0, len(batch), CHUNK_EVENTS):
                    yield batch[at : at + CHUNK_EVENTS]
            if stream.cut:
                self._lost(stream.cut)
        self.progress = 1.0

    def _lost(self, why: str) -> None:
        self._findings.append((Integrity.malformed, 1))
        self._notices.append(why)

    def _of_stream(self, stream: Stream) -> Iterator[list[Message]]:
        head = stream.read(self._chunk).lstrip(b"\xef\xbb\xbf \t\r\n")
        cut = self._cut_list if head[:1] == b"[" else self._cut_lines
        rest, base = (head[1:] if head[:1] == b"[" else head), stream.offset - len(head)
        more = True
        while more or rest:
            piece = stream.read(self._chunk) if more else b""
            batch, used = cut(rest, base, last=not piece)
            if batch:
                self._lines += len(batch)
                yield batch
            more = bool(piece)
            base += used
            rest = rest[used:] + piece
            if not more and not used:
                break

    def _cut_lines(self, data: bytes, base: int, *, last: bool) -> tuple[list[Message], int]:
        """Whole lines of `data`; the last line may lack its end when nothing follows."""
        end = len(data) if last else data.rfind(b"\n") + 1
        out: list[Message] = []
        at = 0
        for line in data[:end].split(b"\n"):
            if line.strip():
                self._one(line, base + at, out)
            at += len(line) + 1
        return out, end

    def _one(self, text: bytes, at: int, out: list[Message]) -> None:
        try:
            out.append(DECODE_ONE.decode(text))
        except UNDECODABLE as why:
            self._lines += 1
            self._lost(f"message at offset {at} cannot be read: {why}")

    def _cut_list(self, data: bytes, base: int, *, last: bool) -> tuple[list[Message], int]:
        """Whole objects of a list whose opening bracket is gone."""
        if last:
            return self._list_end(data, base), len(data)
        cuts = [m.start() + 1 for m in _BETWEEN.finditer(data)]
        for end in reversed(cuts[-8:]):
            try:
                return _DECODE_LIST.decode(b"[" + data[:end] + b"]"), data.index(b",", end) + 1
            except UNDECODABLE:
                continue
        if not cuts:
            return [], 0
        return self._singly(data[: cuts[-1]], base), data.index(b",", cuts[-1]) + 1

    def _list_end(self, data: bytes, base: int) -> list[Message]:
        """The last piece of a list, with its closing bracket when nothing is missing."""
        text = data.rstrip()
        if not text or text == b"]":
            return []
        try:
            return _DECODE_LIST.decode(b"[" + text)
        except UNDECODABLE:
            return self._singly(text.removesuffix(b"]"), base)

    def _singly(self, data: bytes, base: int) -> list[Message]:
        """Objects one by one, so that a damaged one costs only itself."""
        out: list[Message] = []
        at = 0
        for match in [*_BETWEEN.finditer(data), None]:
            end = match.start() + 1 if match else len(data)
            if data[at:end].strip(b" \t\r\n,"):
                self._one(data[at:end].strip(b" \t\r\n,"), base + at, out)
            at = match.end() if match else end
        return out
