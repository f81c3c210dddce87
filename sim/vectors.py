"""Codes that benches are driven with: corners, seeded random, directed at rare corners, and what markets really give.

Every set is int8[n, inputs] and the same for the same seed. Market codes come from the recordings in MICRORISK_DATA
where that is set, else from the simulator of microrisk.market, so that a machine without recordings still sees them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microrisk.spec.features import ALL_MASK
from microrisk.spec.formats import CODE
from microrisk.spec.records import N_FEATURES
from microrisk.weights import Weights
from sim import coverage
from sim.tools import BUILD

Codes = NDArray[np.int8]
RECORDINGS: dict[str, tuple[tuple[str, ...], str | None]] = {
    "coinbase": (("coinbase_l3_2018/messages.json.gz",), "coinbase_l3_2018/beginning_level_3.json.gz"),
    "lobster": (("lobster_amzn_aapl/LOBSTER_SampleFile_AMZN_2012-06-21_1.zip",), None),
    "es": (("databento_cme_es/esh4-glbx-mdp3-20231225.mbo.dbn.zst",), None),
    "binance": (tuple(f"binance_btc_2024/spot_btcusdt_202408{day}.gz" for day in ("08", "09")), None),
}
"""Recordings that every model is checked on: (files, book image)."""
SIMULATED = "simulated"
SIMULATED_SECONDS = 120


def corners(inputs: int = N_FEATURES) -> Codes:
    """Ends of the format: all low, all high, 0, +-1, alternating, one-hot with both signs and several sizes."""
    low, high = CODE.low, CODE.high
    even = np.arange(inputs) % 2 == 0
    rows = [np.full(inputs, v) for v in (low, high, 0, 1, -1, low + 1)]
    rows += [np.where(even, low, high), np.where(even, high, low), np.where(even, low, 0), np.where(even, 0, high)]
    unit = np.eye(inputs, dtype=np.int64)
    rows += [row * v for v in (1, -1, high, low) for row in unit]
    rows += [high - row * (high - low) for row in unit]
    return np.array(rows).astype(np.int8)


def uniform(n: int, seed: int, inputs: int = N_FEATURES) -> Codes:
    """Every code equally likely."""
    return np.random.default_rng([seed, 1]).integers(CODE.low, CODE.high + 1, (n, inputs)).astype(np.int8)


def small(n: int, seed: int, inputs: int = N_FEATURES) -> Codes:
    """Normal codes with a width of their own in each row: quiet and excited hours."""
    rng = np.random.default_rng([seed, 2])
    scale = np.exp2(rng.uniform(0, 6.5, (n, 1)))
    return np.clip(np.round(rng.normal(0, 1, (n, inputs)) * scale), CODE.low, CODE.high).astype(np.int8)


def extremes(n: int, seed: int, inputs: int = N_FEATURES) -> Codes:
    """Every code at one end or the other."""
    rng = np.random.default_rng([seed, 3])
    return np.where(rng.random((n, inputs)) < 0.5, CODE.low, CODE.high).astype(np.int8)


def mixture(n: int, seed: int, inputs: int = N_FEATURES, *, extra: Sequence[Codes] = ()) -> Codes:
    """Exactly n rows: corners, then `extra`, then uniform, small and extreme rows, in a seeded order."""
    fixed_rows = np.concatenate([corners(inputs), *extra])[:n]
    left = n - len(fixed_rows)
    parts = [make(left // 3 + 1, seed, inputs) for make in (uniform, small, extremes)]
    rows = np.concatenate([fixed_rows, np.concatenate(parts)[np.random.default_rng([seed, 4]).permutation(left)]])
    return np.ascontiguousarray(rows)


def for_core(
    weights: Weights, heads: Sequence[str], n: int, seed: int, mask: int = ALL_MASK, *, market: Codes | None = None
) -> Codes:
    """Exactly n rows for a core: corners, rows directed at every corner of every layer, market rows, seeded random."""
    extra = [directed(weights, heads, seed, mask)]
    if market is not None:
        extra.append(market)
    return mixture(n, seed, extra=extra)


# ---- directed at corners of the arithmetic ----

_POOL, _KEPT, _ROUNDS, _CHILDREN = 6000, 24, 30, 40


def directed(weights: Weights, heads: Sequence[str], seed: int, mask: int = ALL_MASK, *, each: int = 4) -> Codes:
    """Rows that meet the corners of sim.coverage in the layers of these heads, up to `each` a corner and layer.

    A corner that random rows do not meet is looked for by a seeded search: the rows that come nearest are changed in a
    few places, and the nearest of those kept, 30 times over.
    """
    rng = np.random.default_rng([seed, 5])
    pool = mixture(_POOL, seed)
    found: list[Codes] = []
    bounds = coverage.reach(weights, heads, mask)
    outputs = {o.name: o for o in coverage.walk(weights, pool, heads, mask)}
    for layer in outputs:
        for kind in coverage.KINDS:
            met = outputs[layer].meets(kind)
            if met is None or bounds[layer].excludes(kind):
                continue
            rows = pool[np.flatnonzero(met.any(axis=1))[:each]]
            if not len(rows):
                rows = _search(weights, heads, mask, layer, kind, pool, rng)[:each]
            found.append(rows)
    return np.concatenate(found) if found else np.empty((0, N_FEATURES), np.int8)


def _search(
    weights: Weights, heads: Sequence[str], mask: int, layer: str, kind: str, pool: Codes, rng: np.random.Generator
) -> Codes:
    """Rows that meet one corner, none if the search does not find any."""

    def look(rows: Codes) -> coverage.Outputs:
        return next(o for o in coverage.walk(weights, rows, heads, mask) if o.name == layer)

    rows = pool
    for _ in range(_ROUNDS):
        outputs = look(rows)
        met = outputs.meets(kind)
        assert met is not None
        if met.any():
            return rows[met.any(axis=1)]
        best = rows[np.argsort(_distance(outputs, kind), kind="stable")[:_KEPT]]
        rows = np.concatenate([best, _changed(best, rng)])
    return rows[:0]


def _distance(outputs: coverage.Outputs, kind: str) -> NDArray[np.int64]:
    """How far the nearest output of each row is from the corner."""
    goal = {"saturated_high": CODE.high + 1, "at_high": CODE.high, "saturated_low": CODE.low - 1, "at_low": CODE.low,
            "relu_cut": -1, "at_zero": 0}  # fmt: skip
    if kind == "tie":
        half = np.int64(1) << np.maximum(outputs.shift - 1, 0)
        away = np.abs((outputs.acc & ((np.int64(1) << outputs.shift) - 1)) - half)
        return np.asarray(np.where(outputs.shift > 0, away, 1 << 30).min(axis=1))
    return np.asarray(np.abs(outputs.rounded - goal[kind]).min(axis=1))


def _changed(rows: Codes, rng: np.random.Generator) -> Codes:
    """Copies of rows with one to four codes changed, by a little or to anything."""
    again = np.repeat(rows, _CHILDREN, axis=0).astype(np.int64)
    share = rng.random(again.shape)
    places = share <= np.sort(share, axis=1)[np.arange(len(again)), rng.integers(0, 4, len(again))][:, None]
    small_step = again + rng.integers(-9, 10, again.shape)
    anything = rng.integers(CODE.low, CODE.high + 1, again.shape)
    new = np.where(rng.random((len(again), 1)) < 0.5, small_step, anything)
    return np.clip(np.where(places, new, again), CODE.low, CODE.high).astype(np.int8)


# ---- what markets give ----


def market(weights: Weights, n: int, seed: int, *, sources: Sequence[str] | None = None) -> Codes:
    """About n consecutive rows in equal parts from every recording here, or from the simulator where there is none."""
    names = market_sources() if sources is None else list(sources)
    share = -(-n // len(names))
    parts = []
    for k, name in enumerate(names):
        codes = recorded_codes(weights, name)
        start = int(np.random.default_rng([seed, 6, k]).integers(0, max(len(codes) - share, 0) + 1))
        parts.append(codes[start : start + share])
    return np.concatenate(parts)[:n]


def market_sources() -> list[str]:
    """Names of RECORDINGS whose files are here; ["simulated"] where there are none."""
    folder = data_folder()
    if folder is None:
        return [SIMULATED]
    here = [n for n, (files, _) in RECORDINGS.items() if all((folder / f).is_file() for f in files)]
    return here or [SIMULATED]


def data_folder() -> Path | None:
    """MICRORISK_DATA, where it is a folder."""
    named = os.environ.get("MICRORISK_DATA")
    return Path(named) if named and Path(named).is_dir() else None


def recorded_codes(weights: Weights, name: str) -> Codes:
    """All codes of a recording by the model's generic table; kept under build/sim, for reading takes seconds."""
    make = _simulated if name == SIMULATED else _recording
    table = weights.table_for()
    digest = hashlib.sha256(repr((name, SIMULATED_SECONDS, RECORDINGS.get(name), str(data_folder()))).encode())
    for part in (table.breaks, table.value, table.slope):
        digest.update(np.ascontiguousarray(part).tobytes())
    return _kept(BUILD / "codes" / f"{name}-{digest.hexdigest()[:12]}.npy", lambda: make(weights, name))


def _kept(path: Path, make: Callable[[], Codes]) -> Codes:
    if not path.is_file():
        codes = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}.npy")
        np.save(scratch, codes)
        scratch.replace(path)
    loaded: Codes = np.load(path)
    return loaded


def _recording(weights: Weights, name: str) -> Codes:
    from microrisk.pipeline.spine import Source

    files, image = RECORDINGS[name]
    folder = data_folder()
    assert folder is not None
    snapshot = str(folder / image) if image else None
    return _coded(weights, Source(tuple(str(folder / f) for f in files), snapshot=snapshot).open())


def _simulated(weights: Weights, name: str) -> Codes:
    from microrisk.market import simulate
    from microrisk.pipeline.memory import simulated

    return _coded(weights, simulated(simulate(1, SIMULATED_SECONDS, episodes="random")).open())


def _coded(weights: Weights, feed: object) -> Codes:
    from microrisk.features.normalise import expand
    from microrisk.pipeline.gather import codes_of, gather
    from microrisk.pipeline.memory import recorded

    held = gather(recorded(feed))  # type: ignore[arg-type]
    table = expand(weights.table_for(), held.mask)
    return np.concatenate([codes_of(raw.raw, table) for raw in held.by_id.values()])
