"""What is done about missing numbers of one MoldUDP64 feed: hold, ask again, join an image, or give up; always marked.

The order of things (conduct of production feed handlers, ecosystem notes; times are this module's constants):

1. A hole makes the feed stale at once; what came behind it is held in the core and not applied.
2. Line B, or a late packet of line A, may close it by itself: asking begins HOLD_NS after the hole was seen.
3. With a re-request server: asked until it is filled, or the asker says that it cannot be.
4. With a snapshot server: the books are taken anew (begin_join, then IMAGE records, then what was held).
5. With neither, or when both failed: the numbers are given up PATIENCE_NS after the hole was seen. A GAP record marks
   every book of the feed as suspect until the next session or image; it is never shown as live again before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from microrisk.monitor.hub import ENDED, LIVE, STALE, SUSPECT, SYNCING

HOLD_NS = 2_000_000
PATIENCE_NS = 200_000_000
SILENT_NS = 3_000_000_000
"""Three heartbeats: silence of a line that should speak once a second."""
SESSION_NS = 20_000_000
REFUSE_NS = 200_000_000
REJOIN_NS = 1_000_000_000
"""Between two attempts to take an image."""


class Asker(Protocol):
    """A re-request client; all methods may be called from the ingest thread."""

    def ask(self, feed: int, first: int, count: int) -> None:
        """Ask for these numbers; asking again for numbers that are on their way changes nothing."""

    def failed(self, feed: int) -> bool:
        """No server can fill what was asked for."""

    def forget(self, feed: int) -> None:
        """Nothing is missing any more."""


class Live(Protocol):
    """The transport side of core.LiveFeed that is looked at here."""

    @property
    def expected(self) -> int:
        """The next number; 0 before the first."""

    @property
    def ended(self) -> bool:
        """The venue ended the session."""

    @property
    def messages(self) -> int:
        """Applied."""

    @property
    def session(self) -> bytes:
        """Its name."""

    @property
    def last_packet_ns(self) -> int:
        """Of any line; 0 before the first."""

    def counters(self) -> dict[str, int]:
        """messages: handed on since the process began."""

    def holes(self) -> list[tuple[int, int, int]]:
        """First missing number, how many, since when (ns)."""

    def give_up(self, upto: int, recv_ns: int, journal: Any) -> int:
        """Declare numbers below `upto` lost."""

    def refuse_session(self) -> None:
        """The session that waits is none of ours."""

    def begin_join(self) -> None:
        """Hold what comes until `joined`."""


class Recovery:
    """Of one feed.

    Parameters
    ----------
    live : its transport
    asker, joiner : how missing numbers and images are had; None = no server was named
    patience_ns, hold_ns, silent_ns : see the constants
    """

    def __init__(
        self,
        number: int,
        live: Live,
        *,
        asker: Asker | None = None,
        joiner: Callable[[int, str], None] | None = None,
        patience_ns: int = PATIENCE_NS,
        hold_ns: int = HOLD_NS,
        silent_ns: int = SILENT_NS,
    ) -> None:
        self.number, self.live = number, live
        self.asker, self.joiner, self._patience_ns = asker, joiner, patience_ns
        self._hold_ns, self._silent_ns = hold_ns, silent_ns
        self.joining = False
        self.partial = False
        self.lost = False
        self.joins = self.given_up = 0
        self._next_join_ns = 0
        self._asked = False
        self.last_packet_ns = 0
        self.session = b""
        """Of the transport, for other threads."""
        self._began = False
        self._stranger: tuple[bytes, int, int] | None = None
        self.strays = 0
        self.trouble = ""
        """Why the last image could not be had."""
        self.recovered: list[int] = []
        """ns from the sight of each hole to its closing, newest last (bounded)."""
        self._open_since = 0

    def note(self, live: Live, imaging: bool) -> None:
        """Look at the transport: when it last heard something, and whether it began in the middle.

        imaging : an image began and did not end (the process was killed in between)
        """
        self.last_packet_ns, self.session = int(live.last_packet_ns), bytes(live.session)
        if imaging and not self.joining:
            self.partial = self._began = True
        if not self._began and live.expected > 0:
            self._began = True
            first = live.expected - live.counters()["messages"]
            self.partial = first > 1 and live.messages < live.expected - 1

    def look(self, now_ns: int, journal: Any) -> bool:
        """Act on what is missing; True when records were put into the journal's block."""
        if self.joining:
            return False
        if self.partial and self.joiner is not None and now_ns >= self._next_join_ns:
            self.join(now_ns, "joined in the middle of a session")
            return False
        holes = self.live.holes()
        if not holes:
            self._closed(now_ns)
            return False
        self._open_since = self._open_since or holes[0][2]
        waited = now_ns - holes[0][2]
        if self.asker is not None and not self.asker.failed(self.number):
            if waited >= self._hold_ns:
                self._asked = True
                for first, count, _ in holes:
                    self.asker.ask(self.number, first, count)
            return False
        if self.joiner is not None:
            if now_ns >= self._next_join_ns:
                self.join(now_ns, f"{holes[0][1]} messages from {holes[0][0]} are missing")
            return False
        if waited < self._patience_ns:
            return False
        return self._give_up(holes, now_ns, journal)

    def meant(self, name: bytes | None, now_ns: int) -> bool:
        """Whether a session that waits is to be begun: the old one has been silent since it was first heard.

        While the old one goes on it is a stray, and is refused after REFUSE_NS: one foreign datagram empties no book.
        """
        if name is None:
            self._stranger = None
            return False
        if self._stranger is None or self._stranger[0] != name:
            self._stranger = name, now_ns, self.live.expected
        _, since_ns, expected = self._stranger
        if self.live.expected == expected or self.live.ended:
            return now_ns - since_ns >= SESSION_NS
        if now_ns - since_ns >= REFUSE_NS:
            self.live.refuse_session()
            self.strays += 1
            self._stranger = None
        return False

    def join(self, now_ns: int, why: str) -> None:
        """Take an image; what arrives is held meanwhile."""
        assert self.joiner is not None
        self._next_join_ns = now_ns + REJOIN_NS
        self.joining = True
        self.joins += 1
        self.live.begin_join()
        self.joiner(self.number, why)

    def joined(self, now_ns: int) -> None:
        """The image is in."""
        self.joining = self.partial = self.lost = False
        self._forget()
        self._closed(now_ns)

    def join_failed(self, why: str) -> None:
        """No image could be had; tried again after REJOIN_NS."""
        self.joining = False
        self.trouble = why

    def session_began(self) -> None:
        """Books are empty and whole."""
        self.joining = self.partial = self.lost = False
        self._open_since = 0
        self._forget()

    def state(self, now_ns: int) -> tuple[str, str]:
        """State of the feed, and why in a sentence."""
        if self.live.ended:
            return ENDED, "the venue ended the session"
        if self.joining:
            return SYNCING, "a book image is being taken"
        holes = self.live.holes()
        if holes:
            n = sum(count for _, count, _ in holes)
            return STALE, f"{n} messages from {holes[0][0]} are missing"
        if self.last_packet_ns == 0:
            return SYNCING, "nothing has come yet"
        if now_ns - self.last_packet_ns > self._silent_ns:
            return STALE, f"silent for {(now_ns - self.last_packet_ns) / 1e9:.1f} s"
        if self.lost:
            return SUSPECT, f"{self.given_up} messages were lost; no server could fill them"
        if self.partial:
            return SUSPECT, "joined in the middle of a session, without a book image"
        return LIVE, ""

    def _give_up(self, holes: list[tuple[int, int, int]], now_ns: int, journal: Any) -> bool:
        first, count, _ = holes[0]
        self.given_up += int(self.live.give_up(first + count, now_ns, journal))
        self.lost = True
        return True

    def _closed(self, now_ns: int) -> None:
        if self._open_since:
            self.recovered = [*self.recovered[-9999:], now_ns - self._open_since]
            self._open_since = 0
        self._forget()

    def _forget(self) -> None:
        if self._asked and self.asker is not None:
            self.asker.forget(self.number)
        self._asked = False
