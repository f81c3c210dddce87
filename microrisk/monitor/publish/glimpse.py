"""GLIMPSE 5.0 server: the book of every name at one point of the feed, over SoupBinTCP, in ITCH 5.0 messages.

A client logs in and gets the system events, the latest directory and state messages of each stock, one Add Order for
every live order (best price first, in queue order, bids before asks), and `G` with the number, in 20 ASCII digits, of
the first live message that is not in the image.

The book is that of the C++ engine, which follows the tape. It keeps neither who placed an order nor when: orders come
as `A` without MPID and carry the time of the image. How the number is padded, and that the connection stays open behind
it, is not verified against a live venue.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from microrisk.core import Engine, ItchDecoder
from microrisk.feed.encode import frame as framed
from microrisk.monitor.publish.faults import StreamPlan
from microrisk.monitor.publish.soupbintcp import Login, SoupBinServer, frame, login_accepted
from microrisk.monitor.publish.tape import Tape
from microrisk.spec.units import Side

STEP = 4096
"""Messages that may wait before the engine takes them."""
PIECE = 1 << 20
_STATE = b"SRHYLVWKJh"
"""Types that are no orders and belong in an image."""
_LIVE_ORDER = np.dtype(
    [
        ("length", ">u2"), ("packet", "S1"), ("type", "S1"), ("locate", ">u2"), ("tracking", ">u2"),
        ("time_high", ">u2"), ("time_low", ">u4"), ("ref", ">u8"), ("side", "S1"), ("shares", ">u4"),
        ("stock", "S8"), ("price", ">u4"),
    ]
)  # fmt: skip
"""A sequenced packet with an Add Order in it: 3 + 36 bytes."""


class Image:
    """The state of a feed at one message: what an image is made of. Fed by one thread at a time."""

    def __init__(self) -> None:
        self.next = 1
        self._engine, self._decoder = Engine(), ItchDecoder()
        self._state: dict[bytes, bytes] = {}
        self._system: list[bytes] = []

    def apply(self, messages: list[bytes]) -> None:
        """The next messages of the feed."""
        data = framed(m for m in messages if m)
        at = 0
        while at < len(data):
            at = self._engine.run_itch(self._decoder, data, at, len(messages))
        for message in messages:
            if message[:1] in _KEPT:
                self._keep(message)
        self.next += len(messages)

    def _keep(self, message: bytes) -> None:
        kind = message[:1]
        if kind == b"S":
            self._system.append(message)
        else:
            # by stock; a market participant's position by name and stock, a decline level alone
            key = message[1:3] + (message[11:15] if kind == b"L" else b"")
            self._state[kind + key] = message

    @property
    def orders(self) -> int:
        """Live orders."""
        return self._engine.live_orders

    def pieces(self) -> Iterable[bytes]:
        """Sequenced packets of the image, without the `G` at the end."""
        states = sorted(self._state.items(), key=lambda kv: (kv[0][1:3], _STATE.find(kv[0][:1])))
        yield b"".join(frame(b"S", m) for m in [*self._system, *(m for _, m in states)])
        names = self._decoder.symbols()
        for index in map(int, self._engine.instruments()):
            yield self._orders(index, names.get(index, ""))

    def _orders(self, index: int, name: str) -> bytes:
        rows = self._engine.orders(index)
        out: NDArray[np.void] = np.zeros(len(rows), _LIVE_ORDER)
        out["length"], out["packet"], out["type"] = 37, b"S", b"A"
        out["locate"], out["stock"] = index, name.encode("latin-1").ljust(8)
        out["time_high"], out["time_low"] = divmod(max(0, self._decoder.last_ts) & (1 << 48) - 1, 1 << 32)
        out["ref"], out["shares"], out["price"] = rows["order_id"], rows["qty"], rows["px"]
        out["side"] = np.where(rows["side"] == int(Side.BID), b"B", b"S")
        return out.tobytes()

    def end(self) -> bytes:
        """The packet that names the first live message behind the image."""
        return frame(b"S", b"G" + b"%020d" % self.next)


_KEPT = frozenset(bytes([b]) for b in _STATE)


class GlimpseServer(SoupBinServer):
    """Serves images of the feed on a tape.

    Parameters are those of SoupBinServer. `plan.delay_s` is the time before an image, `plan.silent` holds it back.

    Attributes
    ----------
    cut_after : the connection ends behind so many bytes of each image (0 = never)
    build_s : seconds that the last image took to build
    counts : those of SoupBinServer, and images
    """

    def __init__(
        self,
        tape: Tape,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        users: dict[str, str] | None = None,
        plan: StreamPlan | None = None,
    ) -> None:
        super().__init__(tape, host, port, users=users, plan=plan)
        self.cut_after = 0
        self.build_s = 0.0
        self._frozen = False
        self._image, self._session = Image(), tape.session
        self._image.next = tape.begin
        self._following = threading.Lock()
        tape.listen(self._appended)

    async def close(self) -> None:
        """As SoupBinServer."""
        if self._server is not None:
            self.tape.forget(self._appended)
        await super().close()

    def freeze(self) -> None:
        """Images stay those of this point of the feed, until `thaw`."""
        self._follow()
        self._frozen = True

    def thaw(self) -> None:
        """Images are those of the newest message again."""
        self._frozen = False

    def _appended(self) -> None:
        if self._session != self.tape.session or self.tape.next - self._image.next >= STEP:
            self._follow()

    def _follow(self) -> None:
        """Take over what the tape has more."""
        with self._following:
            if self._session != self.tape.session:
                self._image, self._session, self._frozen = Image(), self.tape.session, False
            while not self._frozen and (batch := self.tape.read(self._image.next, STEP)):
                self._image.apply(batch)

    def image(self) -> list[bytes]:
        """Packets of an image as of now."""
        begin = time.perf_counter()
        self._follow()
        with self._following:
            out = [*self._image.pieces(), self._image.end()]
        self.build_s = time.perf_counter() - begin
        return out

    async def serve(self, login: Login, writer: asyncio.StreamWriter) -> None:
        """One image, then heartbeats until the client leaves."""
        writer.write(login_accepted(self.tape.session, 1))
        await asyncio.sleep(self.plan.delay_s)
        while self.plan.silent:
            await asyncio.sleep(0.01)
        pieces = await asyncio.to_thread(self.image)
        self.counts["images"] += 1
        sent = 0
        for piece in pieces:
            for at in range(0, len(piece), PIECE):
                part = piece[at : at + PIECE]
                room = self.cut_after - sent if self.cut_after else len(part)
                writer.write(part[:room])
                await writer.drain()
                sent += len(part)
                if room < len(part):
                    self.plan.log.note("glimpse", "disconnect", detail=f"behind {self.cut_after} bytes")
                    return
        while True:
            await self._pause(asyncio.Event(), time.monotonic(), writer)
