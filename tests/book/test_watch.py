"""The scoring stage of the engine: kernel, heads and alert called for every completed event and tick."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import carray, cfunc, from_dtype, types
from numpy.typing import NDArray

from microrisk.core import Engine, Heads
from microrisk.spec.records import EVENT, ROW, VIEW, Action, Flag
from microrisk.spec.units import NULL_TS, TICK_NS
from microrisk.spec.weightfile import LAYERS

TABLE = np.arange(32 * 4096, dtype=np.int64).astype(np.int8).reshape(32, 4096)
COUNTER = np.dtype([("seen", "<i8"), ("tick", "<i8")])

_view = types.CPointer(from_dtype(VIEW))
_bytes = types.CPointer(types.int8)
_ints = types.CPointer(types.int32)
_longs = types.CPointer(types.int64)


@cfunc(types.int32(_view, _longs, _bytes, _bytes))
def count_kernel(view: Any, state: Any, table: Any, codes: Any) -> int:
    """codes: (events seen, n_bid, tick, table[1, state[1]], add_qty, suspect); none for the first event."""
    v = carray(view, 1)[0]
    state[0] += 1
    codes[0] = state[0]
    codes[1] = v.n_bid
    codes[2] = v.tick
    codes[3] = table[4096 + state[1]]
    codes[4] = v.add_qty
    codes[5] = v.suspect
    return 1 if state[0] > 1 else 0


@cfunc(types.void(_ints, _longs, _longs, _ints, types.CPointer(types.uint8)))
def sum_alert(heads: Any, params: Any, state: Any, level: Any, alert_fresh: Any) -> None:
    """Level = params * running sum of head 0; alarm of head 0 from 100 on, fresh when it begins."""
    before = state[0]
    state[0] += heads[0]
    level[0] = state[0] * params[0]
    alert_fresh[0] = 1 if state[0] >= 100 else 0
    alert_fresh[1] = 1 if state[0] >= 100 > before else 0


KERNEL, ALERT = int(count_kernel.address or 0), int(sum_alert.address or 0)


def stream(n: int = 40, instruments: int = 3, step: int = TICK_NS // 7) -> NDArray[np.void]:
    out = np.zeros(n, EVENT)
    out["action"], out["flags"], out["ts_recv"], out["side"] = Action.ADD, Flag.LAST, NULL_TS, 1
    out["seq"] = out["order_id"] = np.arange(1, n + 1)
    out["ts_event"] = np.arange(n) * step
    out["instrument"] = np.arange(n) % instruments
    out["px"], out["qty"] = 1000 - np.arange(n) % 13, np.arange(n) + 1
    return out


def state(seen: int = 0, tick: int = 0) -> bytes:
    return np.array([(seen, tick)], COUNTER).tobytes()


def some_heads() -> Heads:
    rng = np.random.default_rng(0)
    t: dict[str, NDArray[Any]] = {}
    for name, (rows, cols, _) in LAYERS.items():
        t[f"{name}.weight"] = rng.integers(-30, 30, (rows, cols)).astype(np.int8)
        t[f"{name}.bias"] = rng.integers(-300, 300, rows).astype(np.int32)
        t[f"{name}.shift"] = np.full(rows, 5, np.uint8)
    t["vae.residual_exp"], t["vae.latent_exp"] = np.full(32, 2, np.uint8), np.full(1, 3, np.uint8)
    return Heads(t)


@pytest.fixture
def engine() -> Engine:
    return Engine()


def test_codes_of_each_instrument_from_its_own_state(engine: Engine) -> None:
    engine.watch(KERNEL, state(tick=9), TABLE)
    events = stream()
    engine.run_events(events)
    rows = engine.take_rows()
    assert rows.dtype == ROW
    assert len(rows) == len(events) - 3  # none for the first of each instrument
    np.testing.assert_array_equal(rows["seq"], events["seq"][3:])
    np.testing.assert_array_equal(rows["instrument"], events["instrument"][3:])
    np.testing.assert_array_equal(rows["codes"][:, 0], np.arange(3, 40) // 3 + 1)
    np.testing.assert_array_equal(rows["codes"][:, 4], events["qty"][3:])
    assert (rows["codes"][:, 3] == TABLE[1, 9]).all()
    assert not rows["codes"][:, 6:].any()
    assert not rows["heads"].any()
    assert not rows["level"].any()
    assert np.frombuffer(engine.state_of(0), COUNTER)["seen"] == 14
    assert len(engine.take_rows()) == 0


def test_heads_and_alert_follow(engine: Engine) -> None:
    heads = some_heads()
    engine.watch(
        KERNEL,
        state(),
        TABLE,
        heads,
        alert=ALERT,
        alert_params=np.array([5]).tobytes(),
        alert_state=np.array([1]).tobytes(),
    )
    engine.run_events(stream(60, instruments=2))
    rows = engine.take_rows()
    np.testing.assert_array_equal(rows["heads"], heads.score(np.ascontiguousarray(rows["codes"])))
    for index in (0, 1):
        own = rows[rows["instrument"] == index]
        total = 1 + np.cumsum(own["heads"][:, 0])
        np.testing.assert_array_equal(own["level"][:, 0], 5 * total)
        np.testing.assert_array_equal(own["alert"], total >= 100)
        assert own["fresh"].sum() == 1
        assert own["fresh"][np.argmax(total >= 100)] == 1


def test_an_instruments_own_table_and_state(engine: Engine) -> None:
    other = np.full_like(TABLE, 77)
    engine.watch(
        KERNEL,
        state(),
        TABLE,
        alert=ALERT,
        alert_params=b"\1" + b"\0" * 7,
        alert_state=b"\0" * 8,
    )
    engine.set_table(1, state(seen=50), other, alert_params=np.array([1000]).tobytes())
    del other
    engine.run_events(stream(9))
    rows = engine.take_rows()
    own = rows[rows["instrument"] == 1]
    assert own["codes"][:, 3].tolist() == [77, 77, 77]
    assert own["codes"][:, 0].tolist() == [51, 52, 53]
    assert (rows[rows["instrument"] != 1]["codes"][:, 3] == TABLE[1, 0]).all()
    assert engine.instruments().tolist() == [0, 1, 2]


def test_ticks_are_rows_too(engine: Engine) -> None:
    engine.ticks(True)
    engine.watch(KERNEL, state(), TABLE)
    engine.run_events(stream(40, instruments=2))
    rows = engine.take_rows()
    assert rows["tick"].sum() == 2 * (39 * (TICK_NS // 7) // TICK_NS)
    np.testing.assert_array_equal(rows["tick"], rows["codes"][:, 2])
    assert (np.diff(rows["now"]) >= 0).all()
    assert (np.diff(rows["seq"][rows["tick"] == 0].astype(np.int64)) > 0).all()


def test_book_images_are_not_scored_and_marks_are_shown(engine: Engine) -> None:
    engine.watch(KERNEL, state(seen=1), TABLE)
    events = stream(6, instruments=1)
    events["flags"][:2] = Flag.LAST | Flag.SNAPSHOT
    events["action"][4], events["order_id"][4] = Action.DELETE, 999
    engine.run_events(events)
    rows = engine.take_rows()
    assert rows["seq"].tolist() == [3, 4, 5, 6]
    assert rows["suspect"].tolist() == [0, 0, 1, 1]
    assert rows["codes"][:, 1].tolist() == [3, 4, 4, 5]
    assert rows["codes"][:, 4].tolist() == [3, 4, 0, 6]


def test_rows_may_be_left_out(engine: Engine) -> None:
    engine.watch(KERNEL, state(), TABLE, rows=False)
    engine.run_events(stream())
    assert len(engine.take_rows()) == 0
    assert np.frombuffer(engine.state_of(0), COUNTER)["seen"] == 14


def test_wrong_stages_are_refused(engine: Engine) -> None:
    with pytest.raises(ValueError, match="address 0"):
        engine.watch(0, b"", TABLE)
    with pytest.raises(ValueError, match=r"\(32, 4096\)"):
        engine.watch(KERNEL, b"", TABLE[:31])
    with pytest.raises(ValueError, match="int8"):
        engine.watch(KERNEL, b"", TABLE.astype(np.uint8))
    with pytest.raises(RuntimeError, match="after watch"):
        engine.set_table(1, b"", TABLE)
    engine.run_events(stream(1))
    with pytest.raises(RuntimeError, match="before the first event"):
        engine.watch(KERNEL, b"", TABLE)
