"""The Parquet catalog: `data/<type>/<INSTRUMENT.VENUE>/<start_ns>-<end_ns>.parquet`, the layout other platforms read.

Types are those of a replay's outputs: bbo, trades, events, book, samples. A recording is first written by type, as a
replay does; then each of these files is split. Splitting sorts HELD_ROWS rows at a time by instrument into a spill
file (Arrow, mapped), and at the end collects each instrument out of all of them: neither ten thousand open writers nor
a whole day in memory, whatever the number of instruments.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from microrisk.pipeline.sink import ParquetSink

HELD_ROWS = 1 << 20
"""Rows that are sorted at a time: what splitting holds in memory."""

Part = tuple[int, int, int]
"""Batch of the spill file, first row, rows."""


Writer = Callable[[str, str, Iterable[pa.Table]], tuple[str, int] | None]
"""Writes one type of one instrument out of tables without the column `instrument`; path and rows, None = no file."""


def split(path: Path, kind: str, root: Path, write: Writer, *, held_rows: int = HELD_ROWS) -> dict[str, int]:
    """Hand one type of a recording, a Parquet file with an `instrument` column, to `write`, instrument by instrument.

    Rows of an instrument keep their order. The spill file lies under `root`. Returns rows by path.
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
            done = (write(kind, name, _tables(parts[name], batches)) for name in sorted(parts))
            return dict(entry for entry in done if entry is not None)


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


def _tables(parts: list[Part], batches: list[pa.RecordBatch]) -> list[pa.Table]:
    """One instrument's rows: views of the mapped file."""
    return [pa.Table.from_batches([batches[n].slice(start, rows)]) for n, start, rows in parts]


class CatalogWriter:
    """Files of this program's own catalog, with the columns of a replay's outputs."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __call__(self, kind: str, name: str, tables: Iterable[pa.Table]) -> tuple[str, int]:
        """One file under the instrument's name and span of time."""
        whole = list(tables)
        spans = [pc.min_max(t["ts_event"]).as_py() for t in whole]
        least = min((s["min"] for s in spans if s["min"] is not None), default=0)
        most = max((s["max"] for s in spans if s["max"] is not None), default=0)
        home = self._root / "data" / kind / name.replace("/", "-")
        home.mkdir(parents=True, exist_ok=True)
        path = home / f"{least}-{most}.parquet"
        with ParquetSink(path, _named(whole[0].slice(0, 0), name).schema) as sink:
            for table in whole:
                sink.write(_named(table, name))
        return str(path), sink.rows


def _named(table: pa.Table, name: str) -> pa.Table:
    """With the instrument's column behind `seq`, where it belongs."""
    place = table.schema.get_field_index("seq") + 1
    zeros = pa.array(np.zeros(table.num_rows, np.int32))
    return table.add_column(place, "instrument", pa.DictionaryArray.from_arrays(zeros, pa.array([name])))
