"""One deep book, for the cost of a change against depth: `levels` levels a side that hold one to four orders each.

A first part fills the book in random order; then adds and deletes alternate at random, a quarter of them making or
ending a level, so that depth stays. Where they fall is the question: `near` puts 90 % on the ten ticks next to the
touch and the rest anywhere behind them, `uniform` anywhere. Prices are neighbouring ticks; the bid side ends one tick
under the ask side.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from benchmarks.dayflow import draw, put, unit
from benchmarks.daystream import folder
from benchmarks.truth import beside, truth_of, write_truth
from microrisk.spec.messages import ITCH_BY_CODE

Where = Literal["near", "uniform"]
VERSION = 1
MOST = 4
"""Orders a level holds at most; 0 to 4 are visited as 1, 2, 2, 2, 1 of 8."""
HELD = 7 / 8
"""Share of the ticks that hold a level at any time."""
NEAR, NEAR_SHARE = 10, 0.9
TICK, START_NS = 100, 34_200 * 1_000_000_000
_A, _D = ITCH_BY_CODE["A"], ITCH_BY_CODE["D"]
_A_LENGTH, _D_LENGTH = _A.length, _D.length
_A_REF, _A_SIDE, _A_SHARES, _A_STOCK, _A_PRICE = (_A[n].offset for n in ("ref", "side", "shares", "stock", "price"))
_D_REF = _D["ref"].offset
_SYMBOL = int.from_bytes(b"S00001  ", "big")


@njit(cache=True)
def header(buf, at, length, code, time):
    put(buf, at, 2, length)
    buf[at + 2] = code
    put(buf, at + 3, 2, 1)
    put(buf, at + 5, 2, 0)
    put(buf, at + 7, 6, time)
    return at + 2


@njit(cache=True)
def post(buf, at, refs, sizes, held, cell, last, random, time):
    """Add one order of 100 to 900 shares; returns the end of the message."""
    ticks = refs.shape[0] // 2
    k = held[cell]
    refs[cell, k], sizes[cell, k] = last, 100 * (1 + draw(random) % 9)
    held[cell] += 1
    body = header(buf, at, _A_LENGTH, 65, time)
    put(buf, body + _A_REF, 8, last)
    buf[body + _A_SIDE] = 66 if cell < ticks else 83
    put(buf, body + _A_SHARES, 4, sizes[cell, k])
    put(buf, body + _A_STOCK, 8, _SYMBOL)
    put(buf, body + _A_PRICE, 4, price_of(cell, ticks))
    return body + _A_LENGTH


@njit(cache=True)
def price_of(cell, ticks):
    """Cell = distance from the touch, bids first."""
    middle = 2 * ticks + 1000
    return TICK * (middle - 1 - cell if cell < ticks else middle + cell - ticks)


@njit(cache=True)
def remove(buf, at, refs, sizes, held, cell, random, time):
    """Delete one of a level's orders; returns the end of the message."""
    k = draw(random) % held[cell]
    body = header(buf, at, _D_LENGTH, 68, time)
    put(buf, body + _D_REF, 8, refs[cell, k])
    held[cell] -= 1
    for j in range(k, held[cell]):
        refs[cell, j], sizes[cell, j] = refs[cell, j + 1], sizes[cell, j + 1]
    return body + _D_LENGTH


@njit(cache=True)
def write_fill(buf, refs, sizes, held, cells, random):
    """The first orders, in the order of `cells`; returns the bytes written."""
    at = 0
    for i in range(len(cells)):
        at = post(buf, at, refs, sizes, held, cells[i], 2 * i + 1, random, START_NS + i)
    return at


@njit(cache=True)
def write_churn(buf, refs, sizes, held, messages, near, random, last, time):
    """Adds and deletes; returns the bytes written, adds among them, and how many fell within ten ticks."""
    at, adds, close, ticks = 0, 0, 0, refs.shape[0] // 2
    for i in range(messages):
        rank = draw(random) % ticks
        if near and ticks > NEAR:
            rank = draw(random) % NEAR if unit(random) < NEAR_SHARE else NEAR + draw(random) % (ticks - NEAR)
        close += rank < NEAR
        cell = rank + ticks * (draw(random) & 1)
        if held[cell] == 0 or (held[cell] < MOST and draw(random) & 1):
            adds += 1
            at = post(buf, at, refs, sizes, held, cell, last + 2 * adds, random, time + i)
        else:
            at = remove(buf, at, refs, sizes, held, cell, random, time + i)
    return at, adds, close


def cached_depth(levels: int, where: Where, messages: int, seed: int = 7) -> tuple[Path, dict[str, Any]]:
    """The stream in the folder of `daystream.folder`, made if it is not there; path and truth as `day_stream`'s."""
    path = folder() / f"depth-{levels}-{where}-{messages}-{seed}-v{VERSION}.itch"
    if not beside(path, ".json").exists():
        data, truth, best = depth_stream(levels, where, messages, seed)
        path.write_bytes(data)
        write_truth(path, truth, best)
    return path, truth_of(path)


def depth_stream(
    levels: int, where: Where, messages: int, seed: int = 7
) -> tuple[bytes, dict[str, Any], NDArray[np.int64]]:
    """Bytes, truth and final best (1, 4) of one name whose sides hold `levels` levels on average."""
    rng = np.random.default_rng(seed)
    ticks = max(round(levels / HELD), 2)
    refs, sizes = np.zeros((2 * ticks, MOST), np.int64), np.zeros((2 * ticks, MOST), np.int64)
    held = np.zeros(2 * ticks, np.int64)
    cells = rng.permutation(
        np.repeat(np.arange(2 * ticks), rng.choice(MOST + 1, 2 * ticks, p=[1 / 8, 0.25, 0.25, 0.25, 1 / 8]))
    )
    buf = np.zeros((len(cells) + messages) * (2 + _A_LENGTH), np.uint8)
    random = np.array([seed], np.uint64)
    fill = write_fill(buf, refs, sizes, held, cells, random)
    last, time = 2 * len(cells) + 1, START_NS + len(cells)
    churn, adds, close = write_churn(buf[fill:], refs, sizes, held, messages, where == "near", random, last, time)
    data = buf[: fill + churn].tobytes()
    shares = np.where(np.arange(MOST) < held[:, None], sizes, 0).sum(1)
    truth = {
        "messages": len(cells) + messages,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "counts": {"A": len(cells) + int(adds), "D": messages - int(adds)},
        "live_orders": int(held.sum()),
        "shares": int(shares.sum()),
        "levels": int((held > 0).sum()),
        "near_share": round(close / messages, 4),
        "fill_messages": len(cells),
        "fill_bytes": fill,
    }
    return data, truth, _best(held, shares, ticks)


def _best(held: NDArray[np.int64], shares: NDArray[np.int64], ticks: int) -> NDArray[np.int64]:
    out = np.zeros((1, 4), np.int64)
    for side in range(2):
        cells = np.flatnonzero(held[side * ticks : (side + 1) * ticks]) + side * ticks
        if len(cells):
            out[0, 2 * side : 2 * side + 2] = price_of(int(cells[0]), ticks), shares[cells[0]]
    return out
