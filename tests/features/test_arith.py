"""Leading one, lg, decay and running mean: compiled form, plain form and fixed.py agree, extremes included."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from feature_twin import lg as naive_lg
from hypothesis import given
from hypothesis import strategies as st
from numba import njit
from numpy.typing import NDArray

from microrisk import fixed
from microrisk.features import arith
from microrisk.features.state import ACC_MAX, SIZE_MAX


@njit
def compiled_lg(values: NDArray[np.int64], frac: int) -> NDArray[np.int64]:
    out = np.empty(len(values), np.int64)
    for i in range(len(values)):
        out[i] = arith.lg_frac(values[i], frac)
    return out


@njit
def compiled_decay(values: NDArray[np.int64], steps: int) -> NDArray[np.int64]:
    arith.decay(values, steps)
    return values


@njit
def compiled_size(qty: int, unit: int) -> int:
    return arith.size_units(qty, unit)


def around_powers() -> NDArray[np.int64]:
    """Every power of two and its neighbours, and a spread of others, below 2^62."""
    powers = [(1 << k) + d for k in range(62) for d in (-2, -1, 0, 1)]
    others = np.random.default_rng(0).integers(0, 1 << np.arange(1, 62).repeat(50))
    return np.array(sorted({max(p, 0) for p in powers} | set(others.tolist())), np.int64)


def test_lg_equals_fixed_and_naive() -> None:
    x = around_powers()
    assert (compiled_lg(x, 0) == fixed.lg(x)).all()
    assert compiled_lg(x, 0).tolist() == [naive_lg(int(v)) for v in x]
    assert [arith.lg.py_func(v) for v in x[::50]] == [naive_lg(int(v)) for v in x[::50]]


@pytest.mark.parametrize("frac", [1, 4, 8])
def test_lg_with_fraction_bits(frac: int) -> None:
    x = around_powers()
    result = compiled_lg(x, frac)
    assert result.tolist() == [naive_lg(int(v), frac) for v in x]
    assert result[0] == 0
    assert (np.diff(result) >= 0).all()
    assert np.abs(result / 16 - np.log2(1 + x / 2.0**frac)).max() < 0.15  # cut: up to 1/16; chord: up to 0.087


@given(st.integers(-ACC_MAX, ACC_MAX), st.integers(0, 1 << 40))
def test_decay_is_the_floor_of_the_magnitude(value: int, steps: int) -> None:
    after = int(compiled_decay(np.array([value]), steps)[0])
    exact = Fraction(abs(value) * arith.DECAY_ROM[steps % 16], 1 << 16) / (1 << min(steps // 16, 200))
    assert abs(after) == int(exact)
    assert after == 0 or (after > 0) == (value > 0)


def test_decay_rom_is_pinned() -> None:
    """Written out: hardware and other languages carry the same numbers."""
    rom = (
        65536,
        62757,
        60097,
        57549,
        55109,
        52773,
        50535,
        48393,
        46341,
        44376,
        42495,
        40693,
        38968,
        37316,
        35734,
        34219,
    )
    assert rom == arith.DECAY_ROM
    assert arith.TANH_ROM[::16] == (0, 43, 77, 100, 113, 120, 124, 126)
    assert (arith.TANH_ROM[0], arith.TANH_ROM[127]) == (0, 127)


@given(st.integers(0, 10 << 59), st.integers(1, 1 << 62))
def test_size_units(qty: int, unit: int) -> None:
    assert compiled_size(qty, unit) == min(qty // unit, SIZE_MAX)


def test_mean_reads_its_input_when_constant() -> None:
    mean = -1
    assert arith.mean_value.py_func(mean) == 0
    for _ in range(1000):
        mean = arith.mean_step.py_func(mean, 77, 4)
        assert arith.mean_value.py_func(mean) == 77
