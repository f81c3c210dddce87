"""Captures as a feed reads them: opened as whole buffers, read packet by packet in the core, their counts handed on.

Shared by the feeds that come in packets (ITCH in MoldUDP64, IEX in IEX-TP). The core stops in front of every gap and
restart, so that what it has counted belongs between two calls.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from microrisk.feed.base import CHUNK_EVENTS, Events, empty_events
from microrisk.feed.open import Source
from microrisk.spec.records import Integrity

TRANSPORT_COUNTS = (
    Integrity.gap,
    Integrity.duplicate_seq,
    Integrity.session_reset,
    Integrity.malformed,
    Integrity.trailing,
)
"""Counters of a transport that are findings."""

Count = tuple[Integrity, int]


class Transport(Protocol):
    """`MoldCapture` or `IexCapture` of the core."""

    @property
    def progress(self) -> float:
        """Share of the bytes read."""

    def decode(self, decoder: Any, out: Events, max_messages: int) -> tuple[int, bool]:
        """Events written, and whether there is more."""

    def counters(self) -> dict[str, int]:
        """What the transport met."""

    def captures(self) -> list[dict[str, int]]:
        """What each capture held besides UDP datagrams."""

    def gaps(self, start: int = 0) -> list[tuple[bytes, int, int, int]]:
        """(session, first missing, how many, receive time) of the gaps from number `start` on."""


class Packets:
    """Captures that are one feed.

    Parameters
    ----------
    sources : the captures; their datagrams are merged by the time of capture
    make : the transport over the captures' bytes; called with the first read
    session_name : a gap's session as a reader may know it
    note : takes sentences for the user
    """

    def __init__(
        self,
        sources: Sequence[Source],
        make: Callable[[list[memoryview]], Transport],
        session_name: Callable[[bytes], str],
        note: Callable[[str], None],
    ) -> None:
        self.done = False
        self._sources = list(sources)
        self._make, self._session_name, self._note = make, session_name, note
        self._transport: Transport | None = None
        self._seen = dict.fromkeys(TRANSPORT_COUNTS, 0)
        self._gaps = self._damage = 0

    @property
    def progress(self) -> float:
        """Share of the captures' bytes read."""
        return 0.0 if self._transport is None else 1.0 if self.done else self._transport.progress

    def counters(self) -> dict[str, int]:
        """What the transport met so far."""
        return {} if self._transport is None else self._transport.counters()

    def read(self, decoder: Any) -> Events:
        """Events of the next messages, possibly none; sets `done` with the last."""
        if self._transport is None:
            self._transport = self._make([self._whole(s) for s in self._sources])
        out = empty_events(CHUNK_EVENTS)
        n, more = self._transport.decode(decoder, out, CHUNK_EVENTS)
        if not more:
            self._close(self._transport.captures())
        return out[:n]

    def findings(self) -> list[Count]:
        """What was counted since the last call; a gap also makes a notice."""
        assert self._transport is not None
        counters, out = self._transport.counters(), []
        for session, first, count, _ in self._transport.gaps(self._gaps):
            self._gaps += 1
            self._note(f"session {self._session_name(session)}: sequence {first} to {first + count - 1} missing")
        for kind in TRANSPORT_COUNTS:
            out.append((kind, counters[kind.name] - self._seen[kind]))
            self._seen[kind] = counters[kind.name]
        out.append((Integrity.malformed, self._damage))
        self._damage = 0
        return [(kind, n) for kind, n in out if n]

    def _whole(self, source: Source) -> memoryview:
        """The capture as one buffer: mapped, after unpacking into a nameless temporary file if it is compressed."""
        view = source.mapped()
        if view is None:
            stream = source.stream()
            with tempfile.TemporaryFile() as f:
                for piece in stream:
                    f.write(piece)
                f.flush()
                view = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) if stream.offset else None
            if stream.cut:
                self._note(stream.cut)
                self._damage += 1
        return memoryview(view if view is not None else b"")

    def _close(self, captures: list[dict[str, int]]) -> None:
        """End of the input: what the captures themselves had wrong."""
        self.done = True
        for source, counts in zip(self._sources, captures, strict=True):
            if counts["truncated_at"] >= 0:
                self._note(f"{source.label}: the capture breaks off in the record at {counts['truncated_at']}")
            if counts["fragments"]:
                self._note(f"{source.label}: {counts['fragments']} IP fragments were not put together")
            self._damage += counts["cut"] + counts["fragments"] + (counts["truncated_at"] >= 0)
