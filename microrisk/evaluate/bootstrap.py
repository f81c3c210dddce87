"""Block bootstrap: sessions are drawn with replacement, because rows of one session are not independent."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000


def weights(blocks: int, draws: int = DRAWS, seed: int = 0) -> NDArray[np.int64]:
    """int64[draws, blocks]: how often each block was drawn; every row sums to `blocks`."""
    rng = np.random.Generator(np.random.PCG64(seed))
    return rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=draws)


def interval(values: Sequence[float] | NDArray[np.float64], share: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the draws; draws in which a measure is undefined (NaN) are left out."""
    v = np.asarray(values, float)
    v = v[~np.isnan(v)]
    if not len(v):
        return float("nan"), float("nan")
    # "lower"/"higher" keep infinite delays from being averaged into NaN
    low = np.quantile(v, (1 - share) / 2, method="lower")
    high = np.quantile(v, (1 + share) / 2, method="higher")
    return float(low), float(high)


def intervals(
    measure: Callable[[NDArray[np.int64]], float], drawn: NDArray[np.int64], share: float = 0.95
) -> tuple[float, float]:
    """Interval of measure(times each block is taken) over all draws."""
    return interval([measure(w) for w in drawn], share)
