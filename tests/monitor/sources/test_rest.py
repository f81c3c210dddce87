"""The HTTP client against answers written byte by byte."""

from __future__ import annotations

import asyncio
import email.utils
import ssl
import subprocess
import time
from pathlib import Path

import pytest
from source_sink import run, serving

from microrisk.errors import FetchError, UsageError
from microrisk.monitor.sources import rest
from microrisk.monitor.sources.rest import Answer, retry_after_s, tls_for

OK = b"HTTP/1.1 200 OK\r\n"


async def asked(
    answer: bytes, *, linger_s: float = 0.0, most: int = 1000, timeout_s: float = 2.0, path: str = "/a/b?c=1"
) -> tuple[Answer, bytes]:
    """The answer as understood, and the request as sent."""
    heard = bytearray()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.readuntil(b"\r\n\r\n"))
        for at in range(0, len(answer), max(7, len(answer) // 50)):
            writer.write(answer[at : at + max(7, len(answer) // 50)])
            await writer.drain()
        await asyncio.sleep(linger_s)

    async with serving(client) as (_, port):
        got = await rest.get(f"http://127.0.0.1:{port}{path}", timeout_s=timeout_s, most_bytes=most)
        return got, bytes(heard).replace(str(port).encode(), b"PORT")


def test_the_request_is_plain() -> None:
    _, heard = run(asked(OK + b"Content-Length: 0\r\n\r\n"))
    first, *headers = heard.decode().split("\r\n")
    assert first == "GET /a/b?c=1 HTTP/1.1"
    assert {"Host: 127.0.0.1:PORT", "Connection: close", "Accept-Encoding: identity"} <= set(headers)


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (OK + b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (OK + b"content-length:5\r\nX-Y: 1\r\n\r\nhello and more", b"hello"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n \r\nA\r\n0123456789\r\n0\r\n\r\n", None),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nTrailer: 1\r\n\r\n", b"hello"),
        (OK + b"\r\nhello", b"hello"),
        (b"HTTP/1.1 103 Early\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 204 None\r\n\r\n", b""),
    ],
)
def test_bodies_of_every_form(answer: bytes, body: bytes | None) -> None:
    got, _ = run(asked(answer))
    assert got.body == (b"hello 0123456789" if body is None else body)


def test_statuses_are_the_callers_business() -> None:
    got, _ = run(asked(b"HTTP/1.1 429 Too Many\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\nno"))
    assert (got.status, got.body, got.retry_after_s) == (429, b"no", 7.0)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (OK + b"Content-Length: 50\r\n\r\nhello", "bytes read"),
        (OK + b"Content-Length: 5000\r\n\r\n", "5000 bytes, more than 1000"),
        (OK + b"Content-Length: -5\r\n\r\n", "a length of"),
        (OK + b"\r\n" + b"x" * 2000, "more than 1000"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nFFFFFF\r\n", "more than 1000"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"258\r\n" + b"x" * 600 + b"\r\n258\r\n", "more than 1000"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "chunk size"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n", "chunk size"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n", "without its end"),
        (OK + b"Transfer-Encoding: gzip\r\n\r\n", "transfer coding"),
        (OK + b"Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx", "compressed"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\n\r\n", "redirects"),
        (b"HTTP/2 200\r\n\r\n", "no HTTP/1.1"),
        (b"SSH-2.0-x\r\n\r\n", "no HTTP/1.1"),
        (OK + b"no colon\r\n\r\n", "header"),
        (OK + b"X: " + b"y" * 70_000 + b"\r\n\r\n", "limit|chunk"),
        (b"", "bytes read"),
    ],
)
def test_no_whole_answer_is_an_error(answer: bytes, why: str) -> None:
    with pytest.raises(FetchError, match=why):
        run(asked(answer))


@pytest.mark.parametrize("answer", [b"", OK, OK + b"Content-Length: 9\r\n\r\nhell", OK + b"\r\nhell"])
def test_a_slow_answer_is_given_up(answer: bytes) -> None:
    with pytest.raises(FetchError, match=r"within 0\.2 s"):
        run(asked(answer, linger_s=5.0, timeout_s=0.2))


def test_nobody_listens() -> None:
    with pytest.raises(FetchError, match=r"127\.0\.0\.1:9"):
        run(rest.get("http://127.0.0.1:9/"))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/",
        "http:///x",
        "http://me:pw@h/",
        "http://h/a b",
        "http://h/\r\nX: y",
        "http://h:0/",
        "http://h:99999/",
        "http://[::1/",
        "http://h/ä",
    ],
)
def test_urls_that_cannot_be_asked_for(url: str) -> None:
    with pytest.raises(UsageError):
        run(rest.get(url))


def test_retry_after_in_both_forms() -> None:
    assert retry_after_s("12") == 12.0
    soon = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert 27.0 <= retry_after_s(soon) <= 31.0
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert retry_after_s("soon") == retry_after_s("") == retry_after_s("-3") == 0.0


def test_certificates_are_verified(tmp_path: Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*make, "-keyout", key, "-out", cert, "-addext", "subjectAltName=DNS:localhost"], check=True,
                   capture_output=True)  # fmt: skip

    async def work() -> bytes:
        async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK + b"Content-Length: 6\r\n\r\nsecret")
            await writer.drain()

        own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        own.load_cert_chain(cert, key)
        async with serving(client, ssl=own) as (_, port):
            url = f"https://localhost:{port}/"
            with pytest.raises(FetchError, match="certificate verify failed"):
                await rest.get(url)
            return (await rest.get(url, tls=ssl.create_default_context(cafile=str(cert)))).body

    assert run(work()) == b"secret"
    assert tls_for("http://h/") is None
    assert tls_for("wss://h/").verify_mode == ssl.CERT_REQUIRED
