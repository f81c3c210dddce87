"""Constant matrices as shared shifts and adds: exact, not deeper than they have to be, and fewer adders."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from hdl.graph import Graph
from hdl.sharing import Sums, least_level, signed_digits


@pytest.mark.parametrize("value", [*range(-260, 261), 0x5555, -(1 << 20) + 1])
def test_signed_digits(value: int) -> None:
    digits = signed_digits(value)
    assert sum(sign << shift for shift, sign in digits) == value
    places = [shift for shift, _ in digits]
    assert all(b - a >= 2 for a, b in pairwise(places)), "no two neighbours"


def test_least_level() -> None:
    assert [least_level([0] * n) for n in (1, 2, 3, 4, 5, 8, 9)] == [0, 1, 2, 2, 3, 3, 4]
    assert least_level([3, 0, 0]) == 4


def _sums(weight: np.ndarray, bias: np.ndarray, *, share: bool, slack: int = 0) -> tuple[Graph, Sums]:
    g = Graph()
    sums = Sums(g, weight, [g.input(k, -128, 127) for k in range(weight.shape[1])], bias)
    if share:
        sums.share(slack)
    g.outputs.update({f"row{r}": node for r, node in enumerate(sums.finish())})
    return g, sums


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("slack", [0, 2])
def test_equal_to_the_matrix_product(seed: int, slack: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.integers(-128, 128, (9, 12)) * (rng.random((9, 12)) < rng.choice([0.2, 0.6, 1.0]))
    bias = rng.integers(-4000, 4000, 9)
    x = np.concatenate([rng.integers(-128, 128, (300, 12)), np.full((1, 12), -128), np.full((1, 12), 127)])
    plain, before = _sums(weight, bias, share=False)
    shared, after = _sums(weight, bias, share=True, slack=slack)
    for g in (plain, shared):
        got = np.stack(list(g.evaluate(x.T).values()), axis=1)
        assert np.array_equal(got, x @ weight.T + bias)
    assert shared.adders() <= plain.adders()
    deepest = max(before.level[g] for g in plain.outputs.values())
    assert max(after.level[g] for g in shared.outputs.values()) <= deepest + slack


def test_sharing_saves_a_third_of_a_dense_matrix() -> None:
    rng = np.random.default_rng(7)
    weight, bias = rng.integers(-128, 128, (16, 32)), np.zeros(16)
    plain, _ = _sums(weight, bias, share=False)
    shared, _ = _sums(weight, bias, share=True)
    assert shared.adders() < 0.75 * plain.adders()


def test_rows_without_weights_and_all_negative_rows() -> None:
    weight = np.array([[0, 0], [-1, -2], [4, 0], [-8, 0]])
    g, _ = _sums(weight, np.array([5, 0, 0, 0]), share=True)
    x = np.array([[3, -7], [127, -128]])
    assert np.array_equal(np.stack(list(g.evaluate(x.T).values()), axis=1), x @ weight.T + [5, 0, 0, 0])
