from __future__ import annotations

import itertools

import numpy as np
import pytest

from microrisk.errors import UsageError
from microrisk.model.digits import Bill, bill, count, layers_of, nearest, spend, values
from microrisk.spec.weightfile import LAYERS


def fewest_terms(limit: int) -> dict[int, int]:
    """Fewest signed powers of two that sum to each integer, by trying all sums: the definition itself."""
    powers = [s << k if s > 0 else -(1 << k) for k in range(9) for s in (1, -1)]
    best = {0: 0}
    for terms in range(1, 5):
        for chosen in itertools.combinations(powers, terms):
            best.setdefault(sum(chosen), terms)
    return {v: n for v, n in best.items() if abs(v) <= limit}


def test_count_is_the_fewest_signed_powers_of_two() -> None:
    want = fewest_terms(127)
    assert set(want) == set(range(-127, 128))
    for v, n in want.items():
        assert count(v) == n, v


def test_count_keeps_shape_and_sign_does_not_matter() -> None:
    x = np.array([[0, 1, -1], [7, -7, -128]], np.int8)
    assert count(x).tolist() == [[0, 1, 1], [2, 2, 1]]


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_nearest_is_nearest(most: int) -> None:
    table = values(most)
    assert (count(table) <= most).all()
    for x in np.linspace(-140, 140, 1001):
        got = int(nearest(x, most))
        assert got in table
        assert abs(got - x) == np.abs(table - x).min()


def test_nearest_prefers_the_smaller_magnitude_of_two() -> None:
    assert nearest([3.0, -3.0, 0.5, -0.5], 1).tolist() == [2, -2, 0, 0]


def test_values_refuses_no_digits() -> None:
    with pytest.raises(UsageError, match="at most 0 digits"):
        values(0)


def cost(x: np.ndarray, importance: np.ndarray, q: np.ndarray) -> float:
    return float((importance * (x - q) ** 2).sum())


def test_spend_keeps_the_budget_and_is_best_among_all_choices() -> None:
    rng = np.random.default_rng(3)
    table = values(2)[np.abs(values(2)) <= 20]
    for _ in range(5):
        x, importance = rng.uniform(-15, 15, 3), rng.uniform(0.1, 3, 3)
        for budget in range(7):
            got = spend(x, importance, np.zeros(3, np.int64), budget, most=2)
            used = int(count(got).sum())
            assert used <= budget
            best = min(
                cost(x, importance, np.array(q)) for q in itertools.product(table, repeat=3) if count(q).sum() <= used
            )
            assert cost(x, importance, got) == pytest.approx(best)


def test_spend_with_room_for_everything_rounds() -> None:
    x = np.array([3.2, -100.4, 0.3, 126.9])
    assert spend(x, np.ones(4), np.zeros(4, np.int64), 100, most=4).tolist() == [3, -100, 0, 127]


def test_spend_without_budget_is_zero() -> None:
    assert spend(np.full(5, 90.0), np.ones(5), np.arange(5), 0).tolist() == [0] * 5


def test_spend_limits_rows_and_counts_what_they_have() -> None:
    rng = np.random.default_rng(4)
    x, row = rng.uniform(-127, 127, 60), np.repeat(np.arange(3), 20)
    taken = np.array([0, 5, 2])
    got = spend(x, np.ones(60), row, 1000, row_most=9, taken=taken)
    spent = np.bincount(row, weights=count(got))
    assert (spent + taken <= 9).all()
    assert spent.sum() >= 17, "the room is used"
    free = spend(x, np.ones(60), row, 1000)
    assert np.bincount(row, weights=count(free)).min() > 9, "without the limit rows are longer"


def test_spend_puts_digits_where_error_is_dear() -> None:
    got = spend(np.array([50.0, 50.0]), np.array([1.0, 100.0]), np.array([0, 1]), 2)
    assert count(got).tolist() == [0, 2]


def test_spend_names_what_does_not_fit() -> None:
    with pytest.raises(UsageError, match="2 weights, 1 importances"):
        spend(np.zeros(2), np.zeros(1), np.zeros(2, np.int64), 3)
    with pytest.raises(UsageError, match="budget of -1"):
        spend(np.zeros(1), np.zeros(1), np.zeros(1, np.int64), -1)


def head(weight: int, bias: int) -> dict[str, np.ndarray]:
    made: dict[str, np.ndarray] = {}
    for name in layers_of("exposure"):
        out, inp, _ = LAYERS[name]
        made[f"{name}.weight"] = np.full((out, inp), weight, np.int8)
        made[f"{name}.bias"] = np.full(out, bias, np.int32)
    return made


def test_bill_by_hand() -> None:
    tensors = head(0, 0)
    tensors["exposure.0.weight"][0, :3] = [7, -1, 64]  # 2 + 1 + 1 digits: three adders, the bias a fourth
    tensors["exposure.0.bias"][0] = 5
    tensors["exposure.2.weight"][0, 3] = 1  # one term, no adder
    assert bill(tensors) == Bill(weights=1552, nonzero=4, digits=5, adders=4, deepest_row=4)
    assert bill(tensors).zeros == pytest.approx(1 - 4 / 1552)


def test_bill_of_nothing_and_of_an_unknown_net() -> None:
    assert bill(head(0, 0)) == Bill(1552, 0, 0, 0, 0)
    with pytest.raises(UsageError, match="no layer belongs to 'exposer'"):
        layers_of("exposer")
