"""Which three features drove a row: each head is asked in its own terms.

    maxz       |code|
    maha       the part of the sum of squares that runs through the feature: sum over rows of y * w * code / 2**shift
    vae        weighted residual square
    exposure   occlusion: accumulator with the feature minus accumulator with its code set to 0

Integers throughout, so drivers are the same on every machine. Features that the feed does not carry never drive.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microrisk import fixed
from microrisk.spec.features import ALL_MASK, FEATURES
from microrisk.spec.formats import SHIFT_MAX
from microrisk.spec.records import N_FEATURES, N_HEADS
from microrisk.spec.weightfile import HEADS
from microrisk.weights import Weights, mask_vector

N_DRIVERS = 3
_CHUNK = 1 << 8
_NAMES = np.array([f.name for f in FEATURES])


def drivers(weights: Weights, codes: NDArray[np.int8], head: ArrayLike, mask: int = ALL_MASK) -> NDArray[np.int8]:
    """The three features that drove each row, strongest first.

    Parameters
    ----------
    codes : int8[n, N_FEATURES], of the rows to explain only (exposure costs 32 evaluations a row)
    head : column of spec.weightfile.HEADS to explain: one for all rows, or int[n]
    mask : features that the feed carries

    Returns
    -------
    int8[n, 3] : feature indices; ties go to the lower index; -1 where fewer than three features are carried
    """
    column = np.broadcast_to(np.asarray(head, np.int64), len(codes))
    out = np.full((len(codes), N_DRIVERS), -1, np.int8)
    for h in range(N_HEADS):
        rows = np.flatnonzero(column == h)
        for i in range(0, len(rows), _CHUNK):
            part = rows[i : i + _CHUNK]
            out[part] = _top(attribution(weights, codes[part], h, mask), mask)
    return out


def leading_head(level: NDArray[np.int32], alert: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The head to explain in each row: highest level among those in alarm, else highest of all; int64[n]."""
    alarmed = ((alert[:, None] >> np.arange(N_HEADS)) & 1).astype(np.int64)
    return np.asarray((level.astype(np.int64) + (alarmed << 32)).argmax(axis=1))


def driver_names(found: NDArray[np.int8]) -> list[list[str]]:
    """Feature names of `drivers`, -1 left out."""
    return [_NAMES[row[row >= 0]].tolist() for row in found]


def attribution(weights: Weights, codes: NDArray[np.int8], head: int, mask: int = ALL_MASK) -> fixed.Ints:
    """What each feature adds to a head: int64[n, N_FEATURES], in the head's own unit (maha: times 2**15)."""
    x = np.where(mask_vector(mask), codes, np.int8(0))
    return _ATTRIBUTIONS[HEADS[head]](weights, x, mask)


def _maxz(weights: Weights, x: NDArray[np.int8], mask: int) -> fixed.Ints:
    return np.asarray(np.abs(x.astype(np.int64)))


def _maha(weights: Weights, x: NDArray[np.int8], mask: int) -> fixed.Ints:
    w, b, s = weights.layer("maha.0")
    y = fixed.dense(x, w, b, s) << (SHIFT_MAX - s.astype(np.int64))
    return np.asarray((y @ w.astype(np.int64)) * x, np.int64)


def _vae(weights: Weights, x: NDArray[np.int8], mask: int) -> fixed.Ints:
    residual = x - weights.reconstruct(x, mask)
    return np.asarray((residual * residual) << weights.tensors["vae.residual_exp"].astype(np.int64), np.int64)


def _exposure(weights: Weights, x: NDArray[np.int8], mask: int) -> fixed.Ints:
    without = np.repeat(x[:, None, :], N_FEATURES, axis=1)
    without[:, range(N_FEATURES), range(N_FEATURES)] = 0
    alone = weights.exposure(without.reshape(-1, N_FEATURES)).reshape(-1, N_FEATURES)
    return np.asarray(weights.exposure(x)[:, None] - alone)


_ATTRIBUTIONS = {"maxz": _maxz, "maha": _maha, "vae": _vae, "exposure": _exposure}


def _top(score: fixed.Ints, mask: int) -> NDArray[np.int8]:
    """Indices of the three largest of each row among carried features, -1 beyond their number."""
    carried = mask_vector(mask)
    order = np.argsort(np.where(carried, -score, np.iinfo(np.int64).max), axis=1, kind="stable")[:, :N_DRIVERS]
    return np.where(carried[order], order, -1).astype(np.int8)
