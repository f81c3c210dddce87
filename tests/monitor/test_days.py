"""Clocks and days: a session is of the day on which it begins, order is by number."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from microrisk.feed.encode import unframe
from microrisk.market.simulator import simulate
from microrisk.market.write import write_itch
from microrisk.monitor.address import parse
from microrisk.monitor.rated import free_ports
from microrisk.monitor.service import Service, Settings

NEW_YORK = ZoneInfo("America/New_York")


def ns(text: str) -> int:
    """A local time of New York as UTC ns."""
    return int(datetime.fromisoformat(text).replace(tzinfo=NEW_YORK).timestamp()) * 10**9


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    path = write_itch(simulate(3, 30.0), tmp_path_factory.mktemp("market") / "market.itch")
    return unframe(path.read_bytes())


class Fake:
    """A service without threads, whose clock is the test's."""

    def __init__(self, folder: Path, options: str = "") -> None:
        self.service = Service(
            [parse(f"moldudp64://127.0.0.1:{free_ports(1)[0]}?name=m{options}")], Settings(folder=folder)
        )
        self.service.desk.writing = True
        self.service._open_feeds()
        self.books: Any = self.service.desk.books[0]
        self.number = 1

    def clock(self, now_ns: int) -> None:
        self.service.ingest._clock(now_ns)

    def send(self, messages: list[bytes], now_ns: int, name: bytes = b"S1") -> None:
        for at in range(0, len(messages), 30):
            group = messages[at : at + 30]
            body = b"".join(struct.pack(">H", len(m)) + m for m in group)
            packet = struct.pack(">10sQH", name.ljust(10), self.number, len(group)) + body
            self.books.live.take(0, packet, now_ns, self.service.ingest.writer.core)
            self.service.ingest.commit()
            self.number += len(group)

    def change(self, name: bytes, now_ns: int) -> None:
        self.service.ingest._begin_session(self.books, name.ljust(10), now_ns)
        self.number = 1

    @property
    def last_event_ns(self) -> int:
        """Time of the market's newest event."""
        (index,) = self.books.engine.instruments()
        return int(self.books.engine.last_row(int(index))["ts_event"])

    def close(self) -> None:
        self.service.stop(clean=False)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    made = Fake(tmp_path / "j")
    yield made
    made.close()


def of_day(message: bytes) -> int:
    """ns since midnight."""
    return int.from_bytes(message[5:11], "big")


@pytest.mark.parametrize(
    ("evening", "morning", "midnight"),
    [
        ("2025-01-06 21:00", "2025-01-07 09:30", "2025-01-07T05:00:00+00:00"),
        ("2025-03-08 21:00", "2025-03-10 09:30", "2025-03-10T04:00:00+00:00"),  # the clocks went forward
        ("2025-10-31 21:00", "2025-11-03 09:30", "2025-11-03T05:00:00+00:00"),  # the clocks went back
        ("2025-12-31 23:59", "2026-01-01 00:01", "2026-01-01T05:00:00+00:00"),
    ],
)
def test_a_session_is_of_the_day_on_which_it_begins(
    fake: Fake, messages: list[bytes], evening: str, morning: str, midnight: str
) -> None:
    fake.clock(ns(evening))  # the process was started the evening before
    fake.clock(ns(morning))
    fake.send(messages[:60], ns(morning))
    fake.clock(ns(morning) + 10**9)
    fake.send(messages[60:], ns(morning) + 10**9)
    start = int(datetime.fromisoformat(midnight).timestamp()) * 10**9
    assert fake.last_event_ns - start in {of_day(m) for m in messages[-40:]}


def test_the_next_session_is_of_the_next_day(fake: Fake, messages: list[bytes]) -> None:
    last = []
    for day, name in (("2025-01-06", b"S1"), ("2025-01-07", b"S2")):
        fake.clock(ns(f"{day} 09:00"))
        if last:
            fake.change(name, ns(f"{day} 09:00"))
        fake.send(messages[:60], ns(f"{day} 09:30"), name)
        fake.clock(ns(f"{day} 09:30") + 10**9)
        fake.send(messages[60:], ns(f"{day} 09:31"), name)
        last.append(fake.last_event_ns)
    assert last[1] - last[0] == 24 * 3600 * 10**9
    assert fake.books.integrity()["session_reset"] == 1


def test_a_date_in_the_address_stays(messages: list[bytes], tmp_path: Path) -> None:
    fake = Fake(tmp_path / "j", "&date=2019-12-30")
    fake.clock(ns("2025-01-07 09:00"))
    fake.send(messages[:600], ns("2025-01-07 09:30"))
    fake.clock(ns("2025-01-07 10:00"))
    assert fake.service.ingest.day_of(0, ns("2025-01-07 10:00")) == ns("2019-12-30 00:00")
    fake.close()


def test_receipt_times_that_step_change_neither_order_nor_books(messages: list[bytes], tmp_path: Path) -> None:
    """Forward an hour, back an hour, a leap second: books are by number."""
    draw = random.Random(5)
    hashes = []
    for steps in (False, True):
        fake = Fake(tmp_path / str(steps))
        now = ns("2025-06-30 19:59:58")
        for at in range(0, len(messages), 300):
            now += draw.choice([-3600, -1, 1, 3600]) * 10**9 if steps else 10**9
            fake.clock(now)
            fake.send(messages[at : at + 300], now)
        hashes.append(fake.books.state_hash())
        fake.close()
    assert hashes[0] == hashes[1]
