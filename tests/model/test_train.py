"""Training end to end on synthetic codes: it learns, it repeats, it quantises within its gates, it refuses."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from microrisk import fixed
from microrisk.errors import EvaluationError
from microrisk.model.build import build_model
from microrisk.model.calibrate import Session, calibrate
from microrisk.model.floatnet import FloatNetwork
from microrisk.model.quantise import GATES, area_under_curve, quantisation_gap
from microrisk.model.synthetic import market_like_codes, random_weights
from microrisk.model.train import Exposed, Partial, Settings, train
from microrisk.spec.features import ALL_MASK
from microrisk.spec.units import NS_PER_S
from microrisk.spec.weightfile import HEADS
from microrisk.weights import Weights

L2_MASK = 0x3FF8_3FFF
QUICK = Settings(seed=5, vae_steps=800, exposure_steps=300, tune_steps=100, batch=384, masks=(ALL_MASK, L2_MASK))
VAE, EXPOSURE = HEADS.index("vae"), HEADS.index("exposure")


def episodes(seed, rows=12_000):
    """Codes with two kinds of episode: a block of features pushed up, another pushed apart."""
    codes = market_like_codes(rows, seed).astype(np.int64)
    labels = np.zeros(rows, np.int64)
    rng = np.random.default_rng(seed)
    for kind, features in ((1, [3, 7, 11, 12]), (2, [20, 21, 28])):
        for start in rng.integers(0, rows - 300, 5):
            part = slice(start, start + 300)
            codes[part, features] += (
                rng.integers(16, 40, (300, len(features))) * (-1) ** (kind * np.arange(300))[:, None]
            )
            labels[part] = kind
    return Exposed(np.clip(codes, -128, 127).astype(np.int8), labels)


@pytest.fixture(scope="module")
def stages():
    return []


@pytest.fixture(scope="module")
def built(stages):
    card = {"name": "trial", "data": {"synthetic": "seed 1"}}
    table = random_weights(0).table_for()
    return build_model(
        market_like_codes(20_000, 1), episodes(2), table, QUICK, card=card, progress=lambda *at: stages.append(at)
    )


def test_gates_of_quantisation(built):
    gap = quantisation_gap(built.network, built.weights, market_like_codes(20_000, 77), draws=50)
    for head, g in gap.items():
        for name, gate in GATES.items():
            assert getattr(g, name).value >= gate, f"{head} {name}: {g}"


def test_exposure_learnt_the_kinds(built):
    fresh = episodes(9)
    score = built.weights.compute(fresh.codes)[:, EXPOSURE].astype(float)
    for kind in (1, 2):
        assert area_under_curve(score[fresh.labels == kind], score[fresh.labels == 0]) > 0.95


def test_vae_learnt_the_structure(built):
    """Rows whose features are shuffled among rows keep every margin; only the structure tells them apart."""
    rows = market_like_codes(5000, 55)
    rng = np.random.default_rng(1)
    shuffled = np.stack([rng.permutation(rows[:, f]) for f in range(32)], axis=1)
    before, after = (built.weights.compute(x)[:, VAE].astype(float) for x in (rows, shuffled))
    assert area_under_curve(after, before) > 0.75
    assert built.weights.card["metrics"]["vae"]["active_units"] >= 4


def test_folder_is_complete(built, tmp_path):
    folder = built.save(tmp_path / "m")
    back, net = Weights.load(folder), FloatNetwork.load(folder)
    codes = market_like_codes(3000, 3)
    assert (back.compute(codes) == built.weights.compute(codes)).all()
    assert quantisation_gap(net, back, codes, draws=2)["vae"].spearman.value > 0.99
    assert set(back.card) == {"format_hash", "name", "data", "metrics", "instruments"}
    assert set(back.card["metrics"]["quantisation"]) == {"vae", "exposure"}
    assert all(v < 10_000 for v in back.card["metrics"]["saturated_per_million"].values())
    assert not built.alarms


def test_uncalibrated_never_alarms_and_calibration_takes_its_place(built):
    level = built.weights.level_for()
    heads = built.weights.compute(market_like_codes(8000, 31), L2_MASK)
    for h in range(4):
        assert not fixed.level(heads[:, h], level.breaks[h], level.value[h], level.slope[h]).any()
    assert (level.on == (1 << 31) - 1).all()
    found = calibrate([Session(np.arange(8000) * NS_PER_S, heads)])
    own = built.weights.with_level("A.XNAS", L2_MASK, found.level)
    own.validate()
    assert own.level_for("A.XNAS", L2_MASK).calibrated
    assert not own.level_for("A.XNAS", ALL_MASK).calibrated


def test_progress_covers_every_stage(built, stages):
    assert list(dict.fromkeys(s for s, _ in stages)) == ["vae", "exposure", "fine-tune"]
    assert [share for _, share in stages].count(1.0) == 3


def test_same_seed_same_weights_and_no_episodes():
    short = Settings(seed=3, vae_steps=40, exposure_steps=10, tune_steps=10, batch=128)
    codes = market_like_codes(2000, 4)
    one, two = train(codes, settings=short), train(codes, settings=short)
    assert all((one.network.weight[n] == two.network.weight[n]).all() for n in one.network.weight)
    other = train(codes, settings=Settings(seed=4, vae_steps=40, exposure_steps=10, tune_steps=10, batch=128))
    assert (one.network.weight["vae.enc.0"] != other.network.weight["vae.enc.0"]).any()
    assert any("untaught" in a for a in one.alarms)
    assert not one.network.float_scores(codes)[:, EXPOSURE].any()


def test_collapse_raises_the_alarm():
    """Codes that only flicker by one step hold nothing worth a latent."""
    noise = np.random.default_rng(0).integers(-1, 2, (4000, 32)).astype(np.int8)
    found = train(noise, settings=Settings(vae_steps=600, exposure_steps=1, tune_steps=1, batch=256))
    assert found.metrics["vae"]["active_units"] < 3
    assert any("collapsed" in a for a in found.alarms)


def test_refusals():
    codes = market_like_codes(1500, 1)
    with pytest.raises(EvaluationError, match="at least 1000 clean rows, there are 999"):
        train(codes[:999])
    with pytest.raises(EvaluationError, match=r"clean codes must be int8\[n, 32\], not int16"):
        train(codes.astype(np.int16))
    with pytest.raises(EvaluationError, match="hold no episode"):
        train(codes, Exposed(codes, np.zeros(1500, np.int64)))
    with pytest.raises(EvaluationError, match="1500 exposed rows have 3 labels"):
        train(codes, Exposed(codes, np.ones(3, np.int64)))


def partial_rows(rows=3_000, seed=9):
    codes = market_like_codes(rows, seed)
    codes[:, np.arange(32)[[not L2_MASK >> i & 1 for i in range(32)]]] = 0
    return codes


def test_partial_rows_teach_nothing_about_what_they_lack():
    """With and without them one whitening; and what a row lacks costs it nothing in the vae."""
    lacked = np.array([not L2_MASK >> i & 1 for i in range(32)])
    clean = market_like_codes(6_000, 1)
    quick = Settings(seed=5, vae_steps=600, exposure_steps=1, tune_steps=1, batch=256, masks=(ALL_MASK,))
    apart = train(clean, None, quick, partial=Partial(partial_rows(), L2_MASK, 0.4)).network
    alone = train(clean, None, quick).network
    assert np.array_equal(apart.weight["maha.0"], alone.weight["maha.0"])
    shown = market_like_codes(2_000, 3)
    hidden = shown.copy()
    hidden[:, lacked] = 0
    masked = apart.float_scores(hidden, L2_MASK)[:, VAE]
    assert np.median(masked) < np.median(apart.float_scores(shown, ALL_MASK)[:, VAE])


@pytest.mark.parametrize(
    ("codes", "mask", "share", "match"),
    [
        (market_like_codes(100, 1), L2_MASK, 0.2, "outside their mask"),
        (np.zeros((0, 32), np.int8), L2_MASK, 0.2, "n > 0"),
        (np.zeros((5, 32), np.int8), L2_MASK, 1.0, "between 0 and 1"),
    ],
)
def test_partial_rows_are_checked(codes, mask, share, match):
    with pytest.raises(EvaluationError, match=match):
        train(market_like_codes(1_500, 1), None, QUICK, partial=Partial(codes, mask, share))
