"""Units of the cores in cocotb on Icarus: equal to their line of microrisk.fixed, exact latency, any pattern."""

from __future__ import annotations

import numpy as np
import pytest

from microrisk.spec.formats import ACC, CODE, SHIFT_MAX
from sim import catalogue, vectors
from sim.runner import run

UNITS = (
    "requantise", "sum_squares", "max_abs", "dense exposure.1 relu", "dense exposure.1 linear",
    "dense vae.dec.2 linear", "whitening", "residual",
)  # fmt: skip
N = 2000


def rounding_corners(seed):
    """Accumulators next to every half step, and next to both ends of CODE, for every shift."""
    rng = np.random.default_rng(seed)
    found = [np.array([ACC.low, ACC.high, 0, -1, 1])]
    for shift in range(SHIFT_MAX + 1):
        half = 1 << shift - 1 if shift else 0
        steps = np.concatenate(
            [rng.integers(CODE.low - 3, CODE.high + 4, 6), [CODE.low, CODE.high, CODE.low - 1, CODE.high + 1]]
        )
        found += [(steps << shift) + half + d for d in (-1, 0, 1)]
    accumulators = np.concatenate(found)
    return catalogue.codes_of(accumulators[(accumulators >= ACC.low) & (accumulators <= ACC.high)])


@pytest.fixture(scope="module")
def cases(weights):
    found = {case.name: case for case in catalogue.units(weights)}
    assert set(found) == set(UNITS)
    return found


@pytest.mark.parametrize("name", UNITS)
def test_unit(cases, name, exercised):
    case = cases[name]
    extra = [rounding_corners(3)] if name == "requantise" else []
    codes = vectors.mixture(N, 3, case.inputs, extra=extra)
    expected = case.compute(codes)
    assert len(np.unique(expected)) > 50, "the reference hardly changes: these vectors prove nothing"
    design = case.design()
    for test in ("back_to_back", "gaps", "reset_in_mid_stream"):
        part = slice(None) if test == "back_to_back" else slice(400)
        result = run(design, "sim.tb_pipe", test, codes[part], expected[part], seed=3)
        assert result.passed, result.message
        assert result.differences == 0
        assert result.vectors >= len(codes[part])
    exercised(f"rtl unit {name}: {N:,} vectors on Icarus, latency {design.latency}")
