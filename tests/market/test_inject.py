"""Episodes in recordings: nothing of the recording is contradicted, and each kind leaves its footprint."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from replay import during, executions, findings, prints, times, within

from microrisk.book.reference import ReferenceEngine
from microrisk.core import Engine
from microrisk.errors import UsageError
from microrisk.feed import open_feed
from microrisk.market import Plan, inject, random_plans, simulate
from microrisk.market.ladder import Ladder
from microrisk.spec.records import EVENT, Action, Flag
from microrisk.spec.units import NULL_TS

S = 1_000_000_000
LAST = int(Flag.LAST)
ORDER_LEVEL = ("layering", "stuffing", "withdrawal", "ignition", "wash")


@pytest.fixture(scope="module")
def recording() -> NDArray[np.void]:
    return simulate(51, 300, instruments=2, halts_per_hour=0.0).events


def grouped(events: NDArray[np.void]) -> NDArray[np.void]:
    """The same messages as a feed that completes an event only with every third record of an instrument."""
    out = events.copy()
    for index in np.unique(out["instrument"]):
        mine = np.flatnonzero(out["instrument"] == index)
        out["flags"][mine[np.arange(len(mine)) % 3 != 0]] &= np.uint8(255 - LAST)
    return out


@pytest.mark.parametrize("kind", ORDER_LEVEL)
@pytest.mark.parametrize("strength", [0.3, 1.2])
def test_a_replay_finds_nothing_new(recording: NDArray[np.void], kind: str, strength: float) -> None:
    kept = recording.copy()
    out, labels = inject(recording, [Plan(kind, 100 * S, strength, 12.0)], 1)
    assert (recording == kept).all()
    assert [e.kind for e in labels] == [kind]
    assert findings(out) == findings(recording) == {}
    assert (np.diff(times(out)) >= 0).all()
    other = out[out["instrument"] == 2]
    assert (other == recording[recording["instrument"] == 2]).all()
    outside = (recording["ts_event"] < labels[0].start_ns) & (recording["instrument"] == 1)
    assert (within(out, 0, labels[0].start_ns)["instrument"] == 1).sum() == outside.sum()


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000), whole=st.booleans())
def test_any_mixture_stays_consistent_also_on_grouped_feeds(
    recording: NDArray[np.void], seed: int, whole: bool
) -> None:
    source = recording if whole else grouped(recording)
    plans = random_plans(seed, 290, 1, 3.0, kinds=ORDER_LEVEL, first_s=10.0) if seed % 2 else []
    plans += [
        Plan(kind, (20 + 7 * k) * S, 1.0, 2.0 if kind == "stuffing" else 11.0, 2) for k, kind in enumerate(ORDER_LEVEL)
    ]
    out, labels = inject(source, plans, seed)
    assert len(labels) == len(plans)
    assert findings(out) == findings(source)
    # the same number of complete events of what was there before remains complete: no group is left open
    assert (
        out["flags"][np.flatnonzero(out["instrument"] == 1)[-1]] & LAST
        == source["flags"][np.flatnonzero(source["instrument"] == 1)[-1]] & LAST
    )


def test_both_engines_agree_on_an_edited_recording(recording: NDArray[np.void]) -> None:
    plans = [Plan(k, (20 + 25 * i) * S, 1.0, 10.0) for i, k in enumerate(ORDER_LEVEL)]
    out, _ = inject(grouped(recording)[:6000], [p for p in plans if p.start_ns < 40 * S], 3)
    fast, naive = Engine(), ReferenceEngine()
    for engine in (fast, naive):
        engine.run_events(out)
        engine.finish()
    assert fast.integrity() == naive.integrity()
    assert (fast.orders(1) == naive.orders(1)).all()


def test_injection_is_repeatable_and_depends_on_its_seed(recording: NDArray[np.void]) -> None:
    plans = random_plans(1, 290, 1, 3.0, kinds=ORDER_LEVEL, first_s=10.0)
    one, again, other = inject(recording, plans, 5)[0], inject(recording, plans, 5)[0], inject(recording, plans, 6)[0]
    assert one.tobytes() == again.tobytes()
    assert one.tobytes() != other.tobytes()


def test_footprints(recording: NDArray[np.void]) -> None:
    for kind in ORDER_LEVEL:
        seconds = 3.0 if kind == "stuffing" else 12.0
        out, (label,) = inject(recording, [Plan(kind, 100 * S, 1.2, seconds, side=1)], 2)
        old, new = during(recording, label), during(out, label)
        if kind == "stuffing":
            assert len(new) > len(old) + 0.7 * 5000 * 3
            assert len(prints(new)) <= len(prints(old)) + 2
        elif kind == "withdrawal":
            deletes = [int((e["action"] == Action.DELETE).sum()) for e in (old, new)]
            adds = [int((e["action"] == Action.ADD).sum()) for e in (old, new)]
            assert deletes[1] > deletes[0]
            assert 0.15 < adds[1] / adds[0] < 0.55
        elif kind == "ignition":
            assert (executions(new)["side"] == -1).sum() > (executions(old)["side"] == -1).sum() + 50
        elif kind == "wash":
            trades = prints(new)
            pairs = sum(a["qty"] == b["qty"] and a["side"] == -b["side"] for a, b in itertools.pairwise(trades))
            assert pairs > 0.7 * 10 * 12
        else:
            mine = recording[(recording["action"] == Action.ADD) & (recording["instrument"] == 1)]
            size = np.quantile(mine["qty"], 0.995)
            large = new[(new["action"] == Action.ADD) & (new["qty"] >= 0.5 * size) & (new["order_id"] >= 1 << 62)]
            assert len(large) >= label.params["orders"] * label.params["cycles"]
            assert (large["side"] == 1).all()
            assert (large["qty"] <= size).all()


def test_inserted_orders_leave_before_the_price_meets_them(recording: NDArray[np.void]) -> None:
    """A layered side that the market moves through: strong trend, many cycles, still no finding and all orders gone."""
    out, _ = inject(recording, [Plan("layering", 30 * S, 1.2, 200.0, 1, side) for side in (1, -1)], 4)
    assert findings(out) == {}
    engine = Engine()
    engine.run_events(out)
    assert (engine.orders(1)["order_id"] < np.uint64(1 << 62)).all()


def test_receive_times_carry_the_clock(recording: NDArray[np.void]) -> None:
    late = recording.copy()
    late["ts_recv"] = late["ts_event"] + 7_000_000
    out, (label,) = inject(late, [Plan("wash", 50 * S, 1.0, 5.0)], 1)
    new = out[out["flags"] & int(Flag.HIDDEN) != 0]
    assert (np.diff(out["ts_recv"]) >= 0).all()
    assert (new["ts_recv"] - new["ts_event"] == 7_000_000).all()
    assert label.start_ns >= int(late["ts_recv"][0]) + 50 * S
    assert (recording["ts_recv"] == NULL_TS).all()


def test_gaps_in_a_recording(recording: NDArray[np.void]) -> None:
    out, (label,) = inject(recording, [Plan("gap", 50 * S, 1.0, 3.0, 0)], 1)
    assert len(within(out, label.start_ns, label.end_ns)) == 0
    assert findings(out)["unknown_order"] > 0
    healed, _ = inject(recording, [Plan("gap", 50 * S, 1.0, 3.0, 0)], 1, resync_s=0.0)
    assert "unknown_order" not in findings(healed)
    torn = grouped(recording)
    part, (label,) = inject(torn, [Plan("gap", 50 * S, 1.0, 3.0, 1)], 1)
    mine = part[part["instrument"] == 1]
    ends = torn[(torn["instrument"] == 1) & (torn["flags"] & LAST != 0)]
    lost = len(torn[torn["instrument"] == 1]) - len(mine)
    assert lost % 3 == 0
    assert (mine["flags"] & LAST != 0).sum() == len(ends) - lost // 3


def test_requests_that_cannot_be_met_are_refused(recording: NDArray[np.void]) -> None:
    level = recording.copy()
    level["action"][5], level["order_id"][5] = int(Action.MODIFY), 0
    for events, plan in (
        (level, Plan("wash", 0)),
        (recording, Plan("wash", 0, instrument=9)),
        (recording, Plan("wash", 1000 * S)),
        (recording[:0], Plan("wash", 0)),
        (recording[:15], Plan("wash", 0)),
    ):
        with pytest.raises(UsageError):
            inject(events, [plan], 1)


def test_no_trading_no_episode() -> None:
    events = simulate(52, 60).events
    quiet = events[:280].copy()  # the opening book, before the state is TRADING
    longer = np.concatenate([quiet, quiet[-1:]])
    longer["ts_event"][-1] += 90 * S
    longer["order_id"][-1] = 1 << 40
    out, labels = inject(longer, [Plan("wash", 1 * S, 1.0, 5.0)], 1)
    assert labels == []
    assert (out == longer).all()


rows = st.lists(
    st.tuples(
        st.sampled_from(
            [Action.ADD, Action.ADD, Action.MODIFY, Action.REDUCE, Action.DELETE, Action.REPLACE, Action.CLEAR]
        ),
        st.integers(1, 8),
        st.integers(1, 8),
        st.sampled_from([1, -1, 0]),
        st.integers(95, 105),
        st.integers(0, 4),
        st.sampled_from([LAST, LAST | int(Flag.PRIORITY_KEPT), LAST | int(Flag.EXEC)]),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(rows)
def test_the_ladder_follows_the_naive_engine(events: list[tuple[int, ...]]) -> None:
    ladder, engine = Ladder(), ReferenceEngine()
    array = np.zeros(len(events), EVENT)
    for k, (action, oid, ref, side, px, qty, flags) in enumerate(events):
        side = side or 1 if action == Action.ADD else side
        qty = max(qty, 1) if action == Action.REPLACE else qty
        if action == Action.MODIFY and oid not in ladder.orders:
            side = side or 1
        ladder.apply(int(action), oid, ref, side, px, qty, flags)
        array[k] = (k, NULL_TS, k, oid, ref, px, qty, 0, 0, int(action), side, flags)
    engine.run_events(array)
    expected = (
        [(int(o["order_id"]), int(o["side"]), int(o["px"]), int(o["qty"])) for o in engine.orders(0)]
        if len(array)
        else []
    )
    found = []
    for side in (1, -1):
        for px in ladder.prices(side, 100):
            found += [(oid, *ladder.orders[oid]) for oid in ladder.queue(side, px)]
    assert found == expected


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "files", "always_open"),
    [
        ("coinbase", ["coinbase_l3_2018/messages.json.gz"], True),
        ("lobster", ["lobster_amzn_aapl/AAPL_2012-06-21_34200000_57600000_message_10.csv"], False),
        ("es", ["databento_cme_es/esh4-glbx-mdp3-20231225.mbo.dbn.zst"], False),
    ],
)
def test_real_recordings_keep_their_integrity(data_dir: Path, name: str, files: list[str], always_open: bool) -> None:
    feed = open_feed([data_dir / f for f in files])
    events = np.concatenate(list(feed.events()))
    news = events[events["flags"] & int(Flag.SNAPSHOT) == 0]
    first = times(news)[0]
    trades = times(prints(news))
    begin = int(trades[len(trades) // 10] - first)
    step = int((times(news)[-1] - first - begin) / 8)
    lengths = min(10.0, step / S / 2)
    plans = [Plan(k, begin + i * step, 1.0, lengths, 0) for i, k in enumerate(ORDER_LEVEL)]
    out, labels = inject(events, plans, 1)
    assert [e.kind for e in labels] == list(ORDER_LEVEL)
    assert len(out) != len(events)
    assert findings(out, always_open=always_open) == findings(events, always_open=always_open)
