"""Naive helpers of the market tests: a dict replay that checks priority, and window statistics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from microrisk.core import Engine
from microrisk.market import Episode
from microrisk.spec.records import Action, Flag
from microrisk.spec.units import NULL_TS

EXEC = int(Flag.EXEC)


def findings(events: NDArray[np.void], *, always_open: bool = False) -> dict[str, int]:
    """Non-zero integrity counts of a replay through the engine."""
    engine = Engine(always_open=always_open)
    engine.run_events(events)
    engine.finish()
    return {name: n for name, n in engine.integrity().items() if n}


def times(events: NDArray[np.void]) -> NDArray[np.int64]:
    return np.where(events["ts_recv"] == NULL_TS, events["ts_event"], events["ts_recv"])


def within(events: NDArray[np.void], begin: int, end: int) -> NDArray[np.void]:
    """Events of a time window."""
    return events[(times(events) >= begin) & (times(events) < end)]


def during(events: NDArray[np.void], e: Episode) -> NDArray[np.void]:
    mine = events[events["instrument"] == e.instrument]
    return within(mine, e.start_ns, e.end_ns + 1)


def before(events: NDArray[np.void], e: Episode, seconds: float) -> NDArray[np.void]:
    mine = events[events["instrument"] == e.instrument]
    return within(mine, e.start_ns - int(seconds * 1e9), e.start_ns)


def executions(events: NDArray[np.void]) -> NDArray[np.void]:
    return events[(events["action"] == Action.REDUCE) & (events["flags"] & EXEC != 0)]


def prints(events: NDArray[np.void]) -> NDArray[np.void]:
    return events[(events["action"] == Action.TRADE) | ((events["flags"] & EXEC) != 0)]


@dataclass
class Naive:
    """Orders in arrival order in plain dicts; `wrong` counts what a venue would never do."""

    orders: dict[int, list[int]] = field(default_factory=dict)
    wrong: Counter[str] = field(default_factory=Counter)
    seen: set[int] = field(default_factory=set)

    def run(self, events: NDArray[np.void]) -> Naive:
        for e in events:
            self._one(*(int(e[k]) for k in ("action", "order_id", "ref", "side", "px", "qty", "flags")))
        return self

    def _one(self, action: int, oid: int, ref: int, side: int, px: int, qty: int, flags: int) -> None:
        if action in (Action.ADD, Action.REPLACE):
            new = oid if action == Action.ADD else ref
            if action == Action.REPLACE and self.orders.pop(oid, [0])[0] != side:
                self.wrong["side"] += 1
            self.wrong["used id"] += new in self.seen
            self.wrong["tick or size"] += px % 100 != 0 or qty <= 0
            self.wrong["crossing"] += any((px - p) * side >= 0 for s, p, _ in self.orders.values() if s == -side)
            self.seen.add(new)
            self.orders[new] = [side, px, qty]
        elif action in (Action.REDUCE, Action.DELETE):
            order = self.orders.get(oid)
            if order is None or (side, px) != tuple(order[:2]) or not 0 < qty <= order[2]:
                self.wrong["removal"] += 1
                return
            if flags & EXEC:
                same = [(p * s, k) for k, (s, p, _) in self.orders.items() if s == side]
                top = max(value for value, _ in same)
                self.wrong["priority"] += next(k for value, k in same if value == top) != oid
            order[2] -= qty
            if order[2] == 0 or action == Action.DELETE:
                self.wrong["rest"] += order[2] != 0
                del self.orders[oid]
