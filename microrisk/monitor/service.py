"""A running monitor: restart, threads, sources, hub; everything of it begins and ends here."""

from __future__ import annotations

import gc
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
from numpy.typing import NDArray

from microrisk.core import ABI_HASH
from microrisk.errors import OutputError, UsageError
from microrisk.feed.base import midnight_ns
from microrisk.monitor import checkpoint as checkpoints
from microrisk.monitor.address import SourceSpec, unique
from microrisk.monitor.alert_log import AlertLog
from microrisk.monitor.alerts import Alerts, Origin, origin_then
from microrisk.monitor.books import Books, ItchBooks, Opened
from microrisk.monitor.consolidated import Consolidator, Symbols
from microrisk.monitor.desk import SCORED, Desk
from microrisk.monitor.frames import Frames
from microrisk.monitor.hub import Alert
from microrisk.monitor.ingest import IDLE_US, Ingest
from microrisk.monitor.labels import Labels
from microrisk.monitor.live_hub import LiveHub
from microrisk.monitor.net import Net
from microrisk.monitor.out.metrics import Metrics
from microrisk.monitor.restart import Lock, Restart, restart, weights_hash
from microrisk.monitor.scoring import ALL_ROWS, FRESH_ROWS
from microrisk.monitor.secret import Secret
from microrisk.monitor.weights import Reliability
from microrisk.monitor.wiring import Wiring
from microrisk.pipeline.watch import named
from microrisk.spec.journal import NO_FEED, Kind

SWITCH_S = 0.0005
"""A thread that holds the interpreter gives it up after so long when another wants it: books do not wait 5 ms."""

Teller = Callable[[Alert], None]
RowTaker = Callable[[Books, NDArray[Any]], None]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a monitor runs.

    Attributes
    ----------
    folder : of journal, checkpoints, alerts and labels; None = a temporary one that goes with the process
    model : name or folder, None = the promoted one
    scored : instruments scored at most
    checkpoint_s : market seconds between two checkpoints
    tellers : called with each alert in the ingest thread; must not wait
    row_takers : called with each feed's scored rows; empty = only rows that begin alarms are kept
    same : symbols taken for one another across venues, beside those that are spelled alike
    watch : instruments with metrics of their own
    outputs : totals of sinks, for metrics
    cpu, spin, idle_us : core of the ingest thread (-1 = the system chooses), whether it waits without sleeping, and for
        how long it waits at most
    passwords : by name of the feed
    """

    folder: Path | None = None
    model: str | None = None
    scored: int = SCORED
    checkpoint_s: float = 300.0
    tellers: tuple[Teller, ...] = ()
    row_takers: tuple[RowTaker, ...] = ()
    same: tuple[tuple[str, ...], ...] = ()
    watch: tuple[str, ...] = ()
    outputs: Callable[[], dict[str, dict[str, int]]] = dict
    cpu: int = -1
    spin: bool = False
    idle_us: int = IDLE_US
    passwords: Mapping[str, Secret] = field(default_factory=dict, repr=False)


class Service:
    """One monitor; made, started, stopped once.

    Attributes
    ----------
    hub : what displays read
    restarted : what the folder held
    """

    def __init__(self, sources: Sequence[SourceSpec], settings: Settings) -> None:
        if not sources:
            raise UsageError("nothing to monitor: name a source, such as file:PATH, or --config feeds.toml")
        self.sources, self.settings = unique(sources), settings
        self._temporary = settings.folder is None
        self.folder = settings.folder or Path(tempfile.mkdtemp(prefix="microrisk-monitor-"))
        self._next_checkpoint = 0
        self._untold: list[Alert] = []
        self._early: list[tuple[Origin, NDArray[Any], NDArray[Any]]] = []
        with ExitStack() as held:
            self._begin(held)
            self._held = held.pop_all()  # given back by `stop`; by the `with` when the beginning was refused

    def _begin(self, held: ExitStack) -> None:
        settings = self.settings
        if self._temporary:
            held.callback(shutil.rmtree, self.folder, ignore_errors=True)
        held.callback(Lock(self.folder).release)
        weights, self.facts = named(settings.model)
        self._model_hash = weights_hash(weights)
        self.log = AlertLog(self.folder / "alerts.jsonl")
        held.callback(self.log.close)
        self.desk = Desk(weights, scored=settings.scored, rows=ALL_ROWS if settings.row_takers else FRESH_ROWS)
        self.restarted, writer = restart(self.folder, self.desk, self._put_aside)
        held.callback(writer.close)
        self._checkpointed = self.restarted.checkpoint or 0
        told = self.log.ids(after=self.restarted.alerts)
        self.alerts = Alerts(weights, self.facts["name"], told=told, n=self.log.n)
        self.frames = Frames()
        self.ingest = Ingest(
            self.desk,
            writer,
            self.alerts,
            self.frames,
            tell=self._tell,
            on_rows=self._on_rows if settings.row_takers else None,
            resync=lambda *asked: self.wiring.resync(*asked),
        )
        self.ingest.cpu, self.ingest.spin, self.ingest.idle_us = settings.cpu, settings.spin, settings.idle_us
        self.wiring = Wiring(self.ingest, settings.passwords)
        held.callback(self.wiring.close)
        self.hub = self._make_hub()
        for alert in self.log.last(1000):
            self.hub.tell(alert)
        self.hub.notices += self.restarted.notices
        self.net = Net(self.ingest.inbox.state)
        held.callback(self.net.close)
        self._thread = threading.Thread(target=self._ingest_loop, name="ingest", daemon=True)

    def _make_hub(self) -> LiveHub:
        reliability = Reliability()
        consolidator = Consolidator(Symbols(self.settings.same), reliability)
        hub = LiveHub(
            self.ingest,
            Labels(self.folder / "labels.jsonl"),
            self._shown(),
            weigh=reliability.weigh,
            consolidate=consolidator,
            again=consolidator.again,
            exposition=lambda: self.metrics.exposition(),
        )
        build = {"version": version("microrisk"), "abi": ABI_HASH, "model": str(self.facts["name"])}
        self.metrics = Metrics(hub, build=build, watch=self.settings.watch, outputs=self.settings.outputs)
        return hub

    def _shown(self) -> dict[str, Any]:
        return {"model": self.facts["name"], "format_hash": self.facts["format_hash"], "backend": "cpu"}

    # -- life -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the feeds, begin both threads."""
        try:
            self._start()
        except BaseException:
            self.stop(clean=False)
            raise

    def _start(self) -> None:
        self._same_feeds()
        sys.setswitchinterval(SWITCH_S)
        self.desk.writing = True
        self._tell_early()
        jobs = self._open_feeds()
        self.ingest.every_turn.append(self._keep)
        self.ingest.on_states = self.hub.note_states
        self.hub.refresh_all(self.ingest.poller.now_ns())
        _freeze()
        self.net.start()
        self._thread.start()
        for number, job in jobs:
            self.net.add(number, job)

    def stop(self, *, clean: bool = True) -> None:
        """End sources, then books; a last checkpoint unless `clean` is False. Harmless when done twice."""
        self.net.stop()
        self.ingest.stop()
        began = self._thread.ident is not None
        if began:
            self._thread.join(timeout=30)
        ended = began and not self._thread.is_alive()  # while it runs, the books are its own
        if clean and ended and self.ingest.failure is None and not self._temporary:
            self.checkpoint()
        self._held.close()
        gc.unfreeze()

    @property
    def failure(self) -> BaseException | None:
        """What ended the ingest thread."""
        return self.ingest.failure

    def _ingest_loop(self) -> None:
        try:
            self.ingest.run()
        except Exception as failure:  # kept in ingest.failure; shown by every feed's state
            self.hub.notices.append(f"the engine stopped: {failure}")
            self.hub.refresh_all(self.ingest.poller.now_ns())

    # -- feeds ------------------------------------------------------------------------------------------------------

    def _same_feeds(self) -> None:
        """A feed of the journal goes on as what it was; asked before anything is written.

        Raises
        ------
        UsageError : an address gives a name of the journal to another feed
        """
        opened = {o.name: o for o in self.desk.opened.values()}
        for spec in self.sources:
            before = opened.get(spec.name)
            if before is not None and (other := before.differs(self._opened(spec, 0))):
                raise UsageError(
                    f"the journal {self.folder} has books of a feed {spec.name!r}, and this one is another: {other}; "
                    "call it otherwise (name=), or name another --journal"
                )

    def _open_feeds(self) -> list[tuple[int, Any]]:
        numbers = {o.name: n for n, o in self.desk.opened.items()}
        jobs: list[tuple[int, Any]] = []
        for spec in self.sources:
            known = spec.name in numbers
            number = numbers.setdefault(spec.name, max(numbers.values(), default=-1) + 1)
            now = self.ingest.poller.now_ns()
            self.ingest.put(number, Kind.OPEN, now, body=msgspec.json.encode(self._opened(spec, now)))
            self.ingest.commit_records()
            books = self.desk.books.get(number)
            if (day := getattr(spec.options, "date", None)) is not None:
                self.ingest.dated[number] = midnight_ns(day)
            if known and books is not None and not isinstance(books, ItchBooks) and spec.scheme != "file":
                self.ingest.put(number, Kind.DOUBT, now, body=b"the process began again")
                self.ingest.commit_records()
            jobs += [(number, job) for job in self.wiring.jobs(number, spec, books)]
        return jobs

    def _opened(self, spec: SourceSpec, now_ns: int) -> Opened:
        day = getattr(spec.options, "date", None)
        midnight = midnight_ns(day) if day is not None else self.ingest.midnight_of(now_ns)
        return Opened(
            name=spec.name,
            scheme=spec.scheme,
            venue=spec.venue,
            url=str(getattr(spec.options, "url", "")),
            channel=str(getattr(spec.options, "channel", "")),
            market=str(getattr(spec.options, "market", "")),
            midnight_ns=midnight,
            session=str(getattr(spec.options, "session", "")),
            window=int(getattr(spec.options, "window", 65536)),
        )

    # -- ingest thread ------------------------------------------------------------------------------------------------

    def _put_aside(self, books: Books, rows: NDArray[Any], crossings: NDArray[Any]) -> None:
        fresh = rows[rows["fresh"] != 0]
        if len(fresh) or len(crossings):
            indices = {*fresh["instrument"].tolist(), *crossings["instrument"].tolist()}
            self._early.append((origin_then(books, indices), fresh, crossings))

    def _tell_early(self) -> None:
        """Alerts of what was read back; those in the log are recognised."""
        for origin, rows, crossings in self._early:
            for alert in chain(self.alerts.of(rows, origin), self.alerts.crossed(crossings, origin)):
                self._tell(alert)
        self._early.clear()

    def _tell(self, alert: Alert) -> None:
        self._untold.append(alert)
        self._write_alerts()
        self.hub.tell(alert)
        for teller in self.settings.tellers:
            teller(alert)

    def _write_alerts(self) -> None:
        """Into the log, in order; what the disk does not take waits for the next turn, and is said."""
        try:
            while self._untold:
                self.log.append(self._untold[0])
                self._untold.pop(0)
        except OutputError as error:
            self.ingest.sink_trouble = str(error)
            return
        self.ingest.sink_trouble = ""

    def _on_rows(self, books: Books, rows: NDArray[Any]) -> None:
        for taker in self.settings.row_takers:
            taker(books, rows)

    def _keep(self, now_ns: int) -> None:
        """Behind each turn: lists for displays, unwritten alerts, checkpoints."""
        self.hub.refresh(now_ns)
        if self._untold:
            self._write_alerts()
        if self._next_checkpoint == 0:
            self._next_checkpoint = now_ns + int(self.settings.checkpoint_s * 1e9)
        if now_ns >= self._next_checkpoint and not self.ingest.trouble and not self._untold and not self._temporary:
            self._next_checkpoint = now_ns + int(self.settings.checkpoint_s * 1e9)
            self.checkpoint()

    def checkpoint(self) -> None:
        """Write the whole state; journal segments in front of the one before it are dropped.

        Not before every alert up to here is in the log: a restart asks the log only for those behind the checkpoint.
        """
        writer = self.ingest.writer
        self.ingest.report_rows()
        self._write_alerts()
        if self._untold or self._early:
            return
        try:
            self.ingest.put(NO_FEED, Kind.CHECK, self.ingest.poller.now_ns(), body=self.desk.check_body())
            self.ingest.commit_records()
            state = self.desk.save()
            checkpoints.write(
                self.folder,
                checkpoints.Checkpoint(writer.number, writer.crc, self.alerts.n, self._model_hash, state),
            )
            writer.drop_before(self._checkpointed)
            self._checkpointed = writer.number
        except OutputError as error:
            self.ingest.sink_trouble = str(error)


def _freeze() -> None:
    """Keep the collector away from what was there before the first message.

    A full collection walks every module (a million objects, 160 ms measured) and stops all threads meanwhile.
    """
    gc.collect()
    gc.freeze()


def summary(restarted: Restart) -> str:
    """A sentence about what a restart found."""
    if not restarted.records and restarted.checkpoint is None:
        return "a new journal"
    begun = "" if restarted.checkpoint is None else f"checkpoint at block {restarted.checkpoint}, then "
    rate = restarted.messages / restarted.seconds if restarted.seconds else 0.0
    read = f"{restarted.records:,} records, {restarted.messages:,} messages"
    return f"{begun}{read} in {restarted.seconds:.2f} s ({rate:,.0f}/s)"
