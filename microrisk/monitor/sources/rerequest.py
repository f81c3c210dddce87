"""MoldUDP64 re-requests: asks servers for missing messages, in rotation, and passes on only what was asked for.

Rules (MoldUDP64 1.00; conduct of clients as in the project's protocol notes):

1. A request is session, first number, count, sent by UDP unicast; the answer is an ordinary packet of the session. It
   may hold fewer messages than asked: the rest is asked for again at once.
2. Requests and answers may be lost: a request without an answer is sent again, to the next server in rotation, after a
   time that doubles; new requests begin with the server that answered last. After `attempts` sendings of one request,
   or `deadline_s` without any progress, the feed has `failed`.
3. An answer counts only when it comes from a server asked, carries the session asked for, and lies inside a range that
   is on its way. Everything else is counted and dropped; what was on its way a moment ago is `late`, not a lie.

Requests are sent by the thread that asks (one system call, no hand-over), answers are read in the net thread.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from microrisk.errors import UsageError
from microrisk.feed.mold import HEADER
from microrisk.monitor.sources import ANSWER_LINE, DATAGRAM, Sink
from microrisk.monitor.sources.backoff import Clock
from microrisk.spec.messages import MOLD_END_OF_SESSION

Address = tuple[str, int]
READS = 256
"""Datagrams read at a time before others in the loop have their turn."""
BUFFER_BYTES = 4 << 20
MOST_ANSWERED = 4096
REMEMBERED = 256
"""Requests whose late answers are known as such."""


class AskLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How requests are made.

    Attributes
    ----------
    outstanding : requests on their way at a time
    messages : of one request
    first_s, most_s : wait for an answer, doubling
    attempts : sendings of one request
    deadline_s : without any progress
    settle_s : numbers that were answered are not asked for again so long: the answer is on its way to the books
    """

    outstanding: int = 16
    messages: int = 1000
    first_s: float = 0.02
    most_s: float = 0.5
    attempts: int = 6
    deadline_s: float = 1.0
    settle_s: float = 0.05


class _Request:
    """Numbers [first, end) on their way."""

    __slots__ = ("due_s", "end", "first", "server", "tries", "wait_s")

    def __init__(self, first: int, end: int) -> None:
        self.first, self.end = first, end
        self.server = self.tries = 0
        self.wait_s = self.due_s = 0.0


class _Answered(NamedTuple):
    """Numbers [first, end) that were passed on, kept until `until_s`."""

    first: int
    end: int
    until_s: float


class Rerequester:
    """The re-request client of one feed: `ask`, `failed` and `forget` from the ingest thread, `run` in the net thread.

    Parameters
    ----------
    sink, feed : answers go there as DATAGRAM items
    servers : host and port of each, asked in rotation
    session : gives the ten bytes of the session, b"" while there is none
    host : local address to send from

    Attributes
    ----------
    counts : requests, repeats, answers, messages, short, late, foreign (another sender), lies (another session, or
        numbers not asked for), malformed, empty, refused (no room in the sink), send_errors, failures
    """

    def __init__(
        self,
        sink: Sink,
        feed: int,
        servers: Sequence[Address],
        *,
        session: Callable[[], bytes],
        limits: AskLimits | None = None,
        host: str = "",
        clock: Clock = time.monotonic,
    ) -> None:
        if not servers:
            raise UsageError("no re-request server was named")
        self.feed, self.limits = feed, limits or AskLimits()
        self.counts: Counter[str] = Counter()
        self._sink, self._session, self._clock = sink, session, clock
        self._servers = [_resolved(s) for s in servers]
        self._best = 0
        self._sent: deque[tuple[int, int]] = deque(maxlen=REMEMBERED)
        self._requests: list[_Request] = []
        self._answered: list[_Answered] = []
        self._failed = False
        self._progress_s = 0.0
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._busy: asyncio.Event | None = None
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        self._socket.bind((host, 0))

    def close(self) -> None:
        """Close the socket; behind `run`."""
        self._socket.close()

    @property
    def outstanding(self) -> int:
        """Requests on their way."""
        return len(self._requests)

    # -- from the ingest thread ---------------------------------------------------------------------------------------

    def ask(self, feed: int, first: int, count: int) -> None:
        """Ask for `count` numbers from `first` on; those on their way, or just answered, are left out."""
        with self._lock:
            session, now = self._session(), self._clock()
            if self._failed or not session or count <= 0:
                return
            was_idle = not self._requests
            if was_idle:
                self._progress_s = now
            for start, end in self._uncovered(first, first + count, now):
                self._requests.append(request := _Request(start, end))
                self._send(request, session, now)
            began = was_idle and bool(self._requests)
        if began:
            self._wake()

    def failed(self, feed: int) -> bool:
        """No server could fill what was asked for; until `forget`."""
        return self._failed

    def forget(self, feed: int) -> None:
        """Nothing is missing any more (or nothing is wanted any more)."""
        with self._lock:
            self._requests.clear()
            self._answered.clear()
            self._failed = False

    def _uncovered(self, first: int, end: int, now: float) -> list[tuple[int, int]]:
        """Parts of [first, end) to ask for now, at most as many as may be outstanding."""
        self._answered = [a for a in self._answered if a.until_s > now]
        covered = sorted([(r.first, r.end) for r in self._requests] + [(a.first, a.end) for a in self._answered])
        out: list[tuple[int, int]] = []
        room = self.limits.outstanding - len(self._requests)
        for start, stop in [*covered, (end, end)]:
            while first < min(start, end) and len(out) < room:
                last = min(first + self.limits.messages, start, end)
                out.append((first, last))
                first = last
            first = max(first, stop)
        return out

    def _send(self, request: _Request, session: bytes, now: float) -> None:
        """Send, or send again to the next server. The lock is held."""
        again = request.tries > 0
        self.counts["repeats" if again else "requests"] += 1
        request.wait_s = min(self.limits.most_s, 2 * request.wait_s) if again else self.limits.first_s
        request.server = (request.server + 1) % len(self._servers) if again else self._best
        request.tries += 1
        request.due_s = now + request.wait_s
        if not again:
            self._sent.append((request.first, request.end))
        count = min(request.end - request.first, MOLD_END_OF_SESSION - 1)
        try:
            self._socket.sendto(HEADER.pack(session, request.first, count), self._servers[request.server])
        except OSError:  # a full buffer, or no way to this server: the next try takes another one
            self.counts["send_errors"] += 1

    def _wake(self) -> None:
        loop, busy = self._loop, self._busy
        if loop is not None and busy is not None:
            loop.call_soon_threadsafe(busy.set)

    # -- the net thread -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read answers and repeat requests until cancelled."""
        self._busy = asyncio.Event()
        self._loop = loop = asyncio.get_running_loop()
        loop.add_reader(self._socket, self._readable)
        try:
            while True:
                if not self._requests:
                    self._busy.clear()
                    # asked between the look and the clearing
                    if not self._requests:
                        await self._busy.wait()
                await asyncio.sleep(self._repeat())
        finally:
            loop.remove_reader(self._socket)
            self._loop = None

    def _repeat(self) -> float:
        """Send again what is due; seconds until the next look."""
        with self._lock:
            now, session = self._clock(), self._session()
            stuck = now - self._progress_s >= self.limits.deadline_s
            if self._requests and (stuck or any(self._spent(r, now) for r in self._requests)):
                self._fail()
            for request in self._requests:
                if request.due_s <= now:
                    self._send(request, session, now)
            due = min((r.due_s for r in self._requests), default=now)
        return max(0.001, due - now)

    def _spent(self, request: _Request, now: float) -> bool:
        return request.tries >= self.limits.attempts and request.due_s <= now

    def _fail(self) -> None:
        self.counts["failures"] += 1
        self._failed = True
        self._requests.clear()

    def _readable(self) -> None:
        for _ in range(READS):
            try:
                data, sender = self._socket.recvfrom(1 << 16)
            except BlockingIOError:
                return
            except OSError:  # an ICMP answer to an earlier request
                self.counts["send_errors"] += 1
                continue
            recv_ns = self._sink.now_ns()
            if sender not in self._servers:
                self.counts["foreign"] += 1
            elif self._good(data):
                self._take(data, recv_ns, self._servers.index(sender))

    def _good(self, data: bytes) -> bool:
        """Whether a datagram is a whole packet with messages."""
        if len(data) < HEADER.size:
            self.counts["malformed"] += 1
            return False
        _, seq, count = HEADER.unpack_from(data)
        if count in (0, MOLD_END_OF_SESSION):
            self.counts["empty"] += 1
            return False
        at = HEADER.size
        for _ in range(count):
            at = at + 2 + (data[at] << 8 | data[at + 1]) if at + 2 <= len(data) else len(data) + 1
            if at > len(data):
                break
        whole = at == len(data) and 0 < seq < (1 << 64) - count
        self.counts["malformed"] += not whole
        return whole

    def _take(self, data: bytes, recv_ns: int, server: int) -> None:
        session, first, count = HEADER.unpack_from(data)
        end = first + count
        with self._lock:
            now = self._clock()
            request = next((r for r in self._requests if r.first <= first and end <= r.end), None)
            if session != self._session():
                self.counts["lies"] += 1
                return
            if request is None:
                late = any(f <= first and end <= e for f, e in self._sent)
                self.counts["late" if late else "lies"] += 1
                return
            if not self._sink.put(self.feed, DATAGRAM, ANSWER_LINE, recv_ns, 0, data):
                self.counts["refused"] += 1
                return
            self.counts["answers"] += 1
            self.counts["messages"] += count
            self._progress_s, self._best = now, server
            self._answered = [*self._answered[-MOST_ANSWERED:], _Answered(first, end, now + self.limits.settle_s)]
            self._advance(request, first, end, session, now)

    def _advance(self, request: _Request, first: int, end: int, session: bytes, now: float) -> None:
        """What is left of a request: asked for again at once, as a new one."""
        self._requests.remove(request)
        for start, stop in ((request.first, first), (end, request.end)):
            if start < stop:
                self.counts["short"] += 1
                self._requests.append(rest := _Request(start, stop))
                self._send(rest, session, now)


def _resolved(address: Address) -> Address:
    """IPv4 address of a server, so that senders can be compared.

    Raises
    ------
    UsageError : the name is not known
    """
    try:
        found = socket.getaddrinfo(*address, socket.AF_INET, socket.SOCK_DGRAM)
    except OSError as why:
        raise UsageError(f"re-request server {address[0]}:{address[1]}: {why}") from why
    host, port = found[0][4][:2]
    return str(host), int(port)
