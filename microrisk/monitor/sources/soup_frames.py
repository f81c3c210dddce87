"""SoupBinTCP packets: building them, and taking a byte stream apart however TCP has cut it.

Layout (Nasdaq SoupBinTCP 3.00 to 4.10): length u16 big-endian of what follows | type, one character | payload. A length
of 0 is a violation. Sequenced data (`S`) of one read are handed out together in the journal's form, blocks of u16
length and message, because a snapshot has a million of them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from microrisk.errors import EncodeError, FeedError

MOST_FRAME = 2 + 0xFFFF
MOST_RUN = 64 << 10
"""Bytes of blocks in one run, by default."""
SESSION_BYTES, SEQ_BYTES = 10, 20
LOGIN_ACCEPTED_BYTES = SESSION_BYTES + SEQ_BYTES

_LENGTH = struct.Struct(">H")
_PREFIX = [_LENGTH.pack(n) for n in range(1 << 16)]
_SEQUENCED = ord("S")


class Packet(NamedTuple):
    """One packet, or (kind `S`) a run of sequenced ones.

    Attributes
    ----------
    kind : type character
    messages : 1 but for runs
    body : payload; of a run blocks
    last : of a run, offset of its last block in body
    """

    kind: bytes
    messages: int
    body: bytes
    last: int = 0


class Frames:
    """Incremental parser; `take` bytes as they come.

    Parameters
    ----------
    most_run : bytes of blocks that one run holds at most (a single message may be longer)
    """

    def __init__(self, most_run: int = MOST_RUN) -> None:
        self._most_run = most_run
        self._rest = b""

    @property
    def pending(self) -> int:
        """Bytes of a packet that is not whole yet; at most MOST_FRAME."""
        return len(self._rest)

    def take(self, data: bytes) -> Iterator[Packet]:
        """Packets that are whole now, in order. Run the iterator to its end before the next call.

        Raises
        ------
        FeedError : a length of 0; the stream cannot be trusted from there on
        """
        data = self._rest + data if self._rest else data
        self._rest = b""
        at, size = 0, len(data)
        while at + 3 <= size:
            length = data[at] << 8 | data[at + 1]
            if length == 0:
                break
            if data[at + 2] == _SEQUENCED:
                run, stop = self._run(data, at)
                if run is None:
                    break
                yield run
                at = stop
                continue
            stop = at + 2 + length
            if stop > size:
                break
            yield Packet(data[at + 2 : at + 3], 1, data[at + 3 : stop])
            at = stop
        if data[at : at + 2] == b"\0\0":
            raise FeedError("a SoupBinTCP packet of length 0")
        self._rest = data[at:]

    def _run(self, data: bytes, at: int) -> tuple[Packet | None, int]:
        """Sequenced packets from `at` on, as blocks, and where they end."""
        size, end, begin = len(data), at + self._most_run, at
        parts: list[bytes] = []
        add, prefix, last = parts.append, _PREFIX, at
        while at + 3 <= size and data[at + 2] == _SEQUENCED:
            length = data[at] << 8 | data[at + 1]
            stop = at + 2 + length
            # a block is one byte shorter than its packet, so that the limit is kept
            if length == 0 or stop > size or (stop > end and parts):
                break
            add(prefix[length - 1])
            add(data[at + 3 : stop])
            last, at = at, stop
        count = len(parts) // 2
        if not count:
            return None, begin
        return Packet(b"S", count, b"".join(parts), last - begin - (count - 1)), at


def pack(kind: bytes, payload: bytes = b"") -> bytes:
    """One packet. EncodeError when it does not fit."""
    if len(kind) != 1 or len(payload) >= 0xFFFF:
        raise EncodeError("packet", f"{kind!r}, {len(payload)} bytes", "one character and at most 65,534 bytes")
    return _PREFIX[1 + len(payload)] + kind + payload


def login_request(user: str, password: str, session: str, seq: int, timeout_ms: int | None = None) -> bytes:
    """`L`: 49 bytes, with the heartbeat timeout of 4.10 54. Session "" = the current one; seq 0 = from now on.

    Raises
    ------
    EncodeError : a field that does not fit; the password's own text is not told
    """
    fields = (("user", user, 6), ("password", password, 10), ("session", session, SESSION_BYTES))
    for name, text, width in fields:
        if len(text) > width or not text.isascii() or (text and not text.isprintable()):
            told = "***" if name == "password" else text
            raise EncodeError(name, told, f"at most {width} printable ASCII characters")
    if not 0 <= seq < 10**SEQ_BYTES or not 0 <= (timeout_ms or 0) < 10**5:
        raise EncodeError("login", (seq, timeout_ms), "a number of 20 digits and a timeout of 5 digits of ms")
    body = user.ljust(6) + password.ljust(10) + session.rjust(SESSION_BYTES) + str(seq).rjust(SEQ_BYTES)
    if timeout_ms is not None:
        body += str(timeout_ms).rjust(5)
    return pack(b"L", body.encode("ascii"))


def login_accepted(payload: bytes) -> tuple[bytes, int]:
    """Session (ten bytes, blanks behind it as in MoldUDP64) and the number of the next sequenced message.

    Raises
    ------
    FeedError : another form
    """
    digits = payload[SESSION_BYTES:].strip(b" ")
    if len(payload) != LOGIN_ACCEPTED_BYTES or not digits.isdigit() or int(digits) >= 1 << 64:
        raise FeedError(f"a login answer that cannot be read: {payload[:40]!r}")
    return payload[:SESSION_BYTES].strip(b" ").ljust(SESSION_BYTES), int(digits)


REJECTED = {
    b"A": "login refused: not authorised (user or password)",
    b"S": "login refused: the session is not available",
}


def login_rejected(payload: bytes) -> str:
    """The reason of a `J` in a sentence."""
    return REJECTED.get(payload[:1], f"login refused: reason {payload[:1]!r}")
