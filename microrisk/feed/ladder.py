"""One side of a level book as a feed keeps it for itself: to check quotes and checksums, to cut to a depth."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

Level = tuple[int, int]
"""Price and absolute size, units of 1e-8; size 0 removes the level."""


class Ladder:
    """Prices in rising order, and price -> size. A change costs a search and a move inside a list of machine words."""

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

    def level(self, index: int) -> Level:
        """The level at a place of the rising order (-1: the highest), (0, 0) when there is none."""
        if not self.prices:
            return 0, 0
        px = self.prices[index]
        return px, self.sizes[px]

    def beyond(self, depth: int, *, worst_first: bool) -> list[int]:
        """Take away and name the prices beyond `depth` levels; `worst_first`: low prices are the worst (bids)."""
        extra = len(self.prices) - depth
        if extra <= 0:
            return []
        cut = slice(0, extra) if worst_first else slice(depth, None)
        gone = self.prices[cut]
        del self.prices[cut]
        for px in gone:
            del self.sizes[px]
        return gone
