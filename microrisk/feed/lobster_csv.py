"""The two CSV files of a LOBSTER pair to integer arrays and back, byte for byte.

A message row is time, type, order id, size, price, direction; an orderbook row is ask price, ask size, bid price,
bid size, level by level. Times are decimal seconds after midnight: they are read as decimals into integer nanoseconds
(never through a float) and written without trailing zeros. Source: LOBSTER, "Sample Files Readme", output structure.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from microrisk.feed.open import Source
from microrisk.feed.text import to_units
from microrisk.spec.units import NS_PER_S

MESSAGE = np.dtype(
    [
        ("time", "<i8"),  # ns after midnight
        ("id", "<i8"),
        ("size", "<i8"),
        ("price", "<i8"),  # 1e-4
        ("type", "i1"),  # 1..7; 0 = the row could not be read
        ("direction", "i1"),  # 1 buy, -1 sell
    ]
)
_COLUMNS = ("time", "type", "id", "size", "price", "direction")
MAX_SIZE = 1 << 40
"""Shares that a row may name: what levels add up to then stays within 64 bits."""
LAST_OF_AN_ORDER = 4
"""Rows of types 1 to this are about an order in the book, which has a number; a cross print names order -1."""
UNREADABLE = -(2**63)
"""First cell of an orderbook row that could not be read."""
DUMMY_ASK, DUMMY_BID = 9_999_999_999, -9_999_999_999
"""Prices of levels that are not occupied; their size is 0."""

_PIECE = 4 << 20

Messages = NDArray[np.void]
Images = NDArray[np.int64]


@dataclass(frozen=True)
class FileName:
    """The parts of `TICKER_DATE_START_END_message_LEVEL.csv`; ticker is the whole stem when a name has another form."""

    ticker: str
    kind: str
    levels: int | None


def parse_name(name: str) -> FileName:
    """Take a LOBSTER file name apart."""
    match = re.fullmatch(r"(.+?)_\d{4}-\d{2}-\d{2}_\d+_\d+_(message|orderbook)_(\d+)\.csv", name)
    if match:
        return FileName(match[1], match[2], int(match[3]))
    stem = name.rsplit(".", 1)[0]
    return FileName(re.split(r"_(?:message|orderbook)", stem)[0] or stem, "", None)


def orderbook_name(name: str) -> str:
    """Name of the other file of a message file's pair."""
    return name.replace("_message", "_orderbook")


def read_messages(data: bytes) -> Messages:
    """Whole lines of a message file; a row that is not one has type 0, so that rows keep their numbers."""
    if not data.strip():
        return np.zeros(0, MESSAGE)
    try:
        table = _table(data, list(_COLUMNS), {"time": pa.decimal128(20, 9)} | dict.fromkeys(_COLUMNS[1:], pa.int64()))
        out = np.zeros(table.num_rows, MESSAGE)
        for name in _COLUMNS[1:]:
            _fill(out[name], table[name].to_numpy())
        out["time"] = _decimal_low(table["time"])
        if (np.abs(out["direction"]) != 1).any() or (out["type"] < 1).any() or (np.abs(out["size"]) > MAX_SIZE).any():
            raise OverflowError
        if ((out["type"] <= LAST_OF_AN_ORDER) & (out["id"] < 0)).any():
            raise OverflowError
    except (pa.ArrowInvalid, OverflowError):
        return _read_messages_singly(data)
    return out


def _table(data: bytes, names: list[str], types: dict[str, pa.DataType]) -> pa.Table:
    return csv.read_csv(
        pa.BufferReader(data),
        read_options=csv.ReadOptions(use_threads=False, column_names=names, block_size=len(data) + 1),
        convert_options=csv.ConvertOptions(column_types=types, null_values=[], strings_can_be_null=False),
    )


def _fill(column: NDArray[Any], values: NDArray[np.int64]) -> None:
    """Copy into a narrower column, refusing what does not fit."""
    column[...] = values
    if not np.array_equal(column, values):
        raise OverflowError


def _decimal_low(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """The low words of 128-bit decimals: the values themselves as long as they fit 63 bits, which times do."""
    parts = [np.frombuffer(c.buffers()[1], "<i8").reshape(-1, 2)[c.offset : c.offset + len(c)] for c in column.chunks]
    words = np.concatenate(parts) if parts else np.zeros((0, 2), np.int64)
    if (words[:, 1] != 0).any():
        raise OverflowError
    return np.ascontiguousarray(words[:, 0])


def _lines(data: bytes) -> list[bytes]:
    return [line for line in data.replace(b"\r\n", b"\n").split(b"\n") if line]


def _read_messages_singly(data: bytes) -> Messages:
    lines = _lines(data)
    out = np.zeros(len(lines), MESSAGE)
    for row, line in zip(out, lines, strict=True):
        cells = line.decode("latin-1").split(",")
        try:
            time = to_units(cells[0], 9)
            kind, order, size, price, direction = map(int, cells[1:])
            if time < 0 or direction not in (-1, 1) or not 1 <= kind <= 127 or not -MAX_SIZE <= size <= MAX_SIZE:
                continue
            if order < 0 and kind <= LAST_OF_AN_ORDER:
                continue
            row["time"], row["id"], row["size"], row["price"] = time, order, size, price
            row["direction"], row["type"] = direction, kind
        except (ValueError, OverflowError):
            continue
    return out


def read_images(data: bytes) -> Images:
    """Whole lines of an orderbook file as int64[rows, 4 * levels]; an unreadable row begins with UNREADABLE."""
    lines = _lines(data[: data.find(b"\n") + 1] or data)
    if not lines:
        return np.zeros((0, 4), np.int64)
    names = [str(i) for i in range(lines[0].count(b",") + 1)]
    try:
        table = _table(data, names, dict.fromkeys(names, pa.int64()))
        return np.stack([table[n].to_numpy() for n in names], axis=1)
    except (pa.ArrowInvalid, OverflowError):
        return _read_images_singly(data)


def _read_images_singly(data: bytes) -> Images:
    rows = [_cells(line) for line in _lines(data)]
    width = max((len(r) for r in rows), default=0) or 4
    out = np.full((len(rows), width), UNREADABLE, np.int64)
    for k, row in enumerate(rows):
        if len(row) == width:
            out[k] = row
    return out


def _of_one_width(parts: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """Images with the width of the first part; rows of another width count as unreadable."""
    shape = parts[0].shape[1:]
    return [p if p.shape[1:] == shape else np.full((len(p), *shape), UNREADABLE, p.dtype) for p in parts]


def _cells(line: bytes) -> list[int]:
    try:
        cells = [int(c) for c in line.split(b",")]
    except ValueError:
        return []
    return cells if all(-(2**63) < c < 2**63 for c in cells) else []


def format_time(ns: int) -> str:
    """Nanoseconds as decimal seconds without trailing zeros: 34200004241176 -> 34200.004241176."""
    seconds, rest = divmod(ns, NS_PER_S)
    return f"{seconds}.{rest:09d}".rstrip("0") if rest else str(seconds)


def format_messages(rows: Messages) -> bytes:
    """Lines of a message file, each with its LF."""
    columns = [rows[name].tolist() for name in _COLUMNS]
    cells = zip(*columns, strict=True)
    return "".join(f"{format_time(t)},{y},{i},{s},{p},{d}\n" for t, y, i, s, p, d in cells).encode()


def format_images(images: Images) -> bytes:
    """Lines of an orderbook file, each with its LF."""
    return "".join(",".join(map(str, row)) + "\n" for row in images.tolist()).encode()


class Rows:
    """Rows of one CSV file, as many at a time as asked for; the file never lies in memory as a whole.

    Attributes
    ----------
    stream : the bytes below; its `cut` says whether they broke off
    ends_with_newline : whether the last line has its LF (known once every row was taken)
    """

    def __init__(self, source: Source, read: Callable[[bytes], NDArray[Any]]) -> None:
        self.stream = source.stream()
        self.ends_with_newline = True
        self._read = read
        self._rest = b""
        self._more = True
        self._ready: list[NDArray[Any]] = []
        self._have = 0

    def take(self, n: int) -> NDArray[Any]:
        """The next `n` rows; fewer only at the end."""
        while self._have < n and self._more:
            self._fill()
        rows = np.concatenate(_of_one_width(self._ready)) if self._ready else self._read(b"")
        self._ready = [rows[n:]] if len(rows) > n else []
        self._have = max(0, len(rows) - n)
        return rows[:n]

    def _fill(self) -> None:
        piece = self.stream.read(_PIECE)
        data = self._rest + piece
        end = data.rfind(b"\n") + 1 if piece else len(data)
        self._rest = data[end:]
        self._more = bool(piece)
        if not piece and data and self.stream.cut is None:
            self.ends_with_newline = False
        # what a broken stream leaves of its last line is no row
        if end and (piece or self.stream.cut is None):
            rows = self._read(data[:end])
            self._ready.append(rows)
            self._have += len(rows)
