"""Bitstamp v2: `diff_order_book`, `live_orders`, `live_trades`, images, REST order book; generated or recorded.

Generated: each deed has a microtimestamp of its own, in steps of a millisecond or more, so that the image's
microtimestamp says exactly what it holds. An order whose size shrinks without a trade looks like one that was filled in
part: the channel cannot say it otherwise. Not verified against the live venue: when `bts:request_reconnect` comes, and
that a REST image is never behind the stream.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from microrisk.feed.bitstamp_messages import BOOK, DETAIL, DIFF, ENVELOPE, ORDER, ORDERS, TOP
from microrisk.feed.capture import RESPONSE, Line
from microrisk.feed.l2 import number_text
from microrisk.feed.text import from_units, to_units
from microrisk.monitor.publish.levels_text import LevelBook, Lines, Row
from microrisk.monitor.publish.market_text import Deed, TextMarket
from microrisk.monitor.publish.order_text import ASK, BID, Order, OrderBook
from microrisk.monitor.publish.venue import Answer, Beat, Client, Flow, Query, VenueServer, json_text, not_yet

TRADES = "live_trades"
BEST = 100
EXP = 8
MAX_KEPT = 10_000


class Image(NamedTuple):
    """A book: rows are price, size and, where single orders are known, id."""

    micros: int
    bids: Sequence[Row]
    asks: Sequence[Row]


class BitstampFlow(Flow, Protocol):
    """What the server needs besides the messages."""

    def image(self, pair: str, *, orders: bool) -> Image | None:
        """The book as it is; None while there is none."""


def _message(event: str, channel: str, data: Any) -> str:
    return json_text({"data": data, "channel": channel, "event": event})


class BitstampMarket:
    """A generated market in Bitstamp's words."""

    def __init__(self, market: TextMarket) -> None:
        self.market = market
        self._micros = dict.fromkeys(market.books, market.now_ns // 1000)
        self._trade_id = 0

    def products(self) -> list[str]:
        """Pairs, as in btcusd."""
        return list(self.market.books)

    def image(self, pair: str, *, orders: bool) -> Image:
        """See BitstampFlow."""
        book = self.market.books[pair]
        bids, asks = (
            [(book.px_text(o.px), book.qty_text(o.qty), o.label) for o in side.orders()]
            if orders
            else [(book.px_text(p), book.qty_text(q)) for p, q in side.levels()]
            for side in (book.bids, book.asks)
        )
        return Image(self._micros[pair], bids, asks)

    def step(self) -> Beat:
        """The messages of the next deed: orders, trades, levels."""
        deed = self.market.step()
        name, micros = deed.book.name, deed.ts_ns // 1000
        self._micros[name] = micros
        texts = [(ORDERS, name, text) for text in self._orders(deed, micros)]
        texts += [(TRADES, name, text) for text in self._trades(deed, micros)]
        book, sides = deed.book, {BID: list[Row](), ASK: list[Row]()}
        for sign, px in deed.levels:
            sides[sign].append((book.px_text(px), book.qty_text(book.side(sign).sizes.get(px, 0))))
        stamps = {"timestamp": str(micros // 1_000_000), "microtimestamp": str(micros)}
        diff = _message("data", f"{DIFF}_{name}", {**stamps, "bids": sides[BID], "asks": sides[ASK]})
        return Beat(deed.ts_ns, [*texts, (DIFF, name, diff)])

    def _orders(self, deed: Deed, micros: int) -> Iterable[str]:
        if deed.kind == "trade":
            for maker, _ in deed.fills:
                yield self._order("order_changed" if maker.qty else "order_deleted", deed.book, maker, micros)
            return
        event = {"add": "order_created", "change": "order_changed", "cancel": "order_deleted"}[deed.kind]
        yield self._order(event, deed.book, deed.order, micros)

    def _order(self, event: str, book: OrderBook, order: Order, micros: int) -> str:
        px, qty = book.px_text(order.px), book.qty_text(order.qty)
        data = {
            "id": int(order.label), "id_str": order.label, "order_type": int(order.side == ASK),
            "datetime": str(micros // 1_000_000), "microtimestamp": str(micros),
            "amount": msgspec.Raw(qty.encode()), "amount_str": qty, "price": msgspec.Raw(px.encode()), "price_str": px,
        }  # fmt: skip
        return _message(event, f"{ORDERS}_{book.name}", data)

    def _trades(self, deed: Deed, micros: int) -> Iterable[str]:
        for maker, size in deed.fills:
            self._trade_id += 1
            px, qty = deed.book.px_text(maker.px), deed.book.qty_text(size)
            sides = (maker, deed.order) if maker.side == BID else (deed.order, maker)
            data = {
                "id": self._trade_id, "timestamp": str(micros // 1_000_000), "microtimestamp": str(micros),
                "amount": msgspec.Raw(qty.encode()), "amount_str": qty, "price": msgspec.Raw(px.encode()),
                "price_str": px, "type": int(maker.side == BID),
                "buy_order_id": int(sides[0].label), "sell_order_id": int(sides[1].label),
            }  # fmt: skip
            yield _message("trade", f"{TRADES}_{deed.book.name}", data)


class BitstampRecording:
    """A recording with the books that it makes: diffs on a REST image, or single orders on one with ids."""

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self._lines = Lines(paths)
        self._levels: dict[str, LevelBook] = {}
        self._books: dict[str, OrderBook] = {}
        self._micros: dict[str, int] = {}
        self._kept: dict[str, deque[Any]] = {}

    @property
    def progress(self) -> float:
        """Share read."""
        return self._lines.progress

    def products(self) -> list[str]:
        """Pairs met so far."""
        return list(self._levels)

    def image(self, pair: str, *, orders: bool) -> Image | None:
        """See BitstampFlow."""
        book = self._books.get(pair)
        if orders:
            if book is None:
                return None
            bids, asks = (
                [(from_units(o.px, EXP), from_units(o.qty, EXP), o.label) for o in side.orders()]
                for side in (book.bids, book.asks)
            )
            return Image(self._micros.get(pair, 0), bids, asks)
        levels = self._levels.get(pair)
        return Image(levels.last, *levels.image()) if levels is not None and levels.ready else None

    def step(self) -> Beat | None:
        """The next message of a channel."""
        while (line := self._lines.next()) is not None:
            if line.kind == RESPONSE:
                self._rest(line)
                continue
            m = ENVELOPE.decode(line.body)
            prefix, _, pair = m.channel.rpartition("_")
            if m.event.startswith("bts:") or not pair:
                continue
            if prefix == DIFF:
                self._diff(pair, BOOK.decode(m.data))
            elif prefix == ORDERS and pair in self._books:
                self._order(self._books[pair], m.event, ORDER.decode(m.data))
            return Beat(line.ts_recv, [(prefix, pair, line.body.decode("utf-8", "replace"))])
        return None

    def _rest(self, line: Line) -> None:
        pair = line.url.partition("/order_book/")[2].partition("?")[0].strip("/")
        book = BOOK.decode(line.body)
        levels, micros = self._levels.setdefault(pair, LevelBook()), int(book.microtimestamp)
        if book.bids and len(book.bids[0]) > 2:
            orders = self._books[pair] = OrderBook(pair, EXP, EXP)
            self._micros[pair] = micros
            for sign, rows in ((BID, book.bids), (ASK, book.asks)):
                for px, qty, label in rows:
                    orders.add(Order(label, sign, to_units(px, EXP), to_units(qty, EXP)))
        levels.load(book.bids, book.asks, micros)
        for kept in self._kept.pop(pair, ()):
            self._diff(pair, kept)

    def _diff(self, pair: str, data: Any) -> None:
        levels, micros = self._levels.setdefault(pair, LevelBook()), int(data.microtimestamp)
        if not levels.ready:
            self._kept.setdefault(pair, deque(maxlen=MAX_KEPT)).append(data)
        elif micros > levels.last:
            levels.apply(data.bids, data.asks, micros)

    def _order(self, book: OrderBook, event: str, o: Any) -> None:
        if int(o.microtimestamp) <= self._micros[book.name]:
            return
        self._micros[book.name] = int(o.microtimestamp)
        label, qty = str(o.id), to_units(o.amount_str or number_text(o.amount), EXP)
        if event == "order_created" and qty:
            px = to_units(o.price_str or number_text(o.price), EXP)
            book.add(Order(label, ASK if o.order_type else BID, px, qty))
        elif event == "order_changed":
            book.resize(label, qty)
        elif event == "order_deleted":
            book.remove(label)


class BitstampServer(VenueServer):
    """Speaks Bitstamp over a generated market or a recording."""

    venue = "bitstamp"
    flow: BitstampFlow

    def asked(self, client: Client, text: str, message: Any) -> Iterable[str]:
        """`bts:subscribe`, `bts:unsubscribe`, `bts:heartbeat`."""
        event = message.get("event") if isinstance(message, dict) else None
        if event == "bts:heartbeat":
            return ['{"event":"bts:heartbeat","channel":"","data":{"status":"success"}}']
        if event not in ("bts:subscribe", "bts:unsubscribe"):
            return [_message("bts:error", "", {"code": None, "message": "Bad request"})]
        channel = str((message.get("data") or {}).get("channel", ""))
        prefix, _, pair = channel.rpartition("_")
        if prefix not in (DIFF, ORDERS, TRADES, TOP, DETAIL):
            return [_message("bts:error", channel, {"code": 4009, "message": "Bad subscription string."})]
        if event == "bts:unsubscribe":
            client.subscriptions.pop((prefix, pair), None)
            return [_message("bts:unsubscription_succeeded", channel, {})]
        self.subscribe(client, prefix, pair)
        return [_message("bts:subscription_succeeded", channel, {})]

    def heartbeats(self, client: Client) -> Iterable[str]:
        """Images of the best 100, for whoever has subscribed to them; the venue sends them more often."""
        for prefix, pair in client.subscriptions:
            image = self.flow.image(pair, orders=prefix == DETAIL) if prefix in (TOP, DETAIL) else None
            if image is not None:
                yield _message("data", f"{prefix}_{pair}", _body(image, BEST))

    def request_reconnect(self) -> None:
        """Tell every client that the connection will end (call it in the loop)."""
        self.say(_message("bts:request_reconnect", "", ""))

    def rest(self, path: str, query: Query) -> Answer | None:
        """`/api/v2/order_book/PAIR`; group 2 = single orders with their ids."""
        match path.strip("/").split("/"):
            case ["api", "v2", "order_book", pair]:
                image = self.flow.image(pair, orders=query.get("group", ["1"])[0] == "2")
                return not_yet() if image is None else Answer(200, json_text(_body(image, None)))
        return None


def _body(image: Image, depth: int | None) -> dict[str, Any]:
    stamps = {"timestamp": str(image.micros // 1_000_000), "microtimestamp": str(image.micros)}
    return {**stamps, "bids": image.bids[:depth], "asks": image.asks[:depth]}
