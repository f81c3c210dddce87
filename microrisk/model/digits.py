"""Signed digits: what a constant weight costs when a multiplier is built from adders.

In canonical-signed-digit form a weight is a sum of signed powers of two with as few terms as possible (7 = 8 - 1 has
two). A row of an unrolled layer adds one term for each digit of its weights, so digits are area, and the largest number
of digits in a row is depth. A weight of 0 costs nothing. NumPy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microrisk.errors import UsageError
from microrisk.spec.formats import WEIGHT
from microrisk.spec.weightfile import LAYERS

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MOST = 3
"""Digits that a weight may have unless said otherwise; int8 needs at most four."""
_HALVINGS = 40
"""Steps of the search for a price; prices span 2**-60 .. 2**60."""


def count(x: ArrayLike) -> Ints:
    """Non-zero canonical signed digits of integers, int64 of the same shape; 0 for 0. |x| < 2**61."""
    v = np.abs(np.asarray(x, np.int64))
    # digit i of the canonical form is bit i+1 of 3v minus that of v: it is not zero where those two bits differ
    return np.asarray(np.bitwise_count(v ^ (3 * v)), np.int64)


def values(most: int = MOST) -> Ints:
    """Every weight -WEIGHT.high .. WEIGHT.high with at most `most` digits, increasing. UsageError below one digit."""
    if most < 1:
        raise UsageError(f"a weight of at most {most} digits is always 0; give 1 or more")
    every = np.arange(-WEIGHT.high, WEIGHT.high + 1, dtype=np.int64)
    return every[count(every) <= most]


def nearest(x: ArrayLike, most: int = MOST) -> Ints:
    """The weight with at most `most` digits nearest to x, the smaller magnitude of two equally near ones."""
    v, table = np.asarray(x, np.float64), values(most)
    above = np.clip(np.searchsorted(table, v), 1, len(table) - 1)
    low, high = table[above - 1], table[above]
    to_low, to_high = v - low, high - v
    smaller = np.where(np.abs(low) < np.abs(high), low, high)
    return np.where(to_low == to_high, smaller, np.where(to_low < to_high, low, high))


def spend(
    x: Floats, importance: Floats, row: Ints, budget: int, *, most: int = MOST, row_most: int | None = None,
    taken: Ints | None = None,
) -> Ints:  # fmt: skip
    """Integers near x with no more than `budget` digits in all, spent where they spare most error.

    Every weight takes the integer q that makes importance * (x - q)**2 + price * digits(q) least; the price is the
    lowest one that keeps the budget. A row over its own limit pays a higher price of its own.

    Parameters
    ----------
    x : float64[n], weights in units of their row's step
    importance : float64[n], how much a squared unit of error costs
    row : int64[n], 0..rows-1
    most, row_most : most digits of a weight, of a row (None: no limit)
    taken : int64[rows], digits of each row that are spent already; they count for `row_most`, not for `budget`

    Raises
    ------
    UsageError : a negative budget, or arrays of different lengths
    """
    if not len(x) == len(importance) == len(row):
        raise UsageError(f"{len(x)} weights, {len(importance)} importances and {len(row)} row numbers are not alike")
    if budget < 0:
        raise UsageError(f"a budget of {budget} digits is below 0")
    market = _Market(x, importance, row, most)
    floor = np.full(market.rows, -np.inf)
    if row_most is not None:
        spent = np.zeros(market.rows, np.int64) if taken is None else taken[: market.rows]
        floor = market.row_prices(row_most - spent)
    low, high = -60.0, 60.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if count(market.buy(np.maximum(floor, middle))).sum() > budget:
            low = middle
        else:
            high = middle
    return market.buy(np.maximum(floor, high))


class _Market:
    """Choices of every weight, and what is bought at given prices (log2, one a row)."""

    def __init__(self, x: Floats, importance: Floats, row: Ints, most: int) -> None:
        self._table = values(most)
        self._digits = count(self._table).astype(np.float64)
        self._error = importance[:, None] * (x[:, None] - self._table) ** 2
        self._row = row
        self.rows = int(row.max()) + 1 if len(row) else 0

    def buy(self, price: Floats) -> Ints:
        cost = self._error + np.exp2(price)[self._row][:, None] * self._digits
        return np.asarray(self._table[cost.argmin(axis=1)], np.int64)

    def row_prices(self, room: Ints) -> Floats:
        """Lowest price at which each row buys no more than its room; -inf where it does so for nothing."""
        low, high = np.full(self.rows, -60.0), np.full(self.rows, 60.0)
        free = self._spent(low) <= room
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            over = self._spent(middle) > room
            low, high = np.where(over, middle, low), np.where(over, high, middle)
        return np.where(free, -np.inf, high)

    def _spent(self, price: Floats) -> Ints:
        digits = count(self.buy(price))
        return np.bincount(self._row, weights=digits, minlength=self.rows).astype(np.int64)


@dataclass(frozen=True)
class Bill:
    """What layers cost in an unrolled core, before any sharing between rows.

    Attributes
    ----------
    weights, nonzero : all weights, and those that are not 0
    digits : signed digits of all weights
    adders : adders and subtracters when each row sums its terms and its bias
    deepest_row : most digits in one row; the adder tree has log2 of it levels
    """

    weights: int
    nonzero: int
    digits: int
    adders: int
    deepest_row: int

    @property
    def zeros(self) -> float:
        """Share of the weights that are 0."""
        return 1.0 - self.nonzero / self.weights

    def to_json(self) -> dict[str, float]:
        """Plain numbers."""
        return {**asdict(self), "zeros": round(self.zeros, 4)}


def bill(tensors: Mapping[str, NDArray[Any]], net: str = "exposure") -> Bill:
    """Cost of the layers of spec.weightfile whose names begin with `net` and a dot; UsageError when there are none."""
    names = layers_of(net)
    per_row = [count(tensors[f"{n}.weight"]).sum(axis=1) for n in names]
    biased = [np.asarray(tensors[f"{n}.bias"]) != 0 for n in names]
    terms = [d + b for d, b in zip(per_row, biased, strict=True)]
    return Bill(
        weights=sum(tensors[f"{n}.weight"].size for n in names),
        nonzero=sum(int(np.count_nonzero(tensors[f"{n}.weight"])) for n in names),
        digits=sum(int(d.sum()) for d in per_row),
        adders=sum(int(np.maximum(t - 1, 0).sum()) for t in terms),
        deepest_row=max(int(d.max()) for d in per_row),
    )


def layers_of(net: str) -> Sequence[str]:
    """Layers of a net ("exposure", "vae", "vae.enc", ...) in the order of the data."""
    names = [n for n in LAYERS if n.startswith(f"{net}.")]
    if not names:
        raise UsageError(f"no layer belongs to {net!r}; layers are {', '.join(LAYERS)}")
    return names
