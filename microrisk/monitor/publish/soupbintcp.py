"""SoupBinTCP server (3.00, 4.00, 4.10): login, replay from any number, live messages, heartbeats, end of session.

Layouts and timers as in Nasdaq's SoupBinTCP specification; a heartbeat after 1 s, a client silent for 15 s is dropped.
Not verified against a live venue. Passwords are compared and forgotten: no log, error or attribute holds one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import struct
import time
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from microrisk.errors import UsageError
from microrisk.monitor.publish.faults import StreamPlan
from microrisk.monitor.publish.tape import Tape

LOGIN, LOGIN_410 = 49, 54
"""Whole login request, in bytes on the wire: up to 4.00, and 4.10 with its heartbeat timeout."""
BATCH = 512
MAX_UNSENT = 1 << 20
"""Bytes that wait for a slow client before the server waits too."""
LOGIN_WAIT_S = 15.0
_LENGTH = struct.Struct(">H")


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    """One packet: length of type and payload, type, payload."""
    return _LENGTH.pack(1 + len(payload)) + kind + payload


def login_accepted(session: str, seq: int) -> bytes:
    """`A`: session and the number of the next sequenced message, both right-justified."""
    return frame(b"A", session.rjust(10).encode("ascii") + str(seq).rjust(20).encode("ascii"))


class Login(NamedTuple):
    """What a client asked for. `seq` 0 = from now on; `timeout_ms` 0 = not said (before 4.10)."""

    user: str
    session: str
    seq: int
    timeout_ms: int


class SoupBinServer:
    """Serves the messages of a tape to any number of clients.

    Parameters
    ----------
    tape : the messages; what is appended is sent live
    host, port : port 0 picks a free one
    users : name -> password; None = anybody
    heartbeat_s : pause after which a heartbeat is sent
    silence_s : a client silent for so long is dropped (one that names a timeout in its login: after that)
    plan : faults by message number

    Attributes
    ----------
    address : host and port in use
    counts : connections, logins, rejected, sequenced, heartbeats, client_heartbeats, logouts, dropped_clients
    unsequenced : bytes of clients' `U` packets, the last 1,000
    """

    def __init__(
        self,
        tape: Tape,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        users: Mapping[str, str] | None = None,
        heartbeat_s: float = 1.0,
        silence_s: float = 15.0,
        plan: StreamPlan | None = None,
    ) -> None:
        if any(len(u) > 6 or len(p) > 10 for u, p in (users or {}).items()):
            raise UsageError("a user has at most 6 characters, a password 10")
        self.tape, self.plan = tape, plan or StreamPlan()
        self.address = (host, port)
        self.counts: Counter[str] = Counter()
        self.unsequenced: list[bytes] = []
        self._users = None if users is None else dict(users)
        self._heartbeat_s, self._silence_s = heartbeat_s, silence_s
        self._sent = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._news: list[asyncio.Event] = []

    async def start(self) -> tuple[str, int]:
        """Listen; the address."""
        self._loop = asyncio.get_running_loop()
        self._server = await asyncio.start_server(self._client, *self.address)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.address = (host, port)
        self.tape.listen(self._told)
        self.plan.on_disconnect = self._cut_soon
        return self.address

    async def close(self) -> None:
        """Cut every client and stop."""
        if self._server is None:
            return
        self.tape.forget(self._told)
        self._server.close()
        self._cut()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def __aenter__(self) -> SoupBinServer:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    @property
    def clients(self) -> int:
        """Connections at present."""
        return len(self._writers)

    def _told(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone
            self._loop.call_soon_threadsafe(self._wake)

    def _cut_soon(self) -> None:
        self._loop.call_soon_threadsafe(self._cut)

    def _wake(self) -> None:
        for event in self._news:
            event.set()

    def _cut(self) -> None:
        for writer in tuple(self._writers):
            writer.transport.abort()

    # -- one client --------------------------------------------------------------------------------------------------

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.counts["connections"] += 1
        try:
            if not self.plan.connect_refused():
                await self._talk(reader, writer)
        except (OSError, EOFError, asyncio.IncompleteReadError, TimeoutError):
            self.counts["dropped_clients"] += 1
        except asyncio.CancelledError:
            pass
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        login = await self._login(reader, writer)
        if login is None:
            return
        silence = login.timeout_ms / 1000 if login.timeout_ms else self._silence_s
        listening = asyncio.create_task(self._listen(reader, silence))
        sending = asyncio.create_task(self.serve(login, writer))
        try:
            done, _ = await asyncio.wait({listening, sending}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            listening.cancel()
            sending.cancel()
            await asyncio.gather(listening, sending, return_exceptions=True)

    async def _login(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Login | None:
        kind, payload = await asyncio.wait_for(_packet(reader), LOGIN_WAIT_S)
        reason = b"A"
        login = None
        if kind == b"L" and len(payload) in (LOGIN - 3, LOGIN_410 - 3):
            login, reason = self._judge(payload)
        if reason:
            self.counts["rejected"] += 1
            writer.write(frame(b"J", reason))
            await writer.drain()
            return None
        self.counts["logins"] += 1
        return login

    def _judge(self, payload: bytes) -> tuple[Login | None, bytes]:
        """The login, and why it is refused: b"" when it is not."""
        try:
            text = payload.decode("ascii")
            fields = [text[a:b].strip() for a, b in ((0, 6), (16, 26), (26, 46), (46, 51))]
            login = Login(fields[0], fields[1], int(fields[2] or 0), int(fields[3] or 0))
        except ValueError:
            return None, b"A"
        if self._users is not None:
            known = self._users.get(login.user, "")
            if login.user not in self._users or not hmac.compare_digest(text[6:16].strip(), known):
                return login, b"A"
        held = login.seq == 0 or self.tape.begin <= login.seq
        if login.session not in ("", self.tape.session) or not held:
            return login, b"S"
        return login, b""

    async def _listen(self, reader: asyncio.StreamReader, silence_s: float) -> None:
        """What the client says, until it logs out; TimeoutError when it says nothing."""
        while True:
            kind, payload = await asyncio.wait_for(_packet(reader), silence_s)
            if kind == b"R":
                self.counts["client_heartbeats"] += 1
            elif kind == b"U":
                self.unsequenced = [*self.unsequenced[-999:], payload]
            elif kind == b"O":
                self.counts["logouts"] += 1
                return
            else:
                self.counts["debug" if kind == b"+" else "unexpected"] += 1

    async def serve(self, login: Login, writer: asyncio.StreamWriter) -> None:
        """Acceptance, then messages from the number asked for, live ones as they come, heartbeats in pauses."""
        session = self.tape.session
        seq = self.tape.next if login.seq == 0 else min(login.seq, self.tape.next)
        writer.write(login_accepted(session, seq))
        news, last = asyncio.Event(), time.monotonic()
        self._news.append(news)
        try:
            while session == self.tape.session:
                news.clear()
                batch = self.tape.read(seq, BATCH)
                if batch:
                    seq = await self._send(seq, batch, writer)
                    last = time.monotonic()
                elif self.tape.ended:
                    writer.write(frame(b"Z"))
                    await writer.drain()
                    return
                else:
                    last = await self._pause(news, last, writer)
        finally:
            self._news.remove(news)

    async def _send(self, seq: int, batch: list[bytes], writer: asyncio.StreamWriter) -> int:
        """Send messages; the next number. A dropped one keeps its place: the numbers of the stream shift behind it."""
        for message in batch:
            self._sent += 1
            verdict = self.plan.verdict(self._sent, "")
            if self.plan.delay_s:
                await asyncio.sleep(self.plan.delay_s)
            if verdict in ("send", "corrupt"):
                writer.write(frame(b"S", message))
                self.counts["sequenced"] += 1
            seq += 1
            if self.plan.cuts_behind(self._sent):
                await writer.drain()
                self._cut()
                raise EOFError
        if writer.transport.get_write_buffer_size() > MAX_UNSENT:
            self.counts["slow_clients"] += 1
        await writer.drain()
        return seq

    async def _pause(self, news: asyncio.Event, last: float, writer: asyncio.StreamWriter) -> float:
        """Wait for more; a heartbeat when nothing comes. Returns when something was last sent."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(news.wait(), max(0.001, self._heartbeat_s - (time.monotonic() - last)))
            return last
        if not self.plan.silent:
            writer.write(frame(b"H"))
            self.counts["heartbeats"] += 1
            await writer.drain()
        return time.monotonic()

    def debug(self, text: str) -> None:
        """Send a debug packet to every client (call it in the loop)."""
        for writer in self._writers:
            writer.write(frame(b"+", text.encode("ascii")))


async def _packet(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Type and payload of the next packet; EOFError for a length of 0, which the protocol does not know."""
    (length,) = _LENGTH.unpack(await reader.readexactly(2))
    if length == 0:
        raise EOFError("a packet of length 0")
    body = await reader.readexactly(length)
    return body[:1], body[1:]
