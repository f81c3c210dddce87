"""ITCH messages to publish, with their times, out of any recording of single orders or out of bytes in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from microrisk.core import MoldCapture
from microrisk.errors import FeedError, UsageError
from microrisk.feed.open import Source, find_sources
from microrisk.feed.recognise import is_capture, loose_framing, recognise
from microrisk.spec.messages import ITCH_BY_CODE

Timed = tuple[int, bytes]
"""(ns since midnight, or receive time in ns UTC of a capture; message)."""
Told = Callable[[float], None]
"""Takes the share read, 0..1."""
_BLOCKS = 4096


def timed(messages: Iterable[bytes]) -> Iterator[Timed]:
    """Bare ITCH messages with the times that they carry; one too short for a time has that of the one before."""
    now = 0
    for message in messages:
        now = int.from_bytes(message[5:11], "big") if len(message) >= 11 else now
        yield now, message


def itch_messages(inputs: Sequence[str | Path], *, told: Told | None = None, **reading: str | None) -> Iterator[Timed]:
    """Messages of files in order: ITCH files, captures of MoldUDP64, or any recording that converts to ITCH 5.0.

    `reading`: format, date, venue, snapshot, as for a replay. `told` hears the share read, now and then.

    Raises
    ------
    UsageError : no such file, or a format without single orders
    FeedError : it cannot be read
    """
    sources = find_sources(inputs)
    known = [recognise(s) == "itch50" for s in sources]
    if reading.get("format") not in (None, "itch50") or not all(known):
        yield from _converted(inputs, reading, told)
        return
    for i, source in enumerate(sources):
        part = _part(told, i, len(sources))
        yield from _captured(source, part) if is_capture(source.head(4)) else timed(framed(source, part))


def _part(told: Told | None, i: int, n: int) -> Told | None:
    """What hears the share of file `i` of `n`."""
    return None if told is None else lambda share: told((i + share) / n)


def framed(source: Source, told: Told | None = None) -> Iterator[bytes]:
    """Messages of a length-prefixed file; a piece that is not whole at the end is an error, not a message."""
    stream, size = source.stream(), max(1, source.size())
    loose, rest, before = loose_framing(source.head(16)), b"", 0
    for piece in stream:
        data = rest + piece
        at = n = 0
        while at + 3 <= len(data):
            length = data[at] << 8 | data[at + 1]
            if loose and (known := ITCH_BY_CODE.get(chr(data[at + 2]))):
                length = known.length
            if length == 0:
                return
            if at + 2 + length > len(data):
                break
            yield data[at + 2 : at + 2 + length]
            at += 2 + length
            n += 1
            if told is not None and n % _BLOCKS == 0:
                told((before + (stream.consumed - before) * at / len(data)) / size)
        rest, before = data[at:], stream.consumed
    if stream.cut or rest not in (b"", b"\0\0"):
        raise FeedError(stream.cut or f"the file ends inside a message: {len(rest)} bytes left", path=source.label)


def _captured(source: Source, told: Told | None) -> Iterator[Timed]:
    """Messages of a capture, the first copy of each; those that it lacks are not there."""
    view = source.mapped()
    capture = MoldCapture([memoryview(view if view is not None else b"".join(source.stream()))])
    while blocks := capture.blocks(_BLOCKS):
        for _, ts_recv, message in blocks:
            yield ts_recv, message
        if told is not None:
            told(capture.progress)


def _converted(inputs: Sequence[str | Path], reading: dict[str, str | None], told: Told | None) -> Iterator[Timed]:
    from microrisk.pipeline.interchange import Shape, convert

    if len({str(p) for p in inputs}) < len(inputs):
        raise UsageError("a file is named twice")
    with tempfile.TemporaryDirectory(prefix="microrisk-") as folder:
        path = Path(folder) / "feed.itch"
        convert([str(p) for p in inputs], to="itch50", out=path, shape=Shape(), progress=None, **reading)
        yield from timed(framed(Source(path), told))
