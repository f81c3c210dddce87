"""Seeded material without a market: codes that behave like codes, and weights that use the whole allowed range.

For tests, benchmarks and the hardware's benches; no shipped model is trained on it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from microrisk.spec.formats import ACC, CODE, LEVEL_TABLE_FRAC, RESIDUAL_EXP_MAX, TABLE_FRAC, TABLE_POINTS
from microrisk.spec.records import N_FEATURES, N_HEADS
from microrisk.spec.weightfile import LAYERS, TENSORS
from microrisk.weights import LevelTable, Tensors, Weights, table_shapes


def random_codes(n: int, seed: int) -> NDArray[np.int8]:
    """Every int8 equally likely: int8[n, N_FEATURES]."""
    return np.random.default_rng(seed).integers(-128, 128, (n, N_FEATURES), dtype=np.int8)


def extreme_codes() -> NDArray[np.int8]:
    """Rows at the ends of the format: all low, all high, zeros, alternating both ways, one feature at a time."""
    low, high = np.int8(CODE.low), np.int8(CODE.high)
    even = np.arange(N_FEATURES) % 2 == 0
    rows = [np.full(N_FEATURES, v, np.int8) for v in (low, high, 0, 1, -1)]
    rows += [np.where(even, low, high), np.where(even, high, low)]
    single = [np.where(np.arange(N_FEATURES) == i, v, np.int8(0)) for i in range(N_FEATURES) for v in (low, high)]
    return np.array(rows + single, np.int8)


def market_like_codes(n: int, seed: int, *, factors: int = 6, memory: float = 0.98) -> NDArray[np.int8]:
    """Correlated, heavy-tailed, persistent codes with Gaussian margins, as a quantile normaliser leaves them.

    A few slow factors with Student-t shocks drive all features, non-linearly; int8[n, N_FEATURES].
    """
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(20_240_501).normal(size=(factors, N_FEATURES))  # one market, whatever the seed
    shocks = rng.standard_t(4, (n, factors)) * np.sqrt(1 - memory**2)
    state = np.empty((n, factors))
    level = np.zeros(factors)
    for i in range(n):
        level = memory * level + shocks[i]
        state[i] = level
    common = np.tanh(state / 1.5) @ mix + 0.3 * np.abs(state) @ np.roll(mix, 1, axis=1)
    x = common / np.sqrt(factors) + 0.5 * rng.standard_t(5, (n, N_FEATURES))
    x /= 1.2
    codes: NDArray[np.int8] = np.clip(np.round(x * (1 << CODE.frac)), CODE.low, CODE.high).astype(np.int8)
    return codes


def random_layer(name: str, rng: np.random.Generator, *, at_bound: bool) -> Tensors:
    """A valid layer of spec.weightfile; `at_bound` puts every row just below the largest accumulator allowed."""
    out, inp, _ = LAYERS[name]
    shift = rng.integers(0, 16, out).astype(np.uint8) if at_bound else rng.integers(5, 10, out).astype(np.uint8)
    weight = rng.integers(-128, 128, (out, inp)).astype(np.int8)
    room = -ACC.low - 1 - 128 * np.abs(weight.astype(np.int64)).sum(axis=1)
    room -= np.where(shift > 0, np.int64(1) << np.maximum(shift.astype(np.int64) - 1, 0), 0)
    bias = rng.choice([-1, 1], out) * room if at_bound else rng.integers(-(1 << 14), 1 << 14, out)
    return {f"{name}.weight": weight, f"{name}.bias": bias.astype(np.int32), f"{name}.shift": shift}


def random_weights(seed: int, *, at_bound: bool = False) -> Weights:
    """A valid model with random layers, an identity-like normaliser and an exponential level table."""
    rng = np.random.default_rng(seed)
    tensors: Tensors = {}
    for name in LAYERS:
        tensors.update(random_layer(name, rng, at_bound=at_bound))
    exps = np.full(N_FEATURES, RESIDUAL_EXP_MAX) if at_bound else rng.integers(0, RESIDUAL_EXP_MAX + 1, N_FEATURES)
    tensors["vae.residual_exp"] = exps.astype(np.uint8)
    tensors["vae.latent_exp"] = np.array([13 if at_bound else int(rng.integers(0, 8))], np.uint8)
    tensors.update({f"table/generic.{k}": v for k, v in _ramp(N_FEATURES, 16, 1 << TABLE_FRAC).items()})
    tensors.update({k: np.zeros(s, d) for k, (d, s) in TENSORS.items() if k.startswith("level/")})
    return Weights(tensors).with_level("generic", 0xFFFFFFFF, random_level(seed))


def random_level(seed: int) -> LevelTable:
    """Increasing breaks over the range of heads, increasing values, thresholds in reach."""
    rng = np.random.default_rng(seed)
    breaks = np.sort(rng.choice(1 << 24, (N_HEADS, TABLE_POINTS), replace=False), axis=1).astype(np.int32)
    value = np.sort(rng.integers(0, 20 << 23, (N_HEADS, TABLE_POINTS)), axis=1).astype(np.int32)
    slope = np.zeros((N_HEADS, TABLE_POINTS + 1), np.int32)
    slope[:, 1:-1] = np.diff(value, axis=1) // np.diff(breaks, axis=1)
    slope[:, -1] = 1 << (LEVEL_TABLE_FRAC - 12)
    on = rng.integers(4 << 8, 12 << 8, N_HEADS).astype(np.int32)
    return LevelTable(breaks, value, slope, on, (on - 128).astype(np.int32), calibrated=True)


def _ramp(rows: int, step: int, unit: int) -> Tensors:
    """A straight table: breaks `step` apart, value = break * unit / 16."""
    breaks = np.broadcast_to((np.arange(TABLE_POINTS) - TABLE_POINTS // 2) * step, (rows, TABLE_POINTS))
    shapes = table_shapes(rows)
    slope = np.full(shapes["slope"], unit // 16)
    return {k: v.astype(np.int32) for k, v in (("breaks", breaks), ("value", breaks * unit // 16), ("slope", slope))}
