"""From sets of codes to a finished model folder: train, quantise, measure the gap, calibrate, write the card.

Assembling the sets (which days, which episodes, what may be mixed) is not done here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microrisk.model.calibrate import BUDGETS, Session, calibrate
from microrisk.model.floatnet import FloatNetwork
from microrisk.model.quantise import quantisation_gap
from microrisk.model.train import Exposed, Progress, Settings, Trained, train
from microrisk.spec.features import ALL_MASK
from microrisk.spec.formats import LEVEL_TABLE_FRAC, TABLE_POINTS
from microrisk.spec.records import N_HEADS
from microrisk.spec.weightfile import LAYERS
from microrisk.weights import GENERIC, LevelTable, Tensors, Weights, level_prefix, mask_vector

Heads = Callable[[Weights, int, NDArray[np.int8]], NDArray[np.int32]]
"""(weights, mask, codes) -> heads; any back end will do, since all are equal."""


@dataclass(frozen=True)
class CodeSession:
    """Clean rows of one instrument in time order: now int64[n] in ns, codes int8[n, N_FEATURES]."""

    now: NDArray[np.int64]
    codes: NDArray[np.int8]


@dataclass(frozen=True)
class Built:
    """A finished model: integers for the folder, the same network before rounding, and what went wrong in words."""

    weights: Weights
    network: FloatNetwork
    alarms: tuple[str, ...]

    def save(self, folder: str | Path) -> Path:
        """Write the model folder, float.safetensors included."""
        path = self.weights.save(folder)
        self.network.save(path)
        return path


def build_model(
    codes: NDArray[np.int8],
    table: Any,
    calibration: Sequence[CodeSession],
    *,
    exposed: Exposed | None = None,
    settings: Settings | None = None,
    budgets: Mapping[str, float] = BUDGETS,
    card: Mapping[str, Any] | None = None,
    heads: Heads | None = None,
    progress: Progress | None = None,
) -> Built:
    """Train and finish a model.

    Parameters
    ----------
    codes, exposed, settings, progress : as in train.train
    table : generic normaliser (int32 breaks, value, slope), the one that made the codes
    calibration : clean sessions apart from the training rows; the gap is measured on their first ones too
    budgets : false alarms an hour for each head
    card : entries for card.json, such as name, description, data (hashes)
    heads : a fast back end; Weights.compute when None

    Raises
    ------
    EvaluationError, WeightFileError : from training, quantisation and calibration
    """
    made = train(codes, exposed, settings, progress)
    tensors: Tensors = {**made.tensors(), **_level_tensors(blank_level())}
    weights = Weights(tensors, card).with_table(GENERIC, table, tick=0, lot=0)
    weights = weights.with_card(metrics=_metrics(made, weights, np.concatenate([s.codes for s in calibration])))
    for mask in dict.fromkeys((ALL_MASK, *(settings or Settings()).masks)):
        weights = with_calibration(weights, GENERIC, mask, calibration, budgets=budgets, heads=heads)
    weights.validate()
    return Built(weights, made.network, made.alarms)


def with_calibration(
    weights: Weights,
    instrument: str,
    mask: int,
    sessions: Sequence[CodeSession],
    *,
    budgets: Mapping[str, float] = BUDGETS,
    heads: Heads | None = None,
) -> Weights:
    """A copy with the level table and thresholds of `instrument` (or "generic") under `mask`; its report in the card.

    With `Weights.with_table` before it this is all of `train --tables-only`.
    """
    score = heads or _reference
    carried = mask_vector(mask)
    seen = [np.where(carried, s.codes, np.int8(0)) for s in sessions]
    found = calibrate([Session(s.now, score(weights, mask, x)) for s, x in zip(sessions, seen, strict=True)], budgets)
    reports = {**weights.card.get("calibration", {}), level_prefix(instrument, mask): found.report}
    return weights.with_level(instrument, mask, found.level).with_card(calibration=reports)


def blank_level() -> LevelTable:
    """A level table for a model that is not calibrated yet: level 0 everywhere, and no alarm."""
    points = np.broadcast_to(np.arange(TABLE_POINTS, dtype=np.int32), (N_HEADS, TABLE_POINTS))
    zero = np.zeros((N_HEADS, TABLE_POINTS + 1), np.int32)
    on = np.full(N_HEADS, 1 << LEVEL_TABLE_FRAC, np.int32)  # one above the largest level code
    return LevelTable(points, zero[:, 1:], zero, on, on, calibrated=False)


def _level_tensors(level: LevelTable) -> Tensors:
    return {k: v for k, v in Weights({}).with_level(GENERIC, ALL_MASK, level).tensors.items() if k.startswith("level/")}


def _metrics(made: Trained, weights: Weights, codes: NDArray[np.int8]) -> dict[str, Any]:
    """Training's figures, the quantisation gap on rows nothing was fitted to, saturated outputs per million."""
    codes = codes[:100_000]
    gap = {h: {**g.to_json(), "kept": g.kept} for h, g in quantisation_gap(made.network, weights, codes).items()}
    outputs = {n: len(codes) * LAYERS[n][0] for n in LAYERS}
    saturated = {n: round(1e6 * c / outputs[n], 1) for n, c in weights.saturations(codes).items()}
    return {
        **made.metrics,
        "alarms": list(made.alarms),
        "activation_scales": made.scales,
        "quantisation_gap": gap,
        "gap_rows": len(codes),
        "saturated_per_million": saturated,
    }


def _reference(weights: Weights, mask: int, codes: NDArray[np.int8]) -> NDArray[np.int32]:
    return weights.compute(codes, mask)
