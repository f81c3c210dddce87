"""Checkpoints at awkward places: what a restart from one gives is what the process that made it would have had."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from microrisk.errors import OutputError
from microrisk.evaluate.demo import planted
from microrisk.feed.encode import unframe
from microrisk.market.write import session_date, write_itch
from microrisk.monitor import checkpoint as checkpoints
from microrisk.monitor.address import parse
from microrisk.monitor.desk import SELECT_CLOCKS
from microrisk.monitor.recovery import Recovery
from microrisk.monitor.service import Service, Settings
from tests.monitor.test_sessions import FIRST, SECOND, clock, hand_in, opened, renamed, told

Market = tuple[list[bytes], str]


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Market:
    session = planted(2, 700.0)
    path = write_itch(session, tmp_path_factory.mktemp("market") / "market.itch")
    return unframe(path.read_bytes()), session_date(session)


def test_a_name_from_just_before_a_checkpoint_is_scored_after_it(market: Market, tmp_path: Path) -> None:
    messages, day = market
    service, books = opened(tmp_path, day)
    clock(service)
    hand_in(service, books, messages[:200], FIRST)
    service.checkpoint()  # between the directory and the CLOCK that would choose
    service.stop(clean=False)
    again, same = opened(tmp_path, day)
    assert again.restarted.checkpoint is not None
    clock(again)
    assert len(same.stage.chosen) == 1
    again.stop(clean=False)


def test_a_number_with_a_new_name_is_chosen_anew_behind_a_checkpoint(market: Market, tmp_path: Path) -> None:
    """The live process and the one that restarts from the checkpoint go on alike, alarms included."""
    messages, day = market
    service, books = opened(tmp_path, day)
    hand_in(service, books, messages[:2000], FIRST)
    clock(service)
    (index,) = books.stage.chosen
    old = books.name(index).partition(".")[0].encode()
    service.ingest._begin_session(books, SECOND, service.ingest.poller.now_ns())
    hand_in(service, books, renamed(messages[:500], old, b"OTHER"), SECOND)
    service.checkpoint()
    clock(service)
    live = books.engine.save()
    service.stop(clean=False)
    again, same = opened(tmp_path, day)
    assert again.restarted.checkpoint is not None
    assert same.engine.save() == live
    assert same.stage.chosen == {index}
    again.stop(clean=False)


def test_what_a_full_disk_left_is_applied_before_the_last_checkpoint(market: Market, tmp_path: Path) -> None:
    """Datagrams are pending in the core when the loop is told to end, and now there is room."""
    messages, day = market
    service, books = opened(tmp_path, day)
    hand_in(service, books, messages[:100], FIRST)
    hand_in(service, books, messages[100:130], FIRST, 101)
    service.ingest.commit = lambda: None  # type: ignore[method-assign]  # as if the disk had refused
    hand_in(service, books, messages[130:160], FIRST, 131)
    del service.ingest.commit  # type: ignore[method-assign]
    service.ingest.stop()
    service.ingest.run()
    assert books.messages == 160
    before = service.desk.state_hash()
    service.checkpoint()
    service.stop(clean=False)
    again, same = opened(tmp_path, day)
    assert same.messages == 160
    assert again.desk.state_hash() == before
    again.stop(clean=False)


def test_a_session_that_begins_on_a_full_disk(market: Market, tmp_path: Path) -> None:
    """What was said about the old session is forgotten although the record of the new one has to wait."""
    messages, day = market
    service, books = opened(tmp_path, day)
    hand_in(service, books, messages[:100], FIRST)
    recovery = service.ingest.recoveries[0]
    recovery.lost = True

    def full() -> None:
        raise OutputError("No space left on device")

    service.ingest.commit = full  # type: ignore[method-assign]
    with pytest.raises(OutputError):
        service.ingest._begin_session(books, SECOND, service.ingest.poller.now_ns())
    del service.ingest.commit  # type: ignore[method-assign]
    service.ingest.commit()
    assert books.session == "SECOND"
    assert isinstance(recovery, Recovery)
    assert not recovery.lost
    service.stop(clean=False)


def test_alerts_that_were_read_back_are_told_before_any_checkpoint(market: Market, tmp_path: Path) -> None:
    messages, day = market
    service, books = opened(tmp_path, day)
    hand_in(service, books, messages[:10], FIRST)
    clock(service)
    hand_in(service, books, messages[10:], FIRST, 11)
    service.ingest.report_rows()
    service.stop(clean=False)
    first = [a.id for a in told(tmp_path)]
    assert len(first) > 5
    (tmp_path / "alerts.jsonl").write_bytes(b"")  # as if none had been told before the process died
    source = parse("kraken:BTC/USD?url=ws://127.0.0.1:1&name=k")
    never_started = Service([source], Settings(folder=tmp_path))
    never_started.stop()
    again, _ = opened(tmp_path, day)
    again.stop(clean=False)
    assert [a.id for a in told(tmp_path)] == first


def saved(folder: Path, market: Market) -> tuple[Path, dict[str, Any], str]:
    """A checkpoint, what is in it, and the hash of the books."""
    messages, day = market
    service, books = opened(folder, day)
    hand_in(service, books, messages[:500], FIRST)
    clock(service)
    service.checkpoint()
    expected = service.desk.state_hash()
    service.stop(clean=False)
    (path,) = folder.glob("*.checkpoint")
    return path, msgspec.msgpack.decode(path.read_bytes()[checkpoints._HEAD.size :]), expected


def rewrite(path: Path, body: dict[str, Any]) -> None:
    data = msgspec.msgpack.encode(body)
    path.write_bytes(checkpoints._HEAD.pack(checkpoints._MAGIC, 1, zlib.crc32(data), len(data)) + data)


def places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every entry."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [found for k in keys for found in ((*way, k), *places(value[k], (*way, k)))]


def spoil(body: dict[str, Any], way: tuple[Any, ...], change: Callable[[Any], Any]) -> None:
    place: Any = body
    for key in way[:-1]:
        place = place[key]
    place[way[-1]] = change(place[way[-1]])


def entry(body: Any, way: tuple[Any, ...]) -> Any:
    for key in way:
        body = body[key]
    return body


OTHERS: list[Any] = [None, -1, 1 << 40, 2.5, "text", b"", b"\xff" * 40, [], [[1]], {}, {"a": 1}]


@pytest.mark.parametrize("seed", range(3))
def test_a_checkpoint_with_anything_else_in_it_is_passed_over_or_equal(
    market: Market, tmp_path: Path, seed: int
) -> None:
    """Its checksum right, any entry another: never a traceback; the journal gives the same books."""
    path, body, expected = saved(tmp_path, market)
    rng = random.Random(seed)
    keys = [w for w in places(body) if w not in {("abi",), ("format",), ("model",)}]
    passed_over = 0
    for way in rng.sample(keys, min(len(keys), 40)):
        other = msgspec.msgpack.decode(msgspec.msgpack.encode(body))
        value = rng.choice([o for o in OTHERS if type(o) is not type(entry(body, way))])
        spoil(other, way, lambda old, value=value: old[: len(old) // 2] if isinstance(old, bytes) else value)
        rewrite(path, other)
        again, _ = opened(tmp_path, market[1])
        for _ in range(SELECT_CLOCKS):
            clock(again)
        again.checkpoint()
        again.stop(clean=False)
        over = [n for n in again.restarted.notices if "passed over" in n]
        passed_over += bool(over)
        assert over or again.restarted.checkpoint is not None
        assert again.desk.state_hash() == expected, way
        for made in {*tmp_path.glob("*.checkpoint")} - {path}:
            made.unlink()
    assert passed_over > 10


def test_what_a_kill_left_of_a_checkpoint_is_removed(market: Market, tmp_path: Path) -> None:
    path, _, expected = saved(tmp_path, market)
    left = tmp_path / f"{5:016x}.partial"
    left.write_bytes(path.read_bytes()[:100])
    again, _ = opened(tmp_path, market[1])
    assert again.desk.state_hash() == expected
    again.checkpoint()
    again.stop(clean=False)
    assert not left.exists()
    assert len(list(tmp_path.glob("*.checkpoint"))) == 2
