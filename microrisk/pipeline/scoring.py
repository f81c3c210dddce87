"""score: heads, levels and alarms of every event."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from microrisk.pipeline.rows import score_schema, score_table, tail_probability
from microrisk.pipeline.sink import ParquetSink
from microrisk.pipeline.spine import Inputs, Outcome, Progress, Source, Spine, describe
from microrisk.pipeline.watch import Stage, named
from microrisk.spec.records import N_HEADS
from microrisk.spec.weightfile import HEADS

if TYPE_CHECKING:
    from microrisk.score.failover import Failover

HOUR_NS = 3_600_000_000_000
BATCH = 1 << 16
"""Rows handed to a back end that runs beside the engine in one call."""


@dataclass(frozen=True, kw_only=True)
class ScoreResult(Outcome):
    """What scoring found.

    Attributes
    ----------
    backend : who computed the heads to the end of the run
    model : name, path, format_hash
    rows, ticks : scored events, and staleness ticks among which alarms count too
    hours : market time from the first to the last row
    alerts : how often each head went into alarm; "any" = rows where at least one did
    alerts_per_hour : the same over `hours`
    lowest_level : smallest tail probability of an alarm, None without one
    below : rows in alarm whose tail probability is below `fail_on`
    failovers : every back end that failed, as {from, to, reason, at_row, switch_ms}; see score.failover.Switch
    """

    backend: str
    model: dict[str, Any]
    rows: int
    ticks: int
    hours: float
    alerts: dict[str, int]
    alerts_per_hour: dict[str, float]
    lowest_level: float | None
    fail_on: float | None
    below: int
    failovers: list[dict[str, Any]] = field(default_factory=list)

    def exit_code(self) -> int:
        """3 when the input broke off, 1 when an alarm's level is below `fail_on`, else 0."""
        return super().exit_code() or (1 if self.below else 0)

    def marks(self) -> list[str]:
        """A line for every way in which instruments are scored, with the instruments."""
        groups: dict[str, list[str]] = {}
        for i in self.instruments:
            groups.setdefault(f"table={i['table']} level={i['level']} mask={i['mask']}", []).append(i["id"])
        return [f"{mark}: {', '.join(ids[:5])}{f' and {len(ids) - 5} more' if len(ids) > 5 else ''}"
                for mark, ids in groups.items()]  # fmt: skip


def score(
    inputs: Inputs,
    *,
    model: str | Path | None = None,
    backend: str = "auto",
    out: str | Path | None = None,
    ticks: bool = False,
    fail_on: float | None = None,
    check_every: int | None = None,
    deadline: float | None = None,
    progress: Progress | None = None,
    **options: str | None,
) -> ScoreResult:
    """Score every event of every instrument, in bounded memory, and write `out` when asked.

    backend : "auto" and "cpu" compute inside the engine; any other scorer gets the codes in batches and the alarm step
    follows here. All give the same rows. When one fails, score.failover lets the next one go on.
    ticks : staleness ticks make rows; they count for alarms in any case.
    fail_on : compared with generic levels too, where an instrument has none of its own.
    check_every, deadline : how closely a back end beside the engine is watched: one row in so many is computed again,
    and a batch must be answered in so many seconds; None = the defaults of score.failover.

    Options and errors as in `replay`; BackendUnavailable for a named back end that cannot run here, ModelNotFound,
    WeightFileError and SpecMismatch for the model.
    """
    spine = Spine(Source.of(inputs, **options))
    weights, facts = named(model)
    heads = Heads(backend, weights, spine.feed.mask, check_every=check_every, deadline=deadline)
    stage = Stage(spine, weights, heads.engine_heads)
    tally = _Tally(fail_on)
    with ExitStack() as stack:
        sink = None if out is None else stack.enter_context(ParquetSink(out, score_schema(ticks=ticks)))
        for rows in heads.complete(stage, stage.chunks(progress)):
            tally.add(rows)
            if sink is not None:
                shown = rows if ticks else rows[rows["tick"] == 0]
                sink.write(_table(shown, stage, ticks))
    return _result(spine, stage, heads, tally, facts)


def _table(rows: NDArray[Any], stage: Stage, ticks: bool) -> Any:
    def calibrated(name: str) -> bool:
        return bool(stage.marks(name)["level"] == "calibrated")

    return score_table(rows, stage.spine.names, stage.weights, stage.mask, calibrated, ticks=ticks)


class Heads:
    """Who computes the heads: the engine itself (cpu), or a scorer beside it followed by the alarm step.

    A scorer beside the engine is watched (score.failover); smoothing and alarms see checked batches only. Without it
    `failover` is None. check_every, deadline : as in `score`.
    """

    def __init__(
        self, backend: str, weights: Any, mask: int, *, check_every: int | None = None, deadline: float | None = None
    ) -> None:
        from microrisk.score.backend import open_scorer
        from microrisk.score.cpu_scorer import CpuScorer
        from microrisk.score.failover import Failover, check_watch

        check_watch(check_every, deadline)  # the engine is not watched, but a wrong number is one whoever computes
        self._alarms: dict[int, NDArray[Any]] = {}
        self.failover: Failover | None = None
        scorer = open_scorer(backend)
        self._name, self.engine_heads = scorer.name, None
        if isinstance(scorer, CpuScorer):
            scorer.load(weights, mask)
            self.engine_heads = scorer.heads
        else:
            self.failover = Failover(scorer, weights, mask, check_every=check_every, deadline=deadline)

    @property
    def name(self) -> str:
        """The back end in use."""
        return self._name if self.failover is None else self.failover.name

    @property
    def notices(self) -> list[str]:
        """What happened to back ends."""
        return [] if self.failover is None else self.failover.notices

    @property
    def failovers(self) -> list[dict[str, Any]]:
        """The same as plain data."""
        return [] if self.failover is None else [s.to_json() for s in self.failover.switches]

    def restore(self, name: str) -> str | None:
        """Failover.restore: put a failed back end back; why not, or None. Works until `complete` has ended."""
        return f"back end {name!r} has not failed" if self.failover is None else self.failover.restore(name)

    def complete(self, stage: Stage, chunks: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        """The rows with heads, levels and alarms, in the same order."""
        if self.failover is None:
            yield from chunks
            return
        try:
            for rows in _batches(chunks):
                yield self._fill(stage, rows, self.failover)
        finally:
            self.failover.close()

    def _fill(self, stage: Stage, rows: NDArray[Any], scorer: Failover) -> NDArray[Any]:
        from microrisk.score import alert

        rows["heads"] = scorer.score(np.ascontiguousarray(rows["codes"]))
        for index in np.unique(rows["instrument"]):
            mine = np.flatnonzero(rows["instrument"] == index)
            state = self._alarms.setdefault(int(index), alert.initial_state())
            params = stage.params(stage.name_of(int(index)))
            found = alert.run_alert(rows["heads"][mine], params, state)
            rows["level"][mine], rows["alert"][mine], rows["fresh"][mine] = found
        return rows


def _batches(chunks: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """Chunks joined to BATCH rows or a little more; the last one to what is left."""
    held: list[NDArray[Any]] = []
    for rows in chunks:
        held.append(rows)
        if sum(map(len, held)) >= BATCH:
            yield np.concatenate(held)
            held = []
    if held:
        yield np.concatenate(held)


@dataclass
class _Tally:
    """Counts over all rows."""

    fail_on: float | None
    rows: int = 0
    ticks: int = 0
    below: int = 0
    first: int | None = None
    last: int = 0
    lowest: float | None = None
    fresh: NDArray[np.int64] = field(default_factory=lambda: np.zeros(N_HEADS + 1, np.int64))
    by_instrument: dict[int, tuple[int, int]] = field(default_factory=dict)

    def add(self, rows: NDArray[Any]) -> None:
        """Take the next rows, ticks included."""
        if len(rows) == 0:
            return
        self.first = int(rows["now"][0]) if self.first is None else self.first
        self.last = int(rows["now"][-1])
        ticks = int(np.count_nonzero(rows["tick"]))
        self.rows, self.ticks = self.rows + len(rows) - ticks, self.ticks + ticks
        new = rows[rows["fresh"] != 0]
        self.fresh += [*(int(((new["fresh"] >> h) & 1).sum()) for h in range(N_HEADS)), len(new)]
        self._by_instrument(rows["instrument"], new["instrument"])
        self._levels(rows[rows["alert"] != 0])

    def _by_instrument(self, all_rows: NDArray[Any], new: NDArray[Any]) -> None:
        for index, count in zip(*np.unique(all_rows, return_counts=True), strict=True):
            rows, alerts = self.by_instrument.get(int(index), (0, 0))
            self.by_instrument[int(index)] = (rows + int(count), alerts + int(np.count_nonzero(new == index)))

    def _levels(self, on: NDArray[Any]) -> None:
        """Lowest tail probability of heads in alarm, and the rows that `fail_on` minds."""
        if len(on) == 0:
            return
        in_alarm = (on["alert"][:, None] >> np.arange(N_HEADS)) & 1 != 0
        tail = np.where(in_alarm, tail_probability(on["level"]), np.float32(1)).min(axis=1)
        low = float(tail.min())
        self.lowest = low if self.lowest is None else min(self.lowest, low)
        if self.fail_on is not None:
            self.below += int(np.count_nonzero(tail < self.fail_on))


def _result(spine: Spine, stage: Stage, heads: Heads, tally: _Tally, facts: dict[str, Any]) -> ScoreResult:
    hours = max(tally.last - (tally.first or 0), 0) / HOUR_NS
    counts = dict(zip((*HEADS, "any"), map(int, tally.fresh), strict=True))
    outcome = spine.outcome()
    outcome["notices"] += heads.notices
    outcome["instruments"] = [_scored(i, entry, stage, tally) for i, entry in spine.instruments()]
    return ScoreResult(
        **outcome,
        backend=heads.name,
        model=facts,
        rows=tally.rows,
        ticks=tally.ticks,
        hours=hours,
        alerts=counts,
        alerts_per_hour={k: v / hours if hours > 0 else 0.0 for k, v in counts.items()},
        lowest_level=tally.lowest,
        fail_on=tally.fail_on,
        below=tally.below,
        failovers=heads.failovers,
    )


def _scored(index: int, entry: Any, stage: Stage, tally: _Tally) -> dict[str, Any]:
    rows, alerts = tally.by_instrument.get(index, (0, 0))
    name = None if entry is None else entry.id
    return {**describe(index, entry), **stage.marks(name), "rows": rows, "alerts": alerts}
