"""The page's server: bound first, so that its address is known, then run in the thread that asks for it."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
import socket
import ssl
from collections.abc import Collection, Generator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from microrisk.errors import UsageError
from microrisk.monitor.hub import Hub
from microrisk.monitor.keys import is_loopback
from microrisk.monitor.web.app import create_app
from microrisk.monitor.web.guard import Limits
from microrisk.monitor.web.live import INBOUND_BYTES

DEFAULT_PORT = 8765
HEAD_BYTES = 16 * 1024
KEEP_ALIVE_S = 5
STOP_S = 2
BACKLOG = 128

Tls = tuple[Path, Path]
"""Certificate chain and key, PEM."""


class Server:
    """A listening socket and the application behind it.

    Attributes
    ----------
    url : without a token
    limits : what connections may do, and how many were cut off
    """

    def __init__(
        self, app: Starlette, listener: socket.socket, *, tls: Tls | None = None, limits: Limits | None = None
    ) -> None:
        self._listener, self._app = listener, app
        self.limits = limits or Limits()
        host, port = listener.getsockname()[:2]
        self.url = f"{'https' if tls else 'http'}://{_bracketed(host)}:{port}/"
        self._server = _Quiet(_config(app, self.limits, tls))

    def run(self) -> None:
        """Serve in this thread until `stop`; closes the socket. Signal handlers stay as they are."""
        loop = asyncio.new_event_loop()
        serving = loop.create_task(self._server.serve(sockets=[self._listener]))
        try:
            loop.run_until_complete(serving)
        except KeyboardInterrupt:
            self.stop()
            loop.run_until_complete(serving)
            raise
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
            self._listener.close()

    def stop(self) -> None:
        """End `run` within a few seconds; from any thread or signal handler, before or after it began."""
        self._server.should_exit = True

    def close(self) -> None:
        """Give the port back when `run` was never called."""
        self._listener.close()


class _Quiet(uvicorn.Server):
    """Signals belong to the program, not to its page."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def open_server(
    hub: Hub,
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    token: str | None = None,
    viewer_token: str | None = None,
    allowed_hosts: Collection[str] = (),
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    limits: Limits | None = None,
) -> tuple[Server, str]:
    """Bind, and make the application.

    Parameters
    ----------
    port : 0 takes any free one
    token : made anew when None, which only a loopback address may
    allowed_hosts : further names this server goes by: `host:port`, or the origin of a proxy in front

    Returns
    -------
    server, and the address with its token for the user's eyes: it belongs into no log

    Raises
    ------
    UsageError : port in use, no such address, a public address without a token or a name, TLS files that do not fit
    """
    local = is_loopback(host)
    if token is None and not local:
        remedy = "give a token (MICRORISK_MONITOR__TOKEN or monitor.token_file)"
        raise UsageError(f"{host} can be reached from outside: {remedy}")
    if ipaddress_of(host) in (ipaddress.IPv4Address(0), ipaddress.IPv6Address(0)) and not allowed_hosts:
        remedy = f"say by which names browsers will ask (monitor.origins, such as NAME:{port})"
        raise UsageError(f"{host} means every address: {remedy}")
    tls = _tls(tls_cert, tls_key)
    token = token or secrets.token_urlsafe(32)
    listener = bind(host, port)
    try:
        names = [*own_names(host, listener.getsockname()[1]), *allowed_hosts]
        app = create_app(hub, token=token, viewer_token=viewer_token, allowed_hosts=names, secure=tls is not None)
        server = Server(app, listener, tls=tls, limits=limits)
    except BaseException:
        listener.close()
        raise
    return server, f"{server.url}?token={token}"


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; UsageError when it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        raise UsageError(f"cannot listen on {host} port {port}: {error}; another port: --port 0") from error
    return listener


def own_names(host: str, port: int) -> list[str]:
    """What a browser on this machine, or at the address bound, writes into Host."""
    names = [f"{_bracketed(host)}:{port}"]
    if is_loopback(host):
        names += [f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")]
    if port in (80, 443):
        names += [name.rpartition(":")[0] for name in names]
    return list(dict.fromkeys(names))


def ipaddress_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _tls(cert: Path | None, key: Path | None) -> Tls | None:
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise UsageError("TLS needs both --tls-cert and --tls-key")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"TLS certificate {cert} with key {key}: {error}") from error
    return cert, key


def _config(app: Starlette, limits: Limits, tls: Tls | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="asyncio",
        http=limits.http(),
        ws=limits.websocket(),
        ws_max_size=INBOUND_BYTES,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        log_level="error",  # its other lines hold addresses with what follows the question mark
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=HEAD_BYTES,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_S,
        ssl_certfile=tls[0] if tls else None,
        ssl_keyfile=tls[1] if tls else None,
    )
