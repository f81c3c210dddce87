"""The one who misbehaves: an agent inside the simulation that sends real orders through the same matching. Compiled.

One plan at a time and instrument; act() does one action and sets the time of the next. Orders of the agent carry owner 1,
so that the ordinary flow neither cancels nor replaces them; anybody may trade with them.
"""

from __future__ import annotations

from numba import njit
from numpy.typing import NDArray

from microrisk.market.matching import (
    ACT_AT,
    AGENT_POOL,
    BEST_ASK,
    BEST_BID,
    COUNT,
    CYCLE,
    GRID,
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
    best,
    delete,
    depth,
    hidden_print,
    replace,
    sweep,
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
from microrisk.market.rng import JIT, exponential, uniform
from microrisk.market.state import ADD_FACTOR, CANCEL_ASK, CANCEL_BID, FLOW_FACTOR

NEVER = 1 << 62
OVER = -1
SECOND = 1_000_000_000
WATCH_NS = 40_000_000
"""How often a layering agent looks whether its orders are still where it wants them."""
SLOT, ORDER, DUE = range(3)


@njit(**JIT)
def _own(m: Market, side: int, px: int, qty: int, due: int) -> None:
    """A resting order of the agent, remembered; refused when it would cross or the memory is full."""
    other = best(m, -side)
    if m.ints[N_AGENT] >= AGENT_POOL or (0 < other < GRID - 1 and (px - other) * side >= 0):
        return
    slot = add(m, side, px, qty, 1)
    if slot >= 0:
        a = m.agent[m.ints[N_AGENT]]
        a[SLOT], a[ORDER], a[DUE] = slot, m.orders[slot, ID], due
        m.ints[N_AGENT] += 1


@njit(**JIT)
def _drop(m: Market, k: int) -> None:
    """Cancel the agent's k-th order, unless it was filled, and forget it."""
    a = m.agent[k]
    if m.orders[a[SLOT], ID] == a[ORDER]:
        delete(m, a[SLOT])
    m.ints[N_AGENT] -= 1
    m.agent[k] = m.agent[m.ints[N_AGENT]]


@njit(**JIT)
def _next_plan(m: Market, plans: NDArray[object]) -> None:
    """The market is left to itself until the next plan."""
    f, ints = m.floats, m.ints
    f[ADD_FACTOR] = f[CANCEL_BID] = f[CANCEL_ASK] = f[FLOW_FACTOR] = 1.0
    ints[PHASE] = ints[COUNT] = ints[CYCLE] = 0
    ints[ACT_AT] = int(plans[ints[PLAN], P_START]) if ints[PLAN] < plans.shape[0] else NEVER


@njit(**JIT)
def _done(m: Market, plans: NDArray[object]) -> None:
    """The plan is over; what is left of its orders is cancelled at once."""
    while m.ints[N_AGENT] > 0:
        _drop(m, m.ints[N_AGENT] - 1)
    plans[m.ints[PLAN], P_ACTUAL_END] = m.ints[NOW]
    m.ints[PLAN] += 1
    _next_plan(m, plans)


@njit(**JIT)
def finish(m: Market, plans: NDArray[object]) -> None:
    """End of the session: an episode still running ends here."""
    if m.ints[PLAN] < plans.shape[0] and plans[m.ints[PLAN], P_START] < m.ints[NOW]:
        plans[m.ints[PLAN], P_ACTUAL_END] = m.ints[NOW]


@njit(**JIT)
def _layer_watch(m: Market, side: int) -> bool:
    """Put one order that the price has left, or come too near, back to levels 2 to 7; True when one was moved."""
    touch = best(m, side)
    for k in range(m.ints[N_AGENT]):
        a = m.agent[k]
        o = m.orders[a[SLOT]]
        off = (touch - o[PX]) * side
        if a[DUE] == 0 and o[ID] == a[ORDER] and (off < 1 or off > 6):
            replace(m, a[SLOT], touch - side * (1 + (k % 6)), o[QTY])
            a[ORDER] = o[ID]
            return True
    return False


@njit(**JIT)
def _layer_trade(m: Market, side: int, taken: bool) -> None:
    """The point of it: a small genuine order on the other side, best priced where the spread has room; someone takes it."""
    px = best(m, -side)
    if taken:
        sweep(m, side, 100, px)
    else:
        _own(m, -side, px - side if (px - best(m, side)) * side > 1 else px, 100, 1)


@njit(**JIT)
def _layering(m: Market, p: NDArray[object]) -> int:
    """Phases: 0 placing, 1 watching and trading on the other side, 2 mass cancel, then the next cycle."""
    ints, side = m.ints, int(p[P_SIDE])
    if ints[PHASE] == 0:
        _own(m, side, best(m, side) - side * (1 + ints[COUNT] % 6), 100 * int(p[P_B]), 0)
        ints[COUNT] += 1
        if ints[COUNT] >= p[P_A]:
            ints[PHASE], ints[COUNT] = 1, 0
        return int(p[P_D] / p[P_A] * SECOND * (0.5 + uniform(m.rng)))
    if ints[PHASE] == 1:
        quarter = int(p[P_F] * SECOND) // WATCH_NS // 4
        ints[COUNT] += 1
        second = p[P_G] > 1 and ints[COUNT] - 2 * quarter in (quarter, quarter + 3)
        if ints[COUNT] == quarter or ints[COUNT] == quarter + 3 or second:
            _layer_trade(m, side, (ints[COUNT] - quarter) % (2 * quarter) == 3)
        else:
            _layer_watch(m, side)
        ints[PHASE] = 2 if ints[COUNT] >= 4 * quarter else 1
        return WATCH_NS
    if ints[N_AGENT] > 0:
        _drop(m, ints[N_AGENT] - 1)
        return int(p[P_E] / p[P_A] * SECOND)
    ints[PHASE] = ints[COUNT] = 0
    ints[CYCLE] += 1
    return OVER if ints[CYCLE] >= p[P_C] else int((0.2 + 0.6 * uniform(m.rng)) * SECOND)


@njit(**JIT)
def _stuffing(m: Market, p: NDArray[object]) -> int:
    """Orders that live less than 5 ms on levels 1 to 10; the venue's other traffic is slowed down meanwhile."""
    ints, due, first = m.ints, NEVER, -1
    m.floats[FLOW_FACTOR] = 0.6
    for k in range(ints[N_AGENT]):
        if m.agent[k, DUE] < due:
            due, first = m.agent[k, DUE], k
    if due <= ints[NOW]:
        _drop(m, first)
    elif ints[NOW] < p[P_ACTIVE_END]:
        side = 1 if uniform(m.rng) < 0.5 + 0.4 * p[P_SIDE] else -1
        life = int((0.1 + 0.9 * uniform(m.rng)) * p[P_B] * SECOND)
        _own(m, side, best(m, side) - side * int(10 * uniform(m.rng)), 100, ints[NOW] + life)
        ints[CYCLE] = ints[NOW] + int(exponential(m.rng) * 2.0 / p[P_A] * SECOND)
    else:
        ints[CYCLE] = NEVER
    if ints[N_AGENT] == 0 and ints[CYCLE] == NEVER:
        return OVER
    due = ints[CYCLE]
    for k in range(ints[N_AGENT]):
        due = min(due, m.agent[k, DUE])
    return max(due - ints[NOW], 0)


@njit(**JIT)
def _withdrawal(m: Market, p: NDArray[object]) -> int:
    """A share of all orders goes on both sides, then new ones come at a third of the usual pace until the end."""
    ints = m.ints
    if ints[PHASE] == 0:
        ints[PHASE], ints[COUNT] = 1, int(p[P_A] * ints[N_LIVE])
        m.floats[ADD_FACTOR] = 1.0 / 3.0
    if ints[COUNT] > 0 and ints[N_LIVE] > 4 and ints[NOW] < p[P_ACTIVE_END]:
        slot = m.live[int(ints[N_LIVE] * uniform(m.rng))]
        if m.orders[slot, OWNER] == 0:
            delete(m, slot)
        ints[COUNT] -= 1
        return int((p[P_ACTIVE_END] - ints[NOW]) / (ints[COUNT] + 1) * 2.0 * uniform(m.rng))
    return OVER if ints[NOW] >= p[P_END] else max(int(p[P_END]) - ints[NOW], 1)


@njit(**JIT)
def _ignition(m: Market, p: NDArray[object]) -> int:
    """Sweeps of one direction, the hit side takes flight; then the price comes back a part of the way."""
    ints, side = m.ints, int(p[P_SIDE])
    if ints[NOW] >= p[P_ACTIVE_END]:
        m.floats[CANCEL_BID] = m.floats[CANCEL_ASK] = 1.0
        return OVER if ints[NOW] >= p[P_END] else max(int(p[P_END]) - ints[NOW], 1)
    m.floats[CANCEL_ASK if side > 0 else CANCEL_BID] = p[P_C]
    touch = depth(m, -side, 1)
    qty = int(touch * p[P_B] * (0.5 + uniform(m.rng)))
    sweep(m, side, max(100, qty // 100 * 100), best(m, -side) + 2 * side)
    return int(exponential(m.rng) / p[P_A] * SECOND)


@njit(**JIT)
def _wash(m: Market, p: NDArray[object]) -> int:
    """Buy and sell print of (nearly) one size at the touch, in turn: the net position stays what it was."""
    ints, side = m.ints, 1 - 2 * (m.ints[COUNT] % 2)
    if side > 0:
        if ints[NOW] >= p[P_ACTIVE_END]:
            return OVER
        ints[CYCLE] = max(1, int(100 * p[P_B] * (1.0 + p[P_C] * (2.0 * uniform(m.rng) - 1.0))))
    bid, ask = ints[BEST_BID], ints[BEST_ASK]
    px = ask if side > 0 else bid
    if bid > 0 and ask < GRID - 1:
        if p[P_D] > 0 and ask - bid > 1:
            slot = add(m, -side, px - side, ints[CYCLE], 1)
            if slot >= 0:
                sweep(m, side, ints[CYCLE], px - side)
        else:
            hidden_print(m, px, ints[CYCLE], -side, HIDDEN)
    ints[COUNT] += 1
    gap = SECOND / p[P_A]
    return int(gap * 0.2) if side > 0 else int(gap * (0.3 + uniform(m.rng)))


@njit(**JIT)
def act(m: Market, plans: NDArray[object]) -> None:
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
