"""Every job that can be run, one session each: `nox -l` is the manual. CI and `make test` call the same sessions."""

from __future__ import annotations

import ast
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "test"]
nox.options.default_venv_backend = "none"  # the Makefile has made .venv; sessions run inside it
ROOT = Path(__file__).parent
RIVALS_LIVE = ("cryptofeed==2.4.1",)  # the newest that installs on Python 3.11
EXPORT_READERS = ("nautilus_trader==1.221.0", "hftbacktest==2.4.4")  # the newest with a wheel for Python 3.11
PYTHON_CODE = ("microrisk", "hdl", "sim", "tests", "benchmarks", "noxfile.py")


@nox.session
def lint(session: nox.Session) -> None:
    """ruff, import floors, clang-format, generated header up to date."""
    session.run("ruff", "check", *PYTHON_CODE)
    session.run("ruff", "format", "--check", *PYTHON_CODE)
    session.run("lint-imports", "--no-cache")
    sources = [str(p) for p in sorted((ROOT / "cpp").rglob("*.?pp")) if p.name != "spec.hpp"]
    session.run("clang-format", "--dry-run", "--Werror", *sources)


@nox.session
def types(session: nox.Session) -> None:
    """mypy strict on the public package."""
    session.run("mypy")


@nox.session
def test(session: nox.Session) -> None:
    """All tests, real recordings included where MICRORISK_DATA says where they are; ends with what was exercised."""
    two = ("-n", "2", "--dist", "loadfile")  # files stay whole: their fixtures are made once
    session.run("python", "-m", "pytest", "-q", "-m", "not slow", *two, *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """Tests too long for every commit: a million vectors through every scorer."""
    session.run("python", "-m", "pytest", "-q", "-m", "slow", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Benchmarks beside their rivals; writes benchmarks/recorded/bench.json, which the README quotes."""
    record = ["--benchmark-json", "benchmarks/recorded/bench.json"]
    args = ["benchmarks", "-q", "--benchmark-only", "-o", "python_files=bench_*.py", *record]
    session.run("python", "-m", "pytest", *args, *session.posargs)
    session.run("python", "-m", "benchmarks.page")


@nox.session
def bench_record(session: nox.Session) -> None:
    """Every large figure beside its rivals, about 50 quiet minutes; writes benchmarks/recorded and the page.

    Posargs name parts: books bbo_path curves memory counts tables latency page.
    """
    parts = {
        "books": ["benchmarks.record_books", "--messages", "40000000"],
        "bbo_path": ["benchmarks.bbo_path", "--messages", "4000000"],
        "curves": ["benchmarks.record_curves"],
        "memory": ["benchmarks.record_memory"],
        "counts": ["benchmarks.counts"],
        "tables": ["benchmarks.bench_tables", "--messages", "40000000", "--save"],
        "latency": ["benchmarks.bench_latency"],
        "page": ["benchmarks.page"],
    }
    for name in session.posargs or parts:
        session.run("python", "-m", *parts[name])


@nox.session
def live_record(session: nox.Session) -> None:
    """The monitor's large figures, about 70 quiet minutes; docs/monitor.md quotes them.

    Posargs name parts: faults kills load shares options slow venues page.
    """
    parts = {
        "faults": ["benchmarks.faults", "--messages", "1000000", "--save"],
        "kills": ["benchmarks.kills", "--kills", "200", "--restarts", "--save"],
        "load": ["benchmarks.bench_live", "--rate", "1000000", "--seconds", "600", "--save"],
        "shares": ["benchmarks.bench_live", "--rate", "1000000", "--seconds", "15", "--shares", "--save"],
        "options": ["benchmarks.bench_live", "--rate", "1000000", "--seconds", "5", "--options", "--save"],
        "slow": ["benchmarks.slow_readers", "--rate", "100000", "--rate", "500000", "--seconds", "60", "--save"],
        "venues": ["benchmarks.venues", "--save"],
        "page": ["benchmarks.page"],
    }
    for name in session.posargs or parts:
        session.run("python", "-m", *parts[name])


@nox.session
def harness(session: nox.Session) -> None:
    """Twelve sessions of each part, seeds apart; writes benchmarks/recorded/harness.json, which the README quotes."""
    session.run("python", "-m", "benchmarks.record_harness")


@nox.session
def fuzz(session: nox.Session) -> None:
    """Decoders, books, the way between them, and the Python edge against hostile input, 60 s each, from one seed."""
    session.run("python", "tests/fuzz/record.py", "--seconds", "60", "--seed", "1", *session.posargs)


@nox.session
def fuzz_long(session: nox.Session) -> None:
    """The same for half an hour each; minimises what is kept, writes benchmarks/recorded/fuzz.json."""
    session.run("python", "tests/fuzz/record.py", "--seconds", "1800", "--write", *session.posargs)


@nox.session
def rtl(session: nox.Session) -> None:
    """Benches of the hardware: units, cores, shell, mutants; `-- --waves` renders one transaction instead."""
    if "--waves" in session.posargs:
        session.run("python", "-m", "sim.waves", *(a for a in session.posargs if a != "--waves"))
        return
    session.run("python", "-m", "pytest", "-q", "-m", "not slow", "tests/hdl", "tests/sim", *session.posargs)


@nox.session
def rtl_long(session: nox.Session) -> None:
    """A million vectors through each core on Verilator; writes sim/recorded/long.json."""
    session.run("python", "-m", "sim.long", *session.posargs)


@nox.session
def formal(session: nox.Session) -> None:
    """Stream rules, credits and the bank switch, by k-induction with two solvers."""
    session.run("python", "-m", "sim.formal", *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Twenty planted off-by-ones; each must be caught by the benches."""
    session.run("python", "-m", "sim.mutants", *session.posargs)


@nox.session
def pnr(session: nox.Session) -> None:
    """Place and route the cores of the README; tens of minutes. Posargs name some (python -m hdl.record -h)."""
    session.run("python", "-m", "hdl.record", *session.posargs)


@nox.session
def exports(session: nox.Session) -> None:
    """Exports opened by the packages they are for, in an environment of their own (their pins are not ours)."""
    home = ROOT / "build" / "exports"
    python = home / "bin" / "python"
    if not python.exists():
        session.run("python", "-m", "venv", str(home))
    session.run(str(python), "-m", "pip", "install", "-q", *EXPORT_READERS, external=True)
    env = {"MICRORISK_EXPORTS_PYTHON": str(python)}
    session.run("python", "-m", "pytest", "-q", "tests/pipeline/test_exports.py", *session.posargs, env=env)


@nox.session
def rivals_live(session: nox.Session) -> None:
    """The monitor beside cryptofeed on the same scripted venues, about 35 quiet minutes.

    cryptofeed lives in an environment of its own, which is made first. Posargs replace `--save`, such as a quick look:
    `--rounds 1 --messages 20000 --seconds 3 --drops 10`.
    """
    home = ROOT / "build" / "rivals"
    python = home / "bin" / "python"
    if not python.exists():
        session.run("python", "-m", "venv", str(home))
    session.run(str(python), "-m", "pip", "install", "-q", *RIVALS_LIVE, external=True)
    session.run("python", "-m", "benchmarks.bench_cryptofeed", *(session.posargs or ["--save"]))


@nox.session
def size(session: nox.Session) -> None:
    """Lines a file and the ten longest functions; looked at in review, no gate."""
    rows = []
    for path in sorted(ROOT.glob("microrisk/**/*.py")):
        text = path.read_text()
        session.log(f"{len(text.splitlines()):5d} {path.relative_to(ROOT)}")
        nodes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)]
        rows += [
            ((n.end_lineno or n.lineno) - n.lineno + 1, f"{path.relative_to(ROOT)}:{n.lineno} {n.name}") for n in nodes
        ]
    for lines, name in sorted(rows, reverse=True)[:10]:
        session.log(f"{lines:5d} {name}")
