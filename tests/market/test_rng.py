"""The generator and the elementary functions."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from microrisk.market import rng
from microrisk.market.rng import Stream, derive, exp, exponential, gaussian, log, uniform


@njit
def _draw(state, n):
    out = np.empty((3, n))
    for i in range(n):
        out[0, i] = uniform(state)
    for i in range(n):
        out[1, i] = exponential(state)
        out[2, i] = gaussian(state)
    return out


@njit
def _functions(x):
    out = np.empty((2, len(x)))
    for i in range(len(x)):
        out[0, i] = log(math.fabs(x[i]) + 1e-300)
        out[1, i] = exp(x[i])
    return out


def test_compiled_and_plain_generator_agree_bit_for_bit() -> None:
    seed = derive(42, 3)
    plain = Stream(seed)
    drawn = _draw(np.array([seed], np.uint64), 2000)
    assert drawn[0].tolist() == [plain.uniform() for _ in range(2000)]


def test_splitmix_known_answer() -> None:
    # first outputs for state 1234567, as published with the reference implementation in C
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    stream = Stream(1234567)
    assert [stream.bits() for _ in range(3)] == known


def test_moments() -> None:
    uniforms, exponentials, gaussians = _draw(np.array([1], np.uint64), 40_000)
    assert abs(uniforms.mean() - 0.5) < 0.01
    assert abs(exponentials.mean() - 1.0) < 0.03
    assert abs(exponentials.std() - 1.0) < 0.05
    assert abs(gaussians.mean()) < 0.03
    assert abs(gaussians.std() - 1.0) < 0.03


def test_log_and_exp_are_close_to_the_library() -> None:
    x = np.concatenate([np.linspace(-30, 30, 2001), np.array([1e-12, 0.70710678, 1.0, 1.4142135623])])
    ours = _functions(x)
    near = np.abs(x) > 1e-3
    assert np.allclose(ours[0][near], np.log(np.abs(x[near])), rtol=1e-11, atol=1e-12)
    assert np.allclose(ours[1], np.exp(x), rtol=1e-12)


def test_branches_of_a_seed_differ() -> None:
    seeds = {derive(s, i, j) for s in range(5) for i in range(5) for j in range(5)}
    assert len(seeds) == 125
    assert all(0 <= s <= rng.MASK for s in seeds)
    values = [Stream(1).integer(2, 4) for _ in range(1)] + [Stream(s).integer(2, 4) for s in range(50)]
    assert set(values) == {2, 3, 4}
