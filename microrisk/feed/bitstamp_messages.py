"""Bitstamp messages as typed records, and what the feed knows of a pair (see `bitstamp` for the rules)."""

from __future__ import annotations

from collections import deque
from typing import Annotated

import msgspec

from microrisk.feed.bitstamp_orders import OrderBook
from microrisk.feed.l2 import Product, Stamp
from microrisk.feed.ladder import Level

ORDERS, DIFF, TOP, DETAIL = "live_orders", "diff_order_book", "order_book", "detail_order_book"
BOOKS = (ORDERS, DIFF, TOP, DETAIL)
"""Channels that can make a book, the best first."""
_Micros = Annotated[str, msgspec.Meta(pattern=r"^([0-8][0-9]{15}|[0-9]{1,15})$")]
_Id = Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)]
_Type = Annotated[int, msgspec.Meta(ge=0, le=1)]


class Envelope(msgspec.Struct, gc=False):
    """Any message."""

    event: str
    channel: str = ""
    data: msgspec.Raw = msgspec.Raw(b"{}")


class Book(msgspec.Struct, gc=False):
    """Levels [price, amount] or orders [price, amount, id]: changes, or an image."""

    microtimestamp: _Micros
    bids: list[list[str]]
    asks: list[list[str]]


class Trade(msgspec.Struct, gc=False):
    """One trade."""

    microtimestamp: _Micros
    id: _Id
    type: _Type
    price: msgspec.Raw
    amount: msgspec.Raw
    price_str: str = ""
    amount_str: str = ""


class Order(msgspec.Struct, gc=False):
    """One order of `live_orders_*`: what is left of it."""

    microtimestamp: _Micros
    id: _Id
    order_type: _Type
    price: msgspec.Raw
    amount: msgspec.Raw
    price_str: str = ""
    amount_str: str = ""


ENVELOPE = msgspec.json.Decoder(Envelope)
BOOK = msgspec.json.Decoder(Book)
TRADE = msgspec.json.Decoder(Trade)
ORDER = msgspec.json.Decoder(Order)


class Pair(Product):
    """One pair.

    Attributes
    ----------
    channels : prefixes of the channels met so far
    last : microtimestamp of the last message in the book
    base : microtimestamp of its image
    floor : behind a hole, the first microtimestamp that an image must have; None = not known yet, -1 = no hole
    kept : diffs, or rows of orders, that wait for an image
    image : an image that came before it was clear what channel the pair has
    shown : levels of the last image of rule 4, by side
    orders : the book of single orders
    rows : orders since the last chunk, tuples of ROW
    """

    __slots__ = ("base", "channels", "floor", "image", "kept", "last", "orders", "rows", "shown")

    def __init__(self, index: int, name: str) -> None:
        super().__init__(index, name)
        self.channels: set[str] = set()
        self.last = self.base = -1
        self.floor: int | None = -1
        self.kept: deque[tuple[int, Stamp, list[Level], list[Level]]] = deque()
        self.image: tuple[Book, Stamp] | None = None
        self.shown: tuple[dict[int, int], dict[int, int]] = {}, {}
        self.orders: OrderBook | None = None
        self.rows: list[tuple[int, ...]] = []

    @property
    def book(self) -> str:
        """The channel that makes the book, "" while none has been met."""
        return next((c for c in BOOKS if c in self.channels), "")
