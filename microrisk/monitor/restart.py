"""From a folder to a desk that can go on: lock, newest checkpoint, the journal behind it, and what was told already."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from microrisk.errors import OutputError, UsageError
from microrisk.monitor import checkpoint as checkpoints
from microrisk.monitor.books import Books
from microrisk.monitor.desk import Desk
from microrisk.monitor.journal import Reader, Writer
from microrisk.weights import Weights

LOCK = "lock"


class Lock:
    """One process writes a journal: an advisory lock that ends with the process, however it ends.

    Raises UsageError when another process holds it, OutputError when the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / LOCK).open("a+")
        except OSError as error:
            raise _cannot_write(folder, error) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            raise UsageError(
                f"the journal {folder} is in use by process {holder}: stop that monitor or name another --journal"
            ) from None
        try:
            self._file.truncate(0)
            self._file.write(str(os.getpid()))
            self._file.flush()
        except OSError as error:
            with suppress(OSError):
                self._file.close()  # tries once more to write, and closes all the same
            raise _cannot_write(folder, error) from error

    def release(self) -> None:
        """Let others have it."""
        self._file.close()


def _cannot_write(folder: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write the journal at {folder}: {error.strerror or error}; name another --journal")


@dataclass
class Restart:
    """What was found in a folder.

    Attributes
    ----------
    records, messages, seconds : read back, without what the checkpoint held
    checkpoint : number of the block that it stood in front of, None without one
    alerts : told up to the checkpoint
    cut : what was cut off the journal's end, in words
    notices : for people
    """

    records: int = 0
    messages: int = 0
    seconds: float = 0.0
    checkpoint: int | None = None
    alerts: int = 0
    cut: str | None = None
    notices: list[str] = field(default_factory=list)


def weights_hash(weights: Weights) -> str:
    """Identity of everything that scores: heads, tables, levels; 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(weights.tensors.items()):
        digest.update(f"{name} {tensor.dtype.str} {tensor.shape}\n".encode() + tensor.tobytes())
    return digest.hexdigest()


Rows = Callable[[Books, NDArray[Any], NDArray[Any]], None]
"""Takes books, ROW records and CROSSING records."""


def restart(folder: Path, desk: Desk, on_rows: Rows, *, until: int | None = None) -> tuple[Restart, Writer]:
    """Bring the desk to the end of the journal, and open the journal for writing there.

    on_rows : called with the rows and crossings of each block that was read back, in order, as they were at first
    until : stop in front of this block (tests); the journal is then not to be written

    Raises JournalError when the journal cannot be continued, OutputError when it cannot be written.
    """
    found = Restart()
    began = time.perf_counter()
    newest = _loaded(folder, desk, found)
    reader = Reader(folder, start=newest.number, crc=newest.crc) if newest else Reader(folder, start=0, crc=0)
    before = sum(b.messages for b in desk.books.values())
    for block in reader:
        if until is not None and block.number >= until:
            break
        found.records += desk.apply_block(block.payload)
        for books in desk.books.values():
            _hand_out(books, on_rows)
    found.messages = sum(b.messages for b in desk.books.values()) - before
    found.seconds = time.perf_counter() - began
    found.cut = reader.state.cut
    if found.cut:
        found.notices.append(found.cut)
    return found, Writer(folder, number=reader.state.number, crc=reader.state.crc)


def _loaded(folder: Path, desk: Desk, found: Restart) -> checkpoints.Checkpoint | None:
    """Bring the desk to the newest checkpoint that can be used; one that cannot is passed over with a notice."""
    for path, checkpoint in checkpoints.candidates(folder, weights_hash(desk.weights)):
        why = checkpoint if isinstance(checkpoint, str) else _load(desk, checkpoint)
        if not why:
            assert isinstance(checkpoint, checkpoints.Checkpoint)
            found.checkpoint, found.alerts = checkpoint.number, checkpoint.alerts
            return checkpoint
        found.notices.append(f"{path.name} is passed over: {why}")
    return None


def _load(desk: Desk, checkpoint: checkpoints.Checkpoint) -> str:
    """Load it; otherwise why not, and the desk is as before."""
    try:
        desk.load(checkpoint.desk)
    except Exception as why:  # bytes that the core does not know, entries of another kind: whatever a layout may be
        desk.clear()
        return f"of another layout ({type(why).__name__}: {why})"
    return ""


def _hand_out(books: Books, on_rows: Rows) -> None:
    """What the engine has kept since the last time; the tape of trades is emptied too."""
    if books.engine.kept:
        rows, crossings = books.engine.take_rows(), books.engine.take_crossings()
        books.engine.take_trades()
        if len(rows) or len(crossings):
            on_rows(books, rows, crossings)
