"""The comparison with cryptofeed: the judge of what was handed out, the tape, both clients on one venue."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.bench_cryptofeed import PYTHON, _equal, installed, run
from benchmarks.served import SLACK_S, Lost, Row, Trail, judged, ours, theirs
from benchmarks.venue_rig import Ledger

MS = 1_000_000


def needs_rival() -> None:
    if not installed():
        pytest.skip(f"cryptofeed is not installed in {PYTHON.parent.parent}: nox -s rivals_live does it")


@pytest.fixture
def ledger() -> Ledger:
    """Books 10, 11, 12, ... with their numbers as digests, sent 100 ms apart from 1000 ms on."""
    out = Ledger()
    for k in range(6):
        out.add("X", 10 + k, 10 + k)
        out._stamps["X"][-1] = (1000 + 100 * k) * MS
    return out


def trail(*rows: tuple[int, int, int, bool]) -> Trail:
    lost = [Lost(1100 * MS, "X", 11)]
    return Trail(1000 * MS, 1600 * MS, {"X": [Row(t * MS, *rest) for t, *rest in rows]}, lost)  # type: ignore[misc]


def test_a_client_that_waits_for_an_image_hands_out_nothing_wrong(ledger: Ledger) -> None:
    found = judged(
        trail((1000, 10, 10, True), (1201, 12, 99, False), (1205, 12, 12, True), (1301, 13, 13, True)), ledger
    )
    assert (found["handed_out"], found["wrong"], found["wrong_book_seconds"]) == (3, 0, 0.0)
    assert found["recovered_ms"] == {"p50": 105.0, "p95": 105.0, "max": 105.0}
    assert found["old_book_seconds"] == pytest.approx(0.2 - SLACK_S), "nothing came behind 13, but 14 was sent at 1400"


def test_wrong_books_are_counted_and_timed(ledger: Ledger) -> None:
    rows = [
        (1000, 10, 10, True),
        (1201, 12, 99, True),
        (1301, 13, 98, True),
        (1401, 14, 14, True),
        (1501, 15, 15, True),
    ]
    found = judged(trail(*rows), ledger)
    assert (found["wrong"], found["wrong_book_seconds"], found["longest_wrong_s"]) == (2, 0.2, 0.2)
    assert found["recovered_ms"]["max"] == 301.0
    assert found["old_book_seconds"] == 0.0


def test_a_client_that_is_silent_while_it_connects_hands_out_old_books(ledger: Ledger) -> None:
    found = judged(trail((1000, 10, 10, True), (1555, 15, 15, True)), ledger)
    assert found["wrong"] == 0
    assert found["old_book_seconds"] == pytest.approx(1.555 - 1.2 - SLACK_S), "12 at 1200 showed the loss of 11"
    never = judged(trail((1000, 10, 10, True)), ledger)
    assert (never["not_recovered"], never["recovered_ms"]) == (1, None)


@pytest.mark.parametrize("side", ["monitor", "cryptofeed"])
@pytest.mark.parametrize("venue", ["Kraken", "Binance spot"])
def test_both_end_with_the_markets_books(side: str, venue: str) -> None:
    if side == "cryptofeed":
        needs_rival()
    found = run(side, venue, 2, 400, 0.0, seed=3)
    assert found["per_s"] > 100
    assert found["cpu_us"] > 0


def test_another_book_is_found() -> None:
    book = [[(100, 1)], [(101, 1)]]
    ok: dict[str, Any] = {"books": {"aaa/usd": book}, "states": {"AAA/USD": "live"}}
    _equal(ok, {"AAA/USD": book}, "")
    with pytest.raises(AssertionError, match="another book"):
        _equal(ok, {"AAA/USD": [[(100, 2)], [(101, 1)]]}, "")
    with pytest.raises(AssertionError, match="suspect"):
        _equal(ok | {"states": {"AAA/USD": "suspect"}}, {"AAA/USD": book}, "")


def test_an_update_is_lost() -> None:
    found = ours("Kraken v2", 2, every_s=0.3)
    assert (found["lost"], found["wrong"], found["connections"]) == (2, 0, 1)
    assert found["handed_out"] > 50


def test_an_update_is_lost_on_the_rival() -> None:
    needs_rival()
    found = theirs("Kraken v1", 2, {"checksum_validation": True}, every_s=0.3)
    assert (found["lost"], found["wrong"]) == (2, 0)
    assert any("BadChecksum" in text for text in found["said"]), found
