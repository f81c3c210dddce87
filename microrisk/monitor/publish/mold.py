"""MoldUDP64 sender: lines A and B, heartbeats, end and change of session, and a re-request server that may lie.

Byte layouts are those of the MoldUDP64 1.00 specification. How often a venue sends heartbeats, how long it repeats the
end of a session, and how many messages a re-request answer holds are our choices: not verified against a live venue.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from microrisk.errors import UsageError
from microrisk.feed.mold import HEADER, end_of_session, mold_packet
from microrisk.monitor.publish.faults import DatagramPlan, FaultLog
from microrisk.monitor.publish.messages import Timed
from microrisk.monitor.publish.pace import AT_ONCE, NS_PER_S, Pace, schedule
from microrisk.monitor.publish.tape import Tape
from microrisk.spec.messages import MOLD_END_OF_SESSION, MOLD_HEARTBEAT

Address = tuple[str, int]
Sessions = Mapping[int, str]
LOOPBACK = "127.0.0.1"
MTU = 1400
MAX_MTU = 65_507
SEND_BUFFER = 4 << 20


class MoldUdpPublisher:
    """Sends the messages of a tape as packets on one or two lines. Methods may be called from any thread.

    Parameters
    ----------
    tape : where every message sent is put down, for re-request and replay servers
    a, b : address of each line, a multicast group or a unicast address; port 0 picks a free one; b None = one line
    plan : faults, by line "A" and "B"
    interface : local address that packets leave by; multicast has a time to live of 0
    mtu : bytes of a packet at most
    per_packet : messages of a packet at most
    max_delay_ns : a packet waits so long for more messages
    heartbeat_s : pause after which a heartbeat is sent; heartbeats and ends of session suffer no faults

    Attributes
    ----------
    addresses : by line, with the ports in use
    counts : packets_a, packets_b, messages, heartbeats, ends, send_errors, late (packets sent over 1 ms after their
        time)
    """

    def __init__(
        self,
        tape: Tape,
        a: Address = (LOOPBACK, 0),
        b: Address | None = None,
        *,
        plan: DatagramPlan | None = None,
        interface: str = LOOPBACK,
        mtu: int = MTU,
        per_packet: int = 50,
        max_delay_ns: int = 100_000,
        heartbeat_s: float = 1.0,
    ) -> None:
        if not HEADER.size + 2 < mtu <= MAX_MTU or not 0 < per_packet < MOLD_END_OF_SESSION or heartbeat_s <= 0:
            raise UsageError(f"mtu {mtu}, per_packet {per_packet}, heartbeat {heartbeat_s} s: out of range")
        self.tape, self.plan, self.heartbeat_s = tape, plan or DatagramPlan(), heartbeat_s
        self.mtu, self.per_packet, self.max_delay_ns = mtu, per_packet, max_delay_ns
        self.counts: Counter[str] = Counter()
        lines = {"A": a} if b is None else {"A": a, "B": b}
        self.addresses = {line: _with_port(address, interface) for line, address in lines.items()}
        self._sockets = {line: sender(address[0], interface) for line, address in self.addresses.items()}
        self._packets, self._paced = 0, False
        self._last_sent = time.monotonic()
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    # -- by hand -----------------------------------------------------------------------------------------------------

    def send(self, messages: Iterable[bytes]) -> int:
        """Send messages now, in as few packets as hold them; the last packet ends a burst. Returns the packets."""
        packets = list(self._cut(messages))
        for i, group in enumerate(packets):
            self._send_packet(group, last=i == len(packets) - 1)
        return len(packets)

    def heartbeat(self) -> None:
        """Say which number comes next."""
        self.flush()
        self._control(mold_packet(self.tape.session, self.tape.next, []), "heartbeats")

    def end(self, repeats: int = 3, interval_s: float = 0.02) -> None:
        """End the session; said `repeats` times."""
        self.flush()
        self.tape.end()
        for i in range(repeats):
            if i:
                self._stop.wait(interval_s)
            self._control(end_of_session(self.tape.session, self.tape.next), "ends")

    def change_session(self, name: str) -> None:
        """Go on in another session, with number 1, as after a restart of the venue (no end is said)."""
        with self._lock:
            self.flush()
            self.tape.restart(name)

    def flush(self) -> None:
        """Send what the shuffle still holds."""
        with self._lock:
            for line in self._sockets:
                self._out(line, self.plan.flush(line))

    # -- by schedule -------------------------------------------------------------------------------------------------

    def run(
        self, messages: Iterable[Timed], pace: Pace = AT_ONCE, *, sessions: Mapping[int, str] | None = None
    ) -> None:
        """Send (time ns, message) pairs at their pace, with heartbeats in pauses, until they end or `close`.

        sessions : index of a message -> name of the session that begins with it
        """
        begin, changes = time.monotonic_ns(), dict(sessions or {})
        self._paced = pace != AT_ONCE
        held: list[bytes] = []
        size = first = at = 0
        for index, (due, message) in enumerate(schedule(messages, pace)):
            full = len(held) >= self.per_packet or size + 2 + len(message) > self.mtu
            pause = due - first > self.max_delay_ns
            if held and (full or pause or index in changes):
                if not self._until(begin + at):
                    return
                self._send_packet(held, last=due - at > NS_PER_S // 1000)
                held = []
            if index in changes:
                self.change_session(changes[index])
            if not held:
                first, size = due, HEADER.size
            held.append(message)
            size += 2 + len(message)
            at = due
        if held and self._until(begin + at):
            self._send_packet(held, last=True)
        self.flush()

    def start(self, messages: Iterable[Timed], pace: Pace = AT_ONCE, **options: Any) -> threading.Thread:
        """`run` in a thread, then heartbeats until `close`."""

        def work() -> None:
            self.run(messages, pace, **options)
            self.idle()

        return self._spawn(work)

    def idle(self, seconds: float | None = None) -> None:
        """Heartbeats for so long, or until `close`; none once the session has ended."""
        self._until(None if seconds is None else time.monotonic_ns() + int(seconds * NS_PER_S))

    def start_heartbeats(self) -> threading.Thread:
        """`idle` in a thread, for tests that send by hand."""
        return self._spawn(self.idle)

    def close(self) -> None:
        """Stop the threads and close the sockets."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for s in self._sockets.values():
            s.close()

    def __enter__(self) -> MoldUdpPublisher:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _spawn(self, work: Any) -> threading.Thread:
        thread = threading.Thread(target=work, name="moldudp64")
        self._threads.append(thread)
        thread.start()
        return thread

    def _until(self, due_ns: int | None) -> bool:
        """Wait for a monotonic time, with heartbeats; False when closed before."""
        while True:
            left = None if due_ns is None else (due_ns - time.monotonic_ns()) / NS_PER_S
            if left is not None and left <= 0:
                # what is due at once cannot be late
                self.counts["late"] += self._paced and left < -0.001
                return not self._stop.is_set()
            silent = self.heartbeat_s - (time.monotonic() - self._last_sent)
            if silent <= 0:
                if not self.tape.ended:
                    self.heartbeat()
                self._last_sent = time.monotonic()
                continue
            if self._stop.wait(silent if left is None else min(left, silent)):
                return False

    def _cut(self, messages: Iterable[bytes]) -> Iterable[list[bytes]]:
        held: list[bytes] = []
        size = HEADER.size
        for message in messages:
            if held and (len(held) >= self.per_packet or size + 2 + len(message) > self.mtu):
                yield held
                held, size = [], HEADER.size
            held.append(message)
            size += 2 + len(message)
        if held:
            yield held

    def _send_packet(self, messages: Sequence[bytes], *, last: bool) -> None:
        with self._lock:
            seq = self.tape.append(messages)
            packet = mold_packet(self.tape.session, seq, messages)
            for line in self._sockets:
                self._out(line, self.plan.apply(line, self._packets, seq, len(messages), packet, last=last))
            self._packets += 1
            self.counts["messages"] += len(messages)
            self._last_sent = time.monotonic()

    def _control(self, packet: bytes, what: str) -> None:
        with self._lock:
            self.counts[what] += 1
            for line in self._sockets:
                self._out(line, [packet])
            self._last_sent = time.monotonic()

    def _out(self, line: str, packets: Iterable[bytes]) -> None:
        for packet in packets:
            try:
                self._sockets[line].sendto(packet, self.addresses[line])
                self.counts[f"packets_{line.lower()}"] += 1
            except OSError:
                self.counts["send_errors"] += 1


class RequestFaults(msgspec.Struct, frozen=True):
    """How a re-request server misbehaves.

    Attributes
    ----------
    dead : no answer at all
    delay_s : before each answer
    lie : "session" = answers carry another session's name, "numbers" = numbers that nobody asked for
    short : messages of an answer at most; 0 = as many as fit
    lose : requests without an answer, before the others get one
    """

    dead: bool = False
    delay_s: float = 0.0
    lie: str = ""
    short: int = 0
    lose: int = 0


HONEST = RequestFaults()
"""No fault at all."""


class RerequestServer:
    """Answers requests with packets of the tape, one packet each, from a thread of its own.

    Attributes
    ----------
    address : host and port in use
    faults : may be replaced at any time
    counts : requests, answers, messages, lost, foreign (another session), forgotten (older than the tape), malformed
    """

    LIE_SHIFT = 1_000_000

    def __init__(
        self,
        tape: Tape,
        address: Address = (LOOPBACK, 0),
        *,
        faults: RequestFaults = HONEST,
        mtu: int = MTU,
        log: FaultLog | None = None,
    ) -> None:
        if faults.lie not in ("", "session", "numbers"):
            raise UsageError(f'lie = {faults.lie!r}: "session" or "numbers"')
        self.tape, self.faults, self.mtu, self.log = tape, faults, mtu, log or FaultLog()
        self.counts: Counter[str] = Counter()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.settimeout(0.2)
        self.address: Address = self._socket.getsockname()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="re-request")
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def __enter__(self) -> RerequestServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                data, peer = self._socket.recvfrom(2048)
            except TimeoutError:
                continue
            except OSError:  # an answer to a client that has gone
                self.counts["send_errors"] += 1
                continue
            answer = self.answer(data)
            if answer is not None and not self._stop.wait(self.faults.delay_s):
                try:
                    self._socket.sendto(answer, peer)
                except OSError:
                    self.counts["send_errors"] += 1

    def answer(self, request: bytes) -> bytes | None:
        """The answer to one request, None for silence."""
        try:
            session, seq, count = HEADER.unpack(request)
        except struct.error:
            self.counts["malformed"] += 1
            return None
        self.counts["requests"] += 1
        if self._silent(seq, count):
            return None
        if session != self.tape.session.encode("ascii").ljust(10) or not MOLD_HEARTBEAT < count < MOLD_END_OF_SESSION:
            self.counts["foreign"] += 1
            return None
        return self._packet(seq, self._fitting(seq, count))

    def _silent(self, seq: int, count: int) -> bool:
        f = self.faults
        if f.lose:
            self.faults = msgspec.structs.replace(f, lose=f.lose - 1)
        if f.dead or f.lose:
            self.log.note("request", "loss", seq, count, "dead" if f.dead else "lost")
            self.counts["lost"] += 1
        return f.dead or f.lose > 0

    def _fitting(self, seq: int, count: int) -> list[bytes]:
        most = min(count, self.faults.short or count)
        if most < count:
            self.log.note("request", "short", seq, most, f"{count} asked")
        out: list[bytes] = []
        size = HEADER.size
        for message in self.tape.read(seq, most):
            size += 2 + len(message)
            if out and size > self.mtu:
                break
            out.append(message)
        return out

    def _packet(self, seq: int, messages: list[bytes]) -> bytes | None:
        if not messages:
            self.counts["forgotten"] += 1
            return None
        self.counts["answers"] += 1
        self.counts["messages"] += len(messages)
        if self.faults.lie:
            self.log.note("request", "lie", seq, len(messages), self.faults.lie)
        session = "NOTTHISONE" if self.faults.lie == "session" else self.tape.session
        return mold_packet(session, seq + self.LIE_SHIFT * (self.faults.lie == "numbers"), messages)


def sender(host: str, interface: str = LOOPBACK) -> socket.socket:
    """A UDP socket that sends to `host`; multicast stays on the interface's machine.

    Raises UsageError for an address beyond loopback while the interface is loopback.
    """
    target, local = ipaddress.ip_address(host), ipaddress.ip_address(interface)
    if not target.is_multicast and local.is_loopback and not target.is_loopback:
        raise UsageError(f"{host} is not this machine: name the interface to send by (interface {interface})")
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    if target.is_multicast:
        s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
        s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
        s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
    return s


def _with_port(address: Address, interface: str) -> Address:
    """The address, with a port that is free here in place of 0."""
    host, port = address
    if port:
        return host, port
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((interface, 0))
        return host, probe.getsockname()[1]
