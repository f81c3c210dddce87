"""The 32 features as one would write them on paper: floats, exact logarithms, continuous decay. To be read.

Nothing scores with this module; codes come from `kernels` alone. A test holds the integer features, divided by 16,
against these within a stated number of steps: what differs is the cut of lg (up to one step a logarithm), decay on a
grid (up to a sixteenth of a half-life late) and the floor of sizes and counters.

`Watcher` follows one instrument and fills a `Moment`; each feature is one function of the moment.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microrisk.errors import UsageError
from microrisk.features.state import MOVE_MAX, SPREAD_MAX
from microrisk.spec.formats import FEATURE, FEATURE_LOT_PARTS, TAU_FAST_SHIFT, TAU_SLOW_SHIFT
from microrisk.spec.records import DEPTH, N_FEATURES, VIEW

TIME_UNIT = 1024.0
"""ns: times enter the logarithm in 2^10 ns."""


def lg(x: float) -> float:
    """log2(1+x) of x >= 0."""
    return math.log2(1.0 + x)


def slg(x: float) -> float:
    """sign(x) * lg(|x|)."""
    return math.copysign(lg(abs(x)), x)


@dataclass
class Mean:
    """Exponentially weighted mean over about `span` values; the first value starts it, None before."""

    span: float
    value: float | None = None

    def add(self, x: float) -> None:
        """Move towards x by 1/span of the distance."""
        self.value = x if self.value is None else self.value + (x - self.value) / self.span


@dataclass
class Decayed:
    """Sums by name, all halved every `half_life` ns."""

    half_life: float
    sums: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def wait(self, ns: int) -> None:
        """Let time pass."""
        for name in self.sums:
            self.sums[name] *= 2.0 ** (-ns / self.half_life)

    def __getitem__(self, name: str) -> float:
        return self.sums[name]


@dataclass
class Moment:
    """What the formulas see after one view. Prices and spread in ticks, sizes in sixteenths of a lot, times in ns."""

    spread: float = 0.0  # SPREAD_MAX while a side is empty
    two_sided: bool = False
    bid: tuple[float, float, float] = (0.0, 0.0, 0.0)  # size summed to level 1, 5, 10
    ask: tuple[float, float, float] = (0.0, 0.0, 0.0)
    usual_depth: float | None = None  # means before this view, None before the first
    usual_spread: float | None = None
    empty: int = 0  # ticks without liquidity among the first ten of each side
    fast: Decayed = field(default_factory=lambda: Decayed(float(1 << TAU_FAST_SHIFT)))
    slow: Decayed = field(default_factory=lambda: Decayed(float(1 << TAU_SLOW_SHIFT)))
    gap: float = 0.0  # since the message before this view
    usual_gap: Mean = field(default_factory=lambda: Mean(16))
    quote_age: float = 0.0
    usual_life: Mean = field(default_factory=lambda: Mean(16))
    reversals: Mean = field(default_factory=lambda: Mean(16, 0.0))


# --- state of the book -------------------------------------------------------------------------------------------


def spread(m: Moment) -> float:
    """lg(16 (a - b)). Gould et al. 2013."""
    return lg(16 * m.spread)


def depth(m: Moment, k: int) -> float:
    """lg(VB_k + VA_k), k = 0, 1, 2 for 1, 5, 10 levels. LOB-Bench 2025."""
    return lg(m.bid[k] + m.ask[k])


def imbalance(m: Moment, k: int) -> float:
    """lg(VB_k) - lg(VA_k). Cartea, Donnelly, Jaimungal 2018."""
    return lg(m.bid[k]) - lg(m.ask[k])


def slope_bid(m: Moment) -> float:
    """lg(VB_1) - lg(VB_10): how little of the depth stands in front. Naes, Skjeltorp 2006."""
    return lg(m.bid[0]) - lg(m.bid[2])


def slope_ask(m: Moment) -> float:
    """The same of the ask side."""
    return lg(m.ask[0]) - lg(m.ask[2])


def microprice(m: Moment) -> float:
    """Microprice minus mid, (a - b)/2 * (VB_1 - VA_1)/(VB_1 + VA_1), in ticks; sizes count one more. Stoikov 2018."""
    bid, ask = m.bid[0] + 1, m.ask[0] + 1  # the ratio is taken through lg(x) = log2(1 + x)
    return m.spread / 2 * (bid - ask) / (bid + ask) if m.two_sided else 0.0


def depth_dev(m: Moment) -> float:
    """Depth of five levels against its mean over 256 events. Large 2007 (resiliency)."""
    return 0.0 if m.usual_depth is None else depth(m, 1) - m.usual_depth


def spread_dev(m: Moment) -> float:
    """Spread against its mean over 256 events, ticks. Large 2007."""
    return 0.0 if m.usual_spread is None else m.spread - m.usual_spread


def empty_levels(m: Moment) -> float:
    """Ticks without liquidity among the first ten of each side. Farmer et al. 2004 (gaps make jumps)."""
    return float(m.empty)


# --- flow --------------------------------------------------------------------------------------------------------


def ofi(flow: Decayed) -> float:
    """Decayed order-flow imbalance, as slg. Cont, Kukanov, Stoikov 2014."""
    return slg(flow["ofi"])


def rate(flow: Decayed, name: str) -> float:
    """lg(16 n), n a decayed number of events. Hendershott, Jones, Menkveld 2011."""
    return lg(16 * flow[name])


def rate_ratio(flow: Decayed, above: str, below: str) -> float:
    """lg(16 n) - lg(16 m): signs of trades (Lee, Ready 1991; Bouchaud et al. 2004), cancel to trade (SEC MIDAS
    metrics), cancel to add (Egginton, Van Ness, Van Ness 2016).
    """
    return rate(flow, above) - rate(flow, below)


def size_ratio(flow: Decayed, above: str, below: str) -> float:
    """lg(V) - lg(W) of decayed sizes: skew of adds and cancels (Cao et al. 2014), far posting (Fabre, Challet 2025)."""
    return lg(flow[above]) - lg(flow[below])


def burst(m: Moment) -> float:
    """lg(16 n_F) - lg(n_L): messages of the last second against the last sixteen, 0 when steady. Cao et al. 2014."""
    return lg(16 * m.fast["message"]) - lg(m.slow["message"])


def variance(flow: Decayed) -> float:
    """lg(16 RV), RV the decayed sum of squared mid moves in ticks. Andersen et al. 2003."""
    return lg(16 * flow["variance"])


def toxicity(m: Moment) -> float:
    """lg|signed volume| - lg(volume): flow toxicity with trade signs. Easley, Lopez de Prado, O'Hara 2012."""
    return lg(abs(m.slow["signed"])) - lg(m.slow["volume"])


def wash(m: Moment) -> float:
    """16 times the share of trades that undo the one before: same size, other sign; mean over 16 signed trades."""
    return 16 * (m.reversals.value or 0.0)


# --- time --------------------------------------------------------------------------------------------------------


def gap(m: Moment) -> float:
    """The larger of the usual lg(gap between messages) and the present one: slow feed, or silent feed."""
    return max(m.usual_gap.value or 0.0, lg(m.gap / TIME_UNIT))


def quote_age(m: Moment) -> float:
    """lg(age of the best quote) against the usual lg of its life. Hasbrouck, Saar 2013."""
    return 0.0 if m.usual_life.value is None else lg(m.quote_age / TIME_UNIT) - m.usual_life.value


FORMULAS: tuple[Callable[[Moment], float], ...] = (
    spread,
    *(lambda m, k=k: depth(m, k) for k in range(3)),
    *(lambda m, k=k: imbalance(m, k) for k in range(3)),
    slope_bid,
    slope_ask,
    microprice,
    lambda m: ofi(m.fast),
    lambda m: ofi(m.slow),
    lambda m: rate_ratio(m.fast, "buy", "sell"),
    lambda m: rate_ratio(m.slow, "buy", "sell"),
    lambda m: rate(m.fast, "add"),
    lambda m: rate(m.fast, "cancel"),
    lambda m: rate(m.fast, "trade"),
    lambda m: rate_ratio(m.slow, "cancel", "trade"),
    lambda m: rate_ratio(m.fast, "cancel", "add"),
    lambda m: size_ratio(m.fast, "add bid", "add ask"),
    lambda m: size_ratio(m.fast, "cancel bid", "cancel ask"),
    burst,
    gap,
    quote_age,
    lambda m: variance(m.fast),
    lambda m: variance(m.slow),
    depth_dev,
    spread_dev,
    empty_levels,
    toxicity,
    lambda m: size_ratio(m.fast, "add far", "add near"),
    wash,
)
"""In the order of spec.features."""


class Watcher:
    """Follows one instrument view by view and keeps its Moment."""

    def __init__(self, tick: int, lot: int) -> None:
        self.tick, self.part = tick, max(1, lot // FEATURE_LOT_PARTS)
        self.moment = Moment()
        self.now = self.last = self.quoted = 0
        self.quote: tuple[float, float, float, float] | None = None  # b, its size, a, its size
        self.mid: float | None = None
        self.usual_depth, self.usual_spread = Mean(256), Mean(256)
        self.last_trade = (0, 0)

    def see(self, v: Any) -> Moment | None:
        """One view; None for a staleness tick before the first event."""
        if v["tick"] and self.quote is None:
            return None
        first, m = self.quote is None, self.moment
        now = max(self.now, int(v["now"]))
        m.fast.wait(now - self.now)
        m.slow.wait(now - self.now)
        self.now = now
        m.gap = 0.0 if first else float(now - self.last)
        if not v["tick"]:
            self._book(v)
            self._messages(v, first)
        m.quote_age = float(now - self.quoted)
        return m

    def _count(self, name: str, amount: float = 1.0) -> None:
        self.moment.fast.sums[name] += amount
        self.moment.slow.sums[name] += amount

    def _side(self, v: Any, name: str) -> tuple[list[int], tuple[float, float, float]]:
        """Prices of the levels shown, and the size summed to level 1, 5, 10."""
        n = int(v[f"n_{name}"])
        qty = [int(q) / self.part for q in v[f"{name}_qty"][:n]]
        return [int(p) for p in v[f"{name}_px"][:n]], (sum(qty[:1]), sum(qty[:5]), sum(qty))

    def _book(self, v: Any) -> None:
        m = self.moment
        bid_px, m.bid = self._side(v, "bid")
        ask_px, m.ask = self._side(v, "ask")
        m.two_sided = bool(bid_px and ask_px)
        b = float(bid_px[0]) if bid_px else -math.inf
        a = float(ask_px[0]) if ask_px else math.inf
        m.spread = min(max((a - b) / self.tick, 0.0), SPREAD_MAX) if m.two_sided else float(SPREAD_MAX)
        self._quote(b, m.bid[0], a, m.ask[0])
        near = [abs(p - px[0]) < DEPTH * self.tick for px in (bid_px, ask_px) for p in px]
        m.empty = 2 * DEPTH - sum(near)
        m.usual_depth, m.usual_spread = self.usual_depth.value, self.usual_spread.value
        if m.two_sided:
            self._mid((a + b) / 2 / self.tick)
            self.usual_depth.add(depth(m, 1))
            self.usual_spread.add(m.spread)

    def _quote(self, b: float, b_size: float, a: float, a_size: float) -> None:
        """Order-flow imbalance and quote life, when the best price or size changed."""
        old, self.quote = self.quote, (b, b_size, a, a_size)
        if old is not None and old != self.quote:
            e = b_size * (b >= old[0]) - old[1] * (b <= old[0]) - a_size * (a <= old[2]) + old[3] * (a >= old[2])
            self._count("ofi", e)
            self.moment.usual_life.add(lg((self.now - self.quoted) / TIME_UNIT))
        if old != self.quote:
            self.quoted = self.now

    def _mid(self, mid: float) -> None:
        if self.mid is not None:
            self._count("variance", min(abs(mid - self.mid), MOVE_MAX / 2) ** 2)
        self.mid = mid

    def _messages(self, v: Any, first: bool) -> None:
        """Number and size of what the event did; the aggressor of a trade is the other side of the resting order."""
        if not first:
            self.moment.usual_gap.add(lg(self.moment.gap / TIME_UNIT))
        self.last = self.now
        self._count("message")
        side = {1: " bid", -1: " ask", 0: ""}[int(v["side"])]
        for name in ("add", "cancel"):
            size = int(v[f"{name}_qty"]) / self.part
            if size > 0:
                self._count(name)
                self._count(name + side if side else "unsided", size)
        if v["add_qty"] > 0:
            self._count("add far" if v["level"] >= 2 else "add near", int(v["add_qty"]) / self.part)
        if v["trade_qty"] > 0:
            self._trade(int(v["trade_qty"]), -int(v["side"]))

    def _trade(self, qty: int, sign: int) -> None:
        self._count("trade")
        self._count("volume", qty / self.part)
        if sign:
            self._count("buy" if sign > 0 else "sell")
            self._count("signed", sign * qty / self.part)
            self.moment.reversals.add(float(self.last_trade == (qty, -sign)))
            self.last_trade = (qty, sign)


def features_float(views: NDArray[np.void], tick: int, lot: int) -> NDArray[np.float64]:
    """The features of one instrument: float64[n, 32] in units (16 integer steps), cut to the range of FEATURE.

    views : VIEW[n] in order; tick, lot : positive, feed units. Rows of ticks before the first event are 0.
    Raises UsageError for another dtype, or without tick and lot.
    """
    if views.dtype != VIEW or tick < 1 or lot < 1:
        raise UsageError(f"need VIEW[n], a tick and a lot of at least 1, got {views.dtype}, {tick}, {lot}")
    watcher, out = Watcher(tick, lot), np.zeros((len(views), N_FEATURES))
    for row, v in zip(out, views, strict=True):
        moment = watcher.see(v)
        if moment is not None:
            row[:] = [formula(moment) for formula in FORMULAS]
    step = 1 << FEATURE.frac
    return np.clip(out, FEATURE.low / step, FEATURE.high / step)
