"""Synthesis: our adder cells are proved equal to + and -, counts are read right, what does not fit is refused."""

# amaranth: UnusedElaboratable=no
from __future__ import annotations

import json
from pathlib import Path

import pytest

from hdl import pnr, synth
from hdl.unrolled import UnrolledCore
from hdl.verilog import to_rtlil
from hdl.yosys import run_passes
from microrisk.errors import UsageError
from microrisk.score.registry import load_model

CASES = [("+", 3, 3, 3), ("+", 8, 5, 9), ("-", 7, 7, 8), ("-", 4, 9, 10), ("+", 12, 12, 12)]


def _adder(op: str, a: int, b: int, y: int, signed: str) -> str:
    return (
        f"module adder(input {signed} [{a - 1}:0] a, input {signed} [{b - 1}:0] b, output {signed} [{y - 1}:0] y);"
        f" assign y = a {op} b; endmodule\n"
    )


@pytest.mark.parametrize("signed", ["", "signed"])
@pytest.mark.parametrize(("op", "a", "b", "y"), CASES)
def test_adder_cells_are_proved_equal(op: str, a: int, b: int, y: int, signed: str, tmp_path: Path) -> None:
    """By SAT over all inputs, for any carry into the first cell: it may be left open."""
    source, opened = tmp_path / "adder.v", tmp_path / "opened.v"
    source.write_text(_adder(op, a, b, y, signed))
    opened.write_text(synth.ADDERS.read_text().replace("assign carry[0] = 1'b0;", "assign carry[0] = A[0];"))
    run_passes(
        source,
        [
            "read_verilog -overwrite +/ecp5/cells_sim.v", "proc", "copy adder gold", "rename adder gate",
            f"techmap -map {opened} gate", "select -assert-none gate/t:$add gate/t:$sub",
            "hierarchy", "proc", "flatten -wb gate",
            "miter -equiv -make_outputs -flatten gold gate miter", "sat -verify -prove trigger 0 miter",
        ],
    )  # fmt: skip


def test_idle_carry_ports_are_left_open(tmp_path: Path) -> None:
    source, out = tmp_path / "adder.v", tmp_path / "adder.json"
    source.write_text(_adder("+", 8, 8, 9, ""))
    counts = synth.synthesise_ecp5(source, "adder", out)
    cells = [c for c in json.loads(out.read_text())["modules"]["adder"]["cells"].values() if c["type"] == "CCU2C"]
    assert counts.ccu2c == len(cells) == 5
    assert [c["connections"]["CIN"] for c in cells].count(["x"]) == 1
    assert [c["connections"]["COUT"] for c in cells].count(["x"]) == 1


def test_a_design_beyond_the_device_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synth, "DEVICE_COMB", 5)
    source = tmp_path / "adder.v"
    source.write_text(_adder("+", 8, 8, 9, ""))
    with pytest.raises(UsageError, match=r"adder needs 1\d look-up tables, LFE5UM5G-85F has 5"):
        synth.synthesise_ecp5(source, "adder", tmp_path / "out.json")


def test_the_maxz_core_is_placed_and_routed() -> None:
    """Small enough for every commit: figures are there, the same text is not routed again."""
    core = UnrolledCore(load_model("default"), ("maxz",), period_ns=3.0)
    text = to_rtlil(core, "core")
    report = pnr.place_and_route(text, "core", latency=core.latency, mhz=400.0, seeds=(1,))
    assert report["latency_ns"] == pytest.approx(1e3 * core.latency / report["median_mhz"], abs=0.01)
    assert report["latency_ns"] < 30
    assert report["dsp"] == report["bram"] == 0
    assert 900 < report["comb"] < 1500
    again = pnr.place_and_route(text, "core", latency=core.latency, mhz=400.0, seeds=(1,))
    assert again["seeds"] == report["seeds"]


def test_an_unknown_file_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert pnr.main(["nowhere.il"]) == 2
    assert "nowhere.il" in capsys.readouterr().err
    assert pnr.main([]) == 2
    assert "name a design file" in capsys.readouterr().err
