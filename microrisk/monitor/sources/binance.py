"""Binance spot, USD-M and COIN-M futures: diff depth, trades and best quotes; depth images over REST.

The venue pings every few minutes and ends a connection after 24 hours; both are ordinary here. A stream of a quiet
symbol is silent for long, so that pongs tell whether the connection lives. Not verified against a live venue.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from microrisk.errors import UsageError
from microrisk.feed.binance_messages import market_of
from microrisk.monitor.sources.websocket import WebsocketSource, number_after

_AS_USUAL = re.compile(rb'"e":"depthUpdate","E":\d+,(?:"T":\d+,)?"s":"([^"]{1,64})","U":(\d+)')
"""A depth update in the order in which the venue writes it: one search instead of three."""
_DEPTH = re.compile(rb'"e":\s*"depthUpdate"')
_SYMBOL = re.compile(rb'"s":\s*"([^"]{1,64})"')
HEAD = 512


class Market(NamedTuple):
    """URLs, path of depth images, deepest image, stream of trades, prefix of a REST host that tells the market."""

    url: str
    rest: str
    path: str
    limit: int
    trades: str
    prefix: str


MARKETS = {
    "spot": Market("wss://stream.binance.com:9443", "https://api.binance.com", "/api/v3/depth", 5000, "trade", ""),
    "usdm": Market(
        "wss://fstream.binance.com", "https://fapi.binance.com", "/fapi/v1/depth", 1000, "aggTrade", "fapi."
    ),
    "coinm": Market(
        "wss://dstream.binance.com", "https://dapi.binance.com", "/dapi/v1/depth", 1000, "aggTrade", "dapi."
    ),
}


class BinanceSource(WebsocketSource):
    """Any number of symbols (BTCUSDT) of one market.

    Parameters are those of WebsocketSource, and

    market : spot, usdm, coinm
    limit : levels a side of images, 0 = the most that the market gives
    speed : of depth updates, "@100ms" or "" for the market's slower default
    """

    venue = "binance"

    def __init__(self, *args: Any, market: str = "spot", limit: int = 0, speed: str = "@100ms", **options: Any) -> None:
        super().__init__(*args, **options)
        if market not in MARKETS:
            raise UsageError(f"market = {market!r}: {', '.join(MARKETS)} are known")
        self.market = MARKETS[market]
        self.url, self.rest = self.url or self.market.url, self.rest or self.market.rest
        self.limit, self._speed = limit or self.market.limit, speed

    def _spelled(self, name: str) -> str:
        name = name.upper()
        symbol = name.removesuffix("-PERP")
        return symbol.replace("-", "_")

    def _target(self) -> str:
        streams = (f"depth{self._speed}", self.market.trades, "bookTicker")
        return f"{self.url}/stream?streams=" + "/".join(f"{n.lower()}@{s}" for n in self.names for s in streams)

    def _told_url(self, url: str) -> str:
        """The decoder tells the market by the host: another host of futures is told with the market's prefix."""
        if self.market.prefix and not market_of(url):
            return url.replace("://", f"://{self.market.prefix}", 1)
        return url

    def _heard(self, body: bytes) -> None:
        head = body[:HEAD]
        if usual := _AS_USUAL.search(head):
            self._mark(usual[1].decode("ascii", "replace"), int(usual[2]))
        elif _DEPTH.search(head) and (symbol := _SYMBOL.search(head)):
            first = number_after(b"U", head)
            if first is not None:
                self._mark(symbol[1].decode("ascii", "replace"), first)

    async def _fetch(self, name: str) -> None:
        url = f"{self.rest}{self.market.path}?symbol={name}&limit={self.limit}"
        # spot: the first update's U may be one above the image, futures: it may not
        await self._rest_image(name, url, b"lastUpdateId", slack=0 if self.market.prefix else 1)
