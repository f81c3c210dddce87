"""Records to Arrow tables: feed units to Int64 1e-9, instrument numbers to names, sentinels to null."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microrisk.spec.units import NULL_PX, NULL_TS, PX_NANO, Side

Ints = NDArray[np.int64]
NAME = pa.dictionary(pa.int32(), pa.string())

STAMPS = [("ts_event", pa.int64()), ("ts_recv", pa.int64()), ("seq", pa.uint64()), ("instrument", NAME)]
BEST = [("bid_px", pa.int64()), ("ask_px", pa.int64()), ("bid_qty", pa.int64()), ("ask_qty", pa.int64())]
LEVELS = ("bid_px_levels", "bid_qty_levels", "ask_px_levels", "ask_qty_levels")

BBO_SCHEMA = pa.schema([*STAMPS, *BEST])
BOOK_SCHEMA = pa.schema([*STAMPS, *BEST, *((name, pa.list_(pa.int64())) for name in LEVELS)])
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


def _best(rows: NDArray[Any], places: NDArray[np.int32], names: Names) -> tuple[list[pa.Array], int]:
    out, lost = {}, 0
    for side in ("bid", "ask"):
        raw = np.ascontiguousarray(rows[f"{side}_px"])
        px, null, bad = names.nano(raw, places)
        lost += bad
        out[f"{side}_px"] = pa.array(px, mask=null)
        out[f"{side}_qty"] = pa.array(np.ascontiguousarray(rows[f"{side}_qty"]), mask=raw == NULL_PX)
    return [out[name] for name, _ in BEST], lost


def bbo_table(rows: NDArray[Any], names: Names) -> tuple[pa.Table, int]:
    """BBO records to the columns of --bbo; and the number of prices that do not fit 1e-9."""
    columns, places = stamps(rows, names)
    best, lost = _best(rows, places, names)
    return pa.Table.from_arrays(columns + best, schema=BBO_SCHEMA), lost


def book_table(rows: NDArray[Any], depth: Ints, names: Names) -> tuple[pa.Table, int]:
    """BBO records and their levels int64[n, 2 sides, depth, 2 px/qty] to the columns of --book.

    A level that does not exist (quantity 0) is left out of its list; a price that does not fit is null in it.
    """
    columns, places = stamps(rows, names)
    best, lost = _best(rows, places, names)
    lists = []
    for side in (0, 1):
        px, qty = np.ascontiguousarray(depth[:, side, :, 0]), np.ascontiguousarray(depth[:, side, :, 1])
        there = (qty != 0) & (px != NULL_PX)
        offsets = pa.array(np.concatenate(([0], np.cumsum(there.sum(axis=1)))).astype(np.int32))
        nano, null, _ = names.nano(px, np.broadcast_to(places[:, None], px.shape))
        lists.append(pa.ListArray.from_arrays(offsets, pa.array(nano[there], mask=null[there])))
        lists.append(pa.ListArray.from_arrays(offsets, pa.array(qty[there])))
    return pa.Table.from_arrays(columns + best + lists, schema=BOOK_SCHEMA), lost


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
