"""Weights, parameters and registers of four banks; the weight bus writes the spare one, a commit swaps it in.

A commit waits for `boundary`, the edge between two events, so that an event is scored by whole sets only. While it
waits nothing can be written: the spare bank must not change once it was promised.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.reloadable.lanes import PARAMETERS
from hdl.reloadable.plan import BANKS, ROWS, SETS, Plan
from hdl.reloadable.registers import (
    ADDRESS_BITS,
    BY_NAME,
    DATA_BITS,
    EXPONENT_BITS,
    EXPONENTS_A_WORD,
    KIND_BIT,
    REGISTER,
    TABLE,
    WEIGHTS,
)
from hdl.reloadable.registers import PARAMETERS as PARAMETER_WORDS
from hdl.reloadable.squares import EXPONENT
from microrisk.spec.records import N_FEATURES

BANK = unsigned((BANKS - 1).bit_length())
ROW_BITS = (ROWS - 1).bit_length()
BUS = wiring.Signature(
    {
        "address": Out(ADDRESS_BITS),
        "write_data": Out(DATA_BITS),
        "write": Out(1),
        "read_data": In(DATA_BITS),
    }
)
"""A word is written at the edge where `write` is set; `read_data` is that of `address` one cycle before."""


class Banks(wiring.Component):
    """Storage of a plan's weights.

    weight_address, weights : within a bank and the bank; data two cycles later
    parameter_job, parameters : the same for bias and shift
    set_banks, masks : bank and mask of each set
    chosen : a set; its mask, exponents, latent : one cycle later
    boundary : no event is being scored at this edge
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.weight_depth = 1 << max(plan.depth - 1, 1).bit_length()
        self.job_depth = 1 << max(len(plan.jobs) - 1, 1).bit_length()
        members: dict[str, Any] = {
            "bus": In(BUS),
            "boundary": In(1),
            "set_banks": Out(data.ArrayLayout(BANK, len(SETS))),
            "weight_address": In(range(self.weight_depth)), "weight_bank": In(BANK), "weights": Out(ROWS * DATA_BITS),
            "parameter_job": In(range(self.job_depth)), "parameter_bank": In(BANK),
            "parameters": Out(data.ArrayLayout(PARAMETERS, ROWS)),
            "masks": Out(data.ArrayLayout(unsigned(N_FEATURES), len(SETS))),
            "chosen": In(range(len(SETS))), "mask": Out(N_FEATURES),
            "exponents": Out(data.ArrayLayout(unsigned(EXPONENT_BITS), N_FEATURES)), "latent": Out(EXPONENT),
        }  # fmt: skip
        super().__init__(members)

    def elaborate(self, platform: Any) -> Module:
        """Bus decode, memories, registers, swap."""
        m = Module()
        bus = self.bus
        spare = Signal(BANK, init=BANKS - 1)
        banks = Signal(self.set_banks.shape(), init=list(range(len(SETS))))
        m.d.comb += self.set_banks.eq(banks)
        pending, wanted, error = Signal(), Signal(range(len(SETS))), Signal()
        kind, index = bus.address[KIND_BIT:], bus.address[:KIND_BIT]
        allowed = bus.write & ~pending
        self._memories(m, spare, allowed, kind, index)
        staged = self._registers(m, spare, allowed & (kind == REGISTER), index)
        known = Signal()
        m.d.comb += known.eq(self._known(kind, index, bus.write_data))
        with m.If(bus.write & (pending | ~known)):
            m.d.sync += error.eq(1)
        with m.If(allowed & known & (kind == REGISTER)):
            with m.If(index == BY_NAME["COMMIT"].address):
                m.d.sync += [pending.eq(1), wanted.eq(bus.write_data)]
            with m.If(index == BY_NAME["CLEAR"].address):
                m.d.sync += error.eq(0)
        with m.If(pending & self.boundary):
            for k in range(len(SETS)):
                with m.If(wanted == k):
                    m.d.sync += [banks[k].eq(spare), spare.eq(banks[k]), pending.eq(0)]
        self._read(m, index, Cat(pending, error, Const(0, 2), banks, spare), staged, banks)
        return m

    def _known(self, kind: Any, index: Any, value: Any) -> Any:
        """The address exists and may be written; a commit names a set."""
        writable = [r.address for r in TABLE if "w" in r.access]
        commit = index == BY_NAME["COMMIT"].address
        register = (kind == REGISTER) & index.matches(*writable) & (~commit | (value < len(SETS)))
        weight = (kind == WEIGHTS) & (index < self._plan.depth * ROWS)
        return register | weight | ((kind == PARAMETER_WORDS) & (index < len(self._plan.jobs) * ROWS))

    def _memories(self, m: Module, spare: Signal, allowed: Any, kind: Any, index: Any) -> None:
        """A word of 32 bits for each row, all rows read at once."""
        for name, chosen, depth, word, read_bank, read_at in (
            ("weight_memory", WEIGHTS, self.weight_depth, DATA_BITS, self.weight_bank, self.weight_address),
            ("parameter_memory", PARAMETER_WORDS, self.job_depth, PARAMETERS.size, self.parameter_bank,
             self.parameter_job),
        ):  # fmt: skip
            memory = Memory(shape=unsigned(ROWS * word), depth=BANKS * depth, init=[])
            m.submodules[name] = memory
            write, read = memory.write_port(granularity=word), memory.read_port()
            # the bus is registered once: its words fan out over all rows
            address, value = Signal.like(write.addr, name=f"{name}_at"), Signal(word, name=f"{name}_value")
            enable = Signal(ROWS, name=f"{name}_enable")
            m.d.sync += [
                address.eq(Cat(index[ROW_BITS : ROW_BITS + (depth - 1).bit_length()], spare)),
                value.eq(self.bus.write_data[:word]),
                enable.eq(Mux(allowed & (kind == chosen), 1 << index[:ROW_BITS], 0)),
            ]
            m.d.comb += [write.addr.eq(address), write.data.eq(value.replicate(ROWS)), write.en.eq(enable)]
            m.d.comb += read.addr.eq(Cat(read_at, read_bank))
            late = Signal(ROWS * word, reset_less=True, name=f"{name}_late")
            m.d.sync += late.eq(read.data)
            out = self.weights if chosen == WEIGHTS else self.parameters.as_value()
            m.d.comb += out.eq(late)

    def _registers(self, m: Module, spare: Signal, allowed: Any, index: Any) -> dict[str, Array]:
        """Staged words of each bank, and those of the chosen set."""
        held = {r.name: Array(Signal(DATA_BITS, name=f"{r.name}_{b}") for b in range(BANKS)) for r in TABLE if r.staged}
        for name, words in held.items():
            for b, word in enumerate(words):
                with m.If(allowed & (index == BY_NAME[name].address) & (spare == b)):
                    m.d.sync += word.eq(self.bus.write_data)
        bank = Array(self.set_banks[k] for k in range(len(SETS)))[self.chosen]
        exponents = Cat(
            words[bank][: EXPONENT_BITS * EXPONENTS_A_WORD]
            for name, words in held.items() if name.startswith("EXPONENTS")
        )  # fmt: skip
        for k in range(len(SETS)):
            m.d.comb += self.masks[k].eq(held["MASK"][self.set_banks[k]])
        # one register behind the choice of a bank: the words are wide, and nothing needs them at once
        m.d.sync += [
            self.mask.eq(held["MASK"][bank]),
            self.exponents.as_value().eq(exponents),
            self.latent.eq(held["LATENT"][bank]),
        ]  # fmt: skip
        return held

    def _read(self, m: Module, index: Any, status: Any, held: dict[str, Array], banks: Any) -> None:
        with m.Switch(index):
            with m.Case(BY_NAME["STATUS"].address):
                m.d.sync += self.bus.read_data.eq(status)
            for k, name in enumerate(SETS):
                for part in ("LOW", "HIGH"):
                    with m.Case(BY_NAME[f"HASH_{name.upper()}_{part}"].address):
                        m.d.sync += self.bus.read_data.eq(held[f"HASH_{part}"][banks[k]])
            with m.Default():
                m.d.sync += self.bus.read_data.eq(0)
