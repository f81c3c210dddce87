"""The load generator: the file's messages in order on every feed, each with the time at which it was due."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from microrisk.errors import UsageError
from microrisk.feed.base import midnight_ns
from microrisk.feed.encode import encode_message, frame
from microrisk.feed.mold import MoldReader
from microrisk.monitor.publish.load import cut, load


def midnight(now_ns: int) -> int:
    return midnight_ns(datetime.fromtimestamp(now_ns / 1e9, ZoneInfo("America/New_York")).date())


def said(n: int) -> list[bytes]:
    head = {"locate": 1, "tracking": 0, "timestamp": 0}
    rest = {"side": "B", "shares": 1, "stock": "X", "price": 1}
    return [
        encode_message("A", **head, **rest, ref=i) if i % 3 else encode_message("D", **head, ref=i) for i in range(n)
    ]


def file_of(folder: Path, messages: list[bytes]) -> Path:
    path = folder / "load.itch"
    path.write_bytes(frame(messages, end_mark=True))
    return path


@pytest.mark.parametrize("room", [37, 38, 100, 1380])
def test_packets_hold_whole_messages_and_fill_the_room(room: int) -> None:
    messages = said(200)
    data = np.frombuffer(frame(messages, end_mark=True), np.uint8)
    starts, counts = np.zeros(300, np.int64), np.zeros(300, np.int64)
    n = cut(data, room, starts, counts, 1 << 40)
    assert counts[:n].sum() == 200
    assert starts[n] == len(data) - 2
    sizes = np.diff(starts[: n + 1])
    assert sizes.max() <= max(room, 38)
    for k in range(n - 1):  # the next message would not have fitted
        following = (int(data[starts[k + 1]]) << 8) + int(data[starts[k + 1] + 1]) + 2
        assert sizes[k] + following > room


def test_every_feed_gets_the_file_with_due_times(tmp_path: Path) -> None:
    messages = said(3000)
    got: list[list[bytes]] = [[], []]
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in got]
    for s in sockets:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        s.bind(("127.0.0.1", 0))
        s.settimeout(10)

    def receive(i: int) -> None:
        while not got[i] or got[i][-1][18:20] != b"\xff\xff":
            got[i].append(sockets[i].recv(65536))

    threads = [threading.Thread(target=receive, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    before = time.time_ns()
    result = load(file_of(tmp_path, messages), [s.getsockname() for s in sockets], rate=20_000, mtu=500)
    after = time.time_ns()
    for thread, s in zip(threads, sockets, strict=True):
        thread.join(20)
        s.close()
    assert (result.messages, result.packets) == (6000, sum(len(g) for g in got) - len(got))
    assert 0.25 < result.seconds < 10
    for i, packets in enumerate(got):
        assert max(map(len, packets)) <= 500
        reader = MoldReader(first=1)
        out = [bytes(m) for p in packets for _, _, m in reader.datagram(memoryview(p), 0)]
        assert (reader.counters.missing, reader.counters.ended) == (0, 1)
        assert packets[0][:10] == b"LOAD%d     " % i
        assert [m[:5] + m[11:] for m in out] == [m[:5] + m[11:] for m in messages]
        times = [int.from_bytes(m[5:11], "big") for m in out]
        assert times == sorted(times)
        assert abs((times[-1] - times[0]) - 0.3e9) < 5e6  # 3,000 messages at 10,000 a second, cut into packets
        assert before <= midnight(before) + times[0] <= midnight(before) + times[-1] <= after


def test_what_cannot_be_meant(tmp_path: Path) -> None:
    path = file_of(tmp_path, said(3))
    for addresses, rate in (([], 5.0), ([("127.0.0.1", 9)], 0.0)):
        with pytest.raises(UsageError):
            load(path, addresses, rate=rate)
    with pytest.raises(UsageError, match="no ITCH message"):
        load(file_of(tmp_path, []), [("127.0.0.1", 9)], rate=1.0)


def test_as_a_command(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        to = f"127.0.0.1:{s.getsockname()[1]}"
        command = [sys.executable, "-m", "microrisk.monitor.publish.load", str(file_of(tmp_path, said(90)))]
        done = subprocess.run([*command, "--to", to, "--rate", "1000"], capture_output=True, timeout=60, check=True)
    assert json.loads(done.stdout)["messages"] == 90
