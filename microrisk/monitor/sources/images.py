"""Book images of single symbols: fetched on demand, one at a time per symbol, less and less often when that is no cure.

A symbol's first image is fetched at once. One that is wanted again soon waits: the pauses double, until nobody has
asked for `calm_s`. A venue that says "too many" (429, Retry-After) stops all its symbols.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random

from microrisk.monitor.sources.backoff import Backoff, Clock

FIRST_S, MOST_S = 0.05, 30.0
CALM_S = 5.0
AT_ONCE = 4
"""Images of one venue fetched at the same time."""


class AgainError(Exception):
    """There is no image (yet): try again, not before `retry_after_s`; `everybody`: that holds for every symbol."""

    def __init__(self, why: str, retry_after_s: float = 0.0, *, everybody: bool = False) -> None:
        super().__init__(why)
        self.retry_after_s, self.everybody = retry_after_s, everybody


class _Symbol:
    __slots__ = ("backoff", "last_s", "task")

    def __init__(self, backoff: Backoff) -> None:
        self.backoff = backoff
        self.last_s = float("-inf")
        self.task: asyncio.Task[None] | None = None


class Images:
    """Fetches for one source; all methods in its loop.

    Parameters
    ----------
    fetch : brings the image of a symbol to the sink; AgainError when there is none
    seed : of the jitter

    Attributes
    ----------
    counts : asked, coalesced, fetched, again
    why : symbol -> reason of its last failure
    """

    def __init__(
        self,
        fetch: Callable[[str], Awaitable[None]],
        *,
        calm_s: float = CALM_S,
        seed: int | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.why: dict[str, str] = {}
        self._fetch, self._calm_s, self._clock = fetch, calm_s, clock
        self._random = Random(seed)
        self._symbols: dict[str, _Symbol] = {}
        self._room = asyncio.Semaphore(AT_ONCE)
        self._everybody = Backoff(clock=clock, seed=seed)

    def want(self, name: str) -> None:
        """An image is wanted; nothing happens when one is on its way."""
        self.counts["asked"] += 1
        symbol = self._symbols.get(name)
        if symbol is None:
            backoff = Backoff(first_s=FIRST_S, most_s=MOST_S, seed=self._random.getrandbits(32), clock=self._clock)
            symbol = self._symbols[name] = _Symbol(backoff)
        if symbol.task is not None:
            self.counts["coalesced"] += 1
            return
        if self._clock() - symbol.last_s >= self._calm_s:
            symbol.backoff.succeeded()
        symbol.task = asyncio.create_task(self._bring(name, symbol))

    @property
    def in_flight(self) -> list[str]:
        """Symbols whose image is on its way."""
        return [name for name, symbol in self._symbols.items() if symbol.task is not None]

    async def _bring(self, name: str, symbol: _Symbol) -> None:
        try:
            while not await self._once(name, symbol):
                pass
        finally:
            symbol.task = None

    async def _once(self, name: str, symbol: _Symbol) -> bool:
        await asyncio.sleep(max(symbol.backoff.wait_s(), self._everybody.wait_s()))
        async with self._room:
            if self._everybody.wait_s() > 0:
                return False
            try:
                await self._fetch(name)
            except AgainError as again:
                self.counts["again"] += 1
                self.why[name] = str(again)
                (self._everybody if again.everybody else symbol.backoff).failed(again.retry_after_s)
                return False
        self._everybody.succeeded()
        self.counts["fetched"] += 1
        self.why.pop(name, None)
        symbol.last_s = self._clock()
        # the next one is not before a pause that grows while it is wanted again and again
        symbol.backoff.failed()
        return True

    async def stop(self) -> None:
        """Give up what is on its way: the connection is lost, everything begins anew."""
        tasks = [s.task for s in self._symbols.values() if s.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
