"""ITCH messages to publish, with their times, out of any recording of single orders or out of bytes in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from microrisk.core import MoldCapture
from microrisk.errors import FeedError, UsageError
from microrisk.feed.open import Source, find_sources
from microrisk.feed.recognise import is_capture, loose_framing, recognise
from microrisk.spec.messages import ITCH_BY_CODE

Timed = tuple[int, bytes]
"""(ns since midnight, or receive time in ns UTC of a capture; message)."""
_BLOCKS = 4096


def timed(messages: Iterable[bytes]) -> Iterator[Timed]:
    """Bare ITCH messages with the times that they carry; one too short for a time has that of the one before."""
    now = 0
    for message in messages:
        now = int.from_bytes(message[5:11], "big") if len(message) >= 11 else now
        yield now, message


def itch_messages(inputs: Sequence[str | Path], **reading: str | None) -> Iterator[Timed]:
    """Messages of files in order: ITCH files, captures of MoldUDP64, or any recording that converts to ITCH 5.0.

    `reading`: format, date, venue, snapshot, as for a replay.

    Raises
    ------
    UsageError : no such file, or a format without single orders
    FeedError : it cannot be read
    """
    sources = find_sources(inputs)
    known = [recognise(s) == "itch50" for s in sources]
    if reading.get("format") not in (None, "itch50") or not all(known):
        yield from _converted(inputs, reading)
        return
    for source in sources:
        yield from _captured(source) if is_capture(source.head(4)) else timed(framed(source))


def framed(source: Source) -> Iterator[bytes]:
    """Messages of a length-prefixed file; a piece that is not whole at the end is an error, not a message."""
    stream = source.stream()
    loose, rest = loose_framing(source.head(16)), b""
    for piece in stream:
        data = rest + piece
        at = 0
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
        rest = data[at:]
    if stream.cut or rest not in (b"", b"\0\0"):
        raise FeedError(stream.cut or f"the file ends inside a message: {len(rest)} bytes left", path=source.label)


def _captured(source: Source) -> Iterator[Timed]:
    """Messages of a capture, the first copy of each; those that it lacks are not there."""
    view = source.mapped()
    capture = MoldCapture([memoryview(view if view is not None else b"".join(source.stream()))])
    while blocks := capture.blocks(_BLOCKS):
        for _, ts_recv, message in blocks:
            yield ts_recv, message


def _converted(inputs: Sequence[str | Path], reading: dict[str, str | None]) -> Iterator[Timed]:
    from microrisk.pipeline.interchange import Shape, convert

    if len({str(p) for p in inputs}) < len(inputs):
        raise UsageError("a file is named twice")
    with tempfile.TemporaryDirectory(prefix="microrisk-") as folder:
        path = Path(folder) / "feed.itch"
        convert([str(p) for p in inputs], to="itch50", out=path, shape=Shape(), progress=None, **reading)
        yield from timed(framed(Source(path)))
