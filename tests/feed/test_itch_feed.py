"""The ITCH feed: files in pieces, packed, cut; captures; against the naive decoder and message by message."""

from __future__ import annotations

import gzip
import re
import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from microrisk.book import state_hash
from microrisk.book.reference import ReferenceEngine
from microrisk.core import Engine
from microrisk.errors import FeedError, UsageError
from microrisk.feed import itch, open_feed
from microrisk.feed.base import NO_DATE, Feed
from microrisk.feed.mold import capture_bytes, end_of_session, mold_packet
from microrisk.feed.reference import ReferenceDecoder
from microrisk.spec.records import EVENT, Integrity

NAME = "S123019-v50.txt"
MIDNIGHT = 1_577_682_000_000_000_000  # 2019-12-30 in New York


def header(kind: str, locate: int, ts: int) -> bytes:
    return kind.encode() + struct.pack(">HH", locate, 0) + ts.to_bytes(6, "big")


def directory(locate: int, symbol: str) -> bytes:
    body = symbol.ljust(8).encode() + b"Q " + struct.pack(">I", 100) + b"NC" + b"Z " + b"P" + b"N 1N" + bytes(4) + b"N"
    return header("R", locate, 1) + body


def add(locate: int, ref: int, side: str, shares: int, price: int, ts: int = 10) -> bytes:
    return header("A", locate, ts) + struct.pack(">QcI8sI", ref, side.encode(), shares, b"SYM     ", price)


def executed(locate: int, ref: int, shares: int, ts: int = 20) -> bytes:
    return header("E", locate, ts) + struct.pack(">QIQ", ref, shares, 77)


def delete(locate: int, ref: int, ts: int = 30) -> bytes:
    return header("D", locate, ts) + struct.pack(">Q", ref)


def day(n: int = 400) -> list[bytes]:
    out = [directory(1, "AAPL"), directory(2, "MSFT")]
    for k in range(n):
        locate, ref = 1 + k % 2, 1000 + k
        out.append(add(locate, ref, "BS"[k // 2 % 2], 100 + k, 1_000_000 + (k // 2 % 2) * 1000 + k % 7, 10 + k))
        if k % 3 == 2:
            out.append(executed(locate, ref, 50, 11 + k))
        if k % 5 == 4:
            out.append(delete(1 + (k - 2) % 2, ref - 2, 12 + k))
    return out


def framed(messages: Sequence[bytes]) -> bytes:
    return b"".join(len(m).to_bytes(2, "big") + m for m in messages)


def naive(data: bytes) -> np.ndarray:
    events, _ = ReferenceDecoder(midnight_ns=MIDNIGHT).decode(data)
    return np.array(events, EVENT)


def all_events(feed: Feed) -> np.ndarray:
    return np.concatenate([np.zeros(0, EVENT), *feed.events()])


def pumped(feed: Feed, engine: Engine | ReferenceEngine) -> dict[str, int]:
    while feed.pump(engine):
        pass
    engine.finish()
    return {k: n for k, n in engine.integrity().items() if n}


DATA = framed(day())


def test_a_plain_file_gives_the_naive_events(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(DATA)
    feed = open_feed([tmp_path / NAME])
    np.testing.assert_array_equal(all_events(feed), naive(DATA))
    assert feed.messages == len(day())
    assert [i.id for i in feed.instruments().values()] == ["AAPL.XNAS", "MSFT.XNAS"]
    assert feed.instruments()[1].px_exp == 4
    assert (feed.progress, feed.notices) == (1.0, [])


def test_another_venue_and_date_by_request(tmp_path: Path) -> None:
    (tmp_path / "sample.itch").write_bytes(DATA)
    feed = open_feed([tmp_path / "sample.itch"], venue="XBOS")
    assert feed.notices == [NO_DATE]
    first = int(all_events(feed)[0]["ts_event"])
    assert first == 5 * 3600 * 10**9 + 10
    assert {i.id for i in feed.instruments().values()} == {"AAPL.XBOS", "MSFT.XBOS"}
    dated = all_events(open_feed([tmp_path / "sample.itch"], date="2019-12-30"))
    np.testing.assert_array_equal(dated, naive(DATA))


@pytest.mark.parametrize("chunk", [1, 7, 1 << 14])
def test_chunks_do_not_matter(chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(itch, "CHUNK_EVENTS", chunk)
    (tmp_path / NAME).write_bytes(DATA)
    np.testing.assert_array_equal(all_events(open_feed([tmp_path / NAME])), naive(DATA))


def test_engine_and_events_lead_to_the_same_book(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(DATA + b"\0\4zzzz" + b"\0\x13" + b"A" * 19)
    engines = []
    for engine in (Engine(), ReferenceEngine()):
        found = pumped(open_feed([tmp_path / NAME]), engine)
        assert found["unknown_type"] == found["malformed"] == 1
        engines.append((state_hash(engine, [str(i) for i in engine.instruments()]), engine.integrity()))
    assert engines[0] == engines[1]
    assert engines[0][0] != state_hash(Engine(), [])


def test_pieces_of_one_file_join_in_the_middle_of_a_message(tmp_path: Path) -> None:
    cuts = [0, 5000, 5001, len(DATA)]
    names = []
    for k, (a, b) in enumerate(pairwise(cuts)):
        name = tmp_path / f"12302019.part{k}.NASDAQ_ITCH50.gz"
        name.write_bytes(gzip.compress(DATA[a:b]))
        names.append(name)
    feed = open_feed(names)
    np.testing.assert_array_equal(all_events(feed), naive(DATA))
    assert feed.messages == len(day())


def test_whole_files_follow_each_other_with_their_own_numbers(tmp_path: Path) -> None:
    first, second = framed(day(50)) + b"\0\0", framed(day()[52:])
    for name, data in (("a_20191230", first), ("b_20191230", second)):
        (tmp_path / name).write_bytes(data)
    feed = open_feed([tmp_path / "a_20191230", tmp_path / "b_20191230"])
    got = all_events(feed)
    np.testing.assert_array_equal(got, np.concatenate([naive(framed(day(50))), naive(second)]))
    assert feed.messages == len(day(50)) + len(day()) - 52
    assert set(feed.instruments()) == {1, 2}


def test_files_of_two_days_are_no_feed(tmp_path: Path) -> None:
    for name in ("x_20191230", "x_20191231"):
        (tmp_path / name).write_bytes(DATA)
    with pytest.raises(UsageError, match="2019-12-30, 2019-12-31"):
        open_feed([tmp_path])
    with pytest.raises(UsageError, match="snapshot"):
        open_feed([tmp_path / "x_20191230"], snapshot=tmp_path / "x_20191231")


def test_an_end_inside_a_message_is_one_finding_with_its_offset(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(DATA[:-5])
    feed = open_feed([tmp_path / NAME])
    assert pumped(feed, Engine())["malformed"] == 1
    last = len(framed(day()[-1:]))
    assert feed.notices == [f"the input ends inside a message: {last - 5} bytes left at offset {len(DATA) - last}"]
    assert feed.messages == len(day()) - 1


def test_a_cut_stream_is_one_finding_and_keeps_its_messages(tmp_path: Path) -> None:
    packed = gzip.compress(DATA)
    (tmp_path / (NAME + ".gz")).write_bytes(packed[: len(packed) // 2])
    feed = open_feed([tmp_path / (NAME + ".gz")])
    found = pumped(feed, Engine())
    assert found["malformed"] == 1
    assert 10 < feed.messages < len(day())
    assert "breaks off" in feed.notices[0]


@pytest.mark.parametrize("size", [2, 3, 20, 40])
def test_a_cut_before_any_message_is_an_error(size: int, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(DATA[:size])
    with pytest.raises(FeedError, match="no whole itch50 message"):
        pumped(open_feed([tmp_path / NAME], format="itch50"), Engine())


def test_zero_length_ends_unless_it_is_the_framing(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(DATA + b"\0\0" + b"zz")
    found = pumped(open_feed([tmp_path / NAME]), Engine())
    assert found["trailing"] == 2
    assert "malformed" not in found
    (tmp_path / NAME).write_bytes(b"".join(b"\0\0" + m for m in day()))
    np.testing.assert_array_equal(all_events(open_feed([tmp_path / NAME])), naive(DATA))


def capture(path: Path, *, drop: Sequence[int] = (), double: bool = False) -> list[bytes]:
    messages = day(60)
    packets, seq = [], 1
    for k in range(0, len(messages), 4):
        part = messages[k : k + 4]
        packets.append((MIDNIGHT + k, mold_packet("S1", seq, part)))
        seq += len(part)
    packets.append((MIDNIGHT + 10**9, end_of_session("S1", seq)))
    if double:
        packets = [p for p in packets for _ in range(2)]
    path.write_bytes(b"".join(capture_bytes(packets, drop=drop)))
    return messages


@pytest.mark.parametrize("packed", [False, True])
def test_a_capture_gives_the_messages_of_the_file(packed: bool, tmp_path: Path) -> None:
    path = tmp_path / "a_20191230.pcap"
    messages = capture(path, double=True)
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    feed = open_feed([path])
    got = all_events(feed)
    expected = naive(framed(messages))
    for name in EVENT.names or ():
        if name != "ts_recv":
            np.testing.assert_array_equal(got[name], expected[name], name)
    np.testing.assert_array_equal(got["ts_recv"], MIDNIGHT + (got["seq"].astype(np.int64) - 1) // 4 * 4)
    assert feed.messages == len(messages)
    assert {Integrity(k).name: n for k, n, _ in feed.drain()} == {"duplicate_seq": len(messages)}


def test_two_lines_make_one_whole_feed(tmp_path: Path) -> None:
    a, b = tmp_path / "a_20191230.pcap", tmp_path / "b_20191230.pcap"
    messages = capture(a, drop=range(9, 40))
    capture(b, drop=range(0, 7))
    feed = open_feed([a, b])
    np.testing.assert_array_equal(all_events(feed)["seq"], naive(framed(messages))["seq"])
    assert {Integrity(k).name: n for k, n, _ in feed.drain()} == {"duplicate_seq": 8}
    # the other way round nothing changes: the captures are put in order by their times
    np.testing.assert_array_equal(all_events(open_feed([b, a]))["seq"], naive(framed(messages))["seq"])


def test_a_gap_marks_the_books_at_its_place(tmp_path: Path) -> None:
    path = tmp_path / "a_20191230.pcap"
    capture(path, drop=[7])
    engine = Engine()
    engine.record_views()
    feed = open_feed([path])
    assert pumped(feed, engine)["gap"] == 1
    assert re.search(r"sequence 29 to \d+ missing", feed.notices[-1])
    views = engine.take_views()
    np.testing.assert_array_equal(views["suspect"], views["seq"] > 28)


def test_a_cut_capture_is_one_finding(tmp_path: Path) -> None:
    path = tmp_path / "a_20191230.pcap"
    capture(path)
    path.write_bytes(path.read_bytes()[:-10])
    feed = open_feed([path])
    assert pumped(feed, Engine())["malformed"] == 1
    assert "breaks off" in feed.notices[0]


def test_captures_and_files_do_not_mix(tmp_path: Path) -> None:
    capture(tmp_path / "a_20191230.pcap")
    (tmp_path / "b_20191230").write_bytes(DATA)
    with pytest.raises(UsageError, match="captures and ITCH files"):
        open_feed([tmp_path])


@pytest.mark.realdata
def test_the_start_of_a_real_day(data_dir: Path) -> None:
    feed = open_feed([data_dir / "nasdaq_itch50_sod"])
    assert pumped(feed, Engine()) == {}
    assert feed.messages == 1000
    assert len(feed.instruments()) == 993
    assert feed.instruments()[1].id == "A.XNAS"


@pytest.mark.realdata
def test_the_odd_framing_of_a_fixture_plain_and_packed(data_dir: Path) -> None:
    hashes = set()
    for name in ("ex20101224.TEST_ITCH_50", "ex20101224.TEST_ITCH_50.gz"):
        engine = Engine()
        feed = open_feed([data_dir / "ritch_test_itch50" / name])
        found = pumped(feed, engine)
        assert (feed.messages, found["unknown_order"], feed.notices) == (12012, 117, [])
        hashes.add(state_hash(engine, [feed.instruments()[int(i)].id for i in engine.instruments()]))
    assert len(hashes) == 1
    assert {i.symbol for i in feed.instruments().values()} == {"ALC", "BOB", "CHAR"}


@pytest.mark.realdata
def test_real_packets(data_dir: Path) -> None:
    folder = data_dir / "omi_packets/Nasdaq"
    totals = 0
    for path in sorted(folder.glob("Nasdaq.Equities.TotalView.Itch.v5.0*/*.pcap")):
        feed = open_feed([path])
        engine = Engine()
        found = pumped(feed, engine)
        assert not {"malformed", "unknown_type"} & set(found), path.name
        totals += feed.messages
    assert totals == 117
