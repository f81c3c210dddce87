"""ITCH 5.0 bytes: one message from its fields, framing, and whole EVENT arrays of any L3 feed.

`encode_message` reads the same tables as the naive decoder. `ItchEncoder` keeps a table of live orders (a Python loop
over plain integers) and packs the bytes per message type with NumPy. Layouts: Nasdaq TotalView-ITCH 5.0.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microrisk.errors import EncodeError
from microrisk.feed.itch_pack import Columns, pack_rows
from microrisk.feed.itch_plan import ALL_INSTRUMENTS, NEGATIVE, NO_PRICE, Planner
from microrisk.feed.scale import IDENTITY, MAX_U32, UNFIT, Scale, exact
from microrisk.spec.messages import ITCH_BY_CODE, Field
from microrisk.spec.records import EVENT, Action, Flag
from microrisk.spec.units import NULL_PX, NULL_TS

DAY_NS = 86_400_000_000_000
MAX_TIMESTAMP = 2**48 - 1
MAX_LOCATE = 0xFFFF
CHUNK = 1 << 16
"""Events planned and packed at a time: bounds the memory and stays near the caches."""
DIRECTORY: dict[str, int | str] = {
    "tracking": 0,
    "market_category": "Q",
    "financial_status": "N",
    "round_lot_size": 100,
    "round_lots_only": "N",
    "issue_classification": "C",
    "issue_subtype": "Z",
    "authenticity": "T",
    "short_sale_threshold": "N",
    "ipo_flag": "N",
    "luld_tier": "1",
    "etp_flag": "N",
    "etp_leverage": 0,
    "inverse": "N",
}
"""Fields of a made-up stock directory message that say nothing about the source (authenticity T: test)."""


def _field_bytes(field: Field, value: int | str) -> bytes:
    """Big-endian integer or space-padded ASCII; EncodeError when it does not fit."""
    if field.kind == "u":
        top = (1 << (8 * field.size)) - 1
        if isinstance(value, str) or not 0 <= int(value) <= top:
            raise EncodeError(field.name, value, f"an integer from 0 to {top}")
        return int(value).to_bytes(field.size, "big")
    text = str(value)
    short = len(text) == field.size or (field.kind == "a" and len(text) < field.size)
    if not short or not text.isascii() or (text and not text.isprintable()):
        raise EncodeError(
            field.name, value, f"{field.size} printable ASCII characters{' at most' * (field.kind == 'a')}"
        )
    return text.encode("ascii").ljust(field.size)


def encode_message(code: str, **fields: int | str) -> bytes:
    """One bare ITCH message of type `code`; every field but `type` must be named, in feed units.

    Raises EncodeError for an unknown type, a missing or surplus field, or a value outside the field's range.
    """
    spec = ITCH_BY_CODE.get(code)
    if spec is None:
        raise EncodeError("type", code, f"one of {''.join(ITCH_BY_CODE)}")
    wanted = {f.name for f in spec.fields if f.name != "type"}
    if fields.pop("type", code) != code or set(fields) != wanted:
        odd = sorted(set(fields) ^ wanted)
        raise EncodeError("fields", odd, f"exactly {sorted(wanted)} for type {code}")
    return b"".join(_field_bytes(f, code if f.name == "type" else fields[f.name]) for f in spec.fields)


def frame(messages: Iterable[bytes], *, end_mark: bool = False) -> bytes:
    """Each message behind its 2-byte big-endian length; `end_mark` adds the zero length that ends a day file."""
    out = bytearray()
    for message in messages:
        if not 0 < len(message) <= 0xFFFF:
            raise EncodeError("length", len(message), "1 to 65535 bytes a message")
        out += len(message).to_bytes(2, "big") + message
    return bytes(out + b"\0\0" if end_mark else out)


def unframe(data: bytes) -> list[bytes]:
    """Inverse of frame() for well-formed input without an end mark."""
    out, offset = [], 0
    while offset < len(data):
        end = offset + 2 + int.from_bytes(data[offset : offset + 2], "big")
        out.append(data[offset + 2 : end])
        offset = end
    return out


class ItchEncoder:
    """EVENT arrays of an L3 feed -> framed ITCH 5.0 bytes, a stock directory message before an instrument's first.

    Parameters
    ----------
    symbols : instrument index -> symbol; an index met without one is called I<index>. Longer symbols are cut to the
        8 characters of ITCH, made unique, and kept whole in the sidecar
    scales : instrument index -> Scale, or one for all
    midnight_ns : UTC ns of the session's midnight in New York; times on the wire are ns since then
    on_ts : a time outside the 48 bits of the wire is taken modulo one day and counted ("wrap") or refused ("raise")

    Attributes
    ----------
    counts : messages left out or changed, by reason; `ts_wrapped`, and `ts_beyond_day` (kept: the field holds 78 h)

    Stock locate = instrument index; an index of 0 becomes 65535, because locate 0 means "no stock".
    """

    def __init__(
        self,
        symbols: Mapping[int, str] | None = None,
        scales: Mapping[int, Scale] | Scale = IDENTITY,
        *,
        midnight_ns: int = 0,
        on_ts: str = "wrap",
    ) -> None:
        if on_ts not in ("wrap", "raise"):
            raise EncodeError("on_ts", on_ts, "wrap or raise")
        self.midnight_ns, self._on_ts = midnight_ns, on_ts
        self._given = dict(symbols or {})
        self._scales = scales
        self._planner = Planner(lambda index, size: self._directory[index][2].feed_size(size))
        self._directory: dict[int, tuple[str, str, Scale]] = {}
        self._stock = np.zeros(MAX_LOCATE + 1, "S8")
        self._factors = np.ones((5, MAX_LOCATE + 1), np.int64)
        self._last_ts = 0

    @property
    def counts(self) -> Counter[str]:
        """See the class."""
        return self._planner.counts

    def encode(self, events: NDArray[np.void]) -> bytes:
        """Framed messages of `events` (EVENT, in order); may be called again with the next ones.

        Raises EncodeError for L2 events, an instrument index above 65534, or a time that does not fit (on_ts "raise").
        """
        if events.dtype != EVENT:
            raise EncodeError("events", events.dtype, "an array of dtype EVENT")
        return b"".join(self._chunk(events[i : i + CHUNK]) for i in range(0, len(events), CHUNK))

    def end(self) -> bytes:
        """The zero length that ends a day file."""
        return b"\0\0"

    def sidecar(self) -> dict[str, Any]:
        """What is needed to read the prices and sizes back, and what was left out."""
        instruments = [
            {"instrument": index, "locate": _locate(index), "symbol": symbol, "stock": stock, "scale": scale.as_dict()}
            for index, (symbol, stock, scale) in sorted(self._directory.items())
        ]
        rule = "feed px = price * px_den / px_num + px_offset; feed qty = shares * qty_den / qty_num"
        return {
            "format": "itch50",
            "midnight_ns": self.midnight_ns,
            "rule": rule,
            "instruments": instruments,
            "counts": dict(sorted(self.counts.items())),
        }

    def write_sidecar(self, path: str | Path) -> Path:
        """Write sidecar() to `<path>.scale.json`, and return that path."""
        out = Path(f"{path}.scale.json")
        out.write_text(json.dumps(self.sidecar(), indent=1) + "\n")
        return out

    def _chunk(self, events: NDArray[np.void]) -> bytes:
        ts = self._times(events)
        head = self._announce(events, ts)
        locate = _locates(events["instrument"])
        px, qty = self._scaled(events, locate)
        names = ("instrument", "action", "order_id", "side", "flags", "ref")
        inst, action, oid, side, flags, ref = (events[n].tolist() for n in names)
        rows = zip(range(len(events)), inst, action, oid, px.tolist(), qty.tolist(), side, flags, ref, strict=True)
        plan = np.array(self._planner.plan(rows, events["qty"].tolist()), np.uint64).reshape(-1, 6)
        return head + pack_rows(plan, Columns(ts, locate, self._stock[locate], events["ref"]))

    def _times(self, events: NDArray[np.void]) -> NDArray[np.uint64]:
        """Nanoseconds since midnight; receive time where there is no event time, else the time before."""
        ts = np.where(events["ts_event"] == NULL_TS, events["ts_recv"], events["ts_event"])
        for i in np.flatnonzero(ts == NULL_TS).tolist():
            ts[i] = ts[i - 1] if i else self._last_ts + self.midnight_ns
        ts = ts - self.midnight_ns
        outside = (ts < 0) | (ts > MAX_TIMESTAMP)
        if self._on_ts == "raise" and outside.any():
            raise EncodeError("ts_event", int(ts[np.argmax(outside)]), f"0 to {MAX_TIMESTAMP} ns after midnight")
        self.counts["ts_wrapped"] += int(outside.sum())
        self.counts["ts_beyond_day"] += int(((ts >= DAY_NS) & ~outside).sum())
        ts = np.where(outside, ts % DAY_NS, ts)
        self._last_ts = int(ts[-1]) if len(ts) else self._last_ts
        return ts.astype(np.uint64)

    def _scaled(
        self, events: NDArray[np.void], locate: NDArray[np.uint16]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """ITCH price and size of every event, UNFIT or NO_PRICE; a cross may have 64 bits of size."""
        px_num, px_den, px_offset, qty_num, qty_den = self._factors[:, locate]
        px = exact(events["px"], px_num, px_den, px_offset)
        unpriced = (events["action"] == Action.REDUCE) & ((events["px"] == 0) | (events["px"] == NULL_PX))
        cross = (events["action"] == Action.TRADE) & (events["flags"] & Flag.CROSS != 0)
        qty = exact(events["qty"], qty_num, qty_den, np.zeros(1, np.int64), top=2**63 - 1)
        qty = np.where((qty > MAX_U32) & ~cross, UNFIT, qty)
        return np.where(unpriced, NO_PRICE, px), np.where(events["qty"] < 0, NEGATIVE, qty)

    def _announce(self, events: NDArray[np.void], ts: NDArray[np.uint64]) -> bytes:
        """A directory message for each instrument that is new in this chunk (all given ones before the first chunk)."""
        seen = {int(i) for i in np.unique(events["instrument"])} - {ALL_INSTRUMENTS}
        new = sorted((seen | (set() if self._directory else set(self._given))) - set(self._directory))
        now = int(ts[0]) if len(ts) else 0
        return frame([self._register(index, now) for index in new])

    def _register(self, index: int, ts: int) -> bytes:
        if not 0 <= index < MAX_LOCATE:
            raise EncodeError("instrument", index, f"0 to {MAX_LOCATE - 1}: a stock locate has 16 bits")
        symbol = self._given.get(index, f"I{index}")
        scale = self._scales if isinstance(self._scales, Scale) else self._scales.get(index, IDENTITY)
        stock = self._short(symbol, index)
        self._directory[index] = (symbol, stock, scale)
        self._stock[_locate(index)] = stock.encode("ascii")
        self._factors[:, _locate(index)] = tuple(scale.as_dict().values())
        return encode_message("R", **DIRECTORY, locate=_locate(index), stock=stock, timestamp=ts)

    def _short(self, symbol: str, index: int) -> str:
        """Eight ASCII characters, unique among the registered ones."""
        plain = "".join(c if c.isascii() and c.isprintable() and c != " " else "_" for c in symbol)
        if len(plain) <= 8 and plain not in (d[1] for d in self._directory.values()):
            return plain
        return plain[: 7 - len(str(index))] + "~" + str(index)


def _locate(index: int) -> int:
    return index or MAX_LOCATE


def _locates(instrument: NDArray[np.uint32]) -> NDArray[np.uint16]:
    """Stock locate per event; "all instruments" gets 0."""
    kept = np.where(instrument == ALL_INSTRUMENTS, 0, np.where(instrument == 0, MAX_LOCATE, instrument))
    return kept.astype(np.uint16)


def write_itch(
    path: str | Path,
    chunks: Iterable[NDArray[np.void]],
    encoder: ItchEncoder,
) -> int:
    """Write every chunk of events to `path`, the end mark, and the sidecar beside it; returns the bytes written."""
    with Path(path).open("wb") as out:
        size = sum(out.write(encoder.encode(chunk)) for chunk in chunks)
        size += out.write(encoder.end())
    encoder.write_sidecar(path)
    return size
