"""The websocket: each client says what it looks at and gets the newest of it, never a queue.

    client says                      gets
    {"page": "overview"}             that document, twice a second; "latency" once a second; "alerts" as they come
    {"follow": "AAPL.XNAS"}          kept frames in batches, then each newest frame, at most FRAMES a second
    {"follow": "AAPL.XNAS", "after": 812}    the same after a lost connection, from frame 812 on
    {"follow": null}                 no more frames
    {"seen": 815, "topic": 2}        of the frames of this topic, those up to 815 were read: once a client has said so,
                                     at most WINDOW frames are under way, so that slow lines show the present

The first message says what the others mean. Frames are binary (`wire`), or JSON when the address ends in `?json=1`.
What a client asks replaces what it asked before; a client that reads slowly skips frames, and one that does not read
is cut off by `guard`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from microrisk.monitor.hub import Frame, Hub
from microrisk.monitor.web.auth import Identity, refused
from microrisk.monitor.web.shared import ENCODER, Shared, hello
from microrisk.monitor.web.wire import pack, pack_batch

FRAMES, TURN_S = 20, 0.025
"""Frames a second at most. Turns are twice as frequent, so that a source of the same rate is not sampled unevenly."""
SOCKETS, SOCKETS_A_SESSION = 64, 8
INBOUND_BYTES = 4096
INBOUND_A_SECOND, INBOUND_BURST = 20, 40
WINDOW = 6
BATCH = 60
"""Kept frames in one message."""
ALERTS_A_TURN, ALERTS_AT_FIRST = 200, 2000
PERIODS = {"status": 1.0, "overview": 0.5, "latency": 1.0}
ALERTS = {"alerts": 0.2}
PAGES = frozenset({"overview", "instrument", "alerts", "latency", "hardware"})
REFUSED, BAD = 1008, 1003


class Said(msgspec.Struct, forbid_unknown_fields=True):
    """What a client may say."""

    page: str | msgspec.UnsetType = msgspec.UNSET
    follow: str | msgspec.UnsetType | None = msgspec.UNSET
    after: int = 0
    seen: int | msgspec.UnsetType = msgspec.UNSET
    topic: int = 0


_SAID = msgspec.json.Decoder(Said)


class Allowance:
    """So many a second, and at most `burst` at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._left, self._at = float(burst), 0.0

    def take(self, now: float) -> bool:
        """Whether one more may be."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def give_back(self) -> None:
        """What was taken was not used."""
        self._left += 1


class Sockets:
    """Counts open websockets, and refuses more than are meant."""

    def __init__(self, total: int = SOCKETS, a_session: int = SOCKETS_A_SESSION) -> None:
        self._total, self._a_session = total, a_session
        self._open: Counter[str] = Counter()
        self.refused = 0

    @contextlib.contextmanager
    def held(self, session: str) -> Any:
        """Yields whether there was room."""
        room = self._open.total() < self._total and self._open[session] < self._a_session
        self.refused += not room
        self._open[session] += room
        try:
            yield room
        finally:
            self._open[session] -= room
            self._open += Counter()


@dataclass
class Wish:
    """What the client has asked last and the writer has not done yet."""

    page: str | None = None
    follow: str | None = None
    follow_asked: bool = False
    after: int = 0


@dataclass
class Shown:
    """What goes out to a client at present."""

    page: str = ""
    topic: int = 0
    slot: Any = None
    last: int = 0
    skipped: int = 0
    under_way: deque[int] | None = None
    """Numbers of frames that were sent and not seen; None while the client does not say what it has seen."""
    alert_n: int = 0
    labels: dict[str, bool] | None = None
    due: dict[str, float] = field(default_factory=dict)
    frames: Allowance = field(default_factory=lambda: Allowance(FRAMES, 2))


class Live:
    """The route /ws."""

    def __init__(self, hub: Hub, shared: Shared, sockets: Sockets | None = None) -> None:
        self._hub, self._shared = hub, shared
        self.sockets = sockets or Sockets()

    async def endpoint(self, ws: WebSocket) -> None:
        """One websocket from its handshake to its end."""
        identity: Identity = ws.scope["microrisk.identity"]
        with self.sockets.held(identity.session) as room:
            if not room:
                await ws.send_denial_response(refused(503, "too many websockets are open"))
                return
            await ws.accept()
            client = _Client(ws, self._hub, self._shared, identity)
            await client.run()


class _Client:
    def __init__(self, ws: WebSocket, hub: Hub, shared: Shared, identity: Identity) -> None:
        self._ws, self._hub, self._shared, self._identity = ws, hub, shared, identity
        self._json = ws.query_params.get("json") == "1"
        self._wish, self._shown = Wish(), Shown()
        self._error = ""

    async def run(self) -> None:
        """Read and write until one of both ends."""
        tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            self._drop()
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect):
                raise result

    # -- what the client says ---------------------------------------------------------------------------------------

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        allowance = Allowance(INBOUND_A_SECOND, INBOUND_BURST)
        while True:
            message = await self._ws.receive()
            if message["type"] == "websocket.disconnect":
                return
            if not allowance.take(loop.time()):
                await self._close(REFUSED, "too many messages")
                return
            if message.get("text") is None:
                await self._close(BAD, "text is expected")
                return
            self._hear(message["text"])

    def _hear(self, text: str) -> None:
        try:
            said = _SAID.decode(text)
        except msgspec.MsgspecError as error:
            self._error = f"cannot be read: {error}"
            return
        if said.page is not msgspec.UNSET:
            if said.page in PAGES:
                self._wish.page = said.page
            else:
                self._error = f"no page {said.page[:40]!r}: {', '.join(sorted(PAGES))}"
        if said.seen is not msgspec.UNSET and said.topic == self._shown.topic:
            self._see(said.seen)
        if said.follow is not msgspec.UNSET:
            self._wish.follow, self._wish.follow_asked, self._wish.after = said.follow, True, said.after

    def _see(self, upto: int) -> None:
        waiting = self._shown.under_way
        if waiting is None:
            waiting = self._shown.under_way = deque(maxlen=WINDOW)
        while waiting and waiting[0] <= upto:
            waiting.popleft()

    async def _close(self, code: int, why: str) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await self._ws.close(code, why)

    # -- what it gets -------------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        await self._ws.send_text(hello(self._identity.role).decode())
        turn = loop.time()
        while True:
            await self._turn(loop.time())
            turn = max(turn + TURN_S, loop.time())
            await asyncio.sleep(turn - loop.time())

    async def _turn(self, now: float) -> None:
        if self._error:
            error, self._error = self._error, ""
            await self._send({"type": "error", "text": error})
        if self._wish.page is not None:
            self._turn_page(self._wish.page)
        if self._wish.follow_asked:
            await self._follow()
        if self._shown.frames.take(now):
            await self._frame()
        for name in ("status", self._shown.page):
            if name in PERIODS and self._due(name, now):
                await self._ws.send_text(self._shared.document(name).decode())
        if self._shown.page == "alerts" and self._due("alerts", now):
            await self._alerts()

    def _due(self, name: str, now: float) -> bool:
        if now < self._shown.due.get(name, 0.0):
            return False
        self._shown.due[name] = now + (PERIODS | ALERTS)[name]
        return True

    def _turn_page(self, page: str) -> None:
        self._wish.page = None
        self._shown.page = page
        self._shown.due.pop(page, None)
        self._shown.alert_n, self._shown.labels = 0, None

    async def _follow(self) -> None:
        name, after = self._wish.follow, self._wish.after
        self._wish.follow_asked = False
        self._drop()
        self._shown.topic += 1
        if name is None:
            return
        try:
            self._shown.slot = self._hub.follow(name)
        except KeyError:
            await self._send({"type": "unknown", "topic": self._shown.topic, "instrument": name})
            return
        frames = await asyncio.to_thread(self._hub.history, name)
        if frames and frames[-1].n >= after:  # else the monitor was restarted and counts anew
            frames = [f for f in frames if f.n > after]
        await self._send({"type": "following", "topic": self._shown.topic, "instrument": name, "kept": len(frames)})
        for first in range(0, len(frames), BATCH):
            await self._batch(frames[first : first + BATCH])
        self._shown.last = frames[-1].n if frames else 0

    async def _batch(self, frames: list[Frame]) -> None:
        if self._json:
            await self._send({"type": "frames", "topic": self._shown.topic, "frames": frames})
        else:
            await self._ws.send_bytes(await asyncio.to_thread(pack_batch, frames, self._shown.topic))

    async def _frame(self) -> None:
        shown = self._shown
        full = shown.under_way is not None and len(shown.under_way) >= WINDOW
        frame = shown.slot.take(shown.last) if shown.slot is not None and not full else None
        if frame is None or frame.n == shown.last:
            shown.frames.give_back()
            return
        skipped = frame.n - shown.last - 1
        if shown.last and skipped > 0:
            shown.skipped += skipped
            await self._send({"type": "skipped", "topic": shown.topic, "frames": shown.skipped})
        shown.last = frame.n
        if shown.under_way is not None:
            shown.under_way.append(frame.n)
        if self._json:
            await self._send({"type": "frame", "topic": shown.topic, "frame": frame})
        else:
            await self._ws.send_bytes(pack(frame, shown.topic))

    async def _alerts(self) -> None:
        shown, labels = self._shown, self._hub.labels()
        if labels != shown.labels:
            shown.labels = labels
            await self._send({"type": "labels", "labels": labels})
        newest = int(self._hub.overview().get("alerts", 0))
        if newest <= shown.alert_n:
            return
        found = self._hub.alerts(shown.alert_n or max(0, newest - ALERTS_AT_FIRST), ALERTS_A_TURN)
        if found:
            shown.alert_n = found[-1].n
            await self._send({"type": "alerts", "alerts": found, "newest": newest})

    async def _send(self, document: dict[str, Any]) -> None:
        await self._ws.send_text(ENCODER.encode(document).decode())

    def _drop(self) -> None:
        if self._shown.slot is not None:
            self._shown.slot.close()
        self._shown.slot, self._shown.last, self._shown.skipped = None, 0, 0
        if self._shown.under_way is not None:
            self._shown.under_way.clear()
