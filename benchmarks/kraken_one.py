"""The generated market in the words of Kraken's websocket API v1, which the rival `cryptofeed` speaks.

Served by the project's own player of v1 recordings: subscriptions, images and checksums are those of the recordings.
"""

from __future__ import annotations

from typing import Any

from benchmarks.venue_rig import Heard, Venue
from microrisk.monitor.publish.kraken import KrakenMarket, KrakenPlayer, checksum
from microrisk.monitor.publish.market_text import TextMarket
from microrisk.monitor.publish.order_text import ASK, BID, OrderBook
from microrisk.monitor.publish.venue import json_text

DEPTH = 10
NS_PER_MICRO = 1000


class KrakenOne(KrakenMarket):
    """Deeds of the market as v1 book updates of depth 10; each level carries the time of its deed in microseconds."""

    def __init__(self, market: TextMarket) -> None:
        super().__init__(market)
        self.channels = {name: 336 + k for k, name in enumerate(market.books)}

    def image(self, pair: str, channel: str) -> str:  # type: ignore[override]
        """The snapshot of a pair, as KrakenPlayer asks for it."""
        book = self.market.books[pair]
        return self._message("snapshot", book, {s: book.side(s).levels(DEPTH) for s in (BID, ASK)}, self.market.now_ns)

    def _message(self, kind: str, book: OrderBook, rows: dict[int, list[tuple[int, int]]], ts_ns: int) -> str:
        micros = ts_ns // NS_PER_MICRO
        when = f"{micros // 1_000_000}.{micros % 1_000_000:06d}"
        bids, asks = ([[book.px_text(p), book.qty_text(q), when] for p, q in rows[s]] for s in (BID, ASK))
        if kind == "snapshot":
            parts: list[dict[str, Any]] = [{"as": asks, "bs": bids}]
        else:
            parts = [{key: side} for key, side in (("a", asks), ("b", bids)) if side]
            tops = [[(book.px_text(p), book.qty_text(q)) for p, q in book.side(s).levels(10)] for s in (ASK, BID)]
            parts[-1]["c"] = str(checksum(*tops))
        return json_text([self.channels[book.name], *parts, f"book-{DEPTH}", book.name])


def number_of(parts: list[dict[str, Any]]) -> int:
    """Time of the newest level of a message, ns: what a book of this channel is as new as."""
    times = [row[2] for part in parts for side in part.values() if isinstance(side, list) for row in side]
    whole, _, micros = max(times).partition(".")
    return (int(whole) * 1_000_000 + int(micros)) * NS_PER_MICRO


def _heard(m: Any, url: str) -> Heard:
    return (m[-1], number_of(m[1:-2])) if isinstance(m, list) else None


KRAKEN_ONE = Venue(
    "kraken", "{}/USD", KrakenOne, KrakenPlayer, "", f"book-{DEPTH}", _heard, "", rest=False, depth=DEPTH
)
