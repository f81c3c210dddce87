"""The scoring stage of one feed's engine: kernel, tables, heads, and which instruments are scored.

A live engine keeps the books of every instrument and scores the chosen ones. An instrument is bound to its own table
(or the generic one) when it is chosen for the first time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microrisk.core import Engine, Heads
from microrisk.features import kernels, state
from microrisk.features.normalise import Table, expand
from microrisk.score import alert
from microrisk.weights import Weights

ALL_ROWS, FRESH_ROWS = 1, 2
"""Which rows an engine keeps: every scored event (sinks of features want them), or those in which an alarm began."""


class LiveStage:
    """Attached to an engine before its first event.

    Parameters
    ----------
    weights : the model
    mask : features that the feed carries
    rows : ALL_ROWS or FRESH_ROWS
    """

    def __init__(self, engine: Engine, weights: Weights, mask: int, rows: int = FRESH_ROWS) -> None:
        self.engine, self.weights, self.mask = engine, weights, mask
        self.chosen: set[int] = set()
        self.bound: set[int] = set()
        """Instruments that have a table of their own."""
        self._own = {*weights.table_owners(), *(owner for owner, _ in weights.level_owners())} - {"generic"}
        self._expanded: dict[str | None, NDArray[np.int8]] = {}
        self._marks: dict[str, dict[str, Any]] = {}
        heads = Heads(weights.heads_tensors(), mask)
        engine.watch(
            kernels.kernel_address(),
            state.initial_state(mask=mask),
            self._table(None),
            heads=heads,
            alert=alert.alert_address(),
            alert_params=alert.make_params(weights.level_for(None, mask)).tobytes(),
            alert_state=alert.initial_state().tobytes(),
            rows=rows,
            select=True,
        )
        engine.record_trades()
        engine.ticks(True)

    def choose(self, index: int, name: str) -> None:
        """Score this instrument from now on."""
        if index in self.chosen:
            return
        self.chosen.add(index)
        self._bind(index, name, keep_state=False)
        self.engine.watch_instrument(index, True)

    def drop(self, index: int) -> None:
        """Score it no more; its book goes on."""
        if index in self.chosen:
            self.chosen.discard(index)
            self.engine.watch_instrument(index, False)

    def rebind(self, names: dict[int, str], bound: Iterable[int]) -> None:
        """After Engine.load: the chosen instruments are those of the state; tables of their own are handed in again."""
        self.chosen, self.bound = set(names), set(bound)
        for index, name in names.items():
            self._bind(index, name, keep_state=True)

    def marks(self, name: str) -> dict[str, Any]:
        """How an instrument is scored: table own or generic, level calibrated or not."""
        if name not in self._marks:
            own, level = self.weights.table_for(name).own, self.weights.level_for(name, self.mask)
            self._marks[name] = {"table": "own" if own else "generic", "calibrated": bool(own and level.calibrated)}
        return self._marks[name]

    def _bind(self, index: int, name: str, *, keep_state: bool) -> None:
        if name in self._own:
            self.bound.add(index)
        elif index in self.bound:  # the number was another instrument's, in the session before
            self.bound.discard(index)
        else:
            return
        table = self.weights.table_for(name)
        fresh = state.initial_state(tick=table.tick, lot=table.lot, mask=self.mask)
        params = alert.make_params(self.weights.level_for(name, self.mask)).tobytes()
        own = self._table(name if name in self._own else None)
        self.engine.set_table(index, fresh, own, params, keep_state=keep_state)

    def _table(self, name: str | None) -> NDArray[np.int8]:
        if name not in self._expanded:
            t = self.weights.table_for(name)
            self._expanded[name] = expand(Table(t.breaks, t.value, t.slope), self.mask)
        return self._expanded[name]
