"""Units of the cores in cocotb on Icarus: equal to their line of microrisk.fixed, exact latency, any pattern."""

from __future__ import annotations

import numpy as np
import pytest

from sim import catalogue, vectors
from sim.runner import run

UNITS = (
    "requantise", "sum_squares", "max_abs", "dense exposure.1 relu", "dense exposure.1 linear",
    "dense vae.dec.2 linear", "whitening", "residual",
)  # fmt: skip
N = 1000


@pytest.fixture(scope="module")
def cases(weights):
    found = {case.name: case for case in catalogue.units(weights)}
    assert set(found) == set(UNITS)
    return found


@pytest.mark.parametrize("name", UNITS)
def test_unit(cases, name, exercised):
    case = cases[name]
    extra = [catalogue.rounding_corners(3)] if name == "requantise" else []
    codes = vectors.mixture(N, 3, case.inputs, extra=extra)
    expected = case.compute(codes)
    assert len(np.unique(expected)) > 50, "the reference hardly changes: these vectors prove nothing"
    design = case.design()
    result = run(design, "sim.tb_pipe", "everything", codes, expected, seed=3)
    assert result.passed, result.message
    assert result.differences == 0
    assert result.vectors >= N + 2 * 400
    exercised(f"rtl unit {name}: {N:,} vectors on Icarus, latency {design.latency}")
