"""Float network to integer weights, and the measure of what that costs.

Every layer has one activation scale, a power of two (an output integer is value * 2**scale); every row has one power
of two of its own for its weights. The shift of a row is then fixed:
    shift = weight exponent + input scale - output scale,   0..15.
Before that the network is equalised: a ReLU unit may be multiplied by any positive number when the weights that read it
are divided by the same, and the function stays what it was. So every hidden unit is made to fill the whole code range;
without it a unit of small outputs has only a few distinct values, which measured as most of the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microrisk.errors import WeightFileError
from microrisk.model.floatnet import LATENT_WEIGHT_EXP, FloatNetwork, Floats
from microrisk.spec.features import ALL_MASK
from microrisk.spec.formats import ACC, CODE, RESIDUAL_EXP_MAX, SHIFT_MAX, WEIGHT
from microrisk.spec.weightfile import HEADS, LAYERS
from microrisk.weights import Tensors, Weights

INPUT = "input"
"""Name of the input's scale among activation scales; always CODE.frac."""
SCALE_QUANTILE = 0.9999
"""Share of activations that a scale chosen from data must hold without saturation."""
FILL = 0.98
"""Share of the code range that the largest output of an equalised unit fills."""
GATES = {"spearman": 0.99, "tail_spearman": 0.97, "overlap": 0.9}
"""What quantisation must keep, of the heads vae and exposure."""
_SCALE_RANGE = (0, 7)
_READERS = tuple((a, b) for net in ("vae.", "exposure.") for a, b in pairwise(n for n in LAYERS if n.startswith(net)))
"""(layer whose outputs are rescaled, the layer that reads them), in the order of the data."""

Scales = Mapping[str, int]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Gap:
    """What is left of a head's order after quantisation.

    Attributes
    ----------
    spearman : rank correlation over all rows
    tail_spearman : the same inside the float head's top 5 %
    overlap : share of the float head's top 1 % that is in the integer head's top 1 %
    """

    spearman: Estimate
    tail_spearman: Estimate
    overlap: Estimate

    @property
    def kept(self) -> bool:
        """All three reach their gates."""
        return all(getattr(self, k).value >= v for k, v in GATES.items())

    def to_json(self) -> dict[str, dict[str, float]]:
        """Plain numbers."""
        return asdict(self)


# ---- scales and layers ----


def input_of(name: str) -> str:
    """The layer whose outputs a layer reads, or "input"."""
    net, _, index = name.rpartition(".")
    if index != "0":
        return f"{net}.{int(index) - 1}"
    return "vae.enc.2" if net == "vae.dec" else INPUT


def equalise(net: FloatNetwork, log2_variance: Floats, codes: NDArray[np.int8]) -> FloatNetwork:
    """The same network with hidden units and latents rescaled to fill the code range on these codes.

    Latents must share one factor, since their squares are summed; it changes the weight of the latent squares, so the
    residual exponents follow from the variances anew.

    Parameters
    ----------
    log2_variance : float64[N_FEATURES], learned variances of the vae's residuals in sigma**2
    codes : rows whose activations are to fit, episodes included
    """
    outputs = net.activations(codes.astype(np.float64) / (1 << CODE.frac))
    weight, bias, latent_gain = dict(net.weight), dict(net.bias), 1.0
    for name, reader in _READERS:  # in the order of the data: a row's weights are final when its own turn comes
        reach, largest = np.abs(outputs[name]).max(axis=0), np.abs(weight[name]).max(axis=1)
        gain = _gain(reach, largest)
        if name == "vae.enc.2":
            gain = np.broadcast_to(_gain(reach.max(), largest.max()), reach.shape)
            latent_gain = float(gain[0])
        weight[name], bias[name] = weight[name] * gain[:, None], bias[name] * gain
        weight[reader] = weight[reader] / gain
    return FloatNetwork(weight, bias, residual_exponents(log2_variance, latent_gain))


def _gain(reach: NDArray[Any], largest_weight: NDArray[Any]) -> Floats:
    """Factor that lets outputs up to `reach` fill the code range, but no row's weights leave int8."""
    fill = FILL * CODE.high / (1 << CODE.frac) / np.maximum(reach, 1e-9)
    return np.asarray(np.where(reach > 0, np.minimum(fill, WEIGHT.high / 2 / np.maximum(largest_weight, 1e-9)), 1.0))


def residual_exponents(log2_variance: Floats, latent_gain: float = 1.0) -> NDArray[np.uint8]:
    """Powers of two nearest 1/variance, in the unit in which a latent square weighs 2**LATENT_WEIGHT_EXP."""
    unit = LATENT_WEIGHT_EXP - 2 * CODE.frac + 2 * np.log2(latent_gain)
    nearest: NDArray[np.uint8] = np.clip(np.round(unit - log2_variance), 0, RESIDUAL_EXP_MAX).astype(np.uint8)
    return nearest


def choose_scales(net: FloatNetwork, codes: NDArray[np.int8]) -> dict[str, int]:
    """Activation scale of each layer: the finest that holds SCALE_QUANTILE of the outputs on these codes.

    Input and reconstruction are codes and keep CODE's scale; equalised units and latents were made to fit it too.
    """
    found = dict.fromkeys((INPUT, "vae.dec.2", *(n for n, _ in _READERS)), CODE.frac)
    for name, y in net.activations(codes.astype(np.float64) / (1 << CODE.frac)).items():
        if name in found or LAYERS[name][2] == "acc":
            continue
        reach = max(float(np.quantile(np.abs(y), SCALE_QUANTILE)), 1e-9)
        finest = int(np.floor(np.log2(CODE.high / reach)))
        found[name] = int(np.clip(finest, *_SCALE_RANGE))
    return found


def row_exponents(weight: Floats, bias: Floats, scale_in: int, scale_out: int | None) -> NDArray[np.int64]:
    """Exponent of each row's weights: the largest that keeps weights, shift and accumulator in range; int64[out].

    Parameters
    ----------
    weight, bias : float[out, in], float[out]
    scale_in, scale_out : activation scales; scale_out None = the accumulator is the result, nothing is shifted
    """
    largest = np.abs(weight).max(axis=1)
    k = np.floor(np.log2(WEIGHT.high / np.maximum(largest, 2.0**-20))).astype(np.int64)
    # an upper bound of the accumulator, the rounding of weights and of the last shift included
    reach = -CODE.low * np.abs(weight).sum(axis=1) + np.abs(bias) * 2.0**scale_in
    room = -ACC.low - (1 << SHIFT_MAX) - -CODE.low * weight.shape[1]
    k = np.minimum(k, np.floor(np.log2(room / np.maximum(reach, 2.0**-20))).astype(np.int64))
    if scale_out is None:
        return np.asarray(np.minimum(k, SHIFT_MAX))
    return np.asarray(np.minimum(k, SHIFT_MAX + scale_out - scale_in))


def quantise_layer(weight: Floats, bias: Floats, scale_in: int, scale_out: int | None, name: str) -> Tensors:
    """The three integer tensors of a layer; WeightFileError when a row's weights are too large for its scales."""
    k = row_exponents(weight, bias, scale_in, scale_out)
    shift = np.zeros_like(k) if scale_out is None else k + scale_in - scale_out
    if (shift < 0).any():
        r = int(np.argmin(shift))
        raise WeightFileError(f"{name}: row {r} has weights up to {np.abs(weight[r]).max():.3g}, too large for int8")
    w = np.floor(weight * 2.0 ** k[:, None] + 0.5)
    b = np.floor(bias * 2.0 ** (k + scale_in) + 0.5)
    return {
        f"{name}.weight": w.astype(np.int8),
        f"{name}.bias": b.astype(np.int32),
        f"{name}.shift": shift.astype(np.uint8),
    }


def quantise(net: FloatNetwork, scales: Scales) -> Tensors:
    """Every layer and the vae's exponents: the tensors of `Weights.heads_tensors`.

    Raises
    ------
    WeightFileError : a row that no exponent brings into range
    """
    net.validate()
    tensors: Tensors = {}
    for name, (_, _, activation) in LAYERS.items():
        out = None if activation == "acc" else scales[name]
        tensors.update(quantise_layer(net.weight[name], net.bias[name], scales[input_of(name)], out, name))
    tensors["vae.residual_exp"] = net.residual_exp.astype(np.uint8)
    tensors["vae.latent_exp"] = np.array([LATENT_WEIGHT_EXP - 2 * scales["vae.enc.2"]], np.uint8)
    return tensors


# ---- the gap ----


def quantisation_gap(
    weights_float: FloatNetwork,
    weights_int: Weights,
    codes: NDArray[np.int8],
    *,
    mask: int = ALL_MASK,
    blocks: int = 50,
    draws: int = 200,
    seed: int = 0,
) -> dict[str, Gap]:
    """How far the integer heads vae and exposure keep the order of the same network before rounding.

    A head whose float score is the same for every row (an untaught exposure head) has no order and is left out.

    Parameters
    ----------
    codes : int8[n, N_FEATURES] in time order, never trained on if the figure is to be published
    blocks, draws : the interval is a bootstrap over that many blocks of neighbouring rows, drawn that often
    """
    before, after = weights_float.float_scores(codes, mask), weights_int.compute(codes, mask)
    measured = [(i, h) for i, h in enumerate(HEADS) if h in _MEASURED and np.ptp(before[:, i]) > 0]
    return {h: _gap(before[:, i], after[:, i], min(blocks, len(codes)), draws, seed) for i, h in measured}


def order_kept(before: Floats, after: NDArray[np.int32], weight: Floats | None = None) -> tuple[float, float, float]:
    """(spearman, tail_spearman, overlap) of two scores of the same rows; see Gap. `weight`: how often a row counts."""
    w = np.ones(len(before)) if weight is None else weight
    return _order_kept(_groups(before), _groups(after), w)


def spearman(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Rank correlation with mean ranks for ties; 1.0 when both are constant, 0.0 when one is."""
    return _correlation(_groups(a), _groups(b), np.ones(len(a)))


def area_under_curve(positive: Floats, negative: Floats) -> float:
    """Probability that a positive score exceeds a negative one, ties counted half."""
    ranks = _ranks(_groups(np.concatenate([positive, negative])), np.ones(len(positive) + len(negative)))
    n, m = len(positive), len(negative)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m)) if n and m else float("nan")


_MEASURED = ("vae", "exposure")
_Groups = NDArray[np.int64]
"""Place of each row's score among the distinct scores: sorted once, ranked anew for every bootstrap draw."""


def _gap(before: Floats, after: NDArray[np.int32], blocks: int, draws: int, seed: int) -> Gap:
    a, b = _groups(before), _groups(after)
    block = np.arange(len(before)) * blocks // len(before)
    rng = np.random.default_rng(seed)
    found = [
        _order_kept(a, b, np.bincount(rng.integers(0, blocks, blocks), minlength=blocks)[block].astype(np.float64))
        for _ in range(draws)
    ]
    low, high = np.quantile(np.array(found), [0.025, 0.975], axis=0) if found else np.full((2, 3), np.nan)
    point = _order_kept(a, b, np.ones(len(before)))
    return Gap(*(Estimate(float(point[i]), float(low[i]), float(high[i])) for i in range(3)))


def _order_kept(a: _Groups, b: _Groups, w: Floats) -> tuple[float, float, float]:
    ra, rb, total = _ranks(a, w), _ranks(b, w), w.sum()
    tail = w * (ra > 0.95 * total)
    first, second = ra > 0.99 * total, rb > 0.99 * total
    overlap = float((w * (first & second)).sum() / max((w * first).sum(), 1.0))
    return _correlation(a, b, w), _correlation(a, b, tail), overlap


def _correlation(a: _Groups, b: _Groups, w: Floats) -> float:
    ra, rb = _ranks(a, w), _ranks(b, w)
    total = max(w.sum(), 1.0)
    # sums of products, not `@`: thousands of short vectors through a threaded BLAS wait more than they add
    ra, rb = ra - (w * ra).sum() / total, rb - (w * rb).sum() / total
    na, nb = float((w * ra * ra).sum()), float((w * rb * rb).sum())
    if na == 0 or nb == 0:
        return 1.0 if na == nb else 0.0
    return float((w * ra * rb).sum() / np.sqrt(na * nb))


def _groups(x: NDArray[Any]) -> _Groups:
    return np.asarray(np.unique(x, return_inverse=True)[1], np.int64)


def _ranks(groups: _Groups, w: Floats) -> Floats:
    """Mean rank of each row when row i is there w[i] times."""
    counts = np.bincount(groups, weights=w)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2.0)[groups])
