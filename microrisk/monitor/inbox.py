"""The way from the net thread to the ingest thread: bounded, never waited for by either side."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from microrisk.monitor.sources import DATAGRAM, NEW_SESSION, STREAM
from microrisk.spec.journal import Kind

MOST_ITEMS = 20_000
MOST_BYTES = 64 << 20


class Item(NamedTuple):
    """A record to be, or (kind DATAGRAM) an answer of a re-request server, which arbitration makes records of."""

    feed: int
    kind: int
    flags: int
    recv_ns: int
    seq: int
    body: bytes


NUMBERED = frozenset({DATAGRAM, STREAM, NEW_SESSION})
"""What arbitration makes records of."""


class Inbox:
    """One reader, any number of writers.

    wake : called from the writer's thread when something is there again
    now_ns : the monitor's clock
    on_state : takes what sources say about themselves
    """

    def __init__(
        self, wake: Callable[[], None], now_ns: Callable[[], int], on_state: Callable[[int, str, str], None]
    ) -> None:
        self._items: deque[Item] = deque()
        self._lock = threading.Lock()
        self._bytes = 0
        self._wake, self._now_ns, self._on_state = wake, now_ns, on_state
        self.refused = 0
        self.most = 0

    def put(self, feed: int, kind: Kind | int, flags: int, recv_ns: int, seq: int, body: bytes) -> bool:
        """Hand over; False when there is no room: the writer waits and tries again, nothing is dropped here."""
        item = Item(feed, int(kind), flags, recv_ns, seq, body)
        with self._lock:
            if len(self._items) >= MOST_ITEMS or self._bytes + len(body) > MOST_BYTES:
                self.refused += 1
                return False
            self._bytes += len(body)
            first = not self._items
            self._items.append(item)
            self.most = max(self.most, len(self._items))
        if first:
            self._wake()
        return True

    def state(self, feed: int, state: str, why: str) -> None:
        """A source says how it is."""
        self._on_state(feed, state, why)

    def now_ns(self) -> int:
        """The monitor's clock, ns UTC."""
        return self._now_ns()

    def take(self, most: int) -> list[Item]:
        """Up to `most` items, in order."""
        with self._lock:
            out = [self._items.popleft() for _ in range(min(most, len(self._items)))]
            self._bytes -= sum(len(item.body) for item in out)
        return out

    def __len__(self) -> int:
        return len(self._items)
