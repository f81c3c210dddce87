"""da4ml on the same trained exposure head, through the same synthesis and place and route.

DA4ML_PYTHON=.../bin/python python -m benchmarks.rivals_rtl [--model sparse]

da4ml 0.6 (LGPL) lives in an environment of its own. For each latency cutoff and carry size it pipelines the head
itself; its predictions and its Verilog in Icarus are compared with Weights.exposure first. All configurations are
synthesised, one seed is routed for each cutoff at the carry size with the fewest periods and look-up tables, and three
for the fastest; Yosys' stock adders are tried on it as well. Latency is counted as ours: periods between the edge that
loads the input register and the edge that loads the output register. Writes hdl/reports/da4ml.json.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import shutil
import subprocess
import sys
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
LONGER = (6, 8)
"""Beyond what is usual for da4ml, because our stages are long; reported apart."""
CARRY_SIZES = (-1, 8, 16)
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


def generated(weights: Weights, cutoff: int, carry_size: int) -> dict[str, Any]:
    """Verilog of one configuration, its predictions checked: {"text", "stages"}."""
    python = os.environ.get("DA4ML_PYTHON")
    if not python:
        raise UsageError(
            "DA4ML_PYTHON must name a Python with da4ml: python3 -m venv V && V/bin/pip install da4ml==0.6.0"
        )
    out = WORK / f"cutoff{cutoff}-carry{carry_size}"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    codes = np.concatenate([extreme_codes(), random_codes(VECTORS, 1)])
    job = {"layers": job_of(weights), "cutoff": cutoff, "carry_size": carry_size, "solver": {}}
    (out / "job.json").write_text(json.dumps({**job, "codes": codes.tolist(), "out": str(out)}))
    worker = Path(__file__).with_name("da4ml_worker.py")
    subprocess.run([python, str(worker), str(out / "job.json")], check=True, stdout=subprocess.DEVNULL)
    facts = json.loads((out / "facts.json").read_text())
    assert np.array_equal(facts["predicted"], weights.exposure(codes)), "da4ml predicts something else"
    sources = sorted(p for p in out.glob("src/**/*.v") if p.name not in ("lookup_table.v", "rival_wrapper.v"))
    text = "\n".join(p.read_text() for p in sources)
    simulate(out, text, codes[:SIMULATED], weights.exposure(codes[:SIMULATED]), facts["stages"])
    return {"text": text, "stages": facts["stages"]}


def simulate(out: Path, text: str, codes: np.ndarray, expected: np.ndarray, stages: int) -> None:
    """The Verilog in Icarus, a vector a cycle; results and latency must be as promised."""
    rows = "\n".join(row.tobytes()[::-1].hex() for row in codes)
    (out / "codes.hex").write_text(rows)
    width = int(text.split("output reg [")[1].split(":")[0]) + 1
    (out / "bench.v").write_text(f"""
module bench;
  reg clk = 0; reg [255:0] codes [0:{len(codes) - 1}]; reg [255:0] x; wire signed [{width - 1}:0] y; integer k;
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
    source = WORK / f"{name}.v"
    source.write_text(made["text"])
    return synthesise_ecp5(source, "rival", WORK / f"{name}.json").to_json()


def record(model: str) -> dict[str, Any]:
    """All configurations."""
    weights = load(model)
    made, rows = {}, []
    for cutoff in (*CUTOFFS, *LONGER):
        for carry_size in CARRY_SIZES:
            key = (cutoff, carry_size)
            made[key] = generated(weights, cutoff, carry_size)
            counts = synthesised(made[key], f"c{cutoff}-{carry_size}")
            rows.append(
                {"cutoff": cutoff, "carry_size": carry_size, "periods": made[key]["stages"], "synthesis": counts}
            )
            say(f"cutoff {cutoff} carry {carry_size}: {made[key]['stages']} periods, {counts}")
    routed = []
    for cutoff in (*CUTOFFS, *LONGER):
        mine = [r for r in rows if r["cutoff"] == cutoff]
        row = min(mine, key=lambda r: (r["periods"], r["synthesis"]["comb"]))
        routed.append(row | route(made[cutoff, row["carry_size"]], (1,)))
    fastest = min(routed, key=lambda r: r["latency_ns"])
    usual = min((r for r in routed if r["cutoff"] in CUTOFFS), key=lambda r: r["latency_ns"])
    final = {id(r): r | route(made[r["cutoff"], r["carry_size"]], (1, 2, 3)) for r in (fastest, usual)}
    stock = usual | route(made[usual["cutoff"], usual["carry_size"]], (1,), adders=False)
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(), "rival": "da4ml 0.6.0", "model": model,
        "weights_hash": weights.heads_hash(), "synthesised": rows, "one_seed_each": routed,
        "best_of_cutoffs_1_to_4": final[id(usual)], "best_of_all": final[id(fastest)], "with_stock_adders": stock,
    }  # fmt: skip


def route(made: dict[str, Any], seeds: tuple[int, ...], *, adders: bool = True) -> dict[str, Any]:
    """Latency and cells; the aim is what stages of this many operations were seen to reach, and a sixth more."""
    aim = {1: 280, 2: 200, 3: 170, 4: 150}.get(made["stages"], max(110, min(280, 22 * made["stages"])))
    found = place_and_route(
        made["text"], "rival", latency=made["stages"], mhz=aim, seeds=seeds, suffix=".v", adders=adders, say=say
    )
    return {k: found[k] for k in ("latency_ns", "median_mhz", "comb", "ff", "seeds", "tools", "adder_mapping")}


def say(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="sparse", help="name or folder")
    found = record(parser.parse_args().model)
    (REPORTS / "da4ml.json").write_text(json.dumps(found, indent=1) + "\n")
    for r in (found["best_of_cutoffs_1_to_4"], found["best_of_all"], found["with_stock_adders"]):
        print({k: r[k] for k in ("cutoff", "carry_size", "periods", "latency_ns", "median_mhz", "comb", "ff")})
