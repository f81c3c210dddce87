"""monitor: live feeds, their books and alarms, and the page that shows them."""

from __future__ import annotations

import json as json_text
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from microrisk.cli.console import Exit, narrate, register, say, say_json, tell
from microrisk.cli.read import Json

if TYPE_CHECKING:
    from microrisk.monitor.service import Service


def monitor(
    sources: Annotated[list[str] | None, Parameter(help="URLs, such as file:PATH?speed=1 or kraken:BTC/USD.")] = None,
    /,
    *,
    config: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8765,
    journal: Path | None = None,
    model: str | None = None,
    scored: int = 200,
    seconds: float | None = None,
    json: Json = False,
) -> int:
    """Watch live feeds: books, features, heads and alarms of every instrument, and a page that shows them.

    Parameters
    ----------
    config
        feeds.toml with sources and settings.
    host
        Address of the page; another one than loopback needs a token (MICRORISK_TOKEN).
    port
        Of the page; 0 takes a free one.
    journal
        Folder of journal, checkpoints and alerts: with it a restart goes on where the process ended.
    model
        A name of the registry or a folder (else the promoted one, else default).
    scored
        How many instruments are scored at most: the busiest.
    seconds
        End after so long; without it at Ctrl-C or SIGTERM.
    """
    from microrisk.monitor.address import parse
    from microrisk.monitor.service import Service, Settings, summary

    specs = [parse(text) for text in sources or []]
    service = Service(specs, Settings(folder=journal, model=model, scored=scored))
    narrate(f"monitor: {summary(service.restarted)}")
    return run_service(service, host=host, port=port, seconds=seconds, json=json)


def run_service(
    service: Service, *, host: str, port: int, seconds: float | None, json: bool, show: bool = False
) -> int:
    """Start, serve the page until the end (and show it in a browser), stop; exit code."""
    from microrisk.monitor.web.serve import open_server

    server, url = open_server(service.hub, host=host, port=port)
    service.start()
    if json:
        address, _, token = url.partition("?token=")
        say(json_text.dumps({"url": address, "token": token}))
        sys.stdout.flush()
    else:
        tell(f"microrisk: {url}")
        tell("microrisk: the token in this address opens the page once; Ctrl-C ends")
    if show:
        import webbrowser

        webbrowser.open(url)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: server.stop())
    if seconds is not None:
        _end_after(seconds, server.stop)
    try:
        server.run()
    finally:
        service.stop()
    return _farewell(service, json=json)


def _end_after(seconds: float, stop: Callable[[], None]) -> None:
    import threading

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()


def _farewell(service: Service, *, json: bool) -> int:
    told: dict[str, Any] = service.hub.overview()
    counts = {k: told.get(k) for k in ("messages", "events", "instruments", "alerts")}
    if json:
        say_json({"ended": time.time_ns(), **counts})
    else:
        tell("microrisk: " + ", ".join(f"{v:,} {k}" for k, v in counts.items() if isinstance(v, int)))
    if service.failure is not None:
        tell(f"microrisk: the engine stopped: {service.failure}")
        return Exit.DATA
    return Exit.OK


EXAMPLES: dict[Callable[..., int], tuple[str, ...]] = {
    monitor: (
        "microrisk monitor file:market.pcap?speed=4",
        "microrisk monitor 'moldudp64://239.1.1.1:30001?b=239.1.1.2:30001&request=127.0.0.1:17000' --journal state",
        "microrisk monitor coinbase:BTC-USD kraken:BTC/USD binance:BTCUSDT --port 0 --json",
    ),
}


def add_to(app: App) -> None:
    """Register these commands with their examples."""
    for command, lines in EXAMPLES.items():
        register(app, command, lines)
