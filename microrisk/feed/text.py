"""Exact numbers out of text: decimal strings to integer units, ISO times to ns. No float on the way."""

from __future__ import annotations

from calendar import timegm
from functools import lru_cache

from microrisk.spec.units import NS_PER_S


def to_units(text: str, exp: int) -> int:
    """A decimal string in units of 10**-exp, exactly; "1.50", exp 8 -> 150_000_000.

    Raises
    ------
    ValueError : not a plain decimal number, or finer than the unit
    """
    whole, _, frac = text.partition(".")
    if len(frac) > exp:
        if frac[exp:].strip("0"):
            raise ValueError(f"{text!r} is finer than 1e-{exp}")
        frac = frac[:exp]
    digits = whole + frac
    if not digits.lstrip("-").isdecimal() or not digits.isascii():
        return _scientific(text, exp)
    return int(digits) * int(10 ** (exp - len(frac)))


def _scientific(text: str, exp: int) -> int:
    """Forms such as 1E-8 that some writers use for very small numbers."""
    mantissa, e, power = text.lower().partition("e")
    if not e or not mantissa.strip("-."):
        raise ValueError(f"{text!r} is not a decimal number")
    if len(power) > 4:  # a longer exponent would be an integer of thousands of digits and more
        raise ValueError(f"{text[:40]!r} is no price or size")
    shift = exp + int(power)
    if shift < 0:
        raise ValueError(f"{text!r} is finer than 1e-{exp}")
    return to_units(mantissa, shift)


def from_units(value: int, exp: int) -> str:
    """Units of 10**-exp as the shortest decimal string; the inverse of `to_units`."""
    if exp == 0:
        return str(value)
    sign, digits = ("-", str(-value)) if value < 0 else ("", str(value))
    digits = digits.rjust(exp + 1, "0")
    frac = digits[-exp:].rstrip("0")
    return sign + digits[:-exp] + ("." + frac if frac else "")


@lru_cache(maxsize=64)
def _day_s(day: str) -> int:
    """Seconds since the epoch of "YYYY-MM-DD", UTC."""
    if len(day) != 10 or day[4] != "-" or day[7] != "-":
        raise ValueError(f"{day!r} is not a date")
    year, month, mday = int(day[:4]), int(day[5:7]), int(day[8:])
    if not (1 <= month <= 12 and 1 <= mday <= 31):
        raise ValueError(f"{day!r} is not a date")
    return timegm((year, month, mday, 0, 0, 0))


def iso_ns(text: str) -> int:
    """A UTC time "YYYY-MM-DDTHH:MM:SS[.f]Z", up to nine decimals, as ns since the epoch, exactly.

    Raises
    ------
    ValueError : another form, or a zone other than UTC
    """
    if len(text) < 19 or text[10] not in "T " or text[13] != ":" or text[16] != ":":
        raise ValueError(f"{text!r} is not an ISO time")
    rest = text[19:].removesuffix("Z").removesuffix("+00:00")
    frac = rest[1:] if rest[:1] == "." else ""
    if (rest and rest[0] != ".") or len(frac) > 9 or (frac and not frac.isdecimal()):
        raise ValueError(f"{text!r} is not an ISO time in UTC")
    seconds = _day_s(text[:10]) + int(text[11:13]) * 3600 + int(text[14:16]) * 60 + int(text[17:19])
    ns = seconds * NS_PER_S + (int(frac.ljust(9, "0")) if frac else 0)
    if not -(1 << 63) < ns < 1 << 63:
        raise ValueError(f"{text!r} is beyond the times that 64 bits hold")
    return ns
