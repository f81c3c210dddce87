"""Price-time matching with true first-in first-out queues, compiled; every change is written out as one event row.

All state lies in one record, so that the flow can stop when the output is full and go on later. Prices are ticks on
a grid of GRID places, times ns since the session's start. Side: +1 bid, -1 ask, as in spec.units.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from microrisk.market.rng import INNER
from microrisk.market.state import N_FLOATS
from microrisk.spec.records import Action, Flag

GRID = 1 << 15
POOL = 1 << 14
"""Most resting orders at a time; the flow holds a few hundred."""
AGENT_POOL = 512
ROWS = 1 << 16
"""Events between two collections of the output."""

# columns of Market.orders
ID, PX, QTY, SIDE, NEXT, PREV, POS, BORN, OWNER = range(9)
# columns of Market.levels
HEAD, TAIL, TOTAL = range(3)
# places in Market.ints: best prices (bid, then ask; 0 and GRID - 1 when empty) first
BEST, N_LIVE, FREE, NEXT_ID, NEXT_MATCH, N_OUT, NOW, OPENED = 0, 2, 3, 4, 5, 6, 7, 8
HALT_END, SLOW_AT, PLAN, ACT_AT, PHASE, COUNT, CYCLE, N_AGENT = 9, 10, 11, 12, 13, 14, 15, 16
SIGN_0, LEFT_0, N_INTS = 17, 20, 24
# columns of Market.out
O_TS, O_ACTION, O_ID, O_REF, O_PX, O_QTY, O_SIDE, O_FLAGS = range(8)

ADD, REDUCE, DELETE = int(Action.ADD), int(Action.REDUCE), int(Action.DELETE)
REPLACE, TRADE, STATE = int(Action.REPLACE), int(Action.TRADE), int(Action.STATE)
LAST, EXEC, HIDDEN, CROSS = int(Flag.LAST), int(Flag.EXEC), int(Flag.HIDDEN), int(Flag.CROSS)


STATE_OF_MARKET = np.dtype(
    [
        ("ints", "<i8", (N_INTS,)),
        ("floats", "<f8", (N_FLOATS,)),  # places in state
        ("rng", "<u8", (1,)),
        ("orders", "<i8", (POOL, 9)),
        ("live", "<i8", (POOL,)),  # slots of resting orders, in no order
        ("levels", "<i8", (2, GRID, 3)),  # bids, then asks
        ("agent", "<i8", (AGENT_POOL, 3)),  # slot, order id, due time
        ("out", "<i8", (ROWS, 8)),
    ]
)
Market = Any
"""The whole state of one instrument: a record of STATE_OF_MARKET (one pointer for compiled code, quick to compile)."""


def new_market(seed: int) -> Market:
    """An empty book with its generator at `seed`."""
    market = np.zeros(1, STATE_OF_MARKET)[0]
    orders, levels, ints = market["orders"], market["levels"], market["ints"]
    orders[:, NEXT] = np.arange(1, POOL + 1)
    orders[-1, NEXT] = -1
    levels[:, :, :TOTAL] = -1
    ints[BEST + 1] = GRID - 1
    ints[NEXT_ID] = ints[NEXT_MATCH] = 1
    market["rng"][0] = seed
    return market


@njit(**INNER)
def emit(m: Market, action: int, order_id: int, ref: int, px: int, qty: int, side: int, flags: int) -> None:
    """Write one event; the caller has seen to the room."""
    out, n = m.out, m.ints[N_OUT]
    out[n, O_TS] = m.ints[NOW]
    out[n, O_ACTION] = action
    out[n, O_ID] = order_id
    out[n, O_REF] = ref
    out[n, O_PX] = px
    out[n, O_QTY] = qty
    out[n, O_SIDE] = side
    out[n, O_FLAGS] = flags | LAST
    m.ints[N_OUT] = n + 1


@njit(**INNER)
def _enqueue(m: Market, slot: int, side: int, px: int, qty: int) -> None:
    """Put a slot at the back of its level."""
    orders, levels, ints, s = m.orders, m.levels, m.ints, (1 - side) >> 1
    last = levels[s, px, TAIL]
    orders[slot, PX] = px
    orders[slot, QTY] = qty
    orders[slot, SIDE] = side
    orders[slot, NEXT] = -1
    orders[slot, PREV] = last
    if last >= 0:
        orders[last, NEXT] = slot
    else:
        levels[s, px, HEAD] = slot
    levels[s, px, TAIL] = slot
    levels[s, px, TOTAL] += qty
    if (px - ints[BEST + s]) * side > 0:
        ints[BEST + s] = px


@njit(**INNER)
def _dequeue(m: Market, slot: int) -> None:
    """Take a slot out of its level and find the best price again; an empty side ends at 0 or GRID - 1."""
    orders, levels, side = m.orders, m.levels, m.orders[slot, SIDE]
    s, px, before, behind = (1 - side) >> 1, orders[slot, PX], orders[slot, PREV], orders[slot, NEXT]
    if before >= 0:
        orders[before, NEXT] = behind
    else:
        levels[s, px, HEAD] = behind
    if behind >= 0:
        orders[behind, PREV] = before
    else:
        levels[s, px, TAIL] = before
    levels[s, px, TOTAL] -= orders[slot, QTY]
    at = m.ints[BEST + s]
    while levels[s, at, HEAD] < 0 and 0 < at < GRID - 1:
        at -= side
    m.ints[BEST + s] = at


@njit(**INNER)
def add(m: Market, side: int, px: int, qty: int, owner: int) -> int:
    """A new resting order; its slot, or -1 without an order when the pool is empty or the price has no place.

    The price must not cross. owner 0 = ordinary flow.
    """
    slot, ints, orders = m.ints[FREE], m.ints, m.orders
    if slot < 0 or px <= 0 or px >= GRID - 1:
        return -1
    ints[FREE] = orders[slot, NEXT]
    _enqueue(m, slot, side, px, qty)
    orders[slot, ID] = ints[NEXT_ID]
    orders[slot, POS] = ints[N_LIVE]
    orders[slot, BORN] = ints[NOW]
    orders[slot, OWNER] = owner
    m.live[ints[N_LIVE]] = slot
    ints[N_LIVE] += 1
    ints[NEXT_ID] += 1
    emit(m, ADD, orders[slot, ID], 0, px, qty, side, 0)
    return int(slot)


@njit(**INNER)
def take(m: Market, slot: int, qty: int, action: int, flags: int) -> None:
    """`qty` (at most what remains) leaves the order; gone when nothing remains.

    action and flags: DELETE of all of it, REDUCE as a partial cancel, REDUCE with EXEC as an execution.
    """
    orders, ints, match = m.orders, m.ints, 0
    if flags & EXEC:
        match = ints[NEXT_MATCH]
        ints[NEXT_MATCH] = match + 1
    side, px = orders[slot, SIDE], orders[slot, PX]
    emit(m, action, orders[slot, ID], match, px, qty, side, flags)
    if qty < orders[slot, QTY]:
        orders[slot, QTY] -= qty
        m.levels[(1 - side) >> 1, px, TOTAL] -= qty
        return
    _dequeue(m, slot)
    ints[N_LIVE] -= 1
    moved, hole = m.live[ints[N_LIVE]], orders[slot, POS]
    m.live[hole] = moved
    orders[moved, POS] = hole
    orders[slot, ID] = 0
    orders[slot, NEXT] = ints[FREE]
    ints[FREE] = slot


@njit(**INNER)
def delete(m: Market, slot: int) -> None:
    """The whole order is withdrawn."""
    take(m, slot, m.orders[slot, QTY], DELETE, 0)


@njit(**INNER)
def replace(m: Market, slot: int, px: int, qty: int) -> None:
    """Cancel and re-enter under a new id at the back of the new level, as one event (the price must not cross)."""
    orders, ints, side = m.orders, m.ints, m.orders[slot, SIDE]
    emit(m, REPLACE, orders[slot, ID], ints[NEXT_ID], px, qty, side, 0)
    _dequeue(m, slot)
    orders[slot, ID] = ints[NEXT_ID]
    orders[slot, BORN] = ints[NOW]
    ints[NEXT_ID] += 1
    _enqueue(m, slot, side, px, qty)


@njit(**INNER)
def sweep(m: Market, aggressor: int, qty: int, limit: int) -> int:
    """Match `qty` against the other side, best price and oldest order first, no worse than `limit`; what is left."""
    s = (1 + aggressor) >> 1
    while qty > 0:
        px = m.ints[BEST + s]
        if px <= 0 or px >= GRID - 1 or (px - limit) * aggressor > 0:
            break
        slot = m.levels[s, px, HEAD]
        part = m.orders[slot, QTY]
        if part > qty:
            part = qty
        take(m, slot, part, REDUCE, EXEC)
        qty -= part
    return qty


@njit(**INNER)
def hidden_print(m: Market, px: int, qty: int, side: int, flags: int) -> None:
    """A trade that changes no displayed order; `side` is the resting one."""
    emit(m, TRADE, 0, m.ints[NEXT_MATCH], px, qty, side, flags)
    m.ints[NEXT_MATCH] += 1


@njit(**INNER)
def depth(m: Market, side: int, ticks: int) -> int:
    """Quantity on the first `ticks` ticks of a side, counted from its best."""
    total, s = 0, (1 - side) >> 1
    at = m.ints[BEST + s]
    while ticks > 0 and 0 < at < GRID - 1:
        total += m.levels[s, at, TOTAL]
        at -= side
        ticks -= 1
    return total


@njit(**INNER)
def two_sided(m: Market) -> bool:
    """Whether both sides have orders."""
    return bool(m.ints[BEST] > 0 and m.ints[BEST + 1] < GRID - 1)
