"""Parquet files that appear whole or not at all: written as `<name>.partial`, renamed when the footer is on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import pyarrow as pa

from microrisk.errors import OutputError

ROW_GROUP = 1 << 18
"""Rows gathered before a row group is written: the memory a sink holds."""


class Output:
    """A file that is written under `<name>.partial` and named when it is complete; base of the Parquet writers.

    Used as a context manager: a clean exit finishes and renames, an exception leaves `<name>.partial` behind.
    Every failure of the file system becomes an OutputError that names the file. A subclass gives `_finish`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path, self.rows = Path(path), 0
        self.partial = self.path.with_name(self.path.name + ".partial")
        with self._guarded():
            self._file = self.partial.open("wb")

    def _finish(self) -> None:
        """Write what is held and the footer."""
        raise NotImplementedError

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Write what is held and the footer, then give the file its name."""
        self._finish()
        with self._guarded():
            self._file.close()
            self.partial.replace(self.path)

    def abandon(self) -> None:
        """Leave the partial file where it is, with a footer when the disk still takes one; nothing if it has no row."""
        with contextlib.suppress(OSError):
            self._finish()
        with contextlib.suppress(OSError):
            self._file.close()
            if self.rows == 0:
                self.partial.unlink()

    def _failure(self, error: OSError) -> OutputError:
        reason = error.strerror or str(error)
        return OutputError(f"cannot write {self.path}: {reason}; {self.rows} rows were handed over, see {self.partial}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


class ParquetSink(Output):
    """One Parquet file (zstd) of Arrow tables, written in row groups of at most about ROW_GROUP rows."""

    def __init__(self, path: str | Path, schema: pa.Schema, *, row_group: int = ROW_GROUP) -> None:
        import pyarrow.parquet as pq

        super().__init__(path)
        self.schema, self._row_group = schema, row_group
        self._held: list[pa.Table] = []
        self._held_rows = 0
        with self._guarded():
            self._writer = pq.ParquetWriter(self._file, schema, compression="zstd")

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
        with self._guarded():
            self._writer.write_table(whole, row_group_size=self._row_group)

    def _finish(self) -> None:
        try:
            self._flush()
        finally:
            with self._guarded():
                self._writer.close()


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
