# amaranth: UnusedElaboratable=no
"""The board's top: its pins and clock, the order of its heads, and what the command refuses before it routes."""

from __future__ import annotations

import pytest

from hdl import board
from hdl.board import CLOCK_HZ, LineScorer, main, prepare
from hdl.credit import payload_shape
from microrisk.errors import UsageError
from microrisk.model.synthetic import random_weights
from microrisk.spec.features import ALL_MASK

TIMING = """
Info: Device utilisation:
Info:             TRELLIS_FF:  1645/83640     1%
Info:           TRELLIS_COMB: 13728/83640    16%
Info:                 DP16KD:     1/  208     0%
Info:             MULT18X18D:     0/  156     0%
Info: Max frequency for clock '$glbnet$clk12_0__io$TRELLIS_IO_IN': {first} MHz (PASS at 12.00 MHz)
Info: Max frequency for clock '$glbnet$clk12_0__io$TRELLIS_IO_IN': {last} MHz (PASS at 12.00 MHz)
"""


@pytest.fixture(scope="module")
def weights():
    return random_weights(11)


def test_pins_and_clock(weights):
    files = prepare(weights, ("maxz",), ALL_MASK).files
    constraints = files["top.lpf"]
    constraints = constraints if isinstance(constraints, str) else constraints.decode()
    for port, site in (("clk12_0__io", "A10"), ("uart_0__rx__io", "P2"), ("uart_0__tx__io", "P3"), ("rst_0__io", "G2")):
        assert f'LOCATE COMP "{port}" SITE "{site}";' in constraints
    assert f'FREQUENCY PORT "clk12_0__io" {CLOCK_HZ / 1.0} HZ;' in constraints
    assert sum(f'COMP "led_{k}__io"' in constraints for k in range(8)) == 3


def test_heads_come_in_the_order_in_which_the_host_reads_them(weights, monkeypatch):
    made = []
    monkeypatch.setattr(board, "Link", lambda core, heads, *rest: made.append((core, heads)))
    LineScorer(weights, ("exposure", "maxz"))
    ((core, heads),) = made
    assert list(payload_shape(core.o).members) == list(heads) == ["maxz", "exposure"]


def test_a_line_whose_bits_are_too_short(weights):
    with pytest.raises(UsageError, match="3 clock cycles a bit: at least 4"):
        LineScorer(weights, ("maxz",), divisor=3)


def test_report_of_a_routed_board(weights, tmp_path):
    (tmp_path / "top.bit").write_bytes(bytes(1000))
    (tmp_path / "top.tim").write_text(TIMING.format(first="80.00", last="91.04"))
    found = board._report(weights, ("exposure", "maxz"), tmp_path)
    assert (found["reached_mhz"], found["comb"], found["ff"], found["bram"], found["dsp"]) == (91.04, 13728, 1645, 1, 0)
    assert (found["heads"], found["bitstream_bytes"]) == (["maxz", "exposure"], 1000)
    (tmp_path / "top.tim").write_text(TIMING.format(first="80.00", last="11.90"))
    with pytest.raises(UsageError, match=r"reaches 11\.9 MHz, the board's clock is 12 MHz"):
        board._report(weights, ("exposure",), tmp_path)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["sparse", "--heads", "encoder"], "a board carries some of maxz, maha, vae, exposure"),
        (["sparse", "--heads", "maxz,maxz"], "each once, not maxz, maxz"),
        (["sparse", "--heads", "maxz", "--mask", "0x100000000"], "feature mask 0x100000000 does not fit"),
        (["no-such-model"], "no-such-model"),
    ],
)
def test_what_the_command_refuses(arguments, told, tmp_path, capsys):
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_program_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(board.PROGRAMS, "ECPPACK", "no-such-program")
    assert main(["sparse", "--heads", "maxz", "--out", str(tmp_path / "out")]) == 2
    assert "the board needs no-such-program: pip install 'microrisk[hdl]'" in capsys.readouterr().err


def test_a_flow_that_fails_says_what_its_tool_said(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(board, "_program", lambda name: "false")
    assert main(["sparse", "--heads", "maxz", "--out", str(tmp_path / "out")]) == 2
    assert "the flow ended with" in capsys.readouterr().err
