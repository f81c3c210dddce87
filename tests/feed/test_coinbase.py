"""Coinbase full channel: rules one by one, damage, batching, and a real recording between two book images."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microrisk.core import Engine
from microrisk.errors import FeedError, UsageError
from microrisk.feed import open_feed
from microrisk.feed.coinbase import MessageReader, read_image
from microrisk.feed.open import Source
from microrisk.feed.text import to_units
from microrisk.spec.records import EVENT, Action, Flag, Integrity
from microrisk.spec.units import NULL_TS

TIME = "2018-07-13T20:47:11.025000Z"
TS = 1_531_514_831_025_000_000
ONE = 10**8


def message(kind: str, sequence: int, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "sequence": sequence, "product_id": "BTC-USD", "time": TIME, "side": "buy", **fields}


def opened(sequence: int, order: str, price: str = "100.5", size: str = "2", side: str = "buy") -> dict[str, Any]:
    return message("open", sequence, order_id=order, price=price, remaining_size=size, side=side)


def done(sequence: int, order: str, reason: str = "canceled") -> dict[str, Any]:
    return message("done", sequence, order_id=order, reason=reason, remaining_size="0", price="100.5")


def match(sequence: int, maker: str, size: str, price: str = "100.5") -> dict[str, Any]:
    ids = {"maker_order_id": maker, "taker_order_id": "t", "trade_id": 4711}
    return message("match", sequence, size=size, price=price, **ids)


def write(path: Path, messages: list[Any], *, lines: bool = False) -> Path:
    text = "\n".join(map(json.dumps, messages)) + "\n" if lines else json.dumps(messages, indent=2)
    path.write_text(text)
    return path


def image(path: Path, sequence: int, bids: list[Any], asks: list[Any]) -> Path:
    path.write_text(json.dumps({"bids": bids, "asks": asks, "sequence": sequence}))
    return path


def everything(feed: Any) -> np.ndarray:
    return np.concatenate([np.zeros(0, EVENT), *feed.events()])


def findings(feed: Any) -> dict[str, int]:
    out: Counter[str] = Counter()
    for kind, n, _ in feed.drain():
        out[Integrity(kind).name] += n
    return dict(out)


def pumped(feed: Any, engine: Any) -> dict[str, int]:
    while feed.pump(engine):
        pass
    engine.finish()
    return {k: n for k, n in engine.integrity().items() if n}


def resting(engine: Engine, feed: Any) -> list[tuple[str, int, int, int]]:
    rows = engine.orders(0)
    return [(feed.order_label(int(r["order_id"])), int(r["side"]), int(r["px"]), int(r["qty"])) for r in rows]


LIFE = [
    message("received", 1, order_id="a", size="2", price="100.5", order_type="limit"),
    opened(2, "a"),
    opened(3, "b", "100.50000000", "0.00000001"),
    opened(4, "c", "101", "5", "sell"),
    match(5, "a", "0.5"),
    message("change", 6, order_id="b", new_size="1", old_size="2", price="100.5"),
    done(7, "never"),
    done(8, "c"),
    match(9, "a", "1.5"),
    done(10, "a", "filled"),
]


def test_the_life_of_orders(tmp_path: Path) -> None:
    feed = open_feed([write(tmp_path / "m.json", LIFE)])
    e = everything(feed)
    A, R, M, D = Action.ADD, Action.REDUCE, Action.MODIFY, Action.DELETE
    assert e["action"].tolist() == [A, A, A, R, M, D, R]
    assert e["seq"].tolist() == [2, 3, 4, 5, 6, 8, 9]
    assert e["px"].tolist() == [10_050_000_000] * 2 + [10_100_000_000] + [10_050_000_000] * 2 + [
        10_100_000_000,
        10_050_000_000,
    ]
    assert e["qty"].tolist() == [2 * ONE, 1, 5 * ONE, ONE // 2, ONE, 5 * ONE, 3 * ONE // 2]
    assert e["order_id"].tolist() == [1, 2, 3, 1, 2, 3, 1]
    assert e["ref"].tolist() == [0, 0, 0, 4711, 0, 0, 4711]
    assert (e["flags"][3], e["flags"][4]) == (Flag.LAST | Flag.EXEC, Flag.LAST | Flag.PRIORITY_KEPT)
    assert set(e["ts_event"].tolist()) == {TS}
    assert set(e["ts_recv"].tolist()) == {NULL_TS}
    assert findings(feed) == {"never_rested": 1}
    assert (feed.messages, feed.synthetic, feed.order_label(2)) == (10, 0, "b")
    assert feed.instruments()[0].id == "BTC-USD.COINBASE"
    assert "no --snapshot" in feed.notices[0]


def test_the_book_behind_them(tmp_path: Path) -> None:
    feed, engine = open_feed([write(tmp_path / "m.json", LIFE)]), Engine(always_open=True)
    assert pumped(feed, engine) == {"never_rested": 1}
    assert resting(engine, feed) == [("b", 1, 10_050_000_000, ONE)]


def test_lists_and_lines_and_packing_say_the_same(tmp_path: Path) -> None:
    a = everything(open_feed([write(tmp_path / "a.json", LIFE)]))
    b = everything(open_feed([write(tmp_path / "b.json", LIFE, lines=True)]))
    (tmp_path / "c.json.gz").write_bytes(gzip.compress((tmp_path / "a.json").read_bytes()))
    c = everything(open_feed([tmp_path / "c.json.gz"]))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a, c)


@pytest.mark.parametrize("lines", [False, True])
def test_batches_do_not_matter(lines: bool, tmp_path: Path) -> None:
    # a name with the very bytes between two objects in it, and objects inside objects
    odd = [m | {"client_oid": "}, {", "profile": {"x": [{"y": 1}, {"z": 2}]}} for m in LIFE * 300]
    path = write(tmp_path / "m.json", odd, lines=lines)
    reader = MessageReader([Source(path)], chunk=1)
    got = [m for batch in reader for m in batch]
    assert [m.sequence for m in got] == [m["sequence"] for m in odd]
    assert (reader.take_lines(), reader.take_findings(), reader.progress) == (len(odd), [], 1.0)


def test_a_snapshot_comes_first_in_its_own_order(tmp_path: Path) -> None:
    book = image(tmp_path / "b.json", 3, [["100", "1", "z"], ["100", "2", "y"], ["99", "3", "x"]], [["101", "4", "w"]])
    messages = [opened(2, "old"), opened(3, "older"), opened(4, "new", "100", "9"), done(5, "y")]
    feed, engine = open_feed([write(tmp_path / "m.json", messages)], snapshot=book), Engine(always_open=True)
    assert pumped(feed, engine) == {"skipped": 2}
    assert resting(engine, feed) == [
        ("z", 1, 100 * ONE, ONE),
        ("new", 1, 100 * ONE, 9 * ONE),
        ("x", 1, 99 * ONE, 3 * ONE),
        ("w", -1, 101 * ONE, 4 * ONE),
    ]
    assert (feed.messages, feed.synthetic, engine.n_events) == (4, 4, 6)
    assert feed.notices == []


def test_snapshot_events_are_marked(tmp_path: Path) -> None:
    book = image(tmp_path / "b.json", 3, [["100", "1", "z"]], [["101", "4", "w"]])
    e = everything(open_feed([write(tmp_path / "m.json", [opened(4, "n")])], snapshot=book))
    assert e["flags"].tolist() == [Flag.SNAPSHOT, Flag.SNAPSHOT | Flag.LAST, Flag.LAST]
    assert e["seq"].tolist() == [3, 3, 4]
    assert set(e["ts_event"].tolist()) == {TS}


@pytest.mark.parametrize(("first", "expected"), [(4, {}), (5, {"gap": 1})])
def test_what_follows_a_snapshot_must_be_its_next(first: int, expected: dict[str, int], tmp_path: Path) -> None:
    book = image(tmp_path / "b.json", 3, [["100", "1", "z"]], [])
    feed = open_feed([write(tmp_path / "m.json", [opened(first, "n")])], snapshot=book)
    engine = Engine(always_open=True)
    assert pumped(feed, engine) == expected
    assert engine.suspect(0) == bool(expected)


def test_jumps_and_repetitions(tmp_path: Path) -> None:
    messages = [opened(1, "a"), opened(2, "b"), opened(2, "b"), opened(6, "c"), opened(5, "d"), opened(7, "e")]
    feed, engine = open_feed([write(tmp_path / "m.json", messages)]), Engine(always_open=True)
    engine.record_views()
    assert pumped(feed, engine) == {"gap": 1, "duplicate_seq": 2}
    assert "sequence 3 to 5 missing" in feed.notices[-1]
    assert [o[0] for o in resting(engine, feed)] == ["a", "b", "c", "e"]
    assert engine.take_views()["suspect"].tolist() == [0, 0, 1, 1]


def test_products_have_books_and_sequences_of_their_own(tmp_path: Path) -> None:
    messages = [
        opened(1, "a"),
        opened(50, "x") | {"product_id": "ETH-USD"},
        opened(2, "b"),
        done(51, "x") | {"product_id": "ETH-USD"},
    ]
    feed, engine = open_feed([write(tmp_path / "m.json", messages)]), Engine(always_open=True)
    assert pumped(feed, engine) == {}
    assert [i.id for i in feed.instruments().values()] == ["BTC-USD.COINBASE", "ETH-USD.COINBASE"]
    assert (len(engine.orders(0)), len(engine.orders(1))) == (2, 0)


def test_messages_outside_the_sequence(tmp_path: Path) -> None:
    messages: list[Any] = [
        {"type": "subscriptions", "channels": []},
        opened(1, "a"),
        {"type": "heartbeat", "sequence": 1, "product_id": "BTC-USD", "last_trade_id": 3, "time": TIME},
        message("activate", 2, order_id="s", stop_price="90"),
        message("auction", 3),
        opened(3, "b"),
    ]
    feed = open_feed([write(tmp_path / "m.json", messages, lines=True)])
    assert everything(feed)["seq"].tolist() == [1, 3]
    assert findings(feed) == {"unknown_type": 1}
    assert feed.messages == 6


def test_a_change_of_price_loses_the_place(tmp_path: Path) -> None:
    moved = message(
        "change", 3, order_id="a", new_size="3", new_price="100.5", old_size="2", old_price="100", reason="x"
    )
    feed = open_feed([write(tmp_path / "m.json", [opened(1, "a", "100"), opened(2, "b", "100.5"), moved])])
    engine = Engine(always_open=True)
    assert pumped(feed, engine) == {}
    assert [o[0] for o in resting(engine, feed)] == ["b", "a"]


def test_unknown_makers_are_findings_of_the_book(tmp_path: Path) -> None:
    feed = open_feed([write(tmp_path / "m.json", [opened(1, "a"), match(2, "missing", "1")])])
    assert pumped(feed, Engine(always_open=True)) == {"unknown_order": 1}


@pytest.mark.parametrize("lines", [False, True])
def test_damaged_messages_cost_only_themselves(lines: bool, tmp_path: Path) -> None:
    good = [opened(k, f"o{k}") for k in range(1, 9)]
    path = write(tmp_path / "m.json", good, lines=lines)
    text = path.read_text().replace('"sequence": 4', '"sequence": four').replace('"o6"', "6")
    path.write_text(text)
    feed = open_feed([path])
    assert everything(feed)["seq"].tolist() == [1, 2, 3, 5, 7, 8]
    assert findings(feed) == {"malformed": 2, "gap": 2}
    assert feed.messages == 8
    assert sum("cannot be read" in n for n in feed.notices) == 2


def test_numbers_that_do_not_fit_are_findings(tmp_path: Path) -> None:
    odd = [opened(1, "a", "1.123456789"), opened(2, "b", "abc"), opened(3, "c") | {"time": "soon"}, opened(4, "d")]
    odd += [opened(5, "e") | {"side": "none"}, message("open", 6, order_id="f", remaining_size="1")]
    feed, engine = open_feed([write(tmp_path / "m.json", odd)]), Engine(always_open=True)
    assert pumped(feed, engine) == {"malformed": 5}
    assert [o[0] for o in resting(engine, feed)] == ["d"]
    assert engine.suspect(0)


def test_a_list_cut_short_keeps_its_messages(tmp_path: Path) -> None:
    path = write(tmp_path / "m.json", LIFE)
    path.write_text(path.read_text()[:-30])
    feed = open_feed([path])
    assert everything(feed)["seq"].tolist() == [2, 3, 4, 5, 6, 8, 9]
    assert findings(feed) == {"malformed": 1, "never_rested": 1}
    path.write_text("[" + path.read_text()[1:40])
    with pytest.raises(FeedError, match="no whole coinbase message"):
        assert pumped(open_feed([path], format="coinbase"), Engine()) == {}


def test_snapshots_that_are_none(tmp_path: Path) -> None:
    path = write(tmp_path / "m.json", LIFE)
    with pytest.raises(UsageError, match="level-3"):
        open_feed([path], snapshot=path)
    (tmp_path / "cut.json").write_text('{"bids": [["1", "2"')
    with pytest.raises(FeedError, match="cannot be read"):
        open_feed([path], snapshot=tmp_path / "cut.json")
    with pytest.raises(UsageError, match="no such file"):
        open_feed([path], snapshot=tmp_path / "missing.json")


@pytest.mark.realdata
def test_a_recording_leads_from_one_book_image_to_the_next(data_dir: Path) -> None:
    folder = data_dir / "coinbase_l3_2018"
    feed = open_feed([folder / "messages.json.gz"], snapshot=folder / "beginning_level_3.json.gz")
    engine = Engine(always_open=True)
    assert pumped(feed, engine) == {"never_rested": 395}
    assert (feed.messages, feed.synthetic, engine.n_events) == (36_743, 66_811, 66_811 + 23_926)
    end = read_image(Source(folder / "ending_level_3.json.gz"))
    expected = [(i, 1, to_units(p, 8), to_units(q, 8)) for p, q, i in end.bids]
    expected += [(i, -1, to_units(p, 8), to_units(q, 8)) for p, q, i in end.asks]
    assert len(expected) == 66_833
    # ids, sides, prices, sizes, and the place in every queue
    assert resting(engine, feed) == expected


@pytest.mark.realdata
def test_a_folder_with_book_images_is_the_messages_alone(data_dir: Path) -> None:
    feed = open_feed([data_dir / "coinbase_l3_2018"])
    assert feed.format == "coinbase"
    assert "ending_level_3.json" in feed.notices[0]
