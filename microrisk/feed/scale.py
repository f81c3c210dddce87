"""Prices and sizes of any feed as the unsigned 32-bit integers of ITCH, exactly or not at all.

ITCH price = (px - px_offset) * px_num / px_den, ITCH size = qty * qty_num / qty_den; both divisions must be exact.
A value that would have to be rounded or does not fit is UNFIT: nothing is rounded or clamped.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from microrisk.errors import EncodeError
from microrisk.spec.units import NULL_PX

MAX_U32 = 2**32 - 1
UNFIT = -1
"""Result of a value that ITCH cannot hold."""
ITCH_PX_EXP = 4
"""Decimals of an ITCH price."""
_BIG = 2**62

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Scale:
    """How one instrument's feed units become ITCH units; all members are integers, numerators and denominators > 0."""

    px_num: int = 1
    px_den: int = 1
    px_offset: int = 0
    qty_num: int = 1
    qty_den: int = 1

    def __post_init__(self) -> None:
        for name in ("px_num", "px_den", "qty_num", "qty_den"):
            if not 0 < getattr(self, name) < _BIG:
                raise EncodeError(name, getattr(self, name), "an integer from 1 below 2**62")
        if abs(self.px_offset) >= _BIG:
            raise EncodeError("px_offset", self.px_offset, "an integer of less than 63 bits")

    def price(self, px: int) -> int:
        """ITCH price of one feed price, or UNFIT."""
        scaled, rest = divmod((px - self.px_offset) * self.px_num, self.px_den)
        return scaled if rest == 0 and 0 <= scaled <= MAX_U32 else UNFIT

    def size(self, qty: int) -> int:
        """ITCH size of one feed quantity, or UNFIT."""
        scaled, rest = divmod(qty * self.qty_num, self.qty_den)
        return scaled if rest == 0 and 0 <= scaled <= MAX_U32 else UNFIT

    def feed_price(self, price: int) -> int:
        """Feed price of an ITCH price (inverse of price())."""
        return price * self.px_den // self.px_num + self.px_offset

    def feed_size(self, size: int) -> int:
        """Feed quantity of an ITCH size (inverse of size())."""
        return size * self.qty_den // self.qty_num

    def as_dict(self) -> dict[str, int]:
        """The five integers by name, for the sidecar."""
        return asdict(self)


IDENTITY = Scale()
"""For feeds that already count 1e-4 dollars and whole shares."""


def exact(values: Ints, num: Ints, den: Ints, offset: Ints, top: int = MAX_U32) -> Ints:
    """(values - offset) * num / den element by element; UNFIT where not exact, negative, above `top`, or NULL_PX."""
    small = (values != NULL_PX) & (np.abs(np.where(values == NULL_PX, 0, values)) < _BIG)
    diff = np.where(small, values, 0) - offset
    safe = small & (np.abs(diff) <= (2**63 - 1) // num)
    product = np.where(safe, diff, 0) * num
    scaled = product // den
    good = safe & (scaled * den == product) & (scaled >= 0) & (scaled <= top)
    return np.where(good, scaled, UNFIT)


def _power_of_ten(values: Ints) -> int:
    """Largest power of ten that divides every value; 1 when all are 0."""
    power, values = 1, values[values != 0]
    while values.size and power < 10**17 and not np.any(values % (power * 10)):
        power *= 10
    return power


def _gcd(values: Ints) -> int:
    """Greatest common divisor, at least 1."""
    return max(1, int(np.gcd.reduce(values))) if values.size else 1


def _natural(exponent: int) -> Scale:
    """True 1e-4 dollars for prices in 10**-exponent."""
    shift = ITCH_PX_EXP - exponent
    return Scale(px_num=10**shift) if shift >= 0 else Scale(px_den=10**-shift)


def _all_fit(scale: Scale, px: Ints) -> bool:
    """Whether every price becomes an ITCH price above 0."""
    ends = (int(px.min()), int(px.max()))
    return all(scale.price(p) > 0 for p in ends) and not np.any(px * scale.px_num % scale.px_den)


def _price_scale(px: Ints, exponent: int) -> tuple[int, int, int]:
    """(num, den, offset): true dollars if every price allows it, else ticks, from a base in the middle if need be."""
    natural = _natural(exponent)
    if not px.size or _all_fit(natural, px):
        return natural.px_num, natural.px_den, 0
    low, high = int(px.min()), int(px.max())
    den = _power_of_ten(px)
    if low > 0 and high // den <= MAX_U32:
        return 1, den, 0
    den = max(den, _gcd(px))
    room = MAX_U32 - (high - low) // den
    return 1, den, low - den * min(max(room // 2, 1), _BIG // 2 // den)


def _size_scale(qty: Ints, exponent: int) -> tuple[int, int]:
    """(num, den): whole units if every quantity allows it, else the largest unit that divides them all."""
    whole = 10 ** max(exponent, 0)
    if qty.size == 0 or (exponent >= 0 and not np.any(qty % whole)):
        return 1, whole
    power = _power_of_ten(qty)
    return 1, power if int(qty.max()) // power <= MAX_U32 else max(power, _gcd(qty))


def choose_scale(px: Ints, qty: Ints, *, px_exp: int, qty_exp: int) -> Scale:
    """Scale for one instrument whose orders have prices `px` (in 10**-px_exp) and sizes `qty` (in 10**-qty_exp).

    True dollars (1e-4) and whole units are kept where the values allow it. What still does not fit (a range wider
    than 32 bits, a price of 2**60 or more) is UNFIT later, so the caller may also pass a sample.
    """
    good = np.unique(px[(px != NULL_PX) & (np.abs(px) < _BIG // 4)]).astype(np.int64)
    sizes = np.unique(qty[(qty > 0) & (qty < _BIG)]).astype(np.int64)
    return Scale(*_price_scale(good, px_exp), *_size_scale(sizes, qty_exp))
