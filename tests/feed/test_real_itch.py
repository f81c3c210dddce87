"""Real ITCH bytes in both decoders: counts as in the descriptions that came with the recordings."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from microrisk.book import same_books, state_hash
from microrisk.book.reference import ReferenceEngine
from microrisk.core import Engine, ItchDecoder
from microrisk.feed.mold import MoldCounters, iter_messages
from microrisk.feed.pcap import CaptureCounters, iter_packets
from microrisk.feed.reference import ReferenceDecoder, decode_message, is_well_formed
from microrisk.spec.messages import ITCH_BY_CODE
from microrisk.spec.records import EVENT

pytestmark = pytest.mark.realdata

START_OF_DAY = {"S": 1, "R": 993, "H": 3, "Y": 3}
RITCH = {"S": 6, "R": 3, "H": 3, "A": 4997, "F": 3, "E": 198, "D": 1745, "P": 5000, "U": 12, "X": 45}
PACKETS = {"A": 42, "F": 7, "E": 6, "C": 5, "X": 5, "D": 7, "U": 6, "P": 5}
PACKETS |= {"Q": 5, "I": 6, "H": 6, "Y": 5, "L": 6, "J": 5, "S": 1}


def both(data: bytes) -> ReferenceDecoder:
    naive, fast = ReferenceDecoder(), ItchDecoder()
    events, end = naive.decode(data)
    out = np.zeros(len(events) + 1, EVENT)
    n, offset = fast.decode(data, 0, out)
    assert offset == end == len(data)
    np.testing.assert_array_equal(out[:n], events)
    assert {k: v for k, v in fast.counts().items() if v} == naive.counts()
    assert fast.symbols() == naive.symbols()
    assert fast.malformed == fast.unknown_type == fast.trailing == 0
    return naive


def test_start_of_a_real_day(data_dir: Path) -> None:
    naive = both((data_dir / "nasdaq_itch50_sod/sample.itch").read_bytes())
    assert (naive.messages, naive.counts()) == (1000, START_OF_DAY)
    assert (naive.malformed, naive.unknown_type, naive.trailing) == (0, 0, 0)
    assert len(naive.symbols()) == 993
    assert list(naive.symbols().values())[:4] == ["A", "AA", "AAAU", "AACG"]
    # 03:04:32.057 to 03:09:14.361 in the description, given to the millisecond
    assert abs(naive.first_ts - 11_072_057_000_000) < 10**6
    assert abs(naive.last_ts - 11_354_361_000_000) < 10**6


def test_two_zero_bytes_in_place_of_the_length(data_dir: Path) -> None:
    data = (data_dir / "ritch_test_itch50/ex20101224.TEST_ITCH_50").read_bytes()
    assert data[:2] == b"\0\0"
    naive = both(data)
    assert (naive.messages, naive.counts()) == (12_012, RITCH)
    assert sorted(naive.symbols().values()) == ["ALC", "BOB", "CHAR"]


def test_books_of_a_foreign_file_in_both_engines(data_dir: Path) -> None:
    """Unresolved references, crossed books, odd framing: C++ all the way against Python all the way."""
    data = (data_dir / "ritch_test_itch50/ex20101224.TEST_ITCH_50").read_bytes()
    events = ReferenceDecoder().decode(data)[0][:4000]
    naive, fast = ReferenceEngine(), Engine()
    naive.run_events(events)
    assert fast.run_itch(ItchDecoder(), data, 0, int(events["seq"][-1])) > 0
    assert same_books(fast, naive) is None
    assert fast.integrity() == naive.integrity()
    assert naive.integrity()["unknown_order"] > 0
    ids = [f"I{i}.XNAS" for i in naive.instruments()]
    assert state_hash(fast, ids) == state_hash(naive, ids)


def real_packet_messages(data_dir: Path) -> list[bytes]:
    found = []
    for path in sorted((data_dir / "omi_packets/Nasdaq").glob("Nasdaq.Equities.TotalView.Itch*/*.pcap")):
        counters = MoldCounters()
        found += [bytes(m) for _, _, m in iter_messages(path.read_bytes(), counters)]
        assert (counters.malformed, counters.trailing, counters.duplicate_seq, counters.capture.other) == (0, 0, 0, 0)
    return found


def test_real_packets(data_dir: Path) -> None:
    messages = real_packet_messages(data_dir)
    assert len(messages) == 117
    assert all(is_well_formed(m) for m in messages)
    assert Counter(m[:1].decode() for m in messages) == PACKETS
    naive, fast, out = ReferenceDecoder(), ItchDecoder(), np.zeros(1, EVENT)
    for seq, message in enumerate(messages, 1):
        expected = naive.message(message, seq, seq * 10)
        n = fast.message(message, seq, seq * 10, out)
        np.testing.assert_array_equal(out[:n], expected)
    assert naive.counts() == PACKETS


def test_real_fields_are_plausible(data_dir: Path) -> None:
    """Offsets that are wrong by a byte do not give printable symbols, prices below 200,000 dollars and valid codes."""
    for fields in map(decode_message, real_packet_messages(data_dir)):
        stock = str(fields.get("stock", "A"))
        assert stock.isprintable()
        assert stock
        assert int(fields.get("price", 1)) < 2_000_000_000
        assert (
            int(fields["type"] != "Q") <= int(fields.get("shares", 1)) < 10_000_000
        )  # a cross may have matched nothing
        assert fields.get("printable", "Y") in ("Y", "N")
        assert fields.get("cross_type", "O") in ("O", "C", "H", "I", "A")
        assert int(fields["timestamp"]) < 86_400 * 10**9


def test_types_that_no_real_bytes_cover(data_dir: Path) -> None:
    """The golden file is the only evidence for these; the list shrinks when a recording that has them arrives."""
    covered = set(START_OF_DAY) | {m[:1].decode() for m in real_packet_messages(data_dir)}
    assert sorted(set(ITCH_BY_CODE) - covered) == ["B", "K", "N", "O", "V", "W", "h"]


def test_every_real_capture_opens(data_dir: Path) -> None:
    counters = CaptureCounters()
    files = [p for p in (data_dir / "omi_packets").rglob("*") if p.suffix in (".pcap", ".pcapng")]
    for path in files:
        assert list(iter_packets(path.read_bytes(), counters)), path.name
    assert (len(files), counters.packets, counters.truncated_at) == (371, 476, -1)
