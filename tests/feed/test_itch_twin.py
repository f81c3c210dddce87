"""ITCH 5.0: the naive decoder against golden bytes and the encoder, and the C++ decoder against the naive one."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from microrisk.core import ItchDecoder
from microrisk.errors import EncodeError, FeedError
from microrisk.feed.encode import encode_message, frame, unframe
from microrisk.feed.reference import ALL_INSTRUMENTS, ReferenceDecoder, decode_message, to_events
from microrisk.spec.messages import ITCH, ITCH_BY_CODE, Field, Message
from microrisk.spec.records import EVENT, Action, Flag, TradingState
from microrisk.spec.units import NULL_TS

GOLDEN = Path(__file__).parents[1] / "golden"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-"


# -- random messages ----------------------------------------------------------------------------------------------


def field_values(field: Field) -> st.SearchStrategy[int | str]:
    if field.name == "side":
        return st.sampled_from("BS")
    if field.name in ("state", "event", "printable"):
        return st.sampled_from("HPQTOSMECYN")
    if field.kind == "u":
        return st.integers(0, (1 << 8 * field.size) - 1)
    if field.kind == "c":
        return st.sampled_from(LETTERS + " ")
    return st.text(LETTERS, max_size=field.size)


def message_fields(spec: Message) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {f.name: st.just(spec.code) if f.name == "type" else field_values(f) for f in spec.fields}
    )


any_fields = st.sampled_from(ITCH).flatmap(message_fields)
messages = any_fields.map(lambda f: encode_message(str(f["type"]), **f))


@given(any_fields)
@settings(max_examples=400)
def test_every_type_comes_back_from_its_bytes(fields: dict[str, Any]) -> None:
    data = encode_message(str(fields["type"]), **fields)
    assert len(data) == ITCH_BY_CODE[str(fields["type"])].length
    assert decode_message(data) == fields


@pytest.mark.parametrize("spec", ITCH, ids=lambda m: m.name)
def test_one_byte_more_or_less_is_refused(spec: Message) -> None:
    data = encode_message(spec.code, **{f.name: 1 if f.kind == "u" else "B" * f.size for f in spec.fields[1:]})
    for wrong in (data[:-1], data + b"\0"):
        with pytest.raises(FeedError, match=f"{spec.length} bytes"):
            decode_message(wrong)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shares", 1 << 32),
        ("shares", -1),
        ("price", 1 << 32),
        ("side", "BB"),
        ("stock", "NINECHARS"),
        ("stock", "é"),
        ("ref", "1"),
    ],
)
def test_a_value_out_of_range_is_named(field: str, value: Any) -> None:
    good = {"locate": 1, "tracking": 0, "timestamp": 0, "ref": 1, "side": "B", "shares": 1, "stock": "A", "price": 1}
    encode_message("A", **good)
    with pytest.raises(EncodeError, match=field) as caught:
        encode_message("A", **(good | {field: value}))
    assert caught.value.field == field
    assert caught.value.value == value


def test_missing_surplus_and_unknown_are_refused() -> None:
    with pytest.raises(EncodeError, match="locate"):
        encode_message("D", tracking=0, timestamp=0, ref=1)
    with pytest.raises(EncodeError, match="price"):
        encode_message("D", locate=1, tracking=0, timestamp=0, ref=1, price=3)
    with pytest.raises(EncodeError, match="type"):
        encode_message("Z", locate=1)


# -- golden bytes -------------------------------------------------------------------------------------------------


def test_golden_file_is_the_described_one() -> None:
    (facts,) = json.loads((GOLDEN / "metadata.json").read_text())
    data = (GOLDEN / facts["file"]).read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (facts["size"], facts["sha256"])


def golden() -> bytes:
    return (GOLDEN / "itch_all_types.bin").read_bytes()


def test_golden_fields() -> None:
    decoded = {m[:1].decode(): decode_message(m) for m in unframe(golden()[:-2])}
    assert set(decoded) == set(ITCH_BY_CODE)
    assert decoded["R"]["stock"] == "MSFT"
    assert decoded["R"]["etp_flag"] == "N"
    assert decoded["V"]["level3"] == 385_900_000_001
    assert decoded["A"] == {
        "type": "A",
        "locate": 5432,
        "tracking": 10,
        "timestamp": 34_200_000_000_010,
        "ref": 0x0123456789ABCDEF,
        "side": "B",
        "shares": 300,
        "stock": "MSFT",
        "price": 3_310_700,
    }
    assert decoded["F"]["mpid"] == "NITE"
    assert (decoded["C"]["printable"], decoded["C"]["price"], decoded["C"]["match"]) == ("N", 3_310_950, 9_000_002)
    assert decoded["Q"]["shares"] == 5_000_000_000
    assert (decoded["I"]["near"], decoded["I"]["variation"]) == (3_310_500, "L")
    assert decoded["O"]["upper_collar"] == 220_000
    assert (decoded["K"]["release_time"], decoded["K"]["ipo_price"]) == (37_800, 215_000)
    assert (decoded["J"]["lower"], decoded["J"]["extension"]) == (204_300, 2)


def test_golden_events() -> None:
    events = to_events(golden(), midnight_ns=10**18)
    by_seq = {int(e["seq"]): e for e in events}
    assert len(events) == 11
    add, executed, priced, replaced = by_seq[11], by_seq[13], by_seq[14], by_seq[16]
    assert (add["action"], add["side"], add["qty"], add["px"]) == (Action.ADD, 1, 300, 3_310_700)
    assert add["ts_event"] == 10**18 + 34_200_000_000_010
    assert (executed["flags"], executed["qty"], executed["ref"]) == (Flag.LAST | Flag.EXEC, 100, 9_000_001)
    assert priced["flags"] == Flag.LAST | Flag.EXEC | Flag.NO_PRINT
    assert (replaced["order_id"], replaced["ref"], replaced["qty"]) == (0x0123456789ABCDEF, 1_000_003, 180)
    assert by_seq[1]["instrument"] == ALL_INSTRUMENTS
    assert by_seq[1]["ref"] == by_seq[3]["ref"] == TradingState.TRADING
    assert by_seq[19]["flags"] == Flag.LAST | Flag.CROSS


# -- C++ against the twin -----------------------------------------------------------------------------------------

COUNTERS = ("messages", "malformed", "unknown_type", "trailing", "ended", "first_ts", "last_ts")


def assert_decoders_agree(data: bytes, *, room: int = 10_000, midnight_ns: int = 0) -> ReferenceDecoder:
    """Both decoders over the same bytes; the C++ one with an output of `room` events a call."""
    naive = ReferenceDecoder(midnight_ns=midnight_ns)
    events, end = naive.decode(data)
    fast = ItchDecoder(midnight_ns=midnight_ns)
    out, offset, got = np.zeros(room, EVENT), 0, [np.zeros(0, EVENT)]
    while True:
        n, new = fast.decode(data, offset, out)
        got.append(out[:n].copy())
        if new == offset and n == 0:
            break
        offset = new
    assert offset == end
    np.testing.assert_array_equal(np.concatenate(got), events)
    assert {k: getattr(fast, k) for k in COUNTERS} == {k: getattr(naive, k) for k in COUNTERS}
    assert {k: v for k, v in fast.counts().items() if v} == naive.counts()
    assert fast.symbols() == naive.symbols()
    return naive


def framed_garbage() -> st.SearchStrategy[bytes]:
    """A framed stream with everything that goes wrong: random bodies, wrong lengths, unknown types, odd framing."""
    wrong_length = messages.flatmap(lambda m: st.sampled_from([m[:-1], m + b"x", m[:1], m + m]))
    unknown = st.binary(min_size=1, max_size=60).map(lambda b: b"z" + b)
    zero = messages.map(lambda m: b"\0\0" + m)
    framed = st.one_of(messages, wrong_length, unknown, st.binary(min_size=1, max_size=60)).map(lambda m: frame([m]))
    return st.lists(st.one_of(framed, zero), max_size=25).map(b"".join)


def test_golden_bytes_in_both() -> None:
    naive = assert_decoders_agree(golden(), midnight_ns=1_234)
    assert naive.counts() == dict.fromkeys(ITCH_BY_CODE, 1)
    assert naive.ended


@given(st.lists(messages, max_size=40), st.booleans(), st.integers(1, 9), st.integers(0, 2**60))
@settings(max_examples=150)
def test_good_streams_in_both(parts: list[bytes], end_mark: bool, room: int, midnight_ns: int) -> None:
    naive = assert_decoders_agree(frame(parts, end_mark=end_mark), room=room, midnight_ns=midnight_ns)
    assert naive.messages == len(parts)
    assert naive.malformed == naive.unknown_type == 0


@given(framed_garbage(), st.binary(max_size=40))
@example(b"", b"")
@example(b"\0", b"")
@example(b"\0\0", b"")
@example(b"\0\0\0", b"")
@example(b"\0\0A", b"")
@example(b"\0\1", b"A")
@example(b"\0\0", b"\0\0\0\0rest")
@example(b"\xff\xff", b"short")
@settings(max_examples=400)
def test_damaged_streams_in_both(data: bytes, tail: bytes) -> None:
    assert_decoders_agree(data + tail)


@given(st.lists(messages, min_size=1, max_size=6), st.data())
@settings(max_examples=150)
def test_a_cut_stream_stops_before_the_incomplete_message(parts: list[bytes], data: st.DataObject) -> None:
    whole = frame(parts)
    cut = data.draw(st.integers(0, len(whole) - 1))
    naive = ReferenceDecoder()
    _, end = naive.decode(whole[:cut])
    assert_decoders_agree(whole[:cut])
    assert naive.messages < len(parts)
    assert naive.decode(whole, end)[1] == len(whole)
    assert naive.messages == len(parts)


@given(framed_garbage(), st.lists(st.integers(1, 60), min_size=1, max_size=30), st.booleans())
@settings(max_examples=200)
def test_pieces_of_any_size_make_no_difference(data: bytes, pieces: list[int], end_mark: bool) -> None:
    """Both decoders over a growing buffer, as from a socket: what is not consumed comes again with the next piece."""
    data += b"\0\0" * end_mark
    naive, fast, whole = ReferenceDecoder(), ItchDecoder(), ReferenceDecoder()
    expected, _ = whole.decode(data)
    rest, at, got, out = b"", 0, [np.zeros(0, EVENT)], np.zeros(100, EVENT)
    for size in [*pieces, len(data)]:
        rest, at = rest + data[at : at + size], at + size
        events, end = naive.decode(rest)
        n, offset = fast.decode(rest, 0, out)
        assert offset == end
        np.testing.assert_array_equal(out[:n], events)
        got.append(events)
        rest = rest[end:]
    np.testing.assert_array_equal(np.concatenate(got), expected)
    assert {k: getattr(naive, k) for k in COUNTERS} == {k: getattr(whole, k) for k in COUNTERS}
    assert {k: getattr(fast, k) for k in COUNTERS} == {k: getattr(whole, k) for k in COUNTERS}


@given(st.lists(st.tuples(messages, st.integers(1, 2**64 - 1), st.integers(0, 2**62)), max_size=20))
@settings(max_examples=100)
def test_bare_messages_in_both(parts: list[tuple[bytes, int, int]]) -> None:
    naive, fast, out = ReferenceDecoder(midnight_ns=5), ItchDecoder(midnight_ns=5), np.zeros(1, EVENT)
    for data, seq, ts_recv in parts:
        expected = naive.message(data, seq, ts_recv)
        n = fast.message(data, seq, ts_recv, out)
        np.testing.assert_array_equal(out[:n], expected)
    assert fast.messages == naive.messages == len(parts)


@given(st.binary(max_size=60))
@settings(max_examples=150)
def test_bare_garbage_in_both(data: bytes) -> None:
    naive, fast, out = ReferenceDecoder(), ItchDecoder(), np.zeros(1, EVENT)
    assert fast.message(data, 1, NULL_TS, out) == len(naive.message(data, 1, NULL_TS))
    assert (fast.malformed, fast.unknown_type) == (naive.malformed, naive.unknown_type)


def test_each_wrong_length_of_each_type_is_malformed_and_skipped() -> None:
    good = encode_message("D", locate=1, tracking=0, timestamp=7, ref=9)
    for spec in ITCH:
        for length in (1, spec.length - 1, spec.length + 1, 200):
            bad = spec.code.encode() + bytes(length - 1)
            naive = assert_decoders_agree(frame([bad, good]))
            assert (naive.malformed, naive.counts()) == (1, {"D": 1})


def test_zero_length_before_a_known_type_is_framing_else_the_end() -> None:
    message = encode_message("D", locate=1, tracking=0, timestamp=7, ref=9)
    assert assert_decoders_agree((b"\0\0" + message) * 3).messages == 3
    ended = assert_decoders_agree(frame([message]) + b"\0\0" + b"?" + frame([message]))
    assert (ended.messages, ended.ended, ended.trailing) == (1, True, 1 + 2 + len(message))
    assert struct.unpack(">H", frame([message])[:2]) == (19,)
