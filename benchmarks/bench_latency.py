"""Paced latency at 10, 50 and 90 % of capacity, with and without scoring: python -m benchmarks.bench_latency.

Writes recorded/latency.json (every run, with its HdrHistogram) and recorded/latency.svg. The stream is a generated day
(`daystream`) or --input. The process is pinned to one core and has it for itself only as far as the machine allows:
what an empty loop saw is recorded beside each set of runs, and the set with the quietest machine is drawn.

Under pytest-benchmark this file times one unpaced pass of the loop, so that its own cost is watched like any other.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.daystream import cached_day
from benchmarks.measure import RECORDED, machine, pin, save, say
from benchmarks.workloads import Workload
from microrisk.core import Engine, ItchDecoder, paced_edges, run_paced
from microrisk.evaluate.svg import Scale, duration, figure, line, linear, path, tag, text
from microrisk.pipeline.bench_input import prepare
from microrisk.pipeline.bench_latency import decoded, latency
from microrisk.pipeline.spine import Source
from microrisk.score.registry import load_model

pytestmark = pytest.mark.benchmark(group="paced loop")

W, H, LEFT, TOP, GAP = 430.0, 230.0, 58.0, 48.0, 70.0
LOW, HIGH = 1.0, 9.0
"""Powers of ten of ns that are drawn."""
COLOURS = ("#2f6fb0", "#c27a0e", "#b3352f", "#6b6f76")
STYLE = """text{font:12px system-ui,sans-serif;fill:#222}.small{font-size:10.5px;fill:#555}.head{font-size:14px;
font-weight:600}.axis{stroke:#888}.grid{stroke:#e4e4e4}.c0{stroke:#2f6fb0}.c1{stroke:#c27a0e}.c2{stroke:#b3352f}
.c3{stroke:#6b6f76;stroke-dasharray:4 3}.run{fill:none;stroke-width:1.6}.paper{fill:#fff}"""


def _pass(data: bytes) -> dict[str, Any]:
    return run_paced(Engine(), ItchDecoder(), data, 0, 1 << 62)


def test_loop_without_pacing(benchmark: Any, stream: Workload) -> None:
    run = benchmark.pedantic(_pass, (stream.data,), rounds=5, warmup_rounds=1)
    assert run["messages"] == stream.messages
    benchmark.extra_info |= {"messages": stream.messages}


def _panel(x0: float, y0: float, title: str, body: list[str], x: Scale, y: Scale, below: list[tuple[float, str]],
           beside: list[tuple[float, str]]) -> str:  # fmt: skip
    """Frame, grid and labels of one picture."""
    out = [text(x0, y0 - 12, title, "head")]
    for at, label in below:
        out += [line(x(at), y0, x(at), y0 + H, "grid"), text(x(at), y0 + H + 15, label, "small", "middle")]
    for at, label in beside:
        out += [line(x0, y(at), x0 + W, y(at), "grid"), text(x0 - 6, y(at) + 4, label, "small", "end")]
    return "".join([*out, line(x0, y0 + H, x0 + W, y0 + H, "axis"), line(x0, y0, x0, y0 + H, "axis"), *body])


POWERS = [(float(k), duration(10.0 ** (k - 9))) for k in range(int(LOW), int(HIGH) + 1)]


def _histogram(x0: float, y0: float, title: str, runs: list[dict[str, Any]]) -> str:
    """Share of the messages a tenth of a decade of latency, both axes logarithmic."""
    x, y = linear(LOW, HIGH, x0, x0 + W), linear(-7.0, 0.0, y0 + H, y0)
    cuts = np.arange(LOW, HIGH + 0.05, 0.1)
    body = []
    for k, run in enumerate(runs):
        counts = decoded(run["latency"]["hdr"]).astype(np.float64)
        logs = np.log10(np.maximum(paced_edges().astype(np.float64), 1.0))
        share = np.histogram(logs, cuts, weights=counts)[0] / counts.sum()
        ys = [y(float(np.log10(s))) if s > 0 else float("nan") for s in share]
        body.append(path([x(float(c)) for c in cuts[:-1]], ys, f"run c{k}", step=True))
    beside = [(float(k), f"{10.0**k:.0e}") for k in range(-7, 1)]
    return _panel(x0, y0, title, body, x, y, POWERS, beside)


def _percentiles(x0: float, y0: float, runs: list[dict[str, Any]]) -> str:
    """Latency up to each percentile; the percentile runs as the number of nines."""
    x, y = linear(0.0, 6.0, x0, x0 + W), linear(LOW, HIGH, y0 + H, y0)
    body = []
    for k, run in enumerate(runs):
        counts = decoded(run["latency"]["hdr"])
        below = np.cumsum(counts) / counts.sum()
        nines = np.linspace(0.0, min(6.0, float(np.log10(counts.sum()))), 240)
        at = np.searchsorted(below, np.maximum(1.0 - 10.0**-nines, 1.0 / counts.sum()))
        ns = np.maximum(paced_edges()[np.minimum(at, len(below) - 1)].astype(np.float64), 1.0)
        body.append(path([x(float(n)) for n in nines], [y(float(v)) for v in np.log10(ns)], f"run c{k}", step=True))
        label = f"{run['load']:.0%} of capacity" + (", bursts as recorded" if "recorded" in run["arrivals"] else "")
        body.append(
            tag(
                "text",
                label,
                x=x0 + W - 8,
                y=y0 + H - 56 + 15 * k,
                text_anchor="end",
                fill=COLOURS[k],
                style=f"fill:{COLOURS[k]}",
            )
        )
    names = [
        (0.0, "0"),
        (0.30103, "p50"),
        (1.0, "p90"),
        (2.0, "p99"),
        (3.0, "p99.9"),
        (4.0, "p99.99"),
        (5.0, "p99.999"),
    ]
    return _panel(x0, y0, "latency by percentile", body, x, y, names, POWERS)


def picture(found: dict[str, Any]) -> str:
    """Both pictures of every stage: above the histograms, under them the percentiles."""
    stages = list(dict.fromkeys(run["stage"] for run in found["runs"]))
    parts = [tag("style", STYLE), tag("rect", class_="paper", width="100%", height="100%")]
    for k, stage in enumerate(stages):
        runs = [run for run in found["runs"] if run["stage"] == stage]
        x0 = LEFT + k * (W + GAP)
        title = f"{stage}: latency, capacity {runs[0]['capacity_per_second'] / 1e6:.2f} M/s"
        parts += [_histogram(x0, TOP, title, runs), _percentiles(x0, TOP + H + 56, runs)]
    m = found["machine"]
    note = f"from due time to done; an empty loop on this core was away {m['away']['share']:.2%} of the time, "
    parts.append(text(LEFT, TOP + 2 * H + 100, note + f"longest {duration(m['away']['max_ns'] / 1e9)}", "small"))
    width = LEFT + len(stages) * (W + GAP) - GAP + 24
    return figure(width, TOP + 2 * H + 116, "Paced latency by load", *parts)


def record(source: Path, repeats: int, seconds: float) -> dict[str, Any]:
    """`repeats` sets of runs; `quietest` is the number of the set that is drawn."""
    weights = load_model("default")
    sets = []
    with tempfile.TemporaryDirectory() as folder:
        given = prepare(Source((str(source),), date="2025-01-06"), Path(folder))
        for k in range(repeats):
            sets.append(latency(given, weights, seconds=seconds, say=lambda t, k=k: say(f"set {k + 1}: {t}")))
    away = [max(r["away"]["share"] for r in s["runs"]) + s["machine"]["away"]["share"] for s in sets]
    return {"sets": sets, "quietest": int(np.argmin(away))}


def main() -> None:
    """Record and draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_latency")
    parser.add_argument("--input", type=Path, help="an ITCH file; else a generated day")
    parser.add_argument("--messages", type=int, default=8_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--out", type=Path, default=RECORDED)
    asked = parser.parse_args()
    facts = machine() | {"pinned_to": pin()}
    # a short day cannot hold the live orders of a long one: the same share of its messages
    day = {"messages": asked.messages, "live_orders": min(600_000, int(asked.messages * 0.075))}
    source = asked.input or cached_day(**day)[0]
    found = record(source, asked.repeats, asked.seconds)
    name = asked.input.name if asked.input else f"generated day of {asked.messages:,} messages, 8,000 names"
    words = " ".join(["python -m benchmarks.bench_latency", *sys.argv[1:]])
    say(str(save("latency", words, {"machine": facts, "stream": name, **found}, asked.out)))
    (asked.out / "latency.svg").write_text(picture(found["sets"][found["quietest"]]) + "\n")


if __name__ == "__main__":
    main()
