"""Bytes of exchange feeds to EVENT arrays: one module a feed, one door (`open_feed`)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from microrisk.errors import FeedError, UsageError
from microrisk.feed.base import Feed, Instrument
from microrisk.feed.open import Source, find_sources
from microrisk.feed.recognise import BOOK, FORMATS, LOBSTER_IMAGE, recognise

__all__ = ["DECODERS", "FORMATS", "Feed", "Instrument", "open_feed"]

DECODERS = {
    "itch50": "microrisk.feed.itch",
    "dbn": "microrisk.feed.dbn",
    "lobster": "microrisk.feed.lobster",
    "coinbase": "microrisk.feed.coinbase",
    "iex": "microrisk.feed.iex",
    "kraken": "microrisk.feed.kraken",
    "binance": "microrisk.feed.binance",
    "bitstamp": "microrisk.feed.bitstamp",
    "bybit": "microrisk.feed.bybit",
    "cryptofeed": "microrisk.feed.cryptofeed",
    "tardis": "microrisk.feed.tardis",
}
"""Format -> module with `open_sources(sources, *, date, venue, snapshot)`; imported when asked for."""

_A_BOOK = "a book image, not a message feed: give the messages as input and the image as --snapshot"


def open_feed(
    inputs: Sequence[str | Path],
    *,
    format: str | None = None,
    date: str | None = None,
    venue: str | None = None,
    snapshot: str | Path | None = None,
) -> Feed:
    """Open recordings as one feed.

    Parameters
    ----------
    inputs : files that continue each other, in order; plain, gzip, xz, zip or zstd, or a folder
    format : one of FORMATS, None = told by the content
    date : session date (New York) of feeds that carry only a time of day; None = from the file name
    venue : venue of the instruments instead of the format's own
    snapshot : book image in the venue's own form, loaded before the messages

    Raises
    ------
    UsageError : missing file, unknown format, a format without a decoder, inputs of different formats
    FeedError : unreadable or empty input
    """
    if format is not None and format not in FORMATS:
        raise UsageError(f"unknown format {format!r}; known are {', '.join(FORMATS)}")
    sources = find_sources(inputs)
    given = {Path(i) for i in inputs}
    kinds = [(source, recognise(source)) for source in sources]
    name = format or _format_of(kinds)
    if name not in DECODERS:
        raise UsageError(f"{name} is a known format, but there is no decoder for it yet; there is one for {_listed()}")
    chosen, notices = _choose(kinds, given, name)
    module = import_module(DECODERS[name])
    feed: Feed = module.open_sources(
        chosen, date=date, venue=venue, snapshot=None if snapshot is None else _snapshot(snapshot)
    )
    feed.notices[:0] = notices
    return feed


def _listed() -> str:
    return ", ".join(sorted(DECODERS))


def _snapshot(path: str | Path) -> Source:
    found = find_sources([path])
    if len(found) != 1:
        raise UsageError(f"the snapshot must be one file: {path}")
    return found[0]


def _family(kind: str | None) -> str | None:
    return "lobster" if kind == LOBSTER_IMAGE else kind


def _format_of(kinds: Sequence[tuple[Source, str | None]]) -> str:
    """The one format of the inputs."""
    found = {_family(kind): source for source, kind in reversed(kinds) if kind not in (None, BOOK)}
    if len(found) > 1:
        each = ", ".join(f"{source.label} is {kind}" for kind, source in found.items())
        raise UsageError(f"inputs of different formats cannot be one feed: {each}")
    if found:
        return str(next(iter(found)))
    source, kind = kinds[0]
    if kind == BOOK:
        raise UsageError(f"{source.label} is {_A_BOOK}")
    if not source.head(4096).strip(b" \t\r\n[]{}"):
        raise FeedError("the input is empty", path=source.label)
    raise UsageError(f"the format of {source.label} is not known; name one with --format: {', '.join(FORMATS)}")


def _choose(kinds: Sequence[tuple[Source, str | None]], given: set[Path], name: str) -> tuple[list[Source], list[str]]:
    """The sources to read; what only lies in the same folder or zip file is left out, with a notice."""
    fits = [(source, _family(kind) == name) for source, kind in kinds]
    if not any(ok for _, ok in fits):
        return [source for source, _ in kinds], []
    chosen = [source for source, ok in fits if ok or (source.member is None and source.path in given)]
    left = [source.name for source, _ in kinds if source not in chosen]
    books = [s.label for s, kind in kinds if kind == BOOK and s in chosen]
    if books:
        raise UsageError(f"{books[0]} is {_A_BOOK}")
    return chosen, [f"left out, not {name}: {', '.join(left)}"] if left else []
