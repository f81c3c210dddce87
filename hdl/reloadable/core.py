"""The reloadable core: one event after another through the plan's program, three weight sets each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hdl import shapes
from hdl.reloadable.activations import Activations
from hdl.reloadable.banks import BUS, SETTLED, Banks
from hdl.reloadable.fanout import copies
from hdl.reloadable.lanes import Lanes
from hdl.reloadable.plan import SETS, make_plan
from hdl.reloadable.program import AHEAD, Program, chains
from hdl.reloadable.scores import Scores, last_cycle, shown
from hdl.reloadable.stages import JOINED, MEMORY, OPERANDS, ROW_SUMS, ROWS, SHIFTED
from microrisk.errors import UsageError
from microrisk.spec.records import N_FEATURES

DOORS = 8
"""Registers that let codes in: each opens for its part of the features."""


class ReloadableCore(wiring.Component):
    """Codes in, heads of three weight sets out, each equal to Weights.compute of its model and mask.

    Parameters
    ----------
    heads : of spec.weightfile.HEADS
    n_features : must be that of the format: lanes and image follow it
    ecp5 : multipliers, memories and copied registers are blocks of that device; False = plain behaviour, the same to
        the bit and cycle

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
        self.latency = shown(self.plan)
        self.interval = self.latency + 2
        super().__init__(
            {
                "i": In(stream.Signature(shapes.codes(N_FEATURES))),
                "o": Out(stream.Signature(data.ArrayLayout(shapes.heads(self.heads), len(SETS)))),
                "bus": In(BUS),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Sequencer, banks, operands, lanes, results."""
        m = Module()
        m.submodules.banks = self._banks = banks = Banks(self.plan, ecp5=self._ecp5)
        wiring.connect(m, wiring.flipped(self.bus), banks.bus)
        running, at_end = self._sequence(m)
        self._program = program = Program(m, self.plan, running, at_end, last_cycle(self.plan))
        m.d.sync += at_end.eq(running & ~at_end & (program.age == self.latency - 2 + AHEAD))
        results = Signal(self.o.payload.shape(), reset_less=True, name="results")
        m.d.comb += self.o.payload.eq(results)
        m.submodules.lanes = lanes = Lanes(ecp5=self._ecp5)
        self._memories(m)
        self._operands(m, lanes)
        self._guide(m, lanes)
        Scores(m, self.plan, program, banks, lanes, self._codes, results, ecp5=self._ecp5)
        return m

    # ---- events ----

    def _sequence(self, m: Module) -> tuple[Signal, Signal]:
        """Take an event, run, show the results, wait until they are taken; a commit is let in between two events."""
        running, at_end, ready = Signal(), Signal(), Signal()
        settle, between = Signal(range(SETTLED + 1), init=SETTLED), Signal()
        waiting, free = self._banks.pending, ~self.o.valid | self.o.ready
        m.d.comb += [between.eq(~running & ~ready), self.i.ready.eq(ready), self._banks.boundary.eq(between)]
        coming = Signal()
        m.d.comb += coming.eq(
            Mux(ready, ~self.i.valid & ~waiting, between & ~waiting & (settle == 0) & free)
        )  # fmt: skip
        m.d.sync += ready.eq(coming)
        with m.If(ready & self.i.valid):
            m.d.sync += running.eq(1)
        with m.If(between & waiting):
            m.d.sync += settle.eq(SETTLED)
        with m.Elif(settle != 0):
            m.d.sync += settle.eq(settle - 1)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(at_end):
            m.d.sync += [running.eq(0), self.o.valid.eq(1)]
        self._take(m, coming)
        return running, at_end

    def _take(self, m: Module, coming: Signal) -> None:
        """Codes follow the input while the core is ready, and hold from then on."""
        self._codes = Signal(shapes.codes(N_FEATURES), reset_less=True, name="codes")
        doors = copies(m, "door", coming, DOORS, ecp5=self._ecp5)
        for k in range(N_FEATURES):
            with m.If(doors[k * DOORS // N_FEATURES]):
                m.d.sync += self._codes[k].eq(self.i.payload[k])

    # ---- steps ----

    def _memories(self, m: Module) -> None:
        """Addresses of weights and parameters, so early that the words are there with the operands."""
        banks, program = self._banks, self._program
        weights, parameters = OPERANDS - MEMORY - 1, JOINED - MEMORY - 1
        address, job = program.at(weights).word.address, program.at(parameters).word.job
        m.d.comb += [
            banks.next_weight_address.eq(_joined(address, banks.weight_bits, program.bank(weights, banks.set_banks))),
            banks.next_parameter_address.eq(_joined(job, banks.job_bits, program.bank(parameters, banks.set_banks))),
        ]

    def _operands(self, m: Module, lanes: Lanes) -> None:
        """Codes of the event or of a hidden layer, to the lanes and back."""
        program, banks = self._program, self._banks
        m.submodules.activations = unit = Activations(chains(self.plan), ecp5=self._ecp5)
        mask = Signal(N_FEATURES, reset_less=True, name="mask")
        m.d.sync += mask.eq(Array(banks.masks[k] for k in range(len(SETS)))[program.at(-1).word.set])
        coming, issued, finished = program.at(-1).word, program.at(0).word, program.at(SHIFTED - 1)
        m.d.comb += [
            unit.next_from_codes.eq(coming.from_codes), unit.next_slot.eq(coming.slot),
            unit.codes.eq(self._codes), unit.mask.eq(mask),
            unit.next_group.eq(issued.group), unit.next_split.eq(issued.split),
            lanes.operands.eq(unit.operands), lanes.weights.as_value().eq(banks.weights),
            unit.next_write.eq(finished.flags.keep), unit.next_written_slot.eq(finished.word.slot),
            unit.written.eq(lanes.codes),
        ]  # fmt: skip

    def _guide(self, m: Module, lanes: Lanes) -> None:
        """What the lanes must know of a step, in the cycle in which they need it."""
        at = self._program.at
        for name, value in (
            ("split", at(ROW_SUMS - 1).word.split),
            ("first", at(JOINED - 1).word.begins),
            ("relu", at(SHIFTED - 1).word.relu),
        ):
            wires = getattr(lanes, name)
            m.d.comb += wires.eq(Cat(copies(m, name, value, len(wires), ecp5=self._ecp5)))
        m.d.comb += lanes.parameters.eq(self._banks.parameters)


def _joined(address: Any, bits: int, bank: Any) -> Any:
    """Bank above the address within it."""
    return Cat(address[:bits], bank)
