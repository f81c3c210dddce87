"""The three features that drove a row, on rows where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from microrisk.model.synthetic import random_codes, random_weights
from microrisk.score.drivers import attribution, driver_names, drivers, leading_head
from microrisk.spec.features import ALL_MASK, FEATURES
from microrisk.spec.weightfile import HEADS


def test_maxz_is_the_largest_codes():
    codes = np.zeros((1, 32), np.int8)
    codes[0, [4, 9, 30]] = [50, -128, 49]
    found = drivers(random_weights(1), codes, HEADS.index("maxz"))
    assert found.tolist() == [[9, 4, 30]]
    assert driver_names(found) == [[FEATURES[i].name for i in (9, 4, 30)]]


def test_maha_of_an_identity_is_the_largest_codes():
    weights = random_weights(1)
    weights.tensors["maha.0.weight"] = np.eye(32, dtype=np.int8) * 64
    weights.tensors["maha.0.bias"][:] = 0
    weights.tensors["maha.0.shift"][:] = 6
    codes = random_codes(200, 2)
    found = drivers(weights, codes, HEADS.index("maha"))
    assert (found[:, 0] == np.abs(codes.astype(int)).argmax(axis=1)).all()


def test_maha_parts_make_up_the_head():
    weights, codes = random_weights(3), random_codes(50, 3)
    weights.tensors["maha.0.bias"][:] = 0
    weights.tensors["maha.0.shift"][:] = 15  # nothing saturates
    total = attribution(weights, codes, HEADS.index("maha")).sum(axis=1) / 2.0**15
    head = weights.compute(codes)[:, HEADS.index("maha")]
    w = weights.tensors["maha.0.weight"].astype(float) / 2**15
    slack = np.abs(codes @ w.T).sum(axis=1) / 2 + 8  # half a step of rounding in each output
    assert (np.abs(total - head) <= slack).all()


def test_vae_is_the_weighted_residual():
    weights, codes = random_weights(4), random_codes(50, 4)
    residual = codes - weights.reconstruct(codes)
    weighted = residual**2 * 2 ** weights.tensors["vae.residual_exp"].astype(int)
    found = drivers(weights, codes, HEADS.index("vae"))
    assert (np.take_along_axis(weighted, found.astype(int), 1)[:, 0] == weighted.max(axis=1)).all()


def test_exposure_is_occlusion():
    weights, codes = random_weights(5), random_codes(20, 5)
    column = HEADS.index("exposure")
    for row, best in zip(codes, drivers(weights, codes, column), strict=True):
        drop = []
        for f in range(32):
            without = row.copy()
            without[f] = 0
            drop.append(int(weights.compute(row[None])[0, column] - weights.compute(without[None])[0, column]))
        assert drop[best[0]] == max(drop)
        assert drop[best[2]] == sorted(drop)[-3]


@pytest.mark.parametrize("head", range(4))
def test_masked_features_never_drive(head):
    mask = 0b1010_1100
    found = drivers(random_weights(6), random_codes(300, 6), head, mask)
    assert set(np.unique(found)) <= {2, 3, 5, 7}
    few = drivers(random_weights(6), random_codes(10, 6), head, 0b1000_0001)
    assert (few[:, 2] == -1).all()
    assert (np.sort(few[:, :2]) == [0, 7]).all()
    assert all(len(names) == 2 for names in driver_names(few))


def test_a_head_for_each_row():
    weights, codes = random_weights(7), random_codes(40, 7)
    heads = np.arange(40) % 4
    mixed = drivers(weights, codes, heads, ALL_MASK)
    for h in range(4):
        assert (mixed[heads == h] == drivers(weights, codes[heads == h], h)).all()


def test_leading_head_is_one_in_alarm():
    level = np.array([[9, 8, 7, 6], [9, 8, 7, 6], [1, 5, 3, 4]], np.int32)
    assert leading_head(level, np.array([0b0100, 0b1010, 0], np.uint8)).tolist() == [2, 1, 1]
