"""evaluate: the harness on simulated sessions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from microrisk.cli.console import Exit, narrate, register, say_json
from microrisk.cli.read import Json


def evaluate(
    *,
    model: str | None = None,
    sessions: int = 4,
    minutes: float = 30.0,
    seed: int = 0,
    forest: Annotated[bool, Parameter(negative="--no-forest")] = True,
    out: Path | None = None,
    json: Json = False,
) -> int:
    """Grade the heads beside simple rivals: thresholds from clean sessions, figures from sessions with episodes.

    Parameters
    ----------
    model
        A name of the registry or a folder.
    sessions
        Test sessions, and as many for calibration.
    minutes
        Length of each.
    seed
        Of the sessions; other seeds are other markets.
    forest
        The slow rival (scikit-learn's IsolationForest) takes part.
    out
        The same as --json, as a file.
    """
    from rich.console import Console

    from microrisk.evaluate.sessions import run
    from microrisk.pipeline.sink import replacing
    from microrisk.score.registry import load_model

    result = run(load_model(model), sessions=sessions, minutes=minutes, seed=seed, forest=forest, say=narrate)
    if out is not None:
        with replacing(out) as file:
            file.write(result.to_json().encode())
    if json:
        say_json(result.to_dict())
        return Exit.OK
    console = Console(width=200, highlight=False)
    console.print(result.table())
    for budget in result.settings["budgets_per_hour"]:
        console.print(result.kind_table(budget))
    return Exit.OK


EXAMPLES: dict[Callable[..., int], tuple[str, ...]] = {
    evaluate: (
        "microrisk evaluate",
        "microrisk evaluate --sessions 8 --seed 1 --json --out table.json",
    ),
}


def add_to(app: App) -> None:
    """Register these commands with their examples."""
    for command, lines in EXAMPLES.items():
        register(app, command, lines)
