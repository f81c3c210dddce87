"""All books of a monitor as a function of the journal's records.

`apply` is called with each record, whether it has just been written or is read again after a restart. What is decided
at intervals is decided at Kind.CLOCK records: engines' clocks go on (staleness ticks), instruments that were named get
their tables, and every SELECT_CLOCKS of them the busiest `scored` instruments are chosen anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np

from microrisk.core import Engine
from microrisk.errors import JournalError
from microrisk.monitor.books import Books, ItchBooks, Opened, file_books, open_books
from microrisk.monitor.journal import Record, records
from microrisk.monitor.scoring import FRESH_ROWS, LiveStage
from microrisk.monitor.selection import Keys, choose, key_of, since_before
from microrisk.spec.journal import Kind
from microrisk.weights import Weights

SCORED = 200
"""Instruments that are scored unless told otherwise."""
SELECT_CLOCKS = 20
"""CLOCK records (250 ms each) between two choices of the busiest instruments."""
INDEX = (1 << 32) - 1
NOTHING: tuple[Keys, Keys] = (np.zeros(0, np.int64), np.zeros(0, np.int64))


class _Saved(msgspec.Struct):
    """What `Desk.save` gives: read with its types, so that another layout is noticed before anything is changed."""

    chain: str
    clocks: int
    now_ns: int
    counts: list[tuple[int, int, int]]
    opened: dict[str, Opened]
    books: dict[str, dict[str, Any]]


class Desk:
    """Books of many feeds.

    Parameters
    ----------
    weights : the model of every engine
    scored : how many instruments are scored at most, over all feeds
    rows : what the engines keep, scoring.ALL_ROWS or FRESH_ROWS
    on_opened : called with each feed's books when they come to be (after a restart too)
    """

    def __init__(
        self,
        weights: Weights,
        *,
        scored: int = SCORED,
        rows: int = FRESH_ROWS,
        on_opened: Callable[[Books], None] = lambda _: None,
    ) -> None:
        self.weights, self.scored, self._rows = weights, scored, rows
        self.writing = False
        """Records come from this process: its own checks need no comparison."""
        self._on_opened = on_opened
        self.clear()

    def clear(self) -> None:
        """As before the first record."""
        self.books: dict[int, Books] = {}
        self.opened: dict[int, Opened] = {}
        self.chain = ""
        self.clocks = 0
        self.now_ns = 0
        self._counted = NOTHING

    # -- records --------------------------------------------------------------------------------------------------

    def apply(self, record: Record) -> None:
        """One record; JournalError when it cannot follow the ones before it."""
        kind = record.kind
        if kind == Kind.CLOCK:
            self._clock(record.recv_ns)
        elif kind == Kind.OPEN:
            self._open(record)
        elif kind == Kind.CHECK:
            self._check(record)
        elif kind != Kind.CLOSE:
            self._of_feed(record)

    def apply_block(self, payload: memoryview | bytes) -> int:
        """Every record of a block; how many there were."""
        n = 0
        for record in records(payload):
            self.apply(record)
            n += 1
        return n

    def _of_feed(self, record: Record) -> None:
        books = self.books.get(record.feed)
        if books is None:
            books = self._first(record)
        books.apply(record)
        # numbered messages are applied in the core, where nothing is chosen: their new names wait for the next CLOCK
        if record.kind in (Kind.TEXT, Kind.NAMES):
            self._choose_new(books)

    def _first(self, record: Record) -> Books:
        opened = self.opened.get(record.feed)
        if opened is None or record.kind != Kind.NAMES:
            raise JournalError(f"a record of feed {record.feed} before the one that opens it")
        books = file_books(record.feed, opened, self._stage, record.body)
        return self._add(books)

    def _open(self, record: Record) -> None:
        opened = msgspec.json.decode(record.body, type=Opened)
        before = self.opened.get(record.feed)
        if before is not None and (other := before.differs(opened)):
            raise JournalError(f"feed {record.feed} cannot go on: {other}")
        self.opened[record.feed] = opened
        if before is None:
            books = open_books(record.feed, opened, self._stage)
            if books is not None:
                self._add(books)

    def _add(self, books: Books) -> Books:
        self.books[books.number] = books
        self._on_opened(books)
        return books

    def _stage(self, engine: Engine, mask: int) -> LiveStage:
        return LiveStage(engine, self.weights, mask, self._rows)

    # -- intervals ------------------------------------------------------------------------------------------------

    def _clock(self, now_ns: int) -> None:
        self.now_ns = max(self.now_ns, now_ns)
        self.clocks += 1
        for books in self.books.values():
            if books.opened.scheme != "file":  # a recording has a time of its own
                books.engine.run_clock(now_ns)
            self._choose_new(books)
        if self.clocks % SELECT_CLOCKS == 0:
            self._select()

    def _choose_new(self, books: Books) -> None:
        """Instruments that were named since the last time are scored at once while there is room."""
        for index in books.refresh():
            if self._chosen() < self.scored:
                books.stage.choose(index, books.name(index))

    def _chosen(self) -> int:
        return sum(len(b.stage.chosen) for b in self.books.values())

    def _select(self) -> None:
        """Choose the busiest since the last choice."""
        before = self._counted
        self._counted = keys, counts = self._count()
        known = np.isin(keys, [key_of(n, i) for n, b in self.books.items() for i in b.names])
        keys, since = keys[known], since_before(keys, counts, *before)[known]
        if len(keys) <= self.scored:
            return
        chosen = [key_of(n, i) for n, b in self.books.items() for i in b.stage.chosen]
        drop, take = choose(keys, since, np.array(chosen, np.int64), self.scored)
        for key in drop:
            self.books[key >> 32].stage.drop(key & INDEX)
        for key in take:
            books = self.books[key >> 32]
            books.stage.choose(key & INDEX, books.name(key & INDEX))

    def _count(self) -> tuple[Keys, Keys]:
        """Keys of all instruments, rising, and their events so far."""
        keys = [key_of(n, 0) + b.engine.instruments().astype(np.int64) for n, b in self.books.items()]
        counts = [b.engine.event_counts().astype(np.int64) for b in self.books.values()]
        if not keys:
            return NOTHING
        order = np.argsort(whole := np.concatenate(keys))
        return whole[order], np.concatenate(counts)[order]

    # -- state ----------------------------------------------------------------------------------------------------

    def hashes(self) -> dict[str, str]:
        """Digest of the books of each feed, by its name."""
        return {self.opened[n].name: b.state_hash() for n, b in sorted(self.books.items())}

    def state_hash(self) -> str:
        """One digest over `hashes`."""
        text = "".join(f"{name}\0{value}\0" for name, value in sorted(self.hashes().items()))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def check_body(self) -> bytes:
        """Body of a CHECK record at this place: the digest of every book, chained to the check before."""
        now = self.state_hash()
        return msgspec.json.encode({"state": now, "chain": _chained(self.chain, now)})

    def _check(self, record: Record) -> None:
        """Compare; a difference means that this build does not do what the one that wrote the journal did."""
        told = msgspec.json.decode(record.body, type=dict[str, str])
        if self.writing:
            self.chain = told["chain"]
            return
        now = self.state_hash()
        if told["state"] != now or told["chain"] != _chained(self.chain, now):
            raise JournalError(
                f"the books differ from those that the journal's check names ({now}, it says {told['state']}): this "
                "build does not give what the one that wrote it gave; go on with that build, or begin a new journal"
            )
        self.chain = told["chain"]

    def save(self) -> dict[str, Any]:
        """Everything that decides the future, plain values and bytes."""
        return {
            "chain": self.chain,
            "clocks": self.clocks,
            "now_ns": self.now_ns,
            "counts": [[k >> 32, k & INDEX, n] for k, n in zip(*(a.tolist() for a in self._counted), strict=True)],
            "opened": {str(n): msgspec.to_builtins(o) for n, o in self.opened.items()},
            "books": {str(n): b.save() for n, b in self.books.items()},
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a saved state; before the first record."""
        found = msgspec.convert(state, _Saved)
        self.chain, self.clocks, self.now_ns = found.chain, found.clocks, found.now_ns
        found_counts = sorted((key_of(feed, index), n) for feed, index, n in found.counts)
        keys, counts = np.array(found_counts, np.int64).reshape(-1, 2).T
        self._counted = keys.copy(), counts.copy()
        for text, opened in found.opened.items():
            number = int(text)
            self.opened[number] = opened
            if opened.scheme == "file" and text not in found.books:
                continue  # opened, and nothing has come of it
            own = found.books[text]
            books = self._reopened(number, own)
            books.load(own)
            self._add(books)

    def _reopened(self, number: int, state: dict[str, Any]) -> Books:
        """Made as they were first: an OPEN record of a later process changes no books."""
        opened = msgspec.convert(state["opened"], Opened)
        books = open_books(number, opened, self._stage)
        if books is not None:
            return books
        return file_books(number, opened, self._stage, msgspec.json.encode(state["kind"]))

    def itch(self) -> Iterator[ItchBooks]:
        """The feeds whose messages have numbers."""
        return (b for b in self.books.values() if isinstance(b, ItchBooks))


def _chained(before: str, now: str) -> str:
    return hashlib.blake2b(f"{before}\0{now}".encode(), digest_size=16).hexdigest()
