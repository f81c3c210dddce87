"""features: the 32 codes of every event."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microrisk.pipeline.rows import codes_schema, codes_table
from microrisk.pipeline.sink import ParquetSink
from microrisk.pipeline.spine import Inputs, Outcome, Progress, Source, Spine
from microrisk.pipeline.watch import Stage, named
from microrisk.spec.records import N_FEATURES


@dataclass(frozen=True, kw_only=True)
class FeaturesResult(Outcome):
    """What `features` read and wrote: rows, and the model whose tables made the codes."""

    rows: int
    model: dict[str, Any]


def features(
    inputs: Inputs,
    *,
    out: str | Path,
    model: str | Path | None = None,
    raw: bool = False,
    progress: Progress | None = None,
    **options: str | None,
) -> FeaturesResult:
    """Write the code of each feature for every event of every instrument, in file order.

    Rows begin when an instrument's tick and lot are known (spec.formats.WARMUP_EVENTS under a generic table).
    `raw` adds the integers before the tables. Options and errors as in `replay`, and those of the model registry.
    """
    spine = Spine(Source.of(inputs, **options))
    weights, facts = named(model)
    if raw:
        spine.engine.record_views()
    stage = Stage(spine, weights)
    reader = RawReader(stage)
    with ParquetSink(out, codes_schema(raw=raw)) as sink:
        for rows in stage.chunks(progress):
            integers = reader.take(spine.engine.take_views()) if raw else None
            events = rows["tick"] == 0
            sink.write(codes_table(rows[events], spine.names, None if integers is None else integers[events]))
    return FeaturesResult(**spine.outcome(), rows=sink.rows, model=facts)


class RawReader:
    """VIEW records of many instruments to integer features, by the kernel that makes the codes."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._states: dict[int, NDArray[Any]] = {}

    def take(self, views: NDArray[Any]) -> NDArray[np.int16]:
        """int16[m, 32] for the views that the kernel made codes of, in the order of `views`, ticks included."""
        from microrisk.features.kernels import run_views

        raw = np.zeros((len(views), N_FEATURES), np.int16)
        produced = np.zeros(len(views), bool)
        for index in np.unique(views["instrument"]):
            mine = np.flatnonzero(views["instrument"] == index)
            state = self._states.setdefault(int(index), self._stage.fresh_state(int(index)))
            raw[mine], _, produced[mine] = run_views(views[mine], state, self._stage.table_of(int(index)))
        return raw[produced]
