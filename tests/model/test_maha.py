from __future__ import annotations

import numpy as np

from microrisk.model.maha import NOISE, whiten
from microrisk.model.synthetic import market_like_codes


def test_white_on_its_own_codes():
    codes = market_like_codes(5000, 1)
    weight, bias = whiten(codes)
    y = codes / 16 @ weight.T + bias
    assert np.allclose(y.mean(axis=0), 0, atol=1e-9)
    assert np.allclose(np.cov(y.T), np.eye(32), atol=1e-6)


def test_distance_is_mahalanobis():
    codes = market_like_codes(3000, 2)
    weight, bias = whiten(codes)
    x = codes / 16
    centred = x - x.mean(axis=0)
    expected = np.einsum("ij,jk,ik->i", centred, np.linalg.inv(np.cov(x.T)), centred)
    assert np.allclose(((x @ weight.T + bias) ** 2).sum(axis=1), expected, rtol=1e-6)


def test_a_constant_and_a_copied_feature_stay_finite():
    codes = market_like_codes(3000, 3)
    codes[:, 4] = 7
    codes[:, 9] = codes[:, 8]
    weight, bias = whiten(codes)
    assert np.isfinite(weight).all()
    assert np.isfinite(bias).all()
    assert np.linalg.norm(weight, axis=1).max() <= 1.001 / np.sqrt(NOISE)


def test_same_rows_whatever_the_sign_of_eigenvectors():
    codes = market_like_codes(3000, 4)
    weight, _ = whiten(codes)
    assert (weight[np.arange(32), np.abs(weight).argmax(axis=1)] > 0).all()
