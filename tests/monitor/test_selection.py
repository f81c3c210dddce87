"""The choice of what is scored equals its naive form, and is constant enough."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from microrisk.monitor.selection import STAY, choose, key_of, since_before

Since = dict[tuple[int, int], int]


def naive(since: Since, now: set[tuple[int, int]], scored: int) -> tuple[set[tuple[int, int]], list[tuple[int, int]]]:
    """The same with lists and sets."""
    order = sorted(since, key=lambda k: (-since[k], k))
    near = set(order[: STAY * scored])
    stay = [k for k in order if k in now and k in near][:scored]
    return now - set(stay), [k for k in order[:scored] if k not in now][: scored - len(stay)]


KEY = st.tuples(st.integers(0, 3), st.integers(0, 12))


@given(st.dictionaries(KEY, st.integers(0, 5), min_size=1), st.data())
def test_choice(since: Since, data: st.DataObject) -> None:
    scored = data.draw(st.integers(1, 8))
    now = data.draw(st.sets(st.sampled_from(sorted(since)), max_size=scored))
    pairs = sorted(since)
    keys = np.array([key_of(*k) for k in pairs], np.int64)
    chosen = np.array([key_of(*k) for k in now], np.int64)
    drop, take = choose(keys, np.array([since[k] for k in pairs], np.int64), chosen, scored)
    expected = naive(since, now, scored)
    assert set(drop) == {key_of(*k) for k in expected[0]}
    assert take == [key_of(*k) for k in expected[1]]
    assert len(now) - len(drop) + len(take) <= scored


@given(st.dictionaries(KEY, st.integers(0, 1 << 40)), st.dictionaries(KEY, st.integers(0, 1 << 20)))
def test_since(now: Since, more: Since) -> None:
    before = {k: n for k, n in now.items() if k in more}

    def arrays(of: Since) -> tuple[np.ndarray, np.ndarray]:
        pairs = sorted(of)
        return np.array([key_of(*k) for k in pairs], np.int64), np.array([of[k] for k in pairs], np.int64)

    after = {k: n + more.get(k, 0) for k, n in now.items()}
    keys, counts = arrays(after)
    got = since_before(keys, counts, *arrays(before))
    assert got.tolist() == [after[k] - before.get(k, 0) for k in sorted(after)]
