"""Tables: scores, tails, merging, expansion, and refusals."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from feature_twin import warm_up_twin
from feature_views import market_views
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from microrisk import fixed
from microrisk.errors import UsageError, WeightFileError
from microrisk.features.normalise import (
    N_RAW,
    Table,
    count_values,
    expand,
    fit_counts,
    fit_instrument,
    fit_table,
    mean_scores,
    nearest_power_of_ten,
)
from microrisk.spec.features import ALL_MASK
from microrisk.spec.records import N_FEATURES

RNG = np.random.default_rng(0)


def filled(column: NDArray[np.integer]) -> NDArray[np.int64]:
    """[n, 32] with the same column throughout."""
    return np.repeat(np.asarray(column, np.int64)[:, None], N_FEATURES, axis=1)


def samples() -> dict[str, NDArray[np.int64]]:
    heavy = np.round(20 * RNG.standard_t(2, 50_000)).clip(-2048, 2047)
    return {
        "normal": np.round(100 + 40 * RNG.standard_normal(50_000)).astype(int),
        "heavy": heavy.astype(int),
        "skewed": np.round(30 * RNG.exponential(1, 50_000)).clip(0, 2047).astype(int),
        "constant": np.full(1000, 7),
        "two values": np.where(RNG.random(10_000) < 0.02, 160, 0),
        "three apart": RNG.choice((-2048, 0, 2047), 5000),
        "at the ends": RNG.choice((-2048, 2047), 100),
        "one row": np.array([5]),
        "all values": np.arange(-2048, 2048),
    }


@pytest.mark.parametrize("name", list(samples()))
def test_expansion_is_the_normaliser_and_rises(name: str) -> None:
    table = fit_table(filled(samples()[name]))
    codes = expand(table)
    raw = np.arange(-2048, 2048)
    assert codes.shape == (N_FEATURES, N_RAW)
    for i in (0, 31):
        assert (codes[i] == fixed.normalise(raw, table.breaks[i], table.value[i], table.slope[i])).all()
    assert (np.diff(codes[0].astype(int)) >= 0).all()
    assert (table.slope[:, [0, -1]] > 0).all()
    assert (np.diff(table.breaks.astype(int), axis=1) > 0).all()


@pytest.mark.parametrize("name", ["normal", "heavy", "skewed"])
def test_codes_of_the_training_data_are_gaussian(name: str) -> None:
    column = samples()[name]
    z = expand(fit_table(filled(column)))[0, column + 2048] / 16
    for q in (1e-3, 0.01, 0.1, 0.5, 0.9, 0.99, 1 - 1e-3):
        value = np.quantile(column, q, method="nearest")
        below, up_to = (
            float(np.clip(share, 1e-9, 1 - 1e-9)) for share in ((column < value).mean(), (column <= value).mean())
        )
        assert NormalDist().inv_cdf(below) - 0.05 <= np.quantile(z, q) <= NormalDist().inv_cdf(up_to) + 0.05, q
    assert abs(z.mean()) < 0.05
    assert z.std() == pytest.approx(1, abs=0.06)


def test_deep_tail_is_resolved() -> None:
    """One value in ten thousand must score near 3.7, not at the score of the last percentile."""
    column = np.concatenate([np.round(30 * RNG.standard_normal(200_000)), np.full(20, 500)]).astype(int)
    table = fit_table(filled(column))
    z = expand(table)[0, 500 + 2048] / 16
    assert z == pytest.approx(mean_scores(np.array([1 - 1e-4, 1e-4]))[1], abs=0.08)
    low, high = np.searchsorted(np.sort(column), table.breaks[0, [1, -3]]) / len(column)
    assert low < 1e-4
    assert high > 1 - 1e-3


def test_constant_feature_reacts() -> None:
    codes = expand(fit_table(filled(np.full(100, 7))))[0]
    assert codes[2048 + 7] == 0
    assert (codes[2048 + 8], codes[2048 + 6]) == (2, -2)
    assert (codes[2048 + 7 + 64], codes[2048 + 7 - 64]) == (127, -128)


def test_end_slopes_follow_the_tail_but_not_a_cliff() -> None:
    heavy = np.round(10 * RNG.standard_t(3, 50_000)).clip(-400, 400).astype(int)
    bounded = RNG.integers(-100, 101, 50_000)
    for column in (heavy, bounded):
        table = fit_table(filled(column))
        chord = table.value[0].max() / table.breaks[0].max()
        assert 16 <= table.slope[0, -1] <= 1.1 * chord
        assert 16 <= table.slope[0, 0] <= 1.1 * chord
    assert fit_table(filled(heavy)).slope[0, -1] < 0.5 * chord
    z = expand(fit_table(filled(bounded)))[0] / 16
    assert z[2048 + 110] - z[2048 + 100] < 0.5  # a tenth beyond the bound is a tenth of the way again


def test_ties_have_their_mean_score() -> None:
    column = np.array([0] * 50 + [10] * 50)
    codes = expand(fit_table(filled(column)))[0]
    half = 16 * np.sqrt(2 / np.pi)  # mean of the upper half of a normal
    assert (codes[2048], codes[2058]) == (-round(half), round(half))


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=40))
def test_mean_scores_average_to_zero(weights: list[float]) -> None:
    share = np.array(weights) / sum(weights)
    score = mean_scores(share)
    assert abs((score * share).sum()) < 1e-9
    assert (np.diff(score) > 0).all()


@given(st.lists(st.integers(-2048, 2047), min_size=1, max_size=300))
def test_any_sample_gives_a_valid_rising_table(values: list[int]) -> None:
    table = fit_table(filled(np.array(values)))
    codes = expand(table, 1)
    assert (np.diff(codes[0].astype(int)) >= 0).all()
    assert not codes[1:].any()


def test_merging_is_adding_counts() -> None:
    a, b = filled(RNG.integers(-50, 50, 700)), filled(RNG.integers(0, 300, 300))
    merged, whole = fit_table([a, b]), fit_table(np.concatenate([a, b]))
    added = fit_counts(count_values(a) + count_values(b))
    for name in ("breaks", "value", "slope"):
        assert (getattr(merged, name) == getattr(whole, name)).all()
        assert (getattr(added, name) == getattr(whole, name)).all()


def test_weights_are_shares_whatever_the_length() -> None:
    long, short = filled(np.zeros(9000, int)), filled(np.full(10, 40))
    codes = expand(fit_table([long, short], weights=[1, 1]))[0]
    half = round(16 * np.sqrt(2 / np.pi))
    assert (codes[2048], codes[2088]) == (-half, half)


def test_mask_zeroes_features() -> None:
    codes = expand(fit_table(filled(np.arange(100))), ALL_MASK & ~(1 << 4))
    assert not codes[4].any()
    assert codes[5].any()


def test_refusals() -> None:
    good = fit_table(filled(np.arange(100)))
    with pytest.raises(WeightFileError, match=r"^table slope must be int32\[32, 65\], is int32\[32, 64\]$"):
        Table(good.breaks, good.value, good.value)
    with pytest.raises(WeightFileError, match=r"^breaks of feature 0 are not strictly increasing$"):
        Table(np.zeros_like(good.breaks), good.value, good.slope)
    with pytest.raises(UsageError, match="at least one row"):
        fit_table(np.zeros((0, 32), np.int16))
    with pytest.raises(UsageError, match=r"^raw features must be \[n, 32\]"):
        fit_table(np.zeros((4, 31), np.int16))
    with pytest.raises(UsageError, match=r"outside -2048\.\.2047$"):
        fit_table(np.full((4, 32), 2048))
    with pytest.raises(UsageError, match="2 positive weights"):
        fit_table([filled(np.arange(3))] * 2, weights=[1, 0])


@pytest.mark.parametrize(("tick", "lot"), [(100, 100), (1, 1), (25, 10**9)])
def test_fit_instrument_is_the_warm_up_over_everything(tick: int, lot: int) -> None:
    views = market_views(4, 800, tick=tick, lot=lot)
    views["n_ask"][50:60], views["tick"][70:75] = 0, 1
    assert fit_instrument(views) == warm_up_twin(views, len(views))[:2]
    assert fit_instrument(views)[0] == tick
    with pytest.raises(UsageError, match="no event with both sides"):
        fit_instrument(views[50:60])


def test_nearest_power_of_ten() -> None:
    cases = {0: 1, 1: 1, 3: 1, 4: 10, 31: 10, 32: 100, 100: 100, 2**63 - 1: 10**18}
    assert {size: nearest_power_of_ten(size) for size in cases} == cases
