"""The log of alerts: what was told, one JSON object a line, in the order of telling. It is what a restart asks first.

A line that the process did not finish is cut off at the next start and counted; its alert is made again from the
journal and told then. A line is written in one piece and is in the hands of the system when `append` returns.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from microrisk.errors import OutputError
from microrisk.monitor.hub import Alert


class _Told(msgspec.Struct, frozen=True):
    """What a restart wants of a line."""

    id: str
    n: int


_LINE = msgspec.json.Decoder(Alert)
_TOLD = msgspec.json.Decoder(_Told)


class AlertLog:
    """Alerts in a file.

    Attributes
    ----------
    n : of the newest alert
    cut : bytes of an unfinished line that were cut off at the start
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n = self.cut = 0
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._mend()
        except OSError as error:
            self.close()
            raise self._failure(error) from error
        newest = self.last(1)
        self.n = newest[-1].n if newest else 0

    def _mend(self) -> None:
        size = os.fstat(self._fd).st_size
        data = self.path.read_bytes()[-(1 << 16) :]
        whole = data.rfind(b"\n") + 1
        self.cut = len(data) - whole
        if self.cut:
            os.ftruncate(self._fd, size - self.cut)

    def append(self, alert: Alert) -> None:
        """Write a line; OutputError when the disk does not take it, and the file ends with the line before."""
        line = msgspec.json.encode(alert) + b"\n"
        size = os.fstat(self._fd).st_size
        try:
            if os.write(self._fd, line) != len(line):
                os.ftruncate(self._fd, size)
                raise OSError(28, "No space left on device")
        except OSError as error:
            raise self._failure(error) from error
        self.n = alert.n

    def last(self, most: int, after: int = 0) -> list[Alert]:
        """The newest alerts with n > after, oldest first; lines that are none are left out."""
        out = []
        for line in self.path.read_bytes().splitlines()[-most:]:
            try:
                alert = _LINE.decode(line)
            except msgspec.MsgspecError:
                continue
            if alert.n > after:
                out.append(alert)
        return out

    def ids(self, after: int = 0) -> set[str]:
        """Of all alerts with n > after."""
        out = set()
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            for line in file:
                with suppress(msgspec.MsgspecError):
                    told = _TOLD.decode(line)
                    if told.n > after:
                        out.add(told.id)
        return out

    def close(self) -> None:
        """Close the file; harmless when done twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write {self.path}: {error.strerror or error}")
