"""What every feed is: a source of EVENT arrays with instruments, counts and notices.

A feed reads its bytes in chunks. `pump(engine)` applies one chunk to an engine and hands the decoder's own findings
over through `engine.count`; `events()` gives the very same events without an engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from microrisk.errors import FeedError, UsageError
from microrisk.spec.records import EVENT, Integrity
from microrisk.spec.units import NS_PER_S
from microrisk.spec.venues import VENUES

CHUNK_EVENTS = 16_384
"""Events (or messages) that one `pump` applies at most, apart from a feed's own grouping."""

ALL_INSTRUMENTS = 0xFFFFFFFF
"""Instrument of a finding (or a trading state) that concerns the whole feed."""

MAX_NOTICES = 100

Events = NDArray[np.void]


@dataclass(frozen=True)
class Instrument:
    """One instrument of a feed.

    Attributes
    ----------
    id : SYMBOL.VENUE
    venue, symbol : its two parts
    px_exp, qty_exp : decimal exponents; a price of the feed is `px * 10**-px_exp`
    tick, lot : smallest steps in feed units, None when the feed does not say
    """

    id: str
    venue: str
    symbol: str
    px_exp: int
    qty_exp: int
    tick: int | None = None
    lot: int | None = None


def instrument(symbol: str, venue: str) -> Instrument:
    """An instrument in the units of its venue; a venue without an entry has prices in 1e-9 and sizes in 1."""
    known = VENUES.get(venue)
    px_exp, qty_exp = (known.px_exp, known.qty_exp) if known else (9, 0)
    return Instrument(f"{symbol}.{venue}", venue, symbol, px_exp, qty_exp)


class EngineLike(Protocol):
    """The part of a book engine that a feed drives (C++ engine or its naive twin)."""

    def run_events(self, events: Events) -> None:
        """Apply EVENT records in order."""

    def count(self, kind: int, n: int = 1, instrument: int = 0) -> None:
        """Add findings that the decoder made."""


class Feed(Protocol):
    """Contract of every feed.

    Attributes
    ----------
    format : name of the input format, as in `--format`
    venue_always_open : the crossed check is never gated
    mask : features that the feed can produce, `spec.features.mask`
    messages : framed messages, records, rows or data lines read so far, of any type
    synthetic : book-changing events so far that no message of the feed stands for (images, corrections)
    progress : share of the input read, 0..1
    notices : sentences for the user, in the order they arose
    """

    format: str
    venue_always_open: bool
    mask: int
    messages: int
    synthetic: int
    notices: list[str]

    @property
    def progress(self) -> float:
        """Share of the input read."""

    def pump(self, engine: Any) -> bool:
        """Apply the next chunk to the engine; False when the input is finished."""

    def events(self) -> Iterator[Events]:
        """The same events without an engine, chunk by chunk."""

    def instruments(self) -> dict[int, Instrument]:
        """EVENT.instrument -> Instrument, as far as known."""

    def order_label(self, order_id: int) -> str:
        """The venue's own id of an order as text."""


class ChunkFeed:
    """Shared body of the feeds that decode in Python: a subclass gives `_chunk`.

    Two more things a feed may say of itself: `crossing_excluded`, whether the venue's rules exclude a crossed book at
    the end of an event (else `crossed` is counted and is not hard), and `told`, findings with the EVENT that names the
    order.

    `_chunk` returns the next EVENT array (it may be empty) or None at the end of the input, and reports what it found
    through `_find`. An input without one whole message ends in FeedError.
    """

    format = ""
    venue_always_open = False
    crossing_excluded = True
    mask = 0

    def __init__(self) -> None:
        self.messages = 0
        self.synthetic = 0
        self.notices: list[str] = []
        self.told: list[tuple[Integrity, Any]] = []
        self._findings: dict[tuple[int, int], int] = {}
        self._placed: list[tuple[int, int, int, int]] = []

    @property
    def progress(self) -> float:
        """Share of the input read, 0..1."""
        return 0.0

    def _chunk(self) -> Events | None:
        raise NotImplementedError

    def _find(
        self, kind: Integrity, n: int = 1, instrument: int = ALL_INSTRUMENTS, *, before: int | None = None
    ) -> None:
        """Count a finding.

        `before`: index of the event of this chunk in front of which it was met, so that an engine marks its book
        at that place; None = behind the chunk.
        """
        if n and before is not None:
            self._placed.append((before, int(kind), int(n), int(instrument)))
        elif n:
            key = (int(kind), int(instrument))
            self._findings[key] = self._findings.get(key, 0) + int(n)

    def _note(self, text: str) -> None:
        """Add a notice; a badly damaged input gives MAX_NOTICES of them and no more (findings go on counting)."""
        if len(self.notices) < MAX_NOTICES:
            self.notices.append(text)
        elif len(self.notices) == MAX_NOTICES:
            self.notices.append("further notices are left out")

    def drain(self) -> list[tuple[int, int, int]]:
        """Findings (kind, number, instrument) since the last call."""
        out = [(kind, n, index) for _, kind, n, index in self._placed]
        out += [(kind, n, index) for (kind, index), n in self._findings.items()]
        self._placed.clear()
        self._findings.clear()
        return out

    def pump(self, engine: EngineLike) -> bool:
        """Apply the next chunk and count its findings; False when the input is finished."""
        events = self._chunk()
        if events is not None:
            self._apply(engine, events)
        for kind, n, index in self.drain():
            engine.count(kind, n, index)
        if events is None:
            self._must_have_messages()
        return events is not None

    def _apply(self, engine: EngineLike, events: Events) -> None:
        """Events up to each placed finding, the finding, and on."""
        start = 0
        for before, kind, n, index in sorted(self._placed):
            if before > start:
                engine.run_events(events[start:before])
                start = before
            engine.count(kind, n, index)
        self._placed.clear()
        if start < len(events):
            engine.run_events(events[start:])

    def events(self) -> Iterator[Events]:
        """The events without an engine; findings stay in `drain`."""
        while (events := self._chunk()) is not None:
            if len(events):
                yield events
        self._must_have_messages()

    def _readable(self) -> int:
        """Messages that could be read; a feed that counts unreadable ones among `messages` says so here."""
        return self.messages

    def _must_have_messages(self) -> None:
        if not self._readable():
            why = f": {self.notices[-1]}" if self.notices else ""
            raise FeedError(f"the input holds no whole {self.format} message{why}")

    def instruments(self) -> dict[int, Instrument]:
        """EVENT.instrument -> Instrument, as far as known."""
        return {}

    def order_label(self, order_id: int) -> str:
        """The venue's own id as text; here the number itself."""
        return str(order_id)


def empty_events(n: int) -> Events:
    """`n` zeroed EVENT records."""
    return np.zeros(n, EVENT)


def midnight_ns(day: date, zone: str = "America/New_York") -> int:
    """UTC ns of midnight at the beginning of `day` in `zone`."""
    local = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone))
    return int(local.astimezone(UTC).timestamp()) * NS_PER_S


def session_day(name: str, given: str | None) -> date | None:
    """Session date: `given` (YYYY-MM-DD or YYYYMMDD) wins, else one found in the file name, else None.

    Recognised in names: 2012-06-21, 20231225, 12302019 (month first) and S123019-v50 (two-digit year).

    Raises
    ------
    UsageError : `given` is no date
    """
    if given is not None:
        day = _ymd(given.replace("-", ""))
        if day is None:
            raise UsageError(f"date {given!r} is not of the form YYYY-MM-DD")
        return day
    for pattern, order in _DATE_FORMS:
        for match in re.finditer(pattern, name):
            day = order("".join(match.groups()))
            if day is not None:
                return day
    return None


def _day(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day) if 1970 <= year < 2100 else None
    except ValueError:
        return None


def _ymd(digits: str) -> date | None:
    return _day(int(digits[:4]), int(digits[4:6]), int(digits[6:])) if re.fullmatch(r"\d{8}", digits) else None


def _mdy(digits: str) -> date | None:
    return _day(int(digits[4:]), int(digits[:2]), int(digits[2:4]))


def _mdy_short(digits: str) -> date | None:
    return _day(2000 + int(digits[4:]), int(digits[:2]), int(digits[2:4]))


_DATE_FORMS = (
    (r"(?<!\d)(\d{4})-(\d{2})-(\d{2})(?!\d)", _ymd),
    (r"(?<!\d)(\d{8})(?!\d)", _ymd),
    (r"(?<!\d)(\d{8})(?!\d)", _mdy),
    (r"S(\d{6})-v\d", _mdy_short),
)

NO_DATE = "no session date in the file name: times count from 1970-01-01 New York; give --date"


def session_midnight(name: str, given: str | None, notices: list[str]) -> int:
    """UTC ns of New York midnight of the session; 1970-01-01 with a notice when nobody names the day."""
    day = session_day(name, given)
    if day is None:
        notices.append(NO_DATE)
        day = date(1970, 1, 1)
    return midnight_ns(day)


def venue_of(venue: str | None, default: str) -> str:
    """The venue asked for, else the format's own."""
    return venue if venue else default
