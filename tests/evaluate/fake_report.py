"""A made-up report with everything on it: a random-walk book, 12 episodes, three of them missed."""

from __future__ import annotations

import numpy as np

from microrisk.evaluate.report_build import book_window, match
from microrisk.evaluate.report_data import (
    Alert,
    Driver,
    Headline,
    HeadTrace,
    Latency,
    ModelFacts,
    PlantedEpisode,
    Report,
    Trades,
)  # fmt: skip

SECOND = 1_000_000_000
START = 1_736_173_800 * SECOND
KINDS = ("layering", "stuffing", "withdrawal", "ignition", "gap", "wash")
HEADS = ("maxz", "maha", "vae", "exposure")
DEMO_BOOKS = 12
ON = (13.5, 12.4, 12.9, 11.8)
TICK = 100


def fake_depth(at: int, rng: np.random.Generator, kind: str) -> tuple[np.ndarray, np.ndarray, Trades]:
    """20 s of a book with 10 levels a side, changed every 20 ms; `kind` bends it."""
    n = 1100
    times = at - 11 * SECOND + np.arange(n) * 20_000_000
    mid = 1_000_000 + TICK * np.cumsum(rng.choice([-1, 0, 0, 0, 0, 0, 0, 0, 0, 1], n))
    active = (times >= at) & (times < at + 5 * SECOND)
    if kind == "ignition":
        mid = mid + TICK * np.minimum(np.cumsum(active) // 12, 18)
    depth = np.zeros((n, 2, 10, 2), np.int64)
    base = rng.pareto(2.0, (2, 400)) * 300 + 100
    for i in range(n):
        for s, sign in ((0, -1), (1, 1)):
            px = mid[i] + sign * TICK * (1 + np.arange(10))
            qty = base[s][(px // TICK) % 400] * (0.7 + 0.6 * rng.random(10)) // 100 * 100
            if active[i] and kind == "withdrawal":
                qty[rng.random(10) < 0.8] = 0
            if active[i] and kind == "layering" and s == 1:
                qty[3:6] += 6000
            depth[i, s, :, 0], depth[i, s, :, 1] = px, qty
            order = np.argsort(qty == 0, kind="stable")  # held levels first, best first
            depth[i, s] = depth[i, s][order]
    if kind == "gap":
        keep = ~active
        times, depth, mid = times[keep], depth[keep], mid[keep]
    k = np.sort(rng.choice(len(times), 90 if kind == "ignition" else 40))
    side = np.where(rng.random(len(k)) < (0.95 if kind == "ignition" else 0.5), 1, -1).astype(np.int8)
    px = (mid[k] + side * TICK) * 1e-4
    return times, depth, Trades(times[k], px, rng.pareto(1.5, len(k)) * 100 + 10, side)


def fake_report(seed: int = 1, minutes: int = 30) -> Report:
    rng = np.random.default_rng(seed)
    slots = START + (np.arange(12) * minutes * 60 // 13 + 70) * SECOND
    planted = [
        PlantedEpisode(
            KINDS[i % 6], t, t + int(rng.uniform(0.8, 9) * SECOND), float(rng.uniform(0.3, 1.2)), "DEMO.SIMX"
        )
        for i, t in enumerate(slots.tolist())
    ]
    named = ("far_posting", "add_skew", "cancel_to_trade", "gap", "depth_l5", "wash")
    drivers = tuple(Driver(n, v) for n, v in zip(named, (7.4, -6.1, 5.5, 4.9, -3.2, 2.1), strict=True))
    marks = []
    for i, e in enumerate(planted):
        if i not in (0, 4, 10):
            at = e.start_ns + int(rng.uniform(0.05, 2.5) * SECOND)
            for k, h in enumerate(rng.permutation(4)[: rng.integers(1, 4)]):
                marks.append(Alert(at + k * 300_000_000, "DEMO.SIMX", HEADS[h], ON[h] + rng.random() * 3, drivers))
    marks += [Alert(START + s * SECOND, "DEMO.SIMX", h, 13.9, drivers[1:]) for s, h in ((50, "maxz"), (700, "vae"))]
    episodes, alerts = match(planted, marks)
    ns = START + np.arange(minutes * 240) * 250_000_000
    traces = []
    for h, head in enumerate(HEADS):
        bits = rng.exponential(1.1, len(ns)) + np.convolve(rng.exponential(1.0, len(ns)), np.ones(12) / 12, "same") * 2
        for a in alerts:
            near = (ns >= a.ns - SECOND) & (ns < a.ns + 4 * SECOND)
            bits[near] += (a.bits if a.head == head else rng.uniform(2, 8)) * 0.9
        bits[5000:5030] = np.nan
        traces.append(HeadTrace("DEMO.SIMX", head, ns, np.clip(bits, 0, 24), ON[h], ON[h] - 2))
    books = []
    for i, e in enumerate(episodes):
        times, depth, trades = fake_depth(e.start_ns, rng, e.kind)
        books.append(("episode", i, book_window("DEMO.SIMX", e.start_ns, times, depth, tick=TICK, trades=trades)))
    edges = np.geomspace(50, 1e7, 300)
    counts = np.histogram(np.exp(rng.normal(np.log(900), 0.5, 2_000_000)), np.r_[edges, 2e7])[0].astype(np.uint64)
    counts[220] += 40
    return Report(
        title="microrisk demo: a market with planted trouble",
        source="simulated market, seed 1, read back from MoldUDP64 / ITCH 5.0 bytes",
        headline=Headline(95_412, 101_233, 83_007, 0.41, minutes * 60.0, 4_120_111),
        model=ModelFacts("default", "3f9ac0de12b4", trained_on="12 simulated sessions and two recordings"),
        instruments=["DEMO.SIMX"],
        episodes=episodes,
        alerts=alerts,
        traces=traces,
        books=books,
        integrity={"malformed": 0, "gap": 2, "unknown_order": 311, "crossed": 0, "locked": 0, "duplicate_order": 0},
        latency=Latency(edges, counts),
        findings=["gap in DEMO.SIMX, sequence 88121", "gap in DEMO.SIMX, sequence 140022"],
        commands=[
            ("watch it live", "microrisk demo --serve"),
            ("score your own file", "microrisk score FILE --out s.parquet"),
            ("hardware", "make rtl"),
            ("speed of this machine", "microrisk bench"),
        ],
        notes=["The market is simulated: the parts work together.", "Again: microrisk demo --seed 1"],
    )
