"""Frames on the serial line between a host and a board that scores. Driver and hardware both read this page.

A frame is SYNC, type, sequence, length, `length` bytes of payload, and a CRC-32 over type to payload. Everything is
little-endian. The host asks, the board answers each good frame once, in order, with the sequence of the question:

IDENTIFY (no payload)       -> IDENTITY, the fields of IDENTITY_FIELDS
SCORE (1..rows_per_frame rows of codes, a byte each) -> HEADS, for each row an int32 of every head the board carries
anything else               -> REFUSED, one byte of Refusal, sequence of the question (0 where the CRC was wrong)

The line carries 8N1 and has no flow control: the host keeps at most WINDOW questions unanswered, for whose answers the
board has room. FLUSH bytes of 0 end whatever frame was left unfinished: after them the board waits for SYNC. Nothing
here is part of the format hash: codes and heads are.
"""

from __future__ import annotations

from enum import IntEnum

from microrisk.spec.formats import HEAD
from microrisk.spec.records import N_FEATURES

VERSION = 1
"""Of this page; a board of another version is refused."""
BAUD = 1_000_000
"""Bits a second on the line; FTDI parts make it exactly, and 12 MHz divides by it."""
DATA_BITS = 8
BITS_PER_BYTE = DATA_BITS + 2
"""Start bit, data bits with the lowest first, stop bit."""
SYNC = 0xA5
HEADER = ("type", "sequence", "length")
"""A byte each, after SYNC."""
CRC_BYTES = 4
"""CRC-32/ISO-HDLC: zlib.crc32, and CRC32_ISO_HDLC of Amaranth's catalogue."""
LENGTH_MAX = 255
FRAME_MAX = 1 + len(HEADER) + LENGTH_MAX + CRC_BYTES
FLUSH = FRAME_MAX
"""Zero bytes that end any unfinished frame; the chance that they complete it to a valid one is 2**-32."""
WINDOW = 8
"""Questions that the host may have unanswered."""
ANSWERS_BYTES = 2048
"""Room of the board for answers; one that finds no room is dropped and counted as an overrun."""
SEQUENCES = 256
"""Sequence numbers wrap here."""
ROW_BYTES = N_FEATURES
"""A row of codes."""
HEAD_BYTES = HEAD.width // DATA_BITS
ROWS_MAX = LENGTH_MAX // ROW_BYTES
"""Rows of codes in a frame at most."""


class Type(IntEnum):
    """Type of a frame; answers have the high bit."""

    IDENTIFY = 0x01
    SCORE = 0x02
    IDENTITY = 0x81
    HEADS = 0x82
    REFUSED = 0xFF


class Refusal(IntEnum):
    """Why a frame was refused."""

    CRC = 1
    TYPE = 2
    LENGTH = 3


HASH_BYTES = 8
"""A hash of 16 hexadecimal digits, its first two digits in the first byte."""
MASK_BYTES = -(-N_FEATURES // DATA_BITS)
IDENTITY_FIELDS = (
    ("version", 1), ("features", 1), ("heads", 1), ("rows", 1), ("mask", MASK_BYTES), ("format_hash", HASH_BYTES),
    ("weights_hash", HASH_BYTES), ("accepted", 4), ("crc", 2), ("refused", 2), ("framing", 2), ("overrun", 2),
)  # fmt: skip
"""Payload of IDENTITY: name, bytes. heads: bit k = the board carries HEADS[k]; rows: of codes in a frame at most; mask:
features that the core was made for. Then counters since the board's start: questions answered (wraps); wrong CRCs,
other refusals, bytes without a stop bit, answers for which there was no room (these four stay at their end)."""
COUNTERS = ("accepted", "crc", "refused", "framing", "overrun")
WRAPS = ("accepted",)
IDENTITY_BYTES = sum(size for _, size in IDENTITY_FIELDS)


def identity_parts(payload: bytes) -> dict[str, bytes]:
    """Payload of an IDENTITY by the names of IDENTITY_FIELDS; it must be of IDENTITY_BYTES."""
    found, at = {}, 0
    for name, size in IDENTITY_FIELDS:
        found[name] = payload[at : at + size]
        at += size
    return found
