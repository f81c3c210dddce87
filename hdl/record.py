"""Every routed figure: python -m hdl.record [NAME...]; writes hdl/reports/NAME.json and the table in README.md.

One line of CORES is one report. The large cores take tens of minutes; cores that were routed before with the same text
come from build/pnr. `--table` writes the table alone, from the reports that are there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hdl.folded import Folded
from hdl.pnr import REPORTS, SEEDS, core_report, place_and_route
from hdl.unrolled import PERIOD_NS
from hdl.verilog import to_rtlil
from microrisk.errors import MicroriskError, UsageError

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- cores: written by python -m hdl.record -->", "<!-- end of cores -->"


@dataclass(frozen=True)
class Core:
    """One routed core: a model's heads unrolled, or (model None) the reloadable core of those heads."""

    model: str | None
    heads: tuple[str, ...]
    mhz: float
    period_ns: float = PERIOD_NS
    seeds: tuple[int, ...] = SEEDS
    title: str = ""
    placer: str = "heap"


CORES = {
    "maxz": Core("default", ("maxz",), 400, 3.0, title="`maxz`"),
    "exposure": Core("sparse", ("exposure",), 105, 10.5, title="`exposure` of the digit-sparse model, 32-32-16-1"),
    "encoder": Core("default", ("encoder",), 105, 10.5, placer="static", title="`vae` encoder alone, latents squared"),
    "maha": Core("default", ("maha",), 105, 10.5, title="`maha`", placer="static"),
    "exposure_dense": Core(
        "default", ("exposure",), 100, 10.5, title="`exposure` of `default`, not sparse", placer="static"
    ),
    "vae": Core("default", ("vae",), 90, seeds=(1,), title="`vae`", placer="static"),
    "reloadable_exposure": Core(
        None, ("exposure",), 275, title="reloadable, `exposure`, three weight sets", placer="static"
    ),
    "reloadable_vae": Core(
        None, ("vae",), 275, seeds=(1,), title="reloadable, `vae`, three weight sets", placer="static"
    ),
}


def record(name: str) -> dict[str, Any]:
    """Make, route and write one report."""
    core = CORES[name]
    options: dict[str, Any] = {"mhz": core.mhz, "seeds": core.seeds, "placer": core.placer, "say": _say}
    if core.model is None:
        report = _reloadable(core.heads, options)
    else:
        report = core_report(core.model, core.heads, core.period_ns, **options)
    REPORTS.mkdir(exist_ok=True)
    (REPORTS / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    return report


def _reloadable(heads: tuple[str, ...], options: dict[str, Any]) -> dict[str, Any]:
    from hdl.reloadable.core import ReloadableCore

    core = ReloadableCore(heads, ecp5=True)
    report = place_and_route(to_rtlil(Folded(core), "core"), "core", latency=core.latency, **options)
    return {"model": None, "heads": list(heads), "initiation_interval": core.interval, **report}


def table() -> str:
    """Markdown of the reports that are there."""
    head = [
        "core",
        "latency",
        "cycles",
        "Fmax, median [seeds]",
        "II",
        "COMB",
        "FF",
        "DSP",
        "block RAM",
        "UltraScale+ LUT",
    ]
    lines = [head, ["---"] * len(head)]
    for name, core in CORES.items():
        path = REPORTS / f"{name}.json"
        if path.exists():
            lines.append(_row(core.title, json.loads(path.read_text())))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _row(title: str, r: dict[str, Any]) -> list[str]:
    seeds = ", ".join(f"{run['mhz']:.0f}" for run in r["seeds"])
    luts = r.get("ultrascale_plus", {}).get("lut")
    return [
        title, f"{r['latency_ns']:.1f} ns", str(r["latency_cycles"]), f"{r['median_mhz']:.0f} MHz [{seeds}]",
        str(r["initiation_interval"]), f"{r['comb']:,}", f"{r['ff']:,}", str(r["dsp"]), str(r["bram"]),
        f"{luts:,}" if luts is not None else "",
    ]  # fmt: skip


def write_table() -> None:
    """Put the table between its marks in README.md; UsageError when the marks are not there."""
    text = README.read_text()
    if BEGIN not in text or END not in text:
        raise UsageError(f"README.md has no place for the table: {BEGIN} ... {END}")
    before, rest = text.split(BEGIN)
    README.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m hdl.record", description="Route the cores that the README shows.")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CORES)}; all without a name")
    parser.add_argument("--table", action="store_true", help="route nothing, write the table again")
    asked = parser.parse_args(arguments)
    try:
        unknown = [n for n in asked.names if n not in CORES]
        if unknown:
            raise UsageError(f"no core {', '.join(unknown)}; there are {', '.join(CORES)}")
        for name in [] if asked.table else (asked.names or CORES):
            report = record(name)
            _say(f"{name}: {report['latency_ns']} ns, {report['median_mhz']} MHz, {report['comb']} COMB")
        write_table()
    except MicroriskError as error:
        sys.stderr.write(f"hdl.record: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
