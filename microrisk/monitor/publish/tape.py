"""What a publisher has said so far: numbered messages that re-request, replay and snapshot servers read from."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from microrisk.errors import UsageError

KEEP = 2_000_000
"""Messages kept by default: some 200 MB."""

Listener = Callable[[], None]


class Tape:
    """Messages of one session, numbered from `first`; any thread may append and read.

    Parameters
    ----------
    session : at most ten printable ASCII characters
    first : number of the first message
    keep : messages kept; older ones are forgotten, `begin` says how far

    Attributes
    ----------
    begin, next : number of the oldest message kept, and of the message to come
    ended : the session is over
    """

    def __init__(self, session: str = "MICRORISK", *, first: int = 1, keep: int = KEEP) -> None:
        if not 0 < len(session) <= 10 or not session.isascii() or not session.isprintable():
            raise UsageError(f"session {session!r}: 1 to 10 printable ASCII characters")
        self.session, self.begin, self.keep = session, first, keep
        self.ended = False
        self._messages: list[bytes] = []
        self._listeners: list[Listener] = []
        self._lock = threading.Lock()

    @property
    def next(self) -> int:
        """Number of the message to come."""
        return self.begin + len(self._messages)

    def append(self, messages: Iterable[bytes]) -> int:
        """Add messages; the number of the first of them."""
        with self._lock:
            first = self.next
            self._messages.extend(messages)
            surplus = len(self._messages) - self.keep
            # forgotten in quarters, so that the list is seldom moved
            if surplus > self.keep // 4:
                del self._messages[:surplus]
                self.begin += surplus
        self._tell()
        return first

    def end(self) -> None:
        """No more messages."""
        self.ended = True
        self._tell()

    def restart(self, session: str) -> None:
        """Another session: numbers begin at 1 again, nothing is kept."""
        fresh = Tape(session)
        with self._lock:
            self.session, self.begin, self._messages, self.ended = fresh.session, 1, [], False
        self._tell()

    def read(self, seq: int, most: int) -> list[bytes]:
        """Up to `most` messages from number `seq` on; none when they are not there (yet, or any more)."""
        with self._lock:
            at = seq - self.begin
            return self._messages[at : at + most] if at >= 0 else []

    def listen(self, listener: Listener) -> None:
        """Call it (in the thread that appends) after each change."""
        self._listeners.append(listener)

    def forget(self, listener: Listener) -> None:
        """Undo `listen`."""
        self._listeners.remove(listener)

    def _tell(self) -> None:
        for listener in tuple(self._listeners):
            listener()
