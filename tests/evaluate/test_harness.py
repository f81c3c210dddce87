"""The whole harness on scores whose recall can be computed by hand, and everything that it must refuse."""

from __future__ import annotations

import dataclasses
import json
import sys

import numpy as np
import pytest
from synthetic import HALF_HOUR, KINDS, SECOND, clock, noise_split, session

from microrisk.errors import EvaluationError
from microrisk.evaluate.alarms import clusters, curve
from microrisk.evaluate.baselines import IsolationForest, MaxAbs, SumSquares, rivals
from microrisk.evaluate.controls import run_controls, shifted, turned
from microrisk.evaluate.detectors import Column, Level, Union
from microrisk.evaluate.grid import grid
from microrisk.evaluate.harness import evaluate
from microrisk.evaluate.split import Span, Split, Track


def known(heights_of_episodes, bumps=20, seeds=(1, 2)):
    """2 h of calibration with `bumps` an hour of heights 1..2*bumps; test sessions with the episodes given."""
    length = 4 * HALF_HOUR
    ladder = list(range(1, 2 * bumps + 1))
    half = len(heights_of_episodes) // 2
    return Split(
        train=[],
        calibration=[session("calibration", bumps=ladder, seed=seeds[0], length=length)],
        test=[
            session("test a", bumps=[], heights=heights_of_episodes[:half], seed=seeds[1], length=length),
            session("test b", bumps=[], heights=heights_of_episodes[half:], seed=seeds[1] + 1, length=length),
        ],
    )


def test_recall_is_the_share_of_episodes_above_the_budgeted_peak():
    # 40 peaks 1..40 in 2 h: 2/h lets 37..40 through, 10/h lets 21..40 through
    split = known([float(h) for h in np.linspace(0.5, 59.5, 60)])
    row = evaluate(split, [Column("score")], draws=50).rows[0]
    strict, loose = row.at
    assert strict.recall.value == pytest.approx(23 / 60)
    assert loose.recall.value == pytest.approx(39 / 60)
    assert strict.false_per_hour.value == 0.0
    assert 0.999 * 37 < strict.threshold <= 37


def test_false_alarms_measured_on_test_are_those_planted_there():
    split = known([1.0, 1.0])
    split = dataclasses.replace(
        split, test=[*split.test, session("c", bumps=[30.0] * 6 + [2.0] * 6, seed=9, length=2 * HALF_HOUR)]
    )
    at = evaluate(split, [Column("score")], budgets=[10], draws=50).rows[0].at[0]
    hours = 4 + 1 - 2 * 30 / 3600
    assert at.false_per_hour.value == pytest.approx(6 / hours, rel=1e-3)
    assert at.recall.value == 0


def test_delay_is_the_time_the_smoothing_needs():
    # after m rows of height h the smoothed score is h * (1 - (7/8)^m); the first row is at the start
    split = known([50.0] * 4)
    at = evaluate(split, [Column("score")], budgets=[10], draws=10).rows[0].at[0]
    rows = next(m for m in range(1, 100) if 50 * (1 - 0.875**m) > at.threshold)
    assert at.delay_median_s == pytest.approx((rows - 1) * 0.25)
    assert at.found_delay_p90_s == at.delay_p90_s


def test_a_missed_episode_counts_as_endless_delay():
    at = evaluate(known([50.0, 1.0, 1.0, 1.0]), [Column("score")], budgets=[10], draws=10).rows[0].at[0]
    assert at.delay_median_s is None
    assert at.found_delay_median_s is not None
    assert [o.delay_s is None for o in at.outcomes].count(True) == 3


def test_recall_by_kind():
    # session() gives kinds in turn: layering, stuffing, withdrawal
    at = evaluate(known([50.0, 50.0, 1.0] * 4), [Column("score")], budgets=[10], draws=50).rows[0].at[0]
    assert {k: f.value for k, f in at.recall_by_kind.items()} == dict(zip(KINDS, (1.0, 1.0, 0.0), strict=True))


def test_rows_per_second_do_not_matter():
    """A burst of messages must not weigh more than the time that it lasts."""
    split = noise_split(2, 4)
    track = split.test[0]
    burst = np.sort(np.r_[track.now, np.linspace(100 * SECOND, 101 * SECOND, 5000).astype(np.int64)])
    busy = Track("test 0", "TEST.SIM", burst, columns={"score": np.zeros(len(burst))}, episodes=track.episodes, seed=20)
    calm = dataclasses.replace(track, columns={"score": np.zeros(len(track.now))})
    base = [grid(t, t.columns["score"], KINDS).positive.mean() for t in (busy, calm)]
    assert base[0] == base[1]


def test_union_spends_the_total_budget_on_calibration_and_keeps_the_kind_that_one_part_sees():
    rng = np.random.default_rng(0)
    length = 8 * HALF_HOUR

    def two(name, episodes, seed):
        t = session(name, bumps=list(rng.exponential(1, 80) + 1), seed=seed, length=length)
        other = session(
            name, bumps=list(rng.exponential(1, 80) + 1), heights=[9.0] * episodes, seed=seed, length=length
        )
        return dataclasses.replace(other, columns={"maxz": t.columns["score"], "exposure": other.columns["score"]})

    split = Split([], [two("c", 0, 1)], [two("t", 12, 2)])
    union = Union([Column("exposure"), Column("maxz")])
    result = evaluate(split, [union, Column("maxz"), Column("exposure")], draws=50)
    for at in result.row("union").at:
        fired = [clusters(grid(t, union.smoothed(t), KINDS).score > at.threshold) for t in split.calibration]
        assert sum(map(len, fired)) == at.budget * length / (3600 * SECOND)
        assert {o.by for o in at.outcomes if o.delay_s is not None} == {"exposure"}
    assert result.row("union").at[1].recall.value == 1.0
    assert result.row("maxz").at[1].recall.value < 0.7  # by luck: its bumps last 20 s each


def test_union_divides_the_budget_as_asked():
    rng = np.random.default_rng(1)
    length = 20 * HALF_HOUR

    def noise(name, seed):
        now = clock(length=length)
        # different scales and tails: the union must not care
        columns = {"exposure": rng.normal(0, 1, len(now)), "maxz": 1000 * rng.exponential(1, len(now)) ** 2}
        return Track(name, "TEST.SIM", now, columns=columns, seed=seed)

    calibration = noise("c", 1)
    union = Union([Column("exposure"), Column("maxz")], {"exposure": 6, "maxz": 2})
    union.calibrate([calibration])
    g = grid(calibration, union.smoothed(calibration), ())
    level = curve([g]).threshold(8)
    which = union.drivers(calibration)
    makers = [0, 0]
    smoothed = union.smoothed(calibration)
    for first, last in clusters(g.score > level).tolist():
        inside = (calibration.now // 250_000_000 >= first) & (calibration.now // 250_000_000 <= last)
        rows = np.flatnonzero(inside)
        makers[int(which[rows[np.argmax(smoothed[rows])]])] += 1
    assert sum(makers) == 80
    assert makers[0] / sum(makers) == pytest.approx(0.75, abs=0.1)


def test_union_refuses_a_part_without_budget():
    with pytest.raises(EvaluationError, match=r"^the union needs a budget above zero for each part; without: \['x'\]$"):
        Union([Column("x")])


def test_table_and_json():
    result = evaluate(noise_split(2, 4), rivals(forest=False), draws=20)
    again = evaluate(noise_split(2, 4), rivals(forest=False), draws=20)
    assert result.to_json() == again.to_json()
    data = json.loads(result.to_json())
    assert [r["name"] for r in data["rows"]] == ["max |z|", "sum z^2", "message rate", "random", "constant"]
    assert data["kinds"] == {"layering": 4, "stuffing": 2, "withdrawal": 2}
    assert result.table().row_count == result.kind_table(10).row_count == 5


def test_forest_runs_and_says_what_it_needs(monkeypatch):
    split = noise_split(1, 3)
    forest = IsolationForest(trees=5, rows=500)
    with pytest.raises(EvaluationError, match=r"^IsolationForest was not fitted$"):
        forest.score(split.test[0])
    pytest.importorskip("sklearn")
    forest.fit(split.train)
    outlier = dataclasses.replace(split.test[0], codes=np.full((len(split.test[0].now), 32), 127, np.int8))
    assert np.mean(forest.score(outlier)) > np.quantile(forest.score(split.train[0]), 0.99)
    with pytest.raises(EvaluationError, match=r"^IsolationForest needs training sessions with rows$"):
        forest.fit([])
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(EvaluationError, match=r"needs scikit-learn: pip install scikit-learn$"):
        forest.fit(split.train)


def test_baselines_by_hand():
    codes = np.zeros((2, 32), np.int8)
    codes[0, :3] = (-128, 3, 4)
    track = Track("s", "i", np.arange(2), codes=codes)
    assert np.asarray(MaxAbs().score(track)).tolist() == [128, 0]
    assert np.asarray(SumSquares().score(track)).tolist() == [128**2 + 25, 0]


# --- refusals ---


def tiny(name, seed=None, start=0, episodes=()):
    return Track(name, "A.X", clock(start * SECOND, HALF_HOUR), episodes=episodes, seed=seed)


EPISODE = [Span("gap", 100 * SECOND, 101 * SECOND)]
DAY = 86_400


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (Split([], [], [tiny("t", 3, episodes=EPISODE)]), "thresholds need calibration sessions, and there are none"),
        (Split([], [tiny("c", 1)], [tiny("t", 2)]), "labels without episodes: no test session holds one"),
        (Split([], [tiny("c", 1, episodes=EPISODE)], [tiny("t", 2)]), "calibration session c A.X holds 1 episodes"),
        (
            Split([], [tiny("c", 2)], [tiny("t", 2, episodes=EPISODE)]),
            "calibration and test overlap: c A.X and t A.X come from the same seed 2",
        ),
        (
            Split([tiny("t", 5)], [tiny("c", 1)], [tiny("t", 2, episodes=EPISODE)]),
            "train and test overlap: t A.X and t A.X are the same session t",
        ),
        (
            Split([], [tiny("c", start=-60)], [tiny("t", episodes=EPISODE)]),
            "calibration and test overlap: c A.X and t A.X share time of A.X",
        ),
        (
            Split([], [tiny("c", start=DAY)], [tiny("t", episodes=EPISODE)]),
            "calibration and test overlap: c A.X and t A.X are in the wrong order: c is later than t",
        ),
        (
            Split([], [tiny("c", 1)], [tiny("t", 2, episodes=[Span("gap", 5, 4)])]),
            "t A.X: gap ends 4 before it starts 5",
        ),
        (
            Split([], [tiny("c", 1)], [tiny("t", 2, start=DAY, episodes=EPISODE)]),
            "t A.X: gap at 100000000000 lies outside the session",
        ),
    ],
)
def test_refusals_of_splits(split, message):
    with pytest.raises(EvaluationError) as raised:
        evaluate(split, [MaxAbs()])
    assert str(raised.value).startswith(message)


def test_other_refusals():
    split = Split([], [tiny("c", 1)], [tiny("t", 2, episodes=EPISODE)])
    with pytest.raises(EvaluationError, match=r"^c A.X has no column vae; it has \[\]$"):
        evaluate(split, [Column("vae")])
    with pytest.raises(EvaluationError, match=r"^c A.X has no codes, and this baseline reads them$"):
        evaluate(split, [MaxAbs()])
    with pytest.raises(EvaluationError, match=r"^two detectors of one name"):
        evaluate(split, [Column("a"), Column("a")])
    with pytest.raises(EvaluationError, match=r"^s i: column x has 2 values for 3 rows$"):
        Track("s", "i", np.arange(3), columns={"x": np.zeros(2)})
    with pytest.raises(EvaluationError, match=r"^s i: rows go back in time$"):
        Track("s", "i", np.asarray([3, 2]))


# --- controls ---


def test_controls_stay_at_the_base_rate():
    controls = run_controls(noise_split(4, 8), MaxAbs())
    assert [c.name for c in controls] == ["random", "constant", "all positive", "max |z|, labels shifted"]
    assert [c.passed for c in controls] == [True] * 4
    assert controls[1].pr_auc == pytest.approx(controls[1].base_rate)
    assert controls[1].recall == 0
    assert controls[2].recall == 1
    assert not controls[2].kept  # always on is found out by its false alarms


def test_shifted_labels_sink_a_perfect_detector():
    split = noise_split(4, 8)

    def cheat(t):
        inside = np.zeros(len(t.now))
        for e in t.episodes:
            inside[(t.now >= e.start_ns) & (t.now <= e.end_ns)] = 1
        return dataclasses.replace(t, columns={"oracle": inside + 0.01 * np.random.default_rng(1).random(len(t.now))})

    split = Split([], [cheat(t) for t in split.calibration], [cheat(t) for t in split.test])
    oracle = Column("oracle")
    assert evaluate(split, [oracle], draws=20).rows[0].pr_auc.value > 0.9
    control = shifted(split, oracle)
    assert control.pr_auc < 2 * control.base_rate
    assert control.passed


def test_a_leak_fails_the_control():
    """The check can fail: a score that somehow follows the shifted labels is not let through."""
    control = dataclasses.replace(run_controls(noise_split(2, 5))[0], pr_auc=0.5)
    assert not control.passed
    assert not dataclasses.replace(control, pr_auc=control.base_rate, recall=0.9, chance=0.1).passed


def test_turning_keeps_length_and_stays_inside():
    t = tiny("t", 2, episodes=[Span("gap", 1790 * SECOND, 1795 * SECOND)])
    for by in range(0, 1800, 7):
        e = turned(t, by * SECOND).episodes[0]
        assert e.end_ns - e.start_ns == 5 * SECOND
        assert t.span[0] <= e.start_ns <= e.end_ns <= t.span[1]


def test_leaving_a_kind_out_is_a_filter():
    t = noise_split(1, 6).test[0]
    assert {e.kind for e in t.without(["layering"]).episodes} == {"stuffing", "withdrawal"}


def test_level_is_the_tail_probability_in_bits_and_keeps_the_order():
    rng = np.random.default_rng(2)
    clean = Track("c", "i", np.arange(100_000), columns={"s": rng.exponential(1, 100_000)})
    level = Level(Column("s"))
    level.calibrate([clean])
    x = np.asarray([0.5, 1, 2, 4, 8, 16, 32])
    got = np.asarray(level.score(Track("t", "i", np.arange(7), columns={"s": x})))
    assert got == pytest.approx(x * np.log2(np.e), rel=0.15, abs=0.05)
    assert (np.diff(got) > 0).all()
    ties = Level(Column("s"))
    ties.calibrate([Track("c", "i", np.arange(100), columns={"s": np.r_[np.zeros(50), np.ones(50)]})])
    bits = ties.score(Track("t", "i", np.arange(2), columns={"s": np.asarray([0.0, 1.0])}))
    assert np.asarray(bits) == pytest.approx([-np.log2(100 / 101), -np.log2(50 / 101)], abs=0.05)
