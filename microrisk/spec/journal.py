"""The input journal of live monitoring: what one record is, what a block is. C++ writes it, Python and C++ read it.

A journal is a folder of segments, each a run of blocks. A block is written whole, before anything in it is applied:

    magic u32 | payload bytes u32 | number u64 | records u32 | crc u32 | payload

All little-endian. `crc` is the CRC-32 (zlib's) over the crc of the block before (4 bytes; 0 before the first), then the
first 20 bytes of the header, then the payload: a block that was changed, lost or moved breaks the chain. Numbers rise
by one over all segments. A record in the payload is a 24-byte header and its body, without padding:

    size u32 (header and body) | feed u16 | kind u8 | flags u8 | recv_ns i64 | seq u64 | body
"""

from __future__ import annotations

from enum import IntEnum

BLOCK_MAGIC = 0x314B4C42
"""Bytes "BLK1"."""
BLOCK_HEADER = "<IIQII"
BLOCK_HEADER_BYTES = 24
RECORD_HEADER = "<IHBBqQ"
RECORD_HEADER_BYTES = 24
MAX_BODY = 1 << 26
"""Bytes of the longest body: a book image of a venue takes a few MiB."""
MAX_PAYLOAD = 1 << 27
NO_FEED = 0xFFFF
"""Feed of records that concern all feeds."""


class Kind(IntEnum):
    """What a record says; the books are a function of the records alone."""

    OPEN = 0
    """A feed exists: body = JSON of its source. Written again after each restart."""
    RUN = 1
    """New messages in sequence, seq = number of the first; body = blocks (u16 length, big-endian, and message)."""
    TEXT = 2
    """One message of a JSON venue; seq counts them by feed from 1; flags = Text; body = text (RESPONSE, SENT and
    OPENED: URL, newline, text)."""
    IMAGE_BEGIN = 3
    """A book image of the whole feed follows: the books are emptied. Body = reason."""
    IMAGE = 4
    """Messages of the image, as in RUN, without numbers."""
    IMAGE_END = 5
    """The image is whole; seq = number of the next message to apply."""
    GAP = 6
    """Messages that will not come: seq = number of the first, body = u64 how many."""
    SESSION = 7
    """A new session of the feed: body = i64 UTC ns of its midnight, then the session's name. Numbers begin at seq."""
    CLOCK = 8
    """The time is recv_ns, for all feeds; everything that is decided at intervals is decided here."""
    END = 9
    """The venue ended the session; seq = number behind the last message."""
    CHECK = 10
    """Body = JSON: hash of every book so far, chained to the check before."""
    EVENTS = 11
    """Events of a recorded file: body = EVENT records."""
    NAMES = 12
    """Instruments of a recorded file: body = JSON, number -> [id, px_exp, qty_exp, tick, lot]."""
    DOUBT = 13
    """The connection of a feed was lost or is not believed: body = reason. Its books are marked until an image."""
    CLOSE = 14
    """The process ended in order."""


class Text(IntEnum):
    """Flags of Kind.TEXT; the numbers of feed.capture's line kinds."""

    RECEIVED = 0
    RESPONSE = 1
    SENT = 2
    OPENED = 3
