"""The scorer to trust: plain NumPy through fixed.py. Slow, and always there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from microrisk.spec.features import ALL_MASK
from microrisk.weights import Weights


class ReferenceScorer:
    """Weights.compute behind the Scorer protocol."""

    name = "reference"

    def __init__(self) -> None:
        self._weights: Weights | None = None
        self._mask = ALL_MASK

    def unavailable(self) -> str | None:
        """Always None: NumPy is a dependency."""
        return None

    def load(self, weights: Weights, mask: int = ALL_MASK) -> None:
        """Keep the model; checks it first (WeightFileError)."""
        weights.validate()
        self._weights, self._mask = weights, mask

    def score(self, codes: NDArray[np.int8]) -> NDArray[np.int32]:
        """int8[n, N_FEATURES] -> int32[n, N_HEADS]; RuntimeError before load."""
        if self._weights is None:
            raise RuntimeError("score() before load()")
        return self._weights.compute(codes, self._mask)
