"""DBN `mbp-1`: against a naive one-level book that takes the records one by one, the vendor's decoder, and damage."""

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
from microrisk.errors import UsageError
from microrisk.feed import dbn as feed_dbn
from microrisk.feed import open_feed
from microrisk.feed.dbn_mbp import RECORD, previous, to_events
from microrisk.spec.records import EVENT, Action, FeedId, Flag, Integrity
from microrisk.spec.units import NULL_PX, NULL_TS

LAST, SNAPSHOT, BAD_TS, BAD_BOOK = 128, 32, 8, 4
UNDEF = 2**63 - 1
FILE = "futures_mbp-1_2024-07-01T23-58_2024-07-02T00-02.dbn.zst"
SHOWN = ("action", "side", "px", "qty", "flags", "seq", "instrument", "ts_event", "ts_recv")
MEMBERS = ("instrument_id", "ts_event", "price", "size", "depth", "ts_recv", "ts_in_delta", "sequence")


def meta(schema: dbn.Schema = dbn.Schema.MBP_1) -> bytes:
    interval = SimpleNamespace(start_date=date(2024, 1, 1), end_date=date(2024, 1, 30), symbol="7")
    mapping: Any = SimpleNamespace(raw_symbol="ESH4", intervals=[interval])
    return bytes(
        dbn.Metadata(
            dataset="GLBX.MDP3", schema=schema, start=0, stype_in=dbn.SType.RAW_SYMBOL,
            stype_out=dbn.SType.INSTRUMENT_ID, symbols=["ESH4"], partial=[], not_found=[], mappings=[mapping],
        ).encode()
    )  # fmt: skip


def record(action: str, bid: tuple[int, int], ask: tuple[int, int], flags: int = LAST, **more: Any) -> np.ndarray:
    out = np.zeros(1, RECORD)
    out["length"], out["rtype"], out["publisher_id"], out["instrument_id"] = 20, 1, 1, more.get("instrument", 7)
    out["ts_event"], out["ts_recv"] = 1000, more.get("ts_recv", 1001)
    out["price"], out["size"], out["flags"] = more.get("px", 100), more.get("size", 1), flags
    out["action"], out["side"], out["sequence"] = ord(action), ord(more.get("side", "B")), more.get("seq", 5)
    (out["bid_px"], out["bid_sz"]), (out["ask_px"], out["ask_sz"]) = bid, ask
    return out


def write(path: Path, *records: np.ndarray) -> Path:
    path.write_bytes(meta() + b"".join(r.tobytes() for r in records))
    return path


def pumped(feed: Any, engine: Any) -> dict[str, int]:
    while feed.pump(engine):
        pass
    engine.finish()
    return {k: n for k, n in engine.integrity().items() if n}


def naive(records: np.ndarray) -> list[tuple[int, ...]]:
    """The fields SHOWN by the rules of the module, one record at a time."""
    books: dict[int, dict[int, tuple[int, int]]] = {}
    out: list[tuple[int, ...]] = []
    for r in records:
        raw, index, made = int(r["flags"]), int(r["instrument_id"]), list[tuple[int, int, int, int]]()
        book = books.setdefault(index, {})
        if chr(r["action"]) == "R" or raw & SNAPSHOT:
            book.clear()
            made.append((Action.CLEAR, 0, 0, 0))
        if chr(r["action"]) == "T":
            side = {"B": -1, "A": 1}.get(chr(r["side"]), 0)
            made.append((Action.TRADE, side, 0 if r["price"] == UNDEF else int(r["price"]), int(r["size"])))
        new = {}
        for side, name in ((1, "bid"), (-1, "ask")):
            if r[name + "_px"] != UNDEF and r[name + "_sz"]:
                new[side] = int(r[name + "_px"]), int(r[name + "_sz"])
        for side in (1, -1):
            if side in book and (side not in new or new[side][0] != book[side][0]):
                made.append((Action.MODIFY, side, book[side][0], 0))
        made += [(Action.MODIFY, side, *new[side]) for side in (1, -1) if side in new and new[side] != book.get(side)]
        books[index] = new
        flags = (Flag.SNAPSHOT if raw & SNAPSHOT else 0) | (Flag.SUSPECT if raw & BAD_BOOK else 0)
        made = made or [(Action.NONE, 0, 0, 0)]
        times = int(r["ts_event"]), NULL_TS if raw & BAD_TS else int(r["ts_recv"])
        out += [(*m, flags, int(r["sequence"]), index, *times) for m in made]
        if raw & LAST:
            out[-1] = (*out[-1][:4], out[-1][4] | Flag.LAST, *out[-1][5:])
    return out


def shown(events: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(int(e[n]) for n in SHOWN) for e in events]


def vectorised(records: np.ndarray, chunk: int) -> np.ndarray:
    parts, quotes = [np.zeros(0, EVENT)], {}
    for at in range(0, len(records), chunk):
        block = records[at : at + chunk]
        before = previous(block, quotes)
        parts.append(to_events(block, before)[0])
        for r in block:
            held = [(int(r[s + "_px"]), int(r[s + "_sz"])) for s in ("bid", "ask")]
            quotes[int(r["instrument_id"])] = tuple(
                x for px, qty in held for x in ((px, qty) if px != UNDEF and qty else (0, 0))
            )
    return np.concatenate(parts)


level = st.tuples(st.sampled_from([90, 100, UNDEF, -5, 0]), st.integers(0, 2))
rows = st.lists(
    st.tuples(
        st.sampled_from("ACMRTNx"), level, level, st.sampled_from([LAST, LAST, 0, LAST | SNAPSHOT, LAST | BAD_BOOK]),
        st.sampled_from([7, 8]), st.sampled_from("BAN"),
    ),
    min_size=1, max_size=50,
)  # fmt: skip


@given(rows, st.integers(1, 9))
def test_vectorised_equals_naive(rows: list[Any], chunk: int) -> None:
    records = np.concatenate(
        [record(a, b, s, f, instrument=i, side=d, seq=k) for k, (a, b, s, f, i, d) in enumerate(rows)]
    )
    assert shown(vectorised(records, chunk)) == naive(records)


@given(rows)
def test_the_book_of_the_engine_is_the_record(rows: list[Any]) -> None:
    engine, quotes = Engine(), {}
    for k, (a, b, s, _, i, d) in enumerate(rows):
        one = record(a, b, s, LAST, instrument=i, side=d, seq=k)
        engine.run_events(to_events(one, previous(one, quotes))[0])
        quotes[i] = tuple(x for px, qty in (b, s) for x in ((px, qty) if px != UNDEF and qty else (0, 0)))
        bids, asks = engine.levels(i)
        for got, (px, qty) in ((bids, b), (asks, s)):
            assert got.tolist() == ([[px, qty]] if px != UNDEF and qty else [])


def test_findings_times_and_names(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.dbn",
        record("A", (99, 1), (101, 1)), record("y", (99, 2), (101, 1)),
        record("A", (99, 3), (101, 1), LAST | BAD_BOOK | BAD_TS),
    )  # fmt: skip
    feed, engine = open_feed([path]), Engine()
    engine.record_bbo()
    assert pumped(feed, engine) == {"unknown_type": 1, "suspect_flag": 1}
    bbo = engine.take_bbo()
    assert bbo["bid_qty"].tolist() == [1, 2, 3]
    assert bbo["ts_recv"].tolist() == [1001, 1001, NULL_TS]
    assert engine.suspect(7)
    assert feed.instruments()[7].id == "ESH4.GLBX"
    assert feed.mask != 0
    assert feed.messages == 3


def test_an_empty_side_is_an_empty_side(tmp_path: Path) -> None:
    path = write(tmp_path / "x.dbn", record("A", (99, 1), (UNDEF, 0)), record("C", (UNDEF, 5), (101, 0)))
    engine = Engine()
    engine.record_bbo()
    assert pumped(open_feed([path]), engine) == {}
    assert [(r["bid_px"], r["ask_px"]) for r in engine.take_bbo()] == [(99, NULL_PX), (NULL_PX, NULL_PX)]


def test_an_image_is_no_news_and_replaces_the_book(tmp_path: Path) -> None:
    path = write(tmp_path / "x.dbn", record("A", (99, 1), (101, 1)), record("A", (50, 1), (51, 1), LAST | SNAPSHOT))
    feed, engine = open_feed([path]), Engine()
    assert pumped(feed, engine) == {}
    assert engine.levels(7)[0].tolist() == [[50, 1]]
    assert feed.synthetic == 1


@pytest.mark.parametrize("cut", [1, 40, 79])
def test_a_file_cut_inside_a_record(cut: int, tmp_path: Path) -> None:
    path = write(tmp_path / "x.dbn", record("A", (99, 1), (101, 1)), record("A", (99, 2), (101, 1)))
    path.write_bytes(path.read_bytes()[:-cut])
    feed = open_feed([path])
    assert pumped(feed, Engine()) == {"malformed": 1}
    assert feed.messages == 1


@given(st.binary(max_size=400))
def test_hostile_records_never_crash(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("mbp") / "x.dbn"
    path.write_bytes(meta() + record("A", (99, 1), (101, 1)).tobytes() + data)
    feed, engine = open_feed([path]), Engine()
    pumped(feed, engine)
    assert feed.messages >= 1


def test_schemas_do_not_mix(tmp_path: Path) -> None:
    first = write(tmp_path / "a.dbn", record("A", (99, 1), (101, 1)))
    (tmp_path / "b.dbn").write_bytes(meta(dbn.Schema.MBO))
    with pytest.raises(UsageError, match="mbo"):
        pumped(open_feed([first, tmp_path / "b.dbn"]), Engine())


def read_vendor(path: Path) -> list[Any]:
    decoder = dbn.DBNDecoder()
    decoder.write(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd").read())
    return [r for r in decoder.decode() if isinstance(r, dbn.MBP1Msg)]


@pytest.mark.realdata
def test_every_real_record_equals_the_vendors_decoder(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = data_dir / "databento_cme_es" / FILE
    theirs = read_vendor(path)
    records = np.zeros(len(theirs), RECORD)
    for name in MEMBERS:
        records[name] = [getattr(r, name) for r in theirs]
    for name in ("bid_px", "ask_px", "bid_sz", "ask_sz", "bid_ct", "ask_ct"):
        records[name] = [getattr(r.levels[0], name) for r in theirs]
    records["flags"] = [int(r.flags) for r in theirs]
    for name in ("action", "side"):
        records[name] = [ord(str(getattr(r, name))) for r in theirs]
    monkeypatch.setattr(feed_dbn, "CHUNK_EVENTS", 100)
    feed = open_feed([path])
    events = np.concatenate(list(feed.events()))
    assert shown(events) == naive(records)
    assert feed.messages == len(records) == 2288
    assert (events["feed"] == FeedId.DBN).all()


@pytest.mark.realdata
def test_the_real_file_is_rebuilt(data_dir: Path) -> None:
    path = data_dir / "databento_cme_es" / FILE
    feed, engine = open_feed([path]), Engine()
    engine.record_bbo()
    assert pumped(feed, engine) == {}
    bbo = engine.take_bbo()
    changes = [
        (lv.bid_px, lv.bid_sz, lv.ask_px, lv.ask_sz)
        for r in read_vendor(path)
        for lv in r.levels
        if int(r.flags) & LAST and not int(r.flags) & SNAPSHOT
    ]
    expected = [q for k, q in enumerate(changes) if k == 0 or q != changes[k - 1]]
    assert [tuple(int(row[n]) for n in ("bid_px", "bid_qty", "ask_px", "ask_qty")) for row in bbo] == expected
    assert feed.instruments()[118].id == "ESU4.GLBX"
    assert {Integrity(k).name: n for k, n, _ in feed.drain()} == {}
