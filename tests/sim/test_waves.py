"""The picture of a transaction says what the simulation did."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from sim import vectors, waves
from sim.design import ToolFailed
from sim.scoreboard import pack


@pytest.fixture(scope="module")
def made(weights, tmp_path_factory):
    return waves.draw(weights, "maxz", 6, tmp_path_factory.mktemp("waves"))


def test_picture_is_svg_with_every_signal(made):
    root = ElementTree.parse(made[1]).getroot()
    texts = [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]
    assert set(waves.SIGNALS) <= set(texts)
    assert "row 6 taken" in texts
    assert "result loaded" in texts


def test_trace_holds_row_and_result_where_the_picture_says(made, weights):
    codes = vectors.small(waves.ROWS, 3)
    traces = waves.read_vcd(made[0])
    start, cycles, notes = waves.transaction(traces, latency := _latency(weights), 6)
    period = waves.PERIOD_NS * 1000
    taken = start + period + period // 2
    assert traces["i__payload"].at(taken - 1) == pack(codes)[6]
    assert traces["i__valid"].at(taken - 1) == 1
    result = int(np.abs(codes[6].astype(int)).max())
    shown = start + (1 + latency) * period + period // 2 + 1
    assert traces["o__payload"].at(shown) == result
    assert traces["o__valid"].at(shown) == 1
    assert cycles >= latency + 5
    assert list(notes) == [1, 1 + latency]
    drawn = made[1].read_text()
    assert f">{result:08x}<" in drawn or f"…{result:08x}"[-4:] in drawn


def _latency(weights):
    from sim import catalogue

    return catalogue.core(weights, ("maxz",)).design().latency


def test_a_trace_without_the_signals_is_refused(tmp_path):
    (tmp_path / "empty.vcd").write_text("$timescale 1ns $end\n$var wire 1 a clk $end\n#0\n0a\n")
    with pytest.raises(ToolFailed, match="no signal rst, i__valid"):
        waves.read_vcd(tmp_path / "empty.vcd")


def test_undefined_bits_and_time_scales(tmp_path):
    (tmp_path / "some.vcd").write_text("$timescale 1ns $end\n$var wire 4 a clk $end\n#2\nbx01 a\n#3\nb101 a\n")
    trace = waves.read_vcd(tmp_path / "some.vcd", ("clk",))["clk"]
    assert (trace.at(1999), trace.at(2000), trace.at(3000)) == (None, None, 5)
    assert trace.times == [2000, 3000]
