"""Weights, parameters and registers of four banks; the weight bus writes the spare one, a commit swaps it in.

A commit waits for `boundary`, the edge between two events, so that an event is scored by whole sets only. While it
waits nothing can be written: the spare bank must not change once it was promised.

The bus goes through four registers: as it came, let through, decoded, and once more a region before the block memories.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hdl.reloadable.block_memory import BlockMemory
from hdl.reloadable.fanout import copies
from hdl.reloadable.lanes import PARAMETERS
from hdl.reloadable.plan import BANKS, SETS, Plan
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
from hdl.reloadable.stages import REGIONS, ROWS
from microrisk.spec.formats import HEAD
from microrisk.spec.records import N_FEATURES

BANK = unsigned((BANKS - 1).bit_length())
LATENT = unsigned((HEAD.width - 1).bit_length())
"""Exponent of the latents."""
ROW_BITS = (ROWS - 1).bit_length()
SETTLED = 4
"""Cycles after a swap until all registers behind the choice of banks show the new one."""
BUS = wiring.Signature(
    {
        "address": Out(ADDRESS_BITS),
        "write_data": Out(DATA_BITS),
        "write": Out(1),
        "read_data": In(DATA_BITS),
    }
)
"""A word is written at the edge where `write` is set; `read_data` is that of `address` READ_CYCLES before."""
READ_CYCLES = 3
"""The address as it came, decoded, the word."""


class Banks(wiring.Component):
    """Storage of a plan's weights.

    Parameters
    ----------
    ecp5 : memories are DP16KD blocks; False = plain memories, the same to the bit and cycle

    Members
    -------
    next_weight_address : bank above address within the bank, one cycle before it reaches the address registers;
        weights : stages.MEMORY cycles after those
    next_parameter_address, parameters : the same for bias and shift, bank above job
    set_banks, masks : bank and mask of each set
    latents : exponent of the latents of each set
    chosen : a set; its mask and exponents : three cycles later
    boundary : no event is being scored at this edge; pending : a commit waits for that
    """

    def __init__(self, plan: Plan, *, ecp5: bool = False) -> None:
        self._plan, self._ecp5 = plan, ecp5
        self.weight_bits = max(plan.depth - 1, 1).bit_length()
        self.job_bits = max(len(plan.jobs) - 1, 1).bit_length()
        members: dict[str, Any] = {
            "bus": In(BUS),
            "boundary": In(1), "pending": Out(1),
            "set_banks": Out(data.ArrayLayout(BANK, len(SETS))),
            "next_weight_address": In(self.weight_bits + BANK.width), "weights": Out(ROWS * DATA_BITS),
            "next_parameter_address": In(self.job_bits + BANK.width),
            "parameters": Out(data.ArrayLayout(PARAMETERS, ROWS)),
            "masks": Out(data.ArrayLayout(unsigned(N_FEATURES), len(SETS))),
            "chosen": In(range(len(SETS))), "mask": Out(N_FEATURES),
            "exponents": Out(data.ArrayLayout(unsigned(EXPONENT_BITS), N_FEATURES)),
            "latents": Out(data.ArrayLayout(LATENT, len(SETS))),
        }  # fmt: skip
        super().__init__(members)

    def elaborate(self, platform: Any) -> Module:
        """Bus decode, memories, registers, swap."""
        m = Module()
        spare = Signal(BANK, init=BANKS - 1)
        banks = Signal(self.set_banks.shape(), init=list(range(len(SETS))))
        m.d.comb += self.set_banks.eq(banks)
        pending, error = self.pending, Signal(name="error")
        came = _registered(m, self.bus)
        commit, value, allowed, seen = self._decoded(m, came, pending, error)
        index = came["address"][:KIND_BIT]
        self._swap(m, commit, value, pending, banks, spare)
        write = _let_through(m, came, allowed)
        self._memories(m, spare, write)
        held = self._registers(m, spare, write)
        # what is on its way counts: who writes and looks at once must see it
        self._read(m, index, Cat(pending | commit, seen, Const(0, 2), banks, spare), held, banks)
        return m

    def _decoded(self, m: Module, came: dict[str, Signal], pending: Signal, error: Signal) -> tuple[Any, ...]:
        """A commit and the word of the last cycle; whether a write of this cycle is let through; an error before it."""
        kind, index = came["address"][KIND_BIT:], came["address"][:KIND_BIT]
        commit, clear, wrong = (Signal(name=n) for n in ("commit", "clear", "wrong"))
        value = Signal(DATA_BITS, reset_less=True, name="value")
        known, closed = self._known(kind, index, came["write_data"]), pending | commit
        allowed = came["write"] & ~closed
        register = allowed & (kind == REGISTER)
        seen = wrong | (error & ~clear)
        m.d.sync += [
            value.eq(came["write_data"]),
            commit.eq(register & known & (index == BY_NAME["COMMIT"].address)),
            clear.eq(register & (index == BY_NAME["CLEAR"].address)),
            wrong.eq(came["write"] & (closed | ~known)),
            error.eq(seen),
        ]
        return commit, value, allowed, seen

    def _swap(self, m: Module, commit: Signal, value: Signal, pending: Signal, banks: Any, spare: Signal) -> None:
        wanted = Signal(range(len(SETS)))
        with m.If(commit):
            m.d.sync += [pending.eq(1), wanted.eq(value)]
        with m.If(pending & self.boundary):
            for k in range(len(SETS)):
                with m.If(wanted == k):
                    m.d.sync += [banks[k].eq(spare), spare.eq(banks[k]), pending.eq(0)]

    def _known(self, kind: Value, index: Value, value: Value) -> Value:
        """The address exists and may be written; a commit names a set."""
        writable = [r.address for r in TABLE if "w" in r.access]
        commit = index == BY_NAME["COMMIT"].address
        register = (kind == REGISTER) & index.matches(*writable) & (~commit | (value < len(SETS)))
        weight = (kind == WEIGHTS) & (index < self._plan.depth * ROWS)
        return register | weight | ((kind == PARAMETER_WORDS) & (index < len(self._plan.jobs) * ROWS))

    def _memories(self, m: Module, spare: Signal, write: dict[Any, Signal]) -> None:
        """A block for each row's weights and one for its parameters."""
        for name, chosen, bits, width, wanted, out in (
            ("weight_memory", WEIGHTS, self.weight_bits, DATA_BITS, self.next_weight_address, self.weights),
            ("parameter_memory", PARAMETER_WORDS, self.job_bits, PARAMETERS.size, self.next_parameter_address,
             self.parameters.as_value()),
        ):  # fmt: skip
            at, written = Signal(bits + BANK.width, name=f"{name}_at"), Signal(width, name=f"{name}_value")
            enable = Signal(ROWS, name=f"{name}_enable")
            m.d.sync += [
                at.eq(Cat(write["index"][ROW_BITS : ROW_BITS + bits], spare)),
                written.eq(write["word"]),
                enable.eq(Mux(write[chosen], 1 << write["index"][:ROW_BITS], 0)),
            ]
            ports = [
                copies(m, f"{name}_{part}", value, REGIONS, ecp5=self._ecp5)
                for part, value in (("write_address", at), ("write_data", written), ("read_address", wanted))
            ]
            late = Signal(ROWS, name=f"{name}_write")
            m.d.sync += late.eq(enable)
            for row in range(ROWS):
                block = BlockMemory(width, BANKS << bits, ecp5=self._ecp5)
                m.submodules[f"{name}_{row}"] = block
                address, data_in, read = (p[row * REGIONS // ROWS] for p in ports)
                m.d.comb += [block.write.eq(late[row]), block.write_address.eq(address), block.write_data.eq(data_in)]
                m.d.comb += [block.read_address.eq(read), out.word_select(row, width).eq(block.read_data)]

    def _registers(self, m: Module, spare: Signal, write: dict[Any, Signal]) -> dict[str, Array]:
        """Staged words of each bank, and those of the chosen set."""
        value = Signal.like(write["word"], reset_less=True, name="register_value")
        m.d.sync += value.eq(write["word"])
        held = {r.name: Array(Signal(DATA_BITS, name=f"{r.name}_{b}") for b in range(BANKS)) for r in TABLE if r.staged}
        for name, words in held.items():
            for b, word in enumerate(words):
                enable = Signal(name=f"{name}_{b}_enable")
                m.d.sync += enable.eq(write[REGISTER] & (write["index"] == BY_NAME[name].address) & (spare == b))
                with m.If(enable):
                    m.d.sync += word.eq(value)
        bank = Signal(BANK, reset_less=True, name="chosen_bank")
        m.d.sync += bank.eq(Array(self.set_banks[k] for k in range(len(SETS)))[self.chosen])
        names = [n for n in held if n.startswith("EXPONENTS")]
        # a choice for each word: they lie apart
        choice = copies(m, "word_bank", bank, len(names) + 1, ecp5=self._ecp5)
        exponents = Cat(
            held[n][c][: EXPONENT_BITS * EXPONENTS_A_WORD] for n, c in zip(names, choice, strict=False)
        )  # fmt: skip
        for k in range(len(SETS)):
            own = self.set_banks[k]
            m.d.sync += [self.masks[k].eq(held["MASK"][own]), self.latents[k].eq(held["LATENT"][own])]
        m.d.sync += [self.mask.eq(held["MASK"][choice[-1]]), self.exponents.as_value().eq(exponents)]
        return held

    def _read(self, m: Module, index: Value, status: Value, held: dict[str, Array], banks: Any) -> None:
        hashes = {}
        for k, name in enumerate(SETS):
            for part in ("LOW", "HIGH"):
                hashes[f"HASH_{name.upper()}_{part}"] = word = Signal(DATA_BITS, name=f"hash_{name}_{part.lower()}")
                m.d.sync += word.eq(held[f"HASH_{part}"][banks[k]])
        chosen = []
        for name, word in {"STATUS": status, **hashes}.items():
            wanted = Signal(name=f"read_{name.lower()}")
            m.d.sync += wanted.eq(index == BY_NAME[name].address)
            chosen.append(Mux(wanted, word, 0))
        m.d.sync += self.bus.read_data.eq(reduce(or_, chosen))


def _let_through(m: Module, came: dict[str, Signal], allowed: Value) -> dict[Any, Signal]:
    """The write of the last cycle: `index`, `word`, and for each kind whether it is one that takes place."""
    kind = came["address"][KIND_BIT:]
    write: dict[Any, Signal] = {
        "index": Signal(KIND_BIT, reset_less=True, name="write_index"),
        "word": Signal(DATA_BITS, reset_less=True, name="write_word"),
    }
    m.d.sync += [write["index"].eq(came["address"][:KIND_BIT]), write["word"].eq(came["write_data"])]
    for chosen in (REGISTER, WEIGHTS, PARAMETER_WORDS):
        write[chosen] = Signal(name=f"write_{chosen}")
        m.d.sync += write[chosen].eq(allowed & (kind == chosen))
    return write


def _registered(m: Module, bus: Any) -> dict[str, Signal]:
    """The bus as it came in the last cycle."""
    came = {n: Signal(len(getattr(bus, n)), name=f"came_{n}") for n in ("address", "write_data", "write")}
    m.d.sync += [signal.eq(getattr(bus, n)) for n, signal in came.items()]
    return came
