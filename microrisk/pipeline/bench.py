"""bench: how fast each stage of the spine is on this machine, over the user's own recording or a generated one.

Contenders take turns: a round runs each once, ours beside the rivals that are installed and read this format, after a
first round that fills caches and compares answers. A figure is the median of the rounds, a ratio the median of the
ratios inside the rounds, so that a machine that slows down slows both sides. Rivals get their bytes ready in memory;
ours reads the file (from the page cache). No process is pinned.
"""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from microrisk.errors import MicroriskError, UsageError
from microrisk.pipeline.bench_input import Input, prepare
from microrisk.pipeline.bench_latency import SECONDS as PACED_SECONDS
from microrisk.pipeline.bench_latency import latency
from microrisk.pipeline.bench_memory import memory
from microrisk.pipeline.bench_rivals import Lazy, find_rivals
from microrisk.pipeline.bench_stages import OURS, Contender, Done, Stages, quantiles
from microrisk.pipeline.spine import Progress, Source
from microrisk.pipeline.watch import named

__all__ = ["bench", "generated", "quantiles"]

SEED, SIMULATED_SECONDS = 7, 1800.0
"""The generated stream: half an hour of one simulated instrument."""
SHORT = 200_000
"""Messages below which start-up shows in the figures."""
SHOWN = 5
"""Disagreements that are listed."""


def bench(
    inputs: Sequence[str] | Source = (),
    *,
    model: str | Path | None = None,
    repeats: int = 3,
    messages: int | None = None,
    paced_seconds: float = PACED_SECONDS,
    rivals: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Figures of the user's own recording, or of a generated one; plain types only.

    Parameters
    ----------
    inputs : files that continue each other, or a Source; none = a simulated session
    model : whose tables and heads are timed
    repeats : rounds behind the first, which is not counted
    messages : only the first so many, of an ITCH file
    paced_seconds : length of each paced replay; 0 = none
    rivals : whether other packages take part
    """
    if repeats < 1:
        raise UsageError(f"--repeats {repeats}: at least one")
    with tempfile.TemporaryDirectory(prefix="microrisk-bench-") as name:
        folder = Path(name)
        source = inputs if isinstance(inputs, Source) else Source(tuple(inputs))
        made = f"generated: simulator seed {SEED}, {SIMULATED_SECONDS:.0f} s, ITCH 5.0"
        shown: Any = list(source.inputs) if source.inputs else made
        given = prepare(source if source.inputs else generated(folder, SEED, SIMULATED_SECONDS), folder, messages)
        weights, facts = named(model)
        stages = Stages(given, weights, folder)
        contenders, notices = stages.contenders(), list(given.notices)
        if rivals:
            others, missing = find_rivals(given, folder)
            contenders, notices = contenders + others, notices + missing
        race = _Race(contenders, notices, progress)
        race.run(repeats)
        if race.longest < SHORT:
            notices.append(f"{race.longest:,} messages: too short for steady figures")
        result = {
            "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "python": platform.python_version()},
            "input": shown,
            "format": given.format,
            "bytes": sum(p.stat().st_size for p in given.files),
            "model": facts["name"],
            "repeats": repeats,
            "figures": race.figures(),
            "tick_to_alert_ns": stages.latency,
            "agreement": race.agreement,
            "disagreements": race.disagreements,
            "memory": memory(given.source),
        }
        result["latency"] = _paced(given, weights, paced_seconds, notices)
        return result | {"notices": notices}


def _paced(given: Input, weights: Any, seconds: float, notices: list[str]) -> dict[str, Any] | None:
    if seconds <= 0:
        return None
    if given.itch is None:
        notices.append("paced latency is measured on a single length-prefixed ITCH file only")
        return None
    return latency(given, weights, seconds=seconds)


def generated(folder: Path, seed: int, seconds: float) -> Source:
    """A simulated session with episodes as an ITCH file in `folder`."""
    from microrisk.market.simulator import simulate
    from microrisk.market.write import write_itch

    path = folder / "bench.itch"
    write_itch(simulate(seed, seconds, episodes="random"), path)
    return Source((str(path),), format="itch50", date="2025-01-06")


@dataclass
class _Times:
    """What a contender did in the rounds that count."""

    contender: Contender
    items: int = 0
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    answer: dict[str, Any] = field(default_factory=dict)

    def each_ns(self, clock: str = "seconds") -> list[float]:
        """Time of one item in each round, of `seconds` or `cpu`."""
        times: list[float] = getattr(self, clock)
        return [s * 1e9 / self.items for s in times] if self.items else []


class _Race:
    """Rounds of all contenders; a rival that fails drops out with a notice, ours may not fail.

    Attributes
    ----------
    agreement : pairs whose answers were compared and are equal
    disagreements : what differs, in words
    """

    def __init__(self, contenders: Sequence[Contender], notices: list[str], progress: Progress | None) -> None:
        self._times = [_Times(c) for c in contenders]
        self._notices, self._progress = notices, progress
        self.agreement: list[str] = []
        self.disagreements: list[str] = []

    def run(self, repeats: int) -> None:
        """A round that does not count, then `repeats` that do."""
        done, total = 0, (repeats + 1) * len(self._times)
        for turn in range(repeats + 1):
            for times in list(self._times):
                found = self._once(times, check=turn == 0)
                if found is not None and turn == 0:
                    times.items, times.answer = found.items, found.answer
                elif found is not None:
                    times.seconds.append(found.seconds)
                    times.cpu.append(found.cpu)
                done += 1
                if self._progress is not None:
                    self._progress(done / total, done)
            if turn == 0:
                self._compare()

    @property
    def longest(self) -> int:
        """Messages of the input."""
        return max((t.items for t in self._times if t.contender.who == OURS), default=0)

    def _once(self, times: _Times, *, check: bool) -> Done | None:
        c = times.contender
        if c.who == OURS:
            return c.run(check)
        try:
            return c.run(check)
        except MicroriskError:
            raise
        except Exception as error:  # a rival may fail in any way on a user's file: that is a result, not our end
            self._notices.append(f"{c.who} ({c.figure}) dropped out: {type(error).__name__}: {error}")
            self._times.remove(times)
            return None

    def _compare(self) -> None:
        ours = next((t.answer for t in self._times if t.contender.who == OURS and "best" in t.answer), {})
        for times in self._times:
            if times.contender.who != OURS:
                self._one(ours, times)

    def _one(self, ours: dict[str, Any], times: _Times) -> None:
        who = f"{times.contender.who} ({times.contender.figure})"
        theirs = dict(times.answer)
        best = theirs.get("best")
        if isinstance(best, Lazy):
            theirs["best"] = best.ask(ours.get("best", {}))
        equal = []
        for key in sorted(theirs.keys() & ours.keys()):
            wrong = _differences(key, ours[key], theirs[key])
            self.disagreements += [f"{who}: {w}" for w in wrong]
            equal += [] if wrong else [_told(key, ours[key])]
        if equal:
            self.agreement.append(f"{who}: {', '.join(equal)}")

    def figures(self) -> list[dict[str, Any]]:
        """Plain types, ours first in each figure."""
        mine = {t.contender.figure: t for t in self._times if t.contender.who == OURS}
        order = {figure: k for k, figure in enumerate(mine)}
        rows = sorted(self._times, key=lambda t: (order.get(t.contender.figure, 99), t.contender.who != OURS))
        return [_figure(t, mine.get(t.contender.figure)) for t in rows if t.seconds]


def _differences(key: str, ours: Any, theirs: Any) -> list[str]:
    if not isinstance(ours, dict):
        return [] if ours == theirs else [f"{key} {theirs:,}, ours {ours:,}"]
    names = sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n))
    told = [f"best of {n} {theirs.get(n)}, ours {ours.get(n)}" for n in names[:SHOWN]]
    return told + ([f"and {len(names) - SHOWN:,} more instruments"] if len(names) > SHOWN else [])


def _told(key: str, value: Any) -> str:
    if key == "best":
        return f"final best prices and sizes of {len(value):,} instruments"
    return f"{value:,} {key.replace('_', ' ')}"


def _figure(times: _Times, ours: _Times | None) -> dict[str, Any]:
    c, each, cpu = times.contender, times.each_ns(), times.each_ns("cpu")
    middle = statistics.median(each) if each else 0.0
    out: dict[str, Any] = {
        "stage": c.figure,
        "who": c.who,
        "unit": c.unit,
        "items": times.items,
        "seconds": statistics.median(times.seconds),
        "ns_each": round(middle, 1),
        "ns_low": round(min(each, default=0.0), 1),
        "ns_high": round(max(each, default=0.0), 1),
        "cpu_ns_each": round(statistics.median(cpu), 1) if cpu else 0.0,
        "millions_per_second": round(1e3 / middle, 3) if middle else 0.0,
        "spread": round(max(times.seconds) / min(times.seconds), 3),
        "note": c.note,
    }
    if ours is not None and ours is not times:
        out |= _ratios("ratio", each, ours.each_ns()) | _ratios("cpu_ratio", cpu, ours.each_ns("cpu"))
    return out


def _ratios(name: str, theirs: list[float], ours: list[float]) -> dict[str, float]:
    """Median and range of their time over ours in the same round."""
    pairs = [a / b for a, b in zip(theirs, ours, strict=False) if b > 0]
    if not pairs:
        return {}
    found = {name: statistics.median(pairs), f"{name}_low": min(pairs), f"{name}_high": max(pairs)}
    return {key: round(value, 2) for key, value in found.items()}


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
