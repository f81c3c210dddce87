"""monitor: live feeds, their books and alarms, and the page that shows them."""

from __future__ import annotations

import json as json_text
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from microrisk.cli.config import ConfigFile, Set
from microrisk.cli.console import Exit, narrate, register, say, say_json, tell
from microrisk.cli.read import Json

if TYPE_CHECKING:
    from microrisk.monitor.config import Config
    from microrisk.monitor.out.outputs import Outputs
    from microrisk.monitor.service import Service, Settings


def monitor(
    sources: Annotated[list[str] | None, Parameter(help="URLs, such as file:PATH?speed=1 or kraken:BTC/USD.")] = None,
    /,
    *,
    config: ConfigFile = None,
    host: str | None = None,
    port: int | None = None,
    journal: Path | None = None,
    model: str | None = None,
    scored: int | None = None,
    set_: Set = None,
    seconds: float | None = None,
    open_: Annotated[bool, Parameter(name="--open", negative="")] = False,
    json: Json = False,
) -> int:
    """Watch live feeds: books, features, heads and alarms of every instrument, and a page that shows them.

    Flags win over the environment (MICRORISK_SECTION__KEY), that over the file: `microrisk config check` shows all.

    Parameters
    ----------
    host
        Address of the page, 127.0.0.1 unless given; another one needs a token (MICRORISK_MONITOR__TOKEN, or a file).
    port
        Of the page, 8765 unless given; 0 takes a free one.
    journal
        Folder of journal, checkpoints and alerts: with it a restart goes on where the process ended. Without it and
        without a file everything is forgotten at the end.
    model
        A name of the registry or a folder (else the promoted one, else default).
    scored
        How many instruments are scored at most, 200 unless given: the busiest.
    seconds
        End after so long; without it at Ctrl-C or SIGTERM.
    open_
        Show the page in a browser.
    """
    from microrisk.monitor.config import load, parse_sets
    from microrisk.monitor.out.outputs import Outputs
    from microrisk.monitor.service import Service, summary
    from microrisk.pipeline.watch import named

    flags = {"host": host, "port": port, "journal": journal, "model": model, "scored": scored}
    given = {f"monitor.{key}": str(value) for key, value in flags.items() if value is not None}
    found = load(config, environ=os.environ, flags=given | parse_sets(set_ or []), sources=sources or [])
    outputs = Outputs(found.out, named(found.monitor.model or None)[0], webhook_secret=found.webhook_secret)
    with closing(outputs):
        service = Service(found.feeds, _settings(found, outputs))
        narrate(f"monitor: {summary(service.restarted)}")
        for notice in service.restarted.notices:
            narrate(f"monitor: {notice}")
        return run_service(service, found, seconds=seconds, json=json, show=open_)


def _settings(found: Config, outputs: Outputs) -> Settings:
    from microrisk.monitor.service import Settings

    return Settings(
        folder=_folder(found),
        model=found.monitor.model or None,
        scored=found.monitor.scored,
        checkpoint_s=found.monitor.snapshot_s,
        tellers=outputs.tellers,
        row_takers=outputs.row_takers,
        same=found.monitor.same,
        watch=found.monitor.watch,
        outputs=outputs.counts,
        cpu=found.latency.cpu,
        spin=found.latency.spin,
        idle_us=found.latency.wait_us,
        passwords=found.passwords,
    )


def _folder(found: Config) -> Path | None:
    """Where state is kept; None (nowhere) for sources typed without a file and without a folder."""
    typed = not found.file and found.origins["monitor.journal"] == "default"
    return None if typed else Path(found.monitor.journal)


def plain_config(*, port: int) -> Config:
    """Defaults, and a port."""
    from microrisk.monitor.config import load

    return load(None, environ={}, flags={"monitor.port": str(port)})


def run_service(service: Service, found: Config, *, seconds: float | None, json: bool, show: bool = False) -> int:
    """Start, serve the page until the end (and show it in a browser), stop; exit code."""
    from microrisk.monitor.saying import Saying
    from microrisk.monitor.web.serve import open_server

    web = found.monitor
    try:
        server, url = open_server(
            service.hub,
            host=web.host,
            port=web.port,
            token=found.token.reveal() if found.token else None,
            viewer_token=found.viewer_token.reveal() if found.viewer_token else None,
            allowed_hosts=web.origins,
            tls_cert=Path(web.tls_cert) if web.tls_cert else None,
            tls_key=Path(web.tls_key) if web.tls_key else None,
        )
    except BaseException:
        service.stop(clean=False)  # its folder may be a temporary one
        raise
    saying = Saying(lambda line: narrate(f"monitor: {line}"))
    service.hub.say = saying
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
        saying.close()
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
        "microrisk monitor --config feeds.toml",
    ),
}


def add_to(app: App) -> None:
    """Register these commands with their examples."""
    for command, lines in EXAMPLES.items():
        register(app, command, lines)
