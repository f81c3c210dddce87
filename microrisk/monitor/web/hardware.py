"""What the recorded reports say of the hardware, for the page: place and route, equality with software, the board.

    python -m microrisk.monitor.web.hardware     in a source checkout: writes static/hardware.json from the reports

A checkout reads its reports each time; an installed package has the summary that was written last.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

SUMMARY = Path(__file__).parent / "static" / "hardware.json"
CHECKOUT = Path(__file__).parents[3]
CORES = ("maxz", "exposure", "maha", "reloadable_exposure")
LABELS = {"exposure": "exposure, digit-sparse", "reloadable_exposure": "exposure, reloadable"}
DEVICE = {"name": "LFE5UM5G-85F", "comb": 83_640, "ff": 83_640, "dsp": 156, "bram": 208}
"""Lattice's ECP5 family data sheet: LUT4 and registers, 18 x 18 multipliers, 18 kbit memories."""
KEPT = (
    "model", "weights_hash", "heads", "date", "initiation_interval", "latency_cycles", "latency_ns", "median_mhz",
    "comb", "ff", "dsp", "bram", "placer", "ultrascale_plus", "tools",
)  # fmt: skip
RIVAL = ("latency_ns", "median_mhz", "comb", "ff", "cutoff")


def load(checkout: Path = CHECKOUT) -> dict[str, Any]:
    """The summary, from the reports where they are."""
    if (checkout / "hdl" / "reports").is_dir() and (checkout / "sim" / "recorded").is_dir():
        return summarise(checkout / "hdl" / "reports", checkout / "sim" / "recorded")
    found: dict[str, Any] = msgspec.json.decode(SUMMARY.read_bytes())
    return found


def summarise(reports: Path, recorded: Path) -> dict[str, Any]:
    """One document of all reports; a report that is not there is left out."""
    cores = [_core(name, r) for name in CORES if (r := _read(reports / f"{name}.json"))]
    models = {c["weights_hash"]: c["model"] for c in cores if "weights_hash" in c}
    return {
        "device": DEVICE,
        "cores": cores,
        "equality": [row for p in sorted(recorded.glob("long*.json")) for row in _equality(p, models)],
        "board": _read(reports / "board.json"),
        "rival": _rival(_read(reports / "da4ml.json")),
    }


def _core(name: str, report: dict[str, Any]) -> dict[str, Any]:
    kept = {k: report[k] for k in KEPT if k in report}
    return {"name": LABELS.get(name, name), "mhz": [s["mhz"] for s in report["seeds"]]} | kept


def _equality(path: Path, models: dict[str, str]) -> list[dict[str, Any]]:
    report = _read(path)
    shared = {"date": report["date"], "simulator": report["tools"]["simulator"], "weights_hash": report["weights_hash"]}
    shared["model"] = models.get(report["weights_hash"])
    return [row | shared for row in report["cores"]]


def _rival(report: dict[str, Any]) -> dict[str, Any] | None:
    if not report:
        return None
    best, beyond = ({k: r[k] for k in RIVAL} for r in (report["best_of_cutoffs_1_to_4"], report["best_of_all"]))
    return {"name": report["rival"], "date": report["date"]} | best | {"beyond": beyond}


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(path.read_bytes()) if path.is_file() else {}
    return found


if __name__ == "__main__":
    document = summarise(CHECKOUT / "hdl" / "reports", CHECKOUT / "sim" / "recorded")
    SUMMARY.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    sys.stderr.write(f"{SUMMARY}\n")
