"""Rows of Bitstamp order logs as the `ob-analytics` recorder writes them, to integer arrays.

A file has one header line and the columns id, timestamp (recorder, ms), exchange_timestamp (venue, ms), price, volume,
action (created, changed, deleted) and direction (bid, ask). Prices and volumes are the text of a float, such as
`78319.0` or `2.6e-06`; the text is read as a decimal into 1e-8, so no binary fraction lies on the way. What is not a
row, or finer than 1e-8, or beyond 63 bits, becomes a row of action 0 and keeps its line number.

What the recorder itself made up is told apart (`meta.json` beside the file counts both, the rows show them):

1. It begins with the book image that it got by REST, as `created` rows of one venue time and one receive time. They are
   parts of an image (flag SNAPSHOT), no news; a file that continues another one and begins so replaces the book.
2. It ends with a `deleted` row for each order that still rests, whose two times are both the recorder's. The venue took
   none of them away: these end marks are counted in `skipped`, and the orders rest at the end.
3. The pair stands in `meta.json`, not in the rows. Without it the instrument is named after the file.
4. Trades stand in a file of their own with both order ids; the rows of the orders say the same (see `bitstamp_orders`,
   rule 4), so that file is left out. EVENT.seq is the 1-based line number without the header.

Source: ob-analytics 0.1.0, documentation of its event format, and its sample recording of 2026-05-02.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv

from microrisk.errors import FeedError
from microrisk.feed.base import ChunkFeed, Events, Instrument, empty_events, instrument
from microrisk.feed.bitstamp_orders import (
    CHANGED,
    CREATED,
    DELETED,
    EXP,
    NS_PER_MS,
    ROW,
    UNREADABLE,
    OrderBook,
    Output,
    Rows,
    blocks,
    clear_event,
    moments,
)
from microrisk.feed.open import Source
from microrisk.feed.stale import StaleFinder
from microrisk.feed.text import to_units
from microrisk.spec.features import ALL_MASK
from microrisk.spec.records import Integrity

MAX_MS = (2**63 - 1) // NS_PER_MS

ACTIONS = {"created": CREATED, "changed": CHANGED, "deleted": DELETED}
DIRECTIONS = {"bid": 1, "ask": -1}
COLUMNS = ("id", "timestamp", "exchange_timestamp", "price", "volume", "action", "direction")
HEADER = ",".join(COLUMNS).encode()
_TYPES = {
    "id": pa.uint64(),
    "timestamp": pa.int64(),
    "exchange_timestamp": pa.int64(),
    "price": pa.decimal128(18, EXP),
    "volume": pa.decimal128(18, EXP),
    "action": pa.string(),
    "direction": pa.string(),
}
_PIECE = 4 << 20


def read_rows(data: bytes) -> Rows:
    """Whole lines (without the header) as ROW, `seq` zero; unreadable ones have action UNREADABLE.

    Empty lines are no rows.
    """
    if not data or data.isspace():
        return np.zeros(0, ROW)
    try:
        return _read_table(data)
    except (pa.ArrowInvalid, OverflowError, UnicodeError):
        return _read_singly(data)


def _read_table(data: bytes) -> Rows:
    table = csv.read_csv(
        pa.BufferReader(data),
        read_options=csv.ReadOptions(use_threads=False, column_names=list(COLUMNS), block_size=len(data) + 1),
        convert_options=csv.ConvertOptions(column_types=_TYPES, null_values=[], strings_can_be_null=False),
    )
    out = np.zeros(table.num_rows, ROW)
    out["id"] = table["id"].to_numpy()
    for name, column in (("recv", "timestamp"), ("event", "exchange_timestamp")):
        ms = table[column].to_numpy()
        if len(ms) and (ms.min() < 0 or ms.max() > MAX_MS):
            raise OverflowError
        out[name] = ms * NS_PER_MS
    out["px"], out["qty"] = _units(table["price"]), _units(table["volume"])
    out["action"] = _codes(table["action"], ACTIONS)
    out["side"] = _codes(table["direction"], DIRECTIONS)
    out["action"][(out["side"] == 0) | (out["id"] == 0)] = UNREADABLE
    return out


def _units(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """The integers of 128-bit decimals, whose scale is the unit already."""
    parts = [np.frombuffer(c.buffers()[1], "<i8").reshape(-1, 2)[c.offset : c.offset + len(c)] for c in column.chunks]
    words = np.concatenate(parts)
    if (words[:, 1] != words[:, 0] >> 63).any():
        raise OverflowError
    return np.ascontiguousarray(words[:, 0])


def _codes(column: pa.ChunkedArray, words: dict[str, int]) -> NDArray[np.int8]:
    """Words to their codes, 0 for any other."""
    place = pc.fill_null(pc.index_in(column, pa.array(list(words))), len(words)).to_numpy()
    codes: NDArray[np.int8] = np.array([*words.values(), 0], np.int8)[place]
    return codes


def _read_singly(data: bytes) -> Rows:
    lines = [line for line in data.replace(b"\r\n", b"\n").split(b"\n") if line]
    out = np.zeros(len(lines), ROW)
    for row, line in zip(out, lines, strict=True):
        try:
            number, recv, event, price, volume, action, direction = line.decode("ascii").split(",")
            row["id"], row["recv"], row["event"] = int(number), int(recv) * NS_PER_MS, int(event) * NS_PER_MS
            row["px"], row["qty"] = to_units(price, EXP), to_units(volume, EXP)
            row["side"] = DIRECTIONS[direction]
            row["action"] = ACTIONS[action] if int(number) and min(int(recv), int(event)) >= 0 else UNREADABLE
        except (ValueError, KeyError, OverflowError):
            row["action"] = UNREADABLE
    return out


class RowReader:
    """Rows of one file, piece by piece; `stream.cut` says whether the file breaks off.

    Attributes
    ----------
    header : whether the first line was the header that the format asks for
    """

    def __init__(self, source: Source) -> None:
        self.stream = source.stream()
        self._rest = self.stream.read(_PIECE).removeprefix(b"\xef\xbb\xbf")
        first, end, rest = self._rest.partition(b"\n")
        self.header = first.rstrip(b"\r") == HEADER
        if not self.header:
            raise FeedError(f"the first line is not {HEADER.decode()}", path=source.label)
        self._rest = rest
        self._more = bool(end)

    def take(self) -> Rows | None:
        """The next piece of rows (perhaps none), None at the end. A line that the file breaks off in is no row."""
        if not self._more:
            return None
        end = self._rest.rfind(b"\n") + 1
        data, self._rest = self._rest[:end], self._rest[end:]
        piece = self.stream.read(_PIECE)
        self._rest += piece
        if not piece:
            self._more = False
            data += b"" if self.stream.cut else self._rest
        return read_rows(data)


IMAGE_ROWS = 100
"""Rows from which a first moment of `created` is an image, or a last one of `deleted` end marks, without meta.json."""


class BitstampCsvFeed(ChunkFeed):
    """Order logs of one pair, files that continue each other in order.

    Parameters
    ----------
    find_stale : set stale orders aside; else they stay in the book
    """

    format = "bitstamp"
    venue_always_open = True
    crossing_excluded = False
    mask = ALL_MASK

    def __init__(self, sources: Sequence[Source], venue: str, *, find_stale: bool = True) -> None:
        super().__init__()
        self._sources = list(sources)
        self._meta = find_meta(sources)
        self._instrument = self._named(venue)
        self._book = OrderBook(0, StaleFinder() if find_stale else None)
        self._bad = 0
        self._done = 0
        self._part = 0.0
        self._chunks = self._all()

    def _named(self, venue: str) -> Instrument:
        pair = self._meta.get("pair") or pair_in_name(self._sources[0].name)
        if isinstance(pair, str):
            return instrument(symbol_of(pair), venue)
        name = self._sources[0].name.split(".")[0].upper()
        self._note(f"no meta.json beside the file, no pair in its name: the instrument is called {name}")
        return instrument(name, venue)

    @property
    def progress(self) -> float:
        """Share of the files read."""
        return min(1.0, (self._done + self._part) / len(self._sources))

    def instruments(self) -> dict[int, Instrument]:
        """The one instrument, number 0."""
        return {0: self._instrument}

    def _readable(self) -> int:
        return self.messages - self._bad

    def _chunk(self) -> Events | None:
        return next(self._chunks, None)

    def _all(self) -> Iterator[Events]:
        for source in self._sources:
            yield from self._of_source(source)
            self._done += 1
            self._part = 0.0

    def _of_source(self, source: Source) -> Iterator[Events]:
        reader, total = RowReader(source), max(1, source.size())
        rows, at_start = np.zeros(0, ROW), True
        while (piece := reader.take()) is not None:
            self._number(piece)
            rows = np.concatenate([rows, piece])
            self._part = min(1.0, reader.stream.consumed / total)
            # the last moment may go on in the next piece
            whole = moments(rows)[-1] if len(rows) else 0
            for block in blocks(rows[:whole]):
                yield self._apply_rows(block, at_start=at_start)
                at_start = False
            rows = rows[whole:]
        if reader.stream.cut:
            self._find(Integrity.malformed, 1, 0)
            self._note(reader.stream.cut)
            yield self._apply_rows(rows, at_start=at_start)
        else:
            yield self._closing(rows, at_start=at_start)

    def _number(self, rows: Rows) -> None:
        """Line numbers; what cannot be read belongs to the moment of the row before it."""
        rows["seq"] = np.arange(self.messages + 1, self.messages + 1 + len(rows))
        self.messages += len(rows)
        bad = rows["action"] == UNREADABLE
        self._bad += int(np.count_nonzero(bad))
        if bad.any():
            good = np.maximum.accumulate(np.where(bad, -1, np.arange(len(rows))))
            rows["event"] = np.where(good >= 0, rows["event"][good], rows["event"])

    def _closing(self, rows: Rows, *, at_start: bool) -> Events:
        """The last moment of a file: end marks are not applied."""
        marks = (rows["action"] == DELETED) & (rows["recv"] == rows["event"])
        first = len(rows) - int(np.argmin(marks[::-1])) if not marks.all() else 0
        n = len(rows) - first
        if n < IMAGE_ROWS and n != self._meta.get("synthetic_deleted"):
            return self._apply_rows(rows, at_start=at_start)
        events = self._apply_rows(rows[:first], at_start=at_start)
        self._find(Integrity.skipped, n, 0)
        known = int(np.count_nonzero(np.isin(rows["id"][first:], self._book.resting["id"])))
        self._note(f"the last {n} rows are the recorder's end marks, not applied: {known} of their orders rest")
        return events

    def _apply_rows(self, rows: Rows, *, at_start: bool) -> Events:
        image = at_start and self._is_image(rows)
        if not image:
            return self._report(self._book.apply(rows))
        n = int(moments(rows)[1]) if len(moments(rows)) > 1 else len(rows)
        parts = [self._clear(rows[:1]) if self._done else empty_events(0)]
        parts.append(self._report(self._book.apply(rows[:n], image=True), len(parts[0])))
        parts.append(self._report(self._book.apply(rows[n:]), len(parts[0]) + len(parts[1])))
        return np.concatenate(parts)

    def _is_image(self, rows: Rows) -> bool:
        """Whether the rows of the first moment were all created, and received, at once."""
        first = rows[: moments(rows)[1]] if len(moments(rows)) > 1 else rows
        alike = (first["action"] == CREATED) & (first["recv"] == first["recv"][:1])
        return bool(alike.all()) and (len(first) >= IMAGE_ROWS or len(first) == self._meta.get("synthetic_created"))

    def _clear(self, row: Rows) -> Events:
        """The book of the file before ends where the next one brings its own image."""
        self._book.clear()
        self.synthetic += 1
        return clear_event(row, 0)

    def _report(self, out: Output, at: int = 0) -> Events:
        for place, kind, n in out.findings:
            self._find(kind, n, 0, before=at + place)
        for notice in out.notices:
            self._note(notice)
        self.told += [(Integrity.stale_order, event) for event in out.stale]
        self.synthetic += len(out.stale)
        return out.events


def find_meta(sources: Sequence[Source]) -> dict[str, Any]:
    """What the recorder's `meta.json` beside the first file says; empty when there is none that can be read."""
    first = sources[0]
    path = first.path.parent / "meta.json"
    if first.member is not None or not path.is_file():
        return {}
    try:
        meta = msgspec.json.decode(path.read_bytes())
    except (msgspec.DecodeError, OSError):
        return {}
    return meta if isinstance(meta, dict) else {}


QUOTES = ("usdt", "usdc", "usd", "eur", "gbp", "btc", "eth", "pax")


def symbol_of(pair: str) -> str:
    """A pair as Bitstamp writes it in channels and addresses, as BASE-QUOTE: btcusd -> BTC-USD, usdteur -> USDT-EUR.

    A quote currency that is not in the venue's list leaves the pair as it is, in capitals.
    """
    text = pair.lower()
    for quote in QUOTES:
        if text.endswith(quote) and len(text) > len(quote) + 1:
            return f"{text[: -len(quote)].upper()}-{quote.upper()}"
    return text.upper()


def pair_in_name(name: str) -> str | None:
    """A pair that a file name holds, such as btcusd in `orders-btcusd.csv`."""
    found = re.search(rf"(?<![a-z0-9])([a-z0-9]{{2,8}}?({'|'.join(QUOTES)}))(?![a-z0-9])", Path(name).name.lower())
    return found[1] if found else None
