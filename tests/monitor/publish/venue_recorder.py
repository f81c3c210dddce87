"""A client that writes down a session as a recorder would, and replays it with the project's own decoders."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from microrisk.core import Engine
from microrisk.feed import open_feed
from microrisk.monitor.publish.venue import VenueServer

BEATS = 600
MARK = '{"mark":true}'


class Recorder:
    """Writes down a session as cryptofeed does: what came, what was sent, REST answers in a file of their own."""

    def __init__(self, venue: str, host: str, folder: Path, server: VenueServer) -> None:
        self.server, self.folder, self.venue, self.host = server, folder, venue, host
        self.lines: list[str] = []
        self.answers: list[str] = []
        self.received: list[str] = []
        self._now = 1_700_000_000_000

    def _stamp(self) -> str:
        self._now += 1
        return f"{self._now // 1000}.{self._now % 1000:03d}"

    async def open(self, path: str = "") -> ClientConnection:
        self.lines.append(f"wss://{self.host}{path} <-> {self._stamp()}")
        return await connect(self.server.url + path, compression=None, max_size=None)

    async def send(self, ws: ClientConnection, message: Any) -> None:
        text = json.dumps(message)
        self.lines.append(f"wss://{self.host} <- {self._stamp()}: {text}")
        await ws.send(text)

    async def until(self, ws: ClientConnection, done: Callable[[str], bool]) -> None:
        while True:
            text = await asyncio.wait_for(ws.recv(), 10)
            assert isinstance(text, str)
            self.received.append(text)
            self.lines.append(f"{self._stamp()}: {text}")
            if done(text):
                return

    async def rest(self, path: str) -> Any:
        status, body, _ = await asyncio.to_thread(get, self.server.rest_url + path)
        assert status == 200, body
        self.answers.append(f"https://{self.host}{path} -> {self._stamp()}: {body}")
        return json.loads(body)

    def replay(self) -> tuple[Engine, dict[str, int], dict[str, int]]:
        """Engine, integrity counts that are not zero, and index by symbol."""
        main = self.folder / f"{self.venue}.ws.1.0"
        main.write_text("\n".join(self.lines) + "\n")
        if self.answers:
            (self.folder / f"{self.venue}.http.0.0").write_text("\n".join(self.answers) + "\n")
        feed, engine = open_feed([str(main)]), Engine(always_open=True)
        while feed.pump(engine):
            pass
        found = {k: v for k, v in engine.integrity().items() if v}
        return engine, found, {i.symbol: n for n, i in feed.instruments().items()}


def get(url: str) -> tuple[int, str, dict[str, str]]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), dict(error.headers)


def held(engine: Engine, index: int, depth: int = 0) -> tuple[list[list[int]], list[list[int]]]:
    bids, asks = engine.levels(index, depth)
    return bids.tolist(), asks.tolist()


def run(work: Any) -> Any:
    return asyncio.run(asyncio.wait_for(work, 30))


def marked(server: VenueServer, n: int = BEATS) -> Callable[[str], bool]:
    """Go on with the market, then say a mark that ends the reading."""
    server.advance(n)
    server.say(MARK)
    return lambda text: text == MARK
