"""Frames as bytes for the page: little-endian, every array at a multiple of eight bytes.

    one frame   HEADER, then int64 bids[2 n], asks[2 n], trades[4 n], float64 levels[heads], int32 values[heads],
                int8 codes[n], UTF-8 JSON of the words, zero bytes up to a multiple of eight
    a batch     uint8 BATCH, uint8 version, uint16 0, uint32 count, then count times [uint32 length, uint32 0, frame]

`static/wire.js` reads it; LAYOUT goes out with the first message, so that other clients can.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from microrisk.monitor.hub import DOWN, ENDED, LIVE, STALE, SUSPECT, SYNCING, Frame
from microrisk.spec.weightfile import HEADS

VERSION = 1
FRAME, BATCH = 1, 2
STATES = (SYNCING, LIVE, STALE, SUSPECT, DOWN, ENDED)

FIELDS = (
    ("kind", "B"), ("version", "B"), ("state", "B"), ("alert", "B"),
    ("topic", "I"),
    ("n", "Q"), ("ts_ns", "q"), ("events", "Q"), ("tick", "q"),
    ("px_exp", "b"), ("qty_exp", "b"), ("heads", "B"), ("scored", "B"),
    ("bids", "H"), ("asks", "H"), ("trades", "H"), ("codes", "H"), ("words", "I"),
)  # fmt: skip
HEADER = struct.Struct("<" + "".join(code for _, code in FIELDS))
_BATCH = struct.Struct("<BBHI")
_LENGTH = struct.Struct("<II")

LAYOUT = {
    "version": VERSION,
    "header": [list(f) for f in FIELDS],
    "header_bytes": HEADER.size,
    "arrays": ["int64 bids", "int64 asks", "int64 trades", "float64 levels", "int32 heads", "int8 codes", "json words"],
    "states": STATES,
}
"""For the first message; the letters are those of Python's struct."""


class Words(msgspec.Struct):
    """What is text in a frame."""

    why: str
    drivers: list[str]


_ENCODE = msgspec.json.Encoder()


def pack(frame: Frame, topic: int) -> bytes:
    """One frame. `topic` counts what the client has followed, so that late frames of the one before can be told."""
    words = _ENCODE.encode(Words(frame.why, frame.drivers))
    codes = frame.codes or []
    mask = sum(1 << k for k, head in enumerate(HEADS) if head in frame.alert)
    scored = len(frame.heads) == len(HEADS)
    head = HEADER.pack(
        FRAME, VERSION, STATES.index(frame.state), mask,
        topic & 0xFFFFFFFF,
        frame.n, frame.ts_ns, frame.events, frame.tick,
        frame.px_exp, frame.qty_exp, len(HEADS) if scored else 0, int(frame.codes is not None),
        len(frame.bids), len(frame.asks), len(frame.trades), len(codes), len(words),
    )  # fmt: skip
    levels = [frame.levels.get(h, 1.0) for h in HEADS] if scored else []
    values = [frame.heads[h] for h in HEADS] if scored else []
    body = b"".join(
        (
            head,
            _int64(frame.bids),
            _int64(frame.asks),
            _int64(frame.trades),
            np.array(levels, "<f8").tobytes(),
            np.array(values, "<i4").tobytes(),
            np.array(codes, np.int8).tobytes(),
            words,
        )
    )
    return body + bytes(-len(body) % 8)


def pack_batch(frames: Iterable[Frame], topic: int) -> bytes:
    """Several frames in one message."""
    parts = [pack(f, topic) for f in frames]
    out = [_BATCH.pack(BATCH, VERSION, 0, len(parts))]
    for part in parts:
        out += (_LENGTH.pack(len(part), 0), part)
    return b"".join(out)


def _int64(rows: Sequence[Sequence[int]]) -> bytes:
    return np.array(rows, "<i8").tobytes() if rows else b""
