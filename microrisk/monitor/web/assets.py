"""The page's files, held in memory: a fixed table of addresses, so that no request reaches the file system.

uPlot is not part of the source tree: `vendor` fetches it when a wheel is built. Where it is missing, its two addresses
answer with empty files and the page draws its charts itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from microrisk.monitor.web.auth import refused

STATIC = Path(__file__).parent / "static"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
UPLOT = ("uPlot.iife.min.js", "uPlot.min.css")
LICENCES = ("THIRD_PARTY_NOTICES.txt",)


class Asset(NamedTuple):
    """One file."""

    body: bytes
    media_type: str
    etag: str


def vendor_folders() -> list[Path]:
    """Where fetched files may lie: in this package, or beside the compiled extension (editable installs)."""
    folders = [STATIC / "vendor"]
    try:
        from microrisk import _core
    except ImportError:
        return folders
    beside = Path(_core.__file__).parent / "monitor" / "web" / "static" / "vendor"
    return list(dict.fromkeys([*folders, beside]))


class Assets:
    """All files by the path below /static/."""

    def __init__(self, folders: list[Path] | None = None) -> None:
        self._files = {path.name: asset(path) for path in _own()}
        for name in UPLOT:
            self._files[f"vendor/{name}"] = Asset(b"/* not installed */\n", TYPES[Path(name).suffix], '"none"')
        for folder in reversed(vendor_folders() if folders is None else folders):
            for name in (*UPLOT, *LICENCES):
                if (folder / name).is_file():
                    self._files[f"vendor/{name}"] = asset(folder / name)
        self.uplot = all(self._files[f"vendor/{name}"].etag != '"none"' for name in UPLOT)

    async def page(self, request: Request) -> Response:
        """The one page."""
        return self._respond(request, "index.html")

    async def favicon(self, request: Request) -> Response:
        """For browsers that ask without being told."""
        return self._respond(request, "favicon.svg")

    async def file(self, request: Request) -> Response:
        """A file of the page."""
        return self._respond(request, request.path_params["path"])

    def _respond(self, request: Request, name: str) -> Response:
        found = self._files.get(name)
        if found is None:
            return refused(404, "no such file")
        headers = {"etag": found.etag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == found.etag:
            return Response(status_code=304, headers=headers)
        return Response(found.body, media_type=found.media_type, headers=headers)


def asset(path: Path) -> Asset:
    """Read a file."""
    body = path.read_bytes()
    return Asset(body, TYPES[path.suffix], f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"')


def _own() -> Iterator[Path]:
    return (p for p in STATIC.iterdir() if p.suffix in TYPES)
