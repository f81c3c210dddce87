"""Lines for a log from threads that must not wait for it: a full pipe to the log costs lines, and they are counted."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

MOST = 1000
"""Lines that wait; newer ones are left out then."""


class Saying:
    """Hands lines to `say` from a thread of its own.

    Parameters
    ----------
    say : may take its time
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._lines: deque[str] = deque()
        self._there = threading.Event()
        self._ended = False
        self._left_out = 0
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def __call__(self, line: str) -> None:
        """Say it soon; returns at once."""
        if len(self._lines) >= MOST:
            self._left_out += 1
            return
        self._lines.append(line)
        self._there.set()

    def close(self, wait_s: float = 1.0) -> None:
        """Say what is left, if that does not take longer than `wait_s`."""
        self._ended = True
        self._there.set()
        self._thread.join(wait_s)

    def _work(self) -> None:
        while True:
            self._there.wait()
            self._there.clear()
            while self._lines:
                self._say(self._lines.popleft())
            if self._left_out:
                left_out, self._left_out = self._left_out, 0
                self._say(f"{left_out} lines were left out: the log did not take them in time")
            if self._ended:
                return
