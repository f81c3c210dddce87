"""Fetches uPlot for the page: one npm tarball, pinned by its SHA-512; three files and its licence are taken out of it.

    python microrisk/monitor/web/vendor.py FOLDER

Runs when a wheel is built, before the package exists, so it uses the standard library alone. It never fails a build:
without a network the page draws its charts itself and says so.
"""

from __future__ import annotations

import base64
import hashlib
import io
import sys
import tarfile
import urllib.request
from pathlib import Path

NAME, VERSION, LICENCE = "uPlot", "1.6.32", "MIT"
URL = f"https://registry.npmjs.org/uplot/-/uplot-{VERSION}.tgz"
INTEGRITY = "KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw=="
"""SHA-512 of the tarball in base64, as npm's registry and lock files state it."""
LIMIT_BYTES = 4 << 20
TIMEOUT_S = 20
FILES = {"package/dist/uPlot.iife.min.js": "uPlot.iife.min.js", "package/dist/uPlot.min.css": "uPlot.min.css"}
NOTICES = "THIRD_PARTY_NOTICES.txt"


def fetch(url: str = URL) -> bytes:
    """The tarball; OSError when it cannot be had."""
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
        data: bytes = answer.read(LIMIT_BYTES + 1)
    return data


def extract(tarball: bytes, integrity: str = INTEGRITY) -> dict[str, bytes]:
    """Files by name, notices included; ValueError for a tarball that is not the pinned one."""
    found = base64.b64encode(hashlib.sha512(tarball).digest()).decode()
    if found != integrity:
        raise ValueError(f"{NAME} {VERSION}: sha512 is {found}, expected {integrity}")
    with tarfile.open(fileobj=io.BytesIO(tarball)) as archive:
        out = {name: _member(archive, path) for path, name in FILES.items()}
        licence = _member(archive, "package/LICENSE").decode()
    out[NOTICES] = f"{NAME} {VERSION} ({LICENCE}), files {', '.join(FILES.values())}\n\n{licence}".encode()
    return out


def install(folder: Path, tarball: bytes) -> None:
    """Write the files; the notices come last and say that all are there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in extract(tarball).items():
        (folder / name).write_bytes(body)


def complete(folder: Path) -> bool:
    """Whether this version lies there already."""
    notices = folder / NOTICES
    return notices.is_file() and notices.read_text().startswith(f"{NAME} {VERSION} ")


def main(arguments: list[str]) -> int:
    """Always 0: the page works without."""
    folder = Path(arguments[0])
    if complete(folder):
        return 0
    try:
        install(folder, fetch())
        sys.stderr.write(f"{NAME} {VERSION} is in {folder}\n")
    except (OSError, ValueError, KeyError, tarfile.TarError) as error:
        sys.stderr.write(f"{NAME} was not fetched, the page will draw its charts itself: {error}\n")
    return 0


def _member(archive: tarfile.TarFile, path: str) -> bytes:
    member = archive.extractfile(path)
    if member is None:
        raise ValueError(f"{path} is no file")
    return member.read()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
