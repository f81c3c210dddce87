"""Accuracy of the sparse exposure head against its area as one SVG: python -m benchmarks.sparse_chart draws it anew.

The area is LUTs (`comb`) once every point has them, signed digits until then.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.measure import RECORDED
from microrisk.evaluate.svg import Scale, figure, line, linear, path, rect, tag, text, thousands, ticks

Point = dict[str, Any]
WIDE, TALL = 560, 350
LEFT, RIGHT, TOP, BOTTOM = 56, 20, 62, 50
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
"""Okabe-Ito; dashes differ too."""
DASHES = ("none", "7 3", "2 3", "8 3 2 3", "4 2")
STYLE = """
text{font:13px system-ui,sans-serif;fill:#222}.title{font-weight:600}.small{font-size:11px;fill:#555}
.grid{stroke:#ddd;stroke-width:1}.paper{fill:#fff}.gate{stroke:#222;stroke-width:1;stroke-dasharray:1 3}
"""
Line = tuple[str, Callable[[Point], dict[str, float]]]


def chart(found: dict[str, Any]) -> str:
    """Three panels on one area axis: order against the int8 parents, and recall at two budgets of false alarms."""
    points = sorted(found["points"], key=_area(found["points"]))
    names = list(points[0]["reported on"]["order"])
    body = [tag("style", STYLE.strip() + _lines()), rect(0, 0, 3 * WIDE, TALL + 24, "paper")]
    panels: list[tuple[str, str, list[Line], float | None]] = [
        ("Rank inside the top 5 %, against the pruned int8 head", "Spearman of rows never taught",
         [(n, _order(n, "int8")) for n in names], 0.97),
        ("Rank inside the top 5 %, against the dense int8 head", "Spearman of the same rows",
         [(n, _order(n, "parent")) for n in names], 0.97),
        ("Recall of episodes", "24 simulated sessions that no choice has seen",
         [(f"{d}, {b}/h", _recall(d, b)) for d in ("exposure", "union") for b in ("2", "10")], None),
    ]  # fmt: skip
    for i, panel in enumerate(panels):
        body.append(tag("g", _panel(points, *panel), transform=f"translate({WIDE * i} 0)"))
    note = "bars: 95 % bootstrap intervals; last point: the dense head itself; dotted: gate"
    body.append(text(LEFT, TALL + 12, note, "small"))
    return figure(3 * WIDE, TALL + 24, "Accuracy of the exposure head against its area", *body)


def _lines() -> str:
    return "".join(
        f".l{i}{{stroke:{c};fill:none;stroke-width:2;stroke-dasharray:{d}}}.b{i}{{stroke:{c};stroke-width:1}}.d{i}{{fill:{c}}}"
        for i, (c, d) in enumerate(zip(COLOURS, DASHES, strict=True))
    )


def _area(points: Sequence[Point]) -> Callable[[Point], float]:
    if all(p["comb"] for p in points):
        return lambda p: float(p["comb"])
    return lambda p: float(p["cost"]["digits"])


def _order(name: str, reference: str) -> Callable[[Point], dict[str, float]]:
    return lambda p: dict(p["reported on"]["order"][name][reference]["tail_spearman"])


def _recall(detector: str, budget: str) -> Callable[[Point], dict[str, float]]:
    return lambda p: dict(p["confirmed on"]["harness"][0]["detectors"][detector]["at"][budget]["recall"])


def _panel(points: Sequence[Point], title: str, detail: str, lines: Sequence[Line], gate: float | None) -> str:
    area = _area(points)
    least = min(get(p)["low"] for p in points for _, get in lines)
    low = max(math.floor(max(least, 0.0) * 20) / 20, 0.0)
    x = linear(0.0, max(map(area, points)) * 1.04, LEFT, WIDE - RIGHT)
    y = linear(low, 1.0, TALL - BOTTOM, TOP)
    out = [text(LEFT, 18, title, "title"), text(LEFT, 33, detail, "small")]
    out += [
        line(LEFT, y(v), WIDE - RIGHT, y(v), "grid") + text(LEFT - 6, y(v) + 4, f"{v:g}", "small", "end")
        for v in ticks(low, 1.0)
    ]
    out += [text(x(v), TALL - BOTTOM + 18, thousands(v), "small", "middle") for v in ticks(0, max(map(area, points)))]
    unit = "LUTs (COMB) of the unrolled head" if all(p["comb"] for p in points) else "signed digits of the head"
    out.append(text((LEFT + WIDE - RIGHT) / 2, TALL - 14, unit, "small", "middle"))
    if gate is not None:
        out.append(line(LEFT, y(gate), WIDE - RIGHT, y(gate), "gate"))
    out += [_line(points, name, get, i, len(lines), x, y) for i, (name, get) in enumerate(lines)]
    return "".join(out)


def _line(
    points: Sequence[Point], name: str, get: Callable[[Point], dict[str, float]], i: int, lines: int, x: Scale, y: Scale
) -> str:
    """Curve with bars; its name in the legend over the panel."""
    area = _area(points)
    xs, found = [x(area(p)) + 2 * i for p in points], [get(p) for p in points]
    out = [line(a, y(max(f["low"], 0.0)), a, y(min(f["high"], 1.0)), f"b{i}") for a, f in zip(xs, found, strict=True)]
    mid = [y(max(f["value"], 0.0)) for f in found]
    out.append(path(xs, mid, f"l{i}"))
    out += [tag("circle", cx=a, cy=b, r=3.0, class_=f"d{i}") for a, b in zip(xs, mid, strict=True)]
    at = LEFT + (WIDE - RIGHT - LEFT) / lines * i
    short = name.replace("simulated with episodes", "simulated").replace("Binance ", "")
    return "".join(out) + line(at, 46, at + 18, 46, f"l{i}") + text(at + 22, 50, short, "small")


if __name__ == "__main__":
    record = json.loads((RECORDED / "sparse.json").read_text())
    (RECORDED / "sparse.svg").write_text(chart(record))
