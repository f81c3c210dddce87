"""The compiled kernel against its naive twin, its two ways in, ticks, warm-up and one-sided books."""

from __future__ import annotations

import ctypes
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from feature_twin import twin_raws, warm_up_twin
from feature_views import Market, market_views, wild_views
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from microrisk.errors import UsageError
from microrisk.features.kernels import TABLE_SIZE, kernel_address, run_views
from microrisk.features.state import STATE, as_state, initial_state
from microrisk.spec.features import ALL_MASK, BY_NAME
from microrisk.spec.formats import WARMUP_EVENTS
from microrisk.spec.records import DEPTH, N_FEATURES, VIEW

TABLE = np.random.default_rng(0).integers(-128, 128, (N_FEATURES, TABLE_SIZE)).astype(np.int8)


def through_pointer(views: NDArray[np.void], state: bytes, table: NDArray[np.int8]) -> tuple[NDArray, NDArray]:
    """codes and produced, one C call a view, as the engine does it."""
    step = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 4)(kernel_address())
    record, codes = as_state(state), np.zeros((len(views), N_FEATURES), np.int8)
    produced = np.zeros(len(views), bool)
    for i in range(len(views)):
        view, out = views.ctypes.data + i * VIEW.itemsize, codes.ctypes.data + i * N_FEATURES
        produced[i] = step(view, record.ctypes.data, table.ctypes.data, out)
    return codes, produced


def assert_same(raw: NDArray[np.int16], expected: NDArray[np.int16]) -> None:
    bad = np.argwhere(raw != expected)
    assert not len(bad), f"view {bad[0][0]}, feature {bad[0][1]}: {raw[tuple(bad[0])]} != {expected[tuple(bad[0])]}"


@pytest.mark.parametrize("seed", range(3))
def test_ordinary_market_equals_twin(seed: int) -> None:
    views = market_views(seed, 1500)
    raw, codes, produced = run_views(views, initial_state(100, 100), TABLE)
    expected, _ = twin_raws(views, 100, 100)
    assert produced.all()
    assert_same(raw, expected)
    assert (codes == TABLE[np.arange(N_FEATURES), raw + 2048]).all()


@pytest.mark.parametrize(
    ("seed", "tick", "lot"), [(0, 5, 1), (1, 5, 1000), (2, 1, 10**17), (3, 1 << 61, 16), (4, 7, 160)]
)
def test_wild_market_equals_twin(seed: int, tick: int, lot: int) -> None:
    views = wild_views(seed, 2000)
    raw, _, produced = run_views(views, initial_state(tick, lot), TABLE)
    expected, made = twin_raws(views, tick, lot)
    assert (produced == made).all()
    assert_same(raw, expected)


EXTREMES = [0, 1, -1, 7, 1 << 26, 1 << 30, 1 << 59, 1 << 60, (1 << 60) + 1, 1 << 62, -(1 << 62), 2**63 - 1, -(2**63)]


@given(st.integers(0, 2**32), st.sampled_from([1, 3, 1 << 40, 1 << 60, 2**63 - 1]), st.sampled_from([1, 100, 2**62]))
def test_any_field_equals_twin(seed: int, tick: int, lot: int) -> None:
    """Every number of the record at its extremes; only what the engine promises holds: absent levels are 0."""
    rng, n = np.random.default_rng(seed), 25
    views = np.zeros(n, VIEW)
    numbers = ["now", "ts_event", "px", "add_qty", "cancel_qty", "trade_qty", "bid_px", "bid_qty", "ask_px", "ask_qty"]
    for name in numbers:
        views[name] = rng.choice(EXTREMES, views[name].shape)
    for side in ("bid", "ask"):
        count = views[f"n_{side}"] = rng.integers(0, DEPTH + 1, n)
        for what in ("px", "qty"):
            views[f"{side}_{what}"][np.arange(DEPTH) >= count[:, None]] = 0
    views["side"], views["level"] = rng.integers(-1, 2, n), rng.integers(0, 256, n)
    views["tick"] = rng.random(n) < 0.1
    raw, _, produced = run_views(views, initial_state(tick, lot), TABLE)
    expected, made = twin_raws(views, tick, lot)
    assert (produced == made).all()
    assert_same(raw, expected)
    run_views(views, initial_state(), TABLE)  # the warm-up takes them too


def test_pointer_equals_batch() -> None:
    views = wild_views(7, 3000)
    for state in (initial_state(5, 10), initial_state(), initial_state(5, 10, 0x0F0F1234)):
        _, codes, produced = run_views(views, state, TABLE)
        other, made = through_pointer(views, state, TABLE)
        assert (codes == other).all()
        assert (produced == made).all()


def test_batches_continue_each_other() -> None:
    views, record = market_views(1, 900), as_state(initial_state(100, 100))
    whole = run_views(views, initial_state(100, 100), TABLE)[0]
    parts = [run_views(views[i : i + 137], record, TABLE)[0] for i in range(0, 900, 137)]
    assert_same(np.concatenate(parts), whole)
    assert record["now"][0] == views["now"][-1]


def test_masked_features_are_zero() -> None:
    views, mask = market_views(1, 200), ALL_MASK & ~(1 << 3 | 1 << 31)
    codes = run_views(views, initial_state(100, 100, mask), np.full((32, 4096), 5, np.int8))[1]
    assert (codes[:, [3, 31]] == 0).all()
    assert (np.delete(codes, [3, 31], axis=1) == 5).all()


def test_ticks_move_time_only() -> None:
    market = Market(3)
    views = [market.step() for _ in range(300) if market.wait(1e7) is None]
    last = views[-1].copy()
    for k in range(1, 41):
        views.append(market.view(now=market.now + k * 250_000_000, tick=1))
    raw, _, produced = run_views(np.concatenate(views), initial_state(100, 100), TABLE)
    assert produced.all()
    ticks, event = raw[300:], raw[299]
    book = [*range(10), 26, 27, 28, 31]
    assert (ticks[:, book] == event[book]).all()
    for name in ("add_rate", "cancel_rate", "trade_rate", "variance_fast"):
        falling = ticks[:, BY_NAME[name].index]
        assert (np.diff(falling) <= 0).all()
        assert falling[-1] <= 40 < falling[0]
    gap, age = ticks[:, BY_NAME["gap"].index], ticks[:, BY_NAME["quote_age"].index]
    assert (np.diff(gap) >= 0).all()
    assert gap[-1] == 16 * 23 + 2  # 10 s in 2^10 ns: 2^23 * 1.16
    assert (np.diff(age) >= 0).all()
    assert last["tick"][0] == 0


def test_tick_before_the_first_event_gives_nothing() -> None:
    views = market_views(0, 3)
    views["tick"][:2] = 1
    assert run_views(views, initial_state(100, 100), TABLE)[2].tolist() == [False, False, True]


@pytest.mark.parametrize(("seed", "tick", "lot"), [(0, 100, 100), (1, 1, 10), (2, 12_500_000, 10**9), (3, 5, 1)])
def test_warm_up_finds_tick_and_lot(seed: int, tick: int, lot: int) -> None:
    views = market_views(seed, WARMUP_EVENTS + 60, tick=tick, lot=lot)
    views["n_bid"][100:120], views["tick"][200:210] = 0, 1  # neither counts
    record = as_state(initial_state())
    raw, codes, produced = run_views(views, record, TABLE)
    found_tick, found_lot, end = warm_up_twin(views, WARMUP_EVENTS)
    assert (record["tick"][0], record["lot"][0]) == (found_tick, found_lot)
    assert found_tick == tick
    assert end == WARMUP_EVENTS + 29
    assert (np.flatnonzero(produced) == np.arange(end + 1, len(views))).all()
    assert not codes[: end + 1].any()
    assert_same(raw[end + 1 :], twin_raws(views[end + 1 :], found_tick, found_lot)[0])


@pytest.mark.parametrize("size", [0, 1, 3, 4, 31, 32, 316, 317, 10**12, 3_162_277_660_168_379_331, 2**63 - 1])
def test_warm_up_lot_is_the_nearest_power_of_ten(size: int) -> None:
    views = market_views(0, WARMUP_EVENTS)
    views["bid_qty"][:, 0] = views["ask_qty"][:, 0] = size
    record = as_state(initial_state())
    run_views(views, record, TABLE)
    assert record["lot"][0] == warm_up_twin(views, WARMUP_EVENTS)[1]


def test_frozen_book_has_a_tick() -> None:
    views = np.repeat(market_views(0, 1), WARMUP_EVENTS)
    views["n_bid"], views["n_ask"] = 1, 1
    views["ask_px"] = views["bid_px"]
    record = as_state(initial_state())
    run_views(views, record, TABLE)
    assert record["tick"][0] == 1


def test_empty_sides_are_defined() -> None:
    market = Market(0)
    both = market.view()
    for side in (1, -1):
        market.books[side].clear()
        views = np.concatenate([both, market.view(), both])
        raw = run_views(views, initial_state(100, 100), TABLE)[0]
        assert raw[1, BY_NAME["spread"].index] == 16 * 24
        assert raw[1, BY_NAME["spread_dev"].index] == 2047
        assert raw[1, BY_NAME["microprice"].index] == 0
        assert raw[1, BY_NAME["empty_levels"].index] == 16 * (10 if side > 0 else 20)
        assert raw[2, BY_NAME["spread_dev"].index] == 0  # the habit did not learn the hole
    assert raw[1, BY_NAME["depth_l10"].index] == 0


def test_wash_counts_equal_size_reversals() -> None:
    views = np.repeat(Market(0).view(level=255, px=1_000_000), 40)
    views["trade_qty"], views["side"] = 500, np.where(np.arange(40) % 2, 1, -1)
    wash = run_views(views, initial_state(100, 100), TABLE)[0][:, BY_NAME["wash"].index]
    assert wash[0] == 0
    assert (np.diff(wash) >= 0).all()
    assert 220 < wash[-1] < 256
    views["trade_qty"] = np.arange(40) + 1
    assert not run_views(views, initial_state(100, 100), TABLE)[0][:, BY_NAME["wash"].index].any()


def test_refuses_wrong_arrays() -> None:
    views = market_views(0, 2)
    with pytest.raises(UsageError, match=r"^views must be VIEW"):
        run_views(views.view("u1"), initial_state(1, 1), TABLE)
    with pytest.raises(UsageError, match=r"^table must be int8\[32, 4096\]"):
        run_views(views, initial_state(1, 1), TABLE[:, :100])
    with pytest.raises(UsageError, match=rf"^a kernel state has {STATE.itemsize} bytes, this has 3"):
        run_views(views, b"abc", TABLE)
    with pytest.raises(UsageError, match="both be positive"):
        initial_state(5, 0)


def test_state_is_c_compatible() -> None:
    assert STATE.itemsize % 8 == 0
    assert all(offset % 8 == 0 for _, offset, *_ in (STATE.fields or {}).values())


SLOW_RUN = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from feature_views import wild_views
from microrisk.features.kernels import run_views
from microrisk.features.state import initial_state
table = np.zeros((32, 4096), np.int8)
for state in (initial_state(5, 10), initial_state()):
    np.save(sys.stdout.buffer, run_views(wild_views(5, 1200), state, table)[0])
"""


def test_plain_python_run_is_equal_and_in_bounds() -> None:
    """Without the compiler every index is checked and every overflow is a warning, which is an error here."""
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-W", "error", "-c", SLOW_RUN, str(Path(__file__).parent)]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    stream = io.BytesIO(done.stdout)
    for state in (initial_state(5, 10), initial_state()):
        assert_same(run_views(wild_views(5, 1200), state, TABLE)[0], np.load(stream))


def test_second_process_loads_what_the_first_compiled() -> None:
    run_views(market_views(0, 2), initial_state(), TABLE)
    kernel_address()
    code = """
import numpy as np
from microrisk.features import kernels
from microrisk.features.state import initial_state
from microrisk.spec.records import VIEW
kernels.run_views(np.zeros(1, VIEW), initial_state(), np.zeros((32, 4096), np.int8))
kernels.kernel_address()
print(sum(kernels._loop.stats.cache_hits.values()), kernels._callback().cache_hits)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.split() == ["1", "1"]
