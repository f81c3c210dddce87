"""Readers that skip frames lose no trade."""

from __future__ import annotations

import time
from typing import Any

import pytest

from microrisk.monitor import frames as module
from microrisk.monitor.frames import KEPT_NS, TRADES, Frames
from microrisk.monitor.hub import Frame


class Books:
    """What Frames asks of books."""

    number = 0

    def name(self, index: int) -> str:
        return "A.XNAS"


@pytest.fixture
def frames(monkeypatch: pytest.MonkeyPatch) -> Frames:
    def make(
        books: Any, index: int, n: int, events: int, state: Any, trades: list[list[int]], *, explain: bool
    ) -> Frame:
        empty: dict[str, Any] = {"codes": None, "heads": {}, "levels": {}, "alert": [], "drivers": []}
        place = {"ts_ns": n, "instrument": "A.XNAS", "state": "live", "why": "", "px_exp": 4, "qty_exp": 0, "tick": 1}
        return Frame(n=n, bids=[], asks=[], trades=trades, events=events, **place, **empty)

    monkeypatch.setattr(module, "make_frame", make)
    return Frames()


def event(frames: Frames, *prices: int) -> None:
    """One frame with a trade at each price."""
    frames.trades(0, [{"instrument": 0, "now": 1, "px": px, "qty": 1, "side": 1} for px in prices])
    frames.add(Books(), 0, 1, ("live", ""), explain=False)  # type: ignore[arg-type]


def prices(frame: Frame | None) -> list[int]:
    assert frame is not None
    return [trade[1] for trade in frame.trades]


def test_trades_of_skipped_frames_come_with_the_next_one(frames: Frames) -> None:
    slot = frames.follow("A.XNAS")
    event(frames, 1)
    assert prices(slot.take()) == [1]
    event(frames, 2, 3)
    event(frames)
    event(frames, 4)
    assert prices(slot.take()) == [2, 3, 4]
    assert slot.take() is None
    event(frames, 5)
    assert prices(slot.take()) == [5]


def test_trades_of_the_history_are_not_told_again(frames: Frames) -> None:
    slot = frames.follow("A.XNAS")
    for px in (1, 2, 3):
        event(frames, px)
    assert [prices(f) for f in frames.history("A.XNAS")] == [[1], [2], [3]]
    event(frames, 4)
    event(frames, 5)
    assert prices(slot.take(after=3)) == [4, 5]


def test_a_reader_that_was_away_for_long_gets_a_bounded_number(frames: Frames) -> None:
    slot = frames.follow("A.XNAS")
    event(frames, 0)
    slot.take()
    for px in range(1, 2 * TRADES + 1):
        event(frames, px)
    assert prices(slot.take()) == list(range(TRADES + 1, 2 * TRADES + 1))


def test_frames_are_forgotten_though_nothing_new_comes(frames: Frames, monkeypatch: pytest.MonkeyPatch) -> None:
    """An instrument that was scored once keeps its newest picture, for whoever looks at it, and no others."""
    for px in (1, 2, 3):
        event(frames, px)
    now = time.monotonic_ns()
    monkeypatch.setattr(module.time, "monotonic_ns", lambda: now + KEPT_NS + 1)
    for _ in range(3):
        frames.seal()
    assert [prices(f) for f in frames.history("A.XNAS")] == [[3]]
    assert prices(frames.newest("A.XNAS")) == [3]
    event(frames, 4)
    assert [prices(f) for f in frames.history("A.XNAS")] == [[3], [4]]
