"""Stylised facts of clean sessions, loosely but really asserted; measured on 1-s grids of the engine's views."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from replay import executions

from microrisk.core import Engine
from microrisk.market import Session, simulate
from microrisk.spec.records import Action

SEEDS = (21, 22, 23, 24)
SECONDS = 1800
WARM = 10


def _acf(x: NDArray[np.float64], lag: int) -> float:
    return float(np.corrcoef(x[:-lag], x[lag:])[0, 1])


@pytest.fixture(scope="module")
def sessions() -> list[Session]:
    return [simulate(seed, SECONDS, halts_per_hour=0.0) for seed in SEEDS]


@pytest.fixture(scope="module")
def views(sessions: list[Session]) -> list[NDArray[np.void]]:
    out = []
    for session in sessions:
        engine = Engine()
        engine.record_views()
        engine.run_events(session.events)
        out.append(engine.take_views())
    return out


@pytest.fixture(scope="module")
def returns(sessions: list[Session], views: list[NDArray[np.void]]) -> list[NDArray[np.float64]]:
    """Differences of the middle price in ticks, every second."""
    out = []
    for session, v in zip(sessions, views, strict=True):
        grid = session.start_ns + np.arange(WARM, SECONDS) * 1_000_000_000
        at = np.searchsorted(v["ts_event"], grid, side="right") - 1
        out.append(np.diff((v["bid_px"][at, 0] + v["ask_px"][at, 0]) / 200.0))
    return out


def test_returns_have_no_linear_autocorrelation(returns: list[NDArray[np.float64]]) -> None:
    for lag in (1, 2, 5):
        values = [_acf(r, lag) for r in returns]
        assert abs(np.mean(values)) < 0.08
        assert max(np.abs(values)) < 0.2


def test_volatility_clusters(returns: list[NDArray[np.float64]]) -> None:
    by_lag = [np.mean([_acf(np.abs(r), lag) for r in returns]) for lag in (1, 5, 20)]
    assert by_lag[0] > 0.08
    assert by_lag[1] > 0.03
    assert by_lag[0] > by_lag[2]


def test_returns_have_heavy_tails(returns: list[NDArray[np.float64]]) -> None:
    for r in returns:
        assert np.mean((r - r.mean()) ** 4) / r.var() ** 2 > 4.0
        assert 0.2 < r.std() < 3.0


def test_signs_of_market_orders_remember(sessions: list[Session]) -> None:
    by_lag = {lag: [] for lag in (1, 3, 10, 100)}
    for session in sessions:
        hits = executions(session.events)
        first = np.concatenate([[True], np.diff(hits["ts_event"]) > 0])
        signs = -hits["side"][first].astype(float)
        for lag, values in by_lag.items():
            values.append(_acf(signs, lag))
    mean = {lag: float(np.mean(values)) for lag, values in by_lag.items()}
    assert 0.1 < mean[1] < 0.6
    assert mean[1] > mean[3] > mean[10] > mean[100] - 0.02
    assert mean[10] > 0.03


def test_activity_is_high_at_both_ends(sessions: list[Session]) -> None:
    share = np.zeros(6)
    for session in sessions:
        at = (session.events["ts_event"] - session.start_ns) / (SECONDS * 1e9)
        share += np.histogram(at, bins=6, range=(0, 1))[0]
    middle = share[2:4].mean()
    assert share[0] > 1.1 * middle
    assert share[5] > 1.1 * middle


def test_spread_is_one_to_three_ticks_and_widens_with_volatility(
    views: list[NDArray[np.void]], returns: list[NDArray[np.float64]], sessions: list[Session]
) -> None:
    wild, calm = [], []
    for session, v, r in zip(sessions, views, returns, strict=True):
        grid = session.start_ns + np.arange(WARM, SECONDS) * 1_000_000_000
        at = np.searchsorted(v["ts_event"], grid, side="right") - 1
        spread = (v["ask_px"][at, 0] - v["bid_px"][at, 0]) / 100
        share = [(spread == k).mean() for k in (1, 2, 3)]
        assert sum(share) > 0.95
        assert share[0] > share[1] > share[2] > 0
        moved = np.convolve(np.abs(r), np.ones(10), "same")
        wild.append(spread[1:][moved >= np.quantile(moved, 0.9)].mean())
        calm.append(spread[1:][moved <= np.quantile(moved, 0.5)].mean())
    assert np.mean(wild) > 1.1 * np.mean(calm)


def test_sizes_are_round_lots_with_a_power_tail(sessions: list[Session]) -> None:
    adds = np.concatenate([s.events["qty"][s.events["action"] == Action.ADD] for s in sessions])
    assert (adds % 100 == 0).mean() > 0.9
    assert np.median(adds) == 100
    tail = np.array([(adds >= 100 * k).mean() for k in (2, 4, 8, 16)])
    slope = np.polyfit(np.log([2, 4, 8, 16]), np.log(tail), 1)[0]
    assert -2.6 < slope < -1.2


def test_arrivals_are_bursty(sessions: list[Session]) -> None:
    for session in sessions:
        counts = np.histogram(executions(session.events)["ts_event"], bins=SECONDS)[0]
        assert counts.var() > 2.0 * counts.mean()
