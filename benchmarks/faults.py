"""MoldUDP64 under faults: a million messages a row through real sockets, the books compared with a loss-free replay.

    python -m benchmarks.faults --messages 1000000 --save

Lines, re-request server and snapshot server are this project's counterparts; they and the monitor share this process.
`filled_ms` is from the receipt of the packet that reveals a hole to the coming of each missing piece (in the core),
`shown_stale_ms` until displays have the feed as not live, `live_again_ms` until it is live again (chains of holes, and
images).
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
from microrisk.feed.mold import mold_packet
from microrisk.monitor.address import parse
from microrisk.monitor.latency import stage_of
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
HEARTBEAT_S = 0.2
HOST = ("127.0.0.1", 0)


@dataclass(frozen=True)
class Row:
    """One kind of trouble.

    Attributes
    ----------
    both, late : packets lost on both lines; with `late` only among the last LATE messages
    session_at : share of the messages behind which the venue begins again, in another session, from number 1
    end : the venue ends the session, and a heartbeat with an absurd number comes before
    bursts : so many bursts of BURST messages at the end, with pauses in which a heartbeat falls
    full : the market has 10^4 orders in each of 100 books
    whole : the books must be those of the loss-free replay
    """

    a: LineFaults = field(default_factory=LineFaults)
    b: LineFaults = field(default_factory=LineFaults)
    both: float = 0.0
    late: bool = False
    request: RequestFaults | None = field(default_factory=RequestFaults)
    glimpse: bool = True
    session_at: float = 0.0
    end: bool = False
    bursts: int = 0
    full: bool = False
    whole: bool = True


def shuffled(depth: int) -> Row:
    """Both lines reorder within `depth` packets."""
    return Row(a=LineFaults(reorder=depth), b=LineFaults(reorder=depth))


ROWS: dict[str, Row] = {
    "loss 0.1 % on A": Row(a=LineFaults(loss=0.001), request=None, glimpse=False),
    "loss 1 % on A": Row(a=LineFaults(loss=0.01), request=None, glimpse=False),
    "loss 5 % on A": Row(a=LineFaults(loss=0.05), request=None, glimpse=False),
    "loss 20 % on A": Row(a=LineFaults(loss=0.2), request=None, glimpse=False),
    "loss on both, 1 %": Row(both=0.01),
    "loss on both, 1 %, server answers short": Row(both=0.01, request=RequestFaults(short=5)),
    **{f"reordered within {n}": shuffled(n) for n in (1, 2, 4, 8, 16, 32, 64)},
    "duplicates 5 %": Row(a=LineFaults(duplicate=0.05), b=LineFaults(duplicate=0.05)),
    "last packets of bursts lost": Row(a=LineFaults(last=1.0), b=LineFaults(last=1.0), bursts=40),
    "another session in the middle": Row(session_at=0.5, request=None, glimpse=False),
    "end of session, absurd heartbeat": Row(end=True, request=None, glimpse=False),
    "server dead, image joined": Row(both=0.0005, request=RequestFaults(dead=True)),
    "server slow, 50 ms": Row(both=0.0005, request=RequestFaults(delay_s=0.05)),
    "server lies about the session": Row(both=0.0005, request=RequestFaults(lie="session")),
    "server lies about the numbers": Row(both=0.0005, request=RequestFaults(lie="numbers")),
    "no server": Row(both=0.0005, request=None, glimpse=False, whole=False),
    "server dead, image of 10^4 orders x 100 names": Row(
        both=0.01, late=True, request=RequestFaults(dead=True), full=True
    ),
}
LATE, BURST = 3000, 50
ABSURD = 1 << 62
SHOWN_MS = 10.0
"""A stale feed is shown as such within so long (fault matrix, row 4)."""


def until(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + DEADLINE_S
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


class Watch:
    """What displays are shown, beside what the core knows; asked in every turn of the loop."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.wrong = 0
        """Turns in which the hub had the feed as live while messages were missing."""
        self.shown: list[int] = []
        """ns from the receipt of the packet that reveals a hole until the hub has the feed as not live."""
        self.mended: list[int] = []
        """ns from there until it is live again."""
        self.lost_at: list[int] = []
        """When bursts ended whose last packet was lost."""
        self.revealed: list[int] = []
        """ns from there to the receipt of what reveals it."""
        self._since = 0
        service.ingest.every_turn.append(self._look)

    def _look(self, now_ns: int) -> None:
        ingest = self.service.ingest
        books = self.service.desk.books[0]
        holes = books.live.holes()
        shown = self.service.hub.overview()["feeds"][0].state
        self.wrong += shown == "live" and bool(holes)
        if holes and not self._since and shown != "live":
            self._since = holes[0][2]
            self.shown.append(now_ns - self._since)
            before = [at for at in self.lost_at if at <= self._since]
            self.revealed += [self._since - before[-1]] if before else []
        if self._since and ingest.feed_state(books, now_ns)[0] == "live":
            self.mended.append(now_ns - self._since)
            self._since = 0


def send(row: Row, plan: DatagramPlan, publisher: MoldUdpPublisher, messages: list[bytes], watch: Watch) -> None:
    """The market, with what the row does to it as a whole."""
    pace = Pace(rate=RATE)
    if row.session_at:
        at = int(len(messages) * row.session_at)
        publisher.run(timed(messages[:at] + messages), pace, sessions={at: "S2"})
    elif row.late:
        plan.both = 0.0
        publisher.run(timed(messages[:-LATE]), pace)
        plan.both = row.both
        publisher.run(timed(messages[-LATE:]), pace)
        plan.both = 0.0
    else:
        begun = len(messages) - row.bursts * BURST
        publisher.run(timed(messages[:begun]), pace)
        for at in range(begun, len(messages), BURST):
            publisher.send(messages[at : at + BURST])
            watch.lost_at.append(watch.service.ingest.poller.now_ns())
            publisher.idle(1.25 * HEARTBEAT_S)
    if row.end:
        publisher._control(mold_packet(publisher.tape.session, ABSURD, []), "absurd heartbeats")
        publisher.end()
    else:
        publisher.start_heartbeats()


def run(name: str, row: Row, messages: list[bytes], expected: str, *, shown_ms: float = SHOWN_MS) -> dict[str, Any]:
    """One row.

    shown_ms : how late a stale feed may be shown as such, at the 99th percentile
    """
    tape = Tape("S1", keep=2 * len(messages))
    plan = DatagramPlan(SEED, {"A": row.a, "B": row.b}, both=row.both)
    publisher = MoldUdpPublisher(tape, HOST, HOST, plan=plan, heartbeat_s=HEARTBEAT_S)
    server = RerequestServer(tape, HOST, faults=row.request or RequestFaults())
    (a, b), asked = (publisher.addresses["A"], publisher.addresses["B"]), server.address
    source = f"moldudp64://{a[0]}:{a[1]}?b={b[0]}:{b[1]}&date=2025-01-06&name=m&recover_ms=300"
    with tempfile.TemporaryDirectory() as folder, closing(publisher), closing(server), Host() as host:
        image = host.start(GlimpseServer(tape, "127.0.0.1", 0))
        source += f"&request={asked[0]}:{asked[1]}" if row.request else ""
        source += f"&glimpse={image.address[0]}:{image.address[1]}" if row.glimpse else ""
        service = Service([parse(source)], Settings(folder=Path(folder), checkpoint_s=1e6, scored=0))
        watch = Watch(service)
        service.start()
        try:
            send(row, plan, publisher, messages, watch)
            done = until(lambda: at_end(service, len(messages)))
        finally:
            service.stop(clean=False)
        out = {"row": name, "done": done} | found(service, watch, plan, row, expected)
        return out | {
            "as_expected": done and not wrong_with(out, row, shown_ms),
            "wrong_with": wrong_with(out, row, shown_ms),
        }


def wrong_with(out: dict[str, Any], row: Row, shown_ms: float) -> list[str]:
    """What a row shows that it should not."""
    shown, revealed, counters = out["shown_stale_ms"], out["revealed_ms"], out["counters"]
    seen = row.both > 0 or row.bursts > 0
    late_ms = 1000 * HEARTBEAT_S + shown_ms
    return [
        what
        for what, wrong in {
            "books": out["hash_equal"] != row.whole,
            "shown live with a hole": out["live_with_a_hole"] > 0,
            "session resets": out["session_resets"] != int(row.session_at > 0),
            "alarms": row.whole and out["alerts"] > 0,
            "gaps": row.whole and out["gaps"] > 0 and out["images"] == 0,
            "given up": row.whole and out["given_up"] > 0,
            "no hole was seen": seen and out["stale_times"] == 0,
            "shown late": shown is not None and shown["p99"] >= shown_ms,
            "revealed late": revealed is not None and revealed["p99"] >= late_ms,
            "no end, or an absurd number believed": row.end and (counters["wild"] == 0 or counters["ends"] == 0),
            "kernel drops": out["kernel_drops"] > 0,
        }.items()
        if wrong
    ]


def at_end(service: Service, n: int) -> bool:
    """Everything is applied, and the feed has come to rest."""
    states = ("live", "suspect", "ended")
    return service.desk.books[0].live.expected == n + 1 and service.hub.overview()["feeds"][0].state in states


def found(service: Service, watch: Watch, plan: DatagramPlan, row: Row, expected: str) -> dict[str, Any]:
    """What a row has shown."""
    books, recovery = service.desk.books[0], service.ingest.recoveries[0]
    counters, filled = books.live.counters(), stage_of("", books.live.stages()["missing_filled"])
    same = service.desk.hashes()["m"] == expected
    resets = books.integrity().get("session_reset", 0)
    counted = ("messages", "duplicates", "recovered", "reordered", "held_max", "wild", "ends")
    return {
        "hash_equal": same,
        "alerts": service.alerts.n,
        "live_with_a_hole": watch.wrong,
        "gaps": books.integrity()["gap"],
        "session_resets": resets,
        "stale_times": len(watch.shown),
        "revealed_ms": _ms(watch.revealed),
        "shown_stale_ms": _ms(watch.shown),
        "live_again_ms": _ms(watch.mended),
        "pieces_filled": filled.count,
        "filled_ms": {"p50": filled.p50 / 1e6, "p99": filled.p99 / 1e6, "max": filled.max / 1e6},
        "images": recovery.joins,
        "given_up": recovery.given_up,
        "faults": dict(plan.log.counts),
        "counters": {k: counters[k] for k in counted},
        "kernel_drops": service.ingest.poller.counters()["kernel_drops"],
    }


def _ms(values_ns: list[int]) -> dict[str, float] | None:
    """Median, 99th percentile and largest."""
    if not values_ns:
        return None
    found = np.quantile(np.array(values_ns) / 1e6, (0.5, 0.99, 1.0))
    return dict(zip(("p50", "p99", "max"), (round(float(x), 3) for x in found), strict=True))


def market(**parameters: Any) -> tuple[list[bytes], str]:
    """Messages, and the hash of the loss-free replay."""
    day, _ = cached_day(**parameters)
    return unframe(day.read_bytes()), replay(str(day), date="2025-01-06").state_hash


def main() -> None:
    parser = argparse.ArgumentParser(description="MoldUDP64 under faults.")
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--rows", default="", help="only rows whose name has this in it")
    parser.add_argument("--save", action="store_true")
    args = parser.parse_args()
    markets = {
        False: market(messages=args.messages, symbols=200, live_orders=20_000, seed=2),
        True: market(messages=LATE, symbols=100, live_orders=1_000_000, seed=2, steady=True, zipf=0.0),
    }
    rows = []
    for name, row in ROWS.items():
        if args.rows in name:
            rows.append(run(name, row, *markets[row.full]))
            print(json.dumps(rows[-1]), flush=True)
    out = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "seed": SEED,
        "messages": len(markets[False][0]),
        "rows": rows,
    }
    if args.save:
        RECORDED.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
