"""A file server on the loopback interface that misbehaves on command."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


@dataclass
class Site:
    """Files by path, and what the server does wrong.

    Attributes
    ----------
    files : path -> body
    etags : path -> ETag; the body's md5 unless given; None = no ETag
    ranges : answers ranges
    cuts : connections that end after so many bytes of the body, one after another
    refusals : (status, Retry-After) answered first, one after another
    range_shift : a 206 begins so many bytes off
    length_shift : added to Content-Length
    redirects : path -> Location
    stall : seconds of silence after the first half of the body
    log : (path, Range header, status)
    """

    files: dict[str, bytes] = field(default_factory=dict)
    etags: dict[str, str | None] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    refusals: list[tuple[int, str | None]] = field(default_factory=list)
    range_shift: int = 0
    length_shift: int = 0
    no_length: bool = False
    redirects: dict[str, str] = field(default_factory=dict)
    stall: float = 0.0
    on_request: Callable[[str], None] | None = None
    log: list[tuple[str, str | None, int]] = field(default_factory=list)
    url: str = ""

    def etag(self, path: str) -> str | None:
        if path in self.etags:
            return self.etags[path]
        return f'"{hashlib.md5(self.files[path]).hexdigest()}"'

    def asked(self, path: str) -> list[tuple[str | None, int]]:
        return [(rng, status) for p, rng, status in self.log if p == path]


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def log_message(self, *_: object) -> None:
        pass

    def _status(self, status: int, **headers: str) -> None:
        self.site.log.append((self._path, self.headers.get("Range"), status))
        self.send_response(status)
        for name, value in {**headers, **self.site.headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def do_GET(self) -> None:
        site = self.site
        self._path = path = unquote(self.path)
        if path.startswith("http://"):  # asked as a proxy
            self._path = path = "/" + path.split("/", 3)[3]
        if site.on_request:
            site.on_request(path)
        if site.refusals:
            status, wait = site.refusals.pop(0)
            return self._status(status, **({"Retry_After": wait} if wait else {}), Content_Length="0")
        if path in site.redirects:
            return self._status(302, Location=site.redirects[path], Content_Length="0")
        if path not in site.files:
            return self._status(404, Content_Length="0")
        self._serve(site, path, site.files[path])
        return None

    def _serve(self, site: Site, path: str, body: bytes) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if site.ranges else None
        fresh = self.headers.get("If-Range") in (None, site.etag(path))
        tag = {} if site.etag(path) is None else {"ETag": str(site.etag(path))}
        start = int(asked[1]) if asked and fresh else 0
        if start >= len(body) and start:
            return self._status(416, Content_Range=f"bytes */{len(body)}", Content_Length="0")
        rest = body[start:]
        length = {} if site.no_length else {"Content_Length": str(len(rest) + site.length_shift)}
        if asked and fresh:
            at = start + site.range_shift
            self._status(206, Content_Range=f"bytes {at}-{len(body) - 1}/{len(body)}", **length, **tag)
        else:
            self._status(200, **length, **tag)
        with contextlib.suppress(OSError):
            self._body(site, rest)
        self.close_connection = True
        return None

    def _body(self, site: Site, rest: bytes) -> None:
        if site.cuts:
            self.wfile.write(rest[: site.cuts.pop(0)])
        elif site.stall:
            self.wfile.write(rest[: len(rest) // 2])
            self.wfile.flush()
            time.sleep(site.stall)
        else:
            self.wfile.write(rest)


@contextlib.contextmanager
def serving(site: Site) -> Iterator[Site]:
    handler = type("Handler", (_Handler,), {"site": site})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
