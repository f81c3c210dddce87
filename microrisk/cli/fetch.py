"""fetch: get a public sample."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from microrisk.cli.console import Exit, register, say, say_json, table, tell
from microrisk.cli.read import Json


def fetch(
    sample: Annotated[str | None, Parameter(help="nasdaq, lobster, binance or iex.")] = None,
    /,
    *what: Annotated[str, Parameter(help="Day (YYYY-MM-DD), or symbol, or symbol and day.")],
    out: Path = Path(),
    market: Literal["spot", "um", "cm"] = "spot",
    type_: Annotated[
        Literal["aggTrades", "trades", "bookTicker", "bookDepth", "metrics"],
        Parameter(name="--type", help="Binance: kind of file."),
    ] = "aggTrades",
    feed: Literal["deep", "tops", "dpls"] = "deep",
    level: Literal[1, 5, 10] = 10,
    list_: Annotated[bool, Parameter(name="--list", negative="")] = False,
    base_url: str | None = None,
    timeout: float = 30.0,
    retries: int = 8,
    max_gb: float = 64.0,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> int:
    """Get a public sample: resumed after a break, proved by its checksum, then named.

    A break leaves FILE.part; the same command goes on from there. A wrong checksum leaves FILE.bad. A file that is
    there already is checked and not fetched again. Proxies are taken from https_proxy and no_proxy. The addresses are
    the documented ones; downloading was tested against servers on this machine only, not against the real ones.

    Parameters
    ----------
    out
        Folder.
    market
        Binance: spot, USD-M (um) or COIN-M (cm) futures.
    feed
        IEX: price levels (deep), best prices (tops) or orders (dpls).
    level
        LOBSTER: levels of the book images.
    list_
        What there is, with sizes and terms; nothing is fetched.
    base_url
        A mirror with the same paths, https or on this machine.
    timeout
        Seconds that a silent server is waited for.
    retries
        Failures in a row, without a megabyte of progress, before giving up.
    max_gb
        Largest file.
    dry_run
        Say what would be fetched; only IEX's index is read.
    """
    from microrisk.errors import UsageError

    if list_:
        return _list(json)
    if sample is None:
        raise UsageError("fetch needs the name of a sample, or --list")
    from microrisk.pipeline.fetching import Choice, Limits
    from microrisk.pipeline.fetching import fetch as run

    choice = Choice(market, type_, feed, level)
    limits = Limits(timeout=timeout, retries=retries, largest=int(max_gb * 1e9))
    with _transfer(" ".join((sample, *what))) as bar:
        got = run(sample, what, out, choice=choice, base_url=base_url, limits=limits, dry_run=dry_run, tell=bar)
    for notice in got.notices:
        tell(f"notice: {notice}")
    if json:
        say_json(got.to_json())
    else:
        _say(got)
    return Exit.OK


def _say(got: Any) -> None:
    if got.dry_run:
        say(f"would fetch {' or '.join(got.tried)}")
        say(f"into {got.file}")
    elif got.already:
        say(f"{got.file} is there: {got.bytes:,} bytes, proved by {got.proved_by}")
    else:
        rate = (got.bytes - got.resumed_from) / got.seconds / 1e6 if got.seconds else 0.0
        say(f"{got.file}: {got.bytes:,} bytes in {got.seconds:.1f} s ({rate:.1f} MB/s), proved by {got.proved_by}")
        say(f"sha256 {got.sha256}")
    say(f"terms: {got.terms}")
    for line in got.next:
        say(f"next: {line}")


def _list(json: bool) -> int:
    from microrisk.pipeline.fetching import listed

    rows = listed()
    if json:
        say_json({"samples": rows})
        return Exit.OK
    cells = [[r["usage"], r["what"], r["size"], r["host"], r["terms"]] for r in rows]
    table("public samples", ["fetch", "what", "size", "from", "terms"], cells)
    days = ", ".join(f"{day} ({size / 1e9:.1f} GB)" for day, size in rows[0]["days"].items())
    say(f"Nasdaq days seen in the listing: {days}")
    return Exit.OK


@contextlib.contextmanager
def _transfer(label: str) -> Iterator[Callable[[int, int | None], None] | None]:
    """A bar with size, rate and time left on a terminal; None, and nothing printed, elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


EXAMPLES: dict[Callable[..., int], tuple[str, ...]] = {
    fetch: (
        "microrisk fetch --list",
        "microrisk fetch nasdaq 2019-12-30 --out data",
        "microrisk fetch lobster AMZN --level 10 --out data",
        "microrisk fetch binance BTCUSDT 2024-08-08 --type aggTrades --out data",
        "microrisk fetch iex 2018-01-27 --feed deep --out data",
    ),
}


def add_to(app: App) -> None:
    """Register this command with its examples."""
    for command, lines in EXAMPLES.items():
        register(app, command, lines)
