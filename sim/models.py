"""Weights for benches beside the packaged model: valid, seeded, and small enough to be made into gates in seconds."""

from __future__ import annotations

import numpy as np

from microrisk.model.synthetic import random_weights
from microrisk.spec.formats import SHIFT_MAX, WEIGHT
from microrisk.spec.weightfile import LAYERS
from microrisk.weights import Weights


def thinned(seed: int, *, kept: float = 0.12, at_bound: bool = False) -> Weights:
    """Random layers of which only a share of the weights is left; shifts and biases keep their whole range.

    at_bound : accumulators near their limit and every shift from 0 to 15, as `random_weights` makes them
    """
    full = random_weights(seed, at_bound=at_bound)
    rng = np.random.default_rng([seed, 9])
    tensors = dict(full.tensors)
    for name in LAYERS:
        weight = tensors[f"{name}.weight"]
        tensors[f"{name}.weight"] = np.where(rng.random(weight.shape) < kept, weight, 0).astype(np.int8)
        if not at_bound:  # sums are smaller now: shifts follow, or nothing would reach the ends of CODE
            tensors[f"{name}.shift"] = np.maximum(tensors[f"{name}.shift"].astype(np.int64) - 2, 0).astype(np.uint8)
            tensors[f"{name}.bias"] = (tensors[f"{name}.bias"] // 8).astype(np.int32)
    found = Weights(tensors, full.card)
    found.validate()
    return found


def extreme(seed: int) -> Weights:
    """Every weight at one end of its format, rows of equal sign among them: products and sums of the widest kind."""
    full = random_weights(seed)
    rng = np.random.default_rng([seed, 10])
    tensors = dict(full.tensors)
    for name in LAYERS:
        shape = tensors[f"{name}.weight"].shape
        signs = rng.random(shape) < rng.choice([0.0, 0.5, 1.0], (shape[0], 1))
        tensors[f"{name}.weight"] = np.where(signs, WEIGHT.high, WEIGHT.low).astype(np.int8)
        tensors[f"{name}.shift"] = rng.integers(8, SHIFT_MAX + 1, shape[0]).astype(np.uint8)
    found = Weights(tensors, full.card)
    found.validate()
    return found


def straddling(seed: int) -> Weights:
    """First layer of exposure: shifts of 0 and sums of two codes, a little inside or outside of CODE.

    Without it a test for overflow that overlooks the lowest bit above CODE is seen only where a trained row happens to
    have a shift of 0.
    """
    full = random_weights(seed)
    rng = np.random.default_rng([seed, 11])
    tensors = dict(full.tensors)
    weight = np.zeros_like(tensors["exposure.0.weight"])
    for row in weight:
        row[rng.choice(len(row), 2, replace=False)] = rng.choice((-1, 1))
    tensors["exposure.0.weight"] = weight
    tensors["exposure.0.bias"] = np.zeros_like(tensors["exposure.0.bias"])
    tensors["exposure.0.shift"] = np.zeros_like(tensors["exposure.0.shift"])
    found = Weights(tensors, full.card)
    found.validate()
    return found
