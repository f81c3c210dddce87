"""MoldUDP64 1.00: messages in numbered packets over UDP multicast; writer and reader of captures.

A packet has a session (10 characters), the sequence of its first message, a count, and length-prefixed blocks. Count 0
is a heartbeat, 65535 the end of the session; both carry the next expected sequence. The reader arbitrates per message:
the first copy of a sequence is yielded, later ones (a B line, a retransmission) are counted. It is the naive twin of
the C++ reader (`MoldCapture`), which the feeds use.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from microrisk.errors import EncodeError
from microrisk.feed.pcap import CaptureCounters, Endpoint, iter_udp, pcap_header, pcap_record
from microrisk.spec.messages import MOLD_END_OF_SESSION, MOLD_HEADER, MOLD_HEARTBEAT

HEADER = struct.Struct(">10sQH")
assert HEADER.size == MOLD_HEADER.length
MAX_PAYLOAD = 1400
"""Bytes of UDP payload that the writer fills at most: below an Ethernet frame's 1472."""
HEARTBEAT_NS = 1_000_000_000
MAX_SEQUENCE = (1 << 64) - 1
MAX_GAPS = 10_000
"""Gaps kept one by one; the counts go on."""


@dataclass(frozen=True)
class Gap:
    """Messages that never came: session, first missing sequence, how many, receive time (ns) of the next packet."""

    session: str
    first: int
    count: int
    ts_recv: int


@dataclass
class MoldCounters:
    """Everything a reader met; `capture` is the layer below.

    Attributes
    ----------
    packets, messages : good packets, messages yielded
    heartbeats, requests : packets without blocks
    ended : sessions whose end was seen
    gap, missing : gaps, and messages missing in them
    late : copies that came after a gap had been declared for them (counted in duplicate_seq as well)
    duplicate_seq : messages with a sequence yielded before, or given up
    session_reset : changes to a session not seen before
    malformed : datagrams shorter than a header, with a block beyond their end, or with numbers beyond 64 bits; one that
        the capture has cut is counted there instead
    unsequenced : messages of packets with sequence 0, which the protocol does not use; yielded with sequence 0
    trailing : bytes behind the last block
    """

    packets: int = 0
    messages: int = 0
    heartbeats: int = 0
    requests: int = 0
    ended: int = 0
    gap: int = 0
    missing: int = 0
    late: int = 0
    duplicate_seq: int = 0
    session_reset: int = 0
    malformed: int = 0
    unsequenced: int = 0
    trailing: int = 0
    gaps: list[Gap] = field(default_factory=list)
    capture: CaptureCounters = field(default_factory=CaptureCounters)


@dataclass
class _Session:
    """Next expected sequence (0: none yet) and the ranges given up."""

    name: str
    expected: int = 0
    ended: bool = False
    lost: list[range] = field(default_factory=list)


class MoldReader:
    """State of a receiver over datagrams of any number of lines; feed it with `datagram`.

    The first packet sets the starting point (a capture may begin in the middle of a day), unless `first` says what was
    expected.
    """

    def __init__(self, counters: MoldCounters | None = None, *, first: int = 0) -> None:
        self.counters = counters if counters is not None else MoldCounters()
        self._first = first
        self._sessions: dict[bytes, _Session] = {}

    def datagram(self, payload: memoryview, ts: int, *, cut: bool = False) -> Iterator[tuple[int, int, memoryview]]:
        """Yield (sequence, receive time ns, message) for each new message of one datagram.

        `cut`: the capture holds only its beginning, the blocks that are missing are no error of the sender.
        """
        c = self.counters
        if len(payload) < HEADER.size:
            c.malformed += not cut
            return
        name, seq, count = HEADER.unpack_from(payload)
        data = MOLD_HEARTBEAT < count < MOLD_END_OF_SESSION
        if data and len(payload) == HEADER.size and not cut:
            c.requests += 1
            return
        if data and seq > MAX_SEQUENCE - count:
            c.malformed += 1
            return
        c.packets += 1
        session = self._session(name)
        if seq:
            self._note_gap(session, seq, ts)
        if data:
            yield from self._blocks(session, seq, count, payload, ts, cut=cut)
        else:
            self._idle(session, count, payload)

    def _session(self, name: bytes) -> _Session:
        """The session's state. A name may be any ten bytes: captures exist whose names were blanked."""
        session = self._sessions.get(name)
        if session is None:
            self.counters.session_reset += bool(self._sessions)
            first = 1 if self._sessions else self._first
            session = self._sessions[name] = _Session(name.decode("latin-1").strip(" \0"), first)
        return session

    def _note_gap(self, session: _Session, seq: int, ts: int) -> None:
        """Declare what lies between the expected sequence and `seq` lost."""
        c = self.counters
        if session.expected == 0:
            session.expected = seq
        if seq <= session.expected:
            return
        c.gap += 1
        c.missing += seq - session.expected
        if len(c.gaps) < MAX_GAPS:
            c.gaps.append(Gap(session.name, session.expected, seq - session.expected, ts))
            session.lost.append(range(session.expected, seq))
        session.expected = seq

    def _idle(self, session: _Session, count: int, payload: memoryview) -> None:
        c = self.counters
        c.trailing += len(payload) - HEADER.size
        if count == MOLD_HEARTBEAT:
            c.heartbeats += 1
        elif not session.ended:
            session.ended = True
            c.ended += 1

    def _blocks(
        self, session: _Session, seq: int, count: int, payload: memoryview, ts: int, *, cut: bool
    ) -> Iterator[tuple[int, int, memoryview]]:
        """The blocks of a data packet; a block beyond the datagram ends it, and the rest shows up as a gap later."""
        c, offset, size = self.counters, HEADER.size, len(payload)
        for number in range(seq, seq + count):
            start = offset + 2
            offset = start + (payload[offset] << 8 | payload[offset + 1]) if start <= size else size + 1
            if offset > size:
                c.malformed += not cut
                return
            if seq == 0:
                c.unsequenced += 1
                c.messages += 1
                yield 0, ts, payload[start:offset]
            elif number < session.expected:
                c.duplicate_seq += 1
                c.late += bool(session.lost) and any(number in r for r in session.lost)
            else:
                session.expected = number + 1
                c.messages += 1
                yield number, ts, payload[start:offset]
        c.trailing += size - offset


def iter_messages(
    data: bytes | memoryview, counters: MoldCounters | None = None, *, port: int | None = None, first: int = 0
) -> Iterator[tuple[int, int, memoryview]]:
    """Every message of a capture of MoldUDP64: (sequence, receive time in ns UTC, bare message).

    Parameters
    ----------
    data : a whole pcap or pcapng file
    counters : filled while iterating; pass one to look at it afterwards
    port : keep only datagrams to this UDP port
    first : the first sequence expected; 0 takes what comes first

    Raises FeedError when `data` is no capture.
    """
    reader = MoldReader(counters, first=first)
    for datagram in iter_udp(data, reader.counters.capture):
        if port is None or datagram.port == port:
            yield from reader.datagram(datagram.payload, datagram.ts, cut=datagram.cut)


def mold_packet(session: str, sequence: int, messages: Sequence[bytes]) -> bytes:
    """One downstream packet: header and blocks. No messages = a heartbeat. Raises EncodeError when it does not fit."""
    return _header(session, sequence, len(messages)) + b"".join(len(m).to_bytes(2, "big") + m for m in messages)


def end_of_session(session: str, sequence: int) -> bytes:
    """The packet that ends a session; `sequence` is the next one that would have come."""
    return _header(session, sequence, MOLD_END_OF_SESSION)


def _header(session: str, sequence: int, count: int) -> bytes:
    if len(session) > 10 or not session.isascii() or not session.isprintable():
        raise EncodeError("session", session, "at most 10 printable ASCII characters")
    if not 0 < sequence < 1 << 64:
        raise EncodeError("sequence", sequence, "1 to 2**64 - 1")
    if not 0 <= count <= MOLD_END_OF_SESSION:
        raise EncodeError("count", count, f"0 to {MOLD_END_OF_SESSION}")
    return HEADER.pack(session.encode("ascii").ljust(10), sequence, count)


def packetize(
    messages: Iterable[tuple[int, bytes]],
    *,
    session: str = "MICRORISK",
    first: int = 1,
    max_messages: int = 50,
    max_delay_ns: int = 100_000,
) -> Iterator[tuple[int, bytes]]:
    """Pack (time ns, message) into (send time ns, packet), with heartbeats in pauses and the end of the session.

    A packet is sent when it is full (messages or MAX_PAYLOAD bytes) or when the next message is more than
    `max_delay_ns` behind its first; its time is that of its last message.
    """
    held: list[bytes] = []
    seq, size = first, 0
    begin = now = 0
    for ts, message in messages:
        full = len(held) >= max_messages or size + 2 + len(message) > MAX_PAYLOAD - HEADER.size
        if held and (full or ts - begin > max_delay_ns):
            yield now, mold_packet(session, seq, held)
            seq, held, size = seq + len(held), [], 0
        if not held:
            if now:
                yield from ((t, mold_packet(session, seq, [])) for t in range(now + HEARTBEAT_NS, ts, HEARTBEAT_NS))
            begin = ts
        held.append(message)
        size += 2 + len(message)
        now = max(now, ts)
    if held:
        yield now, mold_packet(session, seq, held)
    yield now, end_of_session(session, seq + len(held))


def capture_bytes(
    packets: Iterable[tuple[int, bytes]], *, endpoint: Endpoint | None = None, drop: Collection[int] = ()
) -> Iterator[bytes]:
    """Pieces of a nanosecond pcap of the (time ns, packet) pairs; packets whose index is in `drop` are left out."""
    end = endpoint or Endpoint()
    yield pcap_header()
    for index, (ts, packet) in enumerate(packets):
        if index not in drop:
            yield pcap_record(ts, end.frame(packet, index))


def write_capture(
    path: str | Path,
    packets: Iterable[tuple[int, bytes]],
    *,
    endpoint: Endpoint | None = None,
    drop: Collection[int] = (),
) -> int:
    """Write capture_bytes() to a file; returns the bytes written."""
    with Path(path).open("wb") as out:
        return sum(out.write(piece) for piece in capture_bytes(packets, endpoint=endpoint, drop=frozenset(drop)))


def timed_messages(framed: bytes, midnight_ns: int = 0) -> Iterator[tuple[int, bytes]]:
    """(UTC ns, message) of length-prefixed ITCH: the way from an encoder's bytes to packetize()."""
    offset = 0
    while offset + 2 <= len(framed):
        end = offset + 2 + (framed[offset] << 8 | framed[offset + 1])
        if end == offset + 2:  # the end mark
            return
        message = framed[offset + 2 : end]
        yield midnight_ns + int.from_bytes(message[5:11], "big"), message
        offset = end
