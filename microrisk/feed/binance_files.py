"""Files of Binance's public data site: trades and aggregate trades as TRADE events, bars as counted rows.

Rules (README of github.com/binance/binance-public-data; the files themselves):

1. `SYMBOL-aggTrades-DATE.csv`: id, price, size, first and last trade id, time, buyer was the maker, and in spot files
   whether it was the best price. `SYMBOL-trades-DATE.csv`: id, price, size, quote size, time, buyer was the maker, and
   in spot files best price. Files of futures have a header line, spot files have none; the number of columns tells them
   apart. A header is no row.
2. Times are ms, in spot files from 2025 on us.
3. Ids rise by one: a jump is a `gap` (rows are missing), an id at or below the last one a `duplicate_seq`; both rows
   are trades all the same. `seq` and `ref` are the id.
4. The buyer was the maker: the resting side is the bid, else the ask. There is no book in these files.
5. Bars (`SYMBOL-1m-DATE.csv` and other spans) hold nothing that happened at a time: their rows are `messages` and give
   no event.
6. The symbol is the part of the file name before the first dash; futures get their -PERP as in the streams.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from microrisk.feed.base import ChunkFeed, Events, Instrument, empty_events, instrument, venue_of
from microrisk.feed.binance_messages import MICROSECONDS, name_of, resting_side, venue_ns
from microrisk.feed.l2 import EXP, RangeError, Units
from microrisk.feed.open import Source, Stream
from microrisk.spec.features import mask
from microrisk.spec.records import Action, FeedId, Flag, Integrity
from microrisk.spec.units import NULL_TS, Side

PIECE = 1 << 20
"""Bytes of rows turned into events at once: about 12,000 trades."""
MAX_ROW = 4096

_BOOL = rb"(?:[Tt]rue|[Ff]alse|TRUE|FALSE)"
_NUMBER = rb"\d+(?:\.\d+)?"
_AGGREGATE_ROW = re.compile(rb"\d+,N,N,\d+,\d+,\d{13,16},B(,B)?\r?\n".replace(b"N", _NUMBER).replace(b"B", _BOOL))
_TRADE_ROW = re.compile(rb"\d+,N,N,N,\d{13,16},B(,B)?\r?\n".replace(b"N", _NUMBER).replace(b"B", _BOOL))
_BAR_ROW = re.compile(rb"\d{13,16},N,N,N,N,N,\d{13,16},".replace(b"N", _NUMBER))
_HEADERS = (
    (b"agg_trade_id,price,", "aggTrades"),
    (b"id,price,qty,quote_qty,time,", "trades"),
    (b"open_time,open,high,low,close,", "bars"),
)
_NAME = re.compile(r"([A-Za-z0-9]+(?:_[A-Za-z0-9]+)?)-")


def kind_of(head: bytes) -> str | None:
    """What a file is, from its first bytes: "aggTrades", "trades", "bars", or None."""
    for text, kind in _HEADERS:
        if head.startswith(text):
            return kind
    row = head.partition(b"\n")[0] + b"\n"
    rows = ((_AGGREGATE_ROW, "aggTrades"), (_TRADE_ROW, "trades"), (_BAR_ROW, "bars"))
    return next((kind for pattern, kind in rows if pattern.match(row)), None)


@dataclass(frozen=True)
class Layout:
    """Which column of a row is what; `size` the columns of spot, one more than those of futures."""

    size: int
    time: int
    maker: int


LAYOUTS = {"aggTrades": Layout(8, 5, 6), "trades": Layout(7, 4, 5)}


def open_sources(
    sources: Sequence[Source], *, date: str | None, venue: str | None, snapshot: Source | None
) -> BinanceFiles:
    """The feed of files in order; `date` and `snapshot` have no use."""
    return BinanceFiles(sources, venue_of(venue, "BINANCE"))


class BinanceFiles(ChunkFeed):
    """Trades of any number of instruments, one a file."""

    format = "binance"
    venue_always_open = True
    mask = mask("trades")

    def __init__(self, sources: Sequence[Source], venue: str) -> None:
        super().__init__()
        self._sources = list(sources)
        self._venue = venue
        self._indices: dict[str, int] = {}
        self._last: dict[int, int] = {}
        self._total = max(1, sum(s.size() for s in sources))
        self._done = 0
        self._stream: Stream | None = None
        self._bad = 0
        self._units = Units()
        self._chunks = self._read()

    @property
    def progress(self) -> float:
        """Share of the stored bytes read."""
        return min(1.0, (self._done + (self._stream.consumed if self._stream else 0)) / self._total)

    def instruments(self) -> dict[int, Instrument]:
        """Index (order of first sight) -> instrument."""
        return {index: instrument(name, self._venue) for name, index in self._indices.items()}

    def _readable(self) -> int:
        return self.messages - self._bad

    def _chunk(self) -> Events | None:
        return next(self._chunks, None)

    def _read(self) -> Iterator[Events]:
        for source in self._sources:
            self._stream = source.stream()
            yield from self._file(source, self._stream)
            if self._stream.cut:
                self._find(Integrity.malformed)
                self._note(self._stream.cut)
            self._done += self._stream.consumed
            self._stream = None

    def _file(self, source: Source, stream: Stream) -> Iterator[Events]:
        kind, line = None, 1
        for data in _whole_rows(stream):
            rows = data
            if kind is None:
                kind = kind_of(data)
                rows, line = _without_header(data)
                if kind == "bars":
                    self._note(f"{source.name}: bars hold no single trades; their rows are counted and give no events")
            if kind in LAYOUTS:
                yield self._trades(rows, LAYOUTS[kind], source, line)
            elif kind == "bars":
                self.messages += sum(bool(row.strip()) for row in rows.split(b"\n"))
                yield empty_events(0)
            else:
                yield self._unknown(rows, source, line)
            line += rows.count(b"\n")

    def _unknown(self, rows: bytes, source: Source, line: int) -> Events:
        n = sum(bool(row.strip()) for row in rows.split(b"\n"))
        self.messages += n
        self._bad += n
        self._find(Integrity.malformed, n)
        self._note(f"{source.name} from line {line}: neither trades nor bars")
        return empty_events(0)

    def _trades(self, rows: bytes, layout: Layout, source: Source, line: int) -> Events:
        """Rows at once; if anything is unusual about one of them, all of these one by one."""
        columns = fast_columns(rows, layout)
        if columns is None:
            columns = self._slow_columns(rows, layout, source, line)
        else:
            self.messages += len(columns.ids)
        if not len(columns.ids):
            return empty_events(0)
        index = self._index(source, columns.spot)
        self._check_ids(columns.ids, index)
        return _to_events(columns, index)

    def _index(self, source: Source, spot: bool) -> int:
        match = _NAME.match(source.name)
        if match is None:
            self._note(f"{source.name}: no SYMBOL-... in the file name; it is taken as the symbol")
        symbol = match[1] if match else source.name.partition(".")[0]
        return self._indices.setdefault(name_of(symbol, futures=not spot), len(self._indices))

    def _check_ids(self, ids: NDArray[np.int64], index: int) -> None:
        before = self._last.get(index, int(ids[0]) - 1)
        steps = np.diff(ids, prepend=before)
        self._find(Integrity.duplicate_seq, int((steps < 1).sum()), index)
        self._find(Integrity.gap, int((steps > 1).sum()), index)
        for at in np.flatnonzero(steps > 1)[:3]:
            self._note(f"trade ids {ids[at] - steps[at] + 1} to {ids[at] - 1} are missing")
        self._last[index] = int(ids.max(initial=before))

    def _slow_columns(self, rows: bytes, layout: Layout, source: Source, line: int) -> Columns:
        good, spot = [], True
        for number, row in enumerate(rows.split(b"\n"), line):
            if not row.strip():
                continue
            self.messages += 1
            try:
                parsed, spot = slow_row(row, layout, self._units)
                good.append(parsed)
            except ValueError as why:
                ranged = isinstance(why, RangeError)
                self._bad += not ranged
                self._find(Integrity.px_range if ranged else Integrity.malformed)
                self._note(f"{source.name} line {number} cannot be read: {why}")
        ids, px, qty, ts, side = np.array(good, np.int64).reshape(-1, 5).T
        return Columns(ids, px, qty, ts, side, spot)


@dataclass(frozen=True)
class Columns:
    """Trades by column, int64[n]: id, price and size in 1e-8, time in ns, resting side."""

    ids: NDArray[np.int64]
    px: NDArray[np.int64]
    qty: NDArray[np.int64]
    ts: NDArray[np.int64]
    side: NDArray[np.int64]
    spot: bool = True


def slow_row(row: bytes, layout: Layout, units: Units) -> tuple[tuple[int, int, int, int, int], bool]:
    """One row as (id, price, size, ns, side) and whether of spot: the naive twin of `fast_columns`.

    Raises
    ------
    ValueError : wrong number of columns, or a column that is not what it should be
    RangeError : a price or size that does not fit the units
    """
    parts = row.decode("ascii").strip().split(",")
    if len(parts) not in (layout.size, layout.size - 1):
        raise ValueError(f"{len(parts)} columns")
    number, time, maker = parts[0], parts[layout.time], parts[layout.maker].lower()
    if not (number.isdecimal() and len(number) <= 18 and time.isdecimal() and 13 <= len(time) <= 16):
        raise ValueError("no id or no time")
    if maker not in ("true", "false"):
        raise ValueError(f"{maker[:20]!r} is neither True nor False")
    px, qty = units[parts[1]], units[parts[2]]
    if px <= 0 or qty <= 0:
        raise ValueError("price or size not above zero")
    ts = venue_ns(int(time))
    if ts >= 1 << 63:
        raise ValueError(f"{time} is later than 2262")
    return (int(number), px, qty, ts, resting_side(maker == "true")), len(parts) == layout.size


def fast_columns(rows: bytes, layout: Layout) -> Columns | None:
    """All rows through Arrow's CSV reader, exactly (decimals, no floats); None when any row is not as usual."""
    if not rows.strip():
        return Columns(*np.zeros((5, 0), np.int64))
    first = rows.lstrip(b"\r\n").partition(b"\n")[0].count(b",") + 1
    if first not in (layout.size, layout.size - 1):
        return None
    names = [str(i) for i in range(first)]
    decimal = pa.decimal128(18, EXP)
    wanted = {"0": pa.int64(), "1": decimal, "2": decimal, str(layout.time): pa.int64(), str(layout.maker): pa.bool_()}
    try:
        table = pa_csv.read_csv(
            io.BytesIO(rows),
            read_options=pa_csv.ReadOptions(column_names=names, use_threads=False, block_size=len(rows) + 1),
            convert_options=pa_csv.ConvertOptions(
                column_types=wanted,
                include_columns=list(wanted),
                null_values=[],
                true_values=["True", "true", "TRUE"],
                false_values=["False", "false", "FALSE"],
            ),
        )
    except pa.ArrowInvalid:
        return None
    ids, time = (table[c].to_numpy() for c in ("0", str(layout.time)))
    px, qty = (_integers(table[c]) for c in ("1", "2"))
    maker = table[str(layout.maker)].to_numpy()
    usual = (ids >= 0) & (px > 0) & (qty > 0) & (time >= 10**12) & (time < 9 * 10**15)
    if not usual.all() or (ids >= 10**18).any():
        return None
    ts = np.where(time >= MICROSECONDS, time * 1_000, time * 1_000_000)
    side = np.where(maker, int(Side.BID), int(Side.ASK))
    return Columns(ids, px, qty, ts, side, spot=first == layout.size)


def _integers(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Decimals as their integers; -1 where one needs more than the lower half of its 128 bits.

    Arrow's CSV reader does not hold numbers to the precision of the type asked for, so the upper half is looked at.
    """
    parts = [
        np.frombuffer(c.buffers()[1], np.int64)[2 * c.offset : 2 * (c.offset + len(c))].reshape(-1, 2)
        for c in column.chunks
    ]
    halves = np.concatenate(parts) if parts else np.zeros((0, 2), np.int64)
    return np.where(halves[:, 1] == 0, halves[:, 0], -1)


def _to_events(columns: Columns, index: int) -> Events:
    out = empty_events(len(columns.ids))
    out["ts_event"], out["ts_recv"] = columns.ts, NULL_TS
    out["seq"] = out["ref"] = columns.ids
    out["px"], out["qty"], out["side"] = columns.px, columns.qty, columns.side
    out["instrument"], out["feed"] = index, FeedId.BINANCE
    out["action"], out["flags"] = Action.TRADE, Flag.LAST
    return out


def _whole_rows(stream: Stream) -> Iterator[bytes]:
    """Pieces that end with a row; the last one may lack its line end, but what a cut leaves of a row is left out."""
    rest = b""
    while piece := stream.read(PIECE):
        rest += piece
        end = rest.rfind(b"\n") + 1
        if end or len(rest) > PIECE + MAX_ROW:
            end = end or len(rest)  # no line end in a piece: it will be found malformed
            yield rest[:end]
            rest = rest[end:]
    if rest and not stream.cut:
        yield rest


def _without_header(data: bytes) -> tuple[bytes, int]:
    """The rows without a header, and the number of the first line that is left."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    if any(data.startswith(text) for text, _ in _HEADERS):
        return data.partition(b"\n")[2], 2
    return data, 1
