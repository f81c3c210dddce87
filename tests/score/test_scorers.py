"""Every back end that runs here gives the reference's integers, extremes included."""

from __future__ import annotations

from operator import attrgetter

import numpy as np
import pytest

from microrisk.errors import WeightFileError
from microrisk.model.synthetic import extreme_codes, market_like_codes, random_codes, random_weights
from microrisk.score.cpu_scorer import CpuScorer
from microrisk.score.reference_scorer import ReferenceScorer
from microrisk.score.torch_scorer import CudaScorer, TorchScorer
from microrisk.spec.features import ALL_MASK

L2_MASK = 0x3FF8_3FFF


def torch_cpu():
    return TorchScorer("cpu")


FAST = [CpuScorer, torch_cpu]


@pytest.fixture(params=FAST, ids=["cpu", "torch-cpu"])
def fast(request):
    scorer = request.param()
    reason = scorer.unavailable()
    if reason:
        pytest.skip(f"{scorer.name}: {reason}")
    return scorer


def same(scorer, weights, mask, codes):
    scorer.load(weights, mask)
    found, expected = scorer.score(codes), weights.compute(codes, mask)
    assert found.dtype == np.int32
    bad = np.flatnonzero((found != expected).any(axis=1))
    assert not len(bad), f"row {bad[0]}: {codes[bad[0]].tolist()} gives {found[bad[0]]}, reference {expected[bad[0]]}"


@pytest.mark.parametrize("at_bound", [False, True], ids=["ordinary", "at-bound"])
@pytest.mark.parametrize("mask", [ALL_MASK, L2_MASK, 1, 0])
def test_extremes_and_random(fast, at_bound, mask):
    for seed in range(3):
        codes = np.concatenate([extreme_codes(), random_codes(2000, seed), market_like_codes(500, seed)])
        same(fast, random_weights(seed, at_bound=at_bound), mask, codes)


@pytest.mark.parametrize("at_bound", [False, True], ids=["ordinary", "at-bound"])
def test_hundred_thousand(fast, at_bound):
    same(fast, random_weights(7, at_bound=at_bound), ALL_MASK, random_codes(100_000, 7))


@pytest.mark.slow
def test_million(fast):
    for seed in (11, 12):
        same(fast, random_weights(seed, at_bound=seed == 12), ALL_MASK, random_codes(500_000, seed))


@pytest.fixture
def cuda():
    scorer = CudaScorer()
    reason = scorer.unavailable()
    if reason:
        pytest.skip(f"cuda: {reason}")
    return scorer


@pytest.mark.gpu
@pytest.mark.parametrize("at_bound", [False, True], ids=["ordinary", "at-bound"])
@pytest.mark.parametrize("mask", [ALL_MASK, L2_MASK, 0])
def test_cuda(cuda, at_bound, mask):
    codes = np.concatenate([extreme_codes(), random_codes(300_000, 1)])
    same(cuda, random_weights(1, at_bound=at_bound), mask, codes)


@pytest.mark.gpu
def test_cuda_million_and_more_than_a_chunk(cuda):
    same(cuda, random_weights(12, at_bound=True), ALL_MASK, random_codes((1 << 20) + 5, 12))


@pytest.mark.gpu
def test_cuda_rows_do_not_see_each_other(cuda):
    weights, codes = random_weights(2), random_codes(77, 3)
    cuda.load(weights)
    single = np.concatenate([cuda.score(codes[i : i + 1]) for i in range(len(codes))])
    assert (single == weights.compute(codes)).all()
    assert cuda.score(codes[:0]).shape == (0, 4)


def test_all_codes_of_one_feature(fast):
    """Every value of an int8 through every head."""
    codes = np.zeros((256, 32), np.int8)
    codes[:, 5] = np.arange(-128, 128)
    same(fast, random_weights(5), ALL_MASK, codes)


def test_rows_do_not_see_each_other(fast):
    weights, codes = random_weights(2), random_codes(77, 3)
    fast.load(weights)
    whole = fast.score(codes)
    single = np.concatenate([fast.score(codes[i : i + 1]) for i in range(len(codes))])
    assert (whole == single).all()
    assert (fast.score(codes[::-1]) == whole[::-1]).all(), "a view with a negative stride"
    assert fast.score(codes[:0]).shape == (0, 4)


def test_load_replaces(fast):
    one, two, codes = random_weights(1), random_weights(2), random_codes(50, 1)
    fast.load(one)
    fast.load(two)
    assert (fast.score(codes) == two.compute(codes)).all()
    assert (fast.score(codes) != one.compute(codes)).any()


@pytest.mark.parametrize("make", [ReferenceScorer, CpuScorer, torch_cpu])
def test_score_before_load(make):
    with pytest.raises(RuntimeError, match="before load"):
        make().score(random_codes(1, 0))


@pytest.mark.parametrize("make", [ReferenceScorer, CpuScorer, torch_cpu])
def test_refused_weights_are_not_loaded(make):
    scorer = make()
    if scorer.unavailable():
        pytest.skip(scorer.unavailable())
    broken = random_weights(1)
    broken.tensors["maha.0.shift"] = np.full(32, 16, np.uint8)
    with pytest.raises(WeightFileError, match=r"maha\.0\.shift"):
        scorer.load(broken)


def test_torch_restores_precision():
    torch = pytest.importorskip("torch")
    torch.set_float32_matmul_precision("medium")
    try:
        scorer = torch_cpu()
        same(scorer, random_weights(3, at_bound=True), ALL_MASK, random_codes(100, 1))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("name", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(
    ("place", "less"), [("backends", "tf32"), ("backends.cuda.matmul", "tf32"), ("backends.mkldnn.matmul", "bf16")]
)
def test_torch_restores_precision_set_by_place(name, place, less):
    """The settings of torch 2.9 and later, which refuse to be asked through the old one."""
    torch = pytest.importorskip("torch")
    scorer = TorchScorer(name)
    if scorer.unavailable() or not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip(scorer.unavailable() or f"torch {torch.__version__} has the old setting only")
    home = attrgetter(place)(torch)
    before = home.fp32_precision
    home.fp32_precision = less
    try:
        same(scorer, random_weights(3, at_bound=True), ALL_MASK, random_codes(100, 1))
        assert home.fp32_precision == less
    finally:
        home.fp32_precision = before
