"""Emission: the same text each time, hashes in it, ports that users connect, and clear refusals."""

# amaranth: UnusedElaboratable=no
from __future__ import annotations

import json
from pathlib import Path

import pytest

from hdl import verilog
from microrisk.score.registry import load_model
from microrisk.weights import FORMAT_HASH


def _emit(out: Path, *more: str) -> int:
    return verilog.main(["default", "--heads", "maxz", "--out", str(out), *more])


def test_the_text_depends_on_the_model_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _emit(tmp_path / "a") == _emit(tmp_path / "b") == 0
    for name in ("microrisk_unrolled.v", "microrisk_unrolled.il", "microrisk_unrolled.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    text = (tmp_path / "a" / "microrisk_unrolled.v").read_text()
    assert f"// format_hash: {FORMAT_HASH}" in text
    assert f"// weights_hash: {load_model('default').heads_hash()}" in text
    assert str(tmp_path) not in text
    assert __file__.rsplit("/", 2)[0] not in text
    facts = json.loads(capsys.readouterr().out.split("}\n")[0] + "}")
    assert facts["latency_cycles"] >= 1


def test_the_interface_is_described(tmp_path: Path) -> None:
    _emit(tmp_path)
    described = json.loads((tmp_path / "microrisk_unrolled.json").read_text())
    assert set(described["interface"]["interface"]["members"]) == {"i", "o"}


def test_other_masks_and_heads_give_other_text(tmp_path: Path) -> None:
    _emit(tmp_path / "a")
    _emit(tmp_path / "b", "--mask", "0000ffff")
    a, b = ((tmp_path / d / "microrisk_unrolled.v").read_text() for d in "ab")
    assert a != b
    assert "// mask: 0000ffff" in b


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no-such-model", "--out", "x"], "no-such-model is no model folder"),
        (["default", "--heads", "nose", "--out", "x"], "no head ['nose']"),
    ],
)
def test_refusals(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verilog.main(arguments) == 2
    assert words in capsys.readouterr().err
