"""What a venue's own server may do to a connection: refuse, redirect, flood, fall silent; and what is written down."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import http
import json
import logging
import time
from itertools import pairwise
from typing import Any

import pytest
from source_sink import Keeper, quick, run, running, until
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from microrisk.errors import UsageError
from microrisk.feed.capture import parse_line
from microrisk.monitor.secret import Secret
from microrisk.monitor.sources.backoff import Backoff, Gate
from microrisk.monitor.sources.binance import MARKETS, BinanceSource
from microrisk.monitor.sources.bitstamp import BitstampSource
from microrisk.monitor.sources.coinbase import CoinbaseSource, Keys
from microrisk.monitor.sources.kraken import KrakenSource
from microrisk.monitor.sources.websocket import WebsocketConfig, WebsocketSource, number_after
from microrisk.spec.journal import Kind, Text


class Plain(WebsocketSource):
    """No venue at all: nothing is asked, images never come."""

    venue = "plain"

    async def _fetch(self, name: str) -> None:
        await asyncio.sleep(3600)


def plain(keeper: Keeper, url: str, **config: Any) -> Plain:
    return Plain(keeper, 2, WebsocketConfig(names=("A",), url=url, **config), **quick())


def place(server: Any) -> str:
    host, port = server.sockets[0].getsockname()[:2]
    return f"ws://{host}:{port}"


def test_everything_that_is_said_is_a_record_and_nothing_is_reordered() -> None:
    texts = [f'{{"n":{n}}}' for n in range(500)]

    async def talk(connection: ServerConnection) -> None:
        for text in texts:
            await connection.send(text)
        await connection.wait_closed()

    async def work() -> Keeper:
        keeper = Keeper(room=3)
        async with serve(talk, "127.0.0.1", 0) as server, running(plain(keeper, place(server))) as task:
            await until(lambda: keeper.refused > 5)
            assert len(keeper.items) == 3
            keeper.room = 1 << 30
            await until(lambda: len(keeper.texts(Text.RECEIVED)) == 500)
            assert not task.done()
        return keeper

    keeper = run(work())
    assert [t.decode() for t in keeper.texts(Text.RECEIVED)] == texts
    assert [i.seq for i in keeper.of(Kind.TEXT)] == list(range(1, 502))


def test_numbers_go_on_after_a_restart_of_the_process() -> None:
    async def work() -> Keeper:
        keeper = Keeper()
        async with serve(lambda c: c.wait_closed(), "127.0.0.1", 0) as server:
            source = Plain(keeper, 2, WebsocketConfig(names=("A",), url=place(server)), seq=700, **quick())
            async with running(source):
                await until(lambda: keeper.items)
        return keeper

    assert run(work()).items[0].seq == 701


@pytest.mark.parametrize("status", [429, 503])
def test_a_refused_handshake_waits_as_long_as_the_venue_says(status: int) -> None:
    attempts: list[float] = []

    def refuse(connection: ServerConnection, request: Request) -> Response | None:
        attempts.append(time.monotonic())
        if len(attempts) > 1:
            return None
        response = connection.respond(http.HTTPStatus(status), "later")
        response.headers["Retry-After"] = "1"
        return response

    async def work() -> Keeper:
        keeper = Keeper()
        server = serve(lambda c: c.wait_closed(), "127.0.0.1", 0, process_request=refuse)
        async with server as listening, running(plain(keeper, place(listening))):
            await until(lambda: keeper.of(Kind.TEXT))
        return keeper

    keeper = run(work())
    assert attempts[1] - attempts[0] >= 0.99
    assert (keeper.states[0][0], f"status {status}" in keeper.states[0][1]) == ("down", True)
    assert len(keeper.of(Kind.DOUBT)) == 1, "a connection that never was is no news"


def test_redirects_are_refused() -> None:
    elsewhere: list[Any] = []

    def refuse(connection: ServerConnection, request: Request) -> Response:
        response = connection.respond(http.HTTPStatus.FOUND, "")
        response.headers["Location"] = elsewhere[0]
        return response

    async def work() -> tuple[Keeper, int]:
        keeper, caught = Keeper(), []
        async with serve(lambda c: caught.append(c), "127.0.0.1", 0) as other:
            elsewhere.append(place(other))
            server = serve(lambda c: c.wait_closed(), "127.0.0.1", 0, process_request=refuse)
            async with server as listening, running(plain(keeper, place(listening))):
                await until(lambda: keeper.state_now == "down")
        return keeper, len(caught)

    keeper, caught = run(work())
    assert "302" in keeper.states[-1][1]
    assert caught == 0


def test_a_message_beyond_the_limit_ends_the_connection() -> None:
    async def talk(connection: ServerConnection) -> None:
        await connection.send("x" * 2000)
        await connection.wait_closed()

    async def work() -> Keeper:
        keeper = Keeper()
        async with serve(talk, "127.0.0.1", 0) as server, running(plain(keeper, place(server), most_bytes=1000)):
            await until(lambda: keeper.of(Kind.DOUBT))
        return keeper

    keeper = run(work())
    assert b"1009" in keeper.of(Kind.DOUBT)[0].body
    assert not keeper.texts(Text.RECEIVED)


def test_a_server_that_never_answers_the_handshake_is_given_up() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def work() -> Keeper:
        keeper = Keeper()
        server = await asyncio.start_server(mute, "127.0.0.1", 0)
        async with server, running(plain(keeper, place(server), connect_s=0.2)):
            await until(lambda: keeper.state_now == "down")
        return keeper

    assert "timed out" in run(work()).states[-1][1]


def test_a_quiet_connection_that_answers_pings_is_alive() -> None:
    async def work() -> Keeper:
        keeper = Keeper()
        server = serve(lambda c: c.wait_closed(), "127.0.0.1", 0)
        async with server as listening, running(plain(keeper, place(listening), idle_s=0.3)):
            await until(lambda: keeper.items)
            await asyncio.sleep(1.2)
            assert not keeper.of(Kind.DOUBT)
        return keeper

    run(work())


def test_a_venue_that_always_speaks_is_dead_when_it_only_answers_pings() -> None:
    class Speaks(Plain):
        always_speaks = True

    async def work() -> Keeper:
        keeper = Keeper()
        async with serve(lambda c: c.wait_closed(), "127.0.0.1", 0) as server:
            config = WebsocketConfig(names=("A",), url=place(server), idle_s=0.3)
            async with running(Speaks(keeper, 2, config, **quick())):
                took = await until(lambda: keeper.of(Kind.DOUBT))
                assert 0.2 < took < 1.5
        return keeper

    assert run(work()).of(Kind.DOUBT)[0].body.startswith(b"silent for 0.")


def test_attempts_are_a_second_apart_and_grow_rarer() -> None:
    attempts: list[float] = []

    def refuse(connection: ServerConnection, request: Request) -> Response:
        attempts.append(time.monotonic())
        return connection.respond(http.HTTPStatus.FORBIDDEN, "")

    async def work() -> None:
        keeper, gate = Keeper(), Gate(0.2)
        async with serve(lambda c: c.wait_closed(), "127.0.0.1", 0, process_request=refuse) as server:
            config = WebsocketConfig(names=("A",), url=place(server))
            sources = [Plain(keeper, n, config, gate=gate, backoff=Backoff(first_s=0.05, seed=n)) for n in range(3)]
            async with running(sources[0]), running(sources[1]), running(sources[2]):
                await until(lambda: len(attempts) >= 8)

    run(work())
    apart = [b - a for a, b in pairwise(attempts)]
    # reserved 0.2 s apart; the loop may be late for one and in time for the next
    assert min(apart) > 0.1
    assert attempts[7] - attempts[0] > 7 * 0.2 - 0.1


def test_a_resync_from_another_thread_before_and_after_run_harms_nobody() -> None:
    keeper = Keeper()
    source = plain(keeper, "ws://127.0.0.1:9")
    source.resync(["A"], "too early")

    async def work() -> None:
        async with running(source):
            await until(lambda: keeper.state_now == "down")
            await asyncio.to_thread(source.resync, ["A", "unknown"], "no connection")
            await until(lambda: source.counts["unknown_names"])

    run(work())
    source.resync(["A"], "too late")
    assert source.images.in_flight == []


# -- keys ------------------------------------------------------------------------------------------------------------


def test_keys_are_sent_and_never_written_down(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "microrisk")
    secret = base64.b64encode(b"0123456789abcdef").decode()
    keys = Keys(Secret("the-key", "t"), Secret(secret, "t"), Secret("the-phrase", "t"))
    heard: list[dict[str, Any]] = []

    async def talk(connection: ServerConnection) -> None:
        heard.append(json.loads(await connection.recv()))
        await connection.wait_closed()

    async def work() -> Keeper:
        keeper = Keeper()
        async with serve(talk, "127.0.0.1", 0) as server:
            config = WebsocketConfig(names=("btc-usd",), url=place(server), rest="http://127.0.0.1:9")
            async with running(CoinbaseSource(keeper, 0, config, keys=keys, **quick())):
                await until(lambda: heard)
        return keeper

    keeper = run(work())
    (said,) = heard
    assert (said["key"], said["passphrase"]) == ("the-key", "the-phrase")
    signed = f"{said['timestamp']}GET/users/self/verify".encode()
    want = base64.b64encode(hmac.new(b"0123456789abcdef", signed, hashlib.sha256).digest()).decode()
    assert said["signature"] == want
    (told,) = keeper.texts(Text.SENT)
    body = {"type": "subscribe", "product_ids": ["BTC-USD"], "channels": ["full", "heartbeat"]}
    assert json.loads(told.partition(b"\n")[2]) == body
    everything = b"".join(i.body for i in keeper.items) + repr(keeper.states).encode() + caplog.text.encode()
    for part in (b"the-key", b"the-phrase", secret.encode(), want.encode()):
        assert part not in everything


def test_a_secret_that_is_no_base64_is_not_told() -> None:
    keys = Keys(Secret("k", "t"), Secret("swordfish!", "t"), Secret("p", "t"))
    with pytest.raises(UsageError) as caught:
        keys.signature(0.0)
    assert "swordfish" not in str(caught.value)


def test_keys_are_one_line_whose_passphrase_may_hold_colons() -> None:
    keys = Keys.parse(Secret("k:c2VjcmV0:a:b", "environment X"))
    assert [part.reveal() for part in keys] == ["k", "c2VjcmV0", "a:b"]


@pytest.mark.parametrize("line", ["k:c2VjcmV0", "k::phrase", "swordfish", "k:no base64!:phrase"])
def test_keys_that_are_not_whole_are_refused_and_not_told(line: str) -> None:
    with pytest.raises(UsageError) as caught:
        Keys.parse(Secret(line, "environment X"))
    assert not any(part in str(caught.value) for part in ("swordfish", "c2VjcmV0", "no base64!"))


def test_keys_do_not_go_over_the_net_in_the_clear() -> None:
    keys = Keys.parse(Secret("k:c2VjcmV0:phrase", "t"))
    config = WebsocketConfig(names=("BTC-USD",), url="ws://venue.example:80")
    with pytest.raises(UsageError, match="wss://"):
        CoinbaseSource(Keeper(), 0, config, keys=keys)


def test_a_refused_subscription_is_told() -> None:
    async def talk(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send('{"type":"error","message":"Failed to subscribe","reason":"needs authentication"}')
        await connection.wait_closed()

    async def work() -> Keeper:
        keeper = Keeper()
        async with serve(talk, "127.0.0.1", 0) as server:
            config = WebsocketConfig(names=("BTC-USD",), url=place(server), rest="http://127.0.0.1:9")
            async with running(CoinbaseSource(keeper, 0, config, **quick())):
                await until(lambda: keeper.state_now == "down")
        return keeper

    assert "needs authentication" in run(work()).states[-1][1]


# -- what can be meant -----------------------------------------------------------------------------------------------


def test_options_that_cannot_be_meant() -> None:
    keeper, config = Keeper(), WebsocketConfig(names=("BTC-USD",))
    with pytest.raises(UsageError, match="no symbol"):
        KrakenSource(keeper, 0, WebsocketConfig(names=()))
    with pytest.raises(UsageError, match="depth = 7"):
        KrakenSource(keeper, 0, config, depth=7)
    with pytest.raises(UsageError, match="channel"):
        CoinbaseSource(keeper, 0, config, channel="level9")
    with pytest.raises(UsageError, match="channel"):
        BitstampSource(keeper, 0, config, channel="level9")
    with pytest.raises(UsageError, match="market"):
        BinanceSource(keeper, 0, config, market="options")
    with pytest.raises(UsageError, match="http"):
        BitstampSource(keeper, 0, WebsocketConfig(names=("btcusd",), rest="ftp://x"))


def test_names_are_spelled_as_the_venue_does() -> None:
    keeper = Keeper()

    def names(source: type[WebsocketSource], *given: str) -> tuple[str, ...]:
        return source(keeper, 0, WebsocketConfig(names=given)).names

    assert names(KrakenSource, "btc-usd", "BTC/USD", "eth/usd") == ("BTC/USD", "ETH/USD")
    assert names(CoinbaseSource, "btc-usd") == ("BTC-USD",)
    assert names(BinanceSource, "btcusdt", "BTCUSDT-PERP", "btcusd-240927") == ("BTCUSDT", "BTCUSD_240927")
    assert names(BitstampSource, "BTC/USD", "btc-usd", "ethusd") == ("btcusd", "ethusd")


@pytest.mark.parametrize(
    "text",
    [
        '{"stream":"btcusdt@depth","data":{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":157,"u":160,"b":[],"a":[]}}',
        '{"e":"depthUpdate","E":1,"T":2,"s":"BTCUSDT","U":157,"u":160,"pu":149,"b":[],"a":[]}',
        '{"u": 160, "U": 157, "s": "BTCUSDT", "E": 1, "e": "depthUpdate", "b": [], "a": []}',
    ],
)
def test_binance_updates_are_marked_in_any_order_of_their_keys(text: str) -> None:
    source = BinanceSource(Keeper(), 0, WebsocketConfig(names=("BTCUSDT",)))
    source._begin()
    source._heard(b'{"e":"trade","E":1,"s":"BTCUSDT","t":999}')
    source._heard(text.encode())
    assert (source._floor, source._newest) == ({"BTCUSDT": 157}, {"BTCUSDT": 157})


def test_the_market_of_a_binance_test_server_is_told_by_its_recorded_host() -> None:
    keeper = Keeper()

    def told(market: str, url: str) -> str:
        return BinanceSource(keeper, 0, WebsocketConfig(names=("A",)), market=market)._told_url(url)

    assert told("spot", "http://127.0.0.1:1/x") == "http://127.0.0.1:1/x"
    assert told("usdm", "http://127.0.0.1:1/x") == "http://fapi.127.0.0.1:1/x"
    assert told("usdm", MARKETS["usdm"].url) == MARKETS["usdm"].url
    assert told("coinm", MARKETS["coinm"].rest) == MARKETS["coinm"].rest


def test_the_number_behind_a_key() -> None:
    assert number_after(b"U", b'{"u":5,"U": 12 ,"x":1}') == 12
    assert number_after(b"microtimestamp", b'{"microtimestamp":"1700000000000001"}') == 1700000000000001
    assert number_after(b"sequence", b'{"sequence":null}') is None
    assert number_after(b"sequence", b"{}") is None


def test_recorded_urls_are_those_that_captures_know() -> None:
    source = BinanceSource(Keeper(), 0, WebsocketConfig(names=("A", "B")))
    line = parse_line(f"{source._target()} <-> 1700000000.0".encode(), 1, 0, "", "x")
    assert line.url == source._target()
    assert source._target().count("@depth@100ms") == 2
