"""demo --serve: the planted market as a live feed, and two scripted venues beside it, all on this machine alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from microrisk.evaluate.demo import SESSION_DATE, planted
from microrisk.market.write import write_mold_pcap
from microrisk.monitor.address import SourceSpec, parse
from microrisk.monitor.publish import (
    CoinbaseMarket,
    CoinbaseServer,
    Host,
    KrakenMarket,
    KrakenServer,
    Pace,
    Product,
    StreamPlan,
    TextMarket,
)

SPEED = 8.0
"""Market seconds a second: the first planted trouble comes after some ten seconds."""
MINUTES = 15.0
RATE = 60.0
"""Messages a second of each scripted venue."""


def market_file(folder: Path, seed: int, minutes: float, say: Callable[[str], None]) -> Path:
    """The planted market's capture, made once for a seed and a length."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"market-{seed}-{minutes:g}.pcap"
    if not path.exists():
        say(f"simulating {minutes:g} minutes of one instrument with planted trouble, seed {seed}")
        partial = path.with_suffix(".partial")
        write_mold_pcap(planted(seed, minutes * 60), partial)
        partial.replace(path)
    return path


@contextmanager
def demo_sources(folder: Path, *, seed: int, minutes: float, say: Callable[[str], None]) -> Iterator[list[SourceSpec]]:
    """Sources of the demo while the block lasts."""
    path = market_file(folder, seed, minutes, say)
    day = SESSION_DATE
    sources = [parse(f"file:{path}?speed={SPEED:g}&loop=true&date={day}&venue=SIMX&name=planted-market")]
    with ExitStack() as stack:
        host = stack.enter_context(Host())
        for scheme, server in _venues(seed):
            host.start(server)
            product = "BTC/USD" if scheme == "kraken" else "BTC-USD"
            rest = "" if scheme == "kraken" else f"&rest={server.rest_url}"
            sources.append(parse(f"{scheme}:{product}?url={server.url}{rest}&name=scripted-{scheme}"))
        yield sources


def _venues(seed: int) -> Iterator[tuple[str, KrakenServer | CoinbaseServer]]:
    """A Kraken whose checksum breaks now and then, a Coinbase that drops a message now and then."""
    places = range(900, 1_000_000, 1800)
    kraken = KrakenMarket(TextMarket([Product("BTC/USD", 1, 8, 600_000)], seed))
    yield "kraken", KrakenServer(kraken, pace=Pace(rate=RATE), plan=StreamPlan(corrupt=places))
    coinbase = CoinbaseMarket(TextMarket([Product("BTC-USD", 2, 8, 6_000_400)], seed + 1))
    yield "coinbase", CoinbaseServer(coinbase, pace=Pace(rate=RATE), plan=StreamPlan(drop=places))
