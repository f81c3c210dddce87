"""Where passwords come from, and that they are not shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from microrisk.errors import UsageError
from microrisk.monitor.sources.secret import Secret, secret


def test_from_the_environment_or_a_file_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_PASSWORD", "from env")
    assert secret(env="A_PASSWORD").reveal() == "from env"
    path = tmp_path / "pw"
    path.write_text("from file\nanother line\n")
    path.chmod(0o600)
    assert secret(file=str(path)).reveal() == "from file"
    assert not secret()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "pw"
    path.write_text("hidden")
    path.chmod(mode)
    with pytest.raises(UsageError, match="chmod 600") as caught:
        secret(file=str(path))
    assert "hidden" not in str(caught.value)


def test_what_cannot_be_meant(tmp_path: Path) -> None:
    os.environ.pop("NOT_SET", None)
    with pytest.raises(UsageError, match="NOT_SET"):
        secret(env="NOT_SET")
    with pytest.raises(UsageError, match="both"):
        secret(env="A", file="b")
    with pytest.raises(UsageError, match="cannot read"):
        secret(file=str(tmp_path / "missing"))


def test_a_secret_does_not_show_itself() -> None:
    assert "swordfish" not in f"{Secret('swordfish')!r} {Secret('swordfish')} {[Secret('swordfish')]}"
