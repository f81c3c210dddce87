"""Recorded files as sources: the very events of a replay, in groups, at a pace, from the middle, again and again."""

from __future__ import annotations

import asyncio
import time
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_sink import Keeper, run, running, until

from microrisk.errors import UsageError
from microrisk.feed import open_feed
from microrisk.feed.base import empty_events
from microrisk.market.simulator import simulate
from microrisk.market.write import write_itch
from microrisk.monitor.sources.files import GROUP_NS, MOST_EVENTS, FileConfig, FileSource, Recorder, groups
from microrisk.spec.journal import Kind
from microrisk.spec.records import EVENT, Action, Integrity
from microrisk.spec.units import NULL_TS

SEED = 5


@cache
def folder() -> Path:
    import tempfile

    return Path(tempfile.mkdtemp(prefix="microrisk-test-"))


@cache
def itch() -> str:
    return str(write_itch(simulate(SEED, 20.0, instruments=3), folder() / "20240102.itch"))


@cache
def coinbase() -> str:
    """Messages with findings between them: a gap, a message that cannot be read, an order that never rested."""
    lines = []
    for n in range(1, 400):
        at = f"2024-01-02T00:00:{n // 10:02}.{n % 10}00000Z"
        side, px = ("buy", 100 - n % 7) if n % 2 else ("sell", 101 + n % 7)
        if n % 50 == 0:
            continue
        if n % 60 == 1:
            lines.append('{"type":"open","sequence":1,')
        body = f'"product_id":"{"AB"[n % 3 == 0]}-USD","sequence":{n},"time":"{at}","side":"{side}"'
        kind = "done" if n % 5 == 0 else "open"
        lines.append(f'{{"type":"{kind}",{body},"order_id":"o{n}","price":"{px}","remaining_size":"1.5"}}')
    path = folder() / "coinbase.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


FILES = {"itch": (itch, None), "coinbase": (coinbase, "coinbase")}
every = pytest.mark.parametrize("name", FILES)


def played(name: str, **options: Any) -> tuple[Keeper, FileSource]:
    make, format = FILES[name]
    keeper = Keeper()
    source = FileSource(keeper, 9, FileConfig(paths=(make(),), format=format, **{"speed": 0.0, **options}))

    async def work() -> None:
        async with running(source) as task:
            await task

    run(work())
    return keeper, source


def expected(name: str) -> list[Any]:
    """What a replay hands to an engine, events joined between findings."""
    make, format = FILES[name]
    feed, recorder = open_feed([make()], format=format), Recorder()
    while feed.pump(recorder):
        pass
    return joined(recorder.take())


def joined(items: list[Any]) -> list[Any]:
    out: list[Any] = []
    for item in items:
        data = item if isinstance(item, tuple) else item.tobytes()
        if out and isinstance(data, bytes) and isinstance(out[-1], bytes):
            out[-1] += data
        elif data != b"":
            out.append(data)
    return out


def taken(keeper: Keeper) -> list[Any]:
    out: list[Any] = []
    for item in keeper.items:
        if item.kind == Kind.EVENTS:
            out.append(np.frombuffer(item.body, EVENT))
        elif item.kind == Kind.NAMES:
            out += [tuple(f) for f in msgspec.json.decode(item.body)["findings"]]
    return joined(out)


@every
def test_events_and_findings_are_those_of_a_replay_in_their_order(name: str) -> None:
    keeper, source = played(name)
    want = expected(name)
    assert taken(keeper) == want
    assert source.counts["events"] == sum(len(w) for w in want if isinstance(w, bytes)) // EVENT.itemsize
    if name == "coinbase":
        kinds = {w[0] for w in want if isinstance(w, tuple)}
        assert {Integrity.malformed, Integrity.gap, Integrity.never_rested} <= kinds
        assert len(want) > 10


@every
def test_names_stand_in_front_of_their_events(name: str) -> None:
    keeper, _ = played(name)
    known: dict[int, list[Any]] = {}
    for item in keeper.items:
        if item.kind == Kind.NAMES:
            known |= {int(i): e for i, e in msgspec.json.decode(item.body)["names"].items()}
        elif item.kind == Kind.EVENTS:
            assert set(np.frombuffer(item.body, EVENT)["instrument"].tolist()) <= set(known)
    make, format = FILES[name]
    feed = open_feed([make()], format=format)
    for _ in feed.events():
        pass
    told = {i: [e.id, e.px_exp, e.qty_exp, e.tick, e.lot] for i, e in feed.instruments().items()}
    assert known == told
    first = msgspec.json.decode(keeper.items[0].body)
    assert (first["mask"], first["always_open"], first["format"]) == (feed.mask, feed.venue_always_open, feed.format)


@every
def test_records_carry_recorded_time_and_keep_their_limits(name: str) -> None:
    keeper, _ = played(name)
    for item in keeper.of(Kind.EVENTS):
        events = np.frombuffer(item.body, EVENT)
        times = np.where(events["ts_recv"] != NULL_TS, events["ts_recv"], events["ts_event"])
        assert item.recv_ns == times[-1]
        assert len(events) <= MOST_EVENTS
        assert np.abs(times - times[0]).max() <= GROUP_NS
    assert keeper.items[-1].kind == Kind.END
    assert keeper.state_now == "ended"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(0, 40_000_000)), max_size=60), st.booleans())
def test_groups_lose_nothing_and_events_without_a_time_have_the_one_before(times: list[int | None], recv: bool) -> None:
    events = empty_events(len(times))
    events["seq"] = np.arange(len(times))
    events["ts_event"] = events["ts_recv"] = NULL_TS
    column = "ts_recv" if recv else "ts_event"
    events[column] = [NULL_TS if t is None else t for t in times]
    out = list(groups(events, 77))
    assert b"".join(g.tobytes() for g, _ in out) == events.tobytes()
    at, last = 0, 77
    for group, time_ns in out:
        for t in times[at : at + len(group)]:
            last = last if t is None else t
        at += len(group)
        assert time_ns == last


@every
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99, 1.0])
def test_what_is_there_already_is_left_out(name: str, share: float) -> None:
    whole, _ = played(name)
    events = np.concatenate([np.frombuffer(i.body, EVENT) for i in whole.of(Kind.EVENTS)])
    skip = int(share * len(events))
    keeper, source = played(name, skip_events=skip)
    rest = b"".join(i.body for i in keeper.of(Kind.EVENTS))
    assert rest == events[skip:].tobytes()
    assert source.counts["skipped"] == skip
    want = expected(name)
    if skip == 0:
        assert taken(keeper) == want
    else:
        tail = [f for f in taken(keeper) if isinstance(f, tuple)]
        all_found = [f for f in want if isinstance(f, tuple)]
        assert tail == all_found[len(all_found) - len(tail) :], "only those behind what was skipped"


def test_the_pace_is_that_of_the_recording() -> None:
    begun = time.monotonic()
    keeper, _ = played("coinbase", speed=100.0)
    took = time.monotonic() - begun
    times = [i.recv_ns for i in keeper.of(Kind.EVENTS)]
    recorded = (times[-1] - times[0]) / 1e9
    assert recorded > 30
    assert recorded / 100 <= took < recorded / 100 + 2.0


def test_a_full_queue_is_waited_for() -> None:
    make, format = FILES["itch"]
    keeper = Keeper(room=4)
    source = FileSource(keeper, 9, FileConfig(paths=(make(),), format=format, speed=0.0))

    async def work() -> None:
        async with running(source) as task:
            await until(lambda: keeper.refused > 3)
            assert len(keeper.items) == 4
            keeper.room = 1 << 30
            await task

    run(work())
    assert source.counts["waits"] > 3
    assert taken(keeper) == expected("itch")


@pytest.mark.parametrize("speed", [0.0, 0.001])
def test_a_source_that_waits_can_be_stopped(speed: float) -> None:
    keeper = Keeper(room=4)
    source = FileSource(keeper, 9, FileConfig(paths=(itch(),), speed=speed, loop=True))

    async def work() -> float:
        async with running(source):
            await until(lambda: keeper.items)
            await asyncio.sleep(0.1)
            begun = time.monotonic()
        return time.monotonic() - begun

    assert run(work()) < 1.0
    assert Kind.END not in [i.kind for i in keeper.items]


def test_a_loop_goes_on_with_later_times_and_empty_books() -> None:
    whole, _ = played("coinbase")
    once = np.concatenate([np.frombuffer(i.body, EVENT) for i in whole.of(Kind.EVENTS)])
    keeper = Keeper()
    source = FileSource(keeper, 9, FileConfig(paths=(coinbase(),), format="coinbase", speed=0.0, loop=True))

    async def work() -> None:
        async with running(source):
            await until(lambda: source.counts["events"] > 3 * len(once))

    run(work())
    events = np.concatenate([np.frombuffer(i.body, EVENT) for i in keeper.of(Kind.EVENTS)])
    n = len(once)
    clears = events[n : n + 2]
    assert clears["action"].tolist() == [Action.CLEAR] * 2
    assert sorted(clears["instrument"].tolist()) == [0, 1]
    second = events[n + 2 : 2 * n + 2]
    for field in ("action", "side", "px", "qty", "instrument", "order_id", "flags"):
        assert (second[field] == once[field]).all()
    shifts = set((second["ts_event"] - once["ts_event"]).tolist())
    assert len(shifts) == 1
    assert (np.diff(events["ts_event"]) >= 0).all()
    assert int(second["seq"].min()) > int(once["seq"].max())
    middle = FileSource(
        kept := Keeper(),
        9,
        FileConfig(paths=(coinbase(),), format="coinbase", speed=0.0, loop=True, skip_events=n + 10),
    )

    async def again() -> None:
        async with running(middle):
            await until(lambda: middle.counts["events"] > n)

    run(again())
    got = np.concatenate([np.frombuffer(i.body, EVENT) for i in kept.of(Kind.EVENTS)])
    assert got[:n].tobytes() == events[n + 10 : 2 * n + 10].tobytes(), "a loop is taken up in its second round"


def test_a_file_that_cannot_be_read_is_told() -> None:
    keeper = Keeper()
    source = FileSource(keeper, 9, FileConfig(paths=("/no/such/file",)))

    async def work() -> None:
        async with running(source) as task:
            await task

    run(work())
    assert keeper.states[-1][0] == "down"
    assert "no such file" in keeper.states[-1][1]
    with pytest.raises(UsageError, match="speed"):
        FileSource(keeper, 9, FileConfig(paths=("x",), speed=-1.0))
