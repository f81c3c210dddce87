"""The runner ends everything that goes wrong with a sentence: missing tools, hanging or crashing simulations."""

from __future__ import annotations

import numpy as np
import pytest

from microrisk.errors import BackendUnavailable, UsageError
from sim import catalogue, tools, vectors
from sim.design import Design, ToolFailed, yosys
from sim.runner import run


@pytest.fixture(scope="module")
def maxz(weights):
    case = catalogue.core(weights, ("maxz",))
    codes = vectors.mixture(200, 1)
    return case.design(), codes, case.compute(codes)


@pytest.mark.parametrize(
    ("name", "remedy"), [("icarus", "apt-get install iverilog"), ("verilator", "apt-get install g")]
)
def test_missing_simulator(maxz, monkeypatch, tmp_path, name, remedy):
    monkeypatch.setenv("PATH", str(tmp_path))
    tools.simulator.cache_clear()
    try:
        with pytest.raises(BackendUnavailable, match=remedy):
            run(maxz[0], "sim.tb_pipe", "gaps", *maxz[1:], simulator_name=name)
    finally:
        tools.simulator.cache_clear()


def test_unknown_simulator(maxz):
    with pytest.raises(UsageError, match="no simulator 'modelsim'; there are icarus, verilator"):
        run(maxz[0], "sim.tb_pipe", "gaps", *maxz[1:], simulator_name="modelsim")


def test_limit_on_the_whole_run(maxz):
    with pytest.raises(ToolFailed, match=r"gaps on icarus did not end within 0\.2 s"):
        run(maxz[0], "sim.tb_pipe", "gaps", *maxz[1:], limit_s=0.2)


def test_unknown_bench(maxz):
    with pytest.raises(ToolFailed, match=r"no test|left no results|ended before"):
        run(maxz[0], "sim.tb_pipe", "sideways", *maxz[1:])


def test_bench_for_another_component(maxz):
    """A pipe has no `ready`: the bench says so and ends."""
    with pytest.raises(ToolFailed, match="o__ready"):
        run(maxz[0], "sim.tb_stream", "patterns", *maxz[1:])


def test_text_that_no_simulator_reads(tmp_path, maxz):
    (tmp_path / "dut.v").write_text("module dut(clk); input clk; nonsense\n")
    with pytest.raises(ToolFailed, match=r"cannot build|syntax"):
        run(Design("x", tmp_path, 1), "sim.tb_pipe", "gaps", *maxz[1:])


def test_yosys_says_what_went_wrong(tmp_path):
    with pytest.raises(ToolFailed, match=r"open|not found"):
        yosys([f"read_rtlil {tmp_path / 'absent.il'}"])


def test_same_seed_same_run(maxz):
    first, second, other = (run(maxz[0], "sim.tb_pipe", "gaps", *maxz[1:], seed=s).cycles for s in (5, 5, 6))
    assert first == second != other


def test_waves(maxz, tmp_path):
    for name, suffix in (("icarus", "fst"), ("verilator", "vcd")):
        file = tmp_path / f"trace.{suffix}"
        result = run(maxz[0], "sim.tb_pipe", "gaps", *maxz[1:], simulator_name=name, waves=file)
        assert result.passed
        assert file.stat().st_size > 1000
    assert np.any([b"o__payload" in line for line in file.read_bytes().splitlines()])
