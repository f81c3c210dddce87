"""Rows in which an alarm began, as alerts: names that do not depend on when or how often they are computed, and words.

The id of an alert is a digest of instrument, session, sequence, clock and head. The same records give the same ids, so
that a restart, a second process or a second delivery of one alert is recognised by everyone who keeps ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microrisk.evaluate.words import meaning
from microrisk.feed.base import Instrument
from microrisk.monitor.books import Books, best_texts
from microrisk.monitor.hub import SCHEMA, Alert
from microrisk.pipeline.rows import tail_probability
from microrisk.pipeline.spine import decimal
from microrisk.score.drivers import driver_names, drivers
from microrisk.spec.features import FEATURES
from microrisk.spec.weightfile import HEADS
from microrisk.weights import Weights

ID_BYTES = 12
CROSSED = "crossed"
"""In the place of a head's name: the book contradicts itself. Its level is 0, and no head has a value."""
_PLACE = {f.name: f.index for f in FEATURES}


@dataclass(frozen=True)
class Origin:
    """Where rows come from: the feed's name and session, its mask, and what is known by an instrument's number."""

    feed: str
    session: str
    mask: int
    name: Callable[[int], str]
    calibrated: Callable[[str], bool]
    best: Callable[[int], tuple[str, str]]
    entry: Callable[[int], Instrument | None]


def origin_of(books: Books) -> Origin:
    """Where a feed's rows come from."""

    def best(index: int) -> tuple[str, str]:
        bid, _, ask, _ = best_texts(books, index)
        return bid, ask

    def calibrated(name: str) -> bool:
        return bool(books.stage.marks(name)["calibrated"])

    return Origin(books.opened.name, books.session, books.mask, books.name, calibrated, best, books.names.get)


def origin_then(books: Books, indices: set[int]) -> Origin:
    """The same as it is now, for alerts that are made later: the session and the names may be others by then."""
    origin = origin_of(books)
    names = {i: origin.name(i) for i in indices}
    best = {i: origin.best(i) for i in indices}
    return replace(origin, name=names.__getitem__, best=best.__getitem__)


def alert_id(instrument: str, session: str, seq: int, now_ns: int, head: str) -> str:
    """24 hexadecimal digits: BLAKE2b-96 over the fields, each ended by a zero byte."""
    text = "\0".join((instrument, session, str(seq), str(now_ns), head, ""))
    return hashlib.blake2b(text.encode(), digest_size=ID_BYTES).hexdigest()


class Alerts:
    """Makes alerts of rows, in order; counts them.

    Parameters
    ----------
    weights, model : the model and its name
    told : ids that were told before a restart: they are made again, and not told again
    n : how many this journal has told
    """

    def __init__(self, weights: Weights, model: str, *, told: set[str] | None = None, n: int = 0) -> None:
        self._weights, self._model = weights, model
        self.told, self.n = told or set(), n
        self.repeated = 0

    def of(self, rows: NDArray[Any], origin: Origin) -> Iterator[Alert]:
        """One alert for each head that went into alarm with a row; those told before are counted in `repeated`."""
        told = rows[rows["fresh"] != 0]
        if not len(told):
            return
        place, head = np.nonzero(told["fresh"][:, None] >> np.arange(len(HEADS)) & 1)
        for p, h, said in zip(place, head, words(self._weights, told["codes"][place], head, origin.mask), strict=True):
            alert = self._alert(told[p], int(h), said, origin)
            if alert is not None:
                yield alert

    def crossed(self, crossings: NDArray[Any], origin: Origin) -> Iterator[Alert]:
        """One alert for each book that has become crossed in continuous trading, scored or not: no head says it."""
        for crossing in crossings:
            own = self._fresh_id(crossing, CROSSED, origin)
            if own:
                yield self._crossed(own, crossing, origin)

    def _fresh_id(self, row: Any, head: str, origin: Origin) -> str:
        """Its id; "" when it was told before a restart."""
        instrument = origin.name(int(row["instrument"]))
        own = alert_id(instrument, origin.session, int(row["seq"]), int(row["now"]), head)
        if own in self.told:
            self.told.discard(own)
            self.repeated += 1
            return ""
        self.n += 1
        return own

    def _crossed(self, own: str, crossing: Any, origin: Origin) -> Alert:
        index = int(crossing["instrument"])
        entry = origin.entry(index)
        exponent = 0 if entry is None else entry.px_exp
        bid, ask = decimal(int(crossing["bid_px"]), exponent), decimal(int(crossing["ask_px"]), exponent)
        return Alert(
            schema=SCHEMA,
            id=own,
            n=self.n,
            ts_ns=int(crossing["now"]),
            instrument=origin.name(index),
            feed=origin.feed,
            session=origin.session,
            seq=int(crossing["seq"]),
            head=CROSSED,
            heads={},
            level=0.0,
            calibrated=True,
            drivers=[f"crossed book: bid {bid} above ask {ask} in continuous trading"],
            suspect=True,
            bid=bid,
            ask=ask,
            backend="cpu",
            model=self._model,
        )

    def _alert(self, row: Any, head: int, said: list[str], origin: Origin) -> Alert | None:
        own = self._fresh_id(row, HEADS[head], origin)
        if not own:
            return None
        instrument = origin.name(int(row["instrument"]))
        bid, ask = origin.best(int(row["instrument"]))
        return Alert(
            schema=SCHEMA,
            id=own,
            n=self.n,
            ts_ns=int(row["now"]),
            instrument=instrument,
            feed=origin.feed,
            session=origin.session,
            seq=int(row["seq"]),
            head=HEADS[head],
            heads={name: int(row["heads"][h]) for h, name in enumerate(HEADS)},
            level=float(tail_probability(row["level"])[head]),
            calibrated=origin.calibrated(instrument),
            drivers=said,
            suspect=bool(row["suspect"]),
            bid=bid,
            ask=ask,
            backend="cpu",
            model=self._model,
        )


def words(weights: Weights, codes: NDArray[np.int8], head: ArrayLike, mask: int) -> list[list[str]]:
    """Of each row of codes the three features that drive its head, strongest first, as what their values mean."""
    found = driver_names(drivers(weights, codes, head, mask))
    return [
        [f"{name}: {meaning(name, float(row[_PLACE[name]]))}" for name in names]
        for names, row in zip(found, codes, strict=True)
    ]
