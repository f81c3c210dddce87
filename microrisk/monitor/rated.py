"""The monitor under a rated load: one process that sends, this one that receives, books, scores and alarms.

The sender keeps to a schedule whatever the receiver does, and messages are timed from the kernel's stamp of their
datagram, so a receiver that falls behind is charged for what waits in its sockets (no coordinated omission); how late
the sender itself was is told beside it. Latencies are in buckets of HdrHistogram's kind, two significant digits.

A rate is held when every message sent was applied, the kernel dropped nothing, no hole was left and every feed was live
at the end.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from microrisk.errors import OutputError, UsageError
from microrisk.monitor.address import SourceSpec, parse
from microrisk.monitor.hub import ENDED, LIVE
from microrisk.monitor.latency import stage_of
from microrisk.monitor.service import Service, Settings

WARM_S, REST_S = 2.0, 1.5
LOWEST = 25_000.0
SHARES = (0.1, 0.5, 0.9)
MOST_MESSAGES = 3_000_000
"""Of an input, for each feed."""
SECOND_NS = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured.

    Attributes
    ----------
    path : plain length-prefixed ITCH; every feed sends it from its beginning
    feeds : MoldUDP64 feeds on loopback
    seconds, mtu : of one run; bytes of a packet at most
    scored : instruments scored at most
    checkpoint_s : market seconds between two checkpoints
    cpu, spin : as in Settings
    beside : sources of others that run meanwhile
    """

    path: Path
    feeds: int = 46
    seconds: float = 8.0
    mtu: int = 1400
    scored: int = 200
    checkpoint_s: float = 300.0
    cpu: int = -1
    spin: bool = False
    beside: tuple[SourceSpec, ...] = field(default=())


class Watch:
    """Size and rate once a second, from the loop itself."""

    def __init__(self, service: Service) -> None:
        self.rss_mb: list[float] = []
        self.rates: list[float] = []
        self._service = service
        self._next = 0
        self._before: tuple[int, int] | None = None
        service.ingest.every_turn.append(self._look)

    def _look(self, now_ns: int) -> None:
        if now_ns < self._next:
            return
        self._next = now_ns + SECOND_NS
        self.rss_mb.append(rss_mb())
        messages = sum(b.messages for b in self._service.desk.books.values())
        if self._before is not None:
            self.rates.append((messages - self._before[0]) * 1e9 / (now_ns - self._before[1]))
        self._before = messages, now_ns

    def slope_mb_10min(self) -> float | None:
        """Growth over the second half of the run; None below ten seconds."""
        half = self.rss_mb[len(self.rss_mb) // 2 :]
        if len(half) < 10:
            return None
        return round(float(np.polyfit(np.arange(len(half)), half, 1)[0]) * 600, 2)


def rss_mb() -> float:
    """Resident memory of this process, 10^6 bytes."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return float("nan")
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


def free_ports(n: int) -> list[int]:
    """UDP ports of loopback that nobody has at the moment."""
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(n)]
        for s in taken:
            s.bind(("127.0.0.1", 0))
        return [int(s.getsockname()[1]) for s in taken]


@contextmanager
def running(plan: Plan) -> Iterator[tuple[Service, list[int], list[int]]]:
    """A monitor of the plan's feeds; with it their ports, and ns from an alert's event to its telling as they come."""
    ports = free_ports(plan.feeds)
    told: list[int] = []
    sources = [parse(f"moldudp64://127.0.0.1:{p}?name=feed{i:02d}") for i, p in enumerate(ports)]
    with tempfile.TemporaryDirectory(prefix="microrisk-rated-") as folder:
        service: Service

        def take(alert: Any) -> None:
            told.append(service.ingest.poller.now_ns() - alert.ts_ns)

        settings = Settings(
            folder=Path(folder),
            scored=plan.scored,
            checkpoint_s=plan.checkpoint_s,
            tellers=(take,),
            cpu=plan.cpu,
            spin=plan.spin,
        )
        service = Service([*sources, *plan.beside], settings)
        service.start()
        try:
            yield service, ports, told
        finally:
            service.stop(clean=False)


def at_rate(plan: Plan, rate: float, *, beside_cpu_s: Callable[[], float] = lambda: 0.0) -> dict[str, Any]:
    """One run at `rate` messages a second over all feeds; plain types only.

    beside_cpu_s : processor time that sources beside have used
    """
    with running(plan) as (service, ports, told):
        watch = Watch(service)
        time.sleep(WARM_S)
        mine, theirs = time.process_time(), beside_cpu_s()
        began = time.monotonic()
        sent = send(plan, ports, rate)
        wall = time.monotonic() - began
        time.sleep(REST_S)
        out: dict[str, Any] = {"asked": rate, "feeds": len(ports), "sent": sent}
        out |= in_loop(service, lambda: facts(service))
        out["cpu_share"] = round((time.process_time() - mine) / wall, 3)
        out["beside_cpu_share"] = round((beside_cpu_s() - theirs) / wall, 3)
    out["rss_mb"] = [round(x, 1) for x in watch.rss_mb[:: max(1, len(watch.rss_mb) // 60)]]
    out["rss_slope_mb_10min"] = watch.slope_mb_10min()
    out["alerts"] = len(told)
    out["alert_us"] = {k: _quantile(told, q) for k, q in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))}
    whole = out["applied"] == sent["messages"] and out["missing"] == 0
    out["held"] = whole and out["kernel_drops"] == 0 and not out["not_live"]
    return out


def send(plan: Plan, ports: Sequence[int], rate: float) -> dict[str, Any]:
    """Run the sender; what it sent, and how late it was."""
    to = [word for p in ports for word in ("--to", f"127.0.0.1:{p}")]
    command = [sys.executable, "-m", "microrisk.monitor.publish.load", str(plan.path), *to, "--rate", str(rate)]
    command += ["--seconds", str(plan.seconds), "--mtu", str(plan.mtu)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise OutputError(f"the sender failed: {done.stderr.strip().splitlines()[-1:] or done.returncode}")
    sent: dict[str, Any] = json.loads(done.stdout)
    return sent


def in_loop(service: Service, read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `read` gives in the ingest thread, where books may be looked at."""
    out: dict[str, Any] = {}
    ended = threading.Event()

    def job() -> None:
        out.update(read())
        ended.set()

    service.ingest.later(job)
    if not ended.wait(30):
        raise OutputError(f"the monitor does not answer: {service.failure or 'it is far behind'}")
    return out


def facts(service: Service) -> dict[str, Any]:
    """Counts and latencies; in the ingest thread."""
    ingest = service.ingest
    now = ingest.poller.now_ns()
    itch = list(service.desk.itch())
    states = {b.opened.name: ingest.feed_state(b, now) for b in service.desk.books.values()}
    return {
        "applied": sum(b.messages for b in itch),
        "kernel_drops": ingest.poller.counters()["kernel_drops"],
        "missing": sum(sum(c for _, c, _ in b.live.holes()) for b in itch),
        "not_live": {n: s for n, s in states.items() if s[0] not in (LIVE, ENDED)},
        "names": sum(len(b.names) for b in itch),
        "scored": sum(len(b.stage.chosen) for b in service.desk.books.values()),
        "texts": sum(b.messages for b in service.desk.books.values()) - sum(b.messages for b in itch),
        "stages": stages(service),
        "journal_bytes": int(ingest.writer.core.written_bytes),
        "refused": ingest.inbox.refused,
        "turns": ingest.turns,
    }


def stages(service: Service) -> dict[str, dict[str, float]]:
    """Us by stage, over all feeds; in the ingest thread."""
    total: dict[str, Any] = {}
    for books in service.desk.itch():
        for name, counts in books.live.stages().items():
            total[name] = total.get(name, 0) + counts
    found = [stage_of(name, counts) for name, counts in total.items()]
    if service.ingest.text_latency:
        texts = np.sum(list(service.ingest.text_latency.values()), axis=0)
        found.append(stage_of("text: receive to scored", texts))
    return {
        s.name: {"p50_us": s.p50 / 1e3, "p99_us": s.p99 / 1e3, "p999_us": s.p999 / 1e3, "max_us": s.max / 1e3}
        for s in found
        if s.count
    }


def highest(run: Callable[[float], dict[str, Any]], low: float = LOWEST, steps: int = 3) -> dict[str, Any]:
    """The run at the highest rate that is held: doubled until one is not, then halved `steps` times in between.

    Raises
    ------
    UsageError : not even `low` is held
    """
    best = run(low)
    if not best["held"]:
        raise UsageError(f"this machine does not hold {low:,.0f} messages/s: {_why(best)}")
    rate = low
    while (got := run(2 * rate))["held"]:
        rate, best = 2 * rate, got
    above = 2 * rate
    for _ in range(steps):
        middle = (rate + above) / 2
        got = run(middle)
        if got["held"]:
            rate, best = middle, got
        else:
            above = middle
    return best


def _why(got: dict[str, Any]) -> str:
    return f"{got['applied']:,} of {got['sent']['messages']:,} applied, {got['kernel_drops']:,} dropped"


def _quantile(values: list[int], q: float) -> float | None:
    return round(float(np.quantile(values, q)) / 1000, 1) if values else None


def bench_live(
    inputs: Sequence[Path], plan: Plan, *, rate: float | None, progress: Callable[[float, int], None] | None = None
) -> dict[str, Any]:
    """The rate that this machine holds and the latency at a tenth, half and nine tenths of it; or at `rate` alone.

    Parameters
    ----------
    inputs : recordings of any format that can be played as ITCH; none = a generated session
    plan : its `path` is set here
    progress : takes the share done and the number of messages so far
    """
    done = [0, 0]
    expected = 1 if rate is not None else 11

    with tempfile.TemporaryDirectory(prefix="microrisk-rated-") as folder:
        made = _plain(inputs, Path(folder))
        whole = Plan(**{**vars(plan), "path": made})

        def run(at: float) -> dict[str, Any]:
            got = at_rate(whole, at)
            done[0], done[1] = done[0] + 1, done[1] + int(got["applied"])
            if progress is not None:
                progress(min(0.99, done[0] / expected), done[1])
            return got

        if rate is not None:
            runs = {"asked": run(rate)}
            held = rate if runs["asked"]["held"] else None
        else:
            best = highest(run)
            held = best["asked"]
            runs = {f"{share:.0%}": run(share * held) for share in SHARES}
    return {"input": [str(p) for p in inputs] or "generated", "held_messages_per_s": held, "runs": runs}


def _plain(inputs: Sequence[Path], folder: Path) -> Path:
    """Up to MOST_MESSAGES of the inputs as length-prefixed ITCH."""
    from microrisk.market.simulator import simulate
    from microrisk.market.write import write_itch
    from microrisk.monitor.publish.messages import itch_messages

    path = folder / "market.itch"
    if not inputs:
        return write_itch(simulate(1, 1800.0, episodes="random"), path)
    with path.open("wb") as file:
        for n, (_, message) in enumerate(itch_messages([str(p) for p in inputs])):
            if n == MOST_MESSAGES:
                break
            file.write(len(message).to_bytes(2, "big") + message)
    return path
