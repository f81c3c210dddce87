"""Training on arrays of codes: VAE and exposure head in float, then a fine-tune of the rounded weights after them.

CPU, a few tens of seconds; the same codes, settings and torch give the same weights. What is taught with which data is
the caller's business (evaluate/ assembles the sets and keeps their days apart).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from microrisk.errors import EvaluationError
from microrisk.model import maha
from microrisk.model.floatnet import FloatNetwork
from microrisk.model.network import Network, unit_codes
from microrisk.model.quantise import Scales, area_under_curve, choose_scales, equalise, quantise
from microrisk.spec.features import ALL_MASK
from microrisk.spec.records import N_FEATURES
from microrisk.spec.weightfile import LAYERS
from microrisk.weights import Tensors, mask_vector

Progress = Callable[[str, float], None]
"""Called with the stage's name and the share of it that is done, 0..1."""
Codes = NDArray[np.int8]

ACTIVE_VARIANCE = 0.01
"""A latent whose mean varies less than this over the data carries nothing."""
LEAST_ACTIVE = 3
"""Fewer active latents than this are called a collapse."""
LEAST_ROWS = 1000
TAIL, TAIL_WEIGHT = 0.9, 8.0
"""In the fine-tune, rows above this quantile of the vae score weigh this much more."""
STEADY_VAE, STEADY_EXPOSURE = 10_000.0, 200.0
"""Weights of what a score moves when every activation is as unsure as rounding will make it (relative, squared)."""
HARD_EVERY, HARD_FROM, HARD_SHARE = 1000, 300_000, 0.02
"""Every so many steps the hardest share of so many normal rows becomes a pool; half of the normal rows come from it."""


@dataclass(frozen=True)
class Settings:
    """Of a training run.

    Attributes
    ----------
    seed : of first weights, batches and noise
    vae_steps, exposure_steps, tune_steps : optimiser steps of the three stages
    batch : rows a step
    rate, tune_rate : highest learning rates (they fall as a half cosine)
    exposure_decay : weight decay of the exposure head, strong on purpose: episodes are few, and rows of one episode
        alike. On a few sessions never seen, 0.3 against 1e-4 raised the area under the curve of most kinds
    anneal : share of the vae's steps over which beta rises from 0 to 1
    masks : feature masks of feeds that carry less; a quarter of the rows is trained under one of them, by chance
    held_out : share of the clean rows, the last ones, that is only measured on
    """

    seed: int = 0
    vae_steps: int = 6000
    exposure_steps: int = 8000
    tune_steps: int = 2000
    batch: int = 1024
    rate: float = 3e-3
    tune_rate: float = 3e-4
    exposure_decay: float = 0.3
    anneal: float = 0.4
    masks: tuple[int, ...] = (ALL_MASK,)
    held_out: float = 0.1


@dataclass(frozen=True)
class Exposed:
    """Rows of sessions with episodes.

    Attributes
    ----------
    codes : int8[m, N_FEATURES]
    labels : int[m]; 0 = normal, k > 0 = inside an episode of kind k; kinds are drawn equally often
    """

    codes: Codes
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Partial:
    """Clean rows of feeds that carry only the features of `mask`.

    A code that a feed does not carry is 0, and 0 is also the most normal value there is. So these rows stay apart from
    the others: what they lack is cut out of every loss, not learnt as "quiet"; whitening, which needs the covariance
    of all features, does not see them; and as many rows of episodes are shown under the same mask, so that the mask by
    itself is no sign of calm.

    Attributes
    ----------
    codes : int8[m, N_FEATURES], 0 outside `mask`
    mask : bit i = feature i is carried
    share : of the normal rows of every batch, 0 < share < 1
    """

    codes: Codes
    mask: int
    share: float = 0.2


@dataclass(frozen=True)
class Trained:
    """Result of `train`.

    Attributes
    ----------
    network : the float model; scores are measured against it
    tuned : weights moved so that, once rounded, they score as `network` does; tensors() rounds them
    scales : activation scales of the integers
    metrics : plain numbers
    alarms : sentences about what went wrong without stopping (collapsed latents, ...)
    """

    network: FloatNetwork
    tuned: FloatNetwork
    scales: dict[str, int]
    metrics: dict[str, Any]
    alarms: tuple[str, ...] = field(default=())

    def tensors(self) -> Tensors:
        """The integers of `Weights.heads_tensors`."""
        return quantise(self.tuned, self.scales)


def train(
    codes: Codes, exposed: Exposed | None = None, settings: Settings | None = None, progress: Progress | None = None,
    *, partial: Partial | None = None,
) -> Trained:  # fmt: skip
    """Train all networks.

    Parameters
    ----------
    codes : int8[n, N_FEATURES] of clean rows in time order, n >= 1000
    exposed : what teaches the exposure head; without it the head is all zero and says 0 for every row
    settings : Settings() when None
    progress : told after every 50 steps
    partial : more clean rows, of feeds that carry less

    Raises
    ------
    EvaluationError : too few rows, codes of another shape or outside their mask, or labels without an episode
    WeightFileError : the training diverged
    """
    s = settings or Settings()
    _check(codes, exposed)
    _check_partial(partial)
    clean, held = np.split(codes, [len(codes) - held_out_rows(len(codes), s)])
    with _single_thread():
        run = _Run(Network(s.seed), clean, exposed, s, progress or (lambda stage, share: None), partial)
        run.vae()
        run.exposure()
        metrics = run.metrics(held)
        whitening = maha.whiten(clean)
        learnt = run.network.to_float_network(whitening)
        learnt.validate()
        sample = _sample(clean, exposed, s.seed, partial)
        network = equalise(learnt, run.network.log2_variance().detach().double().numpy(), sample)
        scales = choose_scales(network, sample)
        run.fine_tune(network, scales)
        tuned = run.network.to_float_network(whitening)
    tuned = replace(tuned, residual_exp=network.residual_exp)
    return Trained(network, tuned, scales, metrics, _alarms(metrics, exposed))


def held_out_rows(rows: int, settings: Settings) -> int:
    """How many of the last clean rows `train` only measures on."""
    return max(int(rows * settings.held_out), 1)


class _Run:
    """The network and its data through the three stages."""

    def __init__(
        self, network: Network, clean: Codes, exposed: Exposed | None, s: Settings, progress: Progress,
        partial: Partial | None = None,
    ):  # fmt: skip
        self.partial = partial
        self.network, self.clean, self.exposed, self.s, self.progress = network, clean, exposed, s, progress
        self.rng = np.random.default_rng([s.seed, 1])
        self.masks = np.array([mask_vector(m) for m in s.masks])
        self.normal, self.kinds = _split(clean, exposed)
        self.hard: list[Codes] = []
        self.jitter = torch.Generator().manual_seed(s.seed)
        if exposed is None:
            with torch.no_grad():
                for name in _layers("exposure"):
                    network.dense[name].weight.zero_()

    def vae(self) -> None:
        """Fit the VAE; beta rises to 1 so that latents are used before they are paid for."""
        net, s = self.network, self.s
        params = [p for n in _layers("vae.") for p in net.dense[n].parameters()]
        params += [net.latent_log_variance, net.latent_log_variance_bias, net.residual_log2_variance]
        for step in self._steps("vae", params, s.vae_steps, s.rate):
            beta = min(1.0, step / max(s.anneal * s.vae_steps, 1.0))
            few = self._few(s.batch)
            x, carried = self._masked(self._draw(self.clean, s.batch - few), few=few)
            noise = torch.from_numpy(self.rng.standard_normal((len(x), LAYERS["vae.enc.2"][0]), np.float32))
            reconstruction, kl = net.elbo(x, carried, noise)
            self.loss = reconstruction + beta * kl
            if beta == 1.0:
                weights = 2.0 - net.log2_variance()
                plain, rough = (net.vae_score(x, carried, weights, jitter=j) for j in (None, self.jitter))
                self.loss = self.loss + STEADY_VAE * (torch.log(rough / plain) ** 2).mean()

    def exposure(self) -> None:
        """Fit the exposure head: half of each batch normal, half from episodes, every kind equally often."""
        if self.exposed is None:
            return
        params = [p for n in _layers("exposure") for p in self.network.dense[n].parameters()]
        for step in self._steps("exposure", params, self.s.exposure_steps, self.s.rate, self.s.exposure_decay):
            if step % HARD_EVERY == HARD_EVERY - 1:
                self.hard = [self._hardest(rows) for rows in self.normal]
            x, target = self._taught_rows()
            logits, rough = (self.network.run("exposure", x, jitter=j)[:, 0] for j in (None, self.jitter))
            moved = (rough - logits) / logits.detach().std().clamp(min=1e-3)
            self.loss = STEADY_EXPOSURE * (moved**2).mean() + torch.nn.functional.binary_cross_entropy_with_logits(
                logits, target
            )

    def fine_tune(self, teacher: FloatNetwork, scales: Scales) -> None:
        """Move the weights so that scores on the integer grid follow the float ones: ratios of vae, logits of exposure.

        The float network itself stays as it is. (Fine-tuning the first losses on the grid moves the float weights as
        well, and then order is lost between the two float networks instead of in the rounding.)
        """
        net, s = self.network, self.s
        fixed_net = Network(s.seed)
        for n in (net, fixed_net):
            n.take(teacher)
        exponents = torch.from_numpy(teacher.residual_exp.astype(np.float32))
        params = [p for n in _layers("") for p in net.dense[n].parameters()]
        for _ in self._steps("fine-tune", params, s.tune_steps, s.tune_rate):
            half = s.batch // 2
            few = self._few(half)
            x, carried = self._masked(self._draw(self.clean, half - few), self._any_rows(half), few=few)
            with torch.no_grad():
                vae, logit = fixed_net.vae_score(x, carried, exponents), fixed_net.run("exposure", x)[:, 0]
            ratio = torch.log(net.vae_score(x, carried, exponents, scales) / vae.clamp(min=1.0))
            gap = (net.run("exposure", x, scales)[:, 0] - logit) / logit.std().clamp(min=1e-3)
            # alarms are decided among the highest scores: their order counts most
            weight = 1.0 + TAIL_WEIGHT * (vae > vae.quantile(TAIL)).float()
            self.loss = (weight * ratio**2).mean() + (gap**2).mean()

    def metrics(self, held: Codes) -> dict[str, Any]:
        """Losses and use of the latents on rows that nothing was fitted to."""
        x = unit_codes(held)
        with torch.no_grad():
            mean, _ = self.network.encode(x)
            carried, noise = torch.ones_like(x), torch.zeros_like(mean)
            reconstruction, kl = self.network.elbo(x, carried, noise)
            spread = mean.var(dim=0, unbiased=False)
            found: dict[str, Any] = {
                "rows": {"clean": len(self.clean), "held_out": len(held)},
                "vae": {
                    "reconstruction_nats": float(reconstruction),
                    "kl_nats": float(kl),
                    "latent_variance": [float(v) for v in spread],
                    "active_units": int((spread > ACTIVE_VARIANCE).sum()),
                },
            }
            if self.exposed is not None:
                found["exposure"] = self._exposure_metrics(held)
        return found

    def _exposure_metrics(self, held: Codes) -> dict[str, Any]:
        """Separation of each kind's training rows from held-out clean rows: says that it learnt, not how well."""
        normal = self._logits(held)
        areas = {str(k): area_under_curve(self._logits(rows), normal) for k, rows in self.kinds.items()}
        return {"rows": {str(k): len(v) for k, v in self.kinds.items()}, "area_under_curve_on_taught_rows": areas}

    def _logits(self, rows: Codes) -> NDArray[np.float64]:
        out: NDArray[np.float64] = self.network.run("exposure", unit_codes(rows))[:, 0].double().numpy()
        return out

    def _steps(
        self, stage: str, params: list[torch.nn.Parameter], steps: int, rate: float, decay: float = 1e-4
    ) -> Iterator[int]:
        """Yield step numbers; between two of them `self.loss` is followed downhill."""
        optimiser = torch.optim.AdamW(params, lr=rate, weight_decay=decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1), eta_min=rate / 50)
        for step in range(steps):
            yield step
            optimiser.zero_grad()
            self.loss.backward()
            torch.nn.utils.clip_grad_norm_(params, 5.0)
            optimiser.step()
            schedule.step()
            if step % 50 == 49 or step + 1 == steps:
                self.progress(stage, (step + 1) / steps)

    def _taught_rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Half a batch from episodes, kinds alike, and half from normal rows; and which is which."""
        half = self.s.batch // 2
        each, few = max(half // len(self.kinds), 1), self._few(half)
        parts = [self._draw(rows, each) for rows in self.kinds.values()]
        pools = [*self.normal, *self.hard]
        parts += [self._draw(rows, (half - few) // len(pools)) for rows in pools]
        x, _ = self._masked(*parts, few=few)
        target = torch.zeros(len(x))
        target[: each * len(self.kinds)] = 1.0
        if self.partial is not None:
            x[self.rng.integers(0, each * len(self.kinds), few)] *= torch.from_numpy(_carried(self.partial))
        return x, target

    def _few(self, n: int) -> int:
        """How many of n normal rows are partial ones."""
        return 0 if self.partial is None else round(n * self.partial.share)

    def _hardest(self, rows: Codes) -> Codes:
        """The normal rows that look most like episodes now: false alarms are made of them."""
        some = self._draw(rows, min(len(rows), HARD_FROM))
        with torch.no_grad():
            logits = self._logits(some)
        return some[logits >= np.quantile(logits, 1.0 - HARD_SHARE)]

    def _any_rows(self, n: int) -> Codes:
        """Rows with and without episodes."""
        return self._draw(self.clean if self.exposed is None else self.exposed.codes, n)

    def _draw(self, rows: Codes, n: int) -> Codes:
        return rows[self.rng.integers(0, len(rows), n)]

    def _masked(self, *parts: Codes, few: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows in sigma and the 0/1 of features they carry; a quarter of them under one of the settings' masks.

        Last come `few` partial rows, under their own mask.
        """
        rows = np.concatenate(parts)
        carried = np.ones(rows.shape, np.float32)
        some = self.rng.random(len(rows)) < 0.25
        carried[some] = self.masks[self.rng.integers(0, len(self.masks), int(some.sum()))]
        if self.partial is not None:
            rows = np.concatenate([rows, self._draw(self.partial.codes, few)])
            carried = np.concatenate([carried, np.tile(_carried(self.partial), (few, 1))])
        seen = torch.from_numpy(carried)
        return unit_codes(rows) * seen, seen


def _carried(partial: Partial) -> NDArray[np.float32]:
    """The mask as 0/1, float32[N_FEATURES]."""
    return np.asarray(mask_vector(partial.mask), np.float32)


def _layers(prefix: str) -> list[str]:
    return [n for n in LAYERS if n.startswith(prefix) and n != "maha.0"]


def _check(codes: Codes, exposed: Exposed | None) -> None:
    for name, rows in (("clean", codes), ("exposed", exposed.codes if exposed else codes)):
        if rows.dtype != np.int8 or rows.ndim != 2 or rows.shape[1] != N_FEATURES:
            raise EvaluationError(f"{name} codes must be int8[n, {N_FEATURES}], not {rows.dtype}{list(rows.shape)}")
    if len(codes) < LEAST_ROWS:
        raise EvaluationError(f"training needs at least {LEAST_ROWS} clean rows, there are {len(codes)}")
    if exposed is not None:
        if len(exposed.labels) != len(exposed.codes):
            raise EvaluationError(f"{len(exposed.codes)} exposed rows have {len(exposed.labels)} labels")
        if not (exposed.labels > 0).any():
            raise EvaluationError("the exposed rows hold no episode: every label is 0")


def _check_partial(partial: Partial | None) -> None:
    if partial is None:
        return
    rows = partial.codes
    if rows.dtype != np.int8 or rows.ndim != 2 or rows.shape[1] != N_FEATURES or not len(rows):
        raise EvaluationError(f"partial codes must be int8[n > 0, {N_FEATURES}], not {rows.dtype}{list(rows.shape)}")
    if rows[:, _carried(partial) == 0].any():
        raise EvaluationError(f"partial codes outside their mask {partial.mask:08x} must be 0")
    if not 0.0 < partial.share < 1.0:
        raise EvaluationError(f"the share of partial rows must lie between 0 and 1, not {partial.share}")


def _split(clean: Codes, exposed: Exposed | None) -> tuple[list[Codes], dict[int, Codes]]:
    """Sources of normal rows, and the rows of each kind."""
    if exposed is None:
        return [clean], {}
    calm = exposed.codes[exposed.labels == 0]
    kinds = {int(k): exposed.codes[exposed.labels == k] for k in np.unique(exposed.labels) if k > 0}
    return [clean, calm] if len(calm) else [clean], kinds


def _sample(
    clean: Codes, exposed: Exposed | None, seed: int, partial: Partial | None = None, rows: int = 50_000
) -> Codes:
    """Rows from which activation scales are chosen: clean ones and, so that those fit too, exposed and partial ones."""
    rng = np.random.default_rng([seed, 2])
    pools = [clean, *([exposed.codes] if exposed else []), *([partial.codes] if partial else [])]
    return np.concatenate([p if len(p) <= rows else p[rng.choice(len(p), rows, replace=False)] for p in pools])


def _alarms(metrics: dict[str, Any], exposed: Exposed | None) -> tuple[str, ...]:
    found = []
    active = metrics["vae"]["active_units"]
    if active < LEAST_ACTIVE:
        found.append(f"the vae has collapsed: {active} of {LAYERS['vae.enc.2'][0]} latents vary with the data")
    if exposed is None:
        found.append("the exposure head is untaught: no rows with episodes were given")
    return tuple(found)


@contextmanager
def _single_thread() -> Iterator[None]:
    """One thread: matrices this small lose time to more, and sums come in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
