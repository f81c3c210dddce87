"""GLIMPSE 5.0 as a client: the book of every name at one number of the feed, over SoupBinTCP.

A spin is log in, read the sequenced messages, and end with `G` and the number (ASCII) from which live messages apply.
It is kept until it is whole: books are not emptied for an image that never ends. Then IMAGE_BEGIN, IMAGE records of at
most a MiB and IMAGE_END go to the sink in one go. Length and padding of `G` are not verified against a live venue: any
number of digits and blanks is taken.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from microrisk.errors import FeedError, FetchError
from microrisk.monitor.secret import Secret
from microrisk.monitor.sources import Sink
from microrisk.monitor.sources.backoff import Backoff
from microrisk.monitor.sources.outlet import Outlet
from microrisk.monitor.sources.soup_frames import Packet
from microrisk.monitor.sources.soup_session import SoupConfig, SoupSession
from microrisk.spec.journal import Kind

PIECE = 1 << 20
"""Bytes of one IMAGE body at most."""
_END = ord("G")


class SpinLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a snapshot may take.

    Attributes
    ----------
    total_s : login to `G`
    most_bytes : of messages; a million orders take 40 MB
    attempts : logins for one join
    first_s : pause behind the first failure; it doubles
    """

    total_s: float = 30.0
    most_bytes: int = 1 << 30
    attempts: int = 5
    first_s: float = 0.1


class Spin(NamedTuple):
    """A whole snapshot: bodies of IMAGE records, messages in them, number of the first live message, its session."""

    bodies: list[bytes]
    messages: int
    seq: int
    session: bytes


class Glimpse:
    """A snapshot server; `join` takes a snapshot into the sink.

    Parameters
    ----------
    sink, feed : where it goes
    config, password : of the server
    failed : called with feed and reason when all attempts of a join were in vain (in the net thread)
    seed : of the jitter

    Attributes
    ----------
    counts : spins, failures, messages
    last_s : seconds that the last whole spin took, login to `G`
    """

    def __init__(
        self,
        sink: Sink,
        feed: int,
        config: SoupConfig,
        *,
        password: Secret | None = None,
        limits: SpinLimits | None = None,
        failed: Callable[[int, str], None] = lambda feed, why: None,
        seed: int | None = None,
    ) -> None:
        self.out, self.config, self.limits = Outlet(sink, feed), config, limits or SpinLimits()
        self.counts: Counter[str] = Counter()
        self.last_s = 0.0
        self._password, self._failed, self._seed = password, failed, seed
        self._wanted: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._why: str | None = None

    # -- from the ingest thread ---------------------------------------------------------------------------------------

    def join(self, feed: int, why: str) -> None:
        """Take an image. Safe from any thread, returns at once; one at a time."""
        self._why = why
        loop = self._loop
        if loop is not None:
            loop.call_soon_threadsafe(self._ask)

    def _ask(self) -> None:
        if self._wanted is not None:
            self._wanted.set()

    # -- the net thread -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve joins until cancelled."""
        self._loop, self._wanted = asyncio.get_running_loop(), asyncio.Event()
        try:
            while True:
                while self._why is None:
                    await self._wanted.wait()
                    self._wanted.clear()
                why, self._why = self._why, None
                await self._serve(why)
        finally:
            self._loop = None

    async def _serve(self, why: str) -> None:
        trouble = await self.take(why)
        if trouble:
            self._failed(self.out.feed, trouble)

    async def take(self, why: str) -> str:
        """An image into the sink; "" or the reason why there is none."""
        backoff = Backoff(first_s=self.limits.first_s, most_s=2.0, seed=self._seed)
        trouble = ""
        for _ in range(self.limits.attempts):
            await asyncio.sleep(backoff.wait_s())
            try:
                spin = await self.spin()
            except (FetchError, FeedError) as error:
                self.counts["failures"] += 1
                trouble = str(error)
                backoff.failed()
                continue
            await self._deliver(spin, why)
            return ""
        return trouble

    async def spin(self) -> Spin:
        """One snapshot.

        Raises
        ------
        FetchError, FeedError : no connection, login refused, silence, cut before `G`, beyond the limits
        """
        begun, c = time.monotonic(), self.config
        try:
            async with asyncio.timeout(self.limits.total_s):
                soup = await SoupSession.open(c, self._password, 1, most_run=PIECE)
                try:
                    spin = await self._read(soup)
                finally:
                    await soup.close(logout=True)
        except TimeoutError as why:
            raise FetchError(f"{c.place}: no whole snapshot within {self.limits.total_s:g} s") from why
        self.last_s = time.monotonic() - begun
        self.counts["spins"] += 1
        self.counts["messages"] += spin.messages
        return spin

    async def _read(self, soup: SoupSession) -> Spin:
        bodies: list[bytes] = []
        size = messages = 0
        async for packets in soup.packets():
            for packet in packets:
                if packet.kind == b"Z":
                    break
                if packet.kind != b"S":
                    continue
                size += len(packet.body)
                if size > self.limits.most_bytes:
                    raise FeedError(f"{self.config.place}: a snapshot of more than {self.limits.most_bytes} bytes")
                seq = _number(packet, self.config.place)
                if seq is not None:
                    if packet.last:
                        bodies.append(packet.body[: packet.last])
                    return Spin(_merged(bodies), messages + packet.messages - 1, seq, soup.session)
                bodies.append(packet.body)
                messages += packet.messages
            else:
                continue
            break
        raise FeedError(f"{self.config.place}: the snapshot ended after {messages} messages, without its number")

    async def _deliver(self, spin: Spin, why: str) -> None:
        now = self.out.now_ns()
        await self.out.put(Kind.IMAGE_BEGIN, 0, now, 0, why.encode())
        for body in spin.bodies:
            await self.out.put(Kind.IMAGE, 0, now, 0, body)
        await self.out.put(Kind.IMAGE_END, 0, now, spin.seq, b"")


def _number(packet: Packet, place: str) -> int | None:
    """The number of a `G` at the end of a run; None when it ends with another message."""
    message = packet.body[packet.last + 2 :]
    if not message or message[0] != _END:
        return None
    digits = message[1:].strip(b" \0")
    if not digits.isdigit() or int(digits) >= 1 << 64:
        raise FeedError(f"{place}: the snapshot's number cannot be read: {message[:40]!r}")
    return int(digits)


def _merged(bodies: list[bytes]) -> list[bytes]:
    """Bodies of nearly PIECE bytes: what came in small reads is put together."""
    out: list[bytes] = []
    parts: list[bytes] = []
    size = 0
    for body in bodies:
        if parts and size + len(body) > PIECE:
            out.append(b"".join(parts))
            parts, size = [], 0
        parts.append(body)
        size += len(body)
    return [*out, b"".join(parts)] if parts else out
