"""Pictures of instruments for displays: made by the ingest thread at a bounded rate, kept for a while, not waited for.

Followed instruments get a frame at most every FOLLOW_NS, a bounded number of others one every SAMPLE_NS, so that the
seconds before an alarm can be shown. Nothing is made of an instrument without an event since its last frame.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from microrisk.monitor.alerts import words
from microrisk.monitor.books import Books
from microrisk.monitor.hub import Frame
from microrisk.pipeline.rows import tail_probability
from microrisk.score.drivers import leading_head
from microrisk.spec.weightfile import HEADS

FOLLOW_NS = 50_000_000
SAMPLE_NS = 200_000_000
LEVELS = 20
KEPT = 600
KEPT_NS = 120_000_000_000
"""Of an instrument: KEPT frames at most (half a minute when it is followed), KEPT_NS long but for the newest."""
SAMPLED = 40
"""Instruments of which frames are made though nobody follows them."""
TRADES = 200
"""Trades that wait for an instrument's next frame; older ones are dropped from the picture (the tape is whole)."""
AROUND_NS = 5_000_000_000
CAPSULES = 500
"""Alerts whose surroundings are kept."""

Key = tuple[int, int]

_ENCODE = msgspec.msgpack.Encoder()
_DECODE = msgspec.msgpack.Decoder(Frame)


class Slot:
    """One reader's newest frame of one instrument."""

    def __init__(self, owner: Frames, instrument: str) -> None:
        self._owner, self.instrument = owner, instrument
        self._taken = 0

    def take(self, after: int = 0) -> Frame | None:
        """The newest frame that was not taken yet, with the trades of those between it and the last one.

        after : number of the frame that the reader has from elsewhere (the history)
        """
        frame = self._owner.newest(self.instrument)
        before = max(self._taken, after)
        if frame is None or frame.n == self._taken:
            return None
        self._taken = frame.n
        if not before or frame.n - before == 1:
            return frame
        return msgspec.structs.replace(frame, trades=self._owner.trades_between(self.instrument, before, frame.n))

    def close(self) -> None:
        """Follow no more; harmless when done twice."""
        self._owner.unfollow(self)


class Frames:
    """Frames of all instruments. `due`, `add` and `trades` belong to the ingest thread, the rest to any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slots: dict[str, set[Slot]] = defaultdict(set)
        self._newest: dict[str, Frame] = {}
        self._history: dict[str, deque[tuple[int, int, bytes]]] = {}
        """Clock of the core, time of making (monotonic), frame."""
        self._sweep: Iterator[str] = iter(())
        self._tape: dict[Key, deque[list[int]]] = {}
        self._seen: dict[Key, tuple[int, str]] = {}
        self._turn = 0
        self._n: dict[str, int] = defaultdict(int)
        self._traded: dict[str, deque[tuple[int, list[int]]]] = defaultdict(lambda: deque(maxlen=TRADES))
        self._capsules: dict[str, tuple[str, int]] = {}
        self._kept: dict[str, list[bytes]] = {}
        self._open: dict[str, Key] = {}

    # -- readers --------------------------------------------------------------------------------------------------

    def follow(self, instrument: str) -> Slot:
        """A slot that is filled from now on."""
        slot = Slot(self, instrument)
        with self._lock:
            self._slots[instrument].add(slot)
        return slot

    def unfollow(self, slot: Slot) -> None:
        """The end of a slot."""
        with self._lock:
            mine = self._slots.get(slot.instrument)
            if mine is not None:
                mine.discard(slot)
                if not mine:
                    del self._slots[slot.instrument]

    def followed(self) -> set[str]:
        """Instruments that somebody looks at."""
        with self._lock:
            return set(self._slots)

    def newest(self, instrument: str) -> Frame | None:
        """The newest frame."""
        return self._newest.get(instrument)

    def trades_between(self, instrument: str, after: int, upto: int) -> list[list[int]]:
        """The last TRADES trades of frames numbered after < n <= upto."""
        return [trade for n, trade in list(self._traded.get(instrument, ())) if after < n <= upto]

    def history(self, instrument: str) -> list[Frame]:
        """What is kept, oldest first."""
        return [_DECODE.decode(b) for _, _, b in list(self._history.get(instrument, ()))]

    def around(self, alert: str) -> list[Frame]:
        """From AROUND_NS before an alert to AROUND_NS behind it; KeyError when it is not kept."""
        instrument, at_ns = self._capsules[alert]
        kept = self._kept.get(alert)
        return [_DECODE.decode(b) for b in (kept if kept is not None else self._near(instrument, at_ns))]

    def _near(self, instrument: str, at_ns: int) -> list[bytes]:
        return [b for ts, _, b in list(self._history.get(instrument, ())) if abs(ts - at_ns) <= AROUND_NS]

    # -- ingest thread ----------------------------------------------------------------------------------------------

    def remember(self, alert: str, instrument: str, at_ns: int, key: Key) -> None:
        """Keep what surrounds this alert."""
        self._capsules[alert] = instrument, at_ns
        self._open[alert] = key
        while len(self._capsules) > CAPSULES:
            oldest = next(iter(self._capsules))
            del self._capsules[oldest]
            self._kept.pop(oldest, None)

    def seal(self) -> None:
        """Put aside what surrounds alerts whose last second has gone by, on the clock of their instrument."""
        self._forget_old()
        for alert in list(self._open):
            instrument, at_ns = self._capsules.get(alert, ("", 0))
            newest = self._newest.get(instrument)
            if not instrument or newest is None or newest.ts_ns > at_ns + AROUND_NS:
                del self._open[alert]
                if instrument:
                    self._kept[alert] = self._near(instrument, at_ns)

    def _forget_old(self) -> None:
        """Look at one instrument more: one that is scored no longer keeps its newest picture alone."""
        name = next(self._sweep, None)
        if name is None:
            self._sweep = iter(list(self._history))
            return
        _drop_old(self._history[name], time.monotonic_ns() - KEPT_NS)

    def trades(self, feed: int, rows: Iterable[Any]) -> None:
        """Trades of scored instruments, as the engine's tape has them."""
        for row in rows:
            tape = self._tape.setdefault((feed, int(row["instrument"])), deque(maxlen=TRADES))
            tape.append([int(row["now"]), int(row["px"]), int(row["qty"]), int(row["side"])])

    def changed(self, key: Key, events: int, state: tuple[str, str]) -> bool:
        """Whether the instrument has had an event, or is in another state, since its last frame."""
        return self._seen.get(key) != (events, state[0])

    def next_sampled(self, keys: list[Key], most: int) -> set[Key]:
        """The next `most` of the keys, in turns, and those about which there was an alert in the last seconds."""
        start = self._turn % max(len(keys), 1)
        self._turn += most
        return {*(keys[start:] + keys[:start])[:most], *list(self._open.values())[-most:]}

    def add(self, books: Books, index: int, events: int, state: tuple[str, str], *, explain: bool) -> Frame:
        """Make the frame of an instrument as it is now, and hand it to its readers.

        explain : say what drives the leading head; that costs up to a millisecond, so only where somebody looks
        """
        name = books.name(index)
        self._n[name] += 1
        tape = self._tape.pop((books.number, index), None)
        frame = make_frame(books, index, self._n[name], events, state, list(tape or ()), explain=explain)
        self._seen[books.number, index] = events, state[0]
        kept, made_ns = self._history.setdefault(name, deque(maxlen=KEPT)), time.monotonic_ns()
        _drop_old(kept, made_ns - KEPT_NS)
        kept.append((frame.ts_ns, made_ns, _ENCODE.encode(frame)))
        self._traded[name].extend((frame.n, trade) for trade in frame.trades)
        self._newest[name] = frame
        return frame


def _drop_old(kept: deque[tuple[int, int, bytes]], before_ns: int) -> None:
    while len(kept) > 1 and kept[0][1] < before_ns:
        kept.popleft()


def make_frame(
    books: Books,
    index: int,
    n: int,
    events: int,
    state: tuple[str, str],
    trades: list[list[int]],
    *,
    explain: bool,
) -> Frame:
    """One instrument as it is now."""
    entry = books.names.get(index)
    bids, asks = books.engine.levels(index, LEVELS)
    codes: list[int] | None = None
    heads: dict[str, int] = {}
    levels: dict[str, float] = {}
    alert: list[str] = []
    drivers: list[str] = []
    row = books.engine.last_row(index) if index in books.stage.chosen else None
    if row is not None:
        codes = row["codes"].tolist()
        heads = dict(zip(HEADS, row["heads"].tolist(), strict=True))
        levels = dict(zip(HEADS, tail_probability(row["level"]).tolist(), strict=True))
        alert = [h for k, h in enumerate(HEADS) if int(row["alert"]) >> k & 1]
        if explain:
            lead = int(leading_head(row["level"].reshape(1, -1), row["alert"].reshape(1))[0])
            (drivers,) = words(books.stage.weights, row["codes"].reshape(1, -1), lead, books.mask)
    return Frame(
        n=n,
        ts_ns=max(int(books.engine.now), 0),
        instrument=books.name(index),
        state=state[0],
        why=state[1],
        px_exp=-entry.px_exp if entry else 0,
        qty_exp=-entry.qty_exp if entry else 0,
        tick=(entry.tick if entry else None) or 1,
        bids=bids.tolist(),
        asks=asks.tolist(),
        trades=trades,
        codes=codes,
        heads=heads,
        levels=levels,
        alert=alert,
        drivers=drivers,
        events=events,
    )
