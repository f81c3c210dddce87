"""A running monitor with every output: what it alarmed about arrives everywhere, once, under the same ids."""

import json

import pyarrow.parquet as pq
import pytest
from alerts_made import until
from receiver import Receiver

from microrisk.errors import UsageError
from microrisk.market.simulator import simulate
from microrisk.market.write import write_itch
from microrisk.monitor.address import parse
from microrisk.monitor.consolidated import Consolidator, Symbols
from microrisk.monitor.out.metrics import Metrics
from microrisk.monitor.out.outputs import Outputs
from microrisk.monitor.service import Service, Settings
from microrisk.monitor.settings import OutSettings
from microrisk.pipeline.watch import named


def test_every_output_of_a_running_monitor(tmp_path):
    day = write_itch(simulate(3, 120.0, instruments=2), tmp_path / "sim_2025-01-06.itch")
    weights = named(None)[0]
    with Receiver() as receiver:
        settings = OutSettings(
            alerts=str(tmp_path / "a.jsonl"),
            parquet=str(tmp_path / "catalog"),
            webhook=receiver.url(),
            webhook_private=True,
        )
        outputs = Outputs(settings, weights)
        service = Service(
            [parse(f"file:{day}?speed=0")],
            Settings(folder=tmp_path / "j", tellers=outputs.tellers, row_takers=outputs.row_takers),
        )
        metrics = Metrics(service.hub, outputs=outputs.counts)
        service.start()
        until(lambda: service.hub.overview()["feeds"] and service.hub.overview()["feeds"][0].state == "ended", 60)
        rows = service.hub.instruments()
        exposition = metrics.exposition().decode()
        service.stop()
        outputs.close()
    told = service.hub.alerts()
    ids = [a.id for a in told]
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ids
    assert [headers["Idempotency-Key"] for _, headers, _ in receiver.got] == ids
    files = list((tmp_path / "catalog" / "data" / "alerts").rglob("*.parquet"))
    assert sorted(i for f in files for i in pq.read_table(f)["id"].to_pylist()) == sorted(ids)
    assert ids
    counts = outputs.counts()
    assert [counts[o]["dropped"] for o in ("alerts", "parquet", "webhook")] == [0, 0, 0]
    assert counts["alerts"]["written"] == counts["webhook"]["delivered"] == len(ids)
    scored = {r.id for r in rows if r.scored}
    catalog = tmp_path / "catalog" / "data" / "rows"
    assert {p.name for p in catalog.iterdir()} == scored
    rows_written = sum(pq.read_metadata(f).num_rows for f in catalog.rglob("*.parquet"))
    assert rows_written > 1000
    assert counts["parquet"]["written"] == rows_written + len(ids)
    assert 'microrisk_feed_state{feed="sim_2025-01-06.itch",state="ended"} 1.0' in exposition
    assert Consolidator(Symbols())(rows, {}) == []


def test_outputs_that_cannot_be_are_refused_and_nothing_stays_open(tmp_path):
    settings = OutSettings(alerts=str(tmp_path / "a.jsonl"), webhook="http://example.org/")
    with pytest.raises(UsageError, match="https"):
        Outputs(settings, named(None)[0])


def test_no_outputs_are_no_callables():
    outputs = Outputs(OutSettings(), named(None)[0])
    assert (outputs.tellers, outputs.row_takers, outputs.counts()) == ((), (), {})
