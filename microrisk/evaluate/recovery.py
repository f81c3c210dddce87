"""Sessions with episodes as a feed handler would see them: after lost messages comes a book image.

A recording that loses messages and is never repaired holds a wrong book to its end. Grading on it would grade the missing
repair. Here every hole in the sequence is followed by what a snapshot service sends: the whole book, in queue order.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microrisk.core import Engine
from microrisk.market.episodes import KINDS, Plan, random_plans
from microrisk.market.simulator import Session, simulate
from microrisk.spec.records import EVENT, Action, Flag

SPACING_S, FIRST_S = 12.0, 45.0


def eventful(seed: int, seconds: float) -> Session:
    """A session of one instrument with an episode of each kind for every 7.5 minutes, repaired after every hole.

    Raises UsageError below about six minutes: one episode of each kind does not fit.
    """
    plans = random_plans(seed, seconds, max(1, int(seconds / 450)), SPACING_S, kinds=KINDS, first_s=FIRST_S)
    return planned(seed, seconds, plans)


def planned(seed: int, seconds: float, plans: list[Plan]) -> Session:
    """The same with given episodes."""
    session = simulate(seed, seconds, episodes=plans)
    # gaps happen to the feed, never to the market: without them the same market tells everything
    whole = simulate(seed, seconds, episodes=[p for p in plans if p.kind != "gap"])
    return replace(session, events=repaired(session.events, whole.events))


def repaired(seen: NDArray[Any], whole: NDArray[Any]) -> NDArray[Any]:
    """`seen` (EVENT, seq with holes) with a book image behind every hole.

    whole : all events, seq 1..n; what is missing in `seen` is taken from here.
    """
    seq = seen["seq"].astype(np.int64)
    behind = np.flatnonzero(np.diff(seq, prepend=0) > 1)
    engine, done, parts, start = Engine(), 0, [], 0
    for at in map(int, behind):
        upto = int(seq[at]) - 1
        engine.run_events(np.ascontiguousarray(whole[done:upto]))
        parts += [seen[start:at], image(engine, seen[at])]
        done, start = upto, at
    return np.concatenate([*parts, seen[start:]])


def image(engine: Engine, following: Any) -> NDArray[Any]:
    """CLEAR and the resting orders of every instrument as SNAPSHOT events, stamped like the event that follows."""
    parts = []
    for index in engine.instruments():
        orders = engine.orders(int(index))
        rows = np.zeros(len(orders) + 1, EVENT)
        for name in ("ts_event", "ts_recv", "seq", "feed"):
            rows[name] = following[name]
        rows["instrument"] = index
        rows["flags"] = int(Flag.SNAPSHOT)
        rows["action"][0] = int(Action.CLEAR)
        rows["action"][1:] = int(Action.ADD)
        for name in ("order_id", "px", "qty", "side"):
            rows[name][1:] = orders[name]
        rows["flags"][-1] |= int(Flag.LAST)
        parts.append(rows)
    return np.concatenate(parts) if parts else np.zeros(0, EVENT)
