"""A feed that loses time: events missing, or all of them late. Works on what a venue sent, whatever made it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from microrisk.market.episodes import Episode, Plan, compile_plan
from microrisk.market.ladder import Ladder
from microrisk.market.plan import P_END
from microrisk.spec.records import EVENT, Action, Flag
from microrisk.spec.units import NS_PER_S, NULL_TS

Events = NDArray[np.void]
Mask = NDArray[np.bool_]

LATE_STEP_NS = 2_000
"""Distance of the events of a venue that sends everything late at once."""


def clock(events: Events) -> NDArray[np.int64]:
    """The core's clock at each event, ns UTC: largest receive (else event) time so far."""
    return np.maximum.accumulate(np.where(events["ts_recv"] == NULL_TS, events["ts_event"], events["ts_recv"]))


def origin_of(events: Events) -> int:
    """Time of the first event that is news, not part of an image: what Plan.start_ns counts from in a recording."""
    news = np.flatnonzero((events["flags"] & int(Flag.SNAPSHOT)) == 0)
    return int(clock(events)[news[0] if len(news) else 0])


def _whole(events: Events, hit: Mask) -> Mask:
    """Only complete events of several records: up to the last LAST inside, and from one behind a LAST."""
    out = hit.copy()
    for index in np.unique(events["instrument"][hit]):
        mine = np.flatnonzero(events["instrument"] == index)
        last = (events["flags"][mine] & int(Flag.LAST)) != 0
        group = np.cumsum(last) - last
        inside = np.bincount(group, weights=hit[mine], minlength=int(group[-1]) + 1)
        out[mine] = (inside == np.bincount(group))[group]
    return out


def lose_time(
    events: Events, plans: Sequence[Plan], origin: int, seed: int, resync_s: float | None = None
) -> tuple[Events, Events, list[Episode]]:
    """Apply every plan of kind gap: what the venue sent (late parts stamped late), what arrives, and the labels.

    origin: ns UTC that Plan.start_ns counts from; seq stays with its event, so that what is missing leaves a hole.
    resync_s: that long after a loss the receiver gets an image of the book (CLEAR and ADD events, SNAPSHOT, with the
    seq they are current to); None leaves it with what it has.
    """
    lost: Mask = np.zeros(len(events), bool)
    sent, times, labels = events, clock(events), []
    wanted: list[tuple[int, int]] = []
    for plan in sorted(plans, key=lambda q: (not q.hard, q.start_ns)):
        row, named = compile_plan(plan, seed)
        begin, end = origin + plan.start_ns, origin + int(row[P_END])
        hit = (times >= begin) & (times < end)
        if plan.instrument:
            hit &= sent["instrument"] == plan.instrument
        hit = _whole(sent, hit)
        if plan.hard:
            sent = _late(sent, times, hit, end)
            times = clock(sent)
        else:
            lost |= hit
            if resync_s is not None:
                until = end + int(resync_s * NS_PER_S)
                wanted += [(until, int(index)) for index in np.unique(sent["instrument"][hit])]
        params = {**named, "events": float(hit.sum())}
        labels.append(Episode("gap", begin, end, plan.strength, plan.instrument, params))
    if not lost.any():
        return sent, sent, labels
    places, parts = [np.flatnonzero(~lost)], [sent[~lost]]
    for until, index in wanted:
        at = int(np.searchsorted(times, until))
        parts.append(_image(sent, at, until, index))
        places.append(np.full(len(parts[-1]), at))
    # an image comes before the event at its place
    order = np.lexsort(
        (np.concatenate([np.full(len(p), k == 0) for k, p in enumerate(places)]), np.concatenate(places))
    )
    return sent, np.concatenate(parts)[order], labels


def _image(sent: Events, at: int, until: int, index: int) -> Events:
    """The book of an instrument before the event at place `at`, as events at `until`; empty behind the last event."""
    mine = np.flatnonzero(sent["instrument"] == index)
    before = mine[mine < at]
    if at >= len(sent) or len(before) == 0:
        return np.zeros(0, EVENT)
    ladder = Ladder()
    columns = ("action", "order_id", "ref", "side", "px", "qty", "flags")
    for row in zip(*(sent[name][before].tolist() for name in columns), strict=True):
        ladder.apply(*row)
    out = np.zeros(len(ladder.orders) + 1, EVENT)
    for name in ("seq", "feed"):
        out[name] = sent[name][at - 1]
    out["ts_event"], out["ts_recv"], out["instrument"] = sent["ts_event"][at - 1], sent["ts_recv"][at - 1], index
    out["ts_recv" if sent["ts_recv"][at - 1] != NULL_TS else "ts_event"] = until
    out["action"], out["flags"] = int(Action.ADD), int(Flag.SNAPSHOT)
    out["order_id"][1:] = np.array(list(ladder.orders), np.uint64)
    for k, name in enumerate(("side", "px", "qty")):
        out[name][1:] = [order[k] for order in ladder.orders.values()]
    out["action"][0], out["flags"][-1] = int(Action.CLEAR), int(Flag.SNAPSHOT | Flag.LAST)
    return out


def _late(events: Events, times: NDArray[np.int64], hit: Mask, end: int) -> Events:
    """Stamp the hit events at `end` and after; what the same instruments send next waits for them.

    The recorder's clock is late where there is one; a feed without one shows a venue that stamps late.
    """
    if not hit.any():
        return events
    late, moved, until = events.copy(), times.copy(), end + LATE_STEP_NS * int(hit.sum())
    behind = (times >= end) & (times < until) & np.isin(events["instrument"], np.unique(events["instrument"][hit]))
    moved[hit] = np.arange(end, until, LATE_STEP_NS)
    moved[behind] = until
    changed, recorded = hit | behind, events["ts_recv"] != NULL_TS
    late["ts_recv"] = np.where(changed & recorded, moved, late["ts_recv"])
    late["ts_event"] = np.where(changed & ~recorded, moved, late["ts_event"])
    order = np.argsort(moved, kind="stable")
    late = late[order]
    late["seq"] = events["seq"]  # numbered as sent
    return late
