"""A source's end of the sink: one feed, and waiting while the queue is full."""

from __future__ import annotations

import asyncio

from microrisk.monitor.sources import Sink
from microrisk.spec.journal import Kind

FIRST_WAIT_S = 0.001
MOST_WAIT_S = 0.05


class Outlet:
    """`put` of one feed, in order.

    Attributes
    ----------
    waits : times that the queue was full
    """

    def __init__(self, sink: Sink, feed: int) -> None:
        self.sink, self.feed = sink, feed
        self.waits = 0
        self._turn = asyncio.Lock()

    async def put(self, kind: Kind | int, flags: int, recv_ns: int, seq: int, body: bytes) -> None:
        """Hand over; while the queue is full the caller waits, and whoever puts after it."""
        if self._turn.locked() or not self.sink.put(self.feed, kind, flags, recv_ns, seq, body):
            await self._wait(kind, flags, recv_ns, seq, body)

    async def _wait(self, kind: Kind | int, flags: int, recv_ns: int, seq: int, body: bytes) -> None:
        self.waits += 1
        pause = FIRST_WAIT_S
        async with self._turn:
            while not self.sink.put(self.feed, kind, flags, recv_ns, seq, body):
                await asyncio.sleep(pause)
                pause = min(2 * pause, MOST_WAIT_S)

    def state(self, state: str, why: str = "") -> None:
        """How the source is."""
        self.sink.state(self.feed, state, why)

    def now_ns(self) -> int:
        """The monitor's clock."""
        return self.sink.now_ns()
