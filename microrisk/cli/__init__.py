"""The command line: wiring only. Every command reads its options, calls one function, and says what came out."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from microrisk.cli import config, fetch, machine, models, monitor, publish, read, work
from microrisk.cli.console import Exit, guarded, tell


def _version() -> str:
    """Of the installed distribution; reading its metadata costs 60 ms that no other command needs."""
    from importlib.metadata import version

    return version("microrisk")


app = App(
    name="microrisk",
    help="Rebuild order books from exchange feeds, score every event, flag microstructure that begins to break.",
    help_format="plaintext",
    version=_version,
    help_epilogue="Exit codes: 0 ok, 1 alerts below the asked level, 2 usage, 3 data integrity. "
    "Results go to stdout, everything else to stderr.",
)
for part in (read, monitor, config, publish, fetch, work, models, machine):
    part.add_to(app)


def main(tokens: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if tokens is None else tokens)
    try:
        command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        tell(f"microrisk: {' '.join(str(error).split())}")
        return int(Exit.USAGE)
    return guarded(lambda: command(*bound.args, **bound.kwargs) or 0, as_json="--json" in words)
