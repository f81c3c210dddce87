"""The whole monitor under load: 46 MoldUDP64 feeds and four websocket venues in one process, on this machine.

    python -m benchmarks.bench_live --rate 600000 --seconds 60
    python -m benchmarks.bench_live --find            highest rate without a drop, by halving
    python -m benchmarks.bench_live --shares          latency at 10, 50, 90 % of a rate

Sender and venues are processes of their own; their processor time is told apart. A run counts as held when no datagram
was dropped by the kernel, no hole was left, every message sent was applied, and every feed was live at the end.
Latency is the kernel's receive stamp to scored (and to the alert told), of every message of the last part of the run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.daystream import cached_day
from benchmarks.measure import machine
from microrisk.monitor.address import parse
from microrisk.monitor.latency import stage_of
from microrisk.monitor.service import Service, Settings

FEEDS, NAMES, VENUE_RATE = 46, 100, 500.0
FIRST_PORT = 41_000
VENUES = ("kraken", "coinbase", "binance", "bitstamp")
PRODUCT = {"kraken": "BTC/USD", "coinbase": "BTC-USD", "binance": "BTCUSDT", "bitstamp": "btcusd"}
RECORDED = Path(__file__).parent / "recorded" / "live.json"


class Venues:
    """The scripted venues, each `microrisk publish` in a process of its own."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []
        self.addresses: dict[str, dict[str, str]] = {}
        for venue in VENUES:
            command = [sys.executable, "-m", "microrisk", "publish", "--as", venue, "--rate", str(VENUE_RATE), "--json"]
            command += ["--products", PRODUCT[venue]]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            self._running.append(process)
            assert process.stdout is not None
            self.addresses[venue] = json.loads(process.stdout.readline())["addresses"]

    def sources(self) -> list[str]:
        out = []
        for venue, at in self.addresses.items():
            rest = "" if venue == "kraken" else f"&rest={at['rest']}"
            out.append(f"{venue}:{PRODUCT[venue]}?url={at['ws']}{rest}")
        return out

    def cpu_s(self) -> float:
        return sum(_cpu_of(p.pid) for p in self._running)

    def close(self) -> None:
        for process in self._running:
            process.terminate()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


class Watch:
    """What the ingest thread is asked every second, from its own hook."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.rss: list[float] = []
        self.rates: list[float] = []
        self._next = 0
        self._before: tuple[int, int] | None = None
        service.ingest.every_turn.append(self._look)

    def _look(self, now_ns: int) -> None:
        if now_ns < self._next:
            return
        self._next = now_ns + 1_000_000_000
        self.rss.append(_rss_mb())
        messages = sum(b.messages for b in self.service.desk.books.values())
        if self._before is not None:
            self.rates.append((messages - self._before[0]) * 1e9 / (now_ns - self._before[1]))
        self._before = messages, now_ns


def run(rate: float, seconds: float, *, feeds: int = FEEDS, mtu: int = 1400, venues: bool = True) -> dict[str, Any]:
    """One run at a rate (messages a second over all feeds)."""
    per_feed = int(rate / feeds * seconds) + 1000
    day, _ = cached_day(messages=max(per_feed, 100_000), symbols=NAMES, live_orders=20_000, seed=1)
    told: list[int] = []
    scripted = Venues() if venues else None
    with tempfile.TemporaryDirectory(prefix="bench-live-") as folder:
        ports = [FIRST_PORT + i for i in range(feeds)]
        sources = [parse(f"moldudp64://127.0.0.1:{p}?name=feed{i:02d}") for i, p in enumerate(ports)]
        sources += [parse(s) for s in (scripted.sources() if scripted else [])]
        service: Service
        settings = Settings(
            folder=Path(folder),
            checkpoint_s=1e6,
            tellers=(lambda alert: told.append(service.ingest.poller.now_ns() - alert.ts_ns),),
        )
        service = Service(sources, settings)
        watch = Watch(service)
        service.start()
        try:
            time.sleep(2.0)
            return _measured(service, watch, scripted, day, ports, rate, seconds, mtu, told)
        finally:
            service.stop(clean=False)
            if scripted:
                scripted.close()


def _measured(
    service: Service,
    watch: Watch,
    scripted: Venues | None,
    day: Path,
    ports: list[int],
    rate: float,
    seconds: float,
    mtu: int,
    told: list[int],
) -> dict[str, Any]:
    mine, theirs = time.process_time(), scripted.cpu_s() if scripted else 0.0
    to = [word for p in ports for word in ("--to", f"127.0.0.1:{p}")]
    command = [sys.executable, "-m", "microrisk.monitor.publish.load", str(day), *to, "--rate", str(rate)]
    began = time.monotonic()
    done = subprocess.run(
        [*command, "--seconds", str(seconds), "--mtu", str(mtu)], capture_output=True, text=True, check=True
    )
    sent = json.loads(done.stdout)
    wall = time.monotonic() - began
    time.sleep(1.5)
    out: dict[str, Any] = {"asked": rate, "feeds": len(ports), "names": len(ports) * NAMES, "sent": sent}
    ended = threading.Event()

    def read() -> None:
        out.update(_facts(service))
        ended.set()

    service.ingest.later(read)
    ended.wait(10)
    out["cpu_s"] = time.process_time() - mine
    out["cpu_share"] = out["cpu_s"] / wall
    out["venues_cpu_share"] = (scripted.cpu_s() - theirs) / wall if scripted else 0.0
    out["rss_mb"] = [round(x, 1) for x in watch.rss[:: max(1, len(watch.rss) // 60)]]
    out["rss_slope_mb_10min"] = _slope(watch.rss)
    out["alerts"] = len(told)
    out["alert_us"] = {k: _quantile(told, q) for k, q in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))}
    out["held"] = (
        out["kernel_drops"] == 0 and out["missing"] == 0 and out["applied"] == sent["messages"] and not out["not_live"]
    )
    return out


def _quantile(values: list[int], q: float) -> float | None:
    return round(float(np.quantile(values, q)) / 1000, 1) if values else None


def _slope(rss: list[float]) -> float | None:
    """MB in ten minutes over the second half of the run."""
    half = rss[len(rss) // 2 :]
    if len(half) < 10:
        return None
    return round(float(np.polyfit(np.arange(len(half)), half, 1)[0]) * 600, 2)


def _facts(service: Service) -> dict[str, Any]:
    """Read in the ingest thread."""
    ingest = service.ingest
    now = ingest.poller.now_ns()
    itch = list(service.desk.itch())
    total: dict[str, Any] = {}
    for books in itch:
        for name, counts in books.live.stages().items():
            total[name] = total.get(name, 0) + counts
    states = {b.opened.name: ingest.feed_state(b, now) for b in service.desk.books.values()}
    texts = sum(ingest.text_latency.values()) if ingest.text_latency else None
    stages = [stage_of(n, c) for n, c in total.items()]
    if texts is not None:
        stages.append(stage_of("text: receive to scored", texts))
    return {
        "applied": sum(b.messages for b in itch),
        "kernel_drops": ingest.poller.counters()["kernel_drops"],
        "missing": sum(sum(c for _, c, _ in b.live.holes()) for b in itch),
        "not_live": {n: s for n, s in states.items() if s[0] not in ("live", "ended")},
        "scored": sum(len(b.stage.chosen) for b in service.desk.books.values()),
        "texts": sum(b.messages for b in service.desk.books.values()) - sum(b.messages for b in itch),
        "stages": {
            s.name: {"p50_us": s.p50 / 1e3, "p99_us": s.p99 / 1e3, "p999_us": s.p999 / 1e3, "max_us": s.max / 1e3}
            for s in stages
        },
        "journal_bytes": int(ingest.writer.core.written_bytes),
        "refused": ingest.inbox.refused,
        "turns": ingest.turns,
    }


def find(low: float, high: float, seconds: float, steps: int = 5) -> dict[str, Any]:
    """Highest rate that is held, by halving between one that is and one that is not."""
    best: dict[str, Any] | None = None
    for _ in range(steps):
        middle = (low + high) / 2
        got = run(middle, seconds)
        say(got)
        if got["held"]:
            low, best = middle, got
        else:
            high = middle
    assert best is not None, "no rate was held"
    return best


def say(got: dict[str, Any]) -> None:
    stages = got["stages"]["receive_scored"]
    told = {k: round(stages[k]) for k in ("p50_us", "p99_us", "p999_us")}
    cpu = {"ours": got["cpu_share"], "sender": got["sent"]["cpu_share"], "venues": got["venues_cpu_share"]}
    print(
        f"{got['asked']:>10,.0f}/s {'held' if got['held'] else 'NOT held'}: applied {got['applied']:,} of "
        f"{got['sent']['messages']:,}, drops {got['kernel_drops']}, {told}, CPU "
        f"{ ({k: round(v, 2) for k, v in cpu.items()}) }, RSS {got['rss_mb'][-1]} MB, {got['not_live']}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rate", type=float, default=500_000)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--find", action="store_true")
    parser.add_argument("--shares", action="store_true")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--no-venues", action="store_true")
    args = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "date": time.strftime("%Y-%m-%d")}
    if args.find:
        result["best"] = find(200_000, 1_600_000, args.seconds)
    elif args.shares:
        result["shares"] = {}
        for share in (0.1, 0.5, 0.9):
            got = result["shares"][str(share)] = run(args.rate * share, args.seconds)
            say(got)
    else:
        result["run"] = run(args.rate, args.seconds, venues=not args.no_venues)
        say(result["run"])
    result["max_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    if args.save:
        known = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
        RECORDED.write_text(json.dumps(known | result, indent=1) + "\n")
    else:
        print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
