"""A running monitor beside scripted venues, and a checker that owns the venues' history.

Every book that the monitor serves as live is compared, record by record, with the market's own book at the number (or
time) that the stream had reached. The checker reads the wire by itself: nothing of it comes from the decoders.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from microrisk.feed.text import iso_ns, to_units
from microrisk.monitor.address import parse
from microrisk.monitor.journal import Reader, Record, records
from microrisk.monitor.publish import (
    BinanceMarket,
    BinanceServer,
    BitstampMarket,
    BitstampServer,
    CoinbaseMarket,
    CoinbaseServer,
    Host,
    KrakenMarket,
    KrakenServer,
    Pace,
    Product,
    StreamPlan,
    TextMarket,
)
from microrisk.monitor.publish.order_text import ASK, BID, Order, OrderBook
from microrisk.monitor.publish.venue import Beat
from microrisk.monitor.service import Service, Settings
from microrisk.spec.journal import Kind, Text

BASES = ("AAA", "BBB", "CCC", "DDD", "EEE", "FFF", "GGG", "HHH", "III", "JJJ", "KKK", "LLL")
DEADLINE_S = 30.0
EXP = 8
TOP = 20
_URL = re.compile(r"(?:/products/|symbol=|/order_book/)([A-Za-z0-9-]+)")

Heard = tuple[str, int] | None
"""Product and number of a message about a book."""


def _kraken(m: Any, url: str) -> Heard:
    if m.get("channel") != "book":
        return None
    return m["data"][0]["symbol"], iso_ns(m["data"][0]["timestamp"])


def _full(m: Any, url: str) -> Heard:
    if url:
        return _named(url), m["sequence"]
    return (m["product_id"], m["sequence"]) if "sequence" in m and m["type"] != "heartbeat" else None


def _level2(m: Any, url: str) -> Heard:
    return (m["product_id"], iso_ns(m["time"])) if m["type"] in ("snapshot", "l2update") else None


def _binance(m: Any, url: str) -> Heard:
    if url:
        return _named(url), m["lastUpdateId"]
    data = m.get("data", m)
    return (data["s"], data["u"]) if data.get("e") == "depthUpdate" else None


def _bitstamp(m: Any, url: str) -> Heard:
    if url:
        return _named(url), int(m["microtimestamp"])
    channel = m.get("channel", "")
    if not channel.startswith("diff_order_book_") or m["event"] != "data":
        return None
    return channel.rpartition("_")[2], int(m["data"]["microtimestamp"])


def _named(url: str) -> str:
    found = _URL.search(url)
    assert found is not None, url
    return found[1]


class Venue(NamedTuple):
    """How one venue is set up.

    Attributes
    ----------
    name : pattern of product names
    channel : of the flow, the one that makes the book
    heard : message (and URL of an answer) -> product and number
    broken : integrity kind of a damaged message
    drop_seen : a message that is missing shows in the stream
    rest : images come over REST
    """

    scheme: str
    name: str
    market: Callable[[TextMarket], Any]
    server: Callable[..., Any]
    query: str
    channel: str
    heard: Callable[[Any, str], Heard]
    broken: str
    drop_seen: bool = True
    rest: bool = True
    depth: int = 0


def _futures(market: TextMarket) -> BinanceMarket:
    return BinanceMarket(market, futures=True)


DIFF = "diff_order_book"
# pictures are kept by instrument id: two feeds of one venue need two names of it
VENUES = {
    "Coinbase full": Venue(
        "coinbase", "{}-USD", CoinbaseMarket, CoinbaseServer, "channel=full", "full", _full, "malformed"
    ),
    "Coinbase level2": Venue(
        "coinbase",
        "{}-USD",
        CoinbaseMarket,
        CoinbaseServer,
        "channel=level2&venue=COINBASELEVELS",
        "level2",
        _level2,
        "malformed",
        drop_seen=False,
        rest=False,
    ),
    "Kraken v2": Venue(
        "kraken",
        "{}/USD",
        KrakenMarket,
        KrakenServer,
        "depth=10",
        "book-10",
        _kraken,
        "checksum_mismatch",
        rest=False,
        depth=10,
    ),
    "Binance spot": Venue(
        "binance", "{}USDT", BinanceMarket, BinanceServer, "market=spot", "depth", _binance, "malformed"
    ),
    "Binance futures": Venue(
        "binance", "{}USDT", _futures, BinanceServer, "market=usdm", "depth", _binance, "malformed"
    ),
    "Bitstamp": Venue(
        "bitstamp",
        "{}usd",
        BitstampMarket,
        BitstampServer,
        f"channel={DIFF}",
        DIFF,
        _bitstamp,
        "malformed",
        drop_seen=False,
    ),
}


def digest(sides: Sequence[Any]) -> int:
    """Of bids and asks, rows of price and size in 1e-8; the same in every process."""
    bids, asks = (np.asarray(side, "<i8").tobytes() for side in sides)
    body = len(bids).to_bytes(8, "little") + bids + asks
    return int.from_bytes(hashlib.blake2b(body, digest_size=8).digest(), "little")


def market_levels(book: OrderBook, depth: int) -> list[list[tuple[int, int]]]:
    """A market's book as the engine has it."""
    p, q = 10 ** (EXP - book.px_decimals), 10 ** (EXP - book.qty_decimals)
    return [[(px * p, qty * q) for px, qty in side.levels(depth or None)] for side in (book.bids, book.asks)]


class Ledger:
    """The market's own books by product and number. Written by the venue's thread ahead of what it sends."""

    def __init__(self) -> None:
        self._numbers: dict[str, list[int]] = defaultdict(list)
        self._digests: dict[str, list[int]] = defaultdict(list)
        self._stamps: dict[str, list[int]] = defaultdict(list)
        self.tops: dict[str, set[int]] = defaultdict(set)

    def add(self, product: str, number: int, value: int) -> None:
        """The book from this number on."""
        self._digests[product].append(value)
        self._stamps[product].append(time.monotonic_ns())
        self._numbers[product].append(number)

    def at(self, product: str, number: int) -> int:
        """Digest of the book at a number."""
        return self._digests[product][bisect_right(self._numbers[product], number) - 1]

    def after(self, product: str, number: int, most: int) -> list[tuple[int, int]]:
        """Up to `most` numbers above this one, and when each was sent (ns of the monotonic clock)."""
        begin = bisect_right(self._numbers[product], number)
        return [
            (self._numbers[product][i], self._stamps[product][i])
            for i in range(begin, len(self._numbers[product]))[:most]
        ]

    def newest(self, product: str) -> int:
        """Number of the last book."""
        return self._numbers[product][-1]


class Mirror:
    """Single orders of one product, message by message: the books in the middle of a trade of several orders."""

    def __init__(self, flow: Any, product: str, book: OrderBook) -> None:
        self.book = OrderBook(product, book.px_decimals, book.qty_decimals)
        _, *sides = flow.orders(product)
        for sign, rows in zip((BID, ASK), sides, strict=True):
            for px, qty, label in rows:
                self._add(label, sign, px, qty)

    def _add(self, label: str, sign: int, px: str, qty: str) -> None:
        book = self.book
        book.add(Order(label, sign, to_units(px, book.px_decimals), to_units(qty, book.qty_decimals)))

    def take(self, m: dict[str, Any]) -> None:
        """One message of the full channel."""
        book, kind = self.book, m["type"]
        if kind == "open":
            self._add(m["order_id"], BID if m["side"] == "buy" else ASK, m["price"], m["remaining_size"])
        elif kind == "done":
            book.remove(m["order_id"])
        elif kind == "match":
            maker = book.orders[m["maker_order_id"]]
            book.resize(maker.label, maker.qty - to_units(m["size"], book.qty_decimals))
        elif kind == "change":
            book.resize(m["order_id"], to_units(m["new_size"], book.qty_decimals))


class Watched:
    """A venue's flow that keeps the ledger, and damages messages of the book when it is asked to."""

    def __init__(self, flow: Any, venue: Venue, plan: StreamPlan) -> None:
        self._flow, self._venue, self._plan = flow, venue, plan
        self.ledger = Ledger()
        self.wanted: dict[str, str] = {}
        self.ordered: Callable[[str], None] = lambda product: None
        self.stopped = threading.Event()
        self.market: TextMarket = flow.market
        self._mirrors: dict[str, Mirror] = {}
        for name, book in self.market.books.items():
            if venue.channel == "full":
                self._mirrors[name] = Mirror(flow, name, book)
            self._keep(name, 0, book)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._flow, name)

    def step(self) -> Beat | None:
        """The next moment; what makes the book goes first, so that it is what a fault hits."""
        if self.stopped.is_set():
            return None
        beat: Beat = self._flow.step()
        made = [t for t in beat.texts if t[0] == self._venue.channel]
        if not made:
            return beat
        name = made[0][1]
        for _, _, text in made:
            message = msgspec.json.decode(text)
            heard, mirror = self._venue.heard(message, ""), self._mirrors.get(name)
            assert heard is not None
            if mirror is not None:
                mirror.take(message)
            self._keep(name, heard[1], self.market.books[name] if mirror is None else mirror.book)
        fault = self.wanted.pop(name, "")
        if fault:
            self.ordered(name)
            getattr(self._plan, f"{fault}_next")(1, name)
        return Beat(beat.ts_ns, made + [t for t in beat.texts if t[0] != self._venue.channel])

    def _keep(self, name: str, number: int, book: OrderBook) -> None:
        levels = market_levels(book, self._venue.depth)
        self.ledger.tops[name].add(digest([side[:TOP] for side in levels]))
        self.ledger.add(name, number, digest(levels))


@dataclass
class Trouble:
    """A fault under way: `product` "" = the whole connection; times of the monotonic clock, 0 = not yet.

    Attributes
    ----------
    number : of the message that was dropped or damaged
    healed : nothing showed the loss and the book is right again: the level that was lost went as it came, or left the
        window (Kraken, whose checksums cover the ten best levels)
    marked : the data of every book that it hurt tell of it: a finding `invalidated` at its place
    """

    product: str
    begun_ns: int = 0
    seen_ns: int = 0
    live_ns: int = 0
    number: int = 0
    healed: bool = False
    marked: bool = False

    def ms(self) -> tuple[float, float]:
        """Fault to seen, fault to live again."""
        return (self.seen_ns - self.begun_ns) / 1e6, (self.live_ns - self.begun_ns) / 1e6


@dataclass
class Feed:
    """One venue beside the monitor.

    Attributes
    ----------
    counts : compared, wrong, strayed (a book that nothing was done to, not live), kept (records of other books,
        applied and live, while one was away)
    blind : a loss that the venue's stream cannot show is under way: wrong books are counted apart
    opened_ns : when each connection was made
    """

    name: str
    venue: Venue
    products: tuple[str, ...]
    plan: StreamPlan
    flow: Watched
    server: Any
    number: int = 0
    index: dict[str, int] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    details: list[str] = field(default_factory=list)
    trouble: Trouble | None = None
    settled: bool = False
    blind: bool = False
    opened_ns: list[int] = field(default_factory=list)


def bare(name: str) -> str:
    """Letters alone, as in BTCUSD."""
    return re.sub(r"[^A-Z]", "", name.upper().removesuffix("-PERP"))


class Rig:
    """Venues, the monitor, the checker; made by `running`."""

    def __init__(self, service: Service, feeds: list[Feed]) -> None:
        self.service, self.feeds = service, {f.name: f for f in feeds}
        self._numbered = {f.number: f for f in feeds}
        self._apply = service.desk.apply
        service.desk.apply = self._applied  # type: ignore[method-assign]

    # -- ingest thread --------------------------------------------------------------------------------------------

    def _applied(self, record: Record) -> None:
        self._apply(record)
        feed = self._numbered.get(record.feed)
        if feed is None or record.kind not in (Kind.TEXT, Kind.DOUBT):
            return
        if record.kind == Kind.TEXT and record.flags == Text.OPENED:
            feed.opened_ns.append(record.recv_ns)
        product = self.product_of(feed, record) if record.kind == Kind.TEXT else ""
        if product:
            self._check(feed, product)
        self._follow(feed)

    def product_of(self, feed: Feed, record: Record) -> str:
        """The product of a message about a book; its number is noted."""
        if record.flags not in (Text.RECEIVED, Text.RESPONSE):
            return ""
        body, url = bytes(record.body), ""
        if record.flags == Text.RESPONSE:
            head, _, body = body.partition(b"\n")
            url = head.decode()
        try:
            heard = feed.venue.heard(msgspec.json.decode(body), url)
        except (msgspec.DecodeError, KeyError):
            return ""
        if heard is None:
            return ""
        product, number = heard
        feed.newest[product] = max(feed.newest.get(product, 0), number)
        return product

    def live(self, feed: Feed, product: str) -> bool:
        """Whether readers are told that this book is live."""
        books = self.service.desk.books[feed.number]
        if product not in feed.index:
            feed.index = {p: i for i, e in books.names.items() for p in feed.products if bare(p) == bare(e.symbol)}
        index = feed.index.get(product)
        if index is None:
            return False
        ingest = self.service.ingest
        state = ingest.feed_state(books, 0)
        return ingest.instrument_state(books, index, state)[0] == "live"

    def all_live(self, feed: Feed) -> bool:
        """Every book of the feed."""
        return all(self.live(feed, p) for p in feed.products)

    def _check(self, feed: Feed, product: str) -> None:
        hurt = feed.trouble
        if not self.live(feed, product):
            if feed.settled and (hurt is None or hurt.product not in ("", product)):
                feed.counts["strayed"] += 1
                feed.details.append(f"{product} strayed at {feed.newest[product]}")
            return
        if hurt is not None and hurt.seen_ns and not hurt.live_ns and hurt.product not in ("", product):
            feed.counts["kept"] += 1
        feed.counts["compared"] += 1
        if self._same(feed, product):
            if hurt is not None and hurt.product == product and hurt.begun_ns and not hurt.seen_ns:
                hurt.healed = feed.newest[product] > hurt.number
        else:
            feed.counts["wrong_unseen" if feed.blind else "wrong"] += 1
            if not feed.blind:
                feed.details.append(f"{product} wrong at {feed.newest[product]}")

    def _follow(self, feed: Feed) -> None:
        """Times of the fault under way."""
        hurt = feed.trouble
        if hurt is None or not hurt.begun_ns or hurt.live_ns:
            return
        live = self.live(feed, hurt.product) if hurt.product else self.all_live(feed)
        if not live and not hurt.seen_ns:
            hurt.seen_ns = time.monotonic_ns()
        elif live and hurt.seen_ns:
            hurt.live_ns = time.monotonic_ns()

    # -- faults -----------------------------------------------------------------------------------------------------

    def damage(self, feed: Feed, fault: str, product: str) -> Trouble:
        """Drop or corrupt the next message of a product's book; back when it is live again, or healed."""
        hurt, before = Trouble(product), self._marks(feed)

        def ordered(name: str) -> None:
            hurt.number, hurt.begun_ns = feed.flow.ledger.newest(name), time.monotonic_ns()

        feed.flow.ordered, feed.trouble = ordered, hurt
        feed.flow.wanted[product] = fault
        return self._over(feed, hurt, before)

    def cut(self, feed: Feed, fault: str) -> Trouble:
        """`disconnect` or `half_open`; back when every book is live again."""
        before = self._marks(feed)
        hurt = feed.trouble = Trouble("", time.monotonic_ns())
        getattr(feed.plan, fault)()
        if fault == "half_open":
            self._deafen(feed)
            until(lambda: hurt.seen_ns, "the silence noticed")
            feed.plan.resume()
        return self._over(feed, hurt, before)

    def _deafen(self, feed: Feed) -> None:
        """A websocket library answers pings by itself: those of a dead peer must not come."""
        for client in tuple(feed.server.clients):
            feed.server._loop.call_soon_threadsafe(client.connection.transport.pause_reading)

    def _marks(self, feed: Feed) -> dict[str, int]:
        """Findings `invalidated` of each book."""
        engine = self.service.desk.books[feed.number].engine
        return dict(self.asked(lambda: {p: engine.integrity(i)["invalidated"] for p, i in feed.index.items()}))

    def _over(self, feed: Feed, hurt: Trouble, before: dict[str, int]) -> Trouble:
        until(lambda: hurt.live_ns or hurt.healed, lambda: f"{feed.name} live again: {hurt} {self.summary(feed)}")
        feed.trouble = None
        after = self._marks(feed)
        hurt.marked = all(after[p] > before[p] for p in ([hurt.product] if hurt.product else feed.products))
        return hurt

    def lose_unseen(self, feed: Feed, product: str, seconds: float = 0.3) -> None:
        """A loss that the stream does not show, then the image that a check would fetch."""
        feed.blind = True
        begun = threading.Event()
        feed.flow.ordered = lambda name: begun.set()
        feed.flow.wanted[product] = "drop"
        until(begun.is_set, "the loss")
        time.sleep(seconds)
        self.service.wiring.resync(feed.number, [product], "a check")
        until(lambda: self._right(feed, product), "the check's image")
        feed.blind = False

    def _right(self, feed: Feed, product: str) -> bool:
        return bool(self.asked(lambda: self._same(feed, product)))

    def _same(self, feed: Feed, product: str) -> bool:
        have = self.service.desk.books[feed.number].engine.levels(feed.index[product], feed.venue.depth)
        return digest(have) == feed.flow.ledger.at(product, feed.newest[product])

    # -- asking -----------------------------------------------------------------------------------------------------

    def asked(self, read: Callable[[], Any]) -> Any:
        """Something that only the ingest thread may read."""
        answer: list[Any] = []
        self.service.ingest.later(lambda: answer.append(read()))
        until(lambda: answer, "an answer")
        return answer[0]

    def settle(self) -> None:
        """Until every book of every feed is live; from now on one that is not has strayed."""
        for feed in self.feeds.values():
            until(lambda f=feed: self.asked(lambda: self.all_live(f)), lambda f=feed: f"{f.name}: {self.summary(f)}")
            feed.settled = True

    def summary(self, feed: Feed) -> dict[str, Any]:
        """Findings, counts and what the source says."""
        found = {k: v for k, v in self.service.desk.books[feed.number].integrity().items() if v}
        return {"integrity": found, **feed.counts, "source": self.service.ingest.states.get(feed.number)}

    def end_equal(self, feed: Feed) -> int:
        """Stop the market; how many books are the market's own at the end."""
        feed.flow.stopped.set()
        until(feed.server.finished.is_set, "the end")
        books = self.service.desk.books[feed.number]
        want = {p: digest(market_levels(feed.flow.market.books[p], feed.venue.depth)) for p in feed.products}

        def equal() -> int:
            index = feed.index
            return sum(digest(books.engine.levels(index[p], feed.venue.depth)) == want[p] for p in feed.products)

        end = time.monotonic() + DEADLINE_S / 6
        while (n := int(self.asked(equal))) < len(feed.products) and time.monotonic() < end:
            time.sleep(0.02)
        return n

    def frames(self, feed: Feed) -> tuple[int, int]:
        """Pictures handed to displays as live, and those of them that never were the market's."""
        books, n, wrong = self.service.desk.books[feed.number], 0, 0
        for product, index in feed.index.items():
            for frame in self.service.hub.history(books.name(index)):
                if frame.state == "live":
                    n += 1
                    sides = [np.array(s, np.int64).reshape(-1, 2) for s in (frame.bids, frame.asks)]
                    wrong += digest(sides) not in feed.flow.ledger.tops[product]
        return n, wrong


def until(true: Callable[[], Any], what: str | Callable[[], str]) -> None:
    """Wait for a condition; AssertionError when it does not come."""
    end = time.monotonic() + DEADLINE_S
    while not true():
        if time.monotonic() > end:
            raise AssertionError(f"not within {DEADLINE_S} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.002)


def doubts(folder: Path) -> Counter[int]:
    """DOUBT records of the journal by feed."""
    every = (r for block in Reader(folder) for r in records(block.payload))
    return Counter(r.feed for r in every if r.kind == Kind.DOUBT)


@contextmanager
def running(
    names: Sequence[str],
    folder: Path,
    *,
    products: int = 12,
    rate: float = 200.0,
    seed: int = 5,
    silent_ms: int = 1000,
    scored: int = 0,
    follow: bool = False,
) -> Iterator[Rig]:
    """These venues (of VENUES) at `rate` deeds a second each, in one monitor, every book live."""
    with ExitStack() as stack:
        host = stack.enter_context(Host())
        feeds = [made_feed(host, name, VENUES[name], products, rate, seed) for name in names]
        sources = [parse(_source(feed, silent_ms)) for feed in feeds]
        service = Service(sources, Settings(folder=folder, checkpoint_s=1e6, scored=scored))
        for number, feed in enumerate(feeds):
            feed.number = number
        rig = Rig(service, feeds)
        service.start()
        stack.callback(service.stop, clean=False)
        rig.settle()
        if follow:
            for feed in feeds:
                books = service.desk.books[feed.number]
                for index in feed.index.values():
                    stack.callback(service.ingest.frames.follow(books.name(index)).close)
        yield rig


def made_feed(host: Host, name: str, venue: Venue, products: int, rate: float, seed: int) -> Feed:
    """A venue that runs, watched, with this many books and this many deeds a second."""
    plan = StreamPlan()
    names = tuple(venue.name.format(b.lower() if venue.scheme == "bitstamp" else b) for b in BASES[:products])
    market = TextMarket([Product(p, 2, 6, 60_000_00 + 1000 * k) for k, p in enumerate(names)], seed)
    flow = Watched(venue.market(market), venue, plan)
    server = host.start(venue.server(flow, pace=Pace(rate=rate), plan=plan, heartbeat_s=0.2))
    return Feed(name, venue, names, plan, flow, server)


def _source(feed: Feed, silent_ms: int) -> str:
    venue = feed.venue
    rest = "" if venue.scheme == "kraken" else f"&rest={feed.server.rest_url}"
    name = feed.name.replace(" ", "-")
    return (
        f"{venue.scheme}:{','.join(feed.products)}?url={feed.server.url}{rest}&{venue.query}"
        f"&silent_ms={silent_ms}&name={name}"
    )
