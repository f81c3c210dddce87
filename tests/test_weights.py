"""Model folders: what is written is read, and what could overflow or was made for another format is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from microrisk.errors import ModelNotFound, SpecMismatch, WeightFileError
from microrisk.model.synthetic import extreme_codes, random_codes, random_level, random_weights
from microrisk.spec.features import ALL_MASK
from microrisk.spec.weightfile import LAYERS
from microrisk.weights import CARD_FILE, FORMAT_HASH, MODEL_FILE, Weights, row_bound, vae_bound


@pytest.fixture
def weights():
    return random_weights(1)


def changed(weights, name, **at):
    """A copy with one element of a tensor set: changed(w, "x", index=(0, 1), value=3)."""
    t = weights.tensors[name].copy()
    t[at["index"]] = at["value"]
    return Weights({**weights.tensors, name: t}, weights.card)


def test_round_trip_and_equal_bytes(weights, tmp_path):
    rich = weights.with_card(name="trial", data={"a.itch": "ff"}, metrics={"x": 1.5})
    one, two = rich.save(tmp_path / "one"), Weights.load(tmp_path / "one").save(tmp_path / "two")
    for file in sorted(p.name for p in one.iterdir()):
        assert (one / file).read_bytes() == (two / file).read_bytes(), file
    back = Weights.load(two)
    assert back.tensors.keys() == weights.tensors.keys()
    assert all((back.tensors[k] == v).all() and back.tensors[k].dtype == v.dtype for k, v in weights.tensors.items())
    assert "trial" in (two / "README.md").read_text()


def test_no_pickle_in_folder(weights, tmp_path):
    folder = weights.save(tmp_path / "m")
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "card.json", "model.safetensors"]


def test_not_a_model_folder(tmp_path):
    with pytest.raises(ModelNotFound, match=r"model\.safetensors is not there"):
        Weights.load(tmp_path)


def test_other_format_hash_in_the_card(weights, tmp_path):
    folder = weights.save(tmp_path / "m")
    card = json.loads((folder / CARD_FILE).read_text())
    (folder / CARD_FILE).write_text(json.dumps({**card, "format_hash": "0123456789abcdef"}))
    with pytest.raises(
        SpecMismatch, match=rf"format 0123456789abcdef, this program reads {FORMAT_HASH}; train .* again"
    ):
        Weights.load(folder)


def test_other_format_hash_in_the_tensors(weights, tmp_path):
    folder = weights.save(tmp_path / "m")
    tensors = load_file(folder / MODEL_FILE)
    save_file(tensors, folder / MODEL_FILE, metadata={"format_hash": "feed"})
    with pytest.raises(SpecMismatch, match="format feed"):
        Weights.load(folder)
    save_file(tensors, folder / MODEL_FILE)
    with pytest.raises(SpecMismatch, match="format None"):
        Weights.load(folder)


def test_card_without_format_hash(weights, tmp_path):
    folder = weights.save(tmp_path / "m")
    (folder / CARD_FILE).write_text("{}")
    with pytest.raises(SpecMismatch):
        Weights.load(folder)


@pytest.mark.parametrize("text", ["", "[1]", "{", "\xff"])
def test_damaged_card(weights, tmp_path, text):
    folder = weights.save(tmp_path / "m")
    (folder / CARD_FILE).write_bytes(text.encode("latin1"))
    with pytest.raises(WeightFileError, match=r"card\.json"):
        Weights.load(folder)


@pytest.mark.parametrize("cut", [0, 7, 8, 200, -1])
def test_damaged_tensors(weights, tmp_path, cut):
    folder = weights.save(tmp_path / "m")
    data = (folder / MODEL_FILE).read_bytes()
    (folder / MODEL_FILE).write_bytes(data[:cut])
    with pytest.raises(WeightFileError, match="not a readable safetensors file"):
        Weights.load(folder)


@pytest.mark.parametrize("name", ["maha.0.bias", "vae.latent_exp", "table/generic.slope", "level/generic/ffffffff.on"])
def test_missing_tensor(weights, name):
    del weights.tensors[name]
    with pytest.raises(WeightFileError, match=rf"^{name}: tensor is missing$"):
        weights.validate()


def test_wrong_dtype_and_shape(weights):
    name = "vae.enc.1.weight"
    weights.tensors[name] = weights.tensors[name].astype(np.int16)
    with pytest.raises(WeightFileError, match=r"^vae\.enc\.1\.weight: dtype int16, must be int8$"):
        weights.validate()
    weights.tensors[name] = weights.tensors[name].astype(np.int8)[:, :-1]
    with pytest.raises(WeightFileError, match=r"^vae\.enc\.1\.weight: shape \[16, 23\], must be \[16, 24\]$"):
        weights.validate()


def test_stranger_tensor(weights):
    weights.tensors["vae.enc.7.weight"] = np.zeros(3, np.int8)
    with pytest.raises(WeightFileError, match=r"vae\.enc\.7\.weight: no tensor of this layout"):
        weights.validate()


def test_row_bound_is_sharp():
    weights = random_weights(3, at_bound=True)
    weights.validate()
    for name in LAYERS:
        w, b, s = weights.layer(name)
        assert (row_bound(w, b, s) == (1 << 23) - 1).all()
    name, row = "exposure.1", 5
    step = np.sign(weights.tensors[f"{name}.bias"][row])
    over = changed(weights, f"{name}.bias", index=row, value=weights.tensors[f"{name}.bias"][row] + step)
    with pytest.raises(WeightFileError, match=r"^exposure\.1: row 5 can reach 8388608 .*below 8388608$"):
        over.validate()


def test_shift_too_large(weights):
    with pytest.raises(WeightFileError, match=r"maha\.0\.shift: row 2 shifts by 16, at most 15"):
        changed(weights, "maha.0.shift", index=2, value=16).validate()


def test_exponents(weights):
    with pytest.raises(WeightFileError, match=r"vae\.residual_exp: feature 31 has exponent 10, at most 9"):
        changed(weights, "vae.residual_exp", index=31, value=10).validate()
    top = random_weights(1, at_bound=True)
    top.validate()
    assert vae_bound(np.full(32, 9), 13) < 1 << 31 <= vae_bound(np.full(32, 9), 14)
    for exponent in (14, 200):
        with pytest.raises(WeightFileError, match=rf"vae\.latent_exp: exponent {exponent} lets the vae head exceed"):
            changed(top, "vae.latent_exp", index=0, value=exponent).validate()


def test_tables(weights):
    t = "table/generic"
    flat = weights.tensors[f"{t}.breaks"][4, 9]
    with pytest.raises(WeightFileError, match=rf"{t}\.breaks: row 4 does not increase at point 10: {flat}, {flat}"):
        changed(weights, f"{t}.breaks", index=(4, 10), value=flat).validate()
    top = changed(weights, "level/generic/ffffffff.breaks", index=(2, -1), value=(1 << 31) - 1)
    steep = changed(top, "level/generic/ffffffff.slope", index=(2, 0), value=-(1 << 31))
    with pytest.raises(WeightFileError, match=r"level/generic/ffffffff\.slope: row 2 piece 0 has slope"):
        steep.validate()
    with pytest.raises(WeightFileError, match="head vae leaves at 99999, above its entry"):
        changed(weights, "level/generic/ffffffff.off", index=2, value=99_999).validate()


def test_own_table_and_generic(weights):
    own = weights.with_table("BTC-USD.COINBASE", weights.table_for(), tick=1_000_000, lot=10_000)
    own.validate()
    found = own.table_for("BTC-USD.COINBASE")
    assert (found.tick, found.lot, found.own) == (1_000_000, 10_000, True)
    other = own.table_for("ETH-USD.COINBASE")
    assert (other.tick, other.lot, other.own) == (0, 0, False)
    assert own.table_owners() == ["BTC-USD.COINBASE", "generic"]
    assert not weights.table_for("BTC-USD.COINBASE").own, "the original must not change"


def test_level_order_of_choice(weights):
    mask = 0x0000FFFF
    more = weights.with_level("generic", mask, random_level(8)).with_level("A.XNAS", ALL_MASK, random_level(9))
    more.validate()
    assert more.level_for("A.XNAS").calibrated
    assert more.level_for().calibrated
    borrowed = more.level_for("A.XNAS", mask)
    assert not borrowed.calibrated
    assert (borrowed.on == random_level(8).on).all()
    far = more.level_for("B.XNAS", 0x7)
    assert not far.calibrated
    assert (far.on == weights.level_for().on).all()


def test_part_of_an_own_level_is_refused(weights):
    more = weights.with_level("A.XNAS", 7, random_level(9))
    del more.tensors["level/A.XNAS/00000007.slope"]
    with pytest.raises(WeightFileError, match=r"level/A\.XNAS/00000007\.slope: tensor is missing"):
        more.validate()


def scalar_heads(weights, row, mask):
    """One row, in plain integers and loops."""

    def layer(name, x):
        w, b, s = (t.tolist() for t in weights.layer(name))
        acc = [sum(p * q for p, q in zip(x, r, strict=True)) + c for r, c in zip(w, b, strict=True)]
        act = LAYERS[name][2]
        if act == "acc":
            return acc
        y = [(a + (1 << (k - 1)) >> k) if k else a for a, k in zip(acc, s, strict=True)]
        return [min(max(v, 0 if act == "relu" else -128), 127) for v in y]

    x = [c if mask >> i & 1 else 0 for i, c in enumerate(row.tolist())]
    mu = layer("vae.enc.2", layer("vae.enc.1", layer("vae.enc.0", x)))
    back = layer("vae.dec.2", layer("vae.dec.1", layer("vae.dec.0", mu)))
    exps = weights.tensors["vae.residual_exp"].tolist()
    vae = sum((x[i] - back[i]) ** 2 << exps[i] for i in range(32) if mask >> i & 1)
    vae += sum(m * m for m in mu) << int(weights.tensors["vae.latent_exp"][0])
    exposure = layer("exposure.2", layer("exposure.1", layer("exposure.0", x)))[0]
    return [max(map(abs, x)), sum(v * v for v in layer("maha.0", x)), vae, exposure]


@pytest.mark.parametrize("at_bound", [False, True])
@pytest.mark.parametrize("mask", [ALL_MASK, 0x0F0F1234])
def test_compute_equals_loops(at_bound, mask):
    weights = random_weights(4, at_bound=at_bound)
    codes = np.concatenate([extreme_codes(), random_codes(200, 5)])
    assert weights.compute(codes, mask).tolist() == [scalar_heads(weights, r, mask) for r in codes]


def test_compute_refuses_other_codes(weights):
    for bad in (np.zeros((3, 32), np.int16), np.zeros((3, 31), np.int8), np.zeros(32, np.int8)):
        with pytest.raises(WeightFileError, match=r"codes must be int8\[n, 32\]"):
            weights.compute(bad)
    assert weights.compute(np.zeros((0, 32), np.int8)).shape == (0, 4)


def test_saturations_counts_what_compute_clips():
    weights = random_weights(6, at_bound=True)
    codes = random_codes(300, 1)
    w, b, s = (t.astype(np.int64) for t in weights.layer("maha.0"))
    exact = np.floor((codes.astype(np.int64) @ w.T + b) / 2.0**s + 0.5)
    expected = int(((exact > 127) | (exact < -128)).sum())
    assert weights.saturations(codes)["maha.0"] == expected > 0
    w, b, s = (t.astype(np.int64) for t in weights.layer("exposure.0"))
    exact = np.floor((codes.astype(np.int64) @ w.T + b) / 2.0**s + 0.5)
    assert weights.saturations(codes)["exposure.0"] == int((exact > 127).sum())
