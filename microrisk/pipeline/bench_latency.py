"""Latency under load: an ITCH file replayed at a share of what this machine can do, each message due at its own time.

Rules:

1. The latency of a message runs from the time at which it was due to the time at which it was applied (and scored), a
   message that waited because the ones before it were late keeps its due time: no coordinated omission.
2. Capacity is what the same loop over the same messages does with every message due at once, measured just before.
3. The book is built from the front of the file without pacing; pacing begins behind it, so that pools and caches are
   those of a running day.
4. Not pinned, no real-time priority, no core of its own: as a user would run it. How much of the tail is the machine's,
   not ours, is told by a loop that only reads the clock (`machine`) and by the gaps of the waiting loop of the very run
   (`away`). A reading of the clock is in every figure and not subtracted.

Counts have the buckets of HdrHistogram with two significant digits; `hdr` is its V2 compressed encoding in base64, as
every HdrHistogram library reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microrisk.core import Engine, Heads, ItchDecoder, paced_edges, run_paced, spin
from microrisk.pipeline.bench_input import Input, mapped

LOADS = (0.1, 0.5, 0.9)
WARM = 0.25
"""Share of the messages that builds the book, and at most MOST_WARM of them."""
MOST_WARM = 4_000_000
MOST_FREE = 4_000_000
"""Messages over which the capacity is measured, those that are paced first."""
SECONDS = 4.0
"""Longest paced run of each load."""
SPIN = 1.0
LARGEST = 1 << 40
"""Largest value of a histogram, ns."""
QUANTILES = (0.5, 0.9, 0.99, 0.999, 0.9999)

Make = Callable[[], Engine]
Say = Callable[[str], None]


def latency(
    given: Input,
    weights: Any | None = None,
    *,
    loads: Sequence[float] = LOADS,
    seconds: float = SECONDS,
    recorded_times: bool = True,
    say: Say | None = None,
) -> dict[str, Any]:
    """Paced replays of the one ITCH file of `given`, with books only and (with `weights`) with the scoring stage.

    `recorded_times` adds a run at half load in which messages come in the bursts of the recording, its time scaled.
    Returns plain types: {"machine": ..., "runs": [...]}.
    """
    makes: list[tuple[str, Make]] = [("books", Engine)]
    if weights is not None:
        makes.append(("books and scoring", lambda: scoring_engine(weights)))
    found = machine()
    runs: list[dict[str, Any]] = []
    assert given.itch is not None
    with mapped(given.itch) as data:
        for stage, make in makes:
            if say is not None:
                say(f"latency: {stage}")
            paced = _Paced(data, given.frames[-1][1] if given.frames else 0, make, seconds)
            runs += [{"stage": stage, **run} for run in paced.runs(loads, recorded_times)]
    return {"machine": found, "runs": runs}


def scoring_engine(weights: Any) -> Engine:
    """An engine with kernel, heads and alarms of the generic table; rows are made, and thrown away by the loop."""
    from microrisk.features.kernels import kernel_address
    from microrisk.features.normalise import expand
    from microrisk.features.state import initial_state
    from microrisk.score.alert import alert_address, make_params
    from microrisk.score.alert import initial_state as alert_state

    engine = Engine()
    table = weights.table_for()
    engine.watch(
        kernel_address(),
        initial_state(),
        expand(table),
        Heads(weights.heads_tensors()),
        alert_address(),
        make_params(weights.level_for()).tobytes(),
        alert_state().tobytes(),
        rows=True,
    )
    return engine


class _Paced:
    """Runs over one file with one kind of engine, each from the front of the file."""

    def __init__(self, data: Any, total: int, make: Make, seconds: float) -> None:
        self._data, self._make, self._seconds = data, make, seconds
        self._warm = int(min(total * WARM, MOST_WARM))
        self._rest = total - self._warm

    def runs(self, loads: Sequence[float], recorded_times: bool) -> list[dict[str, Any]]:
        """One per load, each just behind a measurement of the capacity."""
        out = [self._at(load) for load in loads]
        if recorded_times:
            out.append(self._at(0.5, recorded=True))
        return out

    def _warmed(self) -> tuple[Engine, ItchDecoder, int]:
        engine, decoder = self._make(), ItchDecoder()
        return engine, decoder, int(run_paced(engine, decoder, self._data, 0, self._warm)["offset"])

    def _at(self, load: float, *, recorded: bool = False) -> dict[str, Any]:
        engine, decoder, offset = self._warmed()
        free = run_paced(engine, decoder, self._data, offset, min(self._rest, MOST_FREE))
        each = free["wall_ns"] / max(free["messages"], 1)
        interval = each / load
        count = min(self._rest, max(int(self._seconds * 1e9 / interval), 1))
        engine, decoder, offset = self._warmed()
        pace = {"interval_ns": interval}
        if recorded:
            pace = {"time_scale": interval * count / max(_span(self._data, offset, count), 1)}
        run = run_paced(engine, decoder, self._data, offset, count, **pace)
        return {
            "load": load,
            "arrivals": "recorded times, scaled" if recorded else "evenly spaced",
            "capacity_per_second": round(1e9 / each),
            "rate_per_second": round(run["messages"] * 1e9 / max(run["wall_ns"], 1)),
            "messages": int(run["messages"]),
            "late": int(run["late"]),
            "latency": _summary(run, "latency"),
            "service": _summary(run, "service"),
            "service_unpaced": _summary(free, "service"),
            "away": _away(run),
        }


def _stamp(data: Any, offset: int) -> int:
    """Time stamp of the ITCH message at `offset`, ns since midnight."""
    return int.from_bytes(data[offset + 7 : offset + 13], "big")


def _span(data: Any, offset: int, count: int) -> int:
    """Ns between the first of `count` messages and the one behind the last, by their own stamps."""
    decoder, engine = ItchDecoder(), Engine()
    first = _stamp(data, offset)
    end = engine.run_itch(decoder, data, offset, max(count - 1, 1))
    return _stamp(data, int(end)) - first if int(end) + 13 <= len(data) else int(decoder.last_ts) - first


def _away(run: dict[str, Any]) -> dict[str, Any]:
    """Gaps above 1 us of a loop that does nothing: the time that somebody else had the processor."""
    wall = max(int(run["wall_ns"]), 1)
    return {
        "share": round(run["away_ns"] / wall, 6),
        "max_ns": int(run["away_max_ns"]),
        "times": int(run["away_times"]),
    }


def machine(seconds: float = SPIN) -> dict[str, Any]:
    """What the machine adds: the cost of a reading of the clock, and the gaps of an empty loop."""
    steal = _stolen()
    found = spin(seconds)
    gaps: NDArray[np.uint64] = found["gaps"]
    out = {
        "seconds": seconds,
        "clock_ns": quantile(gaps, 0.5),
        "clock_p99_ns": quantile(gaps, 0.99),
        "away": _away(found),
    }
    after = _stolen()
    if steal is not None and after is not None:
        out["stolen_share"] = round(max(after - steal, 0.0) / seconds, 4)
    return out


def _stolen() -> float | None:
    """Seconds that the hypervisor has taken from all cores so far; None where the kernel does not tell."""
    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()
        return int(fields[8]) / 100
    except (OSError, IndexError, ValueError):
        return None


def quantile(counts: NDArray[np.uint64], q: float) -> int:
    """Largest ns of the bucket in which the quantile lies, as HdrHistogram tells it; 0 without counts."""
    below = np.cumsum(counts.astype(np.uint64))
    if len(below) == 0 or below[-1] == 0:
        return 0
    edges = paced_edges()
    at = int(np.searchsorted(below, np.ceil(q * float(below[-1]))))
    return int(edges[at + 1] - 1) if at + 1 < len(edges) else int(edges[at])


def _summary(run: dict[str, Any], name: str) -> dict[str, Any]:
    counts: NDArray[np.uint64] = run[name]
    total = int(counts.sum())
    # a bucket's end may lie beyond the largest value, which is known exactly
    most = int(run[f"{name}_max_ns"])
    out: dict[str, Any] = {f"p{q * 100:g}": min(quantile(counts, q), most) for q in QUANTILES}
    out |= {"mean": round(run[f"{name}_sum_ns"] / max(total, 1), 1), "max": most}
    return out | {"hdr": encoded(counts)}


def encoded(counts: NDArray[np.uint64]) -> str:
    """The histogram in HdrHistogram's V2 compressed encoding, base64; two significant digits, 1 ns to 2^40 ns."""
    from hdrh.histogram import HdrHistogram

    edges = paced_edges()
    made = HdrHistogram(1, LARGEST, 2)
    for at in np.flatnonzero(counts):
        # a sample of 0 ns counts as 1: the smallest value of the format
        made.record_value(max(int(edges[at]), 1), int(counts[at]))
    text: bytes = made.encode()
    return text.decode()


def decoded(text: str) -> NDArray[np.uint64]:
    """Counts of an encoded histogram, by bucket of `paced_edges`."""
    from hdrh.histogram import HdrHistogram

    made = HdrHistogram.decode(text)
    edges = paced_edges()
    out = np.zeros(len(edges), np.uint64)
    for item in made.get_recorded_iterator():
        out[np.searchsorted(edges, item.value_iterated_to, side="right") - 1] += np.uint64(
            item.count_at_value_iterated_to
        )
    return out
