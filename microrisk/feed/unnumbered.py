"""Level feeds whose messages carry no number that would show a missing one.

A message of such a feed that cannot be read may have changed a book, and nothing later says which. So the one product
that the damaged text names loses its book (`spoil`); when it names none or several, every book is marked as suspect,
and stays so until its next image.
"""

from __future__ import annotations

import re
from typing import Generic

from microrisk.feed.base import ALL_INSTRUMENTS
from microrisk.feed.capture import Line
from microrisk.feed.l2 import MARK, L2Feed, P
from microrisk.spec.records import Integrity

_NAME = re.compile(rb"[\w-]+")


class UnnumberedFeed(L2Feed[P], Generic[P]):
    """An L2Feed that marks what a damaged message may have concerned."""

    def _malformed(self, line: Line, why: str) -> None:
        named = {word.decode("ascii", "replace") for word in _NAME.findall(line.body)}
        products = [self._by_symbol[name] for name in named & self._by_symbol.keys()]
        if len(products) == 1 and not products[0].waiting:
            self.spoil(products[0], line, ValueError(why))
            return
        super()._malformed(line, why)
        for product in self._by_symbol.values():
            if not product.waiting:
                self._mark(product, line)

    def _harmless(self, line: Line, why: Exception) -> None:
        """A message that cannot be read and changes no book (a trade, a quote)."""
        self._bad += 1
        self._find(Integrity.malformed, 1, ALL_INSTRUMENTS, before=len(self._rows))
        self._note(f"{line.place} line {line.number} cannot be read: {why}")

    def _mark(self, product: P, line: Line) -> None:
        """An event that changes nothing but the book's mark; it closes no batch, so nothing is recorded for it."""
        product.marked = True
        self._rows.append(MARK)
        self._heads.append((1, line.ts_recv, line.ts_recv, line.number, product.index))
