"""The one way a recording travels: feed -> engine -> sinks. Every reading command is a Spine with other sinks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from microrisk.core import ALL_INSTRUMENTS, Engine, ItchDecoder
from microrisk.errors import FeedError
from microrisk.feed import open_feed
from microrisk.pipeline.tables import Names
from microrisk.spec.records import HARD, Action, Integrity
from microrisk.spec.units import NULL_PX, NULL_TS, PX_NANO

if TYPE_CHECKING:
    from microrisk.feed.base import Feed, Instrument

Progress = Callable[[float, int], None]
"""Called after every chunk with the fraction of the input behind us (0..1) and the messages so far."""

SHOWN_FINDINGS = 20
"""Findings that an outcome lists; the counts are always whole."""

NANO_MAX = (1 << 63) - 1
RANGE_SUSPECT = NANO_MAX // 10**PX_NANO
"""Below this no price in any unit leaves Int64 1e-9: the usual chunk is not looked at closer."""
UNTOLD = [int(k) for k in (Integrity.px_range, Integrity.checksum_ok, Integrity.unknown_level, Integrity.never_rested,
                           Integrity.skipped, Integrity.beyond_depth, Integrity.quote_ok,
                           Integrity.stale_order)]  # fmt: skip
"""Counted, and not listed: normal at their venues, or listed by the tap (px_range) or the feed (stale_order)."""
POSTING = [int(a) for a in (Action.ADD, Action.MODIFY, Action.REPLACE)]


@dataclass(frozen=True)
class Source:
    """What to read: files in the order they continue each other, and what their content cannot say."""

    inputs: tuple[str, ...]
    format: str | None = None
    date: str | None = None
    venue: str | None = None
    snapshot: str | None = None

    @classmethod
    def of(cls, inputs: Inputs, **options: str | None) -> Source:
        """From one path, several, or a Source as it is."""
        if isinstance(inputs, Source):
            return inputs
        several = [inputs] if isinstance(inputs, str | Path) else list(inputs)
        return cls(tuple(str(p) for p in several), **options)

    def open(self) -> Feed:
        """The feed, recognised from content unless `format` says."""
        return open_feed(self.inputs, format=self.format, date=self.date, venue=self.venue, snapshot=self.snapshot)


class Openable(Protocol):
    """Whatever gives a feed from its beginning, each time it is asked: a Source, or events in memory."""

    def open(self) -> Feed:
        """A new feed."""


Inputs = str | Path | Sequence[str | Path] | Source


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What every reading command can say about its input.

    Attributes
    ----------
    format : of the feed
    messages : framed messages, records, rows or lines of any type
    events : book-changing events applied
    seconds : wall time of the run
    instruments : every one that had a book
    integrity : counts of every kind of finding
    findings : the first few, with place and numbers
    notices : what the feed had to assume
    error : where the input broke off, None when it was read to its end
    crossing_excluded : whether the venue's rules exclude a crossed book at the end of an event: else it is not hard
    """

    format: str
    messages: int
    events: int
    seconds: float
    instruments: list[dict[str, Any]]
    integrity: dict[str, int]
    findings: list[dict[str, Any]]
    notices: list[str]
    error: str | None
    crossing_excluded: bool = True

    @property
    def messages_per_second(self) -> float:
        """Messages of any type over the wall time of the run."""
        return self.messages / self.seconds if self.seconds > 0 else 0.0

    @property
    def hard(self) -> dict[str, int]:
        """Hard counts that are not zero."""
        hard = HARD if self.crossing_excluded else HARD - {Integrity.crossed}
        return {kind.name: self.integrity[kind.name] for kind in sorted(hard) if self.integrity[kind.name]}

    def exit_code(self) -> int:
        """0 when the run finished, 3 when the input broke off."""
        return 0 if self.error is None else 3

    def to_json(self) -> dict[str, Any]:
        """Plain types only; `error` only when there is one."""
        out = {f.name: getattr(self, f.name) for f in fields(self)}
        out["seconds"] = round(self.seconds, 6)
        out["messages_per_second"] = round(self.messages_per_second, 1)
        if self.error is None:
            del out["error"]
        return out


class Spine:
    """A feed and the engine that it drives; `chunks` is the loop, the caller empties its sinks inside it.

    After a FeedError in the middle of the input the loop ends, `error` keeps it, and everything read so far counts.
    """

    def __init__(self, source: Openable) -> None:
        self.source = source
        self.feed = source.open()
        self.engine = Engine(always_open=self.feed.venue_always_open)
        self._tap = _Tap(self.engine, self.feed)
        self.names = Names(Described(self.feed))
        self.error: FeedError | None = None
        self.seconds = 0.0

    def chunks(self, progress: Progress | None = None) -> Iterator[None]:
        """Pump until the feed ends; yields after each chunk and once more after the engine has finished."""
        start = time.perf_counter()
        while self._pump():
            if progress is not None:
                progress(self.feed.progress, self.feed.messages)
            yield
        if self.feed.messages == 0:
            raise self.error or FeedError("the input holds no message", path=_first(self.feed))
        self.engine.finish()
        yield
        self.seconds = time.perf_counter() - start

    def _pump(self) -> bool:
        try:
            return self.feed.pump(self._tap)
        except FeedError as error:
            self.error = error
            return False

    def outcome(self) -> dict[str, Any]:
        """The fields of Outcome after the run."""
        return {
            "format": self.feed.format,
            "messages": self.feed.messages,
            "events": self.engine.n_events - self.feed.synthetic,
            "seconds": self.seconds,
            "instruments": [describe(i, entry) for i, entry in self.instruments()],
            "integrity": self.integrity(),
            "findings": self.findings(),
            "notices": list(self.feed.notices),
            "error": None if self.error is None else str(self.error),
            "crossing_excluded": getattr(self.feed, "crossing_excluded", True),
        }

    def instruments(self) -> list[tuple[int, Instrument | None]]:
        """Number and description of every instrument that had a book event, in number order."""
        known = self.feed.instruments()
        return [(int(i), known.get(int(i))) for i in sorted(self.engine.instruments())]

    def span(self) -> tuple[int | None, int | None]:
        """Times of the first and the last message, ns UTC: the venue's where there are some."""
        return self._tap.span()

    def ids(self) -> list[str]:
        """Id of every instrument of `engine.instruments()`, in that order."""
        return [self.names[int(i)] for i in self.engine.instruments()]

    def integrity(self) -> dict[str, int]:
        """Totals of every kind of finding, all names of spec.records.Integrity present."""
        seen = self.engine.integrity()
        return {kind.name: int(seen.get(kind.name, 0)) for kind in Integrity}

    def findings(self, most: int = SHOWN_FINDINGS) -> list[dict[str, Any]]:
        """The first findings with place and numbers; prices and sizes as decimal strings."""
        rows = self.engine.findings()
        # the engine's own entry of a px_range knows no order; the tap saw which
        told = list(getattr(self.feed, "told", []))
        told += [(Integrity(int(row["kind"])), row) for row in rows[~np.isin(rows["kind"], UNTOLD)][:most]]
        told += [(Integrity.px_range, event) for event in self._tap.out_of_range]
        known = self.feed.instruments()
        return [_finding(kind, row, known.get(int(row["instrument"])), self.feed) for kind, row in told[:most]]


class _Tap:
    """The engine as the feed sees it, with an eye on the clock and on prices that 1e-9 columns cannot hold."""

    def __init__(self, engine: Engine, feed: Feed) -> None:
        self._engine, self._feed = engine, feed
        self._decoders: list[ItchDecoder] = []
        self._span: dict[str, tuple[int, int]] = {}
        self.out_of_range: list[Any] = []

    def run_events(self, events: NDArray[Any]) -> None:
        """Look, then apply."""
        for clock in ("ts_event", "ts_recv"):
            ts = events[clock][events[clock] != NULL_TS]
            if len(ts):
                first, _ = self._span.get(clock, (int(ts[0]), 0))
                self._span[clock] = first, int(ts[-1])
        self._engine.run_events(events)
        self._count_range(events)

    def run_itch(self, decoder: ItchDecoder, *arguments: Any) -> int:
        """Prices of ITCH have 32 bits; the decoder keeps the clock."""
        if decoder not in self._decoders:
            self._decoders.append(decoder)
        return self._engine.run_itch(decoder, *arguments)

    def _count_range(self, events: NDArray[Any]) -> None:
        """One px_range for each order posted at a price beyond Int64 1e-9."""
        px = np.where(events["px"] == NULL_PX, 0, np.abs(events["px"]))
        if px.size == 0 or px.max() < RANGE_SUSPECT:
            return
        known = self._feed.instruments()
        for index in np.unique(events["instrument"]):
            exp = known[int(index)].px_exp if int(index) in known else PX_NANO
            limit = NANO_MAX // 10 ** max(PX_NANO - exp, 0)
            posted = (events["instrument"] == index) & np.isin(events["action"], POSTING)
            n = int(np.count_nonzero(posted & (px > limit)))
            if n:
                self._engine.count(int(Integrity.px_range), n, int(index))
                room = SHOWN_FINDINGS - len(self.out_of_range)
                self.out_of_range += [e.copy() for e in events[posted & (px > limit)][:room]]

    def span(self) -> tuple[int | None, int | None]:
        """First and last time: the venue's where there is one, else the recorder's."""
        if self._decoders:
            return self._decoders[0].first_ts, self._decoders[-1].last_ts
        return self._span.get("ts_event", self._span.get("ts_recv", (None, None)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class Described:
    """What the feed knows about its instruments, asked again only for numbers that it had not named before."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._seen: dict[int, Instrument] = {}

    def get(self, index: int) -> Instrument | None:
        """The instrument, None while the feed has not named it."""
        if index not in self._seen:
            self._seen = self._feed.instruments()
        return self._seen.get(index)


def _first(feed: Feed) -> str | None:
    path = getattr(feed, "path", None)
    return None if path is None else str(path)


@lru_cache(maxsize=4096)
def decimal(value: int, exp: int) -> str:
    """`value * 10**-exp` written out, no exponent, no trailing zeros."""
    text = format(Decimal(value).scaleb(-exp), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def describe(index: int, entry: Instrument | None) -> dict[str, Any]:
    """The `instruments` entry of the JSON outputs; tick and lot are one feed unit when nothing better is known."""
    if entry is None:
        return {"id": f"#{index}", "venue": "", "symbol": "", "tick": "", "lot": ""}
    return {
        "id": entry.id,
        "venue": entry.venue,
        "symbol": entry.symbol,
        "tick": decimal(entry.tick or 1, entry.px_exp),
        "lot": decimal(entry.lot or 1, entry.qty_exp),
    }


def _finding(kind: Integrity, row: Any, entry: Instrument | None, feed: Feed) -> dict[str, Any]:
    """A FINDING or EVENT record in words and plain numbers.

    What a feed has counted itself (a gap) belongs to no message: it has a time, and its numbers are in a notice.
    """
    index = int(row["instrument"])
    px, qty = int(row["px"]), int(row["qty"])
    order = int(row["order_id"])
    if not (order or px or qty or int(row["seq"])):
        entry_id = entry.id if entry else None
        ts = None if int(row["ts_event"]) == NULL_TS else int(row["ts_event"])
        nothing = dict.fromkeys(("order", "px", "qty"))
        return {"kind": kind.name, "instrument": entry_id, "seq": None, "ts_event": ts, **nothing}
    return {
        "kind": kind.name,
        "instrument": entry.id if entry else None if index == ALL_INSTRUMENTS else f"#{index}",
        "seq": int(row["seq"]),
        "ts_event": None if int(row["ts_event"]) == NULL_TS else int(row["ts_event"]),
        "order": feed.order_label(order) if order else None,
        "px": None if px == NULL_PX else decimal(px, entry.px_exp if entry else 0),
        "qty": decimal(qty, entry.qty_exp if entry else 0),
    }
