"""Bitstamp: changed levels or single orders with an image over REST, or the images of the best 100; and trades.

The channels have no numbers, so nothing in the stream shows a loss: an image is fetched every `check_s` as well, and
takes the place of the book where levels make it. `bts:request_reconnect` ends the connection at once. Not verified
against a live venue.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Any

from websockets.asyncio.client import ClientConnection

from microrisk.errors import UsageError
from microrisk.feed.bitstamp_messages import BOOKS, DETAIL, DIFF, ORDERS, TOP
from microrisk.monitor.sources.websocket import LostError, WebsocketSource, json_text, number_after

CHECK_S = 60.0
_CHANNEL_OF = {c: re.compile(rb'"channel":\s*"' + c.encode() + rb'_([a-z0-9-]+)"') for c in BOOKS}
_RECONNECT = re.compile(rb'"event":\s*"bts:request_reconnect"')
_DATA = re.compile(rb'"event":\s*"(data|order_\w+)"')


class BitstampSource(WebsocketSource):
    """Any number of pairs (btcusd) over one channel.

    Parameters are those of WebsocketSource, and

    channel : diff_order_book, live_orders, order_book or detail_order_book
    check_s : between two images of each pair, 0 = only when one is needed
    """

    venue = "bitstamp"
    default_url = "wss://ws.bitstamp.net"
    default_rest = "https://www.bitstamp.net"

    def __init__(self, *args: Any, channel: str = DIFF, check_s: float = CHECK_S, **options: Any) -> None:
        super().__init__(*args, **options)
        if channel not in BOOKS:
            raise UsageError(f"channel = {channel!r}: {', '.join(BOOKS)} are known")
        self.channel, self.check_s = channel, check_s
        self.images_in_stream = channel in (TOP, DETAIL)

    def _spelled(self, name: str) -> str:
        return name.lower().replace("/", "").replace("-", "")

    def _greetings(self) -> list[tuple[str, str]]:
        # live orders tell their trades themselves
        prefixes = [self.channel] if self.channel == ORDERS else [self.channel, "live_trades"]
        texts = [
            json_text({"event": "bts:subscribe", "data": {"channel": f"{p}_{name}"}})
            for name in self.names
            for p in prefixes
        ]
        return [(t, t) for t in texts]

    def _heard(self, body: bytes) -> None:
        if _RECONNECT.search(body[:256]):
            raise LostError("the venue asks to reconnect")
        found = _CHANNEL_OF[self.channel].search(body)
        if found is None or not _DATA.search(body):
            return
        name = found[1].decode()
        if self.images_in_stream:
            self._arrived(name)
        elif (micros := number_after(b"microtimestamp", body)) is not None:
            self._mark(name, micros)

    async def _read(self, ws: ClientConnection) -> None:
        checking = asyncio.create_task(self._check())
        try:
            await super()._read(ws)
        finally:
            checking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await checking

    async def _check(self) -> None:
        """Images from time to time."""
        while self.check_s > 0 and not self.images_in_stream:
            await asyncio.sleep(self.check_s)
            for name in self.names:
                self.images.want(name)

    async def _fetch(self, name: str) -> None:
        if self.images_in_stream:
            texts = [
                json_text({"event": f"bts:{verb}", "data": {"channel": f"{self.channel}_{name}"}})
                for verb in ("unsubscribe", "subscribe")
            ]
            await self._stream_image(name, *((t, t) for t in texts))
            return
        group = 2 if self.channel == ORDERS else 1
        await self._rest_image(name, f"{self.rest}/api/v2/order_book/{name}/?group={group}", b"microtimestamp")
