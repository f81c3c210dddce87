"""A sink that keeps what it is given, and running a source until a condition holds."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from microrisk.monitor.sources.backoff import Backoff, Gate
from microrisk.spec.journal import Kind, Text


class Put(NamedTuple):
    feed: int
    kind: int
    flags: int
    recv_ns: int
    seq: int
    body: bytes


class Keeper:
    """`room` = items that fit before the queue is full."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.items: list[Put] = []
        self.states: list[tuple[str, str]] = []
        self.room = room
        self.refused = 0

    def put(self, feed: int, kind: Kind | int, flags: int, recv_ns: int, seq: int, body: bytes) -> bool:
        if len(self.items) >= self.room:
            self.refused += 1
            return False
        self.items.append(Put(feed, int(kind), flags, recv_ns, seq, bytes(body)))
        return True

    def state(self, feed: int, state: str, why: str) -> None:
        self.states.append((state, why))

    def now_ns(self) -> int:
        return time.time_ns()

    def of(self, kind: int, flags: int | None = None) -> list[Put]:
        return [i for i in self.items if i.kind == kind and flags in (None, i.flags)]

    def texts(self, flag: Text) -> list[bytes]:
        return [i.body for i in self.of(Kind.TEXT, int(flag))]

    @property
    def state_now(self) -> str:
        return self.states[-1][0] if self.states else ""


def quick() -> dict[str, Any]:
    """Options of a source: hardly any pause between connections."""
    return {"gate": Gate(0.02), "backoff": Backoff(first_s=0.02, most_s=0.05, seed=1), "seed": 1}


def run(work: Coroutine[Any, Any, Any], timeout_s: float = 30.0) -> Any:
    return asyncio.run(asyncio.wait_for(work, timeout_s))


async def until(condition: Callable[[], Any], timeout_s: float = 10.0, what: str = "") -> float:
    """Wait for it; seconds that it took."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > timeout_s:
            raise AssertionError(f"not within {timeout_s} s: {what or condition}")
        await asyncio.sleep(0.002)
    return time.monotonic() - begun


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@contextlib.asynccontextmanager
async def serving(talk: Talk, **options: Any) -> Any:
    """A TCP server; gives its address. Whoever breaks off is no error, and nobody is left at the end."""
    tasks: set[asyncio.Task[None]] = set()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await talk(reader, writer)
            writer.close()
            await writer.wait_closed()
        except (OSError, EOFError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(client, "127.0.0.1", 0, **options)
    async with server:
        try:
            yield server.sockets[0].getsockname()[:2]
        finally:
            for task in tuple(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # transports close one turn of the loop later
            await asyncio.sleep(0)
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def running(source: Any) -> Any:
    """The source's `run` as a task; what it raises is raised."""
    task = asyncio.create_task(source.run())
    try:
        yield task
    finally:
        task.cancel()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(ended, Exception):
            raise ended


def blocks(body: bytes) -> list[bytes]:
    out, at = [], 0
    while at < len(body):
        end = at + 2 + int.from_bytes(body[at : at + 2], "big")
        out.append(body[at + 2 : end])
        at = end
    assert at == len(body)
    return out
