"""The scorer of large batches: torch, on a CUDA device or (to be tested everywhere) on the CPU.

Products run as float32 matrix products, and are exact: a row's accumulator stays below 2**23 (Weights.validate), so
every partial sum, in whatever order, is an integer that float32 holds. Reduced precision (TF32) holds the int8 operands
too, but how it adds is nowhere promised, so it is off for the length of a call; on an H200 it changed none of a million
rows (benchmarks/recorded/gpu.json). Bias, shift, saturation and squares are int32.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from microrisk.spec.features import ALL_MASK
from microrisk.spec.formats import CODE
from microrisk.spec.records import N_HEADS
from microrisk.spec.weightfile import LAYERS
from microrisk.weights import Weights, mask_vector

if TYPE_CHECKING:
    import torch

CHUNK = 1 << 20
"""Rows on the device at once: about 0.5 GB of intermediate values."""


class _Layer(NamedTuple):
    weight: torch.Tensor  # float32[in, out], integers
    bias: torch.Tensor  # int32[out]
    half: torch.Tensor  # int32[out], rounding term
    shift: torch.Tensor  # int32[out]
    activation: str


class TorchScorer:
    """Weights.compute in torch.

    Parameters
    ----------
    device : torch's name of the device, "cpu" or "cuda"
    """

    name = "torch"

    def __init__(self, device: str) -> None:
        self.device = device
        self._layers: dict[str, list[_Layer]] = {}

    def unavailable(self) -> str | None:
        """Why it cannot run here, or None. Imports torch only where it is installed."""
        if importlib.util.find_spec("torch") is None:
            return "torch is not installed (pip install 'microrisk[model]')"
        import torch

        if self.device.startswith("cuda") and not torch.cuda.is_available():
            return "no CUDA device" if torch.version.cuda else "no CUDA device: this torch is built for the CPU only"
        return None

    def load(self, weights: Weights, mask: int = ALL_MASK) -> None:
        """Check the model (WeightFileError) and copy it to the device."""
        import torch

        weights.validate()
        self._layers = {net: list(self._net(weights, net)) for net in ("maha", "vae.enc", "vae.dec", "exposure")}
        # plain lists: arrays would need torch to be built for this very NumPy
        self._mask = torch.tensor(mask_vector(mask).tolist(), dtype=torch.int32, device=self.device)
        exps = weights.tensors["vae.residual_exp"].tolist()
        self._residual_exp = torch.tensor(exps, dtype=torch.int32, device=self.device)
        self._latent_exp = int(weights.tensors["vae.latent_exp"][0])

    def score(self, codes: NDArray[np.int8]) -> NDArray[np.int32]:
        """int8[n, N_FEATURES] -> int32[n, N_HEADS]; RuntimeError before load."""
        if not self._layers:
            raise RuntimeError("score() before load()")
        import torch

        out = np.empty((len(codes), N_HEADS), np.int32)
        with torch.inference_mode(), exact_products(self.device):
            for i in range(0, len(codes), CHUNK):
                x = torch.from_numpy(np.array(codes[i : i + CHUNK], order="C"))  # a copy: torch wants it writable
                out[i : i + CHUNK] = self._heads(x.to(self.device).to(torch.int32) * self._mask).cpu().numpy()
        return out

    def _net(self, weights: Weights, net: str) -> Iterator[_Layer]:
        import torch

        for name in (n for n in LAYERS if n.rpartition(".")[0] == net):
            w, b, s = (t.astype(np.int64) for t in weights.layer(name))
            half = np.where(s > 0, np.int64(1) << np.maximum(s - 1, 0), 0)
            bias, rounding, shift = (
                torch.tensor(t.tolist(), dtype=torch.int32, device=self.device) for t in (b, half, s)
            )
            weight = torch.tensor(w.T.tolist(), dtype=torch.float32, device=self.device)
            yield _Layer(weight, bias, rounding, shift, LAYERS[name][2])

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        """int32[n, N_FEATURES] on the device -> int32[n, N_HEADS]."""
        import torch

        mu = self._chain(x, "vae.enc")
        residual = (x - self._chain(mu, "vae.dec")) * self._mask
        vae = _sum(residual * residual << self._residual_exp) + (_sum(mu * mu) << self._latent_exp)
        maha = self._chain(x, "maha")
        exposure = self._chain(x, "exposure")[:, 0]
        return torch.stack([x.abs().amax(dim=1), _sum(maha * maha), vae, exposure], dim=1)

    def _chain(self, x: torch.Tensor, net: str) -> torch.Tensor:
        import torch

        for layer in self._layers[net]:
            x = (x.to(torch.float32) @ layer.weight).to(torch.int32) + layer.bias
            if layer.activation != "acc":
                x = (x + layer.half >> layer.shift).clamp(0 if layer.activation == "relu" else CODE.low, CODE.high)
        return x


class CudaScorer(TorchScorer):
    """TorchScorer on the first CUDA device."""

    name = "cuda"

    def __init__(self) -> None:
        super().__init__("cuda")


def _sum(x: torch.Tensor) -> torch.Tensor:
    """Sum over features, kept int32 (torch would widen it to int64)."""
    import torch

    return x.sum(dim=1, dtype=torch.int32)


@contextmanager
def exact_products(device: str) -> Iterator[None]:
    """Full float32 in matrix products on `device`, whatever the program around has chosen; its choice comes back after.

    Since 2.9 torch keeps one setting a back end and one for all, and raises RuntimeError when the common one is asked
    for while they differ: so that one is left alone, except in a torch that has no other.
    """
    import torch

    home = torch.backends.cuda if device.startswith("cuda") else torch.backends.mkldnn
    place: Any = getattr(home, "matmul", None)
    if hasattr(place, "fp32_precision"):
        before = place.fp32_precision
        place.fp32_precision = "ieee"
        try:
            yield
        finally:
            place.fp32_precision = before
        return
    common = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(common)
