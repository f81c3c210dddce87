"""Binance depth: the image after its updates, gaps, stale updates, quotes, both markets, damage, three recordings."""

from __future__ import annotations

import gzip
import heapq
import json
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from microrisk.core import Engine
from microrisk.errors import FeedError, UsageError
from microrisk.feed import binance, open_feed
from microrisk.feed.binance_messages import decode, is_futures, market_of, name_of, symbol_of, venue_ns
from microrisk.spec.records import Action, Flag
from microrisk.spec.units import Side

ONE = 10**8
T0 = 1_700_000_000_000_000_000
Run = Callable[[Any], Any]
Rows = Sequence[tuple[str, str]]
Put = Callable[..., Path]


def depth(first: int, last: int, bids: Rows = (), asks: Rows = (), *, pu: int | None = None, s: str = "BTCUSDT") -> Any:
    more = {} if pu is None else {"pu": pu, "T": 1_700_000_000_111}
    data = {"e": "depthUpdate", "E": 1_700_000_000_123, "s": s, "U": first, "u": last, "b": bids, "a": asks, **more}
    return {"stream": f"{s.lower()}@depth", "data": data}


def image(last: int, bids: Rows = (("100", "1"),), asks: Rows = (("101", "1"),), **more: Any) -> Any:
    return {"lastUpdateId": last, **more, "bids": bids, "asks": asks}


def quote(u: int, bid: tuple[str, str], ask: tuple[str, str], s: str = "BTCUSDT", **more: Any) -> Any:
    data = {"u": u, "s": s, "b": bid[0], "B": bid[1], "a": ask[0], "A": ask[1], **more}
    return {"stream": f"{s.lower()}@bookTicker", "data": data}


def trade(number: int, maker: bool, e: str = "trade", s: str = "BTCUSDT", **more: Any) -> Any:
    key = "t" if e == "trade" else "a"
    data = {"e": e, "E": 1_700_000_000_200, "s": s, key: number, "p": "100.5", "q": "0.25", "T": 1_700_000_000_199,
            "m": maker, **more}  # fmt: skip
    return {"stream": f"{s.lower()}@{e}", "data": data}


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Lines with receive times one second apart from T0 + 1 s; text is written as it is."""

    def write(*messages: Any, name: str = "binance.txt", wrapped: bool = True) -> Path:
        texts = [m if isinstance(m, str) else json.dumps(m) for m in messages]
        stamps = [f"{T0 + (i + 1) * 10**9} " if wrapped else "" for i in range(len(texts))]
        path = tmp_path / name
        path.write_text("".join(a + b + "\n" for a, b in zip(stamps, texts, strict=True)))
        return path

    return write


def spot_start() -> list[Any]:
    """Two updates, then the image between them: the first is at or below it, the second goes on top."""
    return [depth(8, 10, [("99", "5")]), depth(11, 12, [("100", "2"), ("99.5", "1")]), image(11)]


def best(run: Any, name: str = "BTCUSDT") -> list[list[int]]:
    bids, asks = run.levels(name)
    return [bids[0], asks[0]]


# -- the image ------------------------------------------------------------------------------------------------


def test_the_image_comes_after_updates_that_belong_on_top(put: Put, replayed: Run) -> None:
    run = replayed(open_feed([put(*spot_start())]))
    assert run.levels("BTCUSDT") == ([[100 * ONE, 2 * ONE], [9950000000, ONE]], [[101 * ONE, ONE]])
    assert run.found == {"skipped": 1}
    assert run.rows("action", "seq", "flags")[0] == (Action.CLEAR, 11, Flag.SNAPSHOT)
    assert run.events["seq"].tolist() == [11, 11, 11, 12, 12]
    # nobody knew the book before the image: what waited carries its receive time
    assert set(run.events["ts_recv"].tolist()) == {T0 + 3 * 10**9}
    assert run.events["ts_event"][-1] == T0 + 123 * 10**6
    assert run.feed.format == "binance"


def test_futures_keep_the_update_that_holds_the_last_id_of_the_image(put: Put, replayed: Run) -> None:
    messages = [
        depth(5, 9, [("98", "1")], pu=4),
        depth(10, 12, [("100", "3")], pu=9),
        image(12, T=1_700_000_000_100, E=1_700_000_000_101),
        depth(15, 20, [], [("101", "4")], pu=12),
    ]
    run = replayed(open_feed([put(*messages)]))
    assert best(run, "BTCUSDT-PERP") == [[100 * ONE, 3 * ONE], [101 * ONE, 4 * ONE]]
    assert run.found == {"skipped": 1}
    assert run.events["ts_event"][0] == T0 + 100 * 10**6
    assert run.events["ts_event"][-1] == T0 + 111 * 10**6
    assert [i.id for i in run.feed.instruments().values()] == ["BTCUSDT-PERP.BINANCE"]


def test_an_image_older_than_the_recording_waits_for_the_next(put: Put, replayed: Run) -> None:
    old = [depth(8, 10), image(6), depth(11, 12, [("100", "7")]), image(10)]
    run = replayed(open_feed([put(*old)]))
    assert run.found == {"gap": 1, "skipped": 1}
    assert best(run)[0] == [100 * ONE, 7 * ONE]
    assert any("older than the recording" in n for n in run.feed.notices)
    exact = replayed(open_feed([put(depth(8, 10, [("100", "7")]), image(7))]))
    assert exact.found == {}
    futures = [depth(8, 10, pu=5), image(7, T=1)]
    assert replayed(open_feed([put(*futures)])).found == {"gap": 1, "awaiting_image": 1}


def test_without_an_image_nothing_is_built(put: Put, replayed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    updates = [depth(i, i, [("100", "1")]) for i in range(1, 11)]
    run = replayed(open_feed([put(*updates)]))
    assert (run.found, len(run.events)) == ({"awaiting_image": 10}, 0)
    assert any("10 updates found no book image" in n for n in run.feed.notices)
    monkeypatch.setattr(binance, "MAX_KEPT", 4)
    assert replayed(open_feed([put(*updates)])).found == {"awaiting_image": 10}
    run = replayed(open_feed([put(*updates, image(8))]))
    assert run.found == {"awaiting_image": 6, "skipped": 2}


def test_snapshot_option(put: Put, replayed: Run) -> None:
    shot = put(json.dumps(image(11), indent=1), name="image.json", wrapped=False)
    run = replayed(open_feed([put(*spot_start()[:2])], snapshot=shot))
    assert best(run) == [[100 * ONE, 2 * ONE], [101 * ONE, ONE]]
    assert run.found == {"skipped": 1}
    assert run.feed.synthetic == 3
    assert run.events["seq"][-1] == 12
    gone = replayed(open_feed([put(depth(20, 21))], snapshot=shot))
    assert gone.found == {"gap": 1, "invalidated": 1, "awaiting_image": 1}
    with pytest.raises(UsageError, match="not a REST depth answer"):
        open_feed([put(depth(1, 2))], snapshot=put({"bids": []}, name="x", wrapped=False))


def test_a_second_image(put: Put, replayed: Run) -> None:
    older = replayed(open_feed([put(*spot_start(), image(11, [("1", "1")]))]))
    assert older.found == {"skipped": 2}
    assert best(older)[0] == [100 * ONE, 2 * ONE]
    newer = [*spot_start(), image(14, [("97", "1")]), depth(13, 14, [("1", "1")]), depth(15, 15, [("97", "2")])]
    run = replayed(open_feed([put(*newer)]))
    assert run.levels("BTCUSDT")[0] == [[97 * ONE, 2 * ONE]]
    assert run.found == {"skipped": 2}


def test_images_without_a_symbol_find_their_stream(put: Put, replayed: Run) -> None:
    one, two = depth(8, 12, [("100", "2")], s="AAA"), depth(800, 812, [("100", "3")], s="BBB")
    run = replayed(open_feed([put(one, two, image(810), image(11))]))
    assert best(run, "AAA")[0] == [100 * ONE, 2 * ONE]
    assert best(run, "BBB")[0] == [100 * ONE, 3 * ONE]
    assert run.found == {}
    lost = replayed(open_feed([put(one, two, image(5000))]))
    assert lost.found == {"malformed": 1, "awaiting_image": 2}
    early = replayed(open_feed([put(image(11), depth(12, 12, [("100", "9")]))]))
    assert best(early)[0] == [100 * ONE, 9 * ONE]
    never = replayed(open_feed([put(image(11), trade(1, maker=True))]))
    assert any("was not used" in n for n in never.feed.notices)


# -- sequence ---------------------------------------------------------------------------------------------------


def test_stale_updates_are_skipped(put: Put, replayed: Run) -> None:
    run = replayed(open_feed([put(*spot_start(), depth(10, 12, [("100", "9")]), depth(12, 13, [("100", "4")]))]))
    assert run.found == {"skipped": 2}
    assert best(run)[0] == [100 * ONE, 4 * ONE]


def test_a_spot_gap_ends_the_book_until_the_next_image(put: Put, replayed: Run) -> None:
    messages = [*spot_start(), depth(14, 15, [("100", "5")]), depth(16, 16, [("99", "6")])]
    run = replayed(open_feed([put(*messages)]))
    assert run.found == {"skipped": 1, "gap": 1, "invalidated": 1, "awaiting_image": 2}
    assert run.levels("BTCUSDT") == ([], [])
    assert run.suspect("BTCUSDT")
    assert any("13 to 13 missing" in n for n in run.feed.notices)
    # the update that showed the gap belongs on top of the next image
    run = replayed(open_feed([put(*messages, image(14))]))
    assert run.found == {"skipped": 1, "gap": 1, "invalidated": 1}
    assert run.levels("BTCUSDT")[0] == [[100 * ONE, 5 * ONE], [99 * ONE, 6 * ONE]]
    assert not run.suspect("BTCUSDT")


def test_futures_follow_pu(put: Put, replayed: Run) -> None:
    start = [depth(10, 12, pu=9), image(11, T=1)]
    good = replayed(open_feed([put(*start, depth(40, 41, [("100", "2")], pu=12))]))
    assert good.found == {}
    bad = replayed(open_feed([put(*start, depth(13, 14, [("100", "2")], pu=11))]))
    assert bad.found == {"gap": 1, "invalidated": 1, "awaiting_image": 1}


def test_only_the_broken_instrument_suffers(put: Put, replayed: Run) -> None:
    other = [depth(5, 6, s="BBB"), image(5, symbol="BBB")]
    run = replayed(open_feed([put(*spot_start(), *other, depth(20, 21))]))
    assert run.levels("BTCUSDT") == ([], [])
    assert best(run, "BBB") == [[100 * ONE, ONE], [101 * ONE, ONE]]


def test_removing_a_level_not_held_is_normal(put: Put, replayed: Run) -> None:
    run = replayed(open_feed([put(*spot_start(), depth(13, 13, [("55.5", "0.00000000"), ("99.5", "0.000")]))]))
    assert run.found == {"skipped": 1, "unknown_level": 1}
    assert run.levels("BTCUSDT")[0] == [[100 * ONE, 2 * ONE]]


# -- quotes -----------------------------------------------------------------------------------------------------

Q = ("101", "1")


def test_quotes_are_compared_with_the_last_id_up_to_u(put: Put, replayed: Run) -> None:
    messages = [
        *spot_start(),
        quote(12, ("100", "2"), Q),
        quote(14, ("100", "8"), Q),  # already inside the next update, received before it
        depth(13, 15, [("100", "8")]),
        quote(16, ("100", "1"), Q),
    ]
    assert replayed(open_feed([put(*messages)])).found == {"skipped": 1, "quote_ok": 2}
    wrong = [*messages[:-1], quote(15, ("100", "7"), Q), quote(16, ("100", "1"), Q)]
    run = replayed(open_feed([put(*wrong)]))
    assert run.found == {"skipped": 1, "quote_ok": 1, "quote_mismatch": 1}
    assert not run.suspect("BTCUSDT")
    assert any("quote 15" in n for n in run.feed.notices)


def test_a_quote_received_after_its_update_counts(put: Put, replayed: Run) -> None:
    messages = [*spot_start(), quote(11, ("100", "1"), Q), quote(12, ("100", "2"), Q)]
    assert replayed(open_feed([put(*messages)])).found == {"skipped": 1, "quote_ok": 1}


def test_without_an_earlier_quote_nothing_is_compared(put: Put, replayed: Run) -> None:
    assert replayed(open_feed([put(*spot_start(), quote(13, ("1", "1"), Q))])).found == {"skipped": 1}
    empty = [depth(11, 12, [], [("101", "0")]), image(11), quote(12, ("100", "1"), ("0", "0"))]
    assert replayed(open_feed([put(*empty)])).found == {"quote_ok": 1}


def test_quotes_out_of_order_are_left_out(put: Put, replayed: Run) -> None:
    messages = [*spot_start(), quote(12, ("100", "2"), Q), quote(11, ("1", "1"), Q), quote(12, ("1", "1"), Q)]
    assert replayed(open_feed([put(*messages)])).found == {"skipped": 1, "quote_ok": 1, "duplicate_seq": 2}


def test_waiting_comparisons_are_bounded(put: Put, replayed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binance, "MAX_UNCOMPARED", 3)
    updates = [depth(i, i, [("99", str(i))]) for i in range(13, 30)]
    run = replayed(open_feed([put(*spot_start(), quote(12, ("100", "2"), Q), *updates)]))
    assert run.found == {"skipped": 1, "quote_ok": 18}


# -- trades and names ---------------------------------------------------------------------------------------------


def test_trades(put: Put, replayed: Run) -> None:
    run = replayed(open_feed([put(*spot_start(), trade(7, maker=True, M=True), trade(8, maker=False, M=True))]))
    columns = ("action", "side", "px", "qty", "ref", "seq", "ts_event")
    assert run.rows(*columns)[-2:] == [
        (Action.TRADE, Side.BID, 10050000000, 25000000, 7, 12, T0 + 199 * 10**6),
        (Action.TRADE, Side.ASK, 10050000000, 25000000, 8, 12, T0 + 199 * 10**6),
    ]
    both = [trade(7, maker=True, e="aggTrade", M=True), trade(9, maker=True, M=True)]
    run = replayed(open_feed([put(*spot_start(), *both)]))
    assert run.rows("action", "ref")[-1] == (Action.TRADE, 7)


def test_every_stream_of_futures_is_the_same_instrument(put: Put, replayed: Run) -> None:
    s = "BTCUSD_PERP"
    messages = [
        quote(3, ("100", "1"), Q, s=s, e="bookTicker", T=1, E=2),
        trade(1, maker=True, s=s, X="MARKET"),
        depth(10, 12, pu=9, s=s),
        image(11, T=1, symbol=s, pair="BTCUSD"),
    ]
    run = replayed(open_feed([put(*messages)]))
    assert [i.id for i in run.feed.instruments().values()] == ["BTCUSD-PERP.BINANCE"]
    assert run.found == {"quote_ok": 1}


def test_spot_and_futures_of_one_symbol_are_two(put: Put, replayed: Run) -> None:
    run = replayed(open_feed([put(*spot_start(), depth(10, 12, [("90", "1")], pu=9), image(11, T=1))]))
    assert best(run, "BTCUSDT")[0] == [100 * ONE, 2 * ONE]
    assert best(run, "BTCUSDT-PERP")[0] == [100 * ONE, ONE]


def test_names_and_times() -> None:
    given = [("btcusdt", False), ("BTCUSDT", True), ("BTCUSD_PERP", True), ("BTCUSD_240927", True)]
    assert [name_of(*g) for g in given] == ["BTCUSDT", "BTCUSDT-PERP", "BTCUSD-PERP", "BTCUSD-240927"]
    urls = ("wss://fstream.binance.com/x", "https://dapi.binance.com", "wss://stream.binance.com:9443", "")
    assert [market_of(u) for u in urls] == [True, True, False, None]
    assert symbol_of("https://api.binance.com/api/v3/depth?symbol=nknusdt&limit=1000") == "NKNUSDT"
    assert venue_ns(1_700_000_000_123) == venue_ns(1_700_000_000_123_000) == T0 + 123 * 10**6
    raw = decode(b'{"e":"aggTrade","s":"A","a":5,"p":"1","q":"2","T":1,"m":true,"M":true}')
    assert not is_futures(raw.data)  # type: ignore[arg-type]


def test_captured_with_answers_beside(write_capture: Callable[..., Path], replayed: Run) -> None:
    one, two = depth(8, 12, [("100", "2")], s="AAA"), depth(8, 12, [("100", "3")], s="BBB")
    path = write_capture("wss://stream.binance.com:9443/stream?streams=x", [one, two], name="BINANCE.ws.1.0")
    rest = [
        f"https://api.binance.com/api/v3/depth?symbol={s}&limit=1000 -> 1600000009.5: {json.dumps(image(11))}"
        for s in ("BBB", "AAA")
    ]
    (path.parent / "BINANCE.http.0.0").write_text("\n".join(rest) + "\n")
    run = replayed(open_feed([path]))
    assert (best(run, "AAA")[0][1], best(run, "BBB")[0][1]) == (2 * ONE, 3 * ONE)
    assert run.feed.messages == 4
    assert run.found == {}


def test_single_streams_without_a_wrapper(put: Put, replayed: Run) -> None:
    bare = [m.get("data", m) for m in [*spot_start(), quote(12, ("100", "2"), Q), trade(1, maker=True, M=True)]]
    run = replayed(open_feed([put(*bare, {"result": None, "id": 1}, wrapped=False)]))
    assert run.found == {"skipped": 1, "quote_ok": 1}
    assert run.rows("action")[-1] == (Action.TRADE,)


def test_other_streams_are_counted(put: Put, replayed: Run) -> None:
    quiet = [
        {"stream": "x@kline_1m", "data": {"e": "kline", "E": 1, "s": "X", "k": {}}},
        {"stream": "!ticker@arr", "data": [{"e": "24hrTicker"}]},
    ]
    odd = [
        {"stream": "x@new", "data": {"e": "newThing", "s": "X"}},
        {"stream": "x@depth5", "data": {"lastUpdateId": 5}},
    ]
    run = replayed(open_feed([put(*spot_start(), *quiet, *odd)]))
    assert run.found == {"skipped": 1, "unknown_type": 2}
    assert run.feed.messages == 7


# -- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("b", [["100"]]), ("b", [["x", "1"]]), ("b", [["100", "-1"]]), ("b", [["1e999999", "1"]]), ("b", 5),
        ("b", None), ("b", [[100, 1]]), ("u", None), ("u", "13"), ("u", -1), ("u", 10**30), ("U", 1.5), ("E", "now"),
        ("E", 10**18),
    ],
)  # fmt: skip
def test_a_depth_update_that_cannot_be_read_ends_its_book(put: Put, replayed: Run, field: str, value: Any) -> None:
    bad = depth(13, 13, [("100", "5")])
    bad["data"][field] = value
    run = replayed(open_feed([put(*spot_start(), bad, depth(14, 14))]))
    assert run.found == {"skipped": 1, "malformed": 1, "invalidated": 1, "awaiting_image": 1}
    assert run.levels("BTCUSDT") == ([], [])
    assert any("line 4" in n for n in run.feed.notices)


def test_finer_than_the_units(put: Put, replayed: Run) -> None:
    run = replayed(open_feed([put(*spot_start(), depth(13, 13, [("100.000000001", "5")]))]))
    assert run.found == {"skipped": 1, "px_range": 1, "invalidated": 1}
    run = replayed(open_feed([put(*spot_start(), depth(13, 13, [("1.5e2", "5E-8")]))]))
    assert run.levels("BTCUSDT")[0][0] == [150 * ONE, 5]


@pytest.mark.parametrize(
    "bad",
    [
        "{", "]", "nonsense", '{"stream":1}', '{"stream":"x","data":"y"}', '{"lastUpdateId":"x"}', "[" * 5000,
        '{"lastUpdateId":5,"bids":[["1"]]}',
        '{"stream":"a@trade","data":{"e":"trade","s":"A","p":"1","q":"1","m":true}}',
        '{"stream":"a@trade","data":{"e":"trade","s":"A","t":1,"p":"1","q":"-1","m":true}}',
        '{"stream":"a@bookTicker","data":{"u":1,"s":"A","b":"1","B":"1","a":"x","A":"1"}}',
        '{"stream":"a@bookTicker","data":{"s":"A","b":"1","B":"1","a":"2","A":"1"}}',
        '{"stream":"a@depth","data":{"e":"depthUpdate","s":"","U":1,"u":1,"b":[],"a":[]}}',
    ],
)  # fmt: skip
def test_other_garbage_costs_itself_only(put: Put, replayed: Run, bad: str) -> None:
    run = replayed(open_feed([put(*spot_start(), bad, depth(13, 13, [("100", "4")]))]))
    assert run.found == {"skipped": 1, "malformed": 1}
    assert best(run)[0] == [100 * ONE, 4 * ONE]
    assert run.feed.messages == 5


def test_a_lost_line_is_seen_by_its_ids(put: Put, replayed: Run) -> None:
    lost = json.dumps(depth(13, 13, [("100", "4")]))[:-30]
    run = replayed(open_feed([put(*spot_start(), lost, depth(14, 14))]))
    assert run.found["malformed"] == 1
    assert run.found["awaiting_image"] == 1
    assert run.levels("BTCUSDT") == ([], [])


def test_cut_recording(put: Put, tmp_path: Path, replayed: Run) -> None:
    text = put(*spot_start(), *[depth(i, i, [("100", f"{i * 7919 % 997}")]) for i in range(13, 3000)]).read_bytes()
    (tmp_path / "cut.gz").write_bytes(gzip.compress(text)[:-3000])
    run = replayed(open_feed([tmp_path / "cut.gz"]))
    assert run.found == {"skipped": 1, "malformed": 1}
    assert len(run.events) > 100


def test_empty(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(FeedError, match="no whole binance message"):
        list(open_feed([tmp_path / "empty"], format="binance").events())
    (tmp_path / "noise").write_bytes(bytes(range(256)) * 50)
    with pytest.raises(FeedError, match="no whole binance message"):
        list(open_feed([tmp_path / "noise"], format="binance").events())


# -- the recordings --------------------------------------------------------------------------------------------------

Side_ = dict[float, tuple[str, str]]
"""Price as a number to order by -> price and size as text."""


def units(row: tuple[str, str]) -> list[int]:
    return [int(Decimal(t) * ONE) for t in row]


def naive_books(paths: Sequence[Path], *, futures: bool) -> Iterator[tuple[int, Side_, Side_]]:
    """(u, bids, asks) after the image and after each update on it, by the venue's rules alone."""
    bids: Side_ = {}
    asks: Side_ = {}
    kept: list[Any] | None = []
    for path in paths:
        with gzip.open(path, "rb") as file:
            for line in file:
                m = msgspec.json.decode(line[20:])
                if "lastUpdateId" in m:
                    book = m["lastUpdateId"]
                    bids, asks = ({float(p): (p, q) for p, q in m[key]} for key in ("bids", "asks"))
                    yield book, bids, asks
                    late = [u for u in kept or () if (u["u"] >= book if futures else u["u"] > book)]
                    kept = None
                elif "depth" not in m["stream"]:
                    continue
                elif kept is not None:
                    kept.append(m["data"])
                    continue
                else:
                    late = [m["data"]]
                for update in late:
                    for side, rows in ((bids, update["b"]), (asks, update["a"])):
                        for price, size in rows:
                            side.pop(float(price), None)
                            if float(size):
                                side[float(price)] = (price, size)
                    yield update["u"], bids, asks


def engine_after_every_update(feed: Any) -> Iterator[tuple[int, Engine]]:
    """(u, engine) after the image and after each update; trades are run along."""
    engine = Engine(always_open=True)
    for events in feed.events():
        ends = np.flatnonzero(events["flags"] & Flag.LAST) + 1
        book = events["action"][ends - 1] != Action.TRADE
        for start, end, is_book, seq in zip([0, *ends[:-1]], ends, book, events["seq"][ends - 1], strict=True):
            engine.run_events(events[start:end])
            if is_book:
                yield int(seq), engine
    assert engine.integrity()["crossed"] == 0


CASES = [
    ("spot_btcusdt", 2, 41_249 + 58_325, 3_449 + 3_044, 2),
    ("usdm_btcusdt", 1, 93_954, 6_547, 0),
    ("cm_btcusd_perp", 1, 48_270, 26_824, 0),
]


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "files", "messages", "compared", "differ"), CASES)
def test_recordings_equal_naive_books_and_the_venues_quotes(
    data_dir: Path,
    findings_of: Callable[[Any], dict[str, int]],
    name: str,
    files: int,
    messages: int,
    compared: int,
    differ: int,
) -> None:
    paths = sorted((data_dir / "binance_btc_2024").glob(f"{name}_*.gz"))[:files]
    feed = open_feed(paths)
    naive = naive_books(paths, futures=not name.startswith("spot"))
    n = -1
    for n, (seq, engine) in enumerate(engine_after_every_update(feed)):
        u, bids, asks = next(naive)
        deep = 20 if n % 500 == 0 else 1
        have_bids, have_asks = engine.levels(0, deep)
        assert seq == u
        best_bids = heapq.nlargest(deep, bids) if deep > 1 else [max(bids)]
        best_asks = heapq.nsmallest(deep, asks) if deep > 1 else [min(asks)]
        assert have_bids.tolist() == [units(bids[p]) for p in best_bids]
        assert have_asks.tolist() == [units(asks[p]) for p in best_asks]
    assert next(naive, None) is None
    assert (feed.messages, n) == (messages, compared)
    found = findings_of(feed)
    assert found.get("quote_mismatch", 0) == differ
    assert found["quote_ok"] == compared - differ
    assert found.keys() <= {"quote_ok", "quote_mismatch", "skipped"}


@pytest.mark.realdata
def test_spot_days_alone(
    data_dir: Path, findings_of: Callable[[Any], dict[str, int]], exercised: Callable[[str], None]
) -> None:
    folder = data_dir / "binance_btc_2024"

    def found(*names: str) -> dict[str, int]:
        feed = open_feed([folder / f"{name}.gz" for name in names])
        assert sum(len(e) for e in feed.events()) >= 0
        return findings_of(feed)

    assert found("spot_btcusdt_20240808") == {"skipped": 2, "quote_ok": 3449}
    assert found("spot_btcusdt_20240809") == {"awaiting_image": 3044}
    exercised("Binance: best prices and sizes equal to the venue's quotes after 3,449 + 6,547 + 26,824 updates")


@pytest.mark.realdata
def test_cryptofeed_recording(data_dir: Path, replayed: Run) -> None:
    run = replayed(open_feed([data_dir / "cryptofeed_raw" / "BINANCE.ws.1.0.gz"]))
    assert run.feed.messages == 265 + 4
    assert {i.id for i in run.feed.instruments().values()} == {
        f"{s}.BINANCE" for s in ("NKNUSDT", "BLZETH", "LRCBTC", "RUNEEUR")
    }
    assert run.found.keys() <= {"quote_ok", "skipped", "unknown_level"}
    assert run.found["quote_ok"] > 100
