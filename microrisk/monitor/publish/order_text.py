"""A book of single orders in integer units: what generated markets keep, and what recordings of orders are played into.

Prices and sizes are integers of 10**-px_decimals and 10**-qty_decimals; `px_text` and `qty_text` write them with all
their decimals.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

BID, ASK = 1, -1
Level = tuple[int, int]
"""Price and size, in units."""


def decimal_text(value: int, decimals: int) -> str:
    """An integer of 10**-decimals with all its decimals: 12345, 2 -> "123.45"."""
    if decimals == 0:
        return str(value)
    whole, part = divmod(abs(value), 10**decimals)
    return f"{'-' * (value < 0)}{whole}.{part:0{decimals}d}"


@dataclass(slots=True)
class Order:
    """A resting order; `label` is the venue's id."""

    label: str
    side: int
    px: int
    qty: int


class Side:
    """One side: prices in order, their queues and sizes."""

    __slots__ = ("prices", "queues", "sign", "sizes")

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.prices: list[int] = []  # rising; the best bid is the last one
        self.queues: dict[int, dict[str, Order]] = {}
        self.sizes: dict[int, int] = {}

    def best_first(self) -> list[int]:
        """Prices, best first."""
        return self.prices[::-1] if self.sign == BID else self.prices

    def place(self, px: int) -> int:
        """How many prices are better than this one."""
        at = bisect_left(self.prices, px)
        if self.sign == ASK:
            return at
        return len(self.prices) - at - (at < len(self.prices) and self.prices[at] == px)

    def at_place(self, place: int) -> int | None:
        """The price with so many better ones; None when there are fewer."""
        if place >= len(self.prices):
            return None
        return self.prices[-1 - place] if self.sign == BID else self.prices[place]

    def levels(self, depth: int | None = None) -> list[Level]:
        """Price and size, best first."""
        return [(px, self.sizes[px]) for px in self.best_first()[:depth]]

    def orders(self) -> list[Order]:
        """Best price first, in their queues."""
        return [order for px in self.best_first() for order in self.queues[px].values()]


class OrderBook:
    """Orders of one product by label."""

    def __init__(self, name: str, px_decimals: int = 8, qty_decimals: int = 8) -> None:
        self.name, self.px_decimals, self.qty_decimals = name, px_decimals, qty_decimals
        self.orders: dict[str, Order] = {}
        self.bids, self.asks = Side(BID), Side(ASK)

    def side(self, sign: int) -> Side:
        """Bids or asks."""
        return self.bids if sign == BID else self.asks

    def px_text(self, px: int) -> str:
        """A price as the venue writes it."""
        return decimal_text(px, self.px_decimals)

    def qty_text(self, qty: int) -> str:
        """A size as the venue writes it."""
        return decimal_text(qty, self.qty_decimals)

    def add(self, order: Order) -> None:
        """Rest an order behind the others of its price."""
        side = self.side(order.side)
        if order.px not in side.queues:
            insort(side.prices, order.px)
            side.queues[order.px], side.sizes[order.px] = {}, 0
        side.queues[order.px][order.label] = order
        side.sizes[order.px] += order.qty
        self.orders[order.label] = order

    def resize(self, label: str, qty: int) -> None:
        """Another size in the same place; 0 or less takes it away. An unknown order is left alone."""
        order = self.orders.get(label)
        if order is None:
            return
        if qty <= 0:
            self.remove(label)
            return
        self.side(order.side).sizes[order.px] += qty - order.qty
        order.qty = qty

    def remove(self, label: str) -> Order | None:
        """Take an order away; None when it is not there."""
        order = self.orders.pop(label, None)
        if order is not None:
            side = self.side(order.side)
            del side.queues[order.px][label]
            side.sizes[order.px] -= order.qty
            if not side.queues[order.px]:
                del side.queues[order.px], side.sizes[order.px]
                del side.prices[bisect_left(side.prices, order.px)]
        return order

    def clear(self) -> None:
        """Empty it."""
        self.orders.clear()
        self.bids, self.asks = Side(BID), Side(ASK)

    def best(self) -> tuple[int | None, int | None]:
        """Best bid and ask."""
        return self.bids.at_place(0), self.asks.at_place(0)
