"""Every row of the fault record in small: the books of the loss-free replay, and nothing stale shown as live.

`nox -s live_record -- faults` takes the same rows over a million messages.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.faults import ROWS, market, run

SHOWN_MS = 100.0
"""The record asks for 10 ms; tests share their cores with other tests."""


@pytest.fixture(scope="module")
def small() -> tuple[list[bytes], str]:
    return market(messages=12_000, symbols=50, live_orders=2_000, seed=2)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if not row.full and not row.bursts])
def test_row(name: str, small: tuple[list[bytes], str]) -> None:
    row = ROWS[name]
    found = run(name, replace(row, both=0.02) if row.both else row, *small)
    assert found["done"]
    assert found["as_expected"]
    assert found["live_with_a_hole"] == 0
    assert found["shown_stale_ms"] is None or found["shown_stale_ms"]["p50"] < SHOWN_MS
    assert found["given_up"] == 0 or name == "no server"
