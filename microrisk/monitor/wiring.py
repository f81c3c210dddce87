"""From a source's address to the jobs and sockets that feed its books."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from microrisk.monitor.address import (
    BinanceOptions,
    BitstampOptions,
    CoinbaseOptions,
    FileOptions,
    KrakenOptions,
    MoldOptions,
    SoupOptions,
    SourceSpec,
)
from microrisk.monitor.books import Books, EventBooks, ItchBooks, TextBooks
from microrisk.monitor.ingest import Ingest
from microrisk.monitor.net import Job
from microrisk.monitor.recovery import Recovery
from microrisk.monitor.secret import Secret
from microrisk.monitor.sources.binance import BinanceSource
from microrisk.monitor.sources.bitstamp import BitstampSource
from microrisk.monitor.sources.coinbase import CoinbaseSource, Keys
from microrisk.monitor.sources.files import FileConfig, FileSource
from microrisk.monitor.sources.glimpse import Glimpse
from microrisk.monitor.sources.kraken import KrakenSource
from microrisk.monitor.sources.rerequest import AskLimits, Rerequester
from microrisk.monitor.sources.soup_session import SoupConfig
from microrisk.monitor.sources.soupbintcp import SoupBinSource
from microrisk.monitor.sources.websocket import WebsocketConfig
from microrisk.monitor.udp import open_line

LINES = ("a", "b")


class Wiring:
    """Sockets and sources of a monitor; `close` gives the sockets back.

    passwords : by name of the feed
    """

    def __init__(self, ingest: Ingest, passwords: Mapping[str, Secret]) -> None:
        self._passwords = passwords
        self._ingest = ingest
        self._sockets: list[socket.socket] = []
        self._askers: list[Rerequester] = []
        self._resyncs: dict[int, Callable[[Sequence[str], str], None]] = {}

    def jobs(self, number: int, spec: SourceSpec, books: Books | None) -> list[Job]:
        """Open what the source needs; what the net thread has to run for it."""
        options = spec.options
        if isinstance(options, FileOptions):
            return [self._file(number, spec, options, books)]
        if isinstance(options, MoldOptions):
            assert isinstance(books, ItchBooks)
            return self._mold(number, spec, options, books)
        if isinstance(options, SoupOptions):
            assert isinstance(books, ItchBooks)
            return [self._soup(number, spec, options, books)]
        return [self._venue(number, spec, books)]

    def resync(self, feed: int, names: Sequence[str], why: str) -> None:
        """Ask a feed's source for images."""
        ask = self._resyncs.get(feed)
        if ask is not None:
            ask(names, why)

    def close(self) -> None:
        """Give sockets back; behind the threads' end."""
        for sock in self._sockets:
            sock.close()
        for asker in self._askers:
            asker.close()

    # -- kinds ------------------------------------------------------------------------------------------------------

    def _file(self, number: int, spec: SourceSpec, options: FileOptions, books: Books | None) -> Job:
        config = FileConfig(
            paths=(spec.path,),
            speed=options.speed,
            loop=options.loop,
            skip_events=books.messages if isinstance(books, EventBooks) else 0,
            format=options.format or None,
            date=None if options.date is None else options.date.isoformat(),
            venue=options.venue or None,
        )
        return FileSource(self._ingest.inbox, number, config).run

    def _mold(self, number: int, spec: SourceSpec, options: MoldOptions, books: ItchBooks) -> list[Job]:
        places = [(spec.host, spec.port)]
        if options.b is not None:
            places.append((options.b.host, options.b.port))
        for line, (host, port) in enumerate(places):
            sock = open_line(host, port, options.interface)
            self._sockets.append(sock)
            self._ingest.poller.add(sock.fileno(), books.live, line)
        jobs: list[Job] = []
        recovery = Recovery(
            number,
            books.live,
            patience_ns=options.recover_ms * 1_000_000,
            hold_ns=options.wait_us * 1000,
            silent_ns=options.silent_ms * 1_000_000,
        )
        if options.request:
            servers = [(e.host, e.port) for e in options.request]
            limits = AskLimits(deadline_s=options.recover_ms / 1000)
            asker = Rerequester(self._ingest.inbox, number, servers, session=lambda: recovery.session, limits=limits)
            self._askers.append(asker)
            recovery.asker = asker
            jobs.append(asker.run)
        if options.glimpse is not None:
            config = SoupConfig(host=options.glimpse.host, port=options.glimpse.port, user=options.user)
            ask = Glimpse(
                self._ingest.inbox, number, config, password=self._passwords.get(spec.name), failed=self._join_failed
            )
            recovery.joiner = ask.join
            jobs.append(ask.run)
        self._ingest.recoveries[number] = recovery
        return jobs

    def _join_failed(self, number: int, why: str) -> None:
        self._ingest.later(lambda: self._ingest.recoveries[number].join_failed(why))

    def _soup(self, number: int, spec: SourceSpec, options: SoupOptions, books: ItchBooks) -> Job:
        assert spec.endpoint is not None
        self._ingest.poller.know(books.live)
        session = books.session
        config = SoupConfig(
            host=spec.host,
            port=spec.port,
            user=options.user,
            session=session or options.session,
            silence_s=options.silent_ms / 1000,
            connect_s=options.connect_s,
        )
        source = SoupBinSource(
            self._ingest.inbox,
            number,
            config,
            password=self._passwords.get(spec.name),
            seq=int(books.live.expected) or 1,
            session=session,
        )
        return source.run

    def _venue(self, number: int, spec: SourceSpec, books: Books | None) -> Job:
        assert isinstance(books, TextBooks)
        options: Any = spec.options
        config = WebsocketConfig(
            names=spec.products,
            url=options.url,
            rest=getattr(options, "rest", ""),
            idle_s=options.silent_ms / 1000,
            connect_s=options.connect_s,
        )
        make = VENUES[type(options)]
        extra: dict[str, Any] = {}
        for option, argument in (("channel", "channel"), ("depth", "depth")):
            if hasattr(options, option):
                extra[argument] = getattr(options, option)
        if isinstance(options, BinanceOptions):
            extra = {"market": options.market, "limit": options.depth}
        if isinstance(options, CoinbaseOptions) and (line := self._passwords.get(spec.name)) is not None:
            extra["keys"] = Keys.parse(line)
        source = make(self._ingest.inbox, number, config, seq=books.seq, **extra)
        self._resyncs[number] = source.resync
        run: Job = source.run
        return run


VENUES: dict[type, Callable[..., Any]] = {
    CoinbaseOptions: CoinbaseSource,
    KrakenOptions: KrakenSource,
    BinanceOptions: BinanceSource,
    BitstampOptions: BitstampSource,
}
