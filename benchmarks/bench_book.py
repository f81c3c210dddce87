"""Full-depth books of 1,000 names from ITCH bytes, parse included on every row. Rivals: itchcpp and itch-book.

itchcpp BookManager keeps a queue and gives the final best prices; itch-book Session without tables keeps a queue and
checks references. Ours keeps queue position and every check.
"""

from __future__ import annotations

import itch_book
import itchcpp.book
import pytest

from benchmarks.workloads import Workload
from microrisk.core import Engine, ItchDecoder

pytestmark = pytest.mark.benchmark(group="book")


def _microrisk(data: bytes, bbo: bool = False) -> Engine:
    engine = Engine()
    if bbo:
        engine.record_bbo()
    engine.run_itch(ItchDecoder(), data, 0, 1 << 62)
    engine.finish()
    return engine


def test_microrisk(benchmark, stream: Workload) -> None:
    engine = benchmark.pedantic(_microrisk, (stream.data,), rounds=7, warmup_rounds=1)
    assert engine.live_orders == stream.live_orders
    assert engine.integrity()["unknown_order"] == 0


def test_microrisk_with_bbo(benchmark, stream: Workload) -> None:
    engine = benchmark.pedantic(_microrisk, (stream.data, True), rounds=5, warmup_rounds=1)
    assert len(engine.take_bbo()) > 0


def test_itchcpp(benchmark, stream: Workload) -> None:
    assert itchcpp.book.BookManager.__module__.startswith("itchcpp")

    def run() -> itchcpp.book.BookManager:
        manager = itchcpp.book.BookManager()
        manager.process_stream(stream.data)
        return manager

    assert benchmark.pedantic(run, rounds=7, warmup_rounds=1).book_count() >= stream.symbols


def _itch_book(data: bytes, tables: list[str]) -> itch_book.Session:
    session = itch_book.Session(tables=tables, depth=0, symbols=[])
    session.feed(data)
    return session


def test_itch_book(benchmark, stream: Workload) -> None:
    session = benchmark.pedantic(_itch_book, (stream.data, []), rounds=7, warmup_rounds=1)
    assert session.stats()["live_orders"] == stream.live_orders


def test_itch_book_with_bbo(benchmark, stream: Workload) -> None:
    session = benchmark.pedantic(_itch_book, (stream.data, ["bbo"]), rounds=5, warmup_rounds=1)
    assert session.rows() > 0
