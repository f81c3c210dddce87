"""The sections of the report as HTML; pictures come from `charts`, the frame from page.html and page.css."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from string import Template

import numpy as np

from microrisk.evaluate.charts import (
    book_chart,
    drivers_chart,
    heads_chart,
    latency_chart,
    peaks_chart,
    percentiles,
    sizes_in_words,
)
from microrisk.evaluate.report_data import Alert, BookWindow, HeadTrace, PlantedEpisode, Report
from microrisk.evaluate.svg import clock, day, duration, quantity, thousands
from microrisk.evaluate.words import FINDING_WORDS, HEAD_WORDS, KIND_WORDS, meaning
from microrisk.spec.features import ALL_MASK, FEATURES

TAIL_NS = 5_000_000_000


def page(report: Report) -> str:
    """HTML of the whole report."""
    here = files("microrisk.evaluate")
    sections = (
        _answer(report),
        _tiles(report),
        _episodes(report),
        _heads(report),
        _events(report),
        _false_alarms(report),
        '<div class="two">' + _latency(report) + _integrity(report) + "</div>",
        '<div class="two">' + _model(report) + _commands(report) + "</div>",
    )
    return Template((here / "page.html").read_text("utf-8")).substitute(
        title=escape(report.title),
        source=escape(report.source),
        style=(here / "page.css").read_text("utf-8"),
        body="\n".join(s for s in sections if s),
        footer="".join(f"<p>{escape(n)}</p>" for n in report.notes),
    )


# --- first screen ---


def _answer(report: Report) -> str:
    """The result in one sentence."""
    span = duration(report.headline.market_seconds)
    n = len(report.episodes)
    if not n:
        return f'<p class="answer">{_count(len(report.alerts), "alert")} in {span} of market time.</p>'
    found = sum(e.found for e in report.episodes)
    false = len(report.false_alarms())
    missed = sorted({e.kind for e in report.episodes if not e.found})
    tail = f" Missed: {_list([_missed_of(report, k) for k in missed])}." if missed else " None was missed."
    return (
        f'<p class="answer"><b>{found} of {n}</b> planted episodes found, with <b>{_count(false, "false alarm")}</b> '
        f"in {span} of market time.{escape(tail)}</p>"
    )


def _missed_of(report: Report, kind: str) -> str:
    of = [e for e in report.episodes if e.kind == kind]
    return f"{sum(not e.found for e in of)} of {len(of)} {kind}"


def _tiles(report: Report) -> str:
    h = report.headline
    delays = sorted(d for i in range(len(report.episodes)) if (d := report.delay_s(i)) is not None)
    tiles = []
    if report.episodes:
        found = f"{len(delays)} / {len(report.episodes)}"
        hours = h.market_seconds / 3600
        false = len(report.false_alarms())
        tiles += [
            (found, "episodes found"),
            (duration(delays[(len(delays) - 1) // 2]) if delays else "-", "median delay of the found"),
            (f"{false / hours:.1f} / h" if hours else "-", f"false alarms ({false} in all)"),
        ]
    else:
        tiles += [(thousands(len(report.alerts)), "alerts"), (thousands(len(report.instruments)), "instruments")]
    speed = h.messages / h.seconds if h.seconds else 0.0
    tiles += [
        (thousands(h.events), f"book events in {_count(len(report.instruments), 'instrument')}"),
        (f"{quantity(speed)} / s", f"messages, {duration(h.seconds)} in all"),
    ]
    if report.latency is not None:
        p99 = percentiles(report.latency, (0.99,))[0]
        tiles.append((duration(p99 / 1e9) if p99 == p99 else "-", "p99, bytes of a message to decision"))
    else:
        tiles.append((thousands(h.rows), "rows scored"))
    cells = "".join(f'<div class="tile"><b>{escape(a)}</b><span>{escape(b)}</span></div>' for a, b in tiles)
    return f'<div class="tiles">{cells}</div>'


def _episodes(report: Report) -> str:
    if not report.episodes:
        return ""
    shown = {i for what, i, _ in report.books if what == "episode"}
    rows = "".join(_episode_row(report, i, e, i in shown) for i, e in enumerate(report.episodes))
    first = report.episodes[0].start_ns
    heads = (
        "<th class=n>#</th><th>kind</th><th>starts (UTC)</th><th class=n>lasts</th><th class=n>strength</th>"
        + ("<th>instrument</th>" if len(report.instruments) > 1 else "")
        + "<th>result</th><th class=n>after</th><th>by</th><th>driven by</th>"
    )
    return (
        f"<section><h2>What was planted, and what became of it</h2><p class=lead>{day(first)}. An episode counts as "
        "found when an alert comes while it lasts or in the 5 s after it.</p>"
        f"<div class=scroll><table><tr>{heads}</tr>{rows}</table></div></section>"
    )


def _episode_row(report: Report, i: int, e: PlantedEpisode, linked: bool) -> str:
    kind = f'<a href="#episode-{i}">{escape(e.kind)}</a>' if linked else escape(e.kind)
    lasts = duration((e.end_ns - e.start_ns) / 1e9)
    result, after, by, drivers = '<span class="verdict missed">✕ missed</span>', "", "", ""
    if e.alert is not None:
        a = report.alerts[e.alert]
        result = '<span class="verdict found">✓ found</span>'
        after = duration(report.delay_s(i) or 0.0) if report.delay_s(i) else "at once"
        by = _heads_of(report, i, a)
        drivers = _list([meaning(d.feature, d.sigma) for d in a.drivers[:2]])
    where = f"<td>{escape(e.instrument)}</td>" if len(report.instruments) > 1 else ""
    cells = (
        f"<td class=n>{i + 1}</td><td>{kind}</td><td class=nowrap>{clock(e.start_ns)}</td>"
        f'<td class="n nowrap">{lasts}</td><td class=n>{e.strength:.2f}</td>{where}'
        f'<td>{result}</td><td class="n nowrap">{after}</td><td>{escape(by)}</td><td>{escape(drivers)}</td>'
    )
    return f"<tr>{cells}</tr>"


def _heads_of(report: Report, i: int, first: Alert) -> str:
    """The head that was first, then the others that raised an alert too."""
    others = [a.head for a in report.alerts if a.episode == i and a.head != first.head]
    return first.head + (f", then {_list(list(dict.fromkeys(others)))}" if others else "")


# --- pictures ---


def _heads(report: Report) -> str:
    out = []
    for name in report.instruments:
        traces = [t for t in report.traces if t.instrument == name and len(t.ns)]
        if traces:
            mine = [(i + 1, e) for i, e in enumerate(report.episodes) if e.instrument == name]
            marks = [a for a in report.alerts if a.instrument == name]
            out.append(f"<h3>{escape(name)}</h3>" + heads_chart(traces, mine, marks))
    if not out:
        return ""
    key = _key(
        ("k-found", "episode, found"), ("k-missed", "episode, missed"), ("▼", "alert"),
        ("▽", "alert without an episode"), ("k-threshold", "alarm threshold"),
    )  # fmt: skip
    lead = (
        "One panel a head. The level says how rare a score is: 10 bits is once in 1,024 rows of calm trading, "
        "20 bits once in a million. Each point is the maximum of 250 ms; gaps are silence."
    )
    return f"<section><h2>How unusual the market looked</h2><p class=lead>{lead}</p>{key}{''.join(out)}</section>"


def _events(report: Report) -> str:
    if not report.books:
        return ""
    key = _key(
        ("k-bid", "bids"), ("k-ask", "asks"), ("k-buy dot", "trade, buyer took"), ("k-sell dot", "trade, seller took"),
        ("▼", "alert"), ("k-ask", "strip under the picture: level of a head at or above its threshold"),
    )  # fmt: skip
    lead = (
        "Resting orders by price and time; the stronger the colour, the larger. Lines are best bid and best ask. "
        "Beside each picture: the features that made the alert, in standard deviations from what is usual here."
    )
    cards = "".join(_event(report, what, i, window) for what, i, window in report.books)
    return f"<section><h2>The book, moment by moment</h2><p class=lead>{lead}</p>{key}</section>{cards}"


def _event(report: Report, what: str, i: int, window: BookWindow) -> str:
    """One card: sentence, book, drivers."""
    traces = [t for t in report.traces if t.instrument == window.instrument and len(t.ns)]
    if what == "episode":
        e = report.episodes[i]
        alert = None if e.alert is None else report.alerts[e.alert]
        marks = [a for a in report.alerts if a.episode == i and a.ns >= e.start_ns]
        title, words = f"{i + 1}. {e.kind.capitalize()}, {clock(e.start_ns)} UTC", _episode_words(report, i)
        zero = e.start_ns
        picture = book_chart(window, zero, e, _first_per_head(marks), traces)
    else:
        alert = report.alerts[i]
        title, words = f"Alert by {alert.head}, {clock(alert.ns)} UTC", _alert_words(alert)
        zero = alert.ns
        picture = book_chart(window, zero, None, [alert], traces)
    side = ""
    if alert is None:
        side = "<h3>Why nothing rang</h3>" + peaks_chart(_peaks(report.episodes[i], traces))
    elif alert.drivers:
        side = f"<h3>Why {escape(alert.head)} rang</h3>" + drivers_chart(alert.drivers[:6])
    return (
        f'<section class="event" id="{what}-{i}"><div class="head"><h2>{escape(title)}</h2><p>{words}</p></div>'
        f"<div>{picture}<p class=muted>{sizes_in_words(window)}</p></div>"
        f'<div class="drivers">{side}</div></section>'
    )


def _peaks(e: PlantedEpisode, traces: Sequence[HeadTrace]) -> list[tuple[str, float, float | None]]:
    """Per head, the highest level while an alert would have counted, and the threshold."""
    out = []
    for t in traces:
        inside = t.bits[(t.ns + 250_000_000 > e.start_ns) & (t.ns <= e.end_ns + TAIL_NS)]
        inside = inside[np.isfinite(inside)]
        out.append((t.head, float(inside.max()) if len(inside) else 0.0, t.on_bits))
    return out


def _first_per_head(marks: Iterable[Alert]) -> list[Alert]:
    """One line a head is enough; repeated alarms of an episode stay in the overview."""
    first: dict[str, Alert] = {}
    for a in marks:
        first.setdefault(a.head, a)
    return list(first.values())


def _episode_words(report: Report, i: int) -> str:
    e = report.episodes[i]
    lasts = duration((e.end_ns - e.start_ns) / 1e9)
    what = f"{KIND_WORDS.get(e.kind, '')} It lasts {lasts}, strength {e.strength:.2f}. "
    if e.alert is None:
        return escape(what) + '<span class="verdict missed">Missed: no head rang.</span>'
    a = report.alerts[e.alert]
    after = report.delay_s(i) or 0.0
    when = f"{duration(after)} after the start" if after else "at the start"
    return escape(what) + f'<span class="verdict found">Found {when}</span> by {escape(_level(a))}.'


def _alert_words(a: Alert) -> str:
    return f"By {escape(_level(a))}. No planted episode is near."


def _level(a: Alert) -> str:
    return f"{a.head} ({HEAD_WORDS.get(a.head, '')}) at {a.bits:.1f} bits, once in {quantity(2.0**a.bits)} calm rows"


def _false_alarms(report: Report) -> str:
    if not report.episodes:
        return ""
    rows = report.false_alarms()
    if not rows:
        return "<section><h2>False alarms</h2><p>None: every alert lies within 5 s of a planted episode.</p></section>"
    shown = {i for what, i, _ in report.books if what == "alert"}
    place = {id(a): i for i, a in enumerate(report.alerts)}
    body = ""
    for a in rows:
        when = clock(a.ns)
        if place[id(a)] in shown:
            when = f'<a href="#alert-{place[id(a)]}">{when}</a>'
        why = _list([meaning(d.feature, d.sigma) for d in a.drivers[:3]])
        body += (
            f"<tr><td>{when}</td><td>{escape(a.instrument)}</td><td>{escape(a.head)}</td><td class=n>{a.bits:.1f}</td>"
            f"<td>{escape(why)}</td></tr>"
        )
    return (
        f"<section><h2>False alarms</h2><p class=lead>{_count(len(rows), 'alert')} with no planted episode within 5 s; "
        "alerts at most 5 s apart count once.</p><div class=scroll><table><tr><th>time (UTC)</th><th>instrument</th>"
        f"<th>head</th><th class=n>bits</th><th>driven by</th></tr>{body}</table></div></section>"
    )


# --- facts ---


def _latency(report: Report) -> str:
    if report.latency is None or not report.latency.counts.sum():
        return "<section><h2>Time per message</h2><p>Not measured in this run.</p></section>"
    p50, p999 = (duration(v / 1e9) for v in percentiles(report.latency, (0.5, 0.999)))
    lead = (
        f"From the bytes of a message to the decision about it, on this machine: half of them within {p50}, "
        f"all but one in a thousand within {p999}. The axis is logarithmic."
    )
    return f"<section><h2>Time per message</h2><p class=lead>{lead}</p>{latency_chart(report.latency)}</section>"


def _integrity(report: Report) -> str:
    seen = {k: v for k, v in report.integrity.items() if v}
    clean = len(report.integrity) - len(seen)
    rows = "".join(
        f"<tr><td class=n>{thousands(v)}</td><td>{escape(FINDING_WORDS.get(k, k))}</td>"
        f"<td><code>{escape(k)}</code></td></tr>"
        for k, v in sorted(seen.items(), key=lambda p: -p[1])
    )
    table = f"<table>{rows}</table>" if rows else ""
    lead = (
        f"{_count(len(seen), 'kind')} of finding; {clean} others did not occur. A doubtful book is marked as such."
        if seen
        else f"No finding: each of {clean} checks passed on every message."
    )
    more = "".join(f"<li>{escape(f)}</li>" for f in list(report.findings)[:20])
    left = len(report.findings) - 20
    more += f"<li>and {thousands(left)} more</li>" if left > 0 else ""
    listed = f"<ul>{more}</ul>" if more else ""
    return f"<section><h2>Feed and book integrity</h2><p class=lead>{escape(lead)}</p>{table}{listed}</section>"


def _model(report: Report) -> str:
    m = report.model
    off = [f.name for f in FEATURES if not m.mask >> f.index & 1]
    facts = [
        ("model", m.name),
        ("format", m.format_hash),
        ("tables", f"{m.table} ({'fitted to this instrument' if m.table == 'own' else 'shared by all instruments'})"),
        ("levels", m.level),
        ("back end", m.backend),
        ("features", f"all {len(FEATURES)}" if m.mask & ALL_MASK == ALL_MASK else f"without {', '.join(off)}"),
    ]
    if m.trained_on:
        facts.append(("trained on", m.trained_on))
    if report.headline.bytes_read:
        read, rows = quantity(report.headline.bytes_read), thousands(report.headline.rows)
        facts.append(("input", f"{read} bytes, {rows} rows scored"))
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts)
    return f"<section><h2>What scored</h2><dl>{items}</dl></section>"


def _commands(report: Report) -> str:
    if not report.commands:
        return "<section><h2>Next</h2><p>microrisk --help lists every command.</p></section>"
    items = "".join(f"<dt>{escape(who)}</dt><dd><code>{escape(cmd)}</code></dd>" for who, cmd in report.commands)
    return f"<section><h2>Next</h2><dl>{items}</dl></section>"


# --- words ---


def _key(*entries: tuple[str, str]) -> str:
    """Legend: (class of a swatch, or the sign itself; meaning)."""

    def sign(c: str) -> str:
        return f'<i class="{c}"></i>' if c.isascii() else f"<b>{c}</b> "

    return '<div class="key">' + "".join(f"<span>{sign(c)}{escape(w)}</span>" for c, w in entries) + "</div>"


def _count(n: int, noun: str) -> str:
    return f"{thousands(n)} {noun}{'' if n == 1 else 's'}"


def _list(words: Sequence[str]) -> str:
    """a, b and c."""
    return ", ".join(words[:-1]) + f" and {words[-1]}" if len(words) > 1 else "".join(words)
