"""IEX-TP bytes for tests, written with struct from the specification and not from the tables under test."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from microrisk.feed.pcap import Endpoint, pcap_header, pcap_record

TOPS, DEEP, DEEP_PLUS = 0x8003, 0x8004, 0x8005
T0 = 1_500_000_000_000_000_000
S = 10**9


def segment(
    first: int, messages: Sequence[bytes] = (), *, protocol: int = DEEP, session: int = 7, sent: int = T0,
    offset: int = 1, channel: int = 1, count: int | None = None, payload: int | None = None, version: int = 1,
) -> bytes:  # fmt: skip
    body = b"".join(struct.pack("<H", len(m)) + m for m in messages)
    head = struct.pack(
        "<BBHIIHHqqq", version, 0, protocol, channel, session, len(body) if payload is None else payload,
        len(messages) if count is None else count, offset, first, sent,
    )  # fmt: skip
    return head + body


def capture(segments: Iterable[bytes], *, start: int = T0, step: int = 1000) -> bytes:
    records = [pcap_record(start + k * step, Endpoint().frame(s, k)) for k, s in enumerate(segments)]
    return pcap_header() + b"".join(records)


def _head(code: str, first: int, symbol: str, ts: int) -> bytes:
    return struct.pack("<cBq8s", code.encode(), first, ts, symbol.encode("latin-1").ljust(8))


def level(side: str, px: int, qty: int, *, symbol: str = "ABC", complete: bool = True, ts: int = T0) -> bytes:
    return _head("8" if side == "B" else "5", int(complete), symbol, ts) + struct.pack("<Iq", qty, px)


def quote(bid: tuple[int, int], ask: tuple[int, int], *, symbol: str = "ABC", ts: int = T0) -> bytes:
    (bid_px, bid_qty), (ask_px, ask_qty) = bid, ask
    return _head("Q", 0, symbol, ts) + struct.pack("<IqqI", bid_qty, bid_px, ask_px, ask_qty)


def trade(
    px: int, qty: int, number: int = 5, *, flags: int = 0, symbol: str = "ABC", ts: int = T0, code: str = "T"
) -> bytes:
    return _head(code, flags, symbol, T0) + struct.pack("<Iqq", qty, px, number)


def status(letter: str, *, symbol: str = "ABC", ts: int = T0) -> bytes:
    return _head("H", ord(letter), symbol, ts) + b"NA  "


def system(letter: str, ts: int = T0) -> bytes:
    return struct.pack("<ccq", b"S", letter.encode(), ts)


def add(side: str, order: int, px: int, qty: int, *, symbol: str = "ABC", ts: int = T0) -> bytes:
    return _head("a", ord({"B": "8", "S": "5"}.get(side, side)), symbol, ts) + struct.pack("<QIq", order, qty, px)


def modify(order: int, px: int, qty: int, *, keep: bool = False, symbol: str = "ABC", ts: int = T0) -> bytes:
    return _head("M", int(keep), symbol, ts) + struct.pack("<QIq", order, qty, px)


def delete(order: int, *, symbol: str = "ABC", ts: int = T0) -> bytes:
    return _head("R", 0, symbol, ts) + struct.pack("<Q", order)


def executed(
    order: int, px: int, qty: int, number: int = 9, *, flags: int = 0, symbol: str = "ABC", ts: int = T0
) -> bytes:
    return _head("L", flags, symbol, T0) + struct.pack("<QIqq", order, qty, px, number)


def clear(*, symbol: str = "ABC", ts: int = T0) -> bytes:
    return _head("C", 0, symbol, ts)


def others() -> dict[str, bytes]:
    """A message of each type that is only counted."""
    return {
        "D": _head("D", 0x80, "ABC", T0) + struct.pack("<IqB", 100, 10_000, 1),
        "O": _head("O", ord("N"), "ABC", T0),
        "P": _head("P", 0, "ABC", T0) + b"N",
        "E": _head("E", ord("O"), "ABC", T0),
        "X": _head("X", ord("Q"), "ABC", T0) + struct.pack("<q", 10_000),
        "A": _head("A", ord("O"), "ABC", T0) + bytes(62),
        "B": trade(10_000, 100, code="B"),
        "I": _head("I", ord(" "), "ABC", T0),
        "S": system("O"),
    }
