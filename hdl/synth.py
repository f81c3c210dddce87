"""Synthesis with pyosys: RTLIL text to an ECP5 netlist with its counts; UltraScale+ counts as an estimate.

Adders are mapped by `ecp5_adders.v` before Yosys' own flow, and carry ports that go nowhere are taken off afterwards:
nextpnr would put cells in front of and behind every chain for them. The same is done to every design that is measured,
rivals included.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hdl.yosys import run_passes
from microrisk.errors import UsageError

ADDERS = Path(__file__).with_name("ecp5_adders.v")
FIRST_HALF = (0x0008, 0x000B)
"""INIT0 of the first cell of a chain of `ecp5_adders.v`: its carry does not depend on CIN."""
DEVICE_COMB = 83_640
"""Look-up tables of LFE5UM5G-85F."""
XILINX_NOTE = "Yosys synthesis estimate, no timing"
_BEFORE = (
    "read_verilog -lib -specify +/ecp5/cells_sim.v +/ecp5/cells_bb.v", "hierarchy -check -top {top}", "proc", "flatten",
    "opt_expr", "opt_clean", "opt", "wreduce", "peepopt", "opt_clean", "opt", "techmap -map {adders}", "opt_clean",
)  # fmt: skip


@dataclass(frozen=True)
class Counts:
    """Cells after synthesis, before packing."""

    lut4: int
    ccu2c: int
    ff: int
    dsp: int
    bram: int

    @property
    def comb(self) -> int:
        """TRELLIS_COMB that these will take at least: a CCU2C is two."""
        return self.lut4 + 2 * self.ccu2c

    def to_json(self) -> dict[str, int]:
        """Plain numbers, `comb` too."""
        return {**asdict(self), "comb": self.comb}


def synthesise_ecp5(source: Path, top: str, out: Path, *, adders: bool = True) -> Counts:
    """Netlist `out` (JSON for nextpnr) of an RTLIL (.il) or Verilog file, and its counts.

    adders : map with ecp5_adders.v and take off idle carry ports; False = Yosys' stock flow

    Raises UsageError when the design cannot fit the device.
    """
    before = [c.format(top=top, adders=ADDERS) for c in _BEFORE] if adders else []
    run_passes(source, [*before, f"synth_ecp5 -top {top} -json {out}"])
    netlist = json.loads(out.read_text())
    module = netlist["modules"][top]
    if adders:
        take_off_idle_carries(module)
        out.write_text(json.dumps(netlist))
    counts = count(module)
    if counts.comb > DEVICE_COMB:
        raise UsageError(
            f"{top} needs {counts.comb:,} look-up tables, LFE5UM5G-85F has {DEVICE_COMB:,}: it does not fit"
        )
    return counts


def take_off_idle_carries(module: dict[str, Any]) -> tuple[int, int]:
    """Leave CIN open where the cell does not look at it, and COUT where nobody does; returns how many of each."""
    readers = Counter(bit for port in module["ports"].values() for bit in port["bits"])
    readers.update(b for cell in module["cells"].values() for bits in cell["connections"].values() for b in bits)
    entered = left = 0
    for cell in module["cells"].values():
        if cell["type"] != "CCU2C":
            continue
        ports = cell["connections"]
        if ports.get("CIN") == ["0"] and int(cell["parameters"]["INIT0"], 2) in FIRST_HALF:
            ports["CIN"], entered = ["x"], entered + 1
        if "COUT" in ports and readers[ports["COUT"][0]] == 1:
            ports["COUT"], left = ["x"], left + 1
    return entered, left


def count(module: dict[str, Any]) -> Counts:
    """Cells of a netlist."""
    kinds = Counter(cell["type"] for cell in module["cells"].values())
    return Counts(
        kinds["LUT4"], kinds["CCU2C"], kinds["TRELLIS_FF"], kinds["MULT18X18D"] + kinds["ALU54B"], kinds["DP16KD"]
    )


def estimate_ultrascale(source: Path, top: str) -> dict[str, Any]:
    """Primitive counts of synth_xilinx for UltraScale+; no placement, no timing."""
    out = source.with_suffix(".xcup.json")
    run_passes(source, [f"synth_xilinx -family xcup -flatten -noiopad -top {top}", f"write_json {out}"])
    kinds = Counter(cell["type"] for cell in json.loads(out.read_text())["modules"][top]["cells"].values())
    luts = sum(n for kind, n in kinds.items() if kind.startswith("LUT"))
    ff = sum(n for kind, n in kinds.items() if kind.startswith("FD"))
    return {"note": XILINX_NOTE, "lut": luts, "ff": ff, "carry": kinds["CARRY4"] + kinds["CARRY8"],
            "dsp48e2": kinds["DSP48E2"], "srl": sum(n for k, n in kinds.items() if k.startswith("SRL"))}  # fmt: skip
