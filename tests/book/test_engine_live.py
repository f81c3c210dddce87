"""What a live monitor asks of an engine: choosing what is scored, the clock, and a state that can be taken up again."""

from __future__ import annotations

import random
import re
from functools import cache
from typing import Any

import numpy as np
import pytest

from microrisk.book import state_hash
from microrisk.core import Engine, Heads
from microrisk.errors import JournalError
from microrisk.features import kernels, state
from microrisk.features.normalise import Table, expand
from microrisk.market.simulator import simulate
from microrisk.score import alert
from microrisk.score.registry import load_model
from microrisk.spec.features import FEATURES
from microrisk.spec.records import EVENT, Action, Flag
from microrisk.spec.units import NULL_TS, Side

MEMORY = re.compile("_F|_L|EWMA|age|dt|since|now|dmid|mid")
"""Formulas with a past."""


@cache
def stage() -> dict[str, Any]:
    weights = load_model(None)
    t = weights.table_for(None)
    return {
        "kernel": kernels.kernel_address(),
        "state": state.initial_state(),
        "table": expand(Table(t.breaks, t.value, t.slope)),
        "heads": Heads(weights.heads_tensors()),
        "alert": alert.alert_address(),
        "alert_params": alert.make_params(weights.level_for(None)).tobytes(),
        "alert_state": alert.initial_state().tobytes(),
    }


@cache
def flow() -> np.ndarray[Any, Any]:
    """Two instruments: two minutes of the simulator, and the same a little later under another number."""
    one = simulate(5, 120.0).events
    other = one.copy()
    other["instrument"], other["ts_event"] = 7, one["ts_event"] + 1_000
    both = np.concatenate([one, other])
    return both[np.argsort(both["ts_event"], kind="stable")]


def engine(**options: Any) -> Engine:
    made = Engine()
    made.watch(**stage(), **options)
    made.record_trades()
    made.ticks(True)
    return made


def ids(made: Engine) -> list[str]:
    return [str(i) for i in made.instruments()]


def same(one: Engine, other: Engine) -> None:
    assert state_hash(one, ids(one)) == state_hash(other, ids(other))
    assert one.integrity() == other.integrity()
    assert one.save() == other.save()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.37, 0.8, 1.0])
@pytest.mark.parametrize("select", [False, True])
def test_a_saved_state_goes_on_like_the_run_itself(share: float, select: bool) -> None:
    events = flow()
    cut = int(share * len(events))
    whole = engine(select=select)
    if select:
        whole.watch_instrument(7, True)
    whole.run_events(events[:cut])
    first = whole.take_rows(), whole.take_trades()
    taken = engine(select=select)
    taken.load(whole.save())
    same(whole, taken)
    for e in (whole, taken):
        e.run_events(events[cut:])
        e.run_clock(int(events["ts_event"][-1]) + 2_000_000_000)
    rows = whole.take_rows()
    assert np.array_equal(rows, taken.take_rows())
    assert np.array_equal(whole.take_trades(), taken.take_trades())
    assert len(first[0]) + len(rows) > 1000
    same(whole, taken)


def test_level_books_and_marks_are_part_of_the_state() -> None:
    rng = random.Random(3)
    events = np.zeros(4000, EVENT)
    for k, e in enumerate(events):
        side = rng.choice((Side.BID, Side.ASK))
        e["ts_event"], e["ts_recv"], e["seq"], e["side"] = 10**9 + 10**6 * k, NULL_TS, k, int(side)
        e["action"], e["flags"], e["instrument"] = int(Action.MODIFY), int(Flag.LAST), k % 3
        e["px"] = 1000 + rng.randrange(-30, 31)
        e["qty"] = rng.choice((0, rng.randrange(1, 500)))
    whole = Engine(always_open=True)
    whole.run_events(events[:2000])
    whole.doubt(1)
    taken = Engine(always_open=True)
    taken.load(whole.save())
    assert [taken.suspect(i) for i in range(3)] == [whole.suspect(i) for i in range(3)]
    assert taken.suspect(1)
    for e in (whole, taken):
        e.run_events(events[2000:])
    same(whole, taken)


def test_a_chosen_instrument_is_scored_as_if_everything_were() -> None:
    full, few = engine(), engine(select=True)
    few.watch_instrument(7, True)
    for e in (full, few):
        e.run_events(flow())
    rows = full.take_rows()
    mine = rows[rows["instrument"] == 7]
    assert np.array_equal(mine, few.take_rows())
    assert np.array_equal(few.last_row(7), mine[-1])
    assert few.last_row(1) is None
    trades = full.take_trades()
    assert len(trades) > 10
    assert np.array_equal(trades[trades["instrument"] == 7], few.take_trades())
    assert np.array_equal(full.event_counts(), few.event_counts())
    assert full.event_counts().sum() == len(flow()) - np.count_nonzero(flow()["flags"] & int(Flag.SNAPSHOT))


def test_choosing_later_shows_the_book_as_it_is() -> None:
    """Features of the book alone do not depend on when the watching began, once tick and lot are given."""
    events = flow()
    full, late = engine(), engine(select=True)
    for e in (full, late):
        e.set_table(7, state.initial_state(tick=100, lot=100), stage()["table"])
        e.run_events(events[:3000])
    assert len(late.take_rows()) == 0
    late.watch_instrument(7, True)
    full.take_rows()
    for e in (full, late):
        e.run_events(events[3000:])
    rows, seen = full.take_rows(), late.take_rows()
    rows, seen = rows[(rows["instrument"] == 7) & (rows["tick"] == 0)], seen[seen["tick"] == 0]
    assert len(seen) == len(rows) > 1000
    book_alone = [f.index for f in FEATURES if f.needs <= {"l1", "l5", "l10"} and not MEMORY.search(f.formula)]
    assert len(book_alone) >= 8
    assert np.array_equal(seen["codes"][:, book_alone], rows["codes"][:, book_alone])
    late.watch_instrument(7, False)
    late.run_events(events[-1:])
    assert len(late.take_rows()) == 0
    assert late.last_row(7) is None


def test_rows_of_beginning_alarms_only() -> None:
    full, few = engine(rows=1), engine(rows=2)
    for e in (full, few):
        e.run_events(flow())
    rows = full.take_rows()
    assert np.array_equal(rows[rows["fresh"] != 0], few.take_rows())
    none = engine(rows=0)
    none.run_events(flow())
    assert len(none.take_rows()) == 0
    assert np.array_equal(none.last_row(1), rows[rows["instrument"] == 1][-1])


def test_the_clock_alone_gives_the_ticks_of_the_next_message() -> None:
    events = flow()
    by_message, by_clock = engine(), engine()
    for e in (by_message, by_clock):
        e.run_events(events[:4000])
        e.take_rows()
    later = int(events["ts_event"][3999]) + 1_300_000_000
    note = np.zeros(1, EVENT)
    note["ts_event"], note["ts_recv"], note["instrument"] = later, NULL_TS, 7
    by_clock.run_clock(later)
    by_message.run_events(note)
    rows = by_message.take_rows()
    assert np.array_equal(rows, by_clock.take_rows())
    assert len(rows) >= 10
    by_clock.run_clock(later - 1)
    assert by_clock.now == later


def test_damaged_states_are_refused() -> None:
    made = engine()
    made.run_events(flow()[:500])
    good = made.save()
    for size in [*range(0, 300), *range(300, len(good), 97)]:
        with pytest.raises(JournalError):
            engine().load(good[:size])
    with pytest.raises(JournalError, match="end"):
        engine().load(good + b"x")
    rng = random.Random(9)
    for _ in range(400):
        data = bytearray(good)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        other = engine()
        try:
            other.load(bytes(data))
        except JournalError:
            continue
        other.run_events(flow()[500:700])  # a changed number is a changed number; the file's checksum tells
    with pytest.raises(RuntimeError):
        made.load(good)
    with pytest.raises(JournalError, match="another stage"):
        Engine().load(good)


def test_only_a_stage_that_selects_can_choose() -> None:
    with pytest.raises(RuntimeError):
        engine().watch_instrument(1, True)
    with pytest.raises(ValueError, match="rows is 0"):
        engine(rows=3)
