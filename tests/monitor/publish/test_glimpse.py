"""Images of a simulated session: rebuilt by the project's own decoder, alone and with the live messages behind them."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from functools import cache

import numpy as np
import pytest

from microrisk.book import state_hash
from microrisk.core import Engine, ItchDecoder
from microrisk.feed.encode import encode_message, frame, unframe
from microrisk.market.simulator import simulate
from microrisk.market.write import write_itch
from microrisk.monitor.publish import GlimpseServer, Host, Tape
from microrisk.monitor.publish.glimpse import _LIVE_ORDER, Image

SEED = 11
NAMES = 3


@cache
def session_messages() -> tuple[bytes, ...]:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = write_itch(simulate(SEED, 20.0, instruments=NAMES), Path(folder) / "day.itch")
        return tuple(unframe(path.read_bytes()[:-2]))


def rebuilt(messages: list[bytes]) -> Engine:
    engine, decoder, data, at = Engine(), ItchDecoder(), frame(messages), 0
    while at < len(data):
        at = engine.run_itch(decoder, data, at, 1 << 20)
    return engine


def hash_of(engine: Engine) -> str:
    return state_hash(engine, [f"SIM{i}" for i in engine.instruments()])


def packets(data: bytes) -> list[bytes]:
    """Payloads of sequenced packets."""
    out, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from(">H", data, at)
        assert data[at + 2 : at + 3] == b"S"
        out.append(data[at + 3 : at + 2 + length])
        at += 2 + length
    return out


def login() -> bytes:
    return struct.pack(">H", 47) + b"L" + b"u".ljust(6) + b"p".ljust(10) + b" " * 10 + b"1".rjust(20)


async def fetched(server: GlimpseServer) -> list[bytes]:
    reader, writer = await asyncio.open_connection(*server.address)
    writer.write(login())
    out: list[bytes] = []
    try:
        assert (await reader.readexactly(33))[2:3] == b"A"
        while not out or out[-1][:1] != b"G":
            (length,) = struct.unpack(">H", await reader.readexactly(2))
            body = await reader.readexactly(length)
            if body[:1] == b"S":
                out.append(body[1:])
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return out


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_an_image_and_the_live_messages_behind_it_make_the_same_books(share: float) -> None:
    said = list(session_messages())
    cut = int(share * len(said))

    async def work() -> list[bytes]:
        tape = Tape("S1")
        tape.append(said[:cut])
        async with GlimpseServer(tape) as server:
            return await fetched(server)

    *spin, last = asyncio.run(work())
    assert last == b"G" + str(cut + 1).encode().rjust(20, b"0")
    at_the_cut = rebuilt(said[:cut]) if cut else Engine()
    image = rebuilt(spin) if spin else Engine()
    assert image.live_orders == at_the_cut.live_orders
    assert sum(m[:1] == b"A" for m in spin) == at_the_cut.live_orders
    if share == 0.3:
        assert at_the_cut.live_orders > 20, f"seed {SEED}"
        assert hash_of(image) == hash_of(at_the_cut)
    assert hash_of(rebuilt(spin + said[cut:])) == hash_of(rebuilt(said))


def test_the_layout_of_an_order_is_that_of_the_specification() -> None:
    image = Image()
    fields = {"locate": 7, "tracking": 0, "timestamp": 0x0102_0304_0506, "stock": "ABC"}
    add = encode_message("A", **fields, ref=99, side="S", shares=500, price=1_234_500)
    image.apply([add])
    assert _LIVE_ORDER.itemsize == 39
    assert b"".join(image.pieces()) == struct.pack(">Hc", 37, b"S") + add
    assert image.end() == b"\0\x16SG00000000000000000002"


def test_state_messages_come_once_each_the_latest() -> None:
    image = Image()
    halt = [
        encode_message("H", locate=5, tracking=0, timestamp=t, stock="X", state=s, reserved=" ", reason="")
        for t, s in ((1, "H"), (2, "T"))
    ]
    system = [encode_message("S", locate=0, tracking=0, timestamp=t, event=e) for t, e in ((0, "O"), (3, "Q"))]
    image.apply([system[0], *halt, system[1]])
    assert packets(b"".join(image.pieces())) == [*system, halt[1]]


def test_a_million_orders_take_well_under_a_second() -> None:
    rng, adds = np.random.default_rng(3), []
    for name in range(1, 101):
        out = np.zeros(10_000, _LIVE_ORDER)
        out["type"], out["locate"], out["stock"] = b"A", name, b"N%05d" % name
        out["ref"] = np.arange(10_000) + name * 10_000
        out["shares"], out["side"] = 100, np.where(rng.random(10_000) < 0.5, b"B", b"S")
        away = rng.integers(1, 500, 10_000) * 100
        out["price"] = np.where(out["side"] == b"B", 1_000_000 - away, 1_000_000 + away)
        adds += [m.tobytes()[3:] for m in out]
    image = Image()
    for at in range(0, len(adds), 4096):
        image.apply(adds[at : at + 4096])
    server = GlimpseServer(Tape())
    server._image = image
    pieces = server.image()
    assert sum(map(len, pieces)) == 39 * 1_000_000 + 2 + 22
    assert server.build_s < 2.0  # 0.15 s on an idle core
    server.tape.forget(server._appended)


def test_frozen_images_stay_where_they_were() -> None:
    said = list(session_messages())
    tape = Tape("S1")
    with Host() as host:
        server = host.start(GlimpseServer(tape))
        tape.append(said[:1000])
        server.freeze()
        tape.append(said[1000:9000])
        assert host.run(fetched(server))[-1] == b"G" + b"1001".rjust(20, b"0")
        server.thaw()
        assert host.run(fetched(server))[-1] == b"G" + str(tape.next).encode().rjust(20, b"0")
        tape.restart("S2")
        assert host.run(fetched(server)) == [b"G" + b"1".rjust(20, b"0")]


def test_an_image_that_breaks_off() -> None:
    tape = Tape("S1")
    tape.append(session_messages())
    with Host() as host:
        server = host.start(GlimpseServer(tape))
        server.cut_after = 1000
        with pytest.raises(asyncio.IncompleteReadError):
            host.run(fetched(server))
        server.cut_after = 0
        assert host.run(fetched(server))[-1][:1] == b"G"
        assert server.plan.log.counts == {"disconnect": 1}
