"""Files appear whole or not at all."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from microrisk.errors import MicroriskError, OutputError
from microrisk.pipeline.sink import ParquetSink, replacing

SCHEMA = pa.schema([("x", pa.int64())])


def rows(start: int, n: int) -> pa.Table:
    return pa.table({"x": pa.array(range(start, start + n), pa.int64())})


def test_row_groups_bound_what_is_held(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with ParquetSink(path, SCHEMA, row_group=100) as sink:
        for k in range(10):
            sink.write(rows(k * 50, 50))
        assert not path.exists()
    file = pq.ParquetFile(path)
    assert file.metadata.num_row_groups == 5
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    assert file.read()["x"].to_pylist() == list(range(500))
    assert [p.name for p in tmp_path.iterdir()] == ["a.parquet"]


def test_an_empty_output_is_a_readable_file(tmp_path: Path) -> None:
    with ParquetSink(tmp_path / "a", SCHEMA):
        pass
    assert pq.read_table(tmp_path / "a").num_rows == 0


def test_an_exception_keeps_the_old_file_and_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_text("old")

    def interrupted() -> None:
        with ParquetSink(path, SCHEMA) as sink:
            sink.write(rows(0, 7))
            raise KeyError("broke")

    with pytest.raises(KeyError):
        interrupted()
    assert path.read_text() == "old"
    assert pq.read_table(tmp_path / "a.parquet.partial").num_rows == 7


def test_nothing_is_left_of_a_run_without_rows(tmp_path: Path) -> None:
    def interrupted() -> None:
        with ParquetSink(tmp_path / "a", SCHEMA):
            raise KeyError("broke")

    with pytest.raises(KeyError):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("open_it", [lambda p: ParquetSink(p, SCHEMA), lambda p: replacing(p).__enter__()])
def test_a_folder_that_is_not_there(tmp_path: Path, open_it: object) -> None:
    with pytest.raises(OutputError, match="no_folder/a: No such file") as caught:
        open_it(tmp_path / "no_folder" / "a")  # type: ignore[operator]
    assert isinstance(caught.value, MicroriskError)
    assert isinstance(caught.value, OSError)


def test_replacing_is_atomic(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with replacing(path) as file:
        file.write(b"x")
        assert not path.exists()
    assert path.read_bytes() == b"x"


@pytest.mark.skipif(sys.platform != "linux", reason="limits of file size")
def test_a_full_disk_ends_with_3_and_names_the_file(itch: Path, tmp_path: Path) -> None:
    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    out = tmp_path / "bbo.parquet"
    words = [sys.executable, "-B", "-m", "microrisk", "replay", str(itch), "--bbo", str(out), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, preexec_fn=small_files, timeout=60)
    assert done.returncode == 3
    assert f"cannot write {out}: File too large" in done.stderr
    assert '"kind": "OutputError"' in done.stdout
    assert not out.exists()
    assert (tmp_path / "bbo.parquet.partial").exists()
