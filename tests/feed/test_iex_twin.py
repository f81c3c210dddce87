"""The C++ reader and decoder of IEX against the naive twin: every event of the samples, and of segments made up."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from iex_bytes import (
    DEEP,
    DEEP_PLUS,
    T0,
    TOPS,
    S,
    add,
    capture,
    clear,
    delete,
    executed,
    level,
    modify,
    others,
    quote,
    segment,
    status,
    trade,
)

from microrisk.book import same_books
from microrisk.book.reference import ReferenceEngine
from microrisk.core import Engine, IexCapture, IexDecoder
from microrisk.feed.iex_reference import to_events
from microrisk.spec.records import EVENT

COUNTERS = ("messages", "malformed", "unknown_type", "synthetic")


def fast(captures: list[bytes], protocol: int, room: int, most: int) -> tuple[np.ndarray, IexCapture, IexDecoder]:
    reader, decoder = IexCapture([memoryview(c) for c in captures], protocol), IexDecoder(protocol)
    parts, more = [np.zeros(0, EVENT)], True
    while more:
        out = np.zeros(room, EVENT)
        n, more = reader.decode(decoder, out, most)
        parts.append(out[:n])
    return np.concatenate(parts), reader, decoder


def both(captures: list[bytes], protocol: int, room: int = 16_384, most: int = 16_384) -> np.ndarray:
    events, reader, decoder = fast(captures, protocol, room, most)
    expected, segments, naive = to_events(captures, protocol)
    np.testing.assert_array_equal(events, expected)
    counters = reader.counters()
    assert {k: counters[k] for k in vars(segments.counters)} == vars(segments.counters)
    assert {k: getattr(decoder, k) for k in COUNTERS} == {k: getattr(naive, k) for k in COUNTERS}
    assert decoder.counts() == naive.counts()
    assert decoder.symbols() == naive.symbols()
    assert not decoder.clearing
    return events


SYMBOLS = st.sampled_from(["A", "BRK.B", "ZVZZT", "12345678", "", " X", "\x7f", "A\0"])
PX = st.sampled_from([0, 1, 99_0000, 100_0000, -5, 2**63 - 1, -(2**63)])
QTY = st.sampled_from([0, 1, 100, 2**32 - 1])
FLAGS = st.integers(0, 255)
SIDE = st.sampled_from("BS?")
ID = st.sampled_from([0, 1, 2, 3, 2**64 - 1])

MESSAGES = st.one_of(
    st.builds(level, SIDE, PX, QTY, symbol=SYMBOLS, complete=st.booleans(), ts=st.sampled_from([T0, 0, -1])),
    st.builds(quote, st.tuples(PX, QTY), st.tuples(PX, QTY), symbol=SYMBOLS),
    st.builds(trade, PX, QTY, st.integers(-1, 5), flags=FLAGS, symbol=SYMBOLS, code=st.sampled_from("TB")),
    st.builds(status, st.sampled_from("HOPT?"), symbol=SYMBOLS),
    st.builds(add, st.sampled_from(["B", "S", "x"]), ID, PX, QTY, symbol=SYMBOLS),
    st.builds(modify, ID, PX, QTY, keep=st.booleans(), symbol=SYMBOLS),
    st.builds(delete, ID, symbol=SYMBOLS),
    st.builds(executed, ID, PX, QTY, flags=FLAGS, symbol=SYMBOLS),
    st.builds(clear, symbol=SYMBOLS),
    st.sampled_from([*others().values()]),
    st.binary(max_size=50),
)
CUTS, TAILS = st.sampled_from([0] * 5 + [1, 9]), st.sampled_from([b"", b"", b"+"])
BLOCKS = st.builds(lambda m, cut, tail: m[: len(m) - cut] + tail, MESSAGES, CUTS, TAILS)
SAMPLES = [("DEEP10.pcap.gz", DEEP, 204_603), ("TOPS16.pcapng.gz", TOPS, 46_076)]
PROTOCOLS = st.sampled_from([TOPS, DEEP, DEEP_PLUS])


@st.composite
def segments(draw: Any, protocol: int) -> list[bytes]:
    """A stream that mostly goes on, with holes, copies, restarts, sessions and damage."""
    out, seq, sent = [], 1, T0
    for _ in range(draw(st.integers(1, 8))):
        messages = draw(st.lists(BLOCKS, max_size=5))
        kind = draw(st.sampled_from(["next"] * 6 + ["hole", "copy", "restart", "odd", "session"]))
        sent += draw(st.sampled_from([1, S, S + 1, 60 * S]))
        more: dict[str, Any] = {"sent": sent, "protocol": protocol, "offset": 0 if draw(st.booleans()) else 9}
        if kind == "hole":
            seq += draw(st.integers(1, 9))
        if kind == "copy":
            seq = max(1, seq - draw(st.integers(1, 9)))
        if kind == "restart":
            seq = 1
        if kind == "session":
            seq, more["session"] = draw(st.integers(1, 3)), draw(st.integers(7, 9))
        if kind == "odd":
            more |= draw(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "version": st.integers(0, 2), "count": st.integers(0, 9), "payload": st.integers(0, 200),
                        "protocol": PROTOCOLS, "channel": st.integers(1, 2),
                        "sent": st.sampled_from([-(2**63), 2**63 - 1, 0]),
                    },
                )
            )  # fmt: skip
            seq = draw(st.sampled_from([seq, 0, 2**63 - 1, 2**62, -1]))
        made = segment(seq, messages, **more)
        out.append(made[: draw(st.sampled_from([len(made)] * 9 + [39, 45]))])
        seq = max(1, min(seq, 2**62)) + len(messages)
    return out


@given(st.data(), PROTOCOLS, st.integers(4, 20), st.integers(1, 9))
@settings(max_examples=150)
def test_made_up_segments(data: Any, protocol: int, room: int, most: int) -> None:
    lines = [capture(data.draw(segments(protocol)), start=T0 + k, step=7) for k in range(data.draw(st.integers(1, 2)))]
    both(lines, protocol, room, most)


@given(st.data(), PROTOCOLS)
@settings(max_examples=100)
def test_damaged_captures(data: Any, protocol: int) -> None:
    whole = bytearray(capture(data.draw(segments(protocol))))
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(24, len(whole) - 1))] = data.draw(st.integers(0, 255))
    both([bytes(whole[: data.draw(st.integers(24, len(whole)))])], protocol)


@given(st.data(), PROTOCOLS)
@settings(max_examples=40)
def test_books_of_both_engines(data: Any, protocol: int) -> None:
    events = both([capture(data.draw(segments(protocol)))], protocol)
    quick, naive = Engine(), ReferenceEngine()
    quick.run_events(events)
    naive.run_events(events)
    assert same_books(quick, naive) is None
    assert quick.integrity() == naive.integrity()


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "protocol", "n"), [("DEEP10.pcap.gz", DEEP, 204_603), ("TOPS16.pcapng.gz", TOPS, 46_076)]
)
def test_every_event_of_the_samples(name: str, protocol: int, n: int, data_dir: Path) -> None:
    data = gzip.decompress((data_dir / "iex_test_captures" / name).read_bytes())
    assert len(both([data], protocol)) == n


@pytest.mark.realdata
def test_every_event_of_single_packets(data_dir: Path) -> None:
    folder = data_dir / "omi_packets" / "Iex"
    for path in sorted(folder.rglob("*.pcap")):
        protocol = {"T": TOPS, "D": DEEP}[path.parent.name[0]]
        both([path.read_bytes()], DEEP_PLUS if path.parent.name.startswith("DeepPlus") else protocol)
