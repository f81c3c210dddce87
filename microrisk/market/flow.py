"""The ordinary flow of one instrument: who sends what and when. Compiled; arrivals by thinning of decaying intensities.

Intensities are Hawkes-like with exponential kernels (Hawkes 1971; simulation by thinning, Ogata 1981): trades excite trades,
new orders and cancellations on two time scales, changes of the best price excite quotes. Cancellation is a hazard of each
resting order. A slow value that only informed orders know, and that learns from the middle price, keeps returns
uncorrelated; its volatility, the activity and the liquidity wander slowly. News, halts and hidden prints are ordinary life.
Units: ticks, seconds for rates, ns for times, shares for quantities.
"""

from __future__ import annotations

import math

from numba import njit
from numpy.typing import NDArray

from microrisk.market.agent import act, finish
from microrisk.market.matching import (
    ACT_AT,
    BEST_ASK,
    BEST_BID,
    BORN,
    CROSS,
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
    SIDE,
    SIGN_0,
    SLOW_AT,
    STATE,
    Market,
    add,
    best,
    delete,
    depth,
    emit,
    hidden_print,
    reduce,
    replace,
    sweep,
)
from microrisk.market.plan import P_START
from microrisk.market.rng import JIT, exp, exponential, gaussian, log, uniform
from microrisk.market.state import (
    ACTIVITY,
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
    QUOTES,
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
MARKET_RATE, LIMIT_RATE, CANCEL_RATE, REPLACE_RATE = 0.62, 12.5, 0.036, 2.2
# decay of the three kernels (1/s), and how many followers one event has in each
FAST_DECAY, SLOW_DECAY, QUOTE_DECAY = 9.0, 0.22, 30.0
MARKET_FAST, MARKET_SLOW = 0.32, 0.26
LIMIT_FAST, LIMIT_SLOW, LIMIT_QUOTE = 1.8, 2.6, 1.2
CANCEL_FAST, CANCEL_SLOW, CANCEL_QUOTE = 1.0, 1.6, 0.8
# hazard of a resting order relative to CANCEL_RATE; its largest value
FAR_HAZARD, AGE_HAZARD, STALE_HAZARD, HAZARD_TOP = 0.04, 0.8, 7.0, 22.0
VALUE_SD = 0.55
"""Ticks a square-root second that the value moves, at volatility 1."""
LEARN_S = 12.0
METAORDERS = 3


@njit(**JIT)
def _size(m: Market) -> int:
    """Shares: round lots with a power tail of exponent 2, now and then an odd lot."""
    if uniform(m.rng) < 0.04:
        return 1 + int(99 * uniform(m.rng))
    return 100 * min(1 + int(1.2 * (1.0 / math.sqrt(1.0 - uniform(m.rng)) - 1.0)), 40)


@njit(**JIT)
def _place(m: Market, side: int) -> int:
    """Price of a passive order: a power law of the distance behind the own best, sometimes inside the spread.

    Nobody quotes through the value; news keep quotes away from it.
    """
    touch, other = best(m, side), best(m, -side)
    away = m.floats[VALUE] + side * (0.8 - 0.5 * m.floats[NEWS])
    bound = int(math.floor(away)) if side > 0 else int(math.ceil(away))
    if touch <= 0 or touch >= GRID - 1:
        touch = bound
    spread = (other - touch) * side
    if spread > 1 and 0 < other < GRID - 1 and uniform(m.rng) < 0.30 + 0.12 * min(spread, 5):
        px = touch + side * (1 + int((spread - 1) * uniform(m.rng) * 0.7))
    else:
        px = touch - side * min(int(3.0 * (1.0 / (1.0 - uniform(m.rng)) - 1.0)), 150)
    if (px - bound) * side > 0:
        px = bound - side * int(2.0 * uniform(m.rng))
    if (px - other) * side >= 0:
        px = other - side
    return min(max(px, 1), GRID - 2)


@njit(**JIT)
def _pull(m: Market) -> float:
    """Chance in excess of one half that the next aggressor buys: value above the middle, more bids than asks."""
    ints = m.ints
    if ints[BEST_BID] <= 0 or ints[BEST_ASK] >= GRID - 1:
        return 0.0
    bids, asks = depth(m, 1, 5), depth(m, -1, 5)
    gap = m.floats[VALUE] - 0.5 * (ints[BEST_BID] + ints[BEST_ASK])
    pull = 0.22 * gap + 0.15 * (bids - asks) / (bids + asks)
    return min(max(pull, -0.48), 0.48)


@njit(**JIT)
def _aggressor(m: Market) -> int:
    """Side of the next market order: mostly the next slice of a hidden large order, whose length has a power tail."""
    k = int(METAORDERS * uniform(m.rng))
    drawn = 1 if uniform(m.rng) < 0.5 + _pull(m) else -1
    if m.ints[LEFT_0 + k] <= 0:
        m.ints[SIGN_0 + k] = drawn
        m.ints[LEFT_0 + k] = min(int(exp(-log(1.0 - uniform(m.rng)) / 1.5)), 400)
    if uniform(m.rng) < 0.45:
        return drawn
    m.ints[LEFT_0 + k] -= 1
    return m.ints[SIGN_0 + k]


@njit(**JIT)
def _market_order(m: Market) -> None:
    """An aggressive order: a hidden print, a bite of the touch, all of it, or a sweep whose rest stays as a quote."""
    side = _aggressor(m)
    px = best(m, -side)
    if px <= 0 or px >= GRID - 1:
        return
    qty, u = _size(m), uniform(m.rng)
    if u < 0.06:
        hidden_print(m, px, qty, -side, HIDDEN)
    elif u < 0.22:
        sweep(m, side, depth(m, -side, 1), px)
    elif u < 0.28:
        left = sweep(m, side, depth(m, -side, 1) + qty, px)
        add(m, side, px, left, 0)
    else:
        sweep(m, side, qty, px + side)
    m.floats[FAST] += 1.0
    m.floats[SLOW] += 1.0


@njit(**JIT)
def _hazard(m: Market, slot: int) -> float:
    """Cancel hazard of an order in units of CANCEL_RATE: grows with distance and age, jumps when the value is through it."""
    o, f = m.orders[slot], m.floats
    side = o[SIDE]
    far = min((best(m, side) - o[PX]) * side, 50)
    age = min((m.ints[NOW] - o[BORN]) * 1e-9 / 30.0, 1.0)
    stale = min(max((o[PX] - f[VALUE]) * side - 0.4 + 0.4 * f[NEWS], 0.0), 2.0)
    hazard = (1.0 + FAR_HAZARD * far) * (0.6 + AGE_HAZARD * age) + STALE_HAZARD * stale
    return hazard * (f[CANCEL_BID] if side > 0 else f[CANCEL_ASK])


@njit(**JIT)
def _withdraw(m: Market, bound: float) -> None:
    """A candidate cancellation: a resting order at random, thinned by its hazard; one in nine only a part."""
    if m.ints[N_LIVE] == 0:
        return
    slot = m.live[int(m.ints[N_LIVE] * uniform(m.rng))]
    if m.orders[slot, OWNER] != 0 or uniform(m.rng) * bound > _hazard(m, slot):
        return
    qty = m.orders[slot, QTY]
    if qty >= 200 and uniform(m.rng) < 0.25:
        reduce(m, slot, 100 * (1 + int((qty // 100 - 1) * uniform(m.rng))), 0)
    else:
        delete(m, slot)


@njit(**JIT)
def _requote(m: Market) -> None:
    """An ordinary replace: a new price by the placement law, or a new size at the old one."""
    if m.ints[N_LIVE] == 0:
        return
    slot = m.live[int(m.ints[N_LIVE] * uniform(m.rng))]
    if m.orders[slot, OWNER] != 0:
        return
    px = _place(m, m.orders[slot, SIDE]) if uniform(m.rng) < 0.8 else m.orders[slot, PX]
    replace(m, slot, px, _size(m))


@njit(**JIT)
def _shape(m: Market) -> float:
    """Activity over the session: high at both ends, mean 1."""
    x = 2.0 * (m.ints[NOW] * 1e-9 / m.floats[LENGTH]) - 1.0
    return 0.8 + 0.6 * x * x


@njit(**JIT)
def _slow_step(m: Market, plans: NDArray[object]) -> None:
    """Every SLOW_NS: activity, liquidity and volatility return to their means, the value moves, news and halts arrive."""
    f, dt = m.floats, SLOW_NS * 1e-9
    f[ACTIVITY] += -f[ACTIVITY] * dt / 90.0 + 0.35 * math.sqrt(2.0 * dt / 90.0) * gaussian(m.rng)
    f[LIQUIDITY] += -f[LIQUIDITY] * dt / 200.0 + 0.22 * math.sqrt(2.0 * dt / 200.0) * gaussian(m.rng)
    f[VOLATILITY] += -f[VOLATILITY] * dt / 60.0 + 0.55 * math.sqrt(2.0 * dt / 60.0) * gaussian(m.rng)
    f[NEWS] *= 1.0 - dt / 6.0
    if m.ints[BEST_BID] > 0 and m.ints[BEST_ASK] < GRID - 1:
        f[VALUE] += (0.5 * (m.ints[BEST_BID] + m.ints[BEST_ASK]) - f[VALUE]) * dt / LEARN_S
    sd = VALUE_SD * math.sqrt(dt * _shape(m)) * exp(f[VOLATILITY] + 0.5 * f[ACTIVITY]) * (1.0 + 0.4 * f[NEWS])
    f[VALUE] = min(max(f[VALUE] + sd * gaussian(m.rng), 200.0), GRID - 200.0)
    if uniform(m.rng) < f[NEWS_RATE] * dt:
        f[NEWS] += 1.0 + 1.5 * uniform(m.rng)
        f[VALUE] += (2.0 + exponential(m.rng) * 3.0) * (1.0 if uniform(m.rng) < 0.5 else -1.0)
    if m.ints[HALT_END] == 0 and uniform(m.rng) < f[HALTS] * dt:
        _halt(m, plans)


@njit(**JIT)
def _halt(m: Market, plans: NDArray[object]) -> None:
    """Trading stops for 10 to 60 s, unless an episode runs or would begin before the market has calmed down."""
    end = m.ints[NOW] + int((10.0 + 50.0 * uniform(m.rng)) * 1e9)
    if m.ints[PLAN] < plans.shape[0] and plans[m.ints[PLAN], P_START] < end + 10_000_000_000:
        return
    m.ints[HALT_END] = end
    emit(m, STATE, 0, HALTED, 0, 0, 0, 0)


@njit(**JIT)
def _resume(m: Market) -> None:
    """The auction's print at the middle, then continuous trading with a wave of orders."""
    px = (best(m, 1) + best(m, -1)) // 2
    hidden_print(m, px, 100 * (20 + int(80 * uniform(m.rng))), 1, CROSS)
    emit(m, STATE, 0, TRADING, 0, 0, 0, 0)
    m.ints[HALT_END] = 0
    m.floats[NEWS] += 1.0


@njit(**JIT)
def _open(m: Market) -> None:
    """The opening book, built over one second before trading: no event of it crosses."""
    k = m.ints[OPENED]
    if k == OPENING_ORDERS:
        emit(m, STATE, 0, TRADING, 0, 0, 0, 0)
    else:
        side = 1 if k % 2 == 0 else -1
        add(m, side, _place(m, side), _size(m), 0)
    m.ints[OPENED] += 1


@njit(**JIT)
def _decay(m: Market, to: int) -> None:
    """Move the clock; the three kernels fade."""
    dt, f = (to - m.ints[NOW]) * 1e-9, m.floats
    f[FAST] *= exp(-FAST_DECAY * dt)
    f[SLOW] *= exp(-SLOW_DECAY * dt)
    f[QUOTES] *= exp(-QUOTE_DECAY * dt)
    m.ints[NOW] = to


@njit(**JIT)
def _rates(m: Market) -> tuple[float, float, float, float, float]:
    """Intensities now: market, limit, cancel (candidates), replace; and the bound of the hazards."""
    f = m.floats
    quiet = 0.04 if m.ints[HALT_END] > 0 else f[FLOW_FACTOR]
    pace = _shape(m) * exp(f[ACTIVITY] - 0.06) * (1.0 + f[NEWS]) * quiet
    fast, slow, quotes = FAST_DECAY * f[FAST], SLOW_DECAY * f[SLOW], QUOTE_DECAY * f[QUOTES]
    market = MARKET_RATE * pace + quiet * (MARKET_FAST * fast + MARKET_SLOW * slow)
    supply = exp(f[LIQUIDITY] - 0.4 * f[NEWS]) * f[ADD_FACTOR]
    limit = supply * (LIMIT_RATE * pace + quiet * (LIMIT_FAST * fast + LIMIT_SLOW * slow + LIMIT_QUOTE * quotes))
    bound = HAZARD_TOP * max(f[CANCEL_BID], f[CANCEL_ASK], 1.0)
    # a wave of cancellations raises the hazard of every order alike; 0.0042 = CANCEL_RATE over the usual count of orders
    wave = CANCEL_RATE * pace + quiet * (CANCEL_FAST * fast + CANCEL_SLOW * slow + CANCEL_QUOTE * quotes) / 500.0
    cancel = m.ints[N_LIVE] * wave * bound
    if m.ints[HALT_END] > 0:
        market = 0.0
    return market, limit, cancel, REPLACE_RATE * pace, bound


@njit(**JIT)
def _arrival(m: Market, u: float, rates: tuple[float, float, float, float, float]) -> None:
    """One arrival, its kind by `u` in [0, sum of rates); a change of a best price excites the quotes."""
    market, limit, cancel, change, bound = rates
    bid, ask = m.ints[BEST_BID], m.ints[BEST_ASK]
    if u < market:
        _market_order(m)
    elif u < market + limit:
        side = 1 if uniform(m.rng) < 0.5 else -1
        add(m, side, _place(m, side), _size(m), 0)
    elif u < market + limit + cancel:
        _withdraw(m, bound)
    elif u < market + limit + cancel + change:
        _requote(m)
    if bid != m.ints[BEST_BID] or ask != m.ints[BEST_ASK]:
        m.floats[QUOTES] += 1.0


@njit(**JIT)
def run(m: Market, plans: NDArray[object], until: int) -> bool:
    """Go on until `until` (ns since the start) and return True, or return False when the output has to be emptied first.

    plans: float64[n, P_COLUMNS] of this instrument, by start, not overlapping. The kernels only fade between events, so the
    intensity at the last event bounds the thinning.
    """
    ints = m.ints
    while ints[N_OUT] < m.out.shape[0] - MARGIN:
        opening = OPENING_NS // (OPENING_ORDERS + 1) * (ints[OPENED] + 1) if ints[OPENED] <= OPENING_ORDERS else NEVER
        fixed = min(ints[SLOW_AT], ints[ACT_AT], opening)
        if ints[HALT_END] > 0:
            fixed = min(fixed, ints[HALT_END])
        at = NEVER
        total = 0.0
        if opening == NEVER:
            market, limit, cancel, change, _ = _rates(m)
            total = market + limit + cancel + change
            at = ints[NOW] + 1 + int(exponential(m.rng) / total * 1e9)
        step = min(at, fixed)
        if step >= until:
            _decay(m, until)
            finish(m, plans)
            return True
        _decay(m, max(step, ints[NOW]))
        if at < fixed:
            rates = _rates(m)
            _arrival(m, uniform(m.rng) * total, rates)
        elif fixed == opening:
            _open(m)
        elif fixed == ints[SLOW_AT]:
            ints[SLOW_AT] += SLOW_NS
            _slow_step(m, plans)
        elif fixed == ints[HALT_END]:
            _resume(m)
        else:
            act(m, plans)
    return False
