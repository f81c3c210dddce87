"""A run of `microrisk publish`: one counterpart from its beginning to its end, with a summary."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from microrisk.errors import UsageError
from microrisk.monitor.publish import coinbase
from microrisk.monitor.publish.binance import BinanceMarket, BinanceRecording, BinanceServer
from microrisk.monitor.publish.bitstamp import BitstampMarket, BitstampRecording, BitstampServer
from microrisk.monitor.publish.faults import DatagramPlan, FaultLog, LineFaults, StreamPlan
from microrisk.monitor.publish.glimpse import GlimpseServer
from microrisk.monitor.publish.host import Host
from microrisk.monitor.publish.kraken import KrakenMarket, KrakenPlayer, KrakenRecording, KrakenServer
from microrisk.monitor.publish.market_text import Product, TextMarket
from microrisk.monitor.publish.messages import Timed, itch_messages, timed
from microrisk.monitor.publish.mold import Address, MoldUdpPublisher, RequestFaults, RerequestServer
from microrisk.monitor.publish.pace import Pace, schedule, wait_until
from microrisk.monitor.publish.soupbintcp import SoupBinServer
from microrisk.monitor.publish.tape import Tape
from microrisk.monitor.publish.venue import VenueServer
from microrisk.monitor.publishing import Publishing, Wrongs

Ready = Callable[[dict[str, Any]], None]
Progress = Callable[[float, int], None]

PASSWORD = "MICRORISK_PASSWORD"
NAMES = {"coinbase": "BTC-USD", "kraken": "BTC/USD", "binance": "BTCUSDT", "bitstamp": "btcusd"}
SECONDS = 60.0
"""Length of a simulated session where there is no recording."""
SLOW_S = 0.5
LOOK_S = 0.1


def publish(run: Publishing, ready: Ready, progress: Progress | None = None) -> dict[str, Any]:
    """Do it; an interrupt ends it early and in order.

    ready : takes the addresses as soon as there are any
    progress : takes the share of the recording and the messages so far

    Raises UsageError for options that cannot be meant.
    """
    begin, job = time.monotonic(), _Job(run, ready, progress)
    work = {"moldudp64": job.mold, "soupbintcp": job.soup}.get(run.form, job.venue)
    try:
        counts = work()
    finally:
        if run.wrongs.log is not None:
            job.log.write(run.wrongs.log)
    return {
        "as": run.form, "seconds": round(time.monotonic() - begin, 3), "interrupted": job.interrupted,
        "counts": dict(sorted(counts.items())), "faults": dict(sorted(job.log.counts.items())),
    }  # fmt: skip


class _Job:
    def __init__(self, run: Publishing, ready: Ready, progress: Progress | None) -> None:
        self.run, self.log, self.interrupted = run, FaultLog(), False
        self._ready, self._progress = ready, progress
        self._share = 0.0
        self._stop = threading.Event()

    # -- moldudp64 ---------------------------------------------------------------------------------------------------

    def mold(self) -> Counter[str]:
        """Lines, re-requests and snapshots of one tape."""
        where, what = self.run.where, self.run.what
        tape, messages = Tape(what.session), self._messages()
        lines = [None if text is None else _address(text) for text in (where.to, where.to_b)]
        assert lines[0] is not None
        plan = _lines(self.run.wrongs, self.log)
        requests = RerequestServer(tape, (where.host, where.port), faults=_requests(self.run.wrongs), log=self.log)
        publisher = None
        with requests, Host() as host:
            glimpse = host.start(GlimpseServer(tape, where.host, where.glimpse_port))
            with MoldUdpPublisher(
                tape, lines[0], lines[1], plan=plan, interface=where.interface, mtu=where.mtu
            ) as publisher:
                named = {"request": requests.address, "glimpse": glimpse.address}
                self._say({"a": publisher.addresses["A"]} | _b(publisher.addresses) | named)
                self._guarded(lambda: self._send(publisher, messages))
        return publisher.counts + Counter({f"request_{k}": n for k, n in requests.counts.items()})

    def _send(self, publisher: MoldUdpPublisher, messages: Iterable[Timed]) -> None:
        what = self.run.what
        restart = {} if what.restart_at is None else {what.restart_at: f"{what.session[:9]}2"}
        publisher.run(self._counted(messages), self._pace(recorded=True), sessions=restart)
        end = time.monotonic() + what.linger
        publisher.end(repeats=1)
        while time.monotonic() < end:
            self._stop.wait(min(1.0, max(0.0, end - time.monotonic())))
            publisher.end(repeats=1)

    # -- soupbintcp --------------------------------------------------------------------------------------------------

    def soup(self) -> Counter[str]:
        """A server whose tape is filled at the pace."""
        where, what = self.run.where, self.run.what
        tape, messages = Tape(what.session), self._messages()
        users = {what.user: _password()} if what.user else None
        with Host() as host:
            server = host.start(SoupBinServer(tape, where.host, where.port, users=users, plan=self._stream()))
            self._say({"server": server.address})
            self._guarded(lambda: self._fill(server, tape, messages))
        return server.counts + Counter({"messages": tape.next - 1})

    def _fill(self, server: SoupBinServer, tape: Tape, messages: Iterable[Timed]) -> None:
        what = self.run.what
        while what.wait and not server.counts["logins"]:
            self._stop.wait(LOOK_S)
        begin = time.monotonic_ns()
        for due, message in schedule(self._counted(messages), self._pace(recorded=True)):
            wait_until(begin + due, self._stop)
            tape.append([message])
        tape.end()
        self._linger(lambda: server.clients > 0)

    # -- websockets --------------------------------------------------------------------------------------------------

    def venue(self) -> Counter[str]:
        """A venue's websockets and REST."""
        server = self._server()
        with Host() as host:
            host.start(server)
            self._say({"ws": server.url, "rest": server.rest_url})
            self._guarded(lambda: self._watch(server))
        return server.counts

    def _watch(self, server: VenueServer) -> None:
        while not server.finished.is_set():
            self._stop.wait(LOOK_S)
            self._tell(getattr(server.flow, "progress", 0.0), server.sent)
        self._linger(lambda: bool(server.clients))

    def _server(self) -> VenueServer:
        run, what = self.run, self.run.what
        flow, kind = self._recording() if run.inputs else self._market()
        server: VenueServer = kind(
            flow, run.where.host, run.where.port, pace=self._pace(recorded=bool(run.inputs)), plan=self._stream(),
            hold=what.wait, most=what.most,
        )  # fmt: skip
        return server

    def _recording(self) -> tuple[Any, Any]:
        inputs, snapshot = self.run.inputs, self.run.reading.get("snapshot")
        if snapshot is not None and self.run.form != "coinbase":
            raise UsageError(f"{self.run.form} takes no --snapshot: images are part of the recording, or beside it")
        match self.run.form:
            case "coinbase":
                return coinbase.recording(inputs, snapshot), coinbase.CoinbaseServer
            case "kraken":
                return KrakenRecording(inputs), KrakenPlayer
            case "binance":
                return BinanceRecording(inputs), BinanceServer
            case _:
                return BitstampRecording(inputs), BitstampServer

    def _market(self) -> tuple[Any, Any]:
        form, what, seed = self.run.form, self.run.what, self.run.wrongs.seed
        names = [n for n in what.products.split(",") if n] or [NAMES[form]]
        market = TextMarket([Product(n, 2, 8, 60_000_00 >> i) for i, n in enumerate(names)], seed)
        match form:
            case "coinbase":
                return coinbase.CoinbaseMarket(market), coinbase.CoinbaseServer
            case "kraken":
                return KrakenMarket(market), KrakenServer
            case "binance":
                return BinanceMarket(market, futures=what.futures, seed=seed), BinanceServer
            case _:
                return BitstampMarket(market), BitstampServer

    # -- shared ------------------------------------------------------------------------------------------------------

    def _messages(self) -> Iterator[Timed]:
        """The messages to send; the first one is looked at before anything is opened, so that a bad file is told."""
        run, names = self.run, max(1, len([n for n in self.run.what.products.split(",") if n]))
        if run.inputs:
            messages = itch_messages(run.inputs, told=self._heard, **run.reading)
        else:
            messages = simulated(run.wrongs.seed, names)
        first = list(islice(messages, 1))
        return islice(chain(first, messages), run.what.most)

    def _counted(self, messages: Iterable[Timed]) -> Iterator[Timed]:
        for n, message in enumerate(messages):
            if n % 256 == 0:
                self._tell(self._share, n)
            yield message

    def _heard(self, share: float) -> None:
        self._share = share

    def _tell(self, share: float, n: int) -> None:
        if self._progress is not None:
            self._progress(share, n)

    def _pace(self, *, recorded: bool) -> Pace:
        what = self.run.what
        if what.fast and (what.rate is not None or what.speed is not None):
            raise UsageError("--fast excludes --rate and --speed")
        if what.fast or what.rate is not None or what.speed is not None:
            return Pace(what.rate, what.speed).checked()
        return Pace(speed=1.0) if recorded else Pace(rate=100.0)

    def _stream(self) -> StreamPlan:
        w = self.run.wrongs
        return StreamPlan(
            drop=_numbers(w.drop), corrupt=_numbers(w.corrupt), disconnect=_numbers(w.disconnect),
            half_open=w.half_open, delay_s=w.delay, refuse=w.refuse, retry_after_s=w.retry_after, log=self.log,
        )  # fmt: skip

    def _linger(self, anybody: Callable[[], bool]) -> None:
        end = time.monotonic() + self.run.what.linger
        while time.monotonic() < end and anybody():
            self._stop.wait(LOOK_S)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except KeyboardInterrupt:
            self.interrupted = True

    def _say(self, addresses: dict[str, Any]) -> None:
        named = {k: v if isinstance(v, str) else f"{v[0]}:{v[1]}" for k, v in addresses.items()}
        self._ready({"as": self.run.form, "addresses": named})


def simulated(seed: int, names: int, seconds: float = SECONDS) -> Iterator[Timed]:
    """A simulated session as ITCH messages."""
    import tempfile
    from pathlib import Path

    from microrisk.feed.open import Source
    from microrisk.market.simulator import simulate
    from microrisk.market.write import write_itch
    from microrisk.monitor.publish.messages import framed

    with tempfile.TemporaryDirectory(prefix="microrisk-") as folder:
        path = write_itch(simulate(seed, seconds, instruments=names), Path(folder) / "session.itch")
        yield from timed(framed(Source(path)))


def _lines(w: Wrongs, log: FaultLog) -> DatagramPlan:
    a = LineFaults(w.loss, w.burst, w.reorder, w.duplicate, w.truncate, w.garbage, w.last)
    b = LineFaults(
        w.loss if w.loss_b is None else w.loss_b, w.burst, w.reorder, w.duplicate, w.truncate, w.garbage, w.last
    )
    return DatagramPlan(w.seed, {"A": a, "B": b}, both=w.loss_both, log=log)


def _requests(w: Wrongs) -> RequestFaults:
    lie = w.requests if w.requests in ("session", "numbers") else ""
    slow = SLOW_S if w.requests == "slow" else 0.0
    return RequestFaults(dead=w.requests == "dead", delay_s=slow, lie=lie, short=int(w.requests == "short"))


def _b(addresses: dict[str, Address]) -> dict[str, Address]:
    return {"b": addresses["B"]} if "B" in addresses else {}


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"{text!r} is no address: HOST:PORT is wanted, such as 239.1.1.1:26400")
    return host, int(port)


def _numbers(text: str) -> Sequence[int]:
    try:
        return [int(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise UsageError(f"{text!r}: message numbers separated by commas are wanted") from None


def _password() -> str:
    password = os.environ.get(PASSWORD)
    if password is None:
        raise UsageError(f"--user needs a password in the environment: set {PASSWORD}")
    return password
