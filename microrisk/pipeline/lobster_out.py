"""Message and orderbook files of LOBSTER out of any L3 feed: one pair an instrument.

LOBSTER tells a replacement, and a change of price, as a deletion and a new order. So the events are first said in these
words, then applied by the engine one by one; the book after each of them is its orderbook row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from microrisk.core import Engine
from microrisk.errors import EncodeError
from microrisk.feed.base import Instrument, midnight_ns
from microrisk.feed.lobster import to_rows
from microrisk.feed.lobster_csv import DUMMY_ASK, DUMMY_BID, format_images, format_messages
from microrisk.spec.records import DEPTH, EVENT, Action, Flag
from microrisk.spec.units import NS_PER_S

if TYPE_CHECKING:
    from microrisk.feed.base import Feed

PX_EXP, QTY_EXP = 4, 0
"""LOBSTER counts 1e-4 dollars and whole shares."""
WRITTEN = [int(a) for a in (Action.ADD, Action.REDUCE, Action.DELETE, Action.TRADE)]


@dataclass
class _Order:
    """What is known of a resting order, feed units."""

    px: int
    qty: int
    side: int


def write_lobster(feed: Feed, folder: Path) -> dict[str, int]:
    """Write every instrument of an L3 feed under LOBSTER's file names; path -> rows.

    Orders of a snapshot are in the books and have no message, as in LOBSTER. Raises EncodeError for an L2 feed, or for
    a price or size that is no whole number of 1e-4 and shares.
    """
    engine = Engine(always_open=feed.venue_always_open)
    engine.record_views()
    plain = _Plain()
    files: dict[int, _Pair] = {}
    for events in feed.events():
        simple = plain.say(events)
        engine.run_events(simple)
        views = engine.take_views()
        told = simple[(simple["flags"] & int(Flag.SNAPSHOT)) == 0]
        for index in map(int, np.unique(told["instrument"])):
            mine, after = told[told["instrument"] == index], views[views["instrument"] == index]
            if index not in files:
                files[index] = _Pair(feed.instruments()[index], folder)
            files[index].add(mine, after)
    return {str(path): rows for pair in files.values() for path, rows in pair.close().items()}


class _Plain:
    """Any L3 events in the words of LOBSTER: ADD, REDUCE, DELETE, TRADE. Every one is complete (LAST)."""

    def __init__(self) -> None:
        self._orders: dict[tuple[int, int], _Order] = {}

    def say(self, events: NDArray[Any]) -> NDArray[Any]:
        """EVENT[n] -> EVENT[m]; what concerns an order nobody has seen is left out."""
        rows = [row for event in events for row in self._one(event)]
        out = np.zeros(len(rows), EVENT)
        for k, (event, action, order_id, px, qty, side, flags) in enumerate(rows):
            out[k] = event
            out[k]["action"], out[k]["order_id"], out[k]["px"], out[k]["qty"] = action, order_id, px, qty
            out[k]["side"], out[k]["flags"] = side, flags | int(Flag.LAST)
        return out

    def _one(self, e: Any) -> Iterator[tuple[Any, int, int, int, int, int, int]]:
        action, key = int(e["action"]), (int(e["instrument"]), int(e["order_id"]))
        if action == Action.MODIFY and key[1] == 0:
            raise EncodeError("action", "MODIFY of a level", "events of single orders: LOBSTER names orders")
        if action == Action.ADD:
            yield self._add(e, key[1], int(e["px"]), int(e["qty"]), int(e["side"]))
        elif action in (Action.TRADE, Action.CLEAR):
            yield e, action, 0, int(e["px"]), int(e["qty"]), int(e["side"]), int(e["flags"])
        elif key in self._orders:
            yield from self._known(e, action, key, self._orders[key])

    def _known(
        self, e: Any, action: int, key: tuple[int, int], order: _Order
    ) -> Iterator[tuple[Any, int, int, int, int, int, int]]:
        qty = int(e["qty"])
        if action == Action.REDUCE:
            yield self._take(e, key, order, qty)
        elif action == Action.DELETE:
            yield self._take(e, key, order, order.qty)
        elif action == Action.REPLACE:
            yield self._take(e, key, order, order.qty)
            yield self._add(e, int(e["ref"]), int(e["px"]), qty, order.side)
        elif action == Action.MODIFY and int(e["px"]) == order.px and qty < order.qty:
            yield self._take(e, key, order, order.qty - qty)
        elif action == Action.MODIFY and (int(e["px"]), qty) != (order.px, order.qty):
            yield self._take(e, key, order, order.qty)
            yield self._add(e, key[1], int(e["px"]), qty, order.side)

    def _add(self, e: Any, order_id: int, px: int, qty: int, side: int) -> tuple[Any, int, int, int, int, int, int]:
        self._orders[int(e["instrument"]), order_id] = _Order(px, qty, side)
        return e, int(Action.ADD), order_id, px, qty, side, int(e["flags"]) & int(Flag.SNAPSHOT)

    def _take(self, e: Any, key: tuple[int, int], order: _Order, qty: int) -> tuple[Any, int, int, int, int, int, int]:
        """An execution stays one to its last share; a cancel of all that is left is a deletion."""
        qty = min(qty, order.qty)
        order.qty -= qty
        if order.qty == 0:
            del self._orders[key]
        traded = int(e["flags"]) & int(Flag.EXEC)
        action = Action.REDUCE if traded or order.qty else Action.DELETE
        return e, int(action), key[1], order.px, qty, order.side, traded


class _Pair:
    """The two files of one instrument, written as it goes under names of their own and named at the end."""

    def __init__(self, entry: Instrument, folder: Path) -> None:
        self._entry, self._folder, self._rows = entry, folder, 0
        self._span: tuple[int, int] | None = None
        self._midnight = 0
        self._last: NDArray[np.int64] = np.zeros(DEPTH * 4, np.int64)
        self._parts = {
            kind: folder / f".{entry.symbol.replace('/', '-')}.{kind}.partial" for kind in ("message", "orderbook")
        }
        for path in self._parts.values():
            path.write_bytes(b"")

    def add(self, events: NDArray[Any], views: NDArray[Any]) -> None:
        """Rows of the next events; `views` is the book after each of those that make one."""
        rows = np.isin(events["action"], WRITTEN)
        shown = np.isin(views["action"], WRITTEN)
        events, views = events[rows].copy(), views[shown]
        if len(events) != len(views):
            raise EncodeError("events", len(events), f"a book image each; there are {len(views)}")
        if not len(events):
            return
        if self._span is None:
            first = int(events["ts_event"][0])
            day = datetime.fromtimestamp(first // NS_PER_S, UTC).astimezone(ZoneInfo("America/New_York")).date()
            self._midnight, self._span = midnight_ns(day), (first, first)
        self._span = self._span[0], int(events["ts_event"][-1])
        events["px"] = self._scaled(events["px"], self._entry.px_exp - PX_EXP, "price")
        events["qty"] = self._scaled(events["qty"], self._entry.qty_exp - QTY_EXP, "size")
        images = self._images(views)
        # what happens below the last level is not told, as in LOBSTER's own files
        seen = np.any(np.diff(images, axis=0, prepend=self._last[None, :]) != 0, axis=1)
        seen |= events["action"] == int(Action.TRADE)
        self._last = images[-1]
        self._rows += int(np.count_nonzero(seen))
        self._append("message", format_messages(to_rows(events[seen], self._midnight)))
        self._append("orderbook", format_images(images[seen]))

    def _append(self, kind: str, text: bytes) -> None:
        with self._parts[kind].open("ab") as file:
            file.write(text)

    def _images(self, views: NDArray[Any]) -> NDArray[np.int64]:
        """Ask price, ask size, bid price, bid size, level by level."""
        out = np.zeros((len(views), DEPTH, 4), np.int64)
        level = np.arange(DEPTH)
        for k, (side, dummy) in enumerate((("ask", DUMMY_ASK), ("bid", DUMMY_BID))):
            there = level[None, :] < views[f"n_{side}"][:, None]
            px = self._scaled(np.where(there, views[f"{side}_px"], 0), self._entry.px_exp - PX_EXP, "price")
            out[:, :, 2 * k] = np.where(there, px, dummy)
            out[:, :, 2 * k + 1] = self._scaled(views[f"{side}_qty"], self._entry.qty_exp - QTY_EXP, "size")
        return out.reshape(len(views), DEPTH * 4)

    def _scaled(self, values: NDArray[np.int64], digits: int, what: str) -> NDArray[np.int64]:
        if digits <= 0:
            return np.asarray(values * 10**-digits)
        unit = 10**digits
        if (values % unit).any():
            bad = int(values[values % unit != 0][0])
            exp = digits + (PX_EXP if what == "price" else QTY_EXP)
            raise EncodeError(
                what, f"{bad}e-{exp} of {self._entry.id}", "a whole number of 1e-4" if what == "price" else "whole"
            )
        return np.asarray(values // unit)

    def close(self) -> dict[Path, int]:
        """Give both files their names, from the first to the last millisecond."""
        if self._span is None:
            for path in self._parts.values():
                path.unlink()
            return {}
        start, end = (self._span[0] - self._midnight) // 10**6, (self._span[1] - self._midnight) // 10**6 + 1
        day = datetime.fromtimestamp(self._span[0] // NS_PER_S, UTC).astimezone(ZoneInfo("America/New_York")).date()
        out = {}
        for kind, path in self._parts.items():
            name = f"{self._entry.symbol.replace('/', '-')}_{day}_{start}_{end}_{kind}_{DEPTH}.csv"
            out[path.rename(self._folder / name)] = self._rows
        return out
