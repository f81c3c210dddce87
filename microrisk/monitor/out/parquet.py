"""Scored rows and alerts into a Parquet catalog: `data/<type>/<INSTRUMENT.VENUE>/<start_ns>-<end_ns>.parquet`.

Types: `rows` (the columns of `features --out` and of `score --out`) and `alerts`. A file holds one instrument's rows of
one hour of the core's clock (UTC: neither midnight nor a change to summer time matters), or fewer when it is full. It
has its name only when it is whole; before, it is `.<type>-<n>` under the root. A writer thread of its own does
all of it; what finds no room in front of it is counted as dropped. What was not finished when a process was killed is
cleared away at the next start and counted; the journal can make it again.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microrisk.errors import OutputError, UsageError
from microrisk.feed.base import Instrument
from microrisk.monitor.hub import Alert
from microrisk.monitor.restart import Lock
from microrisk.pipeline.rows import codes_table, score_table
from microrisk.pipeline.sink import ParquetSink
from microrisk.pipeline.tables import STAMPS, Names
from microrisk.spec.units import NS_PER_S, NULL_TS
from microrisk.weights import Weights

HOUR_NS = 3600 * NS_PER_S
CLOSE_WAIT_S = 30.0
KINDS = ("rows", "alerts")
_UNSAFE = re.compile(r"[^A-Za-z0-9._#+-]")

ALERTS_SCHEMA = pa.schema(
    [
        ("ts_event", pa.int64()),
        ("seq", pa.uint64()),
        ("instrument", pa.string()),
        ("id", pa.string()),
        ("n", pa.int64()),
        ("schema", pa.int32()),
        ("feed", pa.string()),
        ("session", pa.string()),
        ("head", pa.string()),
        ("level", pa.float32()),
        ("calibrated", pa.bool_()),
        ("suspect", pa.bool_()),
        ("drivers", pa.list_(pa.string())),
        ("bid", pa.string()),
        ("ask", pa.string()),
        ("model", pa.string()),
    ]
)


class CatalogCounts(msgspec.Struct):
    """Totals of rows, alerts included. dropped: no room; lost: the disk refused; cleared: files of a killed process."""

    taken: int = 0
    written: int = 0
    dropped: int = 0
    lost: int = 0
    files: int = 0
    cleared: int = 0


class _Batch(NamedTuple):
    """Rows of one feed, with what was known of its instruments at that moment."""

    rows: NDArray[Any]
    known: Mapping[int, Instrument]
    mask: int
    calibrated: Callable[[str], bool]


class Catalog:
    """A folder that grows by files.

    Parameters
    ----------
    root : of the catalog
    weights : the model, for drivers
    rows_a_file : rows after which a file is finished before its hour ends
    held_rows : rows that wait for the writer, and rows it holds back to write them together: each at most so many

    Attributes
    ----------
    counts, trouble : totals; what the disk said last ("" after it took something)

    Raises
    ------
    OutputError : the folder cannot be made
    """

    def __init__(self, root: Path, weights: Weights, *, rows_a_file: int = 1 << 20, held_rows: int = 1 << 20) -> None:
        self.root, self._weights = root, weights
        self.counts, self.trouble = CatalogCounts(), ""
        self._rows_a_file, self._held_rows = rows_a_file, held_rows
        self._queue: deque[_Batch | Alert] = deque()
        self._queued_rows = 0
        self._filled = threading.Condition()
        self._ending = False
        self._parts: dict[tuple[str, str], _Part] = {}
        self._newest_hour = 0
        self._serial = 0
        self._lock = self._locked()
        self._clear()
        self._thread = threading.Thread(target=self._run, name="catalog", daemon=True)
        self._thread.start()

    # -- ingest thread --------------------------------------------------------------------------------------------

    def take(
        self, rows: NDArray[Any], known: Mapping[int, Instrument], mask: int, calibrated: Callable[[str], bool]
    ) -> bool:
        """ROW records of one feed; returns at once. False: there was no room, they were dropped and counted."""
        return self._put(_Batch(rows.copy(), known, mask, calibrated), len(rows))

    def tell(self, alert: Alert) -> bool:
        """An alert; returns at once, as `take`."""
        return self._put(alert, 1)

    def _put(self, item: _Batch | Alert, rows: int) -> bool:
        with self._filled:
            if self._ending or self._queued_rows + rows > self._held_rows:
                self.counts.dropped += rows
                return False
            self._queue.append(item)
            self._queued_rows += rows
            self.counts.taken += rows
            self._filled.notify()
        return True

    def close(self) -> None:
        """Write what was taken and finish every file; at most CLOSE_WAIT_S."""
        with self._filled:
            self._ending = True
            self._filled.notify()
        self._thread.join(timeout=CLOSE_WAIT_S)
        self._lock.release()

    # -- writer thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._filled:
                self._filled.wait_for(lambda: self._queue or self._ending)
                if not self._queue:
                    break
                item = self._queue.popleft()
            if isinstance(item, Alert):
                self._add("alerts", item.instrument, item.ts_ns // HOUR_NS, _alert_table(item))
            else:
                self._rows(item)
            self._turn()
            with self._filled:
                self._queued_rows -= 1 if isinstance(item, Alert) else len(item.rows)
        for key in list(self._parts):
            self._finish(key)

    def _rows(self, batch: _Batch) -> None:
        """By instrument and hour, in order."""
        for index in np.unique(batch.rows["instrument"]):
            mine = batch.rows[batch.rows["instrument"] == index]
            names = Names(batch.known)  # one instrument's: files do not hold the names of others
            hours = mine["now"] // HOUR_NS
            for hour in np.unique(hours):
                part = mine[hours == hour]
                table = rows_table(part, names, self._weights, batch.mask, batch.calibrated)
                self._add("rows", names[int(index)], int(hour), table)

    def _add(self, kind: str, name: str, hour: int, table: pa.Table) -> None:
        part = self._parts.get((kind, name))
        if part is not None and hour > part.hour:
            self._finish((kind, name))
            part = None
        if part is None:
            part = self._parts[kind, name] = _Part(hour)
        part.add(table)
        self._newest_hour = max(self._newest_hour, hour)
        if part.rows >= self._rows_a_file:
            self._finish((kind, name))

    def _turn(self) -> None:
        """Finish the hours that are over, and give memory back: the fullest go to the disk first."""
        for key in [k for k, part in self._parts.items() if part.hour < self._newest_hour]:
            self._finish(key)
        while sum(p.held_rows for p in self._parts.values()) > self._held_rows:
            key = max(self._parts, key=lambda k: self._parts[k].held_rows)
            self._guarded(key, self._parts[key].spill)

    def _finish(self, key: tuple[str, str]) -> None:
        part = self._parts[key]
        if self._guarded(key, part.spill) and self._guarded(key, lambda path: part.close(self._target(key, part))):
            del self._parts[key]
            self.counts.written += part.rows
            self.counts.files += 1

    def _guarded(self, key: tuple[str, str], step: Callable[[Path], None]) -> bool:
        """One step on the disk; when it fails the rows of the file are lost, counted and said."""
        self._serial += 1
        try:
            step(self.root / f".{key[0]}-{self._serial}")
        except (OSError, pa.ArrowException) as why:
            self.trouble = str(why)
            part = self._parts.pop(key)
            self.counts.lost += part.rows
            part.abandon()
            return False
        self.trouble = ""
        return True

    def _target(self, key: tuple[str, str], part: _Part) -> Path:
        home = self.root / "data" / key[0] / safe_name(key[1])
        home.mkdir(parents=True, exist_ok=True)
        path, n = home / f"{part.start}-{part.end}.parquet", 1
        while path.exists():
            n += 1
            path = home / f"{part.start}-{part.end}-{n}.parquet"
        return path

    def _locked(self) -> Lock:
        """One process a catalog: another's unfinished files are not ours to clear away."""
        try:
            return Lock(self.root / ".writer")
        except UsageError as why:
            raise UsageError(f"the catalog {self.root} is in use by another monitor: name another folder") from why
        except OSError as why:
            raise OutputError(f"cannot write {self.root}: {why.strerror or why}") from why

    def _clear(self) -> None:
        """Take away what a killed process left unfinished; its files have no footer."""
        try:
            for kind in KINDS:
                for path in self.root.glob(f".{kind}-*"):
                    path.unlink()
                    self.counts.cleared += 1
        except OSError as why:
            raise OutputError(f"cannot write {self.root}: {why.strerror or why}") from why


class _Sink(ParquetSink):
    """A file whose rows go to the disk when they are handed over."""

    def put(self, table: pa.Table) -> None:
        self.write(table)
        self._flush()


class _Part:
    """A file in the making: tables in memory, and those that are on the disk already."""

    def __init__(self, hour: int) -> None:
        self.hour, self.rows, self.held_rows = hour, 0, 0
        self._held: list[pa.Table] = []
        self._sink: _Sink | None = None
        self.start, self.end = 1 << 63, -(1 << 63)

    def add(self, table: pa.Table) -> None:
        self._held.append(table)
        self.rows += table.num_rows
        self.held_rows += table.num_rows
        stamps = np.asarray(table["ts_event"])
        stamps = stamps[stamps != NULL_TS]
        if len(stamps):
            self.start, self.end = min(self.start, int(stamps.min())), max(self.end, int(stamps.max()))

    def spill(self, path: Path) -> None:
        """Tables in memory to the unfinished file, which gets this path when there is none yet."""
        if not self._held:
            return
        if self._sink is None:
            self._sink = _Sink(path, self._held[0].schema)
        self._sink.put(pa.concat_tables(self._held))
        self._held, self.held_rows = [], 0

    def close(self, target: Path) -> None:
        """Footer, then the name."""
        if self.start > self.end:
            self.start = self.end = 0
        assert self._sink is not None
        self._sink.close()
        self._sink.path.rename(target)

    def abandon(self) -> None:
        if self._sink is not None:
            self._sink.abandon()
            self._sink.partial.unlink(missing_ok=True)


def rows_table(
    rows: NDArray[Any], names: Names, weights: Weights, mask: int, calibrated: Callable[[str], bool]
) -> pa.Table:
    """Stamps, a column a feature's code, heads, levels, alert, drivers, tick."""
    codes = codes_table(rows, names)
    scores = score_table(rows, names, weights, mask, calibrated, ticks=True)
    for name in scores.column_names[len(STAMPS) :]:
        codes = codes.append_column(scores.schema.field(name), scores[name])
    return codes


def _alert_table(alert: Alert) -> pa.Table:
    row = {name: getattr(alert, name, None) for name in ALERTS_SCHEMA.names} | {"ts_event": alert.ts_ns}
    return pa.Table.from_pylist([row], schema=ALERTS_SCHEMA)


def safe_name(name: str) -> str:
    """An instrument as the name of a folder: no separators, never a step upwards."""
    made = _UNSAFE.sub("-", name)[:128]
    return made if made.strip(".") else "-"
