"""da4ml on the same trained exposure head, through the same synthesis and place and route.

DA4ML_PYTHON=.../bin/python python -m benchmarks.rivals_rtl [--model sparse]

da4ml 0.6 (LGPL) lives in an environment of its own and pipelines the head itself. Settings: latency cutoff, carry size,
the solver's bound on depth (`hard_dc`; -1, its default, is none), and the clip: its own saturation, or one written with
its bit operations. Predictions and the Verilog in Icarus are compared with Weights.exposure first. All settings are
synthesised; for each cutoff the one with the fewest periods, then look-up tables, is routed with one seed, the fastest
of cutoffs 1 to 4 and of all with three; Yosys' stock adders are tried on those as well. Latency is counted as ours:
periods between the edge that loads the input register and the edge that loads the output register. Writes
hdl/reports/da4ml.json.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hdl.pnr import REPORTS, ROOT, place_and_route
from hdl.synth import synthesise_ecp5
from hdl.verilog import load
from microrisk.errors import UsageError
from microrisk.model.synthetic import extreme_codes, random_codes
from microrisk.weights import Weights

CUTOFFS = (1, 2, 3, 4)
LONGER = (5, 6, 8)
"""Beyond what is usual for da4ml, because our stages are long; reported apart."""
CARRY_SIZES = (-1, 8, 16)
DEPTHS = (-1, 0, 1)
"""`hard_dc` of its solver: adder levels above the least that a constant matrix may take; -1 = any number."""
CLIPS = ("library", "bits")
VECTORS, SIMULATED = 10_000, 300
WORK = ROOT / "build" / "da4ml"


def job_of(weights: Weights) -> list[dict[str, Any]]:
    """The layers as numbers, the rounding term in the bias as in our core."""
    layers = []
    for name in ("exposure.0", "exposure.1", "exposure.2"):
        weight, bias, shift = (t.astype(np.int64) for t in weights.layer(name))
        activation = "acc" if name.endswith("2") else "relu"
        half = np.where((shift > 0) & (activation != "acc"), 1 << np.maximum(shift - 1, 0), 0)
        numbers = {"weight": weight, "bias": bias + half, "shift": shift}
        layers.append({"activation": activation, **{k: v.tolist() for k, v in numbers.items()}})
    return layers


@dataclass(frozen=True)
class Setting:
    """What da4ml is asked for."""

    cutoff: int
    carry_size: int
    hard_dc: int
    clip: str

    def __str__(self) -> str:
        return f"cutoff{self.cutoff}-carry{self.carry_size}-depth{self.hard_dc}-{self.clip}"


def settings() -> list[Setting]:
    """Every carry size with the solver's defaults; every depth and clip with carries of any length."""
    rest = [(c, -1, "library") for c in CARRY_SIZES]
    rest += [(-1, d, clip) for clip in CLIPS for d in DEPTHS if (d, clip) != (-1, "library")]
    return [Setting(cutoff, *r) for cutoff in (*CUTOFFS, *LONGER) for r in rest]


def generated(weights: Weights, setting: Setting) -> dict[str, Any]:
    """Verilog of one setting, its predictions checked: {"text", "stages"}."""
    python = os.environ.get("DA4ML_PYTHON")
    if not python:
        raise UsageError(
            "DA4ML_PYTHON must name a Python with da4ml: python3 -m venv V && V/bin/pip install da4ml==0.6.0"
        )
    out = WORK / str(setting)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    codes = np.concatenate([extreme_codes(), random_codes(VECTORS, 1)])
    job = asdict(setting) | {"layers": job_of(weights), "solver": {"hard_dc": setting.hard_dc}}
    (out / "job.json").write_text(json.dumps({**job, "codes": codes.tolist(), "out": str(out)}))
    worker = Path(__file__).with_name("da4ml_worker.py")
    subprocess.run([python, str(worker), str(out / "job.json")], check=True, stdout=subprocess.DEVNULL)
    facts = json.loads((out / "facts.json").read_text())
    assert np.array_equal(facts["predicted"], weights.exposure(codes)), f"da4ml predicts something else: {setting}"
    sources = sorted(p for p in out.glob("src/**/*.v") if p.name not in ("lookup_table.v", "rival_wrapper.v"))
    text = "\n".join(p.read_text() for p in sources)
    bits = np.array(facts["input_bits"])
    assert set(bits.tolist()) <= {0, 8}, f"inputs of {sorted(set(bits.tolist()))} bits"  # 0: no weight of it is left
    simulate(out, text, codes[:SIMULATED, bits > 0], weights.exposure(codes[:SIMULATED]), facts["stages"])
    return {"text": text, "stages": facts["stages"]}


def simulate(out: Path, text: str, codes: np.ndarray, expected: np.ndarray, stages: int) -> None:
    """The Verilog in Icarus, a vector a cycle; results and latency must be as promised."""
    rows = "\n".join(row.tobytes()[::-1].hex() for row in codes)
    (out / "codes.hex").write_text(rows)
    width, top = int(text.split("output reg [")[1].split(":")[0]) + 1, 8 * codes.shape[1] - 1
    (out / "bench.v").write_text(f"""
module bench;
  reg clk = 0; reg [{top}:0] codes [0:{len(codes) - 1}]; reg [{top}:0] x; wire signed [{width - 1}:0] y; integer k;
  rival dut(.clk(clk), .model_inp(x), .model_out(y));
  initial begin
    $readmemh("{out / "codes.hex"}", codes);
    for (k = 0; k < {len(codes) + stages}; k = k + 1) begin
      x = codes[k < {len(codes)} ? k : 0]; #1 clk = 1; #1 clk = 0;
      if (k >= {stages}) $display("%0d", y);
    end
    $finish;
  end
endmodule
""")
    (out / "rival.v").write_text(text)
    image = out / "bench.vvp"
    subprocess.run(["iverilog", "-g2012", "-o", image, out / "bench.v", out / "rival.v"], check=True)
    said = subprocess.run(["vvp", "-n", image], check=True, capture_output=True, text=True).stdout
    got = [int(line) for line in said.split()]
    assert got == expected.tolist(), (
        f"its Verilog differs in {sum(a != b for a, b in zip(got, expected, strict=False))}"
    )


def synthesised(made: dict[str, Any], name: str) -> dict[str, int]:
    """Cells before packing; the same text is not synthesised twice."""
    source, kept = WORK / f"{name}.v", WORK / f"{name}.counts.json"
    if not (kept.exists() and source.exists() and source.read_text() == made["text"]):
        source.write_text(made["text"])
        kept.write_text(json.dumps(synthesise_ecp5(source, "rival", WORK / f"{name}.json").to_json()))
    counts: dict[str, int] = json.loads(kept.read_text())
    return counts


def surveyed(weights: Weights) -> list[dict[str, Any]]:
    """All settings with their periods, cells and Verilog."""
    rows = []
    for setting in settings():
        made = generated(weights, setting)
        counts = synthesised(made, str(setting))
        rows.append(asdict(setting) | {"periods": made["stages"], "synthesis": counts, "text": made["text"]})
        say(f"{setting}: {made['stages']} periods, {counts}")
    return rows


def record(model: str) -> dict[str, Any]:
    """All settings synthesised, the best of each cutoff routed."""
    weights = load(model)
    rows = surveyed(weights)
    routed = []
    for cutoff in (*CUTOFFS, *LONGER):
        mine = [r for r in rows if r["cutoff"] == cutoff]
        row = min(mine, key=lambda r: (r["periods"], r["synthesis"]["comb"]))
        routed.append(row | route(row, (1,)))
    fastest = min(routed, key=lambda r: r["latency_ns"])
    usual = min((r for r in routed if r["cutoff"] in CUTOFFS), key=lambda r: r["latency_ns"])
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(), "rival": "da4ml 0.6.0", "model": model,
        "weights_hash": weights.heads_hash(), "synthesised": plain(rows), "one_seed_each": plain(routed),
        "best_of_cutoffs_1_to_4": final(usual), "best_of_all": final(fastest),
    }  # fmt: skip


def final(row: dict[str, Any]) -> dict[str, Any]:
    """Three seeds with our adder cells and with Yosys' stock adders: whichever is faster, and the other's figures."""
    ways = [row | route(row, (1, 2, 3), adders=adders) for adders in (True, False)]
    best, other = plain(sorted(ways, key=lambda r: r["latency_ns"]))
    return best | {"other_adders": {k: other[k] for k in ("adder_mapping", "latency_ns", "median_mhz", "comb", "ff")}}


def plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the Verilog."""
    return [{k: v for k, v in row.items() if k != "text"} for row in rows]


def route(row: dict[str, Any], seeds: tuple[int, ...], *, adders: bool = True) -> dict[str, Any]:
    """Latency and cells; the aim is what stages of this length were seen to reach, and about a sixth more."""
    aim = {1: 180, 2: 150, 3: 130, 4: 115, 5: 100, 6: 85}.get(row["cutoff"], 80)
    found = place_and_route(
        row["text"], "rival", latency=row["periods"], mhz=aim, seeds=seeds, suffix=".v", adders=adders, say=say
    )
    return {k: found[k] for k in ("latency_ns", "median_mhz", "comb", "ff", "seeds", "tools", "adder_mapping")}


def say(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="sparse", help="name or folder")
    found = record(parser.parse_args().model)
    REPORTS.mkdir(exist_ok=True)
    (REPORTS / "da4ml.json").write_text(json.dumps(found, indent=1) + "\n")
    for r in (found["best_of_cutoffs_1_to_4"], found["best_of_all"]):
        say(str({k: v for k, v in r.items() if k not in ("seeds", "tools", "synthesis")}))
