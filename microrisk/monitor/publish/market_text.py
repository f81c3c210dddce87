"""A seeded market of single orders that venues can put into their own words, so that no recording is needed.

It is a source of well-formed traffic, not a model of a market: `microrisk.market` has that. Books never cross.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from microrisk.errors import UsageError
from microrisk.monitor.publish.order_text import ASK, BID, Order, OrderBook

START_NS = 1_735_689_600_000_000_000
"""2025-01-01 00:00 UTC."""
FEWEST = 30
"""Orders a side below which none is taken away."""


@dataclass(frozen=True)
class Product:
    """A product to generate: name, decimals of prices and sizes, and the first mid price in units of the former."""

    name: str
    px_decimals: int = 2
    qty_decimals: int = 8
    mid: int = 10_000_00


@dataclass
class Deed:
    """One thing that happened.

    Attributes
    ----------
    kind : add, cancel, change (the size shrinks, the place is kept) or trade
    order : the order added, cancelled or changed; of a trade the taker, which never rests
    was : size before a change
    fills : maker (with what is left of it) and traded size, of a trade
    levels : (side, price) that have another size now
    """

    ts_ns: int
    book: OrderBook
    kind: str
    order: Order
    was: int = 0
    fills: list[tuple[Order, int]] = field(default_factory=list)
    levels: list[tuple[int, int]] = field(default_factory=list)


class TextMarket:
    """Deeds of some products, one at a time; the same seed gives the same ones.

    Parameters
    ----------
    products : at least one
    seed : of everything
    orders : orders a side that a book tends to
    start_ns : time of the first deed, ns UTC
    step_ns : time between deeds

    Attributes
    ----------
    books : by name, as they are now
    """

    def __init__(
        self,
        products: Sequence[Product],
        seed: int = 0,
        *,
        orders: int = 200,
        start_ns: int = START_NS,
        step_ns: int = 1_000_000,
    ) -> None:
        if not products or orders < FEWEST + 10 or len({p.name for p in products}) < len(products):
            raise UsageError(f"a market needs products of different names, and more than {FEWEST + 9} orders a side")
        self.products = {p.name: p for p in products}
        self.books = {p.name: OrderBook(p.name, p.px_decimals, p.qty_decimals) for p in products}
        self.now_ns, self.step_ns = start_ns, step_ns
        self._orders, self._labels, self._seed = orders, 0, seed
        self._draw = Random(f"market {seed}")
        self._mid = {p.name: p.mid for p in products}
        self._names = list(self.books)
        for name in self._names:
            for sign in (BID, ASK):
                for _ in range(orders):
                    self.books[name].add(self._new(name, sign))

    def step(self) -> Deed:
        """The next deed; the book is as after it."""
        name = self._draw.choice(self._names)
        book, sign = self.books[name], self._draw.choice((BID, ASK))
        self.now_ns += self.step_ns
        many = sum(len(q) for q in book.side(sign).queues.values()) if self._draw.random() < 0.02 else None
        kind = self._draw.choices(("add", "cancel", "change", "trade"), (45, 35, 8, 12))[0]
        if many is not None and many > 2 * self._orders:
            kind = "cancel"
        if len(book.side(sign).prices) < FEWEST:
            kind = "add"
        deed = Deed(self.now_ns, book, kind, self._new(name, sign))
        getattr(self, f"_{kind}")(deed, sign)
        return deed

    def _new(self, name: str, sign: int) -> Order:
        """A limit order near the mid that does not cross."""
        self._labels += 1
        book, draw = self.books[name], self._draw
        away = 1 + int(draw.expovariate(0.02)) if draw.random() < 0.9 else draw.randrange(200, 2000)
        px = max(1, self._mid[name] - sign * away)
        bid, ask = book.best()
        if sign == BID and ask is not None:
            px = min(px, ask - 1)
        if sign == ASK and bid is not None:
            px = max(px, bid + 1)
        return Order(self._label(), sign, px, draw.randrange(1, 500) * 10 ** max(0, book.qty_decimals - 3))

    def _label(self) -> str:
        return str(1_000_000_000_000 + self._labels)

    def _pick(self, book: OrderBook, sign: int) -> Order:
        """A resting order, more often one near the best."""
        side = book.side(sign)
        place = min(int(self._draw.expovariate(0.05)), len(side.prices) - 1)
        px = side.at_place(place)
        assert px is not None
        return self._draw.choice(list(side.queues[px].values()))

    def _add(self, deed: Deed, sign: int) -> None:
        deed.book.add(deed.order)
        deed.levels = [(sign, deed.order.px)]

    def _cancel(self, deed: Deed, sign: int) -> None:
        deed.order = self._pick(deed.book, sign)
        deed.book.remove(deed.order.label)
        deed.levels = [(sign, deed.order.px)]

    def _change(self, deed: Deed, sign: int) -> None:
        deed.order = self._pick(deed.book, sign)
        deed.was = deed.order.qty
        deed.book.resize(deed.order.label, max(1, deed.was * self._draw.randrange(10, 90) // 100))
        deed.levels = [(sign, deed.order.px)]

    def _trade(self, deed: Deed, sign: int) -> None:
        """A market order against side `sign`, up to three makers."""
        left, makers = deed.order.qty, deed.book.side(sign).orders()[:3]
        deed.order.side, deed.order.px = -sign, makers[0].px
        for maker in makers:
            traded = min(left, maker.qty)
            if traded == 0:
                break
            deed.book.resize(maker.label, maker.qty - traded)
            if maker.label not in deed.book.orders:
                maker.qty = 0
            deed.fills.append((maker, traded))
            left -= traded
        deed.order.qty -= left
        deed.levels = sorted({(sign, maker.px) for maker, _ in deed.fills})
        self._mid[deed.book.name] += -sign * self._draw.randrange(0, 4)
