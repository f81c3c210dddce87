"""demo: a simulated market with planted trouble, as exchange bytes, through the whole spine, to a report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microrisk.evaluate.report import Headline, Latency, ModelFacts, PlantedEpisode, Report, write_report
from microrisk.evaluate.report_build import alerts, book_window, match, traces, trades_of
from microrisk.market.episodes import Plan, random_plans
from microrisk.market.simulator import Session, simulate
from microrisk.market.write import write_mold_pcap
from microrisk.pipeline.rows import score_schema, score_table
from microrisk.pipeline.scoring import Heads
from microrisk.pipeline.sink import ParquetSink
from microrisk.pipeline.spine import Source, Spine
from microrisk.pipeline.watch import Stage, named
from microrisk.weights import Weights

PER_KIND = 2
SHOWN_FALSE_ALARMS = 4
LOST_S = 20.0
"""Seconds before the end at which packets are really lost: a hole in the sequence, and a book in doubt after it."""
DEPTH = 10
SESSION_DATE = "2025-01-06"
"""New York date of the simulator's start."""


@dataclass(frozen=True)
class DemoResult:
    """What the demo found, ready for JSON.

    Attributes
    ----------
    report, recording, scores : files that were written
    episodes : kind, instrument, at (seconds after the start), found, after (seconds to the alarm), head
    found, false_alarms, hours : totals; a false alarm belongs to no episode
    messages, seconds, messages_per_second : of the scoring run
    next_commands : who it is for -> command
    """

    report: str
    recording: str
    scores: str
    episodes: list[dict[str, Any]]
    found: int
    false_alarms: int
    hours: float
    messages: int
    seconds: float
    next_commands: dict[str, str]

    @property
    def messages_per_second(self) -> float:
        """Of the scoring run, file to rows."""
        return self.messages / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain types only."""
        return asdict(self) | {"messages_per_second": round(self.messages_per_second)}


@dataclass(frozen=True)
class _Run:
    """Everything that the spine left behind."""

    spine: Spine
    stage: Stage
    rows: NDArray[Any]
    book_rows: NDArray[Any]
    depth: NDArray[np.int64]
    latency: NDArray[Any]


def demo(
    out: str | Path,
    *,
    seed: int = 1,
    minutes: float = 30.0,
    model: str | Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> DemoResult:
    """Simulate, write a MoldUDP64 capture, score it, write scores.parquet and report.html under `out`.

    The same seed gives the same market. `say` is told what is going on. Raises UsageError when the session is too short
    for two episodes of each kind, and what the spine raises.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    weights, facts = named(model)
    say(f"simulating {minutes:g} minutes of one instrument, seed {seed}, {PER_KIND} episodes of each kind")
    session = planted(seed, minutes * 60)
    capture = folder / "market.pcap"
    write_mold_pcap(session, capture)
    say(f"{len(session.events):,} events, {capture.stat().st_size / 1e6:.1f} MB -> {capture}; scoring")
    run = _score(capture, weights, folder / "scores.parquet")
    say(f"{len(run.rows):,} rows in {run.spine.seconds:.1f} s; writing the report")
    report = _report(session, run, weights, facts, capture)
    page = write_report(folder / "report.html", report)
    return _result(report, run, page, folder, capture, session.start_ns)


def planted(seed: int, seconds: float) -> Session:
    """The demo's market; its gaps are a venue that falls silent and then sends everything late, but for the last one.

    Lost messages leave a wrong book, since nobody sends a snapshot here: they come shortly before the end.
    """
    plans = random_plans(seed, seconds - 2 * LOST_S, PER_KIND, 30.0, first_s=60.0)
    late = [replace(p, hard=True) if p.kind == "gap" else p for p in plans]
    lost = Plan("gap", int((seconds - LOST_S) * 1e9), seconds=4.0)
    return simulate(seed, seconds, episodes=[*late, lost])


def _score(capture: Path, weights: Weights, out: Path) -> _Run:
    """Bytes to rows, in memory and in a Parquet file, with the book beside them."""
    spine = Spine(Source((str(capture),), date=SESSION_DATE, venue="SIMX"))
    spine.engine.record_depth(DEPTH)
    spine.engine.latency(True)
    heads = Heads("cpu", weights, spine.feed.mask)
    stage = Stage(spine, weights, heads.engine_heads)
    kept, books, levels = [], [], []
    with ParquetSink(out, score_schema(ticks=True)) as sink:
        for rows in heads.complete(stage, stage.chunks()):
            sink.write(score_table(rows, spine.names, weights, stage.mask, lambda _: False, ticks=True))
            kept.append(rows)
            best, depth = spine.engine.take_depth()
            books.append(best)
            levels.append(depth)
    return _Run(
        spine, stage, np.concatenate(kept), np.concatenate(books), np.concatenate(levels), spine.engine.take_latency()
    )


def _report(session: Session, run: _Run, weights: Weights, facts: dict[str, Any], capture: Path) -> Report:
    from microrisk.core import latency_edges

    names = {i: entry.id for i, entry in run.spine.instruments() if entry is not None}
    level = weights.level_for(None, run.stage.mask)
    labels = {i: s.id for i, s in session.instruments.items()}
    planted_ = [
        PlantedEpisode(e.kind, e.start_ns, e.end_ns, e.strength, labels[e.instrument or 1]) for e in session.episodes
    ]
    episodes, marks = match(planted_, alerts(run.rows, names, run.stage.mask))
    outcome = run.spine.outcome()
    marks_of = run.stage.marks(next(iter(names.values())))
    span = (int(run.rows["now"][-1]) - int(run.rows["now"][0])) / 1e9
    report = Report(
        title="microrisk demo: a market with planted trouble",
        source=f"simulated market, seed {session.seed}, read back from MoldUDP64 / ITCH 5.0 bytes",
        headline=Headline(
            outcome["events"], outcome["messages"], len(run.rows), run.spine.seconds, span, capture.stat().st_size
        ),
        model=ModelFacts(
            facts["name"],
            facts["format_hash"],
            table=marks_of["table"],
            level=marks_of["level"],
            mask=run.stage.mask,
            trained_on=str(weights.card.get("description", "")),
        ),
        instruments=list(names.values()),
        episodes=episodes,
        alerts=marks,
        traces=traces(run.rows, names, list(level.on), list(level.off)),
        books=[],
        integrity=outcome["integrity"],
        latency=Latency(latency_edges(), run.latency),
        findings=[
            *outcome["notices"],
            *(f"{f['kind']} in {f['instrument']}, sequence {f['seq']}" for f in outcome["findings"] if f["seq"]),
        ],
        commands=list(next_commands(capture).items()),
        notes=[
            "The market is simulated: found episodes say that the parts work together, not how a real day would go.",
            f"Again: microrisk demo --seed {session.seed}",
        ],
    )
    return _with_books(report, run, names, session)


def _with_books(report: Report, run: _Run, names: dict[int, str], session: Session) -> Report:
    """The report with the book around each episode and around the first false alarms."""
    numbers = {name: index for index, name in names.items()}
    moments = [("episode", k, e.instrument, e.start_ns) for k, e in enumerate(report.episodes)]
    false = sorted((report.alerts.index(a), a.instrument, a.ns) for a in report.false_alarms()[:SHOWN_FALSE_ALARMS])
    moments += [("alert", k, name, ts) for k, name, ts in false]
    out = []
    for what, k, name, ts in moments:
        entry = session.instruments[numbers[name]]
        mine = run.book_rows["instrument"] == numbers[name]
        times, prints = run.book_rows["ts_event"][mine], trades_of(session.events, numbers[name])
        window = book_window(name, ts, times, run.depth[mine], tick=entry.tick or 1, trades=prints)
        out.append((what, k, window))
    return replace(report, books=out)


def _result(report: Report, run: _Run, page: Path, folder: Path, capture: Path, start_ns: int) -> DemoResult:
    episodes = []
    for k, e in enumerate(report.episodes):
        late = report.delay_s(k)
        episodes.append(
            {
                "kind": e.kind,
                "instrument": e.instrument,
                "at": f"{(e.start_ns - start_ns) / 1e9:.0f} s",
                "found": e.found,
                "after": "" if late is None else f"{late:.1f} s",
                "head": "" if e.alert is None else report.alerts[e.alert].head,
            }
        )
    return DemoResult(
        report=str(page),
        recording=str(capture),
        scores=str(folder / "scores.parquet"),
        episodes=episodes,
        found=sum(e.found for e in report.episodes),
        false_alarms=len(report.false_alarms()),
        hours=report.headline.market_seconds / 3600,
        messages=report.headline.messages,
        seconds=run.spine.seconds,
        next_commands=next_commands(capture),
    )


def next_commands(capture: Path) -> dict[str, str]:
    """A first command for each kind of user."""
    return {
        "check your own recording": "microrisk replay FILE --json --bbo bbo.parquet",
        "score your own recording": "microrisk score FILE --out scores.parquet",
        "look at this one again": f"microrisk replay {capture} --date {SESSION_DATE} --venue SIMX",
        "features for research": f"microrisk features {capture} --date {SESSION_DATE} --out codes.parquet",
        "grade the detectors": "microrisk evaluate --sessions 4",
        "speed of this machine": "microrisk bench",
        "what runs here": "microrisk doctor",
    }
