"""The one who misbehaves: an agent inside the simulation that sends real orders through the same matching. Compiled.

One plan at a time and instrument; act() does one action and sets the time of the next. Orders of the agent carry
owner 1, so that the ordinary flow neither cancels nor replaces them; anybody may trade with them. Each kind's function
returns the ns to its next action, or OVER.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from microrisk.market.matching import (
    ACT_AT,
    AGENT_POOL,
    BEST,
    COUNT,
    CYCLE,
    HIDDEN,
    ID,
    N_AGENT,
    N_LIVE,
    NOW,
    OWNER,
    PHASE,
    PLAN,
    PX,
    QTY,
    Market,
    add,
    delete,
    depth,
    hidden_print,
    replace,
    sweep,
    two_sided,
)
from microrisk.market.plan import (
    IGNITION,
    LAYERING,
    P_A,
    P_ACTIVE_END,
    P_ACTUAL_END,
    P_B,
    P_C,
    P_D,
    P_E,
    P_END,
    P_F,
    P_G,
    P_KIND,
    P_SIDE,
    P_START,
    STUFFING,
    WITHDRAWAL,
)
from microrisk.market.rng import INNER, exponential, uniform
from microrisk.market.state import ADD_FACTOR, ANCHOR, CANCEL_ASK, CANCEL_BID, FAST, FLOW_FACTOR, SLOW, VALUE

NEVER = 1 << 62
OVER = -1
SECOND = 1_000_000_000
WATCH_NS = 40_000_000
"""How often a layering agent looks whether its orders are still where it wants them."""
SLOT, ORDER, DUE = range(3)
FOREVER = NEVER - 1
"""Due time of orders that are not cancelled by the clock."""

Floats = NDArray[np.float64]
Row = Floats
"""float64[P_COLUMNS], one plan."""


@njit(**INNER)
def _own(m: Market, side: int, px: int, qty: int, due: int) -> None:
    """A resting order of the agent, remembered; none when it would cross or the memory is full."""
    n = m.ints[N_AGENT]
    if n >= AGENT_POOL or (px - m.ints[BEST + ((1 + side) >> 1)]) * side >= 0:
        return
    slot = add(m, side, px, qty, 1)
    if slot >= 0:
        m.agent[n, SLOT] = slot
        m.agent[n, ORDER] = m.orders[slot, ID]
        m.agent[n, DUE] = due
        m.ints[N_AGENT] = n + 1


@njit(**INNER)
def _drop(m: Market, k: int) -> None:
    """Cancel the agent's k-th order, unless it was filled, and forget it."""
    a, last = m.agent, m.ints[N_AGENT] - 1
    slot = a[k, SLOT]
    if m.orders[slot, ID] == a[k, ORDER]:
        delete(m, slot)
    m.ints[N_AGENT] = last
    for column in range(3):
        a[k, column] = a[last, column]


@njit(**INNER)
def _strike(m: Market, side: int, qty: int, limit: int) -> None:
    """An aggressive order of the agent; the market answers as to any trade."""
    if sweep(m, side, qty, limit) < qty:
        m.floats[FAST] += 1.0
        m.floats[SLOW] += 1.0


@njit(**INNER)
def _layer_watch(m: Market, side: int) -> None:
    """Put one order that the price has left, or come too near, back to levels 2 to 7."""
    touch, a = m.ints[BEST + ((1 - side) >> 1)], m.agent
    for k in range(m.ints[N_AGENT]):
        slot = a[k, SLOT]
        off = (touch - m.orders[slot, PX]) * side
        if a[k, DUE] == FOREVER and m.orders[slot, ID] == a[k, ORDER] and (off < 1 or off > 6):
            replace(m, slot, touch - side * (1 + (k % 6)), m.orders[slot, QTY])
            a[k, ORDER] = m.orders[slot, ID]
            return


@njit(**INNER)
def _layer_trade(m: Market, side: int, taken: bool) -> None:
    """The point of it: a small genuine order on the other side, best priced where there is room; someone takes it."""
    px, touch = m.ints[BEST + ((1 + side) >> 1)], m.ints[BEST + ((1 - side) >> 1)]
    if taken:
        _strike(m, side, 100, px)
    else:
        _own(m, -side, px - side if (px - touch) * side > 1 else px, 100, NEVER)


@njit(**INNER)
def _layering(m: Market, p: Row) -> int:
    """Phases: 0 placing, 1 watching and trading on the other side, 2 mass cancel, then the next cycle."""
    ints, side = m.ints, int(p[P_SIDE])
    if ints[PHASE] == 0:
        _own(m, side, ints[BEST + ((1 - side) >> 1)] - side * (1 + ints[COUNT] % 6), 100 * int(p[P_B]), FOREVER)
        ints[COUNT] += 1
        if ints[COUNT] >= p[P_A]:
            ints[PHASE] = 1
            ints[COUNT] = 0
        return int(p[P_D] / p[P_A] * SECOND * (0.5 + uniform(m.rng)))
    if ints[PHASE] == 1:
        quarter = int(p[P_F] * SECOND) // WATCH_NS // 4
        ints[COUNT] += 1
        since = ints[COUNT] - quarter
        if since > 3 and p[P_G] > 1:
            since -= 2 * quarter
        if since == 0 or since == 3:
            _layer_trade(m, side, since == 3)
        else:
            _layer_watch(m, side)
        if ints[COUNT] >= 4 * quarter:
            ints[PHASE] = 2
        return WATCH_NS
    if ints[N_AGENT] > 0:
        _drop(m, ints[N_AGENT] - 1)
        return int(p[P_E] / p[P_A] * SECOND)
    ints[PHASE] = 0
    ints[COUNT] = 0
    ints[CYCLE] += 1
    return OVER if ints[CYCLE] >= p[P_C] else int((0.2 + 0.6 * uniform(m.rng)) * SECOND)


@njit(**INNER)
def _earliest(m: Market) -> int:
    """Place of the agent's order that is due first, or -1."""
    first, due = -1, NEVER
    for k in range(m.ints[N_AGENT]):
        if m.agent[k, DUE] < due:
            due = m.agent[k, DUE]
            first = k
    return first


@njit(**INNER)
def _stuffing(m: Market, p: Row) -> int:
    """Orders that live less than 5 ms on levels 1 to 10; the venue's other traffic is slowed down meanwhile."""
    ints, rng = m.ints, m.rng
    m.floats[FLOW_FACTOR] = 0.6
    first = _earliest(m)
    if first >= 0 and m.agent[first, DUE] <= ints[NOW]:
        _drop(m, first)
    elif ints[NOW] < p[P_ACTIVE_END]:
        side = 1 if uniform(rng) < 0.5 + 0.4 * p[P_SIDE] else -1
        life = int((0.1 + 0.9 * uniform(rng)) * p[P_B] * SECOND)
        _own(m, side, ints[BEST + ((1 - side) >> 1)] - side * int(10 * uniform(rng)), 100, ints[NOW] + life)
        ints[CYCLE] = ints[NOW] + int(exponential(rng) * 2.0 / p[P_A] * SECOND)
    else:
        ints[CYCLE] = NEVER
    first, due = _earliest(m), ints[CYCLE]
    if first >= 0 and m.agent[first, DUE] < due:
        due = m.agent[first, DUE]
    if due == NEVER:
        return OVER
    return int(due - ints[NOW]) if due > ints[NOW] else 0


@njit(**INNER)
def _rest(m: Market, p: Row) -> int:
    """Wait for the plan's end."""
    wait = int(p[P_END]) - m.ints[NOW]
    return wait if wait > 0 else OVER


@njit(**INNER)
def _withdrawal(m: Market, p: Row) -> int:
    """A share of all orders goes on both sides, then new ones come at a third of the usual pace until the end."""
    ints, left = m.ints, p[P_ACTIVE_END] - m.ints[NOW]
    if ints[PHASE] == 0:
        ints[PHASE] = 1
        ints[COUNT] = int(p[P_A] * ints[N_LIVE])
        m.floats[ADD_FACTOR] = 1.0 / 3.0
    if ints[COUNT] <= 0 or ints[N_LIVE] <= 4 or left <= 0:
        return int(_rest(m, p))
    slot = m.live[int(ints[N_LIVE] * uniform(m.rng))]
    if m.orders[slot, OWNER] == 0:
        delete(m, slot)
    ints[COUNT] -= 1
    return int(left / (ints[COUNT] + 1) * 2.0 * uniform(m.rng))


@njit(**INNER)
def _ignition(m: Market, p: Row) -> int:
    """Sweeps of one direction, the hit side takes flight, others follow; then the price comes back a part of the way.

    P_D ticks a sweep is how far the others are convinced, P_E the share of that which they take back.
    """
    f, side, hit = m.floats, int(p[P_SIDE]), CANCEL_ASK if p[P_SIDE] > 0 else CANCEL_BID
    if m.ints[PHASE] == 0:
        m.ints[PHASE] = 1
        f[ANCHOR] = f[VALUE]
        f[hit] = p[P_C]
    if m.ints[NOW] >= p[P_ACTIVE_END]:
        if m.ints[PHASE] == 1:
            m.ints[PHASE] = 2
            f[VALUE] += p[P_E] * (f[ANCHOR] - f[VALUE])
            f[hit] = 1.0
        return int(_rest(m, p))
    lots = min(depth(m, -side, 1) * p[P_B] * (0.5 + uniform(m.rng)), 0.4 * depth(m, -side, 10)) / 100.0
    _strike(m, side, 100 * (int(lots) + 1), m.ints[BEST + ((1 + side) >> 1)] + 2 * side)
    f[VALUE] += side * p[P_D] * uniform(m.rng)
    return int(exponential(m.rng) / p[P_A] * SECOND)


@njit(**INNER)
def _wash(m: Market, p: Row) -> int:
    """Buy and sell print of (nearly) one size at the touch, in turn: the net position stays what it was."""
    ints, side, pace = m.ints, 1 - 2 * (m.ints[COUNT] & 1), SECOND / p[P_A]
    if side > 0:
        if ints[NOW] >= p[P_ACTIVE_END]:
            return OVER
        ints[CYCLE] = int(100 * p[P_B] * (1.0 + p[P_C] * (2.0 * uniform(m.rng) - 1.0)))
    px = ints[BEST + ((1 + side) >> 1)]
    if two_sided(m):
        if p[P_D] > 0 and ints[BEST + 1] - ints[BEST] > 1:
            add(m, -side, px - side, ints[CYCLE], 1)
            sweep(m, side, ints[CYCLE], px - side)
        else:
            hidden_print(m, px, ints[CYCLE], -side, HIDDEN)
    ints[COUNT] += 1
    return int(pace * (0.2 if side > 0 else 0.3 + uniform(m.rng)))


@njit(**INNER)
def _done(m: Market, plans: Floats) -> None:
    """The plan is over; what is left of its orders is cancelled at once, the market is left to itself."""
    f, ints = m.floats, m.ints
    while ints[N_AGENT] > 0:
        _drop(m, ints[N_AGENT] - 1)
    plans[ints[PLAN], P_ACTUAL_END] = ints[NOW]
    ints[PLAN] += 1
    for k in (ADD_FACTOR, CANCEL_BID, CANCEL_ASK, FLOW_FACTOR):
        f[k] = 1.0
    for k in (PHASE, COUNT, CYCLE):
        ints[k] = 0
    ints[ACT_AT] = int(plans[ints[PLAN], P_START]) if ints[PLAN] < plans.shape[0] else NEVER


@njit(**INNER)
def act(m: Market, plans: Floats) -> None:
    """One action of the current plan; sets ACT_AT."""
    p = plans[m.ints[PLAN]]
    kind = int(p[P_KIND])
    if kind == LAYERING:
        wait = _layering(m, p)
    elif kind == STUFFING:
        wait = _stuffing(m, p)
    elif kind == WITHDRAWAL:
        wait = _withdrawal(m, p)
    elif kind == IGNITION:
        wait = _ignition(m, p)
    else:
        wait = _wash(m, p)
    if wait < 0:
        _done(m, plans)
    else:
        m.ints[ACT_AT] = m.ints[NOW] + wait
