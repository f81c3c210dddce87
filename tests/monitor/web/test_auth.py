"""Who gets in, and as what."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from http.cookies import SimpleCookie

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from microrisk.errors import UsageError
from microrisk.monitor.web.auth import Door, cookie_name, origin_of
from microrisk.monitor.web.serve import open_server, own_names
from tests.monitor.web.conftest import TOKEN, VIEWER, Running
from tests.monitor.web.fake_hub import FakeHub

ROUTES = [
    "/", "/static/style.css", "/favicon.ico", "/api/overview", "/api/instruments", "/api/consolidated", "/api/alerts",
    "/api/alerts.jsonl", "/api/alerts.csv", "/api/alerts/x/around", "/api/latency", "/api/hardware", "/metrics",
    "/readyz", "/nothing",
]  # fmt: skip


def session_of(response: httpx.Response) -> str:
    (morsel,) = SimpleCookie(response.headers["set-cookie"]).values()
    return f"{morsel.key}={morsel.value}"


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("token", [None, "wrong", TOKEN[:-1], TOKEN + "x", VIEWER + TOKEN, "é"])
def test_without_a_token_nothing_but_401(running: Running, path: str, token: str | None) -> None:
    headers = {"authorization": f"Bearer {token}".encode()} if token else {}
    response = httpx.get(running.url.rstrip("/") + path, headers=headers)
    assert response.status_code == 401
    assert "default-src 'none'" in response.headers["content-security-policy"]


def test_healthz_is_open(running: Running) -> None:
    assert running.get("/healthz", token=None).text == "ok\n"


@pytest.mark.parametrize("token", [TOKEN, VIEWER])
def test_both_tokens_read(running: Running, token: str) -> None:
    assert running.get("/api/overview", token).status_code == 200


def test_a_token_is_exchanged_for_a_cookie_that_is_not_the_token(running: Running) -> None:
    response = httpx.get(running.address)
    assert response.status_code == 303
    assert response.headers["location"] == "/"
    assert response.headers["cache-control"] == "no-store"
    flags = response.headers["set-cookie"].lower()
    assert "httponly" in flags
    assert "samesite=strict" in flags
    assert TOKEN not in response.headers["set-cookie"]
    page = httpx.get(running.url, headers={"cookie": session_of(response)})
    assert page.status_code == 200
    assert httpx.get(running.url, headers={"cookie": session_of(response) + "x"}).status_code == 401


def test_every_browser_has_its_own_session(running: Running) -> None:
    assert session_of(httpx.get(running.address)) != session_of(httpx.get(running.address))


@pytest.mark.parametrize("token", ["", "wrong", TOKEN + "%00", "%FF"])
def test_a_wrong_token_is_told_what_to_do(running: Running, token: str) -> None:
    response = httpx.get(f"{running.url}?token={token}")
    assert response.status_code == 401
    assert "set-cookie" not in response.headers
    assert "microrisk monitor" in response.text


def test_a_wrong_bearer_is_not_helped_by_a_cookie(running: Running) -> None:
    cookie = session_of(httpx.get(running.address))
    assert running.get("/api/overview", "wrong", headers={"cookie": cookie}).status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil.example", ""])
def test_a_foreign_host_is_refused_everywhere(running: Running, host: str) -> None:
    for path in ("/", "/healthz", "/api/overview"):
        assert running.get(path, headers={"host": host}).status_code == 403


def test_names_of_this_machine_are_allowed(running: Running) -> None:
    for name in ("localhost", "LocalHost", "[::1]"):
        assert running.get("/healthz", headers={"host": f"{name}:{running.port}"}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "https://127.0.0.1:{port}", "http://127.0.0.1"])
def test_a_foreign_origin_is_refused_everywhere(running: Running, origin: str) -> None:
    own = {"origin": origin.format(port=running.port)}
    for path in ("/", "/healthz", "/api/overview"):
        assert running.get(path, headers=own).status_code == 403
    assert running.get("/api/overview", headers={"origin": f"http://{running.host}"}).status_code == 200


def test_a_header_that_decides_comes_once(running: Running) -> None:
    token = ("authorization", f"Bearer {TOKEN}")
    response = httpx.get(running.url, headers=[token, ("authorization", "Bearer other")])
    assert response.status_code == 400


def test_websocket_needs_all_of_it(running: Running) -> None:
    own, cookie = f"http://{running.host}", session_of(httpx.get(running.address))
    cases: list[tuple[str | None, dict[str, str], int]] = [
        (own, {}, 401),
        (own, {"Authorization": "Bearer wrong"}, 401),
        ("http://evil.example", {"Cookie": cookie}, 403),
        ("http://evil.example", {"Authorization": f"Bearer {TOKEN}"}, 403),
        (None, {"Cookie": cookie}, 403),
        ("null", {"Cookie": cookie}, 403),
    ]
    for origin, headers, status in cases:
        with pytest.raises(InvalidStatus) as refused, connect(running.ws, origin=origin, additional_headers=headers):
            pass
        assert refused.value.response.status_code == status, (origin, headers)
    for origin, headers in ((own, {"Cookie": cookie}), (None, {"Authorization": f"Bearer {TOKEN}"})):
        with connect(running.ws, origin=origin, additional_headers=headers) as ws:
            assert json.loads(ws.recv(timeout=10))["type"] == "hello"


def test_a_change_needs_header_length_and_role(running: Running) -> None:
    path = f"/api/alerts/{running.hub.told[0].id}/label"
    change, value = {"x-microrisk": "1"}, b'{"value": true}'
    assert running.ask("POST", path, headers=change, content=value).status_code == 200
    assert running.ask("POST", path, content=value).status_code == 403
    assert running.ask("POST", path, headers={"x-microrisk": "2"}, content=value).status_code == 403
    assert running.ask("POST", path, VIEWER, headers=change, content=value).status_code == 403
    assert running.ask("POST", path, None, headers=change, content=value).status_code == 401
    assert running.ask("POST", path, headers=change, content=iter([value])).status_code == 411
    cookie = {"cookie": session_of(httpx.get(running.address))}
    assert running.ask("POST", path, None, headers=change | cookie, content=value).status_code == 200
    assert running.ask("POST", path, None, headers=cookie, content=value).status_code == 403
    viewer = {"cookie": session_of(httpx.get(f"{running.url}?token={VIEWER}"))}
    assert running.ask("POST", path, None, headers=change | viewer, content=value).status_code == 403
    assert set(running.hub.said_by) == {"owner"}


def test_every_answer_carries_the_policy(running: Running) -> None:
    for path, token in (("/", TOKEN), ("/nothing", TOKEN), ("/api/overview", TOKEN), ("/api/overview", None)):
        headers = running.get(path, token).headers
        policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers
        assert "access-control-allow-origin" not in headers


def test_tokens_and_sessions_are_in_no_log(
    serve: Callable[..., Running], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    running = serve()
    cookie = session_of(httpx.get(running.address))
    httpx.get(f"{running.url}?token={TOKEN}wrong")
    with connect(running.ws, origin=f"http://{running.host}", additional_headers={"Cookie": cookie}) as ws:
        ws.recv(timeout=10)
    own = [r.getMessage() for r in caplog.records if not r.name.startswith(("httpx", "httpcore", "websockets.client"))]
    text = "\n".join(own) + "".join(capfd.readouterr())
    assert TOKEN not in text
    assert cookie.partition("=")[2] not in text


def test_the_oldest_session_goes_when_there_are_too_many() -> None:
    door = Door(TOKEN, allowed_hosts=["h:1"])
    owner = door.of_token(TOKEN)
    assert owner is not None
    names = [door.begin(owner) for _ in range(257)]
    asks = [door.of_request({"host": "h:1", "cookie": f"{cookie_name('h:1')}={n}"}) for n in names]
    assert asks[0] is None
    assert all(asks[1:])


@pytest.mark.parametrize(
    ("host", "options", "words"),
    [
        ("0.0.0.0", {}, "can be reached from outside: give a token"),
        ("0.0.0.0", {"token": TOKEN}, "means every address"),
        ("127.0.0.1", {"token": "short"}, "has 5 characters, at least 16"),
        ("127.0.0.1", {"token": TOKEN, "viewer_token": TOKEN}, "are the same"),
        ("127.0.0.1", {"allowed_hosts": ["http://x/y"]}, "write host:port"),
        ("127.0.0.1", {"tls_cert": "cert.pem"}, "needs both"),
        ("192.0.2.1", {"token": TOKEN}, "cannot listen on 192.0.2.1"),
    ],
)
def test_a_server_that_would_be_unsafe_does_not_start(host: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)) as error:
        open_server(FakeHub(history_s=0), host=host, port=0, **options)  # type: ignore[arg-type]
    assert TOKEN not in str(error.value)


def test_a_port_in_use_is_said(running: Running) -> None:
    with pytest.raises(UsageError, match=rf"port {running.port}: .*another port"):
        open_server(running.hub, port=running.port)


def test_names_and_origins() -> None:
    assert own_names("::1", 80)[0] == "[::1]:80"
    assert "localhost" in own_names("127.0.0.1", 80)
    assert own_names("10.0.0.5", 8765) == ["10.0.0.5:8765"]
    assert origin_of("Mon.example:99", secure=True) == "https://mon.example:99"
    door = Door(TOKEN, allowed_hosts=["https://mon.example"])
    assert door.host_allowed("mon.example")
    assert not door.origin_allowed("http://mon.example")
