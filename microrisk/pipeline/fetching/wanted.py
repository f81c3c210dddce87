"""From the words of the command to the file that is wanted: where it may lie, and its name here."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urljoin, urlsplit

import msgspec

from microrisk.errors import FetchError, UsageError
from microrisk.spec import samples
from microrisk.spec.samples import Sample

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
Text = Callable[[str], str]
"""Gets a small text file."""


@dataclass(frozen=True)
class Choice:
    """What the options of the command say; each belongs to one sample."""

    market: str = "spot"
    type: str = "aggTrades"
    feed: str = "deep"
    level: int = 10


@dataclass(frozen=True)
class Wanted:
    """One file.

    Attributes
    ----------
    sample : its source
    urls : where it may lie, tried in order; each with the name that it gets here
    size : bytes that the publisher's index says, None = it says nothing
    readable : a feed of this package reads it
    date : session date to give with the next command, where the name does not say it
    """

    sample: Sample
    urls: tuple[tuple[str, str], ...]
    size: int | None = None
    readable: bool = True

    def sums(self, url: str, name: str) -> list[str]:
        """URLs of the checksum files of one of `urls`."""
        stem = name.rpartition(".")[0]
        return [urljoin(url, t.format(file=name, stem=stem)) for t in self.sample.sums]


def find_wanted(sample: str, words: Sequence[str], choice: Choice, base: str | None, text: Text) -> Wanted:
    """What `fetch SAMPLE WORDS...` asks for.

    `base` replaces the hosts (a mirror with the same paths); `text` is called for an index only (IEX).
    Raises UsageError for words that cannot be meant, FetchError when the index has no such file.
    """
    if sample not in samples.SAMPLES:
        raise UsageError(f"no sample {sample!r}; there are {', '.join(samples.SAMPLES)}: see `fetch --list`")
    known = samples.SAMPLES[sample]
    hosts = (base.rstrip("/"),) if base else known.hosts
    if sample == "nasdaq":
        return _nasdaq(known, words, hosts)
    if sample == "lobster":
        return _lobster(known, words, choice, hosts)
    if sample == "binance":
        return _binance(known, words, choice, hosts)
    return _iex(known, words, choice, hosts[0], text)


def _words(sample: Sample, words: Sequence[str], count: int) -> Sequence[str]:
    if len(words) != count:
        raise UsageError(f"fetch {sample.name}: {count} word(s) after the name: {sample.usage}")
    return words


def _day(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"date {text!r} is not of the form YYYY-MM-DD") from None


def safe_name(text: str) -> str:
    """A file name without a folder, unchanged; FetchError for anything that is not one."""
    if not _SAFE.fullmatch(text):
        raise FetchError(f"the name {text[:80]!r} cannot be a file name here")
    return text


def _made(sample: Sample, hosts: Sequence[str], readable: bool = True, **values: object) -> Wanted:
    urls = [host + path.format(**values) for host in hosts for path in sample.paths]
    named = tuple((url, safe_name(unquote(urlsplit(url).path.rpartition("/")[2]))) for url in urls)
    return Wanted(sample, named, readable=readable)


def _nasdaq(sample: Sample, words: Sequence[str], hosts: Sequence[str]) -> Wanted:
    day = _day(_words(sample, words, 1)[0])
    return _made(sample, hosts, mmddyyyy=f"{day:%m%d%Y}", mmddyy=f"{day:%m%d%y}")


def _lobster(sample: Sample, words: Sequence[str], choice: Choice, hosts: Sequence[str]) -> Wanted:
    symbol = _words(sample, words, 1)[0].upper()
    if symbol not in samples.LOBSTER_SYMBOLS:
        raise UsageError(f"LOBSTER has samples of {', '.join(samples.LOBSTER_SYMBOLS)}, none of {symbol!r}")
    if choice.level not in samples.LOBSTER_LEVELS:
        raise UsageError(f"--level {choice.level}: samples have {', '.join(map(str, samples.LOBSTER_LEVELS))} levels")
    return _made(sample, hosts, symbol=symbol, level=choice.level)


def _binance(sample: Sample, words: Sequence[str], choice: Choice, hosts: Sequence[str]) -> Wanted:
    symbol, date = _words(sample, words, 2)
    if not re.fullmatch(r"[A-Z0-9]{2,30}(_[A-Z0-9]{1,10})?", symbol.upper()):
        raise UsageError(f"{symbol!r} is no Binance symbol")
    if choice.market not in samples.BINANCE_MARKETS:
        raise UsageError(f"--market {choice.market!r}: one of {', '.join(samples.BINANCE_MARKETS)}")
    types = samples.BINANCE_TYPES[choice.market]
    if choice.type not in types:
        raise UsageError(f"--type {choice.type!r}: {choice.market} has {', '.join(types)}")
    monthly = re.fullmatch(r"\d{4}-\d\d", date) is not None
    _day(f"{date}-01" if monthly else date)
    return _made(
        sample,
        hosts,
        market=samples.BINANCE_MARKETS[choice.market],
        period="monthly" if monthly else "daily",
        type=choice.type,
        symbol=symbol.upper(),
        date=date,
        readable=choice.type in ("aggTrades", "trades"),
    )


class _Entry(msgspec.Struct):
    """A file in the index of IEX; numbers come as text."""

    link: str
    date: str
    feed: str
    version: str
    protocol: str
    size: str = "0"


def _iex(sample: Sample, words: Sequence[str], choice: Choice, host: str, text: Text) -> Wanted:
    day = _day(_words(sample, words, 1)[0])
    if choice.feed not in samples.IEX_FEEDS:
        raise UsageError(f"--feed {choice.feed!r}: one of {', '.join(samples.IEX_FEEDS)}")
    feed = samples.IEX_FEEDS[choice.feed]
    url = host + sample.paths[0].format(yyyymmdd=f"{day:%Y%m%d}")
    entries = [e for e in _index(text(url), url) if e.feed == feed and e.date == f"{day:%Y%m%d}"]
    if not entries:
        raise FetchError(f"{url}: no {feed} on {day}; the index covers trading days since 2016-12-12")
    newest = max(entries, key=lambda e: [int(n) for n in re.findall(r"\d+", e.version)])
    # the name is made here: nothing that the index says becomes part of a path before it was looked at
    ending = "pcap.gz" if urlsplit(newest.link).path.endswith(".gz") else "pcap"
    name = safe_name(f"{newest.date}_{newest.protocol}_{newest.feed}{newest.version}.{ending}")
    size = int(newest.size) if newest.size.isascii() and newest.size.isdigit() else 0
    return Wanted(sample, ((urljoin(url, newest.link), name),), size or None, readable=choice.feed != "dpls")


def _index(body: str, url: str) -> list[_Entry]:
    """Entries of the index; a day without any answers with an empty list or the text "Not Found"."""
    try:
        found = msgspec.json.decode(body.encode(), type=list[_Entry] | dict[str, list[_Entry]] | str)
    except msgspec.DecodeError as error:
        raise FetchError(f"{url}: not the index that was expected ({error})") from error
    if isinstance(found, dict):
        return [entry for entries in found.values() for entry in entries]
    return found if isinstance(found, list) else []
