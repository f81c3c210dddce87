"""The one thread that owns books, journal and sockets: receive, write down, apply, tell; never waits for a reader.

One turn of the loop:

1. `Poller.poll`: datagrams -> records -> journal -> books, in the core, with the interpreter lock released.
2. What came over the inbox (texts, files, images, answers) in the same way.
3. A CLOCK record every 250 ms; holes and joins of MoldUDP64 feeds.
4. Alarms, trades and pictures of what changed are handed to displays and sinks.

A disk that does not take the journal stops the books (nothing unwritten is ever applied): all feeds are shown as down
with the reason, and the write is tried again every second.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microrisk.core import Poller
from microrisk.errors import OutputError
from microrisk.monitor.alerts import Alerts, origin_of
from microrisk.monitor.books import Books, EventBooks, ItchBooks, TextBooks
from microrisk.monitor.desk import Desk
from microrisk.monitor.frames import FOLLOW_NS, SAMPLE_NS, SAMPLED, TRADES, Frames
from microrisk.monitor.hub import DOWN, ENDED, LIVE, SUSPECT, SYNCING, Alert
from microrisk.monitor.inbox import NUMBERED, Inbox, Item
from microrisk.monitor.journal import Record, Writer
from microrisk.monitor.latency import EDGES, bucket_of
from microrisk.monitor.recovery import Recovery
from microrisk.monitor.sources import DATAGRAM, NEW_SESSION
from microrisk.spec.journal import NO_FEED, Kind

CLOCK_NS = 250_000_000
IDLE_US = 20_000
"""The longest wait for a datagram: pictures and alarms are told at least this often."""
URGENT_US = 1000
"""The same while a feed misses something: it is asked for soon, and its coming is told."""
LOOK_NS = 10_000_000
"""Between two looks at feeds about which nothing is urgent."""
BATCH = 48
"""Items of the inbox written in one block."""
RETRY_NS = 1_000_000_000
ONE = np.uint64(1)


class Ingest:
    """The loop; `run` is the body of the thread.

    Parameters
    ----------
    desk, writer : after recovery, before anything new
    tell : called with each alert, in this thread; must not wait
    resync : feed, names, reason -> its source; must not wait
    """

    def __init__(
        self,
        desk: Desk,
        writer: Writer,
        alerts: Alerts,
        frames: Frames,
        *,
        tell: Callable[[Alert], None],
        on_rows: Callable[[Books, NDArray[Any]], None] | None = None,
        resync: Callable[[int, list[str], str], None] = lambda *_: None,
    ) -> None:
        self.desk, self.writer, self.alerts, self.frames = desk, writer, alerts, frames
        self.poller = Poller(writer.core)
        self.inbox = Inbox(self.poller.wake, self.poller.now_ns, self._on_state)
        self.recoveries: dict[int, Recovery] = {}
        self.states: dict[int, tuple[str, str]] = {}
        self.told_states: dict[int, tuple[str, str]] = {}
        self.on_states: Callable[[dict[int, tuple[str, str]]], None] = lambda _: None
        """Called in the turn in which feeds have become live, or are so no more; displays are not asked to wait."""
        self.text_latency: dict[int, NDArray[np.uint64]] = {}
        self.trouble = ""
        self.failure: BaseException | None = None
        self.waiting: dict[int, list[str]] = {}
        self.messages = 0
        self.turns = 0
        self.cpu, self.spin, self.idle_us = -1, False, IDLE_US
        self.jobs: list[Callable[[], None]] = []
        self.every_turn: list[Callable[[int], None]] = []
        self.sink_trouble = ""
        self._tell, self._on_rows, self._resync = tell, on_rows, resync
        self._stop = threading.Event()
        self._waiting_records: list[Record] = []
        self._taken: deque[Item] = deque()
        self._consequences: deque[Record] = deque()
        self._next_clock = self._next_follow = self._next_sample = self._next_look = 0
        self._retry = 0
        self._said: set[int] = set()
        self._urgent = False
        self._today = 0
        self.dated: dict[int, int] = {}
        """Midnight of feeds whose address names a date."""

    # -- other threads --------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ask the loop to end; `run` returns soon after."""
        self._stop.set()
        self.poller.wake()

    def later(self, job: Callable[[], None]) -> None:
        """Let the loop call something between two turns."""
        self.jobs.append(job)
        self.poller.wake()

    def _on_state(self, feed: int, state: str, why: str) -> None:
        self.states[feed] = state, why
        self._said.add(feed)

    # -- the loop ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until `stop`; what goes wrong is kept in `failure` and ends the loop."""
        try:
            if self.cpu >= 0:
                os.sched_setaffinity(0, {self.cpu})  # of this thread alone
            while not self._stop.is_set():
                self.turn()
            self._drain()
            self.put(NO_FEED, Kind.CLOSE, self.poller.now_ns())
            self.commit_records()
        except BaseException as failure:
            self.failure = failure
            self.trouble = f"the engine stopped: {failure}"
            raise

    def _drain(self) -> None:
        """What sources handed over before they ended, their last word (DOUBT) too, belongs into the journal."""
        self.commit_records()  # what a full disk has left: of this thread's making
        self.commit()  # and of arbitration's, which is applied by nothing else
        while len(self.inbox) or self._taken:
            self._take_items()
        self._report()

    def turn(self) -> None:
        """One turn; at most about `idle_us` when nothing comes. Displays are told of a full disk too."""
        self.turns += 1
        if self.trouble and self.poller.now_ns() < self._retry:
            self._stop.wait(0.01)
        else:
            self._attempt()
        self._tell_states()
        self._report()
        while self.jobs:
            self.jobs.pop(0)()
        for each in self.every_turn:
            each(self.poller.now_ns())

    def _attempt(self) -> None:
        try:
            self._receive(self.idle_us)
            self.trouble = ""
        except OutputError as error:
            self.trouble = str(error)
            self._retry = self.poller.now_ns() + RETRY_NS

    def _receive(self, idle_us: int) -> None:
        self.commit_records()  # what a full disk has left
        now = self.poller.now_ns()
        if self._urgent:
            idle_us = min(idle_us, URGENT_US)
        wait_us = 0 if len(self.inbox) or self._taken else max(0, min(idle_us, (self._next_due() - now) // 1000))
        try:
            self.messages += int(self.poller.poll(int(wait_us), spin=self.spin))
        except OSError as error:
            raise OutputError(f"cannot write the journal at {self.writer.folder}: {error.strerror}") from error
        self._take_items()
        now = self.poller.now_ns()
        self._recover(now)
        if now >= self._next_clock:
            self._clock(now)

    def _next_due(self) -> int:
        due = self._next_clock
        if self.frames.followed():
            due = min(due, self._next_follow)
        return due

    def _clock(self, now_ns: int) -> None:
        self._next_clock = now_ns - now_ns % CLOCK_NS + CLOCK_NS
        self._expect_day(now_ns)
        for number in self.desk.books:
            self._ask_images(number, again=True)
        for number, recovery in self.recoveries.items():
            if recovery.partial and not recovery.joining:
                self.put(number, Kind.DOUBT, now_ns, 0, b"joined in the middle of a session, without a book image")
        self.put(NO_FEED, Kind.CLOCK, now_ns)
        self.commit_records()
        self.writer.roll()

    # -- items ------------------------------------------------------------------------------------------------------

    def _take_items(self) -> None:
        """Up to BATCH items; each leaves `_taken` when its records are in the block, so that a full disk loses none."""
        if not self._taken:  # together with what is left of the batch before, it might not fit into a block
            self._taken.extend(self.inbox.take(BATCH))
        while self._taken:
            numbered = self._taken[0].kind in NUMBERED
            if numbered:
                self.commit_records()
            item = self._taken.popleft()
            if numbered:
                self._numbered(item)
            elif item.feed in self.desk.opened:
                self.put(item.feed, Kind(item.kind), item.recv_ns, item.seq, item.body, item.flags)
        self.commit_records()

    def put(self, feed: int, kind: Kind, recv_ns: int, seq: int = 0, body: bytes = b"", flags: int = 0) -> None:
        """A record into the block in the making, to be applied when the block is written."""
        self.writer.append(feed, kind, recv_ns, seq, body, flags)
        self._waiting_records.append(Record(feed, int(kind), flags, recv_ns, seq, body))

    def commit_records(self) -> None:
        """Write the block, then apply what was put into it; a block that cannot be written is tried again as it is.

        What follows for a transport (held messages behind an image) makes records of its own, for the block behind.
        """
        if self._waiting_records:
            self.writer.flush()
            written, self._waiting_records = self._waiting_records, []
            for record in written:
                self.desk.apply(record)
            for feed in {record.feed for record in written if record.kind == Kind.TEXT}:
                self._ask_images(feed)
            self._observe(written)
            self._consequences.extend(record for record in written if record.kind == Kind.IMAGE_END)
        while self._consequences:
            self._image_is_in(self._consequences.popleft())

    def _numbered(self, item: Item) -> None:
        """An answer or numbered stream: through arbitration, which makes the records."""
        books = self.desk.books[item.feed]
        assert isinstance(books, ItchBooks)
        if item.kind == DATAGRAM:
            books.live.take(item.flags, item.body, item.recv_ns, self.writer.core)
        elif item.kind == NEW_SESSION:
            if bytes(books.live.session) != item.body or books.live.ended:
                self.report_rows()
                midnight = self.day_of(item.feed, item.recv_ns)
                books.live.begin_session(item.body, midnight, item.recv_ns, self.writer.core, max(item.seq, 1))
        else:
            books.live.take_stream(item.seq, item.body, item.recv_ns, self.writer.core)
        self.commit()

    def commit(self) -> None:
        """Write and apply what arbitration has put into the block."""
        try:
            self.messages += int(self.poller.commit())
        except OSError as error:
            raise OutputError(f"cannot write the journal at {self.writer.folder}: {error.strerror}") from error

    def _image_is_in(self, record: Record) -> None:
        books = self.desk.books[record.feed]
        if isinstance(books, ItchBooks):
            books.live.joined(record.seq, self.poller.now_ns(), self.writer.core)
            self.recoveries[record.feed].joined(self.poller.now_ns())
            self.commit()

    def _ask_images(self, feed: int, *, again: bool = False) -> None:
        """Products of a JSON venue whose books wait for an image are asked for when they begin to, and at each CLOCK.

        A source asks its venue at its own pace, however often it is told.
        """
        books = self.desk.books.get(feed)
        if not isinstance(books, TextBooks):
            return
        waiting = books.text.waiting()
        before = self.waiting.get(feed, [])
        self.waiting[feed] = waiting
        new = [name for name in waiting if again or name not in before]
        if new:
            self._resync(feed, new, "the book waits for an image")

    def _observe(self, written: list[Record]) -> None:
        """Receive to applied of texts, by feed, in the core's buckets."""
        now = self.poller.now_ns()
        for record in written:
            if record.kind == Kind.TEXT:
                self.messages += 1
                if record.feed not in self.text_latency:
                    self.text_latency[record.feed] = np.zeros(len(EDGES), np.uint64)
                self.text_latency[record.feed][bucket_of(now - record.recv_ns)] += ONE

    # -- holes ------------------------------------------------------------------------------------------------------

    def _recover(self, now_ns: int) -> None:
        all_ = now_ns >= self._next_look
        if all_:
            self._next_look = now_ns + LOOK_NS
        self._urgent = False
        for number, recovery in self.recoveries.items():
            books = self.desk.books[number]
            assert isinstance(books, ItchBooks)
            self._urgent |= books.live.urgent
            if not (all_ or books.live.urgent):
                continue
            name = books.live.waiting_session()
            if recovery.meant(name, now_ns):
                self._begin_session(books, name or b"", now_ns)
            recovery.note(books.live, bool(books.imaging))
            if recovery.look(now_ns, self.writer.core):
                self.commit()

    def _begin_session(self, books: ItchBooks, name: bytes, now_ns: int) -> None:
        self.report_rows()  # what was scored until now belongs to the session that ends
        books.live.begin_session(name, self.day_of(books.number, now_ns), now_ns, self.writer.core)
        self.recoveries[books.number].session_began()  # in front of `commit`: a full disk may keep the record waiting
        self.commit()

    def day_of(self, feed: int, now_ns: int) -> int:
        """Midnight of a session of this feed that begins now: of the date that its address names, else of today."""
        return self.dated[feed] if feed in self.dated else self.midnight_of(now_ns)

    def _expect_day(self, now_ns: int) -> None:
        """A session that has not begun yet will be of the day on which it does, not of that of our own start."""
        today = self.midnight_of(now_ns)
        if today != self._today:
            self._today = today
            for books in self.desk.itch():
                books.live.expect_day(self.day_of(books.number, now_ns))

    def midnight_of(self, now_ns: int) -> int:
        """UTC ns of New York's midnight of the day of `now_ns`: a session that begins now counts from there."""
        from datetime import UTC, datetime
        from zoneinfo import ZoneInfo

        from microrisk.feed.base import midnight_ns

        day = datetime.fromtimestamp(now_ns / 1e9, UTC).astimezone(ZoneInfo("America/New_York")).date()
        return midnight_ns(day)

    def _tell_states(self) -> None:
        """Feeds whose state is another one than was told: looked at where something is going on, not at every feed."""
        now, news = self.poller.now_ns(), {}
        for number in self._restless():
            state = self.feed_state(self.desk.books[number], now)
            if self.told_states.get(number, ("", ""))[0] != state[0]:
                self.told_states[number] = news[number] = state
        if news:
            self.on_states(news)

    def _restless(self) -> list[int]:
        if self.trouble:
            return list(self.desk.books)
        said, self._said = self._said, set()
        return [
            number
            for number, books in self.desk.books.items()
            if number in said
            or self.told_states.get(number, ("", ""))[0] != LIVE
            or (isinstance(books, ItchBooks) and books.live.urgent)
        ]

    # -- what others get ----------------------------------------------------------------------------------------------

    def _report(self) -> None:
        self.report_rows()
        now = self.poller.now_ns()
        if now >= self._next_follow:
            self._next_follow = now + FOLLOW_NS
            self._pictures(now)

    def report_rows(self) -> None:
        """Alarms and trades of what was applied, under the names and the session that hold now."""
        for books in self.desk.books.values():
            if not books.engine.kept:
                continue
            rows, crossings = books.engine.take_rows(), books.engine.take_crossings()
            if len(rows) or len(crossings):
                self._rows(books, rows, crossings)
            trades = books.engine.take_trades()
            if len(trades):
                self.frames.trades(books.number, trades[-TRADES:])

    def _rows(self, books: Books, rows: NDArray[Any], crossings: NDArray[Any]) -> None:
        if self._on_rows is not None and len(rows):
            self._on_rows(books, rows)
        origin = origin_of(books)
        for alert in chain(self.alerts.of(rows, origin), self.alerts.crossed(crossings, origin)):
            for index in books.numbers_of({alert.instrument}):
                self.frames.remember(alert.id, alert.instrument, alert.ts_ns, (books.number, index))
            self._tell(alert)

    def feed_state(self, books: Books, now_ns: int) -> tuple[str, str]:
        """State of a feed, and why."""
        if self.trouble:
            return DOWN, self.trouble
        recovery = self.recoveries.get(books.number)
        if recovery is not None:
            return recovery.state(now_ns)
        state = self.states.get(books.number, (SYNCING, "nothing has come yet"))
        if state[0] == ENDED and isinstance(books, EventBooks) and not books.ended:
            return LIVE, ""  # its source has said everything, and the books have not heard everything yet
        return state

    def instrument_state(self, books: Books, index: int, feed: tuple[str, str]) -> tuple[str, str]:
        """State of an instrument: its feed's, unless its own book is worse off."""
        if feed[0] != LIVE:
            return feed
        entry = books.names.get(index)
        if isinstance(books, TextBooks) and entry is not None and self._waits(books, index):
            return SYNCING, "its book waits for an image"
        if books.engine.suspect(index):
            return SUSPECT, "something contradicts its book"
        return feed

    def _waits(self, books: TextBooks, index: int) -> bool:
        return index in books.text.waiting_numbers()

    def _pictures(self, now_ns: int) -> None:
        """Of followed instruments each time, of a few scored ones when a sample is due: the next SAMPLED of them."""
        for number, index in self._followed():
            self._picture(self.desk.books[number], index, now_ns, explain=True)
        if now_ns < self._next_sample:
            return
        self._next_sample = now_ns + SAMPLE_NS
        self.frames.seal()
        chosen = [(n, i) for n, b in self.desk.books.items() for i in b.stage.chosen]
        for number, index in self.frames.next_sampled(chosen, SAMPLED):
            self._picture(self.desk.books[number], index, now_ns, explain=False)

    def _followed(self) -> list[tuple[int, int]]:
        followed = self.frames.followed()
        if not followed:
            return []
        return [(b.number, index) for b in self.desk.books.values() for index in b.numbers_of(followed)]

    def _picture(self, books: Books, index: int, now_ns: int, *, explain: bool) -> None:
        events = books.events_of(index)
        state = self.instrument_state(books, index, self.feed_state(books, now_ns))
        if self.frames.changed((books.number, index), events, state):
            self.frames.add(books, index, events, state, explain=explain)
