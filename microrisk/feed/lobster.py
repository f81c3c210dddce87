"""LOBSTER pairs: a message file and the orderbook file beside it (Nasdaq, one instrument and day a pair).

Rules (LOBSTER, "Sample Files Readme"; file names `TICKER_DATE_START_END_message_LEVELS.csv`):

1. Row k of the orderbook file is the book after row k of the message file, levels 1..N.
2. Type 1 adds an order, 2 takes `size` off (partial cancel), 3 deletes what is left, 4 executes a displayed order, 5 a
   hidden one, 6 is an auction, 7 a halt: price -1 halted, 0 quoting resumed, 1 trading resumed.
3. `direction` is the side of the resting order: a type 4 with -1 is a buyer's trade.
4. Times are decimal seconds after midnight in New York, kept exactly; the date stands in the file name.
5. Only what happens inside the levels 1..N is told. The book is kept equal to the orderbook row after each message by
   parts of a book image in front of it (flag SNAPSHOT; see `lobster_book`). Without an orderbook file the book has
   only what the messages name.
6. An order that leaves without having been shown before is normal, and counted in `beyond_depth`.
7. A row that contradicts its image, cannot be read, or has no image is `malformed`; its place is in a notice.
8. One message row is one event without SNAPSHOT, which keeps everything the row says: `write_messages` gives the file
   back byte for byte. The id of types 5 and 6 is in `ref` (a hidden order is no order of the book); the direction of
   an auction is +1 or none.

`seq` is the line number; prices are in 1e-4 dollars, sizes in shares; there is no receive time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from microrisk.errors import EncodeError, FeedError, UsageError
from microrisk.feed.base import (
    CHUNK_EVENTS,
    ChunkFeed,
    Events,
    Instrument,
    empty_events,
    instrument,
    midnight_ns,
    session_midnight,
    venue_of,
)
from microrisk.feed.lobster_book import SYNTHETIC, Sums, Tracker
from microrisk.feed.lobster_csv import (
    MAX_SIZE,
    MESSAGE,
    UNREADABLE,
    Images,
    Messages,
    Rows,
    format_images,
    format_messages,
    orderbook_name,
    parse_name,
    read_images,
    read_messages,
)
from microrisk.feed.open import Source
from microrisk.spec import features
from microrisk.spec.records import Action, FeedId, Flag, Integrity, TradingState
from microrisk.spec.units import NS_PER_S, NULL_TS

Use = Literal["all", "first", "none"]
"""Which rows of the orderbook file steer the book: every one, only the first (then messages alone), or none."""

_ACTION = np.zeros(128, np.uint8)
_ACTION[[1, 2, 3, 4, 5, 6, 7]] = [
    Action.ADD,
    Action.REDUCE,
    Action.DELETE,
    Action.REDUCE,
    Action.TRADE,
    Action.TRADE,
    Action.STATE,
]
_FLAGS = np.full(128, Flag.LAST, np.uint8)
_FLAGS[[4, 5, 6]] |= np.array([Flag.EXEC, Flag.HIDDEN, Flag.CROSS], np.uint8)
_STATES = {-1: TradingState.HALTED, 0: TradingState.AUCTION, 1: TradingState.TRADING}


@dataclass(frozen=True)
class Pair:
    """A message file and its orderbook file, if there is one."""

    messages: Source
    images: Source | None

    @property
    def ticker(self) -> str:
        """The symbol, from the file name."""
        return parse_name(self.messages.name).ticker


def open_sources(
    sources: Sequence[Source], *, date: str | None, venue: str | None, snapshot: Source | None
) -> ChunkFeed:
    """The feed of LOBSTER files; each message file finds its orderbook file among the sources or beside itself."""
    if snapshot is not None:
        raise UsageError("lobster takes no --snapshot: the orderbook file is the book image")
    return LobsterFeed(find_pairs(sources), date=date, venue=venue_of(venue, "XNAS"))


def find_pairs(sources: Sequence[Source]) -> list[Pair]:
    """Put the files together by name; an orderbook file alone brings its message file."""
    by_name = {s.name: s for s in sources}
    names: list[str] = []
    for source in sources:
        name = source.name.replace("_orderbook", "_message")
        if name not in by_name:
            found = _beside(source, name)
            if found is None:
                raise UsageError(f"no message file {name} beside the orderbook file {source.label}")
            by_name[name] = found
        if name not in names:
            names.append(name)
    return [Pair(by_name[n], _images_of(by_name[n], by_name)) for n in names]


def _images_of(messages: Source, by_name: dict[str, Source]) -> Source | None:
    wanted = orderbook_name(messages.name)
    if wanted == messages.name:
        return None
    return by_name.get(wanted) or _beside(messages, wanted)


def _beside(source: Source, name: str) -> Source | None:
    """A file of that name (with an ending of compression, perhaps) in the same folder."""
    if source.member is not None:
        return None
    found = [p for p in sorted(source.path.parent.glob(name + "*")) if Source(p).name == name]
    return Source(found[0]) if found else None


class LobsterFeed(ChunkFeed):
    """LOBSTER pairs in order; pairs of one ticker continue each other."""

    format = "lobster"

    def __init__(
        self, pairs: Sequence[Pair], *, date: str | None = None, venue: str = "XNAS", use: Use = "all"
    ) -> None:
        super().__init__()
        self.pairs = list(pairs)
        self._venue, self._date, self._use = venue, date, use
        tickers = list(dict.fromkeys(p.ticker for p in pairs))
        self._index = {t: i for i, t in enumerate(tickers)}
        self._notices_of_pairs()
        self.mask = self._mask()
        self._done = 0
        self._part = 0.0
        self._chunks = self._all_chunks()

    def _notices_of_pairs(self) -> None:
        for pair in self.pairs:
            if pair.images is None:
                self._note(f"{pair.messages.label}: no orderbook file, the book has only what the messages name")

    def _mask(self) -> int:
        """The features that the fewest levels among the pairs allow; without images no level is sure."""
        levels = min(_depth(p.images) if p.images else 0 for p in self.pairs)
        deep = [name for name, n in (("l1", 1), ("l5", 5), ("l10", 10)) if levels >= n]
        return features.mask(*deep, "orders", "trades")

    @property
    def progress(self) -> float:
        """Share of the message files read."""
        return min(1.0, (self._done + self._part) / len(self.pairs))

    def instruments(self) -> dict[int, Instrument]:
        """Index (order of the tickers) -> instrument."""
        return {i: instrument(t, self._venue) for t, i in self._index.items()}

    def order_label(self, order_id: int) -> str:
        """The order number; `aggregate-<n>` for what the image shows without naming orders."""
        return f"aggregate-{order_id - SYNTHETIC}" if order_id >= SYNTHETIC else str(order_id)

    def _chunk(self) -> Events | None:
        return next(self._chunks, None)

    def _all_chunks(self) -> Iterator[Events]:
        for pair in self.pairs:
            yield from self._of_pair(pair)
            self._done += 1
            self._part = 0.0

    def _of_pair(self, pair: Pair) -> Iterator[Events]:
        midnight = session_midnight(pair.messages.name, self._date, self.notices)
        index = self._index[pair.ticker]
        total = max(1, pair.messages.size())
        rows = Rows(pair.messages, read_messages)
        images = Rows(pair.images, read_images) if pair.images and self._use != "none" else None
        tracker, line = Tracker(), 1
        # a pair that continues another one begins with an image: the orders of before are gone
        clear = any(p.ticker == pair.ticker for p in self.pairs[: self._done])
        while len(block := rows.take(CHUNK_EVENTS)):
            own = to_events(block, midnight, line)
            own["instrument"] = index
            shown = self._shown(images, len(block), line, pair)
            if self._use == "first":
                images = None
            yield self._with_parts(own, block, shown, tracker, clear=clear)
            clear = False
            line += len(block)
            self.messages += len(block)
            self._part = min(1.0, rows.stream.consumed / total)
        self._close(pair, rows, images)

    def _shown(self, images: Rows | None, n: int, line: int, pair: Pair) -> list[tuple[Sums, Sums] | None]:
        """The image rows of `n` messages; None where there is none, which is counted."""
        if images is None:
            return [None] * n
        block = images.take(n)
        out: list[tuple[Sums, Sums] | None] = [_levels(row) for row in block.tolist()]
        if self._use == "first":
            return out[:1] + [None] * (n - 1)
        bad = sum(row is None for row in out) + n - len(out)
        if bad:
            self._find(Integrity.malformed, bad, self._index[pair.ticker])
            self._note(f"{pair.messages.label}: {bad} rows from line {line} on have no readable image")
        return out + [None] * (n - len(out))

    def _with_parts(
        self, own: Events, block: Messages, shown: list[tuple[Sums, Sums] | None], tracker: Tracker, *, clear: bool
    ) -> Events:
        """Each message event with the image parts that go before it."""
        index = int(own["instrument"][0])
        columns = [block[name].tolist() for name in ("type", "id", "size", "price", "direction")]
        parts: list[tuple[int, int, int, int, int]] = [(int(Action.CLEAR), 0, 0, 0, 0)] if clear else []
        owner = [0] * len(parts)
        beyond, contradictions = tracker.beyond_depth, tracker.contradictions
        for k, (kind, order, size, price, side, image) in enumerate(zip(*columns, shown, strict=True)):
            if before := tracker.parts_before(kind, order, size, price, side, image):
                parts += before
                owner += [k] * len(before)
        self._find(Integrity.beyond_depth, tracker.beyond_depth - beyond, index)
        self._find(Integrity.malformed, tracker.contradictions - contradictions, index)
        self._find(Integrity.malformed, int((block["type"] == 0).sum()), index)
        self._find(Integrity.unknown_type, int((block["type"] > 7).sum()), index)
        self.synthetic += len(parts)
        return _merge(own, parts, np.array(owner, np.intp)) if parts else own

    def _close(self, pair: Pair, rows: Rows, images: Rows | None) -> None:
        index = self._index[pair.ticker]
        for cut in filter(None, (rows.stream.cut, images.stream.cut if images else None)):
            self._note(cut)
            self._find(Integrity.malformed, 1, index)
        if images is not None and self._use == "all" and (more := len(images.take(CHUNK_EVENTS))):
            self._note(f"{pair.messages.label}: the orderbook file has at least {more} rows more than the message file")
            self._find(Integrity.trailing, more, index)


def _depth(images: Source) -> int:
    """Levels a side, from the first line."""
    return (images.head(1 << 14).split(b"\n", 1)[0].count(b",") + 1) // 4


def _levels(row: list[int]) -> tuple[Sums, Sums] | None:
    """(bids, asks) of an image row, None for one that cannot be read; places that are not occupied have size 0."""
    if row[0] == UNREADABLE or len(row) % 4 or max(row[1::2]) > MAX_SIZE:
        return None
    bids = {p: q for p, q in zip(row[2::4], row[3::4], strict=True) if q > 0}
    asks = {p: q for p, q in zip(row[0::4], row[1::4], strict=True) if q > 0}
    return bids, asks


def _merge(own: Events, parts: Sequence[tuple[int, ...]], owner: NDArray[np.intp]) -> Events:
    """Image parts put before the events they belong to, with those events' time and line."""
    made = own[owner]
    for name, column in zip(("action", "order_id", "px", "qty", "side"), zip(*parts, strict=True), strict=True):
        made[name] = column
    made["flags"], made["ref"] = Flag.SNAPSHOT, 0
    out = empty_events(len(own) + len(made))
    place = owner + np.arange(len(owner))
    is_part = np.zeros(len(out), bool)
    is_part[place] = True
    out[is_part], out[~is_part] = made, own
    return out


def to_events(rows: Messages, midnight: int, first_line: int) -> Events:
    """One event for each message row, instrument 0; an unreadable row and a type above 7 become NONE."""
    out = empty_events(len(rows))
    kind = rows["type"].astype(np.intp)
    out["ts_event"], out["ts_recv"] = rows["time"] + midnight, NULL_TS
    out["seq"] = np.arange(first_line, first_line + len(rows))
    out["px"], out["qty"], out["side"] = rows["price"], rows["size"], rows["direction"]
    out["feed"], out["action"], out["flags"] = FeedId.LOBSTER, _ACTION[kind], _FLAGS[kind]
    ids = rows["id"].astype(np.uint64)
    aside = (kind == 5) | (kind == 6)
    out["order_id"], out["ref"] = np.where(aside, np.uint64(0), ids), np.where(aside, ids, np.uint64(0))
    out["side"][(kind == 6) & (rows["direction"] < 0)] = 0
    for price, state in _STATES.items():
        out["ref"][(kind == 7) & (rows["price"] == price)] = state
    return out


def to_rows(events: Events, midnight: int | None = None) -> Messages:
    """The message rows of LOBSTER events: the inverse of `to_events`; image parts and NONE are no rows.

    `midnight` is the session's (UTC ns); None takes that of the first event's day in New York.

    Raises
    ------
    EncodeError : an event that no LOBSTER row can hold (another action, a replace, a modify)
    """
    own = events[((events["flags"] & Flag.SNAPSHOT) == 0) & (events["action"] != Action.NONE)]
    out = np.zeros(len(own), MESSAGE)
    if not len(own):
        return out
    out["type"] = _types(own)
    out["time"] = own["ts_event"] - (_midnight_of(int(own["ts_event"][0])) if midnight is None else midnight)
    out["price"], out["size"] = own["px"], own["qty"]
    aside = (out["type"] == 5) | (out["type"] == 6)
    out["id"] = np.where(aside, own["ref"], own["order_id"]).astype(np.int64)
    out["direction"] = np.where((out["type"] == 6) & (own["side"] == 0), -1, own["side"])
    return out


def _types(own: Events) -> NDArray[np.int8]:
    out = np.zeros(len(own), np.int8)
    action, flags = own["action"], own["flags"]
    out[action == Action.ADD] = 1
    out[action == Action.REDUCE] = 2
    out[action == Action.DELETE] = 3
    out[(action == Action.REDUCE) & ((flags & Flag.EXEC) != 0)] = 4
    out[action == Action.TRADE] = 5
    out[(action == Action.TRADE) & ((flags & Flag.CROSS) != 0)] = 6
    out[action == Action.STATE] = 7
    if (out == 0).any():
        first = own[np.flatnonzero(out == 0)[0]]
        raise EncodeError(f"a LOBSTER row cannot hold action {Action(int(first['action'])).name}, seq {first['seq']}")
    return out


def _midnight_of(ts: int) -> int:
    local = datetime.fromtimestamp(ts // NS_PER_S, UTC).astimezone(ZoneInfo("America/New_York"))
    return midnight_ns(local.date())


def write_messages(events: Events, path: str | Path, *, midnight: int | None = None, final_newline: bool = True) -> int:
    """Write a LOBSTER message file of events that came from one; returns the number of rows."""
    rows = to_rows(events, midnight)
    text = format_messages(rows)
    Path(path).write_bytes(text if final_newline else text[:-1])
    return len(rows)


def write_images(images: Images, path: str | Path, *, final_newline: bool = True) -> int:
    """Write an orderbook file; returns the number of rows."""
    text = format_images(images)
    Path(path).write_bytes(text if final_newline else text[:-1])
    return len(images)


def read_pair(pair: Pair) -> tuple[Messages, Images | None]:
    """Both files of a pair as whole arrays."""
    messages = Rows(pair.messages, read_messages).take(1 << 62)
    images = Rows(pair.images, read_images).take(1 << 62) if pair.images else None
    return messages, images


def export(feed: LobsterFeed, folder: str | Path) -> list[Path]:
    """Write every pair of the feed under its original file names: messages through EVENT, images carried.

    Works from the files again, so the feed may have been pumped or not.

    Raises
    ------
    FeedError : a message row that could not be read would be missing
    """
    out = []
    for pair in feed.pairs:
        out.append(_export_messages(pair, Path(folder) / pair.messages.name))
        if pair.images:
            out.append(_export_images(pair.images, Path(folder) / pair.images.name))
    return out


def _export_messages(pair: Pair, path: Path) -> Path:
    rows, midnight, line = Rows(pair.messages, read_messages), session_midnight(pair.messages.name, None, []), 1
    with path.open("wb") as f:
        while len(block := rows.take(CHUNK_EVENTS)):
            if not (block["type"] > 0).all():
                bad = line + int(np.argmin(block["type"]))
                raise FeedError("a row cannot be read and cannot be written", path=pair.messages.label, offset=bad)
            f.write(format_messages(to_rows(to_events(block, midnight, line), midnight)))
            line += len(block)
        _trim(f, rows)
    return path


def _export_images(source: Source, path: Path) -> Path:
    rows = Rows(source, read_images)
    with path.open("wb") as f:
        while len(block := rows.take(CHUNK_EVENTS)):
            f.write(format_images(block))
        _trim(f, rows)
    return path


def _trim(f: BinaryIO, rows: Rows) -> None:
    """Take the last LF off again when the original has none."""
    if not rows.ends_with_newline and f.tell():
        f.truncate(f.tell() - 1)
