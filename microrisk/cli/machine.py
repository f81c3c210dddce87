"""Commands about this machine and this program: demo, bench, doctor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from microrisk.cli.bench_view import say_bench, say_live
from microrisk.cli.console import Exit, as_epilogue, narrate, progress, register, say, say_json, table, tell
from microrisk.cli.read import PLAIN, Json, Reading


def demo(
    *,
    out: Path = Path("microrisk-demo"),
    seed: int = 1,
    minutes: float = 30.0,
    model: str | None = None,
    open_: Annotated[bool, Parameter(name="--open", negative="")] = False,
    serve: Annotated[bool, Parameter(negative="")] = False,
    port: int = 8765,
    json: Json = False,
) -> int:
    """Simulate a market with planted trouble, read it back as exchange bytes, score it, write a report.

    Parameters
    ----------
    out
        Folder for the bytes, the rows and report.html.
    seed
        Of the market.
    minutes
        Length of the session.
    model
        A name of the registry or a folder.
    open_
        Show the report in a browser.
    serve
        Instead of a report, play the market as a live feed, with two scripted venues, and serve the dashboard.
    port
        Of the dashboard; 0 takes a free one.
    """
    if serve:
        return _serve(out, seed, min(minutes, SERVED_MINUTES), model, port, show=open_, json=json)
    from microrisk.evaluate.demo import demo as run

    result = run(out, seed=seed, minutes=minutes, model=model, say=narrate)
    if json:
        say_json(result.to_json())
    else:
        _say_demo(result)
    if open_:
        import webbrowser

        webbrowser.open(Path(result.report).resolve().as_uri())
    return Exit.OK


SERVED_MINUTES = 15.0
"""Market minutes of one round of the live demo."""


def _serve(out: Path, seed: int, minutes: float, model: str | None, port: int, *, show: bool, json: bool) -> int:
    """The live demo, until Ctrl-C."""
    from microrisk.cli.monitor import plain_config, run_service
    from microrisk.monitor.demo import demo_sources
    from microrisk.monitor.service import Service, Settings

    with demo_sources(out, seed=seed, minutes=minutes, say=narrate) as sources:
        service = Service(sources, Settings(model=model))
        return run_service(service, plain_config(port=port), seconds=None, json=json, show=show)


def _say_demo(result: Any) -> None:
    cells = [
        [e["kind"], e["instrument"], e["at"], "found" if e["found"] else "missed", e["after"], e["head"]]
        for e in result.episodes
    ]
    table("planted episodes", ["kind", "instrument", "at", "", "after", "head"], cells)
    say(f"{result.found} of {len(result.episodes)} found, {result.false_alarms} alarms without an episode "
        f"in {result.hours:.2f} h of market time")  # fmt: skip
    say(f"report: {Path(result.report).resolve()}")
    say()
    for who, command in result.next_commands.items():
        say(f"{who:<26} {command}")


def doctor(*, json: Json = False) -> int:
    """Say what is installed, which back ends run here, and why the others do not."""
    from microrisk.pipeline.install import doctor as run

    facts = run()
    if json:
        say_json(facts)
    else:
        _say_doctor(facts)
    for problem in facts["problems"]:
        tell(f"microrisk: {problem}")
    return Exit.DATA if facts["problems"] else Exit.OK


def _say_doctor(facts: dict[str, Any]) -> None:
    say(f"microrisk {facts['version']}, Python {facts['python']}, {facts['platform']}, {facts['cores']} cores")
    e = facts["extension"]
    say(f"extension: {e['file']} (records {e['abi_hash']}, expected {e['expected']})")
    n = facts["numba_cache"]
    say(f"kernels: {n['compiled']} compiled in {n['folder']}{'' if n['writable'] else ', not writable'}")
    say(f"registry: {facts['models']['registry']}; recordings: {facts['recordings'] or 'MICRORISK_DATA is not set'}")
    optional = facts["optional"]
    cells = [[name, v or "-", optional.get(name, "")] for name, v in facts["packages"].items()]
    table("packages", ["name", "version", "for"], cells)
    runs = [[s["name"], s["unavailable"] or "runs here", s["source"]] for s in facts["scorers"]]
    table("back ends", ["name", "state", "from"], runs)
    found = [
        ["*" if m["current"] else "", m["name"], m["problem"] or "ok", m["path"]] for m in facts["models"]["found"]
    ]
    table("models", ["", "name", "state", "folder"], found)


def bench(
    *,
    input_: Annotated[
        list[Path] | None, Parameter(name="--input", negative="", help="A recording of your own; may be repeated.")
    ] = None,
    reading: Reading = PLAIN,
    model: str | None = None,
    repeats: int = 3,
    messages: int | None = None,
    paced_seconds: float = 4.0,
    rivals: Annotated[bool, Parameter(negative="--no-rivals")] = True,
    json: Json = False,
) -> int:
    """Measure each stage on this machine, beside the rivals that are installed, over a generated stream or your own.

    Every contender runs once in each round; a figure is the median of the rounds. Answers (resting orders, best prices
    at the end) are compared where a rival has one. Compressed input is unpacked once, into the folder for temporary
    files (TMPDIR).

    Parameters
    ----------
    model
        Whose heads are timed; the speed does not depend on it.
    repeats
        Rounds, behind a first one that is not counted.
    messages
        Only the first so many of an ITCH file.
    paced_seconds
        Length of each paced replay (10, 50 and 90 % of capacity, with and without scoring); 0 = none.
    rivals
        Whether other packages take part.
    """
    from microrisk.pipeline.bench import bench as run

    source = reading.source(input_ or [])
    with progress("bench") as bar:
        result = run(
            source, model=model, repeats=repeats, messages=messages, paced_seconds=paced_seconds, rivals=rivals,
            progress=bar,
        )  # fmt: skip
    for line in (*result["notices"], *(f"answers differ: {d}" for d in result["disagreements"])):
        tell(f"notice: {line}")
    if json:
        say_json(result)
    else:
        say_bench(result)
    return Exit.OK


def live(
    *,
    input_: Annotated[
        list[Path] | None, Parameter(name="--input", negative="", help="A recording of your own; may be repeated.")
    ] = None,
    rate: float | None = None,
    seconds: float = 8.0,
    feeds: int = 46,
    scored: int = 200,
    spin: bool = False,
    cpu: int = -1,
    json: Json = False,
) -> int:
    """Measure the monitor under load: packet received to books, to score, to alert, stage by stage.

    Sends ITCH messages as MoldUDP64 over loopback from a process of its own, finds the highest rate at which nothing is
    dropped (about a minute and a half), and reports latency at 10, 50 and 90 % of it. The sender does not wait for the
    receiver, so that a receiver that falls behind is charged for what waits.

    Parameters
    ----------
    rate
        Messages a second over all feeds: measure at this rate alone.
    seconds
        Length of each run.
    feeds
        MoldUDP64 feeds; each sends the input from its beginning.
    scored
        Instruments scored at most; books are kept of all.
    spin
        Wait for packets without sleeping: a whole core, for latency.
    cpu
        Core that the engine's thread is kept on; -1 = the system chooses.
    """
    from microrisk.monitor.rated import Plan, bench_live

    plan = Plan(path=Path(), seconds=seconds, feeds=feeds, scored=scored, spin=spin, cpu=cpu)
    with progress("bench live") as bar:
        result = bench_live(input_ or [], plan, rate=rate, progress=bar)
    if json:
        say_json(result)
    else:
        say_live(result)
    return Exit.OK


EXAMPLES: dict[Callable[..., int], tuple[str, ...]] = {
    demo: (
        "microrisk demo",
        "microrisk demo --seed 7 --out /tmp/demo --open",
    ),
    bench: (
        "microrisk bench",
        "microrisk bench --input 12302019.NASDAQ_ITCH50.gz --messages 20000000",
        "microrisk bench --input day.itch --repeats 5 --json",
    ),
    doctor: (
        "microrisk doctor",
        "microrisk doctor --json",
    ),
}


LIVE = (
    "microrisk bench live",
    "microrisk bench live --rate 300000 --seconds 30 --spin --cpu 1",
    "microrisk bench live --input 12302019.NASDAQ_ITCH50.gz --json",
)


def add_to(app: App) -> None:
    """Register these commands with their examples."""
    for command, lines in EXAMPLES.items():
        if command is bench:
            group = App(name="bench", help_format="plaintext", help_epilogue=as_epilogue((*lines, *LIVE)))
            group.default(bench)
            register(group, live, LIVE)
            app.command(group)
        else:
            register(app, command, lines)
