"""Writes itch_all_types.bin: one message of each of the 23 ITCH 5.0 types, byte for byte from the published layout.

Every value below is typed in by hand with struct.pack formats read off the Nasdaq TotalView-ITCH 5.0 tables; nothing
here comes from the project's own tables, decoder or encoder, so that it can contradict them.
Run: python tests/golden/make.py
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

HERE = Path(__file__).parent
T0 = 34_200_000_000_000  # 09:30:00, ns after midnight


def header(code: bytes, locate: int, tracking: int, ns: int) -> bytes:
    """Type, stock locate, tracking number, and the 6-byte time."""
    return struct.pack(">cHHHI", code, locate, tracking, ns >> 32, ns & 0xFFFFFFFF)


MESSAGES = [
    # S system event: start of market hours
    header(b"S", 0, 0, T0) + struct.pack(">c", b"Q"),
    # R stock directory: MSFT, Global Select, round lot 100
    header(b"R", 5432, 1, T0 + 1)
    + struct.pack(">8sccIcc2s", b"MSFT    ", b"Q", b"N", 100, b"N", b"C", b"Z ")
    + struct.pack(">cccccIc", b"P", b"N", b"N", b"1", b"N", 0, b"N"),
    # H trading action: trading
    header(b"H", 5432, 2, T0 + 2) + struct.pack(">8scc4s", b"MSFT    ", b"T", b" ", b"    "),
    # Y Reg SHO: restriction in effect
    header(b"Y", 5432, 3, T0 + 3) + struct.pack(">8sc", b"MSFT    ", b"1"),
    # L market participant position
    header(b"L", 5432, 4, T0 + 4) + struct.pack(">4s8sccc", b"GSCO", b"MSFT    ", b"Y", b"N", b"A"),
    # V MWCB decline levels, 8 decimals
    header(b"V", 0, 5, T0 + 5) + struct.pack(">QQQ", 448_623_000_000, 419_666_000_000, 385_900_000_001),
    # W MWCB status: level 1 breached
    header(b"W", 0, 6, T0 + 6) + struct.pack(">c", b"1"),
    # K IPO quoting period: release at 10:30:00, price 21.5000
    header(b"K", 77, 7, T0 + 7) + struct.pack(">8sIcI", b"NEWCO   ", 37_800, b"A", 215_000),
    # J LULD auction collar
    header(b"J", 77, 8, T0 + 8) + struct.pack(">8sIIII", b"NEWCO   ", 215_000, 225_700, 204_300, 2),
    # h operational halt on Nasdaq
    header(b"h", 77, 9, T0 + 9) + struct.pack(">8scc", b"NEWCO   ", b"Q", b"H"),
    # A add order: buy 300 MSFT at 331.0700
    header(b"A", 5432, 10, T0 + 10) + struct.pack(">QcI8sI", 0x0123456789ABCDEF, b"B", 300, b"MSFT    ", 3_310_700),
    # F add order with attribution: sell 500 at 331.1000
    header(b"F", 5432, 11, T0 + 11) + struct.pack(">QcI8sI4s", 1_000_002, b"S", 500, b"MSFT    ", 3_311_000, b"NITE"),
    # E executed: 100 of the first order
    header(b"E", 5432, 12, T0 + 12) + struct.pack(">QIQ", 0x0123456789ABCDEF, 100, 9_000_001),
    # C executed with price, not printable
    header(b"C", 5432, 13, T0 + 13) + struct.pack(">QIQcI", 1_000_002, 50, 9_000_002, b"N", 3_310_950),
    # X partial cancel
    header(b"X", 5432, 14, T0 + 14) + struct.pack(">QI", 0x0123456789ABCDEF, 25),
    # U replace: the first order becomes 1,000,003 at 331.0800
    header(b"U", 5432, 15, T0 + 15) + struct.pack(">QQII", 0x0123456789ABCDEF, 1_000_003, 180, 3_310_800),
    # D delete the second order
    header(b"D", 5432, 16, T0 + 16) + struct.pack(">Q", 1_000_002),
    # P trade against a hidden order
    header(b"P", 5432, 17, T0 + 17) + struct.pack(">QcI8sIQ", 0, b"B", 7, b"MSFT    ", 3_310_850, 9_000_003),
    # Q cross trade: more shares than 32 bits hold
    header(b"Q", 5432, 18, T0 + 18) + struct.pack(">Q8sIQc", 5_000_000_000, b"MSFT    ", 3_310_600, 9_000_004, b"O"),
    # B broken trade
    header(b"B", 5432, 19, T0 + 19) + struct.pack(">Q", 9_000_003),
    # I net order imbalance
    header(b"I", 5432, 20, T0 + 20)
    + struct.pack(">QQc8sIIIcc", 120_000, 3_500, b"B", b"MSFT    ", 3_310_000, 3_310_500, 3_310_600, b"C", b"L"),
    # N retail interest on both sides
    header(b"N", 5432, 21, T0 + 21) + struct.pack(">8sc", b"MSFT    ", b"A"),
    # O direct listing with capital raise
    header(b"O", 78, 22, T0 + 22)
    + struct.pack(">8scIIIQII", b"DLCR    ", b"Y", 160_000, 360_000, 200_000, T0 + 5_000_000_000, 180_000, 220_000),
]


def main() -> None:
    """Write the file and its description."""
    data = b"".join(struct.pack(">H", len(m)) + m for m in MESSAGES) + b"\0\0"
    (HERE / "itch_all_types.bin").write_bytes(data)
    facts = {
        "file": "itch_all_types.bin",
        "origin": "made by make.py from the public Nasdaq TotalView-ITCH 5.0 layout; the values are invented",
        "licence": "Apache-2.0",
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "messages": len(MESSAGES),
        "command": "python tests/golden/make.py",
    }
    (HERE / "metadata.json").write_text(json.dumps([facts], indent=1) + "\n")


if __name__ == "__main__":
    main()
