"""Records to Arrow tables: feed units to Int64 1e-9, instrument numbers to names, sentinels to null."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microrisk.core import Naming
from microrisk.spec.records import Action
from microrisk.spec.units import NULL_PX, NULL_TS, PX_NANO, Side

Ints = NDArray[np.int64]
NAME = pa.dictionary(pa.int32(), pa.string())

STAMPS = [("ts_event", pa.int64()), ("ts_recv", pa.int64()), ("seq", pa.uint64()), ("instrument", NAME)]
BEST = [("bid_px", pa.int64()), ("ask_px", pa.int64()), ("bid_qty", pa.int64()), ("ask_qty", pa.int64())]
LEVELS = ("bid_px_levels", "bid_qty_levels", "ask_px_levels", "ask_qty_levels")

LABEL = pa.dictionary(pa.int8(), pa.string())
SIDES = ["A", "N", "B"]
"""Labels of side + 1."""
ACTIONS = [a.name for a in Action]

BBO_SCHEMA = pa.schema([*STAMPS, *BEST])
BOOK_SCHEMA = pa.schema([*STAMPS, *BEST, *((name, pa.list_(pa.int64())) for name in LEVELS)])
SAMPLES_SCHEMA = pa.schema([("ts_sample", pa.int64()), *BOOK_SCHEMA])
TRADES_SCHEMA = pa.schema(
    [
        *STAMPS,
        ("px", pa.int64()),
        ("qty", pa.int64()),
        ("aggressor", LABEL),
        ("order_id", pa.uint64()),
        ("trade_id", pa.uint64()),
        ("hidden", pa.bool_()),
        ("cross", pa.bool_()),
    ]
)
EVENTS_SCHEMA = pa.schema(
    [
        *STAMPS,
        ("action", LABEL),
        ("side", LABEL),
        ("px", pa.int64()),
        ("qty", pa.int64()),
        ("old_px", pa.int64()),
        ("old_qty", pa.int64()),
        ("order_id", pa.uint64()),
        ("ref", pa.uint64()),
        ("flags", pa.uint8()),
    ]
)
SCHEMAS = {
    "bbo": BBO_SCHEMA,
    "book": BOOK_SCHEMA,
    "samples": SAMPLES_SCHEMA,
    "trades": TRADES_SCHEMA,
    "events": EVENTS_SCHEMA,
}
"""Columns of each kind of `core.Table`, in its order."""
ORDERS_SCHEMA = pa.schema(
    [
        ("instrument", NAME),
        ("id", pa.string()),
        ("side", pa.string()),
        ("px", pa.int64()),
        ("qty", pa.int64()),
        ("priority", pa.uint64()),
    ]
)


class Known(Protocol):
    """What is known about instruments, by number."""

    def get(self, index: int) -> Any:
        """The Instrument, or None."""


class Names:
    """Instrument numbers of a feed to SYMBOL.VENUE and to the factor that makes Int64 1e-9 out of its prices.

    Numbers that the feed did not name yet are called by their number, so that nothing is lost.
    """

    def __init__(self, known: Known) -> None:
        self._place: dict[int, int] = {}
        self.names: list[str] = []
        self._up: list[int] = []
        self._down: list[int] = []
        self.known = known
        self.naming = Naming()

    def learn(self, indices: Iterable[int]) -> None:
        """Names for these numbers, also for the core's tables."""
        for index in indices:
            self._position(index)

    def __getitem__(self, index: int) -> str:
        return self.names[self._position(index)]

    def _position(self, index: int) -> int:
        place = self._place.get(index)
        if place is None:
            place = self._place[index] = len(self.names)
            entry = self.known.get(index)
            exp = entry.px_exp if entry is not None else PX_NANO
            self.names.append(entry.id if entry is not None else f"#{index}")
            self._up.append(10 ** max(PX_NANO - exp, 0))
            self._down.append(10 ** max(exp - PX_NANO, 0))
            self.naming.set(index, place, exp)
        return place

    def positions(self, index: NDArray[np.uint32]) -> NDArray[np.int32]:
        """Place in `names` of each instrument number."""
        values, inverse = np.unique(index, return_inverse=True)
        return np.array([self._position(int(v)) for v in values], np.int32)[inverse]

    def column(self, places: NDArray[np.int32]) -> pa.Array:
        """Dictionary column of the names at `places`."""
        return pa.DictionaryArray.from_arrays(pa.array(places), pa.array(self.names, pa.string()))

    def nano(self, px: Ints, places: NDArray[np.int32]) -> tuple[Ints, NDArray[np.bool_], int]:
        """Prices in 1e-9.

        Returns (values, null mask, how many prices were there but do not fit). `places` broadcasts against px.
        """
        up = np.array(self._up, np.int64)[places]
        down = np.array(self._down, np.int64)[places]
        empty = px == NULL_PX
        limit = np.iinfo(np.int64).max // up
        bad = ~empty & ((np.abs(np.where(empty, 0, px)) > limit) | (np.where(empty, 0, px) % down != 0))
        null = empty | bad
        return np.where(null, 0, px) * up // down, null, int(np.count_nonzero(bad))


def stamps(rows: NDArray[Any], names: Names) -> tuple[list[pa.Array], NDArray[np.int32]]:
    """Columns ts_event, ts_recv, seq, instrument of any record that has them; and the places of the names."""
    places = names.positions(rows["instrument"])
    recv = np.ascontiguousarray(rows["ts_recv"])
    columns = [
        pa.array(np.ascontiguousarray(rows["ts_event"])),
        pa.array(recv, mask=recv == NULL_TS),
        pa.array(np.ascontiguousarray(rows["seq"])),
        names.column(places),
    ]
    return columns, places


def orders_table(rows: NDArray[Any], labels: list[str], names: Names) -> tuple[pa.Table, int]:
    """ORDER records to the columns of --orders; `labels` are the venue's own ids."""
    places = names.positions(rows["instrument"])
    px, null, lost = names.nano(np.ascontiguousarray(rows["px"]), places)
    side = np.where(rows["side"] == int(Side.BID), "B", "A")
    columns = [
        names.column(places),
        pa.array(labels, pa.string()),
        pa.array(side.tolist(), pa.string()),
        pa.array(px, mask=null),
        pa.array(np.ascontiguousarray(rows["qty"])),
        pa.array(np.ascontiguousarray(rows["priority"])),
    ]
    return pa.Table.from_arrays(columns, schema=ORDERS_SCHEMA), lost
