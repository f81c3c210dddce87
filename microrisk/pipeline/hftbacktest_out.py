"""hftbacktest's event arrays: one `<INSTRUMENT.VENUE>.npz` an instrument, by its file format.

Release 2: a structured array `data` of 64-byte events `ev, exch_ts, local_ts, px, qty, order_id, ival, fval`; `ev` is a
kind with flags for the side and for whose clock the row counts (EXCH, LOCAL). Source: hftbacktest, py-hftbacktest/
hftbacktest/types.py and docs/data.rst; the test replays the files in the package itself.

1. Orders (L3): ADD, MODIFY with what is left, CANCEL; an execution is a TRADE (side of the aggressor), a FILL (side of
   the resting order) and then the MODIFY or CANCEL that takes it off. Levels (L2): DEPTH with the absolute size.
2. A cleared book is DEPTH_CLEAR on both sides; parts of an image of levels are DEPTH_SNAPSHOT.
3. Rows of each clock must not go back. Where a venue's times do, every row is written once for each clock, in its
   order; where the receive clock is ahead of the venue's, all receive times are moved by the largest such lead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microrisk.feed.base import Instrument
from microrisk.pipeline.changes import Change, Changes, Rows
from microrisk.pipeline.sink import replacing
from microrisk.spec.records import Action, Flag
from microrisk.spec.units import PX_NANO

EVENT_DTYPE = np.dtype(
    [
        ("ev", "<u8"), ("exch_ts", "<i8"), ("local_ts", "<i8"), ("px", "<f8"), ("qty", "<f8"), ("order_id", "<u8"),
        ("ival", "<i8"), ("fval", "<f8"),
    ]
)  # fmt: skip
DEPTH, TRADE, DEPTH_CLEAR, DEPTH_SNAPSHOT = 1, 2, 3, 4
ADD, CANCEL, MODIFY, FILL = 10, 11, 12, 13
EXCH, LOCAL, BUY, SELL = 1 << 31, 1 << 30, 1 << 29, 1 << 28

Events = NDArray[Any]


class HftWriter:
    """Turns the `events` of one instrument after another into files in `folder`.

    Attributes
    ----------
    notices : what had to be moved
    """

    def __init__(self, folder: Path, entry: Callable[[str], Instrument]) -> None:
        self._folder, self._entry = folder, entry
        self.notices: list[str] = []

    def __call__(self, kind: str, name: str, tables: Iterable[pa.Table]) -> tuple[str, int] | None:
        """Write one instrument; path and rows, None when it has none. Holds that instrument in memory."""
        entry = self._entry(name)
        parts = [_events(Rows.of(table, name), entry) for table in tables]
        data = np.concatenate(parts) if parts else np.zeros(0, EVENT_DTYPE)
        if not len(data):
            return None
        data = self._ordered(data, name)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{name.replace('/', '-')}.npz"
        with replacing(path) as file:
            np.savez_compressed(file, data=data)
        return str(path), len(data)

    def _ordered(self, data: Events, name: str) -> Events:
        """Rule 3."""
        lead = int((data["exch_ts"] - data["local_ts"]).max())
        if lead > 0:
            data["local_ts"] += lead
            self.notices.append(f"{name}: receive times moved by {lead} ns, the venue's clock was ahead of them")
        if (np.diff(data["exch_ts"]) >= 0).all() and (np.diff(data["local_ts"]) >= 0).all():
            data["ev"] |= EXCH | LOCAL
            return data
        exch, local = data.copy(), data
        exch["ev"] |= EXCH
        local["ev"] |= LOCAL
        halves = (exch[np.argsort(exch["exch_ts"], kind="stable")], local[np.argsort(local["local_ts"], kind="stable")])
        both = np.concatenate(halves)
        clock = np.where(both["ev"] & EXCH != 0, both["exch_ts"], both["local_ts"])
        return both[np.argsort(clock, kind="stable")]


def _events(rows: Rows, entry: Instrument) -> Events:
    """Trades and fills in front of the changes of the same event; clearing takes two rows."""
    c = Changes.of(rows)
    pieces = [_trades(rows), _fills(rows), _book(rows, c, clears_ask=False), _book(rows, c, clears_ask=True)]
    row, data = (np.concatenate(x) for x in zip(*pieces, strict=True))
    data = data[np.argsort(row, kind="stable")]
    data["px"] /= 10.0**PX_NANO
    data["qty"] /= 10.0**entry.qty_exp
    return np.asarray(data)


def _blank(rows: Rows, row: NDArray[np.int64]) -> Events:
    out = np.zeros(len(row), EVENT_DTYPE)
    out["exch_ts"], out["local_ts"] = rows.ts_event[row], rows.ts_recv[row]
    return out


def _of_side(side: NDArray[np.int64]) -> NDArray[np.uint64]:
    return np.where(side > 0, BUY, np.where(side < 0, SELL, 0)).astype(np.uint64)


def _trades(rows: Rows) -> tuple[NDArray[np.int64], Events]:
    row = np.flatnonzero(rows.prints())
    out = _blank(rows, row)
    out["ev"] = TRADE | _of_side(-rows.side[row])
    out["px"], out["qty"], out["order_id"] = rows.px[row], rows.qty[row], rows.order_id[row]
    return row, out


def _fills(rows: Rows) -> tuple[NDArray[np.int64], Events]:
    row = np.flatnonzero((rows.action == Action.REDUCE) & rows.has(Flag.EXEC) & rows.known & (rows.qty > 0))
    out = _blank(rows, row)
    out["ev"] = FILL | _of_side(rows.side[row])
    out["px"], out["qty"], out["order_id"] = rows.old_px[row], rows.qty[row], rows.order_id[row]
    return row, out


def _book(rows: Rows, c: Changes, *, clears_ask: bool) -> tuple[NDArray[np.int64], Events]:
    """The changes; with `clears_ask` only the second half of each clearing."""
    clear = c.kind == Change.CLEAR
    use = clear if clears_ask else np.ones(len(c), np.bool_)
    row, kind, level = c.row[use], c.kind[use], (c.order_id == 0)[use] & ~clear[use]
    orders = np.array([0, ADD, MODIFY, CANCEL, DEPTH_CLEAR], np.uint64)[kind]
    levels = np.where(rows.has(Flag.SNAPSHOT)[row], DEPTH_SNAPSHOT, DEPTH).astype(np.uint64)
    side = np.where(clear[use], -1 if clears_ask else 1, c.side[use])
    out = _blank(rows, row)
    out["ev"] = np.where(level, levels, orders) | _of_side(side)
    # a clearing without a price goes through the whole side
    out["px"] = np.where(clear[use], np.nan, c.px[use])
    out["qty"], out["order_id"] = c.qty[use], c.order_id[use]
    return row, out
