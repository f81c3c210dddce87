"""The Parquet catalog of nautilus_trader, by its file format: order book deltas, trade ticks and quote ticks.

Layout of release 1.221 (`data/<type>/<INSTRUMENT.VENUE>/<start>_<end>.parquet`, times of `ts_init` in ISO form with
dashes): prices and sizes are 128-bit integers of 1e-16, little-endian, in FixedSizeBinary(16); the file's metadata
names the instrument and the digits to show. Source: nautilus_trader, persistence/catalog/parquet.py and
crates/serialization/src/arrow/{delta,trade,quote}.rs; the test opens the files with the package itself.

`ts_init` is the core's clock at the event (the largest receive time, else event time, so far): it never goes back, as
their readers demand. Quotes with an empty side do not exist there and are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from microrisk.errors import EncodeError
from microrisk.feed.base import Instrument
from microrisk.pipeline.changes import Changes, Rows
from microrisk.pipeline.sink import Output
from microrisk.pipeline.tables import SIDES
from microrisk.spec.records import Flag
from microrisk.spec.units import NS_PER_S, PX_NANO

FIXED = pa.binary(16)
DIGITS = 16
"""Decimals of a raw price or size."""
_LAST, _SNAPSHOT, _LEVELS = 128, 32, 16
"""RecordFlag: F_LAST, F_SNAPSHOT, F_MBP."""

_TIMES = [("ts_event", pa.uint64()), ("ts_init", pa.uint64())]
_FIELDS = {
    "order_book_delta": [
        ("action", pa.uint8()), ("side", pa.uint8()), ("price", FIXED), ("size", FIXED), ("order_id", pa.uint64()),
        ("flags", pa.uint8()), ("sequence", pa.uint64()), *_TIMES,
    ],
    "trade_tick": [
        ("price", FIXED), ("size", FIXED), ("aggressor_side", pa.uint8()), ("trade_id", pa.string()), *_TIMES,
    ],
    "quote_tick": [("bid_price", FIXED), ("ask_price", FIXED), ("bid_size", FIXED), ("ask_size", FIXED), *_TIMES],
}  # fmt: skip


class NautilusWriter:
    """Turns the tables of one instrument after another into files under `root`.

    Parameters
    ----------
    root : the catalog's folder
    entry : instrument by its id
    """

    def __init__(self, root: Path, entry: Callable[[str], Instrument]) -> None:
        self._root, self._entry = root, entry

    def __call__(self, kind: str, name: str, tables: Iterable[pa.Table]) -> tuple[str, int] | None:
        """Write `events`, `trades` or `bbo` of one instrument; path and rows, None when nothing is left to write."""
        entry = self._entry(name)
        target, convert = {
            "events": ("order_book_delta", self._deltas),
            "trades": ("trade_tick", self._trades),
            "bbo": ("quote_tick", self._quotes),
        }[kind]
        meta = {"instrument_id": name, "price_precision": str(entry.px_exp), "size_precision": str(entry.qty_exp)}
        schema = pa.schema([pa.field(n, t, nullable=False) for n, t in _FIELDS[target]], metadata=meta)
        folder = self._root / "data" / target / name.replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        with _File(folder, schema) as file:
            clock = -(2**63)
            for table in _whole_batches(tables) if kind == "events" else tables:
                arrays, clock = convert(table, entry, clock)
                file.write(pa.Table.from_arrays(arrays, schema=schema))
        return (str(file.path), file.rows) if file.rows else None

    def _deltas(self, table: pa.Table, entry: Instrument, clock: int) -> tuple[list[pa.Array], int]:
        rows = Rows.of(table, entry.id)
        init, clock = _clock(rows.ts_recv, clock)
        c = Changes.of(rows)
        flags = np.where(c.last(rows), _LAST, 0) | np.where(rows.has(Flag.SNAPSHOT)[c.row], _SNAPSHOT, 0)
        flags |= np.where((c.order_id == 0) & (c.side != 0), _LEVELS, 0)
        columns = [
            pa.array(c.kind.astype(np.uint8)),
            pa.array(np.array([2, 0, 1], np.uint8)[c.side + 1]),
            _fixed(pa.array(c.px), PX_NANO, "price", entry),
            _fixed(pa.array(c.qty), entry.qty_exp, "size", entry),
            pa.array(c.order_id),
            pa.array(flags.astype(np.uint8)),
            pa.array(rows.seq[c.row]),
            pa.array(rows.ts_event[c.row].astype(np.uint64)),
            pa.array(init[c.row].astype(np.uint64)),
        ]
        return columns, clock

    def _trades(self, table: pa.Table, entry: Instrument, clock: int) -> tuple[list[pa.Array], int]:
        event, init, clock = _times(table, clock)
        sides = pc.index_in(table["aggressor"].cast(pa.string()), pa.array(SIDES)).combine_chunks()
        columns = [
            _fixed(table["px"], PX_NANO, "price", entry),
            _fixed(table["qty"], entry.qty_exp, "size", entry),
            pa.array(np.array([2, 0, 1], np.uint8)[np.asarray(sides)]),
            # their ids are 1 to 36 characters; a feed without trade ids has its sequence number
            pc.coalesce(table["trade_id"], table["seq"]).cast(pa.string()).combine_chunks(),
            event,
            init,
        ]
        return columns, clock

    def _quotes(self, table: pa.Table, entry: Instrument, clock: int) -> tuple[list[pa.Array], int]:
        table = table.filter(pc.and_(table["bid_px"].is_valid(), table["ask_px"].is_valid()))
        event, init, clock = _times(table, clock)
        prices = [_fixed(table[name], PX_NANO, "price", entry) for name in ("bid_px", "ask_px")]
        sizes = [_fixed(table[name], entry.qty_exp, "size", entry) for name in ("bid_qty", "ask_qty")]
        return [*prices, *sizes, event, init], clock


class _File(Output):
    """One file, named by the first and the last `ts_init` when it is complete; without rows there is none."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        super().__init__(folder / "new.parquet")
        self._folder = folder
        self._span: list[int] = []
        with self._guarded():
            self._writer = pq.ParquetWriter(self._file, schema, compression="zstd")

    def write(self, table: pa.Table) -> None:
        if table.num_rows == 0:
            return
        self.rows += table.num_rows
        self._span = [*self._span[:1], table["ts_init"][0].as_py(), table["ts_init"][-1].as_py()]
        with self._guarded():
            self._writer.write_table(table)

    def _finish(self) -> None:
        with self._guarded():
            self._writer.close()
        if self._span:
            self.path = self._folder / f"{_iso(self._span[0])}_{_iso(self._span[-1])}.parquet"

    def close(self) -> None:
        """Complete the file, or leave nothing when there is no row."""
        if self.rows:
            super().close()
            return
        self.abandon()
        if not any(self._folder.iterdir()):
            self._folder.rmdir()


def _iso(ns: int) -> str:
    """2024-01-02T03-04-05-000000006Z."""
    whole = datetime.fromtimestamp(ns // NS_PER_S, UTC)
    return f"{whole:%Y-%m-%dT%H-%M-%S}-{ns % NS_PER_S:09d}Z"


def _whole_batches(tables: Iterable[pa.Table]) -> Iterable[pa.Table]:
    """The same rows, cut behind events that carry LAST: the last change of a batch is marked."""
    rest: pa.Table | None = None
    for table in tables:
        whole = table if rest is None else pa.concat_tables([rest, table])
        ends = np.flatnonzero(np.asarray(whole["flags"]) & int(Flag.LAST))
        cut = int(ends[-1]) + 1 if len(ends) else 0
        if cut:
            yield whole.slice(0, cut)
        rest = whole.slice(cut)
    if rest is not None and rest.num_rows:
        yield rest


def _clock(times: NDArray[np.int64], clock: int) -> tuple[NDArray[np.int64], int]:
    """The largest time so far at each row, and at the end."""
    out = np.maximum.accumulate(np.maximum(times, clock))
    return out, int(out[-1]) if len(out) else clock


def _times(table: pa.Table, clock: int) -> tuple[pa.Array, pa.Array, int]:
    event = np.asarray(pc.coalesce(table["ts_event"], table["ts_recv"]))
    init, clock = _clock(np.asarray(pc.coalesce(table["ts_recv"], table["ts_event"])), clock)
    return pa.array(event.astype(np.uint64)), pa.array(init.astype(np.uint64)), clock


def _fixed(values: pa.Array | pa.ChunkedArray, exp: int, what: str, entry: Instrument) -> pa.Array:
    """Integers of 10**-exp as 128-bit integers of 1e-16: a decimal of that scale has just these bytes."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if values.null_count:
        raise EncodeError(what, f"a {what} of {entry.id} that fits no 1e-9", f"a {what} in every row")
    if not 0 <= exp <= DIGITS:
        raise EncodeError(what, f"{entry.id} has {exp} decimals", f"0 to {DIGITS}")
    scale = DIGITS - exp
    wide = values.cast(pa.int64()).cast(pa.decimal128(19 + scale, scale))
    return pa.Array.from_buffers(FIXED, len(wide), [None, wide.buffers()[1]], offset=wide.offset)
