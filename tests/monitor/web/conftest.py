"""A server over a made-up market, in a thread of its own; a browser where there is one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from microrisk.monitor.web.guard import Limits
from microrisk.monitor.web.serve import Server, open_server
from tests.monitor.web.fake_hub import FakeHub

TOKEN, VIEWER = "owner-token-0123456789", "viewer-token-0123456789"


@dataclass
class Running:
    """A server and how to ask it."""

    hub: FakeHub
    server: Server
    address: str

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://").rstrip("/")

    @property
    def port(self) -> int:
        return int(self.host.rpartition(":")[2])

    @property
    def ws(self) -> str:
        return f"ws://{self.host}/ws"

    def get(self, path: str, token: str | None = TOKEN, **options: Any) -> httpx.Response:
        return self.ask("GET", path, token, **options)

    def ask(
        self,
        method: str,
        path: str,
        token: str | None = TOKEN,
        *,
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> httpx.Response:
        own = {"authorization": f"Bearer {token}"} if token else {}
        return httpx.request(method, self.url.rstrip("/") + path, headers=own | (headers or {}), **options)


@contextmanager
def serving(hub: FakeHub, limits: Limits | None = None, *, at: int = 0, **options: Any) -> Iterator[Running]:
    """A server on a free port, stopped and joined at the end."""
    options.setdefault("token", TOKEN)
    options.setdefault("viewer_token", VIEWER)
    server, address = open_server(hub, port=at, limits=limits, **options)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield Running(hub, server, address)
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive(), "the server did not stop"


@pytest.fixture
def serve() -> Iterator[Callable[..., Running]]:
    """Servers with limits of the test's own."""
    with ExitStack() as stack:
        yield lambda hub=None, limits=None, **options: stack.enter_context(
            serving(hub or FakeHub(history_s=5), limits, **options)
        )


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """One server for the tests of a file."""
    with serving(FakeHub(history_s=40)) as server:
        yield server
