"""Commands that read recordings: replay, features, score, convert."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from microrisk.cli.console import Exit, progress, register, say, say_json, table, tell

if TYPE_CHECKING:
    from microrisk.pipeline.spine import Source

Json = Annotated[bool, Parameter(name="--json", negative="", help="One JSON object on stdout, logs on stderr.")]
Inputs = Annotated[list[Path], Parameter(help="Files or folders, in the order they continue each other.")]


@Parameter(name="*")
@dataclass(frozen=True)
class Reading:
    """What the content of a recording cannot say.

    Parameters
    ----------
    format
        itch50, dbn, lobster, coinbase, ... ; recognised from content unless given.
    date
        Session date (YYYY-MM-DD, New York) of a feed that carries only a time of day.
    venue
        Venue of the instruments, for feeds that do not name it.
    snapshot
        Book image in the venue's own form, loaded first.
    """

    format: str | None = None
    date: str | None = None
    venue: str | None = None
    snapshot: Path | None = None

    def source(self, inputs: list[Path]) -> Source:
        """Inputs and options as the pipeline takes them."""
        from microrisk.pipeline.spine import Source

        snapshot = None if self.snapshot is None else str(self.snapshot)
        return Source(tuple(map(str, inputs)), self.format, self.date, self.venue, snapshot)


PLAIN = Reading()


def replay(
    inputs: Inputs,
    /,
    *,
    reading: Reading = PLAIN,
    bbo: Path | None = None,
    book: Path | None = None,
    depth: int = 10,
    every: str = "change",
    trades: Path | None = None,
    events: Path | None = None,
    orders: Path | None = None,
    strict: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> int:
    """Rebuild the books of recordings and check them.

    Parameters
    ----------
    bbo
        Parquet of every change of the best price or size.
    book
        Parquet of every change of the first --depth levels.
    depth
        Levels a side of --book.
    every
        When --book has a row: change, or a time such as 100ms, 1s, 250us (the state at its multiples, if it changed).
    trades
        Parquet of every trade.
    events
        Parquet of every order event, with the side, price and size that the book knew.
    orders
        Parquet of the orders that rest at the end.
    strict
        Exit with 3 when a hard count (gap, malformed, crossed, ...) is not zero.
    """
    from microrisk.cli.durations import every as every_ns
    from microrisk.pipeline import replay as run

    source, ns = reading.source(inputs), every_ns(every)
    with progress("replay") as bar:
        result = run(
            source, bbo=bbo, book=book, depth=depth, every_ns=ns, trades=trades, events=events, orders=orders,
            progress=bar,
        )  # fmt: skip
    _integrity(result)
    if json:
        say_json(result.to_json())
    else:
        _say_replay(result)
    return result.strict_exit_code() if strict else result.exit_code()


def _say_replay(result: Any) -> None:
    say(f"{result.format}: {result.messages:,} messages, {result.events:,} book events, {result.live_orders:,} resting")
    say(f"{result.seconds:.2f} s, {result.messages_per_second / 1e6:.2f} M messages/s, state {result.state_hash}")
    shown = [[i["id"], i["tick"], i["lot"]] for i in result.instruments[:20]]
    table(f"{len(result.instruments)} instruments", ["instrument", "tick", "lot"], shown)


def _integrity(result: Any) -> None:
    """Notices, the counts that are not zero, and the first findings, all on stderr."""
    for notice in result.notices:
        tell(f"notice: {notice}")
    counts = ", ".join(f"{k} {v:,}" for k, v in result.integrity.items() if v)
    tell(f"integrity: {counts or 'nothing found'}")
    for f in result.findings[:5]:
        what = ", ".join(f"{k} {f[k]}" for k in ("order", "px", "qty", "ts_event") if f[k] is not None)
        place = "" if f["seq"] is None else f" at sequence {f['seq']}"
        tell(f"  {f['kind']} in {f['instrument'] or 'the feed'}{place}: {what}")
    if result.error is not None:
        tell(f"microrisk: the input broke off: {result.error}")


def features(
    inputs: Annotated[list[Path] | None, Parameter(help="Files or folders.")] = None,
    /,
    *,
    reading: Reading = PLAIN,
    model: str | None = None,
    out: Path | None = None,
    raw: Annotated[bool, Parameter(negative="")] = False,
    list_: Annotated[bool, Parameter(name="--list", negative="")] = False,
    json: Json = False,
) -> int:
    """Write the 32 feature codes of every event, or list what the features are.

    Parameters
    ----------
    model
        Whose tables turn features into codes: a name of the registry or a folder (else the promoted one, else default).
    out
        Parquet to write.
    raw
        Add the integer features before the tables, columns <name>_raw.
    list_
        The table of features; nothing is read.
    """
    from microrisk.errors import UsageError

    if list_:
        return _list_features(json)
    if not inputs or out is None:
        raise UsageError("features needs an input and --out FILE, or --list")
    from microrisk.pipeline import features as run

    with progress("features") as bar:
        result = run(reading.source(inputs), model=model, out=out, raw=raw, progress=bar)
    _integrity(result)
    if json:
        say_json(result.to_json())
    else:
        say(f"{result.rows:,} rows of {result.messages:,} messages in {result.seconds:.2f} s -> {out}")
    return result.exit_code()


def _list_features(json: bool) -> int:
    from microrisk.spec.features import FEATURES

    if json:
        rows = [
            {"index": f.index, "name": f.name, "formula": f.formula, "needs": sorted(f.needs), "source": f.source}
            for f in FEATURES
        ]
        say_json({"features": rows})
    else:
        cells = [[f.index, f.name, f.formula, " ".join(sorted(f.needs)), f.source] for f in FEATURES]
        table("features", ["#", "name", "formula", "needs", "source"], cells)
    return Exit.OK


def score(
    inputs: Inputs,
    /,
    *,
    reading: Reading = PLAIN,
    model: str | None = None,
    backend: Literal["auto", "cpu", "cuda", "reference", "rtl", "fpga"] = "auto",
    check_every: int | None = None,
    deadline: float | None = None,
    out: Path | None = None,
    ticks: Annotated[bool, Parameter(negative="")] = False,
    fail_on: float | None = None,
    json: Json = False,
) -> int:
    """Score every event and raise alerts.

    Parameters
    ----------
    model
        A name of the registry or a folder (else the promoted one, else default).
    backend
        Who computes the heads; all give the same numbers.
    check_every
        One row in so many is computed again by the reference, where a back end beside the engine computes (default 61).
    deadline
        Seconds in which such a back end must answer a batch (default 10; fpga 120, rtl 1800).
    out
        Parquet of one row an event.
    ticks
        Rows for staleness ticks too.
    fail_on
        Exit with 1 when an alert's tail probability is below this.
    """
    from microrisk.pipeline import score as run

    with progress("score") as bar:
        result = run(
            reading.source(inputs), model=model, backend=backend, check_every=check_every, deadline=deadline, out=out,
            ticks=ticks, fail_on=fail_on, progress=bar,
        )  # fmt: skip
    _integrity(result)
    for line in result.marks():
        tell(line)
    if json:
        say_json(result.to_json())
    else:
        _say_score(result)
    return result.exit_code()


def _say_score(result: Any) -> None:
    say(f"{result.rows:,} rows by {result.backend} in {result.seconds:.2f} s, model {result.model['name']}")
    cells = [[head, n, f"{result.alerts_per_hour[head]:.2f}"] for head, n in result.alerts.items()]
    table(f"alerts in {result.hours:.2f} h of market time", ["head", "alerts", "an hour"], cells)


def convert(
    inputs: Inputs,
    /,
    *,
    to: Literal["itch50", "lobster", "parquet", "nautilus", "hftbacktest"],
    out: Path,
    types: str = "bbo,trades,events",
    depth: int = 10,
    every: str = "change",
    reading: Reading = PLAIN,
    json: Json = False,
) -> int:
    """Turn a recording into another format.

    Parameters
    ----------
    to
        itch50 (one file), lobster (a folder), parquet (a catalog data/<type>/<INSTRUMENT.VENUE>/...), nautilus (the
        catalog of nautilus_trader), hftbacktest (an .npz an instrument).
    out
        File or folder to write.
    types
        Of a parquet catalog: some of bbo, trades, events, book.
    depth
        Levels a side of its book.
    every
        When its book has a row: change, or a time such as 100ms.
    """
    from microrisk.cli.durations import every as every_ns
    from microrisk.pipeline.interchange import Shape
    from microrisk.pipeline.interchange import convert as run

    shape = Shape(tuple(types.split(",")), depth, every_ns(every))
    with progress("convert") as bar:
        result = run(reading.source(inputs), to=to, out=out, shape=shape, progress=bar)
    _integrity(result)
    if json:
        say_json(result.to_json())
    else:
        for path, rows in result.files.items():
            say(f"{path}: {rows:,}")
    return result.exit_code()


EXAMPLES: dict[Callable[..., int], tuple[str, ...]] = {
    replay: (
        "microrisk replay day.itch.gz --bbo bbo.parquet --trades trades.parquet",
        "microrisk replay day.itch.gz --book depth.parquet --depth 10 --every 100ms",
        "microrisk replay messages.json.gz --snapshot level3.json.gz --orders orders.parquet",
        "microrisk replay esh4.mbo.dbn.zst --strict --json",
    ),
    features: (
        "microrisk features --list",
        "microrisk features day.itch.gz --out codes.parquet",
    ),
    score: (
        "microrisk score day.itch.gz --out scores.parquet",
        "microrisk score day.dbn.zst --fail-on 1e-5 --json",
    ),
    convert: (
        "microrisk convert messages.json.gz --snapshot level3.json.gz --to itch50 --out btc.itch",
        "microrisk convert messages.json.gz --snapshot level3.json.gz --to nautilus --out catalog/",
        "microrisk convert day.itch.gz --to parquet --types bbo,book --depth 5 --every 1s --out catalog/",
    ),
}


def add_to(app: App) -> None:
    """Register these commands with their examples."""
    for command, lines in EXAMPLES.items():
        register(app, command, lines)
