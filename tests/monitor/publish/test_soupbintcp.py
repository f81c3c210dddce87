"""SoupBinTCP server: bytes built here, and an independent client (nasdaq-protocols)."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Coroutine
from typing import Any

import pytest
from nasdaq_protocols import soup

from microrisk.errors import UsageError
from microrisk.monitor.publish import Host, SoupBinServer, StreamPlan, Tape

SAID = [b"message %03d" % i for i in range(1, 41)]


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 20))


def login(seq: str, *, session: str = "", password: str = "pw", timeout_ms: int | None = None) -> bytes:
    body = b"L" + b"user  " + password.encode().ljust(10) + session.encode().ljust(10) + seq.rjust(20).encode()
    if timeout_ms is not None:
        body += str(timeout_ms).rjust(5).encode()
    return struct.pack(">H", len(body)) + body


def tape_of(n: int = 40, session: str = "S1") -> Tape:
    tape = Tape(session)
    tape.append(SAID[:n])
    return tape


async def opened(server: SoupBinServer, first: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(*server.address)
    writer.write(first)
    return reader, writer


async def gone(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@pytest.mark.parametrize(("asked", "size"), [(login("39"), 49), (login("39", timeout_ms=5000), 54)])
def test_the_bytes_of_a_login_and_what_follows(asked: bytes, size: int) -> None:
    assert len(asked) == size

    async def work() -> bytes:
        tape = tape_of()
        async with SoupBinServer(tape) as server:
            reader, writer = await opened(server, asked)
            first = await reader.readexactly(33 + 2 * 14)
            tape.append([b"live"])
            tape.end()
            rest = await reader.read()
            await gone(writer)
            return first + rest

    want = b"\x00\x1fA        S1                  39"
    want += b"\0\x0cSmessage 039\0\x0cSmessage 040\0\x05Slive\0\x01Z"
    assert run(work()) == want


def test_a_login_from_now_on_sees_live_messages_only() -> None:
    async def work() -> bytes:
        tape = tape_of()
        async with SoupBinServer(tape) as server:
            reader, writer = await opened(server, login("0"))
            first = await reader.readexactly(33)
            tape.append([b"live"])
            out = first + await reader.readexactly(7)
            await gone(writer)
            return out

    assert run(work()) == b"\x00\x1fA        S1                  41\0\x05Slive"


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (login("1", password="wrong"), b"A"),
        (login("1", session="OTHER"), b"S"),
        (login("word"), b"A"),
        (b"\0\x01R", b"A"),
    ],
)
def test_refused_logins(asked: bytes, reason: bytes) -> None:
    async def work() -> bytes:
        async with SoupBinServer(tape_of(), users={"user": "pw"}) as server:
            reader, writer = await opened(server, asked)
            out = await reader.read()
            await gone(writer)
            assert server.counts["rejected"] == 1
            return out

    assert run(work()) == b"\0\x02J" + reason


def test_messages_that_the_tape_has_forgotten_cannot_be_asked_for() -> None:
    async def work() -> bytes:
        tape = Tape("S1", keep=8)
        tape.append(SAID)
        async with SoupBinServer(tape) as server:
            reader, writer = await opened(server, login("1"))
            out = await reader.read()
            await gone(writer)
            return out

    assert run(work()) == b"\0\x02JS"


def test_heartbeats_both_ways_and_a_silent_client() -> None:
    async def work() -> None:
        async with SoupBinServer(tape_of(0), heartbeat_s=0.02) as server:
            reader, writer = await opened(server, login("1", timeout_ms=300))
            out = await reader.readexactly(33 + 3 * 3)
            assert out[33:] == b"\0\x01H" * 3
            writer.write(b"\0\x01R\0\x06Uhello\0\x06+hello")
            assert (await reader.read()).replace(b"\0\x01H", b"") == b""  # ends after 0.3 s of silence
            await gone(writer)
            assert server.counts["client_heartbeats"] == 1
            assert server.unsequenced == [b"hello"]
            assert server.counts["dropped_clients"] == 1

    run(work())


def test_logout() -> None:
    async def work() -> None:
        async with SoupBinServer(tape_of()) as server:
            reader, writer = await opened(server, login("41") + b"\0\x01O")
            assert await reader.read() == b"\x00\x1fA        S1                  41"
            await gone(writer)
            assert server.counts["logouts"] == 1

    run(work())


def test_disconnect_and_half_open() -> None:
    async def work() -> None:
        plan = StreamPlan(disconnect=[3], half_open=10)
        async with SoupBinServer(tape_of(), plan=plan, heartbeat_s=0.01) as server:
            reader, writer = await opened(server, login("1"))
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await reader.readexactly(33 + 4 * 14)
            await gone(writer)
            reader, writer = await opened(server, login("4"))
            assert len(await reader.readexactly(33 + 7 * 14)) == 131
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.readexactly(1), 0.1)
            await gone(writer)
            assert [(f.what, f.seq) for f in plan.log.entries()] == [("disconnect", 3), ("half_open", 11)]

    run(work())


def test_an_independent_client_reads_replay_live_and_end() -> None:
    async def work() -> list[bytes]:
        tape, out = tape_of(), []
        async with SoupBinServer(tape, users={"user": "pw"}) as server:
            session = await soup.connect_async(server.address, "user", "pw", "", 5)
            while len(out) < 36:
                message = await session.receive_msg()
                out.append(message.data)
            tape.append([b"live 1", b"live 2"])
            for _ in range(2):
                out.append((await session.receive_msg()).data)
            await session.close()
        return out

    assert run(work()) == [*SAID[4:], b"live 1", b"live 2"]


def test_an_independent_client_is_refused() -> None:
    async def work() -> None:
        async with SoupBinServer(tape_of(), users={"user": "pw"}) as server:
            with pytest.raises(ConnectionRefusedError):
                await soup.connect_async(server.address, "user", "no", "", 1)
            assert server.counts["rejected"] == 1

    run(work())


def test_passwords_are_nowhere() -> None:
    async def work() -> SoupBinServer:
        plan = StreamPlan()
        async with SoupBinServer(tape_of(), users={"user": "other"}, plan=plan) as server:
            reader, writer = await opened(server, login("1", password="s3cret"))
            await reader.read()
            await gone(writer)
            return server

    server = run(work())
    assert "s3cret" not in repr(vars(server))
    assert b"s3cret" not in server.plan.log.json_lines()
    with pytest.raises(UsageError) as error:
        SoupBinServer(Tape(), users={"user": "a password too long"})
    assert "too long" not in str(error.value)


def test_hosted_in_a_thread() -> None:
    with Host() as host:
        server = host.start(SoupBinServer(tape_of()))
        assert server.address[1] != 0
        assert host.run(asyncio.sleep(0, "ran")) == "ran"
