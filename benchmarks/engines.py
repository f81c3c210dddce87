"""The engines that are compared, behind one face: bytes in, final state out. Each asserts which package it came from.

`microrisk` keeps orders with queue position and runs every check; `itchcpp` keeps a queue and shows final bests only;
`itch-book` keeps a queue and checks references. None records a table here, so that all do the same work.
"""

from __future__ import annotations

from typing import Any, Protocol

import itch_book
import itchcpp.book
import numpy as np
from numpy.typing import NDArray

from microrisk.core import Engine, ItchDecoder

Bests = NDArray[np.int64]


class Rival(Protocol):
    """One pass over a stream."""

    def feed(self, data: bytes) -> None:
        """Length-prefixed ITCH 5.0, whole messages; may be called again with what follows."""

    def state(self) -> dict[str, int]:
        """Those of live_orders, levels, shares and broken (what its checks found) that the engine can tell."""

    def bests(self, symbols: int) -> Bests | None:
        """(symbols, 4): bid px, qty, ask px, qty as `truth.best_of`, or None when the engine cannot tell."""


class Microrisk:
    """Engine.run_itch with default settings."""

    def __init__(self) -> None:
        self.engine, self.decoder = Engine(), ItchDecoder()

    def feed(self, data: bytes) -> None:
        end = self.engine.run_itch(self.decoder, data, 0, 1 << 62)
        assert end == len(data)

    def state(self) -> dict[str, int]:
        levels = shares = 0
        for i in self.engine.instruments():
            for side in self.engine.levels(int(i)):
                levels += len(side)
                shares += int(side[:, 1].sum())
        found = {"live_orders": self.engine.live_orders, "levels": levels, "shares": shares}
        return found | {"broken": sum(self.engine.integrity().values()), "messages": self.decoder.messages}

    def bests(self, symbols: int) -> Bests:
        out = np.zeros((symbols, 4), np.int64)
        for i in self.engine.instruments():
            for s, side in enumerate(self.engine.levels(int(i), 1)):
                if len(side):
                    out[i - 1, 2 * s : 2 * s + 2] = side[0]
        return out


class Alone(Microrisk):
    """The same books, each message looked at only when its turn comes: what looking ahead is worth."""

    def __init__(self) -> None:
        super().__init__()
        self.engine.look_ahead(False)


class Itchcpp:
    """BookManager.process_stream."""

    def __init__(self) -> None:
        assert itchcpp.book.BookManager.__module__.startswith("itchcpp")
        self.manager = itchcpp.book.BookManager()

    def feed(self, data: bytes) -> None:
        self.manager.process_stream(data)

    def state(self) -> dict[str, int]:
        return {}

    def bests(self, symbols: int) -> Bests:
        out = np.zeros((symbols, 4), np.int64)
        for i in range(symbols):
            book = self.manager.book_for_symbol(f"S{i + 1:05d}")
            if book is None:  # a name that never had an order
                continue
            b = book.bbo()
            if b.has_bid:
                out[i, :2] = round(b.bid_price * 10_000), b.bid_shares
            if b.has_ask:
                out[i, 2:] = round(b.ask_price * 10_000), b.ask_shares
        return out


class ItchBook:
    """Session without tables: its default store, pooled pages."""

    def __init__(self) -> None:
        assert itch_book.Session.__module__.startswith("itch_book")
        self.session = itch_book.Session(tables=[], depth=0, symbols=[])

    def feed(self, data: bytes) -> None:
        self.session.feed(np.frombuffer(data, np.uint8))

    def state(self) -> dict[str, int]:
        found: dict[str, Any] = self.session.stats()
        broken = sum(found[k] for k in ("missing_ref", "dup_ref", "rejected", "clamped", "malformed", "crossed_books"))
        return {"live_orders": found["live_orders"], "broken": broken, "messages": found["messages"]}

    def bests(self, symbols: int) -> None:
        """Only its bbo table tells; see bbo_path."""


ENGINES: dict[str, type[Rival]] = {"microrisk": Microrisk, "itchcpp": Itchcpp, "itch-book": ItchBook}
ALONE = "microrisk, no look-ahead"
WITHOUT: dict[str, type[Rival]] = ENGINES | {ALONE: Alone}
"""The engines and ours with a part switched off."""
PACKAGES = {"itchcpp": "itchcpp", "itch-book": "itch-book"}
"""Distribution of each rival, for its version."""


def check(engine: Rival, truth: dict[str, Any], best: Bests) -> list[str]:
    """Compare the final state with the generator's; returns the names of what was compared.

    Raises AssertionError at the first difference.
    """
    state, compared = engine.state(), []
    assert state.pop("broken", 0) == 0, state
    for name, value in state.items():
        assert value == truth[name], (name, value, truth[name])
        compared.append(name)
    bests = engine.bests(len(best))
    if bests is not None:
        wrong = np.flatnonzero((bests != best).any(1))
        assert not len(wrong), (wrong[:5] + 1, bests[wrong[:5]], best[wrong[:5]])
        compared.append("best of every name")
    return compared
