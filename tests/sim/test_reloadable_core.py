"""The reloadable core in cocotb: three models at once, 500 events on Icarus, 10,000 on Verilator, reloads."""

from __future__ import annotations

import numpy as np
import pytest

from microrisk.model.synthetic import random_weights
from microrisk.spec.features import ALL_MASK
from microrisk.spec.weightfile import HEADS
from sim import catalogue, vectors
from sim.models import extreme
from sim.runner import run, run_split

SEED = 20_262
L2_MASK = 0x3FF8_3FFF
LIMIT = 3000


@pytest.fixture(scope="module")
def models(weights):
    return [(weights, ALL_MASK), (random_weights(3), L2_MASK), (extreme(4), ALL_MASK)]


def rows_for(weights, heads, n):
    return vectors.for_core(weights, heads, n, SEED, market=vectors.market(weights, n // 4, SEED))


def drive(models, heads, test, n, *, fresh=(), runs=run, **more):
    """Run one test; `fresh` are (set, model) that are loaded in turn while it streams."""
    design = catalogue.reloadable(heads)
    codes = rows_for(models[0][0], heads, n)
    phases, now = [catalogue.set_rows(models, heads, codes)], list(models)
    writes = []
    for which, model in fresh:
        now[which] = model
        phases.append(catalogue.set_rows(now, heads, codes))
        writes.append(catalogue.set_writes(now, heads)[which])
    options = {
        "loads": catalogue.set_writes(models, heads),
        "fresh": writes,
        "edges": catalogue.bus_edges(heads),
    }
    return design, runs(
        design,
        "sim.tb_reloadable",
        test,
        codes,
        np.concatenate(phases),
        seed=SEED,
        limit=LIMIT,
        options=options,
        **more,
    )


@pytest.mark.parametrize("heads", [("exposure",), HEADS], ids=["exposure", "all"])
def test_five_hundred_on_icarus(models, heads, exercised):
    design, result = drive(models, heads, "full_rate", 500, form="fast", runs=run_split)
    assert result.passed, result.message
    assert (result.vectors, result.differences) == (500, 0)
    figures = f"latency {design.latency}, interval {design.facts['interval']} cycles, three sets each"
    exercised(f"rtl reloadable {'+'.join(heads)}: 500 vectors on Icarus, {figures}")


def test_ten_thousand_on_verilator(models, exercised):
    _, result = drive(models, ("exposure",), "full_rate", 10_000, simulator_name="verilator")
    assert result.passed, result.message
    assert (result.vectors, result.differences) == (10_000, 0)
    exercised(f"rtl reloadable exposure: 10,000 vectors on Verilator, {result.vectors / result.seconds:,.0f} vectors/s")


def test_patterns_on_verilator(models):
    _, result = drive(models, ("exposure",), "patterns", 400, simulator_name="verilator")
    assert result.passed, result.message


def test_reset_in_mid_stream(models):
    _, result = drive(models, ("exposure",), "reset_in_mid_stream", 30)
    assert result.passed, result.message


def test_reload_while_streaming(models, exercised):
    bound = random_weights(10, at_bound=True)
    fresh = [(1, (random_weights(9), ALL_MASK)), (0, (bound, L2_MASK)), (2, (models[0][0], L2_MASK))]
    _, result = drive(models, ("exposure",), "reload_while_streaming", 200, fresh=fresh, simulator_name="verilator")
    assert result.passed, result.message
    assert result.extra["results"] == 200
    assert len(result.extra["switches"]) == 3
    assert result.extra["switches"] == sorted(result.extra["switches"])
    assert result.extra["switches"][0] > 0
    exercised(
        f"rtl reloadable: 3 sets replaced while 200 events streamed, at events {result.extra['switches']}, 0 lost"
    )


def test_wrong_writes_are_flagged_and_change_nothing(models):
    _, result = drive(models, ("exposure",), "refused_writes", 5)
    assert result.passed, result.message


def test_back_pressure_is_reported(models):
    _, result = drive(models, ("exposure",), "back_pressure", 12)
    assert result.passed, result.message
    assert result.extra["stalled"] == f"stream: nothing moved for {LIMIT} cycles"
    assert 1 <= result.extra["inside"] <= 3
    assert result.vectors == 12


def test_a_wrong_word_of_one_set_is_seen(models):
    """One bit of one weight of one set."""
    heads = ("exposure",)
    design, codes = catalogue.reloadable(heads), rows_for(models[0][0], heads, 60)
    loads = catalogue.set_writes(models, heads)
    address, word = loads[0][2]
    loads[0][2] = (address, word ^ 0x40)
    expected = catalogue.set_rows(models, heads, codes)
    result = run(design, "sim.tb_reloadable", "full_rate", codes, expected, options={"loads": loads}, limit=LIMIT)
    assert not result.passed
    assert result.differences > 0
    assert result.first[0] == 0
