"""What is graded: tracks (one instrument of one session), and the split that the harness refuses when it leaks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from microrisk.errors import EvaluationError


class EpisodeLike(Protocol):
    """A planted episode: `kind`, and when it was active in ns UTC (start <= end)."""

    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def start_ns(self) -> int: ...  # noqa: D102
    @property
    def end_ns(self) -> int: ...  # noqa: D102


@dataclass(frozen=True)
class Span:
    """The smallest EpisodeLike."""

    kind: str
    start_ns: int
    end_ns: int


@dataclass(frozen=True)
class Track:
    """Scored rows of one instrument in one session, in time order, staleness ticks included.

    Attributes
    ----------
    session : name of the session; the block of the bootstrap, and never in two parts of a split
    instrument : id
    now : int64[n] ns, not falling
    codes : int8[n, 32] for baselines that read features, else None
    columns : scores by name, each [n]
    episodes : what was planted here; empty in a clean session
    seed : seed of the simulator that made the order flow; None for a recording, also one with injected episodes
    start_ns, end_ns : session span, from `now` when not given; silence outside the rows counts as time
    """

    session: str
    instrument: str
    now: NDArray[np.int64]
    codes: NDArray[np.int8] | None = None
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    episodes: Sequence[EpisodeLike] = ()
    seed: int | None = None
    start_ns: int | None = None
    end_ns: int | None = None

    def __post_init__(self) -> None:
        n = len(self.now)
        if n and np.any(np.diff(self.now) < 0):
            raise EvaluationError(f"{self.name}: rows go back in time")
        named = dict(self.columns) if self.codes is None else {"codes": self.codes, **self.columns}
        for what, values in named.items():
            if len(values) != n:
                raise EvaluationError(f"{self.name}: column {what} has {len(values)} values for {n} rows")
        if not n and (self.start_ns is None or self.end_ns is None):
            raise EvaluationError(f"{self.name}: a track without rows needs start_ns and end_ns")

    @property
    def name(self) -> str:
        """Session and instrument, for messages."""
        return f"{self.session} {self.instrument}"

    @property
    def span(self) -> tuple[int, int]:
        """First and last ns of the session."""
        start = int(self.now[0]) if self.start_ns is None else self.start_ns
        end = int(self.now[-1]) if self.end_ns is None else self.end_ns
        return start, end

    def without(self, kinds: Iterable[str]) -> Track:
        """The same rows, without the labels of some kinds."""
        drop = set(kinds)
        return replace(self, episodes=[e for e in self.episodes if e.kind not in drop])


@dataclass(frozen=True)
class Split:
    """Three parts that share no session, no seed, and no stretch of time of an instrument.

    Attributes
    ----------
    train : what detectors were or will be fitted on; may be without rows when the fitting happened elsewhere
    calibration : clean sessions, hard negatives included; thresholds come from here and nowhere else
    test : sessions with episodes
    """

    train: Sequence[Track]
    calibration: Sequence[Track]
    test: Sequence[Track]

    def check(self) -> None:
        """Raise EvaluationError with the reason when the split must not be graded."""
        if not self.calibration:
            raise EvaluationError("thresholds need calibration sessions, and there are none")
        for track in self.calibration:
            if track.episodes:
                raise EvaluationError(f"calibration session {track.name} holds {len(track.episodes)} episodes")
        if not any(track.episodes for track in self.test):
            raise EvaluationError("labels without episodes: no test session holds one, so recall is undefined")
        for track in self.test:
            _check_episodes(track)
        parts = {"train": self.train, "calibration": self.calibration, "test": self.test}
        for one, two in (("train", "calibration"), ("train", "test"), ("calibration", "test")):
            _check_apart(one, parts[one], two, parts[two])


def _check_episodes(track: Track) -> None:
    start, end = track.span
    for e in track.episodes:
        if e.end_ns < e.start_ns:
            raise EvaluationError(f"{track.name}: {e.kind} ends {e.end_ns} before it starts {e.start_ns}")
        if e.end_ns < start or e.start_ns > end:
            raise EvaluationError(f"{track.name}: {e.kind} at {e.start_ns} lies outside the session {start}..{end}")


def _check_apart(one: str, a: Sequence[Track], two: str, b: Sequence[Track]) -> None:
    for x in a:
        for y in b:
            reason = shared(x, y)
            if reason:
                raise EvaluationError(f"{one} and {two} overlap: {x.name} and {y.name} {reason}")


def shared(x: Track, y: Track) -> str | None:
    """Why two tracks of different parts may not be graded together, or None."""
    if x.session == y.session:
        return f"are the same session {x.session}"
    if x.seed is not None and x.seed == y.seed:
        return f"come from the same seed {x.seed}"
    if x.seed is None and y.seed is None and x.instrument == y.instrument:
        return _time_shared(x, y)
    return None


def _time_shared(x: Track, y: Track) -> str | None:
    """Recordings of one instrument: the earlier part must end before the later part begins."""
    if x.span[1] >= y.span[0] and y.span[1] >= x.span[0]:
        return f"share time of {x.instrument}"
    if x.span[0] > y.span[1]:
        return f"are in the wrong order: {x.session} is later than {y.session}"
    return None
