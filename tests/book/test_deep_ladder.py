"""Ladders of thousands of levels against a dictionary: changes anywhere, which make way on either side of a level."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from microrisk.core import Engine
from microrisk.spec.records import EVENT, Action, Flag
from microrisk.spec.units import NULL_TS, Side

Book = dict[int, int]


def changes(rng: np.random.Generator, n: int, low: int, high: int, share: float, instrument: int) -> NDArray[np.void]:
    """`n` absolute quantities at prices of [low, high) of both sides; `share` of them remove the level."""
    out = np.zeros(n, EVENT)
    out["action"], out["flags"], out["ts_recv"], out["instrument"] = Action.MODIFY, Flag.LAST, NULL_TS, instrument
    out["side"] = rng.choice([Side.BID, Side.ASK], n)
    out["px"] = 100_000 - out["side"].astype(np.int64) * rng.integers(low, high, n)
    out["qty"] = np.where(rng.random(n) < share, 0, rng.integers(1, 1_000, n))
    return out


def applied(book: dict[int, Book], events: NDArray[np.void]) -> None:
    """The naive form of the same."""
    for side, px, qty in zip(events["side"].tolist(), events["px"].tolist(), events["qty"].tolist(), strict=True):
        if qty:
            book[side][px] = qty
        else:
            book[side].pop(px, None)


def check(engine: Engine, book: dict[int, Book], instrument: int) -> None:
    bids, asks = engine.levels(instrument)
    assert bids.tolist() == [[p, q] for p, q in sorted(book[int(Side.BID)].items(), reverse=True)]
    assert asks.tolist() == [[p, q] for p, q in sorted(book[int(Side.ASK)].items())]


# Growing, shrinking from the far end and from the best, wandering away from where the ladder began, and small again.
PHASES = [
    (1, 6_000, 0.1), (3_000, 6_000, 0.8), (1, 3_000, 0.1), (1, 3_000, 0.95), (1, 40, 0.5), (5_000, 9_000, 0.2),
    (1, 9_000, 0.9), (1, 100, 0.3), (8_000, 30_000, 0.1), (1, 30_000, 0.97), (1, 30, 0.5),
]  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_deep_books_equal_a_dictionary(seed: int) -> None:
    rng = np.random.default_rng(seed)
    engine = Engine(always_open=True)
    books: dict[int, dict[int, Book]] = {i: {int(Side.BID): {}, int(Side.ASK): {}} for i in (1, 2)}
    for low, high, share in PHASES:
        for instrument, book in books.items():
            for _ in range(6):
                part = changes(rng, int(rng.integers(1, 2_000)), low, high, share, instrument)
                engine.run_events(part)
                applied(book, part)
                check(engine, book, instrument)


def test_a_ladder_that_only_loses_its_far_end_does_not_grow() -> None:
    engine = Engine(always_open=True)
    rows = np.zeros(1_000, EVENT)
    rows["action"], rows["flags"], rows["ts_recv"], rows["instrument"] = Action.MODIFY, Flag.LAST, NULL_TS, 1
    rows["side"], rows["px"], rows["qty"] = Side.BID, np.arange(1, 1_001), 5
    engine.run_events(rows)
    held = sum(engine.memory().values())
    for start in range(1_001, 60_001, 1):
        pair = rows[:2].copy()
        pair["px"], pair["qty"] = [start - 1_000, start], [0, 5]  # the worst level leaves, a better one comes
        engine.run_events(pair)
    assert engine.levels(1)[0][:, 0].tolist() == list(range(60_000, 59_000, -1))
    assert sum(engine.memory().values()) <= held
