"""The reloadable core: one event after another through the plan's program, three weight sets each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hdl import shapes
from hdl.graph import Graph
from hdl.layers import inputs, max_abs
from hdl.pipe import Pipe
from hdl.reloadable import squares
from hdl.reloadable.banks import BANK, BUS, Banks
from hdl.reloadable.lanes import Lanes
from hdl.reloadable.plan import COLUMNS, ROWS, SETS, make_plan
from hdl.schedule import Schedule, schedule
from microrisk.errors import UsageError
from microrisk.spec.formats import CODE
from microrisk.spec.records import N_FEATURES
from microrisk.spec.weightfile import LAYERS

START = 1
"""Cycles of an event before its first step is issued: meanwhile its codes go under the masks."""
ACC_AT, CODES_AT = 9, 11
"""Cycles after issue in which accumulators and codes of hdl.reloadable.lanes are there."""
CONTROL = data.StructLayout(
    {
        "valid": 1, "set": unsigned((len(SETS) - 1).bit_length()), "job": 4, "address": 8, "group": 3, "chain": 2,
        "from_codes": 1, "first": 1, "last": 1, "split": 1, "relu": 1, "score": 1, "square": 1, "latent": 1, "plain": 1,
    }
)  # fmt: skip
"""One word of the program. score: the accumulator is the result; square: the codes go to the sums of squares;
latent: those of the vae's latents; plain: exponents 0 (whitening)."""
_GROUPS = ROWS // COLUMNS


class ReloadableCore(wiring.Component):
    """Codes in, heads of three weight sets out, each equal to Weights.compute of its model and mask.

    Parameters
    ----------
    heads : of spec.weightfile.HEADS
    n_features : must be that of the format: lanes and image follow it
    ecp5 : multipliers are MULT18X18D blocks; False = plain registers, the same to the bit and cycle

    Attributes
    ----------
    latency : clock periods from the edge that takes an event to the edge after which its results are shown
    interval : least periods between two events
    bus : hdl.reloadable.registers; i, o : streams, o an array over plan.SETS
    """

    def __init__(
        self, heads: Sequence[str] = ("exposure",), n_features: int = N_FEATURES, *, ecp5: bool = False
    ) -> None:
        if n_features != N_FEATURES or N_FEATURES > ROWS:
            raise UsageError(f"{n_features} features: this core has {ROWS} lanes for the {N_FEATURES} of the format")
        self.plan = make_plan(heads)
        self.heads, self._ecp5 = self.plan.heads, ecp5
        self._summed = bool({"vae", "maha"} & set(self.heads))
        self._done = self._done_at()
        self.latency, self.interval = self._done + 1, self._done + 2
        super().__init__(
            {
                "i": In(stream.Signature(shapes.codes(N_FEATURES))),
                "o": Out(stream.Signature(data.ArrayLayout(shapes.heads(self.heads), len(SETS)))),
                "bus": In(BUS),
            }
        )

    def _done_at(self) -> int:
        """Cycle, counted from an event's first, in which every result register holds its value."""
        ends = [0]
        for k, job in enumerate(self.plan.jobs):
            for s in range(len(SETS)):
                last = START + self.plan.last_issue(k, s)
                if job.activation == "acc":
                    ends.append(last + ACC_AT + 1)
                else:
                    ends.append(last + CODES_AT + squares.latency() + 1)
        if "maxz" in self.heads:
            ends.append(2 + len(SETS) + _largest().latency + 3)
        return max(ends)

    def elaborate(self, platform: Any) -> Module:
        """Sequencer, banks, lanes, sums of squares, results."""
        m = Module()
        m.submodules.banks = self._banks = banks = Banks(self.plan)
        wiring.connect(m, wiring.flipped(self.bus), banks.bus)
        m.submodules.lanes = self._lanes = Lanes(ecp5=self._ecp5)
        self._codes = Signal(shapes.codes(N_FEATURES), reset_less=True)
        self._results = Signal(self.o.payload.shape(), reset_less=True)
        self._sequence(m)
        self._operands(m)
        m.d.comb += [
            banks.weight_address.eq(self._control[0].address),
            banks.weight_bank.eq(self._bank[0]),
            banks.parameter_job.eq(self._control[6].job),
            banks.parameter_bank.eq(self._bank[6]),
            self._lanes.weights_2.as_value().eq(banks.weights),
            self._lanes.split_7.eq(self._control[7].split),
            self._lanes.first_8.eq(self._control[8].first),
            self._lanes.relu_10.eq(self._control[10].relu),
            self._lanes.parameters_8.eq(banks.parameters),
        ]
        if any(job.activation == "acc" for job in self.plan.jobs):
            self._scores(m)
        if self._summed:
            self._sums(m)
        if "maxz" in self.heads:
            self._maxima(m)
        return m

    # ---- control ----

    def _sequence(self, m: Module) -> None:
        """Take an event when none is inside, walk through the program, show the results.

        `closed` is the opposite of `waiting` in a register of its own: it enables 256 registers that lie far apart.
        """
        age, running, waiting, closed = Signal(range(self._done + 1)), Signal(), Signal(init=1), Signal()
        begin, ending = Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(waiting),
            begin.eq(self.i.valid & waiting),
            ending.eq((age == self._done) & (~self.o.valid | self.o.ready)),
            self._banks.boundary.eq(~running),
        ]
        with m.If(~closed):
            m.d.sync += self._codes.eq(self.i.payload)
        with m.If(begin):
            m.d.sync += [running.eq(1), waiting.eq(0), closed.eq(1)]
        with m.Elif(ending):
            m.d.sync += [running.eq(0), waiting.eq(1), closed.eq(0), age.eq(0)]
        with m.Elif(running & (age != self._done)):
            m.d.sync += age.eq(age + 1)
        with m.If(ending):
            m.d.sync += [self.o.payload.eq(self._results), self.o.valid.eq(1)]
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        self._running, self._age = running, age
        self._program(m, running, age)

    def _program(self, m: Module, running: Signal, age: Signal) -> None:
        """ROM of control words, the bank of each word's set beside it, and their copies in later cycles."""
        words = [self._word(step) for step in self.plan.program]
        table = Array(Const(w, CONTROL) for w in words)
        within = Signal()
        m.d.comb += within.eq(running & (age < len(words)))
        now = Signal(CONTROL)
        m.d.comb += now.eq(Mux(within, table[age].as_value(), 0))
        banks = Array(self._banks.set_banks[k] for k in range(len(SETS)))
        self._control, self._bank = [now], [banks[now.set]]
        for cycle in range(CODES_AT + 1):
            late = Signal(CONTROL, name=f"control_{cycle}")
            bank = Signal(BANK, name=f"bank_{cycle}")
            m.d.sync += [late.eq(self._control[-1]), bank.eq(self._bank[-1])]
            self._control.append(late)
            self._bank.append(bank)
        del self._control[0], self._bank[0]  # the first copies are cycle 0: a step is issued from registers

    def _word(self, step: Any) -> dict[str, int]:
        if step is None:
            return {}
        job = self.plan.jobs[step.job]
        last = step.group == job.steps - 1
        ends = step.job + 1 == len(self.plan.jobs) or self.plan.jobs[step.job + 1].first
        latent = job.name.startswith("vae.enc") and self.plan.jobs[step.job + 1].name.startswith("vae.dec")
        squared = last and (latent or (ends and job.activation == "linear"))
        return {
            "valid": 1, "set": step.weight_set, "job": step.job, "address": self.plan.bases[step.job] + step.group,
            "group": step.group * (2 if job.split else 1), "chain": job.chain, "from_codes": int(job.first),
            "first": int(step.group == 0), "last": int(last), "split": int(job.split),
            "relu": int(job.activation == "relu"), "score": int(last and job.activation == "acc"),
            "square": int(squared), "latent": int(squared and latent),
            "plain": int(squared and job.name.startswith("maha")),
        }  # fmt: skip

    # ---- operands ----

    def _operands(self, m: Module) -> None:
        """The step's vector, then its group of columns; codes of hidden layers are kept by set and chain."""
        chains = max((job.chain for job in self.plan.jobs), default=0) + 1
        kept = [
            [Signal(shapes.codes(ROWS), reset_less=True, name=f"kept_{s}_{c}") for c in range(chains)]
            for s in range(len(SETS))
        ]
        done = self._control[CODES_AT - 1]
        for s in range(len(SETS)):
            for c in range(chains):
                with m.If(done.last & (done.set == s) & (done.chain == c)):
                    m.d.sync += kept[s][c].eq(self._lanes.codes_10)
        self._masked = [self._masked_codes(m, s) for s in range(len(SETS))]
        now, then = self._control[0], self._control[1]
        vector = Signal(ROWS * CODE.width, reset_less=True)
        sources = Array(Array(kept[s][c].as_value() for c in range(chains)) for s in range(len(SETS)))
        masked = Array(self._masked)[now.set]
        m.d.sync += vector.eq(Mux(now.from_codes, masked, sources[now.set][now.chain]))
        groups = Array(vector.word_select(g, COLUMNS * CODE.width) for g in range(_GROUPS))
        low, high = (Signal(COLUMNS * CODE.width, reset_less=True, name=n) for n in ("low", "high"))
        m.d.sync += [low.eq(groups[then.group]), high.eq(groups[then.group | then.split])]
        m.d.comb += [self._lanes.low_2.as_value().eq(low), self._lanes.high_2.as_value().eq(high)]

    def _masked_codes(self, m: Module, s: int) -> Signal:
        """Codes under the mask of a set, from an event's cycle 1 on."""
        mask = self._banks.masks[s]
        out = Signal(N_FEATURES * CODE.width, reset_less=True, name=f"masked_{s}")
        m.d.sync += out.eq(Cat(Mux(mask[k], self._codes[k], 0) for k in range(N_FEATURES)))
        return out

    # ---- results ----

    def _scores(self, m: Module) -> None:
        """Accumulators that are results themselves."""
        done = self._control[ACC_AT]
        for s in range(len(SETS)):
            with m.If(done.score & (done.set == s)):
                m.d.sync += self._results[s].exposure.eq(self._lanes.acc_9[0])

    def _sums(self, m: Module) -> None:
        """Finished layers on their way through the sums of squares, with what they are beside them."""
        m.submodules.squares = unit = squares.SumSquares()
        y = Signal(shapes.codes(ROWS), reset_less=True)
        now = Signal(CONTROL)
        m.d.sync += y.eq(self._lanes.codes_10)
        m.d.comb += now.eq(Mux(self._control[CODES_AT].square, self._control[CODES_AT].as_value(), 0))
        residual = ~now.latent & ~now.plain
        m.d.comb += [
            self._banks.chosen.eq(self._control[CODES_AT - 1].set),
            unit.b.eq(y),
            unit.a.as_value().eq(Mux(residual, Array(self._masked)[now.set], 0)),
        ]
        latents = LAYERS["vae.enc.2"][0]
        exponents = self._banks.exponents
        for k in range(ROWS):
            latent = self._banks.latent if k < latents else 0
            own = exponents[k] if k < N_FEATURES else 0
            m.d.comb += [
                unit.exponents[k].eq(Mux(now.plain, 0, Mux(now.latent, latent, own))),
                unit.counts[k].eq(Mux(residual, self._banks.mask[k], now.plain | (k < latents))),
            ]
        for cycle in range(squares.latency()):
            late = Signal(CONTROL, name=f"squared_{cycle}")
            m.d.sync += late.eq(now)
            now = late
        self._collect(m, now, unit.total)

    def _collect(self, m: Module, now: Any, total: Any) -> None:
        """Whitened features are maha; the vae is its latents first, then the residual on top."""
        for s in range(len(SETS)):
            result = self._results[s]
            with m.If(now.square & (now.set == s)):
                if "maha" in self.heads:
                    with m.If(now.plain):
                        m.d.sync += result.maha.eq(total)
                if "vae" in self.heads:
                    with m.If(~now.plain):
                        m.d.sync += result.vae.eq(Mux(now.latent, total, result.vae + total))

    def _maxima(self, m: Module) -> None:
        """max|z| of each set's masked codes, one set after another."""
        m.submodules.largest = pipe = Pipe(_largest(), N_FEATURES)
        first = 2
        turn = Signal(range(len(SETS) + 1))
        mine = self._running & (self._age >= first) & (self._age < first + len(SETS))
        m.d.comb += turn.eq(Mux(mine, self._age - first, len(SETS)))
        codes = Array([*self._masked, self._masked[0]])[turn]
        m.d.comb += [pipe.i.payload.as_value().eq(codes), pipe.i.valid.eq(turn < len(SETS))]
        for s in range(len(SETS)):
            with m.If(self._running & (self._age == first + s + pipe.latency + 1)):
                m.d.sync += self._results[s].maxz.eq(pipe.o.payload.maxz)


@cache
def _largest() -> Schedule:
    graph = Graph()
    graph.outputs["maxz"] = max_abs(graph, inputs(graph, N_FEATURES))
    return schedule(graph, squares.PERIOD_NS)
