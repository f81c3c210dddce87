"""What people say about alerts: one JSON object a line, the newest line about an alert counts."""

from __future__ import annotations

import errno
import io
import os
import time
from pathlib import Path

import msgspec

from microrisk.errors import OutputError


class Label(msgspec.Struct, frozen=True):
    """One saying; `value` None takes an earlier one back."""

    id: str
    value: bool | None
    by: str
    at_ns: int


_LINE = msgspec.json.Decoder(Label)


def _whole(file: io.FileIO) -> int:
    """Where the last whole line ends."""
    end = file.seek(0, os.SEEK_END)
    while end:
        begin = max(0, end - 4096)
        file.seek(begin)
        found = file.read(end - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


class Labels:
    """Kept in a file beside the alerts; lines that cannot be read are counted in `unreadable` and left alone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._now: dict[str, bool] = {}
        self.unreadable = 0
        if path.exists():
            for line in path.read_bytes().splitlines():
                self._read(line)

    def _read(self, line: bytes) -> None:
        try:
            self._take(_LINE.decode(line))
        except msgspec.MsgspecError:
            self.unreadable += 1

    def _take(self, label: Label) -> None:
        if label.value is None:
            self._now.pop(label.id, None)
        else:
            self._now[label.id] = label.value

    def put(self, alert: str, value: bool | None, by: str) -> None:
        """Write it down, then count it; OutputError when the disk does not take it."""
        label = Label(alert, value, by[:64], time.time_ns())
        try:
            self._append(msgspec.json.encode(label) + b"\n")
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror or error}") from error
        self._take(label)

    def _append(self, line: bytes) -> None:
        """A line of its own, whole or not at all: what a full disk or a killed process left of another is cut off."""
        with self._path.open("ab+", buffering=0) as file:
            size = _whole(file)
            file.truncate(size)
            try:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(size)
                raise

    def all(self) -> dict[str, bool]:
        """By alert id."""
        return dict(self._now)
