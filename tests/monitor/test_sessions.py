"""A session that changes: alerts, names and tables belong to the session in which they were made."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from microrisk.evaluate.demo import planted
from microrisk.feed.encode import unframe
from microrisk.market.write import session_date, write_itch
from microrisk.monitor.address import parse
from microrisk.monitor.alert_log import AlertLog
from microrisk.monitor.books import ItchBooks
from microrisk.monitor.rated import free_ports
from microrisk.monitor.service import Service, Settings
from microrisk.spec.journal import NO_FEED, Kind

FIRST, SECOND = b"FIRST     ", b"SECOND    "


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[bytes], str]:
    session = planted(2, 700.0)
    path = write_itch(session, tmp_path_factory.mktemp("market") / "market.itch")
    return unframe(path.read_bytes()), session_date(session)


def opened(folder: Path, day: str, **settings: Any) -> tuple[Service, ItchBooks]:
    """A service without its threads, so that the test says what comes between what."""
    (port,) = free_ports(1)
    source = parse(f"moldudp64://127.0.0.1:{port}?date={day}&venue=SIMX&name=m")
    service = Service([source], Settings(folder=folder, **settings))
    service.desk.writing = True
    service._tell_early()
    service._open_feeds()
    books = service.desk.books[0]
    assert isinstance(books, ItchBooks)
    return service, books


def hand_in(service: Service, books: ItchBooks, messages: list[bytes], name: bytes, first: int = 1) -> None:
    for at in range(0, len(messages), 30):
        group = messages[at : at + 30]
        body = b"".join(struct.pack(">H", len(m)) + m for m in group)
        packet = struct.pack(">10sQH", name, first + at, len(group)) + body
        books.live.take(0, packet, service.ingest.poller.now_ns(), service.ingest.writer.core)
        service.ingest.commit()


def clock(service: Service) -> None:
    service.ingest.put(NO_FEED, Kind.CLOCK, service.ingest.poller.now_ns())
    service.ingest.commit_records()


def told(folder: Path) -> list[Any]:
    log = AlertLog(folder / "alerts.jsonl")
    found = log.last(100_000)
    log.close()
    return found


def renamed(messages: list[bytes], old: bytes, new: bytes) -> list[bytes]:
    """The same market under another symbol."""
    return [m.replace(old.ljust(8), new.ljust(8)) for m in messages]


def test_alerts_of_a_session_that_ended_keep_its_name(market: tuple[list[bytes], str], tmp_path: Path) -> None:
    messages, day = market
    service, books = opened(tmp_path, day)
    hand_in(service, books, messages[:10], FIRST)
    clock(service)
    hand_in(service, books, messages[10:], FIRST, 11)
    service.ingest._begin_session(books, SECOND, service.ingest.poller.now_ns())
    service.ingest.report_rows()
    service.stop(clean=False)
    first = told(tmp_path)
    assert len(first) > 5
    assert {a.session for a in first} == {"FIRST"}

    (tmp_path / "alerts.jsonl").write_bytes(b"")  # as if none had been told before the process died
    again, _ = opened(tmp_path, day)
    again.stop(clean=False)
    assert [(a.id, a.session, a.instrument) for a in told(tmp_path)] == [(a.id, a.session, a.instrument) for a in first]


def test_names_are_those_of_the_session(market: tuple[list[bytes], str], tmp_path: Path) -> None:
    messages, day = market
    service, books = opened(tmp_path, day)
    hand_in(service, books, messages[:2000], FIRST)
    clock(service)
    (index,) = books.stage.chosen
    old = books.name(index).partition(".")[0]
    service.ingest._begin_session(books, SECOND, service.ingest.poller.now_ns())
    hand_in(service, books, renamed(messages[:2000], old.encode(), b"OTHER"), SECOND)
    assert books.name(index) == "OTHER.SIMX"  # before the next CLOCK already
    books.state_hash()  # asking changes nothing
    clock(service)
    assert books.stage.chosen == {index}
    assert books.numbers_of({"OTHER.SIMX"}) == [index]
    assert books.numbers_of({f"{old}.SIMX"}) == []
    before = service.desk.state_hash()
    service.stop(clean=False)
    again, same = opened(tmp_path, day)
    assert again.desk.state_hash() == before
    assert same.stage.chosen == {index}
    again.stop(clean=False)


def test_asking_for_a_hash_does_not_keep_an_instrument_from_being_scored(
    market: tuple[list[bytes], str], tmp_path: Path
) -> None:
    messages, day = market
    service, books = opened(tmp_path, day)
    hand_in(service, books, messages[:200], FIRST)
    service.desk.state_hash()
    clock(service)
    assert len(books.stage.chosen) == 1
    service.stop(clean=False)
