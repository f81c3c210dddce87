"""Websocket venues under faults: every venue at once in one monitor, fifty faults of a kind and more.

    python -m benchmarks.venues --save

Venues are this project's scripted servers, in this process; the checker of `venue_rig` compares every book that is
served as live with the market's own. Times are from the fault (the moment of the message that is dropped or damaged, of
the cut) to the first record behind which the book is live again. A loss that a channel without numbers cannot show
(Coinbase level2, Bitstamp) is measured apart: nothing in the stream tells of it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import machine
from benchmarks.venue_rig import VENUES, Feed, Rig, Trouble, doubts, running
from microrisk.monitor.desk import Desk
from microrisk.monitor.restart import restart
from microrisk.pipeline.watch import named

RECORDED = Path(__file__).parent / "recorded" / "venues.json"
FAULTS = {
    "damaged": 60,
    "dropped": 60,
    "disconnected": 50,
    "half open": 15,
    "429": 15,
    "slow REST": 15,
    "late REST": 15,
    "lost unseen": 10,
}
"""Of each kind, at each venue that has it."""
OVER_REST = ("429", "slow REST", "late REST")
RETRY_AFTER_S = 1
SLOW_S = 0.3
CALM_S = 5.2
"""A symbol is left alone for so long: one that is hurt again and again is asked for less and less often."""
SPACING_S = 1.05
"""Connections to one venue are a second apart by rule; two feeds of a venue take turns."""


class Exercise:
    """The faults of one feed, in its own thread.

    Parameters
    ----------
    turns : one lock a venue, for connections
    """

    def __init__(self, rig: Rig, feed: Feed, turns: dict[str, threading.Lock], calm_s: float = CALM_S) -> None:
        self.rig, self.feed = rig, feed
        self.troubles: dict[str, list[Trouble]] = defaultdict(list)
        self._turn = turns[feed.venue.scheme]
        self._calm_s, self._next, self.healed = calm_s, count(), 0
        self._last: dict[str, float] = {}

    def run(self, faults: dict[str, int]) -> None:
        """Each kind that the venue has, `faults[kind]` times."""
        venue = self.feed.venue
        seen = "drop" if venue.drop_seen else "corrupt"
        kinds = {
            "damaged": lambda: self._one("corrupt"),
            "dropped": lambda: self._one("drop"),
            "disconnected": lambda: self._connection("disconnect"),
            "half open": lambda: self._connection("half_open"),
            "429": lambda: self._refused(seen),
            "slow REST": lambda: self._slow("slow_rest_s", seen),
            "late REST": lambda: self._slow("late_rest_s", seen),
        }
        for kind, again in faults.items():
            absent = (kind == "dropped" and not venue.drop_seen) or (kind in OVER_REST and not venue.rest)
            if kind in kinds and not absent:
                self.troubles[kind] = [kinds[kind]() for _ in range(again)]

    def unseen(self, again: int) -> None:
        """Losses that the stream does not show; behind everything else."""
        for _ in range(0 if self.feed.venue.drop_seen else again):
            self.rig.lose_unseen(self.feed, self._calm_product())

    def _one(self, fault: str) -> Trouble:
        """One that showed; those that healed by themselves are counted apart."""
        while True:
            product = self._calm_product()
            hurt = self.rig.damage(self.feed, fault, product)
            self._last[product] = time.monotonic()
            if not hurt.healed:
                return hurt
            assert self.feed.venue.scheme == "kraken", f"{self.feed.name} has numbers, and {hurt} was not seen"
            self.healed += 1

    def _connection(self, fault: str) -> Trouble:
        time.sleep(max(0.0, max(self._last.values(), default=0.0) + self._calm_s - time.monotonic()))
        with self._turn:
            hurt = self.rig.cut(self.feed, fault)
            self._last = dict.fromkeys(self.feed.products, time.monotonic())
            time.sleep(SPACING_S)
        return hurt

    def _refused(self, fault: str) -> Trouble:
        self.feed.plan.refuse(1, retry_after_s=RETRY_AFTER_S)
        return self._one(fault)

    def _slow(self, how: str, fault: str) -> Trouble:
        setattr(self.feed.plan, how, SLOW_S)
        try:
            return self._one(fault)
        finally:
            setattr(self.feed.plan, how, 0.0)

    def _calm_product(self) -> str:
        """The next product in turn, when it has been left alone for long enough."""
        product = self.feed.products[next(self._next) % len(self.feed.products)]
        time.sleep(max(0.0, self._last.get(product, 0.0) + self._calm_s - time.monotonic()))
        return product


def exercise(rig: Rig, faults: dict[str, int], calm_s: float = CALM_S) -> dict[str, Any]:
    """Every feed at the same time; what came of each."""
    turns = {f.venue.scheme: threading.Lock() for f in rig.feeds.values()}
    each = [Exercise(rig, feed, turns, calm_s) for feed in rig.feeds.values()]
    with ThreadPoolExecutor(len(each)) as pool:
        for done in [pool.submit(e.run, faults) for e in each]:
            done.result()
        frames = {e.feed.name: rig.frames(e.feed) for e in each}
        for done in [pool.submit(e.unseen, faults.get("lost unseen", 0)) for e in each]:
            done.result()
    return {e.feed.name: _outcome(rig, e, frames[e.feed.name]) for e in each}


def _outcome(rig: Rig, done: Exercise, frames: tuple[int, int]) -> dict[str, Any]:
    feed = done.feed
    equal = rig.end_equal(feed)
    found = rig.asked(lambda: dict(rig.service.desk.books[feed.number].integrity()))
    kinds = ("gap", "checksum_mismatch", "malformed", "invalidated", "session_reset", "quote_mismatch")
    return {
        "rows": {kind: _row(troubles, kind) for kind, troubles in done.troubles.items()},
        "books": len(feed.products),
        "books_equal_at_the_end": equal,
        "compared_live": feed.counts["compared"],
        "wrong_served_live": feed.counts["wrong"],
        "others_not_live": feed.counts["strayed"],
        "others_applied_meanwhile": feed.counts["kept"],
        "frames_live": frames[0],
        "frames_wrong": frames[1],
        "unseen_losses_wrong_records": None if feed.venue.drop_seen else feed.counts["wrong_unseen"],
        "integrity": {k: found[k] for k in kinds if found.get(k)},
        "healed_unseen": done.healed,
        "connections": len(feed.opened_ns),
        "least_s_between_connections_to_the_venue": _spacing(rig, feed),
        "details": feed.details[:5],
    }


def _spacing(rig: Rig, feed: Feed) -> float:
    """Of all feeds of the same venue: the rule is one attempt a second."""
    every = sorted(t for f in rig.feeds.values() if f.venue.scheme == feed.venue.scheme for t in f.opened_ns)
    return round(min(np.diff(every), default=0) / 1e9, 3)


def _row(troubles: list[Trouble], kind: str) -> dict[str, Any]:
    seen, live = (np.array(column) for column in zip(*(t.ms() for t in troubles), strict=True))
    out = {
        "faults": len(troubles),
        "marked_in_the_data": sum(t.marked for t in troubles),
        "seen_ms": _quantiles(seen),
        "live_again_ms": _quantiles(live),
    }
    if kind == "half open":
        out["live_again_behind_seen_ms"] = _quantiles(live - seen)
    if kind == "429":
        out["live_again_behind_retry_after_ms"] = _quantiles(live - seen - 1000 * RETRY_AFTER_S)
    return out


def _quantiles(values: Any) -> dict[str, float]:
    at = {"p50": 0.5, "p95": 0.95, "max": 1.0}
    return {name: round(float(np.quantile(values, q)), 1) for name, q in at.items()}


def replayed(folder: Path) -> dict[str, str]:
    """Hashes of the books that the journal alone makes."""
    desk = Desk(named(None)[0])
    _, writer = restart(folder, desk, lambda *kept: None)
    writer.close()
    return desk.hashes()


def main() -> None:
    parser = argparse.ArgumentParser(description="Websocket venues under faults.")
    parser.add_argument("--venues", default="", help="only venues whose name has this in it")
    parser.add_argument("--rate", type=float, default=150.0, help="deeds a second at each venue")
    parser.add_argument("--products", type=int, default=12)
    parser.add_argument("--scored", type=int, default=40)
    parser.add_argument("--share", type=float, default=1.0, help="of the faults")
    parser.add_argument("--save", action="store_true")
    args = parser.parse_args()
    names = [name for name in VENUES if args.venues in name]
    faults = {kind: max(1, round(n * args.share)) for kind, n in FAULTS.items()}
    with tempfile.TemporaryDirectory() as folder:
        facts, begun, cpu = machine(), time.monotonic(), time.process_time()
        options = {"products": args.products, "rate": args.rate, "scored": args.scored}
        with running(names, Path(folder), follow=True, **options) as rig:
            venues = exercise(rig, faults)
            seconds, used = time.monotonic() - begun, time.process_time() - cpu
        hashes = rig.service.desk.hashes()
        told = doubts(Path(folder))
        again = replayed(Path(folder))
    for feed in rig.feeds.values():
        name = rig.service.desk.opened[feed.number].name
        venues[feed.name] |= {"doubt_records": told[feed.number], "journal_gives_the_same": again[name] == hashes[name]}
    out = {
        "date": time.strftime("%Y-%m-%d"), "machine": facts, **options, "seconds": round(seconds, 1),
        "cpu_s": round(used, 1), "retry_after_s": RETRY_AFTER_S, "slow_rest_s": SLOW_S, "silent_ms": 1000,
        "venues": venues,
    }  # fmt: skip
    print(json.dumps(out, indent=1))
    if args.save:
        RECORDED.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
