"""Binance spot and futures: diff depth, trades, best quotes, REST depth images; generated or recorded.

Streams may be named in the URL (`/ws/NAME`, `/stream?streams=A/B`) or asked for (`SUBSCRIBE`); pings are those of the
websocket protocol. REST: `/api/v3/depth`, `/fapi/v1/depth`, `/dapi/v1/depth`. Generated: a depth event a deed; the
ids of an event cover each changed level and some that changed nothing, as the venue's do. Not verified against the
live venue: request weights, the texts of errors, the limit of a connection to 24 hours.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

import msgspec

from microrisk.feed.binance_messages import symbol_of
from microrisk.monitor.publish.levels_text import LevelBook, Lines, Row
from microrisk.monitor.publish.market_text import Deed, TextMarket
from microrisk.monitor.publish.order_text import ASK, BID
from microrisk.monitor.publish.venue import Answer, Beat, Client, Flow, Query, VenueServer, json_text, not_yet

DEPTH_PATHS = ("/api/v3/depth", "/fapi/v1/depth", "/dapi/v1/depth")
MAX_LIMIT = 5000
MAX_KEPT = 10_000
NS_PER_MS = 1_000_000


class BinanceFlow(Flow, Protocol):
    """What the server needs besides the messages."""

    futures: bool

    def image(self, symbol: str) -> tuple[int, int, Sequence[Row], Sequence[Row]] | None:
        """Last update id, time in ms, bids and asks, best first; None while there is no book."""


class BinanceMarket:
    """A generated market in Binance's words; `futures` adds `pu` and `T`."""

    def __init__(self, market: TextMarket, *, futures: bool = False, seed: int = 0) -> None:
        self.market, self.futures = market, futures
        self._draw = Random(f"binance {seed}")
        self._last = dict.fromkeys(market.books, 10_000)
        self._best = {name: self._quote(name) for name in market.books}
        self._trade_id = 0

    def products(self) -> list[str]:
        """Symbols, as in BTCUSDT."""
        return list(self.market.books)

    def image(self, symbol: str) -> tuple[int, int, Sequence[Row], Sequence[Row]]:
        """See BinanceFlow."""
        book = self.market.books[symbol]
        bids, asks = (
            [(book.px_text(px), book.qty_text(qty)) for px, qty in side.levels()] for side in (book.bids, book.asks)
        )
        return self._last[symbol], self.market.now_ns // NS_PER_MS, bids, asks

    def step(self) -> Beat:
        """The next deed: a quote when the best has changed, trades, the depth event."""
        deed = self.market.step()
        name = deed.book.name
        first, previous = self._last[name] + 1, self._last[name]
        self._last[name] += len(deed.levels) + self._draw.randrange(3)
        texts = [("trade", name, text) for text in self._trades(deed)]
        quote = self._quote(name)
        if quote != self._best[name]:
            self._best[name] = quote
            texts.append(("bookTicker", name, self._ticker(name, quote, deed.ts_ns // NS_PER_MS)))
        texts.append(("depth", name, self._depth(deed, first, previous)))
        return Beat(deed.ts_ns, texts)

    def _depth(self, deed: Deed, first: int, previous: int) -> str:
        book, name, ms = deed.book, deed.book.name, deed.ts_ns // NS_PER_MS
        sides: dict[int, list[Row]] = {BID: [], ASK: []}
        for sign, px in deed.levels:
            sides[sign].append((book.px_text(px), book.qty_text(book.side(sign).sizes.get(px, 0))))
        body: dict[str, Any] = {"e": "depthUpdate", "E": ms}
        body |= {"T": ms} if self.futures else {}
        body |= {"s": name, "U": first, "u": self._last[name]} | ({"pu": previous} if self.futures else {})
        return json_text(body | {"b": sides[BID], "a": sides[ASK]})

    def _quote(self, name: str) -> tuple[str, ...]:
        book, out = self.market.books[name], []
        for side in (book.bids, book.asks):
            px = side.at_place(0)
            out += [book.px_text(px or 0), book.qty_text(side.sizes[px] if px is not None else 0)]
        return tuple(out)

    def _ticker(self, name: str, quote: tuple[str, ...], ms: int) -> str:
        body: dict[str, Any] = {"e": "bookTicker", "T": ms, "E": ms} if self.futures else {}
        return json_text(body | {"u": self._last[name], "s": name} | dict(zip("bBaA", quote, strict=True)))

    def _trades(self, deed: Deed) -> Iterable[str]:
        ms = deed.ts_ns // NS_PER_MS
        for maker, qty in deed.fills:
            self._trade_id += 1
            body = {
                "e": "trade", "E": ms, "s": deed.book.name, "t": self._trade_id, "p": deed.book.px_text(maker.px),
                "q": deed.book.qty_text(qty), "T": ms, "m": maker.side == BID,
            }  # fmt: skip
            yield json_text(body if self.futures else body | {"M": True})


class _Update(msgspec.Struct):
    e: str = ""
    s: str = ""
    E: int = 0
    u: int = 0
    b: list[tuple[str, str]] | str | int | None = None
    a: list[tuple[str, str]] | str | int | None = None
    pu: int | None = None


class _Envelope(msgspec.Struct):
    stream: str = ""
    data: msgspec.Raw = msgspec.Raw(b"")
    lastUpdateId: int | None = None
    bids: list[tuple[str, str]] = []
    asks: list[tuple[str, str]] = []
    symbol: str = ""


_ENVELOPE, _UPDATE = msgspec.json.Decoder(_Envelope), msgspec.json.Decoder(_Update)


class BinanceRecording:
    """A recording with the books that it makes; images in it (in the stream, or REST answers beside it) begin them.

    A symbol has a book from its first image on; until then REST answers 503.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self._lines = Lines(paths)
        self._books: dict[str, LevelBook] = {}
        self._kept: dict[str, deque[_Update]] = {}
        self._ms = 0
        self.futures = False

    @property
    def progress(self) -> float:
        """Share read."""
        return self._lines.progress

    def products(self) -> list[str]:
        """Symbols met so far."""
        return list(self._books)

    def image(self, symbol: str) -> tuple[int, int, Sequence[Row], Sequence[Row]] | None:
        """See BinanceFlow."""
        book = self._books.get(symbol)
        return (book.last, self._ms, *book.image()) if book is not None and book.ready else None

    def step(self) -> Beat | None:
        """The next message of a stream."""
        while (line := self._lines.next()) is not None:
            m = _ENVELOPE.decode(line.body)
            if m.lastUpdateId is not None:
                self._load(m, symbol_of(line.url) or m.symbol)
                continue
            body = bytes(m.data) or line.body
            d = _UPDATE.decode(body)
            if not d.s:
                continue
            self._ms = d.E or self._ms
            if d.e == "depthUpdate":
                self._take(d)
            channel = {"depthUpdate": "depth", "": "bookTicker"}.get(d.e, d.e)
            return Beat(line.ts_recv, [(channel, d.s, body.decode("utf-8", "replace"))])
        return None

    def _load(self, m: _Envelope, symbol: str) -> None:
        waiting = [s for s, b in self._books.items() if not b.ready]
        name = symbol or (waiting[0] if len(waiting) == 1 else "")
        if not name or m.lastUpdateId is None or m.lastUpdateId <= self._books.setdefault(name, LevelBook()).last:
            return
        book = self._books[name]
        book.load(m.bids, m.asks, m.lastUpdateId)
        for d in self._kept.pop(name, ()):
            self._apply(book, d)

    def _take(self, d: _Update) -> None:
        self.futures = d.pu is not None
        book = self._books.setdefault(d.s, LevelBook())
        if book.ready:
            self._apply(book, d)
        else:
            self._kept.setdefault(d.s, deque(maxlen=MAX_KEPT)).append(d)

    def _apply(self, book: LevelBook, d: _Update) -> None:
        if d.u > book.last and isinstance(d.b, list) and isinstance(d.a, list):
            book.apply(d.b, d.a, d.u)


class BinanceServer(VenueServer):
    """Speaks Binance over a generated market or a recording."""

    venue = "binance"
    flow: BinanceFlow

    def greet(self, client: Client) -> Iterable[str]:
        """Streams of the URL."""
        parts = urlsplit(client.path)
        names = parse_qs(parts.query).get("streams", [""])[0].split("/")
        if parts.path.startswith("/ws/"):
            names += parts.path.removeprefix("/ws/").split("/")
        for name in filter(None, names):
            self._turn(client, name, on=True)
        return ()

    def asked(self, client: Client, text: str, message: Any) -> Iterable[str]:
        """SUBSCRIBE, UNSUBSCRIBE, LIST_SUBSCRIPTIONS."""
        if not isinstance(message, dict) or "method" not in message:
            return [json_text({"error": {"code": 2, "msg": "Invalid request"}})]
        method, names, number = message["method"], message.get("params") or [], message.get("id")
        if method == "LIST_SUBSCRIPTIONS":
            return [json_text({"result": list(client.subscriptions.values()), "id": number})]
        if method not in ("SUBSCRIBE", "UNSUBSCRIBE") or any("@" not in n for n in names):
            return [json_text({"error": {"code": 2, "msg": f"Invalid request: {method}"}, "id": number})]
        for name in names:
            self._turn(client, name, on=method == "SUBSCRIBE")
        return [json_text({"result": None, "id": number})]

    def _turn(self, client: Client, stream: str, *, on: bool) -> None:
        symbol, _, rest = stream.partition("@")
        key = rest.partition("@")[0], symbol.upper()
        if on:
            self.subscribe(client, *key, detail=stream)
        else:
            client.subscriptions.pop(key, None)

    def wrapped(self, client: Client, channel: str, product: str, text: str) -> str:
        """With the name of the stream where several come together."""
        if not client.path.startswith("/stream"):
            return text
        return f'{{"stream":"{client.subscriptions[channel, product]}","data":{text}}}'

    def rest(self, path: str, query: Query) -> Answer | None:
        """Depth images."""
        if path not in DEPTH_PATHS:
            return None
        symbol, limit = query.get("symbol", [""])[0].upper(), int(query.get("limit", ["100"])[0])
        image = self.flow.image(symbol) if symbol in self.flow.products() else None
        if image is None:
            bad = json_text({"code": -1121, "msg": "Invalid symbol."})
            return not_yet() if isinstance(self.flow, BinanceRecording) else Answer(400, bad)
        last, ms, bids, asks = image
        depth = min(limit, MAX_LIMIT)
        body: dict[str, Any] = {"lastUpdateId": last}
        body |= {"E": ms, "T": ms} if self.flow.futures else {}
        body |= {"symbol": symbol, "pair": symbol.partition("_")[0]} if path.startswith("/dapi") else {}
        return Answer(200, json_text(body | {"bids": bids[:depth], "asks": asks[:depth]}))
