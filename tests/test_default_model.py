"""The packaged model on real recordings: it runs, says under which table, and int8 keeps the float network's order."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from microrisk.features.normalise import expand
from microrisk.model.floatnet import FloatNetwork
from microrisk.model.quantise import GATES, quantisation_gap
from microrisk.pipeline import score
from microrisk.pipeline.gather import codes_of, gather
from microrisk.pipeline.memory import recorded
from microrisk.pipeline.spine import Source
from microrisk.score.registry import find, load_model
from microrisk.spec.features import ALL_MASK

pytestmark = pytest.mark.realdata
ES = "databento_cme_es/esh4-glbx-mdp3-20231225.mbo.dbn.zst"
COINBASE, IMAGE = "coinbase_l3_2018/messages.json.gz", "coinbase_l3_2018/beginning_level_3.json.gz"
SPOT = tuple(f"binance_btc_2024/spot_btcusdt_202408{day}.gz" for day in ("08", "09"))
COIN_M = tuple(f"binance_btc_2024/cm_btcusd_perp_202408{day}.gz" for day in ("08", "09"))
MIDNIGHT_NS = 1_723_161_600_000_000_000
"""The recipe reads the captures of 2024-08-08 only."""
AMZN = "lobster_amzn_aapl/LOBSTER_SampleFile_AMZN_2012-06-21_1.zip"


def _source(folder: Path, recording: str) -> Source:
    snapshot = str(folder / IMAGE) if recording == COINBASE else None
    return Source((str(folder / recording),), snapshot=snapshot)


@pytest.mark.parametrize("recording", [ES, COINBASE])
def test_int8_keeps_the_order_of_the_float_network(
    recording: str, data_dir: Path, exercised: Callable[[str], None]
) -> None:
    """Second half of each recording, coded by the generic table; nothing was fitted to these rows."""
    (raw,) = gather(recorded(_source(data_dir, recording).open())).by_id.values()
    _order_is_kept(raw.raw[len(raw.raw) // 2 :], ALL_MASK, recording.split("/")[0], exercised)


@pytest.mark.parametrize("captures", [SPOT, COIN_M])
def test_int8_keeps_the_order_on_level_feeds(
    captures: tuple[str, ...], data_dir: Path, exercised: Callable[[str], None]
) -> None:
    """The minutes after midnight, which the recipe does not read."""
    held = recorded(Source(tuple(str(data_dir / name) for name in captures)).open())
    (raw,) = gather(held).by_id.values()
    _order_is_kept(raw.raw[raw.now >= MIDNIGHT_NS], held.mask, captures[-1], exercised)


def _order_is_kept(raw: NDArray[np.int16], mask: int, name: str, exercised: Callable[[str], None]) -> None:
    weights = load_model("default")
    codes = codes_of(raw, expand(weights.table_for(), mask))
    gaps = quantisation_gap(FloatNetwork.load(find("default")), weights, codes, mask=mask)
    for head in ("vae", "exposure"):
        figures = {k: getattr(gaps[head], k).value for k in GATES}
        exercised(f"int8 against float, {name}, {head}: {json.dumps(figures)}")
        for gate, least in GATES.items():
            assert figures[gate] >= least, (head, gate, figures)


@pytest.mark.parametrize(
    ("recording", "instrument", "mask"),
    [(ES, "ESH4.GLBX", 0xFFFFFFFF), (COINBASE, "BTC-USD.COINBASE", 0xFFFFFFFF), (AMZN, "AMZN.XNAS", 0xEBFFFE13)],
)
def test_scores_with_marks(
    recording: str, instrument: str, mask: int, data_dir: Path, tmp_path: Path, exercised: Callable[[str], None]
) -> None:
    source = _source(data_dir, recording)
    result = score(source.inputs, out=tmp_path / "s.parquet", snapshot=source.snapshot).to_json()
    (entry,) = result["instruments"]
    assert (entry["id"], entry["table"], entry["level"]) == (instrument, "generic", "uncalibrated")
    assert int(entry["mask"], 16) == mask
    assert result["rows"] > 10_000
    assert np.isfinite(list(result["alerts_per_hour"].values())).all()
    exercised(f"score {instrument}: {result['rows']:,} rows, {result['alerts_per_hour']['any']:.0f} alerts an hour")
