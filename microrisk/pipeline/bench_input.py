"""The input of a benchmark: unpacked once, shortened when asked, and cut into pieces of whole messages for rivals."""

from __future__ import annotations

import mmap
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from microrisk.core import Engine, ItchDecoder
from microrisk.errors import OutputError, UsageError
from microrisk.feed.open import Source as File
from microrisk.feed.open import find_sources
from microrisk.feed.recognise import FORMATS, LOBSTER_IMAGE, is_capture, loose_framing, recognise
from microrisk.pipeline.spine import Source
from microrisk.spec.records import EVENT

PIECE_EVENTS = 1 << 20
"""Events of ITCH that a rival gets at a time: about 30 MB."""
MARGIN = 1 << 30
"""Bytes that stay free on the disk while unpacking."""
NEIGHBOURS = frozenset({"cryptofeed"})
"""Formats that look for other files beside theirs: they are read where they lie."""


@dataclass
class Input:
    """What every contender reads.

    Attributes
    ----------
    source : for our spine
    format : recognised or given
    files : the plain files
    itch : the one plain length-prefixed ITCH file, None for any other input: what the ITCH rivals and the paced replay
        can read
    notices : what was done to the input
    """

    source: Source
    format: str
    files: list[Path]
    itch: Path | None
    notices: list[str] = field(default_factory=list)

    def pieces(self, limit: int | None = None) -> Iterator[bytes]:
        """The ITCH file in pieces of whole messages, its first `limit` messages or a little more."""
        assert self.itch is not None
        start = 0
        with mapped(self.itch) as data:
            for end, messages in self.frames:
                yield data[start:end]
                start = end
                if limit is not None and messages >= limit:
                    return

    @cached_property
    def frames(self) -> list[tuple[int, int]]:
        """Ends of the ITCH file's pieces, and the messages up to each; the last is the end of what is whole."""
        assert self.itch is not None
        out: list[tuple[int, int]] = []
        decoder, events, at = ItchDecoder(), np.empty(PIECE_EVENTS, EVENT), 0
        with mapped(self.itch) as data:
            while not decoder.ended:
                before = decoder.messages
                _, after = decoder.decode(data, at, events)
                if decoder.messages == before:
                    break
                at = after
                out.append((at, decoder.messages))
        return out


class mapped:
    """A plain file as bytes that are read from the page cache."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)

    def __enter__(self) -> mmap.mmap:
        return self._map

    def __exit__(self, *_: object) -> None:
        self._map.close()
        self._file.close()


def prepare(source: Source, folder: Path, messages: int | None = None) -> Input:
    """The input in `folder`, as far as it has to be there.

    Compressed files and members of zip files are unpacked; `messages` keeps only the first so many of an ITCH file.
    Raises UsageError for `messages` of another format, OutputError when the disk is too small.
    """
    kinds = [(file, recognise(file)) for file in find_sources(source.inputs)]
    form = source.format or next((k for _, k in kinds if k in FORMATS), None) or "unknown"
    # what only lies beside a recording in its folder or archive (a readme) is left there
    asked = {Path(i) for i in source.inputs}
    files = [file for file, kind in kinds if kind is not None or (file.member is None and file.path in asked)]
    notices: list[str] = []
    if form not in NEIGHBOURS:
        files = [_plain(file, folder, k, notices) for k, file in enumerate(files)]
        source = replace(source, inputs=tuple(str(f.path) for f in files))
    itch = _itch_file(files, form)
    if messages is not None:
        if itch is None:
            raise UsageError("--messages shortens a single length-prefixed ITCH file; give a shorter recording")
        itch = _shortened(itch, folder, messages, notices)
        source = replace(source, inputs=(str(itch),))
    return Input(source, form, [f.path for f in files], itch, notices)


def _itch_file(files: list[File], form: str) -> Path | None:
    """The file when it is the only one, length-prefixed, with true lengths."""
    if form != "itch50" or len(files) != 1:
        return None
    head = files[0].head(16)
    return None if is_capture(head) or loose_framing(head) else files[0].path


def _plain(file: File, folder: Path, number: int, notices: list[str]) -> File:
    view = file.mapped()
    if view is not None:
        view.close()
        return file
    if file.member is None and file.size() == 0:
        return file
    # one folder for all of them: halves of a pair find each other by their names
    target = folder / file.name
    if target.exists():
        target = folder / str(number) / file.name
        target.parent.mkdir()
    stream = file.stream()
    try:
        with target.open("wb") as out:
            for piece in stream:
                _require_room(folder, len(piece), file.label)
                out.write(piece)
    except OSError as error:
        raise OutputError(f"cannot unpack {file.label} into {folder}: {error.strerror or error}") from error
    if stream.cut:
        notices.append(stream.cut)
    notices.append(f"{file.label} was unpacked once, {stream.offset:,} bytes: unpacking is in none of the figures")
    return File(target)


def _require_room(folder: Path, need: int, label: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < need + MARGIN:
        raise OutputError(f"cannot unpack {label}: {free:,} bytes are free in {folder}; set TMPDIR to a larger disk")


def _shortened(path: Path, folder: Path, messages: int, notices: list[str]) -> Path:
    if messages < 1:
        raise UsageError(f"--messages {messages}: at least one")
    target = folder / f"first_{messages}_{path.name}"
    with mapped(path) as data, target.open("wb") as out:
        out.write(data[: Engine().run_itch(ItchDecoder(), data, 0, messages)])
    notices.append(f"only the first {messages:,} messages of {path.name}")
    return target


def is_image(path: Path) -> bool:
    """Whether the file is the book half of a LOBSTER pair."""
    return recognise(File(path)) == LOBSTER_IMAGE
