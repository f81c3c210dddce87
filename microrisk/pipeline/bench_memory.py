"""Memory of a replay: anonymous pages of a process of its own, before the first event and after each of three passes.

What the process holds before (interpreter and libraries) is subtracted; mapped files are not anonymous and not counted.
Every pass has a new engine over the same input. The second may still add what the allocator keeps of the first; what
the third adds is growth.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from microrisk.pipeline.spine import Source, Spine


def memory(source: Source, timeout: float = 3600.0) -> dict[str, Any]:
    """What `measure` finds in a process of its own; {"unavailable": why} where it cannot be had."""
    words = [sys.executable, "-m", "microrisk.pipeline.bench_memory", json.dumps(asdict(source))]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return {"unavailable": f"the measuring process took more than {timeout:,.0f} s"}
    if done.returncode != 0:
        last = done.stderr.strip().rpartition("\n")[2]
        return {"unavailable": f"the measuring process ended with {done.returncode}: {last}"}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(source: Source) -> dict[str, Any]:
    """Two passes in this process; bytes.

    Keys: anonymous (added by a pass that holds its books), second_pass and third_pass (added by another one each),
    peak_resident (of the process, files included), live_orders, growths (of the engine's arenas), arenas (their bytes,
    where the engine tells).
    """
    start = _status("RssAnon")
    spine = _pass(source)
    first = _status("RssAnon")
    facts = {"live_orders": int(spine.engine.live_orders), "growths": int(spine.engine.allocations)}
    arenas = getattr(spine.engine, "memory", None)
    if arenas is not None:
        facts["arenas"] = arenas() if callable(arenas) else arenas
    del spine
    later = []
    for _ in range(2):
        spine = _pass(source)
        later.append(_status("RssAnon"))
        del spine
    return {
        "anonymous": first - start,
        "second_pass": later[0] - first,
        "third_pass": later[1] - later[0],
        "peak_resident": _status("VmHWM"),
        **facts,
    }


def _pass(source: Source) -> Spine:
    spine = Spine(source)
    for _ in spine.chunks():
        pass
    return spine


def _status(name: str) -> int:
    """A line of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    asked["inputs"] = tuple(asked["inputs"])
    sys.stdout.write(json.dumps(measure(Source(**asked))) + "\n")
