"""What a websocket client gets: documents, frames, the newest instead of all."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np
import pytest
from websockets.sync.client import ClientConnection, connect

from microrisk.monitor.hub import Frame
from microrisk.monitor.web import live
from microrisk.monitor.web.guard import Limits
from microrisk.monitor.web.live import Allowance
from microrisk.monitor.web.wire import FIELDS, HEADER, STATES, pack, pack_batch
from microrisk.spec.weightfile import HEADS
from tests.monitor.web.conftest import TOKEN, Running
from tests.monitor.web.fake_hub import FakeHub, Lively
from tests.monitor.web.test_limits import raw, until, upgrade

NAME = "AAPL.XNAS"


@contextmanager
def client(running: Running, query: str = "?json=1", **options: Any) -> Iterator[ClientConnection]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with connect(running.ws + query, additional_headers=headers, max_size=None, close_timeout=1, **options) as ws:
        yield ws


def say(ws: ClientConnection, **what: Any) -> None:
    ws.send(json.dumps(what))


def next_of(ws: ClientConnection, kind: str) -> dict[str, Any]:
    """The next document of a kind; others are passed over."""
    for _ in range(2000):
        message = ws.recv(timeout=20)
        if isinstance(message, str) and (document := json.loads(message))["type"] == kind:
            return document
    raise AssertionError(f"no {kind} among 2000 messages")


def unpack(data: bytes) -> tuple[Frame, int]:
    """A frame from its bytes, by the layout's words alone."""
    head = dict(zip((name for name, _ in FIELDS), HEADER.unpack_from(data), strict=True))
    at = HEADER.size

    def take(code: str, count: int) -> list[Any]:
        nonlocal at
        out = np.frombuffer(data, code, count, at)
        at += out.nbytes
        return out.tolist()

    def rows(count: int, width: int) -> list[list[int]]:
        flat = take("<i8", count * width)
        return [flat[i : i + width] for i in range(0, len(flat), width)]

    bids, asks, trades = rows(head["bids"], 2), rows(head["asks"], 2), rows(head["trades"], 4)
    levels, heads, codes = take("<f8", head["heads"]), take("<i4", head["heads"]), take("i1", head["codes"])
    words = json.loads(data[at : at + head["words"]])
    keys = HEADS if head["heads"] else ()
    frame = Frame(
        n=head["n"], ts_ns=head["ts_ns"], instrument=NAME, state=STATES[head["state"]], why=words["why"],
        px_exp=head["px_exp"], qty_exp=head["qty_exp"], tick=head["tick"], bids=bids, asks=asks, trades=trades,
        codes=codes if head["scored"] else None, heads=dict(zip(keys, heads, strict=True)),
        levels=dict(zip(keys, levels, strict=True)),
        alert=[h for k, h in enumerate(HEADS) if head["alert"] >> k & 1], drivers=words["drivers"],
        events=head["events"],
    )  # fmt: skip
    return frame, head["topic"]


def unbatch(data: bytes) -> list[bytes]:
    kind, _, _, count = struct.unpack_from("<BBHI", data)
    assert kind == 2
    out, at = [], 8
    for _ in range(count):
        (size, zero) = struct.unpack_from("<II", data, at)
        assert zero == 0
        out.append(data[at + 8 : at + 8 + size])
        at += 8 + size
    assert at == len(data)
    return out


def test_a_frame_survives_its_bytes() -> None:
    hub = FakeHub(history_s=10)
    frames = hub.history(NAME)
    bare = msgspec.structs.replace(
        frames[0], bids=[], asks=[[(1 << 62) + 1, 1]], trades=[], codes=None, heads={}, levels={}, alert=[], drivers=[],
        why="größer ▲", ts_ns=-5, n=(1 << 63) + 1,
    )  # fmt: skip
    for frame in [*frames, bare]:
        data = pack(frame, 7)
        assert len(data) % 8 == 0
        assert unpack(data) == (frame, 7)
    assert [unpack(b)[0] for b in unbatch(pack_batch(frames, 3))] == frames


def test_the_first_message_says_what_follows(running: Running) -> None:
    with client(running) as ws:
        hello = json.loads(ws.recv(timeout=10))
        assert hello["type"] == "hello"
        assert [h["name"] for h in hello["heads"]] == list(HEADS)
        assert len(hello["features"]) == 32
        assert hello["layout"]["header_bytes"] == HEADER.size
        assert struct.calcsize("<" + "".join(code for _, code in hello["layout"]["header"])) == HEADER.size
        assert next_of(ws, "status")["alerts"] == len(running.hub.told)


def test_pages(running: Running) -> None:
    with client(running) as ws:
        say(ws, page="overview")
        assert len(next_of(ws, "overview")["overview"]["feeds"]) == 9
        say(ws, page="latency")
        assert next_of(ws, "latency")["latency"]["stages"]
        say(ws, page="alerts")
        assert next_of(ws, "labels")["labels"] == running.hub.labels()
        got = next_of(ws, "alerts")["alerts"]
        assert [a["id"] for a in got] == [a.id for a in running.hub.told[: live.ALERTS_A_TURN]]


def test_new_alerts_and_labels_come_by_themselves(serve: Callable[..., Running]) -> None:
    running = serve(FakeHub(history_s=20))
    with client(running) as ws:
        say(ws, page="alerts")
        seen = next_of(ws, "alerts")["alerts"][-1]["n"]
        while len(running.hub.told) == seen:
            running.hub.advance()
        assert next_of(ws, "alerts")["alerts"][0]["n"] == seen + 1
        first = running.hub.told[0].id
        running.hub.label(first, True, "somebody else")
        assert next_of(ws, "labels")["labels"] == {first: True}


def test_following_gives_the_past_then_the_newest(serve: Callable[..., Running]) -> None:
    running = serve(FakeHub(history_s=10))
    hub = running.hub
    with client(running, "") as ws:
        say(ws, follow=NAME)
        following = next_of(ws, "following")
        assert following["kept"] == 200
        got: list[Frame] = []
        while len(got) < 200:
            data = ws.recv(timeout=10)
            if isinstance(data, bytes):
                got += [unpack(b)[0] for b in unbatch(data)]
        assert got == hub.history(NAME)
        hub.advance()
        while isinstance(data := ws.recv(timeout=10), str):
            pass
        assert unpack(data) == (hub.history(NAME)[-1], following["topic"])


def test_resuming_leaves_out_what_is_known(running: Running) -> None:
    last = running.hub.history(NAME)[-1].n
    with client(running) as ws:
        say(ws, follow=NAME, after=last - 3)
        assert next_of(ws, "following")["kept"] == 3
        assert [f["n"] for f in next_of(ws, "frames")["frames"]] == [last - 2, last - 1, last]
        say(ws, follow=NAME, after=last + 1000)  # of a monitor before this one
        assert next_of(ws, "following")["kept"] == last


def test_a_change_of_mind_and_an_unknown_name(running: Running) -> None:
    with client(running) as ws:
        say(ws, follow=NAME)
        one = next_of(ws, "following")["topic"]
        say(ws, follow="NO.SUCH")
        assert next_of(ws, "unknown")["instrument"] == "NO.SUCH"
        say(ws, follow="MSFT.XNAS")
        assert next_of(ws, "following")["topic"] == one + 2
        say(ws, follow=None)
        assert until(lambda: running.hub.following == 0)


def test_slots_are_given_back_when_a_client_goes(running: Running) -> None:
    with client(running) as ws:
        say(ws, follow=NAME)
        next_of(ws, "following")
        assert running.hub.following == 1
    assert until(lambda: running.hub.following == 0)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"follow": 1}', '{"page": "nowhere"}', '{"eval": "1"}', '{"after": 1e99}']
)
def test_what_cannot_be_meant_is_said(running: Running, text: str) -> None:
    with client(running) as ws:
        ws.send(text)
        assert next_of(ws, "error")["text"]
        say(ws, page="overview")
        assert next_of(ws, "overview")


def test_frames_are_at_most_twenty_a_second(serve: Callable[..., Running]) -> None:
    running = serve(FakeHub(history_s=0))
    stop = threading.Event()

    def busy() -> None:
        while not stop.wait(0.004):
            running.hub.advance()

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        with client(running) as ws:
            say(ws, follow=NAME)
            next_of(ws, "frame")
            began, frames, skipped = time.monotonic(), 0, 0
            while time.monotonic() - began < 2:
                document = json.loads(ws.recv(timeout=10))
                frames += document["type"] == "frame"
                skipped = document["frames"] if document["type"] == "skipped" else skipped
        assert 5 <= frames <= 2 * live.FRAMES + 3
        assert skipped > frames
    finally:
        stop.set()
        thread.join()


def test_an_allowance_is_kept_over_time() -> None:
    allowance = Allowance(20, 2)
    assert sum(allowance.take(1.0 + i / 1000) for i in range(10_000)) in range(200, 204)


def test_a_client_that_does_not_read_is_cut_off_and_nobody_waits(serve: Callable[..., Running]) -> None:
    running = serve(FakeHub(history_s=60), Limits(stalled_s=1.0))
    with Lively(running.hub), raw(running) as sock, client(running) as other:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(upgrade(running))
        assert b" 101 " in sock.recv(200)
        text = json.dumps({"page": "overview", "follow": NAME}).encode()
        sock.sendall(b"\x81" + bytes([0x80 | len(text)]) + bytes(4) + text)
        assert until(lambda: running.hub.following == 1)
        say(other, follow=NAME)
        first = next_of(other, "frame")["frame"]["n"]
        assert until(lambda: running.server.limits.stalled == 1)
        assert until(lambda: running.hub.following == 1)  # the other one
        while next_of(other, "frame")["frame"]["n"] < first + 10:
            pass
    assert running.get("/healthz").status_code == 200


def test_a_slow_client_sees_the_present(serve: Callable[..., Running]) -> None:
    """Five frames a second of a source of twenty: it stays a window behind, and does not fall back further."""
    running = serve(FakeHub(history_s=0))
    with Lively(running.hub), client(running) as ws:
        say(ws, follow=NAME)
        topic = next_of(ws, "following")["topic"]
        behind = []
        for _ in range(20):
            time.sleep(0.2)
            n = next_of(ws, "frame")["frame"]["n"]
            say(ws, seen=n, topic=topic)
            behind.append(running.hub.history(NAME)[-1].n - n)
    assert behind[-1] <= 6 * live.WINDOW, behind  # without a window: 60


def test_frames_wait_for_those_not_seen(serve: Callable[..., Running]) -> None:
    running = serve(FakeHub(history_s=0))
    with Lively(running.hub), client(running) as ws:
        say(ws, follow=NAME)
        topic = next_of(ws, "following")["topic"]
        say(ws, seen=next_of(ws, "frame")["frame"]["n"], topic=topic)
        got, seconds = [], 0
        while seconds < 3:
            document = json.loads(ws.recv(timeout=10))
            got += [document["frame"]["n"]] if document["type"] == "frame" else []
            seconds += document["type"] == "status"
        assert 0 < len(got) <= live.WINDOW + 3
        say(ws, seen=got[-1], topic=topic + 1)  # of another topic: not meant
        say(ws, seen=got[-1], topic=topic)
        assert next_of(ws, "frame")["frame"]["n"] > got[-1]
