"""The running monitor as displays, sinks and metrics see it (`hub.Hub`): copies that the ingest thread refreshes.

Lists are made by the ingest thread every REFRESH_NS and handed out as they are; asking costs nothing and waits for
nobody.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np

from microrisk.monitor.books import Books, ItchBooks, best_texts
from microrisk.monitor.hub import ENDED, LIVE, SCHEMA, Alert, Consolidated, FeedRow, Frame, InstrumentRow, Stage
from microrisk.monitor.ingest import Ingest
from microrisk.monitor.labels import Labels
from microrisk.monitor.latency import buckets, stage_of
from microrisk.pipeline.rows import tail_probability

REFRESH_NS = 500_000_000
KEPT_ALERTS = 10_000
LISTED = 400
"""Instruments listed: the busiest, and all that are scored."""
SLICE_NS = 1_000_000
Consolidate = Callable[[list[InstrumentRow], dict[int, FeedRow]], list[Consolidated]]
Weigh = Callable[[int, dict[str, int], str, int], tuple[float, list[str]]]
COUNTERS = ("gap", "missing", "recovered", "duplicates", "malformed", "held")


class LiveHub:
    """See hub.Hub; `refresh` belongs to the ingest thread.

    Parameters
    ----------
    facts : model and back end for the overview
    consolidate : instrument rows -> Consolidated (weights and symbols are its business); again : of some of them
    weigh : books, feed row's counts -> (weight, reasons)
    """

    def __init__(
        self,
        ingest: Ingest,
        labels: Labels,
        facts: dict[str, Any],
        *,
        consolidate: Consolidate = lambda rows, feeds: [],
        again: Consolidate = lambda rows, feeds: [],
        weigh: Weigh = lambda feed, counts, state, now_ns: (float(state == LIVE), []),
        exposition: Callable[[], bytes] = lambda: b"",
    ) -> None:
        self._ingest, self._labels, self._facts = ingest, labels, facts
        self._consolidate, self._again = consolidate, again
        self._weigh, self._exposition = weigh, exposition
        self._alerts: deque[Alert] = deque(maxlen=KEPT_ALERTS)
        self._lock = threading.Lock()
        self._overview: dict[str, Any] = {"schema": SCHEMA, "feeds": [], "notices": []}
        self._instruments: list[InstrumentRow] = []
        self._consolidated: list[Consolidated] = []
        self._latency: dict[str, Any] = {"stages": [], "histogram": {}, "rate": 0.0}
        self._names: set[str] = set()
        self._before: dict[int, tuple[int, int]] = {}
        self._rates: dict[int, float] = {}
        self._started_ns = ingest.poller.now_ns()
        self._due_ns = 0
        self._making: Iterator[bool] | None = None
        self.notices: list[str] = []
        self.say: Callable[[str], None] = lambda _: None
        """Takes a sentence when a feed is in another state than at the last lists; must not wait."""
        self._said: dict[int, str] = {}

    # -- ingest thread --------------------------------------------------------------------------------------------

    def tell(self, alert: Alert) -> None:
        """A new alert."""
        self._alerts.append(alert)

    def note_states(self, news: dict[int, tuple[str, str]]) -> None:
        """States of feeds that have changed, into the lists as they are: no stale book is shown as live until the next.

        A feed that becomes live is left to the next lists: its instruments may have states of their own.
        """
        news = {number: state for number, state in news.items() if state[0] != LIVE}
        if not news:
            return
        replace = msgspec.structs.replace
        feeds = [
            replace(f, state=news[f.number][0], why=news[f.number][1]) if f.number in news else f
            for f in self._overview["feeds"]
        ]
        self._overview = self._overview | {"feeds": feeds, "notices": self._notices()}
        self._instruments = [replace(r, state=news[r.feed][0]) if r.feed in news else r for r in self._instruments]
        self._consolidate_again({r.id for r in self._instruments if r.feed in news}, feeds)

    def _consolidate_again(self, changed: set[str], feeds: list[FeedRow]) -> None:
        """The symbols of these instruments."""
        hit = [c for c in self._consolidated if any(venue[0] in changed for venue in c.venues)]
        ids = {venue[0] for c in hit for venue in c.venues}
        rows = [r for r in self._instruments if r.id in ids]
        fresh = {c.symbol: c for c in self._again(rows, {f.number: f for f in feeds})} if hit else {}
        self._consolidated = [fresh.get(c.symbol, c) for c in self._consolidated]

    def refresh(self, now_ns: int) -> None:
        """Make the lists anew when they are due, a millisecond at a time: books do not wait for lists either."""
        if self._making is None:
            if now_ns < self._due_ns:
                return
            self._due_ns = now_ns + REFRESH_NS
            self._making = self._make(now_ns)
        end = time.perf_counter_ns() + SLICE_NS
        while time.perf_counter_ns() < end:
            if next(self._making, False):
                continue
            self._making = None
            return

    def refresh_all(self, now_ns: int) -> None:
        """Make the lists anew at once: before the loop, and when it has ended."""
        for _ in self._make(now_ns):
            pass

    def _make(self, now_ns: int) -> Iterator[bool]:
        """The lists; yields between pieces of work."""
        ingest = self._ingest
        states = {n: ingest.feed_state(b, now_ns) for n, b in ingest.desk.books.items()}
        yield True
        feeds = []
        for number, books in sorted(ingest.desk.books.items()):
            feeds.append(self._feed_row(number, books, states[number], now_ns))
            yield True
        feeds += [self._absent(n) for n in sorted(ingest.desk.opened) if n not in ingest.desk.books]
        rows = []
        for number, index in self._listed():
            rows.append(self._row(ingest.desk.books[number], index, states[number]))
            yield True
        instruments = sorted(rows, key=lambda r: -r.events)
        names = {e.id for b in ingest.desk.books.values() for e in b.names.values()}
        yield True
        consolidated = self._consolidate(rows, {f.number: f for f in feeds})
        yield True
        # shown together, and with them what has become of the feeds while the lists were made
        self._names, self._instruments, self._consolidated = names, instruments, consolidated
        self._overview = self._make_overview(now_ns, feeds, len(names))
        self.note_states(ingest.told_states)
        self._say_states(feeds)
        yield True
        yield from self._make_latency()

    def _say_states(self, feeds: list[FeedRow]) -> None:
        for feed in feeds:
            if self._said.get(feed.number) != feed.state:
                self._said[feed.number] = feed.state
                self.say(f"feed {feed.name} is {feed.state}" + (f": {feed.why}" if feed.why else ""))

    def _listed(self) -> list[tuple[int, int]]:
        """The busiest LISTED instruments, and those that are scored."""
        out: list[tuple[int, int]] = []
        events: list[int] = []
        for number, books in self._ingest.desk.books.items():
            indices, counts = books.engine.instruments(), books.engine.event_counts()
            out += [(number, int(i)) for i in indices]
            events += counts.tolist()
        order = np.argsort(-np.array(events, np.int64), kind="stable")[:LISTED]
        chosen = {(n, i) for n, b in self._ingest.desk.books.items() for i in b.stage.chosen}
        listed = {out[k] for k in order} | chosen
        return sorted(k for k in listed if k[1] in self._ingest.desk.books[k[0]].names)

    def _make_overview(self, now_ns: int, feeds: list[FeedRow], instruments: int) -> dict[str, Any]:
        ingest = self._ingest
        writer = ingest.writer
        return {
            "schema": SCHEMA,
            "ts_ns": now_ns,
            "uptime_s": (now_ns - self._started_ns) / 1e9,
            "rate": sum(f.rate for f in feeds),
            "messages": sum(f.messages for f in feeds),
            "events": sum(int(b.engine.n_events) for b in ingest.desk.books.values()),
            "instruments": instruments,
            "scored": sum(len(b.stage.chosen) for b in ingest.desk.books.values()),
            "alerts": ingest.alerts.n,
            **self._facts,
            "journal": {
                "folder": writer.folder.name,
                "block": writer.number,
                "bytes": int(writer.core.written_bytes),
                "trouble": ingest.trouble,
            },
            "inbox": {"waiting": len(ingest.inbox), "most": ingest.inbox.most, "refused": ingest.inbox.refused},
            "poller": dict(ingest.poller.counters()),
            "feeds": feeds,
            "notices": self._notices(),
        }

    def _notices(self) -> list[str]:
        """What people should know now."""
        return [*self.notices[-20:], *filter(None, (self._ingest.trouble, self._ingest.sink_trouble))]

    def _absent(self, number: int) -> FeedRow:
        """A feed of which nothing has come that makes a book."""
        opened = self._ingest.desk.opened[number]
        state, why = self._ingest.states.get(number, ("syncing", "nothing has come yet"))
        nothing = (0.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        return FeedRow(number, opened.name, opened.scheme, opened.venue, state, why, *nothing, 0.0, [], _NOTHING)

    def _feed_row(self, number: int, books: Books, state: tuple[str, str], now_ns: int) -> FeedRow:
        messages, rate = books.messages, self._rate(number, books.messages, now_ns)
        counts = feed_counts(self._ingest, books)
        silent_ms = counts.pop("silent_ms")
        weight, reasons = self._weigh(number, counts, state[0], now_ns)
        return FeedRow(
            number=number,
            name=books.opened.name,
            kind=books.opened.scheme,
            venue=books.opened.venue,
            state=state[0],
            why=state[1],
            rate=rate,
            messages=messages,
            gaps=counts["gap"],
            missing=counts["missing"],
            recovered=counts["recovered"],
            duplicates=counts["duplicates"],
            malformed=counts["malformed"],
            resyncs=counts["resyncs"],
            behind=counts["held"],
            silent_ms=silent_ms,
            instruments=len(books.names),
            weight=weight,
            reasons=reasons,
            latency=self._latency_of(books),
        )

    def _latency_of(self, books: Books) -> Stage:
        if isinstance(books, ItchBooks):
            return stage_of("receive to scored", books.live.stages()["receive_scored"])
        counts = self._ingest.text_latency.get(books.number)
        return _NOTHING if counts is None else stage_of("receive to scored", counts)

    def _rate(self, number: int, messages: int, now_ns: int) -> float:
        """Messages a second, over the last second or so."""
        before, at = self._before.get(number, (messages, now_ns))
        if now_ns - at >= 1_000_000_000 or number not in self._before:
            self._rates[number] = (messages - before) * 1e9 / (now_ns - at) if now_ns > at else 0.0
            self._before[number] = messages, now_ns
        return self._rates.get(number, 0.0)

    def _row(self, books: Books, index: int, feed: tuple[str, str]) -> InstrumentRow:
        scored = index in books.stage.chosen
        row = books.engine.last_row(index) if scored else None
        level = None if row is None else float(tail_probability(row["level"]).min())
        bid, bid_qty, ask, ask_qty = best_texts(books, index)
        return InstrumentRow(
            id=books.name(index),
            feed=books.number,
            state=self._ingest.instrument_state(books, index, feed)[0],
            bid=bid,
            bid_qty=bid_qty,
            ask=ask,
            ask_qty=ask_qty,
            events=books.events_of(index),
            scored=scored,
            level=level,
            alert=row is not None and int(row["alert"]) != 0,
        )

    def _make_latency(self) -> Iterator[bool]:
        total: dict[str, Any] = {}
        for books in self._ingest.desk.itch():
            for name, counts in books.live.stages().items():
                total[name] = total.get(name, 0) + counts
            yield True
        texts = list(self._ingest.text_latency.values())
        if texts:
            total["text: receive to scored"] = np.sum(texts, axis=0)
        stages, histogram = [], {}
        for name, counts in total.items():
            stages.append(stage_of(name.replace("_", " to "), counts))
            histogram[name] = buckets(counts)
            yield True
        self._latency = {"stages": stages, "histogram": histogram, "rate": sum(self._rates.values())}

    # -- any thread -------------------------------------------------------------------------------------------------

    def overview(self) -> dict[str, Any]:
        """The state of everything, some tenths of a second old."""
        return self._overview

    def instruments(self) -> list[InstrumentRow]:
        """Busiest first."""
        return self._instruments

    def consolidated(self) -> list[Consolidated]:
        """Symbols that several venues have."""
        return self._consolidated

    def follow(self, instrument: str) -> Any:
        """A slot of frames; KeyError for an instrument without a book."""
        if instrument not in self._names:
            raise KeyError(instrument)
        return self._ingest.frames.follow(instrument)

    def history(self, instrument: str) -> list[Frame]:
        """Frames kept."""
        return self._ingest.frames.history(instrument)

    def alerts(self, after: int = 0, limit: int = 1000) -> list[Alert]:
        """Alerts with n > after, oldest first."""
        found = [a for a in list(self._alerts) if a.n > after]
        return found[:limit]

    def around(self, alert_id: str) -> list[Frame]:
        """What surrounds an alert."""
        return self._ingest.frames.around(alert_id)

    def label(self, alert_id: str, value: bool | None, by: str) -> None:
        """Keep what a person says; KeyError for an alert that is not known."""
        if all(a.id != alert_id for a in list(self._alerts)):
            raise KeyError(alert_id)
        with self._lock:
            self._labels.put(alert_id, value, by)

    def labels(self) -> dict[str, bool]:
        """By alert id."""
        with self._lock:
            return self._labels.all()

    def latency(self) -> dict[str, Any]:
        """Stages and histograms."""
        return self._latency

    def metrics(self) -> bytes:
        """Prometheus exposition."""
        return self._exposition()

    def ready(self) -> tuple[bool, dict[str, str]]:
        """Whether every feed is live, or has come to its end: a recording played, a session that the venue ended."""
        states = {f.name: f.state for f in self._overview["feeds"]}
        return bool(states) and all(s in (LIVE, ENDED) for s in states.values()), states


def feed_counts(ingest: Ingest, books: Books) -> dict[str, int]:
    """Totals of a feed under the names of FeedRow, and silent_ms."""
    now = ingest.poller.now_ns()
    found = books.integrity()
    out = dict.fromkeys(COUNTERS, 0) | {
        "resyncs": 0,
        "silent_ms": 0,
        "reordered": 0,
        "crossed": found.get("crossed", 0),
    }
    out["malformed"] = found.get("malformed", 0)
    out["checksum_mismatch"] = found.get("checksum_mismatch", 0)
    if isinstance(books, ItchBooks):
        counters = books.live.counters()
        out["gap"] = found.get("gap", 0)
        for name in ("missing", "recovered", "held", "duplicates", "reordered"):
            out[name] = int(counters.get(name, 0))
        recovery = ingest.recoveries.get(books.number)
        out["resyncs"] = recovery.joins if recovery else 0
        last = int(books.live.last_packet_ns)
        out["silent_ms"] = (now - last) // 1_000_000 if last else 0
    else:
        out["gap"], out["resyncs"] = found.get("gap", 0), found.get("invalidated", 0)
        out["duplicates"] = found.get("duplicate_seq", 0)
    return out


_NOTHING = Stage("receive to scored", 0, 0, 0, 0, 0)
