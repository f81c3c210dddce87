"""A SoupBinTCP server as a source: numbered ITCH messages, taken up again where they ended.

Session and next number are remembered over connections and asked for again; a session that changed is begun from its
first message. Sequenced messages are put as STREAM items (arbitration makes RUN records of them), a session that begins
as NEW_SESSION in front of its first message, its end as Kind.END.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from microrisk.errors import FeedError, FetchError
from microrisk.monitor.hub import DOWN, ENDED, LIVE, SYNCING
from microrisk.monitor.secret import Secret
from microrisk.monitor.sources import NEW_SESSION, STREAM, Sink
from microrisk.monitor.sources.backoff import Backoff, Gate, gate_of, turn
from microrisk.monitor.sources.outlet import Outlet
from microrisk.monitor.sources.soup_frames import Packet
from microrisk.monitor.sources.soup_session import LoginRefusedError, SoupConfig, SoupSession
from microrisk.spec.journal import Kind

REFUSED_WAIT_S = 10.0
"""At least, behind a refused login: it does not get better by itself, and servers lock accounts."""
STEADY_S = 5.0
"""A connection that lasted so long was a good one: the next failure is a first one."""


class SoupBinSource:
    """One feed over one server.

    Parameters
    ----------
    sink, feed : where it goes
    config, password : of the server
    seq : number to begin with: 1 = the whole session, 0 = from now on; of `session` after a restart of the process
    session : the session that `seq` belongs to, "" = whatever is current
    seed : of the back-off's jitter

    Attributes
    ----------
    counts : connections, refused, lost, sequenced, unsequenced, debug, unknown, sessions
    session, next : as of now; session b"" before the first login
    ended : the server ended the session
    """

    def __init__(
        self,
        sink: Sink,
        feed: int,
        config: SoupConfig,
        *,
        password: Secret | None = None,
        seq: int = 1,
        session: str = "",
        seed: int | None = None,
        gate: Gate | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.out, self.config = Outlet(sink, feed), config
        self.counts: Counter[str] = Counter()
        self.session = session.strip().ljust(10).encode("ascii") if session else b""
        self.next = seq
        self.ended = False
        self._current = False
        self._password = password
        self._backoff = backoff or Backoff(seed=seed)
        self._gate = gate or gate_of(config.place)

    def resync(self, names: Sequence[str], why: str) -> None:
        """There is nothing to ask for: a stream of TCP has no holes."""

    async def run(self) -> None:
        """Until the session ends."""
        while not self.ended:
            await turn(self._gate, self._backoff)
            begun, pause = time.monotonic(), 0.0
            try:
                why = await self._connection()
            except LoginRefusedError as refused:
                why, pause = self._refused(refused)
            except (FetchError, FeedError) as lost:
                why = str(lost)
            if not self.ended:
                self._lost(why, pause, steady=time.monotonic() - begun >= STEADY_S)
        self.out.state(ENDED, "the server ended the session")

    def _refused(self, refused: LoginRefusedError) -> tuple[str, float]:
        """Reason, and seconds to wait at least."""
        self.counts["refused"] += 1
        if refused.reason == b"S" and self.session and not self._current:
            self._current = True
            return f"{refused}; the current one is asked for", 0.0
        return str(refused), REFUSED_WAIT_S

    def _lost(self, why: str, pause_s: float, *, steady: bool) -> None:
        self.counts["lost"] += 1
        if steady:
            self._backoff.succeeded()
        self._backoff.failed(pause_s)
        self.out.state(DOWN, why)

    async def _connection(self) -> str:
        """One connection; why it ended."""
        known = "" if self._current else self.session.decode("ascii").strip() or self.config.session
        seq = 1 if self._current else self.next
        soup = await SoupSession.open(self.config, self._password, seq, session=known)
        self.counts["connections"] += 1
        self._current = False
        try:
            if not await self._accepted(soup):
                return f"session {soup.session.decode('ascii', 'replace').strip()!r} began, it is read from its start"
            await self._take(soup)
            return f"{self.config.place} closed the connection"
        finally:
            self.counts["unknown"] += soup.unknown
            await soup.close(logout=True)

    async def _accepted(self, soup: SoupSession) -> bool:
        """Take up or change the session; False when the login must be made again for its first message."""
        whole = True
        if soup.session != self.session:
            self.counts["sessions"] += 1
            whole = not self.session or soup.first <= 1
            self.session, first = soup.session, soup.first if whole else 1
            await self.out.put(NEW_SESSION, 0, self.out.now_ns(), first, soup.session)
            self.next = first
        else:
            # below what was asked for: arbitration knows them; above: it sees the hole
            self.next = soup.first
        if whole:
            self.out.state(SYNCING, "logged in")
        return whole

    async def _take(self, soup: SoupSession) -> None:
        live = False
        async for packets in soup.packets():
            now = self.out.now_ns()
            for packet in packets:
                await self._packet(packet, now)
            if not live:
                live = True
                self.out.state(LIVE)
            if self.ended:
                return

    async def _packet(self, packet: Packet, now_ns: int) -> None:
        if packet.kind == b"S":
            await self.out.put(STREAM, 0, now_ns, self.next, packet.body)
            self.next += packet.messages
            self.counts["sequenced"] += packet.messages
        elif packet.kind == b"Z":
            self.ended = True
            await self.out.put(Kind.END, 0, now_ns, self.next, b"")
        elif packet.kind in (b"U", b"+"):
            self.counts["unsequenced" if packet.kind == b"U" else "debug"] += 1
