"""The C++ arbiter and its naive twin make the same records of lines that lose, shuffle, repeat, lie and restart."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microrisk.core import Engine, Journal, LiveFeed
from microrisk.feed.arbiter import Arbiter, Record
from microrisk.feed.mold import HEADER
from microrisk.spec.journal import BLOCK_HEADER_BYTES, Kind
from tests.monitor.journal_bytes import parse

NAMES = [b"SESSION001", b"SESSION002", b"SESSION003"]


class Pair:
    """Both arbiters; `compare` asks whether their records and holes are the same."""

    def __init__(self, fd: int, *, session: bytes = b"", expected: int = 0, window: int = 65536) -> None:
        self.fd = fd
        self.journal = Journal(fd)
        self.feed = LiveFeed(Engine(), number=3, midnight_ns=7, session=session, expected=expected, window=window)
        self.twin = Arbiter(7, session, expected, window)
        self.records: list[Record] = []

    def take(self, datagram: bytes, now: int, line: int = 0) -> None:
        self.feed.take(line, datagram, now, self.journal)
        self.twin.take(datagram, now)

    def compare(self) -> None:
        self.records += self._written()
        assert self.records == self.twin.records
        assert self.feed.holes() == [(a, b - a, since) for a, b, since in self.twin.missing]
        assert (self.feed.expected, self.feed.ended) == (self.twin.expected, self.twin.ended)
        counters = self.feed.counters()
        assert counters["held"] == len(self.twin.held)
        assert counters["missing"] == sum(b - a for a, b, _ in self.twin.missing)
        assert counters["waiting"] == len(self.twin.waiting)
        assert (self.feed.waiting_session() is None) == (not self.twin.waiting)

    def _written(self) -> list[Record]:
        begin = os.lseek(self.fd, 0, os.SEEK_END)
        size = self.journal.flush()
        data = os.pread(self.fd, size, begin)
        return [(Kind(k), at, seq, body) for _, k, _, at, seq, body in parse(data[BLOCK_HEADER_BYTES:])]


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    out = os.open(tmp_path / "journal", os.O_CREAT | os.O_RDWR)
    yield out
    os.close(out)


def block(number: int, name: bytes) -> bytes:
    """The message of a number: lengths 0 to 40, so that some only use up their number."""
    message = (name + number.to_bytes(8, "big")) * 3
    message = message[: number * 7 % 41]
    return len(message).to_bytes(2, "big") + message


def packet(first: int, n: int, name: bytes = NAMES[0]) -> bytes:
    return HEADER.pack(name, first, n) + b"".join(block(first + i, name) for i in range(n))


def idle(seq: int, name: bytes = NAMES[0], count: int = 0) -> bytes:
    return HEADER.pack(name, seq, count)


def two_lines(rng: random.Random, name: bytes, messages: int) -> list[tuple[float, int, bytes]]:
    """(time, line, datagram) of a session over two lines that pack differently, lose, shuffle and repeat."""
    out = []
    loss = rng.choice([0.0, 0.05, 0.3])
    for line in (0, 1):
        at = 1
        while at <= messages:
            n = min(rng.randint(1, 12), messages + 1 - at)
            sent = [rng.uniform(0, 15), rng.uniform(0, 60)] if rng.random() < 0.1 else [rng.uniform(0, 15)]
            out += [(at + late, line, packet(at, n, name)) for late in sent if rng.random() >= loss]
            at += n
            if rng.random() < 0.1:
                out.append((at + rng.uniform(0, 10), line, idle(at, name)))
        out += [(messages + 20.0 + k, line, idle(messages + 1, name, 0xFFFF)) for k in range(3)]
    return out


def damaged(rng: random.Random, datagram: bytes) -> bytes:
    """The same with its end cut, a byte behind the name changed, or bytes added."""
    kind = rng.randrange(3)
    if kind == 0:
        return datagram[: rng.randrange(len(datagram))]
    if kind == 1:
        return datagram + rng.randbytes(rng.randint(1, 30))
    at = rng.randrange(10, len(datagram))
    return datagram[:at] + rng.randbytes(1) + datagram[at + 1 :]


@pytest.mark.parametrize("seed", range(40))
def test_the_same_records(fd: int, seed: int) -> None:
    """Sessions follow each other while the old one is still heard; holes are given up now and then."""
    rng = random.Random(seed)
    pair = Pair(
        fd,
        session=rng.choice([b"", NAMES[0]]),
        expected=rng.choice([0, 1]),
        window=rng.choice([0, 5, 40, 65536]),
    )
    sent: list[tuple[float, int, bytes]] = []
    for k, name in enumerate(NAMES[: rng.randint(1, 3)]):
        sent += [(at + 250 * k, line, d) for at, line, d in two_lines(rng, name, rng.randint(20, 300))]
    dirty = rng.random() < 0.5
    for at, line, datagram in sorted(sent):
        now = int(at * 1000)
        pair.take(damaged(rng, datagram) if dirty and rng.random() < 0.05 else datagram, now, line)
        act(rng, pair, now)
        if rng.random() < 0.2:
            pair.compare()
    pair.feed.give_up(1 << 63, 10**9, pair.journal)
    pair.twin.give_up(1 << 63, 10**9)
    pair.compare()
    assert pair.feed.holes() == []
    assert any(kind == Kind.RUN for kind, *_ in pair.records)


def act(rng: random.Random, pair: Pair, now: int) -> None:
    """What recovery does: answers, giving up, another session."""
    feed, twin = pair.feed, pair.twin
    holes = feed.holes()
    if holes and rng.random() < 0.1:
        first, count, _ = rng.choice(holes)
        n = min(rng.randint(1, 20), count)
        blocks = b"".join(block(first + i, feed.session) for i in range(n))
        feed.take_stream(first, blocks, now, pair.journal)
        twin.take_stream(first, blocks, now)
    if holes and rng.random() < 0.1:
        upto = holes[0][0] + rng.randint(0, 30)
        assert feed.give_up(upto, now, pair.journal) == twin.give_up(upto, now)
    name = feed.waiting_session()
    if name is not None and rng.random() < 0.1:
        feed.begin_session(name, now, now, pair.journal)
        twin.begin_session(name, now, now)


@pytest.mark.parametrize("seed", range(20))
def test_the_same_join(fd: int, seed: int) -> None:
    """An image is joined in front of, inside and behind what is held."""
    rng = random.Random(seed)
    pair = Pair(fd, expected=rng.choice([0, 1]))
    sent = sorted(two_lines(rng, NAMES[0], 200))
    begin = rng.randrange(len(sent) // 2)
    for k, (at, line, datagram) in enumerate(sent):
        now = int(at * 1000)
        if k == begin:
            pair.feed.begin_join()
            pair.twin.begin_join()
        if k == begin + len(sent) // 3:
            seq = max(1, pair.feed.expected + rng.randint(-30, 150))
            pair.feed.joined(seq, now, pair.journal)
            pair.twin.joined(seq, now)
        pair.take(datagram, now, line)
        pair.compare()
    assert not pair.feed.joining


HEADERS = st.tuples(
    st.sampled_from([*NAMES, b"\0" * 10]),
    st.one_of(st.integers(0, 60), st.sampled_from([1 << 31, 1 << 32, (1 << 63) + 5, (1 << 64) - 1])),
    st.one_of(st.integers(0, 12), st.sampled_from([0xFFFE, 0xFFFF])),
)


@given(st.lists(st.tuples(HEADERS, st.binary(max_size=40), st.integers(0, 12)), max_size=25), st.integers(0, 8))
@settings(max_examples=150)
def test_hostile_headers(
    tmp_path_factory: pytest.TempPathFactory, sent: list[tuple[object, bytes, int]], n: int
) -> None:
    """Any name, number, count and blocks: numbers far ahead, counts that the datagram does not hold, garbage."""
    path = tmp_path_factory.mktemp("twin") / "journal"
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        pair = Pair(fd, expected=1, window=n)
        for now, (header, tail, blocks) in enumerate(sent):
            assert isinstance(header, tuple)
            name, seq, count = header
            body = b"".join(block(seq % 50 + i, name) for i in range(blocks))
            pair.take(HEADER.pack(name, seq, count) + body + tail, now)
            pair.compare()
    finally:
        os.close(fd)


def test_what_is_counted(fd: int) -> None:
    """One datagram of each kind that is not taken, and the counter that says so."""
    pair = Pair(fd, expected=1)
    good = packet(1, 3)
    cases = {
        "malformed": [
            b"short",
            good[:19],
            packet(4, 2)[:-1],
            HEADER.pack(NAMES[0], (1 << 64) - 2, 3) + b"\0" * 6,
        ],
        "requests": [idle(5, count=3)],
        "unsequenced": [HEADER.pack(NAMES[0], 0, 2) + b"\0\0\0\0"],
        "wild": [packet((1 << 32) + 100, 1)],
        "heartbeats": [idle(4)],
        "behind": [idle(2)],
        "trailing": [idle(4) + b"xyz"],
        "ends": [idle(4, count=0xFFFF), idle(4, count=0xFFFF)],
    }
    pair.take(good, 0)
    for name, datagrams in cases.items():
        before = pair.feed.counters()[name]
        for k, datagram in enumerate(datagrams):
            pair.take(datagram, k)
        grown = {"malformed": 4, "unsequenced": 2, "trailing": 3, "ends": 2}.get(name, 1)
        assert pair.feed.counters()[name] - before == grown, name
    pair.compare()
    assert pair.feed.ended
    assert [kind for kind, *_ in pair.records].count(Kind.END) == 1


def test_a_late_message_is_told_from_a_copy(fd: int) -> None:
    pair = Pair(fd, expected=1)
    for datagram in (packet(1, 2), packet(5, 2), idle(9)):
        pair.take(datagram, 10)
    assert pair.feed.holes() == [(3, 2, 10), (7, 2, 10)]
    assert pair.feed.give_up(5, 20, pair.journal) == pair.twin.give_up(5, 20) == 2
    pair.take(packet(2, 3), 30)
    pair.take(packet(7, 2), 40)
    pair.compare()
    counters = pair.feed.counters()
    assert (counters["duplicates"], counters["late"], counters["recovered"]) == (3, 2, 2)
    assert (counters["missing_a"], counters["reordered"]) == (4, 2)


def test_a_hole_is_given_up_in_part(fd: int) -> None:
    pair = Pair(fd, expected=1)
    pair.take(packet(10, 2), 5)
    assert pair.feed.give_up(4, 6, pair.journal) == pair.twin.give_up(4, 6) == 3
    pair.compare()
    assert pair.feed.holes() == [(4, 6, 5)]
    pair.take(packet(4, 6), 7)
    pair.compare()
    assert [kind for kind, *_ in pair.records] == [Kind.SESSION, Kind.GAP, Kind.RUN]


def test_a_session_comes_back(fd: int) -> None:
    """One, two, one again: while it is over its packets are foreign; once begun again they count from 1."""
    pair = Pair(fd, expected=1)
    pair.take(packet(1, 2), 1)
    for now, name in ((10, NAMES[1]), (20, NAMES[0]), (30, NAMES[1])):
        pair.feed.begin_session(name, now, now, pair.journal)
        pair.twin.begin_session(name, now, now)
        other = NAMES[0] if name == NAMES[1] else NAMES[1]
        pair.take(packet(1, 3, other), now + 1)
        pair.take(packet(1, 3, name), now + 2)
        assert pair.feed.waiting_session() is None
        pair.compare()
    assert pair.feed.counters()["foreign"] == 3


def test_a_session_can_be_refused(fd: int) -> None:
    pair = Pair(fd, session=NAMES[0], expected=1)
    for n in (1, 4):
        pair.feed.take(0, packet(n, 3, NAMES[1]), n, pair.journal)
    pair.feed.take(0, packet(1, 3, NAMES[2]), 8, pair.journal)  # a third one does not wait
    assert pair.feed.waiting_session() == NAMES[1]
    assert (pair.feed.counters()["waiting"], pair.feed.counters()["foreign"]) == (2, 1)
    pair.feed.refuse_session()
    pair.feed.take(0, packet(7, 3, NAMES[1]), 9, pair.journal)
    assert pair.feed.waiting_session() is None
    assert pair.feed.counters()["foreign"] == 4
    assert pair.journal.pending_records == 0
