"""The pieces that models are made of: networks from codes, rows of episodes, clean scored sessions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from microrisk.errors import UsageError
from microrisk.pipeline.gather import codes_of, gather
from microrisk.pipeline.scoring import Heads
from microrisk.pipeline.spine import Openable, Spine
from microrisk.pipeline.watch import Stage
from microrisk.spec.records import N_HEADS
from microrisk.weights import Weights

if TYPE_CHECKING:
    from microrisk.market.episodes import Episode
    from microrisk.model.build import Built
    from microrisk.model.train import Exposed, Partial
    from microrisk.pipeline.memory import Recorded

AFTERMATH_NS = 5_000_000_000
"""Time after an episode in which rows are neither normal nor part of it."""
CALIBRATION_ROWS = 1 << 23
"""Scored rows held for calibration (24 bytes each); later ones are left out."""


def fit_networks(
    codes: NDArray[np.int8], exposed: Exposed | None, table: Any, *, masks: Sequence[int], seed: int,
    partial: Partial | None = None, **settings: Any,
) -> Built:  # fmt: skip
    """Train, quantise, and put the generic table beside the weights; levels are still those of no one.

    partial : more clean rows, of feeds that carry less, as in model.train
    Raises UsageError without torch.
    """
    try:
        from microrisk.model.build import build_model
        from microrisk.model.train import Settings
    except ImportError as missing:
        raise UsageError(f"training needs torch ({missing}): pip install 'microrisk[model]'") from missing
    return build_model(codes, exposed, table, Settings(seed=seed, masks=tuple(masks), **settings), partial=partial)


def partial_rows(codes: NDArray[np.int8], mask: int, share: float) -> Partial:
    """Clean rows of feeds that carry only `mask`, as fit_networks takes them; raises UsageError without torch."""
    try:
        from microrisk.model.train import Partial
    except ImportError as missing:
        raise UsageError(f"training needs torch ({missing}): pip install 'microrisk[model]'") from missing
    return Partial(codes, mask, share)


def simulated_episodes(mask: int, seed: int, *, sessions: int = 3, minutes: float = 30.0) -> tuple[Exposed, Any]:
    """Rows of simulated sessions with episodes, coded by a table of clean simulated sessions; and that table."""
    from microrisk.features.normalise import expand, fit_table
    from microrisk.market.simulator import simulate
    from microrisk.pipeline.memory import simulated

    clean = [gather(simulated(simulate(seed * 100 + k, minutes * 60))) for k in range(2)]
    table = fit_table([r.raw for g in clean for r in g.by_id.values()])
    made = [simulate(seed * 100 + 50 + k, minutes * 60, episodes="random") for k in range(sessions)]
    return exposure_rows([(simulated(s), s.episodes) for s in made], expand(table, mask)), table


def exposure_rows(sources: Sequence[tuple[Recorded, Sequence[Episode]]], table: NDArray[np.int8]) -> Exposed:
    """Codes and labels of events with episodes in them, by an expanded table; rows in the wake of one are left out.

    The events make features as under a generic table. An episode of instrument 0 concerns every instrument.
    """
    from microrisk.market.episodes import KINDS
    from microrisk.model.train import Exposed

    codes, labels = [], []
    for held, episodes in sources:
        numbers = {entry.id: index for index, entry in held.known.items()}
        for name, raw in gather(held).by_id.items():
            mine = [e for e in episodes if e.instrument in (0, numbers[name])]
            label = episode_labels(raw.now, mine, KINDS)
            codes.append(codes_of(raw.raw[label >= 0], table))
            labels.append(label[label >= 0])
    return Exposed(np.concatenate(codes), np.concatenate(labels))


def episode_labels(now: NDArray[np.int64], episodes: Sequence[Any], kinds: Sequence[str]) -> NDArray[np.int64]:
    """Per row 0 = normal, k = inside an episode of kinds[k-1], -1 = in its wake (AFTERMATH_NS): neither."""
    out = np.zeros(len(now), np.int64)
    for wake in (True, False):  # an episode wins over the wake of the one before it
        for e in episodes:
            end = e.end_ns + (AFTERMATH_NS if wake else 0)
            a, b = np.searchsorted(now, [e.start_ns, end + 1])
            out[a:b] = -1 if wake else kinds.index(e.kind) + 1
    return out


def scored(weights: Weights, source: Openable, *, start: int = -(2**63)) -> dict[str, Any]:
    """Times and heads of every instrument from `start` ns on, as model.calibrate.Session, through the spine itself."""
    from microrisk.model.calibrate import Session

    spine = Spine(source)
    heads = Heads("cpu", weights, spine.feed.mask)
    stage = Stage(spine, weights, heads.engine_heads)
    held: dict[int, list[NDArray[Any]]] = {}
    room = CALIBRATION_ROWS
    for rows in stage.chunks():
        late = rows[rows["now"] >= start][:room]
        room -= len(late)
        for index in map(int, np.unique(late["instrument"])):
            mine = late[late["instrument"] == index]
            kept = np.zeros(len(mine), [("now", "<i8"), ("heads", "<i4", (N_HEADS,))])
            kept["now"], kept["heads"] = mine["now"], mine["heads"]
            held.setdefault(index, []).append(kept)
    joined = {spine.names[i]: np.concatenate(parts) for i, parts in held.items()}
    return {name: Session(rows["now"].copy(), rows["heads"].copy()) for name, rows in joined.items()}


def digest(path: Path) -> str | None:
    """SHA-256 of a file, None for a folder."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
