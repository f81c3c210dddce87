"""A recorded file as a source: its events, and what its decoder found, at the recorded pace or any multiple of it.

The file is read by `open_feed` in a thread of its own; events and findings come in the very order in which a replay
hands them to an engine. Records are NAMES (new instruments, findings; the first one tells mask and market) and EVENTS
of at most MOST_EVENTS events or GROUP_NS of recorded time. Their recv_ns is recorded time, so that a replayed file
scores exactly like `microrisk score`; the wall clock only says when a record is put. A file
that cannot be read is told as `down`.

In a loop every round goes on where the round before ended: times and numbers are shifted, all books are cleared first.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from microrisk.errors import MicroriskError, UsageError
from microrisk.feed import open_feed
from microrisk.feed.base import ALL_INSTRUMENTS, Events, Feed, empty_events
from microrisk.monitor.hub import DOWN, ENDED, LIVE, SYNCING
from microrisk.monitor.sources import Sink
from microrisk.spec.journal import Kind
from microrisk.spec.records import Action, Flag
from microrisk.spec.units import NS_PER_S, NULL_TS

MOST_EVENTS = 1024
GROUP_NS = 10_000_000
FULL_WAIT_S = 0.002
"""Between two tries while the queue is full."""
LOOK_S = 0.2
"""A pause of the recording is slept in pieces of so much, so that a stop is heard."""
BETWEEN_ROUNDS_NS = NS_PER_S

Finding = tuple[int, int, int]


class FileConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What to play.

    Attributes
    ----------
    paths : files that continue each other
    speed : 1 = recorded pace, 2 = twice as fast, 0 = as fast as they are taken
    loop : again and again
    skip_events : leave out so many EVENT records at the beginning, and what was found among them
    format, date, venue, snapshot : as for a replay
    """

    paths: tuple[str, ...]
    speed: float = 1.0
    loop: bool = False
    skip_events: int = 0
    format: str | None = None
    date: str | None = None
    venue: str | None = None
    snapshot: str | None = None


class Recorder:
    """Stands where an engine stands: events and findings in the order in which they would reach it."""

    def __init__(self) -> None:
        self._taken: list[Events | Finding] = []

    def run_events(self, events: Events) -> None:
        """As Engine."""
        if len(events):
            self._taken.append(events.copy())

    def count(self, kind: int, n: int = 1, instrument: int = 0) -> None:
        """As Engine."""
        self._taken.append((int(kind), int(n), int(instrument)))

    def take(self) -> list[Events | Finding]:
        """What came since the last call."""
        out, self._taken = self._taken, []
        return out


class FileSource:
    """One feed out of files.

    Attributes
    ----------
    counts : events, records, findings, skipped, rounds, waits (the queue was full)
    notices : of the decoder
    """

    def __init__(self, sink: Sink, feed: int, config: FileConfig) -> None:
        if not 0.0 <= config.speed < float("inf") or config.skip_events < 0:
            raise UsageError(f"speed = {config.speed}, skip_events = {config.skip_events}: 0 or more")
        self.config, self.feed = config, feed
        self.counts: Counter[str] = Counter()
        self.notices: list[str] = []
        self._sink = sink
        self._stop = threading.Event()
        self._told: set[int] = set()
        self._first = True
        self._met: set[int] = set()
        self._resume_ns = self._offset_ns = self._offset_seq = 0
        self._last_ns, self._last_seq = NULL_TS, 0
        self._begin_ns = self._begin_wall = 0
        self._left_out = config.skip_events

    def resync(self, names: Sequence[str], why: str) -> None:
        """A recording has no other image than its own."""

    async def run(self) -> None:
        """Until the file has ended, or until cancelled."""
        self._stop.clear()
        task = asyncio.create_task(asyncio.to_thread(self._play))
        try:
            await asyncio.shield(task)
        finally:
            self._stop.set()
            if not task.done():
                await asyncio.gather(task, return_exceptions=True)

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _play(self) -> None:
        try:
            while self._round() and self.config.loop:
                self._next_round()
            if not self._stop.is_set():
                self._put(Kind.END, max(self._last_ns, 0), b"", self.counts["skipped"] + self.counts["events"])
                self._state(ENDED, "the recording has ended")
        except MicroriskError as error:
            self._state(DOWN, str(error))

    def _state(self, state: str, why: str = "") -> None:
        self._sink.state(self.feed, state, why)

    def _round(self) -> bool:
        """Play the files once; False when stopped."""
        c = self.config
        self._state(SYNCING, "the recording is being opened")
        feed = open_feed(list(c.paths), format=c.format, date=c.date, venue=c.venue, snapshot=c.snapshot)
        recorder, more = Recorder(), True
        self._state(LIVE)
        while more and not self._stop.is_set():
            more = feed.pump(recorder)
            self._hand_over(feed, recorder.take())
        self.notices = list(feed.notices)
        self.counts["rounds"] += 1
        return not self._stop.is_set()

    def _next_round(self) -> None:
        """All books empty, times and numbers behind those of the round before."""
        clears = empty_events(len(self._met))
        clears["instrument"], clears["action"], clears["flags"] = sorted(self._met), Action.CLEAR, Flag.LAST
        at = self._last_ns if self._last_ns != NULL_TS else 0
        clears["ts_event"] = clears["ts_recv"] = at + BETWEEN_ROUNDS_NS
        clears["seq"] = self._last_seq
        self._offset_seq = self._last_seq
        self._resume_ns = at + 2 * BETWEEN_ROUNDS_NS
        self._emit(self._wanted(clears))

    def _hand_over(self, feed: Feed, taken: list[Events | Finding]) -> None:
        """Names in front of their events, findings between them."""
        findings: list[Finding] = []
        for item in taken:
            if isinstance(item, tuple):
                findings.append(item)
                continue
            findings = self._tell_findings(feed, findings)
            events = self._wanted(self._shifted(item))
            if len(events):
                self._tell(feed, events, [])
                self._emit(events)
        self._tell_findings(feed, findings)

    def _wanted(self, events: Events) -> Events:
        """Without what is to be skipped; what is met there counts for the rounds to come."""
        self._met.update(map(int, np.unique(events["instrument"])))
        skipped = min(self._left_out, len(events))
        for group, at in groups(events[:skipped], self._last_ns):
            self._seen(group, at)
        self._left_out -= skipped
        self.counts["skipped"] += skipped
        return events[skipped:]

    def _tell_findings(self, feed: Feed, findings: list[Finding]) -> list[Finding]:
        """Findings as a record, but not those of what was left out; an empty list."""
        before = self.config.skip_events
        if findings and not (before and self.counts["events"] == 0):
            self._tell(feed, empty_events(0), findings)
        return []

    def _tell(self, feed: Feed, events: Events, findings: list[Finding]) -> None:
        """A NAMES record when there is something new: instruments, findings, or that the file begins."""
        met = {int(i) for i in np.unique(events["instrument"])} | {i for _, _, i in findings} - {ALL_INSTRUMENTS}
        fresh = sorted(met - self._told)
        known = feed.instruments() if fresh else {}
        named = {str(i): _entry(known[i]) for i in fresh if i in known}
        if not (named or findings or self._first):
            return
        self._told.update(map(int, named))
        body = {
            "names": named,
            "mask": int(feed.mask),
            "always_open": bool(feed.venue_always_open),
            "format": feed.format,
            "findings": findings,
        }
        self._first = False
        self.counts["findings"] += len(findings)
        at = int(_times(events[:1])[0]) if len(events) else self._last_ns
        self._put(Kind.NAMES, at, msgspec.json.encode(body))

    def _shifted(self, events: Events) -> Events:
        """Times and numbers of this round."""
        if self.counts["rounds"] == 0:
            return events
        known = (times := _times(events))[times != NULL_TS]
        if self._resume_ns and len(known):
            self._offset_ns, self._resume_ns = self._resume_ns - int(known[0]), 0
        for name in ("ts_event", "ts_recv"):
            column = events[name]
            column[column != NULL_TS] += self._offset_ns
        events["seq"] += np.uint64(self._offset_seq)
        return events

    def _emit(self, events: Events) -> None:
        for group, at in groups(events, self._last_ns):
            if not self._wait(at):
                return
            if not self._put(Kind.EVENTS, at, group.tobytes()):
                return
            self._seen(group, at)
            self.counts["events"] += len(group)
            self.counts["records"] += 1

    def _seen(self, group: Events, at_ns: int) -> None:
        self._last_ns, self._last_seq = at_ns, max(self._last_seq, int(group["seq"].max()))

    # -- pace ---------------------------------------------------------------------------------------------------------

    def _wait(self, at_ns: int) -> bool:
        """Until the record is due; False when stopped."""
        speed = self.config.speed
        if speed == 0.0 or at_ns == NULL_TS:
            return not self._stop.is_set()
        now = time.monotonic_ns()
        if not self._begin_wall:
            self._begin_ns, self._begin_wall = at_ns, now
        due = self._begin_wall + int((at_ns - self._begin_ns) / speed)
        while (left := (due - time.monotonic_ns()) / 1e9) > 0:
            if self._stop.wait(min(left, LOOK_S)):
                return False
        return not self._stop.is_set()

    def _put(self, kind: Kind, recv_ns: int, body: bytes, seq: int = 0) -> bool:
        """Hand over; waits while the queue is full. False when stopped."""
        while not self._sink.put(self.feed, kind, 0, recv_ns, seq, body):
            self.counts["waits"] += 1
            if self._stop.wait(FULL_WAIT_S):
                return False
        return True


def groups(events: Events, before_ns: int) -> Iterator[tuple[Events, int]]:
    """Runs of at most MOST_EVENTS events and about GROUP_NS, each with its time (that of its last event).

    An event without a time has that of the one before it; `before_ns` is that of the event before all.
    """
    own = _times(events)
    last = np.maximum.accumulate(np.where(own != NULL_TS, np.arange(len(own)), -1))
    times = np.where(last >= 0, own[last], before_ns)
    at = 0
    while at < len(events):
        end = min(at + MOST_EVENTS, len(events))
        # times may step back; none at all is NULL_TS throughout
        late = np.flatnonzero(np.abs(times[at:end] - times[at]) > GROUP_NS)
        end = at + int(late[0]) if len(late) else end
        yield events[at:end], int(times[end - 1])
        at = end


def _times(events: Events) -> Any:
    """Receive times, venue's time where there is none."""
    return np.where(events["ts_recv"] != NULL_TS, events["ts_recv"], events["ts_event"]).astype(np.int64)


def _entry(instrument: Any) -> list[Any]:
    return [instrument.id, instrument.px_exp, instrument.qty_exp, instrument.tick, instrument.lot]
