"""The scoring stage of a spine: which table, level table and mask each instrument gets, and when it gets them.

Importing this module is cheap; Numba comes in when a stage is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from microrisk.pipeline.spine import Progress, Spine
from microrisk.weights import Weights

if TYPE_CHECKING:
    from microrisk.core import Heads

LOOKAHEAD = 1 << 15
"""Messages that the scout stays ahead of the spine; more than a feed ever applies in one pump."""


def named(model: str | Path | None) -> tuple[Weights, dict[str, Any]]:
    """A model and what the outputs say about it. None = the promoted one, else the packaged default."""
    from microrisk.score.registry import find

    folder = find(model)
    weights = Weights.load(folder)
    return weights, {"name": folder.name, "path": str(folder), "format_hash": weights.card["format_hash"]}


class Stage:
    """Kernel, tables and (optionally) heads and alarms, attached to a spine before its first event.

    Parameters
    ----------
    spine : not pumped yet
    weights : the model; instruments without a table or level of their own use the generic ones
    heads : `_core.Heads` of the model under the feed's mask; None = rows carry codes only
    """

    def __init__(self, spine: Spine, weights: Weights, heads: Heads | None = None) -> None:
        from microrisk.features import kernels, state
        from microrisk.score import alert

        self.spine, self.weights, self.mask = spine, weights, spine.feed.mask
        self._initial, self._params = state.initial_state, alert.make_params
        level = weights.level_for(None, self.mask)
        extra: dict[str, Any] = {}
        if heads is not None:
            extra = {
                "heads": heads,
                "alert": alert.alert_address(),
                "alert_params": self._params(level).tobytes(),
                "alert_state": alert.initial_state().tobytes(),
            }
        spine.engine.watch(
            kernels.kernel_address(),
            self._initial(mask=self.mask),
            self._expanded(None),
            rows=True,
            **extra,
        )
        spine.engine.ticks(True)
        self._own = {*weights.table_owners(), *(owner for owner, _ in weights.level_owners())} - {"generic"}
        self._bound: set[int] = set()
        self._scout = _Scout(spine) if self._own else None

    def _expanded(self, name: str | None) -> NDArray[np.int8]:
        from microrisk.features.normalise import Table, expand

        table = self.weights.table_for(name)
        return expand(Table(table.breaks, table.value, table.slope), self.mask)

    def chunks(self, progress: Progress | None = None) -> Iterator[NDArray[Any]]:
        """The spine's loop: the ROWs of each chunk."""
        self._bind()
        for _ in self.spine.chunks(progress):
            yield self.spine.engine.take_rows()
            self._bind()

    def _bind(self) -> None:
        """Give every instrument that has a table or level of its own to the engine, before its first event."""
        if self._scout is None:
            return
        for index, entry in self._scout.ahead().items():
            if index not in self._bound and entry.id in self._own:
                self._bound.add(index)
                table = self.weights.table_for(entry.id)
                state = self._initial(tick=table.tick, lot=table.lot, mask=self.mask)
                params = self.params(entry.id).tobytes()
                self.spine.engine.set_table(index, state, self._expanded(entry.id), params)

    def fresh_state(self, index: int) -> NDArray[Any]:
        """Kernel state of an instrument before its first event, as an array that steps continue in."""
        from microrisk.features.state import as_state

        table = self.weights.table_for(self.name_of(index))
        return as_state(self._initial(tick=table.tick, lot=table.lot, mask=self.mask))

    def table_of(self, index: int) -> NDArray[np.int8]:
        """Expanded table of an instrument: int8[N_FEATURES, 4096]."""
        return self._expanded(self.name_of(index))

    def name_of(self, index: int) -> str | None:
        """Id of an instrument, None while the feed has not named it."""
        entry = self.spine.feed.instruments().get(index)
        return None if entry is None else entry.id

    def params(self, name: str | None) -> NDArray[Any]:
        """Alarm parameters of an instrument."""
        return self._params(self.weights.level_for(name, self.mask))

    def marks(self, name: str | None) -> dict[str, Any]:
        """How an instrument is scored: table own or generic, level calibrated or not, mask in hexadecimal."""
        own, level = self.weights.table_for(name).own, self.weights.level_for(name, self.mask)
        calibrated = own and level.calibrated
        return {
            "table": "own" if own else "generic",
            "level": "calibrated" if calibrated else "uncalibrated",
            "mask": f"{self.mask:08x}",
        }


class _Scout:
    """Learns names ahead of the spine: a second reading of the same input that stays in front and applies nothing.

    A feed may name an instrument in the very chunk that first uses it; its own table has to be there before.
    """

    def __init__(self, spine: Spine) -> None:
        self._spine, self._feed = spine, spine.source.open()
        self._events: Iterator[Any] | None = self._feed.events()

    def ahead(self) -> dict[int, Any]:
        """Instruments named up to LOOKAHEAD messages in front of the spine."""
        while self._events is not None and self._feed.messages < self._spine.feed.messages + LOOKAHEAD:
            try:
                next(self._events)
            except (StopIteration, ValueError):  # what breaks here breaks, and is reported, in the spine too
                self._events = None
        return self._feed.instruments()
