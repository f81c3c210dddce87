"""Back-pressure for pipelines that never stall: credits before them, a queue behind them.

A pipe is a component whose streams `i` and `o` are both `always_ready`: what enters leaves a fixed number of cycles
later, and nothing can hold it. A clock enable for every register of it would be the widest net of the device. Here an
event is let in only while the queue behind the pipe has a free place for its result, so the pipe never has to wait.

The `latency` of a pipe counts clock periods from the edge that loads its input register to the edge that loads its
output register; a pipe of latency L has L + 1 registers in a row, and L = 0 is a single register.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from amaranth.hdl import Module, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out, connect

from microrisk.errors import UsageError

ROUND_TRIP = 3
"""Cycles that a place stays taken beyond the pipe's latency: into the pipe, into the queue, and out of it."""


def payload_shape(port: Any) -> Any:
    """Shape or layout of the payload of a stream port."""
    return port.payload.shape()


def is_pipe(core: Any) -> bool:
    """Whether neither side of `core` can be stalled, so that it takes a Credited to stand behind a bus."""
    return bool(core.i.signature.always_ready and core.o.signature.always_ready)


def check_pipe(core: Any) -> None:
    """Raise UsageError unless `core` is a pipe with a latency."""
    if not is_pipe(core):
        raise UsageError(f"{type(core).__name__} is no pipe: both its streams must be always_ready")
    if core.latency < 0:
        raise UsageError(f"{type(core).__name__}.latency is {core.latency}: a pipe has at least one register")


def queue_depth(latency: int) -> int:
    """Places for full throughput behind a pipe of this latency, up to a power of two: wrapping costs no comparison."""
    return 1 << (latency + ROUND_TRIP - 1).bit_length()


class Credited(wiring.Component):
    """A pipe with real ready and valid on both sides, one event per cycle while the consumer takes them.

    `used` is a register: `ready` depends on nothing that happens in the same cycle, and a result waits in the queue
    with its payload untouched until it is taken. For a proof, `in_flight` counts what the pipe holds and `waiting` what
    the queue holds: in every cycle `used == in_flight + waiting <= depth`, as long as the pipe answers each event once
    and nothing else.

    Parameters
    ----------
    pipe : component with always_ready streams `i` and `o`, and `latency` in cycles
    depth : places of the queue; None = `queue_depth(pipe.latency)`

    Attributes
    ----------
    i, o : streams of the pipe's payloads
    used : places taken by events in the pipe or in the queue, 0..depth
    lost : the pipe gave a result for which there was no place, which a pipe that keeps its contract never does
    latency : clock periods from the edge that takes an event to the edge after which its result is offered, with
        nothing waiting

    Raises
    ------
    UsageError : `pipe` is no pipe, or `depth` is below latency + 3, where throughput would fall below one per cycle
    """

    def __init__(self, pipe: Any, depth: int | None = None) -> None:
        check_pipe(pipe)
        self.depth = queue_depth(pipe.latency) if depth is None else depth
        if self.depth < pipe.latency + ROUND_TRIP:
            raise UsageError(
                f"a queue of {self.depth} behind {type(pipe).__name__}: "
                f"a latency of {pipe.latency} cycles needs {pipe.latency + ROUND_TRIP}"
            )
        self.pipe, self.latency = pipe, pipe.latency + 1
        self.in_flight, self.waiting = Signal(range(self.depth + 1)), Signal(range(self.depth + 1))
        super().__init__(
            {
                "i": In(stream.Signature(payload_shape(pipe.i))),
                "o": Out(stream.Signature(payload_shape(pipe.o))),
                "used": Out(range(self.depth + 1)),
                "lost": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Pipe, queue, and the two counters."""
        m = Module()
        m.submodules.pipe = pipe = self.pipe
        m.submodules.fifo = fifo = SyncFIFO(width=len(Value.cast(self.o.payload)), depth=self.depth)
        taken, given = Signal(), Signal()
        # a power of two is reached when its bit is, one gate less before `ready`
        full = self.used[-1] if self.depth.bit_count() == 1 else self.used == self.depth
        m.d.comb += [
            self.i.ready.eq(~full),
            taken.eq(self.i.valid & self.i.ready),
            Value.cast(pipe.i.payload).eq(Value.cast(self.i.payload)),
            pipe.i.valid.eq(taken),
            fifo.w_data.eq(Value.cast(pipe.o.payload)),
            fifo.w_en.eq(pipe.o.valid),
            self.lost.eq(pipe.o.valid & ~fifo.w_rdy),
            Value.cast(self.o.payload).eq(fifo.r_data),
            self.o.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.o.ready),
            given.eq(self.o.valid & self.o.ready),
            self.waiting.eq(fifo.level),
        ]
        m.d.sync += [
            self.used.eq(self.used + taken - given),
            self.in_flight.eq(self.in_flight + taken - pipe.o.valid),
        ]
        return m


class Chain(wiring.Component):
    """Pipes one after the other, as one pipe; its latency counts the registers between them too.

    Parameters
    ----------
    pipes : at least one, the output layout of each equal to the input layout of the next

    Raises
    ------
    UsageError : no pipe, a component that is none, or two neighbours whose payloads differ
    """

    def __init__(self, *pipes: Any) -> None:
        if not pipes:
            raise UsageError("a chain needs at least one pipe")
        for pipe in pipes:
            check_pipe(pipe)
        for a, b in pairwise(pipes):
            if payload_shape(a.o) != payload_shape(b.i):
                raise UsageError(
                    f"{type(a).__name__} gives {payload_shape(a.o)}, {type(b).__name__} takes {payload_shape(b.i)}"
                )
        self._pipes = pipes
        self.latency = sum(p.latency + 1 for p in pipes) - 1
        super().__init__(_pipe_members(payload_shape(pipes[0].i), payload_shape(pipes[-1].o)))

    def elaborate(self, platform: Any) -> Module:
        """Wires only."""
        m = Module()
        for k, pipe in enumerate(self._pipes):
            m.submodules[f"stage_{k}"] = pipe
        for a, b in pairwise(self._pipes):
            connect(m, a.o, b.i)
        connect(m, wiring.flipped(self.i), self._pipes[0].i)
        connect(m, self._pipes[-1].o, wiring.flipped(self.o))
        return m


class Tagged(wiring.Component):
    """A pipe whose events carry something along: an instrument, a last mark, the heads past the alert stage.

    The tags wait in a queue, written with an event and read with its result: in LUT memory that is far smaller than a
    register a cycle and a bit.

    Parameters
    ----------
    pipe : the pipe that does the work
    tag : shape or layout of what goes along

    Attributes
    ----------
    i, o : streams of structures `{payload, tag}`
    """

    def __init__(self, pipe: Any, tag: Any) -> None:
        check_pipe(pipe)
        self._pipe, self.latency = pipe, pipe.latency
        super().__init__(
            _pipe_members(
                data.StructLayout({"payload": payload_shape(pipe.i), "tag": tag}),
                data.StructLayout({"payload": payload_shape(pipe.o), "tag": tag}),
            )
        )

    def elaborate(self, platform: Any) -> Module:
        """The pipe, and beside it the queue of tags."""
        m = Module()
        m.submodules.pipe = pipe = self._pipe
        tag_in, tag_out = Value.cast(self.i.p.tag), Value.cast(self.o.p.tag)
        m.submodules.tags = tags = SyncFIFO(width=len(tag_in), depth=queue_depth(pipe.latency))
        m.d.comb += [
            Value.cast(pipe.i.payload).eq(Value.cast(self.i.p.payload)),
            pipe.i.valid.eq(self.i.valid),
            Value.cast(self.o.p.payload).eq(Value.cast(pipe.o.payload)),
            self.o.valid.eq(pipe.o.valid),
            tag_out.eq(tags.r_data),
            tags.r_en.eq(pipe.o.valid),
        ]
        # where the result comes late enough, the tag is written from a register, which keeps `valid` off the queue
        write = m.d.sync if pipe.latency > 0 else m.d.comb
        write += [tags.w_data.eq(tag_in), tags.w_en.eq(self.i.valid)]
        return m


class TaggedStream(wiring.Component):
    """The same for a core that stalls by itself and gives one result an event, in order: tags of any number of events.

    Parameters
    ----------
    core : component with streams `i` and `o` that have ready and valid
    tag : shape or layout of what goes along
    depth : most events inside at a time; with more the core would wait for room for their tags

    Attributes
    ----------
    i, o : streams of structures `{payload, tag}`
    used : events inside, 0..depth
    lost : never set; a core that stalls cannot lose a result
    """

    def __init__(self, core: Any, tag: Any, depth: int) -> None:
        if depth < 1:
            raise UsageError(f"room for {depth} tags beside {type(core).__name__}: at least 1")
        self._core, self.depth = core, depth
        self.latency = getattr(core, "latency", 0)
        i, o = (data.StructLayout({"payload": payload_shape(s), "tag": tag}) for s in (core.i, core.o))
        super().__init__(
            {
                "i": In(stream.Signature(i)),
                "o": Out(stream.Signature(o)),
                "used": Out(range(depth + 1)),
                "lost": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """An event enters the core and the queue of tags in the same cycle, and leaves both in the same cycle."""
        m = Module()
        m.submodules.core = core = self._core
        tag_in, tag_out = Value.cast(self.i.p.tag), Value.cast(self.o.p.tag)
        m.submodules.tags = tags = SyncFIFO(width=len(tag_in), depth=self.depth)
        m.d.comb += [
            Value.cast(core.i.payload).eq(Value.cast(self.i.p.payload)),
            core.i.valid.eq(self.i.valid & tags.w_rdy),
            self.i.ready.eq(core.i.ready & tags.w_rdy),
            tags.w_data.eq(tag_in),
            tags.w_en.eq(self.i.valid & self.i.ready),
            Value.cast(self.o.p.payload).eq(Value.cast(core.o.payload)),
            self.o.valid.eq(core.o.valid),
            core.o.ready.eq(self.o.ready),
            tag_out.eq(tags.r_data),
            tags.r_en.eq(self.o.valid & self.o.ready),
            self.used.eq(tags.level),
        ]
        return m


def _pipe_members(i: Any, o: Any) -> dict[str, Any]:
    return {
        "i": In(stream.Signature(i, always_ready=True)),
        "o": Out(stream.Signature(o, always_ready=True)),
    }
