"""The float network as plain arrays: what training makes, and what the integer weights are measured against.

NumPy only, so that the gap between float and integer can be measured again anywhere, from `float.safetensors` beside
the integer weights. Inputs are in sigma (code / 16); scores come in the units of the integer heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from microrisk.errors import WeightFileError
from microrisk.spec.features import ALL_MASK
from microrisk.spec.formats import CODE
from microrisk.spec.records import N_FEATURES, N_HEADS
from microrisk.spec.weightfile import HEADS, LAYERS
from microrisk.weights import mask_vector

FLOAT_FILE = "float.safetensors"
LATENT_WEIGHT_EXP = 10
"""The vae head weighs a latent square (sigma units) by 2**10; residual exponents then span variances 1/128 .. 4."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FloatNetwork:
    """All layers of spec.weightfile before rounding.

    Attributes
    ----------
    weight : layer name -> float64[out, in]
    bias : layer name -> float64[out]
    residual_exp : uint8[N_FEATURES]; the network's own power-of-two weights, not a rounding of others
    """

    weight: Mapping[str, Floats]
    bias: Mapping[str, Floats]
    residual_exp: NDArray[np.uint8]

    def chain(self, x: Floats, *nets: str) -> Floats:
        """Run x[n, in] through the layers of these nets ("maha", "vae.enc", ...), nothing rounded, nothing clipped."""
        for name in (n for net in nets for n in LAYERS if n.rpartition(".")[0] == net):
            x = x @ self.weight[name].T + self.bias[name]
            if LAYERS[name][2] == "relu":
                x = np.maximum(x, 0)
        return x

    def activations(self, x: Floats) -> dict[str, Floats]:
        """Layer name -> its outputs on x[n, N_FEATURES] (sigma)."""
        out: dict[str, Floats] = {}
        for net in ("maha", "vae", "exposure"):
            y = x
            for name in (n for n in LAYERS if n.startswith(f"{net}.")):
                y = y @ self.weight[name].T + self.bias[name]
                y = np.maximum(y, 0) if LAYERS[name][2] == "relu" else y
                out[name] = y
        return out

    def float_scores(self, codes: NDArray[np.int8], mask: int = ALL_MASK) -> Floats:
        """float64[n, N_HEADS] of int8[n, N_FEATURES]: the heads without any rounding.

        maxz, maha and vae in the units of the integer heads (maha up to its activation scale), exposure as a logit.
        """
        out = np.empty((len(codes), N_HEADS))
        for i in range(0, len(codes), 1 << 16):
            out[i : i + (1 << 16)] = self._scores(codes[i : i + (1 << 16)], mask)
        return out

    def _scores(self, codes: NDArray[np.int8], mask: int) -> Floats:
        unit = float(1 << CODE.frac)
        x = np.where(mask_vector(mask), codes, 0) / unit
        mu = self.chain(x, "vae.enc")
        residual = np.where(mask_vector(mask), (x - self.chain(mu, "vae.dec")) * unit, 0.0)
        vae = residual**2 @ (2.0 ** self.residual_exp.astype(np.float64))
        vae += (mu**2).sum(axis=1) * 2.0**LATENT_WEIGHT_EXP
        maha = (self.chain(x, "maha") ** 2).sum(axis=1)
        return np.stack([np.abs(x).max(axis=1) * unit, maha, vae, self.chain(x, "exposure")[:, 0]], axis=1)

    def save(self, folder: str | Path) -> Path:
        """Write float.safetensors into a model folder (float32); the same network gives the same bytes."""
        tensors = {f"{k}.weight": np.ascontiguousarray(v, np.float32) for k, v in self.weight.items()}
        tensors.update({f"{k}.bias": np.ascontiguousarray(v, np.float32) for k, v in self.bias.items()})
        tensors["vae.residual_exp"] = np.ascontiguousarray(self.residual_exp, np.uint8)
        file = Path(folder) / FLOAT_FILE
        file.write_bytes(save(dict(sorted(tensors.items()))))
        return file

    @classmethod
    def load(cls, folder: str | Path) -> FloatNetwork:
        """Read float.safetensors of a model folder; WeightFileError when it is missing or not of this layout."""
        file = Path(folder) / FLOAT_FILE
        try:
            tensors = load_file(file)
            made = cls(
                {n: tensors[f"{n}.weight"].astype(np.float64) for n in LAYERS},
                {n: tensors[f"{n}.bias"].astype(np.float64) for n in LAYERS},
                tensors["vae.residual_exp"],
            )
        except (OSError, SafetensorError, KeyError) as e:
            raise WeightFileError(f"{file}: no readable float network ({e})") from e
        made.validate()
        return made

    def validate(self) -> None:
        """WeightFileError naming the first layer of a wrong shape or with a value that is no number."""
        for name, (out, inp, _) in LAYERS.items():
            w, b = self.weight[name], self.bias[name]
            if w.shape != (out, inp) or b.shape != (out,):
                raise WeightFileError(f"{name}: float shapes {w.shape}, {b.shape}; must be {(out, inp)}, {(out,)}")
            if not (np.isfinite(w).all() and np.isfinite(b).all()):
                raise WeightFileError(f"{name}: a float weight is not finite; the training diverged")
        if self.residual_exp.shape != (N_FEATURES,):
            raise WeightFileError(f"vae.residual_exp: shape {self.residual_exp.shape}, must be ({N_FEATURES},)")


def head_column(name: str) -> int:
    """Column of a head in scores."""
    return HEADS.index(name)
