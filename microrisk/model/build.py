"""From codes to a model that scores: train, round, measure the gap. Levels come afterwards, from model/calibrate.py.

Assembling the sets (which days, which episodes, what may be mixed) is not done here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microrisk.model.calibrate import NEVER
from microrisk.model.floatnet import FloatNetwork
from microrisk.model.quantise import quantisation_gap
from microrisk.model.train import Exposed, Partial, Progress, Settings, Trained, held_out_rows, train
from microrisk.spec.features import ALL_MASK
from microrisk.spec.formats import TABLE_POINTS
from microrisk.spec.records import N_HEADS
from microrisk.spec.weightfile import LAYERS
from microrisk.weights import GENERIC, LevelTable, Tensors, Weights

GAP_ROWS = 100_000
"""Most held-out rows on which the gap and saturations are measured."""


@dataclass(frozen=True)
class Built:
    """A model and the float network that it was rounded from.

    Attributes
    ----------
    weights : with the generic table, an `uncalibrated` level, and "metrics" in the card
    network : before rounding
    alarms : what went wrong without stopping, in sentences
    """

    weights: Weights
    network: FloatNetwork
    alarms: tuple[str, ...]

    @property
    def metrics(self) -> dict[str, Any]:
        """The card's "metrics"."""
        found: dict[str, Any] = self.weights.card["metrics"]
        return found

    def save(self, folder: str | Path) -> Path:
        """Write the model folder, with float.safetensors in it so that the gap can be measured again."""
        path = self.weights.save(folder)
        self.network.save(path)
        return path


def build_model(
    codes: NDArray[np.int8],
    exposed: Exposed | None,
    table: Any,
    settings: Settings | None = None,
    *,
    card: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    partial: Partial | None = None,
) -> Built:
    """Train and round a model.

    Parameters
    ----------
    codes, exposed, settings, progress, partial : as in train.train; the gap is measured on the clean rows that it held
        out
    table : generic normaliser (int32 breaks, value, slope), the one that made the codes
    card : entries for card.json, such as name, description, data (hashes)

    Raises
    ------
    EvaluationError, WeightFileError : from training and rounding
    """
    s = settings or Settings()
    made = train(codes, exposed, s, progress, partial=partial)
    weights = Weights(uncalibrated(made.tensors()).tensors, card).with_table(GENERIC, table, tick=0, lot=0)
    weights = weights.with_card(metrics=_metrics(made, weights, codes[-held_out_rows(len(codes), s) :][:GAP_ROWS]))
    weights.validate()
    return Built(weights, made.network, made.alarms)


def uncalibrated(tensors: Tensors) -> Weights:
    """Weights whose level is 0 for every row and never alarms, until a calibrated one takes its place."""
    points = np.broadcast_to(np.arange(TABLE_POINTS, dtype=np.int32), (N_HEADS, TABLE_POINTS))
    zero = np.zeros((N_HEADS, TABLE_POINTS + 1), np.int32)
    never = np.full(N_HEADS, NEVER, np.int32)
    return Weights(tensors).with_level(GENERIC, ALL_MASK, LevelTable(points, zero[:, 1:], zero, never, never, False))


def _metrics(made: Trained, weights: Weights, codes: NDArray[np.int8]) -> dict[str, Any]:
    """Training's figures, the quantisation gap on rows nothing was fitted to, saturated outputs per million."""
    gap = quantisation_gap(made.network, weights, codes)
    outputs = {n: len(codes) * LAYERS[n][0] for n in LAYERS}
    return {
        **made.metrics,
        "alarms": list(made.alarms),
        "activation_scales": made.scales,
        "quantisation": {h: {**g.to_json(), "kept": g.kept} for h, g in gap.items()},
        "quantisation_rows": len(codes),
        "saturated_per_million": {n: round(1e6 * c / outputs[n], 1) for n, c in weights.saturations(codes).items()},
    }
