"""Load: an ITCH file as many MoldUDP64 feeds at a given rate, from one core, on a schedule that does not wait.

A packet's blocks are the file's own bytes, sent from where they lie (`sendmmsg`, a header and a slice of the file
each). Every message's timestamp is replaced by the time at which it was due, in ns since New York's midnight: a
receiver that falls behind, or a sender that does, shows as latency. Due times are absolute; a late packet does not
delay the next.

    python -m microrisk.monitor.publish.load FILE --to 239.1.1.1:26400 --rate 500000 --seconds 30

Linux on 64 bits. Needs numba, as the market simulator does.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from numba import njit
from numpy.typing import NDArray

from microrisk.errors import UsageError
from microrisk.feed.base import midnight_ns
from microrisk.feed.mold import HEADER, end_of_session
from microrisk.monitor.publish.mold import Address, sender

BATCH = 64
"""Packets of a feed that one system call sends at most."""
SLOT_NS = 200_000
"""Shortest sleep: what falls due within it is sent together."""
GIVE_BACK = 1 << 20
"""Bytes of a feed's pages given back at a time."""
NS_PER_S = 1_000_000_000
LATE_NS = 1_000_000
_MMSGHDR = np.dtype(
    [("name", "<u8"), ("name_len", "<u8"), ("iov", "<u8"), ("iov_len", "<u8"), ("control", "<u8"),
     ("control_len", "<u8"), ("flags", "<u8"), ("sent", "<u8")]
)  # fmt: skip
assert _MMSGHDR.itemsize == 64


@njit(cache=True)
def cut(data: Any, room: int, starts: Any, counts: Any, most: int) -> int:
    """Cut length-prefixed messages into packets of up to `room` bytes; starts (one more than packets) and counts."""
    at: Any = 0
    n, begin, count, messages = 0, 0, 0, 0
    starts[0] = 0
    while at + 2 <= len(data) and messages < most and n + 1 < len(starts):
        length = (np.int64(data[at]) << 8) | np.int64(data[at + 1])
        end = at + 2 + length
        if length == 0 or end > len(data):
            break
        if count and end - begin > room:
            counts[n], n = count, n + 1
            starts[n], begin, count = at, at, 0
        count += 1
        messages += 1
        at = end
    if count:
        counts[n], n = count, n + 1
        starts[n] = at
    return n


@njit(cache=True)
def stamp(data: Any, starts: Any, due: Any, first: int, n: int, base: int) -> None:
    """Write base + due of its packet into the 6-byte time of each message of `n` packets."""
    for k in range(first, first + n):
        ts = base + due[k]
        at = starts[k]
        while at < starts[k + 1]:
            length = (np.int64(data[at]) << 8) | np.int64(data[at + 1])
            if length >= 11:
                for i in range(6):
                    data[at + 7 + i] = (ts >> (8 * (5 - i))) & 255
            at += 2 + length


@dataclass(frozen=True)
class Load:
    """What was sent, and how well.

    Attributes
    ----------
    packets, messages, bytes : sent, over all feeds
    seconds : from the first due time to the last send
    late : packets sent over 1 ms after their time
    late_p50_us, late_p99_us, late_max_us : of all packets
    cpu_s : processor time of the sending thread; `cpu_share` of a core
    calls : system calls that sent
    """

    packets: int
    messages: int
    bytes: int
    seconds: float
    late: int
    late_p50_us: float
    late_p99_us: float
    late_max_us: float
    cpu_s: float
    cpu_share: float
    calls: int


class _Feed:
    """One feed: its own copy of the file's pages (their times are written over), and what sendmmsg needs."""

    def __init__(self, path: Path, session: str, address: Address, mtu: int, most: int, interface: str) -> None:
        with path.open("rb") as f:
            self._map = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)
        self.data = np.frombuffer(self._map, np.uint8)
        room = mtu - HEADER.size
        starts = np.zeros(len(self.data) // max(1, room // 2) + 2, np.int64)
        counts = np.zeros(len(starts), np.int64)
        self.packets = int(cut(self.data, room, starts, counts, most))
        self.starts, self.counts = starts[: self.packets + 1], counts[: self.packets]
        self.session, self.address = session, address
        self.sequences = 1 + np.cumsum(self.counts) - self.counts
        self._headers = self._make_headers()
        self._iov = self._make_iov()
        self._name = struct.pack("=H", socket.AF_INET) + struct.pack(">H", address[1])
        self._name += socket.inet_aton(address[0]) + bytes(8)
        self._name_buffer = ctypes.create_string_buffer(self._name, 16)
        self._messages = np.zeros(BATCH, _MMSGHDR)
        self._messages["name"], self._messages["name_len"] = ctypes.addressof(self._name_buffer), 16
        self._messages["iov_len"] = 2
        self.socket = sender(address[0], interface)
        self.sent = self._given_back = 0

    def _make_headers(self) -> NDArray[np.void]:
        out = np.zeros(self.packets, np.dtype([("session", "S10"), ("seq", ">u8"), ("count", ">u2")]))
        out["session"], out["seq"], out["count"] = self.session.ljust(10).encode(), self.sequences, self.counts
        return out

    def _make_iov(self) -> NDArray[np.uint64]:
        out = np.zeros((self.packets, 4), np.uint64)
        out[:, 0] = self._headers.ctypes.data + HEADER.size * np.arange(self.packets)
        out[:, 1] = HEADER.size
        out[:, 2] = self.data.ctypes.data + self.starts[:-1]
        out[:, 3] = np.diff(self.starts)
        return out

    def send(self, n: int) -> int:
        """Send the next `n` packets (up to BATCH); how many the kernel took."""
        first = self._iov.ctypes.data + 32 * self.sent
        self._messages["iov"][:n] = first + 32 * np.arange(n)
        done = _SENDMMSG(self.socket.fileno(), self._messages.ctypes.data, n, 0)
        if done < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self.sent += done
        self._give_back()
        return int(done)

    def _give_back(self) -> None:
        """Pages whose times were written over are this feed's own: what was sent needs them no more."""
        upto = int(self.starts[self.sent]) & -mmap.PAGESIZE
        if upto - self._given_back >= GIVE_BACK:
            self._map.madvise(mmap.MADV_DONTNEED, self._given_back, upto - self._given_back)
            self._given_back = upto

    def close(self) -> None:
        self.socket.close()
        del self.data, self._iov
        self._map.close()


_SENDMMSG = ctypes.CDLL(None, use_errno=True).sendmmsg
_SENDMMSG.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)


def load(
    path: str | Path,
    addresses: Sequence[Address],
    *,
    rate: float,
    seconds: float | None = None,
    mtu: int = 1200,
    interface: str = "127.0.0.1",
    session: str = "LOAD",
    spin: bool = False,
    end: bool = True,
    stop: threading.Event | None = None,
) -> Load:
    """Send the file to each address as a feed of its own.

    Parameters
    ----------
    path : plain length-prefixed ITCH; each feed sends it from its beginning
    addresses : one a feed
    rate : messages a second over all feeds
    seconds : no longer than that; the file may end before
    mtu : bytes of a packet at most
    session : name, with the feed's number behind it
    spin : wait for due times without sleeping (a whole core)
    end : say the end of each session

    Raises
    ------
    UsageError : no feed, no rate, or a file without a message
    """
    if not addresses or not rate > 0:
        raise UsageError(f"{len(addresses)} feeds at {rate} messages/s: one feed and a rate above 0 are needed")
    share = rate / len(addresses)
    most = 1 << 62 if seconds is None else max(1, int(share * seconds))
    feeds = [_Feed(Path(path), f"{session}{i}", a, mtu, most, interface) for i, a in enumerate(addresses)]
    try:
        if not all(f.packets for f in feeds):
            raise UsageError(f"{path} has no ITCH message to send")
        return _Run(feeds, share, spin=spin, stop=stop or threading.Event()).go(end=end)
    finally:
        for feed in feeds:
            feed.close()


class _Run:
    def __init__(self, feeds: list[_Feed], share: float, *, spin: bool, stop: threading.Event) -> None:
        self._feeds, self._spin, self._stop = feeds, spin, stop
        # a packet is due when its last message is; the feeds take turns
        self._due = [
            ((f.sequences + f.counts - 2 + i / len(feeds)) * (NS_PER_S / share)).astype(np.int64)
            for i, f in enumerate(feeds)
        ]
        self._late = [np.zeros(f.packets, np.int64) for f in feeds]
        self._calls = 0
        wall = time.time_ns()
        day = datetime.fromtimestamp(wall / NS_PER_S, ZoneInfo("America/New_York")).date()
        stamp(np.zeros(0, np.uint8), np.zeros(1, np.int64), np.zeros(0, np.int64), 0, 0, 0)  # compiled before the start
        self._begin = time.monotonic_ns() + 20_000_000
        self._base = time.time_ns() + (self._begin - time.monotonic_ns()) - midnight_ns(day)

    def go(self, *, end: bool) -> Load:
        cpu = time.thread_time()
        while not self._stop.is_set() and any(f.sent < f.packets for f in self._feeds):
            now = time.monotonic_ns() - self._begin
            for i in range(len(self._feeds)):
                self._catch_up(i, now)
            self._wait()
        took = (time.monotonic_ns() - self._begin) / NS_PER_S
        cpu = time.thread_time() - cpu
        for feed in self._feeds if end else ():
            seq = int(feed.counts[: feed.sent].sum()) + 1
            for _ in range(3):
                feed.socket.sendto(end_of_session(feed.session, seq), feed.address)
        return self._result(took, cpu)

    def _catch_up(self, i: int, now: int) -> None:
        """Send what is due."""
        feed, due = self._feeds[i], self._due[i]
        upto = int(np.searchsorted(due, now, side="right"))
        while feed.sent < upto:
            first = feed.sent
            n = min(BATCH, upto - first)
            stamp(feed.data, feed.starts, due, first, n, self._base)
            done = feed.send(n)
            self._calls += 1
            self._late[i][first : first + done] = time.monotonic_ns() - self._begin - due[first : first + done]

    def _wait(self) -> None:
        ahead = [int(self._due[i][f.sent]) for i, f in enumerate(self._feeds) if f.sent < f.packets]
        left = min(ahead, default=0) + self._begin - time.monotonic_ns()
        if not self._spin and ahead and left > -SLOT_NS:
            time.sleep(max(left, SLOT_NS) / NS_PER_S)

    def _result(self, took: float, cpu: float) -> Load:
        late = np.concatenate([x[: f.sent] for x, f in zip(self._late, self._feeds, strict=True)])
        p50, p99 = np.percentile(late, (50, 99)) / 1000 if len(late) else (0.0, 0.0)
        return Load(
            packets=len(late),
            messages=sum(int(f.counts[: f.sent].sum()) for f in self._feeds),
            bytes=sum(int(f.starts[f.sent]) + HEADER.size * f.sent for f in self._feeds),
            seconds=round(took, 4),
            late=int((late > LATE_NS).sum()),
            late_p50_us=round(float(p50), 1),
            late_p99_us=round(float(p99), 1),
            late_max_us=round(float(late.max(initial=0)) / 1000, 1),
            cpu_s=round(cpu, 4),
            cpu_share=round(cpu / took, 4) if took > 0 else 0.0,
            calls=self._calls,
        )


def main(words: Sequence[str] | None = None) -> int:
    """Command line; the result is one JSON object."""
    parser = argparse.ArgumentParser(description="Send an ITCH file as MoldUDP64 feeds at a rate.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--to", action="append", required=True, help="HOST:PORT, once for each feed")
    parser.add_argument("--rate", type=float, required=True, help="messages a second over all feeds")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--mtu", type=int, default=1200)
    parser.add_argument("--interface", default="127.0.0.1")
    parser.add_argument("--spin", action="store_true")
    told = parser.parse_args(words)
    pairs = [text.rpartition(":") for text in told.to]
    addresses = [(host, int(port)) for host, _, port in pairs]
    result = load(
        told.file, addresses, rate=told.rate, seconds=told.seconds, mtu=told.mtu, interface=told.interface,
        spin=told.spin,
    )  # fmt: skip
    sys.stdout.write(json.dumps(asdict(result)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
