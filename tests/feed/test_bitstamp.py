"""Bitstamp messages: images and diffs merged, single orders, images of the best 100, holes, and a real recording."""

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
from microrisk.feed import bitstamp, open_feed
from microrisk.feed.text import to_units
from microrisk.spec.features import ALL_MASK
from microrisk.spec.records import EVENT, Action, Flag, Integrity
from microrisk.spec.units import NULL_TS, Side

ONE = 10**8
T0 = 1_641_343_690_000_000
"""Microseconds of the first message."""
LAST, EXEC, PRINTED, SNAPSHOT = (int(f) for f in (Flag.LAST, Flag.EXEC, Flag.NO_PRINT, Flag.SNAPSHOT))
BID, ASK = int(Side.BID), int(Side.ASK)
A, M, R, D, CLEAR, TRADE = (
    int(a) for a in (Action.ADD, Action.MODIFY, Action.REDUCE, Action.DELETE, Action.CLEAR, Action.TRADE)
)


def book(channel: str, at: int, bids: Any = (), asks: Any = (), pair: str = "btcusd") -> dict[str, Any]:
    data = {"timestamp": "1", "microtimestamp": str(T0 + at), "bids": list(bids), "asks": list(asks)}
    return {"event": "data", "channel": f"{channel}_{pair}", "data": data}


def diff(at: int, bids: Any = (), asks: Any = (), pair: str = "btcusd") -> dict[str, Any]:
    return book("diff_order_book", at, bids, asks, pair)


def trade(at: int, kind: int = 0, price: str = "101", amount: str = "0.5", pair: str = "btcusd") -> dict[str, Any]:
    data = {"id": 77, "microtimestamp": str(T0 + at), "type": kind, "price": float(price), "amount": float(amount)}
    return {"event": "trade", "channel": f"live_trades_{pair}", "data": data | {"amount_str": amount}}


def order(event: str, at: int, number: int, price: str, amount: str, side: int = 0) -> dict[str, Any]:
    data = {"id": number, "id_str": str(number), "order_type": side, "microtimestamp": str(T0 + at)}
    data |= {"amount": float(amount), "amount_str": amount, "price": float(price), "price_str": price}
    return {"event": f"order_{event}", "channel": "live_orders_btcusd", "data": data}


def rest(at: int, bids: Any = (), asks: Any = (), pair: str = "btcusd", query: str = "") -> str:
    body = {"timestamp": "1", "microtimestamp": str(T0 + at), "bids": list(bids), "asks": list(asks)}
    return f"https://www.bitstamp.net/api/v2/order_book/{pair}{query} -> {{time}}: {json.dumps(body)}"


def session(tmp_path: Path, *lines: Any, name: str = "X.ws.1.0") -> Path:
    """A capture: each line is received 1 ms after the one before; a `{time}` in a text becomes its time."""
    out = ["wss://ws.bitstamp.net/ <-> 1641343690.0"]
    for n, line in enumerate(lines, 1):
        time = f"1641343690.{n:03d}"
        out.append(line.replace("{time}", time) if isinstance(line, str) else f"{time}: {json.dumps(line)}")
    path = tmp_path / name
    path.write_text("\n".join(out) + "\n")
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


def levels(engine: Any, instrument: int = 0) -> list[list[tuple[int, int]]]:
    return [[(px // ONE, qty // ONE) for px, qty in side.tolist()] for side in engine.levels(instrument)]


def run(path: Path) -> tuple[Any, Any, dict[str, int]]:
    feed, engine = open_feed([path]), Engine(always_open=True)
    return feed, engine, pumped(feed, engine)


IMAGE = ([["100", "1"], ["99", "2"]], [["101", "1"], ["102", "4"]])

# -- levels -----------------------------------------------------------------------------------------------------------


def test_diffs_wait_for_the_image_and_follow_it(tmp_path: Path) -> None:
    path = session(
        tmp_path,
        diff(1, [["100", "7"]]),
        diff(3, [["100", "3"]], [["101", "0"]]),
        rest(2, *IMAGE),
        diff(2, [["99", "9"]]),
        diff(4, [["98", "5"]]),
    )
    feed, engine, counts = run(path)
    assert counts == {"skipped": 2}
    assert levels(engine) == [[(100, 3), (99, 2), (98, 5)], [(102, 4)]]
    assert (feed.instruments()[0].id, feed.messages, feed.crossing_excluded) == ("BTC-USD.BITSTAMP", 5, True)
    e = everything(open_feed([path]))
    assert e["action"].tolist() == [CLEAR] + [M] * 7
    assert e["flags"].tolist() == [SNAPSHOT] * 4 + [SNAPSHOT | LAST, 0, LAST, LAST]
    # what waited became known with the image
    assert (e["ts_recv"] % 10**9 // 10**6).tolist() == [3] * 7 + [5]
    assert ((e["ts_event"] - T0 * 1000) // 1000).tolist() == [2] * 5 + [3] * 2 + [4]


def test_an_older_diff_is_skipped_and_one_of_the_same_time_is_not(tmp_path: Path) -> None:
    path = session(tmp_path, rest(0, *IMAGE), diff(5, [["98", "1"]]), diff(4, [["97", "1"]]), diff(5, [["96", "1"]]))
    _, engine, counts = run(path)
    assert counts == {"skipped": 1}
    assert [px for px, _ in levels(engine)[0]] == [100, 99, 98, 96]


def test_a_newer_image_takes_the_place_of_the_book_and_an_older_one_does_not(tmp_path: Path) -> None:
    newer = rest(9, [["90", "1"]], [["91", "1"]])
    path = session(
        tmp_path, rest(0, *IMAGE), diff(5, [["98", "1"]]), rest(3, [["1", "1"]]), newer, diff(8, [["9", "1"]])
    )
    _, engine, counts = run(path)
    assert (levels(engine), counts) == ([[(90, 1)], [(91, 1)]], {"skipped": 2})


def test_diffs_without_an_image_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bitstamp, "KEPT", 2)
    feed, engine, counts = run(session(tmp_path, *[diff(n, [["100", "1"]]) for n in range(5)]))
    assert (counts, levels(engine)) == ({"awaiting_image": 5}, [[], []])
    assert "never came" in feed.notices[-1]


def test_trades_name_the_resting_side(tmp_path: Path) -> None:
    e = everything(open_feed([session(tmp_path, trade(1, 0), trade(2, 1, "99.5", "2"))]))
    assert [tuple(map(int, x)) for x in e[["action", "side", "px", "qty", "ref", "flags"]].tolist()] == [
        (TRADE, ASK, 101 * ONE, ONE // 2, 77, LAST),
        (TRADE, BID, 9_950_000_000, 2 * ONE, 77, LAST),
    ]


def test_images_of_the_best_are_told_as_differences(tmp_path: Path) -> None:
    path = session(
        tmp_path,
        book("order_book", 1, *IMAGE),
        book("order_book", 2, [["101", "5"], ["100", "1"]], [["103", "1"], ["104", "1"]]),
        book("order_book", 1, *IMAGE),
    )
    feed, engine, counts = run(path)
    assert (levels(engine), counts) == ([[(101, 5), (100, 1)], [(103, 1), (104, 1)]], {"skipped": 1})
    e = everything(open_feed([path]))[5:]
    told = {(int(x["side"]), int(x["px"]) // ONE): (int(x["qty"]) // ONE, int(x["flags"]) & ~LAST) for x in e}
    # 99 was pushed out below, 101 and 102 on the other side are gone from above the worst one shown
    assert told == {(BID, 101): (5, 0), (BID, 99): (0, EXEC | PRINTED), (ASK, 103): (1, 0), (ASK, 104): (1, 0),
                    (ASK, 101): (0, 0), (ASK, 102): (0, 0)}  # fmt: skip
    assert feed.synthetic == 1


def test_one_channel_makes_the_book(tmp_path: Path) -> None:
    path = session(tmp_path, rest(0, *IMAGE), book("order_book", 1, [["50", "1"]]), diff(2, [["98", "1"]]))
    _, engine, counts = run(path)
    assert (counts, levels(engine)[0][0]) == ({"skipped": 1}, (100, 1))


# -- holes ------------------------------------------------------------------------------------------------------------


def test_a_reconnection_asks_for_a_new_image(tmp_path: Path) -> None:
    gone = {"event": "bts:request_reconnect", "channel": "", "data": ""}
    path = session(
        tmp_path,
        rest(0, *IMAGE),
        diff(1, [["98", "1"]]),
        gone,
        diff(5, [["97", "1"]]),
        rest(4, *IMAGE),
        rest(6, [["90", "1"]], [["91", "1"]]),
        diff(7, [["89", "1"]]),
    )
    _, engine, counts = run(path)
    # the image at 4 lies in front of the first diff behind the hole: what came between is lost to it
    assert counts == {"invalidated": 1, "session_reset": 1, "skipped": 2}
    assert levels(engine) == [[(90, 1), (89, 1)], [(91, 1)]]
    assert not engine.suspect(0)


@pytest.mark.parametrize(
    "bad",
    [
        diff(2, [["98", "-1"]]),
        diff(2, [["98", "x"]]),
        diff(2, [["98"]]),
        diff(2, [[98, 1]]),
        diff(2, [["98", "0.000000001"]]),
        {"event": "data", "channel": "diff_order_book_btcusd", "data": {"bids": [], "asks": []}},
        {
            "event": "data",
            "channel": "diff_order_book_btcusd",
            "data": {"microtimestamp": "-3", "bids": [], "asks": []},
        },
        '{time}: {"event": "data", "channel": "diff_order_book_btcusd", "data": {"mic',
    ],
)
def test_a_diff_that_cannot_be_read_invalidates_its_book_alone(tmp_path: Path, bad: Any) -> None:
    other = rest(0, *IMAGE, pair="etheur")
    path = session(tmp_path, rest(0, *IMAGE), other, diff(1, pair="etheur"), diff(1, [["98", "1"]]), bad,
                   diff(3, [["97", "1"]]))  # fmt: skip
    _, engine, counts = run(path)
    named = counts.pop("malformed", 0) + counts.pop("px_range", 0)
    assert (named, counts) == (1, {"invalidated": 1, "awaiting_image": 1})
    by_name = {engine.suspect(i): levels(engine, i) for i in (0, 1)}
    assert by_name == {True: [[], []], False: [[(100, 1), (99, 2)], [(101, 1), (102, 4)]]}


@pytest.mark.parametrize(
    "bad",
    [
        trade(2, 5),
        trade(2, 0, "101", "-1"),
        {"event": "trade", "channel": "live_trades_btcusd"},
        rest(3, [["x", "1"]]),
        rest(3, [["1"]]),
    ],
)
def test_a_damaged_trade_or_image_costs_no_book(tmp_path: Path, bad: Any) -> None:
    _, engine, counts = run(session(tmp_path, rest(0, *IMAGE), diff(1, [["98", "1"]]), bad, diff(3, [["97", "1"]])))
    assert counts == {"malformed": 1}
    assert [px for px, _ in levels(engine)[0]] == [100, 99, 98, 97]


def test_a_time_past_int64_is_malformed(tmp_path: Path) -> None:
    late = 9_999_999_999_999_999 - T0
    _, engine, counts = run(session(tmp_path, rest(0, *IMAGE), trade(late), diff(1, [["98", "1"]]), rest(late, *IMAGE)))
    assert (counts, [px for px, _ in levels(engine)[0]]) == ({"malformed": 2}, [100, 99, 98])


def test_unknown_messages_and_a_cut_file(tmp_path: Path) -> None:
    lines = [rest(0, *IMAGE), {"event": "data", "channel": "news_btcusd"}, {"event": "bts:heartbeat"}]
    path = session(tmp_path, *lines, *[diff(n, [["98", "1"]]) for n in range(1, 400)])
    whole = gzip.compress(path.read_bytes(), mtime=0)
    cut = tmp_path / "Y.ws.1.0.gz"
    cut.write_bytes(whole[: len(whole) * 2 // 3])
    feed, _, counts = run(cut)
    assert counts == {"unknown_type": 1, "malformed": 1}
    assert 3 < feed.messages < 402
    assert "breaks off" in feed.notices[-1]


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("garbage\nmore\n")
    with pytest.raises(FeedError, match="no whole"):
        everything(open_feed([path], format="bitstamp"))


def test_a_snapshot_from_outside(tmp_path: Path) -> None:
    image = tmp_path / "book.json"
    image.write_text(rest(2, *IMAGE).split("{time}: ")[1])
    path = session(tmp_path, diff(1, [["1", "1"]]), diff(3, [["98", "1"]]))
    feed, engine = open_feed([path], snapshot=image), Engine(always_open=True)
    assert pumped(feed, engine) == {"skipped": 1}
    assert [px for px, _ in levels(engine)[0]] == [100, 99, 98]
    image.write_text("[]")
    with pytest.raises(FeedError, match="image"):
        open_feed([path], snapshot=image)


def test_orders_in_csv_and_messages_are_not_one_feed(tmp_path: Path) -> None:
    log = tmp_path / "a.csv"
    log.write_text("id,timestamp,exchange_timestamp,price,volume,action,direction\n")
    path = tmp_path / "b"
    path.write_text(json.dumps(diff(1)) + "\n")
    with pytest.raises(UsageError, match="cannot be one feed"):
        open_feed([log, path], format="bitstamp")


# -- orders -----------------------------------------------------------------------------------------------------------

DETAIL = ([["100", "1", "11"], ["99", "2", "12"]], [["101", "1", "13"], ["101", "4", "14"]])


def test_orders_follow_the_image_that_names_them(tmp_path: Path) -> None:
    path = session(
        tmp_path,
        order("created", 1000, 20, "98", "1"),
        order("deleted", 5000, 12, "99", "2"),
        rest(2000, *DETAIL, query="?group=2"),
        order("created", 9000, 30, "101", "1.5"),
        order("changed", 9000, 30, "101", "0.5"),
        order("deleted", 9001, 13, "101", "0", 1),
        order("changed", 9001, 14, "101", "3.5", 1),
        order("deleted", 9002, 30, "101", "0"),
        trade(9003),
        order("deleted", 12_000, 99, "50", "1"),
    )
    feed, engine, counts = run(path)
    assert counts == {"skipped": 1, "unknown_order": 1}
    rows = [(feed.order_label(int(r["order_id"])), int(r["side"]), int(r["qty"])) for r in engine.orders(0)]
    assert rows == [("11", BID, ONE), ("14", ASK, 350_000_000)]
    assert (feed.mask, feed.crossing_excluded) == (ALL_MASK, False)
    e = everything(open_feed([path]))
    assert e["action"].tolist() == [CLEAR, A, A, A, A, D, A, R, R, R, R, D]
    assert e["order_id"].tolist() == [0, 11, 12, 13, 14, 12, 30, 30, 13, 14, 30, 99]
    # one millisecond is one event: crossed between its messages, not at its end
    assert (e["flags"] & LAST > 0).tolist() == [False] * 4 + [True, True] + [False] * 4 + [True, True]
    assert feed.synthetic == 5


def test_orders_without_an_image(tmp_path: Path) -> None:
    path = session(tmp_path, order("created", 1, 5, "98", "1"), order("deleted", 2000, 6, "98", "1"))
    feed, engine, counts = run(path)
    assert (counts, engine.live_orders) == ({"unknown_order": 1}, 1)
    assert "no image" in feed.notices[-1]


def test_raw_lines_without_times(tmp_path: Path) -> None:
    path = tmp_path / "orders.jsonl"
    lines = [book("detail_order_book", 0, *DETAIL), order("created", 3000, 50, "98", "1")]
    path.write_text("\n".join(map(json.dumps, lines)))
    feed = open_feed([path])
    e = everything(feed)
    assert (feed.format, len(e), set(e["ts_recv"].tolist())) == ("bitstamp", 6, {NULL_TS})
    assert e["seq"].tolist() == [1] * 5 + [2]


def test_orders_wait_again_behind_a_reconnection(tmp_path: Path) -> None:
    path = session(
        tmp_path,
        book("detail_order_book", 0, *DETAIL),
        order("created", 3000, 50, "98", "1"),
        {"event": "bts:request_reconnect", "channel": "", "data": ""},
        order("created", 8000, 60, "97", "1"),
        book("detail_order_book", 9000, *DETAIL),
        order("created", 10_000, 61, "96", "1"),
    )
    _, engine, counts = run(path)
    assert counts == {"invalidated": 1, "session_reset": 1, "skipped": 1}
    assert sorted(engine.orders(0)["order_id"].tolist()) == [11, 12, 13, 14, 61]
    assert not engine.suspect(0)


def test_levels_and_orders_of_two_pairs_keep_their_places(tmp_path: Path) -> None:
    """A damaged diff of one pair between orders of another: the finding marks the pair that it concerns."""
    path = session(
        tmp_path,
        book("detail_order_book", 0, *DETAIL),
        rest(0, *IMAGE, pair="etheur"),
        *[order("created", 1000 * n, 100 + n, "98", "1") for n in range(1, 5)],
        diff(1, [["98", "x"]], pair="etheur"),
        *[order("created", 1000 * n, 100 + n, "98", "1") for n in range(5, 9)],
    )
    feed, engine, counts = run(path)
    names = {i.symbol: n for n, i in feed.instruments().items()}
    assert counts == {"malformed": 1, "invalidated": 1}
    assert (engine.suspect(names["BTC-USD"]), engine.suspect(names["ETH-EUR"])) == (False, True)
    e = everything(open_feed([path]))
    assert e["seq"][e["instrument"] == names["BTC-USD"]].tolist() == sorted(
        e["seq"][e["instrument"] == names["BTC-USD"]]
    )


# -- the recording ----------------------------------------------------------------------------------------------------


@pytest.mark.realdata
def test_every_message_of_the_recording_against_books_of_dictionaries(data_dir: Path) -> None:
    """README: 747 messages and 10 REST books."""
    folder = data_dir / "cryptofeed_raw"
    feed, engine = open_feed([folder / "BITSTAMP.ws.1.0.gz"]), Engine(always_open=True)
    assert feed.format == "cryptofeed"
    counts = pumped(feed, engine)
    naive, old = naive_books(folder)
    # 9,999,999,999 USD, an ask that does not fit Int64 of 1e-9
    assert counts == {"px_range": 1, "skipped": old} if "px_range" in counts else {"skipped": old}
    assert (feed.messages, len(naive)) == (757, 10)
    for index, one in feed.instruments().items():
        pair = one.symbol.replace("-", "").lower()
        for side, have in zip(naive[pair], engine.levels(index), strict=True):
            assert dict(have.tolist()) == side
        assert max(naive[pair][0]) < min(naive[pair][1])
    assert engine.integrity()["crossed"] == 0


def naive_books(folder: Path) -> tuple[dict[str, tuple[dict[int, int], dict[int, int]]], int]:
    books, since, old = {}, {}, 0
    with gzip.open(folder / "BITSTAMP.http.0.0.gz", "rt") as f:
        for line in filter(str.strip, f):
            url, _, body = line.partition(" -> ")
            pair, image = url.rsplit("/", 1)[1], json.loads(body.partition(": ")[2])
            books[pair] = tuple({units(p): units(q) for p, q in image[s]} for s in ("bids", "asks"))
            since[pair] = int(image["microtimestamp"])
    with gzip.open(folder / "BITSTAMP.ws.1.0.gz", "rt") as f:
        for line in filter(str.strip, f):
            m = {} if line.startswith("wss") else json.loads(line.partition(": ")[2])
            if m.get("event") != "data":
                continue
            pair, data = m["channel"].rpartition("_")[2], m["data"]
            if int(data["microtimestamp"]) <= since[pair]:
                old += 1
                continue
            for side, rows in zip(books[pair], (data["bids"], data["asks"]), strict=True):
                for p, q in rows:
                    side[units(p)] = units(q)
                    if not units(q):
                        del side[units(p)]
    return books, old  # type: ignore[return-value]


def units(text: str) -> int:
    return to_units(text, 8)
