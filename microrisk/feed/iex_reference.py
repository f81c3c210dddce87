"""Naive IEX-TP reader and decoder of TOPS, DEEP and DEEP+: the twin of the C++ `IexCapture` and `IexDecoder`.

Written to be checked by eye against the rules of `microrisk.feed.iex` and the tables of `microrisk.spec.iex`: one
datagram, one message, one dictionary at a time.
"""

from __future__ import annotations

import heapq
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from microrisk.feed.pcap import Datagram, iter_udp
from microrisk.feed.reference import Value
from microrisk.spec.iex import DEEP_PLUS, IEX, SALE_CROSS, SEGMENT, SEGMENT_VERSION, by_code
from microrisk.spec.messages import Message
from microrisk.spec.records import EVENT, Action, FeedId, Flag, TradingState
from microrisk.spec.units import NS_PER_S, NULL_TS, Side

Fields = dict[str, Value]
Event = dict[str, int]
STATES = {
    "H": TradingState.HALTED,
    "P": TradingState.HALTED,
    "O": TradingState.AUCTION,
    "T": TradingState.TRADING,
}
SIDES = {"8": Side.BID, "5": Side.ASK}
MAX_SEQUENCE = 2**63 - 1


def _struct(layout: Message) -> struct.Struct:
    """The layout in the language of the struct module: little-endian, without padding."""
    codes = {("u", 1): "B", ("u", 2): "H", ("u", 4): "I", ("u", 8): "Q", ("i", 8): "q"}
    return struct.Struct("<" + "".join(codes.get((f.kind, f.size), f"{f.size}s") for f in layout.fields))


_STRUCTS = {layout.name: _struct(layout) for layout in (SEGMENT, *(m.layout for m in IEX))}


def decode_fields(data: bytes, layout: Message) -> Fields:
    """All fields of a message or header that is long enough: integers, and text without its padding."""
    values = zip(layout.fields, _STRUCTS[layout.name].unpack_from(data), strict=True)
    return {f.name: v if isinstance(v, int) else v.decode("latin-1").rstrip(" " * (f.kind == "a")) for f, v in values}


@dataclass
class SegmentCounters:
    """What the reader met; names and meanings are those of the C++ `IexCapture.counters`."""

    packets: int = 0
    messages: int = 0
    heartbeats: int = 0
    gap: int = 0
    missing: int = 0
    late: int = 0
    duplicate_seq: int = 0
    session_reset: int = 0
    malformed: int = 0
    trailing: int = 0
    foreign: int = 0


@dataclass
class _Session:
    expected: int = 0
    newest: int | None = None
    lost: list[range] = field(default_factory=list)


@dataclass(frozen=True)
class Block:
    """One new message, or (data None) a restart of the stream."""

    seq: int
    ts_recv: int
    data: bytes | None
    sent: int


class ReferenceSegments:
    """State of a receiver of the segments of one message protocol."""

    def __init__(self, protocol: int) -> None:
        self.counters = SegmentCounters()
        self._protocol = protocol
        self._sessions: dict[tuple[int, int], _Session] = {}

    def datagram(self, d: Datagram) -> Iterator[Block]:
        """The new messages of one datagram, in front of them its restart."""
        c, data = self.counters, bytes(d.payload)
        if len(data) < SEGMENT.length:
            c.malformed += not d.cut
            return
        head = {name: int(value) for name, value in decode_fields(data, SEGMENT).items()}
        if head["version"] != SEGMENT_VERSION:
            c.malformed += 1
            return
        if head["protocol"] != self._protocol:
            c.foreign += 1
            return
        if not 0 < head["first"] <= MAX_SEQUENCE - head["count"]:
            c.malformed += 1
            return
        c.packets += 1
        session, restarted = self._session(head)
        if restarted:
            c.session_reset += 1
            yield Block(head["first"], d.ts, None, head["send_time"])
        self._note_gap(session, head["first"])
        yield from self._blocks(session, head, data, d)

    def _session(self, head: dict[str, int]) -> tuple[_Session, bool]:
        key = head["channel"], head["session"]
        sent = head["send_time"]
        if key not in self._sessions:
            session = self._sessions[key] = _Session(1 if self._sessions else 0, sent)
            return session, len(self._sessions) > 1
        session = self._sessions[key]
        assert session.newest is not None
        later = sent - session.newest > NS_PER_S
        again = head["first"] == 1 and head["stream_offset"] == 0 and session.expected > 1 and later
        if again:
            session.expected, session.lost = 1, []
        session.newest = max(session.newest, sent)
        return session, again

    def _note_gap(self, session: _Session, first: int) -> None:
        session.expected = session.expected or first
        if first > session.expected:
            self.counters.gap += 1
            self.counters.missing += first - session.expected
            session.lost.append(range(session.expected, first))
            session.expected = first

    def _blocks(self, session: _Session, head: dict[str, int], data: bytes, d: Datagram) -> Iterator[Block]:
        c, offset, says = self.counters, SEGMENT.length, SEGMENT.length + head["payload"]
        c.malformed += says > len(data) and not d.cut
        c.trailing += max(0, len(data) - says)
        data = data[:says]
        c.heartbeats += head["count"] == 0
        for seq in range(head["first"], head["first"] + head["count"]):
            start = offset + 2
            end = start + int.from_bytes(data[offset:start], "little")
            if start > len(data) or end > len(data):
                c.malformed += says <= len(data)
                return
            offset = end
            if seq < session.expected:
                c.duplicate_seq += 1
                c.late += any(seq in r for r in session.lost)
                continue
            session.expected = seq + 1
            c.messages += 1
            yield Block(seq, d.ts, data[start:end], head["send_time"])
        c.trailing += len(data) - offset


@dataclass
class _Known:
    """What the decoder remembers of an instrument: the quote that stands (side -> price), and where its book is."""

    quote: dict[Side, int] = field(default_factory=dict)
    booked: bool = False
    in_transition: bool = False


class ReferenceIexDecoder:
    """Messages of one protocol -> events, with the counters of the C++ `IexDecoder`."""

    def __init__(self, protocol: int) -> None:
        self.messages = self.malformed = self.unknown_type = self.synthetic = 0
        self._layouts = by_code(protocol)
        self._hidden = Flag.HIDDEN if protocol == DEEP_PLUS else 0
        self._counts: Counter[str] = Counter()
        self._numbers: dict[str, int] = {}
        self._known: dict[int, _Known] = {}
        self._makers: dict[str, Callable[[Fields, _Known], list[Event] | None]] = {
            "8": self._level,
            "5": self._level,
            "Q": self._quote,
            "T": self._trade,
            "H": self._status,
            "a": self._add,
            "M": self._modify,
            "R": self._delete,
            "L": self._executed,
            "C": self._clear,
        }

    def counts(self) -> dict[str, int]:
        """Well-formed messages by type code."""
        return dict(self._counts)

    def symbols(self) -> list[str]:
        """Symbols in order of appearance: by instrument number."""
        return list(self._numbers)

    def block(self, b: Block) -> list[Event]:
        """The events of a message, or the CLEARs of a restart."""
        if b.data is None:
            return self._restart(b)
        if not b.data:
            return []
        self.messages += 1
        code = b.data[:1].decode("latin-1")
        layout = self._layouts.get(code)
        if layout is None:
            self.unknown_type += 1
            return []
        fields = decode_fields(b.data, layout) if len(b.data) >= layout.length else {}
        events = self._events(code, fields) if fields else None
        if events is None:
            self.malformed += 1
            return []
        self._counts[code] += 1
        for e in events:
            e.update(ts_event=int(fields["timestamp"]), ts_recv=b.ts_recv or NULL_TS, seq=b.seq)
        return events

    def _events(self, code: str, f: Fields) -> list[Event] | None:
        """Events without times; None for what is malformed."""
        if code == "S":
            return []
        symbol = str(f["symbol"])
        if not symbol or symbol[0] == " " or not (symbol.isascii() and symbol.isprintable()):
            return None
        number = self._numbers.setdefault(symbol, len(self._numbers))
        known = self._known.setdefault(number, _Known())
        maker = self._makers.get(code)
        events = maker(f, known) if maker else []
        for e in events or ():
            e["instrument"] = number
        if events and not known.in_transition:
            events[-1]["flags"] |= Flag.LAST
        return events

    def _restart(self, b: Block) -> list[Event]:
        out = []
        for number, known in sorted(self._known.items()):
            if known.booked:
                out.append(_event(Action.CLEAR, Flag.LAST, instrument=number))
                out[-1].update(ts_event=b.sent, ts_recv=b.ts_recv or NULL_TS, seq=b.seq)
            self._known[number] = _Known()
        self.synthetic += len(out)
        return out

    def _level(self, f: Fields, known: _Known) -> list[Event]:
        known.booked, known.in_transition = True, not int(f["flags"]) & 1
        return [_event(Action.MODIFY, side=SIDES[str(f["type"])], px=f["price"], qty=f["size"])]

    def _quote(self, f: Fields, known: _Known) -> list[Event]:
        out = []
        for side, name in ((Side.BID, "bid"), (Side.ASK, "ask")):
            px, qty = int(f[name + "_price"]), int(f[name + "_size"])
            old = known.quote.pop(side, None)
            if old is not None and (qty == 0 or old != px):
                out.append(_event(Action.MODIFY, side=side, px=old, qty=0))
            if qty:
                known.quote[side], known.booked = px, True
                out.append(_event(Action.MODIFY, side=side, px=px, qty=qty))
        return out or [_event(Action.NONE)]

    def _trade(self, f: Fields, known: _Known) -> list[Event]:
        flags = _cross(f) | self._hidden
        return [_event(Action.TRADE, flags, px=f["price"], qty=f["size"], ref=f["trade_id"])]

    def _status(self, f: Fields, known: _Known) -> list[Event]:
        state = STATES.get(str(f["status"]))
        return [] if state is None else [_event(Action.STATE, ref=state)]

    def _add(self, f: Fields, known: _Known) -> list[Event] | None:
        side = SIDES.get(str(f["side"]))
        if side is None:
            return None
        known.booked = True
        return [_event(Action.ADD, order_id=f["order_id"], side=side, px=f["price"], qty=f["size"])]

    def _modify(self, f: Fields, known: _Known) -> list[Event]:
        known.booked = True
        kept = int(f["flags"]) & 1
        e = _event(Action.MODIFY if kept else Action.REPLACE, Flag.PRIORITY_KEPT if kept else 0)
        e.update(order_id=int(f["order_id"]), px=int(f["price"]), qty=int(f["size"]))
        return [e if kept else e | {"ref": e["order_id"]}]

    def _delete(self, f: Fields, known: _Known) -> list[Event]:
        return [_event(Action.DELETE, order_id=f["order_id"])]

    def _clear(self, f: Fields, known: _Known) -> list[Event]:
        return [_event(Action.CLEAR)]

    def _executed(self, f: Fields, known: _Known) -> list[Event]:
        e = _event(Action.REDUCE, Flag.EXEC | _cross(f), order_id=f["order_id"], ref=f["trade_id"])
        return [e | {"px": int(f["price"]), "qty": int(f["size"])}]


def _cross(f: Fields) -> int:
    return Flag.CROSS if int(f["flags"]) & SALE_CROSS else 0


_BLANK = dict.fromkeys(EVENT.names or (), 0) | {"feed": int(FeedId.IEX)}


def _event(action: Action, flags: int = 0, **values: Value) -> Event:
    """An event without times and instrument; its keys stand in the order of EVENT."""
    event = _BLANK | {"action": int(action), "flags": int(flags)}
    # an id is 64 bits on the wire, signed or not
    event.update({name: int(v) % 2**64 if name in ("order_id", "ref") else int(v) for name, v in values.items()})
    return event


def to_events(
    captures: Sequence[bytes], protocol: int
) -> tuple[NDArray[np.void], ReferenceSegments, ReferenceIexDecoder]:
    """EVENT array of whole captures, merged by the time of capture, with the reader and the decoder that made it."""
    reader, decoder = ReferenceSegments(protocol), ReferenceIexDecoder(protocol)
    events: list[Event] = []
    for datagram in heapq.merge(*map(iter_udp, captures), key=lambda d: d.ts):
        for block in reader.datagram(datagram):
            events += decoder.block(block)
    return np.array([tuple(e.values()) for e in events], EVENT), reader, decoder
