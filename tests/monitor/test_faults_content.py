"""What is wrong inside packets, through the service: counted, marked, told within one event, and never a crash."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.daystream import cached_day
from microrisk.feed.encode import unframe
from microrisk.market.simulator import simulate
from microrisk.market.write import write_itch
from microrisk.monitor.address import parse
from microrisk.monitor.alert_log import AlertLog
from microrisk.monitor.alerts import CROSSED
from microrisk.monitor.publish import MoldUdpPublisher, Pace, Tape
from microrisk.monitor.publish.messages import timed
from microrisk.monitor.rated import free_ports
from microrisk.monitor.service import Service, Settings
from microrisk.pipeline import replay

DEADLINE_S = 30.0
DAY = "2025-01-06"
FAR = 2_000_000_000
"""A price above every other, 1e-4."""


def until(true: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < end, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.01)


def add(like: bytes, ref: int, *, side: bytes = b"B", qty: int = 100, px: int = FAR) -> bytes:
    """An Add Order of the instrument and time of `like`, which is one too."""
    return like[:11] + struct.pack(">Q", ref) + side + struct.pack(">I", qty) + like[24:32] + struct.pack(">I", px)


def delete(like: bytes, ref: int) -> bytes:
    return b"D" + like[1:11] + struct.pack(">Q", ref)


def execute(like: bytes, ref: int, qty: int) -> bytes:
    return b"E" + like[1:11] + struct.pack(">QIQ", ref, qty, 1)


def action(like: bytes, state: bytes) -> bytes:
    return b"H" + like[1:11] + like[24:32] + state + b" " + b"    "


# -- crossed books ---------------------------------------------------------------------------------------------------


def planted(folder: Path, seed: int) -> tuple[list[bytes], set[int], int]:
    """A market with crossings in and out of continuous trading; numbers of those in it, and how many are not."""
    messages = unframe(write_itch(simulate(seed, 120.0), folder / "plain.itch").read_bytes())
    draw = random.Random(seed)
    adds = [i for i, m in enumerate(messages) if m[:1] == b"A"]
    opened = next(i for i, m in enumerate(messages) if m[:1] in b"EP")
    places = dict.fromkeys(draw.sample([i for i in adds if i > opened + 10], 300), "open")
    places |= dict.fromkeys(draw.sample(sorted(places), 100), "halt")
    places |= dict.fromkeys([i for i in adds if i < opened][10:30], "before")
    out: list[bytes] = []
    told: set[int] = set()
    for i, message in enumerate(messages):
        out.append(message)
        kind, ref = places.get(i), (1 << 40) + i
        if kind is None:
            continue
        state = draw.choice([b"H", b"P", b"Q"])
        out += [action(message, state)] if kind == "halt" else []
        out.append(add(message, ref))
        if kind == "open":
            told.add(len(out))
        out.append(delete(message, ref))
        out += [action(message, b"T")] if kind == "halt" else []
    return out, told, sum(kind != "open" for kind in places.values())


def hand_in(folder: Path, messages: list[bytes]) -> Service:
    """Through a service without threads, three messages a packet."""
    service = Service([parse(f"moldudp64://127.0.0.1:{free_ports(1)[0]}?date={DAY}&name=m")], Settings(folder=folder))
    service.desk.writing = True
    service._tell_early()
    service._open_feeds()
    live, ingest = service.desk.books[0].live, service.ingest  # type: ignore[attr-defined]
    for at in range(0, len(messages), 3):
        group = messages[at : at + 3]
        body = b"".join(struct.pack(">H", len(m)) + m for m in group)
        packet = struct.pack(">10sQH", b"S         ", at + 1, len(group)) + body
        live.take(0, packet, ingest.poller.now_ns(), ingest.writer.core)
        ingest.commit()
        ingest.report_rows()
    return service


def crossed(folder: Path) -> list[Any]:
    log = AlertLog(folder / "alerts.jsonl")
    found = [a for a in log.last(100_000) if a.head == CROSSED]
    log.close()
    return found


@pytest.mark.parametrize("seed", [1, 2])
def test_a_crossed_book_is_told_with_its_event_and_never_in_a_halt(seed: int, tmp_path: Path) -> None:
    messages, told, others = planted(tmp_path, seed)
    assert len(told) >= 200
    assert others >= 100
    service = hand_in(tmp_path / "j", messages)
    books = service.desk.books[0]
    counted = books.integrity()
    service.stop(clean=False)
    found = crossed(tmp_path / "j")
    assert {a.seq for a in found} == told
    assert len(found) == len(told) == counted["crossed"]
    assert counted["crossed_preopen"] == others
    assert all(a.suspect and "bid 200000 above ask" in a.drivers[0] for a in found)

    (tmp_path / "j" / "alerts.jsonl").write_bytes(b"")  # the process died before it told anything
    again = hand_in(tmp_path / "j", [])
    again.stop(clean=False)
    assert [(a.id, a.drivers) for a in crossed(tmp_path / "j")] == [(a.id, a.drivers) for a in found]


def test_messages_that_cannot_be_read_are_counted_and_the_rest_of_their_packet_goes_on(tmp_path: Path) -> None:
    path = write_itch(simulate(4, 60.0), tmp_path / "plain.itch")
    messages = unframe(path.read_bytes())
    draw = random.Random(4)
    places = set(draw.sample(range(20, len(messages) - 20), 200))
    out: list[bytes] = []
    for i, message in enumerate(messages):
        if i in places:
            out.append(b"Z" + message[1:] if len(out) % 2 else message[: draw.randrange(1, len(message))])
        out.append(message)
    service = hand_in(tmp_path / "j", out)
    books = service.desk.books[0]
    found = books.integrity()
    service.stop(clean=False)
    assert books.live.expected == len(out) + 1  # type: ignore[attr-defined]
    assert found["unknown_type"] + found["malformed"] == len(places)
    assert min(found["unknown_type"], found["malformed"]) > 50
    assert books.state_hash() == replay(str(path), date=DAY).state_hash


def test_a_book_that_stays_crossed_is_told_once(tmp_path: Path) -> None:
    messages = unframe(write_itch(simulate(3, 30.0), tmp_path / "plain.itch").read_bytes())
    at = max(i for i, m in enumerate(messages[: len(messages) // 2]) if m[:1] == b"A")
    lasting = [*messages[: at + 1], add(messages[at], 1 << 40), *messages[at + 1 :]]
    service = hand_in(tmp_path / "j", lasting)
    state = service.ingest.instrument_state(
        service.desk.books[0], next(iter(service.desk.books[0].names)), ("live", "")
    )
    service.stop(clean=False)
    assert [a.seq for a in crossed(tmp_path / "j")] == [at + 2]
    assert state[0] == "suspect"


# -- lies ------------------------------------------------------------------------------------------------------------


@contextmanager
def running(folder: Path) -> Iterator[tuple[Service, MoldUdpPublisher]]:
    with MoldUdpPublisher(Tape("S1"), ("127.0.0.1", 0), ("127.0.0.1", 0), heartbeat_s=0.1) as publisher:
        a, b = publisher.addresses["A"], publisher.addresses["B"]
        source = f"moldudp64://{a[0]}:{a[1]}?b={b[0]}:{b[1]}&date={DAY}&name=m"
        service = Service([parse(source)], Settings(folder=folder))
        service.start()
        try:
            yield service, publisher
        finally:
            service.stop(clean=False)


@pytest.fixture(scope="module")
def day() -> tuple[Path, list[bytes]]:
    path, _ = cached_day(messages=20_000, symbols=12, live_orders=3_000, seed=4)
    return path, unframe(path.read_bytes())


def lies(messages: list[bytes]) -> tuple[list[bytes], dict[str, str]]:
    """One of each kind behind the market, each about a symbol of its own; symbol by lie."""
    first: dict[bytes, bytes] = {}
    for m in messages:
        if m[:1] == b"A":
            first.setdefault(m[24:32], m)
    (unknown, over, twice, nothing), ref = list(first.values())[:4], 1 << 41
    out = [
        delete(unknown, ref),
        add(over, ref + 1, px=1),
        execute(over, ref + 1, 500),
        add(twice, ref + 2, px=1),
        add(twice, ref + 2, px=1),
    ]
    named = {"unknown_order": unknown, "over_execute": over, "duplicate_order": twice}
    return [*out, add(nothing, ref + 3, qty=0, px=1)], {k: m[24:32].decode().strip() for k, m in named.items()}


def test_a_lie_marks_its_symbol_and_no_other(day: tuple[Path, list[bytes]], tmp_path: Path) -> None:
    _, messages = day
    wrong, symbols = lies(messages)
    with running(tmp_path) as (service, publisher):
        publisher.run(timed([*messages, *wrong]), Pace(rate=60_000.0))
        publisher.start_heartbeats()
        books = service.desk.books[0]
        until(lambda: books.live.expected == len(messages) + len(wrong) + 1, "the last lie")  # type: ignore[attr-defined]
        expected = {f"{s}.XNAS" for s in symbols.values()}
        until(lambda: {r.id for r in service.hub.instruments() if r.state == "suspect"} == expected, "the marks")
        assert {r.state for r in service.hub.instruments() if r.id not in expected} == {"live"}
    found = books.integrity()
    assert [found[kind] for kind in symbols] == [1] * len(symbols)
    assert found["zero_qty"] == 1


# -- packets that are none -------------------------------------------------------------------------------------------


def damaged(packet: bytes, draw: random.Random) -> bytes:
    """A packet that a network, or somebody on it, has spoilt; what it says cannot be taken for a message."""
    kind = draw.randrange(6)
    if kind == 0:
        return packet[: draw.randrange(len(packet))]
    if kind == 1:
        return draw.randbytes(draw.randrange(200))
    if kind == 2:  # a block that is longer than the packet
        return packet[:20] + b"\xff\xff" + packet[22:]
    if kind == 3:  # more blocks than there are
        return packet[:18] + struct.pack(">H", 60_000) + packet[20:]
    if kind == 4:  # another session
        return b"EVIL      " + packet[10:]
    return packet[:10] + struct.pack(">Q", draw.randrange(1 << 60, 1 << 64)) + packet[18:]


def test_ten_thousand_spoilt_packets_leave_the_books_as_they_are(day: tuple[Path, list[bytes]], tmp_path: Path) -> None:
    path, messages = day
    draw = random.Random(9)
    with closing(socket.socket(type=socket.SOCK_DGRAM)) as out, running(tmp_path) as (service, publisher):
        books = service.desk.books[0]
        sent = 0
        for at in range(0, len(messages), 20):
            group = messages[at : at + 20]
            body = b"".join(struct.pack(">H", len(m)) + m for m in group)
            packet = struct.pack(">10sQH", b"S1        ", at + 1, len(group)) + body
            for _ in range(10):
                out.sendto(damaged(packet, draw), publisher.addresses[draw.choice("AB")])
            publisher.send(group)
            sent += 10
            if at % 400 == 0:
                time.sleep(0.002)
        publisher.start_heartbeats()
        until(lambda: books.live.expected == len(messages) + 1, "the last message")  # type: ignore[attr-defined]
        until(lambda: service.hub.overview()["feeds"][0].state == "live", "in sync")
        counters = books.live.counters()  # type: ignore[attr-defined]
        drops = service.ingest.poller.counters()["kernel_drops"]
        assert service.failure is None
    assert sent >= 10_000
    assert drops == 0
    assert service.desk.hashes()["m"] == replay(str(path), date=DAY).state_hash
    assert counters["malformed"] > sent / 6
    assert counters["foreign"] > sent / 8
    assert counters["wild"] > sent / 8
