"""bench: how fast each stage of the spine is on this machine, over the same input, with the latency of the fastest run.

Every stage reads the recording from its file (from the page cache after the first time) and contains the ones before
it, except `heads`, which is timed alone on the codes of this very input. Time runs from the first byte to the last
result; opening files, reading a model and loading kernels come before it.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microrisk.pipeline.scoring import Heads
from microrisk.pipeline.spine import Source, Spine
from microrisk.pipeline.watch import Stage, named

SEED, SECONDS = 7, 1800.0
"""The generated stream: half an hour of one simulated instrument."""
QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


@dataclass(frozen=True)
class Figure:
    """One stage: `items` in the fastest of the repeats; `spread` is slowest over fastest."""

    stage: str
    unit: str
    items: int
    seconds: float
    spread: float

    def to_json(self) -> dict[str, Any]:
        """With rate and time of one item."""
        rate = self.items / self.seconds if self.seconds else 0.0
        each = self.seconds * 1e9 / self.items if self.items else 0.0
        return asdict(self) | {"millions_per_second": round(rate / 1e6, 3), "ns_each": round(each, 1)}


def bench(inputs: tuple[str, ...] = (), *, model: str | Path | None = None, repeats: int = 3) -> dict[str, Any]:
    """Figures of the user's own recording, or of a generated one; plain types only."""
    with tempfile.TemporaryDirectory(prefix="microrisk-bench-") as folder:
        source = Source(inputs) if inputs else generated(Path(folder), SEED, SECONDS)
        weights, facts = named(model)
        runs = _Runs(source, weights)
        figures = [
            _timed("parse", "messages", repeats, runs.parse),
            _timed("parse + books", "messages", repeats, runs.books),
            _timed("parse + books + features", "messages", repeats, runs.features),
            _timed("heads alone", "rows", repeats, runs.heads),
            _timed("whole spine", "messages", repeats, runs.spine),
        ]
    return {
        "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "python": platform.python_version()},
        "input": list(source.inputs) if inputs else f"generated: simulator seed {SEED}, {SECONDS:.0f} s, ITCH 5.0",
        "model": facts["name"],
        "figures": [f.to_json() for f in figures],
        "tick_to_alert_ns": runs.latency,
    }


def generated(folder: Path, seed: int, seconds: float) -> Source:
    """A simulated session with episodes as an ITCH file in `folder`."""
    from microrisk.market.simulator import simulate
    from microrisk.market.write import write_itch

    path = folder / "bench.itch"
    write_itch(simulate(seed, seconds, episodes="random"), path)
    return Source((str(path),), format="itch50", date="2025-01-06")


Done = tuple[int, float]


class _Runs:
    """One method a stage; each returns how many items it did and in how many seconds."""

    def __init__(self, source: Source, weights: Any) -> None:
        self._source, self._weights = source, weights
        self._codes: NDArray[np.int8] = np.zeros((0, 32), np.int8)
        self.latency: dict[str, float] = {}  # of the fastest run of `spine`: the same run as its rate
        self._fastest = 0.0

    def parse(self) -> Done:
        """Bytes to events."""
        feed = self._source.open()
        start = time.perf_counter()
        for _ in feed.events():
            pass
        return feed.messages, time.perf_counter() - start

    def books(self) -> Done:
        """Bytes to books."""
        spine = Spine(self._source)
        for _ in spine.chunks():
            pass
        return spine.feed.messages, spine.seconds

    def features(self) -> Done:
        """Bytes to codes; keeps them for `heads`."""
        spine = Spine(self._source)
        kept = [rows["codes"].copy() for rows in Stage(spine, self._weights).chunks()]
        self._codes = np.concatenate(kept)
        return spine.feed.messages, spine.seconds

    def heads(self) -> Done:
        """Codes to heads, in one call."""
        from microrisk.core import Heads as CoreHeads

        heads = CoreHeads(self._weights.heads_tensors())
        start = time.perf_counter()
        heads.score(self._codes)
        return len(self._codes), time.perf_counter() - start

    def spine(self) -> Done:
        """Bytes to alarms, one event at a time, with the latency of each message taken on the way."""
        from microrisk.core import latency_edges

        spine = Spine(self._source)
        spine.engine.latency(True)
        heads = Heads("cpu", self._weights, spine.feed.mask)
        for _ in Stage(spine, self._weights, heads.engine_heads).chunks():
            pass
        if not self.latency or spine.seconds < self._fastest:
            self._fastest = spine.seconds
            self.latency = quantiles(latency_edges(), spine.engine.take_latency())
        return spine.feed.messages, spine.seconds


def quantiles(edges: NDArray[Any], counts: NDArray[Any]) -> dict[str, float]:
    """Upper edge of the bucket in which each quantile lies, ns; and the number of messages."""
    below = np.cumsum(counts.astype(np.int64))
    total = int(below[-1]) if len(below) else 0
    if total == 0:
        return {"messages": 0}
    upper = np.append(edges[1:], edges[-1])
    places = {name: int(np.searchsorted(below, np.ceil(q * total))) for name, q in QUANTILES.items()}
    return {name: float(upper[min(k, len(upper) - 1)]) for name, k in places.items()} | {"messages": total}


def _timed(stage: str, unit: str, repeats: int, run: Callable[[], Done]) -> Figure:
    run()  # fills caches
    done = [run() for _ in range(repeats)]
    times = [seconds for _, seconds in done]
    return Figure(stage, unit, done[0][0], min(times), max(times) / min(times))


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
