"""The few integer operations all features are made of: leading one, lg, decay, running mean, saturation.

Each is an ordinary Python function that Numba compiles; none uses a float, so the Python form and the compiled form
agree to the bit. `fixed.lg` is the same logarithm on arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

from llvmlite import ir
from numba import int64, njit, types, uint64
from numba.extending import intrinsic, overload

from microrisk.features.state import ACC_MAX, EWMA_FRAC, SIZE_MAX
from microrisk.spec.formats import DECAY_ROM_BITS, FEATURE, LG

DECAY_FRAC = 16
DECAY_ROM = tuple(round((1 << DECAY_FRAC) * 2.0 ** (-k / (1 << DECAY_ROM_BITS))) for k in range(1 << DECAY_ROM_BITS))
"""2^(-k/16) in Q0.16; entry 0 is exactly one."""
TANH_ROM = tuple(round(128 * math.tanh(math.log(2) * i / 32)) for i in range(128))
"""128 * (r-1)/(r+1) for r = 2^(i/16): the normalised size difference that belongs to an imbalance of i steps."""

LOW, HIGH = FEATURE.low, FEATURE.high
_LG_FRAC = LG.frac

_OPTIONS: dict[str, Any] = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile for callers that are compiled themselves; without wrappers for Python, which would double the time.

    Divisors are positive by contract and not tested.
    """
    return cast(Function, njit(**_OPTIONS)(function))


def _ctlz(typingctx: Any, x: Any) -> Any:
    """LLVM's count of leading zeros of a positive int64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), codegen


_leading_zeros: Any = intrinsic(_ctlz)


def top_bit(x: int) -> int:
    """Position of the leading one of x > 0."""
    return int(x).bit_length() - 1


@overload(top_bit)
def _top_bit(x: Any) -> Any:
    def position(x: Any) -> Any:  # Numba wants the annotations of both signatures alike
        return 63 - _leading_zeros(x)

    return position


@compiled
def lg(x: int) -> int:
    """log2(1+x) of 0 <= x < 2^63 - 1 in 1/16: place of the leading one of 1+x, then the 4 bits below it."""
    v = x + 1
    top = top_bit(v)
    return (top << _LG_FRAC) + (((v << (63 - top)) >> 59) & 15)


@compiled
def lg_frac(x: int, frac: int) -> int:
    """The same of a number with `frac` fraction bits, log2(1 + x/2^frac): lg(x + 2^frac - 1) - 16*frac; 0 for 0."""
    return lg(x + (1 << frac) - 1) - (frac << _LG_FRAC)


@compiled
def clip(x: int, low: int, high: int) -> int:
    """The nearest integer in low..high."""
    return min(max(x, low), high)


@compiled
def feature(x: int) -> int:
    """Saturated to FEATURE."""
    return min(max(x, LOW), HIGH)


@compiled
def size_units(qty: int, unit: int) -> int:
    """A size, or a sum of up to ten, in sixteenths of feature_lot: floor division; `qty` >= 0, `unit` >= 1."""
    parts: Any = int64(uint64(qty) // uint64(unit))
    return parts if parts < SIZE_MAX else SIZE_MAX


@compiled
def bump(counters: Any, place: int, amount: int) -> None:
    """Add to a counter, saturating at +-ACC_MAX."""
    counters[place] = min(max(counters[place] + amount, -ACC_MAX), ACC_MAX)


@compiled
def decay(counters: Any, steps: int) -> None:
    """Every counter times 2^(-steps/16): magnitude times the ROM entry of steps % 16, then a floor shift.

    The floor is of the magnitude, so both signs decay alike and everything reaches 0.
    """
    shift = DECAY_FRAC + min(steps >> DECAY_ROM_BITS, 63 - DECAY_FRAC)
    factor = DECAY_ROM[steps & 15]
    for i in range(len(counters)):
        value = counters[i]
        size = (abs(value) * factor) >> shift
        counters[i] = size if value >= 0 else -size


@compiled
def mean_step(mean: int, x: int, shift: int) -> int:
    """Running mean with EWMA_FRAC fraction bits: mean += (x - mean) / 2^shift, floor; x >= 0 is the first value."""
    scaled = x << EWMA_FRAC
    return scaled if mean < 0 else mean + ((scaled - mean) >> shift)


@compiled
def mean_value(mean: int) -> int:
    """The running mean, halves up; EWMA_NONE reads 0."""
    return (mean + (1 << (EWMA_FRAC - 1))) >> EWMA_FRAC
