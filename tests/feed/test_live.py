"""JSON venues fed line by line: as their recordings are read, whenever the state is saved; lost connections, images."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microrisk.book import state_hash
from microrisk.core import Engine
from microrisk.errors import FeedError, SpecMismatch, UsageError
from microrisk.feed import coinbase_live, open_feed
from microrisk.feed.capture import OPENED, RECEIVED, RESPONSE, SENT, Capture, Line
from microrisk.feed.live import LiveText, open_live
from microrisk.feed.open import Source
from microrisk.spec.records import Action, Flag, Integrity

ONE = 10**8
T0 = 1_700_000_000_000_000_000
REST = "https://api.exchange.coinbase.com/products/BTC-USD/book?level=3"
Told = tuple[bytes, list[tuple[int, int, int]]]


# -- sessions by seed -------------------------------------------------------------------------------------------------


def line(number: int, body: Any, kind: int = RECEIVED, url: str = "") -> Line:
    text = body if isinstance(body, str) else json.dumps(body)
    return Line(number, T0 + number * 10**6, kind, text.encode(), url, "")


def numbered(url: str, bodies: Sequence[Any]) -> list[Line]:
    """A connection and its messages; a pair (URL, body) is a REST answer."""
    out = [line(1, "", OPENED, url)]
    for n, body in enumerate(bodies, 2):
        out.append(line(n, body[1], RESPONSE, body[0]) if isinstance(body, tuple) else line(n, body, RECEIVED, url))
    return out


class Walk:
    """A book of levels that changes at random; texts as venues write them."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.books: tuple[dict[int, int], dict[int, int]] = (
            {1000 - i: self.size() for i in range(20)},
            {1001 + i: self.size() for i in range(20)},
        )

    def size(self) -> int:
        return self.rng.randint(1, 9_999)

    def step(self) -> tuple[list[list[str]], list[list[str]]]:
        """Changed levels of both sides, [price, size]."""
        out: tuple[list[list[str]], list[list[str]]] = ([], [])
        for side, (book, rows) in enumerate(zip(self.books, out, strict=True)):
            for _ in range(self.rng.randint(0, 2)):
                px = self.rng.randint(970, 1000) if side == 0 else self.rng.randint(1001, 1030)
                size = 0 if px in book and len(book) > 11 and self.rng.random() < 0.4 else self.size()
                book.pop(px, None)
                if size:
                    book[px] = size
                rows.append(self.texts(px, size))
        return out

    @staticmethod
    def texts(px: int, size: int) -> list[str]:
        return [f"{px / 10:.1f}", f"{size / 1000:.8f}"]

    def image(self, depth: int = 1000) -> tuple[list[list[str]], list[list[str]]]:
        bids, asks = self.books
        best = sorted(bids, reverse=True)[:depth], sorted(asks)[:depth]
        return tuple([self.texts(p, book[p]) for p in ps] for ps, book in zip(best, self.books, strict=True))  # type: ignore[return-value]

    def cut(self, depth: int) -> None:
        for book, sign in zip(self.books, (-1, 1), strict=True):
            for px in sorted(book, key=lambda p: p * sign)[depth:]:
                del book[px]

    def checksum(self) -> int:
        bids, asks = self.image(10)
        return zlib.crc32("".join(t.replace(".", "").lstrip("0") for row in asks + bids for t in row).encode())


def kraken_v1(seed: int) -> list[Line]:
    walk, bodies = Walk(seed), []
    walk.cut(10)
    for n in range(60):
        if n in (0, 41):  # update 40 is wrong: the book is thrown away
            bids, asks = walk.image()
            parts: list[Any] = [{"as": timed(asks), "bs": timed(bids)}]
        else:
            bids, asks = walk.step()
            walk.cut(10)
            parts = [{"a": timed(asks)}, {"b": timed(bids), "c": str(walk.checksum() ^ (n == 40))}]
        bodies.append([1, *parts, "book-10", "XBT/USD"])
        if n % 7 == 3:
            bodies.append([0, [["100.0", "0.5", "1700000000.1", "s", "l", ""]], "trade", "XBT/USD"])
    return numbered("wss://ws.kraken.com", bodies)


def timed(rows: list[list[str]]) -> list[list[str]]:
    return [[*row, "1700000000.123456"] for row in rows]


def kraken_v2(seed: int) -> list[Line]:
    walk, bodies = Walk(seed), []
    walk.cut(10)
    pairs = [{"symbol": "BTC/USD", "price_precision": 1, "qty_precision": 8}]
    bodies.append({"channel": "instrument", "type": "snapshot", "data": {"pairs": pairs}})
    for n in range(50):
        bids, asks = walk.step() if n else walk.image()
        walk.cut(10)
        sides = (",".join(f'{{"price": {p}, "qty": {q}}}' for p, q in rows) for rows in (bids, asks))
        data = '{"symbol": "BTC/USD", "bids": [%s], "asks": [%s], "checksum": %d}' % (*sides, walk.checksum())  # noqa: UP031
        bodies.append('{"channel": "book", "type": "%s", "data": [%s]}' % ("update" if n else "snapshot", data))  # noqa: UP031
    lines = numbered("wss://ws.kraken.com/v2", bodies)
    asked = {"method": "subscribe", "params": {"channel": "book", "depth": 10, "symbol": ["BTC/USD"]}}
    return [lines[0], line(1, asked, SENT, "wss://ws.kraken.com/v2"), *lines[1:]]


def level2(seed: int) -> list[Line]:
    walk, bodies = Walk(seed), []
    for n in range(60):
        time = f"2023-11-14T22:13:20.{n:06d}Z"
        bids, asks = walk.step() if n else walk.image()
        if n == 0:
            bodies.append({"type": "snapshot", "product_id": "BTC-USD", "bids": bids, "asks": asks})
            continue
        rows = [["buy", *row] for row in bids] + [["sell", *row] for row in asks]
        bodies.append({"type": "l2update", "product_id": "BTC-USD", "changes": rows, "time": time})
        bid, ask = (side[0][0] for side in walk.image(1))
        bodies.append({"type": "ticker", "product_id": "BTC-USD", "time": time, "best_bid": bid, "best_ask": ask})
        bodies.append(
            {"type": "match", "product_id": "BTC-USD", "time": time, "sequence": n, "trade_id": n + n // 30,
             "side": "sell", "price": "100.1", "size": "0.5"}
        )  # fmt: skip
    return numbered("wss://ws-feed.exchange.coinbase.com", bodies)


def binance(seed: int, host: str = "stream") -> list[Line]:
    """Updates before and behind the image, one lost, the image after that; quotes."""
    walk, bodies, u = Walk(seed), [], 100
    futures = host == "fstream"
    rest = f"https://{'fapi' if futures else 'api'}.binance.com/api/v3/depth?symbol=BTCUSDT&limit=1000"
    for n in range(70):
        if n in (5, 40):
            bids, asks = walk.image()
            bodies.append((rest, {"lastUpdateId": u, "bids": bids, "asks": asks}))
        bids, asks = walk.step()
        data = {"e": "depthUpdate", "E": 1_700_000_000_000 + n, "s": "BTCUSDT", "U": u + 1, "u": u + 3, "b": bids,
                "a": asks}  # fmt: skip
        if futures:
            data |= {"pu": u, "T": 1_700_000_000_000 + n}
        u += 3
        if n != 30:
            bodies.append({"stream": "btcusdt@depth", "data": data})
        (bid, ask) = (side[0] for side in walk.image(1))
        quote = {"u": u, "s": "BTCUSDT", "b": bid[0], "B": bid[1], "a": ask[0], "A": ask[1]}
        if futures:
            quote |= {"e": "bookTicker", "T": 1_700_000_000_000 + n}
        bodies.append({"stream": "btcusdt@bookTicker", "data": quote})
    return numbered(f"wss://{host}.binance.com:9443/stream", bodies)


def futures(seed: int) -> list[Line]:
    return binance(seed, "fstream")


def bitstamp(seed: int) -> list[Line]:
    walk, bodies = Walk(seed), []
    rest = "https://www.bitstamp.net/api/v2/order_book/btcusd"
    for n in range(60):
        micros = {"timestamp": "1", "microtimestamp": str(1_700_000_000_000_000 + n)}
        bids, asks = walk.step()
        bodies.append(
            {"event": "data", "channel": "diff_order_book_btcusd", "data": micros | {"bids": bids, "asks": asks}}
        )
        if n == 3:
            bids, asks = walk.image()
            bodies.append((rest, micros | {"bids": bids, "asks": asks}))
        if n % 5 == 4:
            data = micros | {"id": n, "type": n % 2, "price": 100.5, "amount": 0.25, "amount_str": "0.25000000"}
            bodies.append({"event": "trade", "channel": "live_trades_btcusd", "data": data})
    return numbered("wss://ws.bitstamp.net/", bodies)


def bitstamp_orders(seed: int) -> list[Line]:
    """Orders behind an image; two lines in three begin a new millisecond."""
    rng, alive, bodies, micros = random.Random(seed), {}, [], 1_700_000_000_000_000
    bids = [[f"{100 - i}", "1.5", str(10 + i)] for i in range(5)]
    asks = [[f"{101 + i}", "2.5", str(20 + i)] for i in range(5)]
    image = {"timestamp": "1", "microtimestamp": str(micros), "bids": bids, "asks": asks}
    bodies.append(("https://www.bitstamp.net/api/v2/order_book/btcusd?group=2", image))
    for n in range(120):
        micros += rng.choice((0, 1000, 1500))
        if alive and rng.random() < 0.5:
            number, side, px = alive.pop(rng.choice(list(alive)))
            event, amount = rng.choice((("deleted", "0.5"), ("deleted", "0"), ("changed", "0.25")))
            if event == "changed":
                alive[number] = number, side, px
        else:
            number, side, event, amount = 1000 + n, rng.randint(0, 1), "created", "0.5"
            px = f"{rng.randint(80, 99) if side == 0 else rng.randint(102, 120)}"
            alive[number] = number, side, px
        data = {"id": number, "order_type": side, "microtimestamp": str(micros), "price": float(px), "price_str": px,
                "amount": float(amount), "amount_str": amount}  # fmt: skip
        bodies.append({"event": f"order_{event}", "channel": "live_orders_btcusd", "data": data})
    return numbered("wss://ws.bitstamp.net/", bodies)


def full(seed: int, *, image_at: int = 0, lost: Sequence[int] = (), more_images: Sequence[int] = ()) -> list[Line]:
    """Orders of one product from a book of five; an image is as late as what has been told."""
    rng, bodies, resting = random.Random(seed), [], {f"r{i}": [f"{95 + i}.5", "2", "buy"] for i in range(5)}
    for n in range(1, 101):
        if n - 1 in (image_at, *more_images):
            bodies.append((REST, level3(n - 1, resting)))
        m = coinbase_message(rng, n, resting)
        if n not in lost:
            bodies.append(m)
    return numbered("wss://ws-feed.exchange.coinbase.com", bodies)


def level3(sequence: int, resting: dict[str, list[str]]) -> dict[str, Any]:
    bids, asks = (
        sorted(
            ([px, size, name] for name, (px, size, own) in resting.items() if own == side), key=lambda r: float(r[0])
        )
        for side in ("buy", "sell")
    )
    return {"sequence": sequence, "bids": bids[::-1], "asks": asks}


def coinbase_message(rng: random.Random, n: int, resting: dict[str, list[str]]) -> dict[str, Any]:
    head = {"sequence": n, "product_id": "BTC-USD", "time": f"2023-11-14T22:13:20.{n:06d}Z"}
    kind = rng.choice(("open", "open", "done", "match", "change", "received"))
    if kind == "open" or (kind != "received" and len(resting) < 3):
        side = rng.choice(("buy", "sell"))
        px = f"{rng.randint(80, 99) if side == 'buy' else rng.randint(101, 120)}.5"
        resting[f"o{n}"] = [px, "3", side]
        return head | {"type": "open", "order_id": f"o{n}", "price": px, "remaining_size": "3", "side": side}
    name = rng.choice(list(resting))
    px, size, side = resting[name]
    if kind == "done":
        del resting[name]
        return head | {"type": "done", "order_id": name, "side": side, "price": px, "reason": "canceled"}
    if kind == "match" and int(size) > 1:
        resting[name][1] = str(int(size) - 1)
        ids = {"maker_order_id": name, "taker_order_id": "t", "trade_id": n}
        return head | {"type": "match", "size": "1", "price": px, "side": side} | ids
    if kind == "change":
        return head | {"type": "change", "order_id": name, "new_size": size, "side": side}
    return head | {"type": "received", "order_id": f"x{n}", "side": side}


# -- running them -----------------------------------------------------------------------------------------------------


class Sink:
    """Keeps what a feed gives, in order, and an engine beside."""

    def __init__(self, live: LiveText) -> None:
        self.live, self.engine = live, Engine(always_open=True)
        self.seen: list[np.ndarray] = []
        self.counted: list[tuple[int, int, int]] = []

    def run_events(self, events: np.ndarray) -> None:
        self.seen.append(events.copy())
        self.engine.run_events(events)

    def count(self, kind: int, n: int = 1, instrument: int = 0) -> None:
        self.counted.append((kind, n, instrument))
        self.engine.count(kind, n, instrument)

    def take(self, one: Line) -> Told:
        """One line; the events and findings that it gave."""
        body = one.body if one.kind == RECEIVED else one.url.encode() + b"\n" + one.body
        self.live.take(one.kind, one.ts_recv, one.number, body)
        return self.pumped()

    def doubt(self, number: int) -> Told:
        self.live.doubt(T0 + number * 10**6, number)
        return self.pumped()

    def pumped(self) -> Told:
        self.seen.clear()
        self.counted.clear()
        self.live.feed.pump(self)
        return b"".join(e.tobytes() for e in self.seen), list(self.counted)

    def end(self) -> None:
        self.live.end()
        while self.live.feed.pump(self):
            pass

    def levels(self, index: int = 0) -> list[list[list[int]]]:
        return [side.tolist() for side in self.engine.levels(index)]

    @property
    def found(self) -> dict[str, int]:
        return {k: n for k, n in self.engine.integrity().items() if n}


def told_by(feed: Any, engine: Engine) -> tuple[str, dict[str, int], dict[int, str], int]:
    """What two ways of reading must agree on."""
    names = {i: known.id for i, known in feed.instruments().items()}
    ids = [names[int(i)] for i in engine.instruments()]
    return state_hash(engine, ids), {k: n for k, n in engine.integrity().items() if n}, names, feed.messages


def lines_of(*paths: Path) -> list[Line]:
    return [one for batch in Capture([Source(p) for p in paths]).batches() for one in batch]


def as_file(lines: Sequence[Line], path: Path) -> Path:
    """The same lines as a recorder would have written them."""
    out = []
    for one in lines:
        time = f"{one.ts_recv // 10**9}.{one.ts_recv % 10**9:09d}"
        arrow = {OPENED: f"{one.url} <-> {time}", SENT: f"{one.url} <- {time}: ", RESPONSE: f"{one.url} -> {time}: "}
        out.append(arrow.get(one.kind, f"{time}: ") + one.body.decode())
    path.write_text("\n".join(out) + "\n")
    return path


def run_file(feed: Any) -> Engine:
    engine = Engine(always_open=True)
    while feed.pump(engine):
        pass
    return engine


SESSIONS: dict[str, tuple[Callable[[int], list[Line]], dict[str, Any]]] = {
    "kraken v1": (kraken_v1, {"scheme": "kraken"}),
    "kraken v2": (kraken_v2, {"scheme": "kraken"}),
    "coinbase level2": (level2, {"scheme": "coinbase", "channel": "level2"}),
    "binance": (binance, {"scheme": "binance"}),
    "binance futures": (futures, {"scheme": "binance"}),
    "bitstamp": (bitstamp, {"scheme": "bitstamp"}),
    "bitstamp orders": (bitstamp_orders, {"scheme": "bitstamp", "channel": "live_orders"}),
}
LEVEL2 = {"scheme": "coinbase", "channel": "level2"}
FULL = {"scheme": "coinbase"}


def live_of(how: dict[str, Any]) -> LiveText:
    how = dict(how)
    return open_live(how.pop("scheme"), **how)


def same_after_restoring(lines: Sequence[Line], how: dict[str, Any], every: int, *, doubt_at: int = -1) -> int:
    """One feed reads everything; another one is written and read again at every `every`-th line. Lines compared."""
    whole, broken = Sink(live_of(how)), Sink(live_of(how))
    for n, one in enumerate(lines):
        if n % every == 0:
            data = broken.live.dump()
            broken.live = live_of(how)
            broken.live.restore(data)
            assert broken.live.dump() == data, f"line {n}: the restored feed holds something else"
        assert whole.take(one) == broken.take(one), f"line {n}: {one.body[:200]!r}"
        if n == doubt_at:
            assert whole.doubt(n) == broken.doubt(n)
        assert (whole.live.waiting(), whole.live.waiting_numbers()) == (
            broken.live.waiting(),
            broken.live.waiting_numbers(),
        )
    whole.end()
    broken.end()
    assert told_by(whole.live.feed, whole.engine) == told_by(broken.live.feed, broken.engine)
    assert whole.live.feed.notices == broken.live.feed.notices
    return len(lines)


# -- line by line, and written and read again -------------------------------------------------------------------------


@pytest.mark.parametrize("name", SESSIONS)
def test_line_by_line_is_what_the_file_says(name: str, tmp_path: Path) -> None:
    make, how = SESSIONS[name]
    lines = make(7)
    # what is read again has the numbers of the file's lines
    lines = lines_of(as_file(lines, tmp_path / "session.ws.1.0"))
    sink = Sink(live_of(how))
    events = [sink.take(one)[0] for one in lines]
    assert sum(map(bool, events)) > 40
    sink.end()
    feed = open_feed([tmp_path / "session.ws.1.0"])
    engine = run_file(feed)
    assert told_by(sink.live.feed, sink.engine) == told_by(feed, engine)
    assert sink.live.feed.mask == feed.mask
    assert len(engine.orders(0)) > 5
    assert "malformed" not in sink.found


@pytest.mark.parametrize("name", SESSIONS)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_restored_feed_goes_on_as_if_nothing_had_been(name: str, seed: int) -> None:
    make, how = SESSIONS[name]
    assert same_after_restoring(make(seed), how, 1, doubt_at=25) > 50


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("lost", [(), (40,)])
def test_a_restored_level3_feed_too(seed: int, lost: tuple[int, ...]) -> None:
    lines = full(seed, image_at=10, lost=lost, more_images=(60, 90))
    assert same_after_restoring(lines, FULL, 1, doubt_at=70) > 50


# -- Coinbase full ----------------------------------------------------------------------------------------------------


def level3_file(lines: Sequence[Line], tmp_path: Path, after: int) -> Any:
    """The feed of the file that begins with the image of `after`."""
    image = tmp_path / "image.json"
    image.write_bytes(next(one.body for one in lines if one.kind == RESPONSE))
    messages = [json.loads(one.body) for one in lines if one.kind == RECEIVED]
    path = tmp_path / "messages.json"
    path.write_text(json.dumps(messages))
    return open_feed([path], snapshot=image)


@pytest.mark.parametrize("image_at", [0, 17])
def test_level3_line_by_line_is_what_the_file_says(image_at: int, tmp_path: Path) -> None:
    lines = full(5, image_at=image_at)
    sink = Sink(live_of(FULL))
    for one in lines:
        sink.take(one)
    sink.end()
    feed = level3_file(lines, tmp_path, image_at)
    engine = run_file(feed)
    live, file = told_by(sink.live.feed, sink.engine), told_by(feed, engine)
    assert live[:3] == file[:3]
    assert live[3] == file[3] + 1  # the image, too, has come as a message
    assert len(engine.orders(0)) > 10
    last = sink.live.feed.order_label(int(sink.engine.orders(0)[0]["order_id"]))
    assert last == feed.order_label(int(engine.orders(0)[0]["order_id"]))


def test_messages_wait_for_the_image_and_carry_its_time() -> None:
    sink = Sink(live_of(FULL))
    lines = full(3, image_at=4)
    told = [sink.take(one) for one in lines[:6]]
    assert [len(events) for events, _ in told[:-1]] == [0] * 5
    assert sink.live.waiting() == []
    events = np.concatenate(sink.seen)
    assert events[0]["action"] == Action.CLEAR
    assert set(events["ts_recv"].tolist()) == {lines[5].ts_recv}
    assert sink.found == {"skipped": 4}


def test_a_jump_throws_the_book_away_until_an_image_that_fits() -> None:
    lines = full(3, image_at=0, lost=(20,), more_images=(15, 30))
    answers = [n for n, one in enumerate(lines) if one.kind == RESPONSE]
    sink, honest = Sink(live_of(FULL)), Sink(live_of(FULL))
    for one in full(3, image_at=0):
        honest.take(one)
    jump = next(n for n, one in enumerate(lines) if b'"sequence": 21,' in one.body)
    for one in lines[: jump + 1]:
        sink.take(one)
    assert (sink.live.waiting(), sink.live.waiting_numbers()) == (["BTC-USD"], {0})
    assert (len(sink.engine.orders(0)), sink.engine.suspect(0)) == (0, True)
    # image 15 came while the book was in order: it took the book's place or was skipped, never both
    assert sink.found["gap"] == sink.found["invalidated"] == 1
    old = line(9000, level3(12, {"a": ["99", "1", "buy"]}), RESPONSE, REST)
    sink.take(old)
    assert (sink.found["gap"], sink.live.waiting()) == (2, ["BTC-USD"])
    for one in lines[jump + 1 :]:
        sink.take(one)
    assert answers[-1] > jump
    assert sink.live.waiting() == []
    assert not sink.engine.suspect(0)
    assert sink.found["invalidated"] == 1
    assert sink.levels() == honest.levels()


def test_a_newer_image_takes_the_place_of_a_book_in_order() -> None:
    sink = Sink(live_of(FULL))
    for one in full(3, image_at=0)[:10]:
        sink.take(one)
    sink.take(line(50, level3(3, {"old": ["99", "1", "buy"]}), RESPONSE, REST))
    assert sink.found["skipped"] == 1
    sink.take(line(51, level3(500, {"new": ["99", "1", "buy"]}), RESPONSE, REST))
    assert sink.levels() == [[[99 * ONE, ONE]], []]
    sink.take(line(52, {"type": "open", "sequence": 501, "product_id": "BTC-USD", "time": "2023-11-14T22:13:20Z",
                        "order_id": "z", "price": "98", "remaining_size": "1", "side": "buy"}))  # fmt: skip
    assert sink.levels()[0] == [[99 * ONE, ONE], [98 * ONE, ONE]]
    assert [sink.live.feed.order_label(int(o["order_id"])) for o in sink.engine.orders(0)] == ["new", "z"]


def test_an_empty_image_is_an_empty_book() -> None:
    sink = Sink(live_of(FULL))
    sink.take(line(1, level3(5, {}), RESPONSE, REST))
    assert (sink.live.waiting(), sink.levels(), sink.engine.suspect(0)) == ([], [[], []], False)
    assert np.concatenate(sink.seen)["flags"].tolist() == [Flag.SNAPSHOT | Flag.LAST]


@pytest.mark.parametrize(
    ("field", "value"), [("price", "abc"), ("remaining_size", None), ("side", "up"), ("time", "noon")]
)
def test_a_message_that_cannot_be_read_costs_its_book(field: str, value: Any) -> None:
    sink = Sink(live_of(FULL))
    sink.take(line(1, level3(5, {"a": ["99", "1", "buy"]}), RESPONSE, REST))
    m = {"type": "open", "sequence": 6, "product_id": "BTC-USD", "time": "2023-11-14T22:13:20Z", "order_id": "z",
         "price": "98", "remaining_size": "1", "side": "buy"}  # fmt: skip
    sink.take(line(2, m | {field: value}))
    assert sink.found == {"malformed": 1, "invalidated": 1}
    assert (sink.live.waiting(), sink.engine.suspect(0)) == (["BTC-USD"], True)


@pytest.mark.parametrize(
    "answer",
    [
        "not JSON",
        {"message": "NotFound"},
        {"sequence": 5, "bids": [["99", "1", 3]], "asks": []},
        {"sequence": -5, "bids": [], "asks": []},
        {"sequence": 5, "bids": [["x", "1", "a"]], "asks": []},
        {"sequence": 5, "bids": [], "asks": [], "time": "noon"},
    ],
)
def test_an_image_that_cannot_be_read_changes_nothing(answer: Any) -> None:
    sink = Sink(live_of(FULL))
    sink.take(line(1, answer, RESPONSE, REST))
    sink.take(line(2, "also not JSON"))
    sink.take(line(3, {"type": "open", "sequence": 6, "product_id": "", "time": ""}))
    sink.take(line(4, {"x": 1}, RESPONSE, "https://api.exchange.coinbase.com/time"))
    assert sink.found == {"malformed": 3, "unknown_type": 1}
    assert sink.live.feed.instruments() == {}


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coinbase_live, "MAX_KEPT", 10)
    sink = Sink(live_of(FULL))
    for one in full(3, image_at=200):
        sink.take(one)
    assert sink.found == {"awaiting_image": 90}
    sink.end()
    assert sink.found == {"awaiting_image": 100}


def test_ids_of_orders_are_forgotten_with_them() -> None:
    sink = Sink(live_of(FULL))
    for one in full(4, image_at=0, lost=(50,), more_images=(60,)):
        sink.take(one)
        ids, products = sink.live.feed._ids, sink.live.feed._products.values()
        assert len(ids) == len(ids._names) == sum(len(p.orders) for p in products)
    assert len(ids) == len(sink.engine.orders(0)) > 5


# -- lost connections -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*SESSIONS, "coinbase full"])
def test_every_book_waits_when_the_connection_is_lost(name: str) -> None:
    make, how = SESSIONS.get(name, (lambda seed: full(seed), FULL))
    lines = make(7)
    sink = Sink(live_of(how))
    for one in lines[:35]:
        sink.take(one)
    assert (sink.live.waiting_numbers(), sink.engine.suspect(0)) == (set(), False)
    assert len(sink.engine.orders(0)) > 0
    sink.doubt(900)
    assert (sink.live.waiting_numbers(), sink.engine.suspect(0), len(sink.engine.orders(0))) == ({0}, True, 0)
    assert sink.found["session_reset"] == sink.found["invalidated"] == 1
    sink.doubt(901)
    assert sink.found["invalidated"] == 1
    # what the venue calls it
    spelled = {"kraken v1": "XBT/USD", "kraken v2": "BTC/USD", "coinbase level2": "BTC-USD", "coinbase full": "BTC-USD"}
    expected = spelled.get(name, "BTCUSDT" if "binance" in name else "btcusd")
    assert sink.live.waiting() == [expected]
    assert sink.live.feed.instruments()[0].symbol in ("XBT-USD", "BTC-USD", "BTCUSDT", "BTCUSDT-PERP")


@pytest.mark.parametrize("make", [binance, futures])
def test_numbered_updates_are_kept_over_a_lost_connection(make: Callable[[int], list[Line]]) -> None:
    """The image behind the loss is older than what came before it: the numbers say what follows."""
    lines = make(7)
    cut = next(n for n, one in enumerate(lines) if one.kind == RESPONSE) + 20
    honest, sink = Sink(live_of({"scheme": "binance"})), Sink(live_of({"scheme": "binance"}))
    for one in lines[:cut]:
        sink.take(one)
    sink.doubt(500)
    sink.take(line(501, "", OPENED, lines[0].url))
    for one in lines[cut:]:
        sink.take(one)
    for one in lines:
        honest.take(one)
    # the second image of the session is the first behind the loss
    assert sink.levels() == honest.levels()
    assert (sink.live.waiting(), sink.engine.suspect(0)) == ([], False)


def test_a_connection_made_again_without_doubt_keeps_numbered_books() -> None:
    for lines, how in ((binance(7), {"scheme": "binance"}), (full(7), FULL)):
        sink = Sink(live_of(how))
        for one in lines[:25]:
            sink.take(one)
        sink.take(line(99, "", OPENED, lines[0].url))
        assert sink.live.waiting() == []


def test_a_book_that_something_unreadable_may_have_changed_needs_an_image() -> None:
    sink = Sink(live_of(LEVEL2))
    lines = level2(7)
    for one in lines[:20]:
        sink.take(one)
    sink.take(line(99, '{"type": "l2up'))
    assert (sink.live.waiting(), sink.engine.suspect(0)) == (["BTC-USD"], True)
    assert len(sink.engine.orders(0)) > 0
    assert same_after_restoring([*lines[:20], line(99, '{"type": "l2up'), *lines[20:]], LEVEL2, 1)
    sink.take(lines[1])
    assert (sink.live.waiting(), sink.engine.suspect(0)) == ([], False)


# -- requests that cannot be meant, damaged state ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "channel", "why"),
    [
        ("coinbase", "level3", "no channel 'level3'"),
        ("bitstamp", "live_trades", "no channel 'live_trades'"),
        ("kraken", "book", "one channel"),
        ("binance", "depth", "one channel"),
        ("bybit", None, "no live feed 'bybit'"),
    ],
)
def test_unknown_feeds_and_channels(scheme: str, channel: str | None, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        open_live(scheme, channel=channel)


def test_lines_that_cannot_be_meant() -> None:
    live = open_live("kraken")
    with pytest.raises(UsageError, match="kind 4"):
        live.take(4, T0, 1, b"{}")
    live.take(RECEIVED, T0, 1, b"{}")
    with pytest.raises(UsageError, match="1 lines have not been applied"):
        live.dump()
    with pytest.raises(UsageError, match="open another one"):
        live.restore(b"")
    live.feed.pump(Engine())
    assert live.feed.progress == 0.0
    live.end()
    with pytest.raises(UsageError, match="behind the end"):
        live.take(RECEIVED, T0, 2, b"{}")


def test_a_feed_without_a_line_is_silent() -> None:
    for how in (*[how for _, how in SESSIONS.values()], FULL):
        sink = Sink(live_of(how))
        assert sink.pumped() == (b"", [])
        assert sink.live.waiting() == []
        assert sink.live.feed.progress == 0.0


def states() -> Iterator[tuple[bytes, dict[str, Any]]]:
    for lines, how in (*((make(3), how) for make, how in SESSIONS.values()), (full(3), FULL)):
        sink = Sink(live_of(how))
        for one in lines[:40]:
            sink.take(one)
        yield sink.live.dump(), how


def test_damaged_states_are_refused() -> None:
    rng = random.Random(20)
    for data, how in states():
        for cut in (0, 3, 15, 16, len(data) // 2, len(data) - 1):
            with pytest.raises(FeedError):
                live_of(how).restore(data[:cut])
        for _ in range(40):
            at, bit = rng.randrange(len(data)), 1 << rng.randrange(8)
            broken = data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
            with pytest.raises((FeedError, SpecMismatch)):
                live_of(how).restore(broken)


def test_damage_under_a_right_checksum_is_refused_or_read_but_never_runs() -> None:
    rng = random.Random(21)
    for data, how in states():
        for _ in range(60):
            body = bytearray(data[16:])
            body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
            live = live_of(how)
            try:
                live.restore(data[:12] + zlib.crc32(body).to_bytes(4, "little") + bytes(body))
            except FeedError:
                continue
            assert isinstance(live.dump(), bytes)


def test_a_state_of_another_build_or_feed_is_refused() -> None:
    data, how = next(states())
    with pytest.raises(SpecMismatch, match="another build"):
        live_of(how).restore(data[:4] + b"\x63" + data[5:])
    with pytest.raises(FeedError, match="the feed is 'bitstamp::'"):
        open_live("bitstamp").restore(data)
    with pytest.raises(FeedError, match="kraken::X"):
        open_live("kraken", venue="X").restore(data)


# -- recordings -------------------------------------------------------------------------------------------------------


def compare(paths: list[Path], how: dict[str, Any], every: int) -> None:
    lines = lines_of(*paths)
    sink = Sink(live_of(how))
    for one in lines:
        sink.take(one)
    sink.end()
    feed = open_feed(paths)
    engine = run_file(feed)
    assert told_by(sink.live.feed, sink.engine) == told_by(feed, engine)
    assert same_after_restoring(lines, how, every) == len(lines) > 100


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("KRAKEN.ws.50.0.gz", {"scheme": "kraken"}),
        ("COINBASE.ws.28.0.gz", LEVEL2),
        ("BINANCE.ws.1.0.gz", {"scheme": "binance"}),
        ("BITSTAMP.ws.1.0.gz", {"scheme": "bitstamp"}),
    ],
)
def test_recordings_of_cryptofeed(name: str, how: dict[str, Any], data_dir: Path) -> None:
    compare([data_dir / "cryptofeed_raw" / name], how, 97)


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["spot_btcusdt_20240808", "usdm_btcusdt_20240808", "cm_btcusd_perp_20240808"])
def test_recordings_of_binance(name: str, data_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "binance.txt"
    with gzip.open(data_dir / "binance_btc_2024" / f"{name}.gz", "rb") as whole:
        path.write_bytes(b"".join(islice(whole, 3000)))
    compare([path], {"scheme": "binance"}, 101)


@pytest.mark.realdata
def test_the_recording_of_coinbase_full(data_dir: Path) -> None:
    folder = data_dir / "coinbase_l3_2018"
    image = gzip.decompress((folder / "beginning_level_3.json.gz").read_bytes())
    messages = json.loads(gzip.decompress((folder / "messages.json.gz").read_bytes()))
    lines = [line(n, m) for n, m in enumerate(messages, 2)]
    lines.insert(40, Line(1, lines[40].ts_recv, RESPONSE, image, REST, ""))
    sink = Sink(live_of(FULL))
    for one in lines:
        sink.take(one)
    feed = open_feed([folder / "messages.json.gz"], snapshot=folder / "beginning_level_3.json.gz")
    engine = run_file(feed)
    assert told_by(sink.live.feed, sink.engine)[:3] == told_by(feed, engine)[:3]
    assert sink.live.feed.messages == feed.messages + 1
    assert "gap" not in sink.found
    assert same_after_restoring(lines[:3000], FULL, 1000) == 3000


@pytest.mark.realdata
def test_the_recording_of_bitstamp_orders(data_dir: Path, tmp_path: Path) -> None:
    """The order log as the messages that it was written from."""
    with gzip.open(data_dir / "bitstamp_l3_2026" / "orders.csv.gz", "rt") as log:
        rows = [row.strip().split(",") for row in islice(log, 6513, 9500)]
    bodies = []
    for number, _, ms, px, amount, action, side in rows:
        data = {"id": int(number), "order_type": int(side == "ask"), "microtimestamp": ms + "000", "price": float(px),
                "price_str": px, "amount": float(amount), "amount_str": amount}  # fmt: skip
        bodies.append({"event": f"order_{action}", "channel": "live_orders_btcusd", "data": data})
    image = {"timestamp": "1", "microtimestamp": "1777689380521321", "bids": [["78000", "1", "5"]], "asks": []}
    bodies.insert(0, ("https://www.bitstamp.net/api/v2/order_book/btcusd?group=2", image))
    path = as_file(numbered("wss://ws.bitstamp.net/", bodies), tmp_path / "session.ws.1.0")
    compare([path], {"scheme": "bitstamp", "channel": "live_orders"}, 103)


def test_findings_have_their_names() -> None:
    """The numbers that the tests compare are those of Integrity."""
    sink = Sink(live_of(FULL))
    sink.take(line(1, "not JSON"))
    assert sink.counted == [(int(Integrity.malformed), 1, 0xFFFFFFFF)]
