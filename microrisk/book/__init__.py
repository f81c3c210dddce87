"""Order books: the state digest and small helpers that work on the C++ engine and on its naive twin alike."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from microrisk.spec.records import ORDER
from microrisk.spec.units import NULL_PX, Side

__all__ = ["Books", "best_levels", "same_books", "state_hash"]


class Books(Protocol):
    """The reading part of an engine."""

    def instruments(self) -> NDArray[np.uint32]:
        """Every instrument that had a book event."""

    def orders(self, instrument: int) -> NDArray[np.void]:
        """ORDER records, bids best first, then asks best first, queue order inside a level."""

    def levels(self, instrument: int, depth: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Bid and ask levels (n, 2): price and quantity, best first."""


_WORDS = [ORDER.fields[name][1] // 8 for name in ("px", "qty", "order_id")]  # type: ignore[index]


def _book_bytes(orders: NDArray[np.void]) -> bytes:
    """Letter B and the bids, letter A and the asks: the order they come in already."""
    words = np.ascontiguousarray(orders).view("<i8").reshape(len(orders), -1)
    packed = words[:, _WORDS].tobytes()
    bids = 24 * int(np.count_nonzero(orders["side"] == int(Side.BID)))
    return b"B" + packed[:bids] + b"A" + packed[bids:]


def state_hash(engine: Books, ids: Sequence[str]) -> str:
    """Digest of all books: 32 hexadecimal digits of BLAKE2b-128.

    Parameters
    ----------
    engine : its `instruments()` and `orders()` are read
    ids : id of each instrument (SYMBOL.VENUE), in the order of `engine.instruments()`

    Over instruments in order of their ids (as UTF-8 bytes): id, zero byte, then "B" and the bids, "A" and the asks,
    each order as <qqQ (px, qty, order id), best level first, queue order inside a level. A book without orders is
    skipped.
    """
    instruments = [int(i) for i in engine.instruments()]
    if len(ids) != len(instruments):
        raise ValueError(f"{len(ids)} ids for {len(instruments)} instruments")
    digest = hashlib.blake2b(digest_size=16)
    for name, index in sorted((i.encode(), n) for i, n in zip(ids, instruments, strict=True)):
        orders = engine.orders(index)
        if len(orders):
            digest.update(name + b"\0")
            digest.update(_book_bytes(orders))
    return digest.hexdigest()


def best_levels(engine: Books, instrument: int) -> dict[str, int]:
    """Best price and size of both sides under the names of BBO; NULL_PX and 0 for an empty side."""
    out = {"bid_px": NULL_PX, "bid_qty": 0, "ask_px": NULL_PX, "ask_qty": 0}
    for side, rows in zip(("bid", "ask"), engine.levels(instrument, 1), strict=True):
        if len(rows):
            out[side + "_px"], out[side + "_qty"] = int(rows[0, 0]), int(rows[0, 1])
    return out


def same_books(one: Books, other: Books) -> str | None:
    """None when both hold the same instruments and orders, else one sentence about the first difference."""
    a, b = ([int(i) for i in e.instruments()] for e in (one, other))
    if a != b:
        return f"instruments {a} and {b}"
    for index in a:
        left, right = one.orders(index), other.orders(index)
        if not np.array_equal(left, right):
            at = _first_difference(left, right)
            return f"instrument {index}, order {at}: {_show(left, at)} and {_show(right, at)}"
    return None


def _first_difference(left: NDArray[np.void], right: NDArray[np.void]) -> int:
    n = min(len(left), len(right))
    differ = np.flatnonzero(left[:n] != right[:n])
    return int(differ[0]) if len(differ) else n


def _show(orders: NDArray[np.void], at: int) -> Any:
    return orders[at] if at < len(orders) else "none"
