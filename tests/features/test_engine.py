"""The engine calls the kernel through its address: its rows hold the codes of run_views over its own views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from feature_twin import twin_raws
from numpy.typing import NDArray

from microrisk.core import Engine
from microrisk.features.kernels import TABLE_SIZE, kernel_address, run_views
from microrisk.features.normalise import fit_instrument
from microrisk.features.state import STATE, initial_state
from microrisk.feed import open_feed
from microrisk.spec.formats import WARMUP_EVENTS
from microrisk.spec.records import EVENT, N_FEATURES, VIEW, Action, Flag
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


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "tick", "lot"),
    [
        ("databento_cme_es/esh4-glbx-mdp3-20231225.mbo.dbn.zst", 250_000_000, 10),  # a quarter point, 1e-9 units
        ("coinbase_l3_2018/messages.json.gz", 1_000_000, 100_000_000),  # a cent and a whole coin, 1e-8 units
    ],
)
def test_recordings_equal_the_twin(data_dir: Path, name: str, tick: int, lot: int) -> None:
    feed, engine = open_feed([str(data_dir / name)]), Engine(always_open=True)
    engine.record_views()
    engine.ticks(True)
    views = np.zeros(0, VIEW)
    while len(views) < 15000 and feed.pump(engine):
        views = np.concatenate([views, engine.take_views()])
    first = int(views["instrument"][0])
    views = views[views["instrument"] == first]
    record = np.frombuffer(initial_state(), STATE).copy()
    run_views(views, record, TABLE)
    assert (record["tick"][0], record["lot"][0]) == (tick, lot) == fit_instrument(views)
    raw, _, produced = run_views(views[:3000], initial_state(tick, lot), TABLE)
    expected, made = twin_raws(views[:3000], tick, lot)
    assert (produced == made).all()
    assert (raw == expected).all()
