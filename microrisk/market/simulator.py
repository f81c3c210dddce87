"""A seeded market of order-level events: the same seed gives the same bytes on every machine.

Each instrument is a stream of its own; the streams are merged by time. See flow (who trades), matching (the book),
agent and episodes (stress).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from microrisk.errors import UsageError
from microrisk.feed.base import Instrument, instrument
from microrisk.market import plan as p
from microrisk.market import state
from microrisk.market.episodes import KINDS, Episode, Plan, compile_plan, random_plans
from microrisk.market.flow import NEVER, SLOW_NS, run
from microrisk.market.gaps import lose_time
from microrisk.market.matching import ACT_AT, N_OUT, NOW, PLAN, SLOW_AT, Market, new_market
from microrisk.market.rng import Stream, derive
from microrisk.spec.records import EVENT, FeedId
from microrisk.spec.units import NS_PER_S, NULL_TS

TICK = 100
"""Price step in 1e-4 dollars: one cent."""
LOT = 100
VENUE = "SIMX"
START_NS = 1_736_173_800 * NS_PER_S
"""2025-01-06 09:30:00 New York."""
NEWS_PER_HOUR, HALTS_PER_HOUR = 6.0, 0.6

Events = NDArray[np.void]


@dataclass(frozen=True)
class Session:
    """One simulated session.

    Attributes
    ----------
    events : EVENT[n] in feed order; every event LAST; seq counts from 1 over what the venue sent: a gap leaves a
        hole, a book image after it repeats the seq that it is current to
    episodes : labels by start
    instruments : by index, 1..N
    sent : messages of the venue, the lost ones too; the next seq would be sent + 1
    """

    events: Events
    episodes: list[Episode]
    instruments: dict[int, Instrument]
    seed: int
    seconds: float
    start_ns: int
    sent: int


def simulate(
    seed: int,
    seconds: float,
    *,
    episodes: Sequence[Plan] | Literal["random"] | None = None,
    instruments: int = 1,
    start_ns: int = START_NS,
    news_per_hour: float = NEWS_PER_HOUR,
    halts_per_hour: float = HALTS_PER_HOUR,
    resync_s: float | None = 1.0,
) -> Session:
    """Run a session of `seconds` with `instruments` books.

    episodes: plans (times after the start), "random" (each instrument gets one of each kind for every 900 s, in a
    short session as many kinds as fit), or None for a clean one. resync_s: after a feed gap the receiver gets a book
    image that late (SNAPSHOT events, not part of the ITCH bytes), or never. Raises UsageError for plans that overlap,
    begin after the end, or name no instrument.
    """
    if seconds < 2.0 or not 1 <= instruments <= 60000:
        raise UsageError(f"{seconds} s with {instruments} instruments: at least 2 s and one instrument are needed")
    plans = _plans(seed, seconds, instruments, episodes)
    parts, labels = [], []
    for index in range(1, instruments + 1):
        own = [q for q in plans if q.instrument == index and q.kind != "gap"]
        rows, done = _one(derive(seed, index), seconds, own, (news_per_hour / 3600.0, halts_per_hour / 3600.0))
        parts.append(_to_events(rows, index, instruments, start_ns))
        labels += [_absolute(e, start_ns) for e in done]
    events = np.concatenate(parts)
    events = events[np.argsort(events["ts_event"], kind="stable")]
    events["seq"] = np.arange(1, len(events) + 1, dtype=np.uint64)
    sent, events, lost = lose_time(events, [q for q in plans if q.kind == "gap"], start_ns, seed, resync_s)
    labels = sorted([*labels, *lost], key=lambda e: (e.start_ns, e.instrument))
    names = {i: replace(instrument(f"SIM{i}", VENUE), tick=TICK, lot=LOT) for i in range(1, instruments + 1)}
    return Session(events, labels, names, seed, seconds, start_ns, len(sent))


def _plans(
    seed: int, seconds: float, instruments: int, episodes: Sequence[Plan] | Literal["random"] | None
) -> list[Plan]:
    """The plans by start, checked."""
    if episodes == "random":
        chosen = [q for index in range(1, instruments + 1) for q in _random(seed, seconds, index)]
        return sorted(chosen, key=lambda q: q.start_ns)
    plans = sorted(episodes or [], key=lambda q: q.start_ns)
    for q in plans:
        if not (1 <= q.instrument <= instruments or (q.kind == "gap" and q.instrument == 0)):
            raise UsageError(f"{q.kind} at {q.start_ns} ns names instrument {q.instrument}; there are 1..{instruments}")
        if q.start_ns >= seconds * NS_PER_S:
            raise UsageError(f"{q.kind} begins at {q.start_ns} ns, after the session's end ({seconds} s)")
    return plans


def _random(seed: int, seconds: float, index: int) -> list[Plan]:
    """Plans of one instrument; kinds that find no time in a short session are left out, another one for each seed."""
    turn = derive(seed, 12, index) % len(KINDS)
    kinds, per_kind = KINDS[turn:] + KINDS[:turn], max(1, int(seconds / 900.0))
    for n in range(len(kinds), 0, -1):
        with suppress(UsageError):
            first_s = min(45.0, seconds / 4.0)
            return random_plans(seed, seconds, per_kind, 12.0, instrument=index, kinds=kinds[:n], first_s=first_s)
    return []


def _market(seed: int, seconds: float, rates: tuple[float, float], plans: NDArray[np.float64]) -> Market:
    """State before the first event."""
    m = new_market(derive(seed, 1))
    draw = Stream(derive(seed, 2))
    f = m["floats"]
    f[state.VALUE] = draw.uniform(4_000.0, 20_000.0)
    f[state.LENGTH], f[state.NEWS_RATE], f[state.HALTS] = seconds, *rates
    f[[state.ADD_FACTOR, state.CANCEL_BID, state.CANCEL_ASK, state.FLOW_FACTOR]] = 1.0
    f[[state.ACTIVITY, state.LIQUIDITY, state.VOLATILITY]] = [draw.uniform(-s, s) for s in (0.5, 0.3, 0.8)]
    m["ints"][SLOW_AT] = 30 * SLOW_NS
    m["ints"][ACT_AT] = int(plans[0, p.P_START]) if len(plans) else NEVER
    return m


def _one(
    seed: int, seconds: float, plans: Sequence[Plan], rates: tuple[float, float]
) -> tuple[NDArray[np.int64], list[Episode]]:
    """Rows (matching.O_*) and labels of one instrument, times since the start."""
    compiled = [compile_plan(q, seed) for q in plans]
    table = np.array([row for row, _ in compiled]).reshape(len(plans), p.P_COLUMNS)
    m, work, done = _market(seed, seconds, rates, table), np.zeros(7), False
    chunks: list[NDArray[np.int64]] = []
    while not done:
        done = run(m, table, work, int(seconds * NS_PER_S))
        chunks.append(m["out"][: m["ints"][N_OUT]].copy())
        m["ints"][N_OUT] = 0
    if m["ints"][PLAN] < len(table):  # still running when the session ends
        table[m["ints"][PLAN], p.P_ACTUAL_END] = m["ints"][NOW]
    labels = [
        Episode(q.kind, q.start_ns, int(row[p.P_ACTUAL_END]), q.strength, q.instrument, named)
        for q, row, (_, named) in zip(plans, table, compiled, strict=True)
    ]
    for one, other in pairwise(labels):
        if other.start_ns < one.end_ns or other.end_ns == 0:
            raise UsageError(
                f"{other.kind} at {other.start_ns} ns begins before {one.kind} at {one.start_ns} ns is over"
            )
    return np.concatenate(chunks), labels


def _to_events(rows: NDArray[np.int64], index: int, instruments: int, start_ns: int) -> Events:
    """Rows of one instrument as EVENT; order and match ids become unique over all instruments."""
    ts, action, order_id, ref, px, qty, side, flags = rows.T
    events = np.zeros(len(rows), EVENT)
    state_row = (action == 8).astype(np.int64)
    events["ts_event"], events["ts_recv"] = ts + start_ns, NULL_TS
    events["order_id"] = np.where(order_id > 0, order_id * instruments + index - 1, 0)
    events["ref"] = np.where((ref > 0) & (state_row == 0), ref * instruments + index - 1, ref)
    events["px"], events["qty"] = px * TICK, qty
    events["instrument"], events["feed"] = index, int(FeedId.SIMULATOR)
    events["action"], events["side"], events["flags"] = action, side, flags
    return events


def _absolute(e: Episode, start_ns: int) -> Episode:
    return Episode(e.kind, e.start_ns + start_ns, e.end_ns + start_ns, e.strength, e.instrument, e.params)
