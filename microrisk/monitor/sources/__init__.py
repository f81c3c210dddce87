"""Live sources: what connects to a venue, or plays a file, and hands over records to be.

A source runs in the net thread's loop. It owns its connection: it reconnects by itself, with jittered back-off and at
most one attempt a second per venue, says how it is (`Sink.state`), and never decides anything about books.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from microrisk.spec.journal import Kind

DATAGRAM = 255
"""Kind of `put` for a raw MoldUDP64 packet: flags = line."""
STREAM = 254
"""Kind of `put` for numbered messages of a stream: seq = number of the first, body as in Kind.RUN."""
NEW_SESSION = 253
"""Kind of `put` for the session that the following STREAM items are of: body = its ten bytes, seq = first number."""
ANSWER_LINE = 2
"""Line of the answers of re-request servers."""


class Sink(Protocol):
    """What a source may call; safe from any thread, never blocks."""

    def put(self, feed: int, kind: Kind | int, flags: int, recv_ns: int, seq: int, body: bytes) -> bool:
        """Hand over; False when the queue is full: nothing was taken, the source stops reading and tries again."""

    def state(self, feed: int, state: str, why: str) -> None:
        """Say how the source is: one of the states of monitor.hub, and a sentence."""

    def now_ns(self) -> int:
        """The monitor's clock, ns UTC."""


class Source(Protocol):
    """One feed's transport."""

    async def run(self) -> None:
        """Until cancelled, or until there is nothing more to come."""

    def resync(self, names: Sequence[str], why: str) -> None:
        """The books of these symbols (venue spelling) wait for an image. Safe from any thread, returns at once."""
