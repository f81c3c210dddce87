"""convert: a recording in another format, through the same feeds and books as everything else."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from microrisk.errors import EncodeError, UsageError
from microrisk.feed.base import Instrument, midnight_ns
from microrisk.feed.encode import ItchEncoder
from microrisk.feed.scale import Scale, choose_scale
from microrisk.pipeline.catalog import CatalogWriter, Writer, split
from microrisk.pipeline.lobster_out import write_lobster
from microrisk.pipeline.rebuild import Outputs, write_outputs
from microrisk.pipeline.sink import replacing
from microrisk.pipeline.spine import Inputs, Outcome, Progress, Source, Spine
from microrisk.spec.records import Action
from microrisk.spec.units import NS_PER_S

Ints = NDArray[np.int64]
NONE: Ints = np.zeros(0, np.int64)
PRICED = [int(a) for a in (Action.ADD, Action.MODIFY, Action.REPLACE, Action.REDUCE, Action.TRADE)]
"""Actions whose prices and sizes a scale has to hold; a reduction that carries no price has 0."""


@dataclass(frozen=True, kw_only=True)
class ConvertResult(Outcome):
    """What was written: path -> rows or messages."""

    files: dict[str, int]


TYPES = ("bbo", "trades", "events", "book")


@dataclass(frozen=True)
class Shape:
    """What a catalog holds.

    Attributes
    ----------
    types : some of TYPES
    depth : levels a side of `book`
    every_ns : sample `book` at the multiples of this time (type `samples`); None = on change
    """

    types: tuple[str, ...] = ("bbo", "trades", "events")
    depth: int = 10
    every_ns: int | None = None


def convert(
    inputs: Inputs,
    *,
    to: str,
    out: str | Path,
    shape: Shape = Shape(),
    progress: Progress | None = None,
    **options: str | None,
) -> ConvertResult:
    """Write a recording as `to`: "itch50" (one file), "lobster" (a folder), "parquet" (a catalog),
    "nautilus" (that platform's catalog) or "hftbacktest" (an .npz an instrument).

    The books are rebuilt on the way, so `integrity` is that of a replay. Raises UsageError for an unknown target or
    type, EncodeError for an event that the target cannot hold, else as in `replay`.
    """
    writers = {
        "itch50": _to_itch,
        "lobster": _to_lobster,
        "parquet": _to_parquet,
        "nautilus": _to_nautilus,
        "hftbacktest": _to_hftbacktest,
    }
    if to not in writers:
        raise UsageError(f"cannot convert to {to!r}; known are {', '.join(writers)}")
    if wrong := [t for t in shape.types if t not in TYPES]:
        raise UsageError(f"no type {wrong[0]!r}; a catalog has {', '.join(TYPES)}")
    source = Source.of(inputs, **options)
    return writers[to](source, Path(out), progress, shape)


def _to_itch(source: Source, out: Path, progress: Progress | None, _shape: Shape) -> ConvertResult:
    """Three readings: books and checks, the range of prices and sizes (for a scale that loses nothing), the bytes."""
    spine = Spine(source)
    for _ in spine.chunks(progress):
        pass
    first, _ = spine.span()
    day = datetime.fromtimestamp((first or 0) / NS_PER_S, ZoneInfo("America/New_York")).date()
    scales, symbols = _scales(source)
    encoder = ItchEncoder(symbols, scales, midnight_ns=midnight_ns(day))
    feed = source.open()
    with replacing(out) as file:
        for events in feed.events():
            file.write(encoder.encode(events))
        file.write(encoder.end())
        size = file.tell()
    sidecar = encoder.write_sidecar(out)
    outcome = spine.outcome()
    left = ", ".join(f"{k} {v}" for k, v in sorted(encoder.counts.items()) if v)
    outcome["notices"].append(f"session date {day}: read it back with --date {day}; left out or changed: {left or 0}")
    return ConvertResult(**outcome, files={str(out): size, str(sidecar): sidecar.stat().st_size})


def _scales(source: Source) -> tuple[dict[int, Scale], dict[int, str]]:
    """Scale and symbol of every instrument, from all of its order prices and sizes."""
    px: dict[int, Ints] = {}
    qty: dict[int, Ints] = {}
    feed = source.open()
    for events in feed.events():
        sized = events[np.isin(events["action"], PRICED)]
        for index in map(int, np.unique(sized["instrument"])):
            mine = sized[sized["instrument"] == index]
            px[index] = np.union1d(px.get(index, NONE), mine["px"][mine["px"] != 0])
            qty[index] = np.union1d(qty.get(index, NONE), mine["qty"])
    known = feed.instruments()
    scales = {
        i: choose_scale(px[i], qty[i], px_exp=known[i].px_exp, qty_exp=known[i].qty_exp) for i in px if i in known
    }
    return scales, {i: entry.symbol for i, entry in known.items()}


def _to_parquet(source: Source, out: Path, progress: Progress | None, shape: Shape) -> ConvertResult:
    return _by_instrument(source, out, progress, shape, lambda _: CatalogWriter(out))


def _to_nautilus(source: Source, out: Path, progress: Progress | None, _shape: Shape) -> ConvertResult:
    from microrisk.pipeline.nautilus_out import NautilusWriter

    types = Shape(("bbo", "trades", "events"))
    return _by_instrument(source, out, progress, types, lambda spine: NautilusWriter(out, entries(spine)))


def _to_hftbacktest(source: Source, out: Path, progress: Progress | None, _shape: Shape) -> ConvertResult:
    from microrisk.pipeline.hftbacktest_out import HftWriter

    writers: list[HftWriter] = []

    def make(spine: Spine) -> HftWriter:
        writers.append(HftWriter(out, entries(spine)))
        return writers[-1]

    result = _by_instrument(source, out, progress, Shape(("events",)), make)
    result.notices.extend(notice for writer in writers for notice in writer.notices)
    return result


def entries(spine: Spine) -> Callable[[str], Instrument]:
    """Instruments of the spine's feed by their ids."""
    known = {entry.id: entry for entry in spine.feed.instruments().values()}

    def entry(name: str) -> Instrument:
        if name not in known:
            raise EncodeError("instrument", name, "an instrument that the feed has named")
        return known[name]

    return entry


def _by_instrument(
    source: Source, out: Path, progress: Progress | None, shape: Shape, make: Callable[[Spine], Writer]
) -> ConvertResult:
    """By type first, as a replay writes them; then each type by instrument."""
    out.mkdir(parents=True, exist_ok=True)
    files: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix=".types-", dir=out) as folder:
        paths = {kind: Path(folder) / f"{kind}.parquet" for kind in shape.types}
        outputs = Outputs(**paths, depth=shape.depth, every_ns=shape.every_ns)
        outputs.check()
        spine = Spine(source)
        write_outputs(spine, outputs, progress)
        write = make(spine)
        for kind, path in paths.items():
            files |= split(path, "samples" if kind == "book" and shape.every_ns else kind, out, write)
    return ConvertResult(**spine.outcome(), files=files)


def _to_lobster(source: Source, out: Path, progress: Progress | None, _shape: Shape) -> ConvertResult:
    """A LOBSTER source is carried over byte for byte; any other L3 source gets message and orderbook files."""
    from microrisk.feed.lobster import LobsterFeed, export

    spine = Spine(source)
    for _ in spine.chunks(progress):
        pass
    out.mkdir(parents=True, exist_ok=True)
    feed = source.open()
    if isinstance(feed, LobsterFeed):
        files = {str(path): path.stat().st_size for path in export(feed, out)}
    else:
        files = write_lobster(feed, out)
    return ConvertResult(**spine.outcome(), files=files)
