"""Naive ITCH 5.0 decoder, straight from the tables of `microrisk.spec.messages`: the twin of the C++ decoder.

It is written to be checked by eye: one message at a time, one dictionary a message, no speed. Framing: a 2-byte
big-endian length before each message (Nasdaq "BinaryFILE"). Source of the layouts: Nasdaq TotalView-ITCH 5.0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from microrisk.errors import FeedError
from microrisk.spec.messages import ITCH_BY_CODE, Field
from microrisk.spec.records import EVENT, Action, FeedId, Flag, TradingState
from microrisk.spec.units import NULL_TS, Side

ALL_INSTRUMENTS = 0xFFFFFFFF
"""EVENT.instrument of a STATE that concerns every instrument."""

Value = int | str
SIDES = {"B": Side.BID, "S": Side.ASK}
ACTION_STATES = {
    "H": TradingState.HALTED,
    "P": TradingState.HALTED,
    "Q": TradingState.AUCTION,
    "T": TradingState.TRADING,
}
"""Trading action message (H): its state code."""
SYSTEM_STATES = {"Q": TradingState.TRADING, "M": TradingState.CLOSED}
"""System event message (S): its event code; the others say nothing about trading."""


def decode_field(data: bytes, field: Field) -> Value:
    """One field: an unsigned integer, or Latin-1 text (padding spaces of an "a" field taken off)."""
    raw = data[field.offset : field.offset + field.size]
    if field.kind == "u":
        return int.from_bytes(raw, "big")
    text = raw.decode("latin-1")
    return text.rstrip(" ") if field.kind == "a" else text


def decode_message(data: bytes) -> dict[str, Value]:
    """All fields of one bare message, by the names of the specification, in wire order.

    Raises FeedError for an empty message, an unknown type, or a length that is not the type's.
    """
    spec = ITCH_BY_CODE.get(data[:1].decode("latin-1"))
    if spec is None:
        raise FeedError(f"unknown ITCH type {data[:1]!r}")
    if len(data) != spec.length:
        raise FeedError(f"ITCH type {spec.code} has {spec.length} bytes, this one {len(data)}")
    return {f.name: decode_field(data, f) for f in spec.fields}


def is_well_formed(data: bytes) -> bool:
    """Whether the type is known, the length is the type's, a side is B or S, and shares fit a signed 64-bit integer."""
    try:
        fields = decode_message(data)
    except FeedError:
        return False
    return fields.get("side", "B") in SIDES and int(fields.get("shares", 0)) < 1 << 63


def _blank(fields: dict[str, Value], action: Action, flags: int = 0) -> dict[str, int]:
    """An event with the common header; the caller fills the rest. Every ITCH message completes its event."""
    event = dict.fromkeys(EVENT.names or (), 0)
    event.update(feed=FeedId.ITCH50, action=action, flags=flags | Flag.LAST, instrument=int(fields["locate"]))
    return event


def _add(f: dict[str, Value]) -> dict[str, int]:
    return _blank(f, Action.ADD) | {
        "order_id": int(f["ref"]),
        "side": SIDES[str(f["side"])],
        "px": int(f["price"]),
        "qty": int(f["shares"]),
    }


def _executed(f: dict[str, Value]) -> dict[str, int]:
    """E and C; E names no price (px 0: the order's own)."""
    quiet = Flag.NO_PRINT if f.get("printable") == "N" else 0
    return _blank(f, Action.REDUCE, Flag.EXEC | quiet) | {
        "order_id": int(f["ref"]),
        "ref": int(f["match"]),
        "px": int(f.get("price", 0)),
        "qty": int(f["shares"]),
    }


def _cancel(f: dict[str, Value]) -> dict[str, int]:
    return _blank(f, Action.REDUCE) | {"order_id": int(f["ref"]), "qty": int(f["shares"])}


def _delete(f: dict[str, Value]) -> dict[str, int]:
    return _blank(f, Action.DELETE) | {"order_id": int(f["ref"])}


def _replace(f: dict[str, Value]) -> dict[str, int]:
    return _blank(f, Action.REPLACE) | {
        "order_id": int(f["ref"]),
        "ref": int(f["new_ref"]),
        "px": int(f["price"]),
        "qty": int(f["shares"]),
    }


def _trade(f: dict[str, Value]) -> dict[str, int]:
    """P: an execution against an order that was not displayed; its side is the resting one."""
    return _blank(f, Action.TRADE, Flag.HIDDEN) | {
        "order_id": int(f["ref"]),
        "ref": int(f["match"]),
        "side": SIDES[str(f["side"])],
        "px": int(f["price"]),
        "qty": int(f["shares"]),
    }


def _cross(f: dict[str, Value]) -> dict[str, int]:
    return _blank(f, Action.TRADE, Flag.CROSS) | {
        "ref": int(f["match"]),
        "px": int(f["price"]),
        "qty": int(f["shares"]),
    }


def _trading_action(f: dict[str, Value]) -> dict[str, int] | None:
    state = ACTION_STATES.get(str(f["state"]))
    return None if state is None else _blank(f, Action.STATE) | {"ref": state}


def _system_event(f: dict[str, Value]) -> dict[str, int] | None:
    state = SYSTEM_STATES.get(str(f["event"]))
    return None if state is None else _blank(f, Action.STATE) | {"ref": state, "instrument": ALL_INSTRUMENTS}


_MAKERS = {
    "A": _add,
    "F": _add,
    "E": _executed,
    "C": _executed,
    "X": _cancel,
    "D": _delete,
    "U": _replace,
    "P": _trade,
    "Q": _cross,
    "H": _trading_action,
    "S": _system_event,
}


def event_of(fields: dict[str, Value]) -> dict[str, int] | None:
    """The event of one decoded message without its times and sequence; None for a type that has no event."""
    maker = _MAKERS.get(str(fields["type"]))
    return None if maker is None else maker(fields)


def to_array(events: list[dict[str, int]]) -> NDArray[np.void]:
    """EVENT array of the dictionaries, in order."""
    out = np.zeros(len(events), EVENT)
    for i, event in enumerate(events):
        out[i] = tuple(event[name] for name in EVENT.names or ())
    return out


class ReferenceDecoder:
    """Framed or bare ITCH 5.0 -> EVENT, with the counters of the C++ `ItchDecoder`.

    Parameters
    ----------
    midnight_ns : UTC nanoseconds of the session's midnight in New York, added to every time stamp

    Attributes
    ----------
    messages : framed messages of every kind, malformed and unknown ones too; the next one's seq is this + 1
    malformed : known type with a wrong length or an impossible side, skipped by its prefix
    unknown_type : type not in the specification, skipped by its prefix
    trailing : bytes behind the end mark
    ended : an end mark was seen
    first_ts, last_ts : event time of the first and last well-formed message, ns; NULL_TS before it
    """

    def __init__(self, *, midnight_ns: int = 0) -> None:
        self.midnight_ns = midnight_ns
        self.messages = self.malformed = self.unknown_type = self.trailing = 0
        self.ended = False
        self.first_ts = self.last_ts = NULL_TS
        self._counts: Counter[str] = Counter()
        self._symbols: dict[int, str] = {}
        self._zero_read = False  # a length of zero was the last thing in the buffer: the next byte tells what it means

    def counts(self) -> dict[str, int]:
        """Well-formed messages by type code."""
        return dict(self._counts)

    def symbols(self) -> dict[int, str]:
        """Locate -> symbol: from R, or from the first A, F or P of a locate that had no R."""
        return dict(self._symbols)

    def decode(self, data: bytes, offset: int = 0) -> tuple[NDArray[np.void], int]:
        """EVENT array of everything from `offset`, and the offset of the first byte not consumed."""
        events: list[dict[str, int]] = []
        for message, end in self._frames(data, offset):
            offset = end
            event = self._one(message, self.messages + 1, NULL_TS) if message else None
            if event is not None:
                events.append(event)
        return to_array(events), offset

    def message(self, data: bytes, seq: int, ts_recv: int) -> NDArray[np.void]:
        """0 or 1 event of one bare message (a MoldUDP64 block) that bears sequence `seq`."""
        event = self._one(data, seq, ts_recv)
        return to_array([] if event is None else [event])

    def _frames(self, data: bytes, offset: int) -> Iterator[tuple[bytes, int]]:
        """(message, offset behind it) until the rest is incomplete; empty for an end mark and for what follows it."""
        while (place := self._place(data, offset)) is not None:
            start, offset = place
            yield data[start:offset], offset
        if self.ended and offset < len(data):
            self.trailing += len(data) - offset
            yield b"", len(data)

    def _place(self, data: bytes, offset: int) -> tuple[int, int] | None:
        """Start and end of the next message, equal for an end mark; None after the end or for an incomplete rest."""
        if self._zero_read and offset < len(data):
            self.ended = data[offset : offset + 1].decode("latin-1") not in ITCH_BY_CODE
            self._zero_read = not self.ended
        start = offset if self._zero_read else offset + 2
        if self.ended or start > len(data):
            return None
        length = 0 if self._zero_read else int.from_bytes(data[offset:start], "big")
        if length == 0:  # the framing of some writers: a known type behind it has its own length
            spec = ITCH_BY_CODE.get(data[start : start + 1].decode("latin-1"))
            if spec is None:
                self.ended, self._zero_read = True, start == len(data)
                return start, start
            length = spec.length
        if start + length > len(data):
            return None
        self._zero_read = False
        return start, start + length

    def _one(self, data: bytes, seq: int, ts_recv: int) -> dict[str, int] | None:
        """Count one message and turn it into an event, where its type has one."""
        self.messages += 1
        if not self._accept(data):
            return None
        fields = decode_message(data)
        ts = self.midnight_ns + int(fields["timestamp"])
        self._learn(fields, ts)
        event = event_of(fields)
        return None if event is None else event | {"ts_event": ts, "ts_recv": ts_recv, "seq": seq}

    def _accept(self, data: bytes) -> bool:
        if data[:1].decode("latin-1") not in ITCH_BY_CODE:
            self.unknown_type += 1
            return False
        if not is_well_formed(data):
            self.malformed += 1
            return False
        return True

    def _learn(self, fields: dict[str, Value], ts: int) -> None:
        code, locate = str(fields["type"]), int(fields["locate"])
        self._counts[code] += 1
        self.last_ts = ts
        if self.first_ts == NULL_TS:
            self.first_ts = ts
        if code == "R":
            self._symbols[locate] = str(fields["stock"])
        elif code in "AFP":
            self._symbols.setdefault(locate, str(fields["stock"]))


def to_events(data: bytes, *, midnight_ns: int = 0) -> NDArray[np.void]:
    """EVENT array of a whole length-prefixed buffer; see ReferenceDecoder for the counters."""
    return ReferenceDecoder(midnight_ns=midnight_ns).decode(data)[0]
