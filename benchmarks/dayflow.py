"""The simulated day behind `day_stream`: one market of many names that writes ITCH 5.0 bytes as it goes.

Every message acts on real queues (FIFO per level, intrusive lists), so each reference is known, executions take the
front of the best level, a fill never exceeds the order, and a bid always stays below the best ask. All draws come from
one splitmix64 state: the same parameters give the same bytes.

What is fitted to published figures and what is assumed is said in `daystream`.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from microrisk.spec.messages import ITCH_BY_CODE

WINDOW = 1024
"""Ticks a name's prices may take; its middle starts at WINDOW / 2."""
RING = 1 << 22
"""Orders back that a young order can be picked from."""
TABLE = 1 << 16
"""Quantiles in each table of draws."""
EDGE = 32
"""No order within this distance of the window's ends."""
PROBES = 12
TICK = 100
LOT_MAX = 9
MAX_FRAME = 2 + max(m.length for m in ITCH_BY_CODE.values())

ORDER = np.dtype(
    [
        ("ref", "i8"), ("born", "i8"), ("cell", "i4"), ("qty", "i4"), ("next", "i4"), ("prev", "i4"), ("pos", "i4"),
        ("ask", "i4"),
    ],
    align=True,
)  # fmt: skip
NAME = np.dtype([("base", "i8"), ("bid", "i4"), ("ask", "i4"), ("symbol", "i8")], align=True)
CLOCK = np.dtype(
    [
        ("messages", "i8"), ("time", "i8"), ("ref", "i8"), ("match", "i8"), ("live", "i8"), ("free", "i8"),
        ("adds", "i8"), ("peak", "i8"), ("filled", "i8"), ("bbo", "i8"), ("near", "i8"), ("changes", "i8"),
    ],
    align=True,
)  # fmt: skip
"""`bbo`: messages after which a best price or size differs. `near`: changes within ten ticks of their side's best."""
MAIN_TYPES = "ADUEXFIPL"


class Flow(NamedTuple):
    """State of the market; arrays only, so that compiled code can hold it."""

    orders: Any  # ORDER (capacity)
    names: Any  # NAME (symbols)
    clock: Any  # CLOCK (1)
    random: Any  # uint64 (1)
    head: Any  # int32 (symbols * WINDOW): first order of a level, -1 = no level
    tail: Any
    alive: Any  # int32 (capacity): slots of live orders in no order
    free: Any  # int32 (capacity): stack of unused slots
    ring: Any  # int32 (RING): slots of the last orders
    ring_ref: Any  # int64 (RING)
    lives: Any  # int64 (64): log2 of messages an order lived
    counts: Any  # int64 (256) by type code


class Shape(NamedTuple):
    """What the draws follow; read only."""

    who_alias: Any  # int32 (symbols): alias table of activity
    who_keep: Any  # float64 (symbols)
    age: Any  # int64 (TABLE): orders back; 0 = any live order
    away: Any  # int64 (TABLE): ticks behind the own best
    gap: Any  # int64 (TABLE): ns to the next message
    mix: Any  # float64: cumulative shares of U E X F I P L; the rest is A or D
    ref_low: int
    ref_span: int


def _layout(code: str) -> Any:
    """Offsets behind the length prefix by field name, as a constant that compiled code reads."""
    fields = {f.name: f.offset + 2 for f in ITCH_BY_CODE[code].fields} | {"end": ITCH_BY_CODE[code].length + 2}
    return namedtuple(f"Layout{code}", fields)(**fields)


_A, _F, _D, _U, _E, _X = (_layout(c) for c in "AFDUEX")
_I, _P, _L, _R, _H, _S = (_layout(c) for c in "IPLRHS")
_C1, _C2, _C3 = (np.uint64(x) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_S30, _S27, _S31, _S11 = (np.uint64(x) for x in (30, 27, 31, 11))


@njit(cache=True)
def draw(random):
    """Integer in [0, 2**53), splitmix64."""
    random[0] += _C1
    z = random[0]
    z = (z ^ (z >> _S30)) * _C2
    z = (z ^ (z >> _S27)) * _C3
    return np.int64((z ^ (z >> _S31)) >> _S11)


@njit(cache=True)
def unit(random):
    """Float in [0, 1)."""
    return draw(random) * (1.0 / 9007199254740992.0)


@njit(cache=True)
def put(buf, at, size, value):
    """Big-endian unsigned."""
    for k in range(size):
        buf[at + k] = (value >> (8 * (size - 1 - k))) & 0xFF


@njit(cache=True)
def begin(flow, buf, at, end, code, locate):
    """Length prefix and header; counts the message."""
    buf[at : at + end] = 32
    put(buf, at, 2, end - 2)
    buf[at + 2] = code
    put(buf, at + 3, 2, locate)
    put(buf, at + 5, 2, 0)
    put(buf, at + 7, 6, flow.clock[0].time)
    flow.counts[code] += 1
    return at + end


@njit(cache=True)
def price_of(flow, cell):
    return flow.names[cell // WINDOW].base + TICK * (cell % WINDOW)


@njit(cache=True)
def is_best(flow, cell, ask):
    name = flow.names[cell // WINDOW]
    return (name.ask if ask else name.bid) == cell % WINDOW


@njit(cache=True)
def note_place(flow, cell, ask):
    """Counts how far from its side's best a change is."""
    name = flow.names[cell // WINDOW]
    tick = cell % WINDOW
    clock = flow.clock[0]
    clock.changes += 1
    if (ask and tick - name.ask < 10) or (not ask and name.bid - tick < 10):
        clock.near += 1


@njit(cache=True)
def post(flow, shape, cell, ask, qty):
    """A new order at the back of its level; returns its slot."""
    clock, name = flow.clock[0], flow.names[cell // WINDOW]
    clock.free -= 1
    slot = flow.free[clock.free]
    clock.ref += shape.ref_low + draw(flow.random) % shape.ref_span
    o = flow.orders[slot]
    o.ref, o.born, o.cell, o.qty, o.ask, o.next = clock.ref, clock.messages, cell, qty, ask, -1
    o.prev, o.pos = flow.tail[cell], clock.live
    if o.prev >= 0:
        flow.orders[o.prev].next = slot
    else:
        flow.head[cell] = slot
    flow.tail[cell] = slot
    tick = cell % WINDOW
    if ask:
        name.ask = min(name.ask, tick)
    else:
        name.bid = max(name.bid, tick)
    flow.alive[clock.live] = slot
    clock.live += 1
    clock.peak = max(clock.peak, clock.live)
    at = clock.adds % RING
    flow.ring[at], flow.ring_ref[at] = slot, clock.ref
    clock.adds += 1
    return slot


@njit(cache=True)
def next_best(flow, cell, ask):
    """The best moves away from an emptied level."""
    name, tick, first = flow.names[cell // WINDOW], cell % WINDOW, cell - cell % WINDOW
    if ask:
        while tick < WINDOW and flow.head[first + tick] < 0:
            tick += 1
        name.ask = tick
    else:
        while tick >= 0 and flow.head[first + tick] < 0:
            tick -= 1
        name.bid = tick


@njit(cache=True)
def drop(flow, slot):
    """Take an order out of its queue and of the live set."""
    clock, o = flow.clock[0], flow.orders[slot]
    cell = o.cell
    if o.prev >= 0:
        flow.orders[o.prev].next = o.next
    else:
        flow.head[cell] = o.next
    if o.next >= 0:
        flow.orders[o.next].prev = o.prev
    else:
        flow.tail[cell] = o.prev
    if flow.head[cell] < 0 and is_best(flow, cell, o.ask):
        next_best(flow, cell, o.ask)
    clock.live -= 1
    last = flow.alive[clock.live]
    flow.alive[o.pos] = last
    flow.orders[last].pos = o.pos
    flow.free[clock.free] = slot
    clock.free += 1
    o.ref = -1
    lived, bucket = clock.messages - o.born, 0
    while lived > 1:
        lived >>= 1
        bucket += 1
    flow.lives[bucket] += 1


@njit(cache=True)
def pick(flow, shape):
    """A live order by age: so many orders back, or any; -1 when there is none."""
    clock = flow.clock[0]
    if clock.live == 0:
        return -1
    back = shape.age[draw(flow.random) % TABLE]
    if back > 0:
        for k in range(PROBES):
            seq = clock.adds - back - k
            if seq < 0 or clock.adds - seq > RING:
                break
            slot = flow.ring[seq % RING]
            if flow.orders[slot].ref == flow.ring_ref[seq % RING]:
                return slot
    return flow.alive[draw(flow.random) % clock.live]


@njit(cache=True)
def who(flow, shape):
    """A name by activity (alias method)."""
    n = len(shape.who_keep)
    i = draw(flow.random) % n
    return i if unit(flow.random) < shape.who_keep[i] else shape.who_alias[i]


@njit(cache=True)
def place(flow, shape, i):
    """Side and tick of a new order: behind the own best, or inside a spread of more than one tick."""
    name = flow.names[i]
    bid, ask = name.bid, name.ask
    middle = WINDOW // 2
    if bid >= 0 and ask < WINDOW:
        middle = (bid + ask) // 2
    lean = 0.5 + 0.6 * (WINDOW // 2 - middle) / WINDOW
    is_ask = 0 if unit(flow.random) < lean else 1
    away = shape.away[draw(flow.random) % TABLE]
    spread = ask - bid if bid >= 0 and ask < WINDOW else WINDOW
    inside = 0.05 + 0.02 * min(spread - 1, 20)
    if bid < 0 and ask == WINDOW:
        tick = middle - 1 - away if not is_ask else middle + 1 + away
    elif is_ask:
        best = ask if ask < WINDOW else bid + 2
        step = 1 + draw(flow.random) % max((spread - 1) // 2, 1) if spread < WINDOW else 0
        tick = best - step if spread > 1 and unit(flow.random) < inside else best + away
        tick = max(tick, bid + 1)
    else:
        best = bid if bid >= 0 else ask - 2
        step = 1 + draw(flow.random) % max((spread - 1) // 2, 1) if spread < WINDOW else 0
        tick = best + step if spread > 1 and unit(flow.random) < inside else best - away
        tick = min(tick, ask - 1)
    if tick < EDGE:
        tick = min(EDGE + draw(flow.random) % EDGE, ask - 1)
    if tick > WINDOW - EDGE:
        tick = max(WINDOW - EDGE - draw(flow.random) % EDGE, bid + 1)
    return is_ask, i * WINDOW + tick


@njit(cache=True)
def write_add(flow, buf, at, slot, mpid):
    o = flow.orders[slot]
    code = 70 if mpid else 65
    end = begin(flow, buf, at, _F.end if mpid else _A.end, code, o.cell // WINDOW + 1)
    put(buf, at + _A.ref, 8, o.ref)
    buf[at + _A.side] = 83 if o.ask else 66
    put(buf, at + _A.shares, 4, o.qty)
    put(buf, at + _A.stock, 8, flow.names[o.cell // WINDOW].symbol)
    put(buf, at + _A.price, 4, price_of(flow, o.cell))
    if mpid:
        put(buf, at + _F.mpid, 4, 0x4D4D4B52)
    return end


@njit(cache=True)
def size_of(flow):
    """Round lots mostly, one in six an odd lot."""
    r = draw(flow.random)
    if r % 6 == 0:
        return 1 + (r >> 8) % 99
    return 100 * (1 + (r >> 8) % LOT_MAX)


@njit(cache=True)
def do_add(flow, shape, buf, at, mpid):
    ask, cell = place(flow, shape, who(flow, shape))
    slot = post(flow, shape, cell, ask, size_of(flow))
    note_place(flow, cell, ask)
    flow.clock[0].bbo += is_best(flow, cell, ask)
    return write_add(flow, buf, at, slot, mpid)


@njit(cache=True)
def do_delete(flow, shape, buf, at):
    slot = pick(flow, shape)
    if slot < 0:
        return do_add(flow, shape, buf, at, 0)
    o = flow.orders[slot]
    note_place(flow, o.cell, o.ask)
    flow.clock[0].bbo += is_best(flow, o.cell, o.ask)
    end = begin(flow, buf, at, _D.end, 68, o.cell // WINDOW + 1)
    put(buf, at + _D.ref, 8, o.ref)
    drop(flow, slot)
    return end


@njit(cache=True)
def do_replace(flow, shape, buf, at):
    """Mostly a price step or two, else a new size at the same price; a replace never crosses and loses its place."""
    slot = pick(flow, shape)
    if slot < 0:
        return do_add(flow, shape, buf, at, 0)
    o = flow.orders[slot]
    ref, cell, ask, qty = o.ref, o.cell, o.ask, o.qty
    name, tick = flow.names[cell // WINDOW], cell % WINDOW
    r = draw(flow.random)
    new_qty = qty if r % 4 else size_of(flow)
    if r % 4:
        step = 1 + (r >> 4) % 3
        tick += step if (r >> 8) & 1 else -step
        tick = min(max(tick, EDGE), WINDOW - EDGE)
        tick = max(tick, name.bid + 1) if ask else min(tick, name.ask - 1)
    new_cell = cell - cell % WINDOW + tick
    note_place(flow, cell, ask)
    touched = is_best(flow, cell, ask)
    end = begin(flow, buf, at, _U.end, 85, cell // WINDOW + 1)
    drop(flow, slot)
    new = post(flow, shape, new_cell, ask, new_qty)
    touched = touched or is_best(flow, new_cell, ask)
    flow.clock[0].bbo += touched and not (new_cell == cell and new_qty == qty)
    put(buf, at + _U.ref, 8, ref)
    put(buf, at + _U.new_ref, 8, flow.orders[new].ref)
    put(buf, at + _U.shares, 4, new_qty)
    put(buf, at + _U.price, 4, price_of(flow, new_cell))
    return end


@njit(cache=True)
def do_execute(flow, shape, buf, at):
    """The front of the best level of a name's side, whole more often than in part."""
    i = who(flow, shape)
    name = flow.names[i]
    ask = draw(flow.random) & 1
    if (ask and name.ask == WINDOW) or (not ask and name.bid < 0):
        return do_add(flow, shape, buf, at, 0)
    cell = i * WINDOW + (name.ask if ask else name.bid)
    slot = flow.head[cell]
    o = flow.orders[slot]
    take = o.qty
    if o.qty > 1 and unit(flow.random) < 0.44:
        take = 1 + draw(flow.random) % (o.qty - 1)
    note_place(flow, cell, ask)
    clock = flow.clock[0]
    clock.bbo += 1
    clock.match += 1
    end = begin(flow, buf, at, _E.end, 69, i + 1)
    put(buf, at + _E.ref, 8, o.ref)
    put(buf, at + _E.shares, 4, take)
    put(buf, at + _E.match, 8, clock.match)
    if take == o.qty:
        drop(flow, slot)
    else:
        o.qty -= take
    return end


@njit(cache=True)
def do_cancel(flow, shape, buf, at):
    slot = pick(flow, shape)
    if slot < 0 or flow.orders[slot].qty < 2:
        return do_add(flow, shape, buf, at, 0)
    o = flow.orders[slot]
    take = 1 + draw(flow.random) % (o.qty - 1)
    note_place(flow, o.cell, o.ask)
    flow.clock[0].bbo += is_best(flow, o.cell, o.ask)
    end = begin(flow, buf, at, _X.end, 88, o.cell // WINDOW + 1)
    put(buf, at + _X.ref, 8, o.ref)
    put(buf, at + _X.shares, 4, take)
    o.qty -= take
    return end


@njit(cache=True)
def do_other(flow, shape, buf, at, kind):
    """I, P or L: messages that no displayed book takes."""
    i = who(flow, shape)
    name = flow.names[i]
    price = name.base + TICK * (WINDOW // 2)
    if kind == 0:
        end = begin(flow, buf, at, _I.end, 73, i + 1)
        put(buf, at + _I.paired, 8, 100 * (draw(flow.random) % 900))
        put(buf, at + _I.imbalance, 8, 0)
        buf[at + _I.direction] = 78
        put(buf, at + _I.stock, 8, name.symbol)
        put(buf, at + _I.far, 4, price)
        put(buf, at + _I.near, 4, price)
        put(buf, at + _I.reference, 4, price)
        buf[at + _I.cross_type] = 67
        return end
    if kind == 1:
        flow.clock[0].match += 1
        end = begin(flow, buf, at, _P.end, 80, i + 1)
        put(buf, at + _P.ref, 8, 0)
        buf[at + _P.side] = 66
        put(buf, at + _P.shares, 4, size_of(flow))
        put(buf, at + _P.stock, 8, name.symbol)
        put(buf, at + _P.price, 4, price)
        put(buf, at + _P.match, 8, flow.clock[0].match)
        return end
    end = begin(flow, buf, at, _L.end, 76, i + 1)
    put(buf, at + _L.stock, 8, name.symbol)
    buf[at + _L.primary_mm], buf[at + _L.mm_mode], buf[at + _L.participant_state] = 89, 78, 65
    return end


@njit(cache=True)
def step(flow, shape, buf, at, target):
    """One message; A against D steers the live orders to `target`."""
    clock = flow.clock[0]
    clock.time += shape.gap[draw(flow.random) % TABLE]
    clock.messages += 1
    r, mix = unit(flow.random), shape.mix
    if r >= mix[6]:
        want = 0.5 + (target - clock.live) / 2000.0
        if unit(flow.random) < min(max(want, 0.01), 0.99):
            return do_add(flow, shape, buf, at, 0)
        return do_delete(flow, shape, buf, at)
    if r < mix[0]:
        return do_replace(flow, shape, buf, at)
    if r < mix[1]:
        return do_execute(flow, shape, buf, at)
    if r < mix[2]:
        return do_cancel(flow, shape, buf, at)
    if r < mix[3]:
        return do_add(flow, shape, buf, at, 1)
    return do_other(flow, shape, buf, at, 0 if r < mix[4] else 1 if r < mix[5] else 2)


@njit(cache=True)
def run(flow, shape, buf, targets):
    """One message a target; returns the bytes written."""
    at = 0
    for k in range(len(targets)):
        at = step(flow, shape, buf, at, targets[k])
    return at


@njit(cache=True)
def fill(flow, shape, buf, target, most):
    """Adds only until `target` orders live, at most `most` of them; returns bytes written and whether it is done."""
    at, clock = 0, flow.clock[0]
    for _ in range(most):
        if clock.live >= target:
            return at, True
        clock.time += shape.gap[draw(flow.random) % TABLE]
        clock.messages += 1
        at = do_add(flow, shape, buf, at, 0)
    return at, clock.live >= target


@njit(cache=True)
def opening(flow, buf):
    """O, S, then R and H of every name, then Q; returns the bytes written."""
    at = 0
    for event in (79, 83):
        end = begin(flow, buf, at, _S.end, 83, 0)
        buf[at + _S.event] = event
        at = end
    for i in range(len(flow.names)):
        end = begin(flow, buf, at, _R.end, 82, i + 1)
        put(buf, at + _R.stock, 8, flow.names[i].symbol)
        put(buf, at + _R.round_lot_size, 4, 100)
        put(buf, at + _R.etp_leverage, 4, 0)
        buf[at + _R.authenticity] = 80
        at = end
    for i in range(len(flow.names)):
        end = begin(flow, buf, at, _H.end, 72, i + 1)
        put(buf, at + _H.stock, 8, flow.names[i].symbol)
        buf[at + _H.state] = 84
        at = end
    end = begin(flow, buf, at, _S.end, 83, 0)
    buf[at + _S.event] = 81
    flow.clock[0].messages += 3 + 2 * len(flow.names)
    return end


@njit(cache=True)
def closing(flow, buf):
    """M, E, C; returns the bytes written."""
    at = 0
    for event in (77, 69, 67):
        end = begin(flow, buf, at, _S.end, 83, 0)
        buf[at + _S.event] = event
        at = end
    flow.clock[0].messages += 3
    return at


@njit(cache=True)
def books(flow, best, levels):
    """Final best (symbols, 4: bid px, qty, ask px, qty; 0 = empty), levels (symbols, 2); returns all shares."""
    shares = 0
    for cell in range(len(flow.head)):
        slot = flow.head[cell]
        if slot < 0:
            continue
        i, ask, qty = cell // WINDOW, flow.orders[slot].ask, 0
        while slot >= 0:
            qty += flow.orders[slot].qty
            slot = flow.orders[slot].next
        levels[i, ask] += 1
        shares += qty
        if is_best(flow, cell, ask):
            best[i, 2 * ask], best[i, 2 * ask + 1] = price_of(flow, cell), qty
    return shares


def empty(symbols: int, capacity: int, base: NDArray[np.int64], start_ns: int, seed: int) -> Flow:
    """A market without orders. `base` is each name's price at tick 0 in 1e-4 dollars."""
    names = np.zeros(symbols, NAME)
    names["base"], names["bid"], names["ask"] = base, -1, WINDOW
    names["symbol"] = [int.from_bytes(f"S{i + 1:05d}".ljust(8).encode(), "big") for i in range(symbols)]
    clock = np.zeros(1, CLOCK)
    clock["time"], clock["free"] = start_ns, capacity
    cells = np.full((2, symbols * WINDOW), -1, np.int32)
    return Flow(
        np.zeros(capacity, ORDER),
        names,
        clock,
        np.array([seed], np.uint64),
        cells[0],
        cells[1],
        np.zeros(capacity, np.int32),
        np.arange(capacity, dtype=np.int32)[::-1].copy(),
        np.zeros(RING, np.int32),
        np.zeros(RING, np.int64) - 2,
        np.zeros(64, np.int64),
        np.zeros(256, np.int64),
    )
