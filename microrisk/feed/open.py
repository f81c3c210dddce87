"""From paths to bytes: plain, gzip, xz, zip and zstd files (also inside one another), or a folder of them.

A compressed file is read as a stream in pieces of about CHUNK bytes; a plain file is mapped. A stream that breaks off
or is damaged ends early: what was read before the place is kept and `Stream.cut` says where it was.
"""

from __future__ import annotations

import io
import lzma
import mmap
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from microrisk.errors import FeedError, UsageError

CHUNK = 8 << 20
"""Bytes of one piece that a feed gets."""
HEAD = 64 << 10
"""Bytes that a recogniser sees; also the piece inside the decompressors, so that damage costs little."""
FORGET = 64 << 20
"""Bytes of a mapped file that are given back at a time."""
_SUFFIXES = frozenset({".gz", ".xz", ".zst", ".zstd", ".zip"})

Pieces = Iterator[bytes]
Make = Callable[[], Pieces]


class _CutError(Exception):
    """A compressed stream ended before its end mark, or its bytes are damaged."""


@dataclass(frozen=True)
class Source:
    """One file, or one member of a zip file."""

    path: Path
    member: str | None = None

    @property
    def label(self) -> str:
        """For messages: the path, and the member after an exclamation mark."""
        return str(self.path) if self.member is None else f"{self.path}!{self.member}"

    @property
    def name(self) -> str:
        """File name without folder and without endings of compression."""
        name = Path(self.member).name if self.member is not None else self.path.name
        while Path(name).suffix.lower() in _SUFFIXES:
            name = name[: -len(Path(name).suffix)]
        return name

    def raw(self) -> Pieces:
        """The stored bytes (of a zip member: unzipped) in pieces of HEAD bytes."""
        return _read_file(self.path) if self.member is None else _read_member(self.path, self.member)

    def stream(self) -> Stream:
        """The decompressed bytes from the beginning."""
        return Stream(self)

    def head(self, size: int = HEAD) -> bytes:
        """The first `size` decompressed bytes (fewer in a shorter file)."""
        return self.stream().read(size)[:size]

    def size(self) -> int:
        """Stored bytes: what `Stream.consumed` counts up to."""
        if self.member is None:
            return self.path.stat().st_size
        with zipfile.ZipFile(self.path) as archive:
            return archive.getinfo(self.member).file_size

    def mapped(self) -> mmap.mmap | None:
        """The file mapped into memory when it is plain and not empty, else None."""
        if self.member is not None or _layer(next(self.raw(), b"")) is not None:
            return None
        with self.path.open("rb") as f:
            try:
                return mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
            except (ValueError, OSError):  # empty, or not a plain file (a pipe)
                return None


class _Stored:
    """The bytes of a file as they are stored, counted.

    Apart from Stream, whose generators lead to it: a ring that runs through Arrow's C++ objects is never collected.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.consumed = 0

    def pieces(self) -> Pieces:
        self.consumed = 0
        for piece in self._source.raw():
            self.consumed += len(piece)
            yield piece


class Stream:
    """Decompressed bytes of a source, piece by piece.

    Attributes
    ----------
    offset : decompressed bytes handed out so far
    cut : None, or a sentence that says where a damaged stream broke off
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.offset = 0
        self.cut: str | None = None
        self._stored = _Stored(source)
        try:
            self._pieces = _peel(self._stored.pieces)
        except OSError as why:
            raise FeedError(f"cannot read: {why.strerror or why}", path=source.label) from why

    @property
    def consumed(self) -> int:
        """Stored bytes read so far."""
        return self._stored.consumed

    def read(self, size: int = CHUNK) -> bytes:
        """The next `size` bytes or a little more; less only at the end, also at an early one (see `cut`)."""
        parts, have = [], 0
        try:
            while have < size and (piece := next(self._pieces, b"")):
                parts.append(piece)
                have += len(piece)
        except _CutError as why:
            self._pieces = iter(())
            self.cut = f"{self.source.label}: {why}; the {self.offset + have} bytes before it are kept"
        except OSError as why:
            raise FeedError(f"cannot read: {why}", path=self.source.label, offset=self.offset) from why
        self.offset += have
        return b"".join(parts)

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read():
            yield piece


def _read_file(path: Path) -> Pieces:
    with path.open("rb") as f:
        while piece := f.read(HEAD):
            yield piece


def _read_member(path: Path, member: str) -> Pieces:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as f:
            while piece := f.read(HEAD):
                yield piece
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as why:
        raise _CutError(f"the zip member cannot be read on ({why})") from why


def _peel(make: Make) -> Pieces:
    """Undo every layer of compression that the first bytes show."""
    while True:
        try:
            head = next(make(), b"")
        except _CutError:
            return make()
        unpack = _layer(head)
        if unpack is None:
            return make()
        make = _wrapped(unpack, make)


def _wrapped(unpack: Callable[[Make], Pieces], make: Make) -> Make:
    return lambda: unpack(make)


def _layer(head: bytes) -> Callable[[Make], Pieces] | None:
    """The decompressor that the magic bytes ask for."""
    if head[:3] == b"\x1f\x8b\x08":
        return _gunzip
    if head[:6] == b"\xfd7zXZ\x00":
        return _unxz
    if head[:4] == b"\x28\xb5\x2f\xfd":
        return _unzstd
    return None


def _gunzip(make: Make) -> Pieces:
    """Gzip, also several members after one another; zero bytes behind a member are padding."""
    state, at = None, 0
    for stored in make():
        at += len(stored)
        piece = stored
        while piece := piece.lstrip(b"\0") if state is None else piece:
            state = state or zlib.decompressobj(31)
            # a copy of the state (40 KB) keeps what lies before a damaged byte
            before = state.copy()
            try:
                out = state.decompress(piece, CHUNK)
            except zlib.error as why:
                yield _salvage(before, piece)
                raise _CutError(f"the gzip stream is damaged near byte {at - len(piece)} of the file ({why})") from why
            if out:
                yield out
            piece = state.unconsumed_tail
            if state.eof:
                piece, state = state.unused_data, None
    if state is not None:
        raise _CutError(f"the gzip stream breaks off at byte {at} of the file")


def _salvage(state: zlib._Decompress, piece: bytes) -> bytes:
    """What can be had out of `piece` before its damaged byte."""
    out = bytearray()
    try:
        for i in range(len(piece)):
            out += state.decompress(piece[i : i + 1])
    except zlib.error:
        pass
    return bytes(out)


def _unxz(make: Make) -> Pieces:
    """Xz, also several streams after one another; damage costs the piece it lies in."""
    state, at = None, 0
    for stored in make():
        at += len(stored)
        piece = stored
        while piece or (state is not None and not state.needs_input):
            state = state or lzma.LZMADecompressor(lzma.FORMAT_XZ)
            try:
                out = state.decompress(piece, CHUNK)
            except lzma.LZMAError as why:
                raise _CutError(f"the xz stream is damaged near byte {at - len(piece)} of the file ({why})") from why
            piece = b""
            if out:
                yield out
            if state.eof:
                piece, state = state.unused_data.lstrip(b"\0"), None
    if state is not None:
        raise _CutError(f"the xz stream breaks off at byte {at} of the file")


class _PiecesFile(io.RawIOBase):
    """Pieces as a file object, for a decompressor that reads from one."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces, self._rest, self.at = pieces, b"", 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes; -1 reads one piece."""
        self._rest = self._rest or next(self._pieces, b"")
        size = len(self._rest) if size is None or size < 0 else size
        out, self._rest = self._rest[:size], self._rest[size:]
        self.at += len(out)
        return out


def _zstd_reader(make: Make) -> tuple[pa.NativeFile, _PiecesFile]:
    stored = _PiecesFile(make())
    return pa.CompressedInputStream(pa.PythonFile(stored, mode="r"), "zstd"), stored


def _unzstd(make: Make) -> Pieces:
    """Zstandard frames through Arrow, which loses the piece that an error lies in: it is read again by bytes.

    Read into a buffer of ours: Arrow's read() keeps the bytes object of a read that fails for good.
    """
    reader, stored = _zstd_reader(make)
    done, buffer = 0, bytearray(HEAD)
    try:
        while n := reader.readinto(buffer):
            done += n
            yield bytes(memoryview(buffer)[:n])
    except OSError as why:
        yield _bytewise(make, done)
        raise _CutError(f"the zstd stream breaks off or is damaged near byte {stored.at} of the file") from why


def _bytewise(make: Make, done: int) -> bytes:
    """What comes after the first `done` bytes and before the error."""
    reader, _ = _zstd_reader(make)
    out, buffer = bytearray(), bytearray(HEAD)
    try:
        while done > 0:
            done -= reader.readinto(memoryview(buffer)[: min(done, HEAD)])
        while reader.readinto(memoryview(buffer)[:1]):
            out += buffer[:1]
    except OSError:
        pass
    return bytes(out)


def find_sources(inputs: Sequence[str | Path]) -> list[Source]:
    """Every file of the inputs: folders and zip files are opened up, their files in the order of their names.

    Raises
    ------
    UsageError : no input, or a path that does not exist
    FeedError : a path that cannot be read
    """
    if not inputs:
        raise UsageError("no input given")
    out: list[Source] = []
    for given in inputs:
        path = Path(given)
        if not path.exists():
            raise UsageError(f"no such file or folder: {path}")
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        if not files:
            raise FeedError("the folder is empty", path=str(path))
        for file in files:
            out += _members(file)
    return out


def _members(path: Path) -> list[Source]:
    """The file itself, or the members of a zip file."""
    try:
        with path.open("rb") as f:
            if f.read(4) not in (b"PK\x03\x04", b"PK\x05\x06"):
                return [Source(path)]
        with zipfile.ZipFile(path) as archive:
            names = sorted(i.filename for i in archive.infolist() if not i.is_dir())
    except zipfile.BadZipFile as why:
        raise FeedError(f"the zip file cannot be opened ({why})", path=str(path)) from why
    except OSError as why:
        raise FeedError(f"cannot read: {why.strerror or why}", path=str(path)) from why
    if not names:
        raise FeedError("the zip file is empty", path=str(path))
    return [Source(path, name) for name in names]


class Window:
    """A view that slides over sources read one after another as a single run of bytes.

    `data[start:]` is what has not been used yet; the reader moves `start`, and asks for more with `grow`, which keeps
    the unused tail. A plain file is mapped whole, a compressed one comes in pieces of CHUNK bytes.

    Attributes
    ----------
    data : bytes at hand
    start : first unused byte in `data`
    base : offset of data[0] in the whole run
    cuts : sentences about sources that broke off
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.data: bytes | mmap.mmap = b""
        self.start = 0
        self.base = 0
        self.cuts: list[str] = []
        self._sources = list(sources)
        self._sizes = [s.size() for s in sources]
        self._opened = 0
        self._stream: Stream | None = None
        self._whole = 0
        self._forgotten = 0

    @property
    def offset(self) -> int:
        """Offset of the first unused byte in the whole run."""
        return self.base + self.start

    @property
    def progress(self) -> float:
        """Share of the stored bytes that has been used."""
        total = sum(self._sizes) or 1
        before = sum(self._sizes[: max(self._opened - 1, 0)])
        here = self._stream.consumed if self._stream else (self.start if self._whole else 0)
        return min(1.0, (before + here) / total)

    def forget(self) -> None:
        """Give back the mapped pages behind `start`: the memory of a run does not grow with its file."""
        done = self.start - self.start % FORGET
        if self._whole and done > self._forgotten:
            assert isinstance(self.data, mmap.mmap)
            self.data.madvise(mmap.MADV_DONTNEED, self._forgotten, done - self._forgotten)
            self._forgotten = done

    def grow(self) -> bool:
        """Bring in the next piece behind the unused tail; False when there is none."""
        tail = self.data[self.start :]
        piece = self._next(mapped=not tail)
        if piece is None:
            return False
        self.base += self.start
        self.start = 0
        self.data = bytes(tail) + bytes(piece) if tail else piece
        return True

    def _next(self, *, mapped: bool) -> bytes | mmap.mmap | None:
        while True:
            if self._stream is not None:
                if piece := self._stream.read():
                    return piece
                if self._stream.cut:
                    self.cuts.append(self._stream.cut)
                self._stream = None
            self._whole = 0
            if self._opened == len(self._sources):
                return None
            source = self._sources[self._opened]
            self._opened += 1
            if mapped and (view := source.mapped()) is not None:
                self._whole, self._forgotten = len(view), 0
                return view
            self._stream = source.stream()
