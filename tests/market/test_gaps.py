"""Feed gaps: what is missing, what comes late, and how the receiver gets a true book again."""

from __future__ import annotations

import numpy as np
import pytest
from replay import findings, within

from microrisk.core import Engine
from microrisk.market import Plan, simulate
from microrisk.spec.records import Action, Flag

S = 1_000_000_000
SNAPSHOT = int(Flag.SNAPSHOT)


def gap(seconds: float = 5.0, instrument: int = 1, hard: bool = False) -> Plan:
    return Plan("gap", 60 * S, 1.0, seconds, instrument, hard=hard)


def test_lost_events_leave_a_hole_in_the_sequence_and_nothing_else_changes() -> None:
    clean = simulate(41, 120, instruments=2)
    torn = simulate(41, 120, instruments=2, episodes=[gap(0.0 + 5.0, 0)], resync_s=None)
    (label,) = torn.episodes
    begin = clean.start_ns + 60 * S
    assert (label.start_ns, label.end_ns) == (begin, begin + 5 * S)
    kept = clean.events[(clean.events["ts_event"] < begin) | (clean.events["ts_event"] >= begin + 5 * S)]
    assert (torn.events == kept).all()
    lost = len(clean.events) - len(kept)
    assert lost > 100
    assert label.params["events"] == lost
    assert np.diff(torn.events["seq"].astype(np.int64)).max() == lost + 1
    assert torn.sent == len(clean.events)
    found = findings(torn.events)
    assert found["unknown_order"] > 3
    assert set(found) <= {"unknown_order", "crossed", "locked", "over_execute"}


def test_a_gap_of_one_instrument_leaves_the_other_alone() -> None:
    clean, torn = (
        simulate(41, 120, instruments=2),
        simulate(41, 120, instruments=2, episodes=[gap(5.0, 2)], resync_s=None),
    )
    for index in (1, 2):
        a, b = (s.events[s.events["instrument"] == index] for s in (clean, torn))
        assert (len(a) == len(b)) == (index == 1)
    engine = Engine()
    engine.run_events(torn.events)
    assert engine.suspect(2)
    assert not engine.suspect(1)


def test_the_book_image_after_a_gap_makes_the_book_true_again() -> None:
    clean = simulate(42, 120, instruments=2)
    torn = simulate(42, 120, instruments=2, episodes=[gap(5.0, 0)], resync_s=0.5)
    image = torn.events[torn.events["flags"] & SNAPSHOT != 0]
    assert (image["ts_event"] == clean.start_ns + int(65.5 * S)).all()
    assert sorted(image["instrument"][image["action"] == Action.CLEAR]) == [1, 2]
    assert (np.diff(torn.events["ts_event"]) >= 0).all()
    a, b = Engine(), Engine()
    a.run_events(clean.events)
    b.run_events(torn.events)
    for index in (1, 2):
        assert (a.orders(index) == b.orders(index)).all()
        assert not b.suspect(index)
    late = torn.events[torn.events["ts_event"] >= clean.start_ns + int(65.5 * S)]
    assert findings(late) == {}


def test_a_stale_venue_is_silent_and_then_sends_everything() -> None:
    clean = simulate(43, 120)
    stale = simulate(43, 120, episodes=[gap(4.0, 1, hard=True)])
    begin, end = stale.episodes[0].start_ns, stale.episodes[0].end_ns
    assert len(within(clean.events, begin, end)) > 50
    assert len(within(stale.events, begin, end)) == 0
    assert len(stale.events) == len(clean.events)
    burst = within(stale.events, end, end + 5_000_000)
    assert len(burst) >= stale.episodes[0].params["events"] > 50
    assert (stale.events["order_id"] == clean.events["order_id"]).all()
    assert (np.diff(stale.events["ts_event"]) >= 0).all()
    assert (stale.events["seq"] == np.arange(1, len(clean.events) + 1)).all()
    assert findings(stale.events) == {}


def test_a_stale_instrument_among_others_keeps_its_own_order() -> None:
    clean = simulate(44, 120, instruments=3)
    stale = simulate(44, 120, instruments=3, episodes=[gap(4.0, 2, hard=True)])
    for index in (1, 2, 3):
        a, b = (s.events[s.events["instrument"] == index] for s in (clean, stale))
        assert (a["order_id"] == b["order_id"]).all()
        assert (a["ts_event"] == b["ts_event"]).all() == (index != 2)
    assert (stale.events["seq"] == np.arange(1, len(clean.events) + 1)).all()
    assert (stale.events["order_id"] != clean.events["order_id"]).any()
    assert findings(stale.events) == {}


@pytest.mark.parametrize("seconds", [0.5, 30.0])
def test_the_shortest_and_the_longest_gap(seconds: float) -> None:
    torn = simulate(45, 120, episodes=[gap(seconds)])
    (label,) = torn.episodes
    assert label.end_ns - label.start_ns == int(seconds * S)
    assert len(within(torn.events, label.start_ns, label.end_ns)) == 0
