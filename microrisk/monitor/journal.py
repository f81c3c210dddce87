"""The input journal on disk: segments of blocks, written before anything is applied, read back after a restart.

`spec/journal.py` says what a block and a record are. Rules:

1. A segment is a file `<number of its first block, 16 hex digits>.journal`; a new one begins behind SEGMENT_BYTES, and
   at each start.
2. What is damaged at the very end (a block that was being written, or the last block with a flipped bit) is cut off:
   nothing behind it was applied by a process that is still alive, for a block is written whole before it is applied.
   The bytes cut are kept beside the segment (`.torn`) and reported.
3. Damage with whole blocks behind it is not repaired by guessing: JournalError names the place and the remedy.
4. Numbers rise by one and each checksum covers the one before: a block or segment that is missing is damage.
5. A disk that does not take a block is an OutputError; nothing of the block is applied, the file ends with the last
   whole block.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from microrisk.core import Journal
from microrisk.errors import JournalError, OutputError
from microrisk.spec.journal import (
    BLOCK_HEADER,
    BLOCK_HEADER_BYTES,
    BLOCK_MAGIC,
    MAX_PAYLOAD,
    RECORD_HEADER,
    RECORD_HEADER_BYTES,
    Kind,
)

SUFFIX = ".journal"
SEGMENT_BYTES = 256 << 20
"""A segment that has reached this many bytes is the last one's predecessor."""

_BLOCK = struct.Struct(BLOCK_HEADER)
_RECORD = struct.Struct(RECORD_HEADER)
_CRC = struct.Struct("<I")


class Record(NamedTuple):
    """One record of the journal; `body` is a view that lives as long as its block."""

    feed: int
    kind: int
    flags: int
    recv_ns: int
    seq: int
    body: memoryview | bytes


class Block(NamedTuple):
    """A whole block: its number, the checksum that the next one continues, its end in the file, and its payload."""

    number: int
    crc: int
    end: int
    payload: memoryview


@dataclass(frozen=True)
class Damage:
    """Where the reading of a segment stopped, and why."""

    path: Path
    at: int
    size: int
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why} at byte {self.at} of {self.size}"


def records(payload: memoryview | bytes) -> Iterator[Record]:
    """The records of a block; JournalError for a size that leaves it (its checksum was right: a writer's fault)."""
    view = memoryview(payload)
    at, end = 0, len(view)
    while at < end:
        if end - at < RECORD_HEADER_BYTES:
            raise JournalError(f"{end - at} bytes behind the last record of a block")
        size, feed, kind, flags, recv_ns, seq = _RECORD.unpack_from(view, at)
        if not RECORD_HEADER_BYTES <= size <= end - at:
            raise JournalError(f"a record of {size} bytes with {end - at} left in its block")
        yield Record(feed, kind, flags, recv_ns, seq, view[at + RECORD_HEADER_BYTES : at + size])
        at += size


def blocks(path: Path, *, number: int | None, crc: int | None) -> Iterator[Block | Damage]:
    """The blocks of a segment; a Damage is the last thing handed out.

    number, crc : what the first block must have and continue; None takes the first block's own word for both (its
    checksum is then not checked against a predecessor, only its number is taken).
    """
    data = memoryview(path.read_bytes())
    at = 0
    while at < len(data):
        found = _block(data, at, number, crc)
        if isinstance(found, str):
            yield Damage(path, at, len(data), found)
            return
        yield found
        number, crc, at = found.number + 1, found.crc, found.end


def _block(data: memoryview, at: int, number: int | None, crc: int | None) -> Block | str:
    """The block at `at`, or what is wrong with it."""
    if len(data) - at < BLOCK_HEADER_BYTES:
        return f"{len(data) - at} bytes where a block's header has {BLOCK_HEADER_BYTES}"
    magic, size, own, _, told = _BLOCK.unpack_from(data, at)
    if magic != BLOCK_MAGIC:
        return f"no block begins here ({magic:#010x})"
    if size > MAX_PAYLOAD or size > len(data) - at - BLOCK_HEADER_BYTES:
        return f"a block of {size} bytes with {len(data) - at - BLOCK_HEADER_BYTES} there"
    if number is not None and own != number:
        return f"block {own} where block {number} is due"
    end = at + BLOCK_HEADER_BYTES + size
    payload = data[at + BLOCK_HEADER_BYTES : end]
    if crc is not None and told != block_crc(crc, data[at : at + 20], payload):
        return f"the checksum of block {own} does not hold"
    return Block(own, told, end, payload)


def block_crc(before: int, head: memoryview | bytes, payload: memoryview | bytes) -> int:
    """Checksum of a block: over the one before, the first 20 bytes of its header, and its payload."""
    return zlib.crc32(payload, zlib.crc32(head, zlib.crc32(_CRC.pack(before))))


def segments(folder: Path) -> list[tuple[int, Path]]:
    """Number of the first block, and path, of each segment in order."""
    found = []
    for path in folder.glob("*" + SUFFIX):
        with suppress(ValueError):
            found.append((int(path.name.removesuffix(SUFFIX), 16), path))
    return sorted(found)


@dataclass
class Recovered:
    """A journal read to its end.

    Attributes
    ----------
    number, crc : the next block's number and the checksum that it continues
    blocks, records, bytes : what was read
    cut : what was cut off the end, in words
    """

    number: int = 0
    crc: int = 0
    blocks: int = 0
    records: int = 0
    bytes: int = 0
    cut: str | None = None


class Reader:
    """The blocks of a journal from number `start` on, whose first one continues checksum `crc`.

    Iterate over it once; `state` is whole when the iteration has ended. Damage at the very end is cut off the file
    (rule 2); other damage is a JournalError.
    """

    def __init__(self, folder: Path, *, start: int = 0, crc: int = 0) -> None:
        self._folder, self._start = folder, start
        self.state = Recovered(start, crc)

    def __iter__(self) -> Iterator[Block]:
        files = [(n, p) for n, p in segments(self._folder) if p.stat().st_size]
        later = [k for k, (n, _) in enumerate(files) if n <= self._start]
        files = files[later[-1] :] if later else files
        if files and files[0][0] > self._start:
            raise JournalError(f"{files[0][1]} begins with block {files[0][0]}, block {self._start} is due; {_REMEDY}")
        for k, (first, path) in enumerate(files):
            yield from self._segment(path, first, last=k == len(files) - 1)

    def _segment(self, path: Path, first: int, *, last: bool) -> Iterator[Block]:
        state = self.state
        skipping = first < self._start
        number, crc = (first, None) if skipping else (state.number, state.crc)
        for found in blocks(path, number=number, crc=crc):
            if isinstance(found, Damage):
                self._damaged(found, last=last)
                return
            if found.number < self._start:
                continue
            if skipping and found.number == self._start:
                skipping = False
            state.number, state.crc = found.number + 1, found.crc
            state.blocks, state.bytes = state.blocks + 1, state.bytes + len(found.payload)
            yield found

    def _damaged(self, damage: Damage, *, last: bool) -> None:
        """Rules 2 and 3."""
        behind = _whole_block_behind(damage)
        if not last or behind is not None:
            more = "another segment follows" if behind is None else f"a whole block begins at byte {behind} behind it"
            raise JournalError(f"{damage}, and {more}; {_REMEDY}")
        self.state.cut = f"{damage}: the last {damage.size - damage.at} bytes were cut off and kept"
        keep_torn(damage)


_REMEDY = (
    "the journal cannot be continued: move its folder away to start anew, or put the damaged file back from a copy"
)


def keep_torn(damage: Damage) -> Path:
    """Move what lies behind the last whole block into a file beside the segment, and cut it off."""
    data = damage.path.read_bytes()
    kept = damage.path.with_name(f"{damage.path.name}.{damage.at}.torn")
    try:
        kept.write_bytes(data[damage.at :])
        with damage.path.open("r+b") as file:
            file.truncate(damage.at)
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"cannot cut {damage.path} at byte {damage.at}: {error.strerror or error}") from error
    return kept


def _whole_block_behind(damage: Damage) -> int | None:
    """Where a block begins behind the damage whose length fits the file and whose records add up; None = nowhere."""
    data = damage.path.read_bytes()
    mark = _CRC.pack(BLOCK_MAGIC)
    at = data.find(mark, damage.at + 1)
    while at >= 0:
        if len(data) - at >= BLOCK_HEADER_BYTES and _adds_up(data, at):
            return at
        at = data.find(mark, at + 1)
    return None


def _adds_up(data: bytes, at: int) -> bool:
    _, size, _, count, _ = _BLOCK.unpack_from(data, at)
    if size > len(data) - at - BLOCK_HEADER_BYTES:
        return False
    try:
        found = list(records(data[at + BLOCK_HEADER_BYTES : at + BLOCK_HEADER_BYTES + size]))
        return len(found) == int(count)
    except JournalError:
        return False


class Writer:
    """The journal to write to: `core.Journal` with its files.

    Parameters
    ----------
    folder : made when missing
    number, crc : where `Reader` came to its end
    segment_bytes : when the next file begins

    Raises OutputError when the folder cannot be written.
    """

    def __init__(self, folder: Path, *, number: int = 0, crc: int = 0, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder, self._limit = folder, segment_bytes
        self._begun = 0
        with _named(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._fd = self._open(number)
        self.core = Journal(self._fd, number=number, crc=crc)

    @property
    def number(self) -> int:
        """The next block's number."""
        return int(self.core.number)

    @property
    def crc(self) -> int:
        """The checksum that the next block continues."""
        return int(self.core.crc)

    def append(self, feed: int, kind: Kind, recv_ns: int, seq: int = 0, body: Any = b"", flags: int = 0) -> None:
        """A record into the block in the making."""
        self.core.append(feed, int(kind), flags, recv_ns, seq, body)

    def flush(self) -> int:
        """Write the block in the making; its bytes. OutputError when the disk does not take it (rule 5)."""
        with _named(self.folder):
            return int(self.core.flush())

    def roll(self) -> None:
        """Begin a new segment if this one is long enough; between blocks."""
        if self.core.written_bytes - self._begun < self._limit:
            return
        old, self._fd = self._fd, self._open(self.number)
        self.core.switch(self._fd)
        os.close(old)
        self._begun = self.core.written_bytes

    def drop_before(self, number: int) -> int:
        """Remove segments that hold only blocks below `number`; how many."""
        files = segments(self.folder)
        old = [p for (_, p), (behind, _) in pairwise(files) if behind <= number]
        with _named(self.folder):
            for path in old:
                path.unlink()
        return len(old)

    def sync(self) -> None:
        """Let the disk have everything that was written (a crash of the machine, not of the process)."""
        with _named(self.folder):
            os.fdatasync(self._fd)

    def close(self) -> None:
        """Close the file; what was not flushed is lost."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self, number: int) -> int:
        path = self.folder / f"{number:016x}{SUFFIX}"
        with _named(path):
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """A failure of the file system becomes an OutputError that names the place."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write the journal at {path}: {error.strerror or error}") from error
