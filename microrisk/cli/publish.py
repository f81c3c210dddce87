"""publish: recordings and generated markets as live feeds, with faults."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from microrisk.cli.console import Exit, progress, register, say, say_json
from microrisk.cli.read import PLAIN, Json, Reading
from microrisk.monitor.publishing import Form, Publishing, What, Where, Wrongs

NOWHERE, PLAINLY, NOTHING = Where(), What(), Wrongs()
Flat = Parameter(name="*")


def publish(
    inputs: Annotated[list[Path] | None, Parameter(help="Recordings; none = a generated market.")] = None,
    /,
    *,
    as_: Annotated[Form, Parameter(name="--as")],
    where: Annotated[Where, Flat] = NOWHERE,
    what: Annotated[What, Flat] = PLAINLY,
    wrongs: Annotated[Wrongs, Flat] = NOTHING,
    reading: Reading = PLAIN,
    json: Json = False,
) -> int:
    """Play recordings, or a generated market, as a live feed that misbehaves on command.

    Everything listens and sends on this machine alone unless an address says otherwise. Ctrl-C ends it in order. With
    --json the first line on stdout has the addresses in use, the last one a summary.

    Parameters
    ----------
    as_
        Transport and venue.
    """
    from microrisk.monitor.publish.job import publish as run

    given = {name: getattr(reading, name) for name in ("format", "date", "venue")}
    given["snapshot"] = None if reading.snapshot is None else str(reading.snapshot)
    told = Publishing(as_, tuple(map(str, inputs or ())), given, where, what, wrongs)
    with _terminated_as_interrupted(), progress("publish") as bar:
        summary = run(told, _say_json_now if json else _say_ready, bar)
    if json:
        say_json(summary)
    else:
        _say_summary(summary)
    return Exit.OK


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Asked to end, a publisher says its summary as after Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say_json_now(value: dict[str, Any]) -> None:
    say_json(value)
    sys.stdout.flush()


def _say_ready(value: dict[str, Any]) -> None:
    for name, address in value["addresses"].items():
        say(f"{value['as']} {name}: {address}")
    sys.stdout.flush()


def _say_summary(summary: dict[str, Any]) -> None:
    for title in ("counts", "faults"):
        words = ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in summary[title].items())
        say(f"{title}: {words or 'none'}")
    say(f"{summary['seconds']:.1f} s{' (interrupted)' if summary['interrupted'] else ''}")


EXAMPLES: dict[Callable[..., int], tuple[str, ...]] = {
    publish: (
        "microrisk publish day.itch.gz --as moldudp64 --to 239.1.1.1:26400 --to-b 239.1.1.2:26400 --loss 0.01 --seed 1",
        "microrisk publish day.itch.gz --as soupbintcp --port 9000 --rate 5000",
        "microrisk publish --as kraken --products BTC/USD,ETH/USD --rate 500 --corrupt 1000",
        "microrisk publish messages.json.gz --snapshot level3.json.gz --as coinbase --speed 4 --drop 100,200",
        "microrisk publish BINANCE.ws.1.0.gz --as binance --refuse 3 --retry-after 2 --json",
    ),
}


def add_to(app: App) -> None:
    """Register this command with its examples."""
    for command, lines in EXAMPLES.items():
        register(app, command, lines)
