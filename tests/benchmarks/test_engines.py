"""The comparison itself: every engine reaches the same books, a wrong state is found, ratios are made inside rounds."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("itch_book", reason="the rival itch-book is not installed")
pytest.importorskip("itchcpp", reason="the rival itchcpp is not installed")

from benchmarks.engines import ENGINES, Microrisk, check
from benchmarks.measure import summary, timed
from benchmarks.workloads import itch_stream


@pytest.fixture(scope="module")
def stream() -> bytes:
    return itch_stream(orders=20_000, symbols=120).data


def test_engines_reach_the_same_books(stream: bytes) -> None:
    ours = Microrisk()
    ours.feed(stream)
    truth, best = ours.state(), ours.bests(120)
    assert (best > 0).any(1).mean() > 0.5
    for make in ENGINES.values():
        engine = make()
        engine.feed(stream)
        compared = check(engine, truth, best)
        assert {"live_orders", "best of every name"} & set(compared)


def test_a_feed_in_two_parts_is_the_same(stream: bytes) -> None:
    cut = 0
    while cut < len(stream) // 2:
        cut += 2 + int.from_bytes(stream[cut : cut + 2], "big")
    for make in ENGINES.values():
        whole, parts = make(), make()
        whole.feed(stream)
        parts.feed(stream[:cut])
        parts.feed(stream[cut:])
        assert whole.state() == parts.state()
        assert np.array_equal(whole.bests(120), parts.bests(120))


def test_a_wrong_state_is_found(stream: bytes) -> None:
    engine = Microrisk()
    engine.feed(stream)
    truth, best = engine.state(), engine.bests(120)
    with pytest.raises(AssertionError, match="levels"):
        check(engine, truth | {"levels": truth["levels"] + 1}, best)
    best[7, 1] += 1
    with pytest.raises(AssertionError, match="8"):
        check(engine, truth, best)


def test_ratios_are_made_inside_a_round() -> None:
    rounds = [
        {"microrisk": {"cpu_ns": 100, "wall_ns": 110}, "other": {"cpu_ns": 300, "wall_ns": 300}},
        {"microrisk": {"cpu_ns": 400, "wall_ns": 410}, "other": {"cpu_ns": 800, "wall_ns": 900}},
    ]
    found = summary(rounds, messages=10)
    assert found["other"]["ratio"] == {"median": 2.5, "low": 2.0, "high": 3.0, "n": 2}
    assert found["microrisk"]["cpu_ns"]["median"] == 25.0


def test_time_of_other_threads_is_not_lost() -> None:
    import threading

    def work() -> None:
        thread = threading.Thread(target=lambda: sum(range(20_000_000)))
        thread.start()
        thread.join()

    with pytest.raises(AssertionError):
        timed(work)
