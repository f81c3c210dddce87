"""A disk that is full for a while, through the whole service: said at once, nothing lost, nothing wrong behind it."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from microrisk.errors import OutputError
from microrisk.evaluate.demo import planted
from microrisk.feed.encode import unframe
from microrisk.market.write import session_date, write_itch
from microrisk.monitor.address import parse
from microrisk.monitor.alert_log import AlertLog
from microrisk.monitor.publish import MoldUdpPublisher, RerequestServer, Tape
from microrisk.monitor.publish.messages import timed
from microrisk.monitor.publish.pace import Pace
from microrisk.monitor.service import Service, Settings
from microrisk.pipeline import replay, score

DEADLINE_S = 30.0
DISK = "24m"


def until(true: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < end, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.01)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small file system can be mounted by root only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take all the room there is."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(b"\0" * size) == size:
                    pass
            except OSError as full:
                if full.errno != errno.ENOSPC:
                    raise
    return filler


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    session = planted(2, 700.0)
    return write_itch(session, tmp_path_factory.mktemp("market") / "market.itch"), session_date(session)


def feed(service: Service) -> Any:
    return service.hub.overview()["feeds"][0]


def ids(folder: Path) -> list[str]:
    log = AlertLog(folder / "alerts.jsonl")
    found = [a.id for a in log.last(100_000)]
    log.close()
    return found


def test_datagrams_are_kept_until_there_is_room(market: tuple[Path, str], disk: Path) -> None:
    path, day = market
    messages = unframe(path.read_bytes())
    third = len(messages) // 3
    tape = Tape("S1")
    publisher = MoldUdpPublisher(tape, ("127.0.0.1", 0), ("127.0.0.1", 0), heartbeat_s=0.1)
    server = RerequestServer(tape, ("127.0.0.1", 0))
    a, b, asked = publisher.addresses["A"], publisher.addresses["B"], server.address
    source = f"moldudp64://{a[0]}:{a[1]}?b={b[0]}:{b[1]}&request={asked[0]}:{asked[1]}&date={day}&venue=SIMX&name=m"
    with closing(publisher), closing(server):
        service = Service([parse(source)], Settings(folder=disk / "j", checkpoint_s=0.5))
        service.start()
        try:
            publisher.run(timed(messages[:third]), Pace(rate=40_000.0))
            publisher.start_heartbeats()
            books = service.desk.books[0]
            until(lambda: books.live.expected == third + 1, "the first third")
            filler = fill(disk)
            until(lambda: feed(service).state == "down", "the full disk is shown")
            assert "No space left" in feed(service).why
            assert any("No space left" in notice for notice in service.hub.overview()["notices"])
            assert not service.hub.ready()[0]
            publisher.run(timed(messages[third : 2 * third]), Pace(rate=40_000.0))
            expected = books.live.expected
            filler.unlink()
            until(lambda: feed(service).state == "live", "there is room again")
            publisher.run(timed(messages[2 * third :]), Pace(rate=40_000.0))
            until(lambda: books.live.expected == len(messages) + 1, "the last message")
            until(lambda: feed(service).state == "live", "in sync")
        finally:
            service.stop(clean=False)
    assert expected < 2 * third, "nothing is applied that is not written"
    whole = replay(str(path), date=day, venue="SIMX").state_hash
    assert service.desk.hashes()["m"] == whole
    told = ids(disk / "j")
    again = Service([parse(source)], Settings(folder=disk / "j"))
    again.stop(clean=False)
    assert again.desk.hashes()["m"] == whole
    assert len(told) == len(set(told)) > 3


@pytest.mark.parametrize("killed", [False, True])
def test_a_recording_waits_for_room_and_its_alerts_too(market: tuple[Path, str], disk: Path, killed: bool) -> None:
    path, day = market
    source = f"file:{path}?speed=0&date={day}&venue=SIMX&name=m"
    filler = fill(disk)
    with filler.open("r+b") as file:
        file.truncate(filler.stat().st_size - 2_000_000)  # room for a part of the recording
    service = Service([parse(source)], Settings(folder=disk / "j", checkpoint_s=0.05))
    service.start()
    try:
        until(lambda: feed(service).state == "down", "the full disk is shown")
        if killed:
            service.stop(clean=False)
        filler.unlink()
        if killed:
            service = Service([parse(source)], Settings(folder=disk / "j", checkpoint_s=0.05))
            service.start()
        until(lambda: feed(service).state == "ended", "the end of the recording")
    finally:
        service.stop(clean=False)
    assert service.desk.hashes()["m"] == replay(str(path), date=day, venue="SIMX").state_hash
    expected = score(str(path), date=day, venue="SIMX")
    told = ids(disk / "j")
    assert len(told) == len(set(told)) == sum(n for head, n in expected.alerts.items() if head != "any")


def test_a_start_without_room_is_refused_in_words(market: tuple[Path, str], disk: Path) -> None:
    path, day = market
    source = parse(f"file:{path}?speed=0&date={day}&venue=SIMX&name=m")
    filler = fill(disk)
    for _ in range(2):  # nothing is left behind by the first one
        with pytest.raises(OutputError, match=f"{disk}.*No space left"):
            Service([source], Settings(folder=disk / "j")).start()
    filler.unlink()
    service = Service([source], Settings(folder=disk / "j"))
    service.start()
    service.stop(clean=False)


@pytest.mark.parametrize("used", [False, True])
def test_a_folder_that_is_read_only_is_named(market: tuple[Path, str], disk: Path, used: bool) -> None:
    path, day = market
    source = parse(f"file:{path}?speed=0&date={day}&venue=SIMX&name=m")
    if used:
        service = Service([source], Settings(folder=disk / "j"))
        service.start()
        service.stop()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(OutputError, match=f"{disk}.*[Rr]ead-only.*--journal"):
        Service([source], Settings(folder=disk / "j"))
