"""C++ heads equal the arithmetic of microrisk.fixed, vector and plain form, extremes included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from microrisk import fixed
from microrisk.core import Heads
from microrisk.errors import WeightFileError
from microrisk.spec.weightfile import LAYERS

Tensors = dict[str, NDArray[Any]]
N = 32


def tensors(rng: np.random.Generator, *, scale: int = 60, shift: tuple[int, int] = (4, 9), bias: int = 3000) -> Tensors:
    """Random layers; every row stays inside the accumulator for |w| <= 127."""
    out: Tensors = {}
    for name, (rows, cols, _) in LAYERS.items():
        out[f"{name}.weight"] = rng.integers(-scale, scale + 1, (rows, cols)).astype(np.int8)
        out[f"{name}.bias"] = rng.integers(-bias, bias + 1, rows).astype(np.int32)
        out[f"{name}.shift"] = rng.integers(shift[0], shift[1] + 1, rows).astype(np.uint8)
    out["vae.residual_exp"] = rng.integers(0, 10, N).astype(np.uint8)
    out["vae.latent_exp"] = rng.integers(0, 10, 1).astype(np.uint8)
    return out


def reference(t: Tensors, codes: NDArray[np.int8], mask: int = 0xFFFFFFFF) -> NDArray[np.int64]:
    """The heads, spelled out with microrisk.fixed."""

    def layer(name: str, x: Any) -> Any:
        relu = LAYERS[name][2] == "relu"
        return fixed.dense(x, t[f"{name}.weight"], t[f"{name}.bias"], t[f"{name}.shift"], relu=relu)

    x = codes.astype(np.int64)
    latent = layer("vae.enc.2", layer("vae.enc.1", layer("vae.enc.0", x)))
    recon = layer("vae.dec.2", layer("vae.dec.1", layer("vae.dec.0", latent)))
    keep = np.array([mask >> f & 1 for f in range(N)])
    vae = fixed.sum_squares((x - recon) * keep, t["vae.residual_exp"])
    vae = vae + (fixed.sum_squares(latent) << int(t["vae.latent_exp"][0]))
    hidden = layer("exposure.1", layer("exposure.0", x))
    exposure = fixed.accumulate(hidden, t["exposure.2.weight"], t["exposure.2.bias"])[:, 0]
    return np.stack([np.abs(x).max(axis=1), fixed.sum_squares(layer("maha.0", x)), vae, exposure], axis=1)


def codes_of(rng: np.random.Generator, n: int = 400) -> NDArray[np.int8]:
    """Random codes, and rows of extremes."""
    out = rng.integers(-128, 128, (n, N)).astype(np.int8)
    out[0], out[1], out[2] = -128, 127, 0
    out[3, ::2], out[3, 1::2] = -128, 127
    out[4:20] = np.where(rng.random((16, N)) < 0.5, -128, 127)
    return out


@pytest.mark.parametrize("vectors", [False, True])
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"scale": 127, "shift": (0, 0), "bias": 0},  # everything saturates
        {"scale": 127, "shift": (15, 15), "bias": 8_000_000},  # only the bias is left
        {"scale": 8, "shift": (0, 3)},
    ],
)
def test_heads_equal_the_definition(vectors: bool, seed: int, kind: dict[str, Any]) -> None:
    rng = np.random.default_rng(seed)
    t, codes = tensors(rng, **kind), codes_of(rng)
    if kind.get("bias", 0) > 4000:  # leave room for the products
        for name in LAYERS:
            room = 2**23 - 2**14 - 1 - 128 * np.abs(t[f"{name}.weight"].astype(np.int64)).sum(axis=1)
            t[f"{name}.bias"] = np.clip(t[f"{name}.bias"], -room, room).astype(np.int32)
    heads = Heads(t)
    heads.vectorised = vectors
    if vectors and not heads.vectorised:
        pytest.skip("this CPU has no AVX2")
    got = heads.score(codes)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, reference(t, codes))


@pytest.mark.parametrize("mask", [0, 1, 0x80000000, 0x0F0F1234])
def test_masked_features_leave_no_residual(mask: int) -> None:
    rng = np.random.default_rng(3)
    t, codes = tensors(rng), codes_of(rng)
    np.testing.assert_array_equal(Heads(t, mask).score(codes), reference(t, codes, mask))
    assert (Heads(t, 0).score(codes)[:, 2] != Heads(t).score(codes)[:, 2]).any()


def test_worst_residuals_do_not_overflow() -> None:
    t = tensors(np.random.default_rng(0))
    for name in LAYERS:
        t[f"{name}.weight"][:] = 0
        t[f"{name}.bias"][:] = 127
        t[f"{name}.shift"][:] = 0
    t["vae.residual_exp"][:] = 9
    t["vae.latent_exp"][:] = 9
    codes = np.full((1, N), -128, np.int8)
    assert Heads(t).score(codes)[0, 2] == 32 * (255 * 255 << 9) + 6 * (127 * 127 << 9)
    np.testing.assert_array_equal(Heads(t).score(codes), reference(t, codes))


@pytest.mark.parametrize("layer", list(LAYERS))
def test_row_that_could_leave_the_accumulator_is_refused(layer: str) -> None:
    t = tensors(np.random.default_rng(1))
    row = t[f"{layer}.weight"].shape[0] - 1
    used = 128 * int(np.abs(t[f"{layer}.weight"][row].astype(int)).sum()) + (1 << int(t[f"{layer}.shift"][row])) // 2
    t[f"{layer}.bias"][row] = 2**23 - 1 - used
    Heads(t)
    t[f"{layer}.bias"][row] += 1
    with pytest.raises(WeightFileError, match=f"{layer} row {row}: worst case 8388608"):
        Heads(t)


def test_wrong_tensors_are_named() -> None:
    good = tensors(np.random.default_rng(1))
    with pytest.raises(WeightFileError, match=r"tensor maha.0.bias is missing"):
        Heads({k: v for k, v in good.items() if k != "maha.0.bias"})
    with pytest.raises(WeightFileError, match=r"tensor maha.0.bias must be int32 of shape \(32\)"):
        Heads(good | {"maha.0.bias": np.zeros(31, np.int32)})
    with pytest.raises(WeightFileError, match=r"tensor vae.enc.0.weight must be int8"):
        Heads(good | {"vae.enc.0.weight": good["vae.enc.0.weight"].astype(np.int16)})
    with pytest.raises(WeightFileError, match="shift 16"):
        Heads(good | {"maha.0.shift": np.full(32, 16, np.uint8)})
    with pytest.raises(WeightFileError, match="residual_exp"):
        Heads(good | {"vae.residual_exp": np.full(32, 10, np.uint8)})
    with pytest.raises(WeightFileError, match="32 bits"):
        Heads(good | {"vae.latent_exp": np.full(1, 15, np.uint8)})


def test_batch_shapes() -> None:
    heads = Heads(tensors(np.random.default_rng(2)))
    assert heads.score(np.zeros((0, N), np.int8)).shape == (0, 4)
    strided = np.random.default_rng(5).integers(-128, 128, (10, 2 * N)).astype(np.int8)[:, ::2]
    np.testing.assert_array_equal(heads.score(strided), heads.score(np.ascontiguousarray(strided)))
    with pytest.raises(ValueError, match=r"\(n, 32\)"):
        heads.score(np.zeros((4, 31), np.int8))
    with pytest.raises(ValueError, match="int8"):
        heads.score(np.zeros((4, N), np.int16))
