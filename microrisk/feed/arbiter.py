"""Arbitration of MoldUDP64 lines, message by message: the naive twin of the C++ arbiter behind `core.LiveFeed`.

Every message that is not next is kept in a dictionary by number; holes are ranges in a list. Slow and short: tests
compare the records that both make. Not modelled: the bound in bytes on what is held.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from itertools import count as numbers

from microrisk.feed.mold import HEADER, MAX_SEQUENCE
from microrisk.spec.journal import Kind
from microrisk.spec.messages import MOLD_END_OF_SESSION, MOLD_HEARTBEAT

MAX_AHEAD = 1 << 32
"""A number further ahead than this is not believed."""

Record = tuple[Kind, int, int, bytes]
"""Kind, receive time in ns, sequence number, body."""
Range = tuple[int, int, int]
"""First, end, receive time of the packet that showed it."""


@dataclass
class Arbiter:
    """One feed; `records` grows by what each call makes.

    Parameters
    ----------
    midnight_ns : for the SESSION record of the first session
    session : its name, 10 bytes; b"" takes the first that comes
    expected : next number; 0 takes what comes first
    window : messages held at most
    """

    midnight_ns: int = 0
    session: bytes = b""
    expected: int = 0
    window: int = 65536
    ended: bool = False
    records: list[Record] = field(default_factory=list)
    missing: list[Range] = field(default_factory=list)
    waiting: list[bytes] = field(default_factory=list)
    held: dict[int, bytes] = field(default_factory=dict)
    joining: bool = False

    def __post_init__(self) -> None:
        self._seen = self.expected
        self._end = 0
        self._past: set[bytes] = set()

    def take(self, datagram: bytes, now: int) -> None:
        """A datagram of any line."""
        if len(datagram) < HEADER.size:
            return
        name, seq, count = HEADER.unpack_from(datagram)
        data = MOLD_HEARTBEAT < count < MOLD_END_OF_SESSION
        if (data and (len(datagram) == HEADER.size or seq > MAX_SEQUENCE - count)) or seq == 0:
            return
        if not self.session:
            self.session = name
            self._put(Kind.SESSION, now, self.expected or seq, struct.pack("<q", self.midnight_ns) + name)
        if name != self.session:
            self._wait(name, datagram)
        elif self._believed(seq):
            if data:
                self._accept(seq, _blocks(datagram, HEADER.size, count), now)
            else:
                self._idle(seq, count, now)

    def take_stream(self, seq: int, blocks: bytes, now: int) -> None:
        """Blocks from number `seq` on."""
        found = _blocks(blocks, 0, len(blocks))
        if found and 0 < seq <= MAX_SEQUENCE - len(found) and self._believed(seq):
            self._accept(seq, found, now)

    def give_up(self, upto: int, now: int) -> int:
        """Declare what is missing below `upto` lost; how many."""
        lost = 0
        while not self.joining and self.missing and self.missing[0][0] < upto:
            lost += self._lose(upto, now)
            self._release(now)
        self._settle(now)
        return lost

    def begin_session(self, name: bytes, midnight_ns: int, now: int, first: int = 1) -> None:
        """What is held of the old session is handed on; then the new one, and what waited for it."""
        self.give_up(self._seen, now)
        if self.session:
            self._past.add(self.session)
        self._past.discard(name)
        if self.waiting and self.waiting[0][:10] != name:
            self._past.add(self.waiting[0][:10])
            self.waiting = []
        self.session, self.midnight_ns = name, midnight_ns
        self.expected = self._seen = first
        self._end, self.ended, self.joining = 0, False, False
        self.held, self.missing = {}, []
        self._put(Kind.SESSION, now, first, struct.pack("<q", midnight_ns) + name)
        waiting, self.waiting = self.waiting, []
        for datagram in waiting:
            self.take(datagram, now)

    def begin_join(self) -> None:
        """Hold whatever comes."""
        self.joining = True

    def joined(self, seq: int, now: int) -> None:
        """The books stand in front of `seq`."""
        self.joining = False
        old, self._seen = self.expected or seq, max(self._seen, seq)
        self.held = {n: m for n, m in self.held.items() if n >= seq}
        self.missing = [(max(a, seq), b, since) for a, b, since in self.missing if b > seq]
        if seq < old:
            self.missing.insert(0, (seq, old, now))
        self.expected = seq
        self._settle(now)

    def _put(self, kind: Kind, now: int, seq: int, body: bytes) -> None:
        self.records.append((kind, now, seq, body))

    def _wait(self, name: bytes, datagram: bytes) -> None:
        """Datagrams of one other session wait."""
        if name not in self._past and all(d[:10] == name for d in self.waiting):
            self.waiting.append(datagram)

    def _believed(self, seq: int) -> bool:
        if self.expected == 0:
            self.expected = self._seen = seq
        return seq - self._seen <= MAX_AHEAD

    def _idle(self, seq: int, count: int, now: int) -> None:
        if count == MOLD_END_OF_SESSION and self._end == 0:
            self._end = seq
        self._reveal(seq, now)
        self._settle(now)

    def _reveal(self, upto: int, now: int) -> None:
        """Numbers below `upto` exist."""
        if upto <= self._seen:
            return
        if self.missing and self.missing[-1][1] == self._seen:
            first, _, now = self.missing.pop()
            self.missing.append((first, upto, now))
        else:
            self.missing.append((self._seen, upto, now))
        self._seen = upto

    def _accept(self, seq: int, blocks: list[bytes], now: int) -> None:
        if not blocks:
            self._settle(now)
            return
        self._reveal(seq, now)
        for number, block in zip(numbers(seq), blocks, strict=False):
            if number >= self._seen or any(a <= number < b for a, b, _ in self.missing):
                self.held[number] = block
                self._seen = max(self._seen, number + 1)
        self.missing = [part for hole in self.missing for part in self._without_held(hole, seq, seq + len(blocks))]
        self._settle(now)

    @staticmethod
    def _without_held(hole: Range, first: int, end: int) -> list[Range]:
        a, b, since = hole
        parts = [(a, min(b, first), since), (max(a, end), b, since)]
        return [part for part in parts if part[0] < part[1]]

    def _release(self, now: int) -> None:
        """One RUN of what is next."""
        first, body = self.expected, b""
        while self.expected in self.held:
            body += self.held.pop(self.expected)
            self.expected += 1
        if self.expected > first:
            self._put(Kind.RUN, now, first, body)

    def _lose(self, upto: int, now: int) -> int:
        """GAP over the first hole, as far as it lies below `upto`; its length."""
        first, end, since = self.missing.pop(0)
        if end > upto:
            self.missing.insert(0, (upto, end, since))
            end = upto
        self._put(Kind.GAP, now, first, struct.pack("<Q", end - first))
        self.expected = end
        return end - first

    def _settle(self, now: int) -> None:
        if self.joining:
            return
        self._release(now)
        while len(self.held) > self.window:
            self._lose(self._seen, now)
            self._release(now)
        if self._end and not self.ended and self.expected >= self._end:
            self.ended = True
            self._put(Kind.END, now, self._end, b"")


def _blocks(data: bytes, offset: int, count: int) -> list[bytes]:
    """Up to `count` whole blocks, with their lengths."""
    out = []
    for _ in range(count):
        end = offset + 2 + int.from_bytes(data[offset : offset + 2], "big")
        if offset + 2 > len(data) or end > len(data):
            break
        out.append(data[offset:end])
        offset = end
    return out
