"""One file, in as many connections as it takes.

Rules:

1. The bytes so far are in `<name>.part`; `<name>.part.json` says of which original they are: URL, validator, size.
2. A part is gone on with by `Range: bytes=N-`, with `If-Range` where the server gave a strong ETag or a Last-Modified
   (RFC 9110 13.1.5), so that a file that has changed comes whole.
3. 200 instead of 206 (no ranges, or the file has changed), a 206 of another place, size or ETag: begin anew.
4. 416: the part is whole when its length is the length that the server names; otherwise begin anew.
5. A connection that ends early, is silent, or brings less than `slowest` bytes/s over WINDOW seconds is given up and
   the next one goes on. After `retries` of them without PROGRESS bytes of progress the download fails; the part stays.
6. Waits double from 0.5 s to 30 s, or are what Retry-After asks for, up to LONGEST_WAIT.
7. Room on the disk is checked before the first byte; no more than `largest` bytes are ever written.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec

from microrisk.errors import FetchError, OutputError, UsageError
from microrisk.pipeline.fetching.proof import Digests, Expected, from_headers
from microrisk.pipeline.fetching.web import LONGEST_WAIT, AbsentError, Answer, Client, PassingError

BLOCK = 256 << 10
PROGRESS = 1 << 20
WINDOW = 60.0
MARGIN = 64 << 20
"""Bytes that stay free on the disk."""

Tell = Callable[[int, int | None], None]
"""Called with bytes here and bytes in all (None = not known)."""


@dataclass(frozen=True)
class Limits:
    """How patient a fetch is.

    Attributes
    ----------
    timeout : seconds that a silent server is waited for
    retries : failures in a row without progress
    largest : bytes that a file may have
    slowest : bytes/s below which a connection is given up
    sleep : waits so many seconds
    """

    timeout: float = 30.0
    retries: int = 8
    largest: int = 64 << 30
    slowest: int = 256
    sleep: Callable[[float], None] = time.sleep


class Origin(msgspec.Struct):
    """What the bytes of a part are the beginning of."""

    url: str
    validator: str | None
    size: int | None

    @classmethod
    def of(cls, url: str, answer: Answer) -> Origin:
        """From the headers of a whole answer (200)."""
        etag = answer.headers.get("ETag")
        strong = etag if etag is not None and etag.startswith('"') else None
        return cls(url, strong or answer.headers.get("Last-Modified"), answer.length)


class Part:
    """The unfinished file beside its target, and its note."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(target.name + ".part")
        self.note = target.with_name(target.name + ".part.json")
        for path in (target, self.path, self.note):
            if path.is_symlink() or (path.exists() and not path.is_file()):
                raise UsageError(f"{path} is there and is no plain file")

    def size(self) -> int:
        """Bytes so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def origin(self, url: str) -> Origin | None:
        """The note, when it is whole and about `url`."""
        try:
            found = msgspec.json.decode(self.note.read_bytes(), type=Origin)
        except (OSError, msgspec.DecodeError):
            return None
        return found if found.url == url else None

    def begin(self, origin: Origin) -> None:
        """Empty the part and write the note."""
        with _writing(self.target):
            self.path.write_bytes(b"")
            self.note.write_bytes(msgspec.json.encode(origin))

    def drop(self) -> None:
        """Forget what was there."""
        with _writing(self.target):
            self.path.unlink(missing_ok=True)
            self.note.unlink(missing_ok=True)

    def finish(self) -> None:
        """Give the file its name."""
        with _writing(self.target):
            self.path.replace(self.target)
            self.note.unlink(missing_ok=True)

    def reject(self) -> Path:
        """Keep the file as `<name>.bad`."""
        bad = self.target.with_name(self.target.name + ".bad")
        with _writing(bad):
            self.path.replace(bad)
            self.note.unlink(missing_ok=True)
        return bad


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """File system failures as OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def locked(part: Part) -> Iterator[None]:
    """Nobody else writes the part meanwhile; UsageError when somebody does."""
    try:
        import fcntl
    except ImportError:  # not on this system: two fetches of one file at a time are then the user's to avoid
        yield
        return
    lock = part.target.with_name(part.target.name + ".lock")
    with _writing(lock):
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = lock.exists() and lock.stat().st_ino == os.fstat(handle).st_ino
        except OSError:
            mine = False
        if not mine:
            raise UsageError(f"{part.target}: another fetch is writing it")
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
    finally:
        os.close(handle)


class Patience:
    """Counts failures, and waits between them (rules 5 and 6)."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._failures, self._best = 0, 0
        self.total = 0

    def after(self, why: PassingError, have: int) -> None:
        """Wait, or give up with a FetchError. `have` = bytes that are safe by now."""
        if have >= self._best + PROGRESS:
            self._failures, self._best = 0, have
        self._failures += 1
        self.total += 1
        if self._failures > self._limits.retries:
            kept = f"; {have:,} bytes are kept, the same command goes on from there" if have else ""
            raise FetchError(f"{why} ({self._failures} failures in a row){kept}")
        wait = min(0.5 * 2 ** (self._failures - 1), 30.0) if why.wait is None else why.wait
        if wait > LONGEST_WAIT:
            raise FetchError(f"{why}: the server asks to wait {wait:,.0f} s")
        self._limits.sleep(wait)


class Download:
    """Gets one URL into a part.

    Attributes
    ----------
    digests : of the part, up to date when `run` returns
    published : a sum that came in the headers
    resumed_from : bytes that were there at the beginning and were used
    notices : what was unusual
    """

    def __init__(
        self, client: Client, url: str, part: Part, starts: tuple[bytes, ...], limits: Limits, tell: Tell | None
    ) -> None:
        self._client, self._url, self._part, self._starts = client, url, part, starts
        self._limits, self._tell = limits, tell
        self.digests = Digests()
        self.patience = Patience(limits)
        self.published: Expected | None = None
        self.resumed_from = 0
        self.notices: list[str] = []

    def run(self) -> None:
        """Until the part is whole.

        Raises AbsentError, FetchError (`web.Client.get`, rules 5 to 7), OutputError.
        """
        first = True
        while True:
            try:
                self._attempt(first)
                self.digests.catch_up(self._part.path)
                return
            except PassingError as why:
                first = False
                self.patience.after(why, self._part.size())

    def _attempt(self, first: bool) -> None:
        origin = self._part.origin(self._url)
        have = self._part.size() if origin is not None else 0
        with self._client.get(self._url, _range(have, origin)) as answer:
            self.published = from_headers(answer.headers) or self.published
            if answer.status == 416:
                self._at_the_end(answer, have)
            elif answer.status == 206 and origin is not None:
                self._check_range(answer, have, origin)
                self.resumed_from = have if first else self.resumed_from
                self._check_room(origin.size, have)
                self._copy(answer, have, origin.size)
            else:
                if have:
                    why = "the file has changed, or the server has no ranges"
                    self.notices.append(f"began anew after {have:,} bytes: {why}")
                self._begin(answer)

    def _begin(self, answer: Answer) -> None:
        origin = Origin.of(self._url, answer)
        self._check_room(origin.size, 0)
        head = _head(answer, max(map(len, self._starts)))
        if not head.startswith(self._starts):
            raise AbsentError(f"{self._url}: the server sent something else, it begins with {head[:16]!r}")
        self._part.begin(origin)
        self.digests.reset()
        self._copy(answer, 0, origin.size, head)

    def _at_the_end(self, answer: Answer, have: int) -> None:
        """Rule 4."""
        if have and answer.headers.get("Content-Range") == f"bytes */{have}":
            return
        self._part.drop()
        raise PassingError(f"{self._url}: the server refuses to go on from byte {have:,}")

    def _check_range(self, answer: Answer, have: int, origin: Origin) -> None:
        """Rule 3."""
        got = answer.headers.get("Content-Range", "")
        total = got.rpartition("/")[2]
        other = origin.size is not None and total not in ("*", str(origin.size))
        etag = answer.headers.get("ETag")
        known = origin.validator if origin.validator is not None and origin.validator.startswith('"') else None
        if not got.startswith(f"bytes {have}-") or other or (known and etag and etag != known):
            self._part.drop()
            self.notices.append(
                f"began anew: asked for bytes from {have:,}, the server sent {got or 'no Content-Range'}"
            )
            raise PassingError(f"{self._url}: the answer does not continue the part", 0.0)

    def _check_room(self, size: int | None, have: int) -> None:
        """Rule 7."""
        if size is None:
            return
        if size > self._limits.largest:
            raise FetchError(f"{self._url}: {size:,} bytes, the limit is {self._limits.largest:,}")
        folder = self._part.target.parent
        free = shutil.disk_usage(folder).free
        if size - have + MARGIN > free:
            raise OutputError(f"{self._part.target}: {size - have:,} bytes are needed, {free:,} are free in {folder}")

    def _copy(self, answer: Answer, have: int, size: int | None, head: bytes = b"") -> None:
        """The body behind the first `have` bytes; PassingError when less than `size` came."""
        with _writing(self._part.target):
            if self.digests.at > have:
                self.digests.reset()
            self.digests.catch_up(self._part.path)
            # without a buffer: what cannot be written is told here, and not again when the file is closed
            file = self._part.path.open("ab", buffering=0)
        with contextlib.closing(file):
            have = self._pump(answer, file, have, size, head)
        if size is not None and have < size:
            raise PassingError(f"{self._url}: the connection ended at byte {have:,} of {size:,}")

    def _pump(self, answer: Answer, file: IO[bytes], have: int, size: int | None, piece: bytes) -> int:
        pace = _Pace(self._limits.slowest)
        piece = piece or answer.read(BLOCK)
        while piece:
            have += len(piece)
            if have > self._limits.largest or (size is not None and have > size):
                raise FetchError(f"{self._url}: more bytes came than the {size or self._limits.largest:,} announced")
            with _writing(self._part.target):
                _write(file, piece)
            self.digests.update(piece)
            if self._tell is not None:
                self._tell(have, size)
            pace.add(len(piece), self._url)
            piece = answer.read(BLOCK)
        return have


def _write(file: IO[bytes], piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[file.write(rest) :]


def _head(answer: Answer, size: int) -> bytes:
    """The first bytes, at least `size` unless the body is shorter."""
    head = b""
    while len(head) < size and (piece := answer.read(BLOCK)):
        head += piece
    return head


def _range(have: int, origin: Origin | None) -> dict[str, str]:
    """Rule 2."""
    if not have or origin is None:
        return {}
    head = {"Range": f"bytes={have}-"}
    if origin.validator is not None:
        head["If-Range"] = origin.validator
    return head


class _Pace:
    """Gives up a connection that trickles."""

    def __init__(self, slowest: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._least, self._clock = slowest * WINDOW, clock
        self._since, self._bytes = clock(), 0

    def add(self, n: int, url: str) -> None:
        """PassingError when the last window brought too little."""
        self._bytes += n
        now = self._clock()
        if now - self._since < WINDOW:
            return
        if self._bytes < self._least:
            raise PassingError(f"{url}: only {self._bytes:,} bytes in {now - self._since:.0f} s")
        self._since, self._bytes = now, 0


def patiently(limits: Limits, ask: Callable[[], Any]) -> Any:
    """What `ask` returns, tried again after a PassingError."""
    patience = Patience(limits)
    while True:
        try:
            return ask()
        except PassingError as why:
            patience.after(why, 0)
