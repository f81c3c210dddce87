"""The engine calls the kernel through its address: its rows hold the codes of run_views over its own views."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from microrisk.core import Engine
from microrisk.features.kernels import TABLE_SIZE, kernel_address, run_views
from microrisk.features.state import STATE, initial_state
from microrisk.spec.formats import WARMUP_EVENTS
from microrisk.spec.records import EVENT, N_FEATURES, Action, Flag
from microrisk.spec.units import NULL_TS

TABLE = np.random.default_rng(0).integers(-128, 128, (N_FEATURES, TABLE_SIZE)).astype(np.int8)


def order_events(seed: int, n: int, instruments: int = 2) -> NDArray[np.void]:
    """Adds, partial and whole removals, trades, with pauses long enough for staleness ticks."""
    rng, out = np.random.default_rng(seed), np.zeros(n, EVENT)
    out["ts_recv"], out["flags"], out["seq"] = NULL_TS, Flag.LAST, np.arange(n)
    pause = np.where(rng.random(n) < 0.01, 2e9, 5e6)
    out["ts_event"] = 1_700_000_000_000_000_000 + np.cumsum(rng.exponential(pause)).astype(np.int64)
    out["instrument"] = rng.integers(1, instruments + 1, n)
    live: list[tuple[int, int]] = []
    for i, e in enumerate(out):
        if len(live) < 60 or rng.random() < 0.5:
            side = int(rng.choice((1, -1)))
            e["action"], e["order_id"], e["side"] = Action.ADD, i + 1, side
            e["px"] = 500_000 - side * 100 * int(rng.integers(1, 15))
            e["qty"] = 100 * int(rng.integers(1, 9))
            live.append((i + 1, int(e["instrument"])))
        else:
            e["order_id"], e["instrument"] = live[(k := int(rng.integers(len(live))))]
            if rng.random() < 0.3:
                e["action"], e["qty"] = Action.REDUCE, 1
                e["flags"] |= Flag.EXEC if rng.random() < 0.5 else 0
            else:
                e["action"] = Action.DELETE
                del live[k]
    return out


@pytest.mark.parametrize("warm", [False, True])
def test_rows_of_the_engine_are_the_codes_of_its_views(warm: bool) -> None:
    state = initial_state() if warm else initial_state(100, 100)
    engine = Engine(always_open=True)
    engine.record_views()
    engine.watch(kernel_address(), state, TABLE)
    engine.ticks(True)
    engine.run_events(order_events(1, 6000))
    engine.finish()
    views, rows = engine.take_views(), engine.take_rows()
    assert (views["tick"] == 1).any()
    for instrument in (1, 2):
        own = views[views["instrument"] == instrument]
        record = np.frombuffer(state, STATE).copy()
        _, codes, produced = run_views(own, record, TABLE)
        assert (rows["codes"][rows["instrument"] == instrument] == codes[produced]).all()
        assert produced.sum() == (rows["instrument"] == instrument).sum() > len(own) - WARMUP_EVENTS - 500
        assert engine.state_of(instrument) == record.tobytes()
