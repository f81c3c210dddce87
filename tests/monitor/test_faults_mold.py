"""Every row of the fault record in small: the books of the loss-free replay, and nothing stale shown as live.

`nox -s live_record -- faults` takes the same rows over a million messages.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.faults import LATE, ROWS, market, run

SHOWN_MS = 100.0
"""The record asks for 10 ms; tests share their cores with other tests."""


@pytest.fixture(scope="module")
def small() -> tuple[list[bytes], str]:
    return market(messages=12_000, symbols=50, live_orders=2_000, seed=2)


@pytest.fixture(scope="module")
def deep() -> tuple[list[bytes], str]:
    """A hundred orders in each of ten books."""
    return market(messages=LATE, symbols=10, live_orders=1_000, seed=2, steady=True, zipf=0.0)


@pytest.mark.parametrize("name", ROWS)
def test_row(name: str, small: tuple[list[bytes], str], deep: tuple[list[bytes], str]) -> None:
    row = ROWS[name]
    row = replace(row, both=0.02 if row.both else 0.0, bursts=min(row.bursts, 3))
    found = run(name, row, *(deep if row.full else small), shown_ms=SHOWN_MS)
    assert found["done"]
    assert found["wrong_with"] == []
