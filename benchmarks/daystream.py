"""`day_stream`: a generated trading day as a length-prefixed ITCH 5.0 file, in bounded memory, its truth beside it.

Fitted to published figures (itch-book's README on 2019-12-30): the mix of types (A 43.5, D 39.9, U 8.4, E 4.7, I 1.3,
X 1.0, F 0.55, P 0.4, L 0.2 %), the busiest name's share (SPY 2.19 M of 268.7 M messages), how many messages change a
best (43 % over AAPL, MSFT and SPY). Assumed: 1,700 messages a second, how long orders live, that names are drawn
independently, and where orders are placed (90 % within ten ticks of the best, the rest log-uniform to 400).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks import dayflow as flow_
from benchmarks.truth import beside, truth_of, write_truth

Lifetime = Literal["published", "short", "long"]
Refs = Literal["dense", "sparse"]

VERSION = 1
"""Part of every truth: a file of another version is made again."""
START_NS = 34_200 * 1_000_000_000
RATE = 1_709.4
"""Messages a second: 4e7 in the 23,400 s of a session."""
CHUNK = 1 << 18
MIX = {"U": 0.084, "E": 0.047, "X": 0.010, "F": 0.0055, "I": 0.013, "P": 0.004, "L": 0.002}
REFS: dict[str, tuple[int, int]] = {"dense": (1, 2), "sparse": (3, 40)}
"""Smallest and largest step from one order reference to the next."""
MOST_LIVE = 0.3
"""Live orders at peak are at most this share of the messages: a short stream has no time to post more."""


@dataclass(frozen=True)
class Life:
    """How long orders live: median in orders (44 % of messages) and spread (sigma of the log) of a young order's life.

    `old` of the cancels fall on any live order instead. Peak and end multiply `live_orders`.
    """

    median: float
    sigma: float
    old: float
    peak: float
    end: float


LIVES: dict[str, Life] = {
    "short": Life(60, 1.6, 0.02, 1.58, 1.0),
    "published": Life(6_000, 3.0, 0.15, 1.58, 1.0),
    "long": Life(400_000, 2.5, 0.75, 4.2, 3.0),
}


@dataclass(frozen=True)
class Day:
    """Parameters of a stream.

    Attributes
    ----------
    messages : market messages, besides directory and system events; in a steady stream those behind the fill
    steady : fill with adds only, then keep `live_orders` to the end
    zipf : exponent of activity, weight (rank + 20) ** -zipf
    """

    messages: int = 40_000_000
    symbols: int = 8_000
    lifetime: Lifetime = "published"
    refs: Refs = "dense"
    live_orders: int = 600_000
    seed: int = 20261122
    steady: bool = False
    zipf: float = 1.0


def folder() -> Path:
    """Where generated streams are kept: MICRORISK_BENCH_DIR, else microrisk-bench in the system's temporary folder."""
    path = Path(os.environ.get("MICRORISK_BENCH_DIR") or Path(tempfile.gettempdir()) / "microrisk-bench")
    path.mkdir(parents=True, exist_ok=True)
    return path


def cached_day(**parameters: Any) -> tuple[Path, dict[str, Any]]:
    """The stream of these parameters in `folder()`, made if it is not there; path and truth."""
    day = Day(**parameters)
    digest = hashlib.sha256(repr((VERSION, day)).encode()).hexdigest()[:8]
    path = folder() / f"day-{day.messages}-{day.lifetime}-{day.refs}-{digest}.itch"
    return path, day_stream(path, **parameters)


def day_stream(path: Path | str, **parameters: Any) -> dict[str, Any]:
    """Write the stream of `Day(**parameters)` to `path`, its truth to `path`.json and final bests to `path`.best.npy.

    A file of the same parameters and size is kept as it is.

    Returns
    -------
    messages, bytes, sha256, counts by type, live_orders, peak_live, shares, levels, levels_a_book (quantiles), books,
    bbo_changes, near_share (changes within ten ticks of their side's best), life_quartiles in messages, and in steady
    streams fill_messages and fill_bytes (where the live orders were reached). The name of locate i is S followed by i
    in five digits.
    """
    path, day = Path(path), Day(**parameters)
    if path.exists() and beside(path, ".json").exists():
        truth = truth_of(path)
        same = truth["version"] == VERSION and truth["parameters"] == asdict(day)
        if same and truth["bytes"] == path.stat().st_size:
            return truth
    part = path.with_name(path.name + ".part")
    truth, best = _write(part, day)
    part.replace(path)
    write_truth(path, truth, best)
    return truth


def targets(day: Day) -> NDArray[np.int64]:
    """Wanted live orders after each message: up to the peak at 40 %, held to 85 %, down to the end."""
    if day.steady:
        return np.full(day.messages, day.live_orders, np.int64)
    life, most = LIVES[day.lifetime], MOST_LIVE * day.messages
    end, peak = min(life.end * day.live_orders, most), min(life.peak * day.live_orders, most)
    at = np.linspace(0.0, 1.0, day.messages, endpoint=False)
    return np.interp(at, [0.0, 0.4, 0.85, 1.0], [0.0, peak, peak, end]).astype(np.int64)


def _quantiles() -> NDArray[np.float64]:
    return (np.arange(flow_.TABLE) + 0.5) / flow_.TABLE


def _ages(life: Life) -> NDArray[np.int64]:
    """Orders back for each quantile, log-normal; 0 = any live order. Order of the table does not matter."""
    rng = np.random.default_rng(1)
    young = rng.lognormal(np.log(life.median), life.sigma, flow_.TABLE).clip(1, flow_.RING - 64).astype(np.int64)
    young[: int(life.old * flow_.TABLE)] = 0
    return young


def _away() -> NDArray[np.int64]:
    """Ticks behind the own best: 36 % at it, 54 % on the nine behind, falling; the rest log-uniform."""
    q = _quantiles()
    weight = np.concatenate([[0.4], 0.6 * 0.9 ** np.arange(9) / (0.9 ** np.arange(9)).sum()])
    near = np.searchsorted(np.cumsum(weight / weight.sum()), np.minimum(q / 0.9, 1 - 1e-9))
    far = np.exp(np.interp(q, [0.9, 1.0], np.log([10, 400])))
    return np.where(q < 0.9, near, far).astype(np.int64)


def _gaps() -> NDArray[np.int64]:
    """Ns between messages: bursts (three in four near 20 us) and pauses, mean 1 / RATE."""
    q = _quantiles()
    raw = -np.log1p(-q) * np.where(np.random.default_rng(2).random(flow_.TABLE) < 0.75, 20_000.0, 2_280_000.0)
    return np.maximum(raw * (1e9 / RATE / raw.mean()), 1).astype(np.int64)


def _alias(weight: NDArray[np.float64]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Alias table of a discrete distribution (Vose)."""
    n = len(weight)
    scaled, alias = weight / weight.sum() * n, np.arange(n, dtype=np.int32)
    keep = scaled.copy()
    small, large = [i for i in range(n) if keep[i] < 1], [i for i in range(n) if keep[i] >= 1]
    while small and large:
        s, g = small.pop(), large[-1]
        alias[s] = g
        keep[g] -= 1 - keep[s]
        if keep[g] < 1:
            small.append(large.pop())
    return alias, keep


def shape_of(day: Day) -> flow_.Shape:
    """The draws that a day follows. Busy names lie anywhere among the locates, as in an alphabetical directory."""
    rank = np.random.default_rng(day.seed).permutation(day.symbols)
    alias, keep = _alias((rank + 20.0) ** -day.zipf)
    low, high = REFS[day.refs]
    mix = np.cumsum([MIX[c] for c in "UEXFIPL"])
    return flow_.Shape(alias, keep, _ages(LIVES[day.lifetime]), _away(), _gaps(), mix, low, high - low + 1)


def _blocks(day: Day, flow: flow_.Flow, buffer: NDArray[np.uint8], filled: dict[str, int]) -> Iterator[int]:
    """Fill `buffer` again and again; yields the bytes in it. `filled` learns when the live orders were reached."""
    shape, want, written = shape_of(day), targets(day), 0
    n = flow_.opening(flow, buffer)
    written += n
    yield n
    done = not day.steady
    while not done:
        n, done = flow_.fill(flow, shape, buffer, int(want[0]), CHUNK)
        written += n
        yield n
    if day.steady:
        filled |= {"fill_messages": int(flow.clock[0]["messages"]), "fill_bytes": written}
    for start in range(0, day.messages, CHUNK):
        yield flow_.run(flow, shape, buffer, want[start : start + CHUNK])
    yield flow_.closing(flow, buffer)


def _write(path: Path, day: Day) -> tuple[dict[str, Any], NDArray[np.int64]]:
    rng = np.random.default_rng(day.seed)
    base = 100 * np.exp(rng.uniform(np.log(600), np.log(50_000), day.symbols)).astype(np.int64)
    capacity = int(targets(day).max()) + 4 * CHUNK
    flow = flow_.empty(day.symbols, capacity, base - flow_.TICK * flow_.WINDOW // 2, START_NS, day.seed)
    buffer = np.empty(max(CHUNK, 2 * day.symbols + 8) * flow_.MAX_FRAME, np.uint8)
    digest, size, filled = hashlib.sha256(), 0, dict[str, int]()
    with path.open("wb") as out:
        for n in _blocks(day, flow, buffer, filled):
            block = buffer[:n]
            digest.update(block)
            out.write(block)
            size += n
    return _truth(day, flow, size, digest.hexdigest(), filled)


def _truth(
    day: Day, flow: flow_.Flow, size: int, sha256: str, filled: dict[str, int]
) -> tuple[dict[str, Any], NDArray[np.int64]]:
    best, levels = np.zeros((day.symbols, 4), np.int64), np.zeros((day.symbols, 2), np.int64)
    shares, clock = int(flow_.books(flow, best, levels)), flow.clock[0]
    lives = np.cumsum(flow.lives) / max(flow.lives.sum(), 1)
    quartiles = [int(2.0 ** float(np.interp(q, lives, np.arange(1, 65)))) for q in (0.25, 0.5, 0.75)]
    truth = {
        "version": VERSION,
        "parameters": asdict(day),
        "messages": int(clock["messages"]),
        "bytes": size,
        "sha256": sha256,
        "counts": {chr(i): int(n) for i, n in enumerate(flow.counts) if n},
        "live_orders": int(clock["live"]),
        "peak_live": int(clock["peak"]),
        "shares": shares,
        "levels": int(levels.sum()),
        "levels_a_book": {str(q): float(np.quantile(levels.sum(1), q)) for q in (0.1, 0.5, 0.9, 1.0)},
        "books": int((levels.sum(1) > 0).sum()),
        "bbo_changes": int(clock["bbo"]),
        "near_share": round(int(clock["near"]) / max(int(clock["changes"]), 1), 4),
        "life_quartiles": quartiles,
        "life_median_s": round(quartiles[1] / RATE, 4),
        "last_ref": int(clock["ref"]),
        "last_ts": int(clock["time"]),
        **filled,
    }
    return truth, best
