"""Simulated sessions as tracks of the harness, scored by the unchanged spine; the run behind `evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from microrisk.errors import UsageError
from microrisk.evaluate.baselines import rivals
from microrisk.evaluate.detectors import Column, Detector, Level, Union
from microrisk.evaluate.harness import evaluate
from microrisk.evaluate.result import Result
from microrisk.evaluate.split import EpisodeLike, Split, Track
from microrisk.market.episodes import random_plans
from microrisk.market.simulator import Session, simulate
from microrisk.pipeline.memory import simulated
from microrisk.pipeline.scoring import Heads
from microrisk.pipeline.spine import Openable, Spine
from microrisk.pipeline.watch import Stage
from microrisk.spec.weightfile import HEADS
from microrisk.weights import Weights

FIRST_SEED = 1_000_000
"""Seeds of the harness begin here; those that models are made with lie below."""
SEEDS_PER_RUN = 1_000
SECONDS_PER_KIND, SPACING_S = 450.0, 12.0
TRAIN_SESSIONS = 2
"""Sessions that the fitted baselines get; the model was trained elsewhere."""

Say = Callable[[str], None]


def tracks(
    source: Openable, weights: Weights, session: str, episodes: Sequence[tuple[str, EpisodeLike]], *,
    seed: int | None = None, span: tuple[int, int] | None = None,
) -> list[Track]:  # fmt: skip
    """Score a source and cut the rows by instrument.

    episodes : (instrument id, episode). Columns are the heads by name; ticks are among the rows.
    """
    spine = Spine(source)
    heads = Heads("cpu", weights, spine.feed.mask)
    stage = Stage(spine, weights, heads.engine_heads)
    rows = np.concatenate(list(heads.complete(stage, stage.chunks())))
    out = []
    for index in map(int, np.unique(rows["instrument"])):
        mine, name = rows[rows["instrument"] == index], spine.names[index]
        start, end = span or (int(mine["now"][0]), int(mine["now"][-1]))
        out.append(
            Track(
                session=session,
                instrument=name,
                now=mine["now"].copy(),
                codes=mine["codes"].copy(),
                columns={head: mine["heads"][:, h].copy() for h, head in enumerate(HEADS)},
                episodes=[e for owner, e in episodes if owner == name],
                seed=seed,
                start_ns=min(start, int(mine["now"][0])),
                end_ns=max(end, int(mine["now"][-1])),
            )
        )
    return out


def session_tracks(session: Session, weights: Weights, name: str) -> list[Track]:
    """A simulated session; an episode of the whole channel counts for every instrument."""
    ids = {i: s.id for i, s in session.instruments.items()}
    owned = [(owner, e) for e in session.episodes for owner in ([ids[e.instrument]] if e.instrument else ids.values())]
    end = session.start_ns + int(session.seconds * 1e9)
    return tracks(simulated(session), weights, name, owned, seed=session.seed, span=(session.start_ns, end))


def eventful(seed: int, seconds: float) -> Session:
    """A session of one instrument with an episode of each kind for every SECONDS_PER_KIND.

    After lost messages the receiver gets a book image (simulate's resync): a wrong book to the end of the session would
    grade the missing repair. Raises UsageError below about six minutes, where one episode of each kind does not fit.
    """
    plans = random_plans(seed, seconds, max(1, int(seconds / SECONDS_PER_KIND)), SPACING_S)
    return simulate(seed, seconds, episodes=plans)


def simulated_split(weights: Weights, *, sessions: int, minutes: float, seed: int, say: Say) -> Split:
    """Clean training and calibration sessions and test sessions with episodes, all of different seeds."""
    if not 1 <= sessions <= SEEDS_PER_RUN // 3 or seed < 0:
        raise UsageError(f"{sessions} sessions, seed {seed}: 1 to {SEEDS_PER_RUN // 3} sessions, seed not negative")
    base = FIRST_SEED + seed * SEEDS_PER_RUN
    parts: dict[str, list[Track]] = {"train": [], "calibration": [], "test": []}
    third = SEEDS_PER_RUN // 3
    for k, (part, found) in enumerate(parts.items()):
        for i in range(min(sessions, TRAIN_SESSIONS) if part == "train" else sessions):
            say(f"{part} session {i + 1}: simulating and scoring {minutes:g} minutes")
            number = base + k * third + i
            session = eventful(number, minutes * 60) if part == "test" else simulate(number, minutes * 60)
            found += session_tracks(session, weights, f"{part}-{session.seed}")
    return Split(parts["train"] + _taught(weights), parts["calibration"], parts["test"])


def _taught(weights: Weights) -> list[Track]:
    """The seeds that the model itself was made with, so that the harness refuses to grade on them."""
    seeds = [int(s) for part in weights.card.get("seeds", {}).values() for s in part]
    nothing = np.zeros(0, np.int64)
    return [Track(f"model-{s}", f"SIM-{s}", nothing, seed=s, start_ns=0, end_ns=0) for s in seeds]


def detectors(*, forest: bool = True, seed: int = 0) -> list[Detector]:
    """The heads as the alert stage sees them (levels, then smoothed), their union, and the rivals."""
    heads: list[Detector] = [Level(Column(h)) for h in HEADS]
    return [Union([Level(Column(h)) for h in HEADS]), *heads, *rivals(forest=forest, seed=seed)]


def run(
    weights: Weights, *, sessions: int = 4, minutes: float = 30.0, seed: int = 0, forest: bool = True,
    say: Say = lambda _: None,
) -> Result:  # fmt: skip
    """Grade the model and its rivals on simulated sessions that neither has seen."""
    split = simulated_split(weights, sessions=sessions, minutes=minutes, seed=seed, say=say)
    say("grading")
    return evaluate(split, detectors(forest=forest, seed=seed), seed=seed)
