"""Misbehaviour on command: what happens to a datagram or to a numbered message, by seed, and a log of what was done.

A decision about a packet depends on the seed, the line and the number of the packet alone, never on time: the same seed
gives the same faults. Faults of streams (TCP, websockets) name message numbers, or are asked for while it runs.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from random import Random

import msgspec

from microrisk.errors import UsageError

MAX_DEPTH = 64
"""Deepest reordering: packets that may overtake one another."""
MAX_KEPT = 1_000_000
"""Entries that a log keeps; the counts go on."""


class Fault(msgspec.Struct, frozen=True):
    """One thing that was done.

    Attributes
    ----------
    n : counts faults from 1
    where : line A or B, a venue's connection, the re-request server
    what : loss, reorder, duplicate, truncate, garbage, drop, corrupt, disconnect, half_open, delay, refuse, lie, ...
    seq, count : first message it touched and how many; 0 when no number belongs to it
    detail : bytes cut, packets overtaken, the status of an answer
    """

    n: int
    where: str
    what: str
    seq: int
    count: int
    detail: str = ""


class FaultLog:
    """What was done to which sequence; the last MAX_KEPT entries and the counts of all. Threads may share it."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._entries: deque[Fault] = deque(maxlen=MAX_KEPT)
        self._n = 0
        self._lock = threading.Lock()

    def note(self, where: str, what: str, seq: int = 0, count: int = 0, detail: str = "") -> None:
        """Write an entry."""
        with self._lock:
            self._n += 1
            self.counts[what] += 1
            self._entries.append(Fault(self._n, where, what, seq, count, detail))

    def entries(self, what: str = "") -> list[Fault]:
        """Entries in order, all or of one kind."""
        with self._lock:
            return [f for f in self._entries if not what or f.what == what]

    def lost(self, where: str) -> set[int]:
        """Sequences of which a line sent no good copy (loss, truncation and garbage)."""
        bad = [f for f in self.entries() if f.where == where and f.what in ("loss", "truncate", "garbage")]
        return {seq for f in bad for seq in range(f.seq, f.seq + f.count)}

    def json_lines(self) -> bytes:
        """One JSON object a line."""
        return b"".join(msgspec.json.encode(f) + b"\n" for f in self.entries())

    def write(self, path: str | Path) -> int:
        """Write json_lines() to a file; the number of entries."""
        Path(path).write_bytes(self.json_lines())
        return len(self.entries())


class LineFaults(msgspec.Struct, frozen=True):
    """What a line of datagrams does to its packets. Shares are 0..1, each packet is drawn for by itself.

    Attributes
    ----------
    loss : a loss begins with this packet
    burst : packets lost together when one begins
    reorder : depth; packets are shuffled within runs of so many (0, 1: in order)
    duplicate, truncate, garbage : a second copy; a packet cut behind its header; random bytes instead of it
    last : the last packet of a burst is lost
    """

    loss: float = 0.0
    burst: int = 1
    reorder: int = 0
    duplicate: float = 0.0
    truncate: float = 0.0
    garbage: float = 0.0
    last: float = 0.0

    def checked(self) -> LineFaults:
        """Itself; UsageError when a number cannot be meant."""
        for name in ("loss", "duplicate", "truncate", "garbage", "last"):
            share = getattr(self, name)
            if not 0.0 <= share <= 1.0:
                raise UsageError(f"{name} = {share}: a share is 0 to 1")
        if not 0 <= self.reorder <= MAX_DEPTH or self.burst < 1:
            raise UsageError(f"reorder = {self.reorder}, burst = {self.burst}: 0 to {MAX_DEPTH}, and 1 or more")
        return self


class _Line:
    """State of one line: packets of a loss still to come, packets held for the shuffle, what was ordered by hand."""

    def __init__(self, faults: LineFaults) -> None:
        self.faults = faults.checked()
        self.losing = 0
        self.held: list[tuple[int, int, bytes]] = []
        self.drop_next = 0
        self.drop_seqs: set[int] = set()


class DatagramPlan:
    """Seeded faults of one or two lines.

    Parameters
    ----------
    seed : of every draw
    lines : LineFaults by line name ("A", "B"); a line without an entry is perfect
    both : share of packets that are lost on every line
    log : where it is written down; one of its own when None
    """

    def __init__(
        self,
        seed: int = 0,
        lines: dict[str, LineFaults] | None = None,
        *,
        both: float = 0.0,
        log: FaultLog | None = None,
    ) -> None:
        if not 0.0 <= both <= 1.0:
            raise UsageError(f"both = {both}: a share is 0 to 1")
        self.seed, self.both, self.log = seed, both, log or FaultLog()
        self._lines = {name: _Line(faults) for name, faults in (lines or {}).items()}
        self._lock = threading.Lock()

    # -- by hand, at any time, from any thread ---------------------------------------------------------------------

    def set_line(self, line: str, faults: LineFaults) -> None:
        """From now on the line does this."""
        with self._lock:
            self._line(line).faults = faults.checked()

    def drop_next(self, line: str, packets: int = 1) -> None:
        """Lose the next packets of a line."""
        with self._lock:
            self._line(line).drop_next += packets

    def drop_messages(self, lines: Collection[str], seqs: Iterable[int]) -> None:
        """Lose every packet that carries one of these sequences, once for each line."""
        wanted = set(seqs)
        with self._lock:
            for line in lines:
                self._line(line).drop_seqs |= wanted

    # -- for the publisher -------------------------------------------------------------------------------------------

    def apply(self, line: str, index: int, seq: int, count: int, packet: bytes, *, last: bool = False) -> list[bytes]:
        """What goes out on the line now, in order, for packet number `index`; often that packet and nothing else.

        `last` = nothing follows soon.
        """
        with self._lock:
            state = self._line(line)
            draw = Random(f"{self.seed}/{line}/{index}")
            out = [] if self._lost(state, line, index, seq, count, draw, last=last) else self._bent(
                state, line, seq, count, packet, draw
            )  # fmt: skip
            return self._shuffled(state, line, [(seq, count, p) for p in out], draw)

    def flush(self, line: str) -> list[bytes]:
        """Packets held for the shuffle: before a pause, a heartbeat, the end."""
        with self._lock:
            state = self._line(line)
            return self._release(state, line, Random(f"{self.seed}/{line}/flush/{state.held[:1]}"))

    def _line(self, line: str) -> _Line:
        return self._lines.setdefault(line, _Line(LineFaults()))

    def _lost(
        self, state: _Line, line: str, index: int, seq: int, count: int, draw: Random, *, last: bool
    ) -> bool:  # fmt: skip
        f = state.faults
        begins = draw.random() < f.loss
        goes_last = draw.random() < f.last and last
        everywhere = self.both > 0 and Random(f"{self.seed}/both/{index}").random() < self.both
        ordered = state.drop_next > 0 or not state.drop_seqs.isdisjoint(range(seq, seq + count))
        if begins and not state.losing:
            state.losing = f.burst
        lost = state.losing > 0 or goes_last or everywhere or ordered
        state.losing -= state.losing > 0
        state.drop_next -= state.drop_next > 0
        state.drop_seqs.difference_update(range(seq, seq + count))
        if lost:
            self.log.note(line, "loss", seq, count, "last" if goes_last else "both" if everywhere else "")
        return lost

    def _bent(self, state: _Line, line: str, seq: int, count: int, packet: bytes, draw: Random) -> list[bytes]:
        f = state.faults
        truncate, garbage, duplicate = (draw.random() < share for share in (f.truncate, f.garbage, f.duplicate))
        if garbage:
            self.log.note(line, "garbage", seq, count)
            packet = draw.randbytes(len(packet))
        elif truncate:
            keep = draw.randrange(len(packet))
            self.log.note(line, "truncate", seq, count, f"{keep} of {len(packet)} bytes")
            packet = packet[:keep]
        if duplicate:
            self.log.note(line, "duplicate", seq, count)
        return [packet] * (1 + duplicate)

    def _shuffled(self, state: _Line, line: str, packets: list[tuple[int, int, bytes]], draw: Random) -> list[bytes]:
        depth = state.faults.reorder
        if depth < 2 and not state.held:
            return [p for _, _, p in packets]
        state.held += packets
        return self._release(state, line, draw) if len(state.held) >= depth else []

    def _release(self, state: _Line, line: str, draw: Random) -> list[bytes]:
        before, state.held = state.held, []
        order = list(range(len(before)))
        if state.faults.reorder > 1:
            draw.shuffle(order)
        for place, was in enumerate(order):
            if was > place:
                seq, count, _ = before[was]
                self.log.note(line, "reorder", seq, count, f"{was - place} places early")
        return [before[i][2] for i in order]


class StreamPlan:
    """Faults of a stream of numbered messages (from 1, over all connections of a server).

    Parameters
    ----------
    drop, corrupt : message numbers that are never sent, or sent with a wrong checksum (where the venue has one)
    disconnect : message numbers behind which every connection is cut
    half_open : message number behind which nothing is sent any more, the sockets stay open; 0 = never
    delay_s : seconds before each message
    refuse : so many REST requests are answered with `status` and Retry-After
    refuse_connect : so many connections are closed before anything is said
    slow_rest_s : seconds before each REST answer is made
    late_rest_s : seconds that each REST answer is on its way: what it says is as old when it comes
    """

    def __init__(
        self,
        *,
        drop: Iterable[int] = (),
        corrupt: Iterable[int] = (),
        disconnect: Iterable[int] = (),
        half_open: int = 0,
        delay_s: float = 0.0,
        refuse: int = 0,
        retry_after_s: int = 1,
        status: int = 429,
        refuse_connect: int = 0,
        slow_rest_s: float = 0.0,
        late_rest_s: float = 0.0,
        log: FaultLog | None = None,
    ) -> None:
        self.log = log or FaultLog()
        self.delay_s, self.slow_rest_s, self.late_rest_s = delay_s, slow_rest_s, late_rest_s
        self.retry_after_s, self.status = retry_after_s, status
        self.silent = False
        self._drop, self._corrupt, self._cut = set(drop), set(corrupt), set(disconnect)
        self._half_open = half_open
        self._next = Counter[tuple[str, str]]()
        self._refuse, self._refuse_connect = refuse, refuse_connect
        self._lock = threading.Lock()
        self.on_disconnect: Callable[[], None] = lambda: None

    # -- by hand, at any time, from any thread ---------------------------------------------------------------------

    def drop_next(self, messages: int = 1, name: str = "") -> None:
        """Leave out the next messages, of one product or of any."""
        with self._lock:
            self._next["drop", name] += messages

    def corrupt_next(self, messages: int = 1, name: str = "") -> None:
        """Give the next messages a wrong checksum."""
        with self._lock:
            self._next["corrupt", name] += messages

    def disconnect(self) -> None:
        """Cut every connection now."""
        self.log.note("server", "disconnect")
        self.on_disconnect()

    def half_open(self) -> None:
        """Send nothing any more, heartbeats neither, and keep the sockets."""
        self.silent = True
        self.log.note("server", "half_open")

    def resume(self) -> None:
        """Send again (what came between is lost)."""
        self.silent = False

    def refuse(self, requests: int, *, retry_after_s: int = 1, status: int = 429) -> None:
        """Answer the next REST requests with a status."""
        with self._lock:
            self._refuse, self.retry_after_s, self.status = requests, retry_after_s, status

    def refuse_connect(self, connections: int) -> None:
        """Close the next connections at once."""
        with self._lock:
            self._refuse_connect = connections

    # -- for the server ----------------------------------------------------------------------------------------------

    def verdict(self, number: int, name: str = "") -> str:
        """What to do with message `number` of product `name`: "send", "drop", "corrupt" or "silent"."""
        with self._lock:
            if self._half_open and number > self._half_open and not self.silent:
                self._half_open, self.silent = 0, True
                self.log.note("server", "half_open", number)
            if self.silent:
                return "silent"
            for what, numbers in (("drop", self._drop), ("corrupt", self._corrupt)):
                if number in numbers or self._asked(what, name):
                    self.log.note(name or "server", what, number, 1)
                    return what
            return "send"

    def cuts_behind(self, number: int) -> bool:
        """Whether the connections end behind this message."""
        if number not in self._cut:
            return False
        self.log.note("server", "disconnect", number)
        return True

    def refused(self, path: str) -> bool:
        """Whether a REST request is turned away."""
        with self._lock:
            if self._refuse <= 0:
                return False
            self._refuse -= 1
        self.log.note("rest", "refuse", detail=f"{self.status} {path}")
        return True

    def connect_refused(self) -> bool:
        """Whether a new connection is closed at once."""
        with self._lock:
            if self._refuse_connect <= 0:
                return False
            self._refuse_connect -= 1
        self.log.note("server", "refuse_connect")
        return True

    def _asked(self, what: str, name: str) -> bool:
        for key in ((what, name), (what, "")):
            if self._next[key] > 0:
                self._next[key] -= 1
                return True
        return False
