"""What [out] of the configuration asks for, as callables for the service: made, told, closed together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from microrisk.monitor.books import Books
from microrisk.monitor.hub import Alert
from microrisk.monitor.out.jsonl import JsonLines
from microrisk.monitor.out.parquet import Catalog
from microrisk.monitor.out.webhook import Webhook
from microrisk.monitor.secret import Secret
from microrisk.monitor.settings import OutSettings
from microrisk.weights import Weights


class Outputs:
    """JSONL, catalog and webhook, as far as they are asked for.

    Attributes
    ----------
    tellers : each takes an alert and returns at once
    row_takers : each takes books and ROW records and returns at once; empty without a catalog

    Raises
    ------
    OutputError : a file or folder cannot be made
    UsageError : a webhook that must not be
    """

    def __init__(self, settings: OutSettings, weights: Weights, *, webhook_secret: Secret | None = None) -> None:
        self._open: list[JsonLines | Catalog | Webhook] = []
        self._jsonl: JsonLines | None = None
        self._catalog: Catalog | None = None
        self._webhook: Webhook | None = None
        try:
            self._make(settings, weights, webhook_secret)
        except BaseException:
            self.close()
            raise

    def _make(self, out: OutSettings, weights: Weights, secret: Secret | None) -> None:
        if out.alerts:
            self._jsonl = JsonLines(Path(out.alerts), max_bytes=int(out.alerts_max_mb * 1e6))
            self._open.append(self._jsonl)
        if out.parquet:
            self._catalog = Catalog(
                Path(out.parquet), weights, rows_a_file=out.parquet_rows, held_rows=out.parquet_held
            )
            self._open.append(self._catalog)
        if out.webhook:
            self._webhook = Webhook(
                out.webhook,
                private=out.webhook_private,
                secret=secret,
                timeout_s=out.webhook_timeout_s,
                queue=out.webhook_queue,
                tries=out.webhook_tries,
            )
            self._open.append(self._webhook)

    @property
    def tellers(self) -> tuple[Any, ...]:
        """For Settings.tellers."""
        return (self.tell,) if self._open else ()

    @property
    def row_takers(self) -> tuple[Any, ...]:
        """For Settings.row_takers."""
        return (self.take,) if self._catalog else ()

    def tell(self, alert: Alert) -> None:
        """An alert, to everything that is open."""
        if self._jsonl:
            self._jsonl.put(alert)
        if self._catalog:
            self._catalog.tell(alert)
        if self._webhook:
            self._webhook.put(alert)

    def take(self, books: Books, rows: NDArray[Any]) -> None:
        """Scored rows of a feed, in the ingest thread."""
        if self._catalog:
            stage = books.stage
            self._catalog.take(rows, books.names, books.mask, lambda name: bool(stage.marks(name)["calibrated"]))

    def counts(self) -> dict[str, dict[str, Any]]:
        """Totals by output, with `trouble` and `waiting`."""
        told: dict[str, dict[str, Any]] = {}
        if self._jsonl:
            names = ("written", "repeated", "dropped", "failures", "cut", "trouble")
            told["alerts"] = {n: getattr(self._jsonl, n) for n in names}
        for name, part in (("parquet", self._catalog), ("webhook", self._webhook)):
            if part:
                counts = part.counts
                told[name] = {n: getattr(counts, n) for n in counts.__struct_fields__} | {"trouble": part.trouble}
        return told

    def close(self) -> None:
        """Write and deliver what waits, within limits of time; behind `Service.stop`."""
        for part in self._open:
            part.close()
        self._open.clear()
