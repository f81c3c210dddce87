"""Random numbers and elementary functions that give the same bits on every machine.

SplitMix64 (Steele, Lea, Flood 2014) in 64-bit integers; logarithm and exponential from IEEE additions, products and one
division only, so that no mathematical library of the machine takes part. One generator a stream, state in a uint64[1].
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

GOLDEN = 0x9E3779B97F4A7C15
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB
MASK = (1 << 64) - 1
LN2 = 0.6931471805599453
JIT: dict[str, Any] = {"cache": True, "error_model": "numpy"}
"""Options of every compiled function of the simulator: no fast-math, so additions stay in the written order."""
INNER: dict[str, Any] = {**JIT, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""The same for functions that only compiled code calls: no entry from Python, which is a third of the compile time."""

U64 = NDArray[np.uint64]


def mix(x: int) -> int:
    """The output function of SplitMix64 on a 64-bit integer."""
    x = ((x ^ (x >> 30)) * MIX_1) & MASK
    x = ((x ^ (x >> 27)) * MIX_2) & MASK
    return x ^ (x >> 31)


def derive(seed: int, *path: int) -> int:
    """A seed of its own for a branch (instrument, purpose, number): 64 bits, unrelated to its neighbours."""
    x = mix((seed ^ GOLDEN) & MASK)
    for step in path:
        x = mix((x + GOLDEN * (step + 1)) & MASK)
    return x


class Stream:
    """The same generator in plain Python, for the few numbers that are drawn outside compiled code."""

    def __init__(self, seed: int) -> None:
        self._state = seed & MASK

    def bits(self) -> int:
        """The next 64 bits."""
        self._state = (self._state + GOLDEN) & MASK
        return mix(self._state)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A float in [low, high)."""
        return low + (high - low) * ((self.bits() >> 11) * 2.0**-53)

    def integer(self, low: int, high: int) -> int:
        """An integer in low..high, both included."""
        return low + self.bits() % (high - low + 1)


@njit(**INNER)
def uniform(state: U64) -> float:
    """A float in [0, 1); advances state[0]."""
    state[0] += np.uint64(GOLDEN)
    x = state[0]
    x = (x ^ (x >> np.uint64(30))) * np.uint64(MIX_1)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(MIX_2)
    x = x ^ (x >> np.uint64(31))
    return float(x >> np.uint64(11)) * 2.0**-53


@njit(**INNER)
def log(x: float) -> float:
    """Natural logarithm of x > 0, about 1e-13 relative: exponent plus the series of 2*artanh(z)."""
    m, e = math.frexp(x)
    if m < 0.7071067811865476:
        m, e = m * 2.0, e - 1
    z = (m - 1.0) / (m + 1.0)
    y = z * z
    s = 0.0
    for k in range(19, 0, -2):
        s = s * y + 1.0 / k
    return 2.0 * z * s + e * LN2


@njit(**INNER)
def exp(x: float) -> float:
    """e**x for |x| < 700, about 1e-14 relative: power of two times a Taylor polynomial of degree 13."""
    n = math.floor(x / LN2 + 0.5)
    r = x - n * LN2
    s = 1.0
    for k in range(13, 0, -1):
        s = 1.0 + s * r / k
    return math.ldexp(s, int(n))


@njit(**INNER)
def exponential(state: U64) -> float:
    """Exponentially distributed, mean 1."""
    return float(-log(1.0 - uniform(state)))


@njit(**INNER)
def gaussian(state: U64) -> float:
    """Mean 0, variance 1: twelve uniforms summed (tails end at 6)."""
    s = -6.0
    for _ in range(12):
        s += uniform(state)
    return s
