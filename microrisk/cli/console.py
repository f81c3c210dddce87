"""What every command shares: logs and progress on stderr, one JSON object on stdout, errors to exit codes."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any

from cyclopts import App

from microrisk import errors


class Exit(IntEnum):
    """Exit codes of the command line."""

    OK = 0
    ALERT = 1
    USAGE = 2
    DATA = 3


USAGE_ERRORS = (errors.UsageError, errors.ModelNotFound, errors.BackendUnavailable, errors.EvaluationError)
"""The request was wrong; every other MicroriskError is about data."""


def _log() -> Any:
    """Lines for people on a terminal, JSON lines with a time otherwise; always stderr. Imported when first needed."""
    import structlog

    people = sys.stderr.isatty()
    stamp: list[Any] = [] if people else [structlog.processors.TimeStamper(fmt="iso", utc=True)]
    last: Any = structlog.dev.ConsoleRenderer() if people else structlog.processors.JSONRenderer()
    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr), processors=[structlog.processors.add_log_level, *stamp, last]
    )


def narrate(text: str) -> None:
    """What a long command is doing, as a log line."""
    _log().info(text)


def say(text: str = "") -> None:
    """One line of a result, on stdout."""
    sys.stdout.write(text + "\n")


def tell(text: str) -> None:
    """One line beside the result, on stderr."""
    sys.stderr.write(text + "\n")


def say_json(value: dict[str, Any]) -> None:
    """The one JSON object of a command."""
    say(json.dumps(value, ensure_ascii=False, allow_nan=False))


def register(app: App, command: Callable[..., int], examples: tuple[str, ...]) -> None:
    """Add a command; its examples are the last lines of its help."""
    app.command(command, help_epilogue=as_epilogue(examples))


def as_epilogue(examples: tuple[str, ...]) -> str:
    """Examples as the last lines of a help."""
    return "\n".join(("Examples:", *(f"  {line}" for line in examples)))


def table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """A table on stdout, as wide as the terminal, whole when there is none."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    grid = Table(title=title, title_justify="left", show_edge=False)
    for name in columns:
        grid.add_column(name, overflow="fold")
    for row in rows:
        grid.add_row(*(escape(str(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(grid)


@contextlib.contextmanager
def progress(label: str) -> Iterator[Callable[[float, int], None] | None]:
    """A bar on stderr while work goes on; None, and nothing printed, when stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn(label),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[n]}"),
    )
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task(label, total=1.0, n="")
        yield lambda fraction, count: bar.update(task, completed=fraction, n=f"{count:,}")


def guarded(run: Callable[[], int], *, as_json: bool) -> int:
    """Run a command; an error of ours becomes one line on stderr (and the JSON object) and its exit code."""
    try:
        return int(run())
    except errors.MicroriskError as error:
        code = Exit.USAGE if isinstance(error, USAGE_ERRORS) else Exit.DATA
        tell(f"microrisk: {error}")
        if as_json:
            say_json({"error": str(error), "kind": type(error).__name__, "exit": int(code)})
        return int(code)
    except KeyboardInterrupt:
        tell("microrisk: interrupted")
        return 130
