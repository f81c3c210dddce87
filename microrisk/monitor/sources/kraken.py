"""Kraken websocket v2: books with their checksums, and trades; a book in doubt is subscribed to again, alone.

Not verified against a live venue.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from microrisk.errors import UsageError
from microrisk.feed.kraken_book import DEPTHS
from microrisk.monitor.sources.websocket import WebsocketSource, json_text

_SNAPSHOT = re.compile(rb'"type":\s*"snapshot"')
_SYMBOL = re.compile(rb'"symbol":\s*"([^"]{1,64})"')
_REFUSED = re.compile(rb'"success":\s*false')
HEAD = 256
"""Bytes of a message that say what it is."""


class KrakenSource(WebsocketSource):
    """Books and trades of any number of pairs (BTC/USD).

    Parameters are those of WebsocketSource, and

    depth : levels a side that are subscribed to
    instruments : subscribe to the channel that tells the precision of pairs, too (a message of some 500 KB)
    """

    venue = "kraken"
    default_url = "wss://ws.kraken.com/v2"
    always_speaks = True
    images_in_stream = True

    def __init__(self, *args: Any, depth: int = DEPTHS[0], instruments: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        if depth not in DEPTHS:
            raise UsageError(f"depth = {depth}: Kraken offers {', '.join(map(str, DEPTHS))}")
        self.depth, self._instruments = depth, instruments

    def _spelled(self, name: str) -> str:
        return name.upper().replace("-", "/")

    def _greetings(self) -> list[tuple[str, str]]:
        wishes: list[dict[str, Any]] = [{"channel": "instrument"}] if self._instruments else []
        wishes.append({"channel": "trade", "symbol": list(self.names), "snapshot": False})
        texts = [json_text({"method": "subscribe", "params": w}) for w in wishes]
        texts.append(self._book("subscribe", self.names))
        return [(t, t) for t in texts]

    def _book(self, method: str, names: Sequence[str]) -> str:
        params: dict[str, Any] = {"channel": "book", "symbol": list(names), "depth": self.depth}
        return json_text({"method": method, "params": params | ({"snapshot": True} if method == "subscribe" else {})})

    def _heard(self, body: bytes) -> None:
        head = body[:HEAD]
        if b'"book"' in head and _SNAPSHOT.search(head):
            for symbol in _SYMBOL.findall(body):
                self._arrived(symbol.decode("ascii", "replace"))
        elif _REFUSED.search(head):
            self.counts["refused"] += 1

    async def _fetch(self, name: str) -> None:
        texts = [self._book(method, [name]) for method in ("unsubscribe", "subscribe")]
        await self._stream_image(name, *((t, t) for t in texts))
