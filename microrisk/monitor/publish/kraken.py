"""Kraken spot: `book` of the websocket API v2 from a generated market, v1 and v2 from recordings, checksums of both.

Generated: `status`, `book` (snapshot, updates with CRC32, levels that enter the window), `trade`, `instrument`,
`heartbeat`, ping. A client that subscribes (again) gets an image of that moment. Depth is that of the subscription; one
image's updates do not depend on other clients. Documented by Kraken: "Spot Websockets (v2) Book Checksum", channel
pages. Not verified against the live venue: texts of errors, the order of heartbeats, `time_in`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec

from microrisk.feed.kraken_book import DEPTHS, TOP
from microrisk.monitor.publish.levels_text import LevelBook, Lines, Row, iso_text
from microrisk.monitor.publish.market_text import Deed, TextMarket
from microrisk.monitor.publish.order_text import ASK, BID, OrderBook
from microrisk.monitor.publish.venue import Beat, Client, VenueServer, json_text

BOOK = "book-{}"
WRONG = 0x5A5A5A5A
"""What a corrupted checksum is XORed with."""


def checksum(asks: Iterable[Row], bids: Iterable[Row]) -> int:
    """CRC32 of the ten best asks and bids, texts of price and size, best first."""
    texts = [_bare(row[0]) + _bare(row[1]) for side in (asks, bids) for row in list(side)[:TOP]]
    return crc32("".join(texts).encode())


def _bare(text: str) -> str:
    return text.replace(".", "").lstrip("0")


class KrakenMarket:
    """A generated market in the words of v2, for every depth that a client has asked for."""

    def __init__(self, market: TextMarket) -> None:
        self.market = market
        self.depths: set[int] = {DEPTHS[0]}
        self._trades = 0

    def products(self) -> list[str]:
        """Names, as in BTC/USD."""
        return list(self.market.books)

    def step(self) -> Beat:
        """The next moment of the market: one book update a depth that it touches, and trades."""
        deed = self.market.step()
        texts = [(BOOK.format(d), deed.book.name, text) for d in sorted(self.depths) if (text := self._update(deed, d))]
        if deed.fills:
            texts.append(("trade", deed.book.name, self._trade(deed)))
        return Beat(deed.ts_ns, texts)

    def image(self, product: str, depth: int) -> str:
        """The snapshot of a product."""
        book = self.market.books[product]
        rows = {sign: book.side(sign).levels(depth) for sign in (BID, ASK)}
        return self._message("snapshot", book, rows, self.market.now_ns)

    def _update(self, deed: Deed, depth: int) -> str:
        """Changed levels inside the window, and those that enter it because others have gone; "" when none is."""
        rows: dict[int, list[tuple[int, int]]] = {BID: [], ASK: []}
        gone = {BID: 0, ASK: 0}
        for sign, px in deed.levels:
            side = deed.book.side(sign)
            qty = side.sizes.get(px, 0)
            if side.place(px) < depth:
                rows[sign].append((px, qty))
                gone[sign] += qty == 0
        for sign, n in gone.items():
            side = deed.book.side(sign)
            entering = [side.at_place(depth - 1 - i) for i in range(n)]
            rows[sign] += [(px, side.sizes[px]) for px in entering if px is not None]
        if not rows[BID] and not rows[ASK]:
            return ""
        return self._message("update", deed.book, rows, deed.ts_ns)

    def _message(self, kind: str, book: OrderBook, rows: dict[int, list[tuple[int, int]]], ts_ns: int) -> str:
        bids, asks = (
            ",".join(f'{{"price":{book.px_text(px)},"qty":{book.qty_text(qty)}}}' for px, qty in rows[sign])
            for sign in (BID, ASK)
        )
        tops = [[(book.px_text(p), book.qty_text(q)) for p, q in book.side(s).levels(TOP)] for s in (ASK, BID)]
        return (
            f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"{book.name}","bids":[{bids}],"asks":[{asks}],'
            f'"checksum":{checksum(*tops)},"timestamp":"{iso_text(ts_ns)}"}}]}}'
        )

    def _trade(self, deed: Deed) -> str:
        rows = []
        for maker, qty in deed.fills:
            self._trades += 1
            rows.append(
                f'{{"symbol":"{deed.book.name}","side":"{"buy" if deed.order.side == BID else "sell"}",'
                f'"price":{deed.book.px_text(maker.px)},"qty":{deed.book.qty_text(qty)},"ord_type":"market",'
                f'"trade_id":{self._trades},"timestamp":"{iso_text(deed.ts_ns)}"}}'
            )
        return f'{{"channel":"trade","type":"update","data":[{",".join(rows)}]}}'


class KrakenServer(VenueServer):
    """Speaks v2 over a generated market."""

    venue = "kraken"
    flow: KrakenMarket

    def greet(self, client: Client) -> Iterable[str]:
        """The system's status."""
        status = {
            "api_version": "v2",
            "connection_id": self.counts["connections"],
            "system": "online",
            "version": "2.0",
        }
        return [json_text({"channel": "status", "type": "update", "data": [status]})]

    def heartbeats(self, client: Client) -> Iterable[str]:
        """One for a client with a subscription."""
        return ['{"channel":"heartbeat"}'] if client.subscriptions else []

    def asked(self, client: Client, text: str, message: Any) -> Iterable[str]:
        """`subscribe`, `unsubscribe`, `ping`."""
        if not isinstance(message, dict):
            return [json_text({"error": "Malformed request", "success": False})]
        method, params = message.get("method"), message.get("params") or {}
        head = {"method": method, **({"req_id": message["req_id"]} if "req_id" in message else {})}
        times = {"time_in": iso_text(self.flow.market.now_ns), "time_out": iso_text(self.flow.market.now_ns)}
        if method == "ping":
            return [json_text({**head, "method": "pong", **times})]
        if method not in ("subscribe", "unsubscribe"):
            return [json_text({**head, "error": "Method not found", "success": False, **times})]
        answers: list[str] = []
        for result, error, images in self._wishes(client, method, params):
            body = {"error": error, "success": False} if error else {"result": result, "success": True}
            answers += [json_text({**head, **body, **times}), *images]
        return answers

    def _wishes(self, client: Client, method: str, params: dict[str, Any]) -> Iterable[tuple[Any, str, list[str]]]:
        channel, depth = params.get("channel"), params.get("depth", DEPTHS[0])
        if channel == "instrument":
            yield {"channel": channel, "snapshot": True}, "", [self._instruments()]
            return
        if channel not in ("book", "trade") or (channel == "book" and depth not in DEPTHS):
            yield None, f"Unsupported channel or depth: {channel} {depth}", []
            return
        symbols = params.get("symbol") or []
        for symbol in [symbols] if isinstance(symbols, str) else symbols:
            if symbol not in self.flow.market.books:
                yield None, f"Currency pair not supported {symbol}", []
                continue
            name = BOOK.format(depth) if channel == "book" else channel
            result = {"channel": channel, "symbol": symbol, **({"depth": depth} if channel == "book" else {})}
            if method == "unsubscribe":
                known = client.subscriptions.pop((name, symbol), None)
                yield result, "" if known else "Subscription Not Found", []
            elif (name, symbol) in client.subscriptions:
                yield None, "Already subscribed", []
            else:
                yield {**result, "snapshot": True}, "", self._begin_book(client, name, symbol, depth)

    def _begin_book(self, client: Client, name: str, symbol: str, depth: int) -> list[str]:
        self.subscribe(client, name, symbol)
        if name == "trade":
            return []
        self.flow.depths.add(depth)
        return [self.flow.image(symbol, depth)]

    def _instruments(self) -> str:
        pairs = [
            {"symbol": b.name, "base": b.name.partition("/")[0], "quote": b.name.partition("/")[2], "status": "online",
             "price_precision": b.px_decimals, "qty_precision": b.qty_decimals}
            for b in self.flow.market.books.values()
        ]  # fmt: skip
        return json_text({"channel": "instrument", "type": "snapshot", "data": {"assets": [], "pairs": pairs}})

    def corrupted(self, text: str) -> str:
        """Another checksum."""
        return _other_checksum(text)


def _other_checksum(text: str) -> str:
    head, mark, rest = text.partition('"checksum":')
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    return head + mark + str(int(digits) ^ WRONG) + rest[len(digits) :] if mark else text


class KrakenRecording:
    """A recording of v1 or v2 with the book that it makes, so that an image can be had at any time.

    Attributes
    ----------
    books : by pair
    channels : v1 channel number by pair
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self._lines = Lines(paths)
        self.books: dict[str, LevelBook] = {}
        self.channels: dict[str, int] = {}

    @property
    def progress(self) -> float:
        """Share read."""
        return self._lines.progress

    def products(self) -> list[str]:
        """Pairs met so far."""
        return list(self.books)

    def step(self) -> Beat | None:
        """The next message that belongs to a pair; answers to the recorder's own requests are left out."""
        while (line := self._lines.next()) is not None:
            body = line.body.decode("utf-8", "replace")
            key = self._one(msgspec.json.decode(line.body)) if body[:1] == "[" else self._two(line.body)
            if key is not None:
                return Beat(line.ts_recv, [(*key, body)])
        return None

    def _one(self, message: list[Any]) -> tuple[str, str] | None:
        number, *parts, channel, pair = message
        if channel.startswith("book-"):
            book = self.books.setdefault(pair, LevelBook())
            self.channels[pair] = number
            for part in parts:
                if "as" in part or "bs" in part:
                    book.load(part.get("bs", ()), part.get("as", ()))
                else:
                    book.apply(part.get("b", ()), part.get("a", ()))
            book.truncate(int(channel.partition("-")[2]))
        return channel, pair

    def _two(self, body: bytes) -> tuple[str, str] | None:
        message = _V2.decode(body)
        if message.channel != "book" or not message.data:
            return None
        data = message.data[0]
        book = self.books.setdefault(data.symbol, LevelBook())
        bids, asks = ([(r.price, r.qty) for r in rows] for rows in (_texts(data.bids), _texts(data.asks)))
        if message.type == "snapshot":
            book.load(bids, asks)
            book.last = max(len(bids), len(asks))  # the depth, as far as an image shows it
        else:
            book.apply(bids, asks, book.last)
            book.truncate(book.last)
        return "book", data.symbol

    def image(self, pair: str, channel: str) -> str | None:
        """The image of a pair in the form of the recording; None when there is no book yet."""
        book = self.books.get(pair)
        if book is None or not book.ready:
            return None
        bids, asks = book.image()
        if pair in self.channels:
            return json_text([self.channels[pair], {"as": asks, "bs": bids}, channel, pair])
        sides = [",".join(f'{{"price":{p},"qty":{q}}}' for p, q in rows) for rows in (bids, asks)]
        head = f'{{"channel":"book","type":"snapshot","data":[{{"symbol":"{pair}",'
        return head + f'"bids":[{sides[0]}],"asks":[{sides[1]}],"checksum":{checksum(asks, bids)}}}]}}'


class _Level2(msgspec.Struct):
    price: msgspec.Raw
    qty: msgspec.Raw


class _Texts(msgspec.Struct):
    price: str
    qty: str


class _Book2(msgspec.Struct):
    symbol: str = ""
    bids: list[_Level2] = []
    asks: list[_Level2] = []


class _Message2(msgspec.Struct):
    channel: str = ""
    type: str = ""
    data: list[_Book2] = []


_V2 = msgspec.json.Decoder(_Message2)


def _texts(rows: list[_Level2]) -> list[_Texts]:
    return [_Texts(bytes(r.price).decode(), bytes(r.qty).decode()) for r in rows]


class KrakenPlayer(VenueServer):
    """Plays a recording to clients that speak v1 or v2; every subscription begins with an image of that moment."""

    venue = "kraken"
    flow: KrakenRecording

    def greet(self, client: Client) -> Iterable[str]:
        """The system's status, as in v1."""
        return ['{"connectionID":1,"event":"systemStatus","status":"online","version":"1.9.0"}']

    def heartbeats(self, client: Client) -> Iterable[str]:
        """As in v1, or in v2 for a client that speaks it."""
        two = any(channel == "book" for channel, _ in client.subscriptions)
        return ['{"channel":"heartbeat"}' if two else '{"event":"heartbeat"}'] if client.subscriptions else []

    def corrupted(self, text: str) -> str:
        """Another checksum."""
        if text[:1] != "[":
            return _other_checksum(text)
        message = msgspec.json.decode(text)
        for part in message[1:-2]:
            if "c" in part:
                part["c"] = str(int(part["c"]) ^ WRONG)
        return json_text(message)

    def asked(self, client: Client, text: str, message: Any) -> Iterable[str]:
        """Subscriptions of v1 and v2, pings of both. A pair not met yet gets its image when the recording has one."""
        if not isinstance(message, dict):
            return ['{"errorMessage":"Malformed request","event":"error"}']
        if message.get("event") == "ping" or message.get("method") == "ping":
            return ['{"event":"pong"}' if "event" in message else '{"method":"pong"}']
        if message.get("method") in ("subscribe", "unsubscribe"):
            return self._asked2(client, message)
        if message.get("event") in ("subscribe", "unsubscribe"):
            return self._asked1(client, message)
        return []

    def _asked1(self, client: Client, message: dict[str, Any]) -> Iterable[str]:
        wish = message.get("subscription") or {}
        name = f"book-{wish.get('depth', 10)}" if wish.get("name") == "book" else str(wish.get("name"))
        for pair in message.get("pair") or []:
            on = message["event"] == "subscribe"
            status = {
                "channelID": self.flow.channels.get(pair, 0), "channelName": name, "event": "subscriptionStatus",
                "pair": pair, "status": "subscribed" if on else "unsubscribed", "subscription": wish,
            }  # fmt: skip
            yield json_text(status)
            yield from self._turn(client, name, pair, on=on)

    def _asked2(self, client: Client, message: dict[str, Any]) -> Iterable[str]:
        params = message.get("params") or {}
        for symbol in params.get("symbol") or []:
            result = {**params, "symbol": symbol}
            yield json_text({"method": message["method"], "result": result, "success": True})
            yield from self._turn(client, str(params.get("channel")), symbol, on=message["method"] == "subscribe")

    def _turn(self, client: Client, name: str, pair: str, *, on: bool) -> Iterable[str]:
        if not on:
            client.subscriptions.pop((name, pair), None)
            return
        image = self.flow.image(pair, name) if name.startswith("book") else None
        if image is not None:
            yield image
        self.subscribe(client, name, pair)
