"""The whole monitor under load: 46 MoldUDP64 feeds and four websocket venues in one process, on this machine.

    python -m benchmarks.bench_live --rate 600000 --seconds 60
    python -m benchmarks.bench_live --find            highest rate without a drop
    python -m benchmarks.bench_live --shares          latency at 10, 50, 90 % of a rate
    python -m benchmarks.bench_live --options         what pinning and busy polling gain at 10 and 50 % of it

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
import time
from pathlib import Path
from typing import Any

from benchmarks.daystream import cached_day
from benchmarks.measure import machine
from microrisk.monitor.address import parse
from microrisk.monitor.rated import Plan, at_rate, highest

FEEDS, NAMES, VENUE_RATE = 46, 100, 500.0
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


def run(rate: float, seconds: float, *, venues: bool = True, **options: Any) -> dict[str, Any]:
    """One run at a rate (messages a second over all feeds)."""
    per_feed = int(rate / FEEDS * seconds) + 1000
    day, _ = cached_day(messages=max(per_feed, 100_000), symbols=NAMES, live_orders=20_000, seed=1)
    scripted = Venues() if venues else None
    try:
        beside = tuple(parse(s) for s in (scripted.sources() if scripted else []))
        plan = Plan(path=day, feeds=FEEDS, seconds=seconds, beside=beside, **options)
        return at_rate(plan, rate, beside_cpu_s=scripted.cpu_s if scripted else lambda: 0.0)
    finally:
        if scripted:
            scripted.close()


def say(got: dict[str, Any]) -> None:
    stages = got["stages"]["receive_scored"]
    us = {k: round(stages[k]) for k in ("p50_us", "p99_us", "p999_us")}
    cpu = {"ours": got["cpu_share"], "sender": got["sent"]["cpu_share"], "venues": got["beside_cpu_share"]}
    print(
        f"{got['asked']:>10,.0f}/s {'held' if got['held'] else 'NOT held'}: applied {got['applied']:,} of "
        f"{got['sent']['messages']:,}, drops {got['kernel_drops']}, {us}, CPU "
        f"{ ({k: round(v, 2) for k, v in cpu.items()}) }, RSS {got['rss_mb'][-1]} MB, {got['not_live']}",
        flush=True,
    )


def told(got: dict[str, Any]) -> dict[str, Any]:
    """Say it and hand it on."""
    say(got)
    return got


OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "pinned": {"cpu": 1},
    "spinning": {"spin": True},
    "pinned and spinning": {"cpu": 1, "spin": True},
}


def options(rate: float, seconds: float, rounds: int = 3) -> dict[str, Any]:
    """What pinning and busy polling gain at 10 and 50 % of a rate: us of receive to scored, medians of the rounds."""
    out: dict[str, Any] = {}
    for share in (0.1, 0.5):
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in OPTIONS}
        for _ in range(rounds):
            for name, option in OPTIONS.items():
                runs[name].append(told(run(rate * share, seconds, venues=False, **option)))
        out[str(share)] = {
            name: {q: sorted(g["stages"]["receive_scored"][q] for g in got) for q in ("p50_us", "p99_us", "p999_us")}
            | {"cpu_share": sorted(g["cpu_share"] for g in got)}
            for name, got in runs.items()
        }
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rate", type=float, default=500_000)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--find", action="store_true")
    parser.add_argument("--shares", action="store_true")
    parser.add_argument("--options", action="store_true", help="what pinning and busy polling gain")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--no-venues", action="store_true")
    args = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "date": time.strftime("%Y-%m-%d")}
    if args.find:
        result["best"] = highest(lambda rate: told(run(rate, args.seconds)), 200_000.0)
    elif args.options:
        result["options"] = options(args.rate, args.seconds)
    elif args.shares:
        result["shares"] = {}
        for share in (0.1, 0.5, 0.9):
            got = result["shares"][str(share)] = run(args.rate * share, args.seconds)
            say(got)
    else:
        result["run"] = run(args.rate, args.seconds, venues=not args.no_venues, checkpoint_s=60.0)
        say(result["run"])
    result["max_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    if args.save:
        known = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
        RECORDED.write_text(json.dumps(known | result, indent=1) + "\n")
    else:
        print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
