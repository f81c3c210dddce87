"""Dataflow graphs: every operation over its whole range, widths that are as narrow as the numbers allow."""

from __future__ import annotations

import numpy as np
import pytest

from hdl.graph import Graph, Term, balanced
from hdl.layers import add_terms, square

BYTE = np.arange(-128, 128)


def _of_two(build, a: np.ndarray = BYTE, b: np.ndarray = BYTE) -> np.ndarray:
    """Result of a graph of two inputs over all pairs."""
    g = Graph()
    x, y = g.input(0, int(a.min()), int(a.max())), g.input(1, int(b.min()), int(b.max()))
    g.outputs["out"] = build(g, x, y)
    left, right = (v.ravel() for v in np.meshgrid(a, b, indexing="ij"))
    return g.evaluate([left, right])["out"].reshape(len(a), len(b))


@pytest.mark.parametrize(("shift", "sign"), [(0, 1), (0, -1), (3, 1), (3, -1)])
def test_add(shift: int, sign: int) -> None:
    got = _of_two(lambda g, x, y: g.add(x, y, shift, sign))
    assert np.array_equal(got, BYTE[:, None] + sign * (BYTE[None, :] << shift))


def test_rsub_max_and_gate() -> None:
    assert np.array_equal(_of_two(lambda g, x, y: g.rsub(x, y, 2)), (BYTE[None, :] << 2) - BYTE[:, None])
    assert np.array_equal(_of_two(lambda g, x, y: g.max(x, y)), np.maximum(BYTE[:, None], BYTE[None, :]))
    gated = _of_two(lambda g, x, y: g.gate(x, y, 3))
    assert np.array_equal(gated, np.where(BYTE[None, :] >> 3 & 1, BYTE[:, None], 0))


def test_squares_of_every_code_and_residual() -> None:
    for low, high in ((-128, 127), (-255, 255), (0, 127), (0, 15), (-8, 7)):
        g = Graph()
        g.outputs["square"] = square(g, g.input(0, low, high))
        x = np.arange(low, high + 1)
        assert np.array_equal(g.evaluate([x])["square"], x * x)


def test_bits_and_join_are_inverse() -> None:
    g = Graph()
    x = g.input(0, -128, 127)
    low, high = g.bits(x, 0, 3, signed=False), g.bits(x, 3, 8, signed=True)
    g.outputs["again"] = g.join(low, high, 3)
    assert np.array_equal(g.evaluate([BYTE])["again"], BYTE)
    assert g.adders() == 0
    with pytest.raises(ValueError, match=r"reaches -128\.\.127, 3 bits hold 0\.\.7"):
        g.join(x, high, 3)


def test_width_is_that_of_the_interval() -> None:
    g = Graph()
    x = g.input(0, -128, 127)
    for node, width in ((x, 8), (g.abs(x), 8), (g.const(0), 0), (g.const(-1), 1), (g.const(5), 3), (g.add(x, x), 9)):
        assert g.nodes[node].width == width


def test_a_value_outside_its_interval_is_an_error() -> None:
    g = Graph()
    g.outputs["x"] = g.input(0, 0, 10)
    with pytest.raises(ValueError, match=r"input.*0\.\.11 outside 0\.\.10"):
        g.evaluate([np.array([0, 11])])


def test_equal_operations_are_made_once_and_dead_ones_not_at_all() -> None:
    g = Graph()
    x, y = g.input(0, 0, 7), g.input(1, 0, 7)
    assert g.add(x, y) == g.add(x, y)
    g.add(x, y, 1)
    g.outputs["sum"] = balanced([x, y], g.add)
    assert g.adders() == 1


def test_sum_of_shifted_terms() -> None:
    got = _of_two(lambda g, x, y: add_terms(g, [Term(x, 4), Term(y, 9), Term(x, 0)]))
    assert np.array_equal(got, (BYTE[:, None] << 4) + (BYTE[None, :] << 9) + BYTE[:, None])
