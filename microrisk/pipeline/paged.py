"""Parquet files out of pages that the core has encoded: compression, page headers and the footer.

Why not pyarrow's writer: a row of depth 10 has 44 values, and its path for lists costs 25 to 40 ns for each (levels
from offsets, dictionary hashing of what the core has just had in its hands); the pages of `core.Table` cost a few.
What is made here is plain Parquet (format 2, data page version 1, zstd level 1) that any reader opens.

Source: parquet-format, src/main/thrift/parquet.thrift; the numbers below are its.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from microrisk import __version__
from microrisk.pipeline.sink import ROW_GROUP, Output
from microrisk.pipeline.thrift import I8, I16, I64, struct

MAGIC = b"PAR1"
_BOOLEAN, _INT32, _INT64, _BYTE_ARRAY = 0, 1, 2, 6
_OPTIONAL, _REPEATED = 1, 2
_PLAIN, _RLE, _DICTIONARY = 0, 3, 8
_ZSTD = 6
_UTF8, _LIST, _UINT_8, _UINT_64 = 0, 3, 11, 14
_DATA_PAGE, _DICTIONARY_PAGE = 0, 2


class PageTable(Protocol):
    """`core.Table`, as far as it is used here."""

    @property
    def rows(self) -> int:
        """Rows of the row group in the making."""

    def drain(self, engine: Any) -> list[int]:
        """Take what the engine recorded; instrument numbers that have no name yet."""

    def end_pages(self) -> None:
        """Put the rest of the row group into pages."""

    def pages(self) -> list[tuple[int, int, int, bytes]]:
        """Finished pages: column, encoding, values, body."""

    def end_group(self, is_unsigned: list[bool]) -> list[tuple[bytes, int, int | None, int | None, int]]:
        """Of each column: dictionary, its entries, smallest and largest value, nulls."""


@dataclass
class _Chunk:
    """One column of the row group in the making: compressed pages and their sizes."""

    pages: list[bytes] = field(default_factory=list)
    encodings: set[int] = field(default_factory=set)
    values: int = 0
    plain_size: int = 0

    def add(self, header: Mapping[int, Any], body: bytes, codec: pa.Codec) -> None:
        packed = codec.compress(body, asbytes=True)
        head = struct({1: header[1], 2: len(body), 3: len(packed), 5: header.get(5), 7: header.get(7)})
        self.pages.append(head + packed)
        self.plain_size += len(head) + len(body)


class PagedSink(Output):
    """One Parquet file of the rows that an engine records.

    Parameters
    ----------
    path : gets its name when it is complete
    schema : int64, uint64, uint8, bool, string dictionaries and lists of int64; the columns of `table`
    table : encodes the columns
    labels : of each dictionary column, how to get its strings; asked at the end of every row group
    learn : told the numbers of instruments that have no name yet
    row_group : rows of a row group, about
    """

    def __init__(
        self,
        path: str | Path,
        schema: pa.Schema,
        table: PageTable,
        labels: Mapping[str, Callable[[], Sequence[str]]],
        learn: Callable[[list[int]], None],
        *,
        row_group: int = ROW_GROUP,
    ) -> None:
        super().__init__(path)
        self._schema, self._table, self._labels, self._learn = schema, table, labels, learn
        self._row_group = row_group
        self._codec = pa.Codec("zstd", compression_level=1)
        self._groups: list[dict[int, Any]] = []
        self._done = 0
        self._chunks = self._fresh()
        self._unsigned = [pa.types.is_unsigned_integer(f.type) for f in schema]
        with self._guarded():
            self._at = self._file.write(MAGIC)

    def _fresh(self) -> list[_Chunk]:
        return [_Chunk() for _ in self._schema]

    def drain(self, engine: Any) -> None:
        """Take the rows that the engine has recorded since the last time."""
        while unknown := self._table.drain(engine):
            self._learn(unknown)
        self.rows = self._done + self._table.rows
        self._gather()
        if self._table.rows >= self._row_group:
            self._end_group()

    def _gather(self) -> None:
        for column, encoding, values, body in self._table.pages():
            chunk = self._chunks[column]
            header = {1: _DATA_PAGE, 5: {1: values, 2: encoding, 3: _RLE, 4: _RLE}}
            chunk.add(header, body, self._codec)
            chunk.encodings.add(encoding)
            chunk.values += values

    def _end_group(self) -> None:
        rows = self._table.rows
        if rows == 0:
            return
        self._table.end_pages()
        self._gather()
        ends = self._table.end_group(self._unsigned)
        start = self._at
        with self._guarded():
            columns = [self._write_chunk(i, end) for i, end in enumerate(ends)]
        plain = sum(chunk.plain_size for chunk in self._chunks)
        group = {1: columns, 2: I64(plain), 3: I64(rows), 5: I64(start), 6: I64(self._at - start)}
        self._groups.append(group | {7: I16(len(self._groups))})
        self._chunks = self._fresh()
        self._done += rows

    def _write_chunk(self, i: int, end: tuple[bytes, int, int | None, int | None, int]) -> dict[int, Any]:
        """Dictionary and data pages of one column to the file; its entry of the footer."""
        entry, chunk = self._schema.field(i), self._chunks[i]
        dictionary, n, least, most, nulls = end
        if pa.types.is_dictionary(entry.type):
            labels = [label.encode() for label in self._labels[entry.name]()]
            dictionary, n = b"".join(len(b).to_bytes(4, "little") + b for b in labels), len(labels)
        elif entry.type == pa.uint8():
            dictionary = np.frombuffer(dictionary, "<i8").astype("<i4").tobytes()
        start = self._at
        if n and _DICTIONARY in chunk.encodings:
            page = _Chunk()
            page.add({1: _DICTIONARY_PAGE, 7: {1: n, 2: _PLAIN}}, dictionary, self._codec)
            self._at += self._file.write(page.pages[0])
            chunk.plain_size += page.plain_size
        data = self._at
        for packed in chunk.pages:
            self._at += self._file.write(packed)
        meta = {
            1: _physical(entry.type),
            2: sorted({_RLE, *chunk.encodings, *((_PLAIN,) if data > start else ())}),
            3: _leaf_path(entry),
            4: _ZSTD,
            5: I64(chunk.values),
            6: I64(chunk.plain_size),
            7: I64(self._at - start),
            9: I64(data),
            11: I64(start) if data > start else None,
            12: _statistics(entry.type, least, most, nulls),
        }
        return {2: I64(start), 3: meta}

    def _finish(self) -> None:
        self._end_group()
        arrow = base64.b64encode(self._schema.serialize().to_pybytes())
        footer = struct(
            {
                1: 2,
                2: _schema_elements(self._schema),
                3: I64(self._done),
                4: self._groups,
                5: [{1: "ARROW:schema", 2: arrow}],
                6: f"microrisk {__version__}",
                7: [{1: {}} for _ in self._schema],
            }
        )
        with self._guarded():
            self._file.write(footer + len(footer).to_bytes(4, "little") + MAGIC)


def _physical(kind: pa.DataType) -> int:
    if pa.types.is_list(kind):
        return _physical(kind.value_type)
    if pa.types.is_dictionary(kind):
        return _BYTE_ARRAY
    return {pa.int64(): _INT64, pa.uint64(): _INT64, pa.uint8(): _INT32, pa.bool_(): _BOOLEAN}[kind]


def _leaf_path(entry: pa.Field) -> list[str]:
    return [entry.name, "list", "element"] if pa.types.is_list(entry.type) else [entry.name]


def _statistics(kind: pa.DataType, least: int | None, most: int | None, nulls: int) -> dict[int, Any]:
    """Range of an integer column; of others only the nulls."""
    if least is None or most is None or _physical(kind) not in (_INT32, _INT64):
        return {3: I64(nulls)}
    size = 4 if _physical(kind) == _INT32 else 8
    low, high = (v.to_bytes(size, "little", signed=v < 0) for v in (least, most))
    return {3: I64(nulls), 5: high, 6: low}


def _leaf(name: str, kind: pa.DataType) -> dict[int, Any]:
    element: dict[int, Any] = {1: _physical(kind), 3: _OPTIONAL, 4: name}
    if pa.types.is_dictionary(kind):
        return element | {6: _UTF8, 10: {1: {}}}
    if kind in (pa.uint8(), pa.uint64()):
        bits = kind.bit_width
        return element | {6: _UINT_8 if bits == 8 else _UINT_64, 10: {10: {1: I8(bits), 2: False}}}
    return element


def _schema_elements(schema: pa.Schema) -> list[dict[int, Any]]:
    """The tree of the schema, depth first."""
    out: list[dict[int, Any]] = [{4: "schema", 5: len(schema)}]
    for entry in schema:
        if pa.types.is_list(entry.type):
            out.append({3: _OPTIONAL, 4: entry.name, 5: 1, 6: _LIST, 10: {3: {}}})
            out += [{3: _REPEATED, 4: "list", 5: 1}, _leaf("element", entry.type.value_type)]
        else:
            out.append(_leaf(entry.name, entry.type))
    return out
