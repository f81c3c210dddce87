"""From engine records to the objects of a report: traces, alerts, matched episodes, book windows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from microrisk.evaluate.report_data import Alert, BookWindow, Driver, HeadTrace, PlantedEpisode, Trades
from microrisk.spec.features import ALL_MASK, FEATURES
from microrisk.spec.formats import CODE, LEVEL
from microrisk.spec.records import Action, Flag
from microrisk.spec.weightfile import HEADS

Record = NDArray[np.void]
BIN_NS = 250_000_000
TAIL_NS = 5_000_000_000
"""An alert counts for an episode up to 5 s after its end."""


def traces(rows: Record, names: Mapping[int, str], on: Sequence[int] = (), off: Sequence[int] = ()) -> list[HeadTrace]:
    """Per instrument and head, the maximum level of each 250 ms bin.

    rows : ROW[n], rising `now` per instrument. names : engine index -> id.
    on, off : LEVEL codes, one a head (weight file `level/.../on`), empty while uncalibrated.
    """
    out = []
    for index, name in names.items():
        mine = rows[rows["instrument"] == index]
        for h, head in enumerate(HEADS):
            ns, top = _bin_max(mine["now"], mine["level"][:, h])
            out.append(HeadTrace(name, head, ns, top / 2**LEVEL.frac, _bits(on, h), _bits(off, h)))
    return out


def _bits(codes: Sequence[int], h: int) -> float | None:
    return float(codes[h]) / 2**LEVEL.frac if len(codes) > h else None


def _bin_max(now: NDArray[np.int64], value: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Bins from the first row to the last; NaN where there is no row."""
    if not len(now):
        return np.zeros(0, np.int64), np.zeros(0)
    k = now // BIN_NS
    out = np.full(int(k[-1] - k[0]) + 1, -np.inf)
    np.maximum.at(out, k - k[0], value)
    return (k[0] + np.arange(len(out))) * BIN_NS, np.where(np.isneginf(out), np.nan, out)


def drivers(codes: NDArray[np.int8], mask: int = ALL_MASK, count: int = 6) -> tuple[Driver, ...]:
    """The `count` largest |code| of one row (int8[32]) among the features of `mask`, largest first."""
    c = np.asarray(codes, np.int64)
    ranked = sorted((i for i in range(len(FEATURES)) if mask >> i & 1 and c[i]), key=lambda i: (-abs(int(c[i])), i))
    return tuple(Driver(FEATURES[i].name, float(c[i]) / 2**CODE.frac) for i in ranked[:count])


def alerts(rows: Record, names: Mapping[int, str], mask: int = ALL_MASK) -> list[Alert]:
    """One Alert for every head that went into alarm (ROW.fresh), in the order of the rows."""
    out = []
    for row in rows[rows["fresh"] != 0]:
        for h, head in enumerate(HEADS):
            if int(row["fresh"]) >> h & 1:
                name = names[int(row["instrument"])]
                bits = float(row["level"][h]) / 2**LEVEL.frac
                out.append(Alert(int(row["now"]), name, head, bits, drivers(row["codes"], mask)))
    return out


def match(
    episodes: Iterable[PlantedEpisode], found: Iterable[Alert], tail_ns: int = TAIL_NS
) -> tuple[list[PlantedEpisode], list[Alert]]:
    """Link both lists: an episode takes its first alert in [start, end + tail]; an alert belongs to an episode
    when it lies in [start - tail, end + tail], the rule of the harness for false alarms.
    """
    marks = sorted(found, key=lambda a: a.ns)
    planted = sorted(episodes, key=lambda e: (e.start_ns, e.instrument))
    for i, e in enumerate(planted):
        near = [
            k for k, a in enumerate(marks)
            if a.instrument == e.instrument and e.start_ns - tail_ns <= a.ns <= e.end_ns + tail_ns
        ]  # fmt: skip
        first = next((k for k in near if marks[k].ns >= e.start_ns), None)
        planted[i] = replace(e, alert=first)
        for k in near:
            if marks[k].episode is None or marks[k].ns >= e.start_ns:
                marks[k] = replace(marks[k], episode=i)
    return planted, marks


def book_window(
    instrument: str,
    at_ns: int,
    times: NDArray[np.int64],
    depth: NDArray[np.int64],
    *,
    tick: int,
    px_unit: float = 1e-4,
    qty_unit: float = 1.0,
    trades: Trades | None = None,
    span_ns: int = 10_000_000_000,
    step_ns: int = 50_000_000,
    max_levels: int = 60,
) -> BookWindow:
    """Turn depth records of one instrument into the picture around `at_ns` (+- span_ns).

    times : int64[n], rising. depth : int64[n, 2 sides (bid, ask), levels, 2 (px, qty)], feed units, qty 0 = empty
    (`Engine.take_depth`). A column shows the book as it stood at its end. Rows are `tick` (feed units) apart and
    cover what was resting, at most `max_levels` around the middle of the best prices.
    """
    columns = np.arange(at_ns - span_ns, at_ns + span_ns, step_ns)
    at = np.searchsorted(times, columns + step_ns, side="left") - 1
    seen = depth[np.maximum(at, 0)] * (at >= 0)[:, None, None, None]
    bottom, n = _price_range(seen, tick, max_levels)
    best = [np.where(seen[:, s, 0, 1] > 0, seen[:, s, 0, 0], np.nan) * px_unit for s in (0, 1)]
    sides = [_fill(seen[:, s], bottom, n, tick) * qty_unit for s in (0, 1)]
    px = np.asarray((bottom + np.arange(n) * tick) * px_unit, np.float64)
    return BookWindow(
        instrument, columns, px, sides[0], sides[1], best[0], best[1], _clip(trades or Trades(), columns, step_ns)
    )


def trades_of(events: Record, instrument: int | None = None, *, px_unit: float = 1e-4, qty_unit: float = 1.0) -> Trades:
    """Prints among EVENT records: trades, and executions that carry a price and are not printed by another event.

    px_unit, qty_unit : what one feed unit is worth (1e-4 and 1 for ITCH). Times are the venue's.
    """
    traded = events["action"] == Action.TRADE
    traded |= np.isin(events["action"], (Action.REDUCE, Action.DELETE)) & (events["flags"] & Flag.EXEC != 0)
    traded &= (events["flags"] & Flag.NO_PRINT == 0) & (events["px"] > 0) & (events["qty"] > 0)
    if instrument is not None:
        traded &= events["instrument"] == instrument
    e = events[traded]
    return Trades(
        e["ts_event"].astype(np.int64), e["px"] * px_unit, e["qty"] * qty_unit, (-e["side"]).astype(np.int8)
    )  # fmt: skip


def _price_range(seen: NDArray[np.int64], tick: int, max_levels: int) -> tuple[int, int]:
    """Lowest price and number of rows that show the best prices and as much of the rest as fits."""
    held = seen[..., 0][seen[..., 1] > 0]
    if not len(held):
        return 0, 1
    best = seen[:, :, 0, 0][seen[:, :, 0, 1] > 0]
    low, high = int(held.min()), int(held.max())
    middle = int(np.median(best))
    half = max_levels // 2 * tick
    # never cut the best prices off, whatever max_levels says, short of absurd ranges
    low = min(max(low, middle - half), max(int(best.min()), middle - 4 * half))
    high = max(min(high, middle + half), min(int(best.max()), middle + 4 * half))
    return low, (high - low) // tick + 1


def _fill(side: NDArray[np.int64], bottom: int, n: int, tick: int) -> NDArray[np.float64]:
    """One side, int64[t, levels, 2] -> float64[n, t] by price row; prices outside are left out."""
    out = np.zeros((n, len(side)))
    row = (side[..., 0] - bottom) // tick
    t, k = np.nonzero((side[..., 1] > 0) & (row >= 0) & (row < n))
    np.add.at(out, (row[t, k], t), side[t, k, 1])
    return out


def _clip(trades: Trades, columns: NDArray[np.int64], step_ns: int) -> Trades:
    inside = (trades.ns >= columns[0]) & (trades.ns < columns[-1] + step_ns)
    return Trades(trades.ns[inside], trades.px[inside], trades.qty[inside], trades.aggressor[inside])
