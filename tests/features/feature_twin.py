"""The feature kernel again, naive: Python integers, nothing cached, written from the formulas of spec.features."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

FAST = (
    "ofi",
    "buy",
    "sell",
    "add",
    "cancel",
    "trade",
    "msg",
    "rv",
    "far",
    "near",
    "add+",
    "add-",
    "cancel+",
    "cancel-",
)
SLOW = ("ofi", "buy", "sell", "cancel", "trade", "msg", "rv", "signed", "volume")
ROM = [round(65536 * 2 ** (-k / 16)) for k in range(16)]
TANH = [round(128 * (2 ** (i / 16) - 1) / (2 ** (i / 16) + 1)) for i in range(128)]


def lg(x: int, frac: int = 0) -> int:
    """16 * log2(1 + x/2^frac), piecewise linear between powers of two, cut to sixteenths."""
    y = x + 2**frac
    exponent = y.bit_length() - 1
    return 16 * (exponent - frac) + (16 * (y - 2**exponent)) // 2**exponent


def cut(x: int, low: int, high: int) -> int:
    return max(low, min(high, x))


class Mean:
    """Running mean in 1/65536; None until a value came."""

    def __init__(self, shift: int, start: int | None = None) -> None:
        self.shift, self.state = shift, start

    def add(self, x: int) -> None:
        self.state = x * 65536 if self.state is None else self.state + (x * 65536 - self.state) // 2**self.shift

    @property
    def rounded(self) -> int:
        return 0 if self.state is None else (self.state + 32768) // 65536


class Twin:
    """One instrument with a known tick and lot; step() gives the 32 raws, None for a tick before the first event."""

    def __init__(self, tick: int, lot: int) -> None:
        self.tick, self.unit = tick, max(1, lot // 16)
        self.fast, self.slow = Counter(dict.fromkeys(FAST, 0)), Counter(dict.fromkeys(SLOW, 0))
        self.gap, self.life, self.wash = Mean(4), Mean(4), Mean(4, 0)
        self.depth, self.spread = Mean(8), Mean(8)
        self.now = 0
        self.quote: tuple[int, int, int, int] | None = None
        self.mid: int | None = None
        self.last_trade = (0, 0)
        self.book_raws: dict[int, int] = {}

    def size(self, qty: int) -> int:
        return min(qty // self.unit, 2**32)

    def count(self, clock: str, name: str, amount: int) -> None:
        counters = self.fast if clock == "F" else self.slow
        counters[name] = cut(counters[name] + amount, -(2**46), 2**46)

    def both(self, name: str, amount: int) -> None:
        self.count("F", name, amount)
        self.count("L", name, amount)

    def advance(self, time: int) -> None:
        now = max(self.now, cut(time, 0, 2**62))
        for counters, grid in ((self.fast, 2**26), (self.slow, 2**30)):
            steps = now // grid - self.now // grid
            for name, value in counters.items():
                size = abs(value) * ROM[steps % 16] // 2 ** (16 + min(steps // 16, 100))
                counters[name] = size if value > 0 else -size
        self.now = now

    def step(self, v: Any) -> list[int] | None:
        if v["tick"] and self.quote is None:
            return None
        self.advance(int(v["now"]))
        age = (self.now - self.last) >> 10 if v["tick"] else self.event(v)
        return [cut(x, -2048, 2047) for x in self.features(age)]

    def event(self, v: Any) -> int:
        sides = {}
        for name, none in (("bid", -(2**62)), ("ask", 2**62)):
            px = [cut(int(p), -(2**60), 2**60) for p in v[f"{name}_px"]][: int(v[f"n_{name}"])]
            qty = [cut(int(q), 0, 2**59) for q in v[f"{name}_qty"]][: int(v[f"n_{name}"])]
            sides[name] = (px, qty, px[0] if px else none, qty[0] if qty else 0)
        self.book(sides)
        age = 0 if self.last is None else (self.now - self.last) >> 10
        if self.last is not None:
            self.gap.add(lg(age))
        self.last = self.now
        self.message(v)
        return age

    last: int | None = None

    def book(self, sides: dict[str, Any]) -> None:
        (bpx, bqty, b, b_qty), (apx, aqty, a, a_qty) = sides["bid"], sides["ask"]
        two_sided = bool(bpx) and bool(apx)
        quote = (b, b_qty, a, a_qty)
        if self.quote is None:
            self.since = self.now
        elif quote != self.quote:
            ob, ob_qty, oa, oa_qty = self.quote
            e = self.size(b_qty) * (b >= ob) - self.size(ob_qty) * (b <= ob)
            e += self.size(oa_qty) * (a >= oa) - self.size(a_qty) * (a <= oa)
            self.both("ofi", e * 256)
            self.life.add(lg((self.now - self.since) >> 10))
            self.since = self.now
        self.quote = quote
        if two_sided:
            if self.mid is not None:
                move = min(abs(a + b - self.mid) // self.tick, 2**15)
                self.both("rv", move * move * 64)
            self.mid = a + b
        spread = cut((a - b) // self.tick, 0, 2**20) if two_sided else 2**20
        raws = self.book_raws
        raws[0] = lg(16 * spread)
        vb = [self.size(sum(bqty[:k])) for k in (1, 5, 10)]
        va = [self.size(sum(aqty[:k])) for k in (1, 5, 10)]
        for k in range(3):
            raws[1 + k] = lg(vb[k] + va[k])
            raws[4 + k] = lg(vb[k]) - lg(va[k])
        raws[7], raws[8] = lg(vb[0]) - lg(vb[2]), lg(va[0]) - lg(va[2])
        lean = TANH[min(abs(raws[4]), 127)] * spread // 16
        raws[9] = int(math.copysign(lean, raws[4])) if two_sided else 0
        raws[26] = 0 if self.depth.state is None else raws[2] - self.depth.rounded
        raws[27] = 0 if self.spread.state is None else 16 * spread - self.spread.rounded
        if two_sided:
            self.depth.add(raws[2])
            self.spread.add(16 * spread)
        near = sum(abs(px[0] - p) < 10 * self.tick for px in (bpx, apx) for p in px)
        raws[28] = 16 * (20 - near)

    def message(self, v: Any) -> None:
        side = {1: "+", -1: "-", 0: ""}[int(v["side"])]
        add, cancel, trade = (self.size(min(int(v[f"{x}_qty"]), 2**59)) * 256 for x in ("add", "cancel", "trade"))
        self.both("msg", 256)
        if v["add_qty"] > 0:
            self.count("F", "add", 256)
            self.count("F", "far" if v["level"] >= 2 else "near", add)
            if side:
                self.count("F", "add" + side, add)
        if v["cancel_qty"] > 0:
            self.both("cancel", 256)
            if side:
                self.count("F", "cancel" + side, cancel)
        if v["trade_qty"] > 0:
            self.both("trade", 256)
            self.count("L", "volume", trade)
            if side:
                sign = -int(v["side"])
                self.both("buy" if sign > 0 else "sell", 256)
                self.count("L", "signed", sign * trade)
                self.wash.add(int(self.last_trade == (int(v["trade_qty"]), -sign)))
                self.last_trade = (int(v["trade_qty"]), sign)

    def features(self, age: int) -> list[int]:
        number = {k: lg(x, 4) for k, x in self.fast.items() if x >= 0}
        slow_number = {k: lg(x, 4) for k, x in self.slow.items() if x >= 0}
        size = {k: lg(abs(x), 8) for k, x in self.fast.items()}
        slow_size = {k: lg(abs(x), 8) for k, x in self.slow.items()}
        out = dict(self.book_raws)
        out[10] = size["ofi"] if self.fast["ofi"] > 0 else -size["ofi"]
        out[11] = slow_size["ofi"] if self.slow["ofi"] > 0 else -slow_size["ofi"]
        out[12] = number["buy"] - number["sell"]
        out[13] = slow_number["buy"] - slow_number["sell"]
        out[14], out[15], out[16] = number["add"], number["cancel"], number["trade"]
        out[17] = slow_number["cancel"] - slow_number["trade"]
        out[18] = number["cancel"] - number["add"]
        out[19] = size["add+"] - size["add-"]
        out[20] = size["cancel+"] - size["cancel-"]
        out[21] = number["msg"] - slow_size["msg"]
        out[22] = max(self.gap.rounded, lg(age))
        out[23] = 0 if self.life.state is None else lg((self.now - self.since) >> 10) - self.life.rounded
        out[24], out[25] = number["rv"], slow_number["rv"]
        out[29] = slow_size["signed"] - slow_size["volume"]
        out[30] = size["far"] - size["near"]
        out[31] = (self.wash.state or 0) // 256
        return [out[i] for i in range(32)]


def twin_raws(views: NDArray[np.void], tick: int, lot: int) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """raw int16[n, 32] and produced bool[n]."""
    twin = Twin(tick, lot)
    rows = [twin.step(v) for v in views]
    raw = np.array([row if row is not None else [0] * 32 for row in rows], np.int16)
    return raw, np.array([row is not None for row in rows])


def warm_up_twin(views: NDArray[np.void], events: int) -> tuple[int, int, int]:
    """(tick, lot, index of the view that ends the warm-up) by sorting everything seen."""
    steps, sizes, previous, last = [], [], None, 0
    for i, v in enumerate(views):
        if v["tick"] or not v["n_bid"] or not v["n_ask"]:
            continue
        bid = [int(p) for p in v["bid_px"][: v["n_bid"]]]
        ask = [int(p) for p in v["ask_px"][: v["n_ask"]]]
        steps += [abs(x - y) for side in (bid, ask) for x, y in pairwise(side)]
        steps.append(abs(ask[0] - bid[0]))
        if previous:
            steps += [abs(bid[0] - previous[0]), abs(ask[0] - previous[1])]
        previous = (bid[0], ask[0])
        sizes += [int(v["bid_qty"][0]), int(v["ask_qty"][0])]
        last = i
        if len(sizes) == 2 * events:
            break
    median = sorted(sizes)[(len(sizes) - 1) // 2]
    lot = min((10**d for d in range(19)), key=lambda p: abs(math.log10(p) - math.log10(max(median, 1))))
    return min((x for x in steps if x > 0), default=1), lot, last
