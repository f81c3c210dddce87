"""Snapshots: from the project's server, and from scripted ones that break off, lie or never end."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from source_sink import Keeper, blocks, run, running, serving, until

from microrisk.errors import FeedError, FetchError
from microrisk.feed.encode import encode_message
from microrisk.monitor.publish import GlimpseServer, StreamPlan, Tape
from microrisk.monitor.sources.glimpse import PIECE, Glimpse, SpinLimits
from microrisk.monitor.sources.soup_session import SoupConfig
from microrisk.spec.journal import Kind

QUICK = SpinLimits(total_s=2.0, attempts=4, first_s=0.01)


def config(address: tuple[str, int], **options: Any) -> SoupConfig:
    return SoupConfig(host=address[0], port=address[1], user="me", **options)


def glimpse(keeper: Keeper, address: tuple[str, int], limits: SpinLimits = QUICK, **options: Any) -> Glimpse:
    return Glimpse(keeper, 5, config(address), limits=limits, seed=1, **options)


def directory(locate: int) -> bytes:
    return encode_message(
        "R", locate=locate, tracking=0, timestamp=locate, stock=f"N{locate}",
        market_category="Q", financial_status="N", round_lot_size=100, round_lots_only="N",
        issue_classification="C", issue_subtype="Z", authenticity="P", short_sale_threshold="N",
        ipo_flag="N", luld_tier="1", etp_flag="N", etp_leverage=0, inverse="N",
    )  # fmt: skip


def add(locate: int, ref: int) -> bytes:
    return encode_message(
        "A", locate=locate, tracking=0, timestamp=1000 + ref, ref=ref, side="B",
        shares=100, stock=f"N{locate}", price=10_000 + 100 * ref,
    )  # fmt: skip


def sequenced(messages: list[bytes]) -> bytes:
    return b"".join(struct.pack(">H", 1 + len(m)) + b"S" + m for m in messages)


def accepted(seq: int = 1) -> bytes:
    return struct.pack(">H", 31) + b"A" + b"S1".rjust(10) + str(seq).rjust(20).encode()


END = b"G" + b"4711".rjust(20)
BOOK = [b"A" + bytes([i % 256]) * 35 for i in range(5000)]

Script = Callable[[asyncio.StreamWriter, int], Any]


def scripted(script: Script) -> Any:
    """A server that says what `script(writer, n)` says to its n-th client (from 1), behind the login."""
    clients = count(1)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        n = next(clients)
        assert len(await reader.readexactly(49)) == 49
        await script(writer, n)

    return serving(talk)


def test_an_image_of_the_projects_server_is_whole() -> None:
    async def work() -> tuple[Keeper, Glimpse]:
        tape, keeper = Tape("S1"), Keeper()
        tape.append([directory(k) for k in (1, 2)] + [add(1 + r % 2, r) for r in range(1, 101)])
        async with GlimpseServer(tape) as server:
            client = glimpse(keeper, server.address)
            assert await client.take("a hole") == ""
        return keeper, client

    keeper, client = run(work())
    assert [i.kind for i in keeper.items] == [Kind.IMAGE_BEGIN, Kind.IMAGE, Kind.IMAGE_END]
    assert keeper.items[0].body == b"a hole"
    assert keeper.items[-1].seq == 103
    messages = blocks(keeper.items[1].body)
    assert [m[:1] for m in messages].count(b"A") == 100
    assert [m[:1] for m in messages].count(b"R") == 2
    assert client.counts["messages"] == 102


def test_a_large_image_comes_in_pieces_of_a_mib_and_cheaply() -> None:
    adds = sequenced([b"A" + bytes(35)] * 50_000)

    async def script(writer: asyncio.StreamWriter, n: int) -> None:
        writer.write(accepted())
        for _ in range(4):
            writer.write(adds)
            await writer.drain()
        writer.write(sequenced([END]))
        await writer.drain()

    async def work() -> tuple[Keeper, Glimpse, float]:
        keeper = Keeper()
        async with scripted(script) as address:
            client = glimpse(keeper, address)
            begun = time.process_time()
            assert await client.take("") == ""
            return keeper, client, time.process_time() - begun

    keeper, client, spent = run(work())
    images = keeper.of(Kind.IMAGE)
    assert sum(len(blocks(i.body)) for i in images) == client.counts["messages"] == 200_000
    assert all(len(i.body) <= PIECE for i in images)
    assert len(images) <= 12
    # server and client together, on a machine that others use
    assert spent < 1.5


def test_an_image_that_breaks_off_leaves_no_trace_and_is_taken_again() -> None:
    async def script(writer: asyncio.StreamWriter, n: int) -> None:
        writer.write(accepted() + sequenced(BOOK[:100]))
        if n >= 3:
            writer.write(sequenced(BOOK[100:]) + sequenced([END]))
        await writer.drain()

    async def work() -> tuple[Keeper, Glimpse]:
        keeper = Keeper()
        async with scripted(script) as address:
            client = glimpse(keeper, address)
            assert await client.take("") == ""
            return keeper, client

    keeper, client = run(work())
    assert len(keeper.of(Kind.IMAGE_BEGIN)) == 1
    assert [m for i in keeper.of(Kind.IMAGE) for m in blocks(i.body)] == BOOK
    assert (client.counts["failures"], client.counts["spins"]) == (2, 1)


async def says(writer: asyncio.StreamWriter, data: bytes, *, wait_s: float = 0.0) -> None:
    writer.write(data)
    await writer.drain()
    await asyncio.sleep(wait_s)


@pytest.mark.parametrize(
    ("data", "wait_s", "why"),
    [
        (accepted() + sequenced(BOOK[:10]), 0.0, "without its number"),
        (accepted() + sequenced(BOOK[:10]) + b"\0\1Z", 0.0, "without its number"),
        (accepted() + sequenced([END, BOOK[0]]), 0.0, "without its number"),
        (accepted() + sequenced([b"Gseven"]), 0.0, "number cannot be read"),
        (accepted() + sequenced([b"G" + b"9" * 20]), 0.0, "number cannot be read"),
        (accepted() + sequenced(BOOK), 5.0, "silent|no whole snapshot"),
        (accepted() + b"\0\0", 0.0, "length 0"),
        (b"\0\2JA", 0.0, "not authorised"),
        (b"", 0.0, "closed the connection"),
        (accepted() + sequenced(BOOK * 3), 5.0, "more than 400000 bytes"),
    ],
)
def test_what_is_no_image_is_refused(data: bytes, wait_s: float, why: str) -> None:
    async def work() -> Keeper:
        keeper = Keeper()
        limits = SpinLimits(total_s=0.5 if wait_s else 10.0, attempts=2, first_s=0.01, most_bytes=400_000)
        async with scripted(lambda writer, n: says(writer, data, wait_s=wait_s)) as address:
            client = glimpse(keeper, address, limits)
            with pytest.raises((FetchError, FeedError), match=why):
                await client.spin()
            assert await client.take("") != ""
        return keeper

    assert not run(work()).items


def test_joins_are_served_one_by_one_and_failures_are_told() -> None:
    async def work() -> tuple[Keeper, list[tuple[int, str]], int]:
        tape, keeper, failures = Tape("S1"), Keeper(), []
        tape.append([directory(1), add(1, 1)])
        plan = StreamPlan(refuse_connect=100)
        async with GlimpseServer(tape, plan=plan) as server:
            limits = SpinLimits(total_s=1.0, attempts=2, first_s=0.01)
            client = glimpse(keeper, server.address, limits, failed=lambda feed, why: failures.append((feed, why)))
            client.join(5, "asked before it runs")
            async with running(client):
                await until(lambda: failures)
                plan.refuse_connect(0)
                client.join(5, "second")
                await until(lambda: keeper.of(Kind.IMAGE_END))
                client.join(5, "third")
                await until(lambda: len(keeper.of(Kind.IMAGE_END)) == 2)
            return keeper, failures, server.counts["images"]

    keeper, failures, images = run(work())
    assert [f for f, _ in failures] == [5]
    assert [i.body for i in keeper.of(Kind.IMAGE_BEGIN)] == [b"second", b"third"]
    assert images == 2
