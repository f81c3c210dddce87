"""How figures are taken: one pinned core, thread CPU time beside wall time, each engine in a process of its own.

Ratios are made inside a round, where the rivals ran minutes apart at most; a table shows their median and range.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "recorded"


def pin() -> int:
    """Keep this process on the last core it may use; returns its number."""
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def settle(most_s: float = 2.0) -> None:
    """Wait until threads that libraries start when they are imported have nothing left to do."""
    until = time.monotonic() + most_s
    while time.monotonic() < until:
        others = time.process_time_ns() - time.thread_time_ns()
        time.sleep(0.02)
        if time.process_time_ns() - time.thread_time_ns() - others < 50_000:
            return


def timed(work: Callable[[], Any]) -> dict[str, int]:
    """Thread CPU, wall and system nanoseconds of one call.

    Raises AssertionError when other threads of the process worked too: their time would be missing.
    """
    settle()
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    process, wall, cpu = time.process_time_ns(), time.perf_counter_ns(), time.thread_time_ns()
    work()
    cpu, wall, process = time.thread_time_ns() - cpu, time.perf_counter_ns() - wall, time.process_time_ns() - process
    system = resource.getrusage(resource.RUSAGE_THREAD).ru_stime - usage.ru_stime
    assert process - cpu < 0.02 * cpu + 5_000_000, (process, cpu)
    return {"cpu_ns": cpu, "wall_ns": wall, "system_ns": int(system * 1e9)}


def status_kb(*names: str) -> dict[str, int]:
    """Lines of /proc/self/status in kB: VmRSS, VmHWM, RssAnon, RssFile."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[name].split()[0]) for name in names}


def child(module: str, *arguments: object, timeout: float = 1800.0) -> Any:
    """Run `python -m module arguments` and return the JSON object on the last line of its output.

    Raises RuntimeError with the end of its stderr when it fails.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least, greatest and number of values, four significant digits."""
    found = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return {k: float(f"{v:.4g}") for k, v in found.items()} | {"n": len(values)}


def machine() -> dict[str, Any]:
    """What a figure belongs to: date, commit, processor, caches, kernel, load before the run."""
    facts: dict[str, Any] = {"date": dt.datetime.now(dt.UTC).date().isoformat(), "cores": os.cpu_count()}
    commit = ""
    with contextlib.suppress(FileNotFoundError):  # machines without git take the commit as an argument
        asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
        commit = asked.stdout.strip()
    facts |= {"commit": commit, "python": platform.python_version(), "kernel": platform.release()}
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        facts["processor"] = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    facts["caches"] = _caches()
    with contextlib.suppress(OSError):
        facts["huge_pages"] = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text().strip()
    facts["load_before"] = round(os.getloadavg()[0], 2)
    return facts


def _caches() -> dict[str, str]:
    found = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind = (index / "level").read_text().strip(), (index / "type").read_text().strip()
        if kind != "Instruction":
            found[f"L{level}"] = (index / "size").read_text().strip()
    return found


def say(text: str) -> None:
    """A progress line."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def save(name: str, command: str, found: dict[str, Any], folder: Path = RECORDED) -> Path:
    """Write `name`.json with machine and command first."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"command": command, **found}, indent=1) + "\n")
    return path


def summary(rounds: Iterable[dict[str, dict[str, Any]]], messages: int, ours: str = "microrisk") -> dict[str, Any]:
    """Per engine: CPU and wall ns a message, and CPU time over ours in the same round."""
    rows = list(rounds)
    out: dict[str, Any] = {}
    for name in rows[0]:
        out[name] = {
            "cpu_ns": spread([r[name]["cpu_ns"] / messages for r in rows]),
            "wall_ns": spread([r[name]["wall_ns"] / messages for r in rows]),
            "ratio": spread([r[name]["cpu_ns"] / r[ours]["cpu_ns"] for r in rows]),
        }
    return out
