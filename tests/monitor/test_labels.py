"""What people say about alerts survives disks that are full for a while and processes that are killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from microrisk.errors import OutputError
from microrisk.monitor.labels import Labels
from tests.monitor.test_journal_blocks import largest_file


def test_a_label_that_did_not_fit_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    labels = Labels(path)
    labels.put("a", True, "x")
    whole = path.read_bytes()
    with largest_file(len(whole) + 10), pytest.raises(OutputError, match="cannot write"):
        labels.put("b", True, "x")
    assert path.read_bytes() == whole
    assert labels.all() == {"a": True}
    labels.put("c", False, "x")
    again = Labels(path)
    assert (again.all(), again.unreadable) == ({"a": True, "c": False}, 0)


@pytest.mark.parametrize("torn", [b"", b'{"id": "b", "va', b"x" * 9000])
def test_a_torn_line_does_not_spoil_the_next(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "labels.jsonl"
    Labels(path).put("a", True, "x")
    path.write_bytes(path.read_bytes() + torn)
    labels = Labels(path)
    labels.put("c", True, "x")
    assert Labels(path).all() == {"a": True, "c": True}
    assert Labels(path).unreadable == 0
