"""The poller on loopback sockets: datagrams of any size, several feeds, stepped clocks, a full disk."""

from __future__ import annotations

import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from microrisk.book import state_hash
from microrisk.core import Engine, Journal, LiveFeed, Poller, paced_edges
from microrisk.feed.mold import HEADER
from microrisk.feed.pcap import iter_udp
from microrisk.market.simulator import simulate
from microrisk.market.write import write_mold_pcap
from microrisk.pipeline import replay
from microrisk.spec.journal import Kind
from microrisk.spec.units import NS_PER_S
from tests.monitor.journal_bytes import parse

NAME = b"SESSION001"
DEADLINE_S = 20.0


def datagram(seq: int, n: int, length: int = 12, name: bytes = NAME) -> bytes:
    """System events, which change no book: any length but 12 is a malformed message."""
    message = b"S" + bytes(10) + b"O" + bytes(max(0, length - 12))
    return HEADER.pack(name, seq, n) + (length.to_bytes(2, "big") + message[:length]) * n


class Rig:
    """A poller, its journal in a file, and feeds with sockets for each of their lines."""

    def __init__(self, path: Path, feeds: int = 1, lines: int = 2) -> None:
        self.path = path
        self.fd = os.open(path, os.O_CREAT | os.O_RDWR)
        self.journal = Journal(self.fd)
        self.poller = Poller(self.journal)
        self.engines = [Engine() for _ in range(feeds)]
        self.feeds = [LiveFeed(e, number=k, midnight_ns=0, expected=1) for k, e in enumerate(self.engines)]
        self.sockets = [[self._socket(feed, line) for line in range(lines)] for feed in self.feeds]
        self.out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def _socket(self, feed: LiveFeed, line: int) -> socket.socket:
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind(("127.0.0.1", 0))
        s.setblocking(False)
        self.poller.add(s.fileno(), feed, line)
        return s

    def send(self, payload: bytes, feed: int = 0, line: int = 0) -> None:
        self.out.sendto(payload, self.sockets[feed][line].getsockname())

    def poll_until(self, datagrams: int) -> None:
        """Until so many were received in all; loopback delivers before sendto returns, so this waits for none."""
        end = time.monotonic() + DEADLINE_S
        while self.poller.counters()["datagrams"] < datagrams:
            assert time.monotonic() < end, self.poller.counters()
            self.poller.poll(100_000)

    def records(self) -> list[tuple[int, int, int, int, int, bytes]]:
        data, out = self.path.read_bytes(), []
        while data:
            size = int.from_bytes(data[4:8], "little")
            out += parse(data[24 : 24 + size])
            data = data[24 + size :]
        return out

    def close(self) -> None:
        for s in [self.out, *(s for lines in self.sockets for s in lines)]:
            s.close()
        os.close(self.fd)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    out = Rig(tmp_path / "journal")
    yield out
    out.close()


def test_feeds_share_a_journal(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "journal", feeds=3)
    for k in range(40):
        for feed in range(3):
            rig.send(datagram(1 + 2 * k, 2), feed, (k + feed) % 2)
    rig.poll_until(120)
    assert [f.messages for f in rig.feeds] == [80, 80, 80]
    runs = [(feed, seq) for feed, kind, _, _, seq, _ in rig.records() if kind == Kind.RUN]
    for feed in range(3):
        # the lines are read one after the other: what the second holds closes holes of the first
        numbers = [seq for of, seq in runs if of == feed]
        assert numbers == sorted(numbers)
    rig.close()


@pytest.mark.parametrize("size", [9000, 9216])
def test_jumbo_frames_fit(rig: Rig, size: int) -> None:
    payload = datagram(1, 10)
    rest = size - len(payload) - 2
    whole = HEADER.pack(NAME, 1, 11) + payload[20:] + rest.to_bytes(2, "big") + bytes(rest)
    assert len(whole) == size
    rig.send(whole)
    rig.poll_until(1)
    assert rig.feeds[0].messages == 11
    assert rig.poller.counters()["truncated"] == 0


def test_of_a_longer_datagram_the_whole_messages_are_taken(rig: Rig) -> None:
    """What it had beyond the buffer is missing, and the other line has it."""
    n = 1000
    rig.send(datagram(1, n))
    rig.poll_until(1)
    fit = (9216 - HEADER.size) // 14
    assert rig.feeds[0].messages == fit
    assert rig.poller.counters()["truncated"] == 1
    assert rig.feeds[0].counters()["malformed"] == 0
    for first in range(1, n + 1, 500):
        rig.send(datagram(first, 500), line=1)
    rig.poll_until(3)
    assert rig.feeds[0].messages == n
    assert rig.feeds[0].holes() == []


def test_garbage_is_counted(rig: Rig) -> None:
    for payload in (b"", b"x", bytes(19), HEADER.pack(NAME, 1, 3) + b"\xff\xff", datagram(1, 1)):
        rig.send(payload)
    rig.poll_until(5)
    assert rig.feeds[0].messages == 1
    assert rig.feeds[0].counters()["malformed"] == 4


@pytest.mark.parametrize("step", [3_600 * NS_PER_S, -3_600 * NS_PER_S])
def test_a_step_of_the_wall_clock_moves_nothing(rig: Rig, step: int) -> None:
    before = rig.poller.now_ns()
    assert abs(before - time.time_ns()) < NS_PER_S
    rig.send(datagram(1, 1))
    rig.poll_until(1)
    assert rig.poller.counters()["clock_steps"] == 0
    rig.poller.shift_wall(step)
    rig.send(datagram(2, 1))
    rig.poll_until(2)
    rig.send(datagram(3, 1))
    rig.poll_until(3)
    assert rig.poller.counters()["clock_steps"] == 1
    times = [at for _, kind, _, at, _, _ in rig.records() if kind == Kind.RUN]
    assert len(times) == 3
    assert before <= times[0] <= times[1] <= times[2] <= rig.poller.now_ns()


def test_the_time_is_the_kernels(rig: Rig) -> None:
    """A datagram that lay in the socket carries the time when it came, not the time when it was read."""
    rig.poller.poll(0)
    begin = rig.poller.now_ns()
    rig.send(datagram(1, 4))
    sent = rig.poller.now_ns()
    while rig.poller.now_ns() < sent + 50_000_000:
        time.sleep(0.01)
    rig.poll_until(1)
    (at,) = [at for _, kind, _, at, _, _ in rig.records() if kind == Kind.RUN]
    # a stamp is carried over to the steady clock within tens of microseconds
    assert begin - 1_000_000 <= at <= sent + 1_000_000
    stages = rig.feeds[0].stages()
    assert set(stages) == {"receive_taken", "taken_journalled", "journalled_scored", "receive_scored", "missing_filled"}
    assert int(stages.pop("missing_filled").sum()) == 0
    assert all(int(s.sum()) == 4 for s in stages.values())
    (bucket,) = np.flatnonzero(stages["receive_scored"])
    assert paced_edges()[bucket] >= 45_000_000


def test_what_the_kernel_threw_away_is_counted(tmp_path: Path) -> None:
    """More than the socket's buffer holds is sent before anybody reads."""
    rig = Rig(tmp_path / "journal", lines=1)
    (receiver,) = rig.sockets[0]
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the least the kernel allows
    for k in range(200):
        rig.send(datagram(1 + k, 1))
    rig.poller.poll(0)
    kept = rig.poller.counters()["datagrams"]
    assert 0 < kept < 200
    rig.send(datagram(201, 1))  # the count comes with the next datagram
    rig.poll_until(kept + 1)
    assert rig.poller.counters()["kernel_drops"] == 200 - kept
    assert rig.feeds[0].counters()["missing"] == 200 - kept
    rig.close()


def test_a_wake_ends_the_wait(rig: Rig) -> None:
    begun = threading.Event()

    def later() -> None:
        begun.wait()
        rig.poller.wake()

    thread = threading.Thread(target=later)
    thread.start()
    begun.set()
    before = time.monotonic()
    assert rig.poller.poll(60_000_000) == 0
    assert time.monotonic() - before < DEADLINE_S
    thread.join()
    assert rig.poller.counters()["wakes"] == 1
    before = time.monotonic()
    assert rig.poller.poll(1_500) == 0  # nothing is left of it
    assert time.monotonic() - before >= 0.0014


def test_spinning_sees_what_comes(rig: Rig) -> None:
    def later() -> None:
        rig.send(datagram(1, 3))

    thread = threading.Timer(0.02, later)
    thread.start()
    end = time.monotonic() + DEADLINE_S
    applied = 0
    while applied == 0:
        assert time.monotonic() < end
        applied = rig.poller.poll(100_000, spin=True)
    thread.join()
    assert applied == 3


def test_a_removed_socket_is_left_alone(rig: Rig) -> None:
    rig.poller.remove(rig.sockets[0][0].fileno())
    rig.send(datagram(1, 1))
    rig.send(datagram(1, 2), line=1)
    rig.poll_until(1)
    assert rig.poller.poll(0) == 0
    assert rig.feeds[0].counters()["packets_a"] == 0
    with pytest.raises(OSError, match=r"SO_TIMESTAMPNS|epoll"):
        rig.poller.add(rig.fd, rig.feeds[0], 0)
    with pytest.raises(ValueError, match="0 to 25"):
        rig.poller.add(rig.sockets[0][0].fileno(), rig.feeds[0], 26)


def test_a_full_disk_stops_the_books_and_loses_nothing(rig: Rig) -> None:
    """Nothing of a block is applied before it is written; when there is room again everything is, once."""
    rig.send(datagram(1, 5))
    rig.poll_until(1)
    size = rig.path.stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 30, limits[1]))
    try:
        rig.send(datagram(6, 5))
        for _ in range(3):
            with pytest.raises(OSError, match="journal"):
                rig.poller.poll(20_000_000)
            assert rig.feeds[0].messages == 5
            assert rig.path.stat().st_size == size
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    rig.send(datagram(11, 5))
    rig.poll_until(3)
    assert rig.feeds[0].messages == 15
    assert [seq for _, kind, _, _, seq, _ in rig.records() if kind == Kind.RUN] == [1, 6, 11]


def test_while_it_runs_only_numbers_may_be_read(rig: Rig) -> None:
    feed, poller = rig.feeds[0], rig.poller
    thread = threading.Thread(target=poller.poll, args=(60_000_000,))
    thread.start()
    end = time.monotonic() + DEADLINE_S
    while poller.counters()["polls"] == 0:
        assert time.monotonic() < end
    try:
        for ask in (feed.holes, feed.save, feed.symbols, feed.stages, rig.journal.flush, poller.commit):
            with pytest.raises(RuntimeError, match="another thread"):
                ask()
        assert feed.counters()["held"] == feed.messages == feed.expected - 1 == 0
    finally:
        poller.wake()
        thread.join()
    assert feed.holes() == []


def test_a_configured_session_goes_on_after_a_restart(tmp_path: Path) -> None:
    """Its name is shorter than on the wire; the next session still empties the books and is counted."""
    fd = os.open(tmp_path / "journal", os.O_CREAT | os.O_RDWR)
    first = LiveFeed(Engine(), number=0, midnight_ns=0, session=b"S1", expected=1)
    first.take(0, datagram(1, 3, name=b"S1        "), 5, Journal(fd))
    again = LiveFeed(Engine(), number=0, midnight_ns=0, session=b"S1", expected=1)
    assert again.apply(Kind.RUN, 0, 5, 1, datagram(1, 3)[20:]) == 3
    loaded_engine = Engine()
    loaded = LiveFeed(loaded_engine, number=0, midnight_ns=0)
    loaded.load(again.save())
    journal = Journal(fd)
    for feed in (again, loaded):
        assert (feed.expected, feed.session) == (4, b"S1        ")
        feed.take(0, datagram(4, 1, name=b"S1        "), 6, journal)
        assert feed.waiting_session() is None
        assert feed.expected == 5
    loaded.apply(Kind.SESSION, 0, 7, 1, bytes(8) + b"S2        ")
    assert loaded_engine.integrity()["session_reset"] == 1
    os.close(fd)


def test_a_capture_gives_the_books_of_its_replay(tmp_path: Path) -> None:
    """Every datagram of a simulated capture, through two lines, sockets and journal."""
    path = write_mold_pcap(simulate(11, 30.0, instruments=3), tmp_path / "sim_2025-01-06.pcap")
    rig = Rig(tmp_path / "journal")
    sent = 0
    for k, d in enumerate(iter_udp(path.read_bytes())):
        for line in {k % 2, int(k % 3 == 0)}:
            rig.send(bytes(d.payload), line=line)
            sent += 1
        if k % 50 == 0:
            rig.poll_until(sent)
    rig.poll_until(sent)
    result = replay(path)
    symbols = rig.feeds[0].symbols()
    ids = [f"{symbols[int(i)]}.XNAS" for i in rig.engines[0].instruments()]
    assert state_hash(rig.engines[0], ids) == result.state_hash
    assert rig.feeds[0].ended
    assert rig.feeds[0].messages == result.messages
    assert rig.feeds[0].counters()["duplicates"] > 0
    rig.close()
