"""A TOML file of bounded size, with the line of every key: what errors about configuration point at."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from microrisk.errors import UsageError
from microrisk.monitor.plainfile import read_plain

LARGEST = 512 << 10
"""Bytes of a file: a thousand feeds fit."""
LONGEST_LINE = 8192
"""Characters: the parser's work on a dotted key grows with the square of its length."""

Place = tuple[str | int, ...]
"""Where a key is: names of tables, and the index in an array of tables."""

_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}(?!")|\'\'\'.*?\'{3,5}(?!\')|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*|[\[\]{}=\n]',
    re.DOTALL,
)
_PART = re.compile(r'"((?:\\.|[^"\\])*)"|\'([^\']*)\'|([A-Za-z0-9_-]+)')


class TomlFile:
    """What a file says, and where.

    Attributes
    ----------
    name : as it was given, for messages
    data : the tables
    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.data = _parsed(name, text)
        self._lines = _lines(text)

    def where(self, *place: str | int) -> str:
        """`FILE:LINE` of a key, or of the nearest table around it."""
        while place and place not in self._lines:
            place = place[:-1]
        return f"{self.name}:{self._lines.get(place, 1)}"


def read_toml(path: Path) -> TomlFile:
    """A file of at most LARGEST bytes.

    Raises
    ------
    UsageError : it cannot be read, is no plain file, too large, or no TOML (with the line)
    """
    data = read_plain(path, LARGEST + 1, "the configuration")
    if len(data) > LARGEST:
        raise UsageError(f"{path} is larger than {LARGEST} bytes: that is no configuration")
    try:
        return TomlFile(str(path), data.decode("utf-8-sig").replace("\r\n", "\n"))
    except UnicodeDecodeError as why:
        raise UsageError(f"{path}:{data.count(10, 0, why.start) + 1}: no UTF-8 text") from why


def _parsed(name: str, text: str) -> dict[str, Any]:
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > LONGEST_LINE:
            raise UsageError(f"{name}:{number}: a line of {len(line)} characters; {LONGEST_LINE} are allowed")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as why:
        found = re.search(r"\(at line (\d+), column \d+\)", str(why))
        line = found[1] if found else str(text.count("\n") + 1)
        raise UsageError(f"{name}:{line}: no TOML: {why}") from why
    except (RecursionError, ValueError) as why:  # nested too deep; a number of thousands of digits
        raise UsageError(f"{name}: no usable TOML: nested too deep, or a number too long") from why


def _lines(text: str) -> dict[Place, int]:
    """Lines of headers and keys of a text that is known to be TOML; keys inside of inline tables are left out."""
    found: dict[Place, int] = {}
    counts: dict[Place, int] = {}
    table: Place = ()
    for line, statement, header in _statements(text):
        parts = tuple(_unquoted(m) for m in _PART.finditer(statement))
        if header:
            table = _opened(parts, header, counts)
            found.setdefault(table, line)
        else:
            found.setdefault((*table, *parts), line)
    return found


def _opened(parts: Place, header: int, counts: dict[Place, int]) -> Place:
    """The table of a header; `[[x]]` opens the next of its array, `[x.y]` lies in the newest x."""
    at: Place = ()
    for i, part in enumerate(parts):
        at = (*at, part)
        count = counts.get(at, 0)
        if i == len(parts) - 1 and header == 2:
            counts[at] = count + 1
            return (*at, count)
        if count:
            at = (*at, count - 1)
    return at


def _statements(text: str) -> list[tuple[int, str, int]]:
    """Line, text of the key or header, and 0 for a key, 1 for `[x]`, 2 for `[[x]]`."""
    out: list[tuple[int, str, int]] = []
    line, start, depth, value, before = 1, 0, 0, False, 0
    for token in _TOKEN.finditer(text):
        mark = token[0]
        line += text.count("\n", before, token.start())
        before = token.start()
        if mark == "\n":
            if depth == 0:
                start, value = token.end(), False
        elif mark == "=" and depth == 0 and not value:
            out.append((line, text[start : token.start()], 0))
            value = True
        elif mark in ("[", "{"):
            if depth == 0 and not value:
                start = token.end()
            depth += 1
        elif mark in ("]", "}"):
            depth -= 1
            if depth == 0 and not value:
                out.append((line, text[start : token.start()], 2 if text[token.end() - 2 : token.end()] == "]]" else 1))
                value = True
    return out


def _unquoted(part: re.Match[str]) -> str:
    if part[1] is not None:
        return str(tomllib.loads(f'k = "{part[1]}"')["k"])
    return part[2] if part[2] is not None else part[3]
