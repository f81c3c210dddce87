"""The net thread: one asyncio loop for all that speaks TCP, websockets and REST; nothing of it touches a book."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from microrisk.monitor.hub import DOWN

Job = Callable[[], Coroutine[Any, Any, None]]
"""Makes a source's coroutine; called again when it has failed."""
AGAIN_S = 1.0


class Net:
    """Runs jobs until `stop`; a job that fails is said to be down and begun again after AGAIN_S.

    Parameters
    ----------
    say : feed, state, reason
    """

    def __init__(self, say: Callable[[int, str, str], None]) -> None:
        self._say = say
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="net", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping: asyncio.Event | None = None
        self._started = threading.Event()

    def start(self) -> None:
        """Begin; returns when the loop runs."""
        self._thread.start()
        self._started.wait()

    def add(self, feed: int, job: Job) -> None:
        """Run a job of a feed."""
        self._loop.call_soon_threadsafe(self._spawn, feed, job)

    def stop(self) -> None:
        """Cancel everything and wait for it."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop)
            self._thread.join(timeout=10)

    def close(self) -> None:
        """Give the loop back, if `start` was never reached."""
        if not self._thread.is_alive() and not self._loop.is_closed():
            self._loop.close()

    def _stop(self) -> None:
        if self._stopping is not None:
            self._stopping.set()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        self._started.set()
        await self._stopping.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, feed: int, job: Job) -> None:
        task = self._loop.create_task(self._keep(feed, job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep(self, feed: int, job: Job) -> None:
        """A source reconnects by itself; what comes out of it is a fault of ours or of its configuration."""
        while True:
            try:
                await job()
                return
            except Exception as fault:  # one source must not end the others
                self._say(feed, DOWN, f"{type(fault).__name__}: {fault}")
                await asyncio.sleep(AGAIN_S)
