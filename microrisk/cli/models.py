"""Commands about models: train, models list, models show, models promote."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from microrisk.cli.console import Exit, progress, register, say, say_json, table, tell
from microrisk.cli.read import PLAIN, Inputs, Json, Reading

models = App(name="models", help="The registry of models: list, show, promote.", help_format="plaintext")


@models.command(name="list")
def list_(*, json: Json = False) -> int:
    """Every model of the package and of the registry; * marks the one used when none is named."""
    from microrisk.score.registry import list_models

    entries = list_models()
    if json:
        say_json({"models": [_entry(e) for e in entries]})
        return Exit.OK
    cells = [["*" if e.current else "", e.name, e.origin, e.problem or "ok", e.path] for e in entries]
    table("models", ["", "name", "from", "state", "folder"], cells)
    return Exit.OK


@models.command
def show(model: str | None = None, /, *, json: Json = False) -> int:
    """The card of one model: format hash, data, metrics, calibration."""
    from microrisk.score.registry import show as look

    entry = look(model)
    if json:
        say_json(_entry(entry) | {"card": entry.card})
    else:
        say(f"{entry.name} ({entry.origin}) in {entry.path}")
        say(jsonlib.dumps(entry.card, indent=2, sort_keys=True))
    if entry.problem:
        tell(f"microrisk: {entry.problem}")
        return Exit.DATA
    return Exit.OK


@models.command
def promote(
    model: str,
    /,
    *,
    name: str | None = None,
    replace: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> int:
    """Copy a model folder into the registry and use it from now on.

    Parameters
    ----------
    name
        Its name there; the folder's own unless given.
    replace
        Take the place of a model of that name.
    """
    from microrisk.score.registry import promote as run

    folder = run(model, name, replace=replace)
    if json:
        say_json({"name": folder.name, "path": str(folder)})
    else:
        say(f"{folder.name} is in use: {folder}")
    return Exit.OK


def _entry(e: Any) -> dict[str, Any]:
    return {"name": e.name, "path": str(e.path), "origin": e.origin, "current": e.current, "problem": e.problem}


def train(
    inputs: Inputs,
    /,
    *,
    out: Path,
    reading: Reading = PLAIN,
    model: str | None = None,
    tables_only: Annotated[bool, Parameter(negative="")] = False,
    seed: int = 0,
    json: Json = False,
) -> int:
    """Fit a model, or only the tables of instruments, to recordings.

    The earlier part of the input teaches, the later part sets levels and thresholds.

    Parameters
    ----------
    out
        Model folder to write.
    model
        Whose weights --tables-only keeps (else the promoted one, else default).
    tables_only
        Keep the weights; fit normaliser tables and levels of these instruments.
    seed
        Of everything random.
    """
    from microrisk.pipeline.training import train as run

    with progress("train") as bar:
        result = run(reading.source(inputs), out=out, model=model, tables_only=tables_only, seed=seed, progress=bar)
    for notice in result.notices:
        tell(f"notice: {notice}")
    if json:
        say_json(result.to_json())
        return result.exit_code()
    cells = [[i["id"], i["rows"], i["tick"], i["lot"], i["table"], i["level"]] for i in result.fitted]
    table(f"model {out}", ["instrument", "rows", "tick", "lot", "table", "level"], cells)
    return result.exit_code()


EXAMPLES: dict[Callable[..., int], tuple[str, ...]] = {
    train: (
        "microrisk train monday.itch tuesday.itch --out mymodel",
        "microrisk train btc.json.gz --out mytables --tables-only",
    ),
}


def add_to(app: App) -> None:
    """Register these commands with their examples."""
    for command, lines in EXAMPLES.items():
        register(app, command, lines)
    app.command(models)
