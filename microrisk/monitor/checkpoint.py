"""Checkpoints: the whole state at a place of the journal, so that a restart replays minutes and not the day.

A file `<number of the next block, 16 hex digits>.checkpoint`: "MRCP", version, CRC-32 and length, then MessagePack. It
is written under another name, given to the disk, renamed; the one before it is kept. A checkpoint that is damaged, of
another build or of another model is passed over for the one before it, with a notice, and at last for the journal.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from microrisk.core import ABI_HASH
from microrisk.errors import OutputError
from microrisk.monitor.hub import SCHEMA
from microrisk.spec.hashes import format_hash

SUFFIX = ".checkpoint"
KEPT = 2
_HEAD = struct.Struct("<4sIIQ")
_MAGIC = b"MRCP"


@dataclass(frozen=True)
class Checkpoint:
    """State at a place of the journal.

    Attributes
    ----------
    number, crc : the next block's number, and the checksum that it continues
    alerts : how many had been told
    model : hash of the weights
    desk : Desk.save()
    """

    number: Annotated[int, Meta(ge=0)]
    crc: Annotated[int, Meta(ge=0, lt=1 << 32)]
    alerts: Annotated[int, Meta(ge=0)]
    model: str
    desk: dict[str, Any]


def write(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write it, keep KEPT of them. OutputError when the disk does not take it; the ones before it stay."""
    body = msgspec.msgpack.encode(
        {
            "abi": ABI_HASH,
            "format": format_hash(),
            "number": checkpoint.number,
            "crc": checkpoint.crc,
            "alerts": checkpoint.alerts,
            "model": checkpoint.model,
            "desk": checkpoint.desk,
        }
    )
    path = folder / f"{checkpoint.number:016x}{SUFFIX}"
    partial = path.with_suffix(".partial")
    try:
        for left in folder.glob("*.partial"):  # of a process that was killed while it wrote
            left.unlink()
        with partial.open("wb") as file:
            file.write(_HEAD.pack(_MAGIC, SCHEMA, zlib.crc32(body), len(body)))
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    for old in sorted(folder.glob("*" + SUFFIX))[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def candidates(folder: Path, model: str) -> Iterator[tuple[Path, Checkpoint | str]]:
    """Each one, newest first, or why it cannot be used."""
    for path in sorted(folder.glob("*" + SUFFIX), reverse=True):
        yield path, read(path, model)


def read(path: Path, model: str) -> Checkpoint | str:
    """A checkpoint, or why it cannot be used."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return error.strerror or str(error)
    if len(data) < _HEAD.size:
        return f"{len(data)} bytes are no checkpoint"
    magic, version, crc, size = _HEAD.unpack_from(data)
    body = memoryview(data)[_HEAD.size :]
    if magic != _MAGIC:
        return "not a checkpoint"
    if version > SCHEMA:
        return f"of a newer build (schema {version}, this one reads up to {SCHEMA})"
    if len(body) != size or zlib.crc32(body) != crc:
        return f"its checksum does not hold ({len(body)} bytes of {size})"
    try:
        return _found(msgspec.msgpack.decode(body), model)
    except (msgspec.MsgspecError, KeyError, TypeError) as why:
        return f"of another layout ({type(why).__name__}: {why})"


def _found(state: dict[str, Any], model: str) -> Checkpoint | str:
    for key, own in (("abi", ABI_HASH), ("format", format_hash())):
        if state[key] != own:
            return f"made by another build ({key} {state[key]}, this one has {own})"
    if state["model"] != model:
        return f"made with model {state['model'][:12]}, this one is {model[:12]}"
    return msgspec.convert(state, Checkpoint)
