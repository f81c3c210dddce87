"""The book that a Kraken checksum speaks about: both sides in order, sizes, and the precision of the pair.

The checksum (Kraken, "Spot Websockets Book Checksum", v1 and v2) is the CRC32 of the ten best asks from low to high and
then the ten best bids from high to low, for each the price and the size without the point and without leading zeros. A
price with `p` decimals written so is the integer price * 10**p; two exponents a pair are therefore all that must be
known beside the integers of the book.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product as pairs_of
from zlib import crc32

from microrisk.feed.l2 import EXP, Product
from microrisk.feed.ladder import Ladder, Level

TOP = 10
"""Levels a side in the checksum, whatever the subscribed depth."""
FINEST = 12
"""Most decimals of a pair that are tried; prices may be written with more than EXP of them, the rest zeros."""
DEPTHS = (10, 25, 100, 500, 1000)
"""Depths that can be subscribed."""


def decimals(text: str) -> int:
    """Digits behind the point; 0 in forms without one, or with an exponent."""
    return len(text.partition(".")[2]) if "e" not in text.lower() else 0


class Texts(dict[int, str]):
    """Price -> what its level adds to a checksum, written when it is first asked for."""

    def __init__(self, sizes: dict[int, int], px_decimals: int, qty_decimals: int) -> None:
        super().__init__()
        self._sizes = sizes
        self._p, self._q = 10 ** max(0, EXP - px_decimals), 10 ** max(0, EXP - qty_decimals)
        # decimals beyond the units are zeros
        self._px_end, self._qty_end = "0" * (px_decimals - EXP), "0" * (qty_decimals - EXP)

    def __missing__(self, px: int) -> str:
        text = f"{px // self._p}{self._px_end}{self._sizes[px] // self._q}{self._qty_end}"
        self[px] = text
        return text


class Sided(Ladder):
    """One side, with the part of the checksum that each level writes; it is dropped when the level changes."""

    __slots__ = ("texts",)

    def __init__(self) -> None:
        super().__init__()
        self.texts = Texts(self.sizes, 0, 0)

    def write_with(self, px_decimals: int, qty_decimals: int) -> None:
        """Write checksums with this precision; must follow a `load`."""
        self.texts = Texts(self.sizes, px_decimals, qty_decimals)

    def apply(self, levels: Iterable[Level]) -> None:
        """As `Ladder.apply`."""
        changed = list(levels)
        super().apply(changed)
        for px, _ in changed:
            self.texts.pop(px, None)

    def beyond(self, depth: int, *, worst_first: bool) -> list[int]:
        """As `Ladder.beyond`."""
        gone = super().beyond(depth, worst_first=worst_first)
        for px in gone:
            self.texts.pop(px, None)
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
        """Decimals with which the venue writes prices and sizes of the pair."""
        self.px_decimals, self.qty_decimals = px_decimals, qty_decimals
        self.bids.write_with(px_decimals, qty_decimals)
        self.asks.write_with(px_decimals, qty_decimals)
        self.proven = proven

    def truncate(self) -> tuple[list[int], list[int]]:
        """Bid and ask prices that were pushed out of the subscribed depth."""
        if not self.depth:
            return [], []
        return self.bids.beyond(self.depth, worst_first=True), self.asks.beyond(self.depth, worst_first=False)

    def checksum(self) -> int:
        """CRC32 of the ten best levels a side, written with the precision of the pair."""
        asks, bids = self.asks.texts, self.bids.texts
        texts = [asks[px] for px in self.asks.prices[:TOP]]
        texts += [bids[px] for px in self.bids.prices[: -TOP - 1 : -1]]
        return crc32("".join(texts).encode())

    def agrees(self, checksum: int) -> bool:
        """Whether the venue's checksum is that of the book.

        Until one has matched, or when a number of the ten best is finer than the known precision, every precision
        that could write these numbers is tried, so that a recording that lost its trailing zeros can be checked too.
        """
        if self.checksum() == checksum:
            self.proven = True
            return True
        known = self.px_decimals, self.qty_decimals
        least = self._least()
        if self.proven and least[0] <= known[0] and least[1] <= known[1]:
            return False
        for p, q in pairs_of(range(least[0], FINEST + 1), range(least[1], FINEST + 1)):
            self.set_precision(p, q, proven=True)
            if self.checksum() == checksum:
                return True
        self.set_precision(*known)
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
