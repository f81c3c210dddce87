"""Piecewise linear tables over wide inputs in gates: heads to level codes, equal to fixed.level.

The search for the piece is a few steps of several comparisons each (with 64 points: two steps of seven, four registers
where a search by halves takes twelve), then one multiplication. Everything is sized by the numbers of the table:

- Beyond some input on either side the answer does not change any more (it is saturated, or the end piece is flat), so
  the input is held between these two: 20 bits of a head instead of 32 in the shipped model.
- The answer is slope * x + (value - slope * break), taken modulo a power of two that holds every true answer, so no
  subtraction comes before the multiplication.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from amaranth.hdl import Array, Cat, Const, Module, Mux, Shape, Signal, Value, unsigned
from amaranth.lib.memory import Memory
from numpy.typing import NDArray

from hdl.shapes import shape_for, shape_of
from microrisk import fixed
from microrisk.errors import UsageError
from microrisk.spec.formats import HEAD, LEVEL, LEVEL_TABLE_FRAC, TABLE_POINTS, Format

STEPS = (3, 3)
"""Bits of the piece's number that each step of the search finds; 2**bits - 1 comparisons run side by side."""
MULTIPLIER_WIDTH = 18
"""Operand width of the target's multiplier block, signed (ECP5 MULT18X18D)."""
LOGIC_ROWS = 16
"""Up to this many rows a read-only memory is made of logic, beyond it of memory blocks."""

Ints = NDArray[np.int64]


class Piecewise:
    """Numbers of a table for the hardware: one head (or feature), one set of breaks per instrument table.

    Parameters
    ----------
    breaks, value : int[tables, P], P a power of two; meaning as in fixed.interpolate
    slope : int[tables, P + 1]
    x : format of the input
    y : format of the answer
    frac : fraction bits of value and slope below y
    floor : smallest answer, y.low or above

    Attributes
    ----------
    low, high : inputs are held between these two without a change of the answer
    total : (smallest, largest) value + slope * distance + rounding term over all inputs
    """

    def __init__(
        self, breaks: Ints, value: Ints, slope: Ints, x: Format, y: Format, frac: int, floor: int | None = None
    ) -> None:
        self.breaks, self.value, self.slope = (np.asarray(a, np.int64) for a in (breaks, value, slope))
        self.x, self.y, self.frac = x, y, frac
        self.floor = y.low if floor is None else floor
        self.tables, self.points = self.breaks.shape
        self.half = 1 << (frac - 1) if frac else 0
        self.low = min(self._flat_from(t, 0, x.low) for t in range(self.tables))
        self.high = max(self._flat_from(t, -1, x.high) for t in range(self.tables))
        ends = [self._total(t) for t in range(self.tables)]
        self.total = min(lo for lo, _ in ends), max(hi for _, hi in ends)

    def answer(self, table: int, x: Any) -> Ints:
        """Reference: interpolate, round half up, saturate."""
        y = fixed.round_shift(fixed.interpolate(x, *self._parts(table)), self.frac)
        return np.clip(y, self.floor, self.y.high)

    def pivots(self, step: int, steps: Sequence[int]) -> list[list[int]]:
        """Breaks that step `step` compares with: a row for each outcome of the steps before, and each table."""
        done, bits = sum(steps[:step]), steps[step]
        left = sum(steps) - done - bits
        starts = [p << (bits + left) for p in range(1 << done)]
        picks = [[s + (c << left) for c in range(1, 1 << bits)] for s in starts]
        return [[int(self.breaks[t, k]) for k in pick] for t in range(self.tables) for pick in picks]

    def pieces(self) -> list[tuple[int, int]]:
        """(slope, offset modulo 2**total width): per table the P pieces from a break on, then P for below the first."""
        modulus = 1 << shape_for(*self.total).width
        rows = []
        for t in range(self.tables):
            above = [(k, k + 1) for k in range(self.points)]
            for base, piece in above + [(0, 0)] * self.points:
                s = int(self.slope[t, piece])
                offset = int(self.value[t, base]) + self.half - s * int(self.breaks[t, base])
                rows.append((s, offset % modulus))
        return rows

    def _parts(self, t: int) -> tuple[Ints, Ints, Ints]:
        return self.breaks[t], self.value[t], self.slope[t]

    def _flat_from(self, t: int, end: int, extreme: int) -> int:
        """Input nearest the end break from which on the answer is that of the extreme; end pieces are monotone."""
        inner, outer = int(self.breaks[t, end]), extreme
        if (inner < extreme) == (end == 0):  # the end break lies beyond every input
            return extreme
        last = int(self.answer(t, extreme))
        if int(self.answer(t, inner)) == last:
            return inner
        while abs(outer - inner) > 1:
            middle = (outer + inner) // 2
            if int(self.answer(t, middle)) == last:
                outer = middle
            else:
                inner = middle
        return outer

    def _total(self, t: int) -> tuple[int, int]:
        b = self.breaks[t]
        ends = np.clip(np.concatenate([b, b - 1, [self.low, self.high]]), self.low, self.high)
        y = fixed.interpolate(ends, *self._parts(t)) + self.half
        return int(y.min()), int(y.max())


def level_table(tables: Sequence[Any], head: int) -> Piecewise:
    """Row `head` of spec.weightfile.HEADS of LevelTables, for the hardware."""
    parts = [np.stack([getattr(t, p)[head] for t in tables]) for p in ("breaks", "value", "slope")]
    return Piecewise(*parts, HEAD, LEVEL, LEVEL_TABLE_FRAC, floor=0)


def check_steps(steps: Sequence[int], points: int = TABLE_POINTS) -> None:
    """Raise UsageError unless the steps find a number 0..points-1."""
    if min(steps, default=0) < 1 or 1 << sum(steps) != points:
        raise UsageError(f"search steps {tuple(steps)} find {sum(steps)} bits, {points} points need their logarithm")


def delayed(m: Module, value: Value, cycles: int, name: str) -> Value:
    """The value some cycles later; its registers need no reset, because a valid bit goes beside them."""
    for k in range(cycles):
        held = Signal(value.shape(), name=f"{name}_{k}", reset_less=True)
        m.d.sync += held.eq(value)
        value = held
    return value


def read_only(m: Module, name: str, rows: Sequence[Sequence[int]], address: Value) -> list[Value]:
    """Columns of row `address`, one cycle later, each as narrow as its numbers; rows past the last repeat it.

    Of a single row they are constants, so that what compares with them is made for these very numbers.
    """
    shapes = [shape_for(min(c), max(c)) for c in zip(*rows, strict=True)]
    words = [_packed(row, shapes) for row in rows]
    width = sum(s.width for s in shapes)
    data: Value
    if len(rows) == 1:
        data = Const(words[0], width)
    elif len(rows) <= LOGIC_ROWS:
        data = Signal(width, name=name, reset_less=True)
        full = words + [words[-1]] * ((1 << len(address)) - len(words))
        m.d.sync += data.eq(Array([Const(w, width) for w in full])[address])
    else:
        m.submodules[name] = memory = Memory(shape=unsigned(width), depth=len(words), init=words)
        port = memory.read_port()
        m.d.comb += port.addr.eq(address)
        data = port.data
    return list(_unpacked(data, shapes))


def _packed(row: Sequence[int], shapes: Sequence[Shape]) -> int:
    word, at = 0, 0
    for number, shape in zip(row, shapes, strict=True):
        word |= (number & ((1 << shape.width) - 1)) << at
        at += shape.width
    return word


def _unpacked(data: Value, shapes: Sequence[Shape]) -> Iterator[Value]:
    at = 0
    for shape in shapes:
        part = data[at : at + shape.width]
        yield part.as_signed() if shape.signed else part
        at += shape.width


class Lookup:
    """Registers and gates of one table inside a module: input in this cycle, answer `registers` cycles later.

    Parameters
    ----------
    m : module to build in
    name : prefix of signals
    table : the numbers
    x : input, in the table's format
    which : number of the instrument table, 0..tables-1 (no bits when there is one)
    steps : see STEPS

    Attributes
    ----------
    answer : in the format y
    registers : between x and answer
    """

    def __init__(self, m: Module, name: str, table: Piecewise, x: Value, which: Value, steps: Sequence[int]) -> None:
        check_steps(steps, table.points)
        self._m, self._name, self._table, self._steps = m, name, table, steps
        piece, below, which, x, cycles = self._search(x, which)
        slope, offset = read_only(m, f"{name}_piece", table.pieces(), Cat(piece, below, which))
        total, more = self._multiply_add(x, slope, offset)
        self.answer = self._saturated(total)
        self.registers = cycles + 1 + more + 1

    @staticmethod
    def registers_of(table: Piecewise, steps: Sequence[int]) -> int:
        """`registers` of a lookup before it is built: two a step, one to read the piece, two to multiply, sums, one."""
        x, slope = shape_for(table.low, table.high), shape_for(int(table.slope.min()), int(table.slope.max()))
        shifts = [a + b for a, _ in _cuts(x) for b, _ in _cuts(slope)]
        terms = 1 + sum(shift < shape_for(*table.total).width for shift in shifts)
        return 2 * len(steps) + 1 + 2 + (terms - 1).bit_length() + 1

    def _hold(self, value: Value, cycles: int, name: str) -> Value:
        return delayed(self._m, value, cycles, f"{self._name}_{name}")

    def _search(self, x: Value, which: Value) -> tuple[Value, Value, Value, Value, int]:
        """Number of the piece, whether it is below the first break, table; x a cycle after these; and their cycle."""
        piece, below, which, x = self._first_step(x, which)
        for step in range(1, len(self._steps)):
            pivots = self._pivots(step, piece, which)
            passed = self._hold(Cat(x >= p for p in pivots), 1, f"passed_{step}")
            before, below, which = (
                self._hold(v, 2, f"{n}_{step}") for v, n in ((piece, "piece"), (below, "below"), (which, "which"))
            )
            piece = Cat(_count(passed, self._steps[step]), before)
            x = self._hold(x, 2, f"x_{step}")
        return piece, below, which, x, 2 * len(self._steps)

    def _first_step(self, x: Value, which: Value) -> tuple[Value, Value, Value, Value]:
        """The first comparisons take x as it comes; it is held between the ends only behind them, a cycle later."""
        table = self._table
        pivots = self._pivots(0, Const(0, 0), which)
        (edge,) = read_only(self._m, f"{self._name}_first", [[int(b)] for b in table.breaks[:, 0]], which)
        x = self._hold(x, 1, "x")
        found = [Cat(x >= p for p in pivots), x < edge, x < table.low, x > table.high]
        names = ("passed_0", "below", "under", "over")
        passed, below, under, over = (self._hold(f, 1, n) for f, n in zip(found, names, strict=True))
        x = self._within(self._hold(x, 1, "x_passed"), under, over)
        return _count(passed, self._steps[0]), below, self._hold(which, 2, "which"), x

    def _pivots(self, step: int, piece: Value, which: Value) -> list[Value]:
        rows = self._table.pivots(step, self._steps)
        return read_only(self._m, f"{self._name}_pivots_{step}", rows, Cat(piece, which))

    def _within(self, x: Value, under: Value, over: Value) -> Value:
        """The input held between the ends, as narrow as they allow, one cycle later."""
        low, high = self._table.low, self._table.high
        held = Signal(shape_for(low, high), name=f"{self._name}_x_within", reset_less=True)
        self._m.d.sync += held.eq(Mux(under, low, Mux(over, high, x)))
        return held

    def _multiply_add(self, x: Value, slope: Value, offset: Value) -> tuple[Value, int]:
        """Sum of x * slope and offset modulo 2**width of the total, and how many cycles later."""
        shape = shape_for(*self._table.total)
        x, slope = self._hold(x, 1, "x_factor"), self._hold(slope, 1, "slope_factor")
        terms = []
        for i, (a, at_a) in enumerate(limbs(x)):
            for j, (b, at_b) in enumerate(limbs(slope)):
                if at_a + at_b < shape.width:
                    terms.append(self._hold(a * b, 1, f"product_{i}_{j}") << (at_a + at_b))
        terms.append(self._hold(offset, 2, "offset"))
        cycles = 2
        while len(terms) > 1:
            pairs = [terms[k : k + 2] for k in range(0, len(terms), 2)]
            terms = [self._sum(pair, shape.width, f"sum_{cycles}_{k}") for k, pair in enumerate(pairs)]
            cycles += 1
        return (terms[0].as_signed() if shape.signed else terms[0]), cycles

    def _sum(self, pair: Sequence[Value], width: int, name: str) -> Value:
        out = Signal(width, name=f"{self._name}_{name}", reset_less=True)
        self._m.d.sync += out.eq(sum(pair[1:], pair[0]))
        return out

    def _saturated(self, total: Value) -> Value:
        table = self._table
        y = total >> table.frac
        out = Signal(shape_of(table.y), name=f"{self._name}_answer", reset_less=True)
        low, high = (t >> table.frac for t in table.total)
        held = Mux(y > table.y.high, table.y.high, y) if high > table.y.high else y
        self._m.d.sync += out.eq(Mux(y < table.floor, table.floor, held) if low < table.floor else held)
        return out


def limbs(value: Value) -> list[tuple[Value, int]]:
    """Parts of a factor that one multiplier block takes each, and the bit where each begins; the last has the sign."""
    signed = value.shape().signed
    parts = [(value[start:stop], start) for start, stop in _cuts(value.shape())]
    last, start = parts.pop()
    return [*parts, (last.as_signed() if signed else last, start)]


def _cuts(shape: Shape) -> list[tuple[int, int]]:
    """(first bit, bit behind the last) of the parts of a factor."""
    room = MULTIPLIER_WIDTH if shape.signed else MULTIPLIER_WIDTH - 1
    cuts, at = [], 0
    while shape.width - at > room:
        cuts.append((at, at + MULTIPLIER_WIDTH - 1))
        at += MULTIPLIER_WIDTH - 1
    return [*cuts, (at, shape.width)]


def _count(passed: Value, bits: int) -> Value:
    """How many of 2**bits - 1 ascending comparisons hold, from the comparisons at multiples of each power of two."""
    out: list[Value] = []
    for k in range(bits):
        # bit k is set where the last multiple of 2**k passed is an odd one
        marks = [passed[c - 1] for c in range(1 << k, 1 << bits, 1 << k)]
        odd: Value = Const(0, 1)
        for n in range(0, len(marks), 2):
            above = marks[n + 1] if n + 1 < len(marks) else Const(0, 1)
            odd = odd | (marks[n] & ~above)
        out.append(odd)
    return Cat(*out)
