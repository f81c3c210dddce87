"""Frames of microrisk.spec.uart around a pipe that scores: bytes in, codes to the pipe, heads back, bytes out.

Rows go to the pipe while their frame is still coming in, because a pipe keeps no memory of them. Their results wait in
a memory of one frame, and only a frame whose CRC is right is answered from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.crc.catalog import CRC32_ISO_HDLC
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.credit import check_pipe
from microrisk.errors import UsageError
from microrisk.spec.records import N_FEATURES
from microrisk.spec.uart import (
    ANSWERS_BYTES,
    COUNTERS,
    CRC_BYTES,
    DATA_BITS,
    FRAME_MAX,
    HASH_BYTES,
    HEAD_BYTES,
    HEADER,
    IDENTITY_BYTES,
    IDENTITY_FIELDS,
    ROW_BYTES,
    ROWS_MAX,
    SYNC,
    VERSION,
    WRAPS,
    Refusal,
    Type,
)
from microrisk.spec.weightfile import HEADS

BYTE = unsigned(DATA_BITS)
QUESTION_MIN = 1 + len(HEADER) + CRC_BYTES
"""Bytes of the shortest frame."""


def in_order(heads: Sequence[str]) -> tuple[str, ...]:
    """Heads in the order in which a board gives them, that of HEADS; UsageError for none, twice, or another name."""
    if not heads or len(set(heads)) < len(heads) or not set(heads) <= set(HEADS):
        raise UsageError(f"a board carries some of {', '.join(HEADS)}, each once, not {', '.join(heads) or 'none'}")
    return tuple(h for h in HEADS if h in heads)


class FrameReader(wiring.Component):
    """Bytes of the line to a frame.

    Attributes
    ----------
    i : bytes; type, sequence, length : header of the frame that is coming or has just come
    begins : its header has begun; payload, payload_valid : a byte of it
    judged : for one cycle, the frame has ended; right : its CRC, in that cycle
    """

    def __init__(self) -> None:
        names = {name: Out(BYTE) for name in HEADER}
        flags = {name: Out(1) for name in ("begins", "payload_valid", "judged", "right")}
        super().__init__(
            {"i": In(stream.Signature(DATA_BITS, always_ready=True)), "payload": Out(BYTE), **names, **flags}
        )

    def elaborate(self, platform: Any) -> Module:
        """What is no SYNC is passed over; then header, payload and CRC are counted off."""
        m = Module()
        m.submodules.crc = crc = CRC32_ISO_HDLC(DATA_BITS).create()
        byte, came, at = self.i.payload, self.i.valid, Signal(BYTE)
        m.d.comb += [crc.data.eq(byte), self.payload.eq(byte), self.right.eq(crc.match_detected)]
        with m.FSM():
            with m.State("SYNC"):
                m.d.comb += crc.start.eq(1)
                m.d.sync += at.eq(0)
                with m.If(came & (byte == SYNC)):
                    m.d.comb += self.begins.eq(1)
                    m.next = "HEADER"
            with m.State("HEADER"), m.If(came):
                m.d.comb += crc.valid.eq(1)
                m.d.sync += Array(getattr(self, name) for name in HEADER)[at].eq(byte)
                self._count(m, at, Const(len(HEADER) - 1), "PAYLOAD")
                with m.If((at == len(HEADER) - 1) & (byte == 0)):
                    m.next = "CRC"
            with m.State("PAYLOAD"), m.If(came):
                m.d.comb += [crc.valid.eq(1), self.payload_valid.eq(1)]
                self._count(m, at, self.length - 1, "CRC")
            with m.State("CRC"), m.If(came):
                m.d.comb += crc.valid.eq(1)
                self._count(m, at, Const(CRC_BYTES - 1), "JUDGED")
            with m.State("JUDGED"):
                m.d.comb += self.judged.eq(1)
                m.next = "SYNC"
        return m

    @staticmethod
    def _count(m: Module, at: Signal, last: Value, following: str) -> None:
        m.d.sync += at.eq(at + 1)
        with m.If(at == last):
            m.d.sync += at.eq(0)
            m.next = following


class FrameWriter(wiring.Component):
    """An answer to bytes, one a cycle.

    Attributes
    ----------
    go : for one cycle, with type, sequence and length, which must stay until all is sent
    in_payload, at, payload : a payload byte is asked for, its number, and that byte in the same cycle
    byte, byte_valid : what is to be sent
    """

    def __init__(self) -> None:
        names = {name: In(BYTE) for name in HEADER}
        super().__init__(
            {"go": In(1), "in_payload": Out(1), "at": Out(BYTE), "payload": In(BYTE), "byte": Out(BYTE),
             "byte_valid": Out(1), **names}
        )  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        """SYNC, header, payload, CRC."""
        m = Module()
        m.submodules.crc = crc = CRC32_ISO_HDLC(DATA_BITS).create()
        m.d.comb += [crc.data.eq(self.byte), self.byte_valid.eq(1)]
        m.d.sync += self.at.eq(self.at + 1)
        with m.FSM():
            with m.State("REST"):
                m.d.comb += [crc.start.eq(1), self.byte_valid.eq(self.go), self.byte.eq(SYNC)]
                m.d.sync += self.at.eq(0)
                with m.If(self.go):
                    m.next = "HEADER"
            with m.State("HEADER"):
                m.d.comb += [crc.valid.eq(1), self.byte.eq(Array(getattr(self, name) for name in HEADER)[self.at])]
                with m.If(self.at == len(HEADER) - 1):
                    m.d.sync += self.at.eq(0)
                    m.next = "PAYLOAD"
            with m.State("PAYLOAD"):
                m.d.comb += [crc.valid.eq(1), self.in_payload.eq(1), self.byte.eq(self.payload)]
                with m.If(self.at == self.length - 1):
                    m.d.sync += self.at.eq(0)
                    m.next = "CRC"
            with m.State("CRC"):
                m.d.comb += self.byte.eq(crc.crc.word_select(self.at[: (CRC_BYTES - 1).bit_length()], DATA_BITS))
                with m.If(self.at == CRC_BYTES - 1):
                    m.next = "REST"
        return m


class Link(wiring.Component):
    """The board's side of the protocol.

    Parameters
    ----------
    pipe : takes codes of N_FEATURES, gives the heads of `heads`, the first in the lowest bits; never stalls
    heads : all that the pipe gives, in order
    mask : features that the pipe was made for
    format_hash, weights_hash : 16 hexadecimal digits, told to the host
    byte_cycles : least clock cycles between two bytes that come in

    Attributes
    ----------
    i : bytes from the line; o : bytes to it
    framing, overrun : of the receiver, counted

    Raises
    ------
    UsageError : the pipe is no pipe, heads in another order than the host reads them, a hash that is none, or a line
        so fast that a frame could end before its last result is there, or the next one before an answer is written
    """

    def __init__(
        self, pipe: Any, heads: Sequence[str], mask: int, format_hash: str, weights_hash: str, byte_cycles: int
    ) -> None:
        check_pipe(pipe)
        if tuple(heads) != in_order(heads):
            raise UsageError(f"heads {', '.join(heads)}: the host reads them as {', '.join(in_order(heads))}")
        result_bytes = HEAD_BYTES * len(heads)
        longest = QUESTION_MIN + max(ROWS_MAX * result_bytes, IDENTITY_BYTES) + 2
        if pipe.latency + 2 > CRC_BYTES * byte_cycles or longest > QUESTION_MIN * byte_cycles:
            raise UsageError(
                f"a line of {byte_cycles} clock cycles a byte is too fast: the pipe takes {pipe.latency} cycles, its "
                f"longest answer {longest}"
            )
        self._pipe, self._result_bytes = pipe, result_bytes
        self._fixed = {
            "version": VERSION, "features": N_FEATURES, "heads": sum(1 << HEADS.index(h) for h in heads),
            "rows": ROWS_MAX, "mask": mask, "format_hash": _hash_number(format_hash),
            "weights_hash": _hash_number(weights_hash),
        }  # fmt: skip
        super().__init__(
            {
                "i": In(stream.Signature(DATA_BITS, always_ready=True)),
                "o": Out(stream.Signature(DATA_BITS)),
                "framing": In(1),
                "overrun": In(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Reader, pipe with its result memory, writer, queue of answers."""
        m = Module()
        m.submodules.reader = reader = FrameReader()
        m.submodules.writer = writer = FrameWriter()
        m.submodules.answers = answers = SyncFIFOBuffered(width=DATA_BITS, depth=ANSWERS_BYTES)
        m.d.comb += [
            reader.i.payload.eq(self.i.payload), reader.i.valid.eq(self.i.valid),
            answers.w_data.eq(writer.byte), answers.w_en.eq(writer.byte_valid),
            self.o.payload.eq(answers.r_data), self.o.valid.eq(answers.r_rdy), answers.r_en.eq(self.o.ready),
        ]  # fmt: skip
        rows, whole = self._score(m, reader)
        room = answers.level <= ANSWERS_BYTES - FRAME_MAX
        reason, counted = self._judge(m, reader, writer, rows, whole, room)
        identity = Cat(self._field(name, size, counted) for name, size in IDENTITY_FIELDS)
        with m.Switch(writer.type):
            with m.Case(Type.HEADS):
                m.d.comb += writer.payload.eq(self._result_byte(m, writer))
            with m.Case(Type.IDENTITY):
                bytes_ = Array(identity.word_select(k, DATA_BITS) for k in range(IDENTITY_BYTES))
                m.d.comb += writer.payload.eq(bytes_[writer.at])
            with m.Default():
                m.d.comb += writer.payload.eq(reason)
        return m

    def _field(self, name: str, size: int, counted: dict[str, Signal]) -> Value:
        return counted[name] if name in counted else Const(self._fixed[name], DATA_BITS * size)

    def _score(self, m: Module, reader: FrameReader) -> tuple[Signal, Signal]:
        """Rows to the pipe, results to the memory; returns the rows of the frame, and whether the last one is whole."""
        m.submodules.pipe = pipe = self._pipe
        row, valid = Signal(ROW_BYTES * DATA_BITS), Signal()
        filled, rows, given, whole = Signal(range(ROW_BYTES)), Signal(BYTE), Signal(BYTE), Signal()
        m.d.sync += valid.eq(0)
        with m.If(reader.begins):
            m.d.sync += [filled.eq(0), rows.eq(0), given.eq(0)]
        with m.If(reader.payload_valid):
            m.d.sync += [row.eq(Cat(row[DATA_BITS:], reader.payload)), filled.eq(filled + 1)]
            with m.If(filled == ROW_BYTES - 1):
                m.d.sync += [filled.eq(0), rows.eq(rows + 1), valid.eq(1)]
        with m.If(pipe.o.valid):
            m.d.sync += given.eq(given + 1)
        width = self._result_bytes * DATA_BITS
        m.submodules.results = memory = Memory(shape=unsigned(width), depth=1 << ROWS_MAX.bit_length(), init=[])
        write, self._results = memory.write_port(), memory.read_port(domain="comb")
        m.d.comb += [
            Value.cast(pipe.i.payload).eq(row), pipe.i.valid.eq(valid), whole.eq(filled == 0),
            write.addr.eq(given), write.data.eq(Value.cast(pipe.o.payload)), write.en.eq(pipe.o.valid),
        ]  # fmt: skip
        return rows, whole

    def _result_byte(self, m: Module, writer: FrameWriter) -> Value:
        """Byte `writer.at` of the results; row and place are counted along, so that nothing has to be divided."""
        shown, place = Signal(range(ROWS_MAX + 1)), Signal(range(self._result_bytes))
        m.d.comb += self._results.addr.eq(shown)
        with m.If(~writer.in_payload):
            m.d.sync += [shown.eq(0), place.eq(0)]
        with m.Elif(place == self._result_bytes - 1):
            m.d.sync += [shown.eq(shown + 1), place.eq(0)]
        with m.Else():
            m.d.sync += place.eq(place + 1)
        return self._results.data.word_select(place, DATA_BITS)

    def _judge(
        self, m: Module, reader: FrameReader, writer: FrameWriter, rows: Signal, whole: Signal, room: Value
    ) -> tuple[Signal, dict[str, Signal]]:
        """Start the answer of a frame that has ended; returns the reason of a refusal, and the counters."""
        reason, kind, length = Signal(BYTE), Signal(BYTE), Signal(BYTE)
        known, fits = Signal(), Signal()
        score = reader.type == Type.SCORE
        m.d.comb += [
            known.eq(score | (reader.type == Type.IDENTIFY)),
            fits.eq(Mux(score, whole & (rows != 0), reader.length == 0)),
        ]
        good = reader.right & known & fits
        with m.If(reader.judged):
            m.d.sync += [
                writer.go.eq(room),
                writer.sequence.eq(Mux(reader.right, reader.sequence, 0)),
                reason.eq(Mux(~reader.right, Refusal.CRC, Mux(known, Refusal.LENGTH, Refusal.TYPE))),
                kind.eq(Mux(good, Mux(score, Type.HEADS, Type.IDENTITY), Type.REFUSED)),
                length.eq(Mux(good, Mux(score, rows * self._result_bytes, IDENTITY_BYTES), 1)),
            ]
        with m.Else():
            m.d.sync += writer.go.eq(0)
        m.d.comb += [writer.type.eq(kind), writer.length.eq(length)]
        events = {
            "accepted": reader.judged & good & room, "crc": reader.judged & ~reader.right, "framing": self.framing,
            "refused": reader.judged & reader.right & ~good, "overrun": self.overrun | (reader.judged & ~room),
        }  # fmt: skip
        return reason, {name: _counter(m, name, events[name]) for name in COUNTERS}


def _counter(m: Module, name: str, event: Value) -> Signal:
    """Counts cycles of `event`; one that does not wrap stays at its end."""
    size = dict(IDENTITY_FIELDS)[name]
    count = Signal(DATA_BITS * size, name=name)
    with m.If(event if name in WRAPS else event & ~count.all()):
        m.d.sync += count.eq(count + 1)
    return count


def _hash_number(digits: str) -> int:
    """A hash as the number whose little-endian bytes are its digits in order."""
    raw = bytes.fromhex(digits)
    if len(raw) != HASH_BYTES:
        raise UsageError(f"{digits!r} is no hash of {2 * HASH_BYTES} hexadecimal digits")
    return int.from_bytes(raw, "little")
