"""Prometheus exposition of a running monitor: read from its hub when it is asked for, in a registry of its own.

Names are `microrisk_<what>_<unit>`, base units (seconds, bytes, ratios 0..1); labels are feeds, stages and outputs, of
which there are few; instruments only where the user named them (`monitor.watch`, at most MOST_WATCHED).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from microrisk.monitor.hub import DOWN, ENDED, LIVE, STALE, SUSPECT, SYNCING, FeedRow, Hub

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MOST_WATCHED = 50
STATES = (LIVE, STALE, SUSPECT, SYNCING, DOWN, ENDED)
BOUNDS_NS = (*(m * 10**e for e in range(3, 10) for m in (1, 2, 5)), 10**10)
"""Upper ends of latency buckets: 1, 2, 5 us ... 10 s."""
TOTALS = {
    "messages": "Messages applied.",
    "gaps": "Holes in the feed's numbering that were not filled.",
    "missing": "Messages that were found missing.",
    "recovered": "Messages that were missing and came by a second way.",
    "duplicates": "Messages that came more than once.",
    "malformed": "Messages that could not be read.",
    "resyncs": "Times that books began again from an image.",
}
"""Field of FeedRow -> help."""
Outputs = Callable[[], Mapping[str, Mapping[str, Any]]]


class Metrics(Collector):
    """The collector and its registry.

    Parameters
    ----------
    hub : what is read; lists that others keep up to date
    build : labels of microrisk_build_info, such as version and abi_hash
    watch : instruments with samples of their own; those beyond MOST_WATCHED are left out
    outputs : totals by output (Outputs.counts)
    """

    def __init__(
        self,
        hub: Hub,
        *,
        build: Mapping[str, str] | None = None,
        watch: Iterable[str] = (),
        outputs: Outputs = dict,
    ) -> None:
        self._hub, self._build, self._outputs = hub, dict(build or {}), outputs
        self._watch = frozenset(list(watch)[:MOST_WATCHED])
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def exposition(self) -> bytes:
        """What `/metrics` answers, as CONTENT_TYPE."""
        return generate_latest(self._registry)

    def describe(self) -> Iterator[Metric]:
        """Nothing: registering must not read the hub."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Every family."""
        seen = self._hub.overview()
        yield InfoMetricFamily("microrisk_build", "What runs.", value=self._labels(seen))
        yield from _whole(seen)
        yield from _feeds(seen.get("feeds", []))
        yield _latency(self._hub.latency().get("histogram", {}))
        yield from self._instruments()
        yield from _outputs(self._outputs())

    def _labels(self, seen: Mapping[str, Any]) -> dict[str, str]:
        return self._build | {k: str(seen.get(k, "")) for k in ("model", "backend")}

    def _instruments(self) -> Iterator[Metric]:
        events = CounterMetricFamily(
            "microrisk_instrument_events", "Events of a watched instrument.", labels=["instrument"]
        )
        level = GaugeMetricFamily(
            "microrisk_instrument_tail_probability_ratio",
            "Lowest tail probability of its heads; absent while it is not scored.",
            labels=["instrument"],
        )
        alarm = GaugeMetricFamily("microrisk_instrument_alarm", "1 while a head is in alarm.", labels=["instrument"])
        for row in self._hub.instruments():
            if row.id in self._watch:
                events.add_metric([row.id], row.events)
                alarm.add_metric([row.id], int(row.alert))
                if row.level is not None and math.isfinite(row.level):
                    level.add_metric([row.id], row.level)
        yield from (events, level, alarm)


def _whole(seen: Mapping[str, Any]) -> Iterator[Metric]:
    """The monitor as one."""
    journal, inbox, poller = seen.get("journal", {}), seen.get("inbox", {}), seen.get("poller", {})
    yield _gauge("microrisk_uptime_seconds", "Since the process began.", seen.get("uptime_s", 0))
    yield _gauge("microrisk_instruments", "Instruments with a book.", seen.get("instruments", 0))
    yield _gauge("microrisk_instruments_scored", "Instruments that are scored.", seen.get("scored", 0))
    yield _counter("microrisk_messages", "Messages applied, of all feeds.", seen.get("messages", 0))
    yield _counter("microrisk_events", "Changes of books, of all feeds.", seen.get("events", 0))
    yield _counter("microrisk_alerts", "Alarms that began, in this journal.", seen.get("alerts", 0))
    yield _counter("microrisk_journal_bytes", "Bytes written to the journal.", journal.get("bytes", 0))
    yield _gauge("microrisk_journal_trouble", "1 while the disk takes nothing.", int(bool(journal.get("trouble"))))
    yield _gauge("microrisk_inbox_messages", "Messages that wait for the books.", inbox.get("waiting", 0))
    yield _counter("microrisk_inbox_refused", "Times that a source had to wait for room.", inbox.get("refused", 0))
    yield _counter("microrisk_kernel_drops", "Datagrams that the kernel dropped.", poller.get("kernel_drops", 0))
    yield _counter("microrisk_clock_steps", "Steps of the wall clock, not followed.", poller.get("clock_steps", 0))


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _feeds(feeds: Iterable[FeedRow]) -> Iterator[Metric]:
    """One sample a feed; of the state one a feed and state."""
    rows = list(feeds)
    state = GaugeMetricFamily("microrisk_feed_state", "1 for the state that the feed is in.", labels=["feed", "state"])
    for row in rows:
        for name in STATES:
            state.add_metric([row.name, name], int(row.state == name))
    yield state
    for field, text in TOTALS.items():
        family = CounterMetricFamily(f"microrisk_feed_{field}", text, labels=["feed"])
        for row in rows:
            family.add_metric([row.name], getattr(row, field))
        yield family
    for name, text, value in _LEVELS:
        gauge = GaugeMetricFamily(f"microrisk_feed_{name}", text, labels=["feed"])
        for row in rows:
            gauge.add_metric([row.name], value(row))
        yield gauge


_LEVELS: tuple[tuple[str, str, Callable[[FeedRow], float]], ...] = (
    ("held_messages", "Messages held while a hole is open.", lambda row: row.behind),
    ("silence_seconds", "Since the last packet or message.", lambda row: row.silent_ms / 1000),
    ("instruments", "Instruments of the feed with a book.", lambda row: row.instruments),
    ("weight_ratio", "How far the source is believed, 0..1.", lambda row: row.weight),
)


def _latency(histograms: Mapping[str, Iterable[Iterable[int]]]) -> Metric:
    """Latency by stage. Sums are of the upper ends of the core's buckets: at most a hundredth too large."""
    family = HistogramMetricFamily("microrisk_latency_seconds", "Latency by stage, by message.", labels=["stage"])
    for stage, pairs in histograms.items():
        counts, total_ns = [0] * (len(BOUNDS_NS) + 1), 0
        for upper_ns, count in pairs:
            counts[_place(upper_ns)] += count
            total_ns += upper_ns * count
        family.add_metric([stage.replace("_", " to ")], _cumulative(counts), total_ns / 1e9)
    return family


def _place(upper_ns: int) -> int:
    """Index of the first bound that is not below, one behind the last for +Inf."""
    return next((i for i, bound in enumerate(BOUNDS_NS) if upper_ns <= bound), len(BOUNDS_NS))


def _cumulative(counts: list[int]) -> list[tuple[str, float]]:
    out: list[tuple[str, float]] = []
    below = 0
    for bound, count in zip((*BOUNDS_NS, None), counts, strict=True):
        below += count
        out.append(("+Inf" if bound is None else repr(bound / 1e9), below))
    return out


def _outputs(told: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    """Totals of outputs: what each kind of output counts, as the label `what`."""
    items = CounterMetricFamily(
        "microrisk_output_items", "Alerts or rows by what became of them.", labels=["output", "what"]
    )
    trouble = GaugeMetricFamily("microrisk_output_trouble", "1 while an output fails.", labels=["output"])
    for output, counts in told.items():
        for what, value in counts.items():
            if isinstance(value, int):
                items.add_metric([output, what], value)
        trouble.add_metric([output], int(bool(counts.get("trouble"))))
    yield from (items, trouble)
