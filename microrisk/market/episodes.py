"""Stress episodes at order level: what is planned, what happened, and how a plan becomes numbers.

Kinds, sizes and lengths follow the surveillance literature: layering with re-pegging (Sarao case), quote stuffing
(Egginton, Van Ness, Van Ness 2016), loss of depth before price (6 May 2010), momentum ignition with partial rebound,
feed gaps and stale venues, wash trades. `strength` 0.3 to 1.2 moves every size, rate and share through its range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from microrisk.errors import UsageError
from microrisk.market import plan as p
from microrisk.market.rng import Stream, derive
from microrisk.spec.units import NS_PER_S

KINDS = ("layering", "stuffing", "withdrawal", "ignition", "gap", "wash")
CODES = {
    "layering": p.LAYERING,
    "stuffing": p.STUFFING,
    "withdrawal": p.WITHDRAWAL,
    "ignition": p.IGNITION,
    "wash": p.WASH,
}
SECONDS = {
    "layering": (4.0, 30.0),
    "stuffing": (0.5, 5.0),
    "withdrawal": (11.0, 65.0),
    "ignition": (5.0, 35.0),
    "gap": (0.5, 30.0),
    "wash": (5.0, 30.0),
}
"""Shortest and longest episode of each kind."""
WEAKEST, STRONGEST = 0.3, 1.2
SIDE_RATE = 0.75
"""Ordinary market orders a second on one side."""
P99_LOTS = 12
"""Size of an ordinary order that one in a hundred exceeds, in round lots of the simulator."""


@dataclass(frozen=True)
class Plan:
    """One episode to come.

    Attributes
    ----------
    kind : one of KINDS
    start_ns : ns after the session's (or recording's) start
    strength : 0.3 (weak) to 1.2 (strong)
    seconds : intended length; None draws one from SECONDS. Layering fits whole cycles into it
    instrument : index of the instrument, 1..N; for a gap 0 means the whole channel
    side : +1 or -1 (layered side, direction of the sweeps, favoured side of stuffing); 0 draws one
    hard : wash sizes jittered by up to 10 %; a gap as a stale venue (silence, then everything late)
    """

    kind: str
    start_ns: int
    strength: float = 1.0
    seconds: float | None = None
    instrument: int = 1
    side: int = 0
    hard: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"unknown episode kind {self.kind!r}; known: {', '.join(KINDS)}")
        if not 0.0 < self.strength <= 2.0 or self.start_ns < 0:
            raise UsageError(
                f"{self.kind}: strength {self.strength} must be in (0, 2], start {self.start_ns} ns not negative"
            )
        if self.seconds is not None and self.seconds <= 0:
            raise UsageError(f"{self.kind}: {self.seconds} s is no length")


@dataclass(frozen=True)
class Episode:
    """One episode that happened: the label.

    start_ns and end_ns are ns UTC (the core's clock: recorder's time where there is one), end after the last action;
    instrument 0 = every instrument of the channel (gaps only); params hold the drawn mechanics.
    """

    kind: str
    start_ns: int
    end_ns: int
    strength: float
    instrument: int
    params: dict[str, float] = field(default_factory=dict)


def random_plans(
    seed: int,
    seconds: float,
    per_kind: int,
    min_spacing_s: float = 30.0,
    *,
    instrument: int = 1,
    kinds: Sequence[str] = KINDS,
    first_s: float = 45.0,
) -> list[Plan]:
    """`per_kind` episodes of each kind in random order over a session, strengths uniform in 0.3 to 1.2.

    Episodes are at least `min_spacing_s` apart, end to start. Raises UsageError when they do not fit.
    """
    draw = Stream(derive(seed, 11, instrument))
    order = [k for k in kinds for _ in range(per_kind)]
    for i in range(len(order) - 1, 0, -1):
        j = draw.integer(0, i)
        order[i], order[j] = order[j], order[i]
    lengths = [_length(kind, draw) for kind in order]
    spare = seconds - first_s - 5.0 - sum(lengths) - min_spacing_s * len(order)
    if spare < 0:
        need = f"{len(order)} episodes {min_spacing_s} s apart need {seconds - spare:.0f} s"
        raise UsageError(f"{need}, the session has {seconds:.0f} s")
    cuts = sorted(draw.uniform(0.0, spare) for _ in order)
    at, plans = first_s, []
    for kind, length, cut, before in zip(order, lengths, cuts, [0.0, *cuts], strict=False):
        at += cut - before
        strength = draw.uniform(WEAKEST, STRONGEST)
        side, hard = 1 - 2 * draw.integer(0, 1), draw.uniform() < 0.5
        plans.append(Plan(kind, int(at * NS_PER_S), strength, length, instrument, side, hard))
        at += length + min_spacing_s
    return plans


def _length(kind: str, draw: Stream) -> float:
    """Seconds, biased to the short end."""
    low, high = SECONDS[kind]
    return low + (high - low) * draw.uniform() * draw.uniform()


def compile_plan(plan: Plan, seed: int) -> tuple[NDArray[np.float64], dict[str, float]]:
    """Draw the mechanics of a plan: a row for the agent (plan.P_COLUMNS) and the same as named parameters.

    A gap has no row of its own (the kind column stays 0): it happens to the feed.
    """
    draw = Stream(derive(seed, 13, plan.start_ns, plan.instrument))
    u = min(max((plan.strength - WEAKEST) / (STRONGEST - WEAKEST), 0.0), 1.3)
    side = plan.side or 1 - 2 * draw.integer(0, 1)
    length = plan.seconds if plan.seconds is not None else _length(plan.kind, draw)
    named, active = _MECHANICS[plan.kind](u, length, draw, plan.hard)
    row = np.zeros(p.P_COLUMNS)
    row[p.P_KIND] = CODES.get(plan.kind, 0)
    row[p.P_START], row[p.P_SIDE] = plan.start_ns, side
    row[p.P_ACTIVE_END], row[p.P_END] = plan.start_ns + int(active * NS_PER_S), plan.start_ns + int(length * NS_PER_S)
    row[p.P_A : p.P_A + len(named)] = list(named.values())
    return row, {**named, "side": float(side), "seconds": length}


Mechanics = tuple[dict[str, float], float]


def _layering(u: float, length: float, draw: Stream, hard: bool) -> Mechanics:
    orders = 3 + round(5 * min(u, 1.0))
    lots = max(3, min(P99_LOTS, round(P99_LOTS * (0.35 + 0.65 * u))))
    cycles = max(2, min(6, round(length / draw.uniform(2.5, 6.0))))
    place, cancel = draw.uniform(0.3, 1.5), draw.uniform(0.05, 0.3)
    watch = max(0.64, length / cycles - place - cancel - 0.5)
    fills = draw.integer(1, 2)
    return {
        "orders": orders,
        "lots": lots,
        "cycles": cycles,
        "place_s": place,
        "cancel_s": cancel,
        "watch_s": watch,
        "fills": fills,
    }, length


def _stuffing(u: float, length: float, draw: Stream, hard: bool) -> Mechanics:
    # rounded: the last bit of a power may differ between machines
    return {"rate": min(round(200.0 * 25.0**u, 3), 5000.0), "life_s": draw.uniform(0.001, 0.00499)}, length


def _withdrawal(u: float, length: float, draw: Stream, hard: bool) -> Mechanics:
    return {"share": min(0.6 + 0.3 * u, 0.9)}, draw.uniform(1.0, min(5.0, length / 2))


def _ignition(u: float, length: float, draw: Stream, hard: bool) -> Mechanics:
    times = 3.0 + 7.0 * min(u, 1.0)
    named = {
        "sweeps_per_s": times * SIDE_RATE,
        "share": 0.9,
        "hit_cancel": 1.5 + 2.0 * u,
        "conviction": 0.4 + 0.6 * u,
        "rebound": draw.uniform(0.3, 0.6),
        "times": times,
    }
    return named, max(3.0, length - 5.0)


def _gap(u: float, length: float, draw: Stream, hard: bool) -> Mechanics:
    return {"late": float(hard)}, length


def _wash(u: float, length: float, draw: Stream, hard: bool) -> Mechanics:
    rate, lots = min(2.0 + 8.0 * u, 10.0), draw.integer(1, 5)
    return {
        "pairs_per_s": rate,
        "lots": lots,
        "jitter": 0.1 if hard else 0.0,
        "displayed": float(draw.integer(0, 1)),
    }, length


_MECHANICS = {
    "layering": _layering,
    "stuffing": _stuffing,
    "withdrawal": _withdrawal,
    "ignition": _ignition,
    "gap": _gap,
    "wash": _wash,
}


def episodes_path(path: str | Path) -> Path:
    """Where the labels of a recording lie."""
    return Path(f"{path}.episodes.json")


def write_episodes(episodes: Sequence[Episode], path: str | Path) -> Path:
    """Write the labels beside the recording `path`; the file's path."""
    target = episodes_path(path)
    target.write_bytes(msgspec.json.format(msgspec.json.encode(list(episodes)), indent=1))
    return target


def read_episodes(path: str | Path) -> list[Episode]:
    """Labels of the recording `path` (or of the label file itself). Raises UsageError for a missing or wrong file."""
    source = Path(path) if str(path).endswith(".episodes.json") else episodes_path(path)
    try:
        return msgspec.json.decode(source.read_bytes(), type=list[Episode])
    except (OSError, msgspec.MsgspecError) as wrong:
        raise UsageError(f"{source}: no labels can be read ({wrong})") from wrong
