"""Functional coverage: which corners of the arithmetic a set of vectors meets, counted on the reference path.

The counters are our own and not cocotb-coverage's: they are computed in bulk from the vectors by microrisk.fixed, next
to the expected results, so that the simulated test process does not sample anything event by event; and a goal that
the weights cannot reach is told apart by an exact bound, which a coverage database does not know.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microrisk import fixed
from microrisk.spec.features import ALL_MASK
from microrisk.spec.formats import CODE
from microrisk.spec.weightfile import HEADS, LAYERS
from microrisk.weights import Weights, mask_vector

Ints = NDArray[np.int64]
KINDS = ("saturated_high", "saturated_low", "relu_cut", "tie", "at_high", "at_low", "at_zero")
"""Corners of one output of a layer.

saturated_high, saturated_low: held at an end of CODE; relu_cut: negative before a ReLU; tie: exactly half a step
before rounding; at_high, at_low: exactly the end of CODE, not held; at_zero: exactly 0 before a ReLU.
"""
NETS = {
    "maxz": (),
    "maha": ("maha",),
    "vae": ("vae.enc", "vae.dec"),
    "encoder": ("vae.enc",),
    "exposure": ("exposure",),
}


@dataclass(frozen=True)
class Outputs:
    """Values inside a layer on some vectors, all int64[n, out].

    Attributes
    ----------
    acc : accumulators, bias in
    rounded : after the shift, before saturation
    """

    name: str
    acc: Ints
    rounded: Ints
    shift: Ints

    def meets(self, kind: str) -> NDArray[np.bool_] | None:
        """bool[n, out]: where this corner is met; None where the layer has no such corner."""
        relu = LAYERS[self.name][2] == "relu"
        y = self.rounded
        if kind == "tie":
            half = np.where(self.shift > 0, np.int64(1) << np.maximum(self.shift - 1, 0), -1)
            return (self.acc & ((np.int64(1) << self.shift) - 1)) == half
        if kind in ("saturated_low", "at_low"):
            return None if relu else (y < CODE.low if kind == "saturated_low" else y == CODE.low)
        if kind in ("relu_cut", "at_zero"):
            return (y < 0 if kind == "relu_cut" else y == 0) if relu else None
        return y > CODE.high if kind == "saturated_high" else y == CODE.high


def layers_of(heads: Sequence[str]) -> list[str]:
    """Layers that round, of these heads, in order, each once."""
    nets = {net for head in heads for net in NETS[head]}
    return [n for n in LAYERS if n.rpartition(".")[0] in nets and LAYERS[n][2] != "acc"]


def walk(
    weights: Weights, codes: NDArray[np.int8], heads: Sequence[str] = HEADS, mask: int = ALL_MASK
) -> Iterator[Outputs]:
    """Every rounding layer of these heads on int8[n, N_FEATURES] codes."""
    start = np.where(mask_vector(mask), codes, 0).astype(np.int64)
    wanted = layers_of(heads)
    last: dict[str, Ints] = {}
    for name in wanted:
        net = name.split(".")[0]
        x = last.get(net, start)
        weight, bias, shift = weights.layer(name)
        acc = fixed.accumulate(x, weight, bias)
        yield Outputs(name, acc, fixed.round_shift(acc, shift), np.asarray(shift, np.int64))
        last[net] = fixed.dense(x, weight, bias, shift, relu=LAYERS[name][2] == "relu")


def count(
    weights: Weights, codes: NDArray[np.int8], heads: Sequence[str] = HEADS, mask: int = ALL_MASK
) -> dict[str, dict[str, int]]:
    """Vectors that meet each corner in any row of each layer: {layer: {kind: vectors}}."""
    found: dict[str, dict[str, int]] = {}
    for outputs in walk(weights, codes, heads, mask):
        met = {kind: outputs.meets(kind) for kind in KINDS}
        found[outputs.name] = {kind: int(m.any(axis=1).sum()) for kind, m in met.items() if m is not None}
    return found


# ---- what can be reached at all ----


@dataclass(frozen=True)
class Reach:
    """Bounds of a layer's rounded outputs from the intervals of its inputs: int64[out] each."""

    low: Ints
    high: Ints
    shift: Ints
    relu: bool
    odd: NDArray[np.bool_]

    def excludes(self, kind: str) -> bool:
        """Whether no input whatever can meet this corner in this layer."""
        impossible = {
            "saturated_high": self.high <= CODE.high,
            "at_high": (self.high < CODE.high) | (self.low > CODE.high),
            "saturated_low": self.low >= CODE.low,
            "at_low": (self.low > CODE.low) | (self.high < CODE.low),
            "relu_cut": self.low >= 0,
            "at_zero": (self.low > 0) | (self.high < 0),
            "tie": ~self.odd,
        }
        return bool(impossible[kind].all())


def reach(weights: Weights, heads: Sequence[str] = HEADS, mask: int = ALL_MASK) -> dict[str, Reach]:
    """Interval bounds of each layer; exact for a first layer, a superset of what is reached for later ones."""
    kept = mask_vector(mask)
    ends: dict[str, tuple[Ints, Ints]] = {}
    start = (np.where(kept, CODE.low, 0).astype(np.int64), np.where(kept, CODE.high, 0).astype(np.int64))
    found = {}
    for name in layers_of(heads):
        net, relu = name.split(".")[0], LAYERS[name][2] == "relu"
        low, high = ends.get(net, start)
        weight, bias, shift = (np.asarray(t, np.int64) for t in weights.layer(name))
        least = np.minimum(weight * low, weight * high).sum(axis=1) + bias
        most = np.maximum(weight * low, weight * high).sum(axis=1) + bias
        bottom, top = fixed.round_shift(least, shift), fixed.round_shift(most, shift)
        found[name] = Reach(bottom, top, shift, relu, _ties_possible(weight, bias, shift, low, high))
        floor = 0 if relu else CODE.low
        ends[net] = (np.clip(bottom, floor, CODE.high), np.clip(top, floor, CODE.high))
    return found


def _ties_possible(weight: Ints, bias: Ints, shift: Ints, low: Ints, high: Ints) -> NDArray[np.bool_]:
    """bool[out]: bias + any multiple of the weights' common divisor can be half a step (necessary, not sufficient)."""
    moving = np.where(high > low, np.abs(weight), 0)
    fixed_part = bias + (weight * np.where(high > low, 0, low)).sum(axis=1)
    step = np.gcd(np.gcd.reduce(moving, axis=1), np.int64(1) << shift)
    half = np.int64(1) << np.maximum(shift - 1, 0)
    return (shift > 0) & ((half - fixed_part) % step == 0)
