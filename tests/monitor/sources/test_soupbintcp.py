"""The SoupBinTCP source against the project's server and against an independent one (nasdaq-protocols)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from nasdaq_protocols import soup
from source_sink import Keeper, blocks, quick, run, running, serving, until

from microrisk.monitor.publish import SoupBinServer, StreamPlan, Tape
from microrisk.monitor.secret import Secret
from microrisk.monitor.sources import NEW_SESSION, STREAM
from microrisk.monitor.sources.soup_session import SoupConfig
from microrisk.monitor.sources.soupbintcp import SoupBinSource
from microrisk.spec.journal import Kind

SAID = [b"message %05d" % i for i in range(1, 5001)]


def config(address: tuple[str, int], **options: Any) -> SoupConfig:
    return SoupConfig(host=address[0], port=address[1], user="me", **options)


def numbered(keeper: Keeper) -> dict[int, bytes]:
    out: dict[int, bytes] = {}
    for item in keeper.of(STREAM):
        out |= {item.seq + k: m for k, m in enumerate(blocks(item.body))}
    return out


def whole(keeper: Keeper, n: int) -> bool:
    return sum(len(blocks(i.body)) for i in keeper.of(STREAM)) >= n


def test_a_session_from_its_first_message_to_its_end() -> None:
    async def work() -> Keeper:
        tape, keeper = Tape("S1"), Keeper()
        tape.append(SAID[:4000])
        async with SoupBinServer(tape, users={"me": "pw"}) as server:
            source = SoupBinSource(keeper, 3, config(server.address), password=Secret("pw", "test"), **quick())
            async with running(source) as task:
                await until(lambda: whole(keeper, 4000))
                tape.append(SAID[4000:])
                tape.end()
                await task
        return keeper

    keeper = run(work())
    assert keeper.items[0][1:6:4] == (NEW_SESSION, b"S1        ")
    assert keeper.items[0].seq == 1
    assert numbered(keeper) == dict(enumerate(SAID, 1))
    assert all(len(i.body) <= 65536 for i in keeper.of(STREAM))
    assert len(keeper.of(STREAM)) < 500
    assert (keeper.items[-1].kind, keeper.items[-1].seq) == (Kind.END, 5001)
    assert keeper.state_now == "ended"


def test_a_cut_connection_is_taken_up_where_it_ended() -> None:
    async def work() -> tuple[Keeper, int]:
        tape, keeper = Tape("S1"), Keeper()
        tape.append(SAID[:1000])
        plan = StreamPlan(disconnect=[100, 400, 401, 900])
        async with SoupBinServer(tape, plan=plan) as server:
            async with running(SoupBinSource(keeper, 0, config(server.address), **quick())):
                await until(lambda: whole(keeper, 1000))
            return keeper, server.counts["logins"]

    keeper, logins = run(work())
    assert numbered(keeper) == dict(enumerate(SAID[:1000], 1))
    assert logins == 5
    assert len(keeper.of(NEW_SESSION)) == 1
    assert [s for s, _ in keeper.states].count("down") == 4


def test_another_session_is_read_from_its_first_message() -> None:
    async def work() -> Keeper:
        tape, keeper = Tape("S1"), Keeper()
        tape.append(SAID[:300])
        async with SoupBinServer(tape) as server, running(SoupBinSource(keeper, 0, config(server.address), **quick())):
            await until(lambda: whole(keeper, 300))
            tape.restart("S2")
            tape.append(SAID[1000:1400])
            await until(lambda: whole(keeper, 700))
        return keeper

    keeper = run(work())
    kinds = [i.kind for i in keeper.items]
    second = kinds.index(NEW_SESSION, 1)
    assert keeper.items[second].body == b"S2        "
    after = Keeper()
    after.items = keeper.items[second + 1 :]
    assert numbered(after) == dict(enumerate(SAID[1000:1400], 1))


def test_a_process_that_starts_again_asks_for_what_it_lacks() -> None:
    async def work() -> Keeper:
        tape, keeper = Tape("S1"), Keeper()
        tape.append(SAID[:300])
        async with SoupBinServer(tape) as server:
            source = SoupBinSource(keeper, 0, config(server.address), seq=201, session="S1", **quick())
            async with running(source):
                await until(lambda: whole(keeper, 100))
        return keeper

    keeper = run(work())
    assert not keeper.of(NEW_SESSION)
    assert numbered(keeper) == dict(enumerate(SAID[200:300], 201))


def test_a_refused_login_says_why_and_never_what_was_sent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def work() -> tuple[Keeper, int]:
        keeper = Keeper()
        async with SoupBinServer(Tape("S1"), users={"me": "right"}) as server:
            source = SoupBinSource(keeper, 0, config(server.address), password=Secret("swordfish", "test"), **quick())
            async with running(source):
                await until(lambda: keeper.state_now == "down")
                await asyncio.sleep(0.3)
            return keeper, server.counts["rejected"]

    keeper, rejected = run(work())
    assert "not authorised" in keeper.states[-1][1]
    assert rejected == 1, "a refused login is not tried again at once"
    assert "swordfish" not in caplog.text + repr(keeper.states)


def test_a_silent_server_is_dead_and_a_quiet_one_is_not() -> None:
    async def work() -> tuple[Keeper, SoupBinSource]:
        keeper, plan = Keeper(), StreamPlan()
        async with SoupBinServer(Tape("S1"), plan=plan, heartbeat_s=0.05) as server:
            options = config(server.address, silence_s=0.4, heartbeat_s=0.05)
            source = SoupBinSource(keeper, 0, options, **quick())
            async with running(source):
                await until(lambda: keeper.state_now == "live")
                await until(lambda: server.counts["heartbeats"] > 15)
                assert keeper.state_now == "live"
                assert server.counts["client_heartbeats"] > 5
                plan.half_open()
                took = await until(lambda: keeper.state_now == "down")
                assert took < 2.0
                plan.resume()
                await until(lambda: keeper.state_now == "live")
        return keeper, source

    keeper, source = run(work())
    assert "silent for 0.4 s" in repr(keeper.states)
    assert source.counts["connections"] >= 2


def test_a_full_queue_stops_the_reading_and_loses_nothing() -> None:
    async def work() -> Keeper:
        tape, keeper = Tape("S1"), Keeper(room=2)
        tape.append([m * 20 for m in SAID])
        async with SoupBinServer(tape) as server:
            source = SoupBinSource(keeper, 0, config(server.address), **quick())
            async with running(source):
                await until(lambda: keeper.refused > 3)
                assert len(keeper.items) == 2
                keeper.room = 1 << 30
                await until(lambda: whole(keeper, 5000))
        assert source.out.waits > 0
        return keeper

    assert numbered(run(work())) == {i: m * 20 for i, m in enumerate(SAID, 1)}


@pytest.mark.parametrize("junk", [b"\0\0", b"\0\1Q", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_server_of_another_kind_is_told_apart(junk: bytes) -> None:
    async def work() -> Keeper:
        keeper = Keeper()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(junk)
            await writer.drain()

        async with serving(answer) as address, running(SoupBinSource(keeper, 0, config(address), **quick())):
            await until(lambda: len(keeper.states) > 1)
        return keeper

    keeper = run(work())
    assert {s for s, _ in keeper.states} == {"down"}
    assert not keeper.items


class Oracle(soup.SoupServerSession, session_type="server"):
    """An independent server: accepts, and sends from the number asked for."""

    async def on_login(self, msg: Any) -> Any:
        first = int(msg.sequence)
        asyncio.get_running_loop().call_soon(self._say, first)
        return soup.LoginAccepted("S9", first)

    def _say(self, first: int) -> None:
        for message in SAID[first - 1 : 200]:
            self.send_seq_msg(message)
        self.send_msg(soup.Debug("a word"))
        self.end_session()

    async def on_unsequenced(self, msg: Any) -> None:
        raise AssertionError(msg)


def test_an_independent_server_is_understood() -> None:
    async def work() -> tuple[Keeper, SoupBinSource]:
        keeper = Keeper()
        server = await asyncio.get_running_loop().create_server(Oracle, "127.0.0.1", 0)
        async with server:
            address = server.sockets[0].getsockname()[:2]
            source = SoupBinSource(keeper, 0, config(address), password=Secret("pw", "test"), seq=51, **quick())
            async with running(source) as task:
                await task
        return keeper, source

    keeper, source = run(work())
    assert keeper.items[0].body == b"S9        "
    assert numbered(keeper) == dict(enumerate(SAID[50:200], 51))
    assert keeper.items[-1].seq == 201
    assert source.counts["debug"] == 1
