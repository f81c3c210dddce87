"""Each kind leaves the footprint that its mechanics promise, and plans are drawn as said."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from replay import before, during, executions, findings, prints, within

from microrisk.core import Engine
from microrisk.errors import UsageError
from microrisk.market import KINDS, Episode, Plan, Session, random_plans, read_episodes, simulate
from microrisk.market.episodes import P99_LOTS, SECONDS, compile_plan, write_episodes
from microrisk.spec.records import Action

S = 1_000_000_000
AT = 60 * S


def run(kind: str, strength: float, seed: int = 31, **plan: object) -> tuple[Session, Episode]:
    session = simulate(
        seed,
        150,
        episodes=[Plan(kind, AT, strength, **plan)],
        halts_per_hour=0.0,
        news_per_hour=0.0,  # type: ignore[arg-type]
    )
    assert findings(session.events) == {}
    return session, session.episodes[0]


def books(session: Session) -> NDArray[np.void]:
    engine = Engine()
    engine.record_views()
    engine.run_events(session.events)
    return engine.take_views()


def depth(session: Session, begin: int, end: int) -> float:
    """Mean size on ten levels of both sides in a window."""
    v = books(session)
    v = v[(v["ts_event"] >= begin) & (v["ts_event"] < end)]
    return float((v["bid_qty"].sum(axis=1) + v["ask_qty"].sum(axis=1)).mean())


def mid(session: Session, at: int) -> float:
    v = books(session)
    k = int(np.searchsorted(v["ts_event"], at, side="right")) - 1
    return float(v["bid_px"][k, 0] + v["ask_px"][k, 0]) / 200.0


def lived(events: NDArray[np.void]) -> dict[int, int]:
    """Order id -> ns between add and delete."""
    gone = events[events["action"] == Action.DELETE]
    adds = events[events["action"] == Action.ADD]
    born = dict(zip(adds["order_id"].tolist(), adds["ts_event"].tolist(), strict=True))
    pairs = zip(gone["order_id"].tolist(), gone["ts_event"].tolist(), strict=True)
    return {oid: ts - born[oid] for oid, ts in pairs if oid in born}


@pytest.mark.parametrize(("strength", "rate"), [(0.3, 200.0), (0.75, 1000.0), (1.2, 5000.0)])
def test_stuffing_rate_short_lives_and_no_trades_of_its_own(strength: float, rate: float) -> None:
    session, e = run("stuffing", strength, seconds=2.0)
    events = during(session.events, e)
    assert e.params["rate"] == pytest.approx(rate, rel=1e-6)
    assert 0.75 * rate < len(events) / ((e.end_ns - e.start_ns) / S) < 1.3 * rate + 60
    short = [ns for ns in lived(events).values() if ns < 5_000_000]
    assert len(short) > 0.4 * 0.75 * rate * 2
    inserted = set(events["order_id"][events["action"] == Action.ADD].tolist())
    assert sum(int(oid) in inserted for oid in executions(events)["order_id"]) < 0.03 * len(inserted)
    assert e.end_ns - e.start_ns < 2.1 * S


@pytest.mark.parametrize("strength", [0.3, 1.2])
def test_withdrawal_empties_both_sides_and_stays_thin(strength: float) -> None:
    session, e = run("withdrawal", strength, seconds=30.0)
    assert 0.6 <= e.params["share"] <= 0.9
    usual = depth(session, e.start_ns - 20 * S, e.start_ns)
    low = depth(session, e.start_ns + 5 * S, e.start_ns + 12 * S)
    assert low < (1.25 - e.params["share"]) * usual + 0.12 * usual
    assert depth(session, e.end_ns - 8 * S, e.end_ns) < 0.7 * usual
    first = within(session.events, e.start_ns, e.start_ns + 5 * S)
    deletes = first[first["action"] == Action.DELETE]
    assert min((deletes["side"] == s).sum() for s in (1, -1)) > 30
    assert e.end_ns - e.start_ns == pytest.approx(30 * S, rel=0.01)


@pytest.mark.parametrize(("strength", "side", "least"), [(0.3, 1, 3.0), (1.2, -1, 15.0)])
def test_ignition_moves_the_price_and_gives_part_of_it_back(strength: float, side: int, least: float) -> None:
    session, e = run("ignition", strength, seconds=20.0, side=side)
    assert 3.0 <= e.params["times"] <= 10.0
    sweeping = within(session.events, e.start_ns, e.start_ns + 15 * S)
    usual = len(executions(before(session.events, e, 30.0))) / 30
    assert len(executions(sweeping)) / 15 > 2 * usual
    hit = executions(sweeping)["side"]
    assert (hit == -side).mean() > 0.7
    v = books(session)
    window = v[(v["ts_event"] >= e.start_ns) & (v["ts_event"] <= e.end_ns)]
    path = (window["bid_px"][:, 0] + window["ask_px"][:, 0]) / 200.0 * side
    start = mid(session, e.start_ns) * side
    extreme = path.max() - start
    assert extreme > least
    assert path[-1] - start < 0.9 * extreme


@pytest.mark.parametrize("side", [1, -1])
def test_layering_loads_one_side_re_pegs_and_cancels_at_once(side: int) -> None:
    session, e = run("layering", 1.2, seconds=20.0, side=side)
    events = during(session.events, e)
    large = events[(events["action"] == Action.ADD) & (events["qty"] == 100 * int(e.params["lots"]))]
    large = large[large["side"] == side]
    orders, cycles = int(e.params["orders"]), int(e.params["cycles"])
    assert 3 <= orders <= 8
    assert 2 <= cycles <= 6
    assert e.params["lots"] <= P99_LOTS
    assert len(large) >= 0.9 * orders * cycles
    gone = events[(events["action"] == Action.DELETE) & (events["qty"] == 100 * int(e.params["lots"]))]
    gone = gone[gone["side"] == side]
    assert len(gone) > 0.5 * orders * cycles
    # the cancels of a cycle come within 0.3 s and a bit
    bursts = np.split(gone["ts_event"], np.flatnonzero(np.diff(gone["ts_event"]) > S) + 1)
    assert max(len(b) for b in bursts) >= orders - 2
    assert min(b[-1] - b[0] for b in bursts if len(b) >= orders - 2) < 0.4 * S
    assert len(executions(events)) >= 1


def test_layered_orders_follow_the_price() -> None:
    """Somewhere an order of the layer's size is replaced: over many seeds the price does move."""
    moved = 0
    for seed in range(6):
        session, e = run("layering", 1.2, seed, seconds=28.0)
        events = during(session.events, e)
        size = events["qty"] == 100 * int(e.params["lots"])
        moved += int(((events["action"] == Action.REPLACE) & size & (events["side"] == int(e.params["side"]))).sum())
    assert moved > 6


@pytest.mark.parametrize(("strength", "hard"), [(0.3, False), (1.2, True)])
def test_wash_trades_alternate_and_leave_no_position(strength: float, hard: bool) -> None:
    session, e = run("wash", strength, seconds=10.0, hard=hard)
    trades = prints(during(session.events, e))
    equal = 0
    for one, other in itertools.pairwise(trades):
        equal += int(one["qty"] == other["qty"] and one["side"] == -other["side"])
    pairs = e.params["pairs_per_s"] * 10
    assert 2.0 <= e.params["pairs_per_s"] <= 10.0
    assert equal > 0.5 * pairs
    assert e.params["jitter"] == (0.1 if hard else 0.0)
    assert len({int(q) for q in trades["qty"]}) > (8 if hard else 1)


def test_strength_scales_every_kind() -> None:
    names = {"layering": "lots", "stuffing": "rate", "withdrawal": "share", "ignition": "times", "wash": "pairs_per_s"}
    for kind, name in names.items():
        values = [compile_plan(Plan(kind, AT, s, 10.0), 1)[1][name] for s in (0.3, 0.6, 0.9, 1.2)]
        assert values == sorted(values)
        assert values[0] < values[-1]


def test_random_plans_are_apart_complete_and_repeatable() -> None:
    plans = random_plans(5, 3600, 4, 20.0)
    assert plans == random_plans(5, 3600, 4, 20.0)
    assert plans != random_plans(6, 3600, 4, 20.0)
    assert sorted(p.kind for p in plans) == sorted(KINDS * 4)
    for p, q in itertools.pairwise(plans):
        assert q.start_ns - p.start_ns >= int((20.0 + (p.seconds or 0)) * S) - 1000
    for p in plans:
        low, high = SECONDS[p.kind]
        assert low <= (p.seconds or 0) <= high
        assert 0.3 <= p.strength <= 1.2
    assert (plans[-1].start_ns / S) + (plans[-1].seconds or 0) < 3600
    with pytest.raises(UsageError, match="apart need"):
        random_plans(5, 300, 10, 20.0)


def test_random_sessions_label_two_of_each_kind_in_half_an_hour() -> None:
    session = simulate(8, 1800, episodes="random")
    assert sorted(e.kind for e in session.episodes) == sorted(KINDS * 2)
    share = sum(e.end_ns - e.start_ns for e in session.episodes) / (1800 * S)
    assert 0.03 < share < 0.2
    for seed in range(20):
        assert len(simulate(seed, 20, episodes="random").episodes) <= 6


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "spoofing"},
        {"kind": "wash", "strength": 0.0},
        {"kind": "wash", "strength": 3.0},
        {"kind": "wash", "start_ns": -1},
        {"kind": "wash", "seconds": 0.0},
    ],
)
def test_impossible_plans_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Plan(**{"start_ns": 0, **wrong})  # type: ignore[arg-type]


def test_labels_survive_the_file(tmp_path: Path) -> None:
    episodes = [
        Episode("wash", 1_700_000_000_000_000_001, 1_700_000_000_000_000_009, 0.3, 2, {"lots": 3.0, "side": 1.0})
    ]
    path = write_episodes(episodes, tmp_path / "a.itch")
    assert path.name == "a.itch.episodes.json"
    assert read_episodes(tmp_path / "a.itch") == episodes == read_episodes(path)
    with pytest.raises(UsageError, match="no labels"):
        read_episodes(tmp_path / "none")
    path.write_text('[{"kind": 3}]')
    with pytest.raises(UsageError):
        read_episodes(path)
