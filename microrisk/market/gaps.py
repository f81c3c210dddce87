"""A feed that loses time: events missing, or all of them late. Works on what a venue sent, whatever made it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from microrisk.errors import UsageError
from microrisk.market.episodes import Episode, Plan, compile_plan
from microrisk.market.plan import P_END
from microrisk.spec.records import Flag
from microrisk.spec.units import NULL_TS

Events = NDArray[np.void]
Mask = NDArray[np.bool_]

LATE_STEP_NS = 2_000
"""Distance of the events of a venue that sends everything late at once."""


def clock_field(events: Events) -> str:
    """The field that orders the feed in time: the recorder's where there is one."""
    return "ts_event" if len(events) == 0 or (events["ts_recv"] == NULL_TS).any() else "ts_recv"


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


def lose_time(events: Events, plans: list[Plan], origin: int, seed: int) -> tuple[Events, Events, list[Episode]]:
    """Apply every plan of kind gap: what the venue sent (late parts stamped late), what arrives, and the labels.

    origin: ns UTC that Plan.start_ns counts from; seq stays with its event, so that what is missing leaves a hole.
    """
    lost: Mask = np.zeros(len(events), bool)
    sent, field, labels = events, clock_field(events), []
    for plan in sorted(plans, key=lambda q: (not q.hard, q.start_ns)):
        row, named = compile_plan(plan, seed)
        begin, end = origin + plan.start_ns, origin + int(row[P_END])
        hit = (sent[field] >= begin) & (sent[field] < end)
        if plan.instrument:
            hit &= sent["instrument"] == plan.instrument
        hit = _whole(sent, hit)
        if plan.hard:
            sent = _late(sent, hit, end, field)
        else:
            lost |= hit
        params = {**named, "events": float(hit.sum())}
        labels.append(Episode("gap", begin, end, plan.strength, plan.instrument, params))
    return sent, sent[~lost] if lost.any() else sent, labels


def _late(events: Events, hit: Mask, end: int, field: str) -> Events:
    """Stamp the hit events at `end` and after; what the same instruments send next waits for them."""
    if not hit.any():
        return events
    late, until = events.copy(), end + LATE_STEP_NS * int(hit.sum())
    behind = (
        (late[field] >= end) & (late[field] < until) & np.isin(late["instrument"], np.unique(late["instrument"][hit]))
    )
    late[field][hit] = np.arange(end, until, LATE_STEP_NS)
    late[field][behind] = until
    order = np.argsort(late[field], kind="stable")
    seq = late["seq"].copy()
    late = late[order]
    late["seq"] = seq  # numbered as sent
    return late


def whole_channel(plan: Plan) -> Plan:
    """The same gap for every instrument of the channel. Raises UsageError for another kind."""
    if plan.kind != "gap":
        raise UsageError(f"only a gap concerns a whole channel, not {plan.kind}")
    return replace(plan, instrument=0)
