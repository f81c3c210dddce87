"""IEX captures through the whole feed: transport, each message, restarts, damage, and the published samples."""

from __future__ import annotations

import gzip
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
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

from microrisk.core import Engine
from microrisk.errors import FeedError, UsageError
from microrisk.feed import iex, open_feed
from microrisk.feed.iex_reference import decode_fields
from microrisk.feed.open import Source
from microrisk.feed.pcap import iter_udp
from microrisk.feed.recognise import recognise
from microrisk.spec.features import ALL_MASK, mask
from microrisk.spec.iex import SEGMENT, by_code
from microrisk.spec.records import Action, FeedId, Flag, Integrity, TradingState
from microrisk.spec.units import NULL_PX


def write(path: Path, *segments: bytes) -> Path:
    path.write_bytes(capture(segments))
    return path


def events_of(path: Path) -> np.ndarray:
    return np.concatenate(list(open_feed([path]).events()))


def pumped(feed: Any, engine: Any) -> dict[str, int]:
    while feed.pump(engine):
        pass
    engine.finish()
    return {k: n for k, n in engine.integrity().items() if n}


def one(path: Path, *messages: bytes, protocol: int = DEEP) -> np.ndarray:
    return events_of(write(path, segment(1, messages, protocol=protocol)))


# -- messages -----------------------------------------------------------------------------------------------------


def test_deep_levels(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    messages = [level("B", 99_0000, 300), level("S", 100_0000, 200, complete=False), level("B", 99_0000, 0)]
    got = one(path, *messages)
    assert got["action"].tolist() == [Action.MODIFY] * 3
    assert got["side"].tolist() == [1, -1, 1]
    assert list(zip(got["px"].tolist(), got["qty"].tolist(), strict=True)) == [
        (990000, 300), (1000000, 200), (990000, 0)
    ]  # fmt: skip
    assert got["flags"].tolist() == [Flag.LAST, 0, Flag.LAST]
    assert got["seq"].tolist() == [1, 2, 3]
    assert (got["ts_event"] == T0).all()
    assert (got["ts_recv"] == T0).all()
    assert (got["feed"] == FeedId.IEX).all()
    feed = open_feed([path])
    assert (recognise(Source(path)), feed.format, feed.mask) == ("iex", "iex", mask("l1", "l5", "l10", "trades"))
    engine = Engine()
    assert pumped(feed, engine) == {}
    found = feed.instruments()[0]
    assert (found.id, found.px_exp, found.qty_exp) == ("ABC.IEXG", 4, 0)
    assert engine.levels(0)[1].tolist() == [[1000000, 200]]


def test_a_trade_inside_a_transition_completes_nothing(tmp_path: Path) -> None:
    messages = [trade(10, 1), level("B", 10, 5, complete=False), trade(10, 1), trade(9, 1, symbol="XY"), status("T"),
                level("B", 9, 5), trade(9, 1)]  # fmt: skip
    got = one(tmp_path / "x.pcap", *messages)
    assert [bool(f & Flag.LAST) for f in got["flags"]] == [True, False, False, True, False, True, True]


def test_trades_and_states(tmp_path: Path) -> None:
    messages = [
        trade(123, 45, 678),
        trade(123, 45, 679, flags=0x08),
        status("H"),
        status("P"),
        status("O"),
        status("T"),
        status("?"),
    ]
    got = one(tmp_path / "x.pcap", *messages)
    assert [(e["action"], e["side"], e["px"], e["qty"], e["ref"]) for e in got[:2]] == [
        (Action.TRADE, 0, 123, 45, 678), (Action.TRADE, 0, 123, 45, 679)
    ]  # fmt: skip
    assert got["flags"][:2].tolist() == [Flag.LAST, Flag.LAST | Flag.CROSS]
    assert got["ref"][2:].tolist() == [
        TradingState.HALTED, TradingState.HALTED, TradingState.AUCTION, TradingState.TRADING
    ]  # fmt: skip


@pytest.mark.parametrize("protocol", [TOPS, DEEP, DEEP_PLUS])
def test_other_messages_are_counted_by_type(protocol: int, tmp_path: Path) -> None:
    messages = {k: m for k, m in others().items() if k in by_code(protocol)}
    path = write(tmp_path / "x.pcap", segment(1, [*messages.values()], protocol=protocol))
    feed: Any = open_feed([path])
    assert pumped(feed, Engine()) == {}
    assert feed.counts() == dict.fromkeys(messages, 1)
    assert feed.messages == len(messages)
    for code, message in messages.items():
        assert len(message) == by_code(protocol)[code].length, code


def test_tops_quotes_replace_both_sides(tmp_path: Path) -> None:
    quotes = [
        quote((99, 1), (101, 2)), quote((99, 5), (102, 2)), quote((100, 5), (0, 0)), quote((100, 5), (0, 0)),
        quote((0, 0), (0, 0)), quote((0, 0), (0, 0)),
    ]  # fmt: skip
    path = write(tmp_path / "x.pcap", segment(1, quotes, protocol=TOPS))
    got = events_of(path)
    assert [(e["seq"], e["side"], e["px"], e["qty"]) for e in got] == [
        (1, 1, 99, 1), (1, -1, 101, 2),
        (2, 1, 99, 5), (2, -1, 101, 0), (2, -1, 102, 2),
        (3, 1, 99, 0), (3, 1, 100, 5), (3, -1, 102, 0),
        (4, 1, 100, 5), (5, 1, 100, 0), (6, 0, 0, 0),
    ]  # fmt: skip
    last = got["flags"] & Flag.LAST != 0
    np.testing.assert_array_equal(last, np.append(got["seq"][1:] != got["seq"][:-1], True))
    feed, engine = open_feed([path]), Engine()
    engine.record_bbo()
    assert feed.mask == mask("l1", "trades")
    assert pumped(feed, engine) == {}
    rows = [[None if p == NULL_PX else int(p) for p in (r["bid_px"], r["ask_px"])] for r in engine.take_bbo()]
    assert rows == [[99, 101], [99, 102], [100, None], [None, None]]


def test_deep_plus_orders(tmp_path: Path) -> None:
    messages = [
        add("B", 1, 99, 10), add("B", 2, 99, 10), add("B", 3, 99, 10), add("S", 4, 101, 7),
        modify(1, 99, 5, keep=True),  # smaller, and keeps its place
        modify(2, 99, 5),  # smaller, and goes to the back
        executed(4, 101, 3, 77), trade(100, 1, 78), delete(3),
    ]  # fmt: skip
    path = write(tmp_path / "x.pcap", segment(1, messages, protocol=DEEP_PLUS))
    feed, engine = open_feed([path]), Engine()
    engine.record_views()
    assert feed.mask == ALL_MASK
    assert pumped(feed, engine) == {}
    assert [(r["order_id"], r["qty"]) for r in engine.orders(0)] == [(1, 5), (2, 5), (4, 4)]
    views = engine.take_views()
    assert views["trade_qty"].tolist() == [0, 0, 0, 0, 0, 0, 3, 1, 0]
    assert views["cancel_qty"].tolist()[4] == 5
    got = events_of(path)
    assert (got["ref"][6], got["px"][6], got["flags"][7] & Flag.HIDDEN) == (77, 101, Flag.HIDDEN)
    path = write(tmp_path / "y.pcap", segment(1, [*messages, clear()], protocol=DEEP_PLUS))
    engine = Engine()
    pumped(open_feed([path]), engine)
    assert engine.live_orders == 0


def test_lengths_symbols_and_types(tmp_path: Path) -> None:
    messages = [
        level("B", 99, 1) + b"more",  # a message may grow
        level("B", 99, 2)[:-1],  # but not shrink
        b"Z" + bytes(30), b"",
        level("B", 99, 3, symbol="A\1"), level("B", 99, 4, symbol=""), level("B", 99, 5, symbol="12345678"),
    ]  # fmt: skip
    path = write(tmp_path / "x.pcap", segment(1, messages))
    feed, engine = open_feed([path]), Engine()
    assert pumped(feed, engine) == {"malformed": 3, "unknown_type": 1}
    assert feed.messages == 6  # an empty block only uses up its number
    assert [i.symbol for i in feed.instruments().values()] == ["ABC", "12345678"]
    assert engine.levels(1)[0].tolist() == [[99, 5]]
    plus = write(tmp_path / "y.pcap", segment(1, [add("?", 1, 2, 3)], protocol=DEEP_PLUS))
    assert pumped(open_feed([plus]), Engine()) == {"malformed": 1}


# -- transport ----------------------------------------------------------------------------------------------------


def test_a_gap_marks_the_books_at_its_place(tmp_path: Path) -> None:
    path = write(tmp_path / "x.pcap", segment(1, [level("B", 99, 1)]), segment(4, [level("B", 99, 2)]))
    feed, engine = open_feed([path]), Engine()
    engine.record_views()
    assert pumped(feed, engine) == {"gap": 1}
    assert feed.notices == ["session 7: sequence 2 to 3 missing"]
    assert engine.take_views()["suspect"].tolist() == [0, 1]


def test_a_heartbeat_reveals_the_loss_of_the_last_segment(tmp_path: Path) -> None:
    path = write(tmp_path / "x.pcap", segment(1, [level("B", 99, 1)]), segment(3))
    assert pumped(open_feed([path]), Engine()) == {"gap": 1}


def test_two_lines_make_one_feed(tmp_path: Path) -> None:
    messages = [level("B", 90 + k, 1) for k in range(8)]
    a = [segment(1, messages[:3]), segment(6, messages[5:])]
    b = [segment(1, messages[:2]), segment(3, messages[2:5]), segment(6, messages[5:])]
    (tmp_path / "a.pcap").write_bytes(capture(a, start=T0 + 10, step=2000))
    (tmp_path / "b.pcap").write_bytes(capture(b, start=T0, step=900))
    feed = open_feed([tmp_path / "a.pcap", tmp_path / "b.pcap"])
    assert np.concatenate(list(feed.events()))["seq"].tolist() == list(range(1, 9))
    assert {Integrity(k).name: n for k, n, _ in feed.drain()} == {"duplicate_seq": 6}


def restart(sent: int = T0 + 60 * S, **more: Any) -> bytes:
    return segment(1, more.pop("messages", ()), sent=sent, offset=0, **more)


def test_a_restart_of_the_sequence_clears_the_books(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.pcap",
        segment(1, [status("T"), level("B", 99, 1), level("S", 98, 1, symbol="XY", complete=False)]),
        restart(), restart(sent=T0 + 61 * S), segment(1, [level("B", 50, 1)], sent=T0 + 62 * S, offset=0),
        segment(2, [trade(9, 1, symbol="XY")], sent=T0 + 62 * S),
    )  # fmt: skip
    feed, engine = open_feed([path]), Engine()
    engine.record_bbo()
    assert pumped(feed, engine) == {"session_reset": 1}
    assert engine.levels(0)[0].tolist() == [[50, 1]]
    assert [len(side) for side in engine.levels(1)] == [0, 0]
    assert (feed.messages, feed.synthetic, engine.n_events) == (5, 2, 5)
    got = events_of(path)
    cleared = got[got["action"] == Action.CLEAR]
    assert cleared["instrument"].tolist() == [0, 1]
    assert (cleared["ts_event"] == T0 + 60 * S).all()
    assert got["flags"][-1] == Flag.LAST  # the transition of XY ended with the old stream
    assert engine.take_bbo()["bid_px"].tolist() == [99, NULL_PX, 50]


def test_what_is_no_restart(tmp_path: Path) -> None:
    begin = segment(1, [level("B", 99, 1)], offset=0)
    late = segment(1, [level("B", 99, 1)], offset=0, sent=T0 + S // 2)
    middle = restart(messages=[level("B", 99, 1)])
    assert pumped(open_feed([write(tmp_path / "a.pcap", begin, late)]), Engine()) == {"duplicate_seq": 1}
    shifted = segment(1, [level("B", 99, 1)], offset=5, sent=T0 + 60 * S)
    assert pumped(open_feed([write(tmp_path / "b.pcap", begin, shifted)]), Engine()) == {"duplicate_seq": 1}
    # a stream that has sent nothing yet cannot begin again
    assert pumped(open_feed([write(tmp_path / "c.pcap", restart(T0), middle)]), Engine()) == {}


def test_a_new_session_that_is_joined_late_leaves_the_books_in_doubt(tmp_path: Path) -> None:
    path = write(tmp_path / "x.pcap", segment(1, [level("B", 99, 1)]), segment(5, [level("B", 60, 1)], session=8))
    feed, engine = open_feed([path]), Engine()
    assert pumped(feed, engine) == {"session_reset": 1, "gap": 1}
    assert engine.levels(0)[0].tolist() == [[60, 1]]
    assert engine.suspect(0)
    assert feed.notices == ["session 8: sequence 1 to 4 missing"]


DAMAGE = {
    "version": (segment(2, [level("B", 98, 1)], version=2), {"malformed": 1}),
    "first is 0": (segment(0, [level("B", 98, 1)]), {"malformed": 1}),
    "first is negative": (segment(-5, [level("B", 98, 1)]), {"malformed": 1}),
    "numbers beyond 63 bits": (segment(2**63 - 1, [level("B", 98, 1)]), {"malformed": 1}),
    "header cut": (segment(2)[:39], {"malformed": 1}),
    "payload longer than the datagram": (segment(2, [level("B", 98, 1)], payload=99), {"malformed": 1}),
    "bytes behind the payload": (segment(2, [level("B", 98, 1)]) + b"xyz", {"trailing": 3}),
    "bytes behind the last block": (segment(2, [level("B", 98, 1), b"rest"], count=1), {"trailing": 6}),
    "more blocks than bytes": (segment(2, [level("B", 98, 1)], count=2), {"malformed": 1}),
    "another protocol": (segment(2, [level("B", 98, 1)], protocol=TOPS), {"unknown_type": 1}),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_segments_are_counted_and_the_rest_is_kept(name: str, tmp_path: Path) -> None:
    bad, expected = DAMAGE[name]
    path = write(tmp_path / "x.pcap", segment(1, [level("B", 99, 1)]), bad)
    feed, engine = open_feed([path]), Engine()
    assert pumped(feed, engine) == expected
    assert engine.levels(0)[0][0].tolist() == [99, 1]


def test_a_cut_capture_keeps_its_whole_messages(tmp_path: Path) -> None:
    path = write(tmp_path / "x.pcap", segment(1, [level("B", 90 + k, 1) for k in range(5)]))
    path.write_bytes(path.read_bytes()[:-40])
    feed, engine = open_feed([path]), Engine()
    assert pumped(feed, engine) == {"malformed": 1}
    assert feed.messages == 3
    assert feed.notices == [f"{path}: the capture breaks off in the record at 24"]


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    old = write(tmp_path / "a.pcap", segment(1, [level("B", 1, 1)], protocol=0x8002))
    with pytest.raises(UsageError, match="0x8002"):
        open_feed([old])
    one_, two = write(tmp_path / "b.pcap", segment(1, protocol=TOPS)), write(tmp_path / "c.pcap", segment(1))
    with pytest.raises(UsageError, match="different protocols"):
        open_feed([one_, two])
    with pytest.raises(UsageError, match="snapshot"):
        open_feed([two], snapshot=two)
    with pytest.raises(FeedError, match="no whole iex message"):
        pumped(open_feed([two]), Engine())
    with pytest.raises(FeedError, match="no IEX-TP segment"):
        open_feed([write(tmp_path / "d.pcap", b"nothing of the kind")], format="iex")
    (tmp_path / "e").write_bytes(b"neither")
    with pytest.raises(FeedError, match="not a pcap"):
        open_feed([tmp_path / "e"], format="iex")


# -- the published samples ----------------------------------------------------------------------------------------

SAMPLES = {
    "DEEP10.pcap.gz": {
        "S": 44, "H": 93638, "O": 93638, "P": 93636, "5": 14630, "8": 12949, "T": 83343, "E": 59, "B": 73,
    },
    "TOPS16.pcapng.gz": {
        "S": 6, "D": 10, "H": 7803, "O": 7801, "P": 7802, "Q": 27217, "T": 6390, "A": 642, "B": 3,
    },
}  # fmt: skip


@pytest.mark.realdata
@pytest.mark.parametrize("name", SAMPLES)
def test_samples_have_the_messages_of_their_description(name: str, data_dir: Path) -> None:
    feed: Any = open_feed([data_dir / "iex_test_captures" / name])
    engine = Engine()
    found = pumped(feed, engine)
    assert feed.counts() == SAMPLES[name]
    assert feed.messages == sum(SAMPLES[name].values())
    assert "MSFT.IEXG" in {i.id for i in feed.instruments().values()}
    if name.startswith("TOPS"):
        assert (found, feed.notices, len(feed.instruments())) == ({}, [], 7799)
        return
    # the last packet is cut off in the file; the sequence begins again eleven times; the books of the test venue cross
    assert found == {
        "malformed": 1, "session_reset": 11, "crossed": 22_394, "locked": 666, "crossed_preopen": 3, "unknown_level": 8
    }  # fmt: skip
    assert len(feed.notices) == 1
    assert "breaks off in the record at 22195748" in feed.notices[0]


def naive_deep(data: bytes) -> tuple[dict[str, dict[str, dict[int, int]]], Counter[str]]:
    """Books by symbol straight from the datagrams, cleared when the sequence goes back; counts of complete events."""
    books: dict[str, dict[str, dict[int, int]]] = defaultdict(lambda: {"8": {}, "5": {}})
    found: Counter[str] = Counter()
    layout, expected = by_code(DEEP), 0
    for datagram in iter_udp(data):
        payload = bytes(datagram.payload)
        head = decode_fields(payload, SEGMENT)
        if int(head["first"]) < expected:
            books.clear()
        at = 40
        expected = int(head["first"])
        for _ in range(int(head["count"])):
            size = int.from_bytes(payload[at : at + 2], "little")
            message = payload[at + 2 : at + 2 + size]
            at += 2 + size
            if len(message) < size or at > len(payload):
                break
            expected += 1
            if message[:1] not in (b"8", b"5"):
                continue
            f = decode_fields(message, layout[message[:1].decode()])
            book = books[str(f["symbol"])]
            book[str(f["type"])].pop(int(f["price"]), None)
            if f["size"]:
                book[str(f["type"])][int(f["price"])] = int(f["size"])
            if int(f["flags"]) & 1 and book["8"] and book["5"]:
                bid, ask = max(book["8"]), min(book["5"])
                found["checked"] += 1
                found["crossed"] += bid > ask
                found["locked"] += bid == ask
    return books, found


@pytest.mark.realdata
def test_deep_books_equal_a_naive_book(data_dir: Path) -> None:
    """The crossed books are what the messages say: a dictionary built from the rules finds the very same."""
    path = data_dir / "iex_test_captures" / "DEEP10.pcap.gz"
    books, found = naive_deep(gzip.decompress(path.read_bytes()))
    feed, engine = open_feed([path]), Engine()
    counts = pumped(feed, engine)
    number = {i.symbol: k for k, i in feed.instruments().items()}
    for symbol, book in books.items():
        for got, side, order in zip(engine.levels(number[symbol]), "85", (-1, 1), strict=True):
            assert got.tolist() == sorted(map(list, book[side].items()), key=lambda row: order * row[0]), symbol
    assert {int(i) for i in engine.instruments() if sum(map(len, engine.levels(int(i))))} == {
        number[s] for s, book in books.items() if book["8"] or book["5"]
    }
    # the naive book is also looked at after the removal of a level that was not there, which changes nothing
    crossed = counts["crossed"] + counts["crossed_preopen"]
    assert crossed <= found["crossed"] <= crossed + counts["unknown_level"]
    assert found["crossed"] / found["checked"] > 0.85


@pytest.mark.realdata
def test_tops_quotes_equal_the_messages(data_dir: Path) -> None:
    path = data_dir / "iex_test_captures" / "TOPS16.pcapng.gz"
    last: dict[str, tuple[int, ...]] = {}
    changes: Counter[str] = Counter()
    layout = by_code(TOPS)["Q"]
    for datagram in iter_udp(gzip.decompress(path.read_bytes())):
        payload, at = bytes(datagram.payload), 40
        while at < len(payload):
            message = payload[at + 2 : at + 2 + int.from_bytes(payload[at : at + 2], "little")]
            at += 2 + len(message)
            if message[:1] == b"Q":
                f = decode_fields(message, layout)
                quote_ = tuple(int(f[k]) for k in ("bid_price", "bid_size", "ask_price", "ask_size"))
                changes[str(f["symbol"])] += quote_ != last.get(str(f["symbol"]), (0, 0, 0, 0))
                last[str(f["symbol"])] = quote_
    feed, engine = open_feed([path]), Engine()
    engine.record_bbo()
    pumped(feed, engine)
    rows = engine.take_bbo()
    assert len(rows) == sum(changes.values())
    names = {k: i.symbol for k, i in feed.instruments().items()}
    final = {names[int(r["instrument"])]: r for r in rows}
    for symbol, row in final.items():
        got = [int(row[k]) for k in ("bid_px", "bid_qty", "ask_px", "ask_qty")]
        assert tuple(0 if x == NULL_PX else x for x in got) == last[symbol]


def test_protocols_have_masks() -> None:
    assert set(iex.MASKS) == {TOPS, DEEP, DEEP_PLUS}
