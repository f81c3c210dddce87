"""Kraken v1 and v2: checksums, truncation, precision, broken rules, damage, a recording with 4,269 checksums."""

from __future__ import annotations

import gzip
import heapq
import json
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from microrisk.errors import FeedError, UsageError
from microrisk.feed import open_feed
from microrisk.feed.kraken_book import KrakenBook
from microrisk.spec.records import Action, Flag
from microrisk.spec.units import NULL_TS, Side

URL = "wss://ws.kraken.com"
ONE = 10**8
Write = Callable[..., Path]
Run = Callable[[Any], Any]

# the worked example of "Spot Websockets (v2) Book Checksum"
DOC_ASKS = [
    ("45285.2", "0.00100000"), ("45286.4", "1.54571953"), ("45286.6", "1.54571109"), ("45289.6", "1.54560911"),
    ("45290.2", "0.15890660"), ("45291.8", "1.54553491"), ("45294.7", "0.04454749"), ("45296.1", "0.35380000"),
    ("45297.5", "0.09945542"), ("45299.5", "0.18772827"),
]  # fmt: skip
DOC_BIDS = [
    ("45283.5", "0.10000000"), ("45283.4", "1.54582015"), ("45282.1", "0.10000000"), ("45281.0", "0.10000000"),
    ("45280.3", "1.54592586"), ("45279.0", "0.07990000"), ("45277.6", "0.03310103"), ("45277.5", "0.30000000"),
    ("45277.3", "1.54602737"), ("45276.6", "0.15445238"),
]  # fmt: skip
DOC_CHECKSUM = 3310070434


class Naive:
    """The book and its checksum from the venue's rules, with decimals, sorting and text."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.sides: dict[str, dict[Decimal, tuple[str, str]]] = {"b": {}, "a": {}}

    def put(self, side: str, price: str, size: str) -> None:
        self.sides[side].pop(Decimal(price), None)
        if Decimal(size):
            self.sides[side][Decimal(price)] = (price, size)

    def cut(self) -> None:
        for side in "ba":
            while len(self.sides[side]) > self.depth:
                del self.sides[side][min(self.sides[side]) if side == "b" else max(self.sides[side])]

    def best(self, side: str, n: int) -> list[tuple[str, str]]:
        prices = (heapq.nlargest if side == "b" else heapq.nsmallest)(n, self.sides[side])
        return [self.sides[side][p] for p in prices]

    def checksum(self) -> int:
        texts = [t.replace(".", "").lstrip("0") for side in "ab" for row in self.best(side, 10) for t in row]
        return zlib.crc32("".join(texts).encode())

    def units(self, side: str, n: int = 1000) -> list[list[int]]:
        return [[int(Decimal(p) * ONE), int(Decimal(q) * ONE)] for p, q in self.best(side, n)]


def padded(levels: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Sizes with eight decimals, as the venue writes them."""
    return [(p, f"{Decimal(q):.8f}") for p, q in levels]


def rows(levels: list[tuple[str, str]], when: str = "1600000000.123456") -> list[list[str]]:
    return [[p, q, when] for p, q in levels]


class Session:
    """Messages of one v1 pair with right checksums; `wrong` spoils the last one."""

    def __init__(self, depth: int = 10, pair: str = "XBT/USD") -> None:
        self.naive, self.pair, self.depth = Naive(depth), pair, depth
        self.messages: list[Any] = []

    def image(self, bids: list[tuple[str, str]], asks: list[tuple[str, str]]) -> Session:
        self.naive = Naive(self.depth)
        bids, asks = padded(bids), padded(asks)
        for side, levels in (("b", bids), ("a", asks)):
            for row in levels:
                self.naive.put(side, *row)
        self.messages.append([1, {"as": rows(asks), "bs": rows(bids)}, f"book-{self.depth}", self.pair])
        return self

    def update(
        self, bids: Sequence[tuple[str, str]] = (), asks: Sequence[tuple[str, str]] = (), *, wrong: int = 0
    ) -> Session:
        parts: list[dict[str, Any]] = []
        for side, levels in (("a", padded(asks)), ("b", padded(bids))):
            for row in levels:
                self.naive.put(side, *row)
            if levels:
                parts.append({side: rows(levels)})
        self.naive.cut()
        parts[-1]["c"] = str(self.naive.checksum() ^ wrong)
        self.messages.append([1, *parts, f"book-{self.depth}", self.pair])
        return self


def started(depth: int = 10) -> Session:
    return Session(depth).image(DOC_BIDS, DOC_ASKS)


def test_the_example_of_the_documentation() -> None:
    book = KrakenBook(0, "BTC/USD")
    for side, levels in ((book.asks, DOC_ASKS), (book.bids, DOC_BIDS)):
        side.load([(int(Decimal(p) * ONE), int(Decimal(q) * ONE)) for p, q in levels])
    book.set_precision(1, 8)
    assert book.checksum() == DOC_CHECKSUM
    naive = Naive(10)
    for s, levels in (("b", DOC_BIDS), ("a", DOC_ASKS)):
        for row in levels:
            naive.put(s, *row)
    assert naive.checksum() == DOC_CHECKSUM


def test_v1_image_and_updates(write_capture: Write, replayed: Run) -> None:
    s = started().update([("45284.0", "1.00000000")]).update([("45284.0", "0.00000000")], [("45284.9", "2.5")])
    run = replayed(open_feed([write_capture(URL, s.messages)]))
    assert run.levels("XBT-USD") == (s.naive.units("b"), s.naive.units("a"))
    assert run.found == {"checksum_ok": 2}
    assert run.feed.instruments()[0].id == "XBT-USD.KRAKEN"
    assert run.feed.format == "cryptofeed"
    assert run.events["ts_event"][-1] == 1600000000123456000
    assert run.events["seq"][-1] == 4  # line of the file


def test_levels_pushed_out_of_the_depth_leave_without_a_message(write_capture: Write, replayed: Run) -> None:
    s = started().update([("45284.0", "1.0"), ("45284.1", "1.0")], [("45284.5", "1.0")])
    run = replayed(open_feed([write_capture(URL, s.messages)]))
    bids, asks = run.levels("XBT-USD")
    assert (len(bids), len(asks)) == (10, 10)
    assert (bids, asks) == (s.naive.units("b"), s.naive.units("a"))
    pushed = [r for r in run.rows("px", "qty", "flags", "side") if r[2] & Flag.NO_PRINT]
    assert [(px, qty, side) for px, qty, _, side in pushed] == [
        (4527660000000, 0, Side.BID),
        (4527730000000, 0, Side.BID),
        (4529950000000, 0, Side.ASK),
    ]
    assert run.feed.synthetic == 3
    # without the cut the next removal at the edge would bring a dead level back into the ten best
    s.update([("45284.1", "0"), ("45284.0", "0")])
    again = replayed(open_feed([write_capture(URL, s.messages)]))
    assert again.found == {"checksum_ok": 2}
    assert len(again.levels("XBT-USD")[0]) == 8


def test_mismatch_throws_the_book_away_until_the_next_image(write_capture: Write, replayed: Run) -> None:
    other = Session(pair="ETH/USD").image([("100.0", "1.0")], [("101.0", "1.0")])
    s = started().update([("45284.0", "1.0")], wrong=1).update([("45284.2", "1.0")])
    run = replayed(open_feed([write_capture(URL, [*other.messages, *s.messages])]))
    assert run.found == {"checksum_mismatch": 1, "invalidated": 1, "awaiting_image": 1}
    assert run.levels("XBT-USD") == ([], [])
    assert run.levels("ETH-USD")[0] == [[100 * ONE, ONE]]
    assert (run.suspect("XBT-USD"), run.suspect("ETH-USD")) == (True, False)
    # the wrong update itself is never shown
    assert 4528400000000 not in run.events["px"].tolist()
    s.image(DOC_BIDS, DOC_ASKS).update([("45284.4", "1.0")])
    run = replayed(open_feed([write_capture(URL, s.messages)]))
    assert run.found == {"checksum_mismatch": 1, "invalidated": 1, "awaiting_image": 1, "checksum_ok": 1}
    assert run.levels("XBT-USD")[0][0] == [4528440000000, ONE]
    assert not run.suspect("XBT-USD")


def test_an_update_before_any_image_waits(write_capture: Write, replayed: Run) -> None:
    s = started().update([("45284.0", "1.0")])
    run = replayed(open_feed([write_capture(URL, s.messages[1:])]))
    assert run.found == {"awaiting_image": 1}


def test_trades_and_quiet_channels(write_capture: Write, replayed: Run) -> None:
    sold = ["5541.2", "0.15", "1534614057.321597", "s", "l", ""]
    bought = ["6060.0", "0.02", "1534614057.324998", "b", "m", ""]
    trade = [0, [sold, bought], "trade", "XBT/USD"]
    quiet = [
        [0, {"a": ["5525.4", 1, "1.0"], "b": ["5525.1", 1, "1.0"]}, "ticker", "XBT/USD"],
        [42, ["1542057314.7", "1542057360.4", "3586.7"], "ohlc-5", "XBT/USD"],
        [0, ["5698.4", "5700.0", "1542057299.5", "1.0", "0.1"], "spread", "XBT/USD"],
        {"event": "heartbeat"},
        {"event": "systemStatus", "connectionID": 17843232920108168701, "status": "online"},
    ]
    run = replayed(
        open_feed([write_capture(URL, [*started().messages, trade, *quiet, [0, [], "newThing", "XBT/USD"]])])
    )
    trades = run.events[run.events["action"] == Action.TRADE]
    assert [(int(r["side"]), int(r["px"]), int(r["qty"])) for r in trades] == [
        (Side.BID, 554120000000, 15000000),
        (Side.ASK, 606000000000, 2000000),
    ]
    assert trades["ts_event"].tolist() == [1534614057321597000, 1534614057324998000]
    assert run.found == {"unknown_type": 1}
    assert run.feed.messages == 8


# -- v2 ----------------------------------------------------------------------------------------------------------------


def v2(kind: str, bids: list[tuple[str, str]], asks: list[tuple[str, str]], checksum: int, **more: Any) -> str:
    """A v2 book message; numbers stand in it as they were given."""
    sides = [",".join(f'{{"price":{p},"qty":{q}}}' for p, q in levels) for levels in (bids, asks)]
    extra = "".join(f',"{k}":{json.dumps(v)}' for k, v in more.items())
    return (
        f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"BTC/USD","bids":[{sides[0]}],"asks":[{sides[1]}],'
        f'"checksum":{checksum}{extra}}}]}}'
    )


def v2_update(bids: list[tuple[str, str]], asks: list[tuple[str, str]], depth: int = 10, wrong: int = 0) -> str:
    naive = Naive(depth)
    bids, asks = padded(bids), padded(asks)
    for side, levels in (("b", DOC_BIDS + bids), ("a", DOC_ASKS + asks)):
        for row in levels:
            naive.put(side, *row)
    naive.cut()
    return v2("update", bids, asks, naive.checksum() ^ wrong, timestamp="2023-10-06T17:35:55.440295Z")


def test_v2_images_carry_a_checksum_too(write_capture: Write, replayed: Run) -> None:
    messages = [v2("snapshot", DOC_BIDS, DOC_ASKS, DOC_CHECKSUM), v2_update([("45284.0", "1.00000000")], [])]
    run = replayed(open_feed([write_capture(URL + "/v2", messages)]))
    assert run.found == {"checksum_ok": 2}
    assert run.levels("BTC-USD")[0][0] == [4528400000000, ONE]
    assert len(run.levels("BTC-USD")[0]) == 10
    assert run.events["ts_event"][-1] == 1696613755440295000
    assert any("depth 10" in n for n in run.feed.notices)


@pytest.mark.parametrize("strip", [True, False])
def test_v2_precision_is_found_when_zeros_were_dropped(write_capture: Write, replayed: Run, strip: bool) -> None:
    def short(levels: list[tuple[str, str]]) -> list[tuple[str, str]]:
        return [tuple(t.rstrip("0").rstrip(".") for t in row) for row in levels] if strip else levels  # type: ignore[misc]

    bids = [(p.split(".")[0] + ".0", q[:3] + "00000") for p, q in DOC_BIDS][:3]
    naive = Naive(10)
    for row in bids:
        naive.put("b", *row)
    run = replayed(open_feed([write_capture(URL, [v2("snapshot", short(bids), [], naive.checksum())])]))
    assert run.found == {"checksum_ok": 1}


def test_v2_precision_of_the_instrument_channel(write_capture: Write, replayed: Run) -> None:
    pairs = {"channel": "instrument", "type": "snapshot", "data": {"assets": [], "pairs": [
        {"symbol": "BTC/USD", "price_precision": 1, "qty_precision": 8}]}}  # fmt: skip
    run = replayed(open_feed([write_capture(URL, [pairs, v2("snapshot", DOC_BIDS, DOC_ASKS, DOC_CHECKSUM)])]))
    assert run.found == {"checksum_ok": 1}


def test_v2_wrong_image_is_not_shown(write_capture: Write, replayed: Run) -> None:
    run = replayed(
        open_feed([write_capture(URL, [v2("snapshot", DOC_BIDS, DOC_ASKS, 5), v2_update([], [("45285.0", "1.0")])])])
    )
    assert run.found == {"checksum_mismatch": 1, "awaiting_image": 1}
    assert len(run.events) == 0


def test_v2_a_proven_precision_is_not_bent_to_a_wrong_checksum(write_capture: Write, replayed: Run) -> None:
    naive = Naive(10)
    for side, levels in (("b", DOC_BIDS), ("a", DOC_ASKS)):
        for p, q in levels:
            naive.put(side, p + "0", q)  # what the checksum of another precision would be
    messages = [v2("snapshot", DOC_BIDS, DOC_ASKS, DOC_CHECKSUM), v2("update", [], [], naive.checksum())]
    assert replayed(open_feed([write_capture(URL, messages)])).found["checksum_mismatch"] == 1


@pytest.mark.parametrize("asked", [True, False])
def test_v2_depth_of_the_subscription(write_capture: Write, replayed: Run, asked: bool) -> None:
    params = {"channel": "book", "symbol": ["BTC/USD"], "depth": 25}
    ack = {"method": "subscribe", "success": True, "result": {**params, "symbol": "BTC/USD"}}
    image = v2("snapshot", DOC_BIDS, DOC_ASKS, DOC_CHECKSUM)
    messages = [image, v2_update([("45284.0", "1.0")], [], 25)]
    sent = [{"method": "subscribe", "params": params}] if asked else []
    run = replayed(open_feed([write_capture(URL, messages if asked else [ack, *messages], sent=sent)]))
    assert len(run.levels("BTC-USD")[0]) == 11
    assert run.found == {"checksum_ok": 2}


def test_v2_trades(write_capture: Write, replayed: Run) -> None:
    one = {"symbol": "BTC/USD", "side": "sell", "price": 45284.5, "qty": 0.25, "ord_type": "market", "trade_id": 77,
           "timestamp": "2023-09-25T07:49:37.708706Z"}  # fmt: skip
    messages = [{"channel": "trade", "type": kind, "data": [one]} for kind in ("snapshot", "update")]
    run = replayed(open_feed([write_capture(URL, [v2("snapshot", DOC_BIDS, DOC_ASKS, DOC_CHECKSUM), *messages])]))
    assert run.rows("action", "side", "px", "qty", "ref")[-1] == (Action.TRADE, Side.BID, 4528450000000, 25000000, 77)
    assert run.found == {"checksum_ok": 1, "skipped": 1}


def test_bare_json_lines(tmp_path: Path, replayed: Run) -> None:
    path = tmp_path / "kraken.jsonl"
    path.write_text("\n".join(json.dumps(m) for m in started().update([("45284.0", "1.0")]).messages))
    run = replayed(open_feed([path]))
    assert run.feed.format == "kraken"
    assert run.found == {"checksum_ok": 1}
    assert set(run.events["ts_recv"].tolist()) == {NULL_TS}


# -- damage ------------------------------------------------------------------------------------------------------------

GOOD = started().update([("45284.0", "1.0")]).messages
BAD_V1 = [
    [1, {"b": [["45284.0", "1.0"]], "c": "1"}, "book-10", "XBT/USD"],
    [1, {"b": [["45284.0", 1.0, "1600000000.1"]], "c": "1"}, "book-10", "XBT/USD"],
    [1, {"b": [["x", "1.0", "1600000000.1"]], "c": "1"}, "book-10", "XBT/USD"],
    [1, {"b": [["45284.0", "-1.0", "1600000000.1"]], "c": "1"}, "book-10", "XBT/USD"],
    [1, {"b": [["45284.0", "1.0", "noon"]], "c": "1"}, "book-10", "XBT/USD"],
    [1, {"b": [["45284.0", "1.0", "1600000000.1"]]}, "book-10", "XBT/USD"],
    [1, {"b": [["45284.0", "1.0", "1600000000.1"]], "c": "minus"}, "book-10", "XBT/USD"],
    [1, {"b": [["1e999999", "1.0", "1600000000.1"]], "c": "1"}, "book-10", "XBT/USD"],
    [1, {"b": None, "c": "1"}, "book-10", "XBT/USD"],
    [1, 2, "book-10", "XBT/USD"],
    [1, {"b": [["45284.0", "1.0", "1600000000.1"]], "c": "1"}, "x", "book-10", "XBT/USD"],
    [1, "book-10", "XBT/USD"],
    [1, {"b": [], "c": "1"}, "book-11", "XBT/USD"],
]


@pytest.mark.parametrize("bad", BAD_V1[:-2])
def test_a_book_message_that_cannot_be_read_spoils_its_book(write_capture: Write, replayed: Run, bad: Any) -> None:
    run = replayed(open_feed([write_capture(URL, [*GOOD, bad, GOOD[-1]])]))
    assert run.found == {"checksum_ok": 1, "malformed": 1, "invalidated": 1, "awaiting_image": 1}
    assert run.levels("XBT-USD") == ([], [])
    assert run.suspect("XBT-USD")
    assert any("line 4" in n for n in run.feed.notices)


@pytest.mark.parametrize(
    "bad", [*BAD_V1[-2:], "{", "[]", "null", '"x"', "[1,2,3,4]", "[" * 5000, '{"channel":7}', "\xff{"]
)
def test_other_garbage_is_counted(write_capture: Write, replayed: Run, bad: Any) -> None:
    run = replayed(open_feed([write_capture(URL, [*GOOD, bad])]))
    assert run.found.get("malformed") == 1
    assert run.found["checksum_ok"] == 1
    assert run.feed.messages == 3


@pytest.mark.parametrize(
    "bad",
    [
        '{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":[{"price":1}],"checksum":1}]}',
        '{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":[]}]}',
        '{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":[{"price":"x","qty":1}],"checksum":1}]}',
        '{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":[{"price":1,"qty":-1}],"checksum":1}]}',
        '{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":[{"price":null,"qty":1}],"checksum":1}]}',
        '{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","checksum":1,"timestamp":"noon"}]}',
    ],
)
def test_v2_message_that_cannot_be_read(write_capture: Write, replayed: Run, bad: str) -> None:
    run = replayed(open_feed([write_capture(URL, [v2("snapshot", DOC_BIDS, DOC_ASKS, DOC_CHECKSUM), bad])]))
    assert run.found == {"checksum_ok": 1, "malformed": 1, "invalidated": 1}


def test_finer_than_the_units_is_a_range_finding(write_capture: Write, replayed: Run) -> None:
    bad = [1, {"b": [["45284.000000001", "1.0", "1600000000.1"]], "c": "1"}, "book-10", "XBT/USD"]
    assert replayed(open_feed([write_capture(URL, [*GOOD, bad])])).found == {
        "checksum_ok": 1,
        "px_range": 1,
        "invalidated": 1,
    }
    zeros = Session().image([("0.000022900", "5.0")], [("0.000022910", "1.0")]).update([("0.000022905", "0.5")])
    assert replayed(open_feed([write_capture(URL, zeros.messages)])).found.get("px_range") == 1
    zeros = Session().image([("0.000022900", "5.0")], [("0.000022910", "1.0")]).update([("0.000022800", "0.5")])
    assert replayed(open_feed([write_capture(URL, zeros.messages)])).found == {"checksum_ok": 1}


def test_cut_recording_keeps_what_was_read(write_capture: Write, replayed: Run) -> None:
    s = started()
    for i in range(2000):
        s.update([("45284.0", f"{i % 7 + 1}.{i * 7919 % 10**8:08d}")])
    run = replayed(open_feed([write_capture(URL, s.messages, cut=4000)]))
    assert 0 < run.found.pop("checksum_ok") < 2000
    assert run.found == {"malformed": 1}


def test_empty_and_refused(write_capture: Write, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(FeedError, match="empty"):
        open_feed([tmp_path / "empty"])
    with pytest.raises(FeedError, match="no whole"):
        list(open_feed([tmp_path / "empty"], format="kraken").events())
    with pytest.raises(UsageError, match="--snapshot"):
        open_feed([write_capture(URL, GOOD)], snapshot=write_capture(URL, GOOD, name="b"))
    with pytest.raises(UsageError, match="no decoder for captures of"):
        open_feed([write_capture("wss://nowhere.example", GOOD)])
    with pytest.raises(UsageError, match="several venues"):
        open_feed([write_capture(URL, GOOD), write_capture("wss://stream.binance.com", GOOD, name="c")])


# -- the recording -----------------------------------------------------------------------------------------------------

RECORDING = "cryptofeed_raw/KRAKEN.ws.50.0.gz"


def naive_books(path: Path) -> Iterator[tuple[str, int, Naive, bool]]:
    """(pair, line, book, whether the venue's checksum stood with it) after each book message, by the rules alone."""
    books: dict[str, Naive] = {}
    with gzip.open(path, "rt") as file:
        for number, line in enumerate(file, 1):
            text = line.partition(": ")[2]
            if not text.startswith("["):
                continue
            _, *parts, channel, pair = json.loads(text)
            fields = {k: v for part in parts for k, v in part.items()}
            if "as" in fields:
                books[pair] = Naive(int(channel[5:]))
            for key in ("as", "bs", "a", "b"):
                for price, size, *_ in fields.get(key, ()):
                    books[pair].put(key[0], price, size)
            books[pair].cut()
            if "c" in fields:
                assert books[pair].checksum() == int(fields["c"])
            yield pair.replace("/", "-"), number, books[pair], "c" in fields


@pytest.mark.realdata
def test_recording_equals_the_naive_books(
    data_dir: Path, book_after_every_message: Callable[[Any], Any], exercised: Callable[[str], None]
) -> None:
    feed = open_feed([data_dir / RECORDING])
    books, checked = naive_books(data_dir / RECORDING), 0
    for n, (name, seq, bids, asks) in enumerate(book_after_every_message(feed)):
        pair, line, naive, has_checksum = next(books)
        checked += has_checksum
        assert (name, seq) == (pair, line)
        deep = 1000 if n % 50 == 0 else 5
        assert (bids[:deep], asks[:deep]) == (naive.units("b", deep), naive.units("a", deep))
        assert (len(bids), len(asks)) == (len(naive.sides["b"]), len(naive.sides["a"]))
    assert next(books, None) is None
    assert feed.messages == 4321
    assert checked == 4269
    exercised(f"Kraken: {checked} checksums of the venue, books equal to the naive ones after every message")


@pytest.mark.realdata
def test_recording_counts(data_dir: Path, replayed: Run) -> None:
    start = time.process_time()
    run = replayed(open_feed([data_dir / RECORDING]))
    seconds = time.process_time() - start
    assert run.found == {"checksum_ok": 4269}
    assert len(run.feed.instruments()) == 10
    assert "WAVES-EUR.KRAKEN" in {i.id for i in run.feed.instruments().values()}
    assert 4321 / seconds > 1000  # far below what it does: only a fall to quadratic work is caught here
