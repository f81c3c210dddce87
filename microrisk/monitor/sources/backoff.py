"""When to try again: jittered exponential back-off, and one connection attempt a second per venue.

The pause before try n is drawn evenly from half of `first * 2**(n-1)` to the whole of it (at most `most`), so that
clients that lost a venue together do not come back together. A venue's Retry-After is a lower bound.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from random import Random

FIRST_S, MOST_S = 0.5, 30.0
SPACING_S = 1.0
"""Between two connection attempts to one venue."""
MOST_RETRY_AFTER_S = 600.0
"""A Retry-After beyond it is taken for this."""

Clock = Callable[[], float]


class Backoff:
    """Pauses between tries of one thing.

    Parameters
    ----------
    seed : of the jitter; None draws one
    clock : steady seconds
    """

    def __init__(
        self,
        *,
        first_s: float = FIRST_S,
        most_s: float = MOST_S,
        seed: int | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.first_s, self.most_s = first_s, most_s
        self.failures = 0
        self._random, self._clock = Random(seed), clock
        self._not_before = 0.0

    def failed(self, retry_after_s: float = 0.0) -> float:
        """A try failed; seconds until the next one may be made."""
        self.failures += 1
        # 2**30 pauses are beyond any limit, and a float holds them
        whole = min(self.most_s, self.first_s * 2.0 ** min(self.failures - 1, 30))
        pause = max(whole * (0.5 + 0.5 * self._random.random()), min(retry_after_s, MOST_RETRY_AFTER_S))
        self._not_before = self._clock() + pause
        return pause

    def succeeded(self) -> None:
        """The next failure is a first one again."""
        self.failures = 0
        self._not_before = 0.0

    def wait_s(self) -> float:
        """Seconds until the next try may be made, 0 = now."""
        return max(0.0, self._not_before - self._clock())


class Gate:
    """Slots for connection attempts, SPACING_S apart; sources of one venue share one.

    A slot is taken when it is asked for, so any number of sources queue up behind each other.
    """

    def __init__(self, spacing_s: float = SPACING_S, *, clock: Clock = time.monotonic) -> None:
        self.spacing_s, self._clock = spacing_s, clock
        self._free = 0.0

    def reserve(self, after_s: float = 0.0) -> float:
        """Seconds to wait for the slot that this call takes, at least `after_s`."""
        now = self._clock()
        at = max(now + after_s, self._free)
        self._free = at + self.spacing_s
        return at - now


_GATES: dict[str, Gate] = {}


def gate_of(venue: str) -> Gate:
    """The process's gate for a venue."""
    return _GATES.setdefault(venue, Gate())


async def turn(gate: Gate, backoff: Backoff) -> None:
    """Wait until a connection may be tried."""
    await asyncio.sleep(gate.reserve(backoff.wait_s()))
