"""Register map of the bus shell: one table, from which come the decoder in gates and the page for its users.

`python -m hdl.registers` prints the page as Markdown.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import reduce
from operator import or_
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.shapes import shape_for
from microrisk.errors import UsageError

WORD = 32
"""Data bits of the bus (AXI4-Lite)."""
BYTES = WORD // 8
MAP_VERSION = 1
"""Raised when a register changes its address or meaning."""
GROUP = 4
"""Words that one step of the read path puts together."""
IDENT = int.from_bytes(b"MRSK", "big")


class Access(StrEnum):
    """What a bus may do with a register, and what the hardware does with it."""

    CONSTANT = "constant"  # read; fixed when the hardware is made
    STATUS = "status"  # read; follows a signal
    SETTING = "setting"  # read and write
    PULSE = "pulse"  # a 1 written acts for one cycle; reads 0
    STICKY = "sticky"  # set by an event, read, cleared by writing a 1
    COUNTER = "counter"  # read; low word of a count of 64 bits, whose high word is kept for HIGH at the same moment
    HIGH = "high"  # read; high word of the counter that was read last


@dataclass(frozen=True)
class Register:
    """Some bits of a word.

    Attributes
    ----------
    name : in capitals; the port of the hardware has it in small letters
    address : byte address of the word
    access : what it is
    bits : (highest, lowest)
    reset : value after reset; None = given when the hardware is made
    text : one sentence
    """

    name: str
    address: int
    access: Access
    bits: tuple[int, int]
    reset: int | None
    text: str

    @property
    def width(self) -> int:
        """Number of bits."""
        return self.bits[0] - self.bits[1] + 1


ALL = (WORD - 1, 0)
_C, _S = Access.CONSTANT, Access.STICKY

REGISTERS: tuple[Register, ...] = (
    Register("IDENT", 0x00, _C, ALL, IDENT, 'The letters "MRSK", the first in the highest byte.'),
    Register("MAP_VERSION", 0x04, _C, ALL, MAP_VERSION, "Version of this table."),
    Register("FORMAT_HASH_HIGH", 0x08, _C, ALL, None, "First eight digits of the format hash of the model."),
    Register("FORMAT_HASH_LOW", 0x0C, _C, ALL, None, "Last eight digits of the format hash."),
    Register("WEIGHTS_HASH_HIGH", 0x10, _C, ALL, None, "First eight digits of the weight hash; 0 = none built in."),
    Register("WEIGHTS_HASH_LOW", 0x14, _C, ALL, None, "Last eight digits of the weight hash; 0 = none built in."),
    Register("IN_BYTES", 0x18, _C, (15, 0), None, "Bytes of s_axis_tdata."),
    Register("OUT_BYTES", 0x18, _C, (31, 16), None, "Bytes of m_axis_tdata."),
    Register("LATENCY", 0x1C, _C, ALL, None, "Clock periods from an event taken to its result offered; 0 = varies."),
    Register("RUN", 0x20, Access.SETTING, (0, 0), 1, "Events are taken; at 0 those inside still come out."),
    Register("CLEAR", 0x20, Access.PULSE, (1, 1), 0, "Sets all counters to zero."),
    Register("BUSY", 0x24, Access.STATUS, (0, 0), 0, "Events are inside."),
    Register("IN_STALLED", 0x24, Access.STATUS, (1, 1), 0, "An event is offered and not taken, now."),
    Register("OUT_STALLED", 0x24, Access.STATUS, (2, 2), 0, "A result is offered and not taken, now."),
    Register("INSIDE", 0x24, Access.STATUS, (31, 16), 0, "How many events are inside."),
    Register("LOST", 0x28, _S, (0, 0), 0, "A result had no place to wait: a fault of the core, results are wrong."),
    Register("PADDING", 0x28, _S, (1, 1), 0, "An event had bits set above its payload: its layout is another."),
    Register("UNKNOWN", 0x28, _S, (2, 2), 0, "An event named an instrument beyond the last; its result means nothing."),
    Register("ACCESS", 0x28, _S, (3, 3), 0, "The bus read or wrote where nothing is, or wrote a read-only word."),
    Register("CYCLES", 0x40, Access.COUNTER, ALL, 0, "Clock cycles, low word."),
    Register("ACCEPTED", 0x44, Access.COUNTER, ALL, 0, "Events taken, low word."),
    Register("DELIVERED", 0x48, Access.COUNTER, ALL, 0, "Results given, low word."),
    Register(
        "IN_STALLS", 0x4C, Access.COUNTER, ALL, 0, "Cycles in which an event was offered and not taken, low word."
    ),
    Register("OUT_STALLS", 0x50, Access.COUNTER, ALL, 0, "Cycles in which a result waited for its taker, low word."),
    Register("COUNT_HIGH", 0x54, Access.HIGH, ALL, 0, "High word of the counter read last, as of that moment."),
)

ADDRESS_BITS = shape_for(0, max(r.address for r in REGISTERS) + BYTES - 1).width
"""Bits of a byte address within the map."""

_WRITABLE = frozenset({Access.SETTING, Access.PULSE, Access.STICKY})


def hash_words(name: str, digits: str) -> dict[str, int]:
    """Constants NAME_HIGH and NAME_LOW of a hash of sixteen hexadecimal digits.

    Raises UsageError for anything else.
    """
    try:
        number = int(digits, 16)
    except ValueError:
        number = -1
    if len(digits) != 2 * WORD // 4 or number < 0:
        raise UsageError(f"{name} {digits!r}: a hash here is {2 * WORD // 4} hexadecimal digits")
    return {f"{name}_HIGH": number >> WORD, f"{name}_LOW": number & ((1 << WORD) - 1)}


def check_map(registers: Sequence[Register]) -> None:
    """Raise UsageError for addresses between words, bits outside a word, two rows on one bit, or a name used twice."""
    taken: dict[int, int] = {}
    for r in registers:
        high, low = r.bits
        if r.address % BYTES or not 0 <= low <= high < WORD:
            raise UsageError(f"register {r.name}: bits {high}..{low} at address {r.address:#x} are no part of a word")
        mask = ((1 << r.width) - 1) << low
        if taken.get(r.address, 0) & mask:
            raise UsageError(f"register {r.name}: bits {high}..{low} at address {r.address:#x} are taken")
        taken[r.address] = taken.get(r.address, 0) | mask
    names = [r.name for r in registers]
    if len(set(names)) < len(names):
        raise UsageError(f"registers with the same name: {sorted({n for n in names if names.count(n) > 1})}")


class RegisterFile(wiring.Component):
    """The map in gates: an access a cycle, which acts in the cycle after and is answered two cycles later.

    Neither the decoder nor the counters see anything that is not a register, so that they do not slow a core down:
    what happens in a cycle is in a counter or a sticky bit two cycles later.

    Parameters
    ----------
    constants : values of the rows whose reset is None
    registers : the map

    Attributes
    ----------
    word : address in words
    read, write : an access in this cycle
    w_data, w_strobe : data of a write, and which of its bytes count
    r_data : data of a read, ANSWER cycles after it
    fault : the access of ANSWER cycles before met no register, or wrote a word that cannot be written
    one port a row of the map, its name in small letters : STATUS the value, STICKY and COUNTER the event (in);
        SETTING and PULSE the value (out)
    counts : whole counters by name of their row

    Raises
    ------
    UsageError : a map that contradicts itself, a constant that is missing, unknown or too wide
    """

    ANSWER = 3

    def __init__(self, constants: Mapping[str, int], registers: Sequence[Register] = REGISTERS) -> None:
        check_map(registers)
        self._registers = tuple(registers)
        self._constants = _filled(constants, registers)
        counters = [r.name for r in registers if r.access is Access.COUNTER]
        self.counts = {name: Signal(2 * WORD, name=f"count_{name.lower()}") for name in counters}
        super().__init__(
            {
                "word": In(ADDRESS_BITS - (BYTES - 1).bit_length()),
                "read": In(1),
                "write": In(1),
                "w_data": In(WORD),
                "w_strobe": In(BYTES),
                "r_data": Out(WORD),
                "fault": Out(1),
                **{r.name.lower(): _port(r) for r in registers if _port(r) is not None},
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Decode; a cycle later read or write the word."""
        m = Module()
        words: dict[int, list[Register]] = {}
        for r in self._registers:
            words.setdefault(r.address, []).append(r)
        self._request(m, words)
        self._high = Signal(WORD, name="count_high")
        erased = {r.name: Signal(r.width, name=f"erased_{r.name.lower()}") for r in self._of(Access.STICKY)}
        values = {r.name: self._value(m, r, erased) for r in self._registers}
        self._answer(m, words, values)
        for address, rows in words.items():
            with m.If(self._writing & self._chosen[address]):
                for r in rows:
                    self._written(m, r, erased)
        return m

    def _of(self, access: Access) -> list[Register]:
        return [r for r in self._registers if r.access is access]

    def _request(self, m: Module, words: Mapping[int, Sequence[Register]]) -> None:
        """The access as registers: one bit a word, and the data with the bytes that do not count at zero."""
        self._chosen = {a: Signal(name=f"chosen_{a:02x}") for a in words}
        self._reading, self._writing = Signal(name="reading"), Signal(name="writing")
        self._data, self._mask = Signal(WORD, name="written"), Signal(WORD, name="mask")
        mask = Cat(s.replicate(WORD // BYTES) for s in self.w_strobe)
        m.d.sync += [bit.eq(self.word == a // BYTES) for a, bit in self._chosen.items()]
        m.d.sync += [self._reading.eq(self.read), self._writing.eq(self.write)]
        m.d.sync += [self._data.eq(self.w_data & mask), self._mask.eq(mask)]

    def _answer(self, m: Module, words: Mapping[int, Sequence[Register]], values: Mapping[str, Value]) -> None:
        """One gate a word and bit, or-ed in two steps; the high word of a counter goes aside with its low word."""
        found: list[Value] = []
        for address, rows in words.items():
            placed = [values[r.name][:WORD] << r.bits[1] for r in rows]
            word = Signal(WORD, name=f"value_{address:02x}")
            m.d.comb += word.eq(reduce(or_, placed))
            found.append(word & (self._chosen[address] & self._reading).replicate(WORD))
        parts = [Signal(WORD, name=f"found_{k}") for k in range(0, len(found), GROUP)]
        m.d.sync += [part.eq(_any(found[k * GROUP : (k + 1) * GROUP])) for k, part in enumerate(parts)]
        m.d.sync += self.r_data.eq(_any(parts))
        counters = self._of(Access.COUNTER)
        with m.If(self._reading & Cat(self._chosen[r.address] for r in counters).any()):
            highs = [values[r.name][WORD:] & self._chosen[r.address].replicate(WORD) for r in counters]
            m.d.sync += self._high.eq(_any(highs))
        there = Cat(self._chosen.values()).any()
        open_words = [bit for a, bit in self._chosen.items() if any(r.access in _WRITABLE for r in words[a])]
        wrong = Signal()
        m.d.sync += wrong.eq((self._reading & ~there) | (self._writing & ~Cat(open_words).any()))
        m.d.sync += self.fault.eq(wrong)

    def _written(self, m: Module, r: Register, erased: Mapping[str, Signal]) -> None:
        where = slice(r.bits[1], r.bits[0] + 1)
        port = getattr(self, r.name.lower(), None)
        match r.access:
            case Access.SETTING:
                m.d.sync += port.eq((port & ~self._mask[where]) | self._data[where])
            case Access.PULSE:
                m.d.comb += port.eq(self._data[where])
            case Access.STICKY:
                m.d.comb += erased[r.name].eq(self._data[where])

    def _value(self, m: Module, r: Register, erased: Mapping[str, Signal]) -> Value:
        """What a read of the row gives (a counter: both words), with the logic that keeps it."""
        match r.access:
            case Access.CONSTANT:
                return Const(self._constants[r.name], WORD)
            case Access.PULSE:
                return Const(0, r.width)
            case Access.HIGH:
                return self._high
            case Access.COUNTER:
                return self._counter(m, r)
            case Access.STICKY:
                return self._sticky(m, r, erased[r.name])
        return getattr(self, r.name.lower())

    def _happened(self, m: Module, r: Register) -> Signal:
        """The event of a row, a cycle later."""
        happened = Signal(r.width if r.access is Access.STICKY else 1, name=f"happened_{r.name.lower()}")
        m.d.sync += happened.eq(getattr(self, r.name.lower()))
        return happened

    def _counter(self, m: Module, r: Register) -> Value:
        count = self.counts[r.name]
        clear = getattr(self, "clear", Const(0, 1))
        m.d.sync += count.eq(Mux(clear, 0, count + self._happened(m, r)))
        return count

    def _sticky(self, m: Module, r: Register, erased: Value) -> Value:
        """An event in the very cycle in which the bit is cleared is not forgotten."""
        seen = Signal(r.width, name=f"seen_{r.name.lower()}")
        m.d.sync += seen.eq((seen & ~erased) | self._happened(m, r))
        return seen


def _any(words: Sequence[Value]) -> Value:
    """All words or-ed, as a tree."""
    while len(words) > 1:
        words = [reduce(or_, words[k : k + 2]) for k in range(0, len(words), 2)]
    return words[0]


def _port(r: Register) -> Any:
    match r.access:
        case Access.STATUS | Access.STICKY:
            return In(r.width)
        case Access.COUNTER:
            return In(1)
        case Access.SETTING:
            return Out(unsigned(r.width), init=r.reset)
        case Access.PULSE:
            return Out(r.width)
    return None


def _filled(constants: Mapping[str, int], registers: Sequence[Register]) -> dict[str, int]:
    """Value of every CONSTANT row."""
    open_rows = {r.name for r in registers if r.access is Access.CONSTANT and r.reset is None}
    if open_rows != set(constants):
        raise UsageError(
            f"constants of the register map: missing {sorted(open_rows - set(constants))}, "
            f"unknown {sorted(set(constants) - open_rows)}"
        )
    values = {r.name: constants.get(r.name, r.reset) for r in registers if r.access is Access.CONSTANT}
    for r in registers:
        if r.name in values and not 0 <= (values[r.name] or 0) < 1 << r.width:
            raise UsageError(f"register {r.name}: {values[r.name]} does not fit its {r.width} bits")
    return {name: int(value or 0) for name, value in values.items()}


def markdown(registers: Sequence[Register] = REGISTERS) -> str:
    """The page for users of the map."""
    lines = [
        "# Registers of the AXI4-Stream shell",
        "",
        f"AXI4-Lite, {WORD} data bits, byte addresses of {ADDRESS_BITS} bits. A word that is not here answers SLVERR;",
        "so does a write to a word in which nothing can be written. Made by `python -m hdl.registers`.",
        "",
        "| address | bits | name | access | reset | meaning |",
        "|---|---|---|---|---|---|",
    ]
    for r in registers:
        reset = "of the model" if r.reset is None else f"{r.reset:#x}"
        bits = str(r.bits[0]) if r.width == 1 else f"{r.bits[0]}:{r.bits[1]}"
        lines.append(f"| `{r.address:#04x}` | {bits} | `{r.name}` | {r.access} | {reset} | {r.text} |")
    return "\n".join([*lines, "", *_legend(), ""])


def _legend() -> list[str]:
    return [
        "- constant: read; fixed when the hardware is made. status: read; the state of this moment.",
        "- setting: read and written. pulse: a 1 written acts once; reads 0.",
        "- sticky: set by an event, cleared by writing a 1 to it.",
        "- counter, high: counts have 64 bits. Reading a low word keeps its high word; read `COUNT_HIGH` next.",
    ]


if __name__ == "__main__":
    sys.stdout.write(markdown())
