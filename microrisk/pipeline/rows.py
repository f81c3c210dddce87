"""ROW records to the columns of `features --out` and `score --out`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microrisk.pipeline.tables import STAMPS, Names, stamps
from microrisk.score.drivers import drivers, leading_head
from microrisk.spec.features import FEATURES
from microrisk.spec.formats import LEVEL
from microrisk.spec.weightfile import HEADS
from microrisk.weights import Weights

DRIVERS = pa.list_(pa.dictionary(pa.int8(), pa.string()))
TICK = ("tick", pa.bool_())
FEATURE_NAMES = [f.name for f in FEATURES]


def codes_schema(*, raw: bool = False) -> pa.Schema:
    """Stamps, then an Int8 column a feature (its code), then with `raw` an Int16 column <name>_raw each."""
    columns = [(name, pa.int8()) for name in FEATURE_NAMES]
    more = [(f"{name}_raw", pa.int16()) for name in FEATURE_NAMES] if raw else []
    return pa.schema([*STAMPS, *columns, *more])


def score_schema(*, ticks: bool = False) -> pa.Schema:
    """Stamps, heads (Int32), <head>_level (Float32), alert, drivers; `tick` at the end when ticks make rows."""
    heads = [(head, pa.int32()) for head in HEADS]
    levels = [(f"{head}_level", pa.float32()) for head in HEADS]
    rest = [("alert", pa.bool_()), ("drivers", DRIVERS), *([TICK] if ticks else [])]
    return pa.schema([*STAMPS, *heads, *levels, *rest])


def codes_table(rows: NDArray[Any], names: Names, raw: NDArray[np.int16] | None = None) -> pa.Table:
    """Records with stamps and `codes` (and raw int16[n, 32]) as codes_schema says."""
    columns, _ = stamps(rows, names)
    columns += [pa.array(np.ascontiguousarray(rows["codes"][:, i])) for i in range(len(FEATURES))]
    if raw is not None:
        columns += [pa.array(np.ascontiguousarray(raw[:, i])) for i in range(len(FEATURES))]
    return pa.Table.from_arrays(columns, schema=codes_schema(raw=raw is not None))


def score_table(
    rows: NDArray[Any],
    names: Names,
    weights: Weights,
    mask: int,
    calibrated: Callable[[str], bool],
    *,
    ticks: bool = False,
) -> pa.Table:
    """ROW records as score_schema says.

    calibrated : instrument -> whether its levels mean something; null where they do not.
    """
    columns, places = stamps(rows, names)
    known = np.array([calibrated(name) for name in names.names], bool)[places]
    columns += [pa.array(np.ascontiguousarray(rows["heads"][:, h])) for h in range(len(HEADS))]
    tail = tail_probability(rows["level"])
    columns += [pa.array(np.ascontiguousarray(tail[:, h]), mask=~known) for h in range(len(HEADS))]
    columns += [pa.array(rows["alert"] != 0), drivers_column(rows, weights, mask)]
    if ticks:
        columns.append(pa.array(rows["tick"] != 0))
    return pa.Table.from_arrays(columns, schema=score_schema(ticks=ticks))


def tail_probability(level: NDArray[np.int32]) -> NDArray[np.float32]:
    """LEVEL codes to tail probabilities 2**-level."""
    return np.exp2(-level.astype(np.float32) / (1 << LEVEL.frac)).astype(np.float32)


def drivers_column(rows: NDArray[Any], weights: Weights, mask: int) -> pa.Array:
    """Lists of the three features behind the leading head where the row is in alarm, null elsewhere."""
    on = rows["alert"] != 0
    part = rows[on]
    found = drivers(weights, part["codes"], leading_head(part["level"], part["alert"]), mask)
    offsets = np.zeros(len(rows) + 1, np.int32)
    offsets[1:][on] = (found >= 0).sum(axis=1)
    np.cumsum(offsets, out=offsets)
    values = pa.DictionaryArray.from_arrays(pa.array(found[found >= 0]), pa.array(FEATURE_NAMES, pa.string()))
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(~on))
