"""Run by the interpreter that has da4ml (LGPL, an environment of its own): an exposure head as its Verilog.

python da4ml_worker.py JOB.json: weights, settings and vectors in, Verilog and da4ml's own predictions out.
"""

import json
import sys
from pathlib import Path

import numpy as np
from da4ml.codegen import VerilogModel
from da4ml.trace import HWConfig, comb_trace
from da4ml.trace.fixed_variable_array import FixedVariableArrayInput


def head(x, layers):
    """fixed.dense layer by layer; the rounding term is in the bias, saturation and ReLU are one quantisation."""
    for layer in layers:
        weight, bias, shift = (np.array(layer[k], dtype=np.float64) for k in ("weight", "bias", "shift"))
        x = x @ weight.T + bias
        if layer["activation"] == "relu":
            x = (x * 2.0**-shift).quantize(0, 7, 0, "SAT", "TRN")
    return x


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    config = HWConfig(1, job["carry_size"], -1)
    inputs = FixedVariableArrayInput(len(job["layers"][0]["weight"][0]), config, job["solver"]).quantize(1, 7, 0)
    comb = comb_trace(inputs, head(inputs, job["layers"]), keep_dead_inputs=True)
    codes = np.array(job["codes"], dtype=np.float64)
    predicted = comb.predict(codes)
    out = Path(job["out"])
    model = VerilogModel(comb, "rival", out, latency_cutoff=job["cutoff"])
    model.write()
    stages = len(model._pipe.solutions)  # its own register stages; no public attribute tells
    facts = {
        "stages": stages,
        "predicted": np.asarray(predicted).ravel().astype(int).tolist(),
        "cost": float(comb.cost),
    }
    (out / "facts.json").write_text(json.dumps(facts))


main()
