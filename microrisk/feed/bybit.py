"""Bybit order books of N levels a side and trades: the public websocket of 2019-2023 (v2), that of v5, files of v5.

Rules (Bybit API documentation, "v2 public topics: orderBookL2_25, orderBook_200, trade", and "v5 websocket: orderbook,
public trade"; what it leaves open is told by the recordings and said so):

1. v2 books come on `orderBookL2_25.SYMBOL` and `orderBook_200.100ms.SYMBOL`: a `snapshot` with every level (a list, or
   a list under `order_book`), then `delta` with `delete`, `update` and `insert`. Rows carry price, side and the
   absolute size. `cross_seq` rises (it is not dense); a delta at or below the last one is `skipped`.
2. v2, by the recordings (3,252 deltas without an exception): what is deleted or updated is held, what is inserted is
   not. A delta that says otherwise shows that one before it is missing: `gap`, and the book waits for a snapshot.
3. v5 books come on `orderbook.N.SYMBOL` and in the files of historical data: `b` and `a` with price and absolute size,
   0 removes. `u` counts the messages of a topic without a hole: a number at or below the last one is `skipped`, a jump
   is a `gap`. `u` = 1 is an image whatever `type` says: the venue began anew (`session_reset`).
4. Depth, by the recordings: the venue itself removes the levels that are pushed out of the N (every side has N levels
   after each message of both recordings). Such a removal, beyond the last level of a full side, is flagged as pushed
   out; more than N levels are a broken rule: `gap`.
5. Trades: `side` is that of the taker. Those that come before their subscription is confirmed are the venue's last
   trades and not news, by the recording (up to 42 s old): `skipped`.
6. Prices are decimal text; sizes of v2 are JSON numbers with the noise of the venue's own single floats
   (15.7699995): they are taken as written, exactly. ts_event is `timestamp_e6`, `cts` (else `ts`), or the trade's own.
7. seq is `cross_seq` or `u`; of a trade the line number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from microrisk.feed.capture import Capture, Line
from microrisk.feed.l2 import PUSHED_OUT, Product, Stamp, ms_ns, no_snapshot, number_text
from microrisk.feed.ladder import Level
from microrisk.feed.open import Source
from microrisk.feed.unnumbered import UnnumberedFeed
from microrisk.spec.records import FeedId, Integrity
from microrisk.spec.units import Side

_BID, _ASK = int(Side.BID), int(Side.ASK)
_RESTING = {"Buy": _ASK, "Sell": _BID}
_QUIET = frozenset(
    {"instrument_info", "tickers", "candle", "klineV2", "kline", "liquidation", "allLiquidation", "insurance"}
)
"""Topics without book or trades."""

Sided = Literal["Buy", "Sell"]


class Request(msgspec.Struct):
    """A subscription, as sent and as confirmed."""

    op: str = ""
    args: list[str] = []


class Envelope(msgspec.Struct):
    """A message, its data still unread."""

    topic: str = ""
    type: str = ""
    data: msgspec.Raw = msgspec.Raw(b"")
    cross_seq: int | str = 0
    timestamp_e6: int | str = 0
    ts: int = 0
    cts: int = 0
    request: Request | None = None


class Gone(msgspec.Struct):
    """A level of v2 that is deleted."""

    price: str
    side: Sided


class Row(Gone):
    """A level of v2 with its size."""

    size: msgspec.Raw


class Whole(msgspec.Struct):
    """A v2 snapshot of a linear contract."""

    order_book: list[Row]


class Delta(msgspec.Struct):
    """A v2 delta."""

    delete: list[Gone]
    update: list[Row]
    insert: list[Row]


class Book(msgspec.Struct):
    """A book message of v5."""

    b: list[tuple[str, str]]
    a: list[tuple[str, str]]
    u: int
    s: str = ""


class Trade(msgspec.Struct):
    """A trade of v2."""

    symbol: str
    side: Sided
    price: msgspec.Raw
    size: msgspec.Raw
    trade_time_ms: int | str


class TradeV5(msgspec.Struct):
    """A trade of v5."""

    s: str
    S: Sided
    p: str
    v: str
    T: int


def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


_ENVELOPE, _REQUEST = _decoder(Envelope), _decoder(Request)
_WHOLE, _DELTA, _BOOK = _decoder(Whole | list[Row]), _decoder(Delta), _decoder(Book)
_TRADES, _TRADES_V5 = _decoder(list[Trade]), _decoder(list[TradeV5])


class BybitProduct(Product):
    """A product with what its book holds.

    Attributes
    ----------
    last : sequence of the last message applied
    held : prices of each side, by Side
    """

    __slots__ = ("held", "last")

    def __init__(self, index: int, name: str) -> None:
        super().__init__(index, name)
        self.last = 0
        self.held: dict[int, set[int]] = {_BID: set(), _ASK: set()}


def open_capture(capture: Capture, *, venue: str | None, snapshot: Source | None) -> BybitFeed:
    """The feed of a captured session.

    Raises
    ------
    UsageError : a snapshot was given
    """
    no_snapshot(snapshot, "Bybit")
    return BybitFeed(capture, venue)


def open_sources(
    sources: Sequence[Source], *, date: str | None, venue: str | None, snapshot: Source | None
) -> BybitFeed:
    """The feed of files; `date` is not needed, the messages carry full times."""
    return open_capture(Capture(sources), venue=venue, snapshot=snapshot)


class BybitFeed(UnnumberedFeed[BybitProduct]):
    """Messages of any number of products; see the rules of the module."""

    format = "bybit"
    feed_id = FeedId.BYBIT
    default_venue = "BYBIT"
    product_type = BybitProduct

    def __init__(self, capture: Capture, venue: str | None) -> None:
        super().__init__(capture, venue)
        self._unconfirmed: set[str] = set()

    def _sent(self, line: Line) -> None:
        try:
            asked = _REQUEST.decode(line.body)
        except (msgspec.MsgspecError, ValueError):
            return
        if asked.op == "subscribe":
            self._unconfirmed.update(asked.args)

    def _message(self, line: Line) -> None:
        m = _ENVELOPE.decode(line.body)
        channel, _, rest = m.topic.partition(".")
        if not channel:
            self._unconfirmed.difference_update(m.request.args if m.request else ())
        elif channel in ("trade", "publicTrade"):
            self._trades(line, m)
        elif channel == "orderbook":
            depth, _, symbol = rest.partition(".")
            self._book(line, m, symbol, int(depth))
        elif channel == "orderBookL2_25":
            self._book_v2(line, m, rest, 25)
        elif channel == "orderBook_200":
            self._book_v2(line, m, rest.rpartition(".")[2], 200)
        elif channel not in _QUIET:
            self._find(Integrity.unknown_type)

    # -- v2 -----------------------------------------------------------------------------------------------------

    def _book_v2(self, line: Line, m: Envelope, symbol: str, depth: int) -> None:
        product, seq = self._product(symbol), _whole(m.cross_seq)
        stamp = Stamp(_whole(m.timestamp_e6) * 1000, line.ts_recv, seq)
        try:
            if m.type == "snapshot":
                whole = _WHOLE.decode(m.data)
                rows = self._rows_v2(whole.order_book if isinstance(whole, Whole) else whole)
                self._load(product, stamp, rows[_BID], rows[_ASK], depth)
            elif m.type == "delta":
                self._delta_v2(product, stamp, _DELTA.decode(m.data), depth)
            else:
                raise ValueError(f"type {m.type!r}")
        except (msgspec.MsgspecError, ValueError) as why:
            self.spoil(product, line, why)

    def _rows_v2(self, rows: Iterable[Row]) -> dict[int, list[Level]]:
        out: dict[int, list[Level]] = {_BID: [], _ASK: []}
        for row in rows:
            side = _BID if row.side == "Buy" else _ASK
            out[side].append((self.prices[row.price], _posted(self.sizes[number_text(row.size)])))
        return out

    def _delta_v2(self, product: BybitProduct, stamp: Stamp, delta: Delta, depth: int) -> None:
        gone: dict[int, list[Level]] = {_BID: [], _ASK: []}
        for row in delta.delete:
            gone[_BID if row.side == "Buy" else _ASK].append((self.prices[row.price], 0))
        changed, new = self._rows_v2(delta.update), self._rows_v2(delta.insert)
        if not self._follows(product, stamp.seq):
            return
        for side, held in product.held.items():
            wrong = [px for px, _ in gone[side] + changed[side] if px not in held]
            wrong += [px for px, _ in new[side] if px in held and (px, 0) not in gone[side]]
            if wrong:
                self.invalidate(product, Integrity.gap, stamp, f"a delta of {len(wrong)} levels does not fit the book")
                return
        self._change(product, stamp, {side: gone[side] + changed[side] + new[side] for side in gone}, depth)

    def _follows(self, product: BybitProduct, seq: int) -> bool:
        """Whether a delta is to be applied; counts what it is otherwise."""
        if product.waiting:
            self.awaiting(product)
        elif seq <= product.last:
            self._find(Integrity.skipped, 1, product.index)
        else:
            return True
        return False

    # -- v5 -----------------------------------------------------------------------------------------------------

    def _book(self, line: Line, m: Envelope, symbol: str, depth: int) -> None:
        product = self._product(symbol)
        try:
            if m.type not in ("snapshot", "delta"):
                raise ValueError(f"type {m.type!r}")
            book = _BOOK.decode(m.data)
            stamp = Stamp(ms_ns(m.cts or m.ts), line.ts_recv, _whole(book.u))
            self._book_v5(product, stamp, book, image=m.type == "snapshot" or book.u == 1, depth=depth)
        except (msgspec.MsgspecError, ValueError) as why:
            self.spoil(product, line, why)

    def _book_v5(self, product: BybitProduct, stamp: Stamp, book: Book, *, image: bool, depth: int) -> None:
        bids, asks = self.levels(book.b), self.levels(book.a)
        if image:
            if book.u == 1 and not product.waiting:
                self._find(Integrity.session_reset, 1, product.index, before=len(self._rows))
            self._load(product, stamp, bids, asks, depth)
        elif self._follows(product, book.u):
            if book.u != product.last + 1:
                self.invalidate(product, Integrity.gap, stamp, f"update {book.u} follows {product.last}")
            else:
                self._change(product, stamp, {_BID: bids, _ASK: asks}, depth)

    # -- both ---------------------------------------------------------------------------------------------------

    def _load(
        self, product: BybitProduct, stamp: Stamp, bids: Sequence[Level], asks: Sequence[Level], depth: int
    ) -> None:
        held = {_BID: {px for px, qty in bids if qty}, _ASK: {px for px, qty in asks if qty}}
        if len(held[_BID]) != len(bids) or len(held[_ASK]) != len(asks):
            raise ValueError("an image with a level twice, or with an empty one")
        product.last, product.held = stamp.seq, held
        self.image(product, stamp, bids, asks)
        self._check_depth(product, stamp, depth)

    def _change(self, product: BybitProduct, stamp: Stamp, changes: dict[int, list[Level]], depth: int) -> None:
        """One message as one batch, removals flagged that only left the window."""
        start = len(self._rows)
        product.last = stamp.seq
        for side, rows in changes.items():
            held = product.held[side]
            held.difference_update(px for px, qty in rows if not qty)
            held.update(px for px, qty in rows if qty)
            gone = [px for px, qty in rows if not qty]
            pushed: list[Level] = []
            if gone and len(held) >= depth:
                end = min(held) if side == _BID else max(held)
                pushed = [(px, 0) for px in gone if (px - end) * side < 0]
            self._put(side, pushed, PUSHED_OUT)
            self._put(side, [row for row in rows if row not in pushed] if pushed else rows, 0)
        self._close(product, stamp, start)
        self._check_depth(product, stamp, depth)

    def _check_depth(self, product: BybitProduct, stamp: Stamp, depth: int) -> None:
        most = max(map(len, product.held.values()))
        if most > depth:
            self.invalidate(product, Integrity.gap, stamp, f"{most} levels on a side of {depth}")

    def _trades(self, line: Line, m: Envelope) -> None:
        try:
            trades = self._trades_v2(m.data) if m.topic.startswith("trade.") else self._trades_v5(m.data)
            products = [self._product(symbol) for symbol, *_ in trades]
        except (msgspec.MsgspecError, ValueError) as why:
            self._harmless(line, why)
            return
        for product, (_, side, px, qty, ts) in zip(products, trades, strict=True):
            if m.topic in self._unconfirmed:
                self._find(Integrity.skipped, 1, product.index)
            else:
                self.trade(product, Stamp(ts, line.ts_recv, line.number), side, px, qty)

    def _trades_v2(self, data: msgspec.Raw) -> list[tuple[str, int, int, int, int]]:
        price, size = self.prices, self.sizes
        return [
            (
                t.symbol,
                _RESTING[t.side],
                price[number_text(t.price)],
                _posted(size[number_text(t.size)]),
                ms_ns(_whole(t.trade_time_ms)),
            )
            for t in _TRADES.decode(data)
        ]

    def _trades_v5(self, data: msgspec.Raw) -> list[tuple[str, int, int, int, int]]:
        trades = _TRADES_V5.decode(data)
        return [(t.s, _RESTING[t.S], self.prices[t.p], _posted(self.sizes[t.v]), ms_ns(t.T)) for t in trades]


def _posted(qty: int) -> int:
    if qty == 0:
        raise ValueError("a size of 0")
    return qty


def _whole(value: int | str) -> int:
    """A number that some messages write as text; ValueError when it is none or does not fit a sequence or a time."""
    number = int(value) if isinstance(value, int) or (value.isascii() and value.isdecimal()) else -1
    if not 0 < number < 1 << 53:
        raise ValueError(f"{value!r} is no sequence or time")
    return number
