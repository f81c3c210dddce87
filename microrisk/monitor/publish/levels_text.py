"""What recordings of levels are played into: books that keep the venue's own texts, and the lines of a recording."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from microrisk.feed.capture import RECEIVED, RESPONSE, Capture, Line
from microrisk.feed.open import find_sources
from microrisk.feed.text import to_units
from microrisk.monitor.publish.pace import NS_PER_S

Row = Sequence[str]
"""Price, size, and what else the venue writes there."""
FINE = 12
"""Decimals that prices are compared with."""


def iso_text(ts_ns: int) -> str:
    """Ns UTC as an ISO time with microseconds."""
    seconds, ns = divmod(ts_ns, NS_PER_S)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ns // 1000:06d}Z"


class LevelSide:
    """Levels of one side by price."""

    def __init__(self) -> None:
        self.prices: list[int] = []
        self.rows: dict[int, Row] = {}

    def load(self, rows: Sequence[Row]) -> None:
        """These levels and no others."""
        self.rows = {to_units(row[0], FINE): tuple(row) for row in rows}
        self.prices = sorted(self.rows)

    def apply(self, rows: Sequence[Row]) -> None:
        """Changed levels; a size of 0 takes one away."""
        for row in rows:
            px = to_units(row[0], FINE)
            if row[1].strip("0."):
                if px not in self.rows:
                    insort(self.prices, px)
                self.rows[px] = tuple(row)
            elif self.rows.pop(px, None) is not None:
                del self.prices[bisect_left(self.prices, px)]

    def drop(self, prices: Sequence[int]) -> None:
        """Take levels away."""
        for px in prices:
            del self.rows[px], self.prices[bisect_left(self.prices, px)]


class LevelBook:
    """A book of levels.

    Attributes
    ----------
    ready : an image has come
    last : the venue's number or time of what was applied last
    """

    def __init__(self) -> None:
        self.bids, self.asks = LevelSide(), LevelSide()
        self.ready = False
        self.last = 0

    def load(self, bids: Sequence[Row], asks: Sequence[Row], last: int = 0) -> None:
        """An image."""
        self.bids.load(bids)
        self.asks.load(asks)
        self.ready, self.last = True, last

    def apply(self, bids: Sequence[Row], asks: Sequence[Row], last: int = 0) -> None:
        """Changed levels."""
        self.bids.apply(bids)
        self.asks.apply(asks)
        self.last = last

    def truncate(self, depth: int) -> None:
        """Keep the best levels."""
        self.bids.drop(self.bids.prices[: max(0, len(self.bids.prices) - depth)])
        self.asks.drop(self.asks.prices[depth:])

    def image(self, depth: int | None = None) -> tuple[list[Row], list[Row]]:
        """Bids and asks, best first."""
        bids = [self.bids.rows[px] for px in self.bids.prices[::-1][:depth]]
        return bids, [self.asks.rows[px] for px in self.asks.prices[:depth]]


class Lines:
    """Messages and REST answers of a recording, in order of receipt; `beside` it, as a replay finds them."""

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self._capture = Capture(find_sources(paths))
        self._lines = self._all()

    def _all(self) -> Iterator[Line]:
        for batch in self._capture.batches():
            yield from (line for line in batch if line.kind in (RECEIVED, RESPONSE))

    @property
    def progress(self) -> float:
        """Share read."""
        return self._capture.progress

    def next(self) -> Line | None:
        """The next one; None at the end."""
        return next(self._lines, None)
