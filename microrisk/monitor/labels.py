"""What people say about alerts: one JSON object a line, the newest line about an alert counts."""

from __future__ import annotations

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
            with self._path.open("ab") as file:
                file.write(msgspec.json.encode(label) + b"\n")
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror or error}") from error
        self._take(label)

    def all(self) -> dict[str, bool]:
        """By alert id."""
        return dict(self._now)
