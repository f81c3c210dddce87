"""The whitening layer in closed form: its squared output is the Mahalanobis distance of a code vector.

Rows are the principal directions over their standard deviations. An eigenvalue below the rounding noise of the codes,
(1/16)**2 / 12, is raised to it: a direction in which clean data does not move at all is not worth more than one step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from microrisk.model.floatnet import Floats
from microrisk.spec.formats import CODE

NOISE = 2.0 ** (-2 * CODE.frac) / 12
"""Variance of rounding to a code, in sigma**2."""


def whiten(codes: NDArray[np.int8]) -> tuple[Floats, Floats]:
    """Weight float64[F, F] and bias float64[F] such that y = x @ weight.T + bias is white for these codes.

    Rows go from the largest variance to the smallest; the largest entry of each is positive, so that the same codes
    give the same rows on every machine.
    """
    x = codes.astype(np.float64) / (1 << CODE.frac)
    mean = x.mean(axis=0)
    x -= mean
    values, vectors = np.linalg.eigh(x.T @ x / max(len(x) - 1, 1))
    order = np.argsort(values)[::-1]
    rows = vectors[:, order].T
    rows = rows * np.sign(rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)])[:, None]
    weight = rows / np.sqrt(np.maximum(values[order], NOISE))[:, None]
    return weight, -weight @ mean
