"""Scoring heads of a model as one dataflow graph: what `Weights.compute` does, columns by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hdl import layers
from hdl.graph import Graph
from microrisk.errors import UsageError
from microrisk.spec.features import ALL_MASK
from microrisk.spec.weightfile import HEADS, LAYERS
from microrisk.weights import Weights, mask_vector

ENCODER = "encoder"
"""Not a head of the model: squares of the vae's latents alone, for comparison with published trigger cores."""


def heads_graph(weights: Weights, heads: Sequence[str] = HEADS, mask: int = ALL_MASK, *, slack: int = 0) -> Graph:
    """Graph whose outputs are the named heads of codes under a feature mask.

    Parameters
    ----------
    heads : any of spec.weightfile.HEADS, and "encoder"
    mask : features that the feed carries; the others read as 0 and have no residual. A constant of the hardware
    slack : adder levels that sharing may add to a layer

    Raises
    ------
    UsageError : a head that the model does not have
    """
    unknown = [h for h in heads if h not in (*HEADS, ENCODER)]
    if unknown or not heads:
        raise UsageError(f"no head {unknown or heads!r}; there are {', '.join((*HEADS, ENCODER))}")
    weights.validate()
    builder = _Builder(weights, mask, slack)
    for head in heads:
        builder.graph.outputs[head] = getattr(builder, head)()
    return builder.graph


class _Builder:
    """One graph; inputs that the mask leaves out are the constant 0."""

    def __init__(self, weights: Weights, mask: int, slack: int) -> None:
        self.weights, self.slack, self.graph = weights, slack, Graph()
        carried = mask_vector(mask)
        nodes = layers.inputs(self.graph, len(carried))
        self.carried = carried
        self.codes = [n if c else self.graph.const(0) for n, c in zip(nodes, carried, strict=True)]

    def maxz(self) -> int:
        return layers.max_abs(self.graph, self.codes)

    def maha(self) -> int:
        return layers.sum_squares(self.graph, self._chain(self.codes, "maha"))

    def exposure(self) -> int:
        (score,) = self._chain(self.codes, "exposure")
        return score

    def encoder(self) -> int:
        return layers.sum_squares(self.graph, self._chain(self.codes, "vae.enc"), self._latent_exponent())

    def vae(self) -> int:
        latents = self._chain(self.codes, "vae.enc")
        again = self._chain(latents, "vae.dec")
        exponents = self.weights.tensors["vae.residual_exp"].tolist()
        kept = [k for k, c in enumerate(self.carried) if c]
        residual = [self.graph.add(self.codes[k], again[k], 0, -1) for k in kept]
        squares = [*residual, *latents]
        return layers.sum_squares(
            self.graph, squares, [*(exponents[k] for k in kept), *[self._latent_exponent()] * len(latents)]
        )

    def _latent_exponent(self) -> int:
        return int(self.weights.tensors["vae.latent_exp"][0])

    def _chain(self, x: Sequence[int], net: str) -> list[int]:
        """Through the layers whose names begin with this net."""
        for name in (n for n in LAYERS if n.rpartition(".")[0] == net):
            weight, bias, shift = self.weights.layer(name)
            activation = LAYERS[name][2]
            if activation == "acc":
                x = layers.accumulate(self.graph, x, weight, np.asarray(bias, np.int64), slack=self.slack)
            else:
                x = layers.dense(self.graph, x, weight, bias, shift, relu=activation == "relu", slack=self.slack)
        return list(x)
