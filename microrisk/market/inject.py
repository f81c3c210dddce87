"""Episodes put into a recording of an order-level feed: messages with ids of their own, sized by the recording itself.

Each kind is a generator that acts on a Tape and yields the ns to its next action. The recording's traders do not react,
but everything stays consistent: a replay of the result finds nothing that the recording itself does not hold (but for
gaps).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microrisk.errors import UsageError
from microrisk.market.episodes import P99_LOTS, Episode, Plan, compile_plan
from microrisk.market.gaps import clock, lose_time, origin_of
from microrisk.market.plan import P_ACTIVE_END
from microrisk.market.rng import Stream, derive
from microrisk.market.tape import ALL_INSTRUMENTS, FIRST_ID, LAST, Events, Scale, Tape
from microrisk.spec.records import EVENT, Action, Flag
from microrisk.spec.units import NS_PER_S

RETRY_NS = 10_000_000
"""An action that is not possible now (halt, half an event, no proper book) is tried again after this."""
WATCH_NS = 40_000_000
GIVE_UP_NS = 30 * NS_PER_S

Actions = Iterator[int]
Kind = Callable[[Tape, dict[str, float], int, int], Actions]


def inject(
    events: Events, plans: Sequence[Plan], seed: int, *, resync_s: float | None = None
) -> tuple[Events, list[Episode]]:
    """Put episodes into a recording (EVENT[n] of an order-level feed, in feed order; the input is not changed).

    Plan.start_ns counts from the first event that is no image, on the recorder's clock if any; Plan.instrument is the
    recording's index, 0 = the one with most events (for a gap: all). An episode that finds no continuous trading for
    30 s does not happen and has no label; labels are in the time of that clock. Raises UsageError for level-only
    recordings, plans beyond the end, or instruments without events.
    """
    if events.dtype != EVENT or len(events) == 0:
        raise UsageError(f"a recording is a filled array of EVENT, not {len(events)} x {events.dtype}")
    if ((events["action"] == Action.MODIFY) & (events["order_id"] == 0)).any():
        raise UsageError("this recording has levels, not orders: episodes need an order-level feed")
    origin = origin_of(events)
    plans = [_settle(q, events, int(clock(events)[-1]) - origin) for q in plans]
    labels: list[Episode] = []
    edited, next_id = events, _free_id(events)
    for index in sorted({q.instrument for q in plans if q.kind != "gap"}):
        own = [q for q in plans if q.instrument == index and q.kind != "gap"]
        edited, done, next_id = _one(edited, own, index, origin, derive(seed, 21, index), next_id)
        labels += done
    _, arrived, lost = lose_time(edited, [q for q in plans if q.kind == "gap"], origin, derive(seed, 22), resync_s)
    return arrived.copy() if arrived is events else arrived, sorted([*labels, *lost], key=lambda e: e.start_ns)


def _settle(plan: Plan, events: Events, length_ns: int) -> Plan:
    """The plan with its instrument named, checked against the recording."""
    index = plan.instrument
    if index == 0 and plan.kind != "gap":
        numbers, counts = np.unique(events["instrument"], return_counts=True)
        index = int(numbers[np.argmax(counts)])
    elif index and not (events["instrument"] == index).any():
        raise UsageError(f"{plan.kind} names instrument {index}, of which the recording has no event")
    if plan.start_ns > length_ns:
        raise UsageError(f"{plan.kind} begins {plan.start_ns} ns after the start, the recording ends at {length_ns}")
    return Plan(plan.kind, plan.start_ns, plan.strength, plan.seconds, index, plan.side, plan.hard)


def _free_id(events: Events) -> int:
    """An id above which none of the recording lies (below 2**63, so that ITCH can carry it)."""
    ids = np.concatenate([events["order_id"], events["ref"]])
    ids = ids[ids < np.uint64(1 << 63)]
    top = int(ids.max()) if len(ids) else 0
    return max(FIRST_ID, top) if top < (1 << 63) - (1 << 32) else 1 << 61


def _scale(own: Events, times: NDArray[np.int64]) -> Scale:
    """What is usual for the instrument, over the whole recording."""
    news = own[(own["flags"] & int(Flag.SNAPSHOT)) == 0]
    adds = news[(news["action"] == Action.ADD) & (news["qty"] > 0)]
    if len(adds) < 20:
        raise UsageError(f"{len(adds)} new orders are too few to size an episode by")
    executed = (news["flags"] & int(Flag.EXEC)) != 0
    trades = news[(executed & (news["action"] == Action.REDUCE)) | (news["action"] == Action.TRADE)]
    seconds = max((int(times[-1]) - origin_of(own)) / NS_PER_S, 1.0)
    orders = len(np.unique(trades["ts_event"]))
    sizes = np.sort(adds["qty"])
    return Scale(
        int(np.gcd.reduce(adds["px"])) or 1, int(sizes[len(sizes) // 2]), sizes, max(orders / seconds / 2, 0.2)
    )


@dataclass
class _Running:
    """An episode between its first action and its last."""

    plan: Plan
    named: dict[str, float]
    actions: Actions
    planned: int
    begun: int = 0
    ended: int = 0


def _one(
    events: Events, plans: Sequence[Plan], index: int, origin: int, seed: int, next_id: int
) -> tuple[Events, list[Episode], int]:
    """All episodes of one instrument but gaps."""
    mine = np.flatnonzero((events["instrument"] == index) | (events["instrument"] == ALL_INSTRUMENTS))
    times = clock(events)
    tape = Tape(events, mine, _scale(events[mine], times[mine]), Stream(derive(seed, 1)), next_id)
    due: list[tuple[int, int, _Running]] = []
    for k, plan in enumerate(plans):
        row, named = compile_plan(plan, seed)
        actions = _KINDS[plan.kind](tape, named, int(named["side"]), origin + int(row[P_ACTIVE_END]))
        begin = origin + plan.start_ns
        heapq.heappush(due, (begin, k, _Running(plan, named, actions, begin)))
    done = _play(tape, due, times)
    labels = [Episode(r.plan.kind, r.begun, r.ended, r.plan.strength, index, r.named) for r in done]
    return _merge(events, tape), labels, tape.next_id


def _play(tape: Tape, due: list[tuple[int, int, _Running]], times: NDArray[np.int64]) -> list[_Running]:
    """Run the recording; before each event, everything that is due."""
    done: list[_Running] = []
    names = ("action", "order_id", "ref", "side", "px", "qty", "flags")
    columns = [tape.events[name][tape.mine].tolist() for name in names]
    for place, now, *row in zip(tape.mine.tolist(), times[tape.mine].tolist(), *columns, strict=True):
        while due and due[0][0] <= now:
            at, k, running = heapq.heappop(due)
            at = max(at, tape.now)
            tape.move(int(np.searchsorted(times, at, "right")), at, place)
            wait = _act(tape, running, at)
            if wait is None:
                done += [running] if running.begun else []
            else:
                heapq.heappush(due, (at + wait, k, running))
        tape.move(place, now, place)
        tape.step(place, tuple(row))
    for _, _, running in due:
        running.ended = tape.now
        done += [running] if running.begun else []
    return done


def _act(tape: Tape, running: _Running, at: int) -> int | None:
    """One action; ns to the next, None at the end."""
    if not tape.ready():
        given_up = not running.begun and at > running.planned + GIVE_UP_NS
        return None if given_up else RETRY_NS
    running.begun = running.begun or tape.now
    running.ended = tape.now
    return next(running.actions, None)


def _merge(events: Events, tape: Tape) -> Events:
    """The recording without what was taken out and with what was put in; groups of records end in LAST as before."""
    new, places, out = tape.edits()
    keep = np.ones(len(events), bool)
    keep[out] = False
    old = events.copy()
    last = (events["flags"][tape.mine] & LAST) != 0
    group = np.cumsum(last) - last
    # the last record of an event may be gone: then the one before it completes the event
    kept = keep[tape.mine]
    final = np.full(int(group[-1]) + 1, -1)
    np.maximum.at(final, group[kept], tape.mine[kept])
    ends = np.zeros(len(final), bool)
    ends[group[last]] = True
    final = final[ends & (final >= 0)]
    old["flags"][final] |= np.uint8(LAST)
    position = np.concatenate([np.flatnonzero(keep) * 2 + 1, places * 2])
    merged = np.concatenate([old[keep], new])
    return merged[np.argsort(position, kind="stable")]


# -- kinds ------------------------------------------------------------------------------------------------------------


def _layering(tape: Tape, named: dict[str, float], side: int, active_end: int) -> Actions:
    """Large orders on levels 2 to 7 of one side, kept there; small genuine fills on the other; mass cancel."""
    qty = tape.scale.size(0.99 * min(0.6 + 0.4 * named["lots"] / P99_LOTS, 1.0))
    count = int(named["orders"])
    for _ in range(int(named["cycles"])):
        layers: list[int] = []
        for k in range(count):
            prices = tape.ladder.prices(side, 7)
            layers.append(tape.add(side, prices[min(1 + k % 6, len(prices) - 1)], qty))
            yield int(named["place_s"] / count * NS_PER_S * (0.5 + tape.rng.uniform()))
        steps = max(4, int(named["watch_s"] * NS_PER_S) // WATCH_NS)
        genuine = {steps // 4, 3 * steps // 4} if named["fills"] > 1 else {steps // 4}
        for step in range(steps):
            if step in genuine:
                _fill(tape, side)
            else:
                _repeg(tape, side, layers, qty)
            yield WATCH_NS
        for order in layers:
            tape.cancel(order)
            yield int(named["cancel_s"] / count * NS_PER_S)
        yield int((0.2 + 0.6 * tape.rng.uniform()) * NS_PER_S)


def _repeg(tape: Tape, side: int, layers: list[int], qty: int) -> None:
    """Put one order that is gone, or no longer on levels 2 to 7, back there."""
    prices = tape.ladder.prices(side, 7)
    for k, order in enumerate(layers):
        at = tape.ladder.orders.get(order)
        if at is None or at[1] not in prices[1:]:
            tape.cancel(order)
            layers[k] = tape.add(side, prices[min(1 + k % 6, len(prices) - 1)], qty)
            return


def _fill(tape: Tape, side: int) -> None:
    """A small order on the other side, at the touch or inside the spread, and a trade with it."""
    bid, ask = tape.ladder.best(side), tape.ladder.best(-side)
    if bid is None or ask is None:
        return
    px = ask - side * tape.scale.tick
    first = tape.add(-side, px if (px - bid) * side > 0 else ask, tape.scale.median_qty)
    tape.execute(first)


def _stuffing(tape: Tape, named: dict[str, float], side: int, active_end: int) -> Actions:
    """Orders that live less than 5 ms on levels 1 to 10."""
    pending: list[tuple[int, int]] = []
    add_at = tape.now
    while add_at < active_end or pending:
        if pending and pending[0][0] <= tape.now:
            tape.cancel(heapq.heappop(pending)[1])
        elif tape.now >= add_at:
            where = side if tape.rng.uniform() < 0.9 else -side
            prices = tape.ladder.prices(where, 10)
            order = tape.add(where, prices[tape.rng.integer(0, len(prices) - 1)], tape.scale.median_qty)
            life = int((0.1 + 0.9 * tape.rng.uniform()) * named["life_s"] * NS_PER_S)
            heapq.heappush(pending, (tape.now + life, order))
            add_at += int((0.5 + tape.rng.uniform()) * 2.0 / named["rate"] * NS_PER_S)
            if add_at >= active_end:
                add_at = 1 << 62
        due = min(add_at, pending[0][0] if pending else 1 << 62)
        if due == 1 << 62:
            return
        yield max(due - tape.now, 0)


def _withdrawal(tape: Tape, named: dict[str, float], side: int, active_end: int) -> Actions:
    """A share of the orders near the touch goes on both sides; a third of the usual new ones come until the end."""
    begin = tape.now
    tape.thin.update({1: 2.0 / 3.0, -1: 2.0 / 3.0})
    left = [
        order
        for where in (1, -1)
        for px in tape.ladder.prices(where, 40)
        for order in tape.ladder.queue(where, px)
        if tape.rng.uniform() < named["share"]
    ]
    while left:
        tape.cancel(left.pop(tape.rng.integer(0, len(left) - 1)))
        yield max(int((active_end - tape.now) / (len(left) + 1) * 2.0 * tape.rng.uniform()), 0)
    while tape.now < begin + named["seconds"] * NS_PER_S:
        yield WATCH_NS
    tape.thin.update({1: 0.0, -1: 0.0})


def _ignition(tape: Tape, named: dict[str, float], side: int, active_end: int) -> Actions:
    """Sweeps of one direction take whole levels; the hit side withdraws and comes back at half the usual pace."""
    hit, begin = -side, tape.now
    tape.thin[hit] = 0.5
    while tape.now < active_end:
        for px in tape.ladder.prices(hit, 1 + (tape.rng.uniform() < 0.3)):
            for order in tape.ladder.queue(hit, px):
                tape.execute(order)
        for px in tape.ladder.prices(hit, 3):
            for order in tape.ladder.queue(hit, px):
                if tape.rng.uniform() < 0.05 * named["hit_cancel"]:
                    tape.cancel(order)
        yield int((0.5 + tape.rng.uniform()) / (named["times"] * tape.scale.side_rate) * NS_PER_S)
    tape.thin[hit] = 0.0
    while tape.now < begin + named["seconds"] * NS_PER_S:
        yield WATCH_NS


def _wash(tape: Tape, named: dict[str, float], side: int, active_end: int) -> Actions:
    """Buy and sell print of (nearly) one size at the touch, in turn."""
    pace = NS_PER_S / named["pairs_per_s"]
    while tape.now < active_end:
        qty = tape.scale.size(0.5 + 0.08 * named["lots"])
        qty = max(1, int(qty * (1.0 + named["jitter"] * tape.rng.uniform(-1.0, 1.0))))
        for aggressor, wait in ((1, 0.2), (-1, 0.3 + tape.rng.uniform())):
            touch, own = tape.ladder.best(-aggressor), tape.ladder.best(aggressor)
            if touch is not None and own is not None:
                inside = touch - aggressor * tape.scale.tick
                if named["displayed"] and (inside - own) * aggressor > 0:
                    tape.execute(tape.add(-aggressor, inside, qty))
                else:
                    tape.trade(-aggressor, touch, qty)
            yield int(pace * wait)


_KINDS: dict[str, Kind] = {
    "layering": _layering,
    "stuffing": _stuffing,
    "withdrawal": _withdrawal,
    "ignition": _ignition,
    "wash": _wash,
}
