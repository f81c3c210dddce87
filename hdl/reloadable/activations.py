"""Codes of hidden layers in look-up table memory, and the way of a step's operands from there to the lanes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.reloadable.fanout import copies
from hdl.reloadable.plan import SETS
from hdl.reloadable.stages import COLUMNS, REGIONS, ROWS
from hdl.shapes import shape_of
from microrisk.spec.formats import CODE
from microrisk.spec.records import N_FEATURES

GROUPS = ROWS // COLUMNS
"""Parts of a vector, one of which is the operands of a step."""
PIECES = 4
"""Parts of the memory that have address registers of their own."""
_PIECE = ROWS // PIECES


class Activations(wiring.Component):
    """Vectors of codes by weight set and chain; reading takes two cycles, a written vector can be read in the next one.

    Parameters
    ----------
    chains : buffers a set
    ecp5 : copies of registers are cells of the target

    Members
    -------
    next_from_codes, next_slot : of the step issued in the next cycle: it reads `codes` under `mask`, or the memory
    codes, mask : of the cycle in which the step is issued
    next_group, next_split : of the step issued in the last cycle: which columns, and whether the upper regions take
        the columns after them
    operands : of the step issued two cycles ago
    next_write, next_written_slot : `written` of the next cycle is to be kept
    """

    def __init__(self, chains: int, *, ecp5: bool = False) -> None:
        self._ecp5, self._slots = ecp5, len(SETS) * chains
        slot, vector = range(self._slots), data.ArrayLayout(shape_of(CODE), ROWS)
        super().__init__(
            {
                "next_from_codes": In(1), "next_slot": In(slot),
                "codes": In(data.ArrayLayout(shape_of(CODE), N_FEATURES)), "mask": In(N_FEATURES),
                "next_group": In(range(GROUPS)), "next_split": In(1),
                "operands": Out(data.ArrayLayout(data.ArrayLayout(shape_of(CODE), COLUMNS), REGIONS)),
                "next_write": In(1), "next_written_slot": In(slot), "written": In(vector),
            }
        )  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        """Memory, input vector, columns."""
        m = Module()
        vector = Signal(ROWS * CODE.width, reset_less=True)
        for piece in range(PIECES):
            part = slice(piece * _PIECE * CODE.width, (piece + 1) * _PIECE * CODE.width)
            m.d.sync += vector[part].eq(self._piece(m, piece, part))
        low = copies(m, "low_group", self.next_group, REGIONS // 2, ecp5=self._ecp5)
        upper = self.next_group | self.next_split
        high = copies(m, "high_group", upper, REGIONS // 2, ecp5=self._ecp5)
        groups = [vector.word_select(g, COLUMNS * CODE.width) for g in range(GROUPS)]
        for region, group in enumerate([*low, *high]):
            (taken,) = copies(m, f"operands_{region}", _chosen(groups, group), 1, ecp5=self._ecp5)
            m.d.comb += self.operands[region].as_value().eq(taken)
        return m

    def _piece(self, m: Module, piece: int, part: slice) -> Any:
        """What a part of the vector is to be: read from its memory, or the codes of the event."""
        name, width = f"memory_{piece}", part.stop - part.start
        memory = Memory(shape=unsigned(width), depth=max(self._slots, 2), init=[])
        m.submodules[name] = memory
        write, read = memory.write_port(), memory.read_port(domain="comb")
        for port, wanted in ((write.addr, self.next_written_slot), (read.addr, self.next_slot)):
            (address,) = copies(m, f"{name}_{'write' if port is write.addr else 'read'}", wanted, 1, ecp5=self._ecp5)
            m.d.comb += port.eq(address)
        # a write that was meant before a reset must not happen after it
        enable = Signal(name=f"{name}_enable")
        m.d.sync += enable.eq(self.next_write)
        m.d.comb += [write.en.eq(enable), write.data.eq(self.written.as_value()[part])]
        (fresh,) = copies(m, f"{name}_fresh", self.next_from_codes, 1, ecp5=self._ecp5)
        masked = [Mux(self.mask[k] & fresh, self.codes[k], 0) for k in self._features(piece)]
        first = Signal(width, name=f"first_{piece}")
        at = 0
        for code in masked:
            m.d.comb += first[at : at + CODE.width].eq(code)
            at += CODE.width
        return Mux(fresh, first, read.data)

    @staticmethod
    def _features(piece: int) -> range:
        return range(piece * _PIECE, min((piece + 1) * _PIECE, N_FEATURES))


def _chosen(values: Sequence[Any], which: Any) -> Any:
    """One of a power of two values, by halving: a line for each value, as Array makes them, would crowd this place."""
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    low, high = (_chosen(part, which[:-1]) for part in (values[:half], values[half:]))
    return Mux(which[-1], high, low)
