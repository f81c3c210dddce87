"""The report's pictures: heads over time, the book around an episode, drivers, latency."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from microrisk.evaluate.report_data import Alert, BookWindow, Driver, HeadTrace, Latency, PlantedEpisode
from microrisk.evaluate.svg import (
    Scale,
    clock,
    duration,
    figure,
    line,
    linear,
    path,
    png,
    quantity,
    rect,
    tag,
    text,
    ticks,
)
from microrisk.evaluate.words import HEAD_WORDS, meaning

Floats = NDArray[np.float64]

BID = (0, 114, 178)
ASK = (213, 94, 0)
"""Blue and vermilion of the Okabe-Ito palette: told apart with every common colour deficiency."""

WIDE = 1200
LEFT, RIGHT = 150, 14
PANEL, GUTTER, HEADER = 84, 12, 40


# --- heads over time ---


def heads_chart(
    traces: Sequence[HeadTrace], episodes: Sequence[tuple[int, PlantedEpisode]], marks: Sequence[Alert]
) -> str:
    """One panel a head on a common clock: level, threshold, alarms; episodes shaded through all panels.

    episodes : (number shown, episode) of this instrument; marks : its alerts.
    """
    starts = [int(t.ns[0]) for t in traces if len(t.ns)]
    if not starts:
        return ""
    first, last = min(starts), max(int(t.ns[-1]) for t in traces if len(t.ns)) + 250_000_000
    x = linear(first, last, LEFT, WIDE - RIGHT)
    height = HEADER + len(traces) * (PANEL + GUTTER) + 22
    bottom = height - 22 - GUTTER
    body = [rect(LEFT, HEADER + i * (PANEL + GUTTER), WIDE - RIGHT - LEFT, PANEL, "panel") for i in range(len(traces))]
    body.append(_shades(episodes, x, bottom))
    body += [_panel(t, i, x, [a for a in marks if a.head == t.head]) for i, t in enumerate(traces)]
    body.append(_clock_axis(first, last, x, bottom))
    return figure(WIDE, height, f"Levels of the heads of {traces[0].instrument} over time", *body)


def _shades(episodes: Sequence[tuple[int, PlantedEpisode]], x: Scale, bottom: float) -> str:
    """Bands of the episodes with their numbers; labels that would collide go to a second line."""
    out, free = [], [-1e9, -1e9, -1e9]
    for n, e in sorted(episodes, key=lambda p: p[1].start_ns):
        a, b = x(e.start_ns), x(e.end_ns)
        state = "found" if e.found else "missed"
        out.append(rect(a, HEADER - 4, max(b - a, 3), bottom - HEADER + 4, f"band {state}", f"{n} {e.kind}: {state}"))
        label = f"{n} {e.kind}{'' if e.found else ' (missed)'}"
        row = next((r for r, end in enumerate(free) if a >= end), 2)
        free[row] = a + 6.2 * len(label) + 6
        out.append(text(min(a, WIDE - RIGHT - 6.2 * len(label)), HEADER - 8 - 11 * row, label, f"small {state}-text"))
    return "".join(out)


def _panel(trace: HeadTrace, i: int, x: Scale, marks: Iterable[Alert]) -> str:
    top = HEADER + i * (PANEL + GUTTER)
    peak = float(np.nanmax(trace.bits)) if np.isfinite(trace.bits).any() else 1.0
    high = max(peak, (trace.on_bits or 0) * 1.15, 1.0) * 1.05
    y = linear(0, high, top + PANEL, top)
    px, py = _thin(trace, x)
    out = [line(LEFT, y(v), WIDE - RIGHT, y(v), "grid") + text(LEFT - 6, y(v) + 4, f"{v:g}", "tick", "end")
           for v in ticks(0, high, 3)]  # fmt: skip
    out.append(path(px, [y(v) for v in py], "level-fill", close_at=y(0)))
    out.append(path(px, [y(v) for v in py], "level"))
    if trace.on_bits is not None:
        out.append(line(LEFT, y(trace.on_bits), WIDE - RIGHT, y(trace.on_bits), "threshold"))
        out.append(text(LEFT + 4, y(trace.on_bits) - 3, f"alarm at {trace.on_bits:.1f} bits", "small threshold-text"))
    out += [_marker(x(a.ns), top + 3, a) for a in marks]
    out.append(text(0, top + 16, trace.head, "head-name"))
    out += [text(0, top + 31 + 13 * k, words, "small muted") for k, words in enumerate(_wrap(trace.head))]
    return "".join(out)


def _wrap(head: str) -> list[str]:
    return HEAD_WORDS.get(head, "").split(", ")


def _thin(trace: HeadTrace, x: Scale) -> tuple[list[float], list[float]]:
    """At most two points a picture column: the maximum of what falls into it."""
    at = np.asarray([x(v) for v in trace.ns.tolist()])
    column = np.floor(at * 2).astype(np.int64)
    first = np.flatnonzero(np.r_[True, np.diff(column) > 0]) if len(at) else np.zeros(0, np.int64)
    # NaN marks silence; it survives only where a whole column is silent
    top = np.fmax.reduceat(trace.bits, first) if len(first) else trace.bits
    return at[first].tolist(), top.tolist()


def _marker(x: float, y: float, alert: Alert) -> str:
    state = "false-mark" if alert.episode is None else "true-mark"
    title = tag("title", f"{clock(alert.ns)} {alert.head} {alert.bits:.1f} bits")
    return tag("path", title, d=f"M{x - 5:.1f} {y:.1f}h10l-5 8z", class_=f"mark {state}")


def _clock_axis(first: int, last: int, x: Scale, bottom: float) -> str:
    """Round times of day under the panels."""
    span = (last - first) / 1e9
    step = next((s for s in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200) if span / s <= 12), 14400)
    at = math.ceil(first / 1e9 / step) * step
    out = []
    while at * 10**9 <= last:
        out.append(line(x(at * 1e9), bottom, x(at * 1e9), bottom + 4, "axis"))
        out.append(text(x(at * 1e9), bottom + 17, clock(int(at * 10**9), 0), "tick", "middle"))
        at += step
    return "".join(out) + text(0, bottom + 17, "time of day, UTC", "tick")


# --- the book ---

BOOK_W, BOOK_H = 780, 250
BOOK_LEFT, BOOK_TOP = 66, 26
STRIP = 11


def book_chart(
    window: BookWindow,
    zero_ns: int,
    episode: PlantedEpisode | None,
    marks: Sequence[Alert],
    traces: Sequence[HeadTrace],
) -> str:
    """Resting size by price and time, best prices, trades, alerts; under it a strip of levels, one row a head.

    zero_ns : time 0 of the axis (start of the episode, or the alert).
    """
    step = int(window.ns[1] - window.ns[0]) if len(window.ns) > 1 else 50_000_000
    first, last = int(window.ns[0]), int(window.ns[-1]) + step
    x = linear(first, last, BOOK_LEFT, BOOK_W)
    tick = float(window.px[1] - window.px[0]) if len(window.px) > 1 else 1.0
    y = linear(window.px[0] - tick / 2, window.px[-1] + tick / 2, BOOK_TOP + BOOK_H, BOOK_TOP)
    height = BOOK_TOP + BOOK_H + 8 + STRIP * len(traces) + 36
    body = [
        rect(BOOK_LEFT, BOOK_TOP, BOOK_W - BOOK_LEFT, BOOK_H, "panel"),
        _heat(window),
        _price_axis(window, y, tick),
        _best(window, x, y, step),
        _trades(window, x, y),
        _episode_bar(episode, x, first, last),
        _strip(traces, x, first, last),
        *(_alert_line(a, x, zero_ns, k) for k, a in enumerate(b for b in marks if first <= b.ns < last)),
        _seconds_axis(zero_ns, first, last, x, height - 24),
    ]
    return figure(BOOK_W, height, f"Book of {window.instrument} around {clock(zero_ns)} UTC", *body)


def heat_pixels(window: BookWindow) -> NDArray[np.uint8]:
    """Palette index uint8[p, t], highest price first: 0 nothing, 1..127 bids, 128..254 asks, by log of the size."""
    sizes = np.concatenate([window.bid[window.bid > 0], window.ask[window.ask > 0]])
    if not len(sizes):
        return np.zeros(window.bid.shape, np.uint8)
    # the largest hundredth shares one colour, so that one giant order does not wash out the rest
    low, high = np.log(np.quantile(sizes, 0.05)), np.log(np.quantile(sizes, 0.99))
    span = max(high - low, 1e-9)

    def shade(side: Floats) -> NDArray[np.int64]:
        level = (np.log(np.maximum(side, 1e-300)) - low) / span
        return np.asarray(1 + np.clip(level * 126, 0, 126), np.int64)

    index = np.where(window.bid > 0, shade(window.bid), 0)
    index = np.where(window.ask > window.bid, 127 + shade(window.ask), index)
    return index[::-1].astype(np.uint8)


def heat_palette() -> NDArray[np.uint8]:
    """uint8[255, 4]: transparent, then both sides with rising opacity."""
    out = np.zeros((255, 4), np.uint8)
    opacity = np.linspace(28, 235, 127).astype(np.uint8)
    for k, colour in enumerate((BID, ASK)):
        out[1 + 127 * k : 128 + 127 * k, :3] = colour
        out[1 + 127 * k : 128 + 127 * k, 3] = opacity
    return out


def _heat(window: BookWindow) -> str:
    return tag(
        "image", x=BOOK_LEFT, y=BOOK_TOP, width=BOOK_W - BOOK_LEFT, height=BOOK_H, preserveAspectRatio="none",
        class_="heat", href=png(heat_pixels(window), heat_palette()),
    )  # fmt: skip


def _price_axis(window: BookWindow, y: Scale, tick: float) -> str:
    digits = max(0, -math.floor(math.log10(tick) + 1e-9)) if tick < 1 else 0
    out = []
    for v in ticks(float(window.px[0]), float(window.px[-1]), 6):
        out.append(line(BOOK_LEFT - 4, y(v), BOOK_LEFT, y(v), "axis"))
        out.append(text(BOOK_LEFT - 7, y(v) + 4, f"{v:.{digits}f}", "tick", "end"))
    return "".join(out) + text(0, 12, "price", "small muted")


def _best(window: BookWindow, x: Scale, y: Scale, step: int) -> str:
    at = [x(t) for t in window.ns.tolist()]
    out = []
    for values, name in ((window.best_bid, "bid-line"), (window.best_ask, "ask-line")):
        inside = (values >= window.px[0]) & (values <= window.px[-1])
        shown = [y(v) if ok else math.nan for v, ok in zip(values.tolist(), inside.tolist(), strict=True)]
        out.append(path(*_corners(at, shown, x(int(window.ns[-1]) + step)), name, step=True))
    return "".join(out)


def _corners(x: list[float], y: list[float], end: float) -> tuple[list[float], list[float]]:
    """Only points where the value changes, plus the end: a step line is drawn from its corners."""
    # repr() makes NaN equal to NaN
    keep = [i for i in range(len(y)) if i == 0 or repr(y[i]) != repr(y[i - 1])]
    return [x[i] for i in keep] + [end], [y[i] for i in keep] + [y[-1]]


def _trades(window: BookWindow, x: Scale, y: Scale) -> str:
    t = window.trades
    if not len(t.ns):
        return ""
    inside = (t.px >= window.px[0]) & (t.px <= window.px[-1])
    most = float(np.quantile(t.qty, 0.95)) or 1.0
    out = []
    for ns, px, qty, side in zip(t.ns[inside], t.px[inside], t.qty[inside], t.aggressor[inside], strict=True):
        r = 1.5 + 5.5 * math.sqrt(min(float(qty) / most, 2.0))
        out.append(tag("circle", cx=x(float(ns)), cy=y(float(px)), r=r, class_="buy" if side > 0 else "sell"))
    return "".join(out)


def _episode_bar(episode: PlantedEpisode | None, x: Scale, first: int, last: int) -> str:
    """A bar over the picture while the episode is active."""
    if episode is None:
        return ""
    a, b = x(max(episode.start_ns, first)), x(min(episode.end_ns, last))
    bar = rect(a, BOOK_TOP - 8, max(b - a, 2), 5, "episode-bar")
    return bar + text(a, BOOK_TOP - 12, f"{episode.kind} active", "small episode-text")


def _alert_line(alert: Alert, x: Scale, zero_ns: int, k: int) -> str:
    """The k-th alert; labels stand under each other, so that they never cover one another."""
    at = x(alert.ns)
    bottom = BOOK_TOP + BOOK_H
    words = f"{alert.head} {(alert.ns - zero_ns) / 1e9:+.2f} s"
    right = at > BOOK_W - 130
    return (
        line(at, BOOK_TOP, at, bottom, "alert-line")
        + tag("path", d=f"M{at - 6:.1f} {BOOK_TOP}h12l-6 9z", class_="mark true-mark")
        + text(at + (-8 if right else 8), bottom - 6 - 15 * k, words, "alert-text halo", "end" if right else "start")
    )


def _strip(traces: Sequence[HeadTrace], x: Scale, first: int, last: int) -> str:
    """Level of each head per 250 ms: opacity up to the threshold, a solid block above it."""
    out = []
    for i, t in enumerate(traces):
        top = BOOK_TOP + BOOK_H + 8 + i * STRIP
        out.append(text(BOOK_LEFT - 7, top + 9, t.head, "tick", "end"))
        full = t.on_bits or (float(np.nanmax(t.bits)) if np.isfinite(t.bits).any() else 1.0)
        inside = np.flatnonzero((t.ns + 250_000_000 > first) & (t.ns < last) & np.isfinite(t.bits))
        for ns, bits in zip(t.ns[inside].tolist(), t.bits[inside].tolist(), strict=True):
            a, b = x(max(ns, first)), x(min(ns + 250_000_000, last))
            on = t.on_bits is not None and bits >= t.on_bits
            share = 1.0 if on else min(max(bits / full, 0.0), 1.0) ** 2 * 0.6
            if share > 0.02:
                out.append(tag("rect", x=a, y=float(top), width=b - a + 0.3, height=float(STRIP - 2),
                               class_="strip-on" if on else "strip", opacity=share))  # fmt: skip
    return "".join(out)


def _seconds_axis(zero: int, first: int, last: int, x: Scale, y: float) -> str:
    out = []
    for v in ticks((first - zero) / 1e9, (last - zero) / 1e9, 9):
        at = x(zero + v * 1e9)
        if at < BOOK_LEFT + 12:
            continue  # the name of the axis stands there
        out.append(line(at, y, at, y + 4, "axis") + text(at, y + 17, f"{v:+g}" if v else "0", "tick", "middle"))
    return "".join(out) + text(0, y + 17, "seconds", "tick")


# --- drivers ---

DRIVER_W, DRIVER_ROW = 380, 34


def drivers_chart(drivers: Sequence[Driver]) -> str:
    """Bars to the right for unusually high, to the left for unusually low, with the meaning in words."""
    if not drivers:
        return ""
    x = linear(-8, 8, 0, DRIVER_W)
    height = DRIVER_ROW * len(drivers) + 22
    out = [line(x(v), 0, x(v), height - 20, "grid") for v in (-8, -4, 4, 8)]
    for i, d in enumerate(drivers):
        out.append(_driver(d, i * DRIVER_ROW, x))
    out.append(line(x(0), 0, x(0), height - 20, "axis"))
    out += [text(min(max(x(v), 10), DRIVER_W - 10), height - 6, f"{v:+d} σ" if v else "usual", "tick", "middle")
            for v in (-8, -4, 0, 4, 8)]  # fmt: skip
    return figure(DRIVER_W, height, "Drivers of the alert", *out)


def _driver(d: Driver, top: float, x: Scale) -> str:
    a, b = sorted((x(0), x(max(min(d.sigma, 8), -8))))
    side = "high" if d.sigma >= 0 else "low"
    words = meaning(d.feature, d.sigma)
    value = f"{d.sigma:+.1f} σ"
    # words stand on the empty side of the zero line
    at, anchor = (x(0) - 6, "end") if d.sigma >= 0 else (x(0) + 6, "start")
    inside, inner = (x(0) + 6, "start") if d.sigma >= 0 else (x(0) - 6, "end")
    return (
        rect(a, top + 4, b - a, 14, f"bar {side}", f"{d.feature} {value}: {words}")
        + text(at, top + 15, value, "value", anchor)
        + text(inside, top + 29, words, "small", inner)
        + text(at, top + 29, d.feature, "small muted", anchor)
    )


# --- what was not enough ---


def peaks_chart(peaks: Sequence[tuple[str, float, float | None]]) -> str:
    """(head, highest level, threshold) of a missed episode: how far each head was from its alarm."""
    high = max([p for _, p, _ in peaks] + [on for _, _, on in peaks if on is not None] + [1.0]) * 1.1
    x = linear(0, high, 74, DRIVER_W)
    height = 30 * len(peaks) + 22
    out = []
    for i, (head, peak, on) in enumerate(peaks):
        top = 30.0 * i
        out.append(text(68, top + 15, head, "value", "end"))
        out.append(rect(74, top + 4, x(peak) - 74, 14, "bar quiet", f"{head}: {peak:.1f} bits"))
        out.append(text(x(peak) + 4, top + 15, f"{peak:.1f}", "small halo"))
        if on is not None:
            out.append(line(x(on), top, x(on), top + 22, "threshold"))
    out.append(line(74, 0, 74, height - 20, "axis"))
    out += [text(x(v), height - 6, f"{v:g} bits" if v else "0", "tick", "middle") for v in ticks(0, high, 4)]
    return figure(DRIVER_W, height, "Highest level of each head against its threshold", *out)


# --- latency ---

LAT_W, LAT_H = 560, 190


def percentiles(latency: Latency, shares: Sequence[float]) -> list[float]:
    """Upper edge in ns of the bucket that holds each share of the messages; NaN without messages."""
    counts = np.asarray(latency.counts, float)
    edges = np.asarray(latency.edges_ns, float)
    if not counts.sum():
        return [math.nan] * len(shares)
    upper = edges[1 : len(counts) + 1] if len(edges) > len(counts) else np.r_[edges[1:], edges[-1] * 2]
    total = np.cumsum(counts)
    at = np.searchsorted(total, np.asarray(shares) * total[-1] * (1 - 1e-12), "left")
    return [float(v) for v in upper[np.minimum(at, len(upper) - 1)]]


def latency_chart(latency: Latency) -> str:
    """Share of messages by time taken on a logarithmic axis; p50, p99, p99.9 marked."""
    counts = np.asarray(latency.counts, float)
    edges = np.maximum(np.asarray(latency.edges_ns, float), 1.0)
    if not counts.sum():
        return ""
    used = np.flatnonzero(counts)
    low = edges[used[0]]
    high = edges[min(used[-1] + 1, len(edges) - 1)]
    x = linear(math.log10(low) - 0.05, math.log10(high) + 0.05, 40, LAT_W - 10)
    share = _rebin(counts, edges, x)
    y = linear(0, max(share.values()) * 1.08, LAT_H - 26, 40)
    out = [rect(k * 4.0, y(v), 3.4, LAT_H - 26 - y(v), "latency-bar", f"{v:.2%}") for k, v in share.items()]
    out += [_decade(10.0**k, x) for k in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    out.append(line(40, LAT_H - 26, LAT_W - 10, LAT_H - 26, "axis"))
    out += [text(36, y(v) + 4, f"{v * 100:g} %", "tick", "end") for v in ticks(0, max(share.values()), 3)]
    marks = zip(("p50", "p99", "p99.9"), percentiles(latency, (0.5, 0.99, 0.999)), strict=True)
    out += [_percentile(name, v, x, i) for i, (name, v) in enumerate(marks)]
    return figure(LAT_W, LAT_H, "Time per message from bytes to decision", *out)


def _rebin(counts: Floats, edges: Floats, x: Scale) -> dict[int, float]:
    """Share of messages per 4 picture units; a bucket is spread evenly over the columns that it covers."""
    borders = edges[: len(counts) + 1] if len(edges) > len(counts) else np.r_[edges, edges[-1] * 2]
    at = np.asarray([x(math.log10(e)) for e in borders.tolist()]) / 4
    below = np.r_[0.0, np.cumsum(counts)] / counts.sum()
    columns = np.arange(math.floor(at[0]), math.ceil(at[-1]) + 1)
    share = np.diff(np.interp(columns, at, below))
    return {int(k): float(v) for k, v in zip(columns[:-1], share, strict=True) if v > 0}


def _decade(ns: float, x: Scale) -> str:
    at = x(math.log10(ns))
    return line(at, LAT_H - 26, at, LAT_H - 22, "axis") + text(at, LAT_H - 9, duration(ns / 1e9), "tick", "middle")


def _percentile(name: str, ns: float, x: Scale, i: int) -> str:
    at, top = x(math.log10(max(ns, 1))), 14 + 13 * i
    right = at > LAT_W - 120
    label = f"{name} {duration(ns / 1e9)}"
    return line(at, top - 8, at, LAT_H - 26, "threshold") + text(
        at + (-5 if right else 5), top, label, "value halo", "end" if right else "start"
    )


def sizes_in_words(window: BookWindow) -> str:
    """What the colours stand for."""
    sizes = np.concatenate([window.bid[window.bid > 0], window.ask[window.ask > 0]])
    if not len(sizes):
        return "The book is empty."
    low, high = np.quantile(sizes, (0.05, 0.99))
    return f"Faintest colour: {quantity(float(low))} resting at a price; strongest: {quantity(float(high))} or more."
