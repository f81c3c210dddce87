"""Coinbase Exchange: the `full` channel (single orders, images over REST) or level2 (images in the stream).

`full` and `level2` want a key of the venue, `level2_batch` (level2 every 50 ms) is public. Keys come from the
environment or a 0600 file, one line KEY:SECRET:PASSPHRASE, go into the subscription that is sent, and never into the
record of it. Heartbeats come once
a second: three seconds of silence are a dead connection. Not verified against a live venue.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from microrisk.errors import UsageError
from microrisk.monitor.keys import is_loopback
from microrisk.monitor.secret import Secret
from microrisk.monitor.sources.websocket import LostError, WebsocketSource, json_text, number_after

FULL, LEVEL2 = "full", "level2"
CHANNELS = (FULL, LEVEL2, "level2_batch")
SIGNED_PATH = "/users/self/verify"
_PRODUCT = re.compile(rb'"product_id":\s*"([^"]{1,64})"')
_SNAPSHOT = re.compile(rb'"type":\s*"snapshot"')
_ERROR = re.compile(rb'^\{"type":\s*"error"')
HEAD = 256


class Keys(NamedTuple):
    """Of an API key with the right to view."""

    key: Secret
    secret: Secret
    passphrase: Secret

    @classmethod
    def parse(cls, line: Secret) -> Keys:
        """Of one line KEY:SECRET:PASSPHRASE; a passphrase may hold colons.

        Raises
        ------
        UsageError : a part is missing, or the secret is not base64; nothing of the line is told
        """
        parts = line.reveal().split(":", 2)
        if len(parts) != 3 or not all(parts):
            raise UsageError(f"{line.origin}: keys of Coinbase are one line KEY:SECRET:PASSPHRASE")
        keys = cls(*(Secret(part, line.origin) for part in parts))
        keys.signature(0.0)
        return keys

    def signature(self, now_s: float) -> dict[str, str]:
        """Members of a signed subscription.

        Raises
        ------
        UsageError : the secret is not base64; it is not told
        """
        stamp = f"{now_s:.3f}"
        try:
            secret = base64.b64decode(self.secret.reveal(), validate=True)
        except (binascii.Error, ValueError):
            raise UsageError("the secret of the Coinbase key is not base64") from None
        digest = hmac.new(secret, f"{stamp}GET{SIGNED_PATH}".encode(), hashlib.sha256).digest()
        own = {"key": self.key.reveal(), "passphrase": self.passphrase.reveal(), "timestamp": stamp}
        return own | {"signature": base64.b64encode(digest).decode()}


class CoinbaseSource(WebsocketSource):
    """Any number of products (BTC-USD) over one channel.

    Parameters are those of WebsocketSource, and

    channel : full, level2 or level2_batch
    keys : None = the subscription is not signed
    """

    venue = "coinbase"
    default_url = "wss://ws-feed.exchange.coinbase.com"
    default_rest = "https://api.exchange.coinbase.com"
    usual_idle_s = 3.0
    always_speaks = True

    def __init__(self, *args: Any, channel: str = FULL, keys: Keys | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        if channel not in CHANNELS:
            raise UsageError(f"channel = {channel!r}: {', '.join(CHANNELS)} are known")
        if keys is not None and (at := urlsplit(self.url)).scheme == "ws" and not is_loopback(at.hostname or ""):
            raise UsageError(f"keys of Coinbase are not sent to {self.url} in the clear: give a wss:// address")
        self.channel, self._keys = channel, keys
        self.images_in_stream = channel != FULL

    def _spelled(self, name: str) -> str:
        return name.upper()

    def _greetings(self) -> list[tuple[str, str]]:
        beside = ["heartbeat"] if self.channel == FULL else ["matches", "ticker", "heartbeat"]
        return [self._request("subscribe", self.names, [self.channel, *beside])]

    def _request(self, kind: str, names: Sequence[str], channels: list[str]) -> tuple[str, str]:
        """Text to send, and the same without keys."""
        body: dict[str, Any] = {"type": kind, "product_ids": list(names), "channels": channels}
        signed = body | self._keys.signature(time.time()) if self._keys else body
        return json_text(signed), json_text(body)

    def _heard(self, body: bytes) -> None:
        head = body[:HEAD]
        if _ERROR.search(head):
            raise LostError(f"the venue refuses: {body[:200].decode('utf-8', 'replace')}")
        product = _PRODUCT.search(body[: 4 * HEAD])
        if product is None:
            return
        name = product[1].decode("ascii", "replace")
        if self.channel != FULL:
            if _SNAPSHOT.search(head):
                self._arrived(name)
        elif (sequence := number_after(b"sequence", body)) is not None:
            self._mark(name, sequence)

    async def _fetch(self, name: str) -> None:
        if self.channel == FULL:
            await self._rest_image(name, f"{self.rest}/products/{name}/book?level=3", b"sequence", slack=1)
            return
        off = self._request("unsubscribe", [name], [self.channel])
        on = self._request("subscribe", [name], [self.channel])
        await self._stream_image(name, off, on)
