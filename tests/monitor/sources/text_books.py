"""What the ingest thread does with the items of a JSON venue: decoder, engine, and asking for images."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from source_sink import Keeper

from microrisk.core import Engine
from microrisk.feed.live import open_live
from microrisk.monitor.publish.order_text import OrderBook
from microrisk.spec.journal import Kind


class TextBooks:
    """Follows a keeper's items; `asked` are the names of each resync."""

    def __init__(self, keeper: Keeper, source: Any, scheme: str, channel: str | None = None) -> None:
        self.live = open_live(scheme, url=source._target(), channel=channel)
        self.engine = Engine(always_open=True)
        self.asked: list[str] = []
        self._keeper, self._source = keeper, source
        self._at = 0
        self._waiting: list[str] = []

    def turn(self) -> None:
        items = self._keeper.items
        while self._at < len(items):
            item = items[self._at]
            self._at += 1
            if item.kind == Kind.TEXT:
                self.live.take(item.flags, item.recv_ns, item.seq, item.body)
            elif item.kind == Kind.DOUBT:
                self.live.doubt(item.recv_ns, item.seq)
            self.live.feed.pump(self.engine)
            waiting = self.live.waiting()
            fresh = [n for n in waiting if n not in self._waiting]
            self._waiting = waiting
            if fresh:
                self.asked += fresh
                self._source.resync(fresh, "the book waits for an image")

    @contextlib.asynccontextmanager
    async def following(self) -> Any:
        async def follow() -> None:
            while True:
                self.turn()
                await asyncio.sleep(0.001)

        task = asyncio.create_task(follow())
        try:
            yield self
        finally:
            task.cancel()
            (ended,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(ended, Exception):
                raise ended
            self.turn()

    def found(self) -> dict[str, int]:
        return {k: v for k, v in self.engine.integrity().items() if v}

    def same(self, name: str, want: Any, depth: int | None) -> bool:
        """Whether the engine holds these levels of a product of the venue."""
        symbol = name.replace("/", "-")
        by_symbol = {e.symbol.removesuffix("-PERP"): i for i, e in self.live.feed.instruments().items()}
        index = by_symbol.get(symbol, by_symbol.get(f"{symbol[:3]}-{symbol[3:]}".upper(), -1))
        if index not in map(int, self.engine.instruments()):
            return False
        return [side.tolist() for side in self.engine.levels(index, depth or 0)] == want


def levels(book: OrderBook, depth: int | None) -> list[list[list[int]]]:
    """Bids and asks of a venue's book as the engine has them, in 1e-8."""
    p, q = 10 ** (8 - book.px_decimals), 10 ** (8 - book.qty_decimals)
    return [[[px * p, qty * q] for px, qty in side.levels(depth)] for side in (book.bids, book.asks)]
