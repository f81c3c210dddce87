"""Who may ask: tokens, cookies, names of this server. One ASGI layer in front of every route and of the websocket.

    order    refused with   why
    Host     403            a foreign name that resolves to this address (DNS rebinding)
    Origin   403            another site's page asks
    identity 401            neither cookie nor bearer token
    role     403            a viewer changes something
    header   403            a change without `X-Microrisk: 1`, which no form of another site can send
    body     411, 413       no length, or more than BODY_BYTES

A token is compared in constant time and appears in an address once: `/?token=` answers with a cookie that holds a
random session name, and sends the browser to `/`. Only `/healthz` is open.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from http import HTTPStatus
from urllib.parse import parse_qs

from starlette.datastructures import MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from microrisk.errors import UsageError

OWNER, VIEWER = "owner", "viewer"
SESSIONS = 256
"""Sessions kept; the oldest is forgotten when one more begins."""
BODY_BYTES = 10 * 1024
TOKEN_CHARACTERS = 16
"""A token that a person chooses has at least as many."""
OPEN = frozenset({"/healthz"})
CHANGES = frozenset({"POST", "PUT", "PATCH", "DELETE"})

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
"""On every answer."""

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?", re.IGNORECASE)
_SIGN_IN = """<!doctype html><html lang="en"><meta charset="utf-8"><title>microrisk: not signed in</title>
<h1>Not signed in</h1>
<p>Open the address that <code>microrisk monitor</code> printed at its start: it ends in <code>/?token=...</code></p>
<p>A restart makes a new token. If you came here through a link on another page, <a href="/">go on</a>.</p></html>"""


@dataclass(frozen=True)
class Identity:
    """Who asks. `session` groups what one browser or one token holds open."""

    role: str
    session: str


class Door:
    """What opens this server.

    Parameters
    ----------
    token : opens everything
    viewer_token : opens everything that changes nothing
    allowed_hosts : `host:port` as browsers write it, or an origin (`https://monitor.example`) where a proxy in front
        of this server has another name
    secure : this server itself speaks TLS
    """

    def __init__(
        self, token: str, viewer_token: str | None = None, *, allowed_hosts: Iterable[str], secure: bool = False
    ) -> None:
        check_tokens(token, viewer_token)
        self._roles = [(token.encode(), OWNER)]
        if viewer_token:
            self._roles.append((viewer_token.encode(), VIEWER))
        origins = [origin_of(h, secure=secure) for h in allowed_hosts]
        self._origins = frozenset(origins)
        self._hosts = frozenset(o.partition("://")[2] for o in origins)
        self._secure = frozenset(o.partition("://")[2] for o in origins if o.startswith("https:"))
        self._sessions: dict[str, Identity] = {}

    def host_allowed(self, host: str) -> bool:
        """Exactly one of ours, port included."""
        return host.lower() in self._hosts

    def origin_allowed(self, origin: str) -> bool:
        """Exactly one of ours; `null` (a file, a sandboxed frame) is none."""
        return origin.lower() in self._origins

    def of_token(self, token: str) -> Identity | None:
        """Who holds this token. Every token is compared, so that the time says nothing."""
        given, found = token.encode("utf-8", "replace"), None
        for mine, role in self._roles:
            if hmac.compare_digest(mine, given):
                found = Identity(role, f"token of {role}")
        return found

    def begin(self, identity: Identity) -> str:
        """A session for a browser; its name is all that the cookie holds."""
        name = secrets.token_urlsafe(32)
        while len(self._sessions) >= SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[name] = replace(identity, session=name)
        return name

    def of_request(self, headers: dict[str, str]) -> Identity | None:
        """By bearer token or by cookie; a wrong bearer token is not helped by a cookie."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme:
            return self.of_token(given.strip()) if scheme.lower() == "bearer" else None
        cookie = cookie_parser(headers.get("cookie", "")).get(cookie_name(headers.get("host", "")))
        return self._sessions.get(cookie) if cookie else None

    def cookie(self, response: Response, session: str, host: str) -> None:
        """Hand the session's name to the browser, for as long as it runs."""
        response.set_cookie(
            cookie_name(host), session, httponly=True, samesite="strict", secure=host in self._secure, path="/"
        )


def check_tokens(token: str, viewer_token: str | None) -> None:
    """UsageError for tokens that can be guessed or told apart by nobody; the text never holds one."""
    for name, value in (("token", token), ("viewer token", viewer_token)):
        if value is not None and len(value) < TOKEN_CHARACTERS:
            raise UsageError(f"the {name} has {len(value)} characters, at least {TOKEN_CHARACTERS} are needed")
    if viewer_token is not None and hmac.compare_digest(token.encode(), viewer_token.encode()):
        raise UsageError("token and viewer token are the same: a viewer could change labels")


def origin_of(host: str, *, secure: bool) -> str:
    """`host[:port]` or `scheme://host[:port]` -> origin; UsageError for anything else."""
    scheme, found, authority = host.rpartition("://")
    if not found:
        scheme = "https" if secure else "http"
    if scheme not in ("http", "https") or not _AUTHORITY.fullmatch(authority):
        raise UsageError(f"allowed host {host!r}: write host:port, or https://host of a proxy in front")
    return f"{scheme}://{authority}".lower()


def cookie_name(host: str) -> str:
    """Cookies know no ports: two monitors on one machine need two names."""
    _, found, port = host.rpartition(":")
    return f"microrisk-{port}" if found and port.isdigit() else "microrisk"


class Guarded:
    """The layer itself. Behind it `scope["microrisk.identity"]` is set on all but the open routes."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app, self._door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or websocket."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        send = _with_headers(scope, send)
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await refusal(scope, receive, send)
        else:
            await _deny(refusal, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers, doubled = _headers(scope)
        if doubled:
            return refused(400, f"header {doubled} twice")
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._door.host_allowed(host):
            return refused(403, "this server does not go by that name; see monitor.origins")
        if origin is not None and not self._door.origin_allowed(origin):
            return refused(403, "a page of another origin")
        if scope["path"] in OPEN:
            return None
        if scope["path"] == "/" and b"token=" in scope["query_string"]:
            return self._exchange(scope, host)
        return self._admit(scope, headers)

    def _admit(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        identity = self._door.of_request(headers)
        if identity is None:
            return _unknown(headers)
        if scope["type"] == "websocket" and "authorization" not in headers and "origin" not in headers:
            return refused(403, "a websocket that comes with a cookie must say its origin")
        if scope["type"] == "http" and scope["method"] in CHANGES:
            refusal = _change_refused(identity, headers)
            if refusal is not None:
                return refusal
        scope["microrisk.identity"] = identity
        return None

    def _exchange(self, scope: Scope, host: str) -> Response:
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        identity = self._door.of_token(given)
        if identity is None or scope["type"] != "http" or scope["method"] != "GET":
            return HTMLResponse(_SIGN_IN, 401)
        response = RedirectResponse("/", 303)
        self._door.cookie(response, self._door.begin(identity), host)
        return response


def refused(status: int, why: str) -> Response:
    """A refusal in one line."""
    return PlainTextResponse(f"{status} {HTTPStatus(status).phrase}: {why}\n", status)


def _unknown(headers: dict[str, str]) -> Response:
    if "text/html" in headers.get("accept", ""):
        return HTMLResponse(_SIGN_IN, 401)
    response = refused(401, "send the token as `Authorization: Bearer ...`, or open /?token=... in a browser")
    response.headers["www-authenticate"] = "Bearer"
    return response


def _change_refused(identity: Identity, headers: dict[str, str]) -> Response | None:
    if identity.role != OWNER:
        return refused(403, "the viewer token changes nothing")
    if headers.get("x-microrisk") != "1":
        return refused(403, "a change needs the header X-Microrisk: 1")
    length = headers.get("content-length", "")
    if not length.isdigit() or "transfer-encoding" in headers:
        return refused(411, "a body needs its Content-Length")
    return refused(413, f"at most {BODY_BYTES} bytes") if int(length) > BODY_BYTES else None


def _headers(scope: Scope) -> tuple[dict[str, str], str]:
    """Headers by name, and the name of one that decides here and came twice."""
    out: dict[str, str] = {}
    for raw, value in scope["headers"]:
        name = raw.decode("latin-1").lower()
        if name in out and name in ("host", "origin", "authorization", "x-microrisk", "content-length"):
            return out, name
        out[name] = f"{out[name]}; {value.decode('latin-1')}" if name in out else value.decode("latin-1")
    return out, ""


def _with_headers(scope: Scope, send: Send) -> Send:
    cached = scope["path"].startswith("/static/")

    async def sending(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            headers = MutableHeaders(scope=message)
            headers.update(HEADERS)
            if not cached or message["status"] >= HTTPStatus.BAD_REQUEST:
                headers["cache-control"] = "no-store"
        await send(message)

    return sending


async def _deny(refusal: Response, receive: Receive, send: Send) -> None:
    """Refuse a websocket before it is one."""
    await receive()
    await send({"type": "websocket.http.response.start", "status": refusal.status_code, "headers": refusal.raw_headers})
    await send({"type": "websocket.http.response.body", "body": refusal.body})
