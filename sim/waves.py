"""A picture of one transaction: python -m sim.waves [--head exposure] [--simulator verilator]

Runs a short bench of a core with waves on, keeps the trace for a wave viewer, and draws the cycles around one row as a
timing diagram in SVG, so that a newcomer sees what the streams do before installing any viewer.
"""

from __future__ import annotations

import argparse
import html
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sim import catalogue, vectors
from sim.design import ToolFailed
from sim.drivers import PERIOD_NS
from sim.runner import run
from sim.tools import ROOT

FOLDER = ROOT / "build" / "waves"
SIGNALS = ("clk", "rst", "i__valid", "i__payload", "o__valid", "o__payload")
LEAST_CYCLES = 10
ROWS = 24
"""Rows of the short bench."""
LEFT, CELL, LANE, HIGH, TOP_SPACE = 120, 60, 44, 22, 62
"""Pixels: room for names, a cycle, a signal, a level, and above the first signal."""
SHOWN_DIGITS = 8
INK, PALE, FILL = "#1f2937", "#9ca3af", "#dbeafe"


@dataclass
class Trace:
    """Changes of one signal: times in ps, and its value from then on (None = undefined)."""

    width: int
    times: list[int] = field(default_factory=list)
    values: list[int | None] = field(default_factory=list)

    def at(self, time: int) -> int | None:
        """Value at a time; None before the first change."""
        k = bisect_right(self.times, time) - 1
        return self.values[k] if k >= 0 else None


def read_vcd(path: Path, names: Sequence[str] = SIGNALS) -> dict[str, Trace]:
    """Traces of signals of the top module.

    Raises ToolFailed when one of them is not in the file.
    """
    found: dict[str, Trace] = {}
    by_code: dict[str, Trace] = {}
    time, scale = 0, 1
    lines = iter(path.read_text().splitlines())
    for line in lines:
        words = line.split()
        if not words:
            continue
        if words[0] == "$timescale":
            scale = _picoseconds(" ".join(words[1:]) if len(words) > 1 else next(lines))
        elif words[0] == "$var" and words[4] in names:
            trace = found.setdefault(words[4], Trace(int(words[2])))
            by_code[words[3]] = trace
        elif line[0] == "#":
            time = int(line[1:]) * scale
        elif line[0] in "01xzb":
            _change(line, time, by_code)
    missing = [n for n in names if n not in found]
    if missing:
        raise ToolFailed(f"{path}: no signal {', '.join(missing)} in the trace")
    return {name: found[name] for name in names}


def _picoseconds(text: str) -> int:
    number = "".join(c for c in text if c.isdigit())
    unit = next((u for u in ("ps", "ns", "us") if u in text), "ps")
    return int(number or 1) * {"ps": 1, "ns": 1000, "us": 1_000_000}[unit]


def _change(line: str, time: int, by_code: dict[str, Trace]) -> None:
    value, code = line[1:].split() if line[0] == "b" else (line[0], line[1:])
    trace = by_code.get(code)
    number = int(value, 2) if set(value) <= {"0", "1"} else None
    # a simulator may write a signal of the top twice, as its port and as its inside
    if trace is not None and not (trace.values and trace.values[-1] == number):
        trace.times.append(time)
        trace.values.append(number)


# ---- the picture ----


def diagram(traces: dict[str, Trace], start: int, cycles: int, title: str, notes: dict[int, str]) -> str:
    """SVG of some cycles.

    start : time in ps of the falling edge that begins the first; notes : cycle -> what happens at its rising edge
    """
    names = list(traces)
    width, height = LEFT + cycles * CELL + 20, TOP_SPACE + len(names) * LANE + 20
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="ui-monospace, monospace" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(10, 18, title, size=14),
    ]
    parts += [_edge(k, height, notes.get(k, "")) for k in range(cycles)]
    for lane, name in enumerate(names):
        y = TOP_SPACE + lane * LANE
        parts.append(_text(10, y + HIGH - 6, name))
        draw = _bits if traces[name].width == 1 else _bus
        parts += draw(traces[name], start, cycles, y)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, *, size: int = 11, colour: str = INK, anchor: str = "start") -> str:
    style = f'font-size="{size}" fill="{colour}" text-anchor="{anchor}"'
    return f'<text x="{x:g}" y="{y:g}" {style}>{html.escape(text)}</text>'


def _edge(cycle: int, height: int, note: str) -> str:
    """Dotted line at a rising edge, with its number and what happens there."""
    x = LEFT + (cycle + 0.5) * CELL
    line = f'<path d="M{x:g} {TOP_SPACE - 4}V{height - 14}" stroke="{PALE}" stroke-dasharray="2 3"/>'
    number = _text(x, TOP_SPACE - 8, str(cycle), colour=PALE, anchor="middle")
    return line + number + (_text(x, TOP_SPACE - 22, note, anchor="middle") if note else "")


def _x(time: float, start: int) -> float:
    return LEFT + (time - start) / (PERIOD_NS * 1000) * CELL


def _pieces(trace: Trace, start: int, cycles: int) -> Iterator[tuple[float, float, int | None]]:
    """(from, to, value) in pixels, equal neighbours joined."""
    end = start + cycles * PERIOD_NS * 1000
    inside = [t for t in trace.times if start < t < end]
    bounds = [start, *inside, end]
    begun, value = float(start), trace.at(start)
    for t in bounds[1:]:
        later = trace.at(t)
        if later != value or t == end:
            if t > begun:
                yield _x(begun, start), _x(t, start), value
            begun, value = t, later


def _bits(trace: Trace, start: int, cycles: int, y: int) -> list[str]:
    path, last = "", None
    for left, right, value in _pieces(trace, start, cycles):
        level = y + (2 if value else HIGH)
        path += f"M{left:g} {level}" if last is None else f"V{level}"
        path += f"H{right:g}"
        last = level
    return [f'<path d="{path}" fill="none" stroke="{INK}" stroke-width="1.6"/>']


def _bus(trace: Trace, start: int, cycles: int, y: int) -> list[str]:
    parts = []
    for left, right, value in _pieces(trace, start, cycles):
        middle, s = y + HIGH / 2, min(4.0, (right - left) / 2)
        outline = f"M{left:g} {middle}L{left + s:g} {y}H{right - s:g}L{right:g} {middle}L{right - s:g} {y + HIGH}"
        parts.append(f'<path d="{outline}H{left + s:g}Z" fill="{FILL if value else "white"}" stroke="{INK}"/>')
        text = _short(value, trace.width, int((right - left) / 7) - 1)
        parts.append(_text((left + right) / 2, middle + 4, text, size=10, anchor="middle"))
    return parts


def _short(value: int | None, width: int, room: int) -> str:
    """Hexadecimal that fits; the high digits go."""
    if value is None:
        return "x" if room > 0 else ""
    digits = f"{value:0{-(-width // 4)}x}"
    if len(digits) <= room:
        return digits
    return "…" + digits[-(room - 1) :] if room > 1 else ""


# ---- one transaction ----


def transaction(traces: dict[str, Trace], latency: int, number: int) -> tuple[int, int, dict[int, str]]:
    """Where row `number` is: (time of the falling edge before it is offered, cycles to show, notes)."""
    period = PERIOD_NS * 1000
    falls = [t for t, v in zip(traces["clk"].times, traces["clk"].values, strict=True) if v == 0]
    offered = [t for t in falls if traces["i__valid"].at(t + period // 4)]
    if len(offered) <= number:
        raise ToolFailed(f"the trace holds {len(offered)} rows, not row {number}")
    start = offered[number] - period
    return start, max(latency + 5, LEAST_CYCLES), {1: f"row {number} taken", 1 + latency: "result loaded"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: writes the trace and the picture, and says where they are."""
    from microrisk.score.registry import load_model

    parser = argparse.ArgumentParser(prog="python -m sim.waves", description="waves of a core, and a picture of a row")
    parser.add_argument("--model", default="default")
    parser.add_argument("--head", default="maxz")
    parser.add_argument("--row", type=int, default=6)
    parser.add_argument("--out", type=Path, default=FOLDER)
    asked = parser.parse_args(arguments)
    made = draw(load_model(asked.model), asked.head, asked.row, asked.out)
    for path in made:
        sys.stdout.write(f"{path}\n")
    return 0


def draw(weights: catalogue.Weights, head: str, row: int, out: Path) -> list[Path]:
    """Trace (VCD) and picture (SVG) of a head's core; returns their paths."""
    case = catalogue.core(weights, (head,))
    design = case.design()
    codes = vectors.small(ROWS, 3)
    trace, picture = out / f"{head}.vcd", out / f"{head}.svg"
    result = run(
        design, "sim.tb_pipe", "gaps", codes, case.compute(codes), simulator_name="verilator", waves=trace, seed=3
    )
    if not result.passed:
        raise ToolFailed(result.message)
    traces = read_vcd(trace)
    start, cycles, notes = transaction(traces, design.latency, row)
    title = f"{case.name}: row {row} and its result {design.latency} cycles later ({PERIOD_NS} ns a cycle)"
    picture.write_text(diagram(traces, start, cycles, title, notes))
    return [trace, picture]


if __name__ == "__main__":
    sys.exit(main())
