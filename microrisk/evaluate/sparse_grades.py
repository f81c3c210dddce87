"""What a sparse exposure head has lost: order in the tail against its int8 parents, and recall in the harness.

Two exams of the same form with no row in common: budgets follow the first, figures that are published come from the
second. An earlier model, of 735 digits, had been graded on the second as well before the budget was raised, so a third
one, of sessions that no choice has seen, confirms recall.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microrisk.errors import UsageError
from microrisk.evaluate import bootstrap
from microrisk.evaluate.default_model import Say
from microrisk.evaluate.detectors import Column, Level, Union
from microrisk.evaluate.harness import evaluate
from microrisk.evaluate.recordings import BINANCE, COINBASE, COINBASE_FILES
from microrisk.evaluate.result import AtBudget, Figure, Outcome
from microrisk.evaluate.sessions import eventful, simulated_split
from microrisk.evaluate.split import Split, Track
from microrisk.features.normalise import Table, expand
from microrisk.model.quantise import _gap
from microrisk.pipeline.gather import Gathered, codes_of, gather
from microrisk.pipeline.memory import recorded, simulated
from microrisk.pipeline.spine import Source
from microrisk.spec.records import N_FEATURES
from microrisk.spec.weightfile import HEADS
from microrisk.weights import Weights, mask_vector

ES = "databento_cme_es/esh4-glbx-mdp3-20231225.mbo.dbn.zst"
MIDNIGHT_NS = 1_723_161_600 * 10**9
"""9 August 2024, 00:00 UTC: the Binance minutes behind it were never taught."""
AFTER_MIDNIGHT = {"Binance spot": "spot_btcusdt", "Binance COIN-M": "cm_btcusd_perp"}
CHOSEN_ON, REPORTED_ON, CONFIRMED_ON = "chosen on", "reported on", "confirmed on"
TAIL_SESSIONS = {CHOSEN_ON: (5_000, 5_001), REPORTED_ON: (6_000, 6_001, 6_002, 6_003), CONFIRMED_ON: (7_000, 7_001)}
"""Sessions with episodes whose rows are ranked; disjoint from default_model.Seeds."""
HARNESS = {CHOSEN_ON: ((1, 12),), REPORTED_ON: ((0, 12),), CONFIRMED_ON: ((3, 24),)}
"""(seed, sessions) of the harness."""
GRADED = "exposure"
BLOCKS, DRAWS = 50, 200
"""Intervals of order: bootstrap over blocks of neighbouring rows, as in model.quantise."""

Codes = NDArray[np.int8]


@dataclass(frozen=True)
class Exam:
    """Rows and sessions that a head is graded on.

    Attributes
    ----------
    tails : name -> (int8[n, N_FEATURES] in time order, mask)
    splits : (seed, sessions of the harness scored by the parent)
    """

    tails: Mapping[str, tuple[Codes, int]]
    splits: Sequence[tuple[int, Split]]


def read_exam(part: str, parent: Weights, data: Path, *, minutes: float, say: Say = lambda _: None) -> Exam:
    """The exam `part`, one of HARNESS; CONFIRMED_ON reads no recording.

    Raises UsageError for another name, MicroriskError where a recording is missing or damaged.
    """
    if part not in HARNESS:
        raise UsageError(f"no exam {part!r}, there are {', '.join(HARNESS)}")
    say(f"rows that figures are {part}")
    tails = _simulated(parent, TAIL_SESSIONS[part], minutes)
    if part != CONFIRMED_ON:
        tails = {**_halves(parent, data, late=part == REPORTED_ON), **tails}
    if part == REPORTED_ON:
        tails.update(_after_midnight(parent, data))
    splits = [
        (seed, simulated_split(parent, sessions=n, minutes=minutes, seed=seed, say=lambda _: None))
        for seed, n in HARNESS[part]
    ]
    return Exam(tails, splits)


def _halves(parent: Weights, data: Path, *, late: bool) -> dict[str, tuple[Codes, int]]:
    """First or second halves, by rows, of the two recordings of full depth."""
    messages, image = (str(data / COINBASE / name) for name in COINBASE_FILES)
    sources = {"ES": Source((str(data / ES),)), "Coinbase": Source((messages,), snapshot=image)}
    found = {}
    for name, source in sources.items():
        codes, mask = _codes(parent, gather(recorded(source.open())))
        middle = len(codes) // 2
        found[name] = (codes[middle:] if late else codes[:middle], mask)
    return found


def _after_midnight(parent: Weights, data: Path) -> dict[str, tuple[Codes, int]]:
    found = {}
    for name, stem in AFTER_MIDNIGHT.items():
        files = tuple(str(data / BINANCE / f"{stem}_{day}.gz") for day in ("20240808", "20240809"))
        gathered = gather(recorded(Source(files).open()))
        found[name] = _codes(parent, gathered, since=MIDNIGHT_NS)
    return found


def _simulated(parent: Weights, seeds: Sequence[int], minutes: float) -> dict[str, tuple[Codes, int]]:
    parts = [_codes(parent, gather(simulated(eventful(s, minutes * 60)))) for s in seeds]
    return {"simulated with episodes": (np.concatenate([c for c, _ in parts]), parts[0][1])}


def _codes(parent: Weights, gathered: Gathered, since: int = -(2**63)) -> tuple[Codes, int]:
    """Rows of the one instrument of a source from `since` ns on, by the parent's generic table."""
    (raw,) = gathered.by_id.values()
    return codes_of(raw.raw[raw.now >= since], expand(generic(parent), gathered.mask)), gathered.mask


def generic(weights: Weights) -> Table:
    """The generic table of a model."""
    table = weights.table_for()
    return Table(table.breaks, table.value, table.slope)


# ---- grading ----


def grades(exam: Exam, sparse: Weights, int8: Weights, parent: Weights) -> dict[str, Any]:
    """Figures of one head; plain numbers.

    int8 : the same pruned head before digits were spared; parent : the dense one that both came from. Both are
    references for the order of rows; recall is compared with the dense one.
    """
    return {
        "order": {name: _order(codes, mask, sparse, int8, parent) for name, (codes, mask) in exam.tails.items()},
        "harness": [_recall(seed, split, sparse, parent) for seed, split in exam.splits],
    }


def _order(codes: Codes, mask: int, sparse: Weights, int8: Weights, parent: Weights) -> dict[str, Any]:
    x = np.where(mask_vector(mask), codes, 0).astype(np.int64)
    after = sparse.exposure(x).astype(np.int32)
    against = {"int8": int8, "parent": parent}
    gaps = {
        name: _gap(w.exposure(x).astype(np.float64), after, BLOCKS, DRAWS, 0).to_json() for name, w in against.items()
    }
    return {"rows": len(x), **gaps}


def _recall(seed: int, split: Split, sparse: Weights, parent: Weights) -> dict[str, Any]:
    """Recall of the head and of the union of all heads, and how much it differs from the parent's, paired."""
    detectors = [Level(Column(GRADED)), Union([Level(Column(h)) for h in HEADS])]
    mine, theirs = (evaluate(_rescored(split, w), detectors, seed=seed) for w in (sparse, parent))
    found = {}
    for a, b in zip(mine.rows, theirs.rows, strict=True):
        found[a.name] = {
            "pr_auc": asdict(a.pr_auc),
            "at": {f"{x.budget:g}": {**_plain(x), "minus_parent": _minus(x, y, seed)}
                   for x, y in zip(a.at, b.at, strict=True)},
        }  # fmt: skip
    return {"seed": seed, "sessions": mine.sessions["test"], "episodes": dict(mine.kinds), "detectors": found}


def _plain(at: AtBudget) -> dict[str, Any]:
    return {
        "recall": asdict(at.recall),
        "recall_by_kind": {k: asdict(v) for k, v in at.recall_by_kind.items()},
        "false_per_hour": asdict(at.false_per_hour),
        "delay_median_s": at.delay_median_s,
    }


def _minus(mine: AtBudget, theirs: AtBudget, seed: int) -> dict[str, Any]:
    """Difference of recall, all kinds and each, with intervals: the same sessions are drawn for both."""
    kinds = sorted(mine.recall_by_kind)
    by_kind = {k: asdict(_difference(_of(mine, k), _of(theirs, k), seed)) for k in kinds}
    return {"recall": asdict(_difference(mine.outcomes, theirs.outcomes, seed)), "recall_by_kind": by_kind}


def _of(at: AtBudget, kind: str) -> list[Outcome]:
    return [o for o in at.outcomes if o.kind == kind]


def _difference(mine: Sequence[Outcome], theirs: Sequence[Outcome], seed: int) -> Figure:
    blocks = sorted({o.session for o in mine})
    total, gain = np.zeros(len(blocks)), np.zeros(len(blocks))
    for a, b in zip(mine, theirs, strict=True):
        at = blocks.index(a.session)
        total[at] += 1
        gain[at] += (a.delay_s is not None) - float(b.delay_s is not None)
    drawn = bootstrap.weights(len(blocks), seed=seed)
    return Figure(float(gain.sum() / total.sum()), *bootstrap.interval((drawn @ gain) / (drawn @ total)))


def _rescored(split: Split, weights: Weights) -> Split:
    """The same tracks with this model's exposure head; no training tracks, since nothing graded here learns."""

    def again(track: Track) -> Track:
        codes = np.zeros((0, N_FEATURES), np.int8) if track.codes is None else track.codes
        return replace(track, columns={**track.columns, GRADED: weights.exposure(codes.astype(np.int64))})

    seen = [
        t for t in split.train if not len(t.now)
    ]  # the seeds of the model itself: the harness must still refuse them
    return Split(seen, [again(t) for t in split.calibration], [again(t) for t in split.test])
