"""What the tests of level feeds share: captures written line by line, and books looked at after every message."""

from __future__ import annotations

import gzip
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microrisk.core import Engine
from microrisk.spec.records import EVENT, Action, Flag, Integrity

sys.path.insert(0, str(Path(__file__).parent))  # the helpers of this folder (iex_bytes)

BOOK_ACTIONS = (Action.MODIFY, Action.CLEAR)


class Replayed:
    """A level feed run to its end: events, findings, engine; `levels(name)` are plain lists best first."""

    def __init__(self, feed: Any) -> None:
        self.feed, self.engine = feed, Engine(always_open=True)
        self.seen: list[np.ndarray] = []
        while feed.pump(self):
            pass
        self.engine.finish()
        self.events = np.concatenate([np.zeros(0, EVENT), *self.seen])
        self.found = {k: n for k, n in self.engine.integrity().items() if n}

    def run_events(self, events: np.ndarray) -> None:
        self.seen.append(events.copy())
        self.engine.run_events(events)

    def count(self, kind: int, n: int = 1, instrument: int = 0) -> None:
        self.engine.count(kind, n, instrument)

    def index(self, name: str) -> int:
        """Number of an instrument by its symbol."""
        return next(i for i, known in self.feed.instruments().items() if known.symbol == name)

    def levels(self, name: str) -> tuple[list[list[int]], list[list[int]]]:
        bids, asks = self.engine.levels(self.index(name))
        return bids.tolist(), asks.tolist()

    def suspect(self, name: str) -> bool:
        return bool(self.engine.suspect(self.index(name)))

    def rows(self, *columns: str) -> list[tuple[int, ...]]:
        return [tuple(int(v) for v in row) for row in self.events[list(columns)].tolist()]


def _book_after_every_message(feed: Any, *, arrays: bool = False) -> Iterator[tuple[str, int, Any, Any]]:
    """(symbol, seq, bids, asks) of the engine after each message that says something about a book."""
    engine = Engine(always_open=True)
    for events in feed.events():
        ends = np.flatnonzero(events["flags"] & Flag.LAST) + 1
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            part = events[start:end]
            engine.run_events(part)
            if np.isin(part["action"], BOOK_ACTIONS).any():
                index = int(part["instrument"][-1])
                sides = engine.levels(index)
                bids, asks = sides if arrays else (side.tolist() for side in sides)
                yield feed.instruments()[index].symbol, int(part["seq"][-1]), bids, asks
    assert engine.integrity()["crossed"] == 0


def _found(feed: Any) -> dict[str, int]:
    out: Counter[str] = Counter()
    for kind, n, _ in feed.drain():
        out[Integrity(kind).name] += n
    return dict(out)


@pytest.fixture
def replayed() -> Callable[[Any], Replayed]:
    """Runs a feed through an engine, and keeps what it gave."""
    return Replayed


@pytest.fixture
def book_after_every_message() -> Callable[..., Iterator[tuple[str, int, Any, Any]]]:
    """(symbol, seq, bids, asks) of the engine after each message of a feed that says something about a book.

    The sides are lists of [price, size], best first, or `arrays` of them.
    """
    return _book_after_every_message


@pytest.fixture
def findings_of() -> Callable[[Any], dict[str, int]]:
    """Names and numbers of what a feed found since it was last asked."""
    return _found


@pytest.fixture
def write_capture(tmp_path: Path) -> Callable[..., Path]:
    """`write_capture(url, messages)`: a captured session; text is written as it is, `sent` are requests."""

    def write(
        url: str, messages: list[Any], *, sent: list[Any] = (), name: str = "session.ws.1.0", cut: int = 0
    ) -> Path:
        lines = [f"{url} <-> 1600000000.5"]
        lines += [f"{url} <- 1600000000.6: {json.dumps(m)}" for m in sent]
        for i, m in enumerate(messages):
            lines.append(f"{1600000001 + i}.25: {m if isinstance(m, str) else json.dumps(m)}")
        data = ("\n".join(lines) + "\n").encode()
        path = tmp_path / (name + (".gz" if cut else ""))
        path.write_bytes(gzip.compress(data)[:-cut] if cut else data)
        return path

    return write
