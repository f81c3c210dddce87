"""The keys of feeds.toml outside of its feeds: sections, defaults, ranges, and a sentence each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import platformdirs
from msgspec import Meta

PathText = Annotated[str, Meta(max_length=4096, pattern="^[^\\x00-\\x1f]*\\Z")]


def _journal() -> str:
    return str(Path(platformdirs.user_data_dir("microrisk")) / "journal")


class MonitorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """[monitor]"""

    host: Annotated[
        str,
        Meta(max_length=253, pattern="^[A-Za-z0-9.:_-]+\\Z", description="address of the page; loopback by default"),
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="port of the page, 0..65535; 0 = any free one")] = 8765
    journal: Annotated[PathText, Meta(description="folder of the input journal and its checkpoints")] = msgspec.field(
        default_factory=_journal
    )
    journal_keep_gb: Annotated[
        float, Meta(ge=0, le=1e6, description="GB of old segments kept behind the newest checkpoint; 0 = all are kept")
    ] = 0.0
    snapshot_s: Annotated[
        float, Meta(ge=1, le=86400, description="seconds between checkpoints: what a restart has to replay")
    ] = 30.0
    model: Annotated[
        str, Meta(max_length=4096, description="name of the registry or a folder; the current one unless given")
    ] = ""
    backend: Annotated[
        str, Meta(max_length=32, pattern="^[a-z0-9_]+\\Z", description="back end of the scorer; auto = cpu")
    ] = "auto"
    scored: Annotated[int, Meta(ge=0, le=100_000, description="how many of the busiest instruments are scored")] = 200
    depth: Annotated[int, Meta(ge=1, le=200, description="levels a side that displays get, 1..200")] = 40
    frames_s: Annotated[float, Meta(gt=0, le=60, description="frames a second of an instrument that is looked at")] = (
        30.0
    )
    queue: Annotated[
        int, Meta(ge=64, le=1 << 22, description="messages that wait between a websocket or TCP source and the books")
    ] = 65536
    alerts_kept: Annotated[int, Meta(ge=10, le=1_000_000, description="alerts that the page keeps")] = 10_000
    same: Annotated[
        tuple[Annotated[tuple[str, ...], Meta(min_length=2)], ...],
        Meta(
            max_length=1000, description='symbols taken for one another across venues, such as [["BTC-USD", "BTCUSDT"]]'
        ),
    ] = ()
    watch: Annotated[
        tuple[str, ...], Meta(max_length=50, description="instruments with metrics of their own, at most 50")
    ] = ()
    token_file: Annotated[
        PathText, Meta(description="file of mode 0600 with the token of the page; a random one a start unless given")
    ] = ""
    viewer_token_file: Annotated[PathText, Meta(description="file of mode 0600 with a token that may only look")] = ""
    tls_cert: Annotated[PathText, Meta(description="PEM file of the certificate chain, for https")] = ""
    tls_key: Annotated[PathText, Meta(description="PEM file of its key, mode 0600")] = ""
    origins: Annotated[
        tuple[Annotated[str, Meta(max_length=300)], ...],
        Meta(max_length=16, description="further HOST:PORT by which browsers reach the page, such as a proxy's"),
    ] = ()


class OutSettings(msgspec.Struct, frozen=True, kw_only=True):
    """[out]"""

    alerts: Annotated[PathText, Meta(description="JSONL file of alerts; empty = none")] = ""
    alerts_max_mb: Annotated[
        float, Meta(ge=0.001, le=1e6, description="MB after which the file of alerts is put aside and a new one begun")
    ] = 64.0
    parquet: Annotated[PathText, Meta(description="folder of the Parquet catalog; empty = none")] = ""
    parquet_rows: Annotated[
        int, Meta(ge=1000, le=1 << 24, description="rows of an instrument after which its file is finished")
    ] = 1 << 20
    parquet_held: Annotated[
        int, Meta(ge=1000, le=1 << 24, description="rows that wait for the disk at most; more are counted as dropped")
    ] = 1 << 20
    webhook: Annotated[
        str, Meta(max_length=2048, description="https:// address that gets each alert; empty = none")
    ] = ""
    webhook_secret_file: Annotated[
        PathText, Meta(description="file of mode 0600 with the secret that signs what is sent")
    ] = ""
    webhook_private: Annotated[
        bool, Meta(description="private and loopback addresses are allowed, also without TLS on loopback")
    ] = False
    webhook_timeout_s: Annotated[float, Meta(gt=0, le=60, description="seconds that one delivery may take")] = 5.0
    webhook_queue: Annotated[int, Meta(ge=1, le=100_000, description="alerts that wait for delivery at most")] = 1000
    webhook_tries: Annotated[int, Meta(ge=1, le=20, description="attempts for one alert")] = 6


class LatencySettings(msgspec.Struct, frozen=True, kw_only=True):
    """[latency]"""

    cpu: Annotated[int, Meta(ge=-1, le=4095, description="core of the ingest thread; -1 = the system chooses")] = -1
    spin: Annotated[bool, Meta(description="never sleep while waiting for packets: one core is used up")] = False
    budget_us: Annotated[int, Meta(ge=10, le=1_000_000, description="us of packets after which others get a turn")] = (
        2000
    )
    wait_us: Annotated[int, Meta(ge=0, le=250_000, description="us of sleep at most when nothing comes")] = 20_000
    warn: Annotated[
        Literal["", "p50", "p99", "p99.9"],
        Meta(description="quantile of receive to scored that is watched; empty = none"),
    ] = "p99"
    warn_ms: Annotated[float, Meta(gt=0, le=60_000, description="ms above which a notice is given")] = 100.0


SECTIONS: dict[str, type[msgspec.Struct]] = {
    "monitor": MonitorSettings,
    "out": OutSettings,
    "latency": LatencySettings,
}
SECRETS = {
    ("monitor", "token"): "token_file",
    ("monitor", "viewer_token"): "viewer_token_file",
    ("out", "webhook_secret"): "webhook_secret_file",
}
"""What may only come from the environment or from the file that the other key names."""
