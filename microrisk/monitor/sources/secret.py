"""Passwords and keys: from the environment or from a file that only its owner can read; never shown."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from microrisk.errors import UsageError

MOST_BYTES = 4096


class Secret:
    """Text that does not appear in logs, errors or reprs; `reveal` gives it."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __repr__(self) -> str:
        return "Secret(***)" if self._text else "Secret()"


def secret(*, env: str = "", file: str = "") -> Secret:
    """The value of an environment variable, or the first line of a file; neither named = empty.

    Raises
    ------
    UsageError : both named, the variable is not set, the file is missing, too long, or others may read it
    """
    if env and file:
        raise UsageError("a password comes from a variable or from a file, not from both")
    if env:
        if env not in os.environ:
            raise UsageError(f"the environment variable {env} is not set")
        return Secret(os.environ[env])
    return Secret(_first_line(Path(file))) if file else Secret()


def _first_line(path: Path) -> str:
    try:
        # one handle for the check and the reading: the file cannot be exchanged between them
        with path.open("rb") as f:
            mode = os.fstat(f.fileno()).st_mode
            if not stat.S_ISREG(mode) or mode & 0o077:
                raise UsageError(f"{path} holds a password and others may read it: chmod 600 {path}")
            data = f.read(MOST_BYTES + 1)
    except OSError as why:
        raise UsageError(f"cannot read the password file {path}: {why.strerror}") from why
    if len(data) > MOST_BYTES:
        raise UsageError(f"{path} is no password file: longer than {MOST_BYTES} bytes")
    return data.decode("utf-8", "replace").splitlines()[0] if data.strip() else ""
