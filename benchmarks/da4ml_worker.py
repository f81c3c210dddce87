"""Run by the interpreter that has da4ml (LGPL, an environment of its own): an exposure head as its Verilog.

python da4ml_worker.py JOB.json: weights, settings and vectors in, Verilog and da4ml's own predictions out.
"""

import json
import sys
from pathlib import Path

import numpy as np
from da4ml.codegen import VerilogModel
from da4ml.trace import HWConfig, comb_trace
from da4ml.trace.fixed_variable_array import FixedVariableArray, FixedVariableArrayInput
from da4ml.types import minimal_kif


def clipped(x, how):
    """Truncate, saturate to 0..127: by the library's own quantisation, or by the bits above the seventh."""
    if how == "library":
        return x.quantize(0, 7, 0, "SAT", "TRN")
    return FixedVariableArray([all_ones_above(v) for v in x._vars], x.solver_options, hwconf=x.hwconf)


def all_ones_above(variable):
    """127 where a bit above the seventh is set, so that no subtraction is needed to compare.

    With one such bit da4ml takes the bit itself as the selector and then predicts something else; those few rows are
    left to the library.
    """
    cut = variable.relu(f=0)
    bits = cut.kif[1]
    if bits <= 8:
        return variable.quantize(0, 7, 0, "SAT", "TRN")
    above = cut.quantize(0, bits, -7).unary_bit_op("any")
    return above.msb_mux(127.0, cut.quantize(0, 7, 0), qint=(0.0, 127.0, 1.0))


def head(x, layers, clip):
    """fixed.dense layer by layer; the rounding term is in the bias, saturation and ReLU are one clip."""
    for layer in layers:
        weight, bias, shift = (np.array(layer[k], dtype=np.float64) for k in ("weight", "bias", "shift"))
        x = x @ weight.T + bias
        if layer["activation"] == "relu":
            x = clipped(x * 2.0**-shift, clip)
    return x


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    config = HWConfig(1, job["carry_size"], -1)
    inputs = FixedVariableArrayInput(len(job["layers"][0]["weight"][0]), config, job["solver"]).quantize(1, 7, 0)
    comb = comb_trace(inputs, head(inputs, job["layers"], job["clip"]), keep_dead_inputs=True)
    codes = np.array(job["codes"], dtype=np.float64)
    predicted = comb.predict(codes)
    out = Path(job["out"])
    model = VerilogModel(comb, "rival", out, latency_cutoff=job["cutoff"])
    model.write()
    stages = len(model._pipe.solutions)  # its own register stages; no public attribute tells
    facts = {
        "stages": stages,
        "input_bits": [sum(map(int, minimal_kif(q))) for q in model._pipe.solutions[0].inp_qint],
        "predicted": np.asarray(predicted).ravel().astype(int).tolist(),
        "cost": float(comb.cost),
    }
    (out / "facts.json").write_text(json.dumps(facts))


main()
