"""Runs every fuzz target for a while, several at once; with --write also the record that the README quotes.

`python tests/fuzz/record.py --seconds 60 [--jobs 2] [--write] [--targets decode,book]`

With any clang++: libFuzzer with ASan and UBSan. Without one: says so and runs the driver of the other compiler over the
kept inputs and seeded mutations of them. --write minimises the corpora into cpp/fuzz/corpus and tests/fuzz/corpus,
measures the branch coverage of what is kept, and writes benchmarks/recorded/fuzz.json (rows of targets that did not
run stay as they are). The exit code is 1 when a
target crashed, timed out, or differed from its twin; the inputs lie in build/fuzz-findings.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TARGETS = ("decode", "book", "path", "live")
EDGE = "edge"
KEPT = ROOT / "cpp" / "fuzz" / "corpus"
KEPT_EDGE = ROOT / "tests" / "fuzz" / "corpus"
WORK = ROOT / "build" / "fuzz-corpus"
FINDINGS = ROOT / "build" / "fuzz-findings"
RECORD = ROOT / "benchmarks" / "recorded" / "fuzz.json"
LIMITS = {
    "decode": ["-max_len=4096", "-timeout=25", "-rss_limit_mb=2048", f"-dict={ROOT}/cpp/fuzz/decode.dict"],
    "book": ["-max_len=1500", "-timeout=25", "-rss_limit_mb=2048"],
    "path": ["-max_len=3000", "-timeout=25", "-rss_limit_mb=2048"],
    "live": ["-max_len=2000", "-timeout=25", "-rss_limit_mb=2048"],
    # atheris keeps 1.6 KB of every input, 3 GB in half an hour; the surfaces alone stay at 0.1 GB over 10^5 inputs
    EDGE: ["-max_len=400", "-timeout=20", "-rss_limit_mb=5120"],
}
SANITIZERS = {"ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:malloc_context_size=6"}
MAX_KEPT = 75_000
"""Bytes of one kept corpus."""
MEASURED = {
    "decoders": ("itch.cpp", "iex.cpp", "capture.cpp"),
    "book": ("book.cpp", "actions.cpp", "engine.cpp"),
    "path": ("itch_run.cpp", "sinks.cpp"),
    "live": ("arbiter.cpp", "live.cpp", "journal.cpp"),
}
_REPORT = re.compile(r"ERROR: AddressSanitizer|runtime error:|DIFFERENCE|ERROR: libFuzzer|Uncaught Python exception")


def newest(tool: str) -> str | None:
    """Path of `tool` or of the newest `tool-N`."""
    if found := shutil.which(tool):
        return found
    names = {p.name for d in os.get_exec_path() if Path(d).is_dir() for p in Path(d).glob(f"{tool}-*")}
    numbered = [(int(m[1]), n) for n in names if (m := re.fullmatch(re.escape(tool) + r"-(\d+)", n))]
    return shutil.which(max(numbered)[1]) if numbered else None


def say(text: str) -> None:
    print(text, flush=True)


# -- building --------------------------------------------------------------------------------------------------------


def build(folder: Path, clang: str | None, *options: str) -> Path:
    """Configure and build the targets; a folder that was built before is brought up to date."""
    configure = ["cmake", "-S", str(ROOT), "-B", str(folder), "-DCMAKE_BUILD_TYPE=RelWithDebInfo", *options]
    configure += [f"-DCMAKE_CXX_COMPILER={clang}"] if clang else []
    for command in (configure, ["cmake", "--build", str(folder), "--target", "fuzz", f"-j{os.cpu_count() or 1}"]):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / "cpp" / "fuzz"


# -- running ---------------------------------------------------------------------------------------------------------


def kept(target: str) -> Path:
    return (KEPT_EDGE if target == EDGE else KEPT) / ("" if target == EDGE else target)


def command_of(target: str, binaries: Path) -> list[str]:
    if target == EDGE:
        return [sys.executable, str(ROOT / "tests" / "fuzz" / "run_atheris.py")]
    return [str(binaries / f"fuzz_{target}")]


def fuzz(target: str, binaries: Path, seconds: int, seed: int = 0) -> dict[str, Any]:
    """Run one target; returns its row of the record. `seed` 0: another one each time."""
    work = WORK / target
    for folder in (work, FINDINGS, kept(target)):
        folder.mkdir(parents=True, exist_ok=True)
    prefix = FINDINGS / f"{target}-"
    flags = [
        f"-seed={seed}",
        f"-max_total_time={seconds}",
        "-print_final_stats=1",
        f"-artifact_prefix={prefix}",
        *LIMITS[target],
    ]
    log = FINDINGS / f"{target}.log"
    env = os.environ | SANITIZERS
    with log.open("w") as out:
        done = subprocess.run(
            [*command_of(target, binaries), *flags, str(work), str(kept(target))],
            stdout=out, stderr=subprocess.STDOUT, env=env, check=False,
        )  # fmt: skip
    text = log.read_text(errors="replace")
    row = {"seconds": seconds, **_statistics(text), "exit": done.returncode, "reports": len(_REPORT.findall(text))}
    say(f"{target}: {row['executions']:,} inputs, {row['per_second']}/s, {row['reports']} reports")
    if done.returncode:
        say("\n".join(text.splitlines()[-30:]))
    return row


def _statistics(text: str) -> dict[str, int]:
    def stat(name: str) -> int:
        found = re.search(rf"stat::{name}:\s+(\d+)", text)
        return int(found[1]) if found else 0

    return {
        "executions": stat("number_of_executed_units"),
        "per_second": stat("average_exec_per_sec"),
        "peak_rss_mb": stat("peak_rss_mb"),
        "slowest_s": stat("slowest_unit_time_sec"),
    }


def replay(binaries: Path, targets: list[str]) -> int:
    """Without clang: the driver of the other compiler over what is kept, and seeded mutations of it."""
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        for target in targets:
            command = [str(binaries / f"fuzz_{target}"), "--rounds", "3000", str(kept(target))]
            failed += subprocess.run(command, cwd=scratch, check=False).returncode != 0
            if failed and (last := Path(scratch) / "last-input.bin").exists():
                FINDINGS.mkdir(parents=True, exist_ok=True)
                shutil.copy(last, FINDINGS / f"{target}-last-input.bin")
    return failed


# -- keeping ---------------------------------------------------------------------------------------------------------


def minimise(target: str, binaries: Path) -> None:
    """Keep the smallest inputs that reach every edge any known input reaches, up to MAX_KEPT bytes."""
    kept(target).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        merge = ["-merge=1", "-use_counters=0", *LIMITS[target], scratch, str(kept(target)), str(WORK / target)]
        env = os.environ | SANITIZERS
        subprocess.run([*command_of(target, binaries), *merge], check=True, env=env, capture_output=True)
        chosen, size = [], 0
        for path in sorted(Path(scratch).iterdir(), key=lambda p: (p.stat().st_size, p.name)):
            size += path.stat().st_size
            if size <= MAX_KEPT:
                chosen.append((path.name, path.read_bytes()))
    for old in kept(target).iterdir():
        if re.fullmatch(r"[0-9a-f]{40}", old.name):
            old.unlink()
    for name, content in chosen:
        (kept(target) / name).write_bytes(content)
    say(f"{target}: {len(chosen)} inputs of {min(size, MAX_KEPT):,} bytes kept")


def coverage(clang: str) -> dict[str, Any]:
    """Branch coverage of the kept inputs, by file: source-based, of the plain build."""
    profdata, cov = newest("llvm-profdata"), newest("llvm-cov")
    if profdata is None or cov is None:
        say("llvm-profdata or llvm-cov is missing (Debian: apt-get install llvm): no coverage measured")
        return {}
    binaries = build(ROOT / "build" / "fuzz-coverage", clang, "-DMICRORISK_COVERAGE=ON")
    with tempfile.TemporaryDirectory() as scratch:
        for target in TARGETS:
            env = os.environ | {"LLVM_PROFILE_FILE": f"{scratch}/{target}.profraw"}
            subprocess.run([binaries / f"fuzz_{target}", kept(target)], env=env, check=True, capture_output=True)
        profile = f"{scratch}/all.profdata"
        subprocess.run([profdata, "merge", *Path(scratch).glob("*.profraw"), "-o", profile], check=True)
        objects = [f"-object={binaries / f'fuzz_{t}'}" for t in TARGETS[1:]]
        command = [cov, "export", "-summary-only", f"-instr-profile={profile}", str(binaries / "fuzz_decode"), *objects]
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    files = {Path(f["filename"]).name: f["summary"] for f in found["data"][0]["files"] if "/cpp/src/" in f["filename"]}
    return {group: _group(files, names) for group, names in MEASURED.items()}


def _group(files: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    total = {"covered": 0, "count": 0}
    out: dict[str, Any] = {}
    for name in names:
        if name in files:
            branches, lines = files[name]["branches"], files[name]["lines"]
            out[name] = {"branches": round(branches["percent"], 2), "lines": round(lines["percent"], 2)}
            total = {k: total[k] + branches[k] for k in total}
    return {"branches": round(100 * total["covered"] / max(1, total["count"]), 2), "files": out}


def write(rows: dict[str, Any], clang: str) -> None:
    version = subprocess.run([clang, "--version"], check=True, capture_output=True, text=True).stdout.splitlines()[0]
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=False, capture_output=True, text=True).stdout
    for target, row in rows.items():
        files = [p for p in kept(target).iterdir() if p.is_file()]
        row |= {"kept_files": len(files), "kept_bytes": sum(p.stat().st_size for p in files)}
        row |= {"date": today, "commit": commit.strip()}
    old = json.loads(RECORD.read_text())["targets"] if RECORD.exists() else {}
    record = {"compiler": version, "cpus": os.cpu_count(), "targets": old | rows, "coverage": coverage(clang)}
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    say(json.dumps(record["coverage"]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--targets", default=",".join((*TARGETS, EDGE)))
    parser.add_argument("--seed", type=int, default=0, help="0: another one each time")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    targets = args.targets.split(",")
    clang = newest("clang++")
    if EDGE in targets and importlib.util.find_spec("atheris") is None:
        say("MISSING: atheris (pip install atheris); the Python edge is not fuzzed, its kept inputs run with the tests")
        targets.remove(EDGE)
    if clang is None:
        say("MISSING: clang++ (Debian: apt-get install clang llvm); kept inputs and seeded mutations only")
        return replay(build(ROOT / "build" / "fuzz", None, "-DMICRORISK_FUZZ=ON"), [t for t in targets if t != EDGE])
    binaries = build(ROOT / "build" / "fuzz-clang", clang, "-DMICRORISK_FUZZ=ON")
    subprocess.run([sys.executable, str(ROOT / "tests" / "fuzz" / "seeds.py"), str(WORK)], check=True)
    with ThreadPoolExecutor(args.jobs) as pool:
        rows = dict(zip(targets, pool.map(lambda t: fuzz(t, binaries, args.seconds, args.seed), targets), strict=True))
    if args.write:
        for target in targets:
            minimise(target, binaries)
        write(rows, clang)
    return int(any(row["exit"] or row["reports"] for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
