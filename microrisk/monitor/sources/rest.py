"""GET over HTTP/1.1, for book images: one request a connection, bounded, no redirects, no compression.

What a status means is the caller's business; a `FetchError` says that there was no whole answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import ssl
import time
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from microrisk.errors import FetchError, UsageError

MOST_HEAD = 64 << 10
MOST_BODY = 64 << 20
"""Bytes of the longest answer; a whole level-3 book takes some 20 MiB."""
PIECE = 1 << 16
AGENT = "microrisk"


class Answer(NamedTuple):
    """Status, headers (names in lower case; of repeated ones the last), body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def retry_after_s(self) -> float:
        """Seconds that the server asks to wait, 0 when it says nothing that can be read."""
        return retry_after_s(self.headers.get("retry-after", ""))


def retry_after_s(text: str) -> float:
    """A Retry-After header, seconds or a date, as seconds from now; 0 when it cannot be read."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0


def tls_for(url: str, given: ssl.SSLContext | None = None) -> ssl.SSLContext | None:
    """Context of a connection: certificates are verified unless the caller's own context says otherwise."""
    return (given or ssl.create_default_context()) if url.startswith(("https:", "wss:")) else None


async def get(
    url: str,
    *,
    timeout_s: float = 10.0,
    most_bytes: int = MOST_BODY,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """The answer to a GET.

    Raises
    ------
    UsageError : not an http or https URL that can be asked for
    FetchError : no connection, no whole answer in time, too long, not HTTP, a redirect
    """
    parts = checked(url)
    context = tls_for(url, tls)
    port = parts.port or (443 if context else 80)
    place = f"{parts.scheme}://{parts.hostname}:{port}{parts.path}"
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=context, limit=MOST_HEAD)
            try:
                writer.write(_request(parts))
                return await _answer(reader, place, most_bytes)
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except TimeoutError as why:
        raise FetchError(f"{place}: no whole answer within {timeout_s:g} s") from why
    except FetchError:
        raise
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as why:
        raise FetchError(f"{place}: {why}") from why


def checked(url: str) -> SplitResult:
    """The parts of a URL that can be asked for; UsageError for any other."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.username or parts.password or not url.isascii() or not url.isprintable() or " " in url:
        raise UsageError(f"{url[:80]!r} cannot be asked for: http(s)://HOST[:PORT]/PATH, without a user, in ASCII")
    return parts


def _request(parts: SplitResult) -> bytes:
    host = parts.netloc
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    head = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {AGENT}\r\nAccept: application/json\r\n"
    return (head + "Accept-Encoding: identity\r\nConnection: close\r\n\r\n").encode("ascii")


async def _answer(reader: asyncio.StreamReader, place: str, most: int) -> Answer:
    status, headers = _head(await reader.readuntil(b"\r\n\r\n"), place)
    while 100 <= status < 200:
        status, headers = _head(await reader.readuntil(b"\r\n\r\n"), place)
    if 300 <= status < 400:
        raise FetchError(f"{place}: status {status}, redirects are not followed")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise FetchError(f"{place}: the answer is compressed, which was not asked for")
    coding = headers.get("transfer-encoding", "").lower()
    if status in (204, 304):
        return Answer(status, headers, b"")
    if coding == "chunked":
        return Answer(status, headers, await _chunked(reader, place, most))
    if coding:
        raise FetchError(f"{place}: transfer coding {coding[:40]!r}")
    return Answer(status, headers, await _sized(reader, headers, place, most))


def _head(data: bytes, place: str) -> tuple[int, dict[str, str]]:
    first, *lines = data[:-4].decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1.") or not rest[:3].isdigit() or len(rest[:3]) < 3:
        raise FetchError(f"{place}: no HTTP/1.1 answer: {first[:40]!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or name != name.strip():
            raise FetchError(f"{place}: a header that cannot be read: {line[:40]!r}")
        headers[name.lower()] = value.strip()
    return int(rest[:3]), headers


async def _sized(reader: asyncio.StreamReader, headers: dict[str, str], place: str, most: int) -> bytes:
    """A body of a length that is told, or one that the end of the connection ends."""
    told = headers.get("content-length")
    if told is not None and not (told.isascii() and told.isdigit()):
        raise FetchError(f"{place}: a length of {told[:40]!r}")
    if told is not None and int(told) > most:
        raise FetchError(f"{place}: {told} bytes, more than {most}")
    if told is not None:
        return await reader.readexactly(int(told))
    out = bytearray()
    while piece := await reader.read(PIECE):
        out += piece
        if len(out) > most:
            raise FetchError(f"{place}: more than {most} bytes")
    return bytes(out)


async def _chunked(reader: asyncio.StreamReader, place: str, most: int) -> bytes:
    out = bytearray()
    while True:
        line = (await reader.readuntil(b"\r\n")).partition(b";")[0].strip()
        if not line or len(line) > 16 or line.strip(b"0123456789abcdefABCDEF"):
            raise FetchError(f"{place}: a chunk size of {line[:40]!r}")
        size = int(line, 16)
        if size == 0:
            break
        if len(out) + size > most:
            raise FetchError(f"{place}: more than {most} bytes")
        out += await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise FetchError(f"{place}: a chunk without its end")
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass  # trailers; the time limit of the request bounds them
    return bytes(out)
