"""The monitor as a whole: a file like `score`, a restart like no restart, a lossy feed like a whole one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from microrisk.evaluate.demo import planted
from microrisk.feed.encode import unframe
from microrisk.market.write import session_date, write_itch
from microrisk.monitor.address import parse
from microrisk.monitor.alert_log import AlertLog
from microrisk.monitor.publish import (
    DatagramPlan,
    GlimpseServer,
    Host,
    LineFaults,
    MoldUdpPublisher,
    RequestFaults,
    RerequestServer,
    Tape,
)
from microrisk.monitor.publish.messages import timed
from microrisk.monitor.publish.pace import Pace
from microrisk.monitor.service import Service, Settings
from microrisk.pipeline import replay, score

DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A planted market of twelve minutes as an ITCH file, and its session date."""
    session = planted(2, 700.0)
    return write_itch(session, tmp_path_factory.mktemp("market") / "market.itch"), session_date(session)


@contextmanager
def running(*sources: str, folder: Path | None = None) -> Iterator[Service]:
    service = Service([parse(s) for s in sources], Settings(folder=folder, checkpoint_s=1e6))
    service.start()
    try:
        yield service
    finally:
        service.stop(clean=False)


def until(true: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < end, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.01)


def states(service: Service) -> list[str]:
    return [f.state for f in service.hub.overview()["feeds"]]


def alerts(folder: Path) -> list[Any]:
    log = AlertLog(folder / "alerts.jsonl")
    found = log.last(100_000)
    log.close()
    return found


def test_a_file_is_scored_as_by_score_and_a_restart_changes_nothing(market: tuple[Path, str], tmp_path: Path) -> None:
    path, day = market
    source = f"file:{path}?speed=0&date={day}&venue=SIMX&name=m"
    with running(source, folder=tmp_path) as service:
        until(lambda: states(service) == ["ended"], "the end of the file")
    told = alerts(tmp_path)
    expected = score(str(path), date=day, venue="SIMX")
    assert Counter(a.head for a in told) == Counter({h: n for h, n in expected.alerts.items() if h != "any" and n})
    assert len({a.id for a in told}) == len(told) > 10
    assert all(len(a.drivers) == 3 for a in told)
    assert service.desk.hashes()["m"] == replay(str(path), date=day, venue="SIMX").state_hash
    before = service.desk.state_hash()
    with running(source, folder=tmp_path) as again:
        assert again.desk.state_hash() == before
        assert again.alerts.repeated == len(told)
        until(lambda: states(again) == ["ended"], "the end of the file, again")
    assert [a.id for a in alerts(tmp_path)] == [a.id for a in told]

    with pytest.raises(ValueError, match="two feeds"):
        Service([parse(source), parse(source)], Settings())


def test_a_checkpoint_is_as_good_as_the_journal(market: tuple[Path, str], tmp_path: Path) -> None:
    path, day = market
    source = f"file:{path}?speed=0&date={day}&venue=SIMX&name=m"
    service = Service([parse(source)], Settings(folder=tmp_path, checkpoint_s=0.2))
    service.start()
    until(lambda: states(service) == ["ended"], "the end of the file")
    service.stop()
    told, before = alerts(tmp_path), service.desk.state_hash()
    assert list(tmp_path.glob("*.checkpoint"))
    with running(source, folder=tmp_path) as again:
        assert again.restarted.checkpoint is not None
        assert again.desk.state_hash() == before
        assert again.restarted.records < 100
    assert [a.id for a in alerts(tmp_path)] == [a.id for a in told]


def test_two_processes_do_not_share_a_journal(market: tuple[Path, str], tmp_path: Path) -> None:
    path, day = market
    with running(f"file:{path}?date={day}", folder=tmp_path), pytest.raises(ValueError, match="is in use by process"):
        Service([parse(f"file:{path}")], Settings(folder=tmp_path))


@pytest.mark.parametrize("faults", ["lossy lines", "dead server", "no server"])
def test_a_feed_that_loses_packets(market: tuple[Path, str], tmp_path: Path, faults: str) -> None:
    """Lines A and B lose packets, some of them the same: asked again, or joined by an image, or marked for good."""
    path, day = market
    messages = unframe(path.read_bytes())[:12_000]
    whole = tmp_path / "part.itch"
    whole.write_bytes(b"".join(len(m).to_bytes(2, "big") + m for m in messages))
    tape = Tape("S1")
    plan = DatagramPlan(7, {"A": LineFaults(loss=0.03, reorder=8), "B": LineFaults(loss=0.03)}, both=0.004)
    publisher = MoldUdpPublisher(tape, ("127.0.0.1", 0), ("127.0.0.1", 0), plan=plan, heartbeat_s=0.1)
    server = RerequestServer(tape, ("127.0.0.1", 0), faults=RequestFaults(dead=faults == "dead server"))
    a, b, asked = publisher.addresses["A"], publisher.addresses["B"], server.address
    source = f"moldudp64://{a[0]}:{a[1]}?b={b[0]}:{b[1]}&date={day}&venue=SIMX&name=m"
    seen: set[str] = set()
    with closing(publisher), closing(server), Host() as host:
        glimpse = host.start(GlimpseServer(tape, "127.0.0.1", 0))
        if faults != "no server":
            source += f"&request={asked[0]}:{asked[1]}&glimpse={glimpse.address[0]}:{glimpse.address[1]}"
        with running(source, folder=tmp_path / "j") as service:
            service.ingest.every_turn.append(lambda now: seen.add(_state(service, now)))
            publisher.run(timed(messages), Pace(rate=12_000.0))
            publisher.start_heartbeats()
            if faults == "no server":
                until(lambda: states(service) == ["suspect"], "the mark")
                until(lambda: service.desk.books[0].live.expected == len(messages) + 1, "the last message")
            else:
                until(lambda: states(service) == ["live"] and _at_end(service, len(messages)), "in sync")
    assert plan.log.counts["loss"] > 20
    same = service.desk.hashes()["m"] == replay(str(whole), date=day, venue="SIMX").state_hash
    assert same == (faults != "no server")
    assert "wrong" not in seen
    books = service.desk.books[0]
    assert all(books.engine.suspect(int(i)) == (faults == "no server") for i in books.engine.instruments())


def _at_end(service: Service, n: int) -> bool:
    return bool(service.desk.books[0].live.expected == n + 1)


def _state(service: Service, now_ns: int) -> str:
    """Live with a hole open would be wrong."""
    books = service.desk.books[0]
    state = service.ingest.feed_state(books, now_ns)[0]
    return "wrong" if state == "live" and books.live.holes() else state


def test_the_command_ends_in_order(market: tuple[Path, str]) -> None:
    path, day = market
    command = [sys.executable, "-m", "microrisk", "monitor", f"file:{path}?speed=50&date={day}", "--port", "0"]
    done = subprocess.run([*command, "--seconds", "2", "--json"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    first, last = (json.loads(line) for line in done.stdout.splitlines())
    assert set(first) == {"url", "token"}
    assert first["token"] not in done.stderr
    assert last["messages"] > 0
