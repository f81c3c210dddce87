"""Captured sessions: three ways of writing time down, merging with REST answers, damage, bounded memory."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microrisk.feed import capture
from microrisk.feed.capture import (
    BROKEN,
    CUT,
    OPENED,
    RECEIVED,
    RESPONSE,
    SENT,
    Capture,
    Line,
    host_of,
    parse_line,
    query_of,
    seconds_ns,
    split_lines,
)
from microrisk.feed.open import Source
from microrisk.spec.units import NULL_TS

SESSION = """wss://ws.kraken.com/x <-> 1618678132.3858151
wss://ws.kraken.com/x <- 1618678132.8253062: {"event":"subscribe"}
1618678132.5: {"a":1}

1618678133.25: {"a": 2, "text": "one: two"}
"""
ANSWERS = """https://api.x.com/depth?symbol=A&limit=5 -> 1618678132.9: {"lastUpdateId":1}
https://api.x.com/depth?symbol=B -> 1618678133.25: {"lastUpdateId":2}
"""


def put(path: Path, text: str | bytes) -> Source:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Source(path)


def lines_of(*sources: Source, beside: bool = True) -> list[Line]:
    return [line for batch in Capture(sources, beside=beside).batches() for line in batch]


def test_cryptofeed_lines(tmp_path: Path) -> None:
    lines = lines_of(put(tmp_path / "a", SESSION))
    assert [line.kind for line in lines] == [OPENED, SENT, RECEIVED, RECEIVED]
    assert [line.number for line in lines] == [1, 2, 3, 5]
    assert [line.ts_recv for line in lines] == [
        1618678132385815100,
        1618678132825306200,
        1618678132500000000,
        1618678133250000000,
    ]
    assert lines[3].body == b'{"a": 2, "text": "one: two"}'
    assert {line.url for line in lines} == {"wss://ws.kraken.com/x"}
    assert Capture([Source(tmp_path / "a")]).url == "wss://ws.kraken.com/x"


def test_time_is_taken_from_its_text() -> None:
    # the float of this text is 1633998512.0633568764 and would give ...356876
    assert seconds_ns(b"1633998512.0633569") == 1633998512063356900
    assert seconds_ns(b"1633998512") == 1633998512000000000


@given(st.integers(0, 2**63 - 1), st.integers(0, 9))
def test_seconds_of_any_length(ns: int, cut: int) -> None:
    ns -= ns % 10**cut
    text = f"{ns // 10**9}.{ns % 10**9:09d}"[: -cut or None].rstrip(".")
    assert seconds_ns(text.encode()) == ns


@pytest.mark.parametrize(
    "text", [b"", b".", b"1.", b".5", b"-1.5", b"1e9", b"1.1234567890", b"99999999999", b"9999999999"]
)
def test_other_times_are_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"time|later"):
        seconds_ns(text)


def test_ns_lines_and_bare_json(tmp_path: Path) -> None:
    text = '1723161256172216566 {"a":1}\n{"b":2}\r\n[1, 2]\n'
    lines = lines_of(put(tmp_path / "a", text))
    assert [line.ts_recv for line in lines] == [1723161256172216566, NULL_TS, NULL_TS]
    assert [line.body.strip() for line in lines] == [b'{"a":1}', b'{"b":2}', b"[1, 2]"]
    assert Capture([Source(tmp_path / "a")]).url == ""


@pytest.mark.parametrize(
    "text",
    [
        b"hello",
        b"17231612561722165 {}",
        b"99999999999999999999 {}",
        b"1618678132.5:",
        b"1618678132.x: {}",
        b"https://x.com -> 1.5",
        b"https://x.com => 1.5: {}",
        b'"text"',
        b"\xff\xfe\x00",
    ],
)
def test_broken_lines_are_handed_out_with_their_place(text: bytes) -> None:
    line = parse_line(text, 7, 5, "u", "file")
    assert (line.kind, line.number, line.ts_recv, line.place) == (BROKEN, 7, 5, "file")
    assert line.body


def test_answers_beside_the_session_are_merged_by_time(tmp_path: Path) -> None:
    session = put(tmp_path / "V.ws.1.0.gz", gzip.compress(SESSION.encode()))
    put(tmp_path / "V.http.0.0.xz", lzma.compress(ANSWERS.encode()))
    put(tmp_path / "W.http.0.0", ANSWERS)
    lines = lines_of(session)
    assert [line.kind for line in lines] == [OPENED, SENT, RECEIVED, RESPONSE, RESPONSE, RECEIVED]
    assert lines[3].url == "https://api.x.com/depth?symbol=A&limit=5"
    assert Capture([session]).found == ["V.http.0.0"]
    assert len(lines_of(session, beside=False)) == 4


def test_answers_given_too_are_read_once(tmp_path: Path) -> None:
    session, answers = put(tmp_path / "V.ws.1.0", SESSION), put(tmp_path / "V.http.0.0", ANSWERS)
    assert lines_of(answers, session) == lines_of(session)
    assert [line.kind for line in lines_of(answers)] == [RESPONSE, RESPONSE]


def test_files_that_continue_each_other_count_on(tmp_path: Path) -> None:
    lines = lines_of(put(tmp_path / "a", '{"a":1}\n{"a":2}'), put(tmp_path / "b", '{"a":3}\n'))
    assert [(line.number, line.place) for line in lines] == [(1, "a"), (2, "a"), (3, "b")]


def test_a_cut_stream_keeps_whole_lines(tmp_path: Path) -> None:
    text = b"".join(b'{"a":%d}\n' % (i * 7919) for i in range(5000))
    whole = lines_of(put(tmp_path / "a.gz", gzip.compress(text)))
    cut = lines_of(put(tmp_path / "b.gz", gzip.compress(text)[:-2000]))
    assert cut[-1].kind == CUT
    assert b"breaks off" in cut[-1].body
    assert 0 < len(cut) - 1 < len(whole)
    assert [line.body for line in cut[:-1]] == [line.body for line in whole[: len(cut) - 1]]


def test_an_endless_line_costs_no_more_than_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "PIECE", 1 << 16)
    monkeypatch.setattr(capture, "MAX_LINE", 100_000)
    long = b"x" * 100_001
    text = b'{"a":1}\n' + long + b'\n{"a":2}\n' + long * 10 + b'\n{"a":3}\n' + long[1:] + b"\n"
    found = list(split_lines(put(tmp_path / "a", text).stream()))
    assert found == [b'{"a":1}', None, b'{"a":2}', None, b'{"a":3}', long[1:]]
    assert [line.kind for line in lines_of(Source(tmp_path / "a"))] == [
        RECEIVED,
        BROKEN,
        RECEIVED,
        BROKEN,
        RECEIVED,
        BROKEN,
    ]


def test_urls() -> None:
    assert host_of("wss://stream.binance.com:9443/stream?x=1") == "stream.binance.com"
    assert query_of("https://x.com/depth?symbol=A&limit=5") == {"symbol": ["A"], "limit": ["5"]}
    assert [host_of(u) for u in ("", "nothing", "wss://[broken")] == ["", "", ""]
    assert query_of("wss://[broken?symbol=A") == {}


def test_batches_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "BATCH_LINES", 10)
    captured = Capture([put(tmp_path / "a", '{"a":1}\n' * 25)])
    assert [len(batch) for batch in captured.batches()] == [10, 10, 5]
    assert captured.progress == 1.0
