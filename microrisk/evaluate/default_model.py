"""The recipe of the packaged model `default`: python -m microrisk.evaluate.default_model OUT [--data FOLDER].

Clean simulated sessions, the first half of the MIT-licensed Coinbase recording and the MIT-licensed Binance captures up
to midnight teach tables and vae (whitening, which needs every feature, all but Binance). Simulated sessions with
episodes, and the Coinbase half with episodes injected, teach the exposure head; Binance shows it normal rows. Clean
sessions of other seeds set levels and thresholds for every feature mask that a feed of this package has. The rest of
the recordings is never read (evaluate/recordings.py).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from cyclopts import App, Parameter
from numpy.typing import NDArray

from microrisk.errors import UsageError
from microrisk.evaluate.recordings import BINANCE, COINBASE, Real, injected, read_real
from microrisk.evaluate.sessions import eventful, run
from microrisk.features.normalise import Table, count_values, expand, fit_counts
from microrisk.market.simulator import simulate
from microrisk.model.calibrate import calibrate
from microrisk.pipeline.fitting import exposure_rows, fit_networks, partial_rows, scored
from microrisk.pipeline.gather import Raw, codes_of, gather
from microrisk.pipeline.memory import simulated
from microrisk.spec.features import ALL_MASK, mask
from microrisk.spec.records import N_FEATURES
from microrisk.weights import GENERIC, Weights, mask_vector

if TYPE_CHECKING:
    from microrisk.model.train import Partial

MINUTES = 30.0
RECORDED_SHARE = 0.25
"""Weight of the Coinbase recording in the generic table and among the clean rows that carry every feature."""
LEVELS_SHARE = 0.15
"""Weight of the Binance captures, together, in the generic table and among the normal rows of a batch."""
MASKS = {
    "all": ALL_MASK,
    "level 1 with orders": mask("l1", "orders", "trades"),
    "levels, no orders": mask("l1", "l5", "l10", "trades"),
    "levels only": mask("l1", "l5", "l10"),
    "best only": mask("l1"),
}
"""What feeds carry: L3, LOBSTER level 1, L2 with trades, L2 without, a book ticker."""

SIMULATED = "Taught by the simulator alone."

Say = Callable[[str], None]


@dataclass(frozen=True)
class Seeds:
    """Sessions by purpose; disjoint, and all below evaluate.sessions.FIRST_SEED."""

    clean: Sequence[int] = tuple(range(1_000, 1_010))
    exposure: Sequence[int] = tuple(range(2_000, 2_060))
    calibration: Sequence[int] = tuple(range(3_000, 3_012))
    injected: Sequence[int] = tuple(range(4_000, 4_006))

    def check(self) -> None:
        """UsageError when a seed has two purposes."""
        every = [*self.clean, *self.exposure, *self.calibration, *self.injected]
        if len(set(every)) != len(every):
            raise UsageError("a seed is used for two purposes")


def make_default(
    out: str | Path,
    data: str | Path | None = None,
    *,
    seeds: Seeds | None = None,
    minutes: float = MINUTES,
    name: str = "default",
    grade: bool = True,
    say: Say = lambda _: None,
    **settings: Any,
) -> Weights:
    """Make the model and write it to the folder `out`.

    Parameters
    ----------
    data : folder of recordings; None leaves the real one out, and the card says so
    seeds, minutes : sessions and their length
    grade : put the harness table of fresh sessions into the card
    settings : of model.train.Settings, for short runs
    """
    seeds = seeds or Seeds()
    seeds.check()
    say(f"{len(seeds.clean)} clean sessions of {minutes:g} minutes")
    raw = [r for s in seeds.clean for r in gather(simulated(simulate(s, minutes * 60))).by_id.values()]
    real = None if data is None else read_real(Path(data))
    table = generic_table(raw, real)
    say(f"{len(seeds.exposure)} sessions with episodes")
    taught = [(simulated(s), s.episodes) for s in (eventful(k, minutes * 60) for k in seeds.exposure)]
    exposed = exposure_rows([*taught, *(injected(real.half, seeds.injected) if real else [])], expand(table))
    say("training")
    built = fit_networks(
        training_codes(raw, real, expand(table)),
        exposed,
        table,
        masks=tuple(MASKS.values()),
        seed=1,
        partial=level_rows(real, table),
        **settings,
    )
    say(f"calibrating on {len(seeds.calibration)} clean sessions, {len(MASKS)} masks")
    metrics = built.metrics
    weights, calibration = calibrated(built.weights, seeds.calibration, minutes)
    weights = weights.with_card(
        name=name,
        description=f"Taught by the simulator and parts of {COINBASE} and {BINANCE} (MIT)." if real else SIMULATED,
        seeds={name: list(numbers) for name, numbers in asdict(seeds).items()},
        data={"simulator_minutes": minutes, "recordings": {} if real is None else real.digests},
        metrics=metrics,
        calibration=calibration,
    )
    if grade:
        say("grading on fresh sessions")
        weights = weights.with_card(metrics={**metrics, "harness": _graded(weights, minutes)})
    weights.save(out)
    built.network.save(out)  # small, and the gap between float and integer can be measured again on any recording
    return weights


def generic_table(raw: Sequence[Raw], real: Real | None) -> Table:
    """Quantiles over simulated sessions, each alike, and the recordings with their shares.

    A feature that level feeds do not carry is described by the others alone.
    """
    parts = [(r, (1.0 - _recorded_share(real)) / len(raw), ALL_MASK) for r in raw]
    if real is not None:
        parts.append((real.full, RECORDED_SHARE, ALL_MASK))
        parts += [(r, LEVELS_SHARE / len(real.levels), real.levels_mask) for r in real.levels]
    return fit_counts(np.sum([share * _carried_counts(r, m) for r, share, m in parts], axis=0))


def _recorded_share(real: Real | None) -> float:
    return 0.0 if real is None else RECORDED_SHARE + LEVELS_SHARE


def _carried_counts(raw: Raw, carried: int) -> NDArray[np.float64]:
    """Shares of the values of each feature, float64[32, 4096]; rows of features outside `carried` are 0."""
    has = mask_vector(carried).astype(bool)
    return np.where(has[:, None], count_values(raw.raw) / max(len(raw.raw), 1), 0.0)


def training_codes(raw: Sequence[Raw], real: Real | None, table: NDArray[np.int8]) -> NDArray[np.int8]:
    """Clean codes of all features; the recording, repeated to its share, comes first: the held-out end is simulated."""
    parts = [codes_of(r.raw, table) for r in raw]
    if real is not None:
        rows = sum(map(len, parts)) * RECORDED_SHARE / (1 - RECORDED_SHARE)
        parts = [codes_of(real.full.raw, table)] * max(round(rows / len(real.full.raw)), 1) + parts
    return np.concatenate(parts)


def level_rows(real: Real | None, table: Table) -> Partial | None:
    """Clean codes of the level feeds, captures alike often."""
    if real is None:
        return None
    longest = max(len(r.raw) for r in real.levels)
    flat = expand(table, real.levels_mask)
    codes = [codes_of(np.resize(r.raw, (longest, N_FEATURES)), flat) for r in real.levels]
    return partial_rows(np.concatenate(codes), real.levels_mask, LEVELS_SHARE)


def calibrated(weights: Weights, seeds: Sequence[int], minutes: float) -> tuple[Weights, dict[str, Any]]:
    """Generic levels and thresholds under every mask, from clean sessions."""
    reports = {}
    sessions = [simulated(simulate(s, minutes * 60)) for s in seeds]
    for label, m in MASKS.items():
        clean = [s for held in sessions for s in scored(weights, replace(held, mask=m)).values()]
        made = calibrate(clean)
        weights = weights.with_level(GENERIC, m, made.level)
        reports[f"{m:08x}"] = {"features": label, **made.report}
    return weights, reports


def _graded(weights: Weights, minutes: float) -> dict[str, Any]:
    """Recall and areas of heads and rivals, without the single outcomes."""
    table = run(weights, sessions=4, minutes=minutes, forest=False).to_dict()
    for row in table["rows"]:
        for at in row["at"]:
            del at["outcomes"]
    return table


def _main(
    out: Path,
    /,
    *,
    data: Annotated[Path | None, Parameter(help=f"Folder that holds {COINBASE} and {BINANCE}.")] = None,
    name: str = "default",
    grade: bool = True,
) -> None:
    """Make the packaged model."""
    begin = time.perf_counter()

    def say(text: str) -> None:
        sys.stderr.write(f"{time.perf_counter() - begin:6.1f} s  {text}\n")

    weights = make_default(out, data, name=name, grade=grade, say=say)
    for alarm in weights.card["metrics"]["alarms"]:
        say(f"notice: {alarm}")
    say(f"written to {out}")


if __name__ == "__main__":
    App(default_command=_main, help_format="plaintext")()
