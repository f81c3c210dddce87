"""Our side of the benchmark: one method a stage, each over the whole input from its file to the stage's last result.

Each stage contains the ones in front of it, except `heads`, which is timed alone on the codes of this very input. Time
runs from the first byte to the last result; opening files, reading a model and loading kernels come before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microrisk.pipeline.bench_input import Input
from microrisk.pipeline.rebuild import replay
from microrisk.pipeline.scoring import Heads
from microrisk.pipeline.spine import Spine
from microrisk.pipeline.watch import Stage
from microrisk.spec.units import NULL_PX

DEPTH = 10
MOST_CODES = 4 << 20
"""Rows of codes that are kept for `heads` (128 MB)."""
OURS = "microrisk"

Best = tuple[int, int, int, int]
"""bid px, bid qty, ask px, ask qty in the feed's units; 0, 0 for an empty side."""


@dataclass
class Done:
    """One run: `items` in `seconds` of the wall clock and `cpu` seconds of this process, all threads; the answer as
    far as there is one to compare.
    """

    items: int
    seconds: float
    cpu: float
    answer: dict[str, Any] = field(default_factory=dict)


class Watch:
    """Wall and processor seconds since its making."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def done(self, items: int, answer: dict[str, Any] | None = None) -> Done:
        """The run that ends now."""
        seconds, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        return Done(items, seconds, cpu, answer or {})


@dataclass(frozen=True)
class Contender:
    """Something that is timed.

    Attributes
    ----------
    figure : what is compared; one of the rows of each figure is ours
    who : package
    unit : of its items
    run : with True it also finds its answer, outside the measured time
    note : what is different about it
    """

    figure: str
    who: str
    unit: str
    run: Callable[[bool], Done]
    note: str = ""


class Stages:
    """Our contenders over one input."""

    def __init__(self, given: Input, weights: Any, folder: Path) -> None:
        self._input, self._weights, self._folder = given, weights, folder
        self._codes: NDArray[np.int8] = np.zeros((0, 32), np.int8)
        self.latency: dict[str, float] = {}  # of the fastest run of `spine`: the same run as its rate
        self._fastest = 0.0

    def contenders(self) -> list[Contender]:
        """In the order in which a round runs them."""
        return [
            Contender("parse", OURS, "messages", self.parse),
            Contender("books", OURS, "messages", lambda check: self.books(check)),
            Contender("books + BBO", OURS, "messages", lambda check: self.books(check, bbo=True)),
            Contender(f"books + depth {DEPTH}", OURS, "messages", lambda check: self.books(check, depth=DEPTH)),
            Contender("BBO to Parquet", OURS, "messages", self.parquet, "zstd; file system included"),
            Contender("features", OURS, "messages", self.features),
            Contender("heads alone", OURS, "rows", self.heads),
            Contender("whole spine", OURS, "messages", self.spine, "bytes to alarm decision"),
        ]

    def parse(self, check: bool) -> Done:
        """Bytes to events."""
        feed = self._input.source.open()
        watch = Watch()
        for _ in feed.events():
            pass
        return watch.done(feed.messages)

    def books(self, check: bool, *, bbo: bool = False, depth: int = 0) -> Done:
        """Bytes to books, with the best prices or levels of every change taken in memory."""
        spine = Spine(self._input.source)
        if bbo:
            spine.engine.record_bbo()
        if depth:
            spine.engine.record_depth(depth)
        watch = Watch()
        for _ in spine.chunks():
            if bbo:
                spine.engine.take_bbo()
            if depth:
                spine.engine.take_depth()
        done = watch.done(spine.feed.messages)
        done.answer = _answer(spine) if check else {}
        return done

    def parquet(self, check: bool) -> Done:
        """Bytes to a Parquet file of best prices: what `replay --bbo` does."""
        out = self._folder / "ours.parquet"
        watch = Watch()
        result = replay(self._input.source, bbo=out)
        return watch.done(result.messages)

    def features(self, check: bool) -> Done:
        """Bytes to codes; keeps the first of them for `heads`."""
        spine = Spine(self._input.source)
        kept: list[NDArray[np.int8]] = []
        held = 0
        stage = Stage(spine, self._weights)
        watch = Watch()
        for rows in stage.chunks():
            if held < MOST_CODES:
                kept.append(rows["codes"].copy())
                held += len(rows)
        done = watch.done(spine.feed.messages)
        self._codes = np.concatenate(kept)
        return done

    def heads(self, check: bool) -> Done:
        """Codes to heads, in one call."""
        from microrisk.core import Heads as CoreHeads

        heads = CoreHeads(self._weights.heads_tensors())
        watch = Watch()
        heads.score(self._codes)
        return watch.done(len(self._codes))

    def spine(self, check: bool) -> Done:
        """Bytes to alarms, one event at a time, with the time of each message taken on the way."""
        from microrisk.core import latency_edges

        spine = Spine(self._input.source)
        spine.engine.latency(True)
        heads = Heads("cpu", self._weights, spine.feed.mask)
        stage = Stage(spine, self._weights, heads.engine_heads)
        watch = Watch()
        for _ in stage.chunks():
            pass
        done = watch.done(spine.feed.messages)
        if not self.latency or done.seconds < self._fastest:
            self._fastest = done.seconds
            self.latency = quantiles(latency_edges(), spine.engine.take_latency())
        return done


QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


def quantiles(edges: NDArray[Any], counts: NDArray[Any]) -> dict[str, float]:
    """Upper edge of the bucket in which each quantile lies, ns; and the number of messages."""
    below = np.cumsum(counts.astype(np.int64))
    total = int(below[-1]) if len(below) else 0
    if total == 0:
        return {"messages": 0}
    upper = np.append(edges[1:], edges[-1])
    places = {name: int(np.searchsorted(below, np.ceil(q * total))) for name, q in QUANTILES.items()}
    return {name: float(upper[min(k, len(upper) - 1)]) for name, k in places.items()} | {"messages": total}


def _answer(spine: Spine) -> dict[str, Any]:
    """Resting orders, and the best prices of every instrument by its symbol, at the end."""
    best: dict[str, Best] = {}
    for index, entry in spine.instruments():
        bids, asks = spine.engine.levels(index, 1)
        if entry is not None and (len(bids) or len(asks)):
            best[entry.symbol] = (*_first(bids), *_first(asks))
    return {"messages": spine.feed.messages, "live_orders": int(spine.engine.live_orders), "best": best}


def _first(side: NDArray[np.int64]) -> tuple[int, int]:
    return (int(side[0, 0]), int(side[0, 1])) if len(side) and side[0, 0] != NULL_PX else (0, 0)
