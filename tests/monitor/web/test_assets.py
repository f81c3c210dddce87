"""The page's files: no network, no inline code, licences with what is not ours; the hardware summary is current."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path

import msgspec
import pytest

from microrisk.monitor.web import hardware, vendor
from microrisk.monitor.web.assets import STATIC, UPLOT, Assets
from tests.monitor.web.conftest import Running

OWN = sorted(p for p in STATIC.iterdir() if p.suffix in (".html", ".js", ".css"))


@pytest.mark.parametrize("path", OWN, ids=lambda p: p.name)
def test_no_file_names_another_place(path: Path) -> None:
    assert re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z]", path.read_text()) == []


@pytest.mark.parametrize("path", OWN, ids=lambda p: p.name)
def test_no_markup_from_strings_and_no_evaluation(path: Path) -> None:
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|javascript:"
    assert re.findall(forbidden, path.read_text()) == []


def test_the_page_has_nothing_inline() -> None:
    html = (STATIC / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", html) == []
    for address in re.findall(r'(?:src|href)="([^"#]+)"', html):
        assert address.startswith("/static/")


def test_every_import_is_served(running: Running) -> None:
    for path in OWN:
        for name in re.findall(r'from "\./([a-z_]+\.js)"', path.read_text()):
            response = running.get(f"/static/{name}")
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/javascript")
    assert running.get("/favicon.ico").headers["content-type"] == "image/svg+xml"


def test_a_file_is_sent_once(running: Running) -> None:
    first = running.get("/static/main.js")
    again = running.get("/static/main.js", headers={"if-none-match": first.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""
    assert first.headers["cache-control"] == "no-cache"


def test_without_uplot_its_addresses_answer(tmp_path: Path) -> None:
    assets = Assets([tmp_path])
    assert not assets.uplot
    assert {f"vendor/{n}" for n in UPLOT} <= set(assets._files)


def test_vendor_takes_only_the_pinned_tarball(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in (*vendor.FILES, "package/LICENSE"):
            info = tarfile.TarInfo(name)
            info.size = len(name)
            archive.addfile(info, io.BytesIO(name.encode()))
    with pytest.raises(ValueError, match=r"sha512 is .*, expected KIMVnG68"):
        vendor.extract(buffer.getvalue())


def test_vendor_writes_files_with_their_licence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in (*vendor.FILES, "package/LICENSE", "package/../../evil"):
            info = tarfile.TarInfo(name)
            info.size = len(name)
            archive.addfile(info, io.BytesIO(name.encode()))
    import base64
    import hashlib

    pin = base64.b64encode(hashlib.sha512(buffer.getvalue()).digest()).decode()
    monkeypatch.setattr(vendor, "extract", lambda data, _real=vendor.extract: _real(data, pin))
    vendor.install(tmp_path / "vendor", buffer.getvalue())
    assert sorted(p.name for p in (tmp_path / "vendor").iterdir()) == sorted([*UPLOT, vendor.NOTICES])
    assert vendor.complete(tmp_path / "vendor")
    assert "package/LICENSE" in (tmp_path / "vendor" / vendor.NOTICES).read_text()
    assert Assets([tmp_path / "vendor"]).uplot


def test_vendor_never_fails_a_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> bytes:
        raise OSError("no network")

    monkeypatch.setattr(vendor, "fetch", refuse)
    assert vendor.main([str(tmp_path / "vendor")]) == 0
    assert "the page will draw its charts itself: no network" in capfd.readouterr().err
    assert not vendor.complete(tmp_path / "vendor")


def test_the_hardware_summary_is_that_of_the_reports(tmp_path: Path) -> None:
    found = hardware.load()
    assert found["cores"][0]["name"] == "maxz"
    assert all(row["differences"] == 0 for row in found["equality"])
    assert msgspec.json.decode(hardware.SUMMARY.read_bytes()) == msgspec.json.decode(msgspec.json.encode(found)), (
        "run python -m microrisk.monitor.web.hardware"
    )
    assert hardware.load(tmp_path) == msgspec.json.decode(hardware.SUMMARY.read_bytes())
