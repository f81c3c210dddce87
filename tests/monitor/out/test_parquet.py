"""The catalog: files by instrument and hour of the core's clock, whole or not there; every row accounted for."""

import errno
import threading
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from alerts_made import made as alert
from alerts_made import until

from microrisk.errors import OutputError, UsageError
from microrisk.feed.base import instrument
from microrisk.model.synthetic import random_weights
from microrisk.monitor.out import parquet
from microrisk.monitor.out.parquet import HOUR_NS, Catalog, safe_name
from microrisk.pipeline.rows import FEATURE_NAMES, score_schema
from microrisk.spec.features import ALL_MASK
from microrisk.spec.records import ROW
from microrisk.spec.units import NULL_TS

KNOWN = {i: instrument(s, "XNAS") for i, s in enumerate(["AAPL", "MSFT", "ZZ/Z"])}
T0 = 1_736_164_800_000_000_000  # 2025-01-06 12:00 UTC


@pytest.fixture(scope="module")
def weights():
    return random_weights(5)


def rows(instruments, nows):
    made = np.zeros(len(nows), ROW)
    made["instrument"], made["now"], made["ts_event"] = instruments, nows, nows
    made["ts_recv"], made["seq"] = NULL_TS, np.arange(len(nows))
    made["codes"] = np.arange(len(nows))[:, None] % 100
    made["alert"] = np.arange(len(nows)) % 2
    return made


def files(root, kind="rows"):
    return {
        str(p.relative_to(root / "data" / kind)): pq.read_table(p) for p in (root / "data" / kind).rglob("*.parquet")
    }


def take(catalog, made):
    return catalog.take(made, KNOWN, ALL_MASK, lambda name: name == "AAPL.XNAS")


def test_a_file_for_each_instrument_and_hour_named_by_its_span(tmp_path, weights):
    catalog = Catalog(tmp_path, weights)
    nows = T0 + np.arange(0, 2 * HOUR_NS, HOUR_NS // 10)
    take(catalog, rows(0, nows))
    take(catalog, rows(2, nows[:3]))
    catalog.close()
    found = files(tmp_path)
    assert {k: t.num_rows for k, t in found.items()} == {
        f"AAPL.XNAS/{nows[0]}-{nows[9]}.parquet": 10,
        f"AAPL.XNAS/{nows[10]}-{nows[19]}.parquet": 10,
        f"ZZ-Z.XNAS/{nows[0]}-{nows[2]}.parquet": 3,
    }
    table = found[f"AAPL.XNAS/{nows[0]}-{nows[9]}.parquet"]
    want = ["ts_event", "ts_recv", "seq", "instrument", *FEATURE_NAMES, *score_schema(ticks=True).names[4:]]
    assert table.column_names == want
    assert table["ts_event"].to_pylist() == nows[:10].tolist()
    assert table["ts_recv"].null_count == 10
    assert set(table["instrument"].to_pylist()) == {"AAPL.XNAS"}
    assert table[FEATURE_NAMES[0]].to_pylist() == list(range(10))
    assert [d is not None for d in table["drivers"].to_pylist()] == [i % 2 == 1 for i in range(10)]
    assert table["vae_level"].null_count == 0
    assert found[f"ZZ-Z.XNAS/{nows[0]}-{nows[2]}.parquet"]["vae_level"].null_count == 3
    c = catalog.counts
    assert (c.taken, c.written, c.files, c.dropped, c.lost) == (23, 23, 3, 0, 0)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".rows")]


def test_an_instrument_that_fell_silent_is_finished_when_another_goes_on(tmp_path, weights):
    catalog = Catalog(tmp_path, weights)
    take(catalog, rows(0, [T0]))
    take(catalog, rows(1, [T0 + HOUR_NS]))
    until(lambda: catalog.counts.files == 1)
    assert list(files(tmp_path)) == [f"AAPL.XNAS/{T0}-{T0}.parquet"]
    catalog.close()


@pytest.mark.parametrize("name", ["2026-03-29", "2026-10-25", "2026-12-31"])
def test_days_of_changing_clocks_have_whole_hours(tmp_path, weights, monkeypatch, name):
    """Hours are those of UTC: the local day of 23 or 25 hours, and midnight, change nothing."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        begin = int(np.datetime64(name, "ns").astype(np.int64)) + 22 * HOUR_NS - HOUR_NS * 24
        catalog = Catalog(tmp_path, weights)
        nows = begin + np.arange(0, 30 * HOUR_NS, HOUR_NS // 4)
        for now in nows:
            take(catalog, rows(0, [now]))
        catalog.close()
    finally:
        monkeypatch.undo()
        time.tzset()
    found = files(tmp_path)
    assert len(found) == 30
    for table in found.values():
        stamps = np.asarray(table["ts_event"])
        assert len(stamps) == 4
        assert len(set(stamps // HOUR_NS)) == 1


def test_a_clock_that_steps_back_loses_nothing(tmp_path, weights):
    catalog = Catalog(tmp_path, weights)
    nows = [T0 + HOUR_NS, T0, T0 + HOUR_NS, T0 + 5, T0 + 2 * HOUR_NS, T0]
    for now in nows:
        take(catalog, rows(0, [now]))
    catalog.close()
    stamps = sorted(s for t in files(tmp_path).values() for s in t["ts_event"].to_pylist())
    assert stamps == sorted(nows)
    assert catalog.counts.written == 6


def test_full_files_are_finished_and_no_name_is_taken_twice(tmp_path, weights):
    catalog = Catalog(tmp_path, weights, rows_a_file=10)
    for _ in range(5):
        take(catalog, rows(0, [T0] * 10))
    catalog.close()
    assert sorted(files(tmp_path)) == sorted(f"AAPL.XNAS/{T0}-{T0}{s}.parquet" for s in ("", "-2", "-3", "-4", "-5"))


def test_memory_is_bounded_and_what_finds_no_room_is_counted(tmp_path, weights, monkeypatch):
    catalog = Catalog(tmp_path, weights, held_rows=100)
    gate = threading.Event()
    real = Catalog._rows
    monkeypatch.setattr(Catalog, "_rows", lambda self, batch: (gate.wait(10), real(self, batch))[1])
    taken = [take(catalog, rows(i % 3, [T0 + i] * 30)) for i in range(10)]
    assert sum(taken) == 3
    assert catalog.counts.dropped == 210
    gate.set()
    until(lambda: catalog._queued_rows == 0)
    assert sum(p.held_rows for p in catalog._parts.values()) <= 100
    for i in range(20):
        until(lambda: catalog._queued_rows == 0)
        assert take(catalog, rows(i % 3, [T0 + i] * 30))
    until(lambda: catalog._queued_rows == 0)
    assert sum(p.held_rows for p in catalog._parts.values()) <= 100
    catalog.close()
    assert sum(t.num_rows for t in files(tmp_path).values()) == catalog.counts.written == 690
    assert len(files(tmp_path)) == 3


def test_the_rows_handed_over_are_copied(tmp_path, weights):
    catalog = Catalog(tmp_path, weights)
    made = rows(0, [T0])
    take(catalog, made)
    made["ts_event"] = 5
    catalog.close()
    assert list(files(tmp_path)) == [f"AAPL.XNAS/{T0}-{T0}.parquet"]


def test_a_full_disk_is_said_and_counted_and_the_next_file_is_written(tmp_path, weights, monkeypatch):
    catalog = Catalog(tmp_path, weights, rows_a_file=10)
    full = [True]
    real = parquet._Sink.put

    def put(self, table):
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, table)

    monkeypatch.setattr(parquet._Sink, "put", put)
    take(catalog, rows(0, [T0] * 10))
    until(lambda: catalog.counts.lost == 10)
    assert "No space left" in catalog.trouble
    assert not list(tmp_path.glob(".rows*"))
    full[0] = False
    take(catalog, rows(0, [T0] * 10))
    catalog.close()
    assert catalog.counts.written == 10
    assert catalog.trouble == ""


def test_what_a_killed_process_left_is_cleared_away_and_counted(tmp_path, weights):
    (tmp_path / ".rows-3.partial").write_bytes(b"PAR1 but no footer")
    (tmp_path / ".alerts-1").write_bytes(b"")
    (tmp_path / "other").write_bytes(b"not ours")
    catalog = Catalog(tmp_path, weights)
    catalog.close()
    assert catalog.counts.cleared == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == [".writer", "other"]


def test_two_writers_of_one_catalog(tmp_path, weights):
    catalog = Catalog(tmp_path, weights)
    with pytest.raises(UsageError, match="in use"):
        Catalog(tmp_path, weights)
    catalog.close()
    Catalog(tmp_path, weights).close()


def test_a_root_that_is_a_file(tmp_path, weights):
    (tmp_path / "f").touch()
    with pytest.raises(OutputError, match="cannot write"):
        Catalog(tmp_path / "f", weights)


def test_alerts(tmp_path, weights):
    catalog = Catalog(tmp_path, weights)
    for n in (1, 2):
        assert catalog.tell(alert(n))
    catalog.close()
    (table,) = files(tmp_path, "alerts").values()
    assert table["id"].to_pylist() == [alert(1).id, alert(2).id]
    assert table["schema"].to_pylist() == [1, 1]
    assert table["drivers"].to_pylist() == [["spread: wide"]] * 2


@pytest.mark.parametrize("name", ["../../etc", "..", ".", "", "/abs", "a\0b", "a\nb", "x" * 500, "ÄÖ"])
def test_names_never_leave_the_catalog(tmp_path, weights, name):
    made = safe_name(name)
    assert "/" not in made
    assert made not in ("", ".", "..")
    assert len(made) <= 128
    catalog = Catalog(tmp_path / "root", weights)
    catalog.tell(alert(1, instrument=name))
    catalog.close()
    assert [p.name for p in tmp_path.iterdir()] == ["root"]
    assert len(files(tmp_path / "root", "alerts")) == 1


def test_names_that_are_usual_stay():
    for name in ("AAPL.XNAS", "BRK.A.XNAS", "BTC-USD.COINBASE", "#7.XNAS"):
        assert safe_name(name) == name
