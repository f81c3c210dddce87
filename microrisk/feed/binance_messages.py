"""Messages of Binance's market streams and REST depth answers as typed structs: one decode for all streams.

Which market a message belongs to is seen in the message itself, because symbols repeat between markets and any stream
of a futures file may come first: depth updates of futures carry `pu`, their quotes and REST images a time (`T`), and
only spot trades carry `M`. Where a URL tells the market, the URL wins.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

import msgspec

from microrisk.feed.capture import host_of, query_of
from microrisk.spec.units import Side

UpdateId = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Time = Annotated[int, msgspec.Meta(ge=0, le=9_000_000_000_000_000)]
"""Venue time in ms, or in us where that was asked for; up to the year 2255."""
Rows = list[tuple[str, str]]
"""[price, size] a level."""

QUIET = frozenset(
    (
        *("kline", "continuous_kline", "indexPrice_kline", "markPrice_kline"),
        *("24hrTicker", "24hrMiniTicker", "1hTicker", "4hTicker", "1dTicker", "avgPrice"),
        *("markPriceUpdate", "indexPriceUpdate", "forceOrder", "compositeIndex", "contractInfo", "assetIndexUpdate"),
    )
)
"""Events that neither change a book nor trade."""
MICROSECONDS = 9_000_000_000_000
"""Venue times from here on are microseconds: as milliseconds they would lie past the year 2255."""


class Data(msgspec.Struct, gc=False):
    """The fields of depth updates, quotes and trades; a letter means different things in different events."""

    e: str = ""
    s: str = ""
    E: Time = 0
    T: Time | None = None
    U: UpdateId = 0
    u: UpdateId | None = None
    pu: UpdateId | None = None
    b: Rows | str | int | None = None
    a: Rows | str | UpdateId | None = None
    B: str | int | None = None
    A: str | int | None = None
    p: str | None = None
    q: str | int | None = None
    t: UpdateId | None = None
    m: bool | None = None
    M: bool | None = None


class Message(msgspec.Struct, gc=False):
    """What a line holds: a stream's message, a REST image, or an answer to a request."""

    stream: str = ""
    data: Data | list[msgspec.Raw] | None = None
    lastUpdateId: UpdateId | None = None
    bids: Rows = []
    asks: Rows = []
    symbol: str = ""
    E: Time = 0
    T: Time | None = None


_MESSAGE = msgspec.json.Decoder(Message)
_DATA = msgspec.json.Decoder(Data)


class NamesOnly(msgspec.Struct):
    """The symbol of a message that cannot be read otherwise."""

    e: str = ""
    s: str = ""
    pu: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class WrappedNames(msgspec.Struct):
    """The same behind a stream name."""

    data: NamesOnly | None = None


_WRAPPED_NAMES = msgspec.json.Decoder(WrappedNames)


def decode(body: bytes) -> Message:
    """A line's message; one without the stream wrapper gets its `data`, too.

    Raises
    ------
    msgspec.DecodeError : not JSON, or fields of the wrong type
    """
    m = _MESSAGE.decode(body)
    if m.data is None and m.lastUpdateId is None:
        m.data = _DATA.decode(body)
    return m


def depth_symbol(body: bytes) -> tuple[str, bool] | None:
    """Symbol and whether of futures, of a depth update that `decode` refused; None when that much is not there."""
    try:
        data = _WRAPPED_NAMES.decode(body).data
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return (data.s, data.pu is not msgspec.UNSET) if data is not None and data.e == "depthUpdate" else None


def is_futures(d: Data) -> bool:
    """Which market a message of a stream belongs to."""
    if d.e == "depthUpdate":
        return d.pu is not None
    return d.M is None if d.e in ("trade", "aggTrade") else d.T is not None


@lru_cache(maxsize=64)
def market_of(url: str) -> bool | None:
    """Whether a URL is that of futures (True) or spot (False); None when there is no URL."""
    host = host_of(url)
    if not host:
        return None
    return host.startswith(("fstream", "dstream", "fapi", "dapi"))


def symbol_of(url: str) -> str:
    """The symbol that a REST depth request asked for, "" when it does not say."""
    return query_of(url).get("symbol", [""])[0].upper()


def name_of(symbol: str, futures: bool) -> str:
    """Symbol of the instrument: BTCUSDT; perpetual futures BTCUSDT-PERP, BTCUSD-PERP; dated ones BTCUSD-240927."""
    symbol = symbol.upper()
    if "_" in symbol:
        return symbol.replace("_", "-")
    return f"{symbol}-PERP" if futures else symbol


def venue_ns(time: int) -> int:
    """Venue time in ns."""
    return time * (1_000 if time >= MICROSECONDS else 1_000_000)


def resting_side(buyer_is_maker: bool) -> int:
    """Side of the order that a trade met."""
    return int(Side.BID) if buyer_is_maker else int(Side.ASK)
