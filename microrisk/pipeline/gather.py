"""Integer features and codes of whole recordings in memory: what tables, models and the harness are made from.

Everything here goes through the spine's own kernel. Recordings that are longer than the memory allowed are thinned, and
say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microrisk.errors import UsageError
from microrisk.pipeline.spine import Openable, Progress, Spine
from microrisk.spec.records import N_FEATURES

STEP_VIEWS = 1 << 16
"""Views of an instrument from which its tick and lot are taken."""
HELD_ROWS = 1 << 22
"""Feature rows held over all instruments (64 bytes each); above it every second row goes."""


@dataclass(frozen=True)
class Units:
    """feature_tick and feature_lot of an instrument, feed units."""

    tick: int
    lot: int


NO_UNITS = Units(0, 0)


@dataclass(frozen=True)
class Raw:
    """Integer features of one instrument, in order, staleness ticks included.

    Attributes
    ----------
    now : int64[n] ns
    raw : int16[n, 32]
    tick : bool[n], staleness ticks
    """

    now: NDArray[np.int64]
    raw: NDArray[np.int16]
    tick: NDArray[np.bool_]

    def between(self, start: int, end: int) -> Raw:
        """Rows with start <= now < end."""
        a, b = np.searchsorted(self.now, [start, end], side="left")
        return Raw(self.now[a:b], self.raw[a:b], self.tick[a:b])


@dataclass(frozen=True)
class Gathered:
    """A recording as features.

    Attributes
    ----------
    by_id : instrument -> Raw
    units : instrument -> Units that the features were counted in
    mask : features that the feed carries
    thinned : 1 = every row is here, n = every n-th
    span : first and last `now`
    """

    by_id: Mapping[str, Raw]
    units: Mapping[str, Units]
    mask: int
    thinned: int
    span: tuple[int, int]


def find_units(source: Openable, *, until: int | None = None) -> dict[str, Units]:
    """Tick and lot of every instrument with a two-sided book, from its first STEP_VIEWS events (before `until` ns)."""
    from microrisk.features.normalise import fit_instrument

    spine = Spine(source)
    spine.engine.record_views()
    held: dict[int, list[NDArray[np.void]]] = {}
    for _ in spine.chunks():
        views = spine.engine.take_views()
        views = views if until is None else views[views["now"] < until]
        for index in map(int, np.unique(views["instrument"])):
            mine = held.setdefault(index, [])
            if sum(map(len, mine)) < STEP_VIEWS:
                mine.append(views[views["instrument"] == index])
    out = {}
    for index, parts in held.items():
        try:
            tick, lot = fit_instrument(np.concatenate(parts))
        except UsageError:  # never two-sided: it has no features either
            continue
        out[spine.names[index]] = Units(tick, lot)
    return out


def gather(
    source: Openable,
    units: Mapping[str, Units] | None = None,
    progress: Progress | None = None,
    *,
    held_rows: int = HELD_ROWS,
) -> Gathered:
    """Features of a recording.

    units : what each instrument is counted in; instruments without an entry are left out. None = the warm-up of a
        generic table finds them, so that features begin after WARMUP_EVENTS events
    held_rows : above this, every second row goes

    Raises UsageError when no instrument has features.
    """
    from microrisk.features.kernels import run_views
    from microrisk.features.state import as_state, initial_state

    spine = Spine(source)
    spine.engine.record_views()
    spine.engine.ticks(True)
    flat = np.zeros((N_FEATURES, 4096), np.int8)
    store, states = _Store(held_rows), dict[int, NDArray[np.void]]()
    for _ in spine.chunks(progress):
        views = spine.engine.take_views()
        for index in map(int, np.unique(views["instrument"])):
            name = spine.names[index]
            if units is not None and name not in units:
                continue
            if index not in states:
                u = NO_UNITS if units is None else units[name]
                states[index] = as_state(initial_state(u.tick, u.lot, spine.feed.mask))
            mine = views[views["instrument"] == index]
            raw, _, produced = run_views(mine, states[index], flat)
            if produced.any():
                store.add(name, mine["now"][produced], raw[produced], mine["tick"][produced] != 0)
    by_id = store.whole()
    ends = [(int(r.now[0]), int(r.now[-1])) for r in by_id.values() if len(r.now)]
    if not ends:
        raise UsageError("the input holds no instrument with a two-sided book: there is nothing to learn from")
    span = min(e[0] for e in ends), max(e[1] for e in ends)
    used = {spine.names[i]: Units(int(s["tick"][0]), int(s["lot"][0])) for i, s in states.items()}
    return Gathered(by_id, {k: used[k] for k in by_id}, spine.feed.mask, store.stride, span)


class _Store:
    """Rows by instrument; halves itself when it grows too large."""

    def __init__(self, most: int) -> None:
        self.stride, self._most, self._rows = 1, most, 0
        self._parts: dict[str, list[Raw]] = {}

    def add(self, name: str, now: NDArray[np.int64], raw: NDArray[np.int16], tick: NDArray[np.bool_]) -> None:
        """Keep every stride-th row."""
        s = slice(None, None, self.stride)
        part = Raw(now[s].copy(), raw[s].copy(), tick[s].copy())
        self._parts.setdefault(name, []).append(part)
        self._rows += len(part.now)
        while self._rows > self._most:
            self.stride *= 2
            self._parts = {k: [Raw(r.now[::2], r.raw[::2], r.tick[::2]) for r in v] for k, v in self._parts.items()}
            self._rows = sum(len(r.now) for v in self._parts.values() for r in v)

    def whole(self) -> dict[str, Raw]:
        """One Raw an instrument."""
        return {
            name: Raw(*(np.concatenate([getattr(p, field) for p in parts]) for field in ("now", "raw", "tick")))
            for name, parts in sorted(self._parts.items())
        }


def codes_of(raw: NDArray[np.int16], table: NDArray[np.int8]) -> NDArray[np.int8]:
    """Codes int8[n, 32] of integer features by an expanded table int8[32, 4096]: what the kernel does per event."""
    return np.ascontiguousarray(table[np.arange(N_FEATURES)[None, :], raw.astype(np.int64) + 2048])
