"""Seeded VIEW arrays of one instrument: a small book that is added to, cancelled from and traded with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from microrisk.spec.records import DEPTH, VIEW, Action

DAY = 86_400_000_000_000


class Market:
    """Two dicts px -> qty around a wandering centre, in feed units."""

    def __init__(self, seed: int, tick: int = 100, lot: int = 100, centre: int = 1_000_000) -> None:
        self.rng = np.random.default_rng(seed)
        self.tick, self.lot, self.centre = tick, lot, centre
        self.now = 1_700_000_000_000_000_000
        self.books: dict[int, dict[int, int]] = {1: {}, -1: {}}
        for side in (1, -1):
            for i in range(12):
                self.books[side][self.centre - side * (1 + i) * tick] = self.size()

    def size(self) -> int:
        return int(self.lot * self.rng.integers(1, 20))

    def best(self, side: int) -> int | None:
        book = self.books[side]
        return (max(book) if side > 0 else min(book)) if book else None

    def view(self, **fields: int) -> NDArray[np.void]:
        """The book as it is, with the event's own fields."""
        v = np.zeros(1, VIEW)
        for side, name in ((1, "bid"), (-1, "ask")):
            levels = sorted(self.books[side].items(), key=lambda kv: -side * kv[0])[:DEPTH]
            v[f"n_{name}"] = len(levels)
            for i, (px, qty) in enumerate(levels):
                v[f"{name}_px"][0, i], v[f"{name}_qty"][0, i] = px, qty
        v["now"], v["ts_event"] = self.now, self.now - int(self.rng.integers(0, 10**9))
        for name, value in fields.items():
            v[name] = value
        return v

    def wait(self, mean_ns: float) -> None:
        self.now += int(self.rng.exponential(mean_ns))

    def step(self) -> NDArray[np.void]:
        """One event."""
        side = int(self.rng.choice((1, -1)))
        kind = self.rng.random()
        if kind < 0.5 or not self.books[side]:
            return self.add(side)
        return self.take(side, traded=kind > 0.9)

    def add(self, side: int) -> NDArray[np.void]:
        other = self.best(-side)
        anchor = other if other is not None else self.centre + side * self.tick
        px = anchor - side * self.tick * int(1 + self.rng.geometric(0.25) - (self.rng.random() < 0.3))
        qty = self.size()
        if other is not None and (px - other) * side >= 0:
            px = other - side * self.tick
        self.books[side][px] = self.books[side].get(px, 0) + qty
        better = sum((p - px) * side > 0 for p in self.books[side])
        level = better if better < DEPTH else 255
        return self.view(action=Action.ADD, side=side, px=px, add_qty=qty, level=level)

    def take(self, side: int, traded: bool) -> NDArray[np.void]:
        book = self.books[side]
        px = self.best(side) if traded or self.rng.random() < 0.3 else int(self.rng.choice(list(book)))
        assert px is not None
        qty = int(min(book[px], self.size()))
        book[px] -= qty
        if not book[px]:
            del book[px]
        what = {"trade_qty" if traded else "cancel_qty": qty}
        return self.view(action=Action.REDUCE, side=side, px=px, level=255, **what)


def market_views(seed: int, n: int, mean_ns: float = 5e6, tick: int = 100, lot: int = 100) -> NDArray[np.void]:
    """n ordinary events."""
    market, out = Market(seed, tick, lot), np.zeros(n, VIEW)
    for i in range(n):
        market.wait(mean_ns)
        out[i] = market.step()[0]
    return out


def wild_views(seed: int, n: int) -> NDArray[np.void]:
    """Events with everything that may go wrong: see the branches."""
    market, out = Market(seed, tick=5, lot=1), np.zeros(n, VIEW)
    rng = market.rng
    for i in range(n):
        market.wait(float(rng.choice((0.0, 1e3, 1e6, 1e8, 1e10))))
        if rng.random() < 0.01:
            market.now += int(rng.integers(1, 9)) * DAY
        v = market.step()
        luck = rng.random()
        if luck < 0.05:
            v = _empty(v, rng)
        elif luck < 0.10:
            v = _huge(v, rng)
        elif luck < 0.15:
            v["now"] -= int(rng.integers(0, DAY))  # a clock that runs back
        elif luck < 0.20:
            v["side"] = 0
        elif luck < 0.25:
            v["cancel_qty"], v["trade_qty"] = rng.integers(0, 50, 2)
        elif luck < 0.30:
            v = market.view(tick=1, now=market.now)
        elif luck < 0.33:
            v["bid_px"][0, : v["n_bid"][0]] += int(rng.integers(1, 200))  # crossed or locked
        elif luck < 0.36:
            for name in ("bid_px", "ask_px"):
                v[name][0, : v["n_" + name[:3]][0]] -= 3_000_000  # below zero, as spreads trade
        out[i] = v[0]
    return out


def _empty(v: NDArray[np.void], rng: np.random.Generator) -> NDArray[np.void]:
    """One side or both sides gone, or only a few levels left."""
    for name in ("bid", "ask"):
        keep = int(rng.choice((0, 1, 3, DEPTH)))
        v[f"n_{name}"] = min(int(v[f"n_{name}"][0]), keep)
        v[f"{name}_px"][0, keep:], v[f"{name}_qty"][0, keep:] = 0, 0
    return v


def _huge(v: NDArray[np.void], rng: np.random.Generator) -> NDArray[np.void]:
    """Sizes and prices up to the ends of the record."""
    n = int(min(v["n_bid"][0], v["n_ask"][0]))
    v["bid_qty"][0, :n] = 1 << rng.integers(30, 63, n)
    v["ask_qty"][0, :n] = (1 << 62) + rng.integers(0, 9, n)
    for name in ("add_qty", "cancel_qty", "trade_qty"):
        if v[name][0]:
            v[name] = (1 << int(rng.integers(30, 63))) + 1
    if rng.random() < 0.3 and n:
        v["ask_px"][0, n - 1], v["bid_px"][0, n - 1] = 2**63 - 1, -(2**63)
    return v
