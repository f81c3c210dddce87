"""A scripted venue in a process of its own, its messages ready before they are asked for: the client sets the pace.

Handshake, subscriptions and images are those of `microrisk publish`; what follows them is written to the socket as
frames that were made before, so that the venue costs next to nothing while it is measured. Commands come as lines on
stdin, each is answered by a line of JSON: `prime` (deeds until the client has an image of every book), `go` (everything
that is left), `end` (the market's own books).

    python -m benchmarks.venue_tape --venue "Binance spot" --messages 100000 --rate 2000 --stamps FILE
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kraken_one import KRAKEN_ONE
from benchmarks.venue_rig import BASES, VENUES, Venue, market_levels
from microrisk.monitor.publish import Host, Product, TextMarket

TAPED = {name: VENUES[name] for name in ("Binance spot", "Binance futures", "Kraken v2", "Bitstamp")} | {
    "Kraken v1": KRAKEN_ONE
}
PRIMERS = 2000
"""Deeds before the tape at most."""
CHUNK = 256
ROOM = 1 << 20
"""Bytes that may wait in the socket's buffer before the tape waits."""


def products(venue: Venue, n: int) -> tuple[str, ...]:
    """Names of the first so many books, as the venue writes them."""
    return tuple(venue.name.format(b.lower() if venue.scheme == "bitstamp" else b) for b in BASES[:n])


def market(names: tuple[str, ...], seed: int) -> TextMarket:
    """The market of a tape: the same seed, the same deeds."""
    return TextMarket([Product(p, 2, 6, 60_000_00 + 1000 * k) for k, p in enumerate(names)], seed)


def frame(text: str) -> bytes:
    """A websocket frame of a server."""
    body = text.encode()
    n = len(body)
    head = bytes((0x81, n)) if n < 126 else bytes((0x81, 126)) + n.to_bytes(2, "big")
    assert n < 1 << 16
    return head + body


class Tape:
    """The venue.

    Parameters
    ----------
    messages : about the books, behind the deeds that prime the client
    rate : messages a second, 0 = as fast as the client takes them
    """

    def __init__(self, host: Host, venue: Venue, n: int, messages: int, rate: float, seed: int) -> None:
        self.names, self.venue, self.rate, self.messages = products(venue, n), venue, rate, messages
        self._twin = venue.market(market(self.names, seed))
        self._ready = self._ahead()
        self.server: Any = venue.server(venue.market(market(self.names, seed)), heartbeat_s=1e6)
        self._asked: set[tuple[str, str]] = set()
        answer = self.server.rest

        def counted(path: str, query: Any) -> Any:
            self._asked.add((path.rstrip("/"), query.get("symbol", [""])[0]))
            return answer(path, query)

        self.server.rest = counted
        self.primed = 0
        host.start(self.server)

    def _ahead(self) -> list[list[str]]:
        """Texts by deed, enough for every number of primers."""
        out: list[list[str]] = []
        made = 0
        while made < self.messages or len(out) < PRIMERS:
            out.append([text for channel, _, text in self._twin.step().texts if channel == self.venue.channel])
            made += len(out[-1]) if len(out) > PRIMERS else 0
        return out

    def _client(self) -> Any:
        wanted = {(self.venue.channel, name) for name in self.names}
        return next((c for c in self.server.clients if wanted <= set(c.subscriptions)), None)

    async def prime(self) -> dict[str, Any]:
        """Deeds, slowly, until a client has asked for every book and got its image."""
        while self._client() is None or (self.venue.rest and len(self._asked) < len(self.names)):
            if self._client() is not None:
                self.primed += self.server.advance(1)
            assert self.primed < PRIMERS, "the client asks for no images"
            await asyncio.sleep(0.01)
        await asyncio.sleep(1.0)
        return {"primed": self.primed}

    async def go(self) -> dict[str, Any]:
        """The tape; when each of its messages was written (ns of the monotonic clock)."""
        client, channel = self._client(), self.venue.channel
        texts = [text for deed in self._ready[self.primed :] for text in deed]
        named = self.venue.scheme == "binance"
        frames = [frame(self.server.wrapped(client, channel, _symbol(t), t) if named else t) for t in texts]
        self._stamps = np.zeros(len(frames), np.int64)
        write, begun = client.connection.transport, time.monotonic_ns()
        await (self._paced(write, frames, begun) if self.rate else self._flood(write, frames))
        return {"n": len(frames), "first_ns": int(self._stamps[0]), "last_ns": int(self._stamps[-1])}

    async def _flood(self, transport: Any, frames: list[bytes]) -> None:
        for at in range(0, len(frames), CHUNK):
            while transport.get_write_buffer_size() > ROOM:
                await asyncio.sleep(0.0005)
            self._stamps[at : at + CHUNK] = time.monotonic_ns()
            transport.write(b"".join(frames[at : at + CHUNK]))
            await asyncio.sleep(0)

    async def _paced(self, transport: Any, frames: list[bytes], begun: int) -> None:
        for k, data in enumerate(frames):
            due = begun + int(k * 1e9 / self.rate)
            while (left := due - time.monotonic_ns()) > 0:
                await asyncio.sleep(left / 1e9)
            self._stamps[k] = time.monotonic_ns()
            transport.write(data)

    def stamps(self, path: Path) -> None:
        """Write them down."""
        np.save(path, self._stamps)

    def end(self) -> dict[str, Any]:
        """Bids and asks of every book when everything has been said, prices and sizes in 1e-8."""
        books = self._twin.market.books
        return {name: market_levels(books[name], self.venue.depth) for name in self.names}


def _symbol(text: str) -> str:
    return text.partition('"s":"')[2].partition('"')[0]


def main() -> None:
    parser = argparse.ArgumentParser(description="A scripted venue that costs nothing while it is measured.")
    parser.add_argument("--venue", choices=TAPED, required=True)
    parser.add_argument("--products", type=int, default=4)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stamps", type=Path, required=True)
    args = parser.parse_args()
    with Host() as host:
        tape = Tape(host, TAPED[args.venue], args.products, args.messages, args.rate, args.seed)
        _say({"ws": tape.server.url, "rest": tape.server.rest_url, "products": tape.names})
        for line in sys.stdin:
            if line.strip() == "prime":
                _say(host.run(tape.prime(), 120.0))
            elif line.strip() == "go":
                _say(host.run(tape.go(), 1800.0))
                tape.stamps(args.stamps)
            elif line.strip() == "end":
                _say(tape.end())


def _say(value: Any) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
