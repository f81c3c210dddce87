"""Areas against scikit-learn and against a naive reading of the definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microrisk.evaluate import bootstrap
from microrisk.evaluate.grid import NORMAL, Grid
from microrisk.evaluate.metrics import add_up, point, pr_auc_of_kind, sums, thresholds


def as_grid(score, positive, session="s"):
    kind = np.where(positive, 0, NORMAL).astype(np.int16)
    return Grid(session, 0, np.asarray(score, float), kind)


def example(seed, bins=400, episodes=4, quality=1.5, step=0.25):
    rng = np.random.default_rng(seed)
    positive = np.zeros(bins, bool)
    for at in rng.integers(0, bins, episodes):
        positive[at : at + rng.integers(1, 20)] = True
    score = np.round((rng.normal(0, 1, bins) + quality * positive) / step) * step
    return as_grid(score, positive)


def naive_vus(grids, window):
    """One threshold and one width at a time, one bin at a time."""
    values = sorted({v for g in grids for v in g.score.tolist()}, reverse=True)
    volume = []
    for width in range(window + 1):
        area, before = 0.0, 0.0
        for v in values:
            tp = fired = soft = p = 0.0
            hit = total = 0
            for g in grids:
                positive, fire = g.positive, g.score >= v
                runs = _runs(positive)
                label = np.zeros(len(positive))
                for k in range(len(positive)):
                    near = [max(a - k, k - b) for a, b in runs]
                    parts = [np.sqrt(1 - d / width) for d in near if 0 < d <= width // 2]
                    label[k] = 1.0 if positive[k] else min(sum(parts), 1.0)
                p += positive.sum()
                tp += label[fire].sum()
                soft += label[fire & ~positive].sum()
                fired += fire.sum()
                wide = _wide(runs, width // 2, len(positive))
                total += len(wide)
                hit += sum(fire[a : b + 1].any() for a, b in wide)
            recall = min(tp / (p + soft / 2), 1) * hit / total
            area += (recall - before) * tp / fired
            before = recall
        volume.append(area)
    return np.mean(volume)


def _runs(positive):
    out, start = [], None
    for k, p in enumerate([*positive, False]):
        if p and start is None:
            start = k
        if not p and start is not None:
            out.append((start, k - 1))
            start = None
    return out


def _wide(runs, reach, bins):
    out = []
    for a, b in runs:
        a, b = max(a - reach, 0), min(b + reach, bins - 1)
        if out and a <= out[-1][1]:
            out[-1] = (out[-1][0], b)
        else:
            out.append((a, b))
    return out


@given(st.integers(0, 10_000), st.sampled_from([0.01, 0.5, 3.0]))
def test_pr_auc_is_average_precision(seed, step):
    sklearn = pytest.importorskip("sklearn.metrics")
    g = example(seed, step=step)
    if g.positive.any():
        assert point([g], 0).pr_auc() == pytest.approx(sklearn.average_precision_score(g.positive, g.score))


@pytest.mark.parametrize("seed", range(4))
def test_vus_is_its_definition_over_several_tracks(seed):
    grids = [example(seed, bins=120), example(seed + 100, bins=90)]
    assert point(grids, 6).vus_pr() == pytest.approx(naive_vus(grids, 6), rel=1e-12)


def test_a_perfect_score_has_area_one():
    g = as_grid([0, 0, 5, 6, 0, 0], [False, False, True, True, False, False])
    assert point([g]).pr_auc() == 1.0
    assert point([g], 0).vus_pr() == 1.0


def test_a_score_that_knows_nothing_has_the_base_rate():
    g = example(1, bins=40_000, episodes=300, quality=0.0, step=1e-9)
    exact = point([g], 0)
    assert exact.pr_auc() == pytest.approx(exact.base_rate, abs=0.01)
    constant = point([as_grid(np.ones(40_000), g.positive)], 0)
    assert constant.pr_auc() == constant.base_rate


def test_no_point_is_adjusted():
    # one firing bin in a long episode: point-adjust would call all 100 found
    positive = np.r_[np.zeros(100, bool), np.ones(100, bool), np.zeros(800, bool)]
    score = np.zeros(1000)
    score[150] = 1
    assert point([as_grid(score, positive)], 0).pr_auc() == pytest.approx(0.01 + 0.99 * 0.1)


def test_silent_bins_come_last():
    g = as_grid([-np.inf, 1.0, 0.0, -np.inf], [True, True, False, False])
    assert point([g], 0).pr_auc() == pytest.approx(0.5 + 0.5 * 0.5)


def test_sums_add_up_over_sessions():
    grids = [example(s) for s in range(4)]
    at = thresholds(grids)
    whole = point(grids)
    parts = add_up([sums([g], at) for g in grids])
    twice = add_up([sums([g], at) for g in grids], [2, 0, 1, 1])
    direct = point([grids[0], grids[0], grids[2], grids[3]])
    assert parts.vus_pr() == pytest.approx(whole.vus_pr())
    assert twice.vus_pr() == pytest.approx(direct.vus_pr())
    assert twice.pr_auc() == pytest.approx(direct.pr_auc())


def test_compressed_curves_are_close_to_exact():
    grids = [example(s, bins=7200, episodes=12, step=1e-9) for s in range(3)]
    exact, rough = point(grids), sums(grids, thresholds(grids, 400))
    assert rough.pr_auc() == pytest.approx(exact.pr_auc(), abs=0.005)
    assert rough.vus_pr() == pytest.approx(exact.vus_pr(), abs=0.005)


def test_pr_auc_of_a_kind_leaves_other_kinds_out():
    kind = np.asarray([NORMAL, 0, 1, NORMAL], np.int16)
    g = Grid("s", 0, np.asarray([0.0, 1.0, 2.0, 0.0]), kind)
    assert pr_auc_of_kind([g], 0) == 1.0
    assert pr_auc_of_kind([g], 2) is None


def test_bootstrap_covers_the_mean_of_blocks_and_is_seeded():
    values = np.random.default_rng(0).normal(10, 2, 40)
    drawn = bootstrap.weights(40, 1000, 5)
    assert (drawn.sum(axis=1) == 40).all()
    assert (drawn == bootstrap.weights(40, 1000, 5)).all()
    low, high = bootstrap.intervals(lambda w: float(w @ values) / 40, drawn)
    # the textbook interval of a mean of 40
    half = 1.96 * values.std() / np.sqrt(40)
    assert low == pytest.approx(values.mean() - half, abs=0.15)
    assert high == pytest.approx(values.mean() + half, abs=0.15)
