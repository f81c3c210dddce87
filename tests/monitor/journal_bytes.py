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


def parse(payload: bytes) -> list[tuple[int, int, int, int, int, bytes]]:
    """(feed, kind, flags, recv_ns, seq, body) of each record of a payload."""
    out, at = [], 0
    while at < len(payload):
        size, feed, kind, flags, recv_ns, seq = struct.unpack_from("<IHBBqQ", payload, at)
        out.append((feed, kind, flags, recv_ns, seq, payload[at + 24 : at + size]))
        at += size
    return out
