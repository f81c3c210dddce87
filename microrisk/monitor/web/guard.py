"""What uvicorn leaves open at the level of connections: slow requests, slow readers, too many of either.

What is over a limit is cut off and counted: CONNECTIONS at once; REQUEST_S for a whole request, head and body, from its
first byte (slowloris); STALLED_S for a reader whose write buffer is full; BUFFER_BYTES waiting to be written (a peer
that asks, or pings, and never reads).
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

CONNECTIONS = 256
REQUEST_S = 10.0
STALLED_S = 10.0
BUFFER_BYTES = 4 << 20
SEND_BYTES = 128 * 1024
"""Asked of the kernel, whose own choice grows to megabytes: a slow reader would read those before anything new."""

_UNFINISHED = (h11.IDLE, h11.SEND_BODY)


class Limits:
    """Shared by the connections of one server; what it cut off is counted.

    Attributes
    ----------
    refused, slow, stalled, flooded : connections over the limit, requests too slow, readers too slow, buffers too full
    """

    def __init__(
        self, *, connections: int = CONNECTIONS, request_s: float = REQUEST_S, stalled_s: float = STALLED_S
    ) -> None:
        self.connections, self.request_s, self.stalled_s = connections, request_s, stalled_s
        self.open: set[Any] = set()
        self.refused = self.slow = self.stalled = self.flooded = 0

    def http(self) -> type[H11Protocol]:
        """A protocol class for uvicorn."""
        return type("GuardedHttp", (_Http,), {"limits": self})

    def websocket(self) -> type[WebSocketsSansIOProtocol]:
        """A protocol class for uvicorn."""
        return type("GuardedWebSocket", (_WebSocket,), {"limits": self})


class _Timer:
    """A deadline that is set once and not moved by further progress."""

    def __init__(self) -> None:
        self._handle: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop, seconds: float, act: Any) -> None:
        if self._handle is None:
            self._handle = loop.call_later(seconds, act)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class _Http(H11Protocol):
    limits: Limits

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._request, self._reader = _Timer(), _Timer()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.limits.open) >= self.limits.connections:
            self.limits.refused += 1
            transport.abort()
            return
        self.limits.open.add(transport)
        found = transport.get_extra_info("socket")
        if found is not None:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        self._request.start(self.loop, self.limits.request_s, self._too_slow)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.get_protocol() is not self:
            self._request.stop()  # a websocket now
        elif self.conn.their_state in _UNFINISHED:
            self._request.start(self.loop, self.limits.request_s, self._too_slow)
        else:
            self._request.stop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._request.stop()
        self._reader.stop()
        self.limits.open.discard(self.transport)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._reader.start(self.loop, self.limits.stalled_s, self._stalled)
        super().pause_writing()

    def resume_writing(self) -> None:
        self._reader.stop()
        super().resume_writing()

    def _too_slow(self) -> None:
        self.limits.slow += 1
        self.transport.abort()

    def _stalled(self) -> None:
        self.limits.stalled += 1
        self.transport.abort()


class _WebSocket(WebSocketsSansIOProtocol):
    limits: Limits

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._reader = _Timer()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.get_write_buffer_size() > BUFFER_BYTES:
            self.limits.flooded += 1
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._reader.stop()
        self.limits.open.discard(self.transport)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._reader.start(self.loop, self.limits.stalled_s, self._stalled)
        super().pause_writing()

    def resume_writing(self) -> None:
        self._reader.stop()
        super().resume_writing()

    def _stalled(self) -> None:
        self.limits.stalled += 1
        self.transport.abort()
