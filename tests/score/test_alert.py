"""The alert step: Numba on arrays, Numba behind a C pointer, and fixed.py must be one and the same."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microrisk import fixed
from microrisk.model.synthetic import random_level
from microrisk.score import alert
from microrisk.spec.formats import EWMA_GUARD, LEVEL

INT32 = np.iinfo(np.int32)


@pytest.fixture(scope="module")
def step():
    """The C function as Engine calls it: (heads, params, state) -> (level, alert, fresh)."""
    address = alert.alert_address()
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 5)(address)

    def run(heads, params, state):
        level, bits = np.zeros(4, np.int32), np.zeros(2, np.uint8)
        row = np.ascontiguousarray(heads, np.int32)
        call(row.ctypes.data, params.ctypes.data, state.ctypes.data, level.ctypes.data, bits.ctypes.data)
        return level, int(bits[0]), int(bits[1])

    return run


def some_heads(params, n, seed):
    """Heads around the table's own range, its very breaks, the ends of int32; in bursts, so that alarms come and go."""
    rng = np.random.default_rng(seed)
    heads = rng.integers(0, 1 << 24, (n, 4))
    heads[: n // 4] = rng.integers(0, 1 << 10, (n // 4, 4))
    at = rng.integers(0, 64, (n // 4, 4))
    heads[n // 4 : n // 2] = params["breaks"][0][np.arange(4), at] + rng.integers(-1, 2, (n // 4, 4))
    heads[-40:] = rng.choice([INT32.min, INT32.max, -1, 0], (40, 4))
    order = np.repeat(rng.permutation(n // 10), 10) * 10 + np.tile(np.arange(10), n // 10)
    return heads[order].astype(np.int32)


def test_records_are_flat_int32():
    assert alert.PARAMS.itemsize == 4 * 4 * (64 + 64 + 65 + 2)
    assert alert.STATE.itemsize % 8 == 0
    assert [alert.PARAMS.fields[f][1] // 4 for f in ("value", "slope", "on", "off")] == [
        alert._VALUE,
        alert._SLOPE,
        alert._ON,
        alert._OFF,
    ]
    assert alert.STATE.fields["alert"][1] // 4 == alert._ALERT


@pytest.mark.parametrize("seed", range(4))
def test_three_forms_are_equal(step, seed):
    params = alert.make_params(random_level(seed))
    heads = some_heads(params, 800, seed)
    states = [alert.initial_state() for _ in range(3)]
    fast, slow = alert.run_alert(heads, params, states[0]), alert.run_reference(heads, params, states[1])
    for a, b in zip(fast, slow, strict=True):
        assert (a == b).all()
    for i, row in enumerate(heads):
        level, bits, fresh = step(row, params, states[2])
        assert (level == slow.level[i]).all()
        assert (bits, fresh) == (slow.alert[i], slow.fresh[i])
    assert states[0] == states[1] == states[2]
    assert slow.alert.any(), "the sample must raise alarms"
    assert not slow.alert.all(), "and leave them"


@given(st.integers(INT32.min, INT32.max), st.integers(0, 3))
def test_level_lookup_equals_fixed(x, head):
    params = alert.make_params(random_level(5))
    p = params[0]
    expected = int(fixed.level(x, p["breaks"][head], p["value"][head], p["slope"][head]))
    assert alert._level(np.int32(x), params.view(np.int32), head) == expected


def flat_level(level_code, on, off):
    """A table that gives `level_code` for every head value."""
    table = random_level(1)
    value = np.full_like(table.value, level_code << 15)
    zero = np.zeros_like(table.slope)
    return alert.make_params(
        type(table)(table.breaks, value, zero, np.full(4, on, np.int32), np.full(4, off, np.int32), True)
    )


def test_rises_as_the_ewma_and_enters_once():
    params, state = flat_level(2048, 1024, 900), alert.initial_state()
    out = alert.run_alert(np.zeros((40, 4), np.int32), params, state)
    expected, s = [], 0
    for _ in range(40):
        s += ((2048 << EWMA_GUARD) - s) >> 3
        expected.append(s >> EWMA_GUARD)
    assert out.level[:, 0].tolist() == expected
    first = next(i for i, v in enumerate(expected) if v >= 1024)
    assert np.flatnonzero(out.fresh).tolist() == [first]
    assert out.fresh[first] == 0b1111
    assert (out.alert[first:] == 0b1111).all()


def test_leaves_below_off_only():
    state = alert.initial_state()
    alert.run_alert(np.zeros((60, 4), np.int32), flat_level(2048, 1024, 900), state)
    held = alert.run_alert(np.zeros((200, 4), np.int32), flat_level(950, 1024, 900), state)
    assert held.alert.all(), "between off and on an alarm stays"
    assert not held.fresh.any()
    left = alert.run_alert(np.zeros((200, 4), np.int32), flat_level(890, 1024, 900), state)
    assert left.alert[-1] == 0


def test_state_carries_over_a_cut():
    params = alert.make_params(random_level(3))
    heads = some_heads(params, 400, 3)
    whole, state = alert.run_alert(heads, params, alert.initial_state()), alert.initial_state()
    parts = [alert.run_alert(h, params, state) for h in np.array_split(heads, 7)]
    for i in range(3):
        assert (np.concatenate([p[i] for p in parts]) == whole[i]).all()


def test_never_is_out_of_reach():
    params, state = flat_level(LEVEL.high, alert.NEVER, alert.NEVER), alert.initial_state()
    assert not alert.run_alert(np.zeros((500, 4), np.int32), params, state).alert.any()
