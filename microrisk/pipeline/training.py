"""train: tables, levels and (with torch) a whole model from recordings; earlier parts teach, later parts calibrate.

Nothing that sets a level or a threshold was seen while tables or weights were fitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microrisk.errors import UsageError
from microrisk.pipeline.fitting import digest, fit_networks, scored, simulated_episodes
from microrisk.pipeline.gather import Gathered, codes_of, find_units, gather
from microrisk.pipeline.spine import Inputs, Openable, Progress, Source
from microrisk.pipeline.watch import named
from microrisk.spec.features import ALL_MASK
from microrisk.spec.formats import LEVEL
from microrisk.weights import GENERIC, Weights

TEACHING_SHARE = 0.7
"""Share of the time of the input, its earlier part, from which is learnt; the rest calibrates."""
LEAST_TEACHING, LEAST_CALIBRATION = 2_000, 1_000
"""Rows that an instrument needs in either part for tables and levels of its own."""


@dataclass(frozen=True)
class TrainResult:
    """What was fitted.

    Attributes
    ----------
    folder : the new model
    fitted : an entry an instrument: id, rows, tick, lot, table ("own" or why not), level (thresholds in bits)
    notices : what went otherwise than wished
    metrics : of the training, {} when only tables were fitted
    """

    folder: str
    fitted: list[dict[str, Any]]
    notices: list[str]
    metrics: dict[str, Any] = field(default_factory=dict)

    def exit_code(self) -> int:
        """Always 0: what cannot be done is raised."""
        return 0

    def to_json(self) -> dict[str, Any]:
        """Plain types only."""
        return asdict(self)


def train(
    inputs: Inputs,
    *,
    out: str | Path,
    model: str | Path | None = None,
    tables_only: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
    settings: Mapping[str, Any] | None = None,
    **options: str | None,
) -> TrainResult:
    """Fit a model to recordings and write it to the new folder `out`.

    tables_only : keep the weights of `model`; instruments get normaliser tables and levels of their own.
    settings : of model.train.Settings

    Otherwise networks are trained too (torch), the exposure head on episodes injected into simulated sessions. Raises
    UsageError when `out` exists, torch is missing, or no instrument has rows enough; else as in `replay`.
    """
    folder = Path(out)
    if folder.exists():
        raise UsageError(f"{folder} exists: train writes a new folder")
    source = Source.of(inputs, **options)
    units = find_units(source)
    found = gather(source, units, progress)
    split = found.span[0] + int((found.span[1] - found.span[0]) * TEACHING_SHARE)
    taught, skipped = _teachable(found, split)
    metrics: dict[str, Any] = {}
    if tables_only:
        weights, facts = named(model)
        weights = weights.with_card(based_on=facts["name"])
    else:
        weights, metrics = _whole(source, found, taught, split, {"seed": seed, **(settings or {})})
    weights = own_tables(weights, found, taught, split)
    weights, levels = own_levels(weights, source, taught, split)
    weights = weights.with_card(
        name=folder.name,
        data=_data(source, found, split),
        calibration=levels,
        **({"metrics": metrics} if metrics else {}),
    )
    weights.save(folder)
    fitted = [_fitted(name, found, split, skipped.get(name), levels.get(name)) for name in found.by_id]
    notices = [f"{n}: no table of its own, {why}" for n, why in skipped.items()]
    if found.thinned > 1:
        notices.append(f"every {found.thinned}th row was used")
    return TrainResult(str(folder), fitted, notices, metrics)


def _teachable(found: Gathered, split: int) -> tuple[list[str], dict[str, str]]:
    """Instruments with rows enough in both parts; and the others with the reason."""
    taught, skipped = [], {}
    for name, raw in found.by_id.items():
        early = int(np.searchsorted(raw.now, split)) * found.thinned
        late = len(raw.now) * found.thinned - early
        if early >= LEAST_TEACHING and late >= LEAST_CALIBRATION:
            taught.append(name)
        else:
            skipped[name] = (
                f"{early} rows to learn from and {late} to calibrate, at least {LEAST_TEACHING} and {LEAST_CALIBRATION}"
            )
    if not taught:
        raise UsageError(
            f"no instrument has rows enough: {'; '.join(f'{k}: {v}' for k, v in list(skipped.items())[:3])}"
        )
    return taught, skipped


def own_tables(weights: Weights, found: Gathered, names: Sequence[str], split: int) -> Weights:
    """A normaliser table for each instrument, from its rows before `split`."""
    from microrisk.features.normalise import fit_table

    for name in names:
        u = found.units[name]
        weights = weights.with_table(name, fit_table(before(found, name, split)), tick=u.tick, lot=u.lot)
    return weights


def before(found: Gathered, name: str, split: int) -> NDArray[np.int16]:
    """Integer features of an instrument earlier than `split`."""
    return found.by_id[name].between(found.span[0], split).raw


def own_levels(weights: Weights, source: Openable, names: Sequence[str], split: int) -> tuple[Weights, dict[str, Any]]:
    """Levels and thresholds of each instrument under the feed's mask, from its scored rows at `split` and later."""
    from microrisk.model.calibrate import calibrate

    mask = source.open().mask
    reports = {}
    for name, session in scored(weights, source, start=split).items():
        if name in names:
            made = calibrate([session])
            weights = weights.with_level(name, mask, made.level)
            reports[name] = {"mask": f"{mask:08x}", **made.report}
    return weights, reports


def _whole(
    source: Source, found: Gathered, names: Sequence[str], split: int, settings: Mapping[str, Any]
) -> tuple[Weights, dict[str, Any]]:
    """Networks taught by the earlier part of every instrument in its own table, and a generic table over all."""
    from microrisk.features.normalise import expand, fit_table
    from microrisk.model.calibrate import Session, calibrate

    codes = [codes_of(before(found, n, split), expand(fit_table(before(found, n, split)), found.mask)) for n in names]
    exposed, table = simulated_episodes(found.mask, int(settings["seed"]))
    generic = gather(source, held_rows=1 << 20)
    pooled = [before(generic, n, split) for n in generic.by_id]
    pooled = [rows for rows in pooled if len(rows)]
    table = fit_table(pooled, [1.0] * len(pooled)) if pooled else table
    built = fit_networks(np.concatenate(codes), exposed, table, masks=(found.mask,), **settings)
    weights = built.weights
    sessions = list(scored(weights, source, start=split).values())
    made = calibrate([Session(s.now, s.heads) for s in sessions])
    for mask in {found.mask, ALL_MASK}:
        weights = weights.with_level(GENERIC, mask, made.level)
    return weights, built.metrics


def _data(source: Source, found: Gathered, split: int) -> dict[str, Any]:
    """Where the model comes from: names and digests of the inputs, times of both parts."""
    return {
        "inputs": {Path(p).name: digest(Path(p)) for p in source.inputs},
        "taught_ns": [found.span[0], split],
        "calibrated_ns": [split, found.span[1]],
    }


def _fitted(
    name: str, found: Gathered, split: int, skipped: str | None, report: dict[str, Any] | None
) -> dict[str, Any]:
    u = found.units[name]
    heads = (report or {}).get("heads", {})
    level = ", ".join(f"{h} {v['on'] / (1 << LEVEL.frac):.1f}" for h, v in heads.items() if "on" in v)
    return {
        "id": name,
        "rows": len(found.by_id[name].now),
        "tick": u.tick,
        "lot": u.lot,
        "table": skipped or "own",
        "level": level or "uncalibrated",
    }
