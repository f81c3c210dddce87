"""replay: rebuild the books of a recording and write what was asked for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from microrisk.book import state_hash
from microrisk.core import Table
from microrisk.errors import UsageError
from microrisk.pipeline.paged import PagedSink
from microrisk.pipeline.sink import ParquetSink
from microrisk.pipeline.spine import Inputs, Outcome, Progress, Source, Spine
from microrisk.pipeline.tables import ACTIONS, ORDERS_SCHEMA, SCHEMAS, SIDES, Names, orders_table

MAX_DEPTH = 10_000


@dataclass(frozen=True, kw_only=True)
class ReplayResult(Outcome):
    """What a replay found; `to_json` is the contract of `replay --json`.

    Attributes
    ----------
    live_orders : resting at the end
    first_ts, last_ts : venue time (else receive time) of the first and last message, ns UTC
    state_hash : digest over instruments, sides, levels and queues
    outputs : rows written, by option
    """

    live_orders: int
    first_ts: int | None
    last_ts: int | None
    state_hash: str
    outputs: dict[str, int]

    def strict_exit_code(self) -> int:
        """3 when the run broke off or a hard count is not zero."""
        return 3 if self.hard else self.exit_code()


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """The files that a replay writes; None = not asked for.

    Attributes
    ----------
    bbo : every change of a best price or size
    book : `depth` levels a side whenever one of them changed, or with `every_ns` as of the multiples of that time
    trades : every print
    events : every order event, with what the book knew about the order
    orders : the resting orders at the end
    """

    bbo: str | Path | None = None
    book: str | Path | None = None
    trades: str | Path | None = None
    events: str | Path | None = None
    orders: str | Path | None = None
    depth: int = 10
    every_ns: int | None = None

    def check(self) -> None:
        """Raise UsageError for what cannot be meant."""
        if not 1 <= self.depth <= MAX_DEPTH:
            raise UsageError(f"--depth {self.depth}: 1 to {MAX_DEPTH} levels")
        if self.every_ns is not None and self.every_ns < 1:
            raise UsageError(f"--every {self.every_ns} ns: a positive time, or change")


def replay(
    inputs: Inputs,
    *,
    bbo: str | Path | None = None,
    book: str | Path | None = None,
    depth: int = 10,
    every_ns: int | None = None,
    trades: str | Path | None = None,
    events: str | Path | None = None,
    orders: str | Path | None = None,
    progress: Progress | None = None,
    **options: str | None,
) -> ReplayResult:
    """Rebuild books from recordings, in the order given.

    The outputs are those of `Outputs`, `options` those of Source (format, date, venue, snapshot). Files appear under
    their names when complete. Raises UsageError for what cannot be meant, FeedError when nothing could be read,
    OutputError when a file cannot be written. Input that breaks off later ends the run: what was read is written,
    `error` says where.
    """
    outputs = Outputs(bbo=bbo, book=book, depth=depth, every_ns=every_ns, trades=trades, events=events, orders=orders)
    outputs.check()
    spine = Spine(Source.of(inputs, **options))
    return _result(spine, write_outputs(spine, outputs, progress))


def write_outputs(spine: Spine, outputs: Outputs, progress: Progress | None = None) -> dict[str, int]:
    """Run the spine and write what was asked for; rows by output."""
    with ExitStack() as stack:
        sinks = _open_sinks(spine, outputs, stack)
        for _ in spine.chunks(progress):
            for sink in sinks.values():
                sink.drain(spine.engine)
        rows = {name: sink.rows for name, sink in sinks.items()}
        if outputs.orders is not None:
            rows["orders"] = _write_orders(spine, stack.enter_context(ParquetSink(outputs.orders, ORDERS_SCHEMA)))
    return rows


def _open_sinks(spine: Spine, outputs: Outputs, stack: ExitStack) -> dict[str, PagedSink]:
    """Switch on what the engine has to record, and open a file for each."""
    engine, every = spine.engine, outputs.every_ns
    if outputs.bbo is not None:
        engine.record_bbo()
    if outputs.book is not None and every is None:
        engine.record_depth(outputs.depth)
    elif outputs.book is not None and every is not None:
        engine.record_samples(outputs.depth, every)
    if outputs.trades is not None:
        engine.record_prints()
    if outputs.events is not None:
        engine.record_deeds()
    asked = {
        "bbo": ("bbo", outputs.bbo),
        "book": ("book" if every is None else "samples", outputs.book),
        "trades": ("trades", outputs.trades),
        "events": ("events", outputs.events),
    }
    return {
        name: stack.enter_context(paged_sink(path, kind, spine.names))
        for name, (kind, path) in asked.items()
        if path is not None
    }


def paged_sink(path: str | Path, kind: str, names: Names) -> PagedSink:
    """A file for one kind of `core.Table`."""
    labels: dict[str, Callable[[], list[str]]] = {
        "instrument": lambda: names.names,
        "action": lambda: ACTIONS,
        "side": lambda: SIDES,
        "aggressor": lambda: SIDES,
    }
    return PagedSink(path, SCHEMAS[kind], Table(kind, names.naming), labels, names.learn)


def _write_orders(spine: Spine, sink: ParquetSink) -> int:
    """Resting orders of every instrument, best level first, queue order inside a level."""
    label = spine.feed.order_label
    for index, _ in spine.instruments():
        rows = spine.engine.orders(index)
        labels = [label(i) for i in rows["order_id"].tolist()]
        sink.write(orders_table(rows, labels, spine.names)[0])
    return sink.rows


def _result(spine: Spine, rows: dict[str, int]) -> ReplayResult:
    first, last = spine.span()
    return ReplayResult(
        **spine.outcome(),
        live_orders=spine.engine.live_orders,
        first_ts=first,
        last_ts=last,
        state_hash=state_hash(spine.engine, spine.ids()),
        outputs=rows,
    )
