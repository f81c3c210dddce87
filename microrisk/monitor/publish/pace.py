"""When a message is due: at a rate, at a multiple of its recorded time, or at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from microrisk.errors import UsageError

NS_PER_S = 1_000_000_000


class Pace(msgspec.Struct, frozen=True):
    """At most one of the two: messages a second, or how many times faster than recorded; neither = at once."""

    rate: float | None = None
    speed: float | None = None

    def checked(self) -> Pace:
        """Itself; UsageError when it cannot be meant."""
        if self.rate is not None and self.speed is not None:
            raise UsageError("a rate and a speed exclude each other")
        for name, value in (("rate", self.rate), ("speed", self.speed)):
            if value is not None and not value > 0:
                raise UsageError(f"{name} = {value}: above 0")
        return self

    def due_ns(self, index: int, ts_ns: int, first_ns: int) -> int:
        """When message `index` with this time is due, ns after the start; 0 = at once."""
        if self.rate is not None:
            return int(index * NS_PER_S / self.rate)
        return max(0, int((ts_ns - first_ns) / self.speed)) if self.speed is not None else 0


AT_ONCE = Pace()
"""No pace: everything is due at once."""


class Due(NamedTuple):
    """A message with its time, ns after the start."""

    due_ns: int
    message: bytes


def schedule(messages: Iterable[tuple[int, bytes]], pace: Pace) -> Iterator[Due]:
    """(time ns, message) in order -> when each is due, never before the one before it."""
    pace.checked()
    first, now = 0, 0
    for index, (ts, message) in enumerate(messages):
        first = ts if index == 0 else first
        now = max(now, pace.due_ns(index, ts, first))
        yield Due(now, message)


def wait_until(due_ns: int, stop: threading.Event) -> bool:
    """Sleep until a time of the monotonic clock; False when `stop` was set before."""
    left = due_ns - time.monotonic_ns()
    if left <= 0:
        return not stop.is_set()
    return not stop.wait(left / NS_PER_S)
