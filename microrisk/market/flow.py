"""The ordinary flow of one instrument: who sends what and when. Compiled; arrivals by thinning of intensities.

Intensities are Hawkes-like with exponential kernels (Hawkes 1971; simulation by thinning, Ogata 1981): trades excite
trades, new orders and cancellations on two time scales, changes of the best price excite quotes. Cancellation is a
hazard of each resting order. A slow value that only informed orders know, and that learns from the middle price, keeps
returns uncorrelated; its volatility, the activity and the liquidity wander slowly. News, halts and hidden prints are
ordinary life. Units: ticks, seconds for rates, ns for times, shares for quantities.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from microrisk.market.agent import act
from microrisk.market.matching import (
    ACT_AT,
    BEST,
    BORN,
    CROSS,
    DELETE,
    GRID,
    HALT_END,
    HIDDEN,
    LEFT_0,
    N_LIVE,
    N_OUT,
    NOW,
    OPENED,
    OWNER,
    PLAN,
    PX,
    QTY,
    REDUCE,
    ROWS,
    SIDE,
    SIGN_0,
    SLOW_AT,
    STATE,
    TAIL,
    Market,
    add,
    depth,
    emit,
    hidden_print,
    replace,
    sweep,
    take,
    two_sided,
)
from microrisk.market.plan import P_START
from microrisk.market.rng import INNER, JIT, exp, exponential, gaussian, log, uniform
from microrisk.market.state import (
    ACTIVITY,
    ADD_BASE,
    ADD_FACTOR,
    CANCEL_ASK,
    CANCEL_BID,
    FAST,
    FLOW_FACTOR,
    HALTS,
    LENGTH,
    LIQUIDITY,
    NEWS,
    NEWS_RATE,
    PACE,
    QUOTES,
    ROOM,
    SLOW,
    VALUE,
    VOLATILITY,
)
from microrisk.spec.records import TradingState

HALTED, TRADING = int(TradingState.HALTED), int(TradingState.TRADING)
NEVER = 1 << 62
SLOW_NS = 50_000_000
MARGIN = 4096
"""Rows kept free in the output: more than one step can write."""
OPENING_NS = 1_000_000_000
OPENING_ORDERS = 300

# arrivals a second at activity 1, before excitation
MARKET_RATE, LIMIT_RATE, CANCEL_RATE, REPLACE_RATE = 0.62, 15.5, 0.036, 2.3
REPRICE_RATE = 9.0
# decay of the three kernels (1/s), and how many followers one event has in each
FAST_DECAY, SLOW_DECAY, QUOTE_DECAY = 9.0, 0.22, 30.0
MARKET_FAST, MARKET_SLOW = 0.32, 0.26
LIMIT_FAST, LIMIT_SLOW, LIMIT_QUOTE = 1.8, 2.6, 1.2
CANCEL_FAST, CANCEL_SLOW, CANCEL_QUOTE = 1.0, 1.6, 0.8
# hazard of a resting order relative to CANCEL_RATE; its largest value
FAR_HAZARD, AGE_HAZARD, AGE_S, STALE_HAZARD, HAZARD_TOP = 0.04, 0.8, 30.0, 4.0, 12.3
WAVE = 1.0 / 500.0
VALUE_SD = 0.55
"""Ticks a square-root second that the value moves, at volatility 1."""
LEARN_S = 12.0
METAORDERS = 2


@njit(**INNER)
def _size(m: Market) -> int:
    """Shares: round lots with a power tail of exponent 2, now and then an odd lot."""
    if uniform(m.rng) < 0.04:
        return 1 + int(99 * uniform(m.rng))
    lots = int(1.2 / math.sqrt(1.0 - uniform(m.rng)) - 0.2)
    return 100 * lots if lots < 40 else 4000


@njit(**INNER)
def _place(m: Market, side: int) -> int:
    """Price of a passive order: a power law of the distance behind the own best, sometimes inside the spread.

    Nobody quotes nearer to the value than ROOM allows.
    """
    touch, other, rng = m.ints[BEST + ((1 - side) >> 1)], m.ints[BEST + ((1 + side) >> 1)], m.rng
    bound = math.floor(side * m.floats[VALUE] + m.floats[ROOM]) * side
    if (bound - touch) * side > 12:  # an empty or far retreated side is built up again near the value
        touch = bound - 8 * side
    spread = (other - touch) * side
    if 1 < spread < 100 and uniform(rng) < 0.30 + 0.06 * spread:
        px = touch + side * (1 + int((spread - 1) * uniform(rng) * 0.7))
    else:
        far = int(3.0 / (1.0 - uniform(rng)) - 3.0)
        px = touch - side * (far if far < 150 else 150)
    if (px - bound) * side > 0:
        px = bound - side * int(2.0 * uniform(rng))
    if (px - other) * side >= 0:
        px = other - side
    return int(px)


@njit(**INNER)
def _aggressor(m: Market) -> int:
    """Side of the next market order: mostly the next slice of a hidden large order, whose length has a power tail.

    Others follow the value above or below the middle, and the heavier side of the book.
    """
    ints, rng = m.ints, m.rng
    bids, asks = depth(m, 1, 5), depth(m, -1, 5)
    pull = 0.22 * (m.floats[VALUE] - 0.5 * (ints[BEST] + ints[BEST + 1])) + 0.15 * (bids - asks) / (bids + asks)
    drawn = 1 if uniform(rng) < 0.5 + pull else -1
    k = LEFT_0 + int(METAORDERS * uniform(rng))
    if ints[k] <= 0:
        ints[k - LEFT_0 + SIGN_0] = drawn
        length = exp(-log(1.0 - uniform(rng)) / 1.5)
        ints[k] = int(length) if length < 400.0 else 400
    if uniform(rng) < 0.2:
        return drawn
    ints[k] -= 1
    return int(ints[k - LEFT_0 + SIGN_0])


@njit(**INNER)
def _market_order(m: Market) -> None:
    """An aggressive order: a hidden print, a bite of the touch, all of it, or a sweep whose rest stays as a quote."""
    if not two_sided(m):
        return
    side = _aggressor(m)
    px, qty, u = m.ints[BEST + ((1 + side) >> 1)], _size(m), uniform(m.rng)
    if u < 0.06:
        hidden_print(m, px, qty, -side, HIDDEN)
    else:
        if u < 0.28:  # all of the touch
            qty = depth(m, -side, 1) + (qty if u > 0.22 else 0)
        left = sweep(m, side, qty, px)
        if left > 0:
            add(m, side, px, left, 0)
    m.floats[FAST] += 1.0
    m.floats[SLOW] += 1.0


@njit(**INNER)
def _withdraw(m: Market, bound: float) -> None:
    """A candidate cancellation: a resting order at random, thinned by its hazard; sometimes only a part of it goes.

    The hazard grows with distance and age, and jumps for a quote that is too near to the value, or beyond it.
    """
    f, orders, rng = m.floats, m.orders, m.rng
    slot = m.live[int(m.ints[N_LIVE] * uniform(rng))]
    side, qty = orders[slot, SIDE], orders[slot, QTY]
    far = (m.ints[BEST + ((1 - side) >> 1)] - orders[slot, PX]) * side
    age = (m.ints[NOW] - orders[slot, BORN]) * 1e-9 / AGE_S
    stale = (orders[slot, PX] - f[VALUE]) * side - f[ROOM] - 0.1
    hazard = (1.0 + FAR_HAZARD * (far if far < 50 else 50)) * (0.6 + AGE_HAZARD * (age if age < 1.0 else 1.0))
    hazard += STALE_HAZARD * (0.0 if stale < 0.0 else stale if stale < 2.0 else 2.0)
    hazard *= f[CANCEL_BID] if side > 0 else f[CANCEL_ASK]
    if orders[slot, OWNER] != 0 or uniform(rng) * bound > hazard:
        return
    if qty >= 200 and uniform(rng) < 0.25:
        take(m, slot, 100 * (1 + int((qty // 100 - 1) * uniform(rng))), REDUCE, 0)
    else:
        take(m, slot, qty, DELETE, 0)


@njit(**INNER)
def _requote(m: Market) -> None:
    """An ordinary replace: a new price by the placement law, or a new size at the old one."""
    slot = m.live[int(m.ints[N_LIVE] * uniform(m.rng))]
    if m.orders[slot, OWNER] == 0:
        px = _place(m, m.orders[slot, SIDE]) if uniform(m.rng) < 0.8 else m.orders[slot, PX]
        replace(m, slot, px, _size(m))


@njit(**INNER)
def _reprice(m: Market, s: int) -> None:
    """The youngest quote at a touch (0 bid, 1 ask) that is too near to the value goes."""
    slot = m.levels[s, m.ints[BEST + s], TAIL]
    if slot >= 0 and m.orders[slot, OWNER] == 0:
        take(m, slot, m.orders[slot, QTY], DELETE, 0)


@njit(**INNER)
def _wander(m: Market, place: int, tau: float, sd: float) -> float:
    """One SLOW_NS step of a logarithm that returns to 0 within `tau` s with deviation `sd`; the factor (mean 1)."""
    dt = SLOW_NS * 1e-9
    m.floats[place] += -m.floats[place] * dt / tau + sd * math.sqrt(2.0 * dt / tau) * gaussian(m.rng)
    return float(exp(m.floats[place] - 0.5 * sd * sd))


@njit(**INNER)
def _slow_step(m: Market, plans: NDArray[np.float64]) -> None:
    """Every SLOW_NS: activity, liquidity and volatility wander, the value moves, news and halts arrive."""
    f, ints, rng, dt = m.floats, m.ints, m.rng, SLOW_NS * 1e-9
    x = 2.0 * (ints[NOW] * 1e-9 / f[LENGTH]) - 1.0
    pace = _wander(m, ACTIVITY, 90.0, 0.35) * (0.8 + 0.6 * x * x)  # busy at both ends of the session, mean 1
    volatility = _wander(m, VOLATILITY, 60.0, 0.55) * math.sqrt(pace) * (1.0 + 0.4 * f[NEWS])
    f[ADD_BASE] = _wander(m, LIQUIDITY, 200.0, 0.22) / (1.0 + 0.4 * f[NEWS])
    f[NEWS] *= 1.0 - dt / 6.0
    f[PACE] = pace * (1.0 + f[NEWS])
    f[ROOM] = 0.35 - 0.6 * (volatility if volatility < 4.0 else 4.0) - 0.3 * f[NEWS]
    if two_sided(m):
        f[VALUE] += (0.5 * (ints[BEST] + ints[BEST + 1]) - f[VALUE]) * dt / LEARN_S
    f[VALUE] += VALUE_SD * math.sqrt(dt) * volatility * gaussian(rng)
    if uniform(rng) < f[NEWS_RATE] * dt:
        f[NEWS] += 1.0 + 1.5 * uniform(rng)
        f[VALUE] += (2.0 + 3.0 * exponential(rng)) * (1.0 if uniform(rng) < 0.5 else -1.0)
    f[VALUE] = min(max(f[VALUE], 400.0), GRID - 400.0)
    if uniform(rng) < f[HALTS] * dt and ints[HALT_END] == 0:
        _halt(m, plans)


@njit(**INNER)
def _halt(m: Market, plans: NDArray[np.float64]) -> None:
    """Trading stops for 10 to 60 s, unless an episode runs or would begin before the market has calmed down."""
    end = m.ints[NOW] + int((10.0 + 50.0 * uniform(m.rng)) * 1e9)
    if m.ints[PLAN] < plans.shape[0] and plans[m.ints[PLAN], P_START] < end + 10_000_000_000:
        return
    m.ints[HALT_END] = end
    emit(m, STATE, 0, HALTED, 0, 0, 0, 0)


@njit(**INNER)
def _resume(m: Market) -> None:
    """The auction's print at the middle, then continuous trading with a wave of orders."""
    hidden_print(m, (m.ints[BEST] + m.ints[BEST + 1]) >> 1, 100 * (20 + int(80 * uniform(m.rng))), 0, CROSS)
    emit(m, STATE, 0, TRADING, 0, 0, 0, 0)
    m.ints[HALT_END] = 0
    m.floats[NEWS] += 1.0


@njit(**INNER)
def _open(m: Market) -> None:
    """The opening book, built over one second before trading: no event of it crosses."""
    side = 1 - 2 * (m.ints[OPENED] & 1)
    if m.ints[OPENED] == OPENING_ORDERS:
        emit(m, STATE, 0, TRADING, 0, 0, 0, 0)
    else:
        add(m, side, _place(m, side), _size(m), 0)
    m.ints[OPENED] += 1


@njit(**INNER)
def _rates(m: Market, rates: NDArray[np.float64]) -> float:
    """Intensities now into `rates`: market, limit, cancel (candidates), replace, hazard bound, reprice; their sum.

    A wave of cancellations raises the hazard of every order alike: WAVE is one follower over the usual count of orders
    and their mean hazard. Halted markets see a few limit orders and cancellations, and no trade.
    """
    f, n = m.floats, m.ints[N_LIVE]
    quiet = 0.04 if m.ints[HALT_END] > 0 else f[FLOW_FACTOR]
    pace, fast, slow, quotes = f[PACE], FAST_DECAY * f[FAST], SLOW_DECAY * f[SLOW], QUOTE_DECAY * f[QUOTES]
    rates[0] = 0.0 if m.ints[HALT_END] > 0 else quiet * (MARKET_RATE * pace + MARKET_FAST * fast + MARKET_SLOW * slow)
    limit = LIMIT_RATE * pace + LIMIT_FAST * fast + LIMIT_SLOW * slow + LIMIT_QUOTE * quotes
    wave = CANCEL_FAST * fast + CANCEL_SLOW * slow + CANCEL_QUOTE * quotes
    rates[4] = HAZARD_TOP * max(f[CANCEL_BID], f[CANCEL_ASK])
    rates[1] = quiet * f[ADD_FACTOR] * f[ADD_BASE] * limit
    rates[2] = quiet * (CANCEL_RATE * pace + WAVE * wave) * n * rates[4]
    rates[3] = quiet * REPLACE_RATE * pace if n > 0 else 0.0
    for k in range(2):
        near = (1 - 2 * k) * (m.ints[BEST + k] - f[VALUE]) - f[ROOM]
        rates[5 + k] = quiet * pace * REPRICE_RATE * (0.4 + near) if 0.0 < near < 50.0 else 0.0
    return float(rates[0] + rates[1] + rates[2] + rates[3] + rates[5] + rates[6])


@njit(**INNER)
def _arrival(m: Market, u: float, rates: NDArray[np.float64]) -> None:
    """One arrival, its kind by `u`; beyond the sum of the rates nobody comes. A new best price excites the quotes."""
    bid, ask = m.ints[BEST], m.ints[BEST + 1]
    if u < rates[0]:
        _market_order(m)
    elif u < rates[0] + rates[1]:
        side = 1 if uniform(m.rng) < 0.5 else -1
        add(m, side, _place(m, side), _size(m), 0)
    elif u < rates[0] + rates[1] + rates[2]:
        _withdraw(m, rates[4])
    elif u < rates[0] + rates[1] + rates[2] + rates[3]:
        _requote(m)
    elif u < rates[0] + rates[1] + rates[2] + rates[3] + rates[5] + rates[6]:
        _reprice(m, 0 if u < rates[0] + rates[1] + rates[2] + rates[3] + rates[5] else 1)
    if bid != m.ints[BEST] or ask != m.ints[BEST + 1]:
        m.floats[QUOTES] += 1.0


@njit(**INNER)
def _advance(m: Market, to: int) -> None:
    """Move the clock; the three kernels fade."""
    dt, f = (to - m.ints[NOW]) * 1e-9, m.floats
    f[FAST] *= exp(-FAST_DECAY * dt)
    f[SLOW] *= exp(-SLOW_DECAY * dt)
    f[QUOTES] *= exp(-QUOTE_DECAY * dt)
    m.ints[NOW] = to


@njit(**JIT)
def run(m: Market, plans: NDArray[np.float64], rates: NDArray[np.float64], until: int) -> bool:
    """Go on until `until` (ns since the start) and return True, or return False when the output must be emptied first.

    plans: float64[n, P_COLUMNS] of this instrument, by start, not overlapping; rates: float64[7], room to work in.
    Between events the kernels only fade, so the intensity at the last event bounds the thinning.
    """
    ints = m.ints
    while ints[N_OUT] < ROWS - MARGIN:
        opening = OPENING_NS // (OPENING_ORDERS + 1) * (ints[OPENED] + 1) if ints[OPENED] <= OPENING_ORDERS else NEVER
        halt_end = ints[HALT_END] if ints[HALT_END] > 0 else NEVER
        fixed = min(min(ints[SLOW_AT], ints[ACT_AT]), min(opening, halt_end))
        at, total = NEVER, 0.0
        if opening == NEVER:
            total = _rates(m, rates)
            at = ints[NOW] + 1 + int(exponential(m.rng) / (total + 1e-9) * 1e9)
        if min(at, fixed) >= until:
            _advance(m, until)
            return True
        _advance(m, max(min(at, fixed), ints[NOW]))
        if at < fixed:
            _rates(m, rates)
            _arrival(m, uniform(m.rng) * total, rates)
        elif fixed == opening:
            _open(m)
        elif fixed == ints[SLOW_AT]:
            ints[SLOW_AT] += SLOW_NS
            _slow_step(m, plans)
        elif fixed == halt_end:
            _resume(m)
        else:
            act(m, plans)
    return False
