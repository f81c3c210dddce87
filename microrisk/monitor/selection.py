"""Which instruments are scored: the busiest, with some constancy, over thousands of them in a millisecond."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STAY = 2
"""A scored instrument stays while it is among the busiest STAY * scored: each change costs a warm-up."""

Keys = NDArray[np.int64]
"""Feed << 32 | instrument number."""


def key_of(feed: int, index: int) -> int:
    """The key of an instrument."""
    return feed << 32 | index


def since_before(keys: Keys, counts: Keys, old_keys: Keys, old_counts: Keys) -> Keys:
    """Events since the last choice; `old_keys` rise. An instrument that was not there began at 0."""
    if not len(old_keys):
        return counts.copy()
    place = np.minimum(np.searchsorted(old_keys, keys), len(old_keys) - 1)
    return counts - np.where(old_keys[place] == keys, old_counts[place], 0)


def choose(keys: Keys, since: Keys, chosen: Keys, scored: int) -> tuple[list[int], list[int]]:
    """Keys to drop and keys to take, so that at most `scored` of `keys` are chosen.

    Ties go to the lower key, so that every machine chooses the same. What is taken comes busiest first.
    """
    order = keys[np.lexsort((keys, -since))]
    mine = np.isin(order, chosen)
    stay = order[: STAY * scored][mine[: STAY * scored]][:scored]
    new = order[:scored][~mine[:scored]][: scored - len(stay)]
    return np.setdiff1d(chosen, stay).tolist(), new.tolist()
