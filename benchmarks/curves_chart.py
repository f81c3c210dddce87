"""The cost curves as one SVG that needs nothing else: python -m benchmarks.curves_chart draws the record anew."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from benchmarks.measure import RECORDED
from microrisk.evaluate.svg import Scale, figure, line, linear, number, path, rect, tag, text

WIDE, TALL = 560, 330
LEFT, RIGHT, TOP, BOTTOM = 56, 92, 46, 46
COLOURS = {"microrisk": "#0072b2", "itchcpp": "#d55e00", "itch-book": "#009e73"}
"""Okabe-Ito: told apart with every common colour deficiency; line styles differ too."""
DASHES = {"microrisk": "none", "itchcpp": "7 3", "itch-book": "2 3"}
STYLE = """
text{font:13px system-ui,sans-serif;fill:#222}.title{font-weight:600}.small{font-size:11px;fill:#555}
.grid{stroke:#ddd;stroke-width:1}.band{fill:#0072b2;fill-opacity:.10}.paper{fill:#fff}
"""


def chart(found: dict[str, Any]) -> str:
    """All curves, two a row: ns a message against x, both logarithmic; bars from the least to the greatest round."""
    curves = list(found["curves"].values())
    rows = math.ceil(len(curves) / 2)
    body = [tag("style", _style()), rect(0, 0, 2 * WIDE, rows * TALL + 20, "paper")]
    for i, curve in enumerate(curves):
        body.append(tag("g", _panel(curve), transform=f"translate({WIDE * (i % 2)} {TALL * (i // 2)})"))
    note = "CPU ns a message, both axes logarithmic; bars: all rounds; band: from our least to twice that"
    body.append(text(LEFT, rows * TALL + 6, note, "small"))
    return figure(2 * WIDE, rows * TALL + 20, "Nanoseconds a message against depth, names and live orders", *body)


def _style() -> str:
    lines = [
        f".{_class(n)}{{stroke:{c};fill:none;stroke-width:2;stroke-dasharray:{DASHES[n]}}}"
        f".{_class(n)}-dot{{fill:{c}}}.{_class(n)}-bar{{stroke:{c};stroke-width:1}}"
        for n, c in COLOURS.items()
    ]
    return STYLE.strip() + "".join(lines)


def _class(engine: str) -> str:
    return engine.replace("-", "")


def _panel(curve: dict[str, Any]) -> str:
    points = curve["points"]
    xs = [p["x"] for p in points]
    costs = [c["cpu_ns"][k] for p in points for c in p["engines"].values() for k in ("low", "high")]
    x = _log(xs[0], xs[-1], LEFT, WIDE - RIGHT)
    y = _log(min(costs) / 1.15, max(costs) * 1.15, TALL - BOTTOM, TOP)
    ours = [p["engines"]["microrisk"]["cpu_ns"]["median"] for p in points]
    floor = min(ours)
    title, _, detail = curve["label"].partition(", ")
    out = [text(LEFT, 18, f"{title[0].upper()}{title[1:]}", "title"), text(LEFT, 33, detail, "small")]
    out.append(
        rect(LEFT, y(2 * floor), WIDE - RIGHT - LEFT, y(floor) - y(2 * floor), "band", "ours: least to twice that")
    )
    out += [_y_tick(v, y) for v in _decades(min(costs), max(costs))]
    out += [text(x(v), TALL - BOTTOM + 18, _round(v), "small", "middle") for v in xs]
    ends: list[float] = []
    for engine in points[0]["engines"]:
        out.append(_line(points, engine, x, y, ends))
    return "".join(out)


def _line(points: Sequence[dict[str, Any]], engine: str, x: Scale, y: Scale, ends: list[float]) -> str:
    """Curve with bars and its name at the end; names keep 14 px apart."""
    cost = [p["engines"][engine]["cpu_ns"] for p in points]
    xs, mid = [x(p["x"]) for p in points], [y(c["median"]) for c in cost]
    out = [line(a, y(c["low"]), a, y(c["high"]), f"{_class(engine)}-bar") for a, c in zip(xs, cost, strict=True)]
    out.append(path(xs, mid, _class(engine)))
    out += [tag("circle", cx=a, cy=b, r=3, class_=f"{_class(engine)}-dot") for a, b in zip(xs, mid, strict=True)]
    at = mid[-1] + 4
    while any(abs(at - other) < 14 for other in ends):
        at += 1
    ends.append(at)
    out.append(text(xs[-1] + 8, at, engine, f"{_class(engine)}-dot"))
    return "".join(out)


def _y_tick(v: float, y: Scale) -> str:
    return line(LEFT, y(v), WIDE - RIGHT, y(v), "grid") + text(LEFT - 6, y(v) + 4, number(v), "small", "end")


def _log(low: float, high: float, start: float, end: float) -> Scale:
    inner = linear(math.log(low), math.log(high), start, end)
    return lambda v: inner(math.log(v))


def _decades(low: float, high: float) -> list[float]:
    """1, 2, 5 times powers of ten inside the range."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    values = [m * 10.0**k for k in range(first, last + 1) for m in (1, 2, 5)]
    return [v for v in values if low / 1.15 <= v <= high * 1.15]


def _round(v: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if v >= size:
            return f"{v / size:g} {unit}"
    return f"{v:g}"


if __name__ == "__main__":
    record = json.loads((RECORDED / "curves.json").read_text())
    (RECORDED / "curves.svg").write_text(chart(record))
