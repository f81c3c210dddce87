"""Seeded workloads by name. A workload knows its own answer, so that a benchmark can assert what it measured.

`itch_stream` is small and in memory; `day_stream` is a file of any length (see daystream):
python -m benchmarks.workloads day --messages 4000000 --lifetime published --refs dense OUT
writes one and prints its truth.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.daystream import LIVES, REFS, cached_day, day_stream
from benchmarks.truth import best_of
from microrisk.spec.messages import ITCH_BY_CODE, Message

__all__ = ["Workload", "best_of", "cached_day", "day_stream", "itch_stream", "wire_dtype"]

START_NS = 34_200 * 1_000_000_000
SPAN_NS = 1_800 * 1_000_000_000


@dataclass(frozen=True)
class Workload:
    """Length-prefixed ITCH 5.0 bytes with the state they must end in.

    Attributes
    ----------
    data : the stream, directory first
    messages : framed messages in it
    live_orders : orders that rest at the end
    shares : their total size
    sha256 : first 16 digits over `data`
    """

    data: bytes
    messages: int
    live_orders: int
    shares: int
    symbols: int
    sha256: str


def wire_dtype(message: Message) -> np.dtype[np.void]:
    """Big-endian record of one message behind its 2-byte length. 6-byte times are two fields, high and low."""
    fields: list[tuple[str, str]] = [("length", ">u2")]
    for f in message.fields:
        if f.size == 6:
            fields += [(f"{f.name}_hi", ">u2"), (f"{f.name}_lo", ">u4")]
        else:
            fields.append((f.name, f"S{f.size}" if f.kind in "ac" else f">u{f.size}"))
    return np.dtype(fields)


def _rows(code: str, time_ns: NDArray[np.int64], locate: NDArray[np.int64]) -> NDArray[np.void]:
    message = ITCH_BY_CODE[code]
    rows = np.zeros(len(time_ns), wire_dtype(message))
    rows["length"], rows["type"], rows["locate"] = message.length, code.encode(), locate
    rows["timestamp_hi"], rows["timestamp_lo"] = time_ns >> 32, time_ns & 0xFFFFFFFF
    return rows


def _symbols(n: int) -> NDArray[np.bytes_]:
    return np.array([f"S{i:05d}".ljust(8).encode() for i in range(n)], "S8")


def _interleave(parts: list[tuple[NDArray[np.int64], NDArray[np.void]]]) -> bytes:
    """Bytes of all rows in the order of their keys; rows of different length, so by scatter."""
    keys = np.concatenate([k for k, _ in parts])
    sizes = np.concatenate([np.full(len(r), r.dtype.itemsize) for _, r in parts])
    order = np.argsort(keys, kind="stable")
    start = np.empty(len(keys), np.int64)
    start[order] = np.concatenate([[0], np.cumsum(sizes[order])[:-1]])
    out = np.zeros(int(sizes.sum()), np.uint8)
    done = 0
    for _, rows in parts:
        width = rows.dtype.itemsize
        at = start[done : done + len(rows), None] + np.arange(width)
        out[at.ravel()] = np.frombuffer(rows.tobytes(), np.uint8)
        done += len(rows)
    return out.tobytes()


def itch_stream(
    orders: int = 450_000,
    symbols: int = 1_000,
    lifetime_s: float = 30.0,
    sparse_refs: bool = False,
    seed: int = 20261122,
) -> Workload:
    """Order flow with the mix of a published Nasdaq day (adds 44 %, deletes 42 %, replaces 8 %, rest executions).

    Each order is added at a random time, may be partly executed or replaced once, and is deleted after an exponential
    lifetime unless the stream ends first. Prices stay on their side of a fixed middle: the book never crosses.
    """
    rng = np.random.default_rng(seed)
    weight = 1.0 / np.arange(1, symbols + 1) ** 0.8
    locate = rng.choice(symbols, orders, p=weight / weight.sum()) + 1
    born = np.sort(rng.integers(START_NS, START_NS + SPAN_NS, orders))
    dies = born + (rng.exponential(lifetime_s, orders) * 1e9).astype(np.int64) + 3
    ref = np.arange(1, orders + 1) * (rng.integers(3, 40) if sparse_refs else 2)
    bid = rng.random(orders) < 0.5
    away = 100 * np.minimum(rng.geometric(0.18, orders), 400)
    middle = 100 * (locate % 977 + 500)
    price = np.where(bid, middle - away, middle + away)
    shares = 100 * rng.integers(1, 9, orders)
    hit = rng.random(orders) < 0.11
    moved = ~hit & (rng.random(orders) < 0.19)
    middle_ns = born + (dies - born) // 2
    end = START_NS + SPAN_NS

    names = _symbols(symbols + 1)
    add = _rows("A", born, locate)
    add["ref"], add["side"], add["shares"], add["stock"], add["price"] = (
        ref,
        np.where(bid, b"B", b"S"),
        shares,
        names[locate],
        price,
    )
    when = hit & (middle_ns < end)
    exe = _rows("E", middle_ns[when], locate[when])
    exe["ref"], exe["shares"], exe["match"] = ref[when], 100, np.arange(when.sum())
    swap = moved & (middle_ns < end)
    rep = _rows("U", middle_ns[swap], locate[swap])
    rep["ref"], rep["new_ref"], rep["shares"], rep["price"] = (
        ref[swap],
        ref[swap] + 1,
        shares[swap],
        price[swap] + np.where(bid[swap], -100, 100),
    )
    gone = (dies < end) & ~(when & (shares == 100))
    dele = _rows("D", dies[gone], locate[gone])
    dele["ref"] = np.where(swap, ref + 1, ref)[gone]
    head = _rows("R", np.zeros(symbols, np.int64) + START_NS - 10, np.arange(1, symbols + 1))
    head["stock"], head["round_lot_size"] = names[1:], 100

    data = _interleave(
        [
            (head["timestamp_lo"].astype(np.int64) * 0, head),
            (born, add),
            (middle_ns[when], exe),
            (middle_ns[swap], rep),
            (dies[gone], dele),
        ]
    )
    alive = ~gone & ~(when & (shares == 100))
    left = int((shares - np.where(when, 100, 0))[alive].sum())
    n = symbols + orders + int(when.sum() + swap.sum() + gone.sum())
    return Workload(data, n, int(alive.sum()), left, symbols, hashlib.sha256(data).hexdigest()[:16])


def main(arguments: list[str] | None = None) -> None:
    """Write a day and print its truth."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workloads", description=main.__doc__)
    day = parser.add_subparsers(required=True).add_parser("day", help="a generated ITCH 5.0 day")
    day.add_argument("out", nargs="?", help="file to write; without it the cache folder keeps the stream")
    day.add_argument("--messages", type=lambda text: int(float(text)), default=4_000_000)
    day.add_argument("--symbols", type=int, default=8_000)
    day.add_argument("--lifetime", choices=sorted(LIVES), default="published")
    day.add_argument("--refs", choices=sorted(REFS), default="dense")
    day.add_argument("--live-orders", type=lambda text: int(float(text)), default=600_000)
    day.add_argument("--seed", type=int, default=20261122)
    day.add_argument("--steady", action="store_true", help="fill first, then keep the live orders to the end")
    asked = vars(parser.parse_args(arguments))
    out = asked.pop("out")
    path, truth = (out, day_stream(out, **asked)) if out else cached_day(**asked)
    sys.stdout.write(json.dumps({"path": str(path), **truth}, indent=1) + "\n")


if __name__ == "__main__":
    main()
