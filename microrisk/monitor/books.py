"""The book side of a feed: its records to one engine. The same for what arrives now and for what a journal holds.

Three kinds of feed: MoldUDP64/ITCH messages with numbers (`ItchBooks`), texts of a JSON venue (`TextBooks`), events of
a recorded file (`EventBooks`). `apply` takes one record; everything that it does follows from the records before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from microrisk.book import state_hash
from microrisk.core import Engine, LiveFeed
from microrisk.errors import JournalError
from microrisk.feed.base import Instrument, instrument
from microrisk.monitor.journal import Record
from microrisk.monitor.scoring import LiveStage
from microrisk.pipeline.spine import decimal
from microrisk.spec.features import ALL_MASK
from microrisk.spec.journal import Kind
from microrisk.spec.records import EVENT, Integrity

MakeStage = Callable[[Engine, int], LiveStage]
"""Engine and feature mask -> its scoring stage, attached."""


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """Body of Kind.OPEN: what a feed is, without secrets and without what only its transport minds.

    Attributes
    ----------
    name, scheme : as configured
    venue : of the instruments
    url : of the connection (JSON venues: it tells markets and channels)
    channel : of JSON venues
    market : of Binance: spot, usdm or coinm; "" = the journal is from before it was written down
    midnight_ns : of the session that the process began in (ITCH)
    session : of ITCH: the one to expect, "" takes the first that comes
    window : of ITCH: messages held behind a hole at most
    """

    name: str
    scheme: str
    venue: str = ""
    url: str = ""
    channel: str = ""
    market: str = ""
    midnight_ns: int = 0
    session: str = ""
    window: int = 65536

    def differs(self, other: Opened) -> str:
        """What makes `other` a feed that cannot go on with the books of this one, in words; "" = nothing."""
        for what in ("name", "scheme", "venue", "channel", "market"):
            mine, theirs = getattr(self, what), getattr(other, what)
            if mine != theirs and (what != "market" or mine):
                return f"its {what} was {mine!r} and is now {theirs!r}"
        return ""


class _Saved(msgspec.Struct):
    """What `Books.save` gives for every kind of feed."""

    engine: bytes
    chosen: list[int]
    bound: list[int]
    seen: list[tuple[int, str]]


class Books:
    """One feed's engine and what it knows about its instruments."""

    def __init__(self, number: int, opened: Opened, engine: Engine, mask: int, make_stage: MakeStage) -> None:
        self.number, self.opened, self.mask = number, opened, mask
        self.engine = engine
        self.stage = make_stage(engine, mask)
        self._seen: dict[int, str] = {}
        """Ids as `refresh` saw them last: what is chosen for scoring follows from it, so only `refresh` may change it,
        and it is part of the state: what was named behind the last CLOCK is new to whoever restarts, too."""
        self._looked: dict[int, Instrument] = {}
        self._numbers: dict[str, int] = {}
        self._numbered: dict[int, Instrument] = {}

    # -- what a kind of feed gives --------------------------------------------------------------------------------

    def apply(self, record: Record) -> None:
        """One record of this feed."""
        raise NotImplementedError

    @property
    def messages(self) -> int:
        """Messages applied; of a recorded file its events."""
        raise NotImplementedError

    @property
    def session(self) -> str:
        """Name of the session for ids of alerts."""
        return ""

    @property
    def names(self) -> dict[int, Instrument]:
        """Number -> instrument, every one that the feed has named; the same object until that changes."""
        raise NotImplementedError

    def _save(self) -> dict[str, Any]:
        """What this kind of feed must remember beside its engine."""
        raise NotImplementedError

    def _load(self, state: dict[str, Any]) -> None:
        raise NotImplementedError

    # -- shared ---------------------------------------------------------------------------------------------------

    def refresh(self) -> list[int]:
        """Numbers of the instruments that are new since the last time; chosen ones that are others now are dropped.

        Called at places of the journal only: the choice of what is scored follows from it.
        """
        known, before = self.names, self._seen
        if known is self._looked:
            return []
        self._looked = known
        self._seen = now = {index: entry.id for index, entry in known.items()}
        for index in [i for i in self.stage.chosen if now.get(i) != before[i]]:
            self.stage.drop(index)
        return [index for index, own in now.items() if before.get(index) != own]

    def name(self, index: int) -> str:
        """Id of an instrument, its number while it has none."""
        entry = self.names.get(index)
        return f"#{index}.{self.opened.venue}" if entry is None else entry.id

    def numbers_of(self, ids: set[str]) -> list[int]:
        """Numbers of the instruments of these ids that are in this feed."""
        names = self.names
        if self._numbered is not names:
            self._numbered = names
            self._numbers = {entry.id: index for index, entry in names.items()}
        return [self._numbers[i] for i in ids if i in self._numbers]

    def events_of(self, index: int) -> int:
        """Events of one instrument so far."""
        return int(self.engine.events_of(index))

    def state_hash(self) -> str:
        """Digest of all books of the feed."""
        return state_hash(self.engine, [self.name(int(i)) for i in self.engine.instruments()])

    def integrity(self) -> dict[str, int]:
        """Findings by kind."""
        return dict(self.engine.integrity())

    def save(self) -> dict[str, Any]:
        """The whole state, plain values and bytes."""
        return {
            "opened": msgspec.to_builtins(self.opened),
            "engine": self.engine.save(),
            "chosen": sorted(self.stage.chosen),
            "bound": sorted(self.stage.bound),
            "seen": list(self._seen.items()),
            **self._save(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a saved state; before the first record."""
        found = msgspec.convert(state, _Saved)
        self._load(state)
        self.engine.load(found.engine)
        self._seen = dict(found.seen)
        self.stage.rebind({i: self._seen[i] for i in found.chosen}, found.bound)


class ItchBooks(Books):
    """ITCH messages with sequence numbers; arbitration stands in front of it, in the same object of the core."""

    def __init__(self, number: int, opened: Opened, make_stage: MakeStage) -> None:
        engine = Engine(reserve_orders=1 << 16)
        super().__init__(number, opened, engine, ALL_MASK, make_stage)
        self.live = LiveFeed(
            engine,
            number=number,
            midnight_ns=opened.midnight_ns,
            session=opened.session.encode("latin-1"),
            window=opened.window,
        )
        self._names: dict[int, Instrument] = {}
        self._version = -1
        self.imaging = False
        """Behind the beginning of an image and before its end: the books are not whole."""

    @property
    def messages(self) -> int:
        """Messages applied."""
        return int(self.live.messages)

    @property
    def session(self) -> str:
        """Name of the transport's session."""
        return bytes(self.live.session).decode("latin-1").strip(" \0")

    def apply(self, record: Record) -> None:
        """In the core."""
        self.live.apply(record.kind, record.flags, record.recv_ns, record.seq, record.body)
        if record.kind in (Kind.IMAGE_BEGIN, Kind.IMAGE_END):
            self.imaging = record.kind == Kind.IMAGE_BEGIN

    @property
    def names(self) -> dict[int, Instrument]:
        """Of the session's stock directory."""
        version = int(self.live.names_version)
        if version != self._version:
            self._version = version
            named = {i: s for i, s in self.live.symbols().items() if s}
            self._names = {i: instrument(symbol, self.opened.venue) for i, symbol in named.items()}
        return self._names

    def _save(self) -> dict[str, Any]:
        return {"live": self.live.save(), "imaging": self.imaging}

    def _load(self, state: dict[str, Any]) -> None:
        self.live.load(state["live"])
        self.imaging = msgspec.convert(state["imaging"], bool)


class TextBooks(Books):
    """Messages of a JSON venue, read by the decoder that reads its recordings."""

    def __init__(self, number: int, opened: Opened, make_stage: MakeStage) -> None:
        from microrisk.feed.live import LiveText, open_live

        self.text: LiveText = open_live(
            opened.scheme, url=opened.url, channel=opened.channel or None, venue=opened.venue or None
        )
        engine = Engine(always_open=self.text.feed.venue_always_open, reserve_orders=1 << 12)
        super().__init__(number, opened, engine, self.text.feed.mask, make_stage)
        self.seq = 0
        """Number of the newest text."""
        self._names: dict[int, Instrument] = {}

    def apply(self, record: Record) -> None:
        """A text to the decoder, its events to the engine."""
        self.seq = max(self.seq, record.seq)
        if record.kind == Kind.TEXT:
            self.text.take(record.flags, record.recv_ns, record.seq, bytes(record.body))
            self.text.feed.pump(self.engine)
        elif record.kind == Kind.DOUBT:
            self.text.doubt(record.recv_ns, record.seq)
            self.text.feed.pump(self.engine)

    @property
    def names(self) -> dict[int, Instrument]:
        """Products by the order of their first sight; they only grow in number."""
        known: dict[int, Instrument] = self.text.feed.instruments()
        if len(known) != len(self._names):
            self._names = known
        return self._names

    @property
    def messages(self) -> int:
        """Texts read."""
        return int(self.text.feed.messages)

    def _save(self) -> dict[str, Any]:
        return {"text": self.text.dump(), "seq": self.seq}

    def _load(self, state: dict[str, Any]) -> None:
        self.text.restore(state["text"])
        self.seq = msgspec.convert(state["seq"], int)


class FileNames(msgspec.Struct, frozen=True, kw_only=True):
    """Body of Kind.NAMES."""

    names: dict[str, list[Any]] = {}
    mask: int = ALL_MASK
    always_open: bool = False
    format: str = ""
    findings: list[list[int]] = []


_NAMES = msgspec.json.Decoder(FileNames)


class EventBooks(Books):
    """Events of a recorded file; its first record says what kind of market it is. Its clock is the recording's."""

    def __init__(self, number: int, opened: Opened, make_stage: MakeStage, told: FileNames) -> None:
        engine = Engine(always_open=told.always_open, reserve_orders=1 << 14)
        super().__init__(number, opened, engine, told.mask, make_stage)
        self._told: dict[int, Instrument] = {}
        self.ended = False
        self._kind = told
        self._events = 0

    def apply(self, record: Record) -> None:
        """Names, findings or events."""
        if record.kind == Kind.EVENTS:
            events = np.frombuffer(bytes(record.body), EVENT)
            self.engine.run_events(events)
            self._events += len(events)
        elif record.kind == Kind.NAMES:
            told = _NAMES.decode(record.body)
            self._told = self._told | {int(i): _file_instrument(entry) for i, entry in told.names.items()}
            for kind, n, index in told.findings:
                self.engine.count(int(Integrity(kind)), n, index)
        elif record.kind == Kind.END:
            self.engine.finish()
            self.ended = True

    @property
    def messages(self) -> int:
        """Events applied."""
        return self._events

    @property
    def names(self) -> dict[int, Instrument]:
        """As NAMES records told them."""
        return self._told

    def _save(self) -> dict[str, Any]:
        names = {str(i): [e.id, e.px_exp, e.qty_exp, e.tick, e.lot] for i, e in self._told.items()}
        return {"names": names, "kind": msgspec.to_builtins(self._kind), "events": self._events}

    def _load(self, state: dict[str, Any]) -> None:
        self._told = {int(i): _file_instrument(entry) for i, entry in state["names"].items()}
        self._events = msgspec.convert(state["events"], int)


def _file_instrument(entry: list[Any]) -> Instrument:
    name, px_exp, qty_exp, tick, lot = entry
    symbol, _, venue = str(name).rpartition(".")
    return Instrument(str(name), venue, symbol, int(px_exp), int(qty_exp), tick, lot)


ITCH_SCHEMES = frozenset({"moldudp64", "soupbintcp"})
TEXT_SCHEMES = frozenset({"coinbase", "kraken", "binance", "bitstamp"})


def open_books(number: int, opened: Opened, make_stage: MakeStage) -> Books | None:
    """The books of a feed; None for a file, whose books begin with its first NAMES record."""
    if opened.scheme in ITCH_SCHEMES:
        return ItchBooks(number, opened, make_stage)
    if opened.scheme in TEXT_SCHEMES:
        return TextBooks(number, opened, make_stage)
    if opened.scheme == "file":
        return None
    raise JournalError(f"feed {number} {opened.name!r} is of a kind that this build does not know: {opened.scheme!r}")


def file_books(number: int, opened: Opened, make_stage: MakeStage, body: Any) -> EventBooks:
    """The books of a file, from the body of its first NAMES record."""
    return EventBooks(number, opened, make_stage, _NAMES.decode(body))


def best_texts(books: Books, index: int) -> tuple[str, str, str, str]:
    """Best bid, its size, best ask, its size as decimal text; "" for an empty side."""
    entry = books.names.get(index)
    if entry is None:
        return "", "", "", ""
    out: list[str] = []
    for side in books.engine.levels(index, 1):
        if len(side):
            out += [decimal(int(side[0, 0]), entry.px_exp), decimal(int(side[0, 1]), entry.qty_exp)]
        else:
            out += ["", ""]
    return out[0], out[1], out[2], out[3]
