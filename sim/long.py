"""A million vectors a core on Verilator: python -m sim.long [--vectors N] [--seed S] [--heads maxz,maha]

Corners and directed rows, market rows from every recording here, and seeded random rows go through the simulated core
of each head; sim/recorded/long.json says what was run, with which tools, and how many results differed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from microrisk.spec.records import N_FEATURES
from microrisk.spec.weightfile import HEADS
from microrisk.weights import FORMAT_HASH, Weights
from sim import catalogue, native, vectors
from sim.rtl_scorer import Process
from sim.tools import ROOT, simulator

RECORD = ROOT / "sim" / "recorded" / "long.json"
MILLION = 1_000_000
CHUNK = 1 << 15
STALL_S = 120.0


def run_core(weights: Weights, head: str, n: int, seed: int) -> dict[str, Any]:
    """One core of one head over n rows: counts, the first difference, seconds of simulation."""
    case = catalogue.core(weights, (head,))
    design = case.design()
    rows = vectors.for_core(weights, (head,), n, seed, market=vectors.market(weights, n // 4, seed))
    width = 4 * case.compute(rows[:1]).shape[1]
    process = Process(native.program(design, "verilator", inputs=N_FEATURES, outputs=width), STALL_S)
    differences, first, seconds = 0, None, 0.0
    for start in range(0, n, CHUNK):
        part = rows[start : start + CHUNK]
        began = time.perf_counter()
        answer = _ask(process, part, width)
        seconds += time.perf_counter() - began
        found = np.frombuffer(answer, "<i4").reshape(len(part), -1)
        bad = np.flatnonzero((found != case.compute(part)).any(axis=1))
        differences += len(bad)
        if len(bad) and first is None:
            first = start + int(bad[0])
    process.end()
    return {
        "core": case.name, "vectors": n, "differences": differences, "first_difference": first,
        "latency_cycles": design.latency, "interval_cycles": 1, "seconds": round(seconds, 2),
        "vectors_per_second": round(n / seconds),
    }  # fmt: skip


def _ask(process: Process, rows: vectors.Codes, width: int) -> bytes:
    whole = len(rows) * width
    return process.ask(np.uint32(len(rows)).tobytes() + rows.tobytes(), lambda got: len(got) - whole)


def record(weights: Weights, heads: Sequence[str], n: int, seed: int) -> dict[str, Any]:
    """What sim/recorded/long.json holds."""
    tools = {name: version(name) for name in ("amaranth", "pyosys", "verilator", "numpy")}
    rows = []
    for head in heads:
        rows.append(run_core(weights, head, n, seed))
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
    parser.add_argument("--heads", default=",".join(HEADS))
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
