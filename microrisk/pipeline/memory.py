"""Events that are already in memory, as a source of the spine: simulated sessions and injected recordings.

They take the same way through books, kernel and heads as a file; only decoding is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from microrisk.feed.base import CHUNK_EVENTS, Instrument
from microrisk.spec.features import ALL_MASK

if TYPE_CHECKING:
    from microrisk.feed.base import Feed
    from microrisk.market.simulator import Session


@dataclass(frozen=True)
class Recorded:
    """EVENT arrays with what a feed would know about them; `open` begins from the first event each time.

    Attributes
    ----------
    events : EVENT[n] in feed order
    known : instrument number -> description
    mask : features that the original feed carries
    always_open : the venue never closes
    """

    events: NDArray[Any]
    known: Mapping[int, Instrument]
    mask: int = ALL_MASK
    always_open: bool = False

    def open(self) -> Feed:
        """A feed over the events."""
        return _MemoryFeed(self)


class _MemoryFeed:
    """The Feed protocol over a Recorded."""

    format = "memory"

    def __init__(self, recorded: Recorded) -> None:
        self._recorded, self.messages = recorded, 0
        self.mask, self.venue_always_open = recorded.mask, recorded.always_open
        self.synthetic = 0
        self.notices: list[str] = []

    @property
    def progress(self) -> float:
        """Share handed out."""
        return self.messages / max(len(self._recorded.events), 1)

    def pump(self, engine: Any) -> bool:
        """Apply the next chunk."""
        chunk = self._next()
        if len(chunk):
            engine.run_events(chunk)
        return len(chunk) > 0

    def events(self) -> Iterator[NDArray[Any]]:
        """All chunks."""
        while len(chunk := self._next()):
            yield chunk

    def _next(self) -> NDArray[Any]:
        chunk = self._recorded.events[self.messages : self.messages + CHUNK_EVENTS]
        self.messages += len(chunk)
        return np.ascontiguousarray(chunk)

    def instruments(self) -> dict[int, Instrument]:
        """As given."""
        return dict(self._recorded.known)

    def order_label(self, order_id: int) -> str:
        """The number itself."""
        return str(order_id)


def simulated(session: Session) -> Recorded:
    """A simulated session."""
    return Recorded(session.events, session.instruments)


def recorded(feed: Feed, events: NDArray[Any] | None = None) -> Recorded:
    """All events of a feed (or `events` instead of them) with what the feed knows after its end."""
    chunks = list(feed.events())
    held = events if events is not None else np.concatenate(chunks)
    return Recorded(held, feed.instruments(), feed.mask, feed.venue_always_open)
