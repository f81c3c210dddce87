"""Detectors as the harness sees them, a smoothed score per row of a track; stored columns and the union of heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microrisk.errors import EvaluationError
from microrisk.evaluate.alarms import Curve, curve
from microrisk.evaluate.grid import Floats, ewma, grid
from microrisk.evaluate.split import Track

UNION_BUDGETS: Mapping[str, float] = {"exposure": 6.0, "maxz": 2.0, "vae": 1.0, "maha": 1.0}
"""False alarms an hour of each head at a total of ten; other totals keep the proportions."""


class Detector:
    """Base: subclasses give `score`; the harness asks for `smoothed`.

    A detector sees codes and columns of a track, never its episodes.
    """

    name = "detector"

    def fit(self, train: Sequence[Track]) -> None:
        """Learn from training sessions; nothing by default."""

    def calibrate(self, calibration: Sequence[Track]) -> None:
        """Learn from clean calibration sessions; nothing by default."""

    def score(self, track: Track) -> ArrayLike:
        """Larger = more unusual, one finite value a row."""
        raise NotImplementedError

    def smoothed(self, track: Track) -> Floats:
        """The score after the smoothing that every detector gets; float64[n]."""
        return ewma(self.score(track))

    def drivers(self, track: Track) -> NDArray[np.int64] | None:
        """Index into `parts` of the part that makes the score of each row, for detectors made of parts."""
        return None

    @property
    def parts(self) -> Sequence[str]:
        """Names of the parts; empty for most detectors."""
        return ()


class Column(Detector):
    """A score that the engine has already written: a head, or its level.

    Parameters
    ----------
    column : name in Track.columns
    name : name in the table, the column's by default
    smooth : False for ROW.level, which the alert stage has smoothed with the same constant
    """

    def __init__(self, column: str, *, name: str | None = None, smooth: bool = True) -> None:
        self.column, self.name, self.smooth = column, name or column, smooth

    def score(self, track: Track) -> ArrayLike:
        """The column as it is; EvaluationError when the track lacks it."""
        if self.column not in track.columns:
            raise EvaluationError(f"{track.name} has no column {self.column}; it has {sorted(track.columns)}")
        return track.columns[self.column]

    def smoothed(self, track: Track) -> Floats:
        """Smoothed here unless the engine did it."""
        return super().smoothed(track) if self.smooth else np.asarray(self.score(track), np.float64)


class Level(Detector):
    """A detector's score as -log2 of its tail probability among the rows of clean sessions, smoothed afterwards.

    That is what the alert stage does with the heads. Without it a heavy-tailed score (a sum of squares) is smoothed
    raw, and one odd row outlasts a minute of evidence. Beyond the clean rows the tail is exponential.
    """

    TAIL = 50

    def __init__(self, of: Detector, name: str | None = None) -> None:
        self._of, self.name = of, name or of.name
        self._x = self._y = np.zeros(0)
        self._scale = 1.0

    def fit(self, train: Sequence[Track]) -> None:
        """Fit the detector inside."""
        self._of.fit(train)

    def calibrate(self, calibration: Sequence[Track]) -> None:
        """Learn the distribution of the clean rows."""
        self._of.calibrate(calibration)
        clean = np.sort(np.concatenate([np.asarray(self._of.score(t), np.float64) for t in calibration]))
        if not len(clean):
            raise EvaluationError("calibration sessions hold no rows")
        # 400 knots, denser towards the tail
        rank = np.unique(np.geomspace(1, len(clean), 400).round().astype(np.int64))[::-1]
        value = clean[len(clean) - rank]
        last = np.flatnonzero(np.r_[np.diff(value) > 0, True])  # of equal scores the rarest rank would overstate
        first = np.r_[0, last[:-1] + 1]
        self._x, self._y = value[last], -np.log2(rank[first] / (len(clean) + 1))
        top = clean[-self.TAIL :]
        excess = float(np.mean(top - top[0]))
        self._scale = excess if excess > 0 else max(float(np.ptp(clean)), 1.0)

    def score(self, track: Track) -> ArrayLike:
        """Bits, float64[n]."""
        if not len(self._x):
            raise EvaluationError(f"{self.name} must be calibrated before it scores")
        x = np.asarray(self._of.score(track), np.float64)
        beyond = np.maximum(x - self._x[-1], 0) / self._scale * np.log2(np.e)
        return np.asarray(np.interp(x, self._x, self._y) + beyond)


class Rate:
    """ln(false alarms an hour) that a threshold at x allows, as a continuous, falling function of x.

    Between the scores at which one more alarm appears in calibration it is linear; above all of them the tail is
    exponential (mean excess of the highest alarms), so budgets below one alarm in the sessions have a threshold too;
    below the last of them it follows the share of bins.
    """

    TAIL = 10

    def __init__(self, calibrated: Curve) -> None:
        if not len(calibrated.value):
            raise EvaluationError("calibration sessions hold no rows")
        value, count = calibrated.value, calibrated.count
        steps = np.flatnonzero(np.diff(count, prepend=0) > 0)
        peaks, seen = value[steps], count[steps].astype(float)
        below = np.unique(np.geomspace(steps[-1] + 1, len(value), 200).astype(np.int64)) - 1
        below = below[below > steps[-1]]
        ratio = calibrated.bins[below] / calibrated.bins[steps[-1]]
        x = np.r_[peaks, value[below]]
        # half an alarm less: the plotting position of the highest peak is half an alarm in all hours
        y = np.log(np.r_[seen - 0.5, (seen[-1] - 0.5) * ratio] / calibrated.hours)
        self.x, self.y = x[::-1], y[::-1]
        m = min(self.TAIL, len(peaks) - 1)
        excess = float(np.mean(peaks[:m] - peaks[m])) if m else 0.0
        self.scale = excess if excess > 0 else max(float(np.ptp(value)), 1.0)

    def __call__(self, x: Floats) -> Floats:
        """Float64, same shape."""
        inside = np.interp(x, self.x, self.y)
        above = self.y[-1] - (x - self.x[-1]) / self.scale
        below = self.y[0] + (self.x[0] - x) / self.scale
        return np.asarray(np.where(x > self.x[-1], above, np.where(x < self.x[0], below, inside)))


class Union(Detector):
    """Alarm when any part does, each part with a false-alarm budget of its own.

    Score = max over parts of ln(budget of the part) - ln(rate of the part at its own score). Raising the threshold of
    this score by x divides all budgets by e^x, so the harness finds the common factor at which the union as a whole
    spends exactly the total budget on calibration sessions: the same total that every rival gets.

    Parameters
    ----------
    parts : detectors
    budgets : false alarms an hour of each, by name; only the proportions matter
    """

    def __init__(self, parts: Sequence[Detector], budgets: Mapping[str, float] = UNION_BUDGETS, name: str = "union"):
        missing = [p.name for p in parts if budgets.get(p.name, 0) <= 0]
        if missing or not parts:
            raise EvaluationError(f"the union needs a budget above zero for each part; without: {missing or 'parts'}")
        self._parts, self.name = list(parts), name
        self._log_budget = np.log([budgets[p.name] for p in parts])
        self._rates: list[Rate] = []

    @property
    def parts(self) -> Sequence[str]:
        """Names of the parts, in the order of `drivers`."""
        return [p.name for p in self._parts]

    def fit(self, train: Sequence[Track]) -> None:
        """Fit every part."""
        for p in self._parts:
            p.fit(train)

    def calibrate(self, calibration: Sequence[Track]) -> None:
        """Learn every part's rate of false alarms."""
        for p in self._parts:
            p.calibrate(calibration)
        self._rates = [Rate(curve([grid(t, p.smoothed(t), ()) for t in calibration])) for p in self._parts]

    def _scores(self, track: Track) -> Floats:
        if not self._rates:
            raise EvaluationError("the union must be calibrated before it scores")
        each = zip(self._parts, self._rates, self._log_budget, strict=True)
        return np.stack([budget - rate(p.smoothed(track)) for p, rate, budget in each])

    def score(self, track: Track) -> ArrayLike:
        """Made of smoothed parts already."""
        return np.asarray(self._scores(track).max(axis=0))

    def smoothed(self, track: Track) -> Floats:
        """The parts are smoothed; a second time would delay the union against its rivals."""
        return np.asarray(self.score(track), np.float64)

    def drivers(self, track: Track) -> NDArray[np.int64]:
        """The part whose score is the largest, first one on a tie."""
        return np.asarray(self._scores(track).argmax(axis=0), np.int64)
