"""Float to integer: rows stay in range, the grid forward is the integer arithmetic, the gap is measured right."""

from __future__ import annotations

import numpy as np
import pytest

from microrisk.errors import WeightFileError
from microrisk.model.floatnet import FloatNetwork
from microrisk.model.quantise import (
    area_under_curve,
    choose_scales,
    equalise,
    order_kept,
    quantisation_gap,
    quantise,
    quantise_layer,
    spearman,
)
from microrisk.model.synthetic import extreme_codes, market_like_codes, random_weights
from microrisk.spec.features import ALL_MASK
from microrisk.spec.weightfile import HEADS, LAYERS
from microrisk.weights import Weights, row_bound


def random_network(seed, spread=1.0):
    """Untrained, He-scaled, with biases."""
    rng = np.random.default_rng(seed)
    weight = {n: spread * rng.normal(0, np.sqrt(1 / v[1]), v[:2]) for n, v in LAYERS.items()}
    bias = {n: rng.normal(0, 0.3, v[0]) for n, v in LAYERS.items()}
    return FloatNetwork(weight, bias, rng.integers(2, 7, 32).astype(np.uint8))


def integers(net, codes):
    return Weights({**random_weights(0).tensors, **quantise(net, choose_scales(net, codes))})


def equalised(seed, codes, spread=1.0):
    """A random network that fits its scales."""
    net = random_network(seed, spread)
    return equalise(net, np.random.default_rng(seed).uniform(-6, 1, 32), codes)


def test_equalised_is_the_same_network():
    net, codes = random_network(6), market_like_codes(3000, 6)
    log2_variance = np.random.default_rng(6).uniform(-6, 1, 32)
    same = equalise(net, log2_variance, codes)
    x = codes / 16
    assert np.allclose(same.chain(x, "exposure"), net.chain(x, "exposure"))
    assert np.allclose(same.chain(x, "vae.enc", "vae.dec"), net.chain(x, "vae.enc", "vae.dec"))
    ratio = same.chain(x, "vae.enc") / net.chain(x, "vae.enc")
    assert np.allclose(ratio, ratio[0, 0]), "latents share one factor"
    for name, y in same.activations(x).items():
        if LAYERS[name][2] == "relu":
            reach, largest = y.max(axis=0), np.abs(same.weight[name]).max(axis=1)
            full = np.isclose(reach, 0.98 * 127 / 16)
            assert (full | (reach == 0) | np.isclose(largest, 63.5)).all()
            assert full.sum() > len(full) / 2


def test_nearly_dead_units_do_not_blow_up_the_weights():
    net, codes = random_network(8), market_like_codes(2000, 8)
    net.weight["vae.dec.0"][3] *= 1e-4
    net.bias["vae.dec.0"][3] = 1e-5
    net.weight["exposure.0"][5], net.bias["exposure.0"][5] = 0.0, -1.0
    same = equalise(net, np.zeros(32), codes)
    integers(same, codes).validate()
    assert np.allclose(same.chain(codes / 16, "exposure"), net.chain(codes / 16, "exposure"))


def test_weight_of_latents_against_residuals_survives():
    """Residual exponents move with the latents' factor: variance and latents keep their ratio to half an exponent."""
    net, codes = random_network(7), market_like_codes(3000, 7)
    log2_variance = np.full(32, -1.0)
    same = equalise(net, log2_variance, codes)
    gain = (same.chain(codes / 16, "vae.enc") / net.chain(codes / 16, "vae.enc"))[0, 0]
    assert abs(int(same.residual_exp[0]) - (2 + 1.0 + 2 * np.log2(gain))) <= 0.5


@pytest.mark.parametrize("spread", [0.01, 1.0, 2.0])
def test_quantised_rows_are_valid_and_use_their_range(spread):
    codes = market_like_codes(3000, 1)
    weights = integers(equalised(1, codes, spread), codes)
    weights.validate()
    largest = np.abs(weights.tensors["maha.0.weight"].astype(int)).max(axis=1)
    assert ((largest >= 64) | (weights.tensors["maha.0.shift"] == 15)).all(), "a row wastes a bit"


def test_heads_follow_the_float_network():
    codes = market_like_codes(5000, 2)
    net = equalised(2, codes)
    before, after = net.float_scores(codes), integers(net, codes).compute(codes)
    assert (before[:, HEADS.index("maxz")] == after[:, HEADS.index("maxz")]).all()
    vae = HEADS.index("vae")
    assert np.median(np.abs(after[:, vae] / before[:, vae] - 1)) < 0.02, "same unit, same size"
    for h in range(1, 4):
        assert spearman(before[:, h], after[:, h]) > 0.98


def test_a_layer_by_hand():
    t = quantise_layer(np.array([[1.0, -0.5]]), np.array([0.25]), 4, 4, "x")
    assert t["x.weight"].tolist() == [[64, -32]]
    assert t["x.shift"].tolist() == [6]
    assert t["x.bias"].tolist() == [0.25 * 64 * 16]


def test_a_row_too_large_is_refused_by_name():
    net = random_network(3)
    scales = choose_scales(net, market_like_codes(2000, 3))
    net.weight["vae.enc.1"][7, 3] = 4000.0
    with pytest.raises(WeightFileError, match=r"vae\.enc\.1: row 7 has weights up to 4e\+03"):
        quantise(net, scales)


def test_a_network_that_is_no_number_is_refused():
    net = random_network(3)
    net.bias["exposure.1"][0] = np.nan
    with pytest.raises(WeightFileError, match=r"exposure\.1: a float weight is not finite"):
        net.validate()


def test_huge_bias_stays_below_the_bound():
    for size in (1.0, 1e3, 1e5):
        t = quantise_layer(np.full((2, 32), 0.5), np.array([size, -size]), 4, None, "x")
        assert (row_bound(t["x.weight"], t["x.bias"], t["x.shift"]) < 1 << 23).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_grid_forward_is_the_integer_arithmetic(seed):
    """What fine-tuning runs equals Weights.compute to the bit, saturated rows included."""
    torch = pytest.importorskip("torch")
    from microrisk.model.network import TRAINED, Network, unit_codes

    network = Network(seed)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for n in TRAINED:
            network.dense[n].weight.mul_(2.0)
            network.dense[n].bias.copy_(torch.tensor(rng.normal(0, 0.5, LAYERS[n][0])))
    net = network.to_float_network((np.eye(32), np.zeros(32)))
    codes = np.concatenate([extreme_codes(), market_like_codes(2000, seed)])
    scales = choose_scales(net, market_like_codes(2000, seed))
    weights = Weights({**random_weights(0).tensors, **quantise(net, scales)})
    with torch.no_grad():
        x = unit_codes(codes)
        mu = network.run("vae.enc", x, scales)
        back = network.run("vae.dec", mu, scales)
        logit = network.run("exposure", x, scales)[:, 0]
    assert (back.numpy() * 16 == weights.reconstruct(codes)).all()
    unit = logit.double().numpy() / weights.compute(codes)[:, HEADS.index("exposure")].clip(1)
    exposure = weights.compute(codes)[:, HEADS.index("exposure")]
    step = np.median(unit[exposure > 0])
    assert np.log2(step) == round(np.log2(step))
    assert (logit.double().numpy() == exposure * step).all()
    exponents = torch.from_numpy(net.residual_exp.astype(np.float32))
    with torch.no_grad():
        # float64: a score beyond 2**24 is no float32, while layers are exact in either
        score = network.double().vae_score(x[:200].double(), torch.ones(200, 32), exponents, scales)
    assert (score.double().numpy() == weights.compute(codes[:200])[:, HEADS.index("vae")]).all()
    assert sum(weights.saturations(codes).values()) > 0, "the case must contain saturation"


def test_float_file_round_trip(tmp_path):
    net, codes = random_network(4), market_like_codes(500, 4)
    net.save(tmp_path)
    back = FloatNetwork.load(tmp_path)
    assert np.allclose(back.float_scores(codes), net.float_scores(codes), rtol=1e-4)
    first = (tmp_path / "float.safetensors").read_bytes()
    back.save(tmp_path)
    assert (tmp_path / "float.safetensors").read_bytes() == first
    (tmp_path / "float.safetensors").write_bytes(b"")
    with pytest.raises(WeightFileError, match=r"float\.safetensors: no readable float network"):
        FloatNetwork.load(tmp_path)


def test_spearman_and_area_against_definitions():
    rng = np.random.default_rng(1)
    a = rng.integers(0, 20, 300).astype(float)
    b = a + rng.integers(0, 9, 300)

    def ranks(x):
        return np.array([(x < v).sum() + ((x == v).sum() + 1) / 2 for v in x])

    assert spearman(a, b) == pytest.approx(np.corrcoef(ranks(a), ranks(b))[0, 1], abs=1e-12)
    assert spearman(a, -a) == pytest.approx(-1.0)
    wins = np.mean([(p > q) + 0.5 * (p == q) for p in b for q in a])
    assert area_under_curve(b, a) == pytest.approx(wins)


def test_order_kept_sees_a_broken_tail():
    """Overall rank correlation hides a shuffled top; the tail figures must not."""
    rng = np.random.default_rng(2)
    before = rng.permutation(20_000).astype(float)
    after = before.astype(np.int32)
    assert order_kept(before, after) == pytest.approx((1.0, 1.0, 1.0))
    top = before >= 19_000
    after[top] = rng.permutation(after[top])
    overall, tail, overlap = order_kept(before, after)
    assert overall > 0.999
    assert tail < 0.2
    assert overlap < 0.4


def test_gap_intervals_hold_their_value_and_masks_count():
    codes = market_like_codes(4000, 5)
    net = equalised(5, codes)
    weights = integers(net, codes)
    gap = quantisation_gap(net, weights, codes, draws=40)
    assert set(gap) == {"vae", "exposure"}
    for g in gap.values():
        for e in (g.spearman, g.tail_spearman, g.overlap):
            assert e.low <= e.value + 0.01
            assert e.value - 0.01 <= e.high
    same = quantisation_gap(net, weights, codes, draws=40)
    assert same == gap, "the bootstrap is seeded"
    half = quantisation_gap(net, weights, codes, mask=ALL_MASK >> 16, draws=2)
    assert half["vae"].spearman.value != gap["vae"].spearman.value
