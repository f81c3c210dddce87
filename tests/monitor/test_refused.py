"""Starts that are refused leave nothing behind; checkpoints of another layout are passed over."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from microrisk.errors import OutputError, UsageError
from microrisk.evaluate.demo import planted
from microrisk.market.write import session_date, write_itch
from microrisk.monitor import checkpoint as checkpoints
from microrisk.monitor.address import parse
from microrisk.monitor.hub import Alert
from microrisk.monitor.restart import weights_hash
from microrisk.monitor.service import Service, Settings
from microrisk.pipeline.watch import named


def journal_bytes(folder: Path) -> bytes:
    return b"".join(p.read_bytes() for p in sorted(folder.glob("*.journal")))


def played(folder: Path, *sources: str) -> None:
    """Start and stop."""
    service = Service([parse(s) for s in sources], Settings(folder=folder))
    service.start()
    service.stop(clean=False)


@pytest.fixture
def taken() -> Iterator[int]:
    """A UDP port that somebody else has."""
    with closing(socket.socket(type=socket.SOCK_DGRAM)) as other:
        other.bind(("127.0.0.1", 0))
        yield other.getsockname()[1]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("coinbase:BTC-USD?name=x", "kraken:BTC/USD?name=x", ["scheme", "coinbase", "kraken"]),
        ("coinbase:BTC-USD?name=x", "coinbase:BTC-USD?name=x&channel=level2", ["channel", "full", "level2"]),
        ("kraken:BTC/USD?name=x", "kraken:BTC/USD?name=x&venue=OTHER", ["venue", "KRAKEN", "OTHER"]),
        ("binance:BTCUSDT?name=x", "binance:BTCUSDT?name=x&market=usdm", ["market", "spot", "usdm"]),
    ],
)
def test_a_name_of_the_journal_is_not_given_to_another_feed(
    tmp_path: Path, before: str, after: str, told: list[str]
) -> None:
    unreachable = "&url=ws://127.0.0.1:1"
    played(tmp_path, before + unreachable)
    written = journal_bytes(tmp_path)
    with pytest.raises(UsageError) as refused:
        played(tmp_path, "bitstamp:btcusd?url=ws://127.0.0.1:1", after + unreachable)
    assert all(word in str(refused.value) for word in [*told, "--journal", "name=", str(tmp_path)])
    assert journal_bytes(tmp_path) == written
    played(tmp_path, before + unreachable)


def test_a_refused_start_gives_everything_back(tmp_path: Path, taken: int) -> None:
    threads = threading.active_count()
    source = f"moldudp64://127.0.0.1:{taken}?name=x"
    service = Service([parse(source)], Settings(folder=tmp_path))
    with pytest.raises((UsageError, OSError)) as refused:
        service.start()
    assert str(taken) in str(refused.value)
    assert threading.active_count() == threads
    played(tmp_path, "kraken:BTC/USD?url=ws://127.0.0.1:1")  # the lock is free


def test_a_model_that_is_missing_gives_the_lock_back(tmp_path: Path) -> None:
    source = parse("kraken:BTC/USD?url=ws://127.0.0.1:1")
    with pytest.raises(LookupError):
        Service([source], Settings(folder=tmp_path, model="no-such-model"))
    played(tmp_path, "kraken:BTC/USD?url=ws://127.0.0.1:1")


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="--journal") as refused:
        Service([parse("kraken:BTC/USD?url=ws://127.0.0.1:1")], Settings(folder=tmp_path / "file"))
    assert str(tmp_path / "file") in str(refused.value)


@pytest.mark.parametrize("missing", ["crc", "desk", "desk/books", "desk/books/0/engine", "desk/opened/0/name"])
def test_a_checkpoint_of_another_layout_is_passed_over(tmp_path: Path, missing: str) -> None:
    source = "kraken:BTC/USD?url=ws://127.0.0.1:1&name=k"
    for _ in range(2):
        service = Service([parse(source)], Settings(folder=tmp_path))
        service.start()
        service.stop()
    whole = sorted(tmp_path.glob("*.checkpoint"))
    assert len(whole) == 2
    _take_away(whole[-1], missing.split("/"))
    again = Service([parse(source)], Settings(folder=tmp_path))
    again.stop(clean=False)
    (notice,) = [n for n in again.restarted.notices if "passed over" in n]
    assert whole[-1].name in notice
    assert "layout" in notice
    assert again.restarted.checkpoint == int(whole[0].stem, 16)
    assert list(again.desk.books) == [0]


def _take_away(path: Path, keys: list[str]) -> None:
    """Write the checkpoint again without one entry, its checksum right."""
    found = checkpoints.read(path, weights_hash(named(None)[0]))
    assert isinstance(found, checkpoints.Checkpoint)
    body = msgspec.msgpack.decode(path.read_bytes()[checkpoints._HEAD.size :])
    *way, last = keys
    place = body
    for key in way:
        place = place[key]
    del place[last]
    data = msgspec.msgpack.encode(body)
    head = checkpoints._HEAD.pack(checkpoints._MAGIC, 1, zlib.crc32(data), len(data))
    path.write_bytes(head + data)


def test_no_checkpoint_before_its_alerts_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = planted(2, 700.0)
    path = write_itch(session, tmp_path / "market.itch")
    source = parse(f"file:{path}?speed=0&date={session_date(session)}&name=m")
    service = Service([source], Settings(folder=tmp_path / "j", checkpoint_s=0.05))

    def refuse(alert: Alert) -> None:
        raise OutputError("no room for alerts")

    monkeypatch.setattr(service.log, "append", refuse)
    service.start()
    end = time.monotonic() + 30
    while service.hub.overview()["feeds"][0].state != "ended":
        assert time.monotonic() < end
        time.sleep(0.01)
    while "no room for alerts" not in service.hub.overview()["notices"]:  # with the next lists
        assert time.monotonic() < end
        time.sleep(0.01)
    service.stop()
    assert not list((tmp_path / "j").glob("*.checkpoint"))
    again = Service([source], Settings(folder=tmp_path / "j"))
    again.start()
    again.stop(clean=False)
    told = [a.id for a in again.hub.alerts(limit=10_000)]
    assert len(told) == len(set(told)) == service.alerts.n > 5


def test_ended_feeds_are_ready(tmp_path: Path) -> None:
    session = planted(2, 700.0)
    path = write_itch(session, tmp_path / "market.itch")
    service = Service([parse(f"file:{path}?speed=0&date={session_date(session)}&name=m")], Settings())
    assert service.hub.ready() == (False, {})
    service.start()
    while service.hub.overview()["feeds"][0].state != "ended":
        time.sleep(0.01)
    assert service.hub.ready() == (True, {"m": "ended"})
    service.stop(clean=False)


def test_a_page_whose_port_is_taken_leaves_no_folder(tmp_path: Path) -> None:
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        command = [sys.executable, "-m", "microrisk", "monitor", "kraken:BTC/USD?url=ws://127.0.0.1:1", "--port", port]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, env=os.environ | {"TMPDIR": str(tmp_path)}
        )
    assert done.returncode == 2, done.stderr
    assert port in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("microrisk-monitor-*"))
