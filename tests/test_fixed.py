"""The integer arithmetic against exact rational arithmetic, one number at a time."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microrisk import fixed
from microrisk.spec.formats import ACC, CODE, FEATURE, LEVEL, LEVEL_TABLE_FRAC, LG, TABLE_FRAC

INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
INT8 = st.integers(-128, 127)


def half_up(x: Fraction) -> int:
    return math.floor(x + Fraction(1, 2))


@pytest.mark.parametrize(
    ("fmt", "low", "high"), [(CODE, -128, 127), (LG, 0, 1023), (FEATURE, -2048, 2047), (ACC, -(1 << 23), (1 << 23) - 1)]
)
def test_saturate_holds_the_ends(fmt, low, high):
    assert (fmt.low, fmt.high) == (low, high)
    assert fixed.saturate([low - 1, low, 0, high, high + 1], fmt).tolist() == [low, low, 0, high, high]


@given(INT32, st.integers(0, 31))
def test_round_shift_is_half_up(x, shift):
    assert int(fixed.round_shift(x, shift)) == half_up(Fraction(x, 1 << shift))


@pytest.mark.parametrize(("x", "y"), [(-3, -1), (-2, -1), (-1, 0), (1, 1), (2, 1), (3, 2)])
def test_round_shift_of_halves_goes_up(x, y):
    assert int(fixed.round_shift(x, 1)) == y


def test_round_shift_zero_changes_nothing():
    assert fixed.round_shift([-5, 0, 7], 0).tolist() == [-5, 0, 7]


@given(st.integers(0, (1 << 63) - 2))
def test_lg_is_leading_one_and_four_bits(x):
    v = x + 1
    top = v.bit_length() - 1
    mantissa = ((v << 4) >> top) - 16
    assert int(fixed.lg(x)) == top * 16 + mantissa


@pytest.mark.parametrize("k", range(1, 63))
def test_lg_beside_powers_of_two(k):
    for x in ((1 << k) - 2, (1 << k) - 1, 1 << k):
        v = x + 1
        top = v.bit_length() - 1
        assert int(fixed.lg(x)) == top * 16 + ((v << 4) >> top) - 16


def test_lg_never_falls_and_slg_is_odd():
    x = np.arange(1 << 16)
    assert (np.diff(fixed.lg(x)) >= 0).all()
    assert (fixed.slg(-x) == -fixed.slg(x)).all()


def exact_table(x, breaks, value, slope):
    """The table as its docstring words it, with a scan instead of a search."""
    if x < breaks[0]:
        return value[0] + slope[0] * (x - breaks[0])
    k = max(i for i in range(len(breaks)) if breaks[i] <= x)
    return value[k] + slope[k + 1] * (x - breaks[k])


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(1)
    breaks = np.sort(rng.choice(np.arange(-2048, 2048), 64, replace=False))
    return breaks, rng.integers(-40_000, 40_000, 64), rng.integers(-3000, 3000, 65)


def test_interpolate_everywhere(table):
    breaks, value, slope = table
    x = np.arange(FEATURE.low, FEATURE.high + 1)
    expected = [exact_table(int(v), breaks, value, slope) for v in x]
    assert fixed.interpolate(x, breaks, value, slope).tolist() == expected


def test_normalise_and_level_round_then_saturate(table):
    breaks, value, slope = table
    x = np.arange(FEATURE.low, FEATURE.high + 1)
    exact = [exact_table(int(v), breaks, value, slope) for v in x]
    codes = [min(max(half_up(Fraction(int(y), 1 << TABLE_FRAC)), CODE.low), CODE.high) for y in exact]
    levels = [min(max(half_up(Fraction(int(y), 1 << LEVEL_TABLE_FRAC)), 0), LEVEL.high) for y in exact]
    assert fixed.normalise(x, breaks, value, slope).tolist() == codes
    assert fixed.level(x, breaks, value, slope).tolist() == levels
    assert {CODE.low, CODE.high} <= set(codes)


@given(st.lists(INT8, min_size=4, max_size=4), st.lists(INT8, min_size=8, max_size=8), INT32, st.integers(0, 15))
def test_dense_is_sum_shift_saturate(x, w, bias, shift):
    weight = np.array(w).reshape(2, 4)
    y = fixed.dense([x], weight, [bias, 0], [shift, 0])[0].tolist()
    first = half_up(Fraction(sum(a * b for a, b in zip(x, w[:4], strict=True)) + bias, 1 << shift))
    second = sum(a * b for a, b in zip(x, w[4:], strict=True))
    assert y == [min(max(v, CODE.low), CODE.high) for v in (first, second)]
    assert fixed.dense([x], weight, [bias, 0], [shift, 0], relu=True)[0].tolist() == [max(v, 0) for v in y]


def test_sum_squares_with_exponents():
    assert fixed.sum_squares([[3, -2]], [1, 4]).tolist() == [9 * 2 + 4 * 16]


def test_ewma_reaches_and_leaves_a_level():
    state = np.int64(0)
    seen = []
    for level in [LEVEL.high] * 200 + [0] * 200:
        state = fixed.ewma_step(state, level)
        seen.append(int(state))
    assert max(seen) <= LEVEL.high << 8
    assert seen[199] >> 8 == LEVEL.high - 1  # the floor of the shift leaves it within one guard step
    assert 0 <= seen[-1] < 1 << 8


def test_hysteresis_truth_table():
    on = fixed.hysteresis_step([False, False, True, True], [9, 10, 8, 7], 10, 8)
    assert on.tolist() == [False, True, True, False]
