"""The packaged model on real recordings: it runs, says under which table, and int8 keeps the float network's order."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from microrisk.features.normalise import expand
from microrisk.model.floatnet import FloatNetwork
from microrisk.model.quantise import GATES, quantisation_gap
from microrisk.pipeline import score
from microrisk.pipeline.gather import codes_of, gather
from microrisk.pipeline.memory import recorded
from microrisk.pipeline.spine import Source
from microrisk.score.registry import find, load_model

pytestmark = pytest.mark.realdata
ES = "databento_cme_es/esh4-glbx-mdp3-20231225.mbo.dbn.zst"
COINBASE, IMAGE = "coinbase_l3_2018/messages.json.gz", "coinbase_l3_2018/beginning_level_3.json.gz"
AMZN = "lobster_amzn_aapl/LOBSTER_SampleFile_AMZN_2012-06-21_1.zip"


def _source(folder: Path, recording: str) -> Source:
    snapshot = str(folder / IMAGE) if recording == COINBASE else None
    return Source((str(folder / recording),), snapshot=snapshot)


@pytest.mark.parametrize("recording", [ES, COINBASE])
def test_int8_keeps_the_order_of_the_float_network(
    recording: str, data_dir: Path, exercised: Callable[[str], None]
) -> None:
    """Second half of each recording, coded by the generic table; nothing was fitted to these rows."""
    weights = load_model("default")
    (raw,) = gather(recorded(_source(data_dir, recording).open())).by_id.values()
    late = raw.raw[len(raw.raw) // 2 :]
    gaps = quantisation_gap(FloatNetwork.load(find("default")), weights, codes_of(late, expand(weights.table_for())))
    for head in ("vae", "exposure"):
        figures = {k: getattr(gaps[head], k).value for k in GATES}
        exercised(f"int8 against float, {recording.split('/')[0]}, {head}: {json.dumps(figures)}")
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
