"""The exposure head with few digits: what it computes, what it costs, that training beats plain rounding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from microrisk import fixed
from microrisk.errors import EvaluationError
from microrisk.model import sparse
from microrisk.model.digits import bill, count, nearest
from microrisk.model.floatnet import FloatNetwork
from microrisk.model.network import Network, unit_codes
from microrisk.model.quantise import quantise_layer, spearman
from microrisk.model.sparse import NET, Budget, Head, Lessons, prune, sharpen
from microrisk.model.synthetic import market_like_codes
from microrisk.model.train import Exposed, Partial
from microrisk.spec.features import ALL_MASK
from microrisk.spec.formats import CODE
from microrisk.spec.weightfile import LAYERS

L2_MASK = 0x3FF8_3FFF
QUICK = Budget(digits=420, weights=260, row_digits=24, row_weights=14, batch=256, prune_steps=400, sharpen_steps=900)


def episodes(seed: int, rows: int = 4_000) -> Exposed:
    """Two kinds of episode, each a block of features pushed up."""
    codes, labels = market_like_codes(rows, seed).astype(np.int64), np.zeros(rows, np.int64)
    rng = np.random.default_rng(seed)
    for kind, features in ((1, [3, 7, 11, 12]), (2, [20, 21, 28])):
        for start in rng.integers(0, rows - 200, 4):
            codes[start : start + 200, features] += rng.integers(16, 40, (200, len(features)))
            labels[start : start + 200] = kind
    return Exposed(np.clip(codes, CODE.low, CODE.high).astype(np.int8), labels)


@pytest.fixture(scope="module")
def lessons() -> Lessons:
    partial = market_like_codes(1_000, 5)
    partial[:, [i for i in range(32) if not L2_MASK >> i & 1]] = 0
    clean = [market_like_codes(2_000, 3), market_like_codes(6_000, 4)]
    return Lessons(clean, episodes(6), Partial(partial, L2_MASK), (ALL_MASK, L2_MASK))


@pytest.fixture(scope="module")
def parent() -> FloatNetwork:
    """A dense head of random weights: an order that has to be kept without any luck from the labels."""
    whitening = np.eye(32), np.zeros(32)
    return Network(11).to_float_network(whitening)


@pytest.fixture(scope="module")
def pruned(parent: FloatNetwork, lessons: Lessons) -> FloatNetwork:
    return prune(parent, lessons, QUICK)


@pytest.fixture(scope="module")
def tensors(pruned: FloatNetwork, lessons: Lessons) -> dict[str, np.ndarray]:
    return sharpen(pruned, lessons, QUICK)


def integer_logits(tensors: dict[str, np.ndarray], codes: np.ndarray) -> np.ndarray:
    x = codes.astype(np.int64)
    for name in NET:
        w, b, s = (tensors[f"{name}.{p}"] for p in ("weight", "bias", "shift"))
        x = fixed.accumulate(x, w, b) if LAYERS[name][2] == "acc" else fixed.dense(x, w, b, s, relu=True)
    return x[:, 0]


def test_head_is_the_float_network(parent: FloatNetwork) -> None:
    codes = market_like_codes(500, 8)
    got = Head(parent).logits(unit_codes(codes)).detach().numpy()
    np.testing.assert_allclose(got, parent.float_scores(codes)[:, 3], rtol=1e-4, atol=1e-4)


def test_importance_is_the_mean_squared_derivative(pruned: FloatNetwork) -> None:
    head, x = Head(pruned), unit_codes(market_like_codes(40, 9))
    want = [torch.zeros_like(w) for w in head.weight]
    for row in x:
        got = torch.autograd.grad(head.logits(row[None])[0], head.weight)
        want = [a + g**2 / len(x) for a, g in zip(want, got, strict=True)]
    for a, b, free in zip(head.importance(x), want, head.free, strict=True):
        torch.testing.assert_close(a[free], b[free], rtol=1e-4, atol=1e-6)


def test_pruning_leaves_the_weights_asked_for(pruned: FloatNetwork, parent: FloatNetwork) -> None:
    left = {n: pruned.weight[n] != 0 for n in NET}
    assert sum(int(v.sum()) for v in left.values()) == QUICK.weights
    assert max(int(v.sum(axis=1).max()) for v in left.values()) <= QUICK.row_weights
    for name in (n for n in LAYERS if n not in NET):
        assert np.array_equal(pruned.weight[name], parent.weight[name]), "other layers stay"
    assert np.array_equal(pruned.residual_exp, parent.residual_exp)


def test_pruned_hidden_units_fill_the_code_range(pruned: FloatNetwork, lessons: Lessons) -> None:
    reach = pruned.activations(lessons.clean[-1] / 16)["exposure.0"].max(axis=0)
    assert reach.max() < 8.0
    assert np.median(reach[reach > 0]) > 2.0, "units that use a sliver of their codes lose their order in rounding"


def test_budget_holds(tensors: dict[str, np.ndarray], pruned: FloatNetwork) -> None:
    cost = bill(tensors)
    assert 0.9 * QUICK.digits < cost.digits <= QUICK.digits
    assert cost.deepest_row <= QUICK.row_digits
    assert cost.nonzero <= QUICK.weights
    for name in NET:
        assert count(tensors[f"{name}.weight"]).max() <= QUICK.most
        assert not tensors[f"{name}.weight"][pruned.weight[name] == 0].any(), "what was pruned stays away"


def test_integers_are_valid_layers(tensors: dict[str, np.ndarray]) -> None:
    from microrisk.model.synthetic import random_weights
    from microrisk.weights import Weights

    weights = Weights({**random_weights(0).tensors, **tensors})
    weights.validate()
    codes = market_like_codes(2_000, 10)
    assert np.array_equal(weights.compute(codes)[:, 3], integer_logits(tensors, codes))


def test_training_keeps_order_better_than_rounding(tensors: dict[str, np.ndarray], pruned: FloatNetwork) -> None:
    """Rows of another seed; against the same weights each put to the nearest value of at most one digit."""
    codes = market_like_codes(8_000, 12)
    want = pruned.float_scores(codes)[:, 3]
    plain: dict[str, np.ndarray] = {}
    for name in NET:
        out = None if LAYERS[name][2] == "acc" else CODE.frac
        plain |= quantise_layer(pruned.weight[name], pruned.bias[name], CODE.frac, out, name)
        plain[f"{name}.weight"] = nearest(plain[f"{name}.weight"], 1).astype(np.int8)
    assert bill(plain).digits > 0.5 * bill(tensors).digits
    kept, rounded = (spearman(want, integer_logits(t, codes)) for t in (tensors, plain))
    assert kept > 0.95
    assert 1 - kept < 0.7 * (1 - rounded)


def test_same_input_same_bytes(pruned: FloatNetwork, lessons: Lessons) -> None:
    short = replace(QUICK, sharpen_steps=90)
    first, second = (sharpen(pruned, lessons, short) for _ in range(2))
    assert all(np.array_equal(first[k], second[k]) for k in first)


def test_loss_counts_what_rises_into_the_tail(pruned: FloatNetwork, lessons: Lessons) -> None:
    tails = sparse._Tails(Head(pruned), lessons, QUICK)
    least, spread = tails._least[:1], tails._spread[:1]
    source = torch.zeros(1, dtype=torch.int64)
    below = least - 3 * spread
    lower, risen = (tails.loss(below + d * spread, below, source) for d in (-1.0, 4.0))
    assert float(lower) == pytest.approx(sparse.BODY_WEIGHT, rel=1e-3)
    assert float(risen) > 100 * float(lower)
    inside = tails.loss(least + 2 * spread, least + spread, source)
    assert float(inside) == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"weights": 0}, "0 weights to keep"), ({"weights": 1553}, "the head has 1552"), ({"digits": 0}, "digits = 0"),
     ({"row_digits": 0}, "row_digits = 0"), ({"row_weights": 0}, "row_weights = 0")],
)  # fmt: skip
def test_budgets_without_content_are_refused(
    parent: FloatNetwork, lessons: Lessons, change: dict[str, int], words: str
) -> None:
    for step in (prune, sharpen):
        with pytest.raises(EvaluationError, match=words):
            step(parent, lessons, replace(QUICK, **change))


def test_lessons_without_content_are_refused(parent: FloatNetwork, lessons: Lessons) -> None:
    calm = Exposed(lessons.exposed.codes, np.zeros_like(lessons.exposed.labels))
    with pytest.raises(EvaluationError, match="no episode"):
        prune(parent, replace(lessons, exposed=calm), QUICK)
    with pytest.raises(EvaluationError, match="none of them empty"):
        prune(parent, replace(lessons, clean=[lessons.clean[0][:0]]), QUICK)
