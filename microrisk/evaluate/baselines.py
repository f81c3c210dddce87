"""Rivals on the same codes, smoothed and graded in the same way, and scores that must not win."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microrisk.errors import EvaluationError
from microrisk.evaluate.detectors import Detector
from microrisk.evaluate.split import Track
from microrisk.spec.features import BY_NAME


def _codes(track: Track) -> NDArray[np.int64]:
    if track.codes is None:
        raise EvaluationError(f"{track.name} has no codes, and this baseline reads them")
    return track.codes.astype(np.int64)


class SumSquares(Detector):
    """Sum of squared codes."""

    name = "sum z^2"

    def score(self, track: Track) -> ArrayLike:
        """int64[n]."""
        return np.asarray((_codes(track) ** 2).sum(axis=1))


class MaxAbs(Detector):
    """Largest |code|: the rival that a network has to beat."""

    name = "max |z|"

    def score(self, track: Track) -> ArrayLike:
        """int64[n]."""
        return np.asarray(np.abs(_codes(track)).max(axis=1))


class MessageRate(Detector):
    """The code of adds plus that of cancels in the last second: busy = suspicious."""

    name = "message rate"

    def score(self, track: Track) -> ArrayLike:
        """int64[n]."""
        z = _codes(track)
        return z[:, BY_NAME["add_rate"].index] + z[:, BY_NAME["cancel_rate"].index]


class Random(Detector):
    """Independent noise, the same for the same session, instrument and seed."""

    name = "random"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def score(self, track: Track) -> ArrayLike:
        """float64[n], uniform."""
        rng = np.random.default_rng([self.seed, zlib.crc32(track.name.encode())])
        return rng.random(len(track.now))


class Constant(Detector):
    """The same value everywhere."""

    name = "constant"

    def score(self, track: Track) -> ArrayLike:
        """float64[n]."""
        return np.ones(len(track.now))


class AllPositive(Detector):
    """Silent while it is calibrated and in alarm ever after: the crudest way to cheat a threshold."""

    name = "all positive"

    def __init__(self) -> None:
        self._quiet: set[str] = set()

    def calibrate(self, calibration: Sequence[Track]) -> None:
        """Remember where to be silent."""
        self._quiet = {t.name for t in calibration}

    def score(self, track: Track) -> ArrayLike:
        """0 in calibration sessions, 1 elsewhere."""
        return np.full(len(track.now), 0.0 if track.name in self._quiet else 1.0)


class IsolationForest(Detector):
    """Scikit-learn's forest on the codes of the training sessions.

    Parameters
    ----------
    trees : number of trees
    rows : at most this many training rows, evenly spaced
    seed : of the forest
    """

    name = "IsolationForest"

    def __init__(self, trees: int = 200, rows: int = 50_000, seed: int = 0) -> None:
        self.trees, self.rows, self.seed = trees, rows, seed
        self._forest: Any = None

    def fit(self, train: Sequence[Track]) -> None:
        """Fit on rows of `train`; EvaluationError without rows or without scikit-learn."""
        try:
            from sklearn.ensemble import IsolationForest as Forest
        except ImportError as missing:
            raise EvaluationError(
                "the IsolationForest baseline needs scikit-learn: pip install scikit-learn"
            ) from missing
        codes = [_codes(t) for t in train if len(t.now)]
        if not codes:
            raise EvaluationError("IsolationForest needs training sessions with rows")
        x = np.concatenate(codes)
        pick = np.unique(np.linspace(0, len(x) - 1, min(self.rows, len(x))).astype(np.int64))
        self._forest = Forest(n_estimators=self.trees, random_state=self.seed).fit(x[pick])

    def score(self, track: Track) -> ArrayLike:
        """float64[n], larger = shorter paths."""
        if self._forest is None:
            raise EvaluationError("IsolationForest was not fitted")
        return np.asarray(-self._forest.score_samples(_codes(track)))


def rivals(*, forest: bool = True, seed: int = 0) -> list[Detector]:
    """The baselines of every table; `forest` leaves the slow one out."""
    plain: list[Detector] = [MaxAbs(), SumSquares(), MessageRate(), Random(seed), Constant()]
    return [*plain, IsolationForest(seed=seed)] if forest else plain
