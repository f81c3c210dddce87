"""Level tables say tail probabilities, thresholds keep their budgets on the data they were set on."""

from __future__ import annotations

import numpy as np
import pytest

from microrisk import fixed
from microrisk.errors import EvaluationError
from microrisk.model.calibrate import (
    BUDGETS,
    HYSTERESIS,
    NEVER,
    Session,
    calibrate,
    clusters,
    in_alarm,
    smooth_levels,
)
from microrisk.model.synthetic import market_like_codes, random_weights
from microrisk.spec.units import NS_PER_S
from microrisk.spec.weightfile import HEADS
from microrisk.weights import Weights


def sessions(count=3, rows=40_000, seconds=3600.0):
    weights = random_weights(3)
    made = []
    for k in range(count):
        gaps = np.random.default_rng(k).exponential(seconds / rows, rows) * NS_PER_S
        made.append(Session(np.cumsum(gaps).astype(np.int64), weights.compute(market_like_codes(rows, 10 + k))))
    return made


@pytest.fixture(scope="module")
def clean():
    return sessions()


@pytest.fixture(scope="module")
def done(clean):
    return calibrate(clean)


def levels(done, heads, h):
    t = done.level
    return fixed.level(heads[:, h], t.breaks[h], t.value[h], t.slope[h])


def test_table_is_valid(done):
    random_weights(1).with_level("generic", 0xFFFFFFFF, done.level).validate()
    assert done.level.calibrated


@pytest.mark.parametrize("h", range(4))
def test_level_is_minus_log2_of_the_tail(clean, done, h):
    heads = np.concatenate([s.heads for s in clean])
    level = levels(done, heads, h)
    for bits in (1, 2, 4, 6, 8, 10):
        at = heads[:, h][level >= bits * 256].min()
        assert -np.log2((heads[:, h] >= at).mean()) == pytest.approx(bits, abs=0.3)


@pytest.mark.parametrize("h", range(4))
def test_level_never_falls_and_goes_on_beyond_the_data(clean, done, h):
    highest = max(int(s.heads[:, h].max()) for s in clean)
    x = np.unique(np.linspace(-10, 4 * highest, 20_000).astype(np.int64))
    t = done.level
    level = fixed.level(x, t.breaks[h], t.value[h], t.slope[h])
    assert (np.diff(level) >= 0).all()
    assert level[-1] > levels(done, np.full((1, 4), highest, np.int32), h)[0]


def test_exponential_tail_is_recovered():
    rng = np.random.default_rng(0)
    heads = np.tile(rng.exponential(1000.0, 200_000).astype(np.int32)[:, None], (1, 4))
    found = calibrate([Session(np.arange(200_000) * 10_000_000, heads)])
    far = levels(found, np.full((1, 4), 25_000, np.int32), 0)[0] / 256
    assert far == pytest.approx(25_000 / 1000 / np.log(2), rel=0.15), "2^-36, from 200,000 rows"


@pytest.mark.parametrize("name", HEADS)
def test_budget_is_kept_and_used(clean, done, name):
    h = HEADS.index(name)
    on, off = int(done.level.on[h]), int(done.level.off[h])
    hours = sum(s.hours for s in clean)

    def alarms(threshold):
        parts = [(s.now, in_alarm(smooth_levels(levels(done, s.heads, h)), threshold, off)) for s in clean]
        return sum(clusters(*p) for p in parts)

    assert alarms(on) == done.report["heads"][name]["alarms"] <= BUDGETS[name] * hours
    assert alarms(on) > 0
    lower = [in_alarm(smooth_levels(levels(done, s.heads, h)), on - 1, off - 1) for s in clean]
    more = sum(clusters(s.now, x) for s, x in zip(clean, lower, strict=True))
    assert more > BUDGETS[name] * hours, "the next lower threshold must exceed the budget"
    assert on - off == HYSTERESIS


def test_short_data_is_not_overinterpreted():
    """Ten minutes cannot show one alarm an hour: the threshold goes above all that was seen."""
    (short,) = sessions(1, 8000, 600.0)
    found = calibrate([short])
    h = HEADS.index("vae")
    assert found.report["heads"]["vae"]["extrapolated_bits"] == pytest.approx(np.log2(6), abs=0.05)
    assert found.level.on[h] > smooth_levels(levels(found, short.heads, h)).max() + 2 * 256


def test_few_distinct_values_and_a_silent_head():
    rng = np.random.default_rng(1)
    heads = np.zeros((5000, 4), np.int32)
    heads[:, 0] = rng.integers(10, 14, 5000)
    heads[:, 1] = -(1 << 31)
    heads[:, 2] = (1 << 31) - 1
    found = calibrate([Session(np.arange(5000) * NS_PER_S, heads)])
    Weights(random_weights(1).tensors).with_level("generic", 1, found.level).validate()
    assert (found.level.on[1:] == NEVER).all()
    level = levels(found, heads, 0)
    assert level[heads[:, 0] == 10].max() == 0
    expected = [-np.log2((heads[:, 0] >= v).mean()) * 256 for v in (11, 12, 13)]
    assert [int(level[heads[:, 0] == v][0]) for v in (11, 12, 13)] == pytest.approx(expected, abs=1)


def test_clusters_merge_within_five_seconds():
    now = (np.array([0.0, 1, 5.9, 10.9, 11.1, 30]) * NS_PER_S).astype(np.int64)
    alarmed = np.array([1, 1, 1, 0, 1, 1], bool)
    assert clusters(now, alarmed) == 3
    assert clusters(now, np.ones(6, bool)) == 3 - 1
    assert clusters(now, np.zeros(6, bool)) == 0


def test_scans_equal_fixed():
    codes = np.random.default_rng(3).integers(0, 6000, 500)
    state, on, smooth, alarm = np.int64(0), False, [], []
    for c in codes:
        state = fixed.ewma_step(state, c)
        smooth.append(int(state) >> 8)
        on = bool(fixed.hysteresis_step(on, smooth[-1], 3100, 2950))
        alarm.append(on)
    assert smooth_levels(codes).tolist() == smooth
    assert in_alarm(np.array(smooth), 3100, 2950).tolist() == alarm
    assert 0 < sum(alarm) < 500


def test_refusals(clean):
    with pytest.raises(EvaluationError, match="no false-alarm budget for head vae"):
        calibrate(clean, {"maxz": 1, "maha": 1, "exposure": 1})
    with pytest.raises(EvaluationError, match="there are none"):
        calibrate([])
    back = Session(np.array([1, 3, 2]), np.zeros((3, 4), np.int32))
    with pytest.raises(EvaluationError, match="session 0: time runs backwards at row 2"):
        calibrate([back])
    with pytest.raises(EvaluationError, match="session 0: heads"):
        calibrate([Session(np.arange(3), np.zeros((2, 4), np.int32))])
