"""Sources of JSON venues against scripted venues, through the live decoders: the books must be the venue's.

Faults: cut connections, half-open ones, lost and damaged messages, refused and slow REST, a venue that asks to
reconnect.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from source_sink import Keeper, quick, run, running, until
from text_books import TextBooks, levels

from microrisk.monitor.publish import (
    BinanceMarket,
    BinanceServer,
    BitstampMarket,
    BitstampServer,
    CoinbaseMarket,
    CoinbaseServer,
    KrakenMarket,
    KrakenServer,
    Product,
    StreamPlan,
    TextMarket,
)
from microrisk.monitor.sources.binance import BinanceSource
from microrisk.monitor.sources.bitstamp import BitstampSource
from microrisk.monitor.sources.coinbase import CoinbaseSource
from microrisk.monitor.sources.kraken import KrakenSource
from microrisk.monitor.sources.websocket import WebsocketConfig, WebsocketSource
from microrisk.spec.journal import Kind, Text

SEED = 20261127


class Venue:
    """How one venue is set up: server, source, and what the decoder needs to know."""

    def __init__(
        self,
        names: tuple[str, str],
        server: Callable[..., Any],
        source: type[WebsocketSource],
        *,
        levels: int | None = None,
        damage: str = "drop",
        lags: bool = False,
        **options: Any,
    ) -> None:
        self.names, self._server, self._source = names, server, source
        self.levels, self.damage, self.options = levels, damage, options
        # a moment ends when the next one begins: the last one is not in the book yet
        self.lags = lags
        self.scheme, self.channel = source.venue, options.get("channel")

    def market(self) -> TextMarket:
        return TextMarket([Product(n, 2, 6, 60_000_00 + 1000 * i) for i, n in enumerate(self.names)], SEED)

    def server(self, plan: StreamPlan | None = None, heartbeat_s: float = 0.05) -> Any:
        return self._server(self.market(), plan=plan, heartbeat_s=heartbeat_s)

    def source(self, keeper: Keeper, server: Any, **config: Any) -> WebsocketSource:
        full = WebsocketConfig(names=self.names, url=server.url, rest=server.rest_url, **{"calm_s": 0.2, **config})
        return self._source(keeper, 1, full, **self.options, **quick())


def kraken(market: TextMarket, **options: Any) -> KrakenServer:
    return KrakenServer(KrakenMarket(market), **options)


def coinbase(market: TextMarket, **options: Any) -> CoinbaseServer:
    return CoinbaseServer(CoinbaseMarket(market), **options)


def binance(market: TextMarket, **options: Any) -> BinanceServer:
    return BinanceServer(BinanceMarket(market), **options)


def futures(market: TextMarket, **options: Any) -> BinanceServer:
    return BinanceServer(BinanceMarket(market, futures=True), **options)


def bitstamp(market: TextMarket, **options: Any) -> BitstampServer:
    return BitstampServer(BitstampMarket(market), **options)


PRODUCTS = ("BTC-USD", "ETH-USD")
SYMBOLS = ("BTCUSDT", "ETHUSDT")
PAIRS = ("btcusd", "ethusd")
VENUES = {
    "kraken": Venue(("BTC/USD", "ETH/USD"), kraken, KrakenSource, levels=25, damage="corrupt", depth=25),
    "coinbase full": Venue(PRODUCTS, coinbase, CoinbaseSource, channel="full"),
    "coinbase level2": Venue(PRODUCTS, coinbase, CoinbaseSource, channel="level2", damage="corrupt"),
    "binance spot": Venue(SYMBOLS, binance, BinanceSource),
    "binance futures": Venue(SYMBOLS, futures, BinanceSource, market="usdm"),
    "bitstamp diff": Venue(PAIRS, bitstamp, BitstampSource, channel="diff_order_book", damage="corrupt", check_s=0.0),
    "bitstamp orders": Venue(
        PAIRS, bitstamp, BitstampSource, channel="live_orders", damage="none", lags=True, check_s=0.0
    ),
}


async def go(server: Any, beats: int) -> None:
    """The market goes on; clients get their messages meanwhile."""
    for n in range(beats):
        server.advance()
        if n % 8 == 0:
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def connected(venue: Venue, plan: StreamPlan | None = None, **config: Any) -> Any:
    """Server, source and books of a venue, everything in order; at the end the books must be the venue's."""
    keeper = Keeper()
    async with venue.server(plan) as server:
        source = venue.source(keeper, server, **config)
        books = TextBooks(keeper, source, venue.scheme, venue.channel)
        async with running(source), books.following():
            await until(lambda: server.counts["subscriptions"] >= 2, what="subscribed")
            await go(server, 50)
            await settled(venue, server, source, books)
            yield server, source, books, keeper
            await go(server, 200)
            await settled(venue, server, source, books)


async def settled(venue: Venue, server: Any, source: Any, books: TextBooks, timeout_s: float = 10.0) -> float:
    """Until both books are the venue's."""
    market = server.flow.market.books
    left = set(venue.names)

    def same() -> bool:
        left.difference_update(n for n in set(left) if books.same(n, want[n], venue.levels))
        return not left and not books.live.waiting()

    begun = time.monotonic()
    while left or books.live.waiting():
        want = {n: levels(market[n], venue.levels) for n in venue.names}
        if venue.lags:
            server.advance()
        with contextlib.suppress(AssertionError):
            await until(same, 0.05 if venue.lags else timeout_s)
        if time.monotonic() - begun > timeout_s:
            state = (left, books.live.waiting(), books.found(), source.images.why, source.counts)
            raise AssertionError(f"seed {SEED}: {state} {books.live.feed.notices}")
    return time.monotonic() - begun


every = pytest.mark.parametrize("venue", VENUES.values(), ids=VENUES)


@every
def test_books_are_the_venues(venue: Venue) -> None:
    async def work() -> tuple[Any, TextBooks, Keeper]:
        async with connected(venue) as (server, source, books, keeper):
            await until(lambda: keeper.state_now == "live", what="live")
            await go(server, 1000)
        return source, books, keeper

    source, books, keeper = run(work())
    bad = {"malformed", "gap", "checksum_mismatch", "invalidated", "unknown_type", "quote_mismatch", "px_range"}
    assert not bad & set(books.found())
    texts = keeper.of(Kind.TEXT)
    assert [t.seq for t in texts] == list(range(1, len(texts) + 1))
    assert texts[0].flags == Text.OPENED
    assert texts[0].body.startswith(b"ws://")
    assert texts[0].body.endswith(b"\n")
    assert all(b.recv_ns >= a.recv_ns > 0 for a, b in pairwise(texts))
    assert [s for s, _ in keeper.states][:3] == ["syncing", "live", "live"][: len(keeper.states)]
    assert source.counts["connections"] == 1
    assert keeper.items[-1].kind == Kind.DOUBT, "the end of a source is no news to trust"


@every
def test_a_cut_connection_is_back_within_three_seconds(venue: Venue) -> None:
    async def work() -> tuple[float, Keeper]:
        plan = StreamPlan()
        async with connected(venue, plan) as (server, source, books, keeper):
            plan.disconnect()
            begun = time.monotonic()
            await until(lambda: keeper.of(Kind.DOUBT), what="doubt")
            assert keeper.state_now == "down"
            await go(server, 100)
            await until(lambda: source.counts["connections"] == 2, what="connected again")
            took = time.monotonic() - begun
            await until(lambda: server.clients, what="at the server")
            await go(server, 50)
            await settled(venue, server, source, books)
        return took, keeper

    took, keeper = run(work())
    assert took < 3.0
    doubt = keeper.of(Kind.DOUBT)[0]
    assert b"closed" in doubt.body
    kinds = [(i.kind, i.flags) for i in keeper.items]
    assert kinds.index((Kind.DOUBT, 0)) < [n for n, k in enumerate(kinds) if k == (Kind.TEXT, Text.OPENED)][1]


@every
def test_a_half_open_connection_is_found_out(venue: Venue) -> None:
    async def work() -> Keeper:
        plan = StreamPlan()
        async with connected(venue, plan, idle_s=0.6) as (server, source, books, keeper):
            plan.half_open()
            # a websocket library answers pings by itself: those of a dead peer must not come
            for client in server.clients:
                client.connection.transport.pause_reading()
            took = await until(lambda: keeper.of(Kind.DOUBT), what="doubt")
            assert took < 2.0
            plan.resume()
            await until(lambda: source.counts["connections"] == 2 and server.clients, what="connected again")
            await go(server, 50)
            await settled(venue, server, source, books)
        return keeper

    assert b"silent for" in run(work()).of(Kind.DOUBT)[0].body


DAMAGED = [(v, n) for n, v in VENUES.items() if v.damage != "none"]


@pytest.mark.parametrize("venue", [v for v, _ in DAMAGED], ids=[n for _, n in DAMAGED])
def test_only_the_symbol_in_doubt_gets_a_new_image(venue: Venue) -> None:
    async def work() -> tuple[list[str], list[bytes], list[float]]:
        plan, took = StreamPlan(), []
        async with connected(venue, plan) as (server, source, books, keeper):
            await until(lambda: not source.images.in_flight)
            await asyncio.sleep(0.3)
            books.asked.clear()
            before = len(keeper.items)
            bad, good = venue.names
            for _ in range(5):
                asked = len(books.asked)
                spoil = plan.drop_next if venue.damage == "drop" else plan.corrupt_next
                for n in range(400):
                    # trades, and channels that nobody here listens to, spoil no book: then others are damaged
                    if n % 8 == 0:
                        spoil(2, bad)
                    await go(server, 1)
                    await asyncio.sleep(0.001)
                    if len(books.asked) > asked:
                        break
                assert len(books.asked) > asked, (books.found(), plan.log.entries())
                begun = time.monotonic()
                assert good not in books.live.waiting()
                while books.live.waiting():
                    await go(server, 1)
                    await asyncio.sleep(0.001)
                took.append(time.monotonic() - begun)
                await asyncio.sleep(0.25)
            await settled(venue, server, source, books)
            new = keeper.items[before:]
            told = [i.body for i in new if i.kind == Kind.TEXT and i.flags in (Text.RESPONSE, Text.SENT)]
            assert source.counts["connections"] == 1
            return books.asked, told, took

    asked, told, took = run(work())
    bad, good = venue.names
    assert set(asked) == {bad}, "venue spelling, and nobody else"
    heads = [t[:300].upper().replace(b"/", b"").replace(b"-", b"") for t in told]
    flat = [n.upper().replace("/", "").replace("-", "").encode() for n in (bad, good)]
    assert len(heads) >= 5
    assert all(flat[0] in h and flat[1] not in h for h in heads)
    assert max(took) < 1.0, took


REST = [(v, n) for n, v in VENUES.items() if n not in ("kraken", "coinbase level2")]


@pytest.mark.parametrize("venue", [v for v, _ in REST], ids=[n for _, n in REST])
def test_refused_requests_are_tried_again_when_the_venue_allows_it(venue: Venue) -> None:
    async def work() -> tuple[float, Any]:
        plan, keeper = StreamPlan(refuse=1, retry_after_s=1), Keeper()
        async with venue.server(plan) as server:
            source = venue.source(keeper, server)
            books = TextBooks(keeper, source, venue.scheme, venue.channel)
            async with running(source), books.following():
                await until(lambda: source.counts["refused"], what="refused")
                begun = time.monotonic()
                await until(lambda: server.counts["subscriptions"] >= 2)
                await go(server, 50)
                await settled(venue, server, source, books)
                return time.monotonic() - begun, source

    took, source = run(work())
    # one symbol may have been on its way already; the refused one waits a second
    assert 0.9 < took < 4.0
    assert source.counts["refused"] <= 2


@pytest.mark.parametrize("venue", [v for v, _ in REST], ids=[n for _, n in REST])
def test_slow_images_hold_nothing_else_up(venue: Venue) -> None:
    async def work() -> int:
        plan, keeper = StreamPlan(slow_rest_s=0.5), Keeper()
        async with venue.server(plan) as server:
            source = venue.source(keeper, server)
            books = TextBooks(keeper, source, venue.scheme, venue.channel)
            async with running(source), books.following():
                await until(lambda: server.counts["subscriptions"] >= 2)
                begun = time.monotonic()
                while time.monotonic() - begun < 0.4:
                    await go(server, 1)
                    await asyncio.sleep(0.002)
                heard = len(keeper.texts(Text.RECEIVED))
                assert not keeper.texts(Text.RESPONSE)
                await settled(venue, server, source, books)
                return heard

    heard = run(work())
    assert heard > 50


@pytest.mark.parametrize("venue", [v for v, _ in REST], ids=[n for _, n in REST])
def test_asking_again_makes_no_image_too_old(venue: Venue) -> None:
    """A monitor asks four times a second while a book waits, and an image may be on its way for longer."""

    async def work() -> tuple[int, int]:
        plan = StreamPlan()
        async with connected(venue, plan) as (server, source, _books, _keeper):
            await until(lambda: not source.images.in_flight)
            stale, had = source.counts["stale_images"], source.counts["responses"]
            plan.late_rest_s = 0.3
            for _ in range(12):
                source.resync(venue.names[:1], "still waits")
                await go(server, 8)
                await asyncio.sleep(0.05)
            plan.late_rest_s = 0.0
            return source.counts["stale_images"] - stale, source.counts["responses"] - had

    stale, fetched = run(work())
    assert (stale, fetched > 0) == (0, True)


def test_bitstamp_is_left_when_it_asks_for_it() -> None:
    venue = VENUES["bitstamp diff"]

    async def work() -> Keeper:
        async with connected(venue) as (server, source, books, keeper):
            server.request_reconnect()
            await until(lambda: source.counts["connections"] == 2 and server.clients, what="connected again")
            await go(server, 50)
            await settled(venue, server, source, books)
        return keeper

    keeper = run(work())
    assert keeper.of(Kind.DOUBT)[0].body == b"the venue asks to reconnect"


def test_bitstamp_books_are_compared_with_images_from_time_to_time() -> None:
    async def work() -> Keeper:
        keeper = Keeper()
        async with VENUES["bitstamp diff"].server() as server:
            config = WebsocketConfig(names=PAIRS, url=server.url, rest=server.rest_url, calm_s=0.0)
            async with running(BitstampSource(keeper, 1, config, check_s=0.1, **quick())):
                await until(lambda: len(keeper.texts(Text.RESPONSE)) >= 8)
        return keeper

    urls = [r.partition(b"\n")[0] for r in run(work()).texts(Text.RESPONSE)]
    assert {u.rpartition(b"/order_book/")[2] for u in urls} == {b"btcusd/?group=1", b"ethusd/?group=1"}
