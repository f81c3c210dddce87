"""MoldUDP64 under faults: a million messages a row through real sockets, the books compared with a loss-free replay.

    python -m benchmarks.faults --messages 1000000 --save

Lines, re-request server and snapshot server are this project's counterparts; the monitor runs in this process. Recovery
is from the sight of a hole to its closing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.daystream import cached_day
from benchmarks.measure import machine
from microrisk.feed.encode import unframe
from microrisk.monitor.address import parse
from microrisk.monitor.publish import (
    DatagramPlan,
    GlimpseServer,
    Host,
    LineFaults,
    MoldUdpPublisher,
    Pace,
    RequestFaults,
    RerequestServer,
    Tape,
)
from microrisk.monitor.publish.messages import timed
from microrisk.monitor.service import Service, Settings
from microrisk.pipeline import replay

RECORDED = Path(__file__).parent / "recorded" / "faults.json"
RATE = 60_000.0
SEED = 5
DEADLINE_S = 120.0
HOST = ("127.0.0.1", 0)


@dataclass(frozen=True)
class Row:
    """One kind of trouble."""

    a: LineFaults = field(default_factory=LineFaults)
    b: LineFaults = field(default_factory=LineFaults)
    both: float = 0.0
    request: RequestFaults | None = field(default_factory=RequestFaults)
    glimpse: bool = True
    session_at: int = 0
    whole: bool = True
    """The books must be those of the loss-free replay."""


ROWS: dict[str, Row] = {
    "loss 0.1 % on A": Row(a=LineFaults(loss=0.001), request=None, glimpse=False),
    "loss 1 % on A": Row(a=LineFaults(loss=0.01), request=None, glimpse=False),
    "loss 5 % on A": Row(a=LineFaults(loss=0.05), request=None, glimpse=False),
    "loss 20 % on A": Row(a=LineFaults(loss=0.2), request=None, glimpse=False),
    "loss on both, 1 %": Row(both=0.01),
    "loss on both, 1 %, server answers short": Row(both=0.01, request=RequestFaults(short=5)),
    "reordered within 8": Row(a=LineFaults(reorder=8), b=LineFaults(reorder=8)),
    "reordered within 64": Row(a=LineFaults(reorder=64), b=LineFaults(reorder=64)),
    "duplicates 5 %": Row(a=LineFaults(duplicate=0.05), b=LineFaults(duplicate=0.05)),
    "last packets of bursts lost": Row(a=LineFaults(last=1.0), b=LineFaults(last=1.0)),
    "server dead, image joined": Row(both=0.0005, request=RequestFaults(dead=True)),
    "server slow, 50 ms": Row(both=0.0005, request=RequestFaults(delay_s=0.05)),
    "server lies about the session": Row(both=0.0005, request=RequestFaults(lie="session")),
    "server lies about the numbers": Row(both=0.0005, request=RequestFaults(lie="numbers")),
    "no server": Row(both=0.0005, request=None, glimpse=False, whole=False),
}


def until(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + DEADLINE_S
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def run(name: str, row: Row, messages: list[bytes], expected: str) -> dict[str, Any]:
    """One row."""
    tape = Tape("S1")
    plan = DatagramPlan(SEED, {"A": row.a, "B": row.b}, both=row.both)
    publisher = MoldUdpPublisher(tape, HOST, HOST, plan=plan, heartbeat_s=0.2)
    server = RerequestServer(tape, HOST, faults=row.request or RequestFaults())
    (a, b), asked = (publisher.addresses["A"], publisher.addresses["B"]), server.address
    source = f"moldudp64://{a[0]}:{a[1]}?b={b[0]}:{b[1]}&date=2025-01-06&name=m&recover_ms=300"
    wrong = 0
    with tempfile.TemporaryDirectory() as folder, closing(publisher), closing(server), Host() as host:
        image = host.start(GlimpseServer(tape, "127.0.0.1", 0))
        source += f"&request={asked[0]}:{asked[1]}" if row.request else ""
        source += f"&glimpse={image.address[0]}:{image.address[1]}" if row.glimpse else ""
        service = Service([parse(source)], Settings(folder=Path(folder), checkpoint_s=1e6, scored=0))

        def look(now_ns: int) -> None:
            nonlocal wrong
            books = service.desk.books[0]
            wrong += service.ingest.feed_state(books, now_ns)[0] == "live" and bool(books.live.holes())

        service.ingest.every_turn.append(look)
        service.start()
        try:
            publisher.run(timed(messages), Pace(rate=RATE))
            publisher.start_heartbeats()
            done = until(
                lambda: (
                    service.desk.books[0].live.expected == len(messages) + 1
                    and service.hub.overview()["feeds"][0].state in ("live", "suspect")
                )
            )
        finally:
            service.stop(clean=False)
        books = service.desk.books[0]
        recovery = service.ingest.recoveries[0]
        times = np.array(recovery.recovered or [0]) / 1e6
        counters = books.live.counters()
        return {
            "row": name,
            "done": done,
            "hash_equal": service.desk.hashes()["m"] == expected,
            "as_expected": done and (service.desk.hashes()["m"] == expected) == row.whole and wrong == 0,
            "live_with_a_hole": wrong,
            "gaps": books.integrity()["gap"],
            "holes": len(recovery.recovered),
            "recovery_ms": {k: round(float(np.quantile(times, q)), 3) for k, q in (("p50", 0.5), ("p99", 0.99))},
            "recovery_max_ms": round(float(times.max()), 3),
            "images": recovery.joins,
            "given_up": recovery.given_up,
            "faults": dict(plan.log.counts),
            "counters": {k: counters[k] for k in ("messages", "duplicates", "recovered", "reordered", "held_max")},
            "kernel_drops": service.ingest.poller.counters()["kernel_drops"],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description="MoldUDP64 under faults.")
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--rows", default="", help="only rows whose name has this in it")
    parser.add_argument("--save", action="store_true")
    args = parser.parse_args()
    day, _ = cached_day(messages=args.messages, symbols=200, live_orders=20_000, seed=2)
    messages = unframe(day.read_bytes())
    expected = replay(str(day), date="2025-01-06").state_hash
    rows = []
    for name, row in ROWS.items():
        if args.rows in name:
            rows.append(run(name, row, messages, expected))
            print(json.dumps(rows[-1]), flush=True)
    out = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "seed": SEED,
        "messages": len(messages),
        "rows": rows,
    }
    if args.save:
        RECORDED.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
