"""371 real packets of 66 protocols: decoded where there is a decoder, refused in one sentence elsewhere."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path
from typing import Any

import dpkt
import pytest

from microrisk.core import Engine
from microrisk.errors import FeedError, UsageError
from microrisk.feed import open_feed
from microrisk.spec.iex import IEX

pytestmark = pytest.mark.realdata

ITCH = {"A": 42, "F": 7, "E": 6, "C": 5, "X": 5, "D": 7, "U": 6, "P": 5}
ITCH |= {"Q": 5, "I": 6, "H": 6, "Y": 5, "L": 6, "J": 5, "S": 1}
DECODED = {
    "Nasdaq.Equities.TotalView.Itch.v5.0": "itch50",
    "Nasdaq.Equities.TotalView.Itch.v5.0.20230822": "itch50",
    "Deep.IexTp.v1.0": "iex",
    "DeepPlus.IexTp.1.0.2": "iex",
    "Tops.IexTp.v1.5": "iex",  # the files carry message protocol 0x8003, which is TOPS 1.6
    "Tops.IexTp.v1.6": "iex",
}
MISPLACED = "StockTradingActionMessage.pcap"
"""Lies under Memx, but is a Nasdaq packet: session 000010059B, group 233.54.12.111, a trading action of HYG."""


def files(data_dir: Path) -> list[Path]:
    found = sorted((data_dir / "omi_packets").rglob("*.pcap"))
    assert len(found) == 371
    return found


def replayed(path: Path) -> tuple[Any, dict[str, int]]:
    feed, engine = open_feed([path]), Engine()
    while feed.pump(engine):
        pass
    engine.finish()
    return feed, {k: n for k, n in engine.integrity().items() if n}


def outcome(path: Path) -> str:
    """Format and findings, or the error that a user sees."""
    try:
        feed, found = replayed(path)
    except UsageError as why:
        return "unknown" if "is not known; name one with --format" in str(why) else str(why)
    except FeedError as why:
        return f"{type(why).__name__}: {why}"
    assert not {"malformed", "unknown_type", "crossed", "over_execute"} & set(found), path
    return str(feed.format)


def test_every_file_is_decoded_or_refused(data_dir: Path) -> None:
    odd = {}
    for path in files(data_dir):
        expected = DECODED.get(path.parent.name, "unknown")
        if (got := outcome(path)) != expected:
            odd[f"{path.parent.parent.name}/{path.name}"] = got
    assert odd == {
        # a heartbeat holds no message
        "Iex/Heartbeat.pcap": "FeedError: the input holds no whole iex message",
        f"Memx/{MISPLACED}": "itch50",
    }


def test_itch_counts(data_dir: Path) -> None:
    counts: Counter[str] = Counter()
    findings: Counter[str] = Counter()
    for path in files(data_dir):
        if path.parent.name.startswith("Nasdaq.Equities.TotalView"):
            feed, found = replayed(path)
            counts.update(feed._decoder.counts())
            findings.update(found)
    assert counts == ITCH
    assert sum(counts.values()) == 117
    # single packets: orders were added elsewhere; one file holds packets of one session with others between them
    assert set(findings) == {"unknown_order", "gap"}
    assert findings["unknown_order"] == 4 + 5 * 5


def iex_types(path: Path) -> Counter[str]:
    """Messages by type through dpkt and by hand; the files hold Ethernet, IPv4 and UDP."""
    out: Counter[str] = Counter()
    with path.open("rb") as file:
        for _, frame in dpkt.pcap.Reader(file):
            payload = bytes(dpkt.ethernet.Ethernet(frame).data.data.data)
            (count,) = struct.unpack_from("<H", payload, 14)
            at = 40
            for _ in range(count):
                (size,) = struct.unpack_from("<H", payload, at)
                out[chr(payload[at + 2])] += 1
                at += 2 + size
            assert at == len(payload)
    return out


def test_iex_counts(data_dir: Path) -> None:
    seen: Counter[str] = Counter()
    for path in sorted((data_dir / "omi_packets" / "Iex").rglob("*.pcap")):
        if path.name in ("Heartbeat.pcap", "all_message_types.pcap"):
            continue
        feed, found = replayed(path)
        assert feed.counts() == iex_types(path), path
        assert set(found) <= {"unknown_order"}
        assert feed.notices == []
        seen.update(feed.counts())
    # what no recording here has: a cleared book of DEEP+
    types = {m.layout.code for m in IEX}
    assert types - set(seen) == {"C"}


def test_packets_out_of_their_order_are_counted(data_dir: Path) -> None:
    """One file holds the others' packets in the order of their names: behind the latest everything is an old number."""
    path = data_dir / "omi_packets/Iex/DeepPlus.IexTp.1.0.2/all_message_types.pcap"
    feed, found = replayed(path)
    assert (feed.messages, found) == (1, {"duplicate_seq": iex_types(path).total() - 1})


def test_an_iex_folder_is_one_feed(data_dir: Path) -> None:
    """Captures are merged by time; the same packets in several files count once."""
    folder = data_dir / "omi_packets" / "Iex" / "DeepPlus.IexTp.1.0.2"
    feed, found = replayed(folder)
    assert feed.messages == 67 + 66 + 35 + 3 + 1 + 1 + 4 + 1 + 1  # spin, D, E, L, M, R, T, a, B
    total = sum(iex_types(p).total() for p in folder.glob("*.pcap"))
    assert found["duplicate_seq"] == total - feed.messages
    with pytest.raises(UsageError, match="different protocols"):
        open_feed([data_dir / "omi_packets" / "Iex"])
