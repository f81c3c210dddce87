"""Opening of input: compression, damage, folders, recognition, dates, exact decimals."""

from __future__ import annotations

import gc
import gzip
import json
import lzma
import random
import struct
import zipfile
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microrisk.errors import FeedError, UsageError
from microrisk.feed import DECODERS, FORMATS, open_feed
from microrisk.feed.base import NO_DATE, midnight_ns, session_day, session_midnight
from microrisk.feed.interning import Interner
from microrisk.feed.open import HEAD, Source, Window, find_sources
from microrisk.feed.recognise import BOOK, LOBSTER_IMAGE, recognise, recognise_bytes
from microrisk.feed.text import from_units, iso_ns, to_units

DATA = bytes(random.Random(1).choices(b"abcdefg\0\n", k=700_000))


def zipped(data: bytes, path: Path) -> bytes:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside.bin", data)
    return path.read_bytes()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gz": gzip.compress,
    "gz two members": lambda d: gzip.compress(d[:1000]) + gzip.compress(d[1000:]) + bytes(512),
    "xz": lzma.compress,
    "xz two streams": lambda d: lzma.compress(d[:1000]) + lzma.compress(d[1000:]),
    "zst": lambda d: pa.compress(d, codec="zstd", asbytes=True),
    "zst two frames": lambda d: b"".join(pa.compress(x, codec="zstd", asbytes=True) for x in (d[:1000], d[1000:])),
    "gz in gz": lambda d: gzip.compress(gzip.compress(d)),
    "xz in gz": lambda d: gzip.compress(lzma.compress(d)),
}


@pytest.mark.parametrize("name", PACKERS)
def test_every_packing_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(PACKERS[name](DATA))
    stream = Source(path).stream()
    assert b"".join(stream) == DATA
    assert stream.cut is None
    assert stream.offset == len(DATA)
    assert Source(path).head(10) == DATA[:10]
    assert (Source(path).mapped() is not None) == (name == "plain")


def test_zip_members_are_sources(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("z/second.csv", DATA)
        archive.writestr("first.csv.gz", gzip.compress(DATA))
    found = find_sources([tmp_path / "a.zip"])
    assert [s.name for s in found] == ["first.csv", "second.csv"]
    assert all(b"".join(s.stream()) == DATA for s in found)
    assert found[1].label.endswith("a.zip!z/second.csv")


@pytest.mark.parametrize("name", ["gz", "xz", "zst"])
@pytest.mark.parametrize("share", [0.25, 0.9])
def test_a_truncated_stream_keeps_what_came_before(name: str, share: float, tmp_path: Path) -> None:
    packed = PACKERS[name](DATA)
    path = tmp_path / "file"
    path.write_bytes(packed[: int(len(packed) * share)])
    stream = Source(path).stream()
    got = b"".join(stream)
    assert DATA.startswith(got)
    assert len(got) > len(DATA) * share - 3 * HEAD
    assert stream.cut is not None
    assert str(len(got)) in stream.cut


def test_a_truncated_zstd_file_keeps_every_whole_frame(tmp_path: Path) -> None:
    frames = [pa.compress(DATA[k * 1000 : k * 1000 + 1000], codec="zstd", asbytes=True) for k in range(40)]
    (tmp_path / "f").write_bytes(b"".join(frames)[:-5])
    stream = Source(tmp_path / "f").stream()
    assert b"".join(stream) == DATA[:39_000]
    assert stream.cut is not None


def test_a_damaged_gzip_keeps_the_bytes_before_the_damage(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(DATA[:40_000]))
    packed[-6] ^= 0xFF  # the checksum: every byte of the data itself is good
    (tmp_path / "f").write_bytes(packed)
    stream = Source(tmp_path / "f").stream()
    assert b"".join(stream) == DATA[:40_000]
    assert stream.cut is not None


def test_a_window_slides_over_sources_and_keeps_the_tail(tmp_path: Path) -> None:
    for name, data in (("a", DATA), ("b", gzip.compress(DATA)), ("c", DATA), ("d", b"")):
        (tmp_path / name).write_bytes(data)
    window = Window([Source(tmp_path / n) for n in "abcd"])
    out = b""
    while window.grow():
        keep = min(7, len(window.data))
        out += window.data[window.start : len(window.data) - keep]
        window.start = len(window.data) - keep
        assert window.offset == len(out)
    assert out + window.data[window.start :] == DATA * 3
    assert window.progress == 1.0


def test_folders_are_read_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b", "a", "c/d"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [s.name for s in find_sources([tmp_path])] == ["a", "b", "d"]


def test_what_cannot_be_opened_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        open_feed([tmp_path / "nothing"])
    with pytest.raises(UsageError, match="no input"):
        open_feed([])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FeedError, match="empty"):
        open_feed([tmp_path / "empty"])
    (tmp_path / "broken.zip").write_bytes(zipped(DATA, tmp_path / "x.zip")[:1000])
    with pytest.raises(FeedError, match="zip"):
        open_feed([tmp_path / "broken.zip"])
    (tmp_path / "zero").write_bytes(b"")
    with pytest.raises(FeedError, match="empty"):
        open_feed([tmp_path / "zero"])
    (tmp_path / "cut.gz").write_bytes(gzip.compress(DATA)[:8])
    with pytest.raises(FeedError):
        open_feed([tmp_path / "cut.gz"])


def test_unknown_formats_are_a_question_of_use(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"certainly no market data\n" * 3)
    with pytest.raises(UsageError, match="not known"):
        open_feed([tmp_path / "f"])
    with pytest.raises(UsageError, match="unknown format 'pitch'"):
        open_feed([tmp_path / "f"], format="pitch")


HEADS = {
    "cryptofeed": b'wss://ws.kraken.com <- 1618678132.8253062: {"event":"subscribe"}\n',
    "tardis": b"exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount\n",
    "bitstamp": b"id,timestamp,exchange_timestamp,price,volume,action,direction\n1,2,3,4,5,created,bid\n",
    "binance": b'1723161253937085768 {"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1}}\n',
    "bybit": b'{"topic":"orderbook.500.XRPUSDT","type":"snapshot","ts":1733011200691,"data":{}}\n',
    "kraken": b'[336,{"as":[["1.0","2.0","3.0"]],"bs":[]},"book-1000","XBT/USD"]\n',
}


@pytest.mark.parametrize("name", HEADS)
def test_text_formats_are_told_by_their_first_line(name: str, tmp_path: Path) -> None:
    assert recognise_bytes(HEADS[name]) == name
    (tmp_path / "f").write_bytes(HEADS[name])
    assert open_feed([tmp_path / "f"]).format == name


def test_every_format_has_a_decoder() -> None:
    assert set(DECODERS) == set(FORMATS)


def test_recognition_by_content() -> None:
    system_event = struct.pack(">HcHH6sc", 12, b"S", 0, 0, bytes(6), b"O")
    assert recognise_bytes(system_event) == "itch50"
    assert recognise_bytes(system_event[:9]) == "itch50"
    assert recognise_bytes(b"\0\0" + system_event[2:]) == "itch50"
    assert recognise_bytes(b"\0\x0dS" + system_event[3:]) is None
    assert recognise_bytes(b"DBN\x03....") == "dbn"
    assert recognise_bytes(b"34200.004241176,1,16113575,18,5853300,1\n") == "lobster"
    assert recognise_bytes(b"34200.004241176,8,16113575,18,5853300,1\n") is None
    assert recognise_bytes(b"5859400,200,5853300,18,9999999999,0,-9999999999,0\r\n") == LOBSTER_IMAGE
    message = {"type": "open", "sequence": 1, "product_id": "BTC-USD"}
    assert recognise_bytes(json.dumps([message], indent=4).encode()) == "coinbase"
    assert recognise_bytes(json.dumps(message).encode()) == "coinbase"
    assert recognise_bytes(b'{"bids": [["1", "2", "x"]], "asks": [], "sequence": 3}') == BOOK
    assert recognise_bytes(b"") is None
    assert set(HEADS) | {"itch50", "dbn", "lobster", "coinbase", "iex"} == set(FORMATS)


@given(st.binary(max_size=200))
def test_recognition_survives_anything(head: bytes) -> None:
    recognise_bytes(head)


def test_inputs_of_two_formats_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(HEADS["tardis"])
    (tmp_path / "b").write_bytes(b"34200.1,1,1,18,5853300,1\n")
    with pytest.raises(UsageError, match="different formats"):
        open_feed([tmp_path / "a", tmp_path / "b"])
    # in a folder too: nobody said which one is meant
    with pytest.raises(UsageError, match="different formats"):
        open_feed([tmp_path])


def test_what_else_lies_in_a_folder_is_left_out_with_a_notice(tmp_path: Path) -> None:
    (tmp_path / "README.txt").write_bytes(b"about these files")
    (tmp_path / "X_2012-06-21_34200000_57600000_message_1.csv").write_bytes(b"34200.1,1,1,18,5853300,1\n")
    feed = open_feed([tmp_path])
    assert feed.notices[0] == "left out, not lobster: README.txt"
    assert feed.format == "lobster"


def test_a_book_image_is_no_feed(tmp_path: Path) -> None:
    (tmp_path / "book.json").write_bytes(b'{"bids": [], "asks": [], "sequence": 3}')
    with pytest.raises(UsageError, match="--snapshot"):
        open_feed([tmp_path / "book.json"])


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("S123019-v50.txt", "2019-12-30"),
        ("12302019.NASDAQ_ITCH50", "2019-12-30"),
        ("AAPL_2012-06-21_34200000_57600000_message_10.csv", "2012-06-21"),
        ("esh4-glbx-mdp3-20231225.mbo.dbn", "2023-12-25"),
        ("ex20101224.TEST_ITCH_50", "2010-12-24"),
        ("sample.itch", None),
        ("order_18258361_99999999.csv", None),
    ],
)
def test_session_dates_in_names(name: str, day: str | None) -> None:
    found = session_day(name, None)
    assert (found and found.isoformat()) == day
    assert str(session_day(name, "2024-01-02")) == "2024-01-02"


def test_midnight_in_new_york_follows_summer_time() -> None:
    hour = 3600 * 10**9
    utc = 15_512 * 24 * hour  # 2012-06-21
    assert session_midnight("x_2012-06-21.csv", None, []) == utc + 4 * hour
    assert session_midnight("x", "20191230", []) == 18_260 * 24 * hour + 5 * hour
    notices: list[str] = []
    assert session_midnight("x", None, notices) == 5 * hour
    assert notices == [NO_DATE]
    with pytest.raises(UsageError, match=r"30\.12\.2019"):
        session_day("x", "30.12.2019")
    assert midnight_ns(date(2024, 3, 11)) - midnight_ns(date(2024, 3, 10)) == 23 * hour


@given(st.integers(-(10**17), 10**17), st.integers(0, 9))
def test_decimals_are_exact(value: int, exp: int) -> None:
    text = from_units(value, exp)
    assert Decimal(text) == Decimal(value).scaleb(-exp)
    assert to_units(text, exp) == value
    assert to_units(text + ("0" if "." in text else ".0"), exp) == value


def test_decimals_refuse_what_they_cannot_hold() -> None:
    assert to_units("1E-8", 8) == 1
    assert to_units("2.5e3", 8) == 250_000_000_000
    assert to_units("0.1234567800000", 8) == 12_345_678
    for text in ("", "-", "1_000", " 1", "0x10", "nan", "1.2.3", "0.123456789", "1e-9", "\u0663"):
        with pytest.raises(ValueError, match=r".*"):
            to_units(text, 8)


def test_iso_times_are_exact() -> None:
    assert iso_ns("1970-01-02T00:00:01Z") == 86_401 * 10**9
    assert iso_ns("2018-07-13T20:47:11.025000Z") == 1_531_514_831_025_000_000
    assert iso_ns("2018-07-13T20:47:11.123456789+00:00") == 1_531_514_831_123_456_789
    for text in ("", "2018-07-13", "2018-07-13T20:47:11+02:00", "2018-07-13T20:47:11.x", "2018-13-13T20:47:11Z"):
        with pytest.raises(ValueError, match=r".*"):
            iso_ns(text)


def test_interned_ids_are_dense_and_come_back() -> None:
    ids = Interner()
    assert [ids.intern(x) for x in ("a", "b", "a")] == [1, 2, 1]
    assert (ids.handle("b"), ids.handle("c")) == (2, 0)
    ids.forget("a")
    assert (ids.label(1), ids.label(2), ids.label(77), len(ids)) == ("a", "b", "77", 1)
    assert ids.intern("a") == 3


@pytest.mark.realdata
def test_every_recording_is_recognised(data_dir: Path) -> None:
    expected = {
        "coinbase_l3_2018": {"coinbase", BOOK},
        "databento_cme_es": {"dbn"},
        "lobster_amzn_aapl": {"lobster", LOBSTER_IMAGE},
        "nasdaq_itch50_sod": {"itch50"},
        "ritch_test_itch50": {"itch50"},
        "iex_test_captures": {"iex"},
        "binance_btc_2024": {"binance"},
        "bitstamp_l3_2026": {"bitstamp"},
        "bybit_ob500_2024": {"bybit"},
        "cryptofeed_raw": {"cryptofeed"},
        "tardis_csv_samples": {"tardis"},
    }
    for folder, kinds in expected.items():
        assert {recognise(s) for s in find_sources([data_dir / folder])} - {None} == kinds, folder


@pytest.mark.realdata
def test_captures_of_other_protocols_are_not_taken_for_itch(data_dir: Path) -> None:
    taken = {s.path.parent.name for s in find_sources([data_dir / "omi_packets"]) if recognise(s) == "itch50"}
    sure = {n for n in taken if n.startswith("Nasdaq.Equities.TotalView")}
    # a heartbeat alone cannot tell; another venue's message has the type and the length of ours
    assert len(sure) == 2
    assert len(taken) <= 6


@pytest.mark.parametrize("spoil", [0, 5])
def test_zstd_streams_that_are_not_read_to_their_end_are_freed(spoil: int, tmp_path: Path) -> None:
    path = tmp_path / "day.zst"
    whole = pa.compress(random.Random(1).randbytes(1 << 20), "zstd", asbytes=True)
    path.write_bytes(whole[: len(whole) // 2] + bytes(spoil) + whole[len(whole) // 2 :])
    gc.collect()
    before = pa.total_allocated_bytes()
    for _ in range(5):
        source = Source(path)
        assert len(source.head(100)) == 100
        for _piece in source.stream():
            pass
    assert pa.total_allocated_bytes() == before
