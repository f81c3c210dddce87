"""Secrets: from the environment or a file that only its owner may read; never shown, never encoded."""

from __future__ import annotations

import hmac
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from microrisk.errors import UsageError
from microrisk.monitor.plainfile import read_plain

LONGEST = 4096
"""Bytes of a secret at most."""
HIDDEN = "***"
_TELLING = re.compile(
    r"(?i)([?&;]?\b[\w.-]*(?:passw(?:or)?d|secret|token|api[_-]?key|signature|access[_-]?key)[\w.-]*=)[^&;\s]*"
)
_USERINFO = re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://)[^/?#\s]*@")


class Secret:
    """A text that prints as `***`; `reveal` hands it to the one place that needs it."""

    __slots__ = ("_text", "origin")

    def __init__(self, text: str, origin: str) -> None:
        self._text, self.origin = text, origin

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def same(self, text: str) -> bool:
        """Equal, in a time that does not tell where they differ."""
        return hmac.compare_digest(self._text.encode(), text.encode("utf-8", "surrogatepass"))

    def __repr__(self) -> str:
        return f"Secret({HIDDEN}, {self.origin})"

    def __str__(self) -> str:
        return HIDDEN

    def __reduce__(self) -> str:
        raise TypeError("a secret does not leave the process")


def find_secret(variable: str, file: str, environ: Mapping[str, str]) -> Secret | None:
    """The secret in the environment variable, else in the file; None when neither is given.

    Raises
    ------
    UsageError : both are given, the variable is empty, or `read_secret` refuses the file
    """
    text = environ.get(variable)
    if text is not None and file:
        raise UsageError(f"both {variable} and the file {file} give the same secret: take one away")
    if text is not None:
        return Secret(_checked(text, f"the environment variable {variable}"), f"environment {variable}")
    return read_secret(Path(file)) if file else None


def read_secret(path: Path) -> Secret:
    """First line of a plain file that is ours (or root's) and closed to everybody else.

    Raises
    ------
    UsageError : it cannot be read, is no plain file, has other readers, or holds no usable text
    """
    data = read_plain(path, LONGEST + 2, "the secret file", lambda found: _check_file(found, path))
    lines = data.decode("utf-8", "replace").splitlines()
    return Secret(_checked(lines[0] if lines else "", f"the secret file {path}"), f"file {path}")


def _check_file(found: os.stat_result, path: Path) -> None:
    if found.st_uid not in (os.geteuid(), 0):
        raise UsageError(f"the secret file {path} belongs to user {found.st_uid}, not to the one who runs this")
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise UsageError(f"the secret file {path} has mode {mode:04o}: others may read it; run `chmod 600 {path}`")


def _checked(text: str, place: str) -> str:
    if not text or len(text.encode("utf-8", "surrogatepass")) > LONGEST or not text.isprintable():
        raise UsageError(f"{place} holds no secret: one line of printable text is needed, at most {LONGEST} bytes")
    return text


def redacted(text: str) -> str:
    """Passwords in URLs, and the values of parameters that are called like secrets, replaced by `***`."""
    return _TELLING.sub(rf"\1{HIDDEN}", _USERINFO.sub(rf"\1{HIDDEN}@", text))


def variable_of(*parts: str) -> str:
    """Name of an environment variable: MICRORISK_SECTION__KEY."""
    return "MICRORISK_" + "__".join(re.sub(r"[^A-Z0-9]", "_", p.upper()) for p in parts)
