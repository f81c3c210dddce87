"""A real market-by-order day written as ITCH 5.0 and read back as ITCH: the same path of best prices and sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microrisk.core import Engine, ItchDecoder
from microrisk.feed import open_feed
from microrisk.feed.scale import Scale
from microrisk.pipeline import convert
from microrisk.spec.records import EVENT, Flag
from microrisk.spec.units import NULL_PX

pytestmark = pytest.mark.realdata
BEST = ["bid_px", "bid_qty", "ask_px", "ask_qty"]


def _path(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Best prices and sizes, runs of equal rows once: int64[n, 4]."""
    best = np.stack([rows[name] for name in BEST], axis=1)
    return best[np.r_[True, (best[1:] != best[:-1]).any(axis=1)]]


def _bbo(events: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    engine = Engine()
    engine.record_bbo()
    engine.run_events(events)
    engine.finish()
    return engine.take_bbo()


def _each_message_by_itself(events: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """ITCH knows neither images nor events of several messages: every message ends its own event."""
    single = events.astype(EVENT)
    single["flags"] = (single["flags"] | Flag.LAST) & ~np.uint8(Flag.SNAPSHOT)
    return single


def test_es_as_itch_has_the_same_path(data_dir: Path, tmp_path: Path, exercised: Callable[[str], None]) -> None:
    source = data_dir / "databento_cme_es" / "esh4-glbx-mdp3-20231225.mbo.dbn.zst"
    out = tmp_path / "es.itch"
    result = convert(source, to="itch50", out=out)
    assert set(result.files) == {str(out), f"{out}.scale.json"}
    sidecar = json.loads(Path(f"{out}.scale.json").read_text())
    # every price and size fits; one trade has no side, and the Globex day passes midnight of New York
    assert {k for k, v in sidecar["counts"].items() if v} == {"trade_side_unknown", "ts_beyond_day"}, sidecar

    engine = Engine()
    engine.record_bbo()
    engine.run_itch(ItchDecoder(), out.read_bytes(), 0, 1 << 62)
    engine.finish()
    scale = Scale(**sidecar["instruments"][0]["scale"])
    read = _path(engine.take_bbo())
    for column, back in ((0, scale.feed_price), (1, scale.feed_size), (2, scale.feed_price), (3, scale.feed_size)):
        held = read[:, column] != NULL_PX
        read[held, column] = [back(int(v)) for v in read[held, column]]

    events = np.concatenate(list(open_feed([source]).events()))
    original = _path(_bbo(_each_message_by_itself(events)))
    assert len(original) > 10_000
    assert np.array_equal(read, original)
    assert engine.live_orders == 11_217
    exercised(f"ES 2023-12-25 as ITCH: {len(read):,} best price and size states equal, 11,217 orders at the end")
