"""The result of `bench` as tables for people."""

from __future__ import annotations

from typing import Any

from microrisk.cli.console import say, table

BAR = 14
"""Characters of the longest bar."""


def say_bench(result: dict[str, Any]) -> None:
    """Figures with bars, agreement, memory and latency."""
    cpu = f"{result['machine']['cpu']}, {result['machine']['cores']} cores, Python {result['machine']['python']}"
    source = result["input"] if isinstance(result["input"], str) else " ".join(result["input"])
    say(f"{cpu}; {source} ({result['format']}, {result['bytes'] / 1e6:,.1f} MB)")
    title = f"median of {result['repeats']} rounds; the ratio is their time over ours in the same round"
    columns = ["figure", "who", "rate", "", "each", "low-high", "ratio", "CPU ratio", "items", "note"]
    table(title, columns, _figures(result["figures"]))
    for line in result["agreement"]:
        say(f"equal: {line}")
    lat = ", ".join(f"{k} {v:,.0f}" for k, v in result["tick_to_alert_ns"].items() if k != "messages")
    say(f"message in memory to alarm decision, back to back, ns: {lat}")
    _memory(result["memory"])
    if result["latency"] is not None:
        _latency(result["latency"])


def say_live(result: dict[str, Any]) -> None:
    """The rate that is held, and latency at shares of it."""
    held = result["held_messages_per_s"]
    say(f"held: {held:,.0f} messages/s" if held else "not held: messages were dropped or left missing")
    columns = ["load", "messages/s", "stage", "p50", "p99", "p99.9", "max"]
    rows: list[list[Any]] = []
    for load, run in result["runs"].items():
        rate = f"{run['asked']:,.0f}"
        for name, s in run["stages"].items():
            figures = [_us(s[k]) for k in ("p50_us", "p99_us", "p999_us", "max_us")]
            rows.append([load if rate else "", rate, name.replace("_", " to "), *figures])
            rate = ""
        alert = run["alert_us"]
        if run["alerts"]:
            rows.append(["", "", "receive to alert told", *(_us(alert[k]) for k in ("p50", "p99", "p999")), ""])
    table("latency", columns, rows)
    for load, run in result["runs"].items():
        sent = run["sent"]
        late = _us(sent["late_p99_us"])
        say(
            f"{load}: {run['applied']:,} of {sent['messages']:,} messages applied, {run['kernel_drops']:,} dropped, "
            f"{run['names']:,} names, {run['scored']:,} scored, {run['alerts']:,} alerts; processor: monitor "
            f"{run['cpu_share']:.2f}, sender {sent['cpu_share']:.2f} of a core; sender late p99 {late}"
        )


def _us(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value / 1000:,.2f} ms" if value >= 1000 else f"{value:,.0f} us"


def _figures(figures: list[dict[str, Any]]) -> list[list[Any]]:
    fastest: dict[str, float] = {}
    for f in figures:
        fastest[f["stage"]] = max(fastest.get(f["stage"], 0.0), f["millions_per_second"])
    out, last = [], ""
    for f in figures:
        out.append([
            f["stage"] if f["stage"] != last else "",
            f["who"],
            f"{f['millions_per_second']:.3g} M {f['unit']}/s",
            bar(f["millions_per_second"], fastest[f["stage"]]),
            f"{f['ns_each']:,.0f} ns",
            f"{f['ns_low']:,.0f}-{f['ns_high']:,.0f}",
            _ratio(f, "ratio"),
            _ratio(f, "cpu_ratio"),
            f"{f['items']:,}",
            f["note"],
        ])  # fmt: skip
        last = f["stage"]
    return out


def _ratio(figure: dict[str, Any], name: str) -> str:
    if name not in figure:
        return ""
    return f"{figure[name]:.2f} [{figure[name + '_low']:.2f}-{figure[name + '_high']:.2f}]"


def bar(value: float, most: float, width: int = BAR) -> str:
    """Blocks in eighths of a character; at least a sliver of what is not zero."""
    eighths = max(round(8 * width * value / most), 1) if most > 0 and value > 0 else 0
    parts: tuple[str, ...] = ("", *"\u258f\u258e\u258d\u258c\u258b\u258a\u2589")
    return "\u2588" * (eighths // 8) + parts[eighths % 8]


def _memory(found: dict[str, Any]) -> None:
    if "unavailable" in found:
        say(f"memory: {found['unavailable']}")
        return
    text = f"{found['anonymous'] / 1e6:,.1f} MB anonymous for {found['live_orders']:,} resting orders and their books"
    say(f"memory of a replay: {text}; further passes {_mb(found['second_pass'])} and {_mb(found['third_pass'])}")


def _mb(count: float) -> str:
    return f"{count / 1e6:+,.1f} MB"


def _latency(found: dict[str, Any]) -> None:
    columns = ["stage", "load", "arrivals", "messages/s", "p50", "p99", "p99.9", "max", "late", "away", "longest away"]
    rows = [[
        r["stage"],
        f"{r['load']:.0%} of {r['capacity_per_second'] / 1e6:.2f} M/s",
        r["arrivals"],
        f"{r['rate_per_second']:,}",
        *(f"{r['latency'][k]:,}" for k in ("p50", "p99", "p99.9", "max")),
        f"{r['late'] / max(r['messages'], 1):.1%}",
        f"{r['away']['share']:.2%}",
        f"{r['away']['max_ns'] / 1e3:,.0f} us",
    ] for r in found["runs"]]  # fmt: skip
    table("paced latency from due time to done, ns", columns, rows)
    m = found["machine"]
    stolen = f", {m['stolen_share']:.1%} stolen by the host" if "stolen_share" in m else ""
    away = f"away {m['away']['share']:.2%} of the time, at most {m['away']['max_ns'] / 1e3:,.0f} us{stolen}"
    say(f"the machine alone: a reading of the clock {m['clock_ns']} ns; an empty loop was {away}")
