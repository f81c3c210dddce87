"""Parquet files that appear whole or not at all: written as `<name>.partial`, renamed when the footer is on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from microrisk.errors import OutputError

ROW_GROUP = 1 << 18
"""Rows gathered before a row group is written: the memory a sink holds."""


class ParquetSink:
    """One Parquet file (zstd), written in row groups of at most about ROW_GROUP rows.

    Used as a context manager: a clean exit finishes and renames, an exception leaves `<name>.partial` behind.
    Every failure of the file system becomes an OutputError that names the file.
    """

    def __init__(self, path: str | Path, schema: pa.Schema, *, row_group: int = ROW_GROUP) -> None:
        self.path, self.schema, self.rows = Path(path), schema, 0
        self.partial = self.path.with_name(self.path.name + ".partial")
        self._row_group = row_group
        self._held: list[pa.Table] = []
        self._held_rows = 0
        try:
            self._file = self.partial.open("wb")
            self._writer = pq.ParquetWriter(self._file, schema, compression="zstd")
        except OSError as error:
            raise self._failure(error) from error

    def write(self, table: pa.Table) -> None:
        """Append rows; `table` has the schema's columns in its order."""
        if table.num_rows == 0:
            return
        self._held.append(table)
        self._held_rows += table.num_rows
        self.rows += table.num_rows
        if self._held_rows >= self._row_group:
            self._flush()

    def _flush(self) -> None:
        if not self._held:
            return
        whole = pa.concat_tables(self._held).unify_dictionaries()
        self._held, self._held_rows = [], 0
        try:
            self._writer.write_table(whole, row_group_size=self._row_group)
        except OSError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Write what is held and the footer, then give the file its name."""
        self._flush()
        try:
            self._writer.close()
            self._file.close()
            self.partial.replace(self.path)
        except OSError as error:
            raise self._failure(error) from error

    def abandon(self) -> None:
        """Leave the partial file where it is, with a footer when the disk still takes one; nothing if it has no row."""
        with contextlib.suppress(OSError):
            self._flush()
            self._writer.close()
        with contextlib.suppress(OSError):
            self._file.close()
            if self.rows == 0:
                self.partial.unlink()

    def _failure(self, error: OSError) -> OutputError:
        reason = error.strerror or str(error)
        return OutputError(f"cannot write {self.path}: {reason}; {self.rows} rows were handed over, see {self.partial}")

    def __enter__(self) -> ParquetSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file to write that gets the name `path` when the block ends well; else `<name>.partial` stays.

    Failures of the file system become an OutputError that names the file.
    """
    target = Path(path)
    partial = target.with_name(target.name + ".partial")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}; see {partial}") from error
