"""Instructions, cache misses and cache lines a message: python -m benchmarks.counts. Needs valgrind, g++ and cmake.

Counts do not depend on how busy the machine is. Three experiments:

1. Ours, exact: a C++ driver over the engine's library (the same CMake target that the extension links), callgrind
   collecting only the messages behind a fill of 600,000 live orders of 8,000 names. Cache misses are those of its model
   (32 KiB, 8 ways; then 512 KiB, and 32 MiB, 16 ways): no prefetcher, so an upper bound of what a core waits for.
2. Beside the rivals: the packages under Python; the model begins with the fill of 100,000 live orders and counts
   behind it, switched from inside the process.
3. Lines a message: an address trace (lackey) of one call a message. For each message the distinct 64-byte lines
   outside stack and input. A line that more than one message in eight touches is called hot: it stays in the
   first-level cache (the engine's own members, tables of types). The others are cold: whether such a line is near
   depends on when its order, level or book was touched last, so they are what can miss. This is a property of the work
   and not of a cache, so it is taken with 5,000 live orders of 200 names and holds for more of the same structures.

Writes benchmarks/recorded/counts.json.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.daystream import cached_day
from benchmarks.measure import machine, save, say

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "counts"
LINE, STACK = 64, 8 << 20
HOT = 1 / 8
CACHES = {"l2_512k": "524288,8,64", "l3_32m": "33554432,16,64"}
RIVALS = ("microrisk", "itchcpp", "itch-book")


def build() -> Path:
    """The driver, built from the library of the present sources."""
    import pybind11

    options = ["-DCMAKE_BUILD_TYPE=Release", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
    options.append(f"-DPython_EXECUTABLE={sys.executable}")
    for step in (
        ["-S", str(ROOT), "-B", str(BUILD), *options],
        ["--build", str(BUILD), "--target", "microrisk_engine"],
    ):
        subprocess.run(["cmake", *step], check=True, stdout=subprocess.DEVNULL)
    driver = BUILD / "counts"
    flags = ["-O2", "-g1", "-std=c++20", f"-I{ROOT / 'cpp' / 'include'}"]
    source = str(Path(__file__).with_suffix(".cpp"))
    subprocess.run(["g++", *flags, source, str(BUILD / "libmicrorisk_engine.a"), "-o", str(driver)], check=True)
    return driver


def callgrind(command: list[str], last_level: str, *options: str) -> dict[str, int]:
    """Events that callgrind collected: Ir, Dr, Dw, D1mr, D1mw, DLmr, DLmw."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        caches = ["--cache-sim=yes", "--D1=32768,8,64", f"--LL={last_level}"]
        tool = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *caches, *options]
        environment = os.environ | {"PYTHONHASHSEED": "0"}
        done = subprocess.run([*tool, *command], capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        lines = dict(
            x.split(":", 1) for x in out.read_text().splitlines() if x.startswith(("events:", "totals:", "summary:"))
        )
    totals = lines.get("totals", lines.get("summary", ""))
    return dict(zip(lines["events"].split(), map(int, totals.split()), strict=False))


def per_message(events: dict[str, int], messages: int) -> dict[str, float]:
    """Instructions, data references, misses of the first and of the last level."""
    sums = {
        "instructions": events["Ir"],
        "data_references": events["Dr"] + events["Dw"],
        "d1_misses": events["D1mr"] + events["D1mw"],
        "last_level_misses": events["DLmr"] + events["DLmw"],
    }
    return {k: round(v / messages, 3) for k, v in sums.items()}


def exact(driver: Path, messages: int, lifetime: str) -> dict[str, Any]:
    """Experiment 1 on a steady day."""
    path, truth = cached_day(messages=messages, lifetime=lifetime, steady=True)
    command = [str(driver), str(path), str(truth["fill_bytes"]), "whole"]
    found: dict[str, Any] = {"live_orders": truth["live_orders"], "levels": truth["levels"]}
    sizes = CACHES if lifetime == "published" else {"l2_512k": CACHES["l2_512k"]}
    for name, size in sizes.items():
        counted = per_message(
            callgrind(command, size, "--toggle-collect=measured"), truth["messages"] - truth["fill_messages"]
        )
        found |= {f"{name}_misses": counted.pop("last_level_misses"), **counted}
        say(f"counts, {lifetime}, {name}: {counted}")
    return found


def switch() -> Path:
    """A shared library whose `begin` and `collect` talk to callgrind."""
    source, out = BUILD / "switch.c", BUILD / "switch.so"
    source.write_text(
        "#include <valgrind/callgrind.h>\n"
        "void begin(void) { CALLGRIND_START_INSTRUMENTATION; }\n"
        "void collect(void) { CALLGRIND_TOGGLE_COLLECT; }\n"
    )
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", str(source), "-o", str(out)], check=True)
    return out


def beside(messages: int) -> dict[str, Any]:
    """Experiment 2: all engines as packages under Python."""
    path, truth = cached_day(messages=messages, live_orders=100_000, steady=True)
    library, n = switch(), truth["messages"] - truth["fill_messages"]
    found: dict[str, Any] = {}
    for name in RIVALS:
        command = [
            sys.executable,
            "-m",
            "benchmarks.counts_worker",
            name,
            str(path),
            str(truth["fill_bytes"]),
            str(library),
        ]
        events = callgrind(command, CACHES["l3_32m"], "--instr-atstart=no", "--collect-atstart=no")
        found[name] = per_message(events, n)
        say(f"counts, {name}: {found[name]}")
    return {"live_orders": truth["live_orders"], "messages": n, "engines": found}


def trace(driver: Path, path: Path, fill: int) -> Iterator[set[int]]:
    """Lines that each message behind `fill` touches, outside stack and input."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "trace"
        command = [
            "valgrind",
            "--tool=lackey",
            "--trace-mem=yes",
            "--log-fd=2",
            str(driver),
            str(path),
            str(fill),
            "single",
        ]
        with log.open("wb") as out:
            run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            keep = subprocess.Popen(["grep", "-a", "^ "], stdin=run.stderr, stdout=out)
            said = run.communicate()[0] if run.stderr is None else _drain(run)
            keep.wait()
        marker, low, high, stack = (int(x, 16) for x in said.split()[:4])
        yield from _cut(log, marker, (low, high), (stack - STACK, stack + STACK))


def _drain(run: subprocess.Popen[bytes]) -> bytes:
    assert run.stdout is not None
    said = run.stdout.read()
    if run.wait():
        raise RuntimeError("the driver failed under lackey")
    return said


def _cut(log: Path, marker: int, data: tuple[int, int], stack: tuple[int, int]) -> Iterator[set[int]]:
    lines: set[int] | None = None
    with log.open("rb") as f:
        for row in f:
            address = int(row[3:].split(b",")[0], 16)
            if address == marker:
                if lines is not None:
                    yield lines
                lines = set()
            elif lines is not None and not data[0] <= address < data[1] and not stack[0] <= address < stack[1]:
                size = int(row.rsplit(b",", 1)[1])
                lines.update(range(address // LINE, (address + size - 1) // LINE + 1))


def types_behind(path: Path, fill: int) -> list[str]:
    """Type code of each message behind `fill`."""
    data, out = path.read_bytes(), []
    while fill < len(data):
        out.append(chr(data[fill + 2]))
        fill += 2 + int.from_bytes(data[fill : fill + 2], "big")
    return out


def lines(driver: Path, messages: int) -> dict[str, Any]:
    """Experiment 3."""
    path, truth = cached_day(messages=messages, symbols=200, live_orders=5_000, steady=True)
    touched = list(trace(driver, path, truth["fill_bytes"]))
    seen: Counter[int] = Counter()
    for one in touched:
        seen.update(one)
    hot = {line for line, n in seen.items() if n > HOT * len(touched)}
    cold: defaultdict[str, list[int]] = defaultdict(list)
    for code, one in zip(types_behind(path, truth["fill_bytes"]), touched, strict=False):
        cold[code].append(len(one - hot))
    mean = {c: round(sum(v) / len(v), 2) for c, v in sorted(cold.items()) if len(v) > 50}
    every = [n for v in cold.values() for n in v]
    found = {
        "messages": len(touched),
        "hot_lines": len(hot),
        "hot_a_message": round(sum(len(one & hot) for one in touched) / len(touched), 2),
        "cold_a_message": round(sum(every) / len(every), 2),
        "cold_by_type": mean,
    }
    say(f"lines: {found}")
    return found


def main() -> None:
    """Parse the command line and write the record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.counts", description="Counts by valgrind.")
    parser.add_argument("--messages", type=lambda text: int(float(text)), default=200_000)
    parser.add_argument("--traced", type=int, default=5_000)
    parser.add_argument("--without-rivals", action="store_true")
    asked = parser.parse_args()
    found: dict[str, Any] = {"machine": machine(), "model": {"d1": "32 KiB, 8 ways", **CACHES}}
    found["valgrind"] = subprocess.run(
        ["valgrind", "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    driver = build()
    found["exact"] = {life: exact(driver, asked.messages, life) for life in ("published", "short", "long")}
    found["lines"] = lines(driver, asked.traced)
    if not asked.without_rivals:
        found["rivals"] = {n: version(n) for n in RIVALS[1:]}
        found["beside"] = beside(asked.messages)
    say(str(save("counts", " ".join(["python -m benchmarks.counts", *sys.argv[1:]]), found)))


if __name__ == "__main__":
    main()
