"""Alert stage: heads to levels and alarms with the memory of every instrument, equal to score/alert.py in every row.

One event enters per cycle, also when it is of the same instrument as the one before. Two things of an instrument come
from its last event, and each is read, decided and kept within one cycle, so that the next event finds it: the smoothed
level (one addition), and whether the head is in alarm (one gate; the comparisons with both thresholds come before it).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.alert_table import STEPS, Lookup, check_steps, delayed, level_table, read_only
from hdl.credit import Tagged, check_pipe, payload_shape
from hdl.shapes import heads as heads_layout
from hdl.shapes import shape_for, shape_of
from microrisk.errors import UsageError
from microrisk.spec.formats import EWMA_GUARD, EWMA_SHIFT, LEVEL
from microrisk.spec.weightfile import HEADS
from microrisk.weights import LevelTable

AFTER_LOOKUP = 3
"""Registers behind the level codes: smoothed, compared, decided."""
SMOOTH = shape_for(0, LEVEL.high << EWMA_GUARD)
"""Smoothed level: never negative, because level codes are not."""


def levels(names: Sequence[str]) -> data.StructLayout:
    """Smoothed level codes of the named heads, the first in the lowest bits."""
    return data.StructLayout({name: shape_of(LEVEL) for name in names})


def index_shape(instruments: int) -> Shape:
    """Number of an instrument, 0..instruments-1; no bits when there is one."""
    return unsigned((instruments - 1).bit_length())


class AlertStage(wiring.Component):
    """Level codes, smoothing and alarms of a stream of heads; a new event in every cycle.

    Parameters
    ----------
    tables : level tables, from `Weights.level_for(...)`: one for every instrument, or one for all
    heads : names of the heads of an event, out of spec.weightfile.HEADS
    instruments : how many have a memory of their own, which begins at zero after every reset; with more than one, each
        costs two flip-flops beside its place in block RAM
    steps : see hdl.alert_table.STEPS

    Attributes
    ----------
    i : {heads, instrument}
    o : {level: smoothed codes by head, alert: bit k = head k is in alarm, fresh: bit k = it went into alarm with this
        event, instrument}
    unknown : the event at `i` names an instrument beyond the last; its answer means nothing, and no other is disturbed
    latency : as of any pipe

    Raises
    ------
    UsageError : no instrument, tables that are neither one nor as many as instruments, an unknown head, wrong steps
    """

    def __init__(
        self,
        tables: Sequence[LevelTable],
        *,
        heads: Sequence[str] = HEADS,
        instruments: int = 1,
        steps: Sequence[int] = STEPS,
    ) -> None:
        _check(tables, heads, instruments)
        check_steps(steps)
        self._tables, self._names, self._steps, self._instruments = tables, tuple(heads), tuple(steps), instruments
        self._lookups = [level_table(tables, HEADS.index(name)) for name in self._names]
        self._found = max(Lookup.registers_of(t, self._steps) for t in self._lookups)
        self.latency = self._found + AFTER_LOOKUP - 1
        index = index_shape(instruments)
        i = data.StructLayout({"heads": heads_layout(self._names), "instrument": index})
        flags = unsigned(len(self._names))
        o = data.StructLayout({"level": levels(self._names), "alert": flags, "fresh": flags, "instrument": index})
        super().__init__(
            {
                "i": In(stream.Signature(i, always_ready=True)),
                "o": Out(stream.Signature(o, always_ready=True)),
                "unknown": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Look up, smooth, compare, decide."""
        m = Module()
        count = self._found + AFTER_LOOKUP
        valid = Signal(count)
        m.d.sync += valid.eq(Cat(self.i.valid, valid))
        index = [Value.cast(self.i.p.instrument)]
        for k in range(count):
            index.append(delayed(m, index[-1], 1, f"instrument_{k}"))
        if self._instruments < 1 << len(index[0]):
            m.d.comb += self.unknown.eq(self.i.valid & (index[0] >= self._instruments))
        smooth = self._smoothed(m, self._codes(m, index[0]), index, valid)
        level, enter, stay = self._compared(m, smooth, index)
        self._decide(m, index, valid, enter, stay)
        for name, code in zip(self._names, level, strict=True):
            m.d.comb += self.o.p.level[name].eq(delayed(m, code, 1, f"{name}_level"))
        m.d.comb += [Value.cast(self.o.p.instrument).eq(index[-1]), self.o.valid.eq(valid[-1])]
        return m

    def _which(self, index: Value) -> Value:
        return index if len(self._tables) > 1 else Const(0, 0)

    def _codes(self, m: Module, index: Value) -> list[Value]:
        """Level codes of all heads, in the same cycle."""
        codes = []
        for name, table in zip(self._names, self._lookups, strict=True):
            found = Lookup(m, name, table, self.i.p.heads[name], self._which(index), self._steps)
            codes.append(delayed(m, found.answer, self._found - found.registers, f"{name}_aligned"))
        return codes

    def _smoothed(self, m: Module, codes: Sequence[Value], index: Sequence[Value], valid: Value) -> list[Value]:
        """The new smoothed levels, a cycle after the codes; fixed.ewma_step with its two additions made one."""
        at = self._found
        memory = Remembered(
            m, "smooth", len(codes) * SMOOTH.width, self._instruments, index[at - 2 : at + 1], valid[at - 1]
        )
        new = Signal(len(codes) * SMOOTH.width)
        for k, code in enumerate(codes):
            part = slice(k * SMOOTH.width, (k + 1) * SMOOTH.width)
            s, x = memory.old[part], code.as_unsigned()
            m.d.comb += new[part].eq(((s << EWMA_SHIFT) - s + (x << EWMA_GUARD)) >> EWMA_SHIFT)
        kept = memory.keep(new)
        return [kept[k * SMOOTH.width : (k + 1) * SMOOTH.width] for k in range(len(codes))]

    def _compared(
        self, m: Module, smooth: Sequence[Value], index: Sequence[Value]
    ) -> tuple[list[Value], list[Value], list[Value]]:
        """Level codes, `enter` and `stay` bits by head, a cycle after the smoothed levels."""
        level, enter, stay = [], [], []
        for name, s in zip(self._names, smooth, strict=True):
            rows = [self._thresholds(t, HEADS.index(name)) for t in self._tables]
            on, off = read_only(m, f"{name}_thresholds", rows, self._which(index[self._found]))
            code = s[EWMA_GUARD:]
            enter.append(delayed(m, code >= on, 1, f"{name}_enter"))
            stay.append(delayed(m, code >= off, 1, f"{name}_stay"))
            level.append(delayed(m, Cat(code, Const(0, LEVEL.width - len(code))), 1, f"{name}_code"))
        return level, enter, stay

    def _thresholds(self, table: LevelTable, head: int) -> list[int]:
        """Entry and exit; beyond the range of levels one never and one always are enough."""
        return [int(np.clip(t[head], 0, LEVEL.high + 1)) for t in (table.on, table.off)]

    def _decide(
        self, m: Module, index: Sequence[Value], valid: Value, enter: Sequence[Value], stay: Sequence[Value]
    ) -> None:
        """fixed.hysteresis_step: one gate between what was and what is."""
        at = self._found + AFTER_LOOKUP - 1
        memory = Remembered(m, "alarm", len(self._names), self._instruments, index[at - 2 : at + 1], valid[at - 1])
        was, now = memory.old, Signal(len(self._names))
        m.d.comb += now.eq(Cat(Mux(w, s, e) for w, s, e in zip(was, stay, enter, strict=True)))
        memory.keep(now)
        m.d.comb += self.o.p.alert.eq(delayed(m, now, 1, "alert"))
        m.d.comb += self.o.p.fresh.eq(delayed(m, now & ~was, 1, "fresh"))


class Remembered:
    """What each instrument remembers of its last event: read as `old`, and given to `keep` in the same cycle.

    With one instrument that is a register. Otherwise a memory, read two cycles ahead, so that nothing but one choice
    stands before the decision. What the last three events decide is not in the memory by then: it comes past it, the
    last event's into `old` itself, the two before into the register behind the memory. A bit for each instrument says
    that it has been written since reset, because memories keep their content.

    Parameters
    ----------
    m : module to build in
    name : prefix of signals
    width : bits
    instruments : how many
    index : the event's instrument two cycles before, one before, and in the cycle itself
    valid : whether there is an event, in the cycle itself
    """

    def __init__(
        self, m: Module, name: str, width: int, instruments: int, index: Sequence[Value], valid: Value
    ) -> None:
        self._m, self._name, self._valid = m, name, valid
        self._last = Signal(width, name=f"{name}_last", reset_less=instruments > 1)
        self.old: Value = self._last
        self._index: Value | None = None
        if instruments > 1:
            ahead, near, self._index = index
            same = self._registered(valid & (near == self._index), "same")
            self.old = Mux(same, self._last, self._read(ahead, near))

    def keep(self, new: Value) -> Signal:
        """What the instrument remembers from now on, if there is an event; returned as a register, one cycle later."""
        if self._index is None:
            with self._m.If(self._valid):
                self._m.d.sync += self._last.eq(new)
        else:
            self._m.d.sync += self._last.eq(new)
        return self._last

    def _read(self, ahead: Value, near: Value) -> Signal:
        """The state but for the event just before, ready in the cycle itself; what `keep` took goes into the memory."""
        m, index = self._m, self._index
        assert index is not None
        places = 1 << len(index)
        m.submodules[self._name] = memory = Memory(shape=unsigned(len(self._last)), depth=places, init=[])
        read, write = memory.read_port(), memory.write_port()
        written = Signal(places, name=f"{self._name}_written")
        with m.If(self._valid):
            m.d.sync += written.bit_select(index, 1).eq(1)
        known = self._registered(written.bit_select(ahead, 1), "known")
        kept, kept_at = self._registered(self._valid, "kept"), delayed(m, index, 1, f"{self._name}_kept_at")
        older = self._registered(kept & (kept_at == ahead), "older")
        m.d.comb += [
            read.addr.eq(ahead),
            write.addr.eq(kept_at),
            write.data.eq(self._last),
            write.en.eq(kept),
        ]
        before = delayed(m, self._last, 1, f"{self._name}_before")
        found = Mux(older, before, Mux(known, read.data, 0))
        out = Signal(len(self._last), name=f"{self._name}_found", reset_less=True)
        m.d.sync += out.eq(Mux(kept & (kept_at == near), self._last, found))
        return out

    def _registered(self, bit: Value, name: str) -> Signal:
        out = Signal(name=f"{self._name}_{name}")
        self._m.d.sync += out.eq(bit)
        return out


class AlertedCore(wiring.Component):
    """A scoring core and the alert stage behind it, as one pipe; heads and instrument go along.

    Parameters
    ----------
    core : a pipe from any payload to heads
    stage : AlertStage of the same heads

    Attributes
    ----------
    i : {event: what the core takes, instrument}
    o : {heads, level, alert, fresh, instrument}, as of the stage
    unknown : as of the stage

    Raises
    ------
    UsageError : the core gives other heads than the stage takes
    """

    def __init__(self, core: Any, stage: AlertStage) -> None:
        check_pipe(core)
        given, taken = payload_shape(core.o), payload_shape(stage.i)["heads"].shape
        if given != taken:
            raise UsageError(f"{type(core).__name__} gives {given}, the alert stage takes {taken}")
        index = payload_shape(stage.i)["instrument"].shape
        self._core, self._tags, self._stage = core, (index, taken), stage
        self.latency = core.latency + 1 + stage.latency
        i = data.StructLayout({"event": payload_shape(core.i), "instrument": index})
        o = data.StructLayout({"heads": taken, **payload_shape(stage.o).members})
        super().__init__(
            {
                "i": In(stream.Signature(i, always_ready=True)),
                "o": Out(stream.Signature(o, always_ready=True)),
                "unknown": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """The tag of the one is part of the other's event, and the other way round."""
        m = Module()
        index, taken = self._tags
        m.submodules.core = core = Tagged(self._core, index)
        m.submodules.stage = stage = Tagged(self._stage, taken)
        m.d.comb += [
            Value.cast(core.i.p.payload).eq(Value.cast(self.i.p.event)),
            Value.cast(core.i.p.tag).eq(Value.cast(self.i.p.instrument)),
            core.i.valid.eq(self.i.valid),
            stage.i.p.payload.heads.eq(core.o.p.payload),
            Value.cast(stage.i.p.payload.instrument).eq(Value.cast(core.o.p.tag)),
            stage.i.p.tag.eq(core.o.p.payload),
            stage.i.valid.eq(core.o.valid),
            self.o.p.heads.eq(stage.o.p.tag),
            self.o.valid.eq(stage.o.valid),
            self.unknown.eq(self._stage.unknown),
        ]
        for name in payload_shape(self._stage.o).members:
            m.d.comb += Value.cast(self.o.p[name]).eq(Value.cast(stage.o.p.payload[name]))
        return m


def _check(tables: Sequence[LevelTable], heads: Sequence[str], instruments: int) -> None:
    if instruments < 1:
        raise UsageError(f"{instruments} instruments: at least one has a memory")
    if len(tables) not in (1, instruments):
        raise UsageError(f"{len(tables)} level tables for {instruments} instruments: give one for each, or one for all")
    if not heads or any(name not in HEADS for name in heads):
        raise UsageError(f"heads {', '.join(heads) or 'none'}: choose of {', '.join(HEADS)}")
