"""A million vectors a core on Verilator: python -m sim.long [--vectors N] [--seed S] [--heads maxz,reloadable]

Corners and directed rows, market rows from every recording here, and seeded random rows go through the simulated core
of each head; sim/recorded/long.json says what was run, with which tools, and how many results differed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from microrisk.model.synthetic import random_weights
from microrisk.spec.features import ALL_MASK
from microrisk.spec.records import N_FEATURES
from microrisk.spec.weightfile import HEADS
from microrisk.weights import FORMAT_HASH, Weights
from sim import catalogue, native, vectors
from sim.rtl_scorer import Process
from sim.tools import ROOT, simulator

RECORD = ROOT / "sim" / "recorded" / "long.json"
MILLION = 1_000_000
CHUNK = 1 << 15
LEVEL_MASK = 0x3FF8_3FFF
"""Features of a level feed, for one of the sets of the reloadable core."""
RELOADABLE = "reloadable"
"""Among the heads of the command line: the reloadable core with the exposure head."""
STALL_S = 120.0


def run_core(weights: Weights, head: str, n: int, seed: int) -> dict[str, Any]:
    """The unrolled core of one head over n rows: counts, the first difference, seconds of simulation."""
    case = catalogue.core(weights, (head,))
    design = case.design()
    rows = _rows(weights, (head,), n, seed)
    width = 4 * case.compute(rows[:1]).shape[1]
    process = Process(native.program(design, "verilator", inputs=N_FEATURES, outputs=width), STALL_S)

    def request(part: vectors.Codes) -> bytes:
        return np.uint32(len(part)).tobytes() + part.tobytes()

    counts = _compare(process, request, rows, case.compute, width)
    return {"core": case.name, **counts, "latency_cycles": design.latency, "interval_cycles": 1}


def run_reloadable(weights: Weights, heads: Sequence[str], n: int, seed: int) -> dict[str, Any]:
    """The reloadable core with three models in its sets, the packaged one and two random ones, over n rows."""
    models = [(weights, ALL_MASK), (random_weights(3), LEVEL_MASK), (random_weights(4, at_bound=True), ALL_MASK)]
    design = catalogue.reloadable(heads)
    rows = _rows(weights, heads, n, seed)
    width = 4 * len(models) * len(heads)
    process = Process(native.stream_program(design, inputs=N_FEATURES, outputs=width), STALL_S)
    words = np.array([pair for writes in catalogue.set_writes(models, heads) for pair in writes], "<u4")
    loads = [words]

    def request(part: vectors.Codes) -> bytes:
        """The weights go with the first rows."""
        first = loads.pop() if loads else words[:0]
        return np.array([len(first), len(part)], "<u4").tobytes() + first.tobytes() + part.tobytes()

    def compute(part: vectors.Codes) -> catalogue.Rows:
        return catalogue.set_rows(models, heads, part)

    counts = _compare(process, request, rows, compute, width)
    interval = design.facts["interval"]
    name = f"reloadable {'+'.join(heads)}, three sets"
    return {"core": name, **counts, "latency_cycles": design.latency, "interval_cycles": interval}


def _rows(weights: Weights, heads: Sequence[str], n: int, seed: int) -> vectors.Codes:
    return vectors.for_core(weights, heads, n, seed, market=vectors.market(weights, n // 4, seed))


def _compare(
    process: Process, request: Callable[[vectors.Codes], bytes], rows: vectors.Codes,
    compute: Callable[[vectors.Codes], catalogue.Rows], width: int,
) -> dict[str, Any]:  # fmt: skip
    """All rows through a program, against the reference."""
    differences, first, seconds = 0, None, 0.0
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        began = time.perf_counter()
        answer = _ask(process, request(part), len(part) * width)
        seconds += time.perf_counter() - began
        found = np.frombuffer(answer, "<i4").reshape(len(part), -1)
        bad = np.flatnonzero((found != compute(part)).any(axis=1))
        differences += len(bad)
        if len(bad) and first is None:
            first = start + int(bad[0])
    process.end()
    return {
        "vectors": len(rows), "differences": differences, "first_difference": first, "seconds": round(seconds, 2),
        "vectors_per_second": round(len(rows) / seconds),
    }  # fmt: skip


def _ask(process: Process, request: bytes, whole: int) -> bytes:
    return process.ask(request, lambda got: len(got) - whole)


def record(weights: Weights, heads: Sequence[str], n: int, seed: int) -> dict[str, Any]:
    """What sim/recorded/long.json holds."""
    tools = {name: version(name) for name in ("amaranth", "pyosys", "verilator", "numpy")}
    rows = []
    for head in heads:
        core = (
            run_reloadable(weights, ("exposure",), n, seed) if head == RELOADABLE else run_core(weights, head, n, seed)
        )
        rows.append(core)
        sys.stderr.write(f"{rows[-1]}\n")
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "tools": {**tools, "simulator": f"verilator {simulator('verilator').version}"},
        "format_hash": FORMAT_HASH,
        "weights_hash": weights.heads_hash(),
        "seed": seed,
        "market_rows": {"share": 0.25, "from": vectors.market_sources()},
        "cores": rows,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit code 1 when a result differed."""
    from microrisk.score.registry import load_model

    parser = argparse.ArgumentParser(prog="python -m sim.long", description="a million vectors a core on Verilator")
    parser.add_argument("--vectors", type=int, default=MILLION)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--heads", default=",".join((*HEADS, RELOADABLE)))
    parser.add_argument("--model", default="default")
    parser.add_argument("--out", type=Path, default=RECORD)
    asked = parser.parse_args(arguments)
    found = record(load_model(asked.model), asked.heads.split(","), asked.vectors, asked.seed)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(found, indent=1) + "\n")
    differences = sum(row["differences"] for row in found["cores"])
    sys.stdout.write(
        f"{len(found['cores'])} cores, {asked.vectors:,} vectors each, {differences} differences: {asked.out}\n"
    )
    return int(differences > 0)


if __name__ == "__main__":
    sys.exit(main())
