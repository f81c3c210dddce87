"""Commands about configuration: config check."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from microrisk.cli.console import Exit, register, say, say_json, table
from microrisk.cli.read import Json

config = App(name="config", help="The configuration of the monitor: check.", help_format="plaintext")

Set = Annotated[
    list[str] | None,
    Parameter(name="--set", negative="", help="SECTION.KEY=VALUE, such as monitor.port=9000; may be repeated."),
]
ConfigFile = Annotated[
    Path | None, Parameter(name="--config", help="feeds.toml; else the file that MICRORISK_CONFIG names, if any.")
]


EXAMPLES = ("microrisk config check --config feeds.toml", "microrisk config check coinbase:BTC-USD --json")


def check(*sources: str, config: ConfigFile = None, set_: Set = None, json: Json = False) -> int:
    """The effective configuration: each value and where it came from; no secret is shown.

    Whatever is wrong is said with its file, line and remedy (exit code 2). Nothing is connected to.

    Parameters
    ----------
    sources
        Addresses, as for `microrisk monitor`.
    """
    from microrisk.monitor.config import load, parse_sets

    found = load(config, environ=os.environ, flags=parse_sets(set_ or []), sources=sources).describe()
    if json:
        say_json(found)
    else:
        _say(found)
    return Exit.OK


def _say(found: dict[str, Any]) -> None:
    cells = [[key, _cell(v["value"]), v["origin"]] for key, v in found["values"].items()]
    table(found["file"] or "no file", ["key", "value", "from"], cells)
    for feed in found["feeds"]:
        say()
        given = [[key, origin] for key, origin in feed["origins"].items() if origin != "default"]
        table(f"feed {feed['name']}: {feed['url']}", ["key", "from"], given)


def _cell(value: Any) -> str:
    if value == "" or value == []:
        return "-"
    return str(value).lower() if isinstance(value, bool) else str(value)


def add_to(app: App) -> None:
    """Register these commands."""
    register(config, check, EXAMPLES)
    app.command(config)
