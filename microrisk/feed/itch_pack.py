"""Planned rows -> framed ITCH bytes: one structured array per message type, scattered to its place in the output."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microrisk.spec.messages import ITCH_BY_CODE, Message

NOON_NS = 43_200_000_000_000


class Out(IntEnum):
    """What a planned row becomes; the members that share a type differ in one code byte."""

    BUY = 0  # A, side B
    SELL = 1  # A, side S
    EXECUTED = 2  # E
    PRICED = 3  # C, printable Y
    QUIET = 4  # C, printable N
    CANCEL = 5  # X
    DELETE = 6  # D
    REPLACE = 7  # U
    TRADE = 8  # P, side code in new_ref
    CROSS = 9  # Q
    ACTION = 10  # H, state code in new_ref
    SYSTEM = 11  # S, event code in new_ref


CODES = "AAECCXDUPQHS"
"""Message type of each member of Out."""
COLUMNS = ("row", "out", "ref", "new_ref", "shares", "price")
"""Columns of a planned row: index of its event in the chunk, Out, and the fields of the message."""


def wire_dtype(message: Message) -> np.dtype[Any]:
    """Packed big-endian dtype of a framed message: `prefix`, then its fields; 6-byte integers as `_hi` and `_lo`."""
    parts: list[tuple[str, str]] = [("prefix", ">u2")]
    for f in message.fields:
        if f.kind != "u":
            parts.append((f.name, f"S{f.size}"))
        elif f.size == 6:
            parts += [(f.name + "_hi", ">u2"), (f.name + "_lo", ">u4")]
        else:
            parts.append((f.name, f">u{f.size}"))
    return np.dtype(parts)


WIRE = tuple(wire_dtype(ITCH_BY_CODE[code]) for code in CODES)
_SIZES = np.array([w.itemsize for w in WIRE], np.int64)


@dataclass(frozen=True)
class Columns:
    """Per event of a chunk: ns since midnight (u64), stock locate (u16), symbol (S8), match number (u64)."""

    ts: NDArray[np.uint64]
    locate: NDArray[np.uint16]
    stock: NDArray[np.bytes_]
    match: NDArray[np.uint64]


def _letters(codes: NDArray[np.uint64]) -> NDArray[np.bytes_]:
    return codes.astype(np.uint8).view("S1")


def _fill_header(wire: NDArray[np.void], out: Out, cols: Columns, row: NDArray[np.int64]) -> None:
    ts = cols.ts[row]
    wire["prefix"] = wire.dtype.itemsize - 2
    wire["type"] = CODES[out].encode()
    wire["locate"] = cols.locate[row]
    wire["timestamp_hi"] = (ts >> np.uint64(32)).astype(np.uint16)
    wire["timestamp_lo"] = (ts & np.uint64(0xFFFFFFFF)).astype(np.uint32)


def _fill_codes(wire: NDArray[np.void], out: Out, plan: NDArray[np.uint64], ts: NDArray[np.uint64]) -> None:
    """The one-letter fields."""
    if out in (Out.BUY, Out.SELL):
        wire["side"] = b"B" if out == Out.BUY else b"S"
    elif out in (Out.PRICED, Out.QUIET):
        wire["printable"] = b"Y" if out == Out.PRICED else b"N"
    elif out == Out.TRADE:
        wire["side"] = _letters(plan[:, 3])
    elif out == Out.ACTION:
        wire["state"], wire["reserved"], wire["reason"] = _letters(plan[:, 3]), b" ", b"    "
    elif out == Out.SYSTEM:
        wire["event"] = _letters(plan[:, 3])
    elif out == Out.CROSS:
        wire["cross_type"] = np.where(ts < NOON_NS, b"O", b"C")


def _message_block(out: Out, plan: NDArray[np.uint64], cols: Columns) -> NDArray[np.void]:
    """Every planned row of one kind as wire records."""
    row = plan[:, 0].astype(np.int64)
    wire = np.zeros(len(plan), WIRE[out])
    names = wire.dtype.names or ()
    _fill_header(wire, out, cols, row)
    for column, name in ((2, "ref"), (4, "shares"), (5, "price")):
        if name in names:
            wire[name] = plan[:, column]
    if "new_ref" in names:
        wire["new_ref"] = plan[:, 3]
    if "match" in names:
        wire["match"] = cols.match[row]
    if "stock" in names:
        wire["stock"] = np.char.ljust(cols.stock[row], 8)
    _fill_codes(wire, out, plan, cols.ts[row])
    if out == Out.SYSTEM:
        wire["locate"] = 0
    return wire


def pack_rows(plan: NDArray[np.uint64], cols: Columns) -> bytes:
    """Framed messages of the planned rows (n, 6) in order; see COLUMNS. Values must have been checked to fit."""
    kind = plan[:, 1].astype(np.int64)
    ends = np.cumsum(_SIZES[kind])
    starts = ends - _SIZES[kind]
    out = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
    for member in Out:
        chosen = np.flatnonzero(kind == member)
        if chosen.size:
            wire = _message_block(member, plan[chosen], cols)
            size = wire.dtype.itemsize
            places = starts[chosen][:, None] + np.arange(size)
            out[places] = wire.view(np.uint8).reshape(-1, size)
    return out.tobytes()
