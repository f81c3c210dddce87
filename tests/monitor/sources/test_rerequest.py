"""Re-requests against servers that are honest, dead, slow, short, lossy or liars."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from source_sink import Keeper, run, running, until

from microrisk.errors import UsageError
from microrisk.feed.mold import HEADER, mold_packet
from microrisk.monitor.publish import RequestFaults, RerequestServer, Tape
from microrisk.monitor.sources import ANSWER_LINE, DATAGRAM
from microrisk.monitor.sources.rerequest import AskLimits, Rerequester

SESSION = b"S1        "
SAID = [b"message %05d" % i for i in range(1, 20_001)]


def tape() -> Tape:
    out = Tape("S1")
    out.append(SAID)
    return out


@contextmanager
def asker(keeper: Keeper, servers: list[tuple[str, int]], session: bytes = SESSION, **limits: Any) -> Iterator[Any]:
    client = Rerequester(keeper, 4, servers, session=lambda: session, limits=AskLimits(**limits), host="127.0.0.1")
    try:
        yield client
    finally:
        client.close()


def filled(keeper: Keeper) -> dict[int, bytes]:
    """Numbers answered so far, each datagram taken apart by the layout."""
    out: dict[int, bytes] = {}
    for item in keeper.of(DATAGRAM):
        session, seq, count = HEADER.unpack_from(item.body)
        assert (item.feed, item.flags, session) == (4, ANSWER_LINE, SESSION)
        at = 20
        for k in range(count):
            end = at + 2 + int.from_bytes(item.body[at : at + 2], "big")
            out[seq + k] = item.body[at + 2 : end]
            at = end
    return out


def hole(first: int, count: int) -> dict[int, bytes]:
    return {n: SAID[n - 1] for n in range(first, first + count)}


class Udp:
    """A scripted server: `answer(request number, session, first, count)` gives datagrams."""

    def __init__(self, answer: Callable[[int, bytes, int, int], list[bytes]]) -> None:
        self.asked: list[tuple[bytes, int, int]] = []
        self._answer = answer
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.05)
        self.address = self._socket.getsockname()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                data, peer = self._socket.recvfrom(2048)
            except TimeoutError:
                continue
            assert len(data) == 20
            request = struct.unpack(">10sQH", data)
            self.asked.append(request)
            for packet in self._answer(len(self.asked), *request):
                self._socket.sendto(packet, peer)

    def __enter__(self) -> Udp:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()


def honest(n: int, session: bytes, first: int, count: int) -> list[bytes]:
    return [mold_packet("S1", first, SAID[first - 1 : first - 1 + min(count, 20)])]


def test_a_hole_is_filled_packet_by_packet() -> None:
    async def work() -> tuple[Keeper, Any]:
        keeper = Keeper()
        with RerequestServer(tape()) as server, asker(keeper, [server.address]) as client:
            async with running(client):
                client.ask(4, 101, 3000)
                await until(lambda: len(filled(keeper)) == 3000)
                assert client.outstanding == 0
                assert not client.failed(4)
        return keeper, client

    keeper, client = run(work())
    assert filled(keeper) == hole(101, 3000)
    assert client.counts["messages"] == 3000, "no number came twice"
    assert client.counts["lies"] == client.counts["late"] == client.counts["malformed"] == 0


def test_asking_again_for_what_is_on_its_way_changes_nothing() -> None:
    async def work() -> Udp:
        keeper = Keeper()
        with Udp(honest) as server, asker(keeper, [server.address], settle_s=10.0, first_s=10.0) as client:
            for _ in range(50):
                client.ask(4, 11, 5)
            client.ask(4, 11, 8)
            async with running(client):
                await until(lambda: len(filled(keeper)) == 8)
                for _ in range(50):
                    client.ask(4, 11, 8)
                await asyncio.sleep(0.05)
        return server

    assert run(work()).asked == [(SESSION, 11, 5), (SESSION, 16, 3)]


def test_requests_are_limited_in_size_and_number() -> None:
    async def work() -> tuple[Udp, Any]:
        keeper = Keeper()
        limits = {"outstanding": 3, "messages": 100, "first_s": 10.0, "deadline_s": 60.0}
        with Udp(lambda *_: []) as server, asker(keeper, [server.address], **limits) as client:
            for _ in range(5):
                client.ask(4, 1, 10**12)
            await until(lambda: len(server.asked) == 3)
            await asyncio.sleep(0.05)
            assert client.outstanding == 3
        return server, client

    server, _ = run(work())
    assert server.asked == [(SESSION, 1, 100), (SESSION, 101, 100), (SESSION, 201, 100)]


@pytest.mark.parametrize("bad", [RequestFaults(dead=True), RequestFaults(lie="session"), RequestFaults(lie="numbers")])
def test_a_bad_server_is_left_for_the_next_one(bad: RequestFaults) -> None:
    async def work() -> tuple[Keeper, Any, float]:
        keeper = Keeper()
        with (
            RerequestServer(tape(), faults=bad) as first,
            RerequestServer(tape()) as second,
            asker(keeper, [first.address, second.address]) as client,
        ):
            async with running(client):
                client.ask(4, 501, 100)
                took = await until(lambda: len(filled(keeper)) == 100)
                client.ask(4, 901, 50)
                await until(lambda: len(filled(keeper)) == 150)
            return keeper, client, took

    keeper, client, took = run(work())
    assert filled(keeper) == hole(501, 100) | hole(901, 50)
    assert took < 2.0
    assert not client.failed(4)
    assert client.counts["repeats"] == 1, "the server that answered is asked first from then on"
    assert bool(client.counts["lies"]) == bool(bad.lie)


def test_lost_requests_are_repeated() -> None:
    async def work() -> tuple[Keeper, Any]:
        keeper = Keeper()
        with (
            RerequestServer(tape(), faults=RequestFaults(lose=2)) as server,
            asker(keeper, [server.address]) as client,
        ):
            async with running(client):
                client.ask(4, 7, 10)
                await until(lambda: len(filled(keeper)) == 10)
        return keeper, client

    keeper, client = run(work())
    assert filled(keeper) == hole(7, 10)
    assert client.counts["repeats"] == 2


def test_short_answers_are_asked_for_again_from_the_new_start() -> None:
    async def work() -> tuple[Keeper, Udp]:
        keeper = Keeper()

        def short(n: int, session: bytes, first: int, count: int) -> list[bytes]:
            return (
                [mold_packet("S1", first, SAID[first - 1 : first + 2])] if count >= 3 else honest(n, b"", first, count)
            )

        with Udp(short) as server, asker(keeper, [server.address], first_s=5.0) as client:
            async with running(client):
                client.ask(4, 100, 10)
                await until(lambda: len(filled(keeper)) == 10)
        return keeper, server

    keeper, server = run(work())
    assert filled(keeper) == hole(100, 10)
    assert server.asked == [(SESSION, 100, 10), (SESSION, 103, 7), (SESSION, 106, 4), (SESSION, 109, 1)]


def test_an_answer_in_the_middle_leaves_two_rests() -> None:
    async def work() -> tuple[Keeper, Udp]:
        keeper = Keeper()

        def middle(n: int, session: bytes, first: int, count: int) -> list[bytes]:
            return [mold_packet("S1", 104, SAID[103:106])] if n == 1 else honest(n, b"", first, count)

        with Udp(middle) as server, asker(keeper, [server.address], first_s=5.0) as client:
            async with running(client):
                client.ask(4, 100, 10)
                await until(lambda: len(filled(keeper)) == 10)
        return keeper, server

    keeper, server = run(work())
    assert filled(keeper) == hole(100, 10)
    assert sorted(server.asked[1:]) == [(SESSION, 100, 4), (SESSION, 107, 3)]


BAD = {
    "lies": [
        mold_packet("S2", 100, SAID[99:109]),
        mold_packet("S1", 99, SAID[98:102]),
        mold_packet("S1", 105, SAID[104:111]),
        mold_packet("S1", 5000, SAID[4999:5003]),
    ],
    "malformed": [
        b"short",
        mold_packet("S1", 100, SAID[99:109])[:-1],
        mold_packet("S1", 100, SAID[99:109]) + b"x",
        struct.pack(">10sQH", SESSION, 100, 10),
        struct.pack(">10sQH", SESSION, 0, 1) + b"\0\0",
    ],
    "empty": [mold_packet("S1", 100, []), struct.pack(">10sQH", SESSION, 100, 0xFFFF)],
}


@pytest.mark.parametrize("kind", sorted(BAD))
def test_no_bad_answer_is_ever_handed_on(kind: str) -> None:
    async def work() -> tuple[Keeper, Any]:
        keeper = Keeper()
        with Udp(lambda *_: BAD[kind]) as server, asker(keeper, [server.address], first_s=0.01, attempts=3) as client:
            async with running(client):
                client.ask(4, 100, 10)
                await until(lambda: client.failed(4))
        return keeper, client

    keeper, client = run(work())
    assert not keeper.items
    assert client.counts[kind] == 3 * len(BAD[kind])


def test_answers_of_strangers_are_counted_and_dropped() -> None:
    async def work() -> tuple[Keeper, Any]:
        keeper = Keeper()
        with (
            Udp(lambda *_: []) as server,
            asker(keeper, [server.address], first_s=5.0, deadline_s=60.0) as client,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger,
        ):
            async with running(client):
                client.ask(4, 100, 10)
                stranger.sendto(mold_packet("S1", 100, SAID[99:109]), client._socket.getsockname())
                await until(lambda: client.counts["foreign"])
        return keeper, client

    keeper, _ = run(work())
    assert not keeper.items


@pytest.mark.parametrize("faults", [RequestFaults(dead=True), RequestFaults(lie="session"), RequestFaults(delay_s=0.5)])
def test_a_feed_whose_servers_all_fail_is_told_in_time_and_begins_anew(faults: RequestFaults) -> None:
    async def work() -> tuple[float, Any]:
        keeper = Keeper()
        with RerequestServer(tape(), faults=faults) as server:
            limits = {"first_s": 0.02, "attempts": 4, "deadline_s": 0.4}
            with asker(keeper, [server.address], **limits) as client:
                async with running(client):
                    client.ask(4, 100, 10)
                    took = await until(lambda: client.failed(4))
                    assert client.outstanding == 0
                    client.ask(4, 100, 10)
                    assert client.outstanding == 0
                    client.forget(4)
                    assert not client.failed(4)
                    server.faults = RequestFaults()
                    client.ask(4, 200, 10)
                    await until(lambda: len(filled(keeper)) >= 10)
                assert hole(200, 10).items() <= filled(keeper).items()
                return took, client

    took, client = run(work())
    assert took < 1.0
    assert client.counts["failures"] == 1


def test_an_answer_behind_the_hole_is_late_and_no_lie() -> None:
    async def work() -> tuple[Keeper, Any]:
        keeper = Keeper()
        with (
            RerequestServer(tape(), faults=RequestFaults(delay_s=0.1)) as server,
            asker(keeper, [server.address], first_s=5.0) as client,
        ):
            async with running(client):
                client.ask(4, 100, 10)
                client.forget(4)
                await until(lambda: client.counts["late"])
        return keeper, client

    keeper, client = run(work())
    assert not keeper.items
    assert client.counts["lies"] == 0


def test_without_a_session_nothing_is_asked() -> None:
    keeper = Keeper()
    with Udp(honest) as server, asker(keeper, [server.address], session=b"") as client:
        client.ask(4, 1, 10)
        assert client.outstanding == 0
        assert not client.counts


def test_servers_must_be_named_and_known() -> None:
    with pytest.raises(UsageError, match="named"), asker(Keeper(), []):
        pass
    with pytest.raises(UsageError, match="re-request server"), asker(Keeper(), [("no-such-host.invalid", 1)]):
        pass


def test_a_full_sink_refuses_and_the_numbers_are_asked_for_again() -> None:
    async def work() -> tuple[Keeper, Any]:
        keeper = Keeper(room=0)
        with RerequestServer(tape()) as server, asker(keeper, [server.address], first_s=0.02) as client:
            async with running(client):
                client.ask(4, 100, 10)
                await until(lambda: client.counts["refused"])
                keeper.room = 10
                await until(lambda: len(filled(keeper)) == 10)
        return keeper, client

    keeper, _ = run(work())
    assert filled(keeper) == hole(100, 10)


def test_asking_is_quick_and_holes_are_filled_within_50_ms() -> None:
    async def work() -> tuple[list[float], list[float]]:
        keeper, asked, took = Keeper(), [], []
        with RerequestServer(tape()) as server, asker(keeper, [server.address]) as client:
            async with running(client):
                for k in range(200):
                    keeper.items.clear()
                    begun = time.perf_counter()
                    client.ask(4, 1 + 50 * k, 20)
                    asked.append(time.perf_counter() - begun)
                    while len(filled(keeper)) < 20:
                        await asyncio.sleep(0)
                    took.append(time.perf_counter() - begun)
                    client.forget(4)
        return sorted(asked), sorted(took)

    asked, took = run(work())
    assert asked[100] < 0.001, f"median {asked[100] * 1e6:.0f} us to send"
    assert took[198] < 0.05, f"p99 {took[198] * 1e3:.1f} ms"
