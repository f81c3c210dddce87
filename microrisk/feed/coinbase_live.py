"""Coinbase Exchange `full` channel as it arrives: level-3 books of any number of products, images over REST.

Rules beside those of `coinbase.py`:

1. An image is a REST answer whose URL ends in `/products/PRODUCT/book` (with any query); it must be of level 3.
2. Messages of a product without a book are kept (the last MAX_KEPT; what is dropped is `awaiting_image`). With the
   image those at or below its sequence are `skipped` and the first later one must be the next; else the image is too
   old: a `gap`, and the next image is awaited. What was kept carries the receive time of the image, because before it
   nobody knew the book.
3. A jump of the sequence is a `gap`: nobody knows what the missing messages did, so the book is thrown away (CLEAR,
   mark, `invalidated`) and waits for the next image. So is the book of a message that cannot be read, and so are all
   books when the connection is lost. A connection that was made again says nothing: the sequence goes on.
4. An image newer than a book in order takes its place; one that is not is `skipped`.
5. Ids of orders are forgotten with their orders: a session has no end, and a busy product names millions a day.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from microrisk.feed.base import Events, venue_of
from microrisk.feed.capture import LOST, RECEIVED, RESPONSE, Capture, Line
from microrisk.feed.coinbase import (
    DECODE_IMAGE,
    DECODE_ONE,
    UNDECODABLE,
    BookImage,
    CoinbaseFeed,
    Listed,
    Message,
    Part,
    parts_of,
    time_or_null,
    to_events,
)
from microrisk.feed.interning import PassingInterner
from microrisk.feed.text import iso_ns
from microrisk.spec.records import Action, Flag, Integrity
from microrisk.spec.units import NULL_TS

MAX_KEPT = 32_768
"""Messages of a product that wait for an image: half a minute of the busiest, some tens of MiB."""

_BOOK = re.compile(r"/products/([^/?#]+)/book(?:[?#]|$)")


@dataclass
class Followed(Listed):
    """A product whose book may have to wait.

    Attributes
    ----------
    waiting : there is no book
    kept : messages without a book, each with its receive time in ns
    """

    waiting: bool = True
    kept: deque[tuple[Message, int]] = field(default_factory=deque)


class LiveCoinbaseFeed(CoinbaseFeed):
    """Lines of one connection and of REST answers, in order of receipt."""

    _products: dict[str, Followed]  # type: ignore[assignment]

    def __init__(self, capture: Capture, venue: str | None) -> None:
        super().__init__([], venue_of(venue, "COINBASE"), None)
        self._ids = PassingInterner()
        self._capture = capture
        self._lines = capture.batches()
        self._stamps: list[int] = []
        self._ended = False

    @property
    def progress(self) -> float:
        """Always 0: nobody knows how much will come."""
        return 0.0

    def waiting(self) -> dict[int, str]:
        """Number -> name of products whose book waits for an image."""
        return {p.index: p.name for p in self._products.values() if p.waiting}

    def _chunk(self) -> Events | None:
        batch = next(self._lines, None)
        if batch is None:
            self._end()
            return None
        self._rows, self._stamps = [], []
        for line in batch:
            self._line(line)
        out = to_events(self._rows)
        out["ts_recv"] = self._stamps
        return out

    def _end(self) -> None:
        """What is kept at the end has not been applied."""
        if self._ended:
            return
        self._ended = True
        for product in self._products.values():
            if product.kept:
                self._find(Integrity.awaiting_image, len(product.kept), product.index)
                self._note(f"{product.name}: {len(product.kept)} messages at the end found no book image")

    # -- lines ----------------------------------------------------------------------------------------------------

    def _line(self, line: Line) -> None:
        if line.kind == RECEIVED:
            self._received(line)
        elif line.kind == RESPONSE:
            self._response(line)
        elif line.kind == LOST:
            for product in self._products.values():
                if not product.waiting:
                    self._invalidate(product, Integrity.session_reset, line, line.ts_recv, "the connection was lost")

    def _received(self, line: Line) -> None:
        self.messages += 1
        try:
            m = DECODE_ONE.decode(line.body)
        except UNDECODABLE as why:
            self._unreadable(line, why)
            return
        self._decoded += 1
        if not self._is_numbered(m):
            return
        if not 0 < len(m.product_id) <= 64 or not m.product_id.isprintable():
            self._unreadable(line, ValueError(f"{m.product_id[:64]!r} is no product"))
            return
        product = self._followed(m.product_id)
        if product.waiting:
            self._keep(product, m, line.ts_recv)
        else:
            self._follow(product, m, line, line.ts_recv)

    def _response(self, line: Line) -> None:
        """Rule 1."""
        self.messages += 1
        match = _BOOK.search(line.url)
        if match is None:
            self._find(Integrity.unknown_type)
            return
        try:
            image = DECODE_IMAGE.decode(line.body)
            parts, ts = parts_of(image), iso_ns(image.time) if image.time else line.ts_recv
        except (*UNDECODABLE, ValueError) as why:
            self._unreadable(line, why)
            return
        self._decoded += 1
        self._load_image(self._followed(unquote(match[1])), image, parts, ts, line)

    def _unreadable(self, line: Line, why: Exception) -> None:
        """Whose message it is nobody knows; the sequence will tell that it is missing."""
        self._find(Integrity.malformed, before=len(self._rows))
        self._note(f"{line.place} line {line.number} cannot be read: {why}")

    def _followed(self, name: str) -> Followed:
        product = self._products.get(name)
        if product is None:
            product = self._products[name] = Followed(len(self._products), name)
        return product

    # -- the sequence ---------------------------------------------------------------------------------------------

    def _keep(self, product: Followed, m: Message, ts_recv: int) -> None:
        if len(product.kept) >= MAX_KEPT:
            product.kept.popleft()
            self._find(Integrity.awaiting_image, 1, product.index)
        product.kept.append((m, ts_recv))

    def _follow(self, product: Followed, m: Message, line: Line, ts_recv: int) -> None:
        """The message, if it is the next one; rule 3 if it is a later one."""
        ts, last = time_or_null(m.time), product.last
        if last is not None and m.sequence > last + 1:
            why = f"sequence {last + 1} to {m.sequence - 1} missing"
            self._invalidate(product, Integrity.gap, line, ts, why)
            self._keep(product, m, ts_recv)
            return
        if self._in_sequence(product, m) and (why := self._act(product, m)):
            self._invalidate(product, Integrity.malformed, line, ts, why)
        self._stamp(ts_recv)

    def _load_image(self, product: Followed, image: BookImage, parts: Sequence[Part], ts: int, line: Line) -> None:
        """Rules 2 and 4."""
        if not product.waiting and product.last is not None and image.sequence <= product.last:
            self._find(Integrity.skipped, 1, product.index)
            return
        later = [(m, recv) for m, recv in product.kept if m.sequence > image.sequence]
        if later and later[0][0].sequence > image.sequence + 1:
            self._find(Integrity.gap, 1, product.index, before=len(self._rows))
            first = later[0][0].sequence
            self._note(f"{product.name}: the book image {image.sequence} is too old, the messages begin with {first}")
            return
        self._find(Integrity.skipped, len(product.kept) - len(later), product.index)
        product.kept.clear()
        self._forget_orders(product)
        self._rows.append((ts, image.sequence, 0, 0, 0, 0, Action.CLEAR, 0, Flag.SNAPSHOT, product.index))
        self._put_image(product, image.sequence, parts, ts)
        self._close_rows()
        product.waiting = False
        self._stamp(line.ts_recv)
        for m, recv in later:
            if product.waiting:  # something before it, also kept, broke the book
                self._keep(product, m, recv)
            else:
                self._follow(product, m, line, max(recv, line.ts_recv))

    def _invalidate(self, product: Followed, kind: Integrity, line: Line, ts: int, why: str) -> None:
        """Throw the book away; it is marked until the next image."""
        ts = line.ts_recv if ts == NULL_TS else ts
        seq, index = product.last or 0, product.index
        # the mark comes behind the CLEAR, which takes marks off
        self._rows.append((ts, seq, 0, 0, 0, 0, Action.CLEAR, 0, 0, index))
        self._rows.append((ts, seq, 0, 0, 0, 0, Action.NONE, 0, Flag.SUSPECT | Flag.LAST, index))
        self._stamp(line.ts_recv)
        for found in (Integrity.invalidated, kind):
            self._find(found, 1, index, before=len(self._rows))
        self._note(f"{product.name}: {why}")
        self._forget_orders(product)
        product.waiting = True

    def _forget_orders(self, product: Followed) -> None:
        for order_id in product.orders:
            self._ids.forget(order_id)
        product.orders.clear()

    def _stranger(self, order_id: str) -> int:
        handle = super()._stranger(order_id)
        self._ids.forget(order_id)
        return handle

    def _stamp(self, ts_recv: int) -> None:
        """The rows since the last call were received then."""
        self._stamps += [ts_recv] * (len(self._rows) - len(self._stamps))
