"""Coinbase Exchange: `full`, `level2` (and `level2_batch`), `matches`, `heartbeat`, REST books; generated or recorded.

Generated: every deed becomes the messages that the venue's documentation describes, numbered per product; REST
`/products/X/book` gives the book with the number of its last message. Recorded: messages of the `full` channel (with a
level-3 image to begin with) or of `level2`. No authentication is asked for. Not verified against the live venue: field
order, the texts of errors, the exact interplay of `received` and `open`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from microrisk.errors import UsageError
from microrisk.feed.coinbase import read_image
from microrisk.feed.coinbase_level2 import is_level2
from microrisk.feed.open import Source, find_sources
from microrisk.feed.text import from_units, iso_ns, to_units
from microrisk.monitor.publish.levels_text import LevelBook, Lines, Row, iso_text
from microrisk.monitor.publish.market_text import Deed, TextMarket
from microrisk.monitor.publish.order_text import ASK, BID, Order, OrderBook
from microrisk.monitor.publish.venue import Answer, Beat, Client, Flow, Query, VenueServer, json_text, not_yet

CHANNELS = ("full", "level2", "level2_batch", "matches", "heartbeat", "ticker", "status")
LEVELS = ("level2", "level2_batch")
SUBSCRIBE_WITHIN_S = 5.0
SIDES = {BID: "buy", ASK: "sell"}
SIGNS = {"buy": BID, "sell": ASK}
EXP = 8


class CoinbaseFlow(Flow, Protocol):
    """What the server needs besides the messages."""

    def snapshot(self, product: str) -> tuple[Sequence[Row], Sequence[Row]] | None:
        """Levels (price, size), best first; None while there is no book."""

    def orders(self, product: str) -> tuple[int, Sequence[Row], Sequence[Row]] | None:
        """Sequence of the book and its orders (price, size, id), best first, in their queues."""

    def state(self, product: str) -> tuple[int, int, int]:
        """Last sequence, last trade id, and time (ns UTC)."""


class CoinbaseMarket:
    """A generated market in Coinbase's words."""

    def __init__(self, market: TextMarket, *, first_sequence: int = 1_000) -> None:
        self.market = market
        self._sequence = dict.fromkeys(market.books, first_sequence)
        self._trade_id = dict.fromkeys(market.books, 0)
        self._now = market.now_ns

    def products(self) -> list[str]:
        """Names, as in BTC-USD."""
        return list(self.market.books)

    def step(self) -> Beat:
        """The messages of the next deed."""
        deed = self.market.step()
        self._now = deed.ts_ns
        name = deed.book.name
        texts = [("full", name, json_text(m)) for m in getattr(self, f"_{deed.kind}")(deed)]
        texts += [("matches", name, text) for _, _, text in texts if text.startswith('{"type":"match"')]
        update = self._l2update(deed)
        return Beat(deed.ts_ns, texts + [(channel, name, update) for channel in LEVELS])

    def snapshot(self, product: str) -> tuple[Sequence[Row], Sequence[Row]]:
        """See CoinbaseFlow."""
        book = self.market.books[product]
        bids, asks = (
            [(book.px_text(px), book.qty_text(qty)) for px, qty in side.levels()] for side in (book.bids, book.asks)
        )
        return bids, asks

    def orders(self, product: str) -> tuple[int, Sequence[Row], Sequence[Row]]:
        """See CoinbaseFlow."""
        book = self.market.books[product]
        bids, asks = (
            [(book.px_text(o.px), book.qty_text(o.qty), _uuid(o.label)) for o in side.orders()]
            for side in (book.bids, book.asks)
        )
        return self._sequence[product], bids, asks

    def state(self, product: str) -> tuple[int, int, int]:
        """See CoinbaseFlow."""
        return self._sequence[product], self._trade_id[product], self._now

    def _head(self, kind: str, deed: Deed) -> dict[str, Any]:
        name = deed.book.name
        self._sequence[name] += 1
        return {
            "type": kind, "product_id": name, "sequence": self._sequence[name], "time": iso_text(deed.ts_ns),
        }  # fmt: skip

    def _about(self, kind: str, deed: Deed, order: Order, **more: Any) -> dict[str, Any]:
        named = {"order_id": _uuid(order.label), "side": SIDES[order.side]}
        return {**self._head(kind, deed), **named, **more}

    def _add(self, deed: Deed) -> Iterator[dict[str, Any]]:
        o, px, qty = deed.order, deed.book.px_text(deed.order.px), deed.book.qty_text(deed.order.qty)
        yield self._about("received", deed, o, order_type="limit", price=px, size=qty)
        yield self._about("open", deed, o, price=px, remaining_size=qty)

    def _cancel(self, deed: Deed) -> Iterator[dict[str, Any]]:
        o = deed.order
        left, px = deed.book.qty_text(o.qty), deed.book.px_text(o.px)
        yield self._about("done", deed, o, price=px, remaining_size=left, reason="canceled")

    def _change(self, deed: Deed) -> Iterator[dict[str, Any]]:
        o, text = deed.order, deed.book.qty_text
        sizes = {"old_size": text(deed.was), "new_size": text(o.qty)}
        yield self._about("change", deed, o, price=deed.book.px_text(o.px), **sizes)

    def _trade(self, deed: Deed) -> Iterator[dict[str, Any]]:
        taker, px_text, qty_text = deed.order, deed.book.px_text, deed.book.qty_text
        yield self._about("received", deed, taker, order_type="market", size=qty_text(taker.qty))
        for maker, qty in deed.fills:
            self._trade_id[deed.book.name] += 1
            yield {
                **self._head("match", deed), "trade_id": self._trade_id[deed.book.name], "side": SIDES[maker.side],
                "maker_order_id": _uuid(maker.label), "taker_order_id": _uuid(taker.label),
                "price": px_text(maker.px), "size": qty_text(qty),
            }  # fmt: skip
            if maker.qty == 0:
                zero = qty_text(0)
                yield self._about("done", deed, maker, price=px_text(maker.px), remaining_size=zero, reason="filled")
        yield self._about("done", deed, taker, reason="filled")

    def _l2update(self, deed: Deed) -> str:
        book = deed.book
        changes = [
            (SIDES[sign], book.px_text(px), book.qty_text(book.side(sign).sizes.get(px, 0))) for sign, px in deed.levels
        ]
        when = iso_text(deed.ts_ns)
        return json_text({"type": "l2update", "product_id": book.name, "changes": changes, "time": when})


def _uuid(label: str) -> str:
    digits = f"{int(label):032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class CoinbaseLevels:
    """A recording of `level2` with the books that it makes."""

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self._lines = Lines(paths)
        self._books: dict[str, LevelBook] = {}
        self._now = self._trade_id = 0

    @property
    def progress(self) -> float:
        """Share read."""
        return self._lines.progress

    def products(self) -> list[str]:
        """Products met so far."""
        return list(self._books)

    def step(self) -> Beat | None:
        """The next message of a product."""
        while (line := self._lines.next()) is not None:
            m = msgspec.json.decode(line.body)
            name, kind = m.get("product_id", ""), m["type"]
            if not name:
                continue
            self._now = line.ts_recv
            book = self._books.setdefault(name, LevelBook())
            if kind == "snapshot":
                book.load(m["bids"], m["asks"])
            elif kind == "l2update":
                sides = {s: [c[1:] for c in m["changes"] if c[0] == s] for s in SIGNS}
                book.apply(sides["buy"], sides["sell"])
            text = line.body.decode("utf-8", "replace")
            names = {"match": ["matches"], "last_match": ["matches"]}.get(kind, LEVELS if kind != "ticker" else [kind])
            return Beat(line.ts_recv, [(channel, name, text) for channel in names])
        return None

    def snapshot(self, product: str) -> tuple[Sequence[Row], Sequence[Row]] | None:
        """See CoinbaseFlow."""
        book = self._books.get(product)
        return book.image() if book is not None and book.ready else None

    def orders(self, product: str) -> None:
        """Levels have no orders."""
        return

    def state(self, product: str) -> tuple[int, int, int]:
        """See CoinbaseFlow; the channel has no numbers."""
        return 0, self._trade_id, self._now


class CoinbaseOrders:
    """A recording of the `full` channel on a level-3 image, with the books that it makes.

    A JSON list is read as a whole.
    """

    def __init__(self, paths: Sequence[str | Path], snapshot: str | Path | None = None) -> None:
        self._texts = _messages(find_sources(paths))
        self._books: dict[str, OrderBook] = {}
        self._last: dict[str, tuple[int, int, int]] = {}
        self._image = read_image(Source(Path(snapshot))) if snapshot is not None else None

    def products(self) -> list[str]:
        """Products met so far."""
        return list(self._books)

    def step(self) -> Beat | None:
        """The next message of the sequence; one that the image holds already is left out."""
        for text in self._texts:
            m = msgspec.json.decode(text)
            name, seq = m.get("product_id", ""), m.get("sequence")
            if not name or seq is None or m["type"] in ("heartbeat", "ticker"):
                continue
            if name not in self._books:
                self._open(name)
            last, trade_id, _ = self._last[name]
            if last and seq <= last:
                continue
            ts = iso_ns(m["time"]) if m.get("time") else 0
            self._last[name] = (seq, m.get("trade_id", trade_id), ts)
            self._apply(self._books[name], m)
            channels = ("full", "matches") if m["type"] == "match" else ("full",)
            return Beat(ts, [(channel, name, text) for channel in channels])
        return None

    def _open(self, name: str) -> None:
        book = self._books[name] = OrderBook(name, EXP, EXP)
        self._last[name] = (0, 0, 0)
        if self._image is not None:
            for sign, rows in ((BID, self._image.bids), (ASK, self._image.asks)):
                for px, qty, label in rows:
                    book.add(Order(label, sign, to_units(px, EXP), to_units(qty, EXP)))
            self._last[name] = (self._image.sequence, 0, 0)
            self._image = None

    def _apply(self, book: OrderBook, m: dict[str, Any]) -> None:
        label, kind = m.get("order_id", ""), m["type"]
        if kind == "open":
            px, qty = to_units(m["price"], EXP), to_units(m["remaining_size"], EXP)
            book.add(Order(label, SIGNS[m["side"]], px, qty))
        elif kind == "done":
            book.remove(label)
        elif kind == "match" and (maker := book.orders.get(m["maker_order_id"])):
            book.resize(maker.label, maker.qty - to_units(m["size"], EXP))
        elif kind == "change" and label in book.orders:
            book.resize(label, to_units(m["new_size"], EXP))

    def snapshot(self, product: str) -> tuple[Sequence[Row], Sequence[Row]] | None:
        """See CoinbaseFlow."""
        book = self._books.get(product)
        if book is None:
            return None
        bids, asks = ([(_plain(p), _plain(q)) for p, q in side.levels()] for side in (book.bids, book.asks))
        return bids, asks

    def orders(self, product: str) -> tuple[int, Sequence[Row], Sequence[Row]] | None:
        """See CoinbaseFlow. Before the first message the image belongs to whatever product is asked for."""
        if product not in self._books and self._image is not None:
            self._open(product)
        book = self._books.get(product)
        if book is None:
            return None
        bids, asks = (
            [(_plain(o.px), _plain(o.qty), o.label) for o in side.orders()] for side in (book.bids, book.asks)
        )
        return self._last[product][0], bids, asks

    def state(self, product: str) -> tuple[int, int, int]:
        """See CoinbaseFlow."""
        return self._last.get(product, (0, 0, 0))


def _plain(units: int) -> str:
    return from_units(units, EXP)


def _messages(sources: Sequence[Source]) -> Iterator[str]:
    """Compact texts of the messages of JSON lists, or of lines."""
    for source in sources:
        if source.head(16).lstrip()[:1] == b"[":
            for raw in msgspec.json.decode(b"".join(source.stream()), type=list[msgspec.Raw]):
                yield msgspec.json.format(bytes(raw), indent=-1).decode()
        else:
            lines = Lines([source.path])
            while (line := lines.next()) is not None:
                yield line.body.decode("utf-8", "replace")


def recording(paths: Sequence[str | Path], snapshot: str | Path | None = None) -> CoinbaseLevels | CoinbaseOrders:
    """The flow of a recording, by its content.

    Raises
    ------
    UsageError : a snapshot for a recording of level2, which brings its own
    """
    if is_level2(find_sources(paths)[0]):
        if snapshot is not None:
            raise UsageError("a recording of level2 takes no snapshot: it brings its own")
        return CoinbaseLevels(paths)
    return CoinbaseOrders(paths, snapshot)


class CoinbaseServer(VenueServer):
    """Speaks Coinbase over a generated market or a recording.

    Attributes
    ----------
    subscribe_within_s : a connection that has asked for nothing is ended then
    """

    venue = "coinbase"
    flow: CoinbaseFlow
    subscribe_within_s = SUBSCRIBE_WITHIN_S

    def greet(self, client: Client) -> Iterable[str]:
        """Nothing; whoever asks for nothing in time is cut off."""
        asyncio.get_running_loop().call_later(self.subscribe_within_s, self._still_silent, client)
        return ()

    def _still_silent(self, client: Client) -> None:
        if not client.subscriptions and client in self.clients:
            self.counts["silent_clients"] += 1
            client.queue.put_nowait(None)

    def asked(self, client: Client, text: str, message: Any) -> Iterable[str]:
        """`subscribe` and `unsubscribe`."""
        kind = message.get("type") if isinstance(message, dict) else None
        if kind not in ("subscribe", "unsubscribe"):
            return [json_text({"type": "error", "message": "Malformed JSON or unknown type", "reason": text[:100]})]
        images: list[str] = []
        for channel, product in list(_wishes(message)):
            if channel not in CHANNELS:
                return [
                    json_text(
                        {
                            "type": "error",
                            "message": "Failed to subscribe",
                            "reason": f"{channel} is not a valid channel",
                        }
                    )
                ]
            if kind == "unsubscribe":
                client.subscriptions.pop((channel, product), None)
                continue
            images += self._image(product) if channel in LEVELS else []
            self.subscribe(client, channel, product)
        return [self._subscriptions(client), *images]

    def _image(self, product: str) -> list[str]:
        image = self.flow.snapshot(product)
        if image is None:
            return []
        bids, asks = image
        when = iso_text(self.flow.state(product)[2])
        body = {"type": "snapshot", "product_id": product, "asks": asks, "bids": bids, "time": when}
        return [json_text(body)]

    def _subscriptions(self, client: Client) -> str:
        names: dict[str, list[str]] = {}
        for channel, product in client.subscriptions:
            names.setdefault(channel, []).append(product)
        return json_text(
            {"type": "subscriptions", "channels": [{"name": c, "product_ids": p} for c, p in names.items()]}
        )

    def heartbeats(self, client: Client) -> Iterable[str]:
        """Last numbers of each product whose heartbeat was asked for."""
        for channel, product in client.subscriptions:
            if channel == "heartbeat":
                sequence, trade_id, ts = self.flow.state(product)
                body = {"type": "heartbeat", "sequence": sequence, "last_trade_id": trade_id, "product_id": product}
                yield json_text({**body, "time": iso_text(ts)})

    def rest(self, path: str, query: Query) -> Answer | None:
        """`/products/X/book`, level 1, 2 or 3."""
        match path.strip("/").split("/"):
            case ["products", product, "book"]:
                return self._book(product, query.get("level", ["1"])[0])
            case ["products"]:
                return Answer(200, json_text([{"id": p, "status": "online"} for p in self.flow.products()]))
        return None

    def _book(self, product: str, level: str) -> Answer | None:
        sequence, _, ts = self.flow.state(product)
        if level == "3":
            image = self.flow.orders(product)
            if image is None:
                return not_yet()
            body = {"sequence": image[0], "bids": image[1], "asks": image[2]}
        else:
            levels = self.flow.snapshot(product)
            if levels is None:
                return not_yet()
            depth = 1 if level == "1" else None
            bids, asks = ([(*row, 1) for row in rows[:depth]] for rows in levels)
            body = {"sequence": sequence, "bids": bids, "asks": asks}
        return Answer(200, json_text({**body, "time": iso_text(ts)}))


def _wishes(message: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Channels and products of a subscription: names with the common products, or objects with their own."""
    common = message.get("product_ids") or []
    for channel in message.get("channels") or []:
        name = channel if isinstance(channel, str) else channel.get("name", "")
        own = common if isinstance(channel, str) else channel.get("product_ids") or common
        for product in own:
            yield name, product
