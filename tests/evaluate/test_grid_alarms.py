"""The wall-clock grid and the counting of alarms, each against a slow twin that reads like its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microrisk.errors import EvaluationError
from microrisk.evaluate import alarms
from microrisk.evaluate.alarms import clusters, curve, delays, near_episode, normal_bins
from microrisk.evaluate.grid import BIN_NS, NORMAL, Grid, ewma, grid, pool
from microrisk.evaluate.split import Span, Track

SECOND = 1_000_000_000


def naive_ewma(x):
    s, out = float(x[0]), []
    for v in x:
        s = s + (v - s) / 8
        out.append(s)
    return out


def naive_clusters(firing):
    """Walk the bins; a gap of more than 20 ends an alarm, and an alarm is raised again after 240."""
    out, start, last = [], None, None
    for k in range(len(firing) + 1000):
        if start is not None and k - last > 20:
            out.append((start, last))
            start = None
        if k < len(firing) and firing[k]:
            start, last = (k if start is None else start), k
    return [(a, min(a + 239, e)) for s, e in out for a in range(s, e + 1, 240)]


def naive_curve(grids):
    """Most alarms at or above each distinct score."""
    values = sorted({v for g in grids for v in g.score.tolist() if np.isfinite(v)}, reverse=True)
    most, out = 0, []
    for v in values:
        most = max(most, sum(len(naive_clusters(g.score >= v)) for g in grids))
        out.append((v, most))
    return out


def as_grid(score, session="s"):
    score = np.asarray(score, float)
    return Grid(session, 0, score, np.full(len(score), NORMAL, np.int16))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200))
def test_ewma_is_the_recurrence(x):
    assert ewma(x) == pytest.approx(naive_ewma(x), rel=1e-12, abs=1e-9)


def test_ewma_keeps_a_constant_exactly():
    assert set(ewma(np.full(1000, 0.1)).tolist()) == {0.1}


def test_ewma_refuses_nan():
    with pytest.raises(EvaluationError, match=r"^a score holds 1 values that are not finite$"):
        ewma([1.0, float("nan")])


@given(st.lists(st.integers(0, 40 * 250_000_000), min_size=1, max_size=60), st.randoms())
def test_pool_is_the_maximum_of_each_bin(times, random):
    now = np.sort(np.asarray(times, np.int64)) + 12345
    score = np.asarray([random.random() for _ in times])
    first, pooled = pool(Track("s", "i", now, end_ns=int(now[-1]) + 3 * BIN_NS), score)
    for k, value in enumerate(pooled):
        inside = [s for t, s in zip(now, score, strict=True) if t // BIN_NS == first + k]
        assert value == (max(inside) if inside else -np.inf)
    assert np.isneginf(pooled[-2:]).all()  # silence is on the grid


def test_labels_cover_the_bins_that_the_episode_touches():
    track = Track("s", "i", np.arange(0, 10 * SECOND, BIN_NS), episodes=[Span("a", 2 * SECOND + 1, 3 * SECOND)])
    g = grid(track, np.zeros(40), ["a"])
    assert np.flatnonzero(g.positive).tolist() == [8, 9, 10, 11, 12]


@given(st.lists(st.booleans(), max_size=900), st.integers(1, 60))
def test_clusters_equal_the_walk(bits, thin):
    firing = np.zeros(len(bits) * 3, bool)
    firing[::thin] = np.resize(bits, len(firing[::thin])) if bits else False
    assert [tuple(c) for c in clusters(firing).tolist()] == naive_clusters(firing)


@given(st.lists(st.lists(st.integers(-3, 6), min_size=1, max_size=80), min_size=1, max_size=3), st.integers(1, 12))
def test_counting_down_equals_counting_each_threshold(scores, stretch):
    grids = [as_grid(np.repeat(np.where(np.asarray(s) == -3, -np.inf, s), stretch)) for s in scores]
    got = curve(grids)
    assert list(zip(got.value.tolist(), got.count.tolist(), strict=True)) == naive_curve(grids)


@pytest.mark.parametrize(("budget", "fires"), [(2, 2), (10, 10), (3.9, 3)])
def test_threshold_lets_exactly_the_budget_through(budget, fires):
    score = np.zeros(alarms.HOUR_BINS)
    peaks = np.linspace(1, 50, 50)
    score[np.arange(50) * 200 + 7] = np.random.default_rng(1).permutation(peaks)
    level = curve([as_grid(score)]).threshold(budget)
    assert len(clusters(score > level)) == fires
    assert level < peaks[-fires] <= np.nextafter(level, np.inf)


def test_a_constant_never_fires_and_a_rule_fires_above_its_clean_value():
    level = curve([as_grid(np.ones(alarms.HOUR_BINS))]).threshold(10)
    assert not (np.ones(5) > level).any()
    assert (np.asarray([2.0]) > level).all()


def test_calibration_too_short_for_the_budget_is_refused():
    with pytest.raises(
        EvaluationError, match=r"^calibration of 0\.25 h is too short for 2 false alarms/h: it needs 0\.50 h$"
    ):
        curve([as_grid(np.random.default_rng(0).random(alarms.HOUR_BINS // 4))]).threshold(2)


def test_an_alarm_within_five_seconds_of_an_episode_is_not_false():
    episode = [Span("a", 100 * SECOND, 110 * SECOND)]
    at = np.asarray([[94 * 4, 94 * 4], [95 * 4, 95 * 4], [104 * 4, 104 * 4], [115 * 4, 115 * 4], [116 * 4, 116 * 4]])
    assert near_episode(at, 0, episode).tolist() == [False, True, True, True, False]
    assert normal_bins(0, 4 * 200, episode) == 4 * 200 - (4 * 20 + 1)


def test_delay_is_that_of_the_first_row_above_in_the_window():
    now = np.asarray([0, 10, 11, 14, 26, 40]) * SECOND
    track = Track("s", "i", now, episodes=[Span("a", 10 * SECOND, 20 * SECOND), Span("b", 30 * SECOND, 34 * SECOND)])
    smoothed = np.asarray([9.0, 0, 0, 5, 9, 9])
    assert delays(track, smoothed, 4.0).tolist() == [4.0, np.inf]
    assert delays(track, smoothed, 6.0).tolist() == [np.inf, np.inf]  # 26 s is past 20 + 5
