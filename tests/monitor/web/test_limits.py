"""Row 23 of the fault matrix: everything that abuses the page is refused, and the page goes on."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from microrisk.monitor.web import guard, live
from microrisk.monitor.web.guard import Limits
from tests.monitor.web.conftest import TOKEN, VIEWER, Running

DEADLINE_S = 20.0


def owner(running: Running, token: str = TOKEN) -> ClientConnection:
    return connect(running.ws, additional_headers={"Authorization": f"Bearer {token}"}, max_size=None)


def until(what: Callable[[], bool]) -> bool:
    """Whether it became true in time."""
    end = time.monotonic() + DEADLINE_S
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


@contextmanager
def raw(running: Running, sent: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", running.port), timeout=DEADLINE_S) as sock:
        if sent:
            sock.sendall(sent)
        yield sock


def answer(sock: socket.socket) -> bytes:
    """Head and body of an answer of /healthz."""
    out = b""
    while not out.endswith(b"ok\n"):
        part = sock.recv(4096)
        assert part, f"the connection ended after {out!r}"
        out += part
    return out


def ended(sock: socket.socket) -> bool:
    """Whether the other end cut the connection; what it says before is read and dropped."""
    try:
        while sock.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def close_code(ws: ClientConnection) -> int | None:
    try:
        while True:
            ws.recv(timeout=DEADLINE_S)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None


def test_a_thousand_sockets(serve: Callable[..., Running]) -> None:
    running = serve()
    limits = running.server.limits
    with ExitStack() as stack:
        for held in range(0, 1000, 100):
            for _ in range(100):
                stack.enter_context(raw(running))
            assert until(lambda seen=held + 100: len(limits.open) + limits.refused >= seen)  # type: ignore[misc]
        assert limits.refused == 1000 - guard.CONNECTIONS
        assert len(limits.open) == guard.CONNECTIONS
    assert until(lambda: not limits.open)
    assert running.get("/healthz").status_code == 200


def test_websockets_of_a_session_and_in_all(serve: Callable[..., Running]) -> None:
    running = serve()
    with ExitStack() as stack:
        first = [stack.enter_context(owner(running)) for _ in range(live.SOCKETS_A_SESSION)]
        with pytest.raises(InvalidStatus) as refused, owner(running):
            pass
        assert refused.value.response.status_code == 503
        with owner(running, VIEWER) as other:  # another session is not locked out
            assert json.loads(other.recv(timeout=10))["type"] == "hello"
        first[0].close()
        assert until(lambda: opens(running))


def opens(running: Running) -> bool:
    try:
        with owner(running) as ws:
            return bool(ws.recv(timeout=10))
    except InvalidStatus:
        return False


def test_a_count_of_sockets_over_all_sessions() -> None:
    sockets = live.Sockets(total=3, a_session=2)
    with sockets.held("a") as a, sockets.held("a") as b, sockets.held("a") as c, sockets.held("b") as d:
        with sockets.held("c") as e:
            assert (a, b, c, d, e) == (True, True, False, True, False)
        assert sockets.refused == 2
    with sockets.held("c") as free:
        assert free


@pytest.mark.parametrize("size", [live.INBOUND_BYTES + 1, 10 << 20])
def test_a_frame_that_is_too_large(running: Running, size: int) -> None:
    with owner(running) as ws:
        with suppress(ConnectionClosed):
            ws.send("x" * size)
        assert close_code(ws) in (1009, None)
    assert running.get("/healthz").status_code == 200


def test_fragments_do_not_get_around_it(running: Running) -> None:
    with owner(running) as ws:
        with suppress(ConnectionClosed):
            ws.send("x" * 1000 for _ in range(100))
        assert close_code(ws) in (1009, None)


def test_too_many_messages(running: Running) -> None:
    with owner(running) as ws:
        try:
            for _ in range(500):
                ws.send('{"page": "overview"}')
        except ConnectionClosed:
            pass
        assert close_code(ws) in (1008, None)


def test_bytes_are_not_expected(running: Running) -> None:
    with owner(running) as ws:
        ws.send(b"\x00")
        assert close_code(ws) == 1003


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: ",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-a: b\r\n",
        b"POST /api/alerts/x/label HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{",
    ],
)
def test_slow_requests_are_cut_off(serve: Callable[..., Running], sent: bytes) -> None:
    running = serve(limits=Limits(request_s=0.3))
    with raw(running, sent) as sock:
        assert ended(sock)
    assert running.get("/healthz").status_code == 200


def test_dripping_does_not_move_the_deadline(serve: Callable[..., Running]) -> None:
    running = serve(limits=Limits(request_s=0.5))
    began = time.monotonic()
    with raw(running, b"GET / HTTP/1.1\r\n") as sock:
        try:
            while time.monotonic() - began < DEADLINE_S:
                sock.sendall(b"X-a: b\r\n")
                time.sleep(0.05)
        except OSError:
            pass
    assert running.server.limits.slow == 1
    assert time.monotonic() - began < DEADLINE_S


def test_a_deadline_does_not_outlive_its_request(serve: Callable[..., Running]) -> None:
    running = serve(limits=Limits(request_s=0.3))
    request = f"GET /healthz HTTP/1.1\r\nHost: {running.host}\r\n\r\n".encode()
    with raw(running, request) as sock:
        assert b"200 OK" in answer(sock)
        time.sleep(0.6)
        sock.sendall(request)
        assert b"200 OK" in answer(sock)
    with owner(running) as ws:
        time.sleep(0.6)
        assert json.loads(ws.recv(timeout=10))["type"] == "hello"
    assert running.server.limits.slow == 0


def test_a_head_that_has_no_end(running: Running) -> None:
    with raw(running, b"GET / HTTP/1.1\r\n") as sock:
        try:
            for _ in range(100):
                sock.sendall(b"X-a: " + b"b" * 1000 + b"\r\n")
        except OSError:
            pass
        assert ended(sock)


def test_a_large_body_is_refused_before_it_is_sent(running: Running) -> None:
    head = (
        f"POST /api/alerts/x/label HTTP/1.1\r\nHost: {running.host}\r\nAuthorization: Bearer {TOKEN}\r\n"
        "X-Microrisk: 1\r\nContent-Length: 10241\r\n\r\n"
    )
    with raw(running, head.encode()) as sock:
        assert b"413 " in sock.recv(4096)


@pytest.mark.parametrize(
    "sent", [b"\x00" * 64, b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"]
)
def test_what_is_no_request(running: Running, sent: bytes) -> None:
    with raw(running, sent) as sock:
        assert sock.recv(4096).startswith(b"HTTP/1.1 400")
    assert running.get("/healthz").status_code == 200


def test_a_flood_of_pings_without_reading_is_cut_off(serve: Callable[..., Running]) -> None:
    running = serve(limits=Limits(stalled_s=0.5))
    with raw(running) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(upgrade(running))
        ping = b"\x89\xfd\x00\x00\x00\x00" + b"p" * 125
        try:
            for _ in range(100_000):
                sock.sendall(ping * 100)
        except OSError:
            pass
    assert until(lambda: running.server.limits.stalled + running.server.limits.flooded == 1)
    assert running.get("/healthz").status_code == 200


def upgrade(running: Running) -> bytes:
    return (
        f"GET /ws HTTP/1.1\r\nHost: {running.host}\r\nAuthorization: Bearer {TOKEN}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


def test_paths_lead_nowhere_else(running: Running) -> None:
    for path in (
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static//etc/passwd",
        "/static/",
    ):
        with raw(running, request_line(running, path)) as sock:
            assert sock.recv(4096).startswith(b"HTTP/1.1 404")


def request_line(running: Running, path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {running.host}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
