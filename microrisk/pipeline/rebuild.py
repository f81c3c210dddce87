"""replay: rebuild the books of a recording and write what was asked for."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from microrisk.book import state_hash
from microrisk.errors import UsageError
from microrisk.pipeline.sink import ParquetSink
from microrisk.pipeline.spine import Inputs, Outcome, Progress, Source, Spine
from microrisk.pipeline.tables import BBO_SCHEMA, BOOK_SCHEMA, ORDERS_SCHEMA, bbo_table, book_table, orders_table


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


def replay(
    inputs: Inputs,
    *,
    bbo: str | Path | None = None,
    book: str | Path | None = None,
    depth: int = 10,
    orders: str | Path | None = None,
    progress: Progress | None = None,
    **options: str | None,
) -> ReplayResult:
    """Rebuild books from recordings, in the order given.

    `options` are those of Source (format, date, venue, snapshot). Files appear under their names when complete.
    Raises UsageError for what cannot be meant, FeedError when nothing could be read, OutputError when a file cannot
    be written. Input that breaks off later ends the run: what was read is written, `error` says where.
    """
    if depth < 1:
        raise UsageError(f"--depth {depth}: at least one level")
    spine = Spine(Source.of(inputs, **options))
    with ExitStack() as stack:
        sinks = _Sinks(spine, stack, bbo, book, depth)
        for _ in spine.chunks(progress):
            sinks.drain()
        if orders is not None:
            sinks.orders(stack.enter_context(ParquetSink(orders, ORDERS_SCHEMA)))
    return _result(spine, sinks)


class _Sinks:
    """The optional outputs of a replay; counts prices that do not fit their columns."""

    def __init__(
        self, spine: Spine, stack: ExitStack, bbo: str | Path | None, book: str | Path | None, depth: int
    ) -> None:
        self.spine, self.rows = spine, dict[str, int]()
        self._bbo = self._book = None
        if bbo is not None:
            spine.engine.record_bbo()
            self._bbo = stack.enter_context(ParquetSink(bbo, BBO_SCHEMA))
        if book is not None:
            spine.engine.record_depth(depth)
            self._book = stack.enter_context(ParquetSink(book, BOOK_SCHEMA))

    def drain(self) -> None:
        """Hand what the engine recorded since the last call to the files."""
        if self._bbo is not None:
            self._bbo.write(bbo_table(self.spine.engine.take_bbo(), self.spine.names)[0])
            self.rows["bbo"] = self._bbo.rows
        if self._book is not None:
            rows, levels = self.spine.engine.take_depth()
            self._book.write(book_table(rows, levels, self.spine.names)[0])
            self.rows["book"] = self._book.rows

    def orders(self, sink: ParquetSink) -> None:
        """Resting orders of every instrument, best level first, queue order inside a level."""
        label = self.spine.feed.order_label
        for index, _ in self.spine.instruments():
            rows = self.spine.engine.orders(index)
            labels = [label(int(i)) for i in rows["order_id"]]
            sink.write(orders_table(rows, labels, self.spine.names)[0])
        self.rows["orders"] = sink.rows


def _result(spine: Spine, sinks: _Sinks) -> ReplayResult:
    first, last = spine.span()
    return ReplayResult(
        **spine.outcome(),
        live_orders=spine.engine.live_orders,
        first_ts=first,
        last_ts=last,
        state_hash=state_hash(spine.engine, spine.ids()),
        outputs=sinks.rows,
    )
