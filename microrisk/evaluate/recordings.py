"""Recordings that the packaged model learns from, and which part of each it may see.

Coinbase 2018 (full depth): the earlier half. Binance 2024 (levels and trades): what came before midnight UTC on
8 August; the minutes behind it, which spot and COIN-M have and USD-M has not, stay unread. All under the MIT licence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microrisk.errors import UsageError
from microrisk.market.episodes import Episode, random_plans
from microrisk.market.inject import inject
from microrisk.pipeline.fitting import digest
from microrisk.pipeline.gather import Raw, gather
from microrisk.pipeline.memory import Recorded, recorded
from microrisk.pipeline.spine import Source
from microrisk.spec.records import Flag

COINBASE = "coinbase_l3_2018"
"""Folder under --data: messages.json.gz and beginning_level_3.json.gz."""
COINBASE_FILES = ("messages.json.gz", "beginning_level_3.json.gz")
BINANCE = "binance_btc_2024"
BINANCE_FILES = ("spot_btcusdt_20240808.gz", "usdm_btcusdt_20240808.gz", "cm_btcusd_perp_20240808.gz")
"""Captures that end at midnight; those of 20240809 go on where they end."""


@dataclass(frozen=True)
class Real:
    """What recordings teach.

    Attributes
    ----------
    half : the earlier half of the Coinbase recording, as events
    full : its integer features
    levels : integer features of the Binance captures, one each
    levels_mask : features that those carry
    digests : SHA-256 by "folder/file"
    """

    half: Recorded
    full: Raw
    levels: tuple[Raw, ...]
    levels_mask: int
    digests: dict[str, str | None]


def read_real(data: Path) -> Real:
    """Read the teaching parts; raises MicroriskError where a file is missing or damaged."""
    half = first_half(data)
    (full,) = gather(half).by_id.values()
    gathered = [gather(recorded(Source((str(data / BINANCE / name),)).open())) for name in BINANCE_FILES]
    masks = {g.mask for g in gathered}
    if len(masks) != 1:
        raise UsageError(f"the Binance captures carry different features: {[f'{m:08x}' for m in sorted(masks)]}")
    levels = tuple(raw for g in gathered for raw in g.by_id.values())
    files = [*(f"{COINBASE}/{n}" for n in COINBASE_FILES), *(f"{BINANCE}/{n}" for n in BINANCE_FILES)]
    return Real(half, full, levels, masks.pop(), {name: digest(data / name) for name in files})


def first_half(data: Path) -> Recorded:
    """The earlier half (by time) of the Coinbase recording, book image included."""
    messages, image = (str(data / COINBASE / name) for name in COINBASE_FILES)
    whole = recorded(Source((messages,), snapshot=image).open())
    ts = whole.events["ts_event"]
    told = _told(whole)
    middle = (int(told[0]) + int(told[-1])) // 2
    return replace(whole, events=whole.events[ts < middle])


def injected(half: Recorded, seeds: Sequence[int]) -> list[tuple[Recorded, Sequence[Episode]]]:
    """The recording with an episode of each kind, once for every seed."""
    told = _told(half)
    seconds = int(told[-1] - told[0]) / 1e9
    (index,) = half.known
    out: list[tuple[Recorded, Sequence[Episode]]] = []
    for seed in seeds:
        plans = random_plans(seed, seconds, 1, 5.0, instrument=index, first_s=40.0)
        events, episodes = inject(half.events, plans, seed, resync_s=1.0)
        out.append((replace(half, events=events), episodes))
    return out


def _told(held: Recorded) -> NDArray[np.int64]:
    """Times of the events that are not part of a book image."""
    told: NDArray[np.int64] = held.events["ts_event"][(held.events["flags"] & int(Flag.SNAPSHOT)) == 0]
    return told
