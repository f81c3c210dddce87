"""Pauses between tries, under a clock that only the test moves."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microrisk.monitor.sources.backoff import MOST_RETRY_AFTER_S, Backoff, Gate, gate_of


class Hand:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(st.integers(0, 2**32), st.integers(1, 400))
def test_pauses_grow_within_their_limits(seed: int, failures: int) -> None:
    clock = Hand()
    backoff = Backoff(first_s=0.5, most_s=30.0, seed=seed, clock=clock)
    for n in range(failures):
        whole = min(30.0, 0.5 * 2.0 ** min(n, 30))
        pause = backoff.failed()
        assert whole / 2 <= pause <= whole
        assert backoff.wait_s() == pytest.approx(pause)
        clock.now += pause
        assert backoff.wait_s() == pytest.approx(0.0, abs=1e-6)
    backoff.succeeded()
    assert backoff.wait_s() == 0.0
    assert backoff.failed() <= 0.5


def test_a_seed_repeats_and_others_differ() -> None:
    def pauses(seed: int) -> list[float]:
        backoff = Backoff(seed=seed)
        return [backoff.failed() for _ in range(8)]

    assert pauses(7) == pauses(7)
    assert pauses(7) != pauses(8)


def test_retry_after_is_a_lower_bound_with_a_limit() -> None:
    backoff = Backoff(seed=3, clock=Hand())
    assert backoff.failed(20.0) == 20.0
    assert backoff.failed(1e9) == MOST_RETRY_AFTER_S
    assert Backoff(first_s=8.0, seed=3).failed(1.0) >= 4.0


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 5)), min_size=2, max_size=60))
def test_no_two_attempts_within_a_second(steps: list[tuple[float, float]]) -> None:
    clock = Hand()
    gate = Gate(1.0, clock=clock)
    attempts = []
    for passes, after in steps:
        clock.now += passes
        wait = gate.reserve(after)
        assert wait >= after - 1e-6
        attempts.append(clock.now + wait)
    assert all(b - a >= 1.0 - 1e-6 for a, b in pairwise(attempts))


def test_sources_of_one_venue_share_a_gate() -> None:
    assert gate_of("somewhere") is gate_of("somewhere")
    assert gate_of("somewhere") is not gate_of("elsewhere")
    assert gate_of("somewhere").spacing_s == 1.0
