"""The C++ readers of captures and of MoldUDP64 against their naive twins: real captures, and damaged ones."""

from __future__ import annotations

import gzip
import heapq
import struct
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microrisk.core import ItchDecoder, MoldCapture, udp_datagrams
from microrisk.errors import FeedError
from microrisk.feed.mold import HEADER, MAX_GAPS, MoldCounters, MoldReader, capture_bytes, end_of_session, mold_packet
from microrisk.feed.pcap import CaptureCounters, Endpoint, iter_udp, pcap_header, pcap_record
from microrisk.feed.reference import ReferenceDecoder
from microrisk.spec.records import EVENT

T0 = 1_700_000_000_123_456_789


def same_datagrams(data: bytes) -> int:
    """Both readers give the same datagrams and counts; returns how many."""
    counters = CaptureCounters()
    expected = [(d.ts, d.dst, d.port, bytes(d.payload), d.cut) for d in iter_udp(data, counters)]
    got, counts = udp_datagrams(data)
    assert got == expected
    assert counts == asdict(counters)
    return len(got)


def naive_blocks(captures: list[bytes], first: int = 0) -> tuple[list[tuple[int, int, bytes]], MoldCounters]:
    reader = MoldReader(first=first)
    lines = [iter_udp(c, reader.counters.capture if len(captures) == 1 else None) for c in captures]
    out = []
    for d in heapq.merge(*lines, key=lambda d: d.ts):
        out += [(s, t, bytes(m)) for s, t, m in reader.datagram(d.payload, d.ts, cut=d.cut)]
    return out, reader.counters


def same_blocks(captures: list[bytes], first: int = 0) -> list[tuple[int, int, bytes]]:
    """Both readers give the same messages, gaps and counts."""
    expected, counters = naive_blocks(captures, first)
    reader = MoldCapture([memoryview(c) for c in captures], first=first)
    got = [m for part in iter(lambda: reader.blocks(3), []) for m in part]
    assert got == expected
    mine = reader.counters()
    names = [k for k in vars(counters) if k not in ("gaps", "capture", "missing")]
    assert {k: mine[k] for k in names} == {k: getattr(counters, k) for k in names}
    assert mine["missing"] == counters.missing % 2**64
    gaps = [(g[0].decode("latin-1").strip(" \0"), *g[1:]) for g in reader.gaps()]
    assert gaps == [(g.session, g.first, g.count, g.ts_recv) for g in counters.gaps]
    if len(captures) == 1:
        assert reader.captures() == [asdict(counters.capture)]
    assert 0.9 < reader.progress <= 1
    return got


# -- made-up captures ---------------------------------------------------------------------------------------------

NAMES = st.sampled_from([b"SESSION  A", b"SESSION  B", bytes(10)])
SEQUENCES = st.one_of(st.integers(0, 12), st.sampled_from([2**64 - 1, 2**64 - 3, 2**63]))
COUNTS = st.one_of(st.integers(0, 4), st.sampled_from([0xFFFF, 0xFFFE]))


def raw_packet(name: bytes, seq: int, count: int, blocks: list[bytes], tail: bytes) -> bytes:
    return HEADER.pack(name, seq, count) + b"".join(len(b).to_bytes(2, "big") + b for b in blocks) + tail


PACKETS = st.one_of(
    st.builds(
        lambda s, m: mold_packet("SESSION  A", s, m), st.integers(1, 12), st.lists(st.binary(max_size=4), max_size=4)
    ),
    st.builds(raw_packet, NAMES, SEQUENCES, COUNTS, st.lists(st.binary(max_size=4), max_size=4), st.binary(max_size=3)),
    st.binary(max_size=40),
)


def ethernet(payload: bytes) -> bytes:
    return Endpoint().frame(payload)


def ip_only(payload: bytes) -> bytes:
    return ethernet(payload)[14:]


LINKS: dict[int, Callable[[bytes], bytes]] = {
    1: ethernet,
    101: ip_only,
    113: lambda p: bytes(14) + b"\x08\x00" + ip_only(p),
    276: lambda p: b"\x08\x00" + bytes(18) + ip_only(p),
    147: ip_only,
}


def classic(order: str, magic: int, link: int, frames: list[bytes]) -> bytes:
    out = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link)
    for k, frame in enumerate(frames):
        out += struct.pack(order + "IIII", 1_700_000_000 + k // 3, 999_999 * (k % 3), len(frame), len(frame)) + frame
    return out


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    size = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", kind) + size + body + size


def next_generation(order: str, link: int, frames: list[bytes], resolution: int | None, shift: int, kind: int) -> bytes:
    options = b"" if resolution is None else struct.pack(order + "HHBxxx", 9, 1, resolution)
    options += struct.pack(order + "HHqHH", 14, 8, shift, 0, 0) if shift else b""
    out = block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))
    out += block(order, 1, struct.pack(order + "HHI", link, 0, 0) + options)
    for k, frame in enumerate(frames):
        stamp = (1_700_000_000 << 20) + k // 2
        head = {
            6: struct.pack(order + "IIIII", 0, stamp >> 32, stamp & 0xFFFFFFFF, len(frame), len(frame)),
            2: struct.pack(order + "HHIIII", 0, 1, stamp >> 32, stamp & 0xFFFFFFFF, len(frame), len(frame)),
            3: struct.pack(order + "I", len(frame)),
        }[kind]
        out += block(order, kind, head + frame)
    return out


@st.composite
def captures(draw: Any) -> bytes:
    payloads = draw(st.lists(PACKETS, max_size=8))
    link = draw(st.sampled_from([1, 1, 1, *LINKS]))
    frames = [LINKS[link](p) for p in payloads]
    order = draw(st.sampled_from("<>"))
    if draw(st.booleans()):
        return classic(order, draw(st.sampled_from([0xA1B2C3D4, 0xA1B23C4D])), link, frames)
    resolution = draw(st.sampled_from([None, 6, 9, 0, 30, 0x80 | 20, 0xFF, 0x80]))
    shift = draw(st.sampled_from([0, 5, -5, 2**62, -(2**63)]))
    return next_generation(order, link, frames, resolution, shift, draw(st.sampled_from([6, 6, 2, 3])))


@given(captures(), st.integers(0, 3))
@settings(max_examples=300)
def test_made_up_captures(data: bytes, first: int) -> None:
    same_datagrams(data)
    same_blocks([data], first)


@given(captures(), captures())
@settings(max_examples=100)
def test_two_captures_are_merged_by_time(a: bytes, b: bytes) -> None:
    same_blocks([a, b])


@given(captures(), st.data())
@settings(max_examples=400)
def test_damaged_captures(whole: bytes, data: Any) -> None:
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 5))):
        place = data.draw(st.integers(4, len(damaged) - 1))
        damaged[place] = data.draw(st.sampled_from([0, 1, 8, 255, damaged[place] ^ 1, damaged[place] ^ 128]))
    damaged = damaged[: data.draw(st.one_of(st.just(len(damaged)), st.integers(24, len(damaged))))]
    same_datagrams(bytes(damaged))
    same_blocks([bytes(damaged)])


def test_no_capture_is_refused() -> None:
    for data in (b"", b"abc", b"not a capture at all", pcap_header()[:20]):
        with pytest.raises(FeedError) as mine:
            udp_datagrams(data)
        with pytest.raises(FeedError) as naive:
            list(iter_udp(data))
        assert str(naive.value).startswith(str(mine.value))


def test_many_gaps_are_kept_up_to_a_limit() -> None:
    packets = [(T0 + k, mold_packet("A", 1 + 3 * k, [b"x"])) for k in range(MAX_GAPS + 50)]
    packets += [(T0 + 10**9, mold_packet("A", 2, [b"late"] * 2)), (T0 + 10**9, end_of_session("A", 3 * MAX_GAPS + 151))]
    data = b"".join(capture_bytes(packets))
    same_blocks([data])


def test_events_of_a_capture_stop_at_a_gap() -> None:
    itch = b"".join([b"D", b"\0\1", b"\0\0", bytes(6), (7).to_bytes(8, "big")])
    data = b"".join(
        capture_bytes([(T0, mold_packet("A", 1, [itch] * 2)), (T0 + 5, mold_packet("A", 9, [itch, b"", itch]))])
    )
    reader, decoder, out = MoldCapture([memoryview(data)]), ItchDecoder(), np.zeros(10, EVENT)
    assert reader.decode(decoder, out, 100) == (2, True)
    assert reader.counters()["gap"] == 1
    assert reader.decode(decoder, out, 100) == (2, False)
    assert out["seq"][:2].tolist() == [9, 11]
    assert out["ts_recv"][:2].tolist() == [T0 + 5] * 2
    assert decoder.messages == 4
    with pytest.raises(TypeError, match="EVENT"):
        reader.decode(decoder, np.zeros(4), 1)  # type: ignore[arg-type]


@given(st.integers(1, 7), st.integers(1, 7))
def test_the_size_of_the_steps_does_not_matter(room: int, most: int) -> None:
    messages = [b"D\0\1\0\0" + bytes(6) + k.to_bytes(8, "big") for k in range(40)]
    messages[7] = b"S\0\0\0\0" + bytes(6) + b"O"
    packets = [(T0 + k, mold_packet("A", 1 + k * 5, messages[k * 5 : k * 5 + 5])) for k in range(8) if k != 4]
    reader, decoder = MoldCapture([memoryview(b"".join(capture_bytes(packets)))]), ItchDecoder()
    parts, more = [np.zeros(0, EVENT)], True
    while more:
        out = np.zeros(room, EVENT)
        n, more = reader.decode(decoder, out, most)
        parts.append(out[:n])
    naive = ReferenceDecoder()
    blocks, _ = naive_blocks([b"".join(capture_bytes(packets))])
    expected = np.concatenate([naive.message(m, s, t) for s, t, m in blocks])
    np.testing.assert_array_equal(np.concatenate(parts), expected)


def test_a_record_of_a_broken_file_and_of_a_snap_length() -> None:
    frame = Endpoint().frame(mold_packet("A", 1, [b"one", b"two", b"three"]))
    assert [m for _, _, m in same_blocks([pcap_header() + pcap_record(1, frame[:-3])])] == [b"one", b"two"]
    assert [m for _, _, m in same_blocks([pcap_header() + pcap_record(1, frame)[:-3]])] == [b"one", b"two"]
    assert same_datagrams(pcap_header() + pcap_record(1, frame)[:-60]) == 0


# -- real captures ------------------------------------------------------------------------------------------------


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "n"), [("DEEP10.pcap.gz", 121_315), ("TOPS16.pcapng.gz", 13_022)])
def test_real_captures(name: str, n: int, data_dir: Path) -> None:
    assert same_datagrams(gzip.decompress((data_dir / "iex_test_captures" / name).read_bytes())) == n


@pytest.mark.realdata
def test_real_packets_of_every_venue(data_dir: Path) -> None:
    files = sorted((data_dir / "omi_packets").rglob("*.pcap"))
    assert len(files) == 371
    for path in files:
        data = path.read_bytes()
        same_datagrams(data)
        same_blocks([data])


@pytest.mark.realdata
def test_damaged_real_captures(data_dir: Path) -> None:
    """Seeded damage of real bytes: every tenth of a packet's length, and single bytes."""
    random = np.random.default_rng(20_261_122)
    sources = [*(data_dir / "omi_packets/Nasdaq").rglob("Multiple.Packets.pcap")]
    sources += [data_dir / "omi_packets/Iex/DeepPlus.IexTp.1.0.2/all_message_types.pcap"]
    for path in sources:
        whole = path.read_bytes()
        for _ in range(150):
            damaged = bytearray(whole)
            for place in random.integers(4, len(damaged), random.integers(0, 8)):
                damaged[place] = random.integers(256)
            data = bytes(damaged[: random.integers(24, len(damaged) + 1)])
            same_datagrams(data)
            same_blocks([data])
