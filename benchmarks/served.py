"""What two clients of one scripted venue hand out after updates were lost: right books, wrong ones, old ones.

The venue and the market's history are those of `venue_rig`; the venue drops updates of seeded books, one every
`every_s` seconds, the same ones for each client. Each client leaves a trail, a row for every time it handed out a book:
when, the number (or time) that the stream had reached, a digest of the book, and whether it called it live (a client
that has no such word always does). Against the history that gives

wrong : books handed out as live that are not the market's book at that number, and for how long each was the newest
old : time that a book handed out as live stayed the newest although a message that showed the loss, or any later one
    that got through, had been sent over `SLACK_S` before
recovered : from a lost update to the next right book that is newer

Bitstamp's levels have neither numbers nor checksums: nothing in the stream shows a loss, to anybody (`BLIND`).
"""

from __future__ import annotations

import json
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

from benchmarks.kraken_one import KRAKEN_ONE
from benchmarks.measure import say
from benchmarks.venue_rig import VENUES, Feed, Ledger, Rig, digest, made_feed, running, until
from microrisk.monitor.journal import Record
from microrisk.monitor.publish import Host
from microrisk.spec.journal import Kind

BLIND = {"Bitstamp"}
SLACK_S = 0.05
"""A message may be so long on its way and in the client before a book counts as old."""
EVERY_S = 0.5
RATE = 300.0
PRODUCTS = 12
SETTLE_S = 8.0
"""cryptofeed's Bitstamp sleeps 5 s before it asks for images."""
ROW = struct.Struct("<qqQ")
CONFIGURATIONS: dict[str, dict[str, dict[str, Any]]] = {
    "Kraken": {"default": {}, "checks on": {"checksum_validation": True, "cross_check": True}},
}
"""Of the rival's feed; venues without an entry have their checks always on, or none."""


class Row(NamedTuple):
    """A book handed out (times in ns of the monotonic clock)."""

    t_ns: int
    number: int
    digest: int
    live: bool


class Lost(NamedTuple):
    """A dropped update."""

    t_ns: int
    product: str
    number: int


@dataclass
class Trail:
    """Everything one client handed out, by product, and what was lost meanwhile."""

    begin_ns: int
    end_ns: int = 0
    rows: dict[str, list[Row]] = field(default_factory=dict)
    lost: list[Lost] = field(default_factory=list)


def judged(trail: Trail, ledger: Ledger) -> dict[str, Any]:
    """See the module."""
    counts = {"handed_out": 0, "wrong": 0}
    wrong_ns = old_ns = longest_ns = 0
    for product, rows in trail.rows.items():
        gone = {x.number for x in trail.lost if x.product == product}
        stretch_ns = 0
        for row, until_ns in _spans(rows, trail):
            counts["handed_out"] += row.live and row.t_ns >= trail.begin_ns
            if not row.live or row.digest == ledger.at(product, row.number):
                stretch_ns = 0
                old_ns += _old_ns(row, until_ns, product, gone, ledger) if row.live else 0
                continue
            counts["wrong"] += row.t_ns >= trail.begin_ns
            wrong_ns += until_ns - max(row.t_ns, trail.begin_ns)
            stretch_ns += until_ns - max(row.t_ns, trail.begin_ns)
            longest_ns = max(longest_ns, stretch_ns)
    recovered = [r for x in trail.lost if (r := _recovered_ns(x, trail, ledger)) is not None]
    return {
        "lost": len(trail.lost),
        **counts,
        "wrong_book_seconds": round(wrong_ns / 1e9, 3),
        "longest_wrong_s": round(longest_ns / 1e9, 3),
        "old_book_seconds": round(old_ns / 1e9, 3),
        "watched_book_seconds": round(len(trail.rows) * (trail.end_ns - trail.begin_ns) / 1e9, 1),
        "not_recovered": len(trail.lost) - len(recovered),
        "recovered_ms": _quantiles(recovered),
    }


def _spans(rows: list[Row], trail: Trail) -> Iterator[tuple[Row, int]]:
    """Rows that were the newest at some time of the trail, and until when."""
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        until_ns = min(after.t_ns, trail.end_ns) if after else trail.end_ns
        if until_ns > trail.begin_ns and row.t_ns < trail.end_ns:
            yield row, until_ns


def _old_ns(row: Row, until_ns: int, product: str, gone: set[int], ledger: Ledger) -> int:
    for number, sent_ns in ledger.after(product, row.number, most=len(gone) + 1):
        if number not in gone:
            return max(0, until_ns - sent_ns - int(SLACK_S * 1e9))
    return 0


def _recovered_ns(lost: Lost, trail: Trail, ledger: Ledger) -> int | None:
    for row in trail.rows[lost.product]:
        newer = row.t_ns > lost.t_ns and row.live and row.number > lost.number
        if newer and row.digest == ledger.at(lost.product, row.number):
            return row.t_ns - lost.t_ns
    return None


def _quantiles(ns: list[int]) -> dict[str, float] | None:
    at = {"p50": 0.5, "p95": 0.95, "max": 1.0}
    return {k: round(float(np.quantile(ns, q)) / 1e6, 1) for k, q in at.items()} if ns else None


# -- losses ------------------------------------------------------------------------------------------------------------


def lose(feed: Feed, trail: Trail, drops: int, every_s: float, seed: int) -> None:
    """Updates of books drawn by the seed, one at a time; the trail's time runs from the first to a while behind."""
    draw = Random(f"served {seed}")
    ledger = feed.flow.ledger
    dropped = threading.Event()

    def ordered(product: str) -> None:
        trail.lost.append(Lost(time.monotonic_ns(), product, ledger.newest(product)))
        dropped.set()

    feed.flow.ordered = ordered
    trail.begin_ns = time.monotonic_ns()
    for _ in range(drops):
        dropped.clear()
        feed.flow.wanted[draw.choice(feed.products)] = "drop"
        until(dropped.is_set, "the loss")
        time.sleep(every_s)
    time.sleep(5 * every_s)
    trail.end_ns = time.monotonic_ns()


def ours(name: str, drops: int, *, every_s: float = EVERY_S, seed: int = 5) -> dict[str, Any]:
    """The monitor at one venue of VENUES."""
    with tempfile.TemporaryDirectory() as folder, running([name], Path(folder), products=PRODUCTS, rate=RATE) as rig:
        (feed,) = rig.feeds.values()
        trail = Trail(0)
        follow(rig, feed, trail)
        lose(feed, trail, drops, every_s, seed)
    # the monitor has stopped: the trail grows no more
    return judged(trail, feed.flow.ledger) | {"connections": feed.server.counts["connections"]}


def follow(rig: Rig, feed: Feed, trail: Trail) -> None:
    """Rows behind each record of a book's message, and of every book behind a doubt about the connection."""
    apply, trail.rows = rig.service.desk.apply, {p: [] for p in feed.products}

    def look(product: str) -> None:
        if product in feed.index and product in feed.newest:
            levels = rig.service.desk.books[feed.number].engine.levels(feed.index[product], feed.venue.depth)
            row = Row(time.monotonic_ns(), feed.newest[product], digest(levels), rig.live(feed, product))
            trail.rows[product].append(row)

    def applied(record: Record) -> None:
        apply(record)
        if record.feed != feed.number:
            return
        if record.kind == Kind.DOUBT:
            for product in feed.products:
                look(product)
        elif record.kind == Kind.TEXT and (product := rig.product_of(feed, record)):
            look(product)

    rig.service.desk.apply = applied  # type: ignore[method-assign]


def theirs(name: str, drops: int, options: dict[str, Any], *, every_s: float = EVERY_S, seed: int = 5) -> Any:
    """cryptofeed at one venue."""
    from benchmarks.bench_cryptofeed import rival, talk

    venue = KRAKEN_ONE if name == "Kraken v1" else VENUES[name]
    with tempfile.TemporaryDirectory() as folder, Host() as host:
        path = Path(folder) / "trail"
        feed = made_feed(host, name, venue, PRODUCTS, RATE, seed)
        command = rival(name, feed.server.url, feed.server.rest_url, feed.products, trail=str(path), options=options)
        with talk(command) as client:
            until(lambda: client.ask("count")["n"] > 4 * PRODUCTS, "books")
            time.sleep(SETTLE_S if name in BLIND else 2.0)
            trail = Trail(0)
            lose(feed, trail, drops, every_s, seed)
            said = client.ask("end")["said"]
        trail.rows = read(path)
        out = judged(trail, feed.flow.ledger)
        out |= {"connections": feed.server.counts["connections"], "said": said, "options": options}
    return out


def read(path: Path) -> dict[str, list[Row]]:
    """A trail as the rival's worker writes it."""
    out = {}
    with path.open("rb") as f:
        while line := f.readline():
            name, n = json.loads(line)
            out[name] = [Row(*ROW.unpack(f.read(ROW.size)), True) for _ in range(n)]
    return out


def faults(names: Sequence[str], drops: int, *, every_s: float = EVERY_S) -> dict[str, Any]:
    """Both clients at every venue, the rival in each of its configurations."""
    out: dict[str, Any] = {"rate": RATE, "books": PRODUCTS, "every_s": every_s, "slack_ms": SLACK_S * 1000}
    for name in names:
        mine, other = ("Kraken v2", "Kraken v1") if name == "Kraken" else (name, name)
        jobs: dict[str, Callable[[], Any]] = {"monitor": lambda m=mine: ours(m, drops, every_s=every_s)}  # type: ignore[misc]
        for kind, options in CONFIGURATIONS.get(name, {"default": {}}).items():
            jobs[f"cryptofeed, {kind}"] = lambda o=other, x=options: theirs(o, drops, x, every_s=every_s)  # type: ignore[misc]
        out[name] = {}
        for who, job in jobs.items():
            out[name][who] = job()
            say(f"{name}, {who}: {out[name][who]}")
    return out
