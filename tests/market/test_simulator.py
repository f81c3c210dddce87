"""The simulator: bytes pinned to a seed, true price-time priority, books that replay without a finding."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from replay import Naive, executions, findings

from microrisk.book import same_books
from microrisk.book.reference import ReferenceEngine
from microrisk.core import Engine
from microrisk.errors import UsageError
from microrisk.market import KINDS, Plan, random_plans, simulate
from microrisk.market.simulator import START_NS
from microrisk.spec.records import EVENT, Action, FeedId, Flag, TradingState
from microrisk.spec.units import NULL_TS

S = 1_000_000_000
PLAIN = (8788, "63f74121e07d361421136732a1a83963")
STRESSED = (34825, "3177718d6839c40bd6c4a65a4c1df45d")
"""Events and digest; a change of the flow changes them on purpose, another machine or numpy must not."""


def digest(events: np.ndarray) -> str:
    return hashlib.blake2b(events.tobytes(), digest_size=16).hexdigest()


def test_a_seed_gives_these_bytes_on_every_machine() -> None:
    plain = simulate(7, 120)
    stressed = simulate(7, 240, episodes="random", instruments=2)
    assert (len(plain.events), digest(plain.events)) == PLAIN
    assert (len(stressed.events), digest(stressed.events)) == STRESSED


def test_seeds_and_instruments_are_streams_of_their_own() -> None:
    one, two = simulate(1, 60), simulate(2, 60)
    assert digest(one.events) != digest(two.events)
    pair = simulate(1, 60, instruments=2).events
    first = pair[pair["instrument"] == 1]
    assert len(first) == len(one.events)
    for name in ("ts_event", "action", "side", "px", "qty", "flags"):
        assert (first[name] == one.events[name]).all()
    second = pair[pair["instrument"] == 2]
    assert len(second) > 500
    assert not set(first["order_id"][first["action"] == Action.ADD]) & set(second["order_id"])


def test_events_have_the_shape_that_every_feed_has() -> None:
    events = simulate(3, 90, instruments=2).events
    assert events.dtype == EVENT
    assert (events["seq"] == np.arange(1, len(events) + 1)).all()
    assert (np.diff(events["ts_event"]) >= 0).all()
    assert events["ts_event"][0] >= START_NS
    assert events["ts_event"][-1] < START_NS + 90 * S
    assert (events["ts_recv"] == NULL_TS).all()
    assert (events["flags"] & int(Flag.LAST) != 0).all()
    assert (events["feed"] == int(FeedId.SIMULATOR)).all()
    assert set(np.unique(events["action"])) <= {Action.ADD, Action.REDUCE, Action.DELETE, Action.REPLACE, 7, 8}
    matches = executions(events)["ref"]
    assert len(np.unique(matches)) == len(matches)
    states = events[events["action"] == Action.STATE]
    assert list(states["ref"][:2]) == [TradingState.TRADING] * 2


def test_price_time_priority_and_conservation_event_by_event() -> None:
    session = simulate(5, 60, episodes=[Plan("ignition", 20 * S, 0.5, 10.0), Plan("layering", 45 * S, 1.0, 10.0)])
    naive = Naive().run(session.events)
    assert +naive.wrong == {}
    assert len(executions(session.events)) > 100
    engine = Engine()
    engine.run_events(session.events)
    assert {int(o["order_id"]): int(o["qty"]) for o in engine.orders(1)} == {k: v[2] for k, v in naive.orders.items()}


def test_clean_and_stressed_sessions_replay_without_a_finding() -> None:
    kinds = tuple(k for k in KINDS if k != "gap")
    plans = random_plans(4, 900, 2, 10.0, kinds=kinds)
    for session in (simulate(11, 1800, halts_per_hour=6.0), simulate(12, 900, episodes=plans)):
        assert findings(session.events) == {}
        assert 35 * session.seconds < len(session.events) < 120 * session.seconds


def test_both_engines_rebuild_the_same_books() -> None:
    session = simulate(9, 60, instruments=2, episodes=[Plan("withdrawal", 20 * S, 1.0, 15.0, 2)])
    fast, naive = Engine(), ReferenceEngine()
    for engine in (fast, naive):
        engine.run_events(session.events)
        engine.finish()
    assert same_books(fast, naive) is None
    assert fast.live_orders > 100
    assert not any(naive.integrity().values())


def test_about_fifty_events_a_second_and_ten_levels_a_side() -> None:
    counts = []
    for seed in range(4):
        events = simulate(seed, 1800, halts_per_hour=0.0).events
        counts.append(len(events))
        engine = Engine()
        engine.record_views(S)
        engine.run_events(events)
        views = engine.take_views()[10:]
        assert (np.minimum(views["n_bid"], views["n_ask"]) == 10).mean() > 0.995
        ticks = (views["ask_px"][:, 0] - views["bid_px"][:, 0]) / 100
        assert ticks.min() >= 1
        assert 1.05 < ticks.mean() < 2.0
        assert (ticks <= 3).mean() > 0.95
    assert 80_000 < np.mean(counts) < 115_000


def test_a_halt_is_quiet_and_ends_with_an_auction_print() -> None:
    events = simulate(2, 1200, halts_per_hour=20.0).events
    states = events[events["action"] == Action.STATE]
    assert list(states["ref"][:3]) == [TradingState.TRADING, TradingState.HALTED, TradingState.TRADING]
    begin, end = states["ts_event"][1:3]
    inside = events[(events["ts_event"] > begin) & (events["ts_event"] < end)]
    assert end - begin >= 10 * S
    assert not len(executions(inside))
    assert len(inside) < 10 * (end - begin) / S
    at = int(np.flatnonzero(events["seq"] == states["seq"][2])[0])
    cross = events[at - 1]
    assert cross["action"] == Action.TRADE
    assert cross["flags"] & int(Flag.CROSS)


def test_news_raise_the_activity_without_a_label() -> None:
    calm = simulate(3, 900, news_per_hour=0.0, halts_per_hour=0.0)
    busy = simulate(3, 900, news_per_hour=120.0, halts_per_hour=0.0)
    assert busy.episodes == []
    assert len(busy.events) > 1.15 * len(calm.events)


@pytest.mark.parametrize(
    "plans",
    [
        [Plan("wash", 10 * S, 1.0, 20.0), Plan("stuffing", 20 * S, 1.0, 1.0)],
        [Plan("wash", 10 * S, 1.0, 5.0, instrument=2)],
        [Plan("wash", 100 * S, 1.0, 5.0)],
    ],
)
def test_plans_that_cannot_be_kept_are_refused(plans: list[Plan]) -> None:
    with pytest.raises(UsageError):
        simulate(1, 60, episodes=plans)


def test_impossible_sessions_are_refused() -> None:
    with pytest.raises(UsageError):
        simulate(1, 1.0)
    with pytest.raises(UsageError):
        simulate(1, 60, instruments=0)
