"""Datagrams to books through journal and arbitration: the same books as reading the file, live, lossy, and replayed."""

from __future__ import annotations

import os
import random
import socket
import struct
import tempfile
from functools import cache
from pathlib import Path

import pytest

from microrisk.book import state_hash
from microrisk.core import Engine, ItchDecoder, Journal, LiveFeed, Poller, paced_edges
from microrisk.feed.encode import unframe
from microrisk.market.simulator import simulate
from microrisk.market.write import write_itch
from microrisk.monitor.journal import Reader, records
from microrisk.spec.journal import Kind

NAME = b"SESSION001"


@cache
def messages() -> list[bytes]:
    """ITCH messages of a simulated market, a minute."""
    with tempfile.TemporaryDirectory() as folder:
        return unframe(write_itch(simulate(3, 60.0), Path(folder) / "a.itch").read_bytes())


def packet(seq: int, group: list[bytes], name: bytes = NAME) -> bytes:
    head = struct.pack(">10sQH", name, seq, len(group))
    return head + b"".join(struct.pack(">H", len(m)) + m for m in group)


def packets(per: int = 30) -> list[bytes]:
    whole = messages()
    return [packet(i + 1, whole[i : i + per]) for i in range(0, len(whole), per)]


class Rig:
    """A feed with a journal in a file."""

    def __init__(self, folder: Path, first: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.fd = os.open(folder / "0000000000000000.journal", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self.journal = Journal(self.fd)
        self.engine = Engine()
        self.feed = LiveFeed(self.engine, number=0, midnight_ns=0, expected=first)
        self.poller = Poller(self.journal)
        self.poller.know(self.feed)

    def take(self, datagram: bytes, line: int = 0, at: int = 0) -> None:
        self.feed.take(line, datagram, at, self.journal)
        self.poller.commit()

    def hash(self) -> str:
        return state_hash(self.engine, [str(i) for i in self.engine.instruments()])

    def close(self) -> None:
        os.close(self.fd)

    def replayed(self) -> Rig:
        other = Rig(self.folder / "again")
        for block in Reader(self.folder):
            for r in records(block.payload):
                other.feed.apply(r.kind, r.flags, r.recv_ns, r.seq, r.body)
        return other


def expected() -> str:
    engine, decoder = Engine(), ItchDecoder()
    data = b"".join(struct.pack(">H", len(m)) + m for m in messages())
    engine.run_itch(decoder, data, 0, 1 << 62)
    return state_hash(engine, [str(i) for i in engine.instruments()])


def test_one_line(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    for p in packets():
        rig.take(p)
    assert rig.feed.messages == len(messages())
    assert rig.hash() == expected()
    assert rig.feed.holes() == []
    other = rig.replayed()
    assert other.hash() == rig.hash()
    assert other.engine.save() == rig.engine.save()
    assert (other.feed.expected, other.feed.session) == (rig.feed.expected, NAME)
    rig.close()
    other.close()


@pytest.mark.parametrize("seed", range(6))
def test_loss_and_disorder_on_both_lines(tmp_path: Path, seed: int) -> None:
    """Packets are lost on each line, packed differently, shuffled and doubled; what neither has is asked again."""
    rng = random.Random(seed)
    whole = messages()
    lines = []
    for line, per in enumerate((30, 17)):
        sent = [(k, line, p) for k, p in enumerate(packets(per)) if rng.random() > 0.05]
        lines += [(k * per + rng.uniform(0, 900), line, p) for k, line, p in sent]
        lines += [(k * per + rng.uniform(0, 900), line, p) for k, line, p in rng.sample(sent, 20)]
    rig = Rig(tmp_path, first=1)
    for at, line, p in sorted(lines):
        rig.take(p, line, int(at))
    rig.take(struct.pack(">10sQH", NAME, len(whole) + 1, 0))
    asked = 0
    while holes := rig.feed.holes():
        first, count, _ = holes[0]
        count = min(count, rng.randrange(1, 40))
        rig.take(packet(first, whole[first - 1 : first - 1 + count]), 2)
        asked += 1
    assert asked > 0
    assert rig.hash() == expected()
    assert rig.engine.integrity()["gap"] == 0
    counters = rig.feed.counters()
    assert counters["messages"] == len(whole) == rig.feed.messages
    assert counters["duplicates"] > 0
    assert counters["reordered"] > 0
    other = rig.replayed()
    assert other.hash() == rig.hash()
    rig.close()
    other.close()


def test_what_cannot_be_had_is_given_up_and_marks_the_books(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    sent = packets()
    for k, p in enumerate(sent):
        if k != 10:
            rig.take(p, at=k)
    assert rig.feed.holes() == [(301, 30, 11)]
    assert rig.feed.messages == 300
    assert rig.feed.give_up(331, 99, rig.journal) == 30
    rig.poller.commit()
    assert rig.feed.messages == len(messages()) - 30
    assert rig.engine.integrity()["gap"] == 1
    assert all(rig.engine.suspect(int(i)) for i in rig.engine.instruments())
    rig.take(packet(len(messages()) + 1, [], b"SESSION002") + b"")  # a request-like header of another session
    rig.take(struct.pack(">10sQH", b"SESSION002", 1, 0))
    assert rig.feed.waiting_session() == b"SESSION002"
    rig.feed.begin_session(b"SESSION002", 5, 100, rig.journal)
    for p in packets():
        rig.take(b"SESSION002" + p[10:], at=200)
    assert rig.engine.integrity()["session_reset"] == 1
    assert not any(rig.engine.suspect(int(i)) for i in rig.engine.instruments())
    assert rig.hash() == expected()
    other = rig.replayed()
    assert other.engine.save() == rig.engine.save()
    rig.close()
    other.close()


def test_nothing_is_applied_that_the_disk_did_not_take(tmp_path: Path) -> None:
    """The journal's file is a pipe without a reader's room: the block stays, and is written when it can be."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    rig = Rig(tmp_path)
    rig.journal.switch(writing)
    sent = packets()
    done = 0
    broken = ""
    for k, p in enumerate(sent * 40):
        try:
            rig.take(p, at=k)
        except OSError as error:
            broken = str(error)
            break
        done = rig.feed.messages
    assert "cannot be written" in broken
    assert rig.feed.messages == done
    assert rig.journal.pending_records > 0
    with pytest.raises(OSError, match=r"written|cut"):
        rig.poller.poll(0)
    assert rig.feed.messages == done
    os.close(reading)
    os.close(writing)
    rig.close()


def test_sockets(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    socks = []
    for line in (0, 1):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind(("127.0.0.1", 0))
        s.setblocking(False)
        rig.poller.add(s.fileno(), rig.feed, line)
        socks.append(s)
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for k, p in enumerate(packets()):
        out.sendto(p, socks[k % 2].getsockname())
        if k % 7 == 0:
            out.sendto(p, socks[(k + 1) % 2].getsockname())
        if k % 20 == 0:
            rig.poller.poll(1000)
    while rig.poller.poll(2000):
        pass
    assert rig.feed.messages == len(messages())
    assert rig.hash() == expected()
    before = rig.poller.now_ns()
    rig.poller.shift_wall(3_600_000_000_000)
    out.sendto(struct.pack(">10sQH", NAME, len(messages()) + 1, 0), socks[0].getsockname())
    rig.poller.poll(50_000)
    assert rig.poller.counters()["clock_steps"] == 1
    assert 0 <= rig.feed.last_packet_ns - before < 1_000_000_000
    stages = rig.feed.stages()
    assert int(stages.pop("missing_filled").sum()) > 0
    assert all(int(s.sum()) == len(messages()) for s in stages.values())
    # a latency below zero would stand in the last bucket: the wall clock was an hour off meanwhile
    assert all(int(s[paced_edges() > 60 * 10**9].sum()) == 0 for s in stages.values())
    assert rig.poller.counters()["kernel_drops"] == 0
    rig.poller.wake()
    assert rig.poller.poll(60_000_000) == 0  # returns at once
    for s in (*socks, out):
        s.close()
    rig.close()


def test_records_are_what_the_page_says(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.take(packets()[0], at=77)
    (block,) = list(Reader(tmp_path))
    session, run = list(records(block.payload))
    assert (session.kind, session.seq, bytes(session.body)) == (Kind.SESSION, 1, bytes(8) + NAME)
    assert (run.kind, run.seq, run.recv_ns) == (Kind.RUN, 1, 77)
    assert bytes(run.body) == packets()[0][20:]
    rig.close()
