"""One SoupBinTCP connection as a client: login, heartbeats both ways, packets as they come. What both sources share.

Timers as in SoupBinTCP 3.00: a heartbeat when nothing was sent for a second, silence of 15 s means a dead link. Not
verified against a live venue.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import msgspec

from microrisk.errors import FeedError, FetchError
from microrisk.monitor.secret import Secret
from microrisk.monitor.sources.soup_frames import (
    MOST_RUN,
    Frames,
    Packet,
    login_accepted,
    login_rejected,
    login_request,
    pack,
)

READ_BYTES = 1 << 18
KNOWN = frozenset((b"+", b"A", b"J", b"S", b"U", b"H", b"Z"))
"""Packet types that a server may send."""


class SoupConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how to log in.

    Attributes
    ----------
    user : at most 6 characters
    session : "" = the server's current one
    timeout_ms : heartbeat timeout told to a server of version 4.10; None = an older server, the field is not sent
    heartbeat_s : pause after which a heartbeat is sent
    silence_s : a server silent for so long is dead
    connect_s : for connection and login together
    """

    host: str
    port: int
    user: str = ""
    session: str = ""
    timeout_ms: int | None = None
    heartbeat_s: float = 1.0
    silence_s: float = 15.0
    connect_s: float = 5.0

    @property
    def place(self) -> str:
        """Host and port, for messages."""
        return f"{self.host}:{self.port}"


class LoginRefusedError(FeedError):
    """The server answered `J`; `reason` is its character, b"A" not authorised or b"S" session not available."""

    def __init__(self, place: str, reason: bytes) -> None:
        super().__init__(f"{place}: {login_rejected(reason)}")
        self.reason = reason


class SoupSession:
    """An open, logged-in connection; made by `open`.

    Attributes
    ----------
    session, first : name (ten bytes, blanks behind it), number of the next sequenced message: the server's answer
    unknown : packets of types that no server sends; left out
    """

    def __init__(
        self,
        config: SoupConfig,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        most_run: int,
    ) -> None:
        self.config = config
        self.session, self.first = b"", 0
        self.unknown = 0
        self._reader, self._writer = reader, writer
        self._frames = Frames(most_run)
        self._sent_s = 0.0
        self._early: list[Packet] = []
        self._beating: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        config: SoupConfig,
        password: Secret | None,
        seq: int,
        *,
        session: str | None = None,
        most_run: int = MOST_RUN,
    ) -> SoupSession:
        """Connect and log in, asking for `seq` (0 = from now on) of a session (None = the configured one).

        Raises
        ------
        LoginRefusedError : by the server
        FetchError : no connection, no answer in time
        FeedError : an answer that is no SoupBinTCP
        """
        try:
            async with asyncio.timeout(config.connect_s):
                streams = await asyncio.open_connection(config.host, config.port, limit=2 * READ_BYTES)
                self = cls(config, *streams, most_run)
                try:
                    await self._login(password, config.session if session is None else session, seq)
                except BaseException:
                    await self.close()
                    raise
        except TimeoutError as why:
            raise FetchError(f"{config.place}: no login within {config.connect_s:g} s") from why
        except OSError as why:
            raise FetchError(f"{config.place}: {why.strerror or why}") from why
        self._beating = asyncio.create_task(self._beat())
        return self

    async def _login(self, password: Secret | None, session: str, seq: int) -> None:
        c = self.config
        text = password.reveal() if password else ""
        self._send(login_request(c.user, text, session, seq, c.timeout_ms))
        while not self.session:
            data = await self._reader.read(READ_BYTES)
            if not data:
                raise FeedError(f"{c.place}: the server closed the connection instead of an answer to the login")
            self._early += self._frames.take(data)
            self._answer()

    def _answer(self) -> None:
        """Look for the answer to the login; what follows it stays in `_early`."""
        while self._early and not self.session:
            packet = self._early.pop(0)
            if packet.kind == b"J":
                raise LoginRefusedError(self.config.place, packet.body[:1])
            if packet.kind == b"A":
                self.session, self.first = login_accepted(packet.body)
            elif packet.kind not in (b"+", b"H"):
                raise FeedError(f"{self.config.place}: {packet.kind!r} came before the answer to the login")

    async def packets(self) -> AsyncIterator[list[Packet]]:
        """Packets of each read, until the server closes the connection. Debug and heartbeats are in it.

        Raises
        ------
        FetchError : silence, or a connection that broke
        FeedError : a length of 0
        """
        if self._early:
            early, self._early = self._early, []
            yield self._known(early)
        while data := await self._read():
            yield self._known(list(self._frames.take(data)))

    async def _read(self) -> bytes:
        c = self.config
        try:
            async with asyncio.timeout(c.silence_s):
                return await self._reader.read(READ_BYTES)
        except TimeoutError as why:
            raise FetchError(f"{c.place}: silent for {c.silence_s:g} s") from why
        except OSError as why:
            raise FetchError(f"{c.place}: {why.strerror or why}") from why

    def _known(self, packets: list[Packet]) -> list[Packet]:
        out = [p for p in packets if p.kind in KNOWN]
        self.unknown += len(packets) - len(out)
        return out

    def _send(self, data: bytes) -> None:
        self._writer.write(data)
        self._sent_s = time.monotonic()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(max(0.0, self._sent_s + self.config.heartbeat_s - time.monotonic()))
            if time.monotonic() - self._sent_s >= self.config.heartbeat_s:
                self._send(pack(b"R"))

    async def close(self, *, logout: bool = False) -> None:
        """End the connection, with a logout request when asked."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        if logout:
            self._send(pack(b"O"))
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._writer.wait_closed()
