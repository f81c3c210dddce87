"""The book that a Kraken checksum speaks about: both sides in order, sizes, and the precision of the pair.

The checksum (Kraken, "Spot Websockets Book Checksum", v1 and v2) is the CRC32 of the ten best asks from low to high and
then the ten best bids from high to low, for each the price and the size without the point and without leading zeros. A
price with `p` decimals written so is the integer price * 10**p; two exponents a pair are therefore all that must be
known beside the integers of the book.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from itertools import product as pairs_of
from zlib import crc32

from microrisk.feed.l2 import EXP, Level, Product

TOP = 10
"""Levels a side in the checksum, whatever the subscribed depth."""
DEPTHS = (10, 25, 100, 500, 1000)
"""Depths that can be subscribed."""


def decimals(text: str) -> int:
    """Digits behind the point; 0 in forms without one, or with an exponent."""
    return len(text.partition(".")[2]) if "e" not in text.lower() else 0


class Sided:
    """One side: prices in rising order, and price -> size."""

    __slots__ = ("prices", "sizes")

    def __init__(self) -> None:
        self.prices: list[int] = []
        self.sizes: dict[int, int] = {}

    def load(self, levels: Iterable[Level]) -> None:
        """Take the place of what there was."""
        self.sizes = {px: qty for px, qty in levels if qty}
        self.prices = sorted(self.sizes)

    def apply(self, levels: Iterable[Level]) -> None:
        """Changed levels in order; the removal of a price not held does nothing."""
        sizes, prices = self.sizes, self.prices
        for px, qty in levels:
            if qty:
                if px not in sizes:
                    insort(prices, px)
                sizes[px] = qty
            elif sizes.pop(px, None) is not None:
                del prices[bisect_left(prices, px)]

    def beyond(self, depth: int, *, worst_first: bool) -> list[int]:
        """Take away and name what lies beyond `depth`; `worst_first`: low prices are the worst (bids)."""
        extra = len(self.prices) - depth
        if extra <= 0:
            return []
        cut = slice(0, extra) if worst_first else slice(depth, None)
        gone = self.prices[cut]
        del self.prices[cut]
        for px in gone:
            del self.sizes[px]
        return gone


class KrakenBook(Product):
    """A pair: its book, subscribed depth and precision.

    Attributes
    ----------
    depth : subscribed levels a side, 0 = not known
    px_decimals, qty_decimals : precision of the pair
    proven : a checksum has matched with this precision
    """

    __slots__ = ("asks", "bids", "depth", "proven", "px_decimals", "qty_decimals")

    def __init__(self, index: int, name: str) -> None:
        super().__init__(index, name)
        self.bids, self.asks = Sided(), Sided()
        self.depth = self.px_decimals = self.qty_decimals = 0
        self.proven = False

    def set_precision(self, px_decimals: int, qty_decimals: int, *, proven: bool = False) -> None:
        """Precision of the pair; more than the units hold is cut (such numbers cannot be in the book)."""
        self.px_decimals, self.qty_decimals = min(px_decimals, EXP), min(qty_decimals, EXP)
        self.proven = proven

    def truncate(self) -> tuple[list[int], list[int]]:
        """Bid and ask prices that were pushed out of the subscribed depth."""
        if not self.depth:
            return [], []
        return self.bids.beyond(self.depth, worst_first=True), self.asks.beyond(self.depth, worst_first=False)

    def checksum(self, px_decimals: int, qty_decimals: int) -> int:
        """CRC32 of the ten best levels a side, written with these decimals."""
        p, q = 10 ** (EXP - px_decimals), 10 ** (EXP - qty_decimals)
        asks, bids = self.asks.sizes, self.bids.sizes
        texts = [f"{px // p}{asks[px] // q}" for px in self.asks.prices[:TOP]]
        texts += [f"{px // p}{bids[px] // q}" for px in self.bids.prices[: -TOP - 1 : -1]]
        return crc32("".join(texts).encode())

    def agrees(self, checksum: int) -> bool:
        """Whether the venue's checksum is that of the book.

        Until one has matched, or when a number of the ten best is finer than the known precision, every precision
        that could write these numbers is tried, so that a recording that lost its trailing zeros can be checked too.
        """
        if self.checksum(self.px_decimals, self.qty_decimals) == checksum:
            self.proven = True
            return True
        px_least, qty_least = self._least()
        if self.proven and px_least <= self.px_decimals and qty_least <= self.qty_decimals:
            return False
        for p, q in pairs_of(range(px_least, EXP + 1), range(EXP, qty_least - 1, -1)):
            if self.checksum(p, q) == checksum:
                self.set_precision(p, q, proven=True)
                return True
        return False

    def _least(self) -> tuple[int, int]:
        """The fewest decimals that write the ten best exactly."""
        tops = [(s.prices[:TOP] if s is self.asks else s.prices[-TOP:], s.sizes) for s in (self.asks, self.bids)]
        prices = [px for top, _ in tops for px in top]
        sizes = [held[px] for top, held in tops for px in top]
        return _fewest(prices), _fewest(sizes)


def _fewest(values: list[int]) -> int:
    """Decimals that write every value (units of 10**-EXP) exactly."""
    return next(d for d in range(EXP + 1) if all(v % 10 ** (EXP - d) == 0 for v in values))
