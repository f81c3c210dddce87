"""Integer features against the float form, in steps of 1/16."""

from __future__ import annotations

import numpy as np
import pytest
from feature_views import market_views, wild_views

from microrisk.errors import UsageError
from microrisk.features.kernels import run_views
from microrisk.features.reference import FORMULAS, features_float
from microrisk.features.state import initial_state
from microrisk.spec.features import BY_NAME, FEATURES
from microrisk.spec.records import N_FEATURES, VIEW

TABLE = np.zeros((N_FEATURES, 4096), np.int8)
TICK, LOT = 100, 1600

STEPS = dict.fromkeys((f.name for f in FEATURES), 3.0)
"""Two cut logarithms and half a rounding: under three steps."""
STEPS |= {"spread_dev": 0.51, "empty_levels": 0.0, "wash": 1.1}
RARE = ("trade_rate", "variance_fast", "variance_slow", "trade_sign_fast", "cancel_rate")
STEPS |= dict.fromkeys(RARE, 7.0)
"""Rare events: the floors of decay, 1/256 of a count each, show once a counter is nearly gone."""
SHARE = {"ofi_fast": 0.08, "ofi_slow": 0.15, "toxicity": 0.25, "quote_age": 0.002}
"""Share of rows beyond STEPS. Signed sums: where they cross zero, decay on a grid turns the sign at another moment.
Quote age: lives below 2^10 ns read 0."""


@pytest.mark.parametrize(("seed", "mean_ns"), [(0, 5e6), (1, 5e7), (2, 5e5), (3, 4e8)])
def test_integer_features_follow_the_float_form(seed: int, mean_ns: float) -> None:
    views = market_views(seed, 2000, mean_ns)
    raw = run_views(views, initial_state(TICK, LOT), TABLE)[0]
    error = np.abs(raw - 16 * features_float(views, TICK, LOT))
    for f in FEATURES:
        share = (error[:, f.index] > STEPS[f.name]).mean()
        worst = error[:, f.index].max()
        assert share <= SHARE.get(f.name, 0.0), (
            f"{f.name}: {share:.4f} of rows beyond {STEPS[f.name]}, worst {worst:.1f}"
        )


def test_silence_and_holes_follow_too() -> None:
    """Ticks, empty sides, days of silence: no feature of the two forms differs by more than one unit in most rows."""
    views = wild_views(11, 2500)
    sizes = [views[f"{name}_qty"] for name in ("add", "cancel", "trade")] + [views["bid_qty"].max(axis=1)]
    views = views[(np.max(sizes, axis=0) < 1 << 30) & (views["ask_px"].max(axis=1) < 1 << 60)]  # nothing saturates
    raw, _, produced = run_views(views, initial_state(5, 16), TABLE)
    error = np.abs(raw - 16 * features_float(views, 5, 16))[produced]
    assert np.quantile(error, 0.99) <= 4
    exact = ["empty_levels", "spread_dev"]
    assert (error[:, [BY_NAME[n].index for n in exact]] <= 16).mean() > 0.99


def test_one_formula_a_feature() -> None:
    assert len(FORMULAS) == len(FEATURES) == N_FEATURES


def test_known_book() -> None:
    """A book that can be done on paper: bid 99 x 3 lots, ask 101 x 1 lot, one level each."""
    view = np.zeros(1, VIEW)
    view["n_bid"], view["n_ask"] = 1, 1
    view["bid_px"][0, 0], view["ask_px"][0, 0] = 9900, 10100
    view["bid_qty"][0, 0], view["ask_qty"][0, 0] = 300, 100
    row = features_float(view, 100, 1600)[0]
    expected = {"spread": np.log2(33), "depth_l1": np.log2(5), "imbalance_l1": 1.0, "microprice": 1 / 3}
    for name, value in expected.items():
        assert row[BY_NAME[name].index] == pytest.approx(value), name
    assert row[BY_NAME["empty_levels"].index] == 18
    assert row[BY_NAME["burst"].index] == pytest.approx(np.log2(17) - 1)


def test_refuses() -> None:
    with pytest.raises(UsageError, match="a tick and a lot of at least 1"):
        features_float(np.zeros(1, VIEW), 0, 1)
