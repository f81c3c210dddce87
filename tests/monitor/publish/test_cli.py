"""`microrisk publish`: addresses first, faults by option, a summary last; runs end by themselves or when asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from venue_recorder import get
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from microrisk.cli import main
from microrisk.errors import UsageError
from microrisk.feed.encode import encode_message, frame
from microrisk.feed.mold import MoldReader
from microrisk.monitor.publish.job import publish
from microrisk.monitor.publishing import Publishing, What, Where, Wrongs


def itch_file(folder: Path, n: int = 400) -> Path:
    path = folder / "day.itch"
    said = [encode_message("S", locate=0, tracking=i % 60000, timestamp=i * 1000, event="O") for i in range(n)]
    path.write_bytes(frame(said, end_mark=True))
    return path


def plan(form: Any, *inputs: Path, **options: Any) -> Publishing:
    given = {"where": Where(), "what": What(), "wrongs": Wrongs()} | options
    return Publishing(form, tuple(map(str, inputs)), {}, **given)


def started(told: Publishing) -> tuple[dict[str, str], threading.Thread, list[dict[str, Any]]]:
    """A run in a thread: its addresses, and where its summary will be."""
    known, out = threading.Event(), []
    addresses: dict[str, str] = {}

    def ready(value: dict[str, Any]) -> None:
        addresses.update(value["addresses"])
        known.set()

    thread = threading.Thread(target=lambda: out.append(publish(told, ready)))
    thread.start()
    assert known.wait(20)
    return addresses, thread, out


def test_moldudp64_with_loss_on_one_line(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as b:
        for s in (a, b):
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            s.bind(("127.0.0.1", 0))
            s.settimeout(10)
        where = Where(*(f"127.0.0.1:{s.getsockname()[1]}" for s in (a, b)), mtu=80)
        wrongs = Wrongs(seed=3, loss=0.3, loss_b=0.0, log=tmp_path / "faults.jsonl")
        told = plan("moldudp64", itch_file(tmp_path), where=where, what=What(fast=True, linger=0.0), wrongs=wrongs)
        addresses, thread, out = started(told)
        thread.join(20)
        assert set(addresses) == {"a", "b", "request", "glimpse"}
        (summary,) = out
        seen = {}
        for line, s in (("a", a), ("b", b)):
            reader = MoldReader(first=1)
            for _ in range(summary["counts"][f"packets_{line}"]):
                list(reader.datagram(memoryview(s.recv(2048)), 0))
            seen[line] = reader.counters
    assert (seen["b"].messages, seen["b"].missing, seen["b"].ended) == (400, 0, 1)
    assert seen["a"].messages + seen["a"].missing == 400
    log = [json.loads(x) for x in (tmp_path / "faults.jsonl").read_text().splitlines()]
    assert sum(x["count"] for x in log if x["what"] == "loss") == seen["a"].missing > 0
    assert summary["faults"] == {"loss": len(log)}


def test_soupbintcp_waits_for_a_login(tmp_path: Path) -> None:
    told = plan("soupbintcp", itch_file(tmp_path, 20), what=What(fast=True, linger=3.0))
    addresses, thread, out = started(told)
    host, _, port = addresses["server"].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as s:
        s.sendall(b"\0\x2fL" + b" " * 26 + b"1".rjust(20))
        data = b""
        while not data.endswith(b"\0\x01Z"):
            data += s.recv(4096)
    thread.join(20)
    assert len(data) == 33 + 20 * 15 + 3
    assert out[0]["counts"]["messages"] == out[0]["counts"]["sequenced"] == 20


@pytest.mark.parametrize(
    ("form", "wish", "book"),
    [
        ("coinbase", '{"type":"subscribe","product_ids":["X-Y"],"channels":["full"]}', "/products/X-Y/book?level=3"),
        ("kraken", '{"method":"subscribe","params":{"channel":"book","symbol":["X-Y"]}}', None),
        ("binance", '{"method":"SUBSCRIBE","params":["x-y@depth"],"id":1}', "/api/v3/depth?symbol=X-Y"),
        (
            "bitstamp",
            '{"event":"bts:subscribe","data":{"channel":"live_orders_X-Y"}}',
            "/api/v2/order_book/X-Y?group=2",
        ),
    ],
)
def test_a_generated_market_at_every_venue(form: str, wish: str, book: str | None) -> None:
    told = plan(form, what=What(fast=True, most=100, linger=0.0, products="X-Y"), wrongs=Wrongs(refuse=1, drop="3"))
    addresses, thread, out = started(told)

    async def work() -> int:
        async with connect(addresses["ws"] + ("/stream" if form == "binance" else "")) as ws:
            if book is not None:
                assert (await asyncio.to_thread(get, addresses["rest"] + book))[0] == 429
                assert (await asyncio.to_thread(get, addresses["rest"] + book))[0] == 200
            await ws.send(wish)
            n = 0
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await asyncio.wait_for(ws.recv(), 10)
                    n += 1
            return n

    assert asyncio.run(work()) > 20
    thread.join(20)
    assert out[0]["faults"] == {"drop": 1, **({"refuse": 1} if book else {})}
    assert out[0]["counts"]["sent"] >= 20


def test_options_that_cannot_be_meant(tmp_path: Path) -> None:
    path = itch_file(tmp_path)
    for told in (
        plan("moldudp64", path, where=Where(to="nowhere")),
        plan("moldudp64", path, what=What(fast=True, rate=5.0)),
        plan("kraken", what=What(speed=0.0)),
        plan("kraken", wrongs=Wrongs(drop="two")),
        plan("soupbintcp", path, what=What(user="me")),
        plan("moldudp64", path, wrongs=Wrongs(loss=2.0)),
    ):
        with pytest.raises(UsageError):
            publish(told, lambda value: None)


def test_no_such_file_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", "nowhere.itch", "--as", "moldudp64", "--json"]) == 2
    assert "nowhere.itch" in json.loads(capsys.readouterr().out)["error"]


def test_a_process_says_addresses_and_ends_in_order_when_asked() -> None:
    command = [sys.executable, "-m", "microrisk", "publish", "--as", "bitstamp", "--json", "--no-wait", "--rate", "50"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert first["as"] == "bitstamp"
        assert get(first["addresses"]["rest"] + "/api/v2/order_book/btcusd")[0] == 200
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert json.loads(out)["interrupted"] is True
