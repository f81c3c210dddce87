"""Small pieces of pictures: SVG elements as text, axes, number formats, and PNG images written with zlib.

Colours are CSS classes or custom properties of the page, so one picture serves light, dark and print.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from html import escape

import numpy as np
from numpy.typing import NDArray

Scale = Callable[[float], float]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def tag(name: str, *content: str, **attributes: object) -> str:
    """One element; `_` in names becomes `-`, `class_` is class, numbers are printed with at most 2 decimals."""
    parts = "".join(f' {k.rstrip("_").replace("_", "-")}="{_value(v)}"' for k, v in attributes.items() if v is not None)
    return f"<{name}{parts}>{''.join(content)}</{name}>" if content else f"<{name}{parts}/>"


def _value(v: object) -> str:
    return number(v) if isinstance(v, float) else escape(str(v))


def number(x: float) -> str:
    """Coordinate with at most 2 decimals and no trailing zeros."""
    return f"{x:.2f}".rstrip("0").rstrip(".")


def text(x: float, y: float, content: str, class_: str = "", anchor: str = "start") -> str:
    """A label; the content is escaped."""
    return tag("text", escape(content), x=float(x), y=float(y), class_=class_ or None, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    """A straight line."""
    return tag("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)


def rect(x: float, y: float, w: float, h: float, class_: str, title: str = "") -> str:
    """A rectangle, with a tooltip when there is a title. Negative sizes become 0."""
    inside = [tag("title", escape(title))] if title else []
    return tag(
        "rect", *inside, x=float(x), y=float(y), width=float(max(w, 0)), height=float(max(h, 0)), class_=class_
    )  # fmt: skip


def figure(width: float, height: float, label: str, *content: str) -> str:
    """A picture that scales with the page; `label` is read out by screen readers."""
    return tag(
        "svg", tag("title", escape(label)), *content,
        xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {number(width)} {number(height)}", role="img",
    )  # fmt: skip


def path(
    x: Iterable[float], y: Iterable[float], class_: str, *, step: bool = False, close_at: float | None = None
) -> str:
    """A line through points; NaN interrupts it. `step` holds each value to the next x, `close_at` fills down to a y."""
    runs: list[list[tuple[float, float]]] = [[]]
    for px, py in zip(x, y, strict=True):
        if math.isnan(py):
            runs.append([])
        else:
            runs[-1].append((px, py))
    d = "".join(_run(run, step, close_at) for run in runs if run)
    return tag("path", d=d, class_=class_)


def _run(run: Sequence[tuple[float, float]], step: bool, close_at: float | None) -> str:
    x0, y0 = run[0]
    out = [f"M{_short(x0)} {_short(y0)}"]
    for px, py in run[1:]:
        out.append(f"H{_short(px)}V{_short(py)}" if step else f"L{_short(px)} {_short(py)}")
    if close_at is not None:
        out.append(f"V{_short(close_at)}H{_short(x0)}Z")
    return "".join(out)


def _short(v: float) -> str:
    return f"{v:.1f}".removesuffix(".0")


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """Value -> coordinate."""
    span = (high - low) or 1.0
    return lambda v: start + (v - low) / span * (end - start)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round values inside [low, high]."""
    raw = max((high - low) / max(count, 1), 1e-12)
    base = 10.0 ** math.floor(math.log10(raw))
    step = next(m * base for m in (1, 2, 2.5, 5, 10) if m * base >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def thousands(x: float) -> str:
    """12,345."""
    return f"{x:,.0f}"


def quantity(x: float) -> str:
    """Three figures and a unit: 1.53 M, 12.4 k, 873."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(x) >= size:
            return f"{x / (1e3 if unit == ' k' else size):.3g}{unit}"
    return f"{x:,.0f}" if abs(x) >= 100 or x == int(x) else f"{x:.3g}"


def duration(seconds: float) -> str:
    """0.42 µs, 3.1 ms, 12.5 s, 30 min 5 s, 2 h 3 min."""
    if seconds < 1:
        for size, unit in ((1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")):
            if seconds >= size:
                return f"{seconds / size:.3g} {unit}"
        return f"{seconds * 1e9:.2g} ns"
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def clock(ns: int, digits: int = 3) -> str:
    """HH:MM:SS.mmm, UTC."""
    t = EPOCH + timedelta(microseconds=ns // 1000)
    whole = f"{t:%H:%M:%S}"
    return f"{whole}.{ns % 10**9 // 10 ** (9 - digits):0{digits}d}" if digits else whole


def day(ns: int) -> str:
    """YYYY-MM-DD, UTC."""
    return f"{EPOCH + timedelta(microseconds=ns // 1000):%Y-%m-%d}"


def png(pixels: NDArray[np.uint8], palette: NDArray[np.uint8]) -> str:
    """Palette image as a data URI: pixels uint8[h, w] index into palette uint8[<=256, 4] (RGBA)."""
    h, w = pixels.shape
    raw = np.zeros((h, w + 1), np.uint8)  # each line begins with filter type 0
    raw[:, 1:] = pixels
    body = b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 3, 0, 0, 0)),
            _chunk(b"PLTE", np.ascontiguousarray(palette[:, :3]).tobytes()),
            _chunk(b"tRNS", np.ascontiguousarray(palette[:, 3]).tobytes()),
            _chunk(b"IDAT", zlib.compress(raw.tobytes(), 9)),
            _chunk(b"IEND", b""),
        )
    )
    return "data:image/png;base64," + base64.b64encode(body).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
