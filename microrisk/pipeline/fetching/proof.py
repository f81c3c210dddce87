"""What proves a fetched file: the publisher's checksum, a hash in the answer's headers, or the file's own CRC."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from microrisk.errors import FeedError
from microrisk.feed.open import find_sources

BLOCK = 1 << 20
_HEX = {"md5": 32, "sha256": 64}
_LINE = re.compile(r"\s*([0-9a-fA-F]{32,128})(?:\s+\*?(\S.*?))?\s*")


@dataclass(frozen=True)
class Expected:
    """A published sum: lower-case hexadecimal, and where it was published."""

    algorithm: str
    value: str
    source: str


def parse_sums(text: str, algorithm: str, name: str, source: str) -> Expected | None:
    """The sum of `name` in a file as md5sum and sha256sum write it; None when there is none for it.

    A line without a name counts. A web page, a line about another file (the unpacked one) or a sum of another length
    does not.
    """
    for line in text.splitlines()[:1000]:
        match = _LINE.fullmatch(line)
        if match is None or len(match[1]) != _HEX[algorithm]:
            continue
        if match[2] is None or re.split(r"[/\\]", match[2])[-1] == name:
            return Expected(algorithm, match[1].lower(), source)
    return None


def from_headers(headers: Mapping[str, str]) -> Expected | None:
    """The md5 that Google Cloud Storage sends with an object: `x-goog-hash: crc32c=...,md5=<base64>`."""
    match = re.search(r"\bmd5=([A-Za-z0-9+/]+=*)", headers.get("x-goog-hash", ""))
    try:
        raw = base64.b64decode(match[1], validate=True) if match else b""
    except binascii.Error:
        return None
    return Expected("md5", raw.hex(), "x-goog-hash") if len(raw) == 16 else None


class Digests:
    """md5 and sha256 of a file that grows at its end; `at` is how many of its bytes are in."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.at = 0
        # for integrity, not for secrecy: md5 is what some publishers give
        self._md5, self._sha = hashlib.md5(usedforsecurity=False), hashlib.sha256()

    def update(self, piece: bytes) -> None:
        """Take the next bytes."""
        self._md5.update(piece)
        self._sha.update(piece)
        self.at += len(piece)

    def catch_up(self, path: Path) -> None:
        """Take what the file holds behind `at`."""
        with path.open("rb") as file:
            file.seek(self.at)
            while piece := file.read(BLOCK):
                self.update(piece)

    def value(self, algorithm: str) -> str:
        """Hexadecimal."""
        return (self._md5 if algorithm == "md5" else self._sha).hexdigest()


def digests_of(path: Path) -> Digests:
    """Of a whole file."""
    out = Digests()
    out.catch_up(path)
    return out


def damage(path: Path) -> str | None:
    """What the checksums inside a gzip or zip file say against it; None when it unpacks to its end."""
    try:
        for source in find_sources([path]):
            stream = source.stream()
            for _ in stream:
                pass
            if stream.cut:
                return stream.cut
    except FeedError as error:
        return str(error)
    return None
