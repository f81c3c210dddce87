"""Features to codes in one clock cycle: the normaliser of a model, written out in block RAM.

`fixed.normalise` has two forms in gates. Searching 64 breakpoints and multiplying takes nine registers in a row and, a
feature, about 290 logic cells, a multiplier and a block RAM. But a feature has only 2**12 values, so its whole answer
is 4,096 codes: two block RAMs a feature, 64 of the 208 of an LFE5UM5G-85F for 32 features, hardly any logic, and one
register, which is the block RAM's own. The second form is the one built here; `hdl.alert_table` has the first, for
heads, whose 2**32 values no memory holds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from amaranth.hdl import Cat, Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hdl.shapes import codes, shape_of
from microrisk import fixed
from microrisk.errors import UsageError
from microrisk.spec.features import ALL_MASK
from microrisk.spec.formats import CODE, FEATURE
from microrisk.weights import InstrumentTable

LANES = 2
"""Memories that share the bits of a code: half a code times 4,096 fills a block RAM, with no multiplexer behind it."""


def features(n_features: int) -> data.ArrayLayout:
    """A vector of features before the normaliser, feature 0 in the lowest bits."""
    return data.ArrayLayout(shape_of(FEATURE), n_features)


def written_out(table: InstrumentTable, feature: int) -> np.ndarray:
    """Codes of all values of a feature: int64[2**FEATURE.width], at the value's bits read as an unsigned number."""
    bits = np.arange(1 << FEATURE.width)
    values = np.where(bits > FEATURE.high, bits - (1 << FEATURE.width), bits)
    return fixed.normalise(values, table.breaks[feature], table.value[feature], table.slope[feature])


class Normaliser(wiring.Component):
    """Codes of a feature vector, a new vector in every cycle; equal to fixed.normalise to the bit.

    Parameters
    ----------
    table : what `Weights.table_for()` returns, or its first rows
    mask : bit i = feature i is in use; a feature outside has code 0 and takes no memory

    Attributes
    ----------
    i : features(n), n the rows of the table
    o : codes(n)
    latency : 0, the only register is that of the block RAM

    Raises
    ------
    UsageError : the mask names features that the table does not have
    """

    latency = 0

    def __init__(self, table: InstrumentTable, mask: int = ALL_MASK) -> None:
        n = len(table.breaks)
        if not 0 <= mask <= ALL_MASK:
            raise UsageError(f"feature mask {mask:#x} is outside 0..{ALL_MASK:#x}")
        self._table, self._used = table, [k for k in range(n) if (mask >> k) & 1]
        super().__init__(
            {
                "i": In(stream.Signature(features(n), always_ready=True)),
                "o": Out(stream.Signature(codes(n), always_ready=True)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Memories side by side; each reads when the stream is clocked."""
        m = Module()
        valid = Signal()
        m.d.sync += valid.eq(self.i.valid)
        m.d.comb += self.o.valid.eq(valid)
        for k in self._used:
            lanes = [self._lane(m, k, lane) for lane in range(LANES)]
            m.d.comb += self.o.payload[k].eq(Cat(*lanes).as_signed())
        return m

    def _lane(self, m: Module, feature: int, lane: int) -> Signal:
        """Data of the memory that holds lane `lane` of a feature's codes."""
        width = CODE.width // LANES
        parts = (written_out(self._table, feature) >> (lane * width)) & ((1 << width) - 1)
        memory = Memory(shape=unsigned(width), depth=len(parts), init=parts.tolist())
        m.submodules[f"codes_{feature}_{lane}"] = memory
        port = memory.read_port()
        m.d.comb += port.addr.eq(self.i.payload[feature].as_unsigned())
        return port.data
