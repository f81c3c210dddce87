# amaranth: UnusedElaboratable=no
"""Frames around a core, byte by byte: what is answered, what is refused, and what ends an unfinished frame."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from hdl.link import Link, in_order
from hdl.shapes import codes as codes_shape
from hdl.shapes import heads as heads_shape
from microrisk.errors import UsageError
from microrisk.spec.features import ALL_MASK
from microrisk.spec.records import N_FEATURES
from microrisk.spec.uart import (
    ANSWERS_BYTES,
    COUNTERS,
    CRC_BYTES,
    FLUSH,
    HEADER,
    IDENTITY_BYTES,
    ROWS_MAX,
    SYNC,
    VERSION,
    Refusal,
    Type,
    identity_parts,
)
from microrisk.spec.weightfile import HEADS

CARRIED = ("maxz", "exposure")
FORMAT, WEIGHTS = "0123456789abcdef", "fedcba9876543210"
BYTE_CYCLES = 12
AFTER = 400
"""Cycles that are watched after the last byte: the longest answer and its way through the link."""


class Ends(wiring.Component):
    """A pipe whose heads are the first code and thrice the last."""

    latency = 1

    def __init__(self):
        super().__init__(
            {
                "i": In(stream.Signature(codes_shape(N_FEATURES), always_ready=True)),
                "o": Out(stream.Signature(heads_shape(CARRIED), always_ready=True)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        late = Signal(heads_shape(CARRIED))
        valid = Signal()
        codes = self.i.payload
        m.d.sync += [late.maxz.eq(codes[0]), late.exposure.eq(3 * codes[N_FEATURES - 1]), valid.eq(self.i.valid)]
        m.d.sync += [self.o.payload.eq(late), self.o.valid.eq(valid)]
        return m


def expected(rows):
    return np.stack([rows[:, 0], 3 * rows[:, -1].astype(np.int32)], axis=1).astype("<i4").tobytes()


def frame(kind, sequence=7, payload=b""):
    body = bytes([kind, sequence, len(payload)]) + payload
    return bytes([SYNC]) + body + zlib.crc32(body).to_bytes(CRC_BYTES, "little")


def frames(raw):
    """Frames that follow each other without a gap: (type, sequence, payload)."""
    found, at = [], 0
    while at < len(raw):
        length = raw[at + len(HEADER)]
        payload = raw[at + 1 + len(HEADER) :][:length]
        whole = frame(raw[at + 1], raw[at + 2], payload)
        assert raw[at : at + len(whole)] == whole
        found.append((raw[at + 1], raw[at + 2], payload))
        at += len(whole)
    return found


def made(heads=CARRIED, byte_cycles=BYTE_CYCLES, weights_hash=WEIGHTS):
    return Link(Ends(), heads, ALL_MASK ^ 4, FORMAT, weights_hash, byte_cycles)


def answers(raw, *, held=b"", framing=0):
    """Frames that the link gives for bytes, one each BYTE_CYCLES.

    held : bytes before the others, while the line takes no answer
    framing : errors of the receiver, before all of them
    """
    link, given = made(), bytearray()

    async def cycle(ctx, ready=True):
        ctx.set(link.o.ready, ready)
        if ready and ctx.get(link.o.valid):
            given.append(ctx.get(link.o.payload))
        await ctx.tick()

    async def send(ctx, values, taken):
        for byte in values:
            ctx.set(link.i.payload, byte)
            ctx.set(link.i.valid, 1)
            await cycle(ctx, taken)
            ctx.set(link.i.valid, 0)
            for _ in range(BYTE_CYCLES - 1):
                await cycle(ctx, taken)

    async def drive(ctx):
        for _ in range(framing):
            ctx.set(link.framing, 1)
            await cycle(ctx)
        ctx.set(link.framing, 0)
        await send(ctx, held, False)
        for _ in range(ANSWERS_BYTES if held else 0):
            await cycle(ctx)
        await send(ctx, raw, True)
        for _ in range(AFTER):
            await cycle(ctx)

    sim = Simulator(link)
    sim.add_clock(1e-6)
    sim.add_testbench(drive)
    sim.run()
    return frames(bytes(given))


def counters(payload):
    assert len(payload) == IDENTITY_BYTES
    return {n: int.from_bytes(v, "little") for n, v in identity_parts(payload).items() if n in COUNTERS}


def rows_of(n, seed=0):
    return np.random.default_rng(seed).integers(-128, 128, (n, N_FEATURES), np.int8)


def test_identity():
    ((kind, sequence, payload),) = answers(frame(Type.IDENTIFY, 200), framing=3)
    found = identity_parts(payload)
    assert (kind, sequence) == (Type.IDENTITY, 200)
    assert (found["format_hash"].hex(), found["weights_hash"].hex()) == (FORMAT, WEIGHTS)
    carried = sum(1 << HEADS.index(h) for h in CARRIED)
    assert [found[n][0] for n in ("version", "features", "heads", "rows")] == [VERSION, N_FEATURES, carried, ROWS_MAX]
    assert int.from_bytes(found["mask"], "little") == ALL_MASK ^ 4
    assert counters(payload) == {"accepted": 1, "crc": 0, "refused": 0, "framing": 3, "overrun": 0}


def test_every_number_of_rows():
    asked = [rows_of(n, n) for n in range(1, ROWS_MAX + 1)]
    raw = b"".join(frame(Type.SCORE, n, rows.tobytes()) for n, rows in enumerate(asked))
    assert answers(raw) == [(Type.HEADS, n, expected(rows)) for n, rows in enumerate(asked)]


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        (frame(Type.IDENTIFY, payload=b"\0"), Refusal.LENGTH),
        (frame(Type.SCORE), Refusal.LENGTH),
        (frame(Type.SCORE, payload=bytes(N_FEATURES - 1)), Refusal.LENGTH),
        (frame(Type.SCORE, payload=bytes(N_FEATURES + 1)), Refusal.LENGTH),
        (frame(Type.SCORE, payload=bytes(ROWS_MAX * N_FEATURES + 1)), Refusal.LENGTH),
        (frame(0x03, payload=bytes(N_FEATURES)), Refusal.TYPE),
        (frame(Type.HEADS, payload=bytes(N_FEATURES)), Refusal.TYPE),
    ],
)
def test_what_is_no_question_is_refused(question, reason):
    rows = rows_of(2)
    refused, scored, told = answers(question + frame(Type.SCORE, 8, rows.tobytes()) + frame(Type.IDENTIFY))
    assert refused == (Type.REFUSED, 7, bytes([reason]))
    assert scored == (Type.HEADS, 8, expected(rows))
    assert counters(told[2]) == {"accepted": 2, "crc": 0, "refused": 1, "framing": 0, "overrun": 0}


QUESTION = frame(Type.SCORE, 9, rows_of(1, 9).tobytes())


@pytest.mark.parametrize("place", [1, 2, 3, 4, 20, 35, 36, 39])
def test_a_turned_bit_is_never_scored(place):
    wrong = bytearray(QUESTION)
    wrong[place] ^= 1 << place % 8
    found = answers(bytes(wrong) + bytes(FLUSH) + QUESTION)
    assert found[0] == (Type.REFUSED, 0, bytes([Refusal.CRC]))
    assert {kind for kind, _, _ in found[:-1]} == {Type.REFUSED}
    assert found[-1] == (Type.HEADS, 9, expected(rows_of(1, 9)))


def test_the_right_crc_after_other_bytes_is_wrong():
    # each of two good frames with the payload of the other
    a, b = (frame(Type.SCORE, k, rows_of(1, k).tobytes()) for k in (1, 2))
    start = 1 + len(HEADER)
    mixed = [x[:start] + y[start:-CRC_BYTES] + x[-CRC_BYTES:] for x, y in ((a, b), (b, a))]
    assert answers(b"".join(mixed)) == [(Type.REFUSED, 0, bytes([Refusal.CRC]))] * 2


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, len(QUESTION) - 1])
def test_zeros_end_an_unfinished_frame(length):
    *refused, scored = answers(QUESTION[:length] + bytes(FLUSH) + QUESTION)
    assert refused == [(Type.REFUSED, 0, bytes([Refusal.CRC]))]
    assert scored == (Type.HEADS, 9, expected(rows_of(1, 9)))


def test_noise_between_frames_is_passed_over():
    noise = bytes(b for b in range(256) if b != SYNC)
    assert [kind for kind, _, _ in answers(noise + QUESTION + noise + QUESTION)] == [Type.HEADS] * 2


def test_answers_without_room_are_dropped_whole_and_counted():
    n = ANSWERS_BYTES // IDENTITY_BYTES + 10
    *found, told = answers(frame(Type.IDENTIFY, 255), held=b"".join(frame(Type.IDENTIFY, k) for k in range(n)))
    assert [sequence for _, sequence, _ in found] == list(range(len(found)))
    assert 0 < len(found) < n
    lost = n - len(found)
    assert counters(told[2]) == {"accepted": n + 1 - lost, "crc": 0, "refused": 0, "framing": 0, "overrun": lost}


def test_what_cannot_be_a_link():
    with pytest.raises(UsageError, match="a line of 4 clock cycles a byte is too fast"):
        made(byte_cycles=4)
    with pytest.raises(UsageError, match="the host reads them as maxz, exposure"):
        made(heads=("exposure", "maxz"))
    with pytest.raises(UsageError, match="no hash of 16"):
        made(weights_hash="00")


@pytest.mark.parametrize("heads", [(), ("encoder",), ("maxz", "maxz"), ("maxz", "nothing")])
def test_heads_that_no_board_carries(heads):
    with pytest.raises(UsageError, match="a board carries some of"):
        in_order(heads)
    assert in_order(HEADS[::-1]) == HEADS
