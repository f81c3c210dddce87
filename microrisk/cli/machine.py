"""Commands about this machine and this program: demo, bench, doctor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from microrisk.cli.console import Exit, narrate, register, say, say_json, table, tell
from microrisk.cli.read import Json


def demo(
    *,
    out: Path = Path("microrisk-demo"),
    seed: int = 1,
    minutes: float = 30.0,
    model: str | None = None,
    open_: Annotated[bool, Parameter(name="--open", negative="")] = False,
    serve: Annotated[bool, Parameter(negative="")] = False,
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
        Not in this version: there is no live dashboard yet.
    """
    from microrisk.errors import UsageError

    if serve:
        raise UsageError("--serve: this version has no live dashboard; run `microrisk demo` and open the report")
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
        list[Path] | None, Parameter(name="--input", negative="", help="A recording of your own.")
    ] = None,
    model: str | None = None,
    repeats: int = 3,
    json: Json = False,
) -> int:
    """Measure each stage on this machine, over a generated stream or your own recording.

    Parameters
    ----------
    model
        Whose heads are timed; the speed does not depend on it.
    repeats
        The fastest of these counts.
    """
    from microrisk.pipeline.bench import bench as run

    result = run(tuple(map(str, input_ or ())), model=model, repeats=repeats)
    if json:
        say_json(result)
        return Exit.OK
    say(f"{result['machine']['cpu']}, {result['machine']['cores']} cores; input {result['input']}")
    cells = [[f["stage"], f"{f['millions_per_second']:.2f} M {f['unit']}/s", f"{f['ns_each']:.0f} ns",
              f"{f['items']:,}", f"{f['spread']:.2f}"] for f in result["figures"]]  # fmt: skip
    table("stages (fastest run)", ["stage", "rate", "each", "items", "slowest/fastest"], cells)
    lat = ", ".join(f"{k} {v:,.0f}" for k, v in result["tick_to_alert_ns"].items() if k != "messages")
    say(f"message in memory to alarm decision, ns: {lat}")
    return Exit.OK


EXAMPLES: dict[Callable[..., int], tuple[str, ...]] = {
    demo: (
        "microrisk demo",
        "microrisk demo --seed 7 --out /tmp/demo --open",
    ),
    bench: (
        "microrisk bench",
        "microrisk bench --input day.itch --json",
    ),
    doctor: (
        "microrisk doctor",
        "microrisk doctor --json",
    ),
}


def add_to(app: App) -> None:
    """Register these commands with their examples."""
    for command, lines in EXAMPLES.items():
        register(app, command, lines)
