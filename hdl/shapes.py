"""Signal shapes of the number formats: widths come from spec.formats and appear nowhere else in hdl/."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Shape, signed, unsigned
from amaranth.lib import data

from microrisk.spec.formats import CODE, HEAD, Format


def shape_of(fmt: Format) -> Shape:
    """Amaranth shape of a fixed-point format: its integer, sign included."""
    return signed(fmt.width) if fmt.signed else unsigned(fmt.width)


def shape_for(low: int, high: int) -> Shape:
    """Narrowest shape that holds every integer of low..high."""
    if low >= 0:
        return unsigned(max(high.bit_length(), 1))
    return signed(max((-low - 1).bit_length(), high.bit_length()) + 1)


def codes(n_features: int) -> data.ArrayLayout:
    """A vector of codes, feature 0 in the lowest bits."""
    return data.ArrayLayout(shape_of(CODE), n_features)


def heads(names: Sequence[str]) -> data.StructLayout:
    """Results of the named heads, the first in the lowest bits."""
    return data.StructLayout({name: shape_of(HEAD) for name in names})
