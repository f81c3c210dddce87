"""The exposure head with few signed digits: pruned while it is taught, then frozen digit by digit.

Two steps, both after a trained model, the parent.
*prune*: the head is taught on (labels, and the parent's own logit) while the weights that matter least go to zero, a
few at a time. What is left, rounded as always, is an int8 head whose weights are mostly 0.
*sharpen*: a share of its weights takes the integers that model/digits.py buys with the budget and stays there; the
others are trained on to make up for it; then the next share, until none is free. Rounding all weights in every forward
pass (a straight-through estimator) was tried first: at 800 digits it left three times the loss, because weights that
flip between values of one or two digits keep all others from settling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from microrisk.errors import EvaluationError
from microrisk.model.digits import MOST, count, layers_of, spend
from microrisk.model.floatnet import FloatNetwork
from microrisk.model.network import on_grid, unit_codes
from microrisk.model.quantise import equalise, row_exponents
from microrisk.model.train import HARD_FROM, HARD_SHARE, STEADY_EXPOSURE, Codes, Exposed, Partial, _single_thread
from microrisk.spec.features import ALL_MASK
from microrisk.spec.formats import CODE, WEIGHT
from microrisk.spec.weightfile import LAYERS
from microrisk.weights import Tensors, mask_vector

NET = layers_of("exposure")
MASKED_SHARE = 0.25
"""Share of the rows of a batch that is shown under one of the masks."""
TAIL, TAIL_SHARE = 0.93, 0.5
"""Rows of a source above this quantile of the teacher are its tail; they fill this share of what is drawn from it."""
ALARM = 0.98
"""Episodes are tail rows above this quantile of calm simulated rows."""
BODY_WEIGHT = 0.02
"""Weight of the rows below the tail: their order raises no alarm, as long as they stay below."""
SHARES = (0.0, 0.2, 0.35, 0.5, 0.6, 0.7, 0.78, 0.84, 0.89, 0.93, 0.96, 0.98, 0.99, 1.0)
"""Share of the weights that is frozen at each step of `sharpen`, the most important first."""
POOL_ROWS = 250_000

Progress = Callable[[str, float], None]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Lessons:
    """Rows that the head is taught with, of the same sources as the parent.

    Attributes
    ----------
    clean : int8[n, N_FEATURES] of rows without episodes, one array a source, simulated ones last
    exposed, partial : as in model.train
    masks : feature masks of feeds that carry less
    """

    clean: Sequence[Codes]
    exposed: Exposed
    partial: Partial | None = None
    masks: Sequence[int] = (ALL_MASK,)

    def check(self) -> None:
        """EvaluationError when there is nothing to learn from."""
        if not self.clean or any(not len(c) for c in self.clean):
            raise EvaluationError("lessons need at least one source of clean rows, and none of them empty")
        if not (self.exposed.labels > 0).any():
            raise EvaluationError("the exposed rows hold no episode: every label is 0")


@dataclass(frozen=True)
class Budget:
    """What the head may cost, and how long it is trained for that.

    Attributes
    ----------
    digits : signed digits of all weights
    weights : weights that are not 0
    row_digits, row_weights : most digits, and weights that are not 0, of one row; None without limit. A row of 15
        digits with its bias is a tree of four adder levels
    most : most digits of one weight
    prune_steps, sharpen_steps : optimiser steps of the two parts
    follow : weight of following the parent's logit while the head is pruned
    """

    digits: int = 1100
    weights: int = 620
    row_digits: int | None = None
    row_weights: int | None = None
    most: int = MOST
    seed: int = 0
    batch: int = 1024
    prune_steps: int = 20_000
    sharpen_steps: int = 28_000
    prune_rate: float = 3e-3
    sharpen_rate: float = 1e-3
    decay: float = 0.3
    follow: float = 1.0

    def check(self) -> None:
        """EvaluationError when no such head can be made."""
        if not 0 < self.weights <= _EVERY:
            raise EvaluationError(f"{self.weights} weights to keep, the head has {_EVERY}")
        for name in ("digits", "row_digits", "row_weights"):
            most = getattr(self, name)
            if most is not None and most < 1:
                raise EvaluationError(f"{name} = {most} leaves no head at all")


class Head:
    """The exposure head with a mask on its weights and, on the way to integers, weights that stay as they are."""

    def __init__(self, network: FloatNetwork) -> None:
        self.weight = [torch.tensor(network.weight[n], dtype=torch.float32, requires_grad=True) for n in NET]
        self.bias = [torch.tensor(network.bias[n], dtype=torch.float32, requires_grad=True) for n in NET]
        self.free = [torch.as_tensor(w.detach() != 0) for w in self.weight]
        self.value = [torch.zeros_like(w) for w in self.weight]

    @property
    def parameters(self) -> list[torch.Tensor]:
        """Weights, then biases."""
        return [*self.weight, *self.bias]

    def logits(self, x: torch.Tensor, *, jitter: torch.Generator | None = None, grid: bool = False) -> torch.Tensor:
        """x[n, N_FEATURES] (sigma) -> [n]; jitter: as unsure as int8 would be; grid: hidden outputs are codes."""
        for i in range(len(NET)):
            x = x @ self._held(i).T + self.bias[i]
            if i + 1 == len(NET):
                break
            if jitter is not None:
                step = x.detach().amax(dim=0).clamp(min=0.0) / CODE.high
                x = x + (torch.rand(x.shape, generator=jitter) - 0.5) * step
            if grid:
                x = on_grid(x, torch.tensor(float(1 << CODE.frac)), CODE.low, CODE.high)
            x = torch.relu(x)
        return x[:, 0]

    def importance(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Mean squared derivative of the logit by each weight, on these rows."""
        with torch.no_grad():
            inputs = [x]
            for i in range(len(NET) - 1):
                inputs.append(torch.relu(inputs[-1] @ self._held(i).T + self.bias[i]))
            back = [torch.ones(len(x), 1)]
            for i in reversed(range(len(NET) - 1)):
                back.insert(0, (back[0] @ self._held(i + 1)) * (inputs[i + 1] > 0))
            return [(b**2).T @ (a**2) / len(x) for a, b in zip(inputs, back, strict=True)]

    def network(self, parent: FloatNetwork) -> FloatNetwork:
        """The parent with this head in place of its own."""
        with torch.no_grad():
            weight = {n: self._held(i).double().numpy().copy() for i, n in enumerate(NET)}
            bias = {n: self.bias[i].double().numpy().copy() for i, n in enumerate(NET)}
        return replace(parent, weight={**parent.weight, **weight}, bias={**parent.bias, **bias})

    def _held(self, i: int) -> torch.Tensor:
        return torch.where(self.free[i], self.weight[i], self.value[i])


# ---- pruning ----


def prune(parent: FloatNetwork, lessons: Lessons, budget: Budget, progress: Progress | None = None) -> FloatNetwork:
    """Teach the parent's head on until `budget.weights` of its weights are left; its other layers stay.

    Half of each batch is episodes, every kind equally often, half normal rows and the hardest of them, as the head was
    taught in the first place; its logit is held near the parent's, so that what the parent knows of rare rows is kept.
    Raises EvaluationError for lessons or a budget without content.
    """
    lessons.check()
    budget.check()
    with _single_thread():
        head, teacher, school = Head(parent), Head(parent), _School(lessons, budget)
        noise = torch.Generator().manual_seed(budget.seed)
        with torch.no_grad():
            spread = float(teacher.logits(unit_codes(_sample(school.rng, lessons.clean[-1], POOL_ROWS))).std())
        ranks = [torch.ones_like(w) for w in head.weight]
        for step in _descent(head, budget.prune_steps, budget.prune_rate, budget.decay, "prune", progress):
            x, target = school.batch()
            if step.number % 20 == 0:
                ranks = [0.9 * r + 0.1 * i for r, i in zip(ranks, head.importance(x), strict=True)]
            if step.number % 50 == 0 and step.share < _PRUNED_AT:
                _cut(head, ranks, _left(step.share, _EVERY, budget.weights), _fan_in(step.share, budget))
            if step.number % 1000 == 999:
                school.find_hard(head)
            logits, rough = head.logits(x), head.logits(x, jitter=noise)
            moved = (rough - logits) / logits.detach().std().clamp(min=1e-3)
            with torch.no_grad():
                away = teacher.logits(x)
            step.loss = (
                torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
                + STEADY_EXPOSURE * (moved**2).mean()
                + budget.follow * (((logits - away) / spread) ** 2).mean()
            )
        return _filled(head.network(parent), lessons, school.rng)


_PRUNED_AT, _RAMP = 0.8, 0.6
"""Shares of the steps after which the mask stays, and after which the number of weights is reached."""


_EVERY = sum(LAYERS[n][0] * LAYERS[n][1] for n in NET)


def _left(share: float, start: int, end: int) -> int:
    """Weights left at this share of the steps: few go late, when the rest has little time to learn."""
    return int(end + (start - end) * max(0.0, 1.0 - share / _RAMP) ** 3)


def _fan_in(share: float, budget: Budget) -> int:
    """Most weights of a row at this share of the steps."""
    widest = max(LAYERS[n][1] for n in NET)
    return widest if budget.row_weights is None else _left(share, widest, budget.row_weights)


def _cut(head: Head, ranks: list[torch.Tensor], keep: int, fan_in: int) -> None:
    """Free the `keep` weights whose removal would move the logit most, `fan_in` a row at most; the others are 0."""
    worth = [r * w.detach() ** 2 for r, w in zip(ranks, head.weight, strict=True)]
    for i, w in enumerate(worth):
        if fan_in < w.shape[1]:
            worth[i] = torch.where(w >= w.sort(dim=1, descending=True)[0][:, fan_in - 1 : fan_in], w, 0.0)
    least = torch.cat([w.flatten() for w in worth]).sort(descending=True)[0][keep - 1]
    head.free = [(w >= least) & (w > 0) for w in worth]


def _filled(network: FloatNetwork, lessons: Lessons, rng: np.random.Generator) -> FloatNetwork:
    """The same function with hidden units that fill the code range, as quantise.equalise makes them."""
    pools = [*lessons.clean, lessons.exposed.codes, *([lessons.partial.codes] if lessons.partial else [])]
    rows = np.concatenate([_sample(rng, p, 50_000) for p in pools])
    even = equalise(network, np.zeros(len(network.residual_exp)), rows)
    return replace(
        network,
        weight={**network.weight, **{n: even.weight[n] for n in NET}},
        bias={**network.bias, **{n: even.bias[n] for n in NET}},
    )


class _School:
    """Labelled batches of the first step."""

    def __init__(self, lessons: Lessons, budget: Budget) -> None:
        self.rng = np.random.default_rng([budget.seed, 3])
        exposed, self._partial, self._half = lessons.exposed, lessons.partial, budget.batch // 2
        calm = exposed.codes[exposed.labels == 0]
        self._normal = [np.concatenate(list(lessons.clean)), *([calm] if len(calm) else [])]
        self._kinds = [exposed.codes[exposed.labels == k] for k in np.unique(exposed.labels) if k > 0]
        self._masks = np.array([mask_vector(m) for m in lessons.masks], np.float32)
        self._hard: list[Codes] = []

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows in sigma, episodes first, and 1 for those."""
        each = max(self._half // len(self._kinds), 1)
        few = round(self._half * self._partial.share) if self._partial else 0
        pools = [*self._normal, *self._hard]
        parts = [_draw(self.rng, k, each) for k in self._kinds]
        parts += [_draw(self.rng, p, (self._half - few) // len(pools)) for p in pools]
        x = unit_codes(np.concatenate(parts)).numpy()
        some = self.rng.random(len(x)) < MASKED_SHARE
        x[some] *= self._masks[self.rng.integers(0, len(self._masks), int(some.sum()))]
        if self._partial is not None:
            # as many episodes under the same mask: the mask by itself is no sign of calm
            hidden = self.rng.integers(0, each * len(self._kinds), few)
            x[hidden] *= mask_vector(self._partial.mask).astype(np.float32)
            x = np.concatenate([x, unit_codes(_draw(self.rng, self._partial.codes, few)).numpy()])
        target = torch.zeros(len(x))
        target[: each * len(self._kinds)] = 1.0
        return torch.from_numpy(x), target

    def find_hard(self, head: Head) -> None:
        """Normal rows that look most like episodes now; false alarms are made of them."""
        self._hard = []
        for rows in self._normal:
            some = _draw(self.rng, rows, min(len(rows), HARD_FROM // 3))
            with torch.no_grad():
                logits = head.logits(unit_codes(some)).numpy()
            self._hard.append(some[logits >= np.quantile(logits, 1.0 - HARD_SHARE)])


# ---- digits ----


def sharpen(pruned: FloatNetwork, lessons: Lessons, budget: Budget, progress: Progress | None = None) -> Tensors:
    """Integers of the head within the budget of digits, which follow the pruned float head above all in the tail.

    Returns the nine tensors of the layers `exposure.*`. Raises EvaluationError for lessons or a budget without content,
    WeightFileError where no shift brings a row into range.
    """
    lessons.check()
    budget.check()
    with _single_thread():
        head, tails = Head(pruned), _Tails(Head(pruned), lessons, budget)
        budget = replace(budget, weights=sum(int(f.sum()) for f in head.free))
        exponents = [_exponents(pruned, n) for n in NET]
        ranks = [torch.ones_like(w) for w in head.weight]
        for _ in range(50):
            ranks = [0.9 * r + 0.1 * i for r, i in zip(ranks, head.importance(tails.batch()[0]), strict=True)]
        for i, (share, after) in enumerate(pairwise((*SHARES, 1.0))):
            if share > 0:
                _freeze(head, ranks, exponents, budget, share)
            rate = budget.sharpen_rate * (1 - 0.7 * i / len(SHARES))
            name = f"sharpen {share:.0%}"
            for step in _descent(head, budget.sharpen_steps // len(SHARES), rate, 0.0, name, progress):
                x, y, source = tails.batch()
                if step.number % 20 == 0 and after > share:
                    ranks = [0.9 * r + 0.1 * k for r, k in zip(ranks, head.importance(x), strict=True)]
                step.loss = tails.loss(head.logits(x, grid=True), y, source)
        return _integers(head, exponents)


def _exponents(network: FloatNetwork, name: str) -> torch.Tensor:
    """Exponent of each row's weights, as quantise.quantise_layer would have it."""
    out = None if LAYERS[name][2] == "acc" else CODE.frac
    return torch.from_numpy(row_exponents(network.weight[name], network.bias[name], CODE.frac, out))


def _freeze(head: Head, ranks: list[torch.Tensor], exponents: list[torch.Tensor], budget: Budget, share: float) -> None:
    """Give every free weight its digits, and let those that matter most keep them, up to `share` of all."""
    steps = [torch.exp2(k.float())[:, None].expand_as(w) for k, w in zip(exponents, head.weight, strict=True)]
    bought = _bought(head, ranks, steps, budget)
    worth = torch.cat([
        (r * torch.maximum(w.detach().abs(), b.abs()) ** 2)[f]
        for r, w, b, f in zip(ranks, head.weight, bought, head.free, strict=True)
    ])  # fmt: skip
    if not len(worth):
        return
    every = budget.weights
    now = min(max(round(share * every) - (every - len(worth)), 1), len(worth))
    least = worth.sort(descending=True)[0][now - 1]
    for i, b in enumerate(bought):
        mine = ranks[i] * torch.maximum(head.weight[i].detach().abs(), b.abs()) ** 2
        chosen = head.free[i] & (mine >= least)
        head.value[i] = torch.where(chosen, b, head.value[i])
        head.free[i] = head.free[i] & ~chosen


def _bought(head: Head, ranks: list[torch.Tensor], steps: Sequence[torch.Tensor], budget: Budget) -> list[torch.Tensor]:
    """Values of all weights with digits from the rest of the budget; those that are not free keep theirs."""
    first = np.cumsum([0, *(len(w) for w in head.weight)])
    rows = [np.broadcast_to(np.arange(len(w))[:, None] + first[i], w.shape) for i, w in enumerate(head.weight)]
    free = np.concatenate([f.numpy().ravel() for f in head.free])
    row = np.concatenate([r.ravel() for r in rows])
    step = torch.cat([s.flatten() for s in steps]).double().numpy()
    held = np.rint(torch.cat([v.flatten() for v in head.value]).double().numpy() * step).astype(np.int64)
    want = torch.cat([w.detach().flatten() for w in head.weight]).double().numpy() * step
    weight = torch.cat([r.flatten() for r in ranks]).double().numpy() / step**2
    spent = np.bincount(row, weights=count(held), minlength=first[-1]).astype(np.int64)
    left = max(budget.digits - int(spent.sum()), 0)
    got = np.zeros_like(held)
    got[free] = spend(want[free], weight[free], row[free], left,
                      most=budget.most, row_most=budget.row_digits, taken=spent)  # fmt: skip
    flat = torch.from_numpy(np.where(free, got, held) / step).float()
    sizes = [w.numel() for w in head.weight]
    return [v.reshape(w.shape) for v, w in zip(flat.split(sizes), head.weight, strict=True)]


def _integers(head: Head, exponents: list[torch.Tensor]) -> Tensors:
    """Weights on their grid, biases rounded, shifts."""
    tensors: Tensors = {}
    for i, name in enumerate(NET):
        k = exponents[i].numpy()
        scaled = head.value[i].double().numpy() * 2.0 ** k[:, None]
        bias = head.bias[i].detach().double().numpy() * 2.0 ** (k + CODE.frac)
        tensors[f"{name}.weight"] = np.rint(scaled).clip(-WEIGHT.high, WEIGHT.high).astype(np.int8)
        tensors[f"{name}.bias"] = np.floor(bias + 0.5).astype(np.int32)
        tensors[f"{name}.shift"] = (np.zeros_like(k) if LAYERS[name][2] == "acc" else k).astype(np.uint8)
    return tensors


class _Tails:
    """Rows with the teacher's logit, half of them from the tail of their source."""

    def __init__(self, teacher: Head, lessons: Lessons, budget: Budget) -> None:
        self.rng = np.random.default_rng([budget.seed, 4])
        self._batch = budget.batch
        self._rows, shares = self._pools(lessons)
        self._share = np.array(shares) / sum(shares)
        with torch.no_grad():
            self._logits = [teacher.logits(unit_codes(r)).numpy() for r in self._rows]
        calm = self._logits[len(lessons.clean) - 1]
        kinds = range(self._first_kind, self._after_kinds)
        least = [np.quantile(calm if s in kinds else y, ALARM if s in kinds else TAIL)
                 for s, y in enumerate(self._logits)]  # fmt: skip
        self._tail = [np.flatnonzero(y >= t) for y, t in zip(self._logits, least, strict=True)]
        spread = [y[y >= np.quantile(y, 0.95)].std() if s not in kinds else y[y >= t].std() if (y >= t).any() else 0.3
                  for s, (y, t) in enumerate(zip(self._logits, least, strict=True))]  # fmt: skip
        self._least = torch.tensor(np.array(least), dtype=torch.float32)
        self._spread = torch.tensor(np.maximum(spread, 1e-2), dtype=torch.float32)

    def _pools(self, lessons: Lessons) -> tuple[list[Codes], list[float]]:
        """Sources and how much of a batch each is: clean ones, all exposed rows, kinds, those under masks, partial."""
        exposed, take = lessons.exposed, lambda rows, n: _sample(self.rng, rows, n)
        pools = [take(c, POOL_ROWS) for c in lessons.clean] + [take(exposed.codes, 2 * POOL_ROWS)]
        shares = [*[1.0] * (len(lessons.clean) - 1), 2.0, 2.0]
        self._first_kind = len(pools)
        for k in (int(k) for k in np.unique(exposed.labels) if k > 0):
            pools.append(take(exposed.codes[exposed.labels == k], POOL_ROWS // 4))
            shares.append(0.7)
        self._after_kinds = len(pools)
        mixed = np.concatenate(pools[: self._first_kind])
        for m in (m for m in lessons.masks if m != ALL_MASK):
            pools.append(np.where(mask_vector(m), take(mixed, POOL_ROWS), np.int8(0)))
            shares.append(0.6)
        if lessons.partial is not None:
            pools.append(take(lessons.partial.codes, POOL_ROWS // 4))
            shares.append(1.0)
        return pools, shares

    def batch(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows in sigma, the teacher's logits, source of each row."""
        parts, logits, source = [], [], []
        for s, (rows, y, tail) in enumerate(zip(self._rows, self._logits, self._tail, strict=True)):
            n = round(self._batch * self._share[s])
            high = int(n * TAIL_SHARE) if len(tail) else 0
            at = self.rng.integers(0, len(rows), n - high)
            if high:
                at = np.concatenate([at, tail[self.rng.integers(0, len(tail), high)]])
            parts.append(rows[at])
            logits.append(y[at])
            source.append(np.full(n, s))
        target, which = torch.from_numpy(np.concatenate(logits)), torch.from_numpy(np.concatenate(source))
        return unit_codes(np.concatenate(parts)), target, which

    def loss(self, z: torch.Tensor, y: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        """Squared error in units of the tail's spread; below the tail what counts is not to rise into it."""
        least, spread = self._least[source], self._spread[source]
        off = (z - y) / spread
        risen = torch.relu(z - torch.maximum(y, least - spread)) / spread
        each = torch.where(y >= least, off**2, risen**2 + BODY_WEIGHT * off**2)
        return each.clamp(max=25.0).mean()


# ---- both ----


@dataclass
class _Step:
    """One optimiser step: `loss` is set by whoever takes it."""

    number: int
    share: float
    loss: torch.Tensor


def _descent(
    head: Head, steps: int, rate: float, decay: float, stage: str, progress: Progress | None
) -> Iterator[_Step]:
    """Yield steps; between two of them their loss is followed downhill, on free weights alone."""
    optimiser = torch.optim.AdamW(head.parameters, lr=rate, weight_decay=decay)
    for n in range(steps):
        step = _Step(n, n / steps, torch.zeros(()))
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, n / 50) * (0.02 + 0.49 * (1 + np.cos(np.pi * n / steps)))
        yield step
        optimiser.zero_grad()
        step.loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters, 5.0)
        optimiser.step()
        if progress is not None and (n % 500 == 499 or n + 1 == steps):
            progress(stage, (n + 1) / steps)


def _draw(rng: np.random.Generator, rows: Codes, n: int) -> Codes:
    """Rows drawn with repetition, n of them."""
    return rows[rng.integers(0, len(rows), n)]


def _sample(rng: np.random.Generator, rows: Codes, n: int) -> Codes:
    """At most n rows, none twice, in order."""
    return rows if len(rows) <= n else rows[np.sort(rng.choice(len(rows), n, replace=False))]
