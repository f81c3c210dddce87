"""Every best-price row of every name, ours against itch-book's: python -m benchmarks.bbo_path --messages 4000000.

Both engines get the same blocks of whole messages, and after each block the rows must be the same ones in the same
order: message number, name, bid price and size, ask price and size. So the paths are equal for every name, and the
interleaving of names is too. Where the two engines' rules meet and where they part:

1. Both write at most one row a message, and only when price or size of a best differs from the name's last row: a
   replace is one step (no row between its removal and its add), a replace of the best by the same price and size writes
   none although the queue behind it moved up, and a message that changes nothing at the best writes none.
2. An empty side is NULL_PX with 0 here and 0 with 0 there; a name's first row has its first order, not an empty book.
3. Message numbers agree as long as all types are known: ours counts every framed message from 1, theirs the decoded.
4. They part on broken feeds, so the streams have none (tests/benchmarks/test_bbo_path.py shows each): an add of a live
   reference is refused and counted here and evicts the old order there; an order at price zero is kept and counted here
   and rejected there. An execution above the order's size empties it in both, counted here as over_execute, there as
   clamped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import itch_book
import numpy as np
from numpy.typing import NDArray

from benchmarks.daystream import LIVES, REFS, cached_day
from benchmarks.measure import machine, save, say
from microrisk.core import Engine, ItchDecoder
from microrisk.spec.units import NULL_PX

BLOCK = 1 << 18
"""Messages between two comparisons."""
ROW = np.dtype(
    [("seq", "i8"), ("name", "i8"), ("bid_px", "i8"), ("bid_qty", "i8"), ("ask_px", "i8"), ("ask_qty", "i8")]
)


def ours(taken: NDArray[np.void]) -> NDArray[np.void]:
    """Our BBO records as ROW, price 0 for an empty side."""
    out = np.zeros(len(taken), ROW)
    out["seq"], out["name"] = taken["seq"], taken["instrument"]
    for side in ("bid", "ask"):
        px = taken[f"{side}_px"]
        out[f"{side}_px"] = np.where(px == NULL_PX, 0, px)
        out[f"{side}_qty"] = taken[f"{side}_qty"]
    return out


def theirs(taken: dict[str, NDArray[Any]]) -> NDArray[np.void]:
    """itch-book's bbo table as ROW; their ask sizes and prices are 0 for an empty side already."""
    out = np.zeros(len(taken["seq"]), ROW)
    for name, column in zip(ROW.names or (), ("seq", "locate", "bid_px", "bid_sz", "ask_px", "ask_sz"), strict=True):
        out[name] = taken[column]
    return out


def blocks(data: Any, block: int) -> Iterator[tuple[NDArray[np.void], NDArray[np.void]]]:
    """Rows of both engines for each `block` messages of `data`.

    Raises AssertionError when either engine's checks found anything, or bytes were left.
    """
    engine, decoder = Engine(), ItchDecoder()
    engine.record_bbo()
    rival = itch_book.Session(tables=["bbo"], depth=0, symbols=[])
    view, offset = np.frombuffer(data, np.uint8), 0
    while (after := engine.run_itch(decoder, data, offset, block)) != offset:
        rival.feed(view[offset:after])
        offset = after
        yield ours(engine.take_bbo()), theirs(rival.take_bbo())
    engine.finish()
    assert not len(engine.take_bbo())
    assert offset == len(view)
    _no_findings(engine, rival.stats())


def _no_findings(engine: Engine, stats: dict[str, Any]) -> None:
    found = {k: v for k, v in engine.integrity().items() if v}
    found |= {
        k: stats[k] for k in ("unknown", "malformed", "missing_ref", "dup_ref", "rejected", "clamped") if stats[k]
    }
    assert not found, found
    assert stats["pending_bytes"] == 0


def compare_bbo(data: Any, block: int = BLOCK) -> dict[str, Any]:
    """Compare both paths over length-prefixed ITCH bytes (bytes, mmap).

    Returns
    -------
    rows, names, messages (the last row's number), sha256 over all rows.

    Raises AssertionError with the first differing pair of rows.
    """
    rows, names, last, digest = 0, set[int](), 0, hashlib.sha256()
    for a, b in blocks(data, block):
        same = len(a) == len(b) and bool((a == b).all())
        if not same:
            n = min(len(a), len(b))
            at = int(np.argmax(a[:n] != b[:n])) if n and (a[:n] != b[:n]).any() else n
            raise AssertionError(f"row {rows + at}: ours {a[at : at + 1]}, theirs {b[at : at + 1]}")
        rows += len(a)
        names.update(np.unique(a["name"]).tolist())
        last = int(a["seq"][-1]) if len(a) else last
        digest.update(np.ascontiguousarray(a).tobytes())
    return {"rows": rows, "names": len(names), "last_row": last, "sha256": digest.hexdigest()}


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """The file's bytes without reading them into memory. Arrays over them must be gone at the end."""
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def record(messages: int) -> dict[str, Any]:
    """All lifetimes and references; also the generator's own count of changes."""
    facts, streams = machine(), []
    for lifetime in LIVES:
        for refs in REFS:
            path, truth = cached_day(messages=messages, lifetime=lifetime, refs=refs)
            with mapped(path) as data:
                found = compare_bbo(data)
            assert found["rows"] == truth["bbo_changes"], (found, truth["bbo_changes"])
            streams.append({"stream": f"{lifetime}, {refs}", "messages": truth["messages"], **found})
            say(f"{streams[-1]['stream']}: {found['rows']:,} rows of {found['names']:,} names equal")
    return {"machine": facts, "rivals": {"itch-book": version("itch-book")}, "streams": streams}


def main() -> None:
    """Parse the command line and write benchmarks/recorded/bbo_path.json, or compare one file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bbo_path", description=main.__doc__)
    parser.add_argument("--messages", type=lambda text: int(float(text)), default=4_000_000)
    parser.add_argument("--input", type=Path, help="an uncompressed, length-prefixed ITCH 5.0 file")
    asked = parser.parse_args()
    if asked.input:
        with mapped(asked.input) as data:
            sys.stdout.write(json.dumps(compare_bbo(data)) + "\n")
        return
    command = " ".join(["python -m benchmarks.bbo_path", *sys.argv[1:]])
    say(str(save("bbo_path", command, record(asked.messages))))


if __name__ == "__main__":
    main()
