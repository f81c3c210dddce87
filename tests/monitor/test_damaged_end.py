"""A journal whose last block is torn or has a flipped bit, through the whole service: nothing is lost."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from microrisk.evaluate.demo import planted
from microrisk.market.write import session_date, write_itch
from microrisk.monitor.address import parse
from microrisk.monitor.alert_log import AlertLog
from microrisk.monitor.journal import Block, blocks, records, segments
from microrisk.monitor.service import Service, Settings
from microrisk.spec.journal import BLOCK_HEADER_BYTES, Kind

DEADLINE_S = 60.0


def play(source: str, folder: Path) -> Service:
    """To the end of the recording."""
    service = Service([parse(source)], Settings(folder=folder, checkpoint_s=1e6))
    service.start()
    end = time.monotonic() + DEADLINE_S
    while service.hub.overview()["feeds"][0].state != "ended":
        assert time.monotonic() < end, f"not played within {DEADLINE_S} s"
        time.sleep(0.005)
    service.stop(clean=False)
    return service


def told(folder: Path) -> list[str]:
    log = AlertLog(folder / "alerts.jsonl")
    ids = [a.id for a in log.last(100_000)]
    log.close()
    return ids


Played = tuple[str, Path, tuple[int, int], str, list[str]]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """The source; its folder, whose journal ends with events that gave alarms; that block's place; hash; alert ids."""
    top = tmp_path_factory.mktemp("played")
    session = planted(2, 700.0)
    path = write_itch(session, top / "market.itch")
    source = f"file:{path}?speed=0&date={session_date(session)}&venue=SIMX&name=m"
    service = play(source, top / "j")
    (_, segment), *_ = segments(top / "j")
    found = [b for b in blocks(segment, number=None, crc=None) if isinstance(b, Block)]
    last = max(k for k, b in enumerate(found) if any(r.kind == Kind.EVENTS for r in records(b.payload)))
    begin, end = found[last].end - len(found[last].payload) - BLOCK_HEADER_BYTES, found[last].end
    segment.write_bytes(segment.read_bytes()[:end])
    return source, top / "j", (begin, end), service.desk.hashes()["m"], told(top / "j")


def torn(data: bytes, begin: int, place: int, rng: random.Random) -> bytes:
    return data[:place] if place > begin else data[: begin + 1]


def flipped(data: bytes, begin: int, place: int, rng: random.Random) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


@pytest.mark.parametrize(
    ("damage", "where", "alerts"),
    [
        (torn, 0, "told"),
        (torn, 23, "told"),
        (torn, 0.5, "untold"),
        (torn, -1, "told"),
        (flipped, 7, "untold"),
        (flipped, 19, "told"),
        (flipped, 47, "told"),
        (flipped, 0.7, "untold"),
    ],
)
def test_a_damaged_last_block(
    played: Played, tmp_path: Path, damage: Callable[..., bytes], where: float, alerts: str
) -> None:
    """In its header, a record's header, and events; its alerts in the log, or none of any."""
    source, folder, (begin, end), expected, ids = played
    place = end - 1 if where == -1 else begin + int(where * (end - begin) if 0 < where < 1 else where)
    own = tmp_path / "j"
    shutil.copytree(folder, own)
    (_, segment), *_ = segments(own)
    segment.write_bytes(damage(segment.read_bytes(), begin, place, random.Random(place)))
    if alerts == "untold":
        (own / "alerts.jsonl").write_bytes(b"")
    again = play(source, own)
    assert any("were cut off and kept" in notice for notice in again.restarted.notices)
    assert list(own.glob("*.torn"))
    assert again.desk.hashes()["m"] == expected
    assert told(own) == ids


def test_damage_further_in_is_refused_and_changes_nothing(played: Played, tmp_path: Path) -> None:
    source, folder, (begin, _), _, ids = played
    own = tmp_path / "j"
    shutil.copytree(folder, own)
    (_, segment), *_ = segments(own)
    data = bytearray(segment.read_bytes())
    data[begin - 1] ^= 1  # the last byte of the block before
    segment.write_bytes(data)
    for _ in range(2):  # the lock is given back
        with pytest.raises(ValueError, match="cannot be continued"):
            Service([parse(source)], Settings(folder=own))
    assert segment.read_bytes() == data
    assert told(own) == ids
