"""The whole trainable model in one file: VAE 32-24-16-6 with its decoder, and the exposure head 32-32-16-1.

Two forwards share the parameters. The float one is plain. The quantised one (`scales` given) puts weights, biases and
activations on the integer grid of model/quantise.py, to the bit what Weights.compute does, and lets gradients pass
straight through the rounding; fine-tuning runs it, to make the rounded network follow the unrounded one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from microrisk.model.floatnet import LATENT_WEIGHT_EXP, FloatNetwork, Floats
from microrisk.model.quantise import Scales, input_of, residual_exponents, row_exponents
from microrisk.spec.formats import CODE
from microrisk.spec.records import N_FEATURES
from microrisk.spec.weightfile import LAYERS

LEAST_LOG2_VARIANCE = -5.0
"""Residuals below 1/32 sigma^2 (three code steps) would be weighed by their own rounding."""
TRAINED = tuple(n for n in LAYERS if n.startswith(("vae.", "exposure.")))
_LATENTS, _BEFORE_LATENTS, _ = LAYERS["vae.enc.2"]


class Dense(nn.Module):
    """One layer of spec.weightfile, in sigma units.

    Parameters
    ----------
    name : its name in LAYERS
    rng : source of the first weights (He's scale)
    """

    def __init__(self, name: str, rng: np.random.Generator) -> None:
        super().__init__()
        out, inp, self.activation = LAYERS[name]
        self.name = name
        gain = 2.0 if self.activation == "relu" else 1.0
        first = rng.normal(0.0, np.sqrt(gain / inp), (out, inp))
        self.weight = nn.Parameter(torch.tensor(first, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(
        self, x: torch.Tensor, scales: Scales | None = None, jitter: torch.Generator | None = None
    ) -> torch.Tensor:
        """x[n, in] -> [n, out]; with scales, on the integer grid; with jitter, as unsure as rounding would make it."""
        weight: torch.Tensor = self.weight
        bias: torch.Tensor = self.bias
        scale_in, scale_out = (scales[input_of(self.name)], scales.get(self.name)) if scales else (0, None)
        if scales:
            w, b = weight.detach().double().numpy(), bias.detach().double().numpy()
            k = torch.from_numpy(row_exponents(w, b, scale_in, scale_out)).float()
            weight = on_grid(weight, torch.exp2(k)[:, None])
            bias = on_grid(bias, torch.exp2(k + scale_in))
        y = x @ weight.T + bias
        if scales and scale_out is not None:
            y = on_grid(y, torch.tensor(2.0**scale_out), CODE.low, CODE.high)
        if jitter is not None and self.activation != "acc":
            y = y + (torch.rand(y.shape, generator=jitter) - 0.5) * self._step(y.detach())
        return torch.relu(y) if self.activation == "relu" else y

    def _step(self, y: torch.Tensor) -> torch.Tensor:
        """Size of a code step once hidden units, and the latents together, fill the code range; [out] or one number."""
        if self.name == "vae.dec.2":
            return torch.tensor(1.0 / (1 << CODE.frac))
        reach = y.amax(dim=0) if self.activation == "relu" else y.abs().max()
        return reach.clamp(min=0.0) / CODE.high


class Network(nn.Module):
    """VAE and exposure head together; they share nothing but this file.

    Parameters
    ----------
    seed : of the first weights
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        # a plain dict beside the registered modules: names may hold dots, and types stay known
        self.dense = {n: Dense(n, rng) for n in TRAINED}
        self.registered = nn.ModuleList(self.dense.values())
        spread = rng.normal(0.0, 0.1 / np.sqrt(_BEFORE_LATENTS), (_LATENTS, _BEFORE_LATENTS))
        self.latent_log_variance = nn.Parameter(torch.tensor(spread, dtype=torch.float32))  # training only
        self.latent_log_variance_bias = nn.Parameter(torch.full((_LATENTS,), -1.0))
        self.residual_log2_variance = nn.Parameter(torch.zeros(N_FEATURES))

    def run(
        self, net: str, x: torch.Tensor, scales: Scales | None = None, jitter: torch.Generator | None = None
    ) -> torch.Tensor:
        """Run x through the layers of "vae.enc", "vae.dec" or "exposure"."""
        for name in (n for n in TRAINED if n.rpartition(".")[0] == net):
            x = self.dense[name](x, scales, jitter)
        return x

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log-variance of the latents: [n, 6] each. The log-variance exists in training only."""
        hidden = x
        for name in ("vae.enc.0", "vae.enc.1"):
            hidden = self.dense[name](hidden)
        mean = self.dense["vae.enc.2"](hidden)
        log_variance = hidden @ self.latent_log_variance.T + self.latent_log_variance_bias
        return mean, log_variance.clamp(-8.0, 4.0)

    def elbo(
        self,
        x: torch.Tensor,
        carried: torch.Tensor,
        noise: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Reconstruction loss and KL divergence, nats a row, means over rows.

        Parameters
        ----------
        x : [n, N_FEATURES] in sigma, 0 where not carried
        carried : [n, N_FEATURES] of 0 and 1: features outside have no residual
        noise : [n, 6] standard normal
        """
        mean, log_variance = self.encode(x)
        z = mean + noise * torch.exp(0.5 * log_variance)
        log2_variance = self.log2_variance()
        residual = (x - self.run("vae.dec", z)) * carried
        each = residual**2 * torch.exp2(-log2_variance) + log2_variance * np.log(2.0) * carried
        kl = 0.5 * (mean**2 + torch.exp(log_variance) - 1 - log_variance)
        return 0.5 * each.sum(dim=1).mean(), kl.sum(dim=1).mean()

    def log2_variance(self) -> torch.Tensor:
        """Learned variances of the residuals; held where the exponents of the residual weights end anyway."""
        return self.residual_log2_variance.clamp(LEAST_LOG2_VARIANCE, 2.0)

    def vae_score(
        self,
        x: torch.Tensor,
        carried: torch.Tensor,
        residual_exp: torch.Tensor,
        scales: Scales | None = None,
        jitter: torch.Generator | None = None,
    ) -> torch.Tensor:
        """The vae head [n] in its integer unit; arguments as in elbo, exponents [N_FEATURES]."""
        mean = self.run("vae.enc", x, scales, jitter)
        residual = (x - self.run("vae.dec", mean, scales, jitter)) * carried * float(1 << CODE.frac)
        latents = (mean**2).sum(dim=1) * 2.0**LATENT_WEIGHT_EXP
        return (residual**2 * torch.exp2(residual_exp)).sum(dim=1) + latents

    def take(self, net: FloatNetwork) -> None:
        """Overwrite the parameters with those of a float network."""
        with torch.no_grad():
            for name, layer in self.dense.items():
                layer.weight.copy_(torch.from_numpy(net.weight[name]))
                layer.bias.copy_(torch.from_numpy(net.bias[name]))

    def to_float_network(self, maha: tuple[Floats, Floats]) -> FloatNetwork:
        """The parameters as arrays, with a whitening layer from model/maha.py."""
        weight = {n: v.weight.detach().double().numpy().copy() for n, v in self.dense.items()}
        bias = {n: v.bias.detach().double().numpy().copy() for n, v in self.dense.items()}
        exponents = residual_exponents(self.log2_variance().detach().double().numpy())
        return FloatNetwork({**weight, "maha.0": maha[0]}, {**bias, "maha.0": maha[1]}, exponents)


def on_grid(x: torch.Tensor, steps: torch.Tensor, low: int | None = None, high: int | None = None) -> torch.Tensor:
    """Round x (halves up) to multiples of 1/steps and hold it in low..high steps; the gradient passes rounding.

    Outside low..high there is no gradient, as behind any saturation.
    """
    scaled = x * steps
    rounded = torch.floor(scaled.detach() + 0.5)
    if low is not None and high is not None:
        scaled, rounded = scaled.clamp(low, high), rounded.clamp(low, high)
    # not scaled + (rounded - scaled): that sum would round once more and miss the grid
    on: torch.Tensor = _PassGradient.apply(scaled, rounded)
    return on / steps


class _PassGradient(torch.autograd.Function):
    """The value of the second argument with the gradient of the first."""

    @staticmethod
    def forward(ctx: Any, soft: torch.Tensor, hard: torch.Tensor) -> torch.Tensor:
        return hard

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient, None


def unit_codes(codes: np.ndarray[tuple[int, ...], np.dtype[np.int8]]) -> torch.Tensor:
    """int8 codes to float32 sigma."""
    return torch.from_numpy(codes.astype(np.float32) / (1 << CODE.frac))
