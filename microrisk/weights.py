"""The only reader and writer of model folders: `model.safetensors` + `card.json` + `README.md`. No pickle anywhere.

The object that comes out of a folder is both things at once: `compute()` is the reference arithmetic of scoring, and
the tensors are the parameters that C++, CUDA and hardware load. What `validate()` lets through cannot overflow any of
them: accumulators stay below 2**23 (exact in float32), heads below 2**31, table products below 2**62.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from microrisk import fixed
from microrisk.errors import ModelNotFound, SpecMismatch, WeightFileError
from microrisk.spec import hashes
from microrisk.spec.features import ALL_MASK
from microrisk.spec.formats import ACC, CODE, FEATURE, HEAD, RESIDUAL_EXP_MAX, SHIFT_MAX, TABLE_POINTS
from microrisk.spec.records import N_FEATURES, N_HEADS
from microrisk.spec.weightfile import HEADS, LAYERS, TENSORS

FORMAT_HASH = hashes.format_hash()
"""Identity of feature order, number formats and layout that this code reads and writes."""
MODEL_FILE, CARD_FILE, README_FILE = "model.safetensors", "card.json", "README.md"
GENERIC = "generic"
"""Table and level of instruments that have none of their own."""
TABLE_PARTS = ("breaks", "value", "slope")
LEVEL_PARTS = (*TABLE_PARTS, "on", "off")

_CHUNK = 1 << 15
"""Rows that `compute` holds as int64 at once."""
_CODE_SPAN = CODE.high - CODE.low
_LEVEL_NAME = re.compile(r"level/(?P<owner>.+)/(?P<mask>[0-9a-f]{8})\.(?P<part>\w+)")
_TABLE_NAME = re.compile(r"table/(?P<owner>.+)\.(?P<part>\w+)")

Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class InstrumentTable:
    """Normaliser table that an instrument is to use.

    Attributes
    ----------
    breaks, value : int32[N_FEATURES, 64]
    slope : int32[N_FEATURES, 65]
    tick, lot : feature_tick and feature_lot in feed units; 0 = take them from the first events
    own : fitted on this instrument; False = the generic one (`table=generic`)
    """

    breaks: NDArray[np.int32]
    value: NDArray[np.int32]
    slope: NDArray[np.int32]
    tick: int
    lot: int
    own: bool


@dataclass(frozen=True)
class LevelTable:
    """Heads to level codes, and the thresholds of the alarm, for one instrument and feature mask.

    Attributes
    ----------
    breaks, value : int32[N_HEADS, 64]
    slope : int32[N_HEADS, 65]
    on, off : int32[N_HEADS], LEVEL codes at which a head enters and leaves alarm
    calibrated : measured on clean data of this very instrument and mask; False = borrowed (`level=uncalibrated`)
    """

    breaks: NDArray[np.int32]
    value: NDArray[np.int32]
    slope: NDArray[np.int32]
    on: NDArray[np.int32]
    off: NDArray[np.int32]
    calibrated: bool


def table_shapes(rows: int) -> dict[str, tuple[int, int]]:
    """Shapes of the three tensors of a table with `rows` rows."""
    return {"breaks": (rows, TABLE_POINTS), "value": (rows, TABLE_POINTS), "slope": (rows, TABLE_POINTS + 1)}


def layer_tensors(name: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Names, dtypes and shapes of the three tensors of a layer of spec.weightfile."""
    out, inp, _ = LAYERS[name]
    return {f"{name}.weight": ("|i1", (out, inp)), f"{name}.bias": ("<i4", (out,)), f"{name}.shift": ("|u1", (out,))}


def mask_vector(mask: int) -> NDArray[np.bool_]:
    """bool[N_FEATURES]: bit i of `mask` is feature i."""
    if not 0 <= mask <= ALL_MASK:
        raise WeightFileError(f"feature mask {mask:#x} does not fit {N_FEATURES} features")
    return ((mask >> np.arange(N_FEATURES)) & 1).astype(np.bool_)


class Weights:
    """A model: integer tensors named as in spec.weightfile, and the card that says where they come from.

    Parameters
    ----------
    tensors : every tensor of spec.weightfile; any number of `table/<ID>.*` and `level/<ID>/<mask>.*`
    card : JSON values; `format_hash` is filled in when absent

    Making the object checks nothing; `load` and `save` call `validate`.
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]], card: Mapping[str, Any] | None = None) -> None:
        self.tensors: Tensors = {k: np.ascontiguousarray(v) for k, v in sorted(tensors.items())}
        self.card: dict[str, Any] = {"format_hash": FORMAT_HASH, **(card or {})}

    # ---- files ----

    @classmethod
    def load(cls, folder: str | Path) -> Weights:
        """Read and check a model folder.

        Raises
        ------
        ModelNotFound : the folder or one of its two files is not there
        SpecMismatch : written under another format_hash
        WeightFileError : damaged, or refused by `validate`
        """
        path = Path(folder)
        for name in (MODEL_FILE, CARD_FILE):
            if not (path / name).is_file():
                raise ModelNotFound(f"{path} is no model folder: {name} is not there")
        card = _read_card(path / CARD_FILE)
        _check_hash(card, path / CARD_FILE)
        weights = cls(_read_tensors(path / MODEL_FILE), card)
        weights.validate()
        return weights

    def save(self, folder: str | Path) -> Path:
        """Check, then write the three files; the same model gives the same bytes. Returns the folder."""
        self.validate()
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        # one metadata key only: the library keeps metadata in a hash map, and two keys would come in any order
        (path / MODEL_FILE).write_bytes(save(self.tensors, metadata={"format_hash": FORMAT_HASH}))
        (path / CARD_FILE).write_text(json.dumps(self.card, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        (path / README_FILE).write_text(readme(self), encoding="utf-8")
        return path

    # ---- checks ----

    def validate(self) -> None:
        """Raise WeightFileError for the first tensor that must not be used, SpecMismatch for another format."""
        _check_hash(self.card, None)
        for name, (dtype, shape) in _required().items():
            _check_tensor(self.tensors, name, dtype, shape)
        for name in LAYERS:
            _check_layer(self.tensors, name)
        _check_vae(self.tensors)
        for name in self.tensors:
            _check_known(name)
        for owner in self.table_owners():
            _check_table(self.tensors, f"table/{owner}", N_FEATURES, FEATURE.low, FEATURE.high)
        for owner, mask in self.level_owners():
            _check_level(self.tensors, level_prefix(owner, mask))

    def saturations(self, codes: ArrayLike, mask: int = ALL_MASK) -> dict[str, int]:
        """How many outputs of each layer were held at an end of CODE on these rows: int a layer.

        Below zero a ReLU cuts anyway, so there only the upper end counts.
        """
        count = dict.fromkeys((n for n, v in LAYERS.items() if v[2] != "acc"), 0)
        for chunk in _chunks(_as_codes(codes, mask)):
            for name, x in self._layer_inputs(chunk):
                if name in count:
                    w, b, s = self.layer(name)
                    y = fixed.round_shift(fixed.accumulate(x, w, b), s)
                    low = (y < CODE.low) & (LAYERS[name][2] != "relu")
                    count[name] += int((low | (y > CODE.high)).sum())
        return count

    # ---- parts ----

    def layer(self, name: str) -> tuple[NDArray[np.int8], NDArray[np.int32], NDArray[np.uint8]]:
        """Weight int8[out, in], bias int32[out], shift uint8[out] of a layer."""
        t = self.tensors
        return t[f"{name}.weight"], t[f"{name}.bias"], t[f"{name}.shift"]

    def heads_tensors(self) -> Tensors:
        """The tensors that scoring needs, without tables: what `_core.Heads` and the hardware take."""
        return {k: v for k, v in self.tensors.items() if not k.startswith(("table/", "level/"))}

    def heads_hash(self) -> str:
        """Identity of what scores: 16 hexadecimal digits over `heads_tensors`, names and shapes included."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.heads_tensors().items()):
            digest.update(f"{name} {tensor.dtype.str} {tensor.shape}\n".encode() + tensor.tobytes())
        return digest.hexdigest()[:16]

    def table_owners(self) -> list[str]:
        """Instruments with a table of their own, and "generic"."""
        return sorted({m["owner"] for k in self.tensors if (m := _TABLE_NAME.fullmatch(k))})

    def level_owners(self) -> list[tuple[str, int]]:
        """(instrument or "generic", mask) of every level table."""
        found = (m for k in self.tensors if (m := _LEVEL_NAME.fullmatch(k)))
        return sorted({(m["owner"], int(m["mask"], 16)) for m in found})

    def table_for(self, instrument: str | None = None) -> InstrumentTable:
        """The instrument's own table with its tick and lot, else the generic one (own=False, tick and lot 0)."""
        own = instrument is not None and instrument != GENERIC and f"table/{instrument}.breaks" in self.tensors
        name = instrument if own else GENERIC
        meta = self.card.get("instruments", {}).get(name, {}) if own else {}
        breaks, value, slope = (self.tensors[f"table/{name}.{p}"] for p in TABLE_PARTS)
        return InstrumentTable(breaks, value, slope, int(meta.get("tick", 0)), int(meta.get("lot", 0)), own)

    def level_for(self, instrument: str | None = None, mask: int = ALL_MASK) -> LevelTable:
        """The instrument's level table for this mask, else a generic one: of this mask, else of all features.

        `calibrated` holds only for the instrument's own; asking for None or "generic" itself counts as its own.
        """
        have = set(self.level_owners())
        wanted = instrument or GENERIC
        for owner, m in ((wanted, mask), (GENERIC, mask), (GENERIC, ALL_MASK)):
            if (owner, m) in have:
                prefix = level_prefix(owner, m)
                breaks, value, slope, on, off = (self.tensors[f"{prefix}.{p}"] for p in LEVEL_PARTS)
                return LevelTable(breaks, value, slope, on, off, calibrated=(owner, m) == (wanted, mask))
        raise WeightFileError(f"no level table: {level_prefix(GENERIC, ALL_MASK)}.breaks is missing")

    def with_table(self, instrument: str, table: Any, *, tick: int, lot: int) -> Weights:
        """A copy in which `instrument` (or "generic") has this table.

        `table` has int32 breaks, value and slope; tick and lot are its feature_tick and feature_lot in feed units.
        """
        tensors = dict(self.tensors)
        for p in TABLE_PARTS:
            tensors[f"table/{instrument}.{p}"] = np.asarray(getattr(table, p), np.int32)
        known = {**self.card.get("instruments", {})}
        if instrument != GENERIC:
            known[instrument] = {"tick": int(tick), "lot": int(lot)}
        return Weights(tensors, {**self.card, "instruments": known})

    def with_level(self, instrument: str, mask: int, level: Any) -> Weights:
        """A copy in which `instrument` (or "generic") has this level table under `mask`."""
        tensors = dict(self.tensors)
        for p in LEVEL_PARTS:
            tensors[f"{level_prefix(instrument, mask)}.{p}"] = np.asarray(getattr(level, p), np.int32)
        return Weights(tensors, self.card)

    def with_card(self, **entries: Any) -> Weights:
        """A copy with these entries of the card replaced."""
        return Weights(self.tensors, {**self.card, **entries})

    # ---- the reference of scoring ----

    def compute(self, codes: ArrayLike, mask: int = ALL_MASK) -> NDArray[np.int32]:
        """Heads of code vectors, column order spec.weightfile.HEADS; every other back end equals this to the bit.

        Parameters
        ----------
        codes : int8[n, N_FEATURES]; features outside `mask` read as 0 whatever they hold
        mask : features that the feed carries; the others have no residual

        Returns
        -------
        int32[n, N_HEADS] : maxz in 1/16 sigma; maha in code squares; vae in weighted code squares; exposure accumulator
        """
        x = _as_codes(codes, mask)
        out = np.empty((len(x), N_HEADS), np.int32)
        done = 0
        for chunk in _chunks(x):
            out[done : done + len(chunk)] = self._heads(chunk, mask)
            done += len(chunk)
        return out

    def reconstruct(self, codes: ArrayLike, mask: int = ALL_MASK) -> NDArray[np.int64]:
        """What the vae makes of code vectors: int64[n, N_FEATURES] in CODE."""
        return self._chain(_as_codes(codes, mask), "vae.enc", "vae.dec")

    def exposure(self, codes: ArrayLike) -> NDArray[np.int64]:
        """The exposure head alone, of codes that are masked already: int64[n]."""
        return self._chain(np.asarray(codes, np.int64), "exposure")[:, 0]

    def _heads(self, x: fixed.Ints, mask: int) -> fixed.Ints:
        mu = self._chain(x, "vae.enc")
        residual = np.where(mask_vector(mask), x - self._chain(mu, "vae.dec"), 0)
        t = self.tensors
        vae = fixed.sum_squares(residual, t["vae.residual_exp"]) + fixed.sum_squares(mu, t["vae.latent_exp"])
        maha = fixed.sum_squares(self._chain(x, "maha"))
        exposure = self.exposure(x)
        return np.stack([np.abs(x).max(axis=1), maha, vae, exposure], axis=1)

    def _chain(self, x: fixed.Ints, *nets: str) -> fixed.Ints:
        """Run x[n, in] through the layers whose names begin with these nets, in order."""
        for name in (n for net in nets for n in LAYERS if n.rpartition(".")[0] == net):
            w, b, s = self.layer(name)
            act = LAYERS[name][2]
            x = fixed.accumulate(x, w, b) if act == "acc" else fixed.dense(x, w, b, s, relu=act == "relu")
        return x

    def _layer_inputs(self, x: fixed.Ints) -> Iterator[tuple[str, fixed.Ints]]:
        """(layer, its input) for every layer, on codes x."""
        for net in ("maha", "vae", "exposure"):
            y = x
            for name in (n for n in LAYERS if n.startswith(f"{net}.")):
                yield name, y
                w, b, s = self.layer(name)
                y = fixed.dense(y, w, b, s, relu=LAYERS[name][2] == "relu")


def level_prefix(owner: str, mask: int) -> str:
    """Name of a level table's tensors up to the last dot."""
    return f"level/{owner}/{mask:08x}"


def row_bound(weight: ArrayLike, bias: ArrayLike, shift: ArrayLike) -> fixed.Ints:
    """Largest magnitude that each row's accumulator and rounding term can reach: int64[out]; must be < 2**23."""
    w, s = np.abs(np.asarray(weight, np.int64)), np.asarray(shift, np.int64)
    half = np.where(s > 0, np.int64(1) << np.maximum(s - 1, 0), 0)
    return np.asarray(-CODE.low * w.sum(axis=1) + np.abs(np.asarray(bias, np.int64)) + half)


def vae_bound(residual_exp: ArrayLike, latent_exp: ArrayLike) -> int:
    """Largest value of the vae head; must fit HEAD."""
    latents = LAYERS["vae.enc.2"][0]
    residual = _CODE_SPAN**2 * int((np.int64(1) << np.asarray(residual_exp, np.int64)).sum())
    return residual + (latents * CODE.low**2 << int(np.asarray(latent_exp).reshape(-1)[0]))


def readme(weights: Weights) -> str:
    """README.md of a model folder: what it is, how it was made, what it measured."""
    card = weights.card
    lines = [f"# microrisk model {card.get('name', '')}".rstrip(), ""]
    lines += [str(card["description"]), ""] if card.get("description") else []
    lines += ["Integer weights (safetensors) of four heads: " + ", ".join(HEADS) + ".", ""]
    lines += [f"- format_hash: `{card['format_hash']}`"]
    lines += [f"- tables: {', '.join(weights.table_owners())}"]
    lines += [f"- levels: {', '.join(f'{o} ({m:08x})' for o, m in weights.level_owners())}"]
    for key in ("data", "metrics", "calibration"):
        if card.get(key):
            lines += ["", f"## {key.capitalize()}", "", "```json"]
            lines += [json.dumps(card[key], indent=2, sort_keys=True), "```"]
    return "\n".join(lines) + "\n"


def _as_codes(codes: ArrayLike, mask: int) -> fixed.Ints:
    x = np.asarray(codes)
    if x.ndim != 2 or x.shape[1] != N_FEATURES or x.dtype != np.int8:
        raise WeightFileError(f"codes must be int8[n, {N_FEATURES}], not {x.dtype}{list(x.shape)}")
    return np.where(mask_vector(mask), x, np.int8(0))  # still int8: widened chunk by chunk


def _chunks(x: NDArray[Any]) -> Iterator[fixed.Ints]:
    for i in range(0, len(x), _CHUNK):
        yield x[i : i + _CHUNK].astype(np.int64)


def _required() -> dict[str, tuple[str, tuple[int, ...]]]:
    found = {k: v for name in LAYERS for k, v in layer_tensors(name).items()}
    return {**found, **TENSORS}


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as e:
        raise WeightFileError(f"{path}: not a JSON card ({e})") from e
    if not isinstance(card, dict):
        raise WeightFileError(f"{path}: a card is a JSON object, not {type(card).__name__}")
    return card


def _read_tensors(path: Path) -> Tensors:
    try:
        with safe_open(str(path), framework="numpy") as f:
            inside = (f.metadata() or {}).get("format_hash")
            tensors = {k: np.ascontiguousarray(f.get_tensor(k)) for k in sorted(f.keys())}
    except (SafetensorError, OSError, TypeError, ValueError, KeyError) as e:
        raise WeightFileError(f"{path}: not a readable safetensors file ({e})") from e
    _check_hash({"format_hash": inside}, path)
    return tensors


def _check_hash(card: Mapping[str, Any], path: Path | None) -> None:
    found = card.get("format_hash")
    if found != FORMAT_HASH:
        raise SpecMismatch(
            f"{path or 'model'}: made for format {found}, this program reads {FORMAT_HASH}; train the model again "
            "with this version (microrisk train INPUT... --out MODEL), or install the version that wrote it"
        )


def _check_tensor(tensors: Tensors, name: str, dtype: str, shape: tuple[int, ...]) -> None:
    if name not in tensors:
        raise WeightFileError(f"{name}: tensor is missing")
    t = tensors[name]
    if t.dtype != np.dtype(dtype):
        raise WeightFileError(f"{name}: dtype {t.dtype}, must be {np.dtype(dtype)}")
    if t.shape != shape:
        raise WeightFileError(f"{name}: shape {list(t.shape)}, must be {list(shape)}")


def _check_known(name: str) -> None:
    table, lvl = _TABLE_NAME.fullmatch(name), _LEVEL_NAME.fullmatch(name)
    if name in _required() or (table and table["part"] in TABLE_PARTS) or (lvl and lvl["part"] in LEVEL_PARTS):
        return
    raise WeightFileError(f"{name}: no tensor of this layout has that name")


def _check_layer(tensors: Tensors, name: str) -> None:
    weight, bias, shift = (tensors[f"{name}.{p}"] for p in ("weight", "bias", "shift"))
    high = np.flatnonzero(shift > SHIFT_MAX)
    if len(high):
        raise WeightFileError(f"{name}.shift: row {high[0]} shifts by {shift[high[0]]}, at most {SHIFT_MAX}")
    bound, limit = row_bound(weight, bias, shift), -ACC.low
    over = np.flatnonzero(bound >= limit)
    if len(over):
        r = int(over[0])
        raise WeightFileError(
            f"{name}: row {r} can reach {bound[r]} (128 * sum|w| = {-CODE.low * np.abs(weight[r].astype(int)).sum()}, "
            f"bias {bias[r]}, shift {shift[r]}); accumulators must stay below {limit}"
        )


def _check_vae(tensors: Tensors) -> None:
    exps = tensors["vae.residual_exp"]
    high = np.flatnonzero(exps > RESIDUAL_EXP_MAX)
    if len(high):
        raise WeightFileError(
            f"vae.residual_exp: feature {high[0]} has exponent {exps[high[0]]}, at most {RESIDUAL_EXP_MAX}"
        )
    # the exponent is looked at first: a shift by 200 would not be a number to compare with
    if int(tensors["vae.latent_exp"][0]) >= HEAD.width or vae_bound(exps, tensors["vae.latent_exp"]) > HEAD.high:
        raise WeightFileError(
            f"vae.latent_exp: exponent {tensors['vae.latent_exp'][0]} lets the vae head exceed {HEAD.high}"
        )


def _check_table(tensors: Tensors, prefix: str, rows: int, low: int, high: int) -> None:
    """Shapes, strictly increasing breaks, and no product beyond 2**62 for inputs low..high."""
    for part, shape in table_shapes(rows).items():
        _check_tensor(tensors, f"{prefix}.{part}", "<i4", shape)
    breaks, value, slope = (tensors[f"{prefix}.{p}"].astype(np.int64) for p in TABLE_PARTS)
    bad = np.argwhere(np.diff(breaks, axis=1) <= 0)
    if len(bad):
        r, k = (int(i) for i in bad[0])
        raise WeightFileError(
            f"{prefix}.breaks: row {r} does not increase at point {k + 1}: {breaks[r, k]}, {breaks[r, k + 1]}"
        )
    ends = np.concatenate([np.minimum(breaks[:, :1], low), breaks, np.maximum(breaks[:, -1:], high)], axis=1)
    reach = np.abs(slope).astype(np.float64) * np.diff(ends, axis=1) + np.abs(value).max(axis=1, keepdims=True)
    over = np.argwhere(reach >= 2.0**62)
    if len(over):
        r, k = (int(i) for i in over[0])
        raise WeightFileError(f"{prefix}.slope: row {r} piece {k} has slope {slope[r, k]}, its product exceeds 2**62")


def _check_level(tensors: Tensors, prefix: str) -> None:
    _check_table(tensors, prefix, N_HEADS, HEAD.low, HEAD.high)
    for part in ("on", "off"):
        _check_tensor(tensors, f"{prefix}.{part}", "<i4", (N_HEADS,))
    on, off = tensors[f"{prefix}.on"], tensors[f"{prefix}.off"]
    bad = np.flatnonzero(off > on)
    if len(bad):
        h = int(bad[0])
        raise WeightFileError(f"{prefix}.off: head {HEADS[h]} leaves at {off[h]}, above its entry at {on[h]}")
