"""MoldUDP64 lines on loopback: bytes against layouts built here, pacing, sessions, re-requests honest and not."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from microrisk.errors import UsageError
from microrisk.feed.encode import encode_message
from microrisk.feed.mold import MoldReader
from microrisk.monitor.publish import (
    DatagramPlan,
    LineFaults,
    MoldUdpPublisher,
    Pace,
    RequestFaults,
    RerequestServer,
    Tape,
    timed,
)

DEADLINE_S = 10.0


def messages(n: int, start_ns: int = 0, step_ns: int = 1000) -> list[bytes]:
    return [encode_message("S", locate=0, tracking=i, timestamp=start_ns + i * step_ns, event="O") for i in range(n)]


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        s.settimeout(DEADLINE_S)
        yield s


def got(s: socket.socket, n: int) -> list[bytes]:
    return [s.recv(65536) for _ in range(n)]


def header(session: bytes, seq: int, count: int) -> bytes:
    return struct.pack(">10sQH", session, seq, count)


def test_the_bytes_of_packets_heartbeats_and_the_end(receiver: socket.socket) -> None:
    a, b, c = messages(3)
    with MoldUdpPublisher(Tape("DAY1"), receiver.getsockname(), per_packet=2) as publisher:
        assert publisher.send([a, b, c]) == 2
        publisher.heartbeat()
        publisher.end(repeats=2, interval_s=0.0)
    assert got(receiver, 5) == [
        header(b"DAY1      ", 1, 2) + b"\0\x0c" + a + b"\0\x0c" + b,
        header(b"DAY1      ", 3, 1) + b"\0\x0c" + c,
        header(b"DAY1      ", 4, 0),
        header(b"DAY1      ", 4, 0xFFFF),
        header(b"DAY1      ", 4, 0xFFFF),
    ]


@pytest.mark.parametrize("mtu", [60, 200, 1400])
def test_packets_fill_the_mtu_and_no_more(receiver: socket.socket, mtu: int) -> None:
    with MoldUdpPublisher(Tape(), receiver.getsockname(), mtu=mtu, per_packet=10_000) as publisher:
        sent = publisher.send(messages(300))
    sizes = [len(p) for p in got(receiver, sent)]
    assert max(sizes) <= mtu
    assert set(sizes[:-1]) == {20 + 14 * ((mtu - 20) // 14)}


def test_two_multicast_lines_carry_the_same_packets() -> None:
    with MoldUdpPublisher(Tape(), ("239.255.7.1", 0), ("239.255.7.2", 0)) as publisher:
        assert publisher.addresses["A"][1] != 0
        sockets = {line: joined(*address) for line, address in publisher.addresses.items()}
        publisher.send(messages(200))
        count = publisher.counts["packets_a"]
        out = {line: got(s, count) for line, s in sockets.items()}
        for s in sockets.values():
            s.close()
    assert out["A"] == out["B"]
    assert count == publisher.counts["packets_b"] > 1


def joined(group: str, port: int) -> socket.socket:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((group, port))
    s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + socket.inet_aton("127.0.0.1"))
    s.settimeout(DEADLINE_S)
    return s


def test_a_beyond_loopback_address_must_be_meant() -> None:
    with pytest.raises(UsageError, match="192"):
        MoldUdpPublisher(Tape(), ("192.0.2.1", 5000))


def test_pace_by_rate_and_heartbeats_in_pauses(receiver: socket.socket) -> None:
    with MoldUdpPublisher(Tape(), receiver.getsockname(), heartbeat_s=0.03) as publisher:
        begin = time.monotonic()
        publisher.run(timed(messages(5)), Pace(rate=10))
        took = time.monotonic() - begin
        publisher.flush()
        out = got(receiver, publisher.counts["packets_a"])
    assert took >= 0.4
    counts = [struct.unpack(">10sQH", p[:20])[1:] for p in out]
    assert [seq for seq, n in counts if n == 1] == [1, 2, 3, 4, 5]
    assert sum(n == 0 for _, n in counts) >= 4
    assert all(later[0] == seq + n for (seq, n), later in pairwise(counts))


def test_pace_by_recorded_time(receiver: socket.socket) -> None:
    with MoldUdpPublisher(Tape(), receiver.getsockname()) as publisher:
        begin = time.monotonic()
        publisher.run(timed(messages(4, 34_200 * 10**9, 200_000_000)), Pace(speed=4))
        assert 0.15 <= time.monotonic() - begin < 5
    assert publisher.tape.next == 5


def test_another_session_in_the_middle(receiver: socket.socket) -> None:
    with MoldUdpPublisher(Tape("ONE"), receiver.getsockname()) as publisher:
        publisher.run(timed(messages(100)), Pace(), sessions={60: "TWO"})
        out = got(receiver, publisher.counts["packets_a"])
    reader = MoldReader()
    seen = [(seq, bytes(m)) for p in out for seq, _, m in reader.datagram(memoryview(p), 0)]
    assert [seq for seq, _ in seen] == [*range(1, 61), *range(1, 41)]
    assert [m for _, m in seen] == messages(100)
    assert (reader.counters.session_reset, reader.counters.gap) == (1, 0)


def test_loss_on_one_line_leaves_the_other_whole() -> None:
    plan = DatagramPlan(7, {"A": LineFaults(loss=0.2, reorder=8, duplicate=0.1)})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as b:
        for s in (a, b):
            s.bind(("127.0.0.1", 0))
            s.settimeout(DEADLINE_S)
        with MoldUdpPublisher(Tape(), a.getsockname(), b.getsockname(), plan=plan, per_packet=3) as publisher:
            publisher.send(messages(600))
            publisher.flush()
            one, two = got(a, publisher.counts["packets_a"]), got(b, publisher.counts["packets_b"])
    numbers = {seq + i for p in one for _, seq, n in [struct.unpack(">10sQH", p[:20])] for i in range(n)}
    assert set(range(1, 601)) - numbers == plan.log.lost("A") != set()
    assert [m for p in two for _, _, m in MoldReader(first=1).datagram(memoryview(p), 0)]
    assert publisher.counts["packets_b"] == 200


def asked(server: RerequestServer, session: bytes, seq: int, count: int, timeout_s: float = DEADLINE_S) -> bytes | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(timeout_s)
        s.sendto(header(session, seq, count), server.address)
        try:
            return s.recv(65536)
        except TimeoutError:
            return None


def test_re_requests_are_answered_from_the_tape() -> None:
    tape, said = Tape("S1"), messages(300)
    tape.append(said)
    with RerequestServer(tape) as server:
        assert asked(server, b"S1        ", 7, 2) == header(b"S1        ", 7, 2) + b"".join(
            b"\0\x0c" + m for m in said[6:8]
        )
        long = asked(server, b"S1        ", 1, 300)
        assert long is not None
        assert len(long) == 20 + 14 * 98  # what one datagram holds
        tail = asked(server, b"S1        ", 299, 50)
        assert tail is not None
        assert struct.unpack(">10sQH", tail[:20]) == (b"S1        ", 299, 2)


def test_re_requests_that_get_no_answer() -> None:
    tape = Tape("S1")
    tape.append(messages(3))
    with RerequestServer(tape) as server:
        assert server.answer(b"short") is None
        assert server.answer(header(b"S2        ", 1, 1)) is None
        assert server.answer(header(b"S1        ", 4, 1)) is None
        server.faults = RequestFaults(lose=1)
        assert server.answer(header(b"S1        ", 1, 1)) is None
        assert server.answer(header(b"S1        ", 1, 1)) is not None
        server.faults = RequestFaults(dead=True)
        assert asked(server, b"S1        ", 1, 1, timeout_s=0.05) is None
    assert server.counts == {
        "malformed": 1, "requests": 5, "foreign": 1, "forgotten": 1, "lost": 2, "answers": 1, "messages": 1
    }  # fmt: skip


def test_re_request_lies_and_short_answers() -> None:
    tape = Tape("S1")
    tape.append(messages(10))
    with RerequestServer(tape, faults=RequestFaults(lie="session")) as server:
        assert (server.answer(header(b"S1        ", 2, 3)) or b"")[:20] == header(b"NOTTHISONE", 2, 3)
        server.faults = RequestFaults(lie="numbers")
        assert (server.answer(header(b"S1        ", 2, 3)) or b"")[:20] == header(b"S1        ", 1_000_002, 3)
        server.faults = RequestFaults(short=2)
        assert (server.answer(header(b"S1        ", 2, 3)) or b"")[:20] == header(b"S1        ", 2, 2)
        assert [(f.what, f.seq, f.detail) for f in server.log.entries()] == [
            ("lie", 2, "session"),
            ("lie", 2, "numbers"),
            ("short", 2, "3 asked"),
        ]


def test_a_tape_forgets_in_quarters() -> None:
    tape = Tape(keep=8)
    tape.append(messages(9))
    assert (tape.begin, tape.next) == (1, 10)
    tape.append(messages(3))
    assert (tape.begin, tape.next) == (5, 13)
    assert tape.read(4, 5) == []
    assert len(tape.read(5, 100)) == 8
