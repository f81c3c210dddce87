"""Databento DBN, schema `mbo` (market by order), versions 1 to 3; schema `mbp-1` is in `dbn_mbp`.

Rules (Databento: DBN encoding; schema `mbo`; flags; "State management of resting orders"):

1. A file is a metadata header (magic, version, length) and records; each record says its own length in 4-byte words.
2. Records of other types are messages, but no events; one of a type that DBN does not have is an `unknown_type`.
3. A adds, C takes `size` off (it is a cancel, also of a part), M sets price and size, R clears the instrument,
   T prints a trade, F a fill of a resting order, N nothing. T and F change no book: the C or M with them does.
4. The side of T is the aggressor's; an event carries the resting side, so it is turned round.
5. A C or M of an order that an F named since the last LAST is that fill's effect: EXEC, and NO_PRINT because the T has
   printed the volume.
6. LAST closes the event of its instrument; SNAPSHOT marks a book image; MAYBE_BAD_BOOK is SUSPECT and is counted in
   `suspect_flag`; with BAD_TS_RECV there is no receive time.
7. A book image that begins without an R replaces the book all the same: a CLEAR is put before it when the instrument
   has been seen (a file of the next day begins so).
8. An undefined price (INT64_MAX) reads as 0; an A or M with one cannot rest and is `malformed`. A top-of-book record
   (flag TOB) is no single order: `unknown_type`.
9. The instrument of an event is the numeric instrument_id; names come from the symbology in the metadata; order ids
   are the venue's own, looked up per instrument. The venue's counter may restart: no gap is derived from it.

`seq` is the venue's sequence; prices are in 1e-9, sizes in contracts or shares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module

import databento_dbn as dbn
import numpy as np
from numpy.typing import NDArray

from microrisk.errors import FeedError, UsageError
from microrisk.feed.base import CHUNK_EVENTS, ChunkFeed, Events, Instrument, empty_events, instrument, venue_of
from microrisk.feed.open import HEAD, Source, Window
from microrisk.spec.features import ALL_MASK
from microrisk.spec.messages import (
    DBN_BAD_TS_RECV,
    DBN_LAST,
    DBN_MAYBE_BAD_BOOK,
    DBN_MBO,
    DBN_SNAPSHOT,
    DBN_TOB,
    DBN_UNDEF_PX,
    Message,
)
from microrisk.spec.records import Action, FeedId, Flag, Integrity
from microrisk.spec.units import NULL_TS, Side
from microrisk.spec.venues import DBN_DATASET_VENUE

RTYPE_MBO = 0xA0
KNOWN_RTYPES = frozenset(
    {0x00, 0x01, 0x0A, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, RTYPE_MBO}
    | set(range(0x20, 0x25))
    | {0xB1, 0xC0, 0xC1, 0xC2, 0xC3, 0xC4}
)
"""Record types of DBN: market data, status, definitions, mappings, errors, system."""
_HEADER = 8  # magic, version, length of the rest
UNDEF_TS = 2**64 - 1

Records = NDArray[np.void]
Bools = NDArray[np.bool_]


def record_dtype(layout: Message) -> np.dtype[np.void]:
    """A record as NumPy sees it, from its table in spec.messages."""
    kinds = {"u": "<u", "i": "<i", "c": "u"}
    formats = [f"{kinds[f.kind] if f.size > 1 else kinds[f.kind][-1]}{f.size}" for f in layout.fields]
    return np.dtype({"names": [f.name for f in layout.fields], "formats": formats,
                     "offsets": [f.offset for f in layout.fields], "itemsize": layout.length})  # fmt: skip


RECORD = record_dtype(DBN_MBO)
_ACTIONS = np.full(256, -1, np.int16)
for _code, _action in {
    "A": Action.ADD, "C": Action.REDUCE, "M": Action.MODIFY, "R": Action.CLEAR,
    "T": Action.TRADE, "F": Action.FILL, "N": Action.NONE,
}.items():  # fmt: skip
    _ACTIONS[ord(_code)] = _action
SIDES = np.zeros(256, np.int8)
SIDES[ord("B")], SIDES[ord("A")] = Side.BID, Side.ASK


@dataclass(frozen=True)
class Meta:
    """What the metadata header says: dataset, schema, names of instrument ids, and its size in bytes."""

    dataset: str
    schema: str
    symbols: dict[int, str]
    size: int


def read_meta(head: bytes, path: str) -> Meta:
    """Decode the metadata at the beginning of a file.

    Raises
    ------
    FeedError : not DBN, cut inside the metadata, or a version newer than 3
    """
    if len(head) < _HEADER or head[:3] != b"DBN":
        raise FeedError(f"no DBN header in {len(head)} bytes", path=path, offset=0)
    size = _HEADER + int.from_bytes(head[4:8], "little")
    if len(head) < size:
        raise FeedError(f"DBN metadata of {size} bytes cut at {len(head)}", path=path, offset=len(head))
    try:
        raw = dbn.Metadata.decode(head[:size])
    except Exception as why:  # the library raises its own and built-in kinds
        raise FeedError(f"DBN metadata of version {head[3]} cannot be read: {why}", path=path, offset=0) from why
    return Meta(raw.dataset, "mixed" if raw.schema is None else str(raw.schema), _symbols(raw.mappings), size)


def _symbols(mappings: Mapping[str, Sequence[Mapping[str, object]]]) -> dict[int, str]:
    """Instrument id -> raw symbol. The id may stand on either side; a name of several ids keeps the number in it."""
    pairs = []
    for left, intervals in mappings.items():
        for right in {str(interval["symbol"]) for interval in intervals}:
            if right.isdigit():
                pairs.append((int(right), left))
            elif left.isdigit():
                pairs.append((int(left), right))
    ids: dict[str, set[int]] = {}
    for number, name in pairs:
        ids.setdefault(name, set()).add(number)
    return {number: name if len(ids[name]) == 1 else f"{name}#{number}" for number, name in pairs}


def open_sources(
    sources: Sequence[Source], *, date: str | None, venue: str | None, snapshot: Source | None
) -> ChunkFeed:
    """The feed of DBN files in order, all of one schema; `date` is not needed, the records carry full times."""
    if snapshot is not None:
        raise UsageError("dbn takes no --snapshot: a book image is part of the file")
    if _schema_of(sources[0]) == "mbp-1":
        feed: ChunkFeed = import_module("microrisk.feed.dbn_mbp").MbpFeed(sources, venue)
        return feed
    return DbnFeed(sources, venue)


def _schema_of(source: Source) -> str:
    head = source.head(HEAD)
    size = _HEADER + int.from_bytes(head[4:8], "little")
    return read_meta(head if len(head) >= size else source.head(size), source.label).schema


class DbnFeed(ChunkFeed):
    """DBN files that continue each other.

    `schemas`, `layout`, `record` and `rtype` say which records are taken; a subclass for another schema has its own,
    and makes its own events of them.
    """

    format = "dbn"
    mask = ALL_MASK
    schemas: tuple[str, ...] = ("mbo", "mixed")
    layout = DBN_MBO
    record = RECORD
    rtype = RTYPE_MBO

    def __init__(self, sources: Sequence[Source], venue: str | None) -> None:
        super().__init__()
        self._venue = venue
        self._sources = list(sources)
        self._total = len(sources)
        self._window: Window | None = None
        self._names: dict[int, Instrument] = {}
        self._seen: set[int] = set()
        self._in_image: set[int] = set()
        self._open_fills = np.zeros(0, RECORD)
        self._open_next()

    @property
    def progress(self) -> float:
        """Share of the stored bytes read, every file weighing the same."""
        if self._window is None:
            return 1.0
        return min(1.0, (self._total - len(self._sources) - 1 + self._window.progress) / self._total)

    def instruments(self) -> dict[int, Instrument]:
        """instrument_id -> instrument; one without a name in the metadata is called by its number."""
        return {i: self._names.get(i) or self._named(i, str(i)) for i in sorted(self._seen)}

    def _named(self, index: int, name: str) -> Instrument:
        self._names[index] = instrument(name, self._default_venue)
        return self._names[index]

    def _open_next(self) -> None:
        source = self._sources.pop(0)
        self._window = window = Window([source])
        while len(window.data) < _HEADER or len(window.data) < _HEADER + int.from_bytes(window.data[4:8], "little"):
            if not window.grow():
                break
        meta = read_meta(bytes(window.data[: 1 << 22]), source.label)
        if meta.schema not in self.schemas:
            raise UsageError(
                f"{source.label} has the DBN schema {meta.schema}; there are books of mbo and of mbp-1, one kind a feed"
            )
        self._default_venue = venue_of(self._venue, DBN_DATASET_VENUE.get(meta.dataset, meta.dataset.partition(".")[0]))
        for index, name in meta.symbols.items():
            self._named(index, name)
        window.start = meta.size
        self._in_image.clear()

    def _chunk(self) -> Events | None:
        while self._window is not None:
            records = self._records(self._window)
            if records is not None:
                return self._events(records)
            if not self._window.grow():
                self._close(self._window)
        return None

    def _close(self, window: Window) -> None:
        rest = len(window.data) - window.start
        self.notices += window.cuts
        if rest and not window.cuts:
            self.notices.append(f"the file ends inside a record: {rest} bytes left at offset {window.offset}")
        self._find(Integrity.malformed, max(len(window.cuts), 1 if rest else 0))
        self._window = None
        if self._sources:
            self._open_next()

    def _records(self, window: Window) -> Records | None:
        """The next whole records (none, when only others were read); None when the window holds no whole one."""
        data, start = window.data, window.start
        size = self.layout.length
        have = min((len(data) - start) // size, CHUNK_EVENTS)
        if have:
            # the usual file has nothing but records of one kind: take as many as are there in one step
            block = np.frombuffer(data, self.record, have, start)
            same = (block["length"] == size // 4) & (block["rtype"] == self.rtype)
            n = have if same.all() else int(np.argmin(same))
            if n:
                window.start += n * size
                self.messages += n
                return block[:n]
        return self._walk(window)

    def _walk(self, window: Window) -> Records | None:
        """One by one, by their lengths, through records of other types or lengths."""
        out: list[bytes] = []
        data, at = window.data, window.start
        while len(out) < CHUNK_EVENTS and at + 2 <= len(data):
            size, rtype = data[at] * 4, data[at + 1]
            if size < 16:
                self._lose(window, at, size)
                return None
            if at + size > len(data):
                break
            self.messages += 1
            if rtype == self.rtype and size >= self.layout.length:
                out.append(bytes(data[at : at + self.layout.length]))
            elif rtype not in KNOWN_RTYPES:
                self._find(Integrity.unknown_type)
            at += size
        if at == window.start:
            return None
        window.start = at
        return np.frombuffer(b"".join(out), self.record)

    def _lose(self, window: Window, at: int, size: int) -> None:
        """A length that no record has: nothing behind it can be framed, so the file ends here."""
        window.cuts.append(f"record of {size} bytes at offset {window.base + at}: the rest of the file is unreadable")
        while window.grow():
            window.start = len(window.data)
        window.start = len(window.data)

    def _events(self, records: Records) -> Events:
        flags = filled_flags(records, self._open_fills)
        self._open_fills = open_fills(records, self._open_fills)
        events, problems = to_events(records)
        events["flags"] |= flags
        self._find_in(records, problems)
        return self._with_clears(events)

    def _find_in(self, records: Records, problems: Mapping[Integrity, Bools]) -> None:
        """Count findings by the instruments of the records."""
        for kind, mask in problems.items():
            for index, n in zip(*np.unique(records["instrument_id"][mask], return_counts=True), strict=True):
                self._find(kind, int(n), int(index))

    def _with_clears(self, events: Events) -> Events:
        """Put a CLEAR before an image that begins without one (rule 7)."""
        at = []
        for index in np.unique(events["instrument"]).tolist():
            own = np.flatnonzero(events["instrument"] == index)
            image = (events["flags"][own] & Flag.SNAPSHOT) != 0
            before = np.concatenate(([index in self._in_image], image[:-1]))
            begins = own[image & ~before & (events["action"][own] != Action.CLEAR)]
            if index not in self._seen and len(begins) and begins[0] == own[0]:
                begins = begins[1:]
            at += begins.tolist()
            (self._in_image.add if image[-1] else self._in_image.discard)(index)
            self._seen.add(index)
        self.synthetic += len(at)
        return _insert_clears(events, np.sort(np.array(at, np.intp))) if at else events


def _insert_clears(events: Events, at: NDArray[np.intp]) -> Events:
    clears = events[at].copy()
    for name in ("order_id", "ref", "px", "qty", "side"):
        clears[name] = 0
    clears["action"], clears["flags"] = Action.CLEAR, Flag.SNAPSHOT
    return np.insert(events, at, clears)


def to_events(records: Records) -> tuple[Events, dict[Integrity, Bools]]:
    """EVENT of each record without the marks of fills, and which records are findings of which kind."""
    out = empty_events(len(records))
    raw, px = records["flags"], records["price"]
    undefined = px == DBN_UNDEF_PX
    action = _ACTIONS[records["action"]]
    unknown = (action < 0) | ((raw & DBN_TOB) != 0)
    bad = undefined & ((action == Action.ADD) | (action == Action.MODIFY)) & ~unknown
    action[unknown | bad] = Action.NONE
    side = SIDES[records["side"]]
    stamp(out, records)
    out["order_id"], out["qty"] = records["order_id"], records["size"]
    out["px"] = np.where(undefined, 0, px)
    out["action"] = action
    out["side"] = np.where(action == Action.TRADE, -side, side)
    out["flags"] = flags_of(raw)
    suspect = (raw & DBN_MAYBE_BAD_BOOK) != 0
    return out, {Integrity.unknown_type: unknown, Integrity.malformed: bad, Integrity.suspect_flag: suspect}


def stamp(out: Events, records: Records) -> None:
    """Times, sequence, instrument and feed of events that stand for these records."""
    out["ts_event"] = _times(records["ts_event"], records["ts_recv"])
    out["ts_recv"] = _times(records["ts_recv"], None)
    out["ts_recv"][(records["flags"] & DBN_BAD_TS_RECV) != 0] = NULL_TS
    out["seq"], out["instrument"], out["feed"] = records["sequence"], records["instrument_id"], FeedId.DBN


def flags_of(raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """EVENT.flags of the bits that both have."""
    out = np.zeros(len(raw), np.uint8)
    for theirs, ours in ((DBN_LAST, Flag.LAST), (DBN_SNAPSHOT, Flag.SNAPSHOT), (DBN_MAYBE_BAD_BOOK, Flag.SUSPECT)):
        out |= np.where(raw & theirs, np.uint8(ours), np.uint8(0))
    return out


def _times(ts: NDArray[np.uint64], other: NDArray[np.uint64] | None) -> NDArray[np.int64]:
    """DBN times as int64; an undefined one is `other`'s, or NULL_TS."""
    defined = ts != UNDEF_TS
    if defined.all():
        return ts.astype(np.int64)
    fallback = np.full(len(ts), NULL_TS) if other is None else _times(other, None)
    return np.where(defined, ts.astype(np.int64), fallback)


def _groups(records: Records) -> NDArray[np.int64]:
    """Number of the event of each record: LAST closes one per instrument. Unique over all instruments."""
    ids, which = np.unique(records["instrument_id"], return_inverse=True)
    last = (records["flags"] & DBN_LAST) != 0
    out = np.zeros(len(records), np.int64)
    for k in range(len(ids)):
        own = np.flatnonzero(which == k)
        closed = np.cumsum(last[own])
        out[own] = (closed - last[own]) * len(ids) + k
    return out


def filled_flags(records: Records, carried: Records) -> NDArray[np.uint8]:
    """EXEC|NO_PRINT where rule 5 says so; `carried` are the F records of events that were open before this chunk."""
    both = np.concatenate([carried, records]) if len(carried) else records
    action = both["action"]
    fill = action == ord("F")
    out = np.zeros(len(both), np.uint8)
    if fill.any():
        group = _groups(both)
        near = np.flatnonzero((fill | (action == ord("C")) | (action == ord("M"))) & np.isin(group, group[fill]))
        order = near[np.lexsort((near, both["order_id"][near], group[near]))]
        g, i = group[order], both["order_id"][order]
        first = np.ones(len(order), bool)
        first[1:] = (g[1:] != g[:-1]) | (i[1:] != i[:-1])
        place = np.arange(len(order))
        begin = np.maximum.accumulate(np.where(first, place, 0))
        last_fill = np.maximum.accumulate(np.where(fill[order], place, -1))
        out[order[(last_fill >= begin) & ~fill[order]]] = Flag.EXEC | Flag.NO_PRINT
    return out[len(carried) :]


def open_fills(records: Records, carried: Records) -> Records:
    """The F records of events that are still open behind this chunk."""
    both = np.concatenate([carried, records]) if len(carried) else records
    open_ = np.zeros(len(both), bool)
    for index in np.unique(both["instrument_id"]):
        own = np.flatnonzero(both["instrument_id"] == index)
        last = np.flatnonzero(both["flags"][own] & DBN_LAST)
        open_[own[last[-1] + 1 if len(last) else 0 :]] = True
    kept: Records = both[open_ & (both["action"] == ord("F"))]
    return kept
