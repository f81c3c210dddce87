"""Journals written with struct and zlib alone, from the page that says what a block is."""

import struct
import zlib
from pathlib import Path

from microrisk.spec.journal import Kind


def record(feed: int, kind: Kind, recv_ns: int = 0, seq: int = 0, body: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack("<IHBBqQ", 24 + len(body), feed, kind, flags, recv_ns, seq) + body


def block(number: int, before: int, *records: bytes) -> tuple[bytes, int]:
    """The bytes of a block and its checksum."""
    payload = b"".join(records)
    head = struct.pack("<4sIQI", b"BLK1", len(payload), number, len(records))
    crc = zlib.crc32(struct.pack("<I", before) + head + payload)
    return head + struct.pack("<I", crc) + payload, crc


def journal(folder: Path, *segments: list[list[bytes]]) -> list[int]:
    """Segments of blocks of records; the checksums of all blocks."""
    folder.mkdir(parents=True, exist_ok=True)
    number, crc, crcs = 0, 0, []
    for blocks in segments:
        data = b""
        first = number
        for records in blocks:
            one, crc = block(number, crc, *records)
            data, number = data + one, number + 1
            crcs.append(crc)
        (folder / f"{first:016x}.journal").write_bytes(data)
    return crcs
