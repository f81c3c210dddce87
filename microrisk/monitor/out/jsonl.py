"""Alerts in a file for other programs: one JSON object a line, each with `schema`; written by a thread of its own.

A line is in the hands of the system before the next begins. A line that a killed process did not finish is cut off at
the start and counted. An alert whose id is in the file already is not written again. What the disk does not take is
tried again every RETRY_S, and said. A file that has grown past its limit is put aside as `<name>.<UTC time>`.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from microrisk.errors import OutputError
from microrisk.monitor.hub import Alert
from microrisk.spec.units import NS_PER_S

RETRY_S = 1.0
IDS = 200_000
"""Newest ids that are kept to recognise repetitions."""
TAIL = 64 << 20
"""Bytes at the end of the file that are read for ids."""
CLOSE_WAIT_S = 5.0


class _Id(msgspec.Struct):
    id: str


class JsonLines:
    """The file of alerts.

    Parameters
    ----------
    max_bytes : after which the file is put aside
    queue : alerts that wait for the disk at most; more are counted in `dropped`
    clock : ns UTC, for names of files put aside

    Attributes
    ----------
    written, repeated, dropped, failures : totals
    cut : bytes of an unfinished line that were cut off at the start
    trouble : what the disk said last; "" after it took something

    Raises
    ------
    OutputError : the file cannot be opened
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int = 64_000_000,
        queue: int = 10_000,
        retry_s: float = RETRY_S,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._clock = clock
        self.path, self._max_bytes, self._room, self._retry_s = path, max_bytes, queue, retry_s
        self.written = self.repeated = self.dropped = self.failures = self.cut = 0
        self.trouble = ""
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._queue: deque[Alert] = deque()
        self._filled = threading.Condition()
        self._ending = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = self._opened()
            self._mend()
        except OSError as why:
            raise OutputError(f"cannot write {path}: {why.strerror or why}") from why
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)
        self._thread.start()

    def put(self, alert: Alert) -> bool:
        """Let an alert be written; returns at once. False: the queue is full, it was dropped and counted."""
        with self._filled:
            if self._ending or len(self._queue) >= self._room:
                self.dropped += 1
                return False
            self._queue.append(alert)
            self._filled.notify()
        return True

    def close(self) -> None:
        """Write what waits, at most CLOSE_WAIT_S; what is left is counted as dropped."""
        with self._filled:
            self._filled.wait_for(lambda: not self._queue or self.trouble, CLOSE_WAIT_S)
            self._ending = True
            self._filled.notify_all()
        self._thread.join(timeout=CLOSE_WAIT_S)
        with self._filled:
            self.dropped += len(self._queue)
            self._queue.clear()
        os.close(self._fd)

    # -- start ----------------------------------------------------------------------------------------------------

    def _opened(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _mend(self) -> None:
        """Cut off an unfinished line; learn the ids of the others."""
        size = os.fstat(self._fd).st_size
        data = os.pread(self._fd, TAIL, max(size - TAIL, 0))
        self.cut = len(data) - data.rfind(b"\n") - 1
        if self.cut:
            os.ftruncate(self._fd, size - self.cut)
        decoder = msgspec.json.Decoder(_Id)
        for line in data[: len(data) - self.cut].splitlines()[-IDS:]:
            try:
                self._remember(decoder.decode(line).id)
            except msgspec.MsgspecError:
                continue

    def _remember(self, own: str) -> None:
        self._ids[own] = None
        if len(self._ids) > IDS:
            self._ids.popitem(last=False)

    # -- thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._filled:
                self._filled.wait_for(lambda: self._queue or self._ending)
                if not self._queue:
                    return
                alert = self._queue[0]
            done = self._write(alert)
            with self._filled:
                if done:
                    self._queue.popleft()
                self._filled.notify_all()
                if not done and (self._ending or self._filled.wait_for(lambda: self._ending, self._retry_s)):
                    return

    def _write(self, alert: Alert) -> bool:
        """One line; False when the disk did not take it, and the file ends with the line before."""
        if alert.id in self._ids:
            self.repeated += 1
            return True
        try:
            self._append(msgspec.json.encode(alert) + b"\n")
        except OSError as why:
            self._failed(why)
            return False
        self._remember(alert.id)
        self.written += 1
        self.trouble = ""
        try:
            self._rotate()
        except OSError as why:
            self._failed(why)
        return True

    def _failed(self, why: OSError) -> None:
        self.failures += 1
        self.trouble = f"cannot write {self.path}: {why.strerror or why}"

    def _append(self, line: bytes) -> None:
        size = os.fstat(self._fd).st_size
        try:
            if os.write(self._fd, line) != len(line):
                raise OSError(28, "No space left on device")
        except OSError:
            os.ftruncate(self._fd, size)
            raise

    def _rotate(self) -> None:
        """Put a full file aside under the time, which is only a name: UTC, and a number when it is taken."""
        if os.fstat(self._fd).st_size < self._max_bytes:
            return
        stamp = datetime.fromtimestamp(self._clock() // NS_PER_S, UTC).strftime("%Y%m%dT%H%M%SZ")
        aside, n = self.path.with_name(f"{self.path.name}.{stamp}"), 1
        while aside.exists():
            n += 1
            aside = self.path.with_name(f"{self.path.name}.{stamp}-{n}")
        self.path.rename(aside)
        try:
            fresh = self._opened()
        except OSError:
            aside.rename(self.path)
            raise
        os.close(self._fd)
        self._fd = fresh
