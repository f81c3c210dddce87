"""Weights of sources: more trouble never raises one, time heals, and the reasons say what it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microrisk.monitor.hub import DOWN, ENDED, LIVE, STALE, SUSPECT, SYNCING
from microrisk.monitor.weights import HALF_LIFE_NS, ONE, TROUBLES, Reliability, decayed

NAMES = sorted({name for trouble in TROUBLES for name in trouble.counts})
S = 1_000_000_000


def run(steps, *, apart=0):
    """Weight behind steps of (new cases by name, ns since the step before, silent ms)."""
    reliability, totals, now, weight = Reliability(), dict.fromkeys(NAMES, 0), 0, 1.0
    for cases, passed, silent in steps:
        now += passed
        for name, n in cases.items():
            totals[name] += n
        reliability.disagree({0: apart})
        weight, _ = reliability.weigh(0, totals | {"silent_ms": silent}, LIVE, now)
    return weight


cases = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 200), max_size=4)
steps = st.lists(st.tuples(cases, st.integers(0, 200 * S), st.integers(0, 60_000)), min_size=1, max_size=8)


def test_a_source_without_trouble_is_believed():
    assert Reliability().weigh(0, {}, LIVE, 5) == (1.0, [])


@given(steps, st.data())
def test_more_trouble_never_raises_the_weight(history, data):
    at = data.draw(st.integers(0, len(history) - 1))
    more = data.draw(cases)
    silent = data.draw(st.integers(0, 60_000))
    apart, farther = sorted((data.draw(st.integers(0, 10**6)), data.draw(st.integers(0, 10**6))))
    worse = list(history)
    happened, passed, was_silent = history[at]
    worse[at] = ({n: happened.get(n, 0) + more.get(n, 0) for n in NAMES}, passed, was_silent + silent)
    assert run(worse, apart=farther) <= run(history, apart=apart)


@given(steps, st.integers(0, 500 * S), st.integers(0, 500 * S))
def test_time_without_trouble_never_lowers_the_weight(history, early, later):
    quiet = [({}, early, 0)]
    assert run([*history, ({}, early + later, 0)]) >= run([*history, *quiet])
    assert 0.0 <= run(history) <= 1.0


@given(st.integers(0, 1 << 60), st.integers(0, 1 << 60), st.integers(0, 10**12), st.integers(0, 10**12))
def test_decay_is_monotone_in_score_and_time(a, b, early, later):
    assert decayed(min(a, b), early) <= decayed(max(a, b), early)
    assert decayed(a, early + later) <= decayed(a, early)


def test_a_half_life_halves():
    assert decayed(1 << 20, HALF_LIFE_NS) == 1 << 19
    assert decayed(1 << 20, 3 * HALF_LIFE_NS) == 1 << 17
    assert decayed(1 << 20, HALF_LIFE_NS // 2) == 3 << 18
    assert decayed(1 << 20, 10**18) == 0


def test_the_formula():
    """A score of HALF halves the weight: 4 gaps of 16 points are the 64 of `gap`."""
    reliability = Reliability()
    reliability.weigh(0, {"gap": 0}, LIVE, 0)
    assert reliability.weigh(0, {"gap": 4}, LIVE, 0)[0] == 0.5
    assert reliability.weigh(0, {"gap": 4}, LIVE, HALF_LIFE_NS)[0] == pytest.approx(2 / 3, abs=2 / ONE)
    assert reliability.weigh(1, {"silent_ms": 11_000}, LIVE, 0)[0] == 0.5
    reliability.disagree({2: 25_000})
    assert reliability.weigh(2, {}, LIVE, 0)[0] == 0.5


def test_states_cap_the_weight():
    for state, most in ((LIVE, 1.0), (STALE, 0.25), (SUSPECT, 0.25), (SYNCING, 0.0), (DOWN, 0.0), (ENDED, 0.0)):
        weight, reasons = Reliability().weigh(0, {}, state, 0)
        assert weight == most
        assert reasons == ([] if state == LIVE else [f"it is {state}"])


def test_the_worst_reason_comes_first():
    reliability = Reliability()
    reliability.disagree({0: 12_500})
    _, reasons = reliability.weigh(0, {"gap": 100, "checksum_mismatch": 1, "silent_ms": 4000}, LIVE, 0)
    assert reasons == [
        "messages were missing",
        "its books contradicted themselves",
        "its mid price is 12.5 bp from the other venues'",
        "nothing has come for 4.0 s",
    ]


def test_sources_do_not_touch_each_other_and_totals_that_fall_begin_anew():
    reliability = Reliability()
    reliability.weigh(0, {"gap": 50}, LIVE, 0)
    assert reliability.weigh(1, {}, LIVE, 0) == (1.0, [])
    low = reliability.weigh(0, {"gap": 50}, LIVE, 100 * HALF_LIFE_NS)[0]
    assert low == 1.0
    assert reliability.weigh(0, {"gap": 4}, LIVE, 100 * HALF_LIFE_NS)[0] == 0.5


def test_a_clock_that_steps_back_decays_nothing_twice():
    reliability = Reliability()
    reliability.weigh(0, {"gap": 8}, LIVE, 10 * S)
    before = reliability.weigh(0, {"gap": 8}, LIVE, 10 * S)[0]
    assert reliability.weigh(0, {"gap": 8}, LIVE, 0)[0] == before
    assert reliability.weigh(0, {"gap": 8}, LIVE, 10 * S)[0] == before
