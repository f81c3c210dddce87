"""Servers of asyncio run for code that is not: one loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
S = TypeVar("S", bound="Server")


class Server(Protocol):
    """What can be hosted."""

    async def start(self) -> Any:
        """Listen."""

    async def close(self) -> None:
        """Stop."""


class Host:
    """A loop in a thread; `with Host() as host: host.start(server)`. Servers are closed with it, the last one first."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="publish")
        self._servers: list[Server] = []
        self._thread.start()

    def start(self, server: S) -> S:
        """Start a server and keep it until `close`."""
        self.run(server.start())
        self._servers.append(server)
        return server

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float = 30.0) -> T:
        """The result of a coroutine in the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    def close(self) -> None:
        """Close the servers and end the thread."""
        for server in reversed(self._servers):
            self.run(server.close())
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
