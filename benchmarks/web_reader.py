"""Clients of the page in a process of their own: readers that may be stopped, or one who means ill.

    python -m benchmarks.web_reader read ADDRESS TOKEN SOCKETS      follows instruments, counts frames
    python -m benchmarks.web_reader abuse ADDRESS TOKEN             every trick of the fault matrix, again and again

Prints one JSON object a second: what came, or what was refused.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

BIG = b"x" * (10 << 20)
SOCKETS_AT_ONCE = 1000
SLOW = 50
"""Connections that send a byte now and then."""


def say(counts: Counter[str]) -> None:
    print(json.dumps(counts), flush=True)


async def tell(counts: Counter[str]) -> None:
    while True:
        await asyncio.sleep(1.0)
        say(counts)


async def read(address: str, token: str, sockets: int) -> None:
    """Each socket follows an instrument of its own, and the overview."""
    counts: Counter[str] = Counter()
    telling = asyncio.create_task(tell(counts))
    head = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=address, headers=head) as client:
        names = [row["id"] for row in (await client.get("/api/instruments")).json()]
    await asyncio.gather(*(follow(address, head, names[i % len(names)], counts) for i in range(sockets)), telling)


async def follow(address: str, head: dict[str, str], name: str, counts: Counter[str]) -> None:
    url = address.replace("http", "ws", 1).rstrip("/") + "/ws"
    while True:
        with suppress(OSError, WebSocketException):
            async with connect(url, additional_headers=head, max_size=None) as ws:
                counts["connections"] += 1
                await ws.send(json.dumps({"page": "overview", "follow": name}))
                async for message in ws:
                    counts["frames" if isinstance(message, bytes) else "texts"] += 1
        await asyncio.sleep(0.5)


async def abuse(address: str, token: str) -> None:
    """Everything at once."""
    counts: Counter[str] = Counter()
    telling = asyncio.create_task(tell(counts))
    limits = httpx.Limits(max_connections=40)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=5.0) as client:
        tricks = [asked(client, counts), flood(address, counts), heavy(address, token, counts), slow(address, counts)]
        await asyncio.gather(*tricks, telling)


async def asked(client: httpx.AsyncClient, counts: Counter[str]) -> None:
    """Wrong tokens, foreign hosts and origins."""
    tricks: list[dict[str, Any]] = [
        {"headers": {"Authorization": "Bearer wrong"}},
        {"headers": {"Host": "evil.example"}},
        {"headers": {"Origin": "https://evil.example"}},
        {"params": {"token": "wrong"}},
    ]
    while True:
        for trick in tricks:
            with suppress(httpx.HTTPError):
                answer = await client.get("/api/overview", **trick)
                counts["refused" if answer.status_code in (401, 403, 421, 429) else f"got {answer.status_code}"] += 1
        await asyncio.sleep(0.01)


async def flood(address: str, counts: Counter[str]) -> None:
    """A thousand sockets at once."""
    at = urlsplit(address)
    while True:
        made = await asyncio.gather(
            *(asyncio.open_connection(at.hostname, at.port) for _ in range(SOCKETS_AT_ONCE)), return_exceptions=True
        )
        counts["connections"] += sum(not isinstance(m, BaseException) for m in made)
        await asyncio.sleep(1.0)
        for one in made:
            if not isinstance(one, BaseException):
                one[1].close()


async def heavy(address: str, token: str, counts: Counter[str]) -> None:
    """A frame of ten megabytes."""
    url = address.replace("http", "ws", 1).rstrip("/") + "/ws"
    while True:
        try:
            async with connect(url, additional_headers={"Authorization": f"Bearer {token}"}) as ws:
                await ws.send(BIG)
                await ws.wait_closed()
                counts[f"big frame closed with {ws.close_code}"] += 1
        except (OSError, WebSocketException):
            counts["big frame refused"] += 1
        await asyncio.sleep(0.2)


async def slow(address: str, counts: Counter[str]) -> None:
    """Requests that never end."""
    at = urlsplit(address)

    async def one() -> None:
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection(at.hostname, at.port)
                began = time.monotonic()
                writer.write(b"GET / HTTP/1.1\r\n")
                while not reader.at_eof() and time.monotonic() < began + 60:
                    writer.write(b"X")
                    await writer.drain()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(reader.read(1), 1.0)
                counts["slow requests cut off"] += reader.at_eof()
                writer.close()
            await asyncio.sleep(0.1)

    await asyncio.gather(*(one() for _ in range(SLOW)))


def main() -> None:
    what, address, token, *rest = sys.argv[1:]
    with suppress(KeyboardInterrupt):
        asyncio.run(read(address, token, int(rest[0])) if what == "read" else abuse(address, token))


if __name__ == "__main__":
    main()
