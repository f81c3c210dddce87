"""Readers that stop, a disk that is busy, a page that is abused: what the books feel of it, at full rate.

    python -m benchmarks.slow_readers --rate 500000 --seconds 60 --pairs 3 --save

One monitor with its page, fed without a pause; quiet times and troubled times of the same length take turns, so that
each trouble has a quiet neighbour on the same machine. A figure is the ratio of a troubled time's p99 (receipt to
scored) to its neighbour's: median and range of the pairs. Two quiet times in a row say what the machine does by itself.

Without checkpoints, whose pause would fall into one time or the other.

    stopped    eight readers of the page are stopped (SIGSTOP), their sockets fill, and go on behind it
    busy disk  another process writes and syncs to the disk on which the journal lies
    abused     wrong tokens, foreign hosts, 1,000 sockets, frames of 10 MB, requests that never end
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.daystream import cached_day
from benchmarks.measure import machine
from microrisk.monitor.latency import stage_of
from microrisk.monitor.rated import Plan, facts, in_loop, rss_mb, running
from microrisk.monitor.service import Service
from microrisk.monitor.web.serve import open_server

RECORDED = Path(__file__).parent / "recorded" / "slow_readers.json"
FEEDS, NAMES, READERS = 46, 100, 8
BETWEEN_S = 1.0
WRITER = """
import os, sys
data, file = b"x" * (1 << 22), os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
while True:
    for _ in range(32):
        os.write(file, data)
    os.fsync(file)
    os.lseek(file, 0, 0)
"""


class Rig:
    """The monitor, its page, and what is done to it."""

    def __init__(self, service: Service, address: str, token: str, folder: Path) -> None:
        self.service, self.address, self.token, self.folder = service, address, token, folder
        self.reader = self.client("read", str(READERS))
        self.tricks: Any = None

    def client(self, *words: str) -> Client:
        what, *rest = words
        # clients of a page are elsewhere, their processor time is not ours to lose
        command = ["nice", "-n", "19", sys.executable, "-m", "benchmarks.web_reader"]
        command += [what, self.address, self.token, *rest]
        return Client(command)

    def counts(self) -> Any:
        """Of receipt to scored, over all feeds."""
        found = in_loop(self.service, lambda: {"counts": _scored(self.service)})
        return found["counts"]

    @contextmanager
    def quiet(self) -> Iterator[None]:
        yield

    @contextmanager
    def stopped(self) -> Iterator[None]:
        self.reader.process.send_signal(signal.SIGSTOP)
        yield
        self.reader.process.send_signal(signal.SIGCONT)

    @contextmanager
    def busy_disk(self) -> Iterator[None]:
        with _while(subprocess.Popen([sys.executable, "-c", WRITER, str(self.folder / "busy")])):
            yield

    @contextmanager
    def abused(self) -> Iterator[None]:
        villain = self.client("abuse")
        with _while(villain.process):
            yield
        self.tricks = villain.told


def _scored(service: Service) -> Any:
    return np.sum([b.live.stages()["receive_scored"].astype(np.int64) for b in service.desk.itch()], axis=0)


@contextmanager
def _while(process: subprocess.Popen[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()
        process.wait()


class Client:
    """A process that says what it has counted, once a second."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.told: dict[str, int] = {}
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.told = json.loads(line)


def timed(rig: Rig, trouble: Callable[[], Any], seconds: float) -> dict[str, Any]:
    """One time: latencies of what was received in it, what readers got meanwhile, and memory at its end."""
    with trouble():
        time.sleep(BETWEEN_S)
        read = dict(rig.reader.told)
        before, began = rig.counts(), time.monotonic()
        time.sleep(seconds)
        counts = (rig.counts() - before).astype(np.uint64)
        took = time.monotonic() - began
        read = {k: n - read.get(k, 0) for k, n in rig.reader.told.items()}
    time.sleep(BETWEEN_S)
    s = stage_of("", counts)
    return {
        "p50_us": s.p50 / 1e3, "p99_us": s.p99 / 1e3, "p999_us": s.p999 / 1e3, "rate": round(s.count / took),
        "rss_mb": round(rss_mb(), 1), "read": read,
    }  # fmt: skip


TROUBLES = ("quiet", "stopped", "busy_disk", "abused")


def measure(rate: float, seconds: float, pairs: int, troubles: Sequence[str]) -> dict[str, Any]:
    """Troubles at one rate; each pair begins with the other of its two."""
    times = 2 * pairs * len(troubles)
    whole = times * (seconds + 2 * BETWEEN_S + 1) + 20
    day, _ = cached_day(messages=int(rate / FEEDS * whole) + 1000, symbols=NAMES, live_orders=20_000, seed=1)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slow-readers-")))
        service, ports, _ = stack.enter_context(running(Plan(path=day, feeds=FEEDS, checkpoint_s=1e6)))
        server, url = open_server(service.hub, port=0)
        page = threading.Thread(target=server.run)
        page.start()
        stack.callback(page.join)
        stack.callback(server.stop)
        to = [word for p in ports for word in ("--to", f"127.0.0.1:{p}")]
        command = [sys.executable, "-m", "microrisk.monitor.publish.load", str(day), *to, "--rate", str(rate)]
        stack.enter_context(_while(subprocess.Popen([*command, "--mtu", "1400"], stdout=subprocess.DEVNULL)))
        time.sleep(5.0)
        address, _, token = url.partition("?token=")
        rig = Rig(service, address, token, folder)
        stack.callback(rig.reader.process.wait)
        stack.callback(rig.reader.process.kill)
        time.sleep(3.0)
        return _measured(rig, rate, seconds, pairs, troubles)


def _measured(rig: Rig, rate: float, seconds: float, pairs: int, troubles: Sequence[str]) -> dict[str, Any]:
    first_mb = rss_mb()
    out: dict[str, Any] = {"asked": rate, "seconds": seconds, "pairs": pairs}
    for name in troubles:
        found = []
        for pair in range(pairs):
            order = [rig.quiet, getattr(rig, name)]
            times = [timed(rig, how, seconds) for how in (order if pair % 2 == 0 else order[::-1])]
            quiet, troubled = times if pair % 2 == 0 else times[::-1]
            found.append({"quiet": quiet, "troubled": troubled, "p99_ratio": troubled["p99_us"] / quiet["p99_us"]})
            print(json.dumps({name: found[-1]}), flush=True)
        ratios = sorted(f["p99_ratio"] for f in found)
        out[name] = {
            "p99_ratio": round(float(np.median(ratios)), 3),
            "range": [round(ratios[0], 3), round(ratios[-1], 3)],
            "pairs": found,
        }
    out["reader"], out["tricks"] = rig.reader.told, rig.tricks
    end = in_loop(rig.service, lambda: facts(rig.service))
    out |= {k: end[k] for k in ("kernel_drops", "missing", "names", "scored")}
    out["rss_growth_mb"] = round(rss_mb() - first_mb, 1)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description="Slow readers, a busy disk, abuse.")
    parser.add_argument("--rate", type=float, action="append", help="messages a second; may be repeated")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--trouble", action="append", choices=TROUBLES, help="only this one; may be repeated")
    parser.add_argument("--save", action="store_true", help="in the place of earlier figures of the same rate")
    args = parser.parse_args()
    out = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "cores": os.cpu_count()}
    troubles = args.trouble or TROUBLES
    out["rates"] = [measure(rate, args.seconds, args.pairs, troubles) for rate in args.rate or [500_000.0]]
    print(json.dumps(out, indent=1))
    if args.save:
        fresh = {r["asked"] for r in out["rates"]}
        known = json.loads(RECORDED.read_text())["rates"] if RECORDED.exists() else []
        out["rates"] = [*(r for r in known if r["asked"] not in fresh), *out["rates"]]
        RECORDED.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
