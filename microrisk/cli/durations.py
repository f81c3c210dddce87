"""Times as people write them on a command line."""

from __future__ import annotations

import re
from decimal import Decimal

from microrisk.errors import UsageError

UNITS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "min": 60 * 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zµ]+)")


def to_ns(text: str) -> int:
    """`100ms`, `1s`, `250us`, `1.5min` to ns; UsageError for anything else and for parts of a ns."""
    found = _FORM.fullmatch(text.strip().lower())
    ns = Decimal(found[1]) * UNITS[found[2]] if found and found[2] in UNITS else Decimal(0)
    if ns <= 0 or ns != int(ns) or ns >= 2**63:
        raise UsageError(f"{text!r} is no time: a number and one of {', '.join(UNITS)}, such as 100ms")
    return int(ns)


def every(text: str) -> int | None:
    """What `--every` means: a time in ns, None for `change`."""
    return None if text == "change" else to_ns(text)
