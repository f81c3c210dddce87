"""Elementary changes of one instrument's book out of the `events` table: what other platforms replay.

An event of ours can be two changes of theirs: a replacement, or a modification that loses its place in the queue, is a
deletion and a new order. What the book refused (an order twice, a reduction of an order nobody knows) is no change.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from microrisk.errors import EncodeError
from microrisk.pipeline.tables import ACTIONS, SIDES
from microrisk.spec.records import Action, Flag

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Change(IntEnum):
    """What a change does; sizes are what rests after it."""

    NONE = 0
    ADD = 1
    UPDATE = 2  # same place in the queue
    DELETE = 3
    CLEAR = 4


@dataclass(frozen=True)
class Rows:
    """Events of one instrument as arrays; prices in 1e-9, 0 where there is none.

    Attributes
    ----------
    ts_event, ts_recv : ns; each takes the other's value where it has none of its own
    px, qty, side : of the event; old_px, old_qty : what the book knew, `known` says whether it did
    """

    ts_event: Ints
    ts_recv: Ints
    seq: NDArray[np.uint64]
    action: Ints
    side: Ints
    px: Ints
    qty: Ints
    known: Bools
    old_px: Ints
    old_qty: Ints
    order_id: NDArray[np.uint64]
    ref: NDArray[np.uint64]
    flags: Ints

    def __len__(self) -> int:
        return len(self.seq)

    @classmethod
    def of(cls, table: pa.Table, name: str) -> Rows:
        """From the columns of tables.EVENTS_SCHEMA. EncodeError when a price fits no 1e-9."""
        action, side = _codes(table["action"], ACTIONS), _codes(table["side"], SIDES) - 1
        priced = np.isin(action, [int(a) for a in (Action.ADD, Action.MODIFY, Action.REPLACE, Action.TRADE)])
        lost = np.asarray(table["px"].is_null()) & priced
        if lost.any():
            at = int(table["seq"][int(np.argmax(lost))].as_py())
            raise EncodeError("px", f"the price at sequence {at} of {name}", "a price in 1e-9 within 64 bits")
        recv, event = table["ts_recv"], table["ts_event"]
        return cls(
            _ints(pc.coalesce(event, recv)), _ints(pc.coalesce(recv, event)), _ints(table["seq"]), action, side,
            _ints(table["px"]), _ints(table["qty"]), ~np.asarray(table["old_qty"].is_null()),
            _ints(table["old_px"]), _ints(table["old_qty"]), _ints(table["order_id"]), _ints(table["ref"]),
            _ints(table["flags"]).astype(np.int64),
        )  # fmt: skip

    def has(self, flag: Flag) -> Bools:
        """Events that carry a flag."""
        return np.asarray((self.flags & int(flag)) != 0)

    def prints(self) -> Bools:
        """Executions and trades that count as volume."""
        execution = (self.action == Action.REDUCE) & self.has(Flag.EXEC) & self.known
        counted = ~self.has(Flag.NO_PRINT) & ~self.has(Flag.SNAPSHOT) & (self.qty > 0)
        return np.asarray(((self.action == Action.TRADE) | execution) & counted)


@dataclass(frozen=True)
class Changes:
    """Changes in order; `row` is the event that each comes from. A level (L2) has order id 0."""

    row: Ints
    kind: Ints
    side: Ints
    px: Ints
    qty: Ints
    order_id: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.row)

    @classmethod
    def of(cls, rows: Rows) -> Changes:
        """At most two an event: what goes, then what comes."""
        gone, come = _first(rows), _second(rows)
        kind = np.stack([gone, come], axis=1)
        new_id = np.where(rows.action == Action.REPLACE, rows.ref, rows.order_id)
        left = np.where(rows.action == Action.REDUCE, rows.old_qty - rows.qty, rows.qty)
        stays = gone == Change.UPDATE
        px = np.stack([np.where(gone == Change.CLEAR, 0, rows.old_px), rows.px], axis=1)
        qty = np.stack([np.where(stays, left, 0), rows.qty], axis=1)
        ids = np.stack([rows.order_id, new_id], axis=1)
        there = kind != Change.NONE
        row = np.broadcast_to(np.arange(len(rows))[:, None], there.shape)[there]
        side = np.where(kind[there] == Change.CLEAR, 0, rows.side[row])
        return cls(row, kind[there], side, px[there], qty[there], ids[there].astype(np.uint64))

    def last(self, rows: Rows) -> Bools:
        """The last change of each complete event (a batch that ends with LAST)."""
        closed = np.cumsum(rows.has(Flag.LAST))
        batch: Ints = (closed - rows.has(Flag.LAST))[self.row]
        ends = np.append(np.diff(batch) != 0, True) if len(batch) else np.zeros(0, np.bool_)
        complete = batch < (closed[-1] if len(closed) else 0)
        return np.asarray(ends & complete)


def _moves(r: Rows) -> Bools:
    """Modifications of known orders that lose their place."""
    better = (r.qty > r.old_qty) & ~r.has(Flag.PRIORITY_KEPT)
    order = (r.action == Action.MODIFY) & (r.order_id != 0) & r.known & (r.qty > 0)
    return np.asarray(order & ((r.px != r.old_px) | better))


def _first(r: Rows) -> Ints:
    """What happens to the order or level that the event names."""
    reduce = (r.action == Action.REDUCE) & r.known & (r.qty > 0)
    modify = (r.action == Action.MODIFY) & r.known
    goes = (r.action == Action.DELETE) | (r.action == Action.REPLACE)
    out = np.zeros(len(r), np.int64)
    out[reduce] = np.where(r.qty >= r.old_qty, Change.DELETE, Change.UPDATE)[reduce]
    out[goes & r.known] = Change.DELETE
    out[modify & (r.qty > 0)] = Change.UPDATE
    out[(modify & (r.qty == 0)) | _moves(r)] = Change.DELETE
    out[r.action == Action.CLEAR] = Change.CLEAR
    return out


def _second(r: Rows) -> Ints:
    """What comes into the book."""
    fresh = np.isin(r.action, [int(Action.ADD), int(Action.MODIFY)]) & ~r.known & (r.side != 0)
    swap = (r.action == Action.REPLACE) & r.known
    return np.where((fresh | swap | _moves(r)) & (r.qty > 0), int(Change.ADD), int(Change.NONE))


def _ints(column: pa.ChunkedArray) -> Any:
    return np.asarray(column.fill_null(0))


def _codes(column: pa.ChunkedArray, labels: list[str]) -> Ints:
    """Places of a dictionary column's values in `labels`."""
    column = column.unify_dictionaries().combine_chunks()
    place = np.array([labels.index(v) for v in column.dictionary.to_pylist()], np.int64)
    return np.asarray(place[np.asarray(column.indices)]) if len(place) else np.zeros(0, np.int64)
