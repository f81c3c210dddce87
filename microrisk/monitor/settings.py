"""The keys of feeds.toml outside of its feeds: sections, defaults, ranges, and a sentence each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    snapshot_s: Annotated[
        float, Meta(ge=1, le=86400, description="seconds between checkpoints: what a restart has to replay")
    ] = 300.0
    model: Annotated[
        str, Meta(max_length=4096, description="name of the registry or a folder; the current one unless given")
    ] = ""
    scored: Annotated[int, Meta(ge=0, le=100_000, description="how many of the busiest instruments are scored")] = 200
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
    wait_us: Annotated[int, Meta(ge=0, le=250_000, description="us of sleep at most when nothing comes")] = 20_000


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
