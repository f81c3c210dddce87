"""The recipe of the packaged model `default`: python -m microrisk.evaluate.default_model OUT [--data FOLDER].

Clean simulated sessions and the first half of the MIT-licensed Coinbase recording teach tables, whitening and vae.
Simulated sessions with episodes, and that half with episodes injected, teach the exposure head. Clean sessions of other
seeds set levels and thresholds for every feature mask that a feed of this package has. The second half of the recording
is never read.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import App, Parameter
from numpy.typing import NDArray

from microrisk.errors import UsageError
from microrisk.evaluate.sessions import eventful, run
from microrisk.features.normalise import Table, expand, fit_table
from microrisk.market.episodes import Episode, random_plans
from microrisk.market.inject import inject
from microrisk.market.simulator import simulate
from microrisk.model.calibrate import calibrate
from microrisk.pipeline.fitting import digest, exposure_rows, fit_networks, scored
from microrisk.pipeline.gather import Raw, codes_of, gather
from microrisk.pipeline.memory import Recorded, recorded, simulated
from microrisk.pipeline.spine import Source
from microrisk.spec.features import ALL_MASK, mask
from microrisk.spec.records import Flag
from microrisk.weights import GENERIC, Weights

MINUTES = 30.0
RECORDED_SHARE = 0.25
"""Weight of the recording in the generic table and among the rows that networks see; the rest is simulated."""
COINBASE = "coinbase_l3_2018"
"""Folder of the recording under --data: messages.json.gz and beginning_level_3.json.gz."""
MASKS = {
    "all": ALL_MASK,
    "level 1 with orders": mask("l1", "orders", "trades"),
    "levels, no orders": mask("l1", "l5", "l10", "trades"),
    "levels only": mask("l1", "l5", "l10"),
    "best only": mask("l1"),
}
"""What feeds carry: L3, LOBSTER level 1, L2 with trades, L2 without, a book ticker."""

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
    half = None if data is None else first_half(Path(data))
    real = None if half is None else next(iter(gather(half).by_id.values()))
    table = generic_table(raw, real)
    say(f"{len(seeds.exposure)} sessions with episodes")
    taught = [(simulated(s), s.episodes) for s in (eventful(k, minutes * 60) for k in seeds.exposure)]
    exposed = exposure_rows([*taught, *(injected(half, seeds.injected) if half else [])], expand(table))
    say("training")
    built = fit_networks(
        training_codes(raw, real, expand(table)), exposed, table, masks=tuple(MASKS.values()), seed=1, **settings
    )
    say(f"calibrating on {len(seeds.calibration)} clean sessions, {len(MASKS)} masks")
    metrics = built.metrics
    weights, calibration = calibrated(built.weights, seeds.calibration, minutes)
    weights = weights.with_card(
        name=name,
        description="Taught by the simulator" + (f" and the first half of {COINBASE} (MIT)." if real else " alone."),
        seeds={name: list(numbers) for name, numbers in asdict(seeds).items()},
        data={"simulator_minutes": minutes, "recordings": {} if real is None else _digests(Path(str(data)))},
        metrics=metrics,
        calibration=calibration,
    )
    if grade:
        say("grading on fresh sessions")
        weights = weights.with_card(metrics={**metrics, "harness": _graded(weights, minutes)})
    weights.save(out)
    built.network.save(out)  # small, and the gap between float and integer can be measured again on any recording
    return weights


def first_half(data: Path) -> Recorded:
    """The earlier half (by time) of the Coinbase recording, book image included."""
    folder = data / COINBASE
    snapshot = str(folder / "beginning_level_3.json.gz")
    whole = recorded(Source((str(folder / "messages.json.gz"),), snapshot=snapshot).open())
    ts = whole.events["ts_event"]
    told = ts[(whole.events["flags"] & int(Flag.SNAPSHOT)) == 0]
    middle = (int(told[0]) + int(told[-1])) // 2
    return replace(whole, events=whole.events[ts < middle])


def injected(half: Recorded, seeds: Sequence[int]) -> list[tuple[Recorded, Sequence[Episode]]]:
    """The recording with an episode of each kind, once for every seed."""
    ts = half.events["ts_event"]
    told = ts[(half.events["flags"] & int(Flag.SNAPSHOT)) == 0]
    seconds = int(told[-1] - told[0]) / 1e9
    (index,) = half.known
    out: list[tuple[Recorded, Sequence[Episode]]] = []
    for seed in seeds:
        plans = random_plans(seed, seconds, 1, 5.0, instrument=index, first_s=40.0)
        events, episodes = inject(half.events, plans, seed, resync_s=1.0)
        out.append((replace(half, events=events), episodes))
    return out


def generic_table(raw: Sequence[Raw], real: Raw | None) -> Table:
    """Quantiles over simulated sessions, each alike, and the recording with its share."""
    arrays, shares = [r.raw for r in raw], [1.0 / len(raw)] * len(raw)
    if real is not None:
        arrays.append(real.raw)
        shares = [s * (1 - RECORDED_SHARE) for s in shares] + [RECORDED_SHARE]
    return fit_table(arrays, shares)


def training_codes(raw: Sequence[Raw], real: Raw | None, table: NDArray[np.int8]) -> NDArray[np.int8]:
    """Clean codes; the recording, repeated to its share, comes first, so that the held-out end is simulated."""
    parts = [codes_of(r.raw, table) for r in raw]
    if real is not None:
        rows = sum(map(len, parts)) * RECORDED_SHARE / (1 - RECORDED_SHARE)
        parts = [codes_of(real.raw, table)] * max(round(rows / len(real.raw)), 1) + parts
    return np.concatenate(parts)


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


def _digests(data: Path) -> dict[str, str | None]:
    names = ("messages.json.gz", "beginning_level_3.json.gz")
    return {f"{COINBASE}/{n}": digest(data / COINBASE / n) for n in names}


def _main(
    out: Path,
    /,
    *,
    data: Annotated[Path | None, Parameter(help="Folder of recordings that holds coinbase_l3_2018.")] = None,
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
