"""What the sources of JSON venues share: a websocket that is kept up, and everything said over it as TEXT records.

Each connection is told as OPENED, each message sent as SENT (without keys), each received one as RECEIVED with the time
right after the read, each REST answer as RESPONSE; one count runs through all of them. A connection that broke, fell
silent (a half-open one too) or was ended by the venue is a DOUBT with the reason, then the next one is made: jittered
back-off, one attempt a second per venue. Symbols whose book waits get their images one by one (`images.py`).

A venue gives `_greetings`, `_heard` and `_fetch`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from microrisk.errors import FetchError, UsageError
from microrisk.monitor.hub import DOWN, LIVE, SYNCING
from microrisk.monitor.sources import Sink, rest
from microrisk.monitor.sources.backoff import Backoff, Gate, gate_of, turn
from microrisk.monitor.sources.images import AgainError, Images
from microrisk.monitor.sources.outlet import Outlet
from microrisk.spec.journal import Kind, Text

STEADY_S = 5.0
"""A connection that lasted so long, or brought every image, was a good one."""
HEAR_S = 1.0
"""How long an image waits for the first message of its symbol, which says how new it must be."""
ARRIVE_S = 5.0
"""How long an image in the stream may take."""
TOO_MANY = (418, 429)


class WebsocketConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where, and which symbols.

    Attributes
    ----------
    names : symbols in the venue's spelling
    url, rest : base URLs, "" = the venue's own
    idle_s : silence of the connection that means it is dead; 0 = the venue's usual
    connect_s, rest_s : limits of a handshake and of one REST answer
    most_bytes : of one message
    calm_s : see images.py
    """

    names: tuple[str, ...]
    url: str = ""
    rest: str = ""
    idle_s: float = 0.0
    connect_s: float = 10.0
    rest_s: float = 10.0
    most_bytes: int = 16 << 20
    calm_s: float = 5.0


class LostError(Exception):
    """The connection is to be given up; the text says why."""


class _Connect(connect):
    """One attempt, and no redirects."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class WebsocketSource:
    """One feed over one connection.

    Parameters
    ----------
    sink, feed : where it goes
    seq : number of the last TEXT record of this feed, after a restart of the process
    tls : for wss and https; None = certificates are verified as usual
    seed : of all jitter

    Attributes
    ----------
    counts : connections, lost, received, sent, responses, stale_images, refused, unknown_names
    """

    venue: ClassVar[str] = ""
    default_url: ClassVar[str] = ""
    default_rest: ClassVar[str] = ""
    usual_idle_s: ClassVar[float] = 10.0
    always_speaks: ClassVar[bool] = False
    """The venue sends something every second or so: pongs do not count as life."""
    images_in_stream: bool = False
    """Subscriptions begin with an image: only what is in doubt later is asked for."""

    def __init__(
        self,
        sink: Sink,
        feed: int,
        config: WebsocketConfig,
        *,
        seq: int = 0,
        tls: ssl.SSLContext | None = None,
        seed: int | None = None,
        gate: Gate | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        if not config.names:
            raise UsageError(f"{self.venue}: no symbol was named")
        self.out, self.config = Outlet(sink, feed), config
        self.names = tuple(dict.fromkeys(self._spelled(n) for n in config.names))
        self.counts: Counter[str] = Counter()
        self.seq = seq
        self.url = (config.url or self.default_url).rstrip("/")
        self.rest = (config.rest or self.default_rest).rstrip("/")
        self._tls, self._seed = tls, seed
        self._gate = gate or gate_of(self.venue)
        self._backoff = backoff or Backoff(seed=seed)
        if self.rest:
            rest.checked(self.rest)
        self._idle_s = config.idle_s or self.usual_idle_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ws: ClientConnection | None = None
        self.images = Images(self._fetch, calm_s=config.calm_s, seed=seed)
        self._missing: set[str] = set()
        self._floor: dict[str, int] = {}
        self._newest: dict[str, int] = {}
        self._asked: set[str] = set()
        self._events: dict[str, asyncio.Event] = {}
        self._why = ""
        self._last_s = 0.0

    # -- what a venue gives -------------------------------------------------------------------------------------------

    def _spelled(self, name: str) -> str:
        """A symbol as the venue writes it."""
        return name

    def _target(self) -> str:
        """URL to connect to."""
        return self.url

    def _greetings(self) -> list[tuple[str, str]]:
        """What to send on a new connection: (text, text for the record)."""
        return []

    def _heard(self, body: bytes) -> None:
        """A message has come; LostError to give the connection up."""

    async def _fetch(self, name: str) -> None:
        """Bring an image of a symbol; AgainError when there is none."""
        raise NotImplementedError

    def _told_url(self, url: str) -> str:
        """A URL as it is recorded."""
        return url

    # -- any thread ---------------------------------------------------------------------------------------------------

    def resync(self, names: Sequence[str], why: str) -> None:
        """The books of these symbols wait for an image. Safe from any thread, returns at once."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just ended
                loop.call_soon_threadsafe(self._want, tuple(names))

    def _want(self, names: Sequence[str]) -> None:
        """Fetch, but without a connection: a new one begins with images of everything."""
        for name in map(self._spelled, names):
            if name not in self.names:
                self.counts["unknown_names"] += 1
            elif self._ws is not None:
                # holds for an image that is on its way, too: it may be from before the hole. Asking for the same image
                # again raises nothing: one that takes longer than the asking would be too old whenever it came
                if name in self._newest and name not in self._asked:
                    self._floor[name] = self._newest[name]
                self._asked.add(name)
                self.images.want(name)

    # -- the connection -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                await turn(self._gate, self._backoff)
                retry_after_s = await self._attempt()
                self._backoff.failed(retry_after_s)
                self.counts["lost"] += 1
                self.out.state(DOWN, self._why)
        finally:
            self._loop = None

    async def _attempt(self) -> float:
        """One connection from beginning to end; seconds that the venue asked to wait."""
        self._why = ""
        begun = time.monotonic()
        try:
            async with self._connect() as ws:
                await self._connection(ws)
        except InvalidStatus as refused:
            status, headers = refused.response.status_code, refused.response.headers
            self._why = self._why or f"{self.url}: the handshake was refused with status {status}"
            return rest.retry_after_s(headers.get("Retry-After", ""))
        except (OSError, WebSocketException, LostError) as lost:
            self._why = self._why or f"{self.url}: {lost or type(lost).__name__}"
        if time.monotonic() - begun >= STEADY_S:
            self._backoff.succeeded()
        return 0.0

    def _connect(self) -> _Connect:
        c, url = self.config, self._target()
        return _Connect(
            url,
            ssl=rest.tls_for(url, self._tls),
            proxy=None,
            open_timeout=c.connect_s,
            close_timeout=1.0,
            ping_interval=None,
            max_size=c.most_bytes,
            user_agent_header=rest.AGENT,
        )

    async def _connection(self, ws: ClientConnection) -> None:
        self.counts["connections"] += 1
        self._begin()
        late: asyncio.TimerHandle | None = None
        watch = asyncio.create_task(self._watch(ws))
        try:
            await self._record(Text.OPENED, self.out.now_ns(), self._head(self._target()))
            self.out.state(SYNCING, "connected, book images are awaited")
            self._ws = ws
            for text, told in self._greetings():
                await self._say(text, told)
            if self.images_in_stream:
                late = asyncio.get_running_loop().call_later(ARRIVE_S, self._want_missing)
            else:
                self._want_missing()
            await self._read(ws)
        except ConnectionClosed as closed:
            self._why = self._why or f"the connection was closed: {_closing(closed)}"
        except LostError as lost:
            self._why = self._why or str(lost)
        finally:
            self._ws = None
            if late is not None:
                late.cancel()
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            await self.images.stop()
            why = self._why or "the source was stopped"
            await self.out.put(Kind.DOUBT, 0, self.out.now_ns(), self.seq, why.encode())

    def _begin(self) -> None:
        self._last_s = time.monotonic()
        self._missing = set(self.names)
        self._floor.clear()
        self._newest.clear()
        self._asked.clear()
        self._events = {name: asyncio.Event() for name in self.names}

    async def _read(self, ws: ClientConnection) -> None:
        while True:
            body = await ws.recv(decode=False)
            now = self.out.now_ns()
            self._last_s = time.monotonic()
            self.counts["received"] += 1
            await self._record(Text.RECEIVED, now, body)
            self._heard(body)

    async def _record(self, flag: Text, recv_ns: int, body: bytes) -> None:
        self.seq += 1
        await self.out.put(Kind.TEXT, int(flag), recv_ns, self.seq, body)

    def _head(self, url: str) -> bytes:
        return self._told_url(url).encode() + b"\n"

    async def _say(self, text: str, told: str | None = None) -> None:
        """Send, and record what was sent (`told` where the text itself holds keys)."""
        if self._ws is None:
            raise AgainError("there is no connection")
        told = text if told is None else told
        await self._record(Text.SENT, self.out.now_ns(), self._head(self._target()) + told.encode())
        self.counts["sent"] += 1
        await self._ws.send(text)

    async def _watch(self, ws: ClientConnection) -> None:
        """End a connection that is silent; ping one that may be."""
        while True:
            await asyncio.sleep(self._idle_s / 8)
            quiet_s = time.monotonic() - self._last_s
            if quiet_s >= self._idle_s:
                self._why = f"silent for {quiet_s:.1f} s"
                ws.transport.abort()
                return
            if quiet_s >= self._idle_s / 3 and not self.always_speaks:
                with contextlib.suppress(ConnectionClosed):
                    await self._ping(ws)

    async def _ping(self, ws: ClientConnection) -> None:
        pong = await ws.ping()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._idle_s / 3):
                await pong
                self._last_s = time.monotonic()

    # -- images -------------------------------------------------------------------------------------------------------

    def _want_missing(self) -> None:
        for name in self.names:
            if name in self._missing:
                self.images.want(name)

    def _mark(self, name: str, mark: int) -> None:
        """A message of a symbol with its number: no image may be older than the first one of them."""
        if name in self._events:
            if name not in self._floor:
                self._floor[name] = mark
                self._events[name].set()
            self._newest[name] = mark

    def _image_in(self, name: str) -> None:
        """The image of a symbol is in the sink."""
        self._missing.discard(name)
        self._asked.discard(name)
        if not self._missing and self._ws is not None:
            self._backoff.succeeded()
            self.out.state(LIVE)

    async def _rest_image(self, name: str, url: str, mark_of: bytes, slack: int = 0) -> None:
        """A REST image into the sink.

        Parameters
        ----------
        mark_of : JSON key of its number
        slack : the number may be so much below the first one heard

        Raises
        ------
        AgainError : refused, broken, or older than what has been heard
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEAR_S):
                await self._events[name].wait()
        answer = await self._get(url)
        now = self.out.now_ns()
        mark = number_after(mark_of, answer.body)
        if mark is None:
            raise AgainError(f"{name}: an image without {mark_of.decode()}")
        if mark + slack < self._floor.get(name, 0):
            self.counts["stale_images"] += 1
            raise AgainError(f"{name}: the image {mark} is older than the stream, {self._floor[name]}")
        self.counts["responses"] += 1
        await self._record(Text.RESPONSE, now, self._head(url) + answer.body)
        self._image_in(name)

    async def _get(self, url: str) -> rest.Answer:
        try:
            answer = await rest.get(url, timeout_s=self.config.rest_s, tls=self._tls)
        except FetchError as why:
            raise AgainError(str(why)) from why
        if answer.status != 200:
            self.counts["refused"] += 1
            told = f"{url.partition('?')[0]}: status {answer.status}"
            raise AgainError(told, answer.retry_after_s, everybody=answer.status in TOO_MANY)
        return answer

    async def _stream_image(self, name: str, *says: tuple[str, str]) -> None:
        """An image that comes in the stream, after these messages (text, text for the record).

        `_arrived` ends the wait. AgainError when none comes.
        """
        event = self._events[name]
        event.clear()
        for text, told in says:
            try:
                await self._say(text, told)
            except ConnectionClosed as closed:
                raise AgainError(f"{name}: the connection was closed") from closed
        try:
            async with asyncio.timeout(ARRIVE_S):
                await event.wait()
        except TimeoutError as why:
            raise AgainError(f"{name}: no image within {ARRIVE_S:g} s") from why

    def _arrived(self, name: str) -> None:
        """An image of the symbol was in the stream."""
        if name in self._events:
            self._events[name].set()
            self._image_in(name)


def number_after(key: bytes, body: bytes) -> int | None:
    """The integer behind the first `"key":` of a JSON text, quoted or not; None when there is none."""
    at = body.find(b'"' + key + b'"')
    if at < 0:
        return None
    tail = body[at + len(key) + 2 : at + len(key) + 48].lstrip(b' :"')
    digits = tail[: len(tail) - len(tail.lstrip(b"0123456789"))]
    return int(digits) if digits else None


def json_text(value: object) -> str:
    """Compact JSON."""
    return msgspec.json.encode(value).decode()


def _closing(closed: ConnectionClosed) -> str:
    frame = closed.rcvd or closed.sent
    return f"code {frame.code} {frame.reason}".strip() if frame else "without a word"
