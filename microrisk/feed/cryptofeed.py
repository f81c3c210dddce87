"""Captures of the cryptofeed project: the wrapping is `capture.py`, the venue is told by the URL in the first line."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from microrisk.errors import UsageError
from microrisk.feed.capture import Capture, host_of
from microrisk.feed.l2 import L2Feed, Product
from microrisk.feed.open import Source

HOSTS = {
    "binance.com": "microrisk.feed.binance",
    "bitstamp.net": "microrisk.feed.bitstamp",
    "bybit.com": "microrisk.feed.bybit",
    "bitfinex.com": "microrisk.feed.bitfinex",
    "bitmex.com": "microrisk.feed.bitmex",
    "deribit.com": "microrisk.feed.deribit",
    "coinbase.com": "microrisk.feed.coinbase_level2",
    "kraken.com": "microrisk.feed.kraken",
}
"""Domain -> module with `open_capture(capture, *, venue, snapshot)`; see l2.py."""


def open_sources(
    sources: Sequence[Source], *, date: str | None, venue: str | None, snapshot: Source | None
) -> L2Feed[Product]:
    """The feed of the venue that the captures come from; `date` is not needed, receive times are full.

    Raises
    ------
    UsageError : captures of several venues, of a venue without a decoder, or without a URL
    """
    found = {url: _module(url) for source in sources if (url := Capture([source], beside=False).url)}
    if not found:
        raise UsageError(f"no URL in the first line of {sources[0].label}: the venue is not known")
    if len(set(found.values())) > 1:
        raise UsageError(f"captures of several venues cannot be one feed: {', '.join(sorted(map(_host, found)))}")
    module = import_module(next(iter(found.values())))
    feed: L2Feed[Product] = module.open_capture(Capture(sources), venue=venue, snapshot=snapshot)
    feed.format = "cryptofeed"
    return feed


def _host(url: str) -> str:
    return host_of(url) or url


def _module(url: str) -> str:
    host = _host(url)
    for domain, module in HOSTS.items():
        if host == domain or host.endswith("." + domain):
            return module
    raise UsageError(f"no decoder for captures of {host}; there is one for {', '.join(sorted(HOSTS))}")
