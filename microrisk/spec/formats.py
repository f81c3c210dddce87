"""Number formats: one page that Python, Numba, C++ and the hardware import. Design, section 4.

Every quantity is a two's-complement integer with a fixed number of fraction bits.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """A fixed-point format: `width` bits in all (sign included when signed), `frac` of them fraction bits."""

    width: int
    frac: int
    signed: bool = True

    @property
    def low(self) -> int:
        """Smallest integer held."""
        return -(1 << (self.width - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """Largest integer held."""
        return (1 << (self.width - (1 if self.signed else 0))) - 1


LG = Format(10, 4, signed=False)
"""lg(x) = log2(1+x) of a non-negative 63-bit integer: leading one plus 4 mantissa bits, 0..1023 (Q6.4)."""
FEATURE = Format(12, 4)
"""A feature before the normaliser; differences of lg fit without loss, the rest saturates here by definition."""
CODE = Format(8, 4)
"""A normalised feature: Gaussian score in steps of 1/16, +-8."""
WEIGHT = Format(8, 0)
"""Integer part of a weight; its scale is the row's shift."""
SHIFT_MAX = 15
BIAS = Format(32, 0)
ACC = Format(24, 0)
"""Accumulator. A row is refused when 128*sum|w| + |bias| + 2**(shift-1) >= 2**23, so float32 products are exact."""
HEAD = Format(32, 0)
RESIDUAL_EXP_MAX = 9
"""Exponents of the vae residual weights, 0..9."""
LEVEL = Format(16, 8)
"""Level code: -log2(tail probability) in 1/256 bit."""
EWMA_SHIFT = 3
"""Smoothing of levels: s += (x*2^GUARD - s) >> 3, the same for every head and every baseline."""
EWMA_GUARD = 8
"""Guard bits of the smoothed state below LEVEL."""

TABLE_POINTS = 64
"""Breakpoints of a normaliser or level table."""
TABLE_FRAC = 8
"""Fraction bits of a normaliser table's values and slopes below CODE."""
LEVEL_TABLE_FRAC = 15
"""The same for level tables, below LEVEL: heads span 30 bits, so slopes are small numbers."""

DECAY_ROM_BITS = 4
DECAY_STEP_NS_SHIFT = 26
"""Decay happens on a grid of 2^26 ns = 67 ms: one sixteenth of the fast time constant."""
TAU_FAST_SHIFT = 30
"""F: 2^30 ns = 1.07 s."""
TAU_SLOW_SHIFT = 34
"""L: 2^34 ns = 17.2 s."""
COUNT_FRAC = 8
"""Fraction bits of decayed counters."""
FEATURE_LOT_PARTS = 16
"""Sizes enter the features in sixteenths of feature_lot."""
WARMUP_EVENTS = 1000
"""Events from which feature_tick and feature_lot are taken under a generic table."""
