"""The core written with blocks of ECP5 does what its plain text does: pins, registers and copies are wired right.

The blocks are modelled below from Lattice's notes (TN1264 memory, TN1267 multipliers), with the settings that the core
uses and no others: an unexpected parameter stops the simulation.
"""

# amaranth: UnusedElaboratable=no
from __future__ import annotations

import pytest

from hdl.reloadable.block_memory import BlockMemory
from hdl.reloadable.core import ReloadableCore
from hdl.reloadable.multiply import Multiply
from hdl.verilog import to_rtlil, to_verilog
from microrisk.model.synthetic import random_weights
from microrisk.spec.features import ALL_MASK, mask
from sim import catalogue, vectors
from sim.design import TOP, Design
from sim.models import extreme
from sim.runner import run

COUNT, SEED = 200, 11
MODELS_OF_BLOCKS = """
module TRELLIS_FF (input CLK, LSR, DI, output reg Q);
  parameter GSR = "", CEMUX = "", CLKMUX = "", LSRMUX = "", REGSET = "";
  initial if (CEMUX != "1" || CLKMUX != "CLK" || REGSET != "RESET") begin $display("unknown register"); $finish; end
  initial Q = 0;
  always @(posedge CLK) Q <= DI;
endmodule

module MULT18X18D (input SIGNEDA, SIGNEDB, CLK0, CE0, RST0, {inputs}, output {outputs});
  parameter REG_INPUTA_CLK = "NONE", REG_INPUTB_CLK = "NONE", REG_PIPELINE_CLK = "NONE", REG_OUTPUT_CLK = "NONE";
  initial if (REG_INPUTA_CLK != "CLK0" || REG_INPUTB_CLK != "CLK0" || REG_PIPELINE_CLK != "CLK0"
              || REG_OUTPUT_CLK != "CLK0") begin $display("unknown multiplier"); $finish; end
  reg signed [17:0] a, b;
  reg signed [35:0] middle, p;
  always @(posedge CLK0) if (CE0 && SIGNEDA && SIGNEDB && !RST0) begin
    a <= {{{a}}};
    b <= {{{b}}};
    middle <= a * b;
    p <= middle;
  end
  assign {{{p}}} = p;
endmodule

module DP16KD (input CLKA, CLKB, WEA, WEB, CEA, CEB, OCEA, OCEB, RSTA, RSTB, CSA0, CSA1, CSA2, CSB0, CSB1, CSB2,
               {pins}, output {reads});
  parameter DATA_WIDTH_A = 0, DATA_WIDTH_B = 0, GSR = "", REGMODE_A = "NOREG", REGMODE_B = "NOREG", RESETMODE = "";
  parameter CSDECODE_A = "", CSDECODE_B = "";
  initial if (DATA_WIDTH_A != 36 || DATA_WIDTH_B != 36 || REGMODE_A != "OUTREG" || REGMODE_B != "OUTREG") begin
    $display("unknown memory"); $finish; end
  reg [35:0] words [0:511];
  reg [35:0] found, out;
  integer k;
  initial for (k = 0; k < 512; k = k + 1) words[k] = 0;
  wire [13:0] ada = {{{ada}}}, adb = {{{adb}}};
  wire [35:0] di = {{{di}}};
  always @(posedge CLKA) if (CEA && WEA) begin
    if (ada[0]) words[ada[13:5]][8:0] <= di[8:0];
    if (ada[1]) words[ada[13:5]][17:9] <= di[17:9];
    if (ada[2]) words[ada[13:5]][26:18] <= di[26:18];
    if (ada[3]) words[ada[13:5]][35:27] <= di[35:27];
  end
  always @(posedge CLKB) if (CEB && !WEB) found <= words[adb[13:5]];
  always @(posedge CLKB) if (OCEA && OCEB) out <= found;
  assign {{{do}}} = out;
endmodule
"""


def pins(name: str, count: int) -> list[str]:
    """Names of a bus' pins, the highest first."""
    return [f"{name}{k}" for k in reversed(range(count))]


def blocks() -> str:
    """Models of the three cells."""
    a, b, p = pins("A", 18), pins("B", 18), pins("P", 36)
    di, out = pins("DIB", 18) + pins("DIA", 18), pins("DOB", 18) + pins("DOA", 18)
    ada, adb = pins("ADA", 14), pins("ADB", 14)
    lists = {
        "inputs": a + b, "outputs": p, "a": a, "b": b, "p": p, "pins": ada + adb + di, "reads": out, "ada": ada,
        "adb": adb, "di": di, "do": out,
    }  # fmt: skip
    return MODELS_OF_BLOCKS.format(**{k: ", ".join(v) for k, v in lists.items()})


def test_blocks_of_the_device_equal_the_plain_text(weights, tmp_path):
    heads = ("exposure",)
    models = [(weights, ALL_MASK), (random_weights(5), mask("l1", "trades")), (extreme(6), ALL_MASK)]
    core = ReloadableCore(heads, ecp5=True)
    design = Design("blocks", tmp_path, core.latency, {"interval": core.interval})
    design.verilog().write_text(to_verilog(to_rtlil(core, TOP)) + blocks())
    codes = vectors.for_core(weights, heads, COUNT, SEED, market=vectors.market(weights, COUNT // 4, SEED))
    options = {"loads": catalogue.set_writes(models, heads)}
    rows = catalogue.set_rows(models, heads, codes)
    result = run(
        design, "sim.tb_reloadable", "full_rate", codes, rows, simulator_name="verilator", limit=3000, options=options
    )
    assert result.passed, result.message
    assert (result.vectors, result.differences) == (COUNT, 0)


def test_blocks_have_an_end() -> None:
    with pytest.raises(ValueError, match="operands of 19 and 8 bits, a multiplier takes 18"):
        Multiply(19, 8)
    with pytest.raises(ValueError, match="1024 words of 32 bits, a block holds 512 of 36"):
        BlockMemory(32, 1024)
