"""DBN `mbo`: against a naive decoder that takes the records one by one, damage, and the real days."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import databento_dbn as dbn
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microrisk.core import Engine
from microrisk.errors import FeedError, UsageError
from microrisk.feed import dbn as feed_dbn
from microrisk.feed import open_feed
from microrisk.feed.dbn import RECORD, filled_flags, open_fills, to_events
from microrisk.spec.records import EVENT, Action, FeedId, Flag, Integrity
from microrisk.spec.units import NULL_TS

LAST, TOB, SNAPSHOT, BAD_TS, BAD_BOOK = 128, 64, 32, 8, 4
UNDEF = 2**63 - 1
LETTERS = {"A": Action.ADD, "C": Action.REDUCE, "M": Action.MODIFY, "R": Action.CLEAR}
LETTERS |= {"T": Action.TRADE, "F": Action.FILL, "N": Action.NONE}


def record(action: str, order: int = 1, px: int = 100, size: int = 1, flags: int = LAST, **more: Any) -> np.ndarray:
    out = np.zeros(1, RECORD)
    out["length"], out["rtype"], out["publisher_id"], out["instrument_id"] = 14, 160, 1, more.get("instrument", 7)
    out["ts_event"], out["ts_recv"] = more.get("ts", 1000), more.get("ts_recv", 1001)
    out["order_id"], out["price"], out["size"], out["flags"] = order, px, size, flags
    out["action"], out["side"], out["sequence"] = ord(action), ord(more.get("side", "B")), more.get("seq", 5)
    return out


def meta(schema: dbn.Schema = dbn.Schema.MBO, dataset: str = "GLBX.MDP3") -> bytes:
    interval = SimpleNamespace(start_date=date(2024, 1, 1), end_date=date(2024, 1, 30), symbol="7")
    mapping: Any = SimpleNamespace(raw_symbol="ESH4", intervals=[interval])
    return bytes(
        dbn.Metadata(
            dataset=dataset, schema=schema, start=0, stype_in=dbn.SType.RAW_SYMBOL,
            stype_out=dbn.SType.INSTRUMENT_ID, symbols=["ESH4"], partial=[], not_found=[], mappings=[mapping],
        ).encode()
    )  # fmt: skip


def write(path: Path, *records: np.ndarray, head: bytes | None = None) -> Path:
    path.write_bytes((meta() if head is None else head) + b"".join(r.tobytes() for r in records))
    return path


def naive(records: np.ndarray) -> np.ndarray:
    """The rules of the module, one record at a time."""
    out = np.zeros(len(records), EVENT)
    filled: dict[int, set[int]] = {}
    for e, r in zip(out, records, strict=True):
        action, flags, index = chr(r["action"]), int(r["flags"]), int(r["instrument_id"])
        mine = filled.setdefault(index, set())
        undefined = r["price"] == UNDEF
        kind = LETTERS.get(action, Action.NONE)
        if flags & TOB or (undefined and action in "AM"):
            kind = Action.NONE
        side = {"B": 1, "A": -1}.get(chr(r["side"]), 0)
        e["action"], e["side"] = kind, -side if kind == Action.TRADE else side
        e["px"], e["qty"], e["order_id"] = 0 if undefined else r["price"], r["size"], r["order_id"]
        e["seq"], e["instrument"], e["feed"] = r["sequence"], index, FeedId.DBN
        e["ts_event"] = r["ts_event"] if r["ts_event"] < 2**63 else r["ts_recv"]
        e["ts_recv"] = NULL_TS if flags & BAD_TS else r["ts_recv"]
        if flags & LAST:
            e["flags"] |= Flag.LAST
        if flags & SNAPSHOT:
            e["flags"] |= Flag.SNAPSHOT
        if flags & BAD_BOOK:
            e["flags"] |= Flag.SUSPECT
        if action == "F":
            mine.add(int(r["order_id"]))
        elif action in "CM" and int(r["order_id"]) in mine:
            e["flags"] |= Flag.EXEC | Flag.NO_PRINT
        if flags & LAST:
            mine.clear()
    return out


def vectorised(records: np.ndarray, chunk: int) -> np.ndarray:
    parts, carried = [], np.zeros(0, RECORD)
    for at in range(0, len(records), chunk):
        block = records[at : at + chunk]
        events, _ = to_events(block)
        events["flags"] |= filled_flags(block, carried)
        carried = open_fills(block, carried)
        parts.append(events)
    return np.concatenate(parts)


def everything(feed: Any) -> np.ndarray:
    return np.concatenate([np.zeros(0, EVENT), *feed.events()])


def pumped(feed: Any, engine: Engine) -> dict[str, int]:
    while feed.pump(engine):
        pass
    engine.finish()
    return {k: n for k, n in engine.integrity().items() if n}


rows = st.lists(
    st.tuples(
        st.sampled_from("ACMRTFNx"), st.integers(1, 4), st.sampled_from([90, 100, UNDEF, -5]), st.integers(0, 3),
        st.sampled_from([0, 0, 0, LAST, SNAPSHOT | BAD_TS, TOB, BAD_BOOK | LAST]), st.sampled_from([7, 8]),
        st.sampled_from("BAN"),
    ),
    min_size=1, max_size=60,
)  # fmt: skip


@given(rows, st.integers(1, 9))
def test_vectorised_equals_naive(rows: list[Any], chunk: int) -> None:
    records = np.concatenate(
        [record(a, o, p, q, f, instrument=i, side=s, seq=k) for k, (a, o, p, q, f, i, s) in enumerate(rows)]
    )
    np.testing.assert_array_equal(vectorised(records, chunk), naive(records))


def test_undefined_times_fall_back() -> None:
    events, _ = to_events(np.concatenate([record("A", ts=2**64 - 1), record("A", ts=5, ts_recv=2**64 - 1)]))
    assert events["ts_event"].tolist() == [1001, 5]
    assert events["ts_recv"].tolist() == [1001, NULL_TS]


def test_a_fill_explains_the_cancel_behind_it(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.dbn",
        record("A", 1, 100, 5, side="A"), record("A", 2, 100, 5, side="A"),
        record("T", 9, 100, 7, flags=0, side="B"), record("F", 1, 100, 5, flags=0, side="A"),
        record("F", 2, 100, 2, flags=0, side="A"), record("C", 1, 100, 5, flags=0, side="A"),
        record("M", 2, 100, 3, side="A"), record("C", 2, 100, 3, side="A"),
    )  # fmt: skip
    engine = Engine()
    engine.record_views()
    assert pumped(open_feed([path]), engine) == {}
    views = engine.take_views()
    assert views["add_qty"].tolist() == [5, 5, 0, 0]
    assert views["trade_qty"].tolist() == [0, 0, 7, 0]
    assert views["cancel_qty"].tolist() == [0, 0, 0, 3]
    # the buyer was the aggressor: what traded had rested on the ask side
    assert views["side"].tolist() == [-1, -1, -1, -1]
    assert engine.live_orders == 0


def test_names_units_and_sequence(tmp_path: Path) -> None:
    feed = open_feed([write(tmp_path / "x.dbn", record("A", seq=77), record("A", 2, instrument=8))])
    events = everything(feed)
    assert events["seq"].tolist() == [77, 5]
    found = feed.instruments()
    assert [found[i].id for i in (7, 8)] == ["ESH4.GLBX", "8.GLBX"]
    assert (found[7].px_exp, found[7].qty_exp) == (9, 0)
    assert feed.order_label(3) == "3"
    other = open_feed([write(tmp_path / "y.dbn", record("A"), head=meta(dataset="XNAS.ITCH"))])
    everything(other)
    assert other.instruments()[7].venue == "XNAS"


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_chunks_and_packing_do_not_matter(chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_dbn, "CHUNK_EVENTS", chunk)
    records = [record("AFCMT"[k % 5], 1 + k // 10, 100 + k, flags=LAST * (k % 3 == 2), seq=k) for k in range(50)]
    path = write(tmp_path / "x.dbn", *records)
    packed = tmp_path / "x.dbn.zst"
    packed.write_bytes(pa.compress(path.read_bytes(), codec="zstd", asbytes=True))
    for p in (path, packed):
        np.testing.assert_array_equal(everything(open_feed([p])), naive(np.concatenate(records)))


def other(rtype: int, words: int) -> np.ndarray:
    out = np.zeros(words * 4, np.uint8)
    out[:2] = words, rtype
    return out


def test_other_records_are_messages_but_no_events(tmp_path: Path) -> None:
    wide = np.concatenate([record("A", 3).view(np.uint8), np.zeros(8, np.uint8)])
    wide[0] = 16  # an mbo record with the sending time behind it
    kinds = (record("A", 1), other(0x17, 20), other(0x77, 6), record("A", 2), wide, record("A", 4))
    path = write(tmp_path / "x.dbn", *kinds)
    feed = open_feed([path])
    assert everything(feed)["order_id"].tolist() == [1, 2, 3, 4]
    assert feed.messages == 6
    assert {Integrity(k): n for k, n, _ in feed.drain()} == {Integrity.unknown_type: 1}


def test_odd_records_are_counted_and_not_applied(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.dbn",
        record("A", 1), record("A", 2, px=UNDEF), record("A", 3, flags=LAST | TOB), record("y", 4),
        record("A", 5, flags=LAST | BAD_BOOK),
    )  # fmt: skip
    engine = Engine()
    found = pumped(open_feed([path]), engine)
    assert found == {"malformed": 1, "unknown_type": 2, "suspect_flag": 1}
    assert engine.orders(7)["order_id"].tolist() == [1, 5]


def test_an_image_without_a_clear_replaces_the_book(tmp_path: Path) -> None:
    image = [record("A", 1, flags=SNAPSHOT | BAD_TS), record("A", 2, flags=SNAPSHOT | BAD_TS | LAST)]
    first = write(tmp_path / "1.dbn", *image, record("A", 3))
    second = write(tmp_path / "2.dbn", *image, record("A", 4))
    feed, engine = open_feed([first, second]), Engine()
    assert pumped(feed, engine) == {}
    assert engine.orders(7)["order_id"].tolist() == [1, 2, 4]
    assert (feed.messages, feed.synthetic, engine.n_events) == (6, 1, 7)
    with_clear = write(tmp_path / "3.dbn", record("A", 9), record("R", 0, UNDEF, 0, SNAPSHOT), *image)
    feed, engine = open_feed([with_clear]), Engine()
    assert pumped(feed, engine) == {}
    assert (feed.synthetic, engine.live_orders) == (0, 2)


def test_a_file_cut_inside_a_record(tmp_path: Path) -> None:
    path = write(tmp_path / "x.dbn", record("A", 1), record("A", 2))
    path.write_bytes(path.read_bytes()[:-10])
    feed = open_feed([path])
    assert pumped(feed, Engine()) == {"malformed": 1}
    assert feed.messages == 1
    assert f"46 bytes left at offset {len(meta()) + 56}" in feed.notices[0]


def test_a_record_of_no_length_ends_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "x.dbn", record("A", 1), np.zeros(60, np.uint8), record("A", 2))
    feed = open_feed([path, write(tmp_path / "y.dbn", record("A", 3))])
    engine = Engine()
    assert pumped(feed, engine) == {"malformed": 1}
    assert engine.orders(7)["order_id"].tolist() == [1, 3]
    assert f"offset {len(meta()) + 56}" in feed.notices[0]


def test_what_is_no_dbn_or_not_mbo(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="cut"):
        open_feed([write(tmp_path / "a.dbn", head=meta()[:40])])
    with pytest.raises(FeedError, match="version 9"):
        open_feed([write(tmp_path / "b.dbn", head=b"DBN\x09" + meta()[4:])])
    with pytest.raises(UsageError, match="ohlcv-1s"):
        open_feed([write(tmp_path / "c.dbn", head=meta(dbn.Schema.OHLCV_1S))])
    with pytest.raises(FeedError, match="no whole dbn message"):
        everything(open_feed([write(tmp_path / "d.dbn")]))
    path = write(tmp_path / "e.dbn", record("A"))
    with pytest.raises(UsageError, match="snapshot"):
        open_feed([path], snapshot=path)


DAY = "esh4-glbx-mdp3-20231225.mbo.dbn.zst"
ORDERBOOKS = "orderbooks_mbo_2024-05-08T00-00-00_2024-05-08T00-00-02.dbn.zst"


def read_naive(path: Path) -> np.ndarray:
    """The records through the vendor's own decoder."""
    decoder = dbn.DBNDecoder()
    decoder.write(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd").read())
    out = [r for r in decoder.decode() if isinstance(r, dbn.MBOMsg)]
    records = np.zeros(len(out), RECORD)
    for name in ("instrument_id", "ts_event", "order_id", "price", "size", "ts_recv", "sequence"):
        records[name] = [getattr(r, name) for r in out]
    records["flags"] = [int(r.flags) for r in out]
    records["action"] = [ord(str(r.action)) for r in out]
    records["side"] = [ord(str(r.side)) for r in out]
    return records


@pytest.mark.realdata
def test_a_real_day_equals_the_vendors_decoder(data_dir: Path) -> None:
    path = data_dir / "databento_cme_es" / DAY
    np.testing.assert_array_equal(everything(open_feed([path])), naive(read_naive(path)))


@pytest.mark.realdata
def test_a_real_day_is_rebuilt(data_dir: Path) -> None:
    feed, engine = open_feed([data_dir / "databento_cme_es" / DAY]), Engine()
    found = pumped(feed, engine)
    assert found == {"unknown_fill": 7, "crossed_preopen": 891}
    assert (feed.messages, engine.n_events, engine.live_orders) == (68_792, 29_216 + 17_999 + 12_233, 11_217)
    bids, asks = engine.levels(17077, 1)
    assert (bids[0, 0], asks[0, 0]) == (4_810_000_000_000, 4_810_250_000_000)
    assert feed.instruments()[17077].id == "ESH4.GLBX"


@pytest.mark.realdata
def test_the_crossed_book_lies_before_the_opening(data_dir: Path) -> None:
    engine = Engine()
    pumped(open_feed([data_dir / "databento_cme_es" / DAY]), engine)
    found = engine.findings()
    crossed = found[found["kind"] == Integrity.crossed_preopen]
    opening = 1_703_545_200_000_000_000  # 23:00 UTC
    assert len(crossed) == 891
    assert crossed["ts_event"].min() >= opening - 1_205 * 10**9
    assert crossed["ts_event"].max() < opening


@pytest.mark.realdata
def test_the_snapshot_file_and_the_day_continue_each_other(data_dir: Path) -> None:
    folder = data_dir / "databento_cme_es"
    alone, both = Engine(), Engine()
    pumped(open_feed([folder / DAY]), alone)
    feed = open_feed([folder / "esh4-glbx-mdp3-20231224.mbo.dbn.zst", folder / DAY])
    assert "duplicate_order" not in pumped(feed, both)
    np.testing.assert_array_equal(alone.orders(17077), both.orders(17077))
    assert feed.messages == 68_792 + 8_725


@pytest.mark.realdata
def test_other_real_files(data_dir: Path) -> None:
    folder = data_dir / "databento_cme_es"
    engine = Engine()
    feed = open_feed([folder / ORDERBOOKS])
    assert pumped(feed, engine) == {}
    assert (feed.messages, feed.instruments()[5602].id) == (13_796, "ESM4.GLBX")
    image = np.concatenate(list(open_feed([folder / ORDERBOOKS]).events()))["flags"] & Flag.SNAPSHOT != 0
    assert (image.sum(), image[:13_601].all()) == (13_601, True)
    with pytest.raises(UsageError, match="mbp-1"):
        everything(open_feed([folder / ORDERBOOKS, folder / "futures_mbp-1_2024-07-01T23-58_2024-07-02T00-02.dbn.zst"]))


@pytest.mark.realdata
def test_a_truncated_real_day_keeps_its_beginning(data_dir: Path, tmp_path: Path) -> None:
    whole = everything(open_feed([data_dir / "databento_cme_es" / DAY]))
    raw = (data_dir / "databento_cme_es" / DAY).read_bytes()
    (tmp_path / DAY).write_bytes(raw[: len(raw) // 2])
    feed = open_feed([tmp_path / DAY])
    part = everything(feed)
    assert len(part) > 0.3 * len(whole)
    np.testing.assert_array_equal(part, whole[: len(part)])
    assert {Integrity(k).name: n for k, n, _ in feed.drain()} == {"malformed": 1}
    assert "zstd" in feed.notices[0]
