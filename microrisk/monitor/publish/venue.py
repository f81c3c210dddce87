"""What the websocket venues share: sockets, REST on the same port, subscriptions, pacing, faults.

A venue gives a flow (a generated market or a recording, which keeps the book that REST images are made of) and a
server, which speaks the venue's own requests. Everything about one server happens in one asyncio loop, so that an image
and the subscription it starts are of one moment.

None of the servers is verified against a live venue: they follow the venues' documentation and the recordings that the
decoders are tested with.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qs, urlsplit

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from microrisk.errors import UsageError
from microrisk.monitor.publish.faults import StreamPlan
from microrisk.monitor.publish.pace import AT_ONCE, NS_PER_S, Pace

QUEUE = 100_000
"""Messages that wait for a slow client; beyond them it is cut off."""
CROWDED = QUEUE // 10
"""Messages waiting at which a flow without a pace waits too."""
CLOSED_BY_VENUE = 1008

Query = Mapping[str, list[str]]


class Beat(NamedTuple):
    """One moment of a flow.

    Attributes
    ----------
    ts_ns : recorded time, for playing at a multiple of it
    texts : (channel, product, message) in order; a client gets those that it has subscribed to
    """

    ts_ns: int
    texts: list[tuple[str, str, str]]


class Flow(Protocol):
    """What happens at the venue."""

    def products(self) -> list[str]:
        """Names known so far, as clients ask for them."""

    def step(self) -> Beat | None:
        """The next moment; the book is as after it. None = nothing more will come."""


class Answer(NamedTuple):
    """A REST answer."""

    status: int
    body: str


class Client:
    """A connection with its subscriptions, pairs of channel and product."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self.path = connection.request.path if connection.request else "/"
        self.subscriptions: dict[tuple[str, str], Any] = {}
        self.queue: asyncio.Queue[str | None] = asyncio.Queue(QUEUE)
        self.ready = True

    def cut(self) -> None:
        """End the connection without a word."""
        self.connection.transport.abort()


class VenueServer:
    """Websockets and REST of one venue on one port.

    Parameters
    ----------
    flow : what happens
    host, port : port 0 picks a free one
    pace : of the flow; None = it goes on only when `advance` is called
    plan : faults by message number (messages of the flow, in the order of the flow)
    heartbeat_s : seconds between the venue's own heartbeats
    hold : the flow begins with the first subscription; else at once
    most : beats after which the flow ends

    Attributes
    ----------
    address, url, rest_url : with the port in use
    counts : connections, requests, refused, messages, sent, heartbeats, subscriptions, slow_clients
    sent : number of the last message of the flow
    finished : set when the flow has ended
    """

    venue = ""

    def __init__(
        self,
        flow: Flow,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        pace: Pace | None = None,
        plan: StreamPlan | None = None,
        heartbeat_s: float = 1.0,
        hold: bool = True,
        most: int | None = None,
    ) -> None:
        if heartbeat_s <= 0:
            raise UsageError(f"heartbeat_s = {heartbeat_s}: above 0")
        self.flow, self.pace, self.plan = flow, pace and pace.checked(), plan or StreamPlan()
        self.address = (host, port)
        self.counts: Counter[str] = Counter()
        self.sent = 0
        self.finished = asyncio.Event()
        self.clients: set[Client] = set()
        self._heartbeat_s, self._hold, self._most = heartbeat_s, hold, most
        self._begin = asyncio.Event()
        self._server: Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    # -- what a venue gives ------------------------------------------------------------------------------------------

    def greet(self, client: Client) -> Iterable[str]:
        """What a new connection hears at once; subscriptions in its URL are made here."""
        return ()

    def asked(self, client: Client, text: str, message: Any) -> Iterable[str]:
        """Answers to a client's message, images too; `message` is the JSON value."""
        return ()

    def rest(self, path: str, query: Query) -> Answer | None:
        """The answer to a GET; None = no such place."""
        return None

    def heartbeats(self, client: Client) -> Iterable[str]:
        """What is said once a heartbeat interval."""
        return ()

    def corrupted(self, text: str) -> str:
        """The message with a wrong checksum; a venue without one breaks the text."""
        return text[:-1]

    def wrapped(self, client: Client, channel: str, product: str, text: str) -> str:
        """A message of the flow as this client gets it."""
        return text

    # -- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> tuple[str, int]:
        """Listen; the address."""
        self._loop = asyncio.get_running_loop()
        self._server = await serve(
            self._connection, *self.address, process_request=self._request, compression=None, max_size=1 << 20
        )
        host, port = next(iter(self._server.sockets)).getsockname()[:2]
        self.address = (host, port)
        self.plan.on_disconnect = self._cut_soon
        if not self._hold:
            self._begin.set()
        self._tasks = [asyncio.create_task(self._beat())]
        if self.pace is not None:
            self._tasks.append(asyncio.create_task(self._play(self.pace)))
        return self.address

    async def close(self) -> None:
        """Cut every client and stop."""
        if self._server is None:
            return
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._cut()
        self._server.close()
        await self._server.wait_closed()
        self._server = None

    async def __aenter__(self) -> VenueServer:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    @property
    def url(self) -> str:
        """Of the websocket."""
        return f"ws://{self.address[0]}:{self.address[1]}"

    @property
    def rest_url(self) -> str:
        """Of REST."""
        return f"http://{self.address[0]}:{self.address[1]}"

    def advance(self, beats: int = 1) -> int:
        """Let the flow go on by hand (call it in the loop); how many beats there were."""
        for done in range(beats):
            beat = self.flow.step()
            if beat is None:
                self.finished.set()
                return done
            self._emit(beat)
        return beats

    def say(self, text: str) -> None:
        """Send any text to every client (call it in the loop)."""
        for client in tuple(self.clients):
            self._put(client, text)

    def _cut_soon(self) -> None:
        self._loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        for client in tuple(self.clients):
            client.cut()

    # -- the flow ----------------------------------------------------------------------------------------------------

    async def _play(self, pace: Pace) -> None:
        await self._begin.wait()
        begin, first, index = time.monotonic_ns(), 0, 0
        while index != self._most and (beat := self.flow.step()) is not None:
            first = beat.ts_ns if index == 0 else first
            due = begin + pace.due_ns(index, beat.ts_ns, first)
            await self._wait(due, index)
            self._emit(beat)
            index += 1
        self.finished.set()

    async def _wait(self, due_ns: int, index: int) -> None:
        left = due_ns - time.monotonic_ns()
        if self.plan.delay_s:
            await asyncio.sleep(self.plan.delay_s)
        elif self.pace == AT_ONCE:
            while any(c.queue.qsize() > CROWDED for c in self.clients):
                await asyncio.sleep(0.001)
            if index % 64 == 0:
                await asyncio.sleep(0)
        elif left > 0:
            await asyncio.sleep(left / NS_PER_S)
        elif index % 16 == 0:
            await asyncio.sleep(0)

    def _emit(self, beat: Beat) -> None:
        for channel, product, text in beat.texts:
            self.sent += 1
            self.counts["messages"] += 1
            verdict = self.plan.verdict(self.sent, product)
            if verdict in ("send", "corrupt"):
                sound = self.corrupted(text) if verdict == "corrupt" else text
                for client in self.clients:
                    if client.ready and (channel, product) in client.subscriptions:
                        self._put(client, self.wrapped(client, channel, product, sound))
            if self.plan.cuts_behind(self.sent):
                self._cut()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            if not self.plan.silent:
                for client in tuple(self.clients):
                    for text in self.heartbeats(client):
                        self.counts["heartbeats"] += 1
                        self._put(client, text)

    def subscribe(self, client: Client, channel: str, product: str, detail: Any = True) -> None:
        """From now on the client gets this channel of this product."""
        client.subscriptions[channel, product] = detail
        self.counts["subscriptions"] += 1
        self._begin.set()

    # -- connections -------------------------------------------------------------------------------------------------

    def _put(self, client: Client, text: str) -> None:
        try:
            client.queue.put_nowait(text)
            self.counts["sent"] += 1
        except asyncio.QueueFull:
            if client.ready:
                self.counts["slow_clients"] += 1
                client.ready = False
                client.cut()

    async def _connection(self, connection: ServerConnection) -> None:
        self.counts["connections"] += 1
        if self.plan.connect_refused():
            connection.transport.abort()
            return
        client = Client(connection)
        self.clients.add(client)
        writing = asyncio.create_task(self._write(client))
        try:
            for text in self.greet(client):
                self._put(client, text)
            async for raw in connection:
                self._heard(client, raw)
        except ConnectionClosed:
            pass
        finally:
            self.clients.discard(client)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    def _heard(self, client: Client, raw: str | bytes) -> None:
        text = raw if isinstance(raw, str) else raw.decode("utf-8", "replace")
        try:
            message = msgspec.json.decode(text)
        except msgspec.DecodeError:
            message = None
        for answer in self.asked(client, text, message):
            if not self.plan.silent:
                self._put(client, answer)

    async def _write(self, client: Client) -> None:
        with contextlib.suppress(ConnectionClosed):
            while (text := await client.queue.get()) is not None:
                await client.connection.send(text)
            await client.connection.close(CLOSED_BY_VENUE)

    async def _request(self, connection: ServerConnection, request: Request) -> Response | None:
        """REST, for requests that are no handshake."""
        if "Upgrade" in request.headers:
            return None
        self.counts["requests"] += 1
        parts = urlsplit(request.path)
        if self.plan.slow_rest_s:
            await asyncio.sleep(self.plan.slow_rest_s)
        if self.plan.refused(request.path):
            self.counts["refused"] += 1
            return _response(self.plan.status, '{"message":"too many requests"}', self.plan.retry_after_s)
        try:
            answer = self.rest(parts.path, parse_qs(parts.query))
        except KeyError:
            answer = None
        if self.plan.late_rest_s:
            await asyncio.sleep(self.plan.late_rest_s)
        if answer is None:
            return _response(404, '{"message":"NotFound"}')
        return _response(answer.status, answer.body, 1 if answer.status == 503 else None)


def not_yet() -> Answer:
    """The flow has no book yet: ask again."""
    return Answer(503, '{"message":"no book yet"}')


def json_text(value: Any) -> str:
    """Compact JSON."""
    return msgspec.json.encode(value).decode()


def _response(status: int, body: str, retry_after_s: int | None = None) -> Response:
    data = body.encode()
    headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(data)), "Connection": "close"})
    if retry_after_s is not None:
        headers["Retry-After"] = str(retry_after_s)
    return Response(status, http.HTTPStatus(status).phrase, headers, data)
