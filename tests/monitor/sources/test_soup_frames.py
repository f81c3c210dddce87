"""SoupBinTCP packets, from bytes built here, cut anywhere."""

from __future__ import annotations

import struct
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_sink import blocks

from microrisk.errors import EncodeError, FeedError
from microrisk.monitor.sources.soup_frames import (
    MOST_FRAME,
    Frames,
    login_accepted,
    login_rejected,
    login_request,
    pack,
)

PACKETS = st.lists(
    st.tuples(st.sampled_from([b"S", b"S", b"S", b"+", b"U", b"H", b"Z", b"?"]), st.binary(max_size=60)), max_size=60
)


def wire(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">H", 1 + len(payload)) + kind + payload


def taken(frames: Frames, data: bytes, cuts: list[int]) -> list[tuple[bytes, bytes]]:
    """Packets one by one, runs taken apart."""
    out = []
    edges = [0, *sorted(c % (len(data) + 1) for c in cuts), len(data)]
    for a, b in pairwise(edges):
        for packet in frames.take(data[a:b]):
            if packet.kind == b"S":
                got = blocks(packet.body)
                assert len(got) == packet.messages
                assert packet.body[packet.last + 2 :] == got[-1]
                out += [(b"S", m) for m in got]
            else:
                out.append((packet.kind, packet.body))
    return out


@given(PACKETS, st.lists(st.integers(0, 10_000), max_size=20), st.sampled_from([1, 40, 200, 65536]))
def test_packets_come_out_whole_however_the_stream_is_cut(
    packets: list[tuple[bytes, bytes]], cuts: list[int], most: int
) -> None:
    frames = Frames(most)
    assert taken(frames, b"".join(wire(*p) for p in packets), cuts) == packets
    assert frames.pending == 0


@given(PACKETS, st.binary(max_size=20))
def test_a_length_of_zero_ends_the_stream_behind_what_was_whole(
    packets: list[tuple[bytes, bytes]], rest: bytes
) -> None:
    got: list[int] = []
    stream = Frames().take(b"".join(wire(*p) for p in packets) + b"\0\0" + rest)
    with pytest.raises(FeedError, match="length 0"):
        got.extend(packet.messages for packet in stream)
    assert sum(got) == len(packets)


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=200))
def test_runs_keep_their_limit(sizes: list[int]) -> None:
    data = b"".join(wire(b"S", b"x" * n) for n in sizes)
    runs = list(Frames(4096).take(data))
    assert sum(r.messages for r in runs) == len(sizes)
    assert all(len(r.body) <= 4096 or r.messages == 1 for r in runs)


def test_a_partial_packet_is_bounded() -> None:
    frames = Frames()
    big = wire(b"S", b"y" * 65534)
    assert len(big) == MOST_FRAME
    assert list(frames.take(big[:-1])) == []
    assert frames.pending == MOST_FRAME - 1
    (run,) = frames.take(big[-1:])
    assert run.body == struct.pack(">H", 65534) + b"y" * 65534


def test_a_million_messages_take_well_under_a_second() -> None:
    data = (wire(b"S", b"A" + bytes(35)) + wire(b"S", b"F" + bytes(39))) * 50_000
    frames, n, begun = Frames(1 << 20), 0, time.process_time()
    for at in range(0, len(data), 1 << 18):
        n += sum(p.messages for p in frames.take(data[at : at + (1 << 18)]))
    spent = time.process_time() - begun
    assert n == 100_000
    # 0.2 s for ten times as many on a quiet machine; the tests' machine is not quiet
    assert spent < 0.5


def test_the_bytes_of_a_login() -> None:
    plain = login_request("me", "pw", "S1", 42)
    assert plain == b"\0\x2fLme    pw                S1                  42"
    assert len(plain) == 49
    newer = login_request("me", "pw", "", 0, timeout_ms=15000)
    assert len(newer) == 54
    assert newer.endswith(b"                   015000")
    assert pack(b"R") == b"\0\1R"


def test_a_password_is_never_in_an_error() -> None:
    with pytest.raises(EncodeError) as caught:
        login_request("me", "much too long", "", 1)
    assert "much" not in str(caught.value)
    with pytest.raises(EncodeError, match="user"):
        login_request("toolonguser", "pw", "", 1)


def test_answers_to_a_login() -> None:
    assert login_accepted(b"        S1" + b"7".rjust(20)) == (b"S1        ", 7)
    for bad in (b"", b"        S1" + b"x".rjust(20), b"        S1" + b"9" * 20 + b"9", b" " * 30):
        with pytest.raises(FeedError):
            login_accepted(bad)
    assert "authorised" in login_rejected(b"A")
    assert "session" in login_rejected(b"S")
    assert "b'Q'" in login_rejected(b"Q")
