"""Price-time matching with true first-in first-out queues, compiled; every change is written out as one event row.

All state lies in arrays, so that the flow can stop when the output is full and go on later. Prices are ticks on a grid of
GRID places, times ns since the session's start. Side: +1 bid, -1 ask, as in spec.units.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from microrisk.market.rng import JIT
from microrisk.spec.records import Action, Flag

GRID = 1 << 15
POOL = 1 << 14
"""Most resting orders at a time; the flow holds a few hundred."""
AGENT_POOL = 512

# columns of Market.orders
ID, PX, QTY, SIDE, NEXT, PREV, POS, BORN, OWNER = range(9)
# columns of Market.levels
HEAD, TAIL, TOTAL = range(3)
# places in Market.ints
(
    NOW,
    BEST_BID,
    BEST_ASK,
    N_LIVE,
    FREE,
    NEXT_ID,
    NEXT_MATCH,
    N_OUT,
    HALT_END,
    SLOW_AT,
    PLAN,
    ACT_AT,
    PHASE,
    COUNT,
    CYCLE,
) = range(15)
N_AGENT, SIGN_0, LEFT_0, OPENED = 15, 16, 19, 22
N_INTS = 24
# columns of Market.out
O_TS, O_ACTION, O_ID, O_REF, O_PX, O_QTY, O_SIDE, O_FLAGS = range(8)

ADD, REDUCE, DELETE = int(Action.ADD), int(Action.REDUCE), int(Action.DELETE)
REPLACE, TRADE, STATE = int(Action.REPLACE), int(Action.TRADE), int(Action.STATE)
LAST, EXEC, HIDDEN, CROSS = int(Flag.LAST), int(Flag.EXEC), int(Flag.HIDDEN), int(Flag.CROSS)


class Market(NamedTuple):
    """The whole state of one instrument."""

    orders: NDArray[np.int64]  # [POOL, 9]
    live: NDArray[np.int64]  # [POOL] slots of resting orders, no order
    levels: NDArray[np.int64]  # [2, GRID, 3], bids then asks
    ints: NDArray[np.int64]  # [N_INTS]
    floats: NDArray[np.float64]  # places in flow
    rng: NDArray[np.uint64]  # [1]
    agent: NDArray[np.int64]  # [AGENT_POOL, 3] slot, order id, due time
    out: NDArray[np.int64]  # [rows, 8]


def new_market(seed: int, n_floats: int, rows: int) -> Market:
    """An empty book, its generator at `seed`, and room for `rows` events between two collections."""
    orders = np.zeros((POOL, 9), np.int64)
    orders[:, NEXT] = np.arange(1, POOL + 1)
    orders[-1, NEXT] = -1
    levels = np.zeros((2, GRID, 3), np.int64)
    levels[:, :, :TOTAL] = -1
    ints = np.zeros(N_INTS, np.int64)
    ints[BEST_ASK] = GRID - 1
    ints[NEXT_ID] = ints[NEXT_MATCH] = 1
    return Market(
        orders,
        np.zeros(POOL, np.int64),
        levels,
        ints,
        np.zeros(n_floats),
        np.array([seed], np.uint64),
        np.zeros((AGENT_POOL, 3), np.int64),
        np.zeros((rows, 8), np.int64),
    )


@njit(**JIT)
def emit(m: Market, action: int, order_id: int, ref: int, px: int, qty: int, side: int, flags: int) -> None:
    """Write one event; the caller has seen to the room."""
    row = m.out[m.ints[N_OUT]]
    row[O_TS] = m.ints[NOW]
    row[O_ACTION] = action
    row[O_ID] = order_id
    row[O_REF] = ref
    row[O_PX] = px
    row[O_QTY] = qty
    row[O_SIDE] = side
    row[O_FLAGS] = flags | LAST
    m.ints[N_OUT] += 1


@njit(**JIT)
def best(m: Market, side: int) -> int:
    """Best price of a side in ticks; 0 or GRID - 1 for an empty one."""
    return m.ints[BEST_BID] if side > 0 else m.ints[BEST_ASK]


@njit(**JIT)
def _enqueue(m: Market, slot: int, side: int, px: int, qty: int) -> None:
    """Put a slot at the back of its level."""
    o, level = m.orders[slot], m.levels[(1 - side) // 2, px]
    o[PX], o[QTY], o[SIDE], o[NEXT], o[PREV] = px, qty, side, -1, level[TAIL]
    if level[TAIL] >= 0:
        m.orders[level[TAIL], NEXT] = slot
    else:
        level[HEAD] = slot
    level[TAIL] = slot
    level[TOTAL] += qty
    if side > 0 and px > m.ints[BEST_BID]:
        m.ints[BEST_BID] = px
    if side < 0 and px < m.ints[BEST_ASK]:
        m.ints[BEST_ASK] = px


@njit(**JIT)
def _dequeue(m: Market, slot: int) -> None:
    """Take a slot out of its level and find the best price again."""
    o, ints = m.orders[slot], m.ints
    side = o[SIDE]
    levels = m.levels[(1 - side) // 2]
    level = levels[o[PX]]
    if o[PREV] >= 0:
        m.orders[o[PREV], NEXT] = o[NEXT]
    else:
        level[HEAD] = o[NEXT]
    if o[NEXT] >= 0:
        m.orders[o[NEXT], PREV] = o[PREV]
    else:
        level[TAIL] = o[PREV]
    level[TOTAL] -= o[QTY]
    if level[HEAD] < 0:
        if side > 0:
            while ints[BEST_BID] > 0 and levels[ints[BEST_BID], HEAD] < 0:
                ints[BEST_BID] -= 1
        else:
            while ints[BEST_ASK] < GRID - 1 and levels[ints[BEST_ASK], HEAD] < 0:
                ints[BEST_ASK] += 1


@njit(**JIT)
def add(m: Market, side: int, px: int, qty: int, owner: int) -> int:
    """A new resting order (the price must not cross); its slot, or -1 when the pool is empty. owner 0 = ordinary flow."""
    slot, ints = m.ints[FREE], m.ints
    if slot < 0 or px <= 0 or px >= GRID - 1:
        return -1
    o = m.orders[slot]
    ints[FREE] = o[NEXT]
    _enqueue(m, slot, side, px, qty)
    o[ID], o[POS], o[BORN], o[OWNER] = ints[NEXT_ID], ints[N_LIVE], ints[NOW], owner
    m.live[ints[N_LIVE]] = slot
    ints[N_LIVE] += 1
    ints[NEXT_ID] += 1
    emit(m, ADD, o[ID], 0, px, qty, side, 0)
    return slot


@njit(**JIT)
def _remove(m: Market, slot: int) -> None:
    """The order leaves the book; no event."""
    _dequeue(m, slot)
    o, ints = m.orders[slot], m.ints
    ints[N_LIVE] -= 1
    moved = m.live[ints[N_LIVE]]
    m.live[o[POS]] = moved
    m.orders[moved, POS] = o[POS]
    o[ID], o[NEXT] = 0, ints[FREE]
    ints[FREE] = slot


@njit(**JIT)
def delete(m: Market, slot: int) -> None:
    """The whole order is withdrawn."""
    o = m.orders[slot]
    emit(m, DELETE, o[ID], 0, o[PX], o[QTY], o[SIDE], 0)
    _remove(m, slot)


@njit(**JIT)
def reduce(m: Market, slot: int, qty: int, flags: int) -> None:
    """`qty` (at most what remains) leaves the order: an execution (flags EXEC) or a partial cancel."""
    o = m.orders[slot]
    match = 0
    if flags & EXEC:
        match = m.ints[NEXT_MATCH]
        m.ints[NEXT_MATCH] += 1
    emit(m, REDUCE, o[ID], match, o[PX], qty, o[SIDE], flags)
    if qty == o[QTY]:
        _remove(m, slot)
    else:
        o[QTY] -= qty
        m.levels[(1 - o[SIDE]) // 2, o[PX], TOTAL] -= qty


@njit(**JIT)
def replace(m: Market, slot: int, px: int, qty: int) -> None:
    """Cancel and re-enter under a new id at the back of the new level, as one event (the price must not cross)."""
    o = m.orders[slot]
    emit(m, REPLACE, o[ID], m.ints[NEXT_ID], px, qty, o[SIDE], 0)
    _dequeue(m, slot)
    o[ID], o[BORN] = m.ints[NEXT_ID], m.ints[NOW]
    m.ints[NEXT_ID] += 1
    _enqueue(m, slot, o[SIDE], px, qty)


@njit(**JIT)
def sweep(m: Market, aggressor: int, qty: int, limit: int) -> int:
    """Match `qty` against the other side, best price and oldest order first, no worse than `limit`; what is left."""
    while qty > 0:
        px = best(m, -aggressor)
        if px <= 0 or px >= GRID - 1 or (px - limit) * aggressor > 0:
            break
        slot = m.levels[(1 + aggressor) // 2, px, HEAD]
        part = min(qty, m.orders[slot, QTY])
        reduce(m, slot, part, EXEC)
        qty -= part
    return qty


@njit(**JIT)
def hidden_print(m: Market, px: int, qty: int, side: int, flags: int) -> None:
    """A trade that changes no displayed order; `side` is the resting one."""
    emit(m, TRADE, 0, m.ints[NEXT_MATCH], px, qty, side, flags)
    m.ints[NEXT_MATCH] += 1


@njit(**JIT)
def depth(m: Market, side: int, ticks: int) -> int:
    """Quantity on the first `ticks` ticks of a side, counted from its best."""
    total, px = 0, best(m, side)
    for k in range(ticks):
        at = px - side * k
        if 0 < at < GRID - 1:
            total += m.levels[(1 - side) // 2, at, TOTAL]
    return total
