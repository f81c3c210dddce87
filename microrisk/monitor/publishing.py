"""What a run of `microrisk publish` is told. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Form = Literal["moldudp64", "soupbintcp", "coinbase", "kraken", "binance", "bitstamp"]


@dataclass(frozen=True)
class Where:
    """Addresses. Port 0 picks a free one; what was picked is said at the beginning.

    Parameters
    ----------
    to
        moldudp64: where line A goes, HOST:PORT, a multicast group or this machine.
    to_b
        moldudp64: where line B goes; none = one line.
    interface
        moldudp64: local address that packets leave by.
    mtu
        moldudp64: bytes of a packet at most.
    host
        Address that servers listen on (TCP, websockets, REST, re-requests).
    port
        Port of the server; of the re-request server with moldudp64.
    glimpse_port
        moldudp64: port of the snapshot server.
    """

    to: str = "127.0.0.1:0"
    to_b: str | None = None
    interface: str = "127.0.0.1"
    mtu: int = 1400
    host: str = "127.0.0.1"
    port: int = 0
    glimpse_port: int = 0


@dataclass(frozen=True)
class What:
    """What is said, and when.

    Parameters
    ----------
    speed
        Times as fast as recorded (a recording without --rate: 1).
    rate
        Messages a second (a generated market without --speed: 100).
    fast
        Everything at once.
    session
        Session name of moldudp64 and soupbintcp.
    restart_at
        moldudp64: so many messages into the run another session begins.
    most
        End after so many messages (generated markets go on until they are stopped).
    wait
        Servers hold the first message back until a client has subscribed or logged in.
    linger
        Seconds that servers stay behind the end.
    products
        Names of a generated market, separated by commas (with the venue's spelling).
    futures
        binance: a generated market of futures.
    user
        soupbintcp: the only user let in; the password is taken from the environment, MICRORISK_PASSWORD.
    """

    speed: float | None = None
    rate: float | None = None
    fast: bool = False
    session: str = "MICRORISK"
    restart_at: int | None = None
    most: int | None = None
    wait: bool = True
    linger: float = 5.0
    products: str = ""
    futures: bool = False
    user: str = ""


@dataclass(frozen=True)
class Wrongs:
    """What goes wrong. Shares are 0 to 1; message numbers count from 1 and are separated by commas.

    Parameters
    ----------
    seed
        Of every draw, and of a generated market: the same seed, the same faults.
    loss
        Share of packets lost, on each line by itself.
    loss_b
        The same for line B, where it differs.
    loss_both
        Share of packets lost on every line.
    burst
        Packets lost together.
    reorder
        Packets are shuffled within runs of so many, up to 64.
    duplicate
        Share of packets sent twice.
    truncate
        Share of packets cut short.
    garbage
        Share of packets replaced by random bytes.
    last
        Share of bursts whose last packet is lost.
    requests
        How the re-request server behaves: honest, dead, slow (0.5 s), lying about session or numbers, short answers.
    drop
        Message numbers that a stream leaves out.
    corrupt
        Message numbers with a wrong checksum.
    disconnect
        Message numbers behind which connections are cut.
    half_open
        Message number behind which nothing more is said.
    delay
        Seconds before each message of a stream.
    refuse
        REST requests answered with 429.
    retry_after
        Seconds that such an answer asks to wait.
    log
        File of JSON lines: what was done to which sequence.
    """

    seed: int = 0
    loss: float = 0.0
    loss_b: float | None = None
    loss_both: float = 0.0
    burst: int = 1
    reorder: int = 0
    duplicate: float = 0.0
    truncate: float = 0.0
    garbage: float = 0.0
    last: float = 0.0
    requests: Literal["honest", "dead", "slow", "session", "numbers", "short"] = "honest"
    drop: str = ""
    corrupt: str = ""
    disconnect: str = ""
    half_open: int = 0
    delay: float = 0.0
    refuse: int = 0
    retry_after: int = 1
    log: Path | None = None


@dataclass(frozen=True)
class Publishing:
    """A whole run; `reading` as for a replay (format, date, venue, snapshot)."""

    form: Form
    inputs: tuple[str, ...]
    reading: dict[str, str | None]
    where: Where
    what: What
    wrongs: Wrongs
