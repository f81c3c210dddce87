"""The Parquet catalog: `data/<type>/<INSTRUMENT.VENUE>/<start_ns>-<end_ns>.parquet`, the layout other platforms read.

Types are bbo, trades and events. Rows of an instrument are gathered and written as whole files, each covering its own
stretch of time, so that a whole day of every instrument needs neither many open files nor much memory.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from microrisk.pipeline.sink import ParquetSink
from microrisk.pipeline.tables import BBO_SCHEMA, STAMPS, Names, bbo_table, stamps
from microrisk.spec.records import Action, Flag
from microrisk.spec.units import NULL_PX

HELD_ROWS = 1 << 21
"""Rows gathered over all instruments before the longest holding is written out."""
LABEL = pa.dictionary(pa.int8(), pa.string())

TRADES_SCHEMA = pa.schema(
    [*STAMPS, ("px", pa.int64()), ("qty", pa.int64()), ("aggressor", LABEL), ("hidden", pa.bool_())]
)
EVENTS_SCHEMA = pa.schema(
    [
        *STAMPS,
        ("action", LABEL),
        ("side", LABEL),
        ("px", pa.int64()),
        ("qty", pa.int64()),
        ("order_id", pa.uint64()),
        ("ref", pa.uint64()),
        ("flags", pa.uint8()),
    ]
)
SCHEMAS = {"bbo": BBO_SCHEMA, "trades": TRADES_SCHEMA, "events": EVENTS_SCHEMA}


class Catalog:
    """Gathers tables by type and instrument and writes them under `root`; `files` is path -> rows."""

    def __init__(self, root: str | Path, *, held_rows: int = HELD_ROWS) -> None:
        self.root, self.files = Path(root), dict[str, int]()
        self._limit = held_rows
        self._held: dict[tuple[str, str], list[pa.Table]] = defaultdict(list)
        self._rows: dict[tuple[str, str], int] = defaultdict(int)

    def add(self, kind: str, table: pa.Table) -> None:
        """Take rows of one type, any instruments, in the order of the recording."""
        if table.num_rows == 0:
            return
        column = table["instrument"].combine_chunks()
        codes = np.asarray(column.indices)
        for code in np.unique(codes):
            key = (kind, column.dictionary[int(code)].as_py())
            part = table.filter(pa.array(codes == code))
            self._held[key].append(part)
            self._rows[key] += part.num_rows
        while sum(self._rows.values()) > self._limit:
            self._write(max(self._rows, key=self._rows.__getitem__), keep_tail=True)

    def close(self) -> None:
        """Write everything that is still held."""
        for key in sorted(self._held):
            self._write(key, keep_tail=False)

    def _write(self, key: tuple[str, str], *, keep_tail: bool) -> None:
        """One file of what is held for `key`; rows of the last instant wait, so that files never share an instant."""
        whole = pa.concat_tables(self._held.pop(key)).unify_dictionaries()
        del self._rows[key]
        last = pc.max(whole["ts_event"])
        if keep_tail and pc.min(whole["ts_event"]) != last:
            late = pc.equal(whole["ts_event"], last)
            self._held[key].append(whole.filter(late))
            self._rows[key] = self._held[key][0].num_rows
            whole = whole.filter(pc.invert(late))
        if whole.num_rows == 0:
            return
        span = pc.min_max(whole["ts_event"]).as_py()
        folder = self.root / "data" / key[0] / key[1].replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{span['min']}-{span['max']}.parquet"
        with ParquetSink(path, SCHEMAS[key[0]]) as sink:
            sink.write(whole)
        self.files[str(path)] = whole.num_rows


def bbo_rows(rows: NDArray[Any], names: Names) -> pa.Table:
    """BBO records to the bbo type: the columns of --bbo."""
    return bbo_table(rows, names)[0]


def trade_rows(views: NDArray[Any], names: Names) -> pa.Table:
    """VIEW records to the trades type: one row an event that traded, price of its last trade, aggressor B or A."""
    rows = views[(views["trade_qty"] > 0) & (views["tick"] == 0)]
    columns, places = stamps(rows, names)
    px, null, _ = names.nano(np.ascontiguousarray(rows["px"]), places)
    aggressor = (-rows["side"]).astype(np.int8)
    rest = [
        pa.array(px, mask=null),
        pa.array(np.ascontiguousarray(rows["trade_qty"])),
        _sides(aggressor),
        pa.array((rows["flags"] & int(Flag.HIDDEN)) != 0),
    ]
    return pa.Table.from_arrays(columns + rest, schema=TRADES_SCHEMA)


def event_rows(events: NDArray[Any], names: Names) -> pa.Table:
    """EVENT records to the events type; a price that the message does not carry is null."""
    columns, places = stamps(events, names)
    raw = np.ascontiguousarray(events["px"])
    priced = np.isin(events["action"], [int(a) for a in (Action.ADD, Action.MODIFY, Action.REPLACE, Action.TRADE)])
    px, null, _ = names.nano(np.where(priced | (raw != 0), raw, NULL_PX), places)
    actions = pa.array([a.name for a in Action], pa.string())
    rest = [
        pa.DictionaryArray.from_arrays(pa.array(events["action"].astype(np.int8)), actions),
        _sides(events["side"]),
        pa.array(px, mask=null),
        *(pa.array(np.ascontiguousarray(events[name])) for name in ("qty", "order_id", "ref", "flags")),
    ]
    return pa.Table.from_arrays(columns + rest, schema=EVENTS_SCHEMA)


def _sides(side: NDArray[np.int8]) -> pa.Array:
    """B, A or N of Side values."""
    return pa.DictionaryArray.from_arrays(pa.array((side + 1).astype(np.int8)), pa.array(["A", "N", "B"], pa.string()))
