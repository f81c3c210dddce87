"""The Parquet catalog: `data/<type>/<INSTRUMENT.VENUE>/<start_ns>-<end_ns>.parquet`, the layout other platforms read.

Types are those of a replay's outputs: bbo, trades, events, book, samples. A recording is first written by type, as a
replay does; then each of these files is split. Splitting sorts HELD_ROWS rows at a time by instrument into a spill
file (Arrow, mapped), and at the end collects each instrument out of all of them: neither ten thousand open writers nor
a whole day in memory, whatever the number of instruments.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from microrisk.pipeline.sink import ParquetSink

HELD_ROWS = 1 << 21
"""Rows that are sorted at a time: what splitting holds in memory."""

Part = tuple[int, int, int]
"""Batch of the spill file, first row, rows."""


def split(path: Path, kind: str, root: Path, *, held_rows: int = HELD_ROWS) -> dict[str, int]:
    """Write one type of a recording, a Parquet file with an `instrument` column, into the catalog under `root`.

    Rows of an instrument keep their order. Returns rows by path.
    """
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".spill-", dir=root) as folder:
        spill = Path(folder) / "sorted.arrow"
        parts = _spill(path, spill, held_rows)
        if not parts:
            return {}
        with pa.memory_map(str(spill)) as mapped:
            reader = pa.ipc.open_file(mapped)
            batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
            return dict(_write(name, parts[name], batches, root / "data" / kind) for name in sorted(parts))


def _held(path: Path, held_rows: int) -> Iterator[pa.Table]:
    """The file in tables of about `held_rows` rows."""
    file, tables, rows = pq.ParquetFile(path), [], 0
    for i in range(file.num_row_groups):
        tables.append(file.read_row_group(i))
        rows += tables[-1].num_rows
        if rows >= held_rows:
            yield pa.concat_tables(tables)
            tables, rows = [], 0
    if tables:
        yield pa.concat_tables(tables)


def _spill(path: Path, spill: Path, held_rows: int) -> dict[str, list[Part]]:
    """The rows sorted by instrument, batch by batch; where each instrument lies in them."""
    parts: dict[str, list[Part]] = defaultdict(list)
    writer: pa.RecordBatchFileWriter | None = None
    for number, table in enumerate(_held(path, held_rows)):
        column = table["instrument"].unify_dictionaries().combine_chunks()
        codes = np.asarray(column.indices)
        order = np.argsort(codes, kind="stable")
        rest = table.drop_columns("instrument").unify_dictionaries().take(order).combine_chunks()
        writer = writer or pa.ipc.new_file(str(spill), rest.schema)
        writer.write_batch(rest.to_batches()[0])
        starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
            name = column.dictionary[int(codes[order[start]])].as_py()
            parts[name].append((number, int(start), int(end - start)))
    if writer is not None:
        writer.close()
    return parts


def _write(name: str, parts: list[Part], batches: list[pa.RecordBatch], folder: Path) -> tuple[str, int]:
    """One instrument's file, under its name and span of time."""
    tables = [pa.Table.from_batches([batches[n].slice(start, rows)]) for n, start, rows in parts]
    spans = [pc.min_max(t["ts_event"]).as_py() for t in tables]
    least = min((s["min"] for s in spans if s["min"] is not None), default=0)
    most = max((s["max"] for s in spans if s["max"] is not None), default=0)
    home = folder / name.replace("/", "-")
    home.mkdir(parents=True, exist_ok=True)
    path = home / f"{least}-{most}.parquet"
    tables = [_named(t, name) for t in tables]
    with ParquetSink(path, tables[0].schema) as sink:
        for table in tables:
            sink.write(table)
    return str(path), sink.rows


def _named(table: pa.Table, name: str) -> pa.Table:
    """With the instrument's column behind `seq`, where it belongs."""
    place = table.schema.get_field_index("seq") + 1
    zeros = pa.array(np.zeros(table.num_rows, np.int32))
    return table.add_column(place, "instrument", pa.DictionaryArray.from_arrays(zeros, pa.array([name])))
