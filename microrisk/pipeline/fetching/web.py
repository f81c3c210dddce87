"""HTTP as far as fetching files needs it, on the standard library.

Why no client library: the package depends on none, urllib.request already knows proxies (http_proxy, https_proxy,
no_proxy), certificates and redirects, and the parts that are hard here (what is complete, what may be resumed, when to
give up) would be ours with any of them.

Rules:

1. Only https, except to the loopback interface. A redirect is held to the same rule, may not lead from elsewhere to
   the loopback interface, and at most MOST_REDIRECTS are followed.
2. What may pass (a broken or silent connection, 408, 425, 429, 5xx) is `PassingError`, with the wait that Retry-After
   asks for; everything else is final.
3. Nothing a server says is trusted with memory: texts are read up to a limit.
"""

from __future__ import annotations

import email.utils
import http.client
import ipaddress
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import IO, Any
from urllib.parse import urlsplit

from microrisk.errors import FetchError, UsageError

MOST_REDIRECTS = 5
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
ABSENT = frozenset({404, 410})
LONGEST_WAIT = 300.0
"""Seconds; a server that asks for more is not waited for."""

Opener = Callable[[urllib.request.Request], Any]


class PassingError(Exception):
    """It may go better later; `wait` is what the server asks for in seconds, None when it does not say."""

    def __init__(self, text: str, wait: float | None = None) -> None:
        super().__init__(text)
        self.wait = wait


class AbsentError(FetchError):
    """The server has no such file, or something else in its place."""


def is_loopback(url: str) -> bool:
    """Whether the host of the URL is this machine, by its name or number."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def permitted(url: str) -> bool:
    """Rule 1."""
    parts = urlsplit(url)
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(url)))


def require_permitted(url: str) -> None:
    """Raise UsageError for a URL that rule 1 forbids."""
    try:
        fine = permitted(url)
    except ValueError:
        fine = False
    if not fine:
        raise UsageError(f"{url}: only https is used, or http to this machine")


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = MOST_REDIRECTS
    max_repeats = 2

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if not permitted(newurl) or (is_loopback(newurl) and not is_loopback(req.full_url)):
            raise FetchError(f"{req.full_url}: redirected to {newurl}, which is not allowed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Answer:
    """A response that was accepted: status 200, 206 or 416."""

    def __init__(self, response: Any) -> None:
        self._response = response
        self.status = int(response.status)
        self.headers: Mapping[str, str] = response.headers
        self.url = str(response.url)

    @property
    def length(self) -> int | None:
        """Content-Length, None when there is none or it is no number."""
        text = self.headers.get("Content-Length", "")
        return int(text) if text.isascii() and text.isdigit() else None

    def read(self, size: int) -> bytes:
        """The next bytes as they come, at most `size`; empty at the end, also at an early one."""
        try:
            return bytes(self._response.read1(size))
        except (OSError, http.client.HTTPException, ValueError) as why:
            raise PassingError(f"{self.url}: the connection broke ({_words(why)})") from why

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()


class Client:
    """Asks for URLs under the rules above. `timeout` is how many seconds a silent server is waited for."""

    def __init__(self, timeout: float = 30.0) -> None:
        self._timeout = timeout
        self._agent = f"microrisk/{version('microrisk')}"
        director = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(context=ssl.create_default_context()),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            _Redirects(),
        ):
            director.add_handler(handler)
        self._open = director.open

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """The response to a GET.

        Raises
        ------
        UsageError : rule 1
        AbsentError : 404, 410
        PassingError : rule 2
        FetchError : any other answer, a host that is not known, a certificate that is not valid
        """
        require_permitted(url)
        head = {"User-Agent": self._agent, "Accept-Encoding": "identity", **(headers or {})}
        try:
            return Answer(self._open(urllib.request.Request(url, headers=head), timeout=self._timeout))
        except urllib.error.HTTPError as error:
            if error.code == 416:
                return Answer(error)
            with error:
                raise _refusal(url, error) from None
        except FetchError:
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _failure(url, error) from error

    def text(self, url: str, limit: int = 1 << 20) -> str:
        """A small body as UTF-8 text; undecodable bytes are replaced. FetchError above `limit` bytes."""
        body = b""
        with self.get(url) as answer:
            while piece := answer.read(64 << 10):
                body += piece
                if len(body) > limit:
                    raise FetchError(f"{url}: more than the {limit:,} bytes that such a file may have")
            if answer.length is not None and len(body) < answer.length:
                raise PassingError(f"{url}: {len(body)} of {answer.length} bytes came")
        return body.decode("utf-8", "replace")


def _refusal(url: str, error: urllib.error.HTTPError) -> Exception:
    """What an HTTP status means for us."""
    said = f"{url}: HTTP {error.code} {error.reason or ''}".rstrip()
    if error.code in ABSENT:
        return AbsentError(said)
    if error.code in PASSING:
        return PassingError(said, retry_after(error.headers.get("Retry-After")))
    if 300 <= error.code < 400:
        return FetchError(f"{url}: redirected in a circle, to nowhere, or more than {MOST_REDIRECTS} times")
    return FetchError(said)


def _failure(url: str, error: Exception) -> Exception:
    """What an exception of the network means for us."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return FetchError(f"{url}: the server's certificate is not valid ({cause.verify_message})")
    if isinstance(cause, socket.gaierror):
        return FetchError(f"{url}: no such host can be found ({cause.strerror}); a proxy is taken from https_proxy")
    return PassingError(f"{url}: {_words(cause)}")


def _words(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "nothing came for too long"
    return str(error) or type(error).__name__


def retry_after(text: str | None, now: float | None = None) -> float | None:
    """Seconds that a Retry-After header (a number or a date, RFC 9110 10.2.3) asks for; None when it says nothing."""
    if text is None:
        return None
    if text.strip().isdigit():
        return float(text)
    try:
        then = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError):
        return None
    return max(0.0, then - (time.time() if now is None else now))
