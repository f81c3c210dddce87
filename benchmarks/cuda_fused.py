"""The four heads as one GPU kernel in Triton, the same integers: what a GPU can do for one event with one launch.

A few warps a row. All layers are padded to 32 x 32 and everything is int32. Layers take their input along rows and
along columns in turn, so that no vector has to change places between lanes. Not a back end: a rival, and the measure of
how much of cuda_graph.py's time is many small kernels.

Triton's interpreter runs it without a GPU: TRITON_INTERPRET=1.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import numpy as np
import triton
import triton.language as tl
from numpy.typing import NDArray

from microrisk.spec.features import ALL_MASK
from microrisk.spec.formats import CODE
from microrisk.spec.records import N_FEATURES, N_HEADS
from microrisk.spec.weightfile import LAYERS
from microrisk.weights import Weights, mask_vector

if TYPE_CHECKING:
    import torch

SIDE = 32
"""Padded inputs and outputs of a layer."""
_LINEAR, _RELU = tl.constexpr(CODE.low), tl.constexpr(0)
_HIGH = tl.constexpr(CODE.high)
_SIDE, _HEADS = tl.constexpr(SIDE), tl.constexpr(N_HEADS)


@triton.jit
def _sums(x, weight, k: tl.constexpr, along_rows: tl.constexpr):
    """x through the matrix of layer k, stored [layer, in, out]."""
    i = tl.arange(0, _SIDE)
    rows, columns = i[:, None], i[None, :]
    matrix = weight + k * _SIDE * _SIDE
    if along_rows:
        y = tl.sum(tl.load(matrix + rows * _SIDE + columns).to(tl.int32) * x[:, None], axis=0)
    else:
        y = tl.sum(tl.load(matrix + columns * _SIDE + rows).to(tl.int32) * x[None, :], axis=1)
    return y


@triton.jit
def _layer(x, weight, rest, k: tl.constexpr, low: tl.constexpr, along_rows: tl.constexpr):
    """One layer: sums, bias and rounding term, shift, clip. `rest` is int32[layer, 2, 32]: bias plus half, shift."""
    i = tl.arange(0, _SIDE)
    bias, shift = tl.load(rest + 2 * k * _SIDE + i), tl.load(rest + (2 * k + 1) * _SIDE + i)
    y = (_sums(x, weight, k, along_rows) + bias) >> shift
    return tl.minimum(tl.maximum(y, low), _HIGH)


@triton.jit
def _exposure(x, weight, rest):
    """The exposure accumulator: outputs beyond the first are padding, and zero."""
    x = _layer(x, weight, rest, 7, _RELU, True)
    x = _layer(x, weight, rest, 8, _RELU, False)
    return tl.sum(_sums(x, weight, 9, True) + tl.load(rest + 18 * _SIDE + tl.arange(0, _SIDE)), axis=0)


@triton.jit
def _row(codes, heads, weight, rest, mask, residual_exp, latent_exp, exposure_alone: tl.constexpr):
    """Row `program` of int8[n, 32] to int32[n, 4]."""
    row, i = tl.program_id(0), tl.arange(0, _SIDE)
    keep = tl.load(mask + i)
    x = tl.load(codes + row * _SIDE + i).to(tl.int32) * keep
    out = heads + row * _HEADS
    tl.store(out + 3, _exposure(x, weight, rest))
    if not exposure_alone:
        tl.store(out, tl.max(tl.abs(x), axis=0))
        maha = _layer(x, weight, rest, 0, _LINEAR, True)
        tl.store(out + 1, tl.sum(maha * maha, axis=0))
        mu = _layer(x, weight, rest, 1, _RELU, True)
        mu = _layer(mu, weight, rest, 2, _RELU, False)
        mu = _layer(mu, weight, rest, 3, _LINEAR, True)
        y = _layer(mu, weight, rest, 4, _RELU, False)
        y = _layer(y, weight, rest, 5, _RELU, True)
        residual = (x - _layer(y, weight, rest, 6, _LINEAR, False)) * keep
        squares = tl.sum((residual * residual) << tl.load(residual_exp + i), axis=0)
        tl.store(out + 2, squares + (tl.sum(mu * mu, axis=0) << latent_exp))


class FusedScorer:
    """`load` and `score` as of the Scorer protocol, one launch a call.

    Parameters
    ----------
    device : torch's name; "cpu" only under Triton's interpreter
    exposure_alone : leave the other heads out (their columns are zero), as the core in the README's table does
    warps : of 32 lanes, a row
    """

    name = "fused kernel"

    def __init__(self, device: str = "cuda", *, exposure_alone: bool = False, warps: int = 4) -> None:
        self.device, self.exposure_alone, self.warps = device, exposure_alone, warps

    def unavailable(self) -> str | None:
        """Why it cannot run here, or None."""
        return None if importlib.util.find_spec("torch") else "torch is not installed"

    def load(self, weights: Weights, mask: int = ALL_MASK) -> None:
        """Check the model and copy it to the device, padded."""
        import torch

        weights.validate()
        matrices, rest = _padded(weights)
        self._tensors = [
            torch.tensor(a.tolist(), dtype=kind, device=self.device)
            for a, kind in (
                (matrices, torch.int8), (rest, torch.int32), (mask_vector(mask), torch.int32),
                (weights.tensors["vae.residual_exp"], torch.int32),
            )
        ]  # fmt: skip
        self._latent_exp = int(weights.tensors["vae.latent_exp"][0])

    def submit(self, codes: torch.Tensor, heads: torch.Tensor) -> None:
        """One launch; both tensors on the device or in pinned memory, which the kernel then reads and writes itself."""
        grid = (len(codes),)
        alone, warps = self.exposure_alone, self.warps
        _row[grid](codes, heads, *self._tensors, self._latent_exp, exposure_alone=alone, num_warps=warps)

    def score(self, codes: NDArray[np.int8]) -> NDArray[np.int32]:
        """int8[n, N_FEATURES] -> int32[n, N_HEADS]."""
        import torch

        heads = torch.zeros((len(codes), N_HEADS), dtype=torch.int32, device=self.device)
        if len(codes):
            self.submit(torch.from_numpy(np.array(codes, order="C")).to(self.device), heads)
        found: NDArray[np.int32] = heads.cpu().numpy()
        return found


def _padded(weights: Weights) -> tuple[NDArray[np.int8], NDArray[np.int32]]:
    """int8[layer, in, out] and int32[layer, 2, out] (bias plus rounding term, shift), zeros where there is nothing."""
    assert N_FEATURES == SIDE
    assert [n.rpartition(".")[0] for n in LAYERS] == ["maha"] + ["vae.enc"] * 3 + ["vae.dec"] * 3 + ["exposure"] * 3
    matrices, rest = np.zeros((len(LAYERS), SIDE, SIDE), np.int8), np.zeros((len(LAYERS), 2, SIDE), np.int32)
    for k, (name, (outputs, inputs, activation)) in enumerate(LAYERS.items()):
        weight, bias, shift = (t.astype(np.int64) for t in weights.layer(name))
        matrices[k, :inputs, :outputs] = weight.T
        half = 0 if activation == "acc" else np.where(shift > 0, 1 << np.maximum(shift - 1, 0), 0)
        rest[k, 0, :outputs], rest[k, 1, :outputs] = bias + half, shift
    return matrices, rest
