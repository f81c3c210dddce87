"""Generated days: reproducible, true to what they say of themselves, steady when asked. Slow: they are compiled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("itch_book", reason="the rival itch-book is not installed")
pytest.importorskip("itchcpp", reason="the rival itchcpp is not installed")

from benchmarks.bbo_path import compare_bbo
from benchmarks.daystream import LIVES, day_stream
from benchmarks.depthstream import depth_stream
from benchmarks.engines import ENGINES, Microrisk, check
from benchmarks.truth import best_of

pytestmark = pytest.mark.slow
SMALL: dict[str, Any] = {"messages": 60_000, "symbols": 50, "live_orders": 4_000}


def test_the_same_parameters_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (day_stream(tmp_path / name, **SMALL) for name in ("a", "b"))
    other = day_stream(tmp_path / "c", **SMALL, seed=1)
    assert first == second
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert other["sha256"] != first["sha256"]


@pytest.mark.parametrize("lifetime", sorted(LIVES))
@pytest.mark.parametrize("refs", ["dense", "sparse"])
def test_every_engine_and_the_generator_agree(tmp_path: Path, lifetime: str, refs: str) -> None:
    path = tmp_path / "day"
    truth = day_stream(path, **SMALL, lifetime=lifetime, refs=refs)
    data = path.read_bytes()
    assert compare_bbo(data)["rows"] == truth["bbo_changes"]
    for make in ENGINES.values():
        engine = make()
        engine.feed(data)
        check(engine, truth, best_of(path))


def test_a_day_has_the_mix_it_states(tmp_path: Path) -> None:
    truth = day_stream(tmp_path / "day", **SMALL)
    share = {c: n / SMALL["messages"] for c, n in truth["counts"].items()}
    for code, wanted in {"U": 0.084, "E": 0.047, "X": 0.010, "I": 0.013}.items():
        assert abs(share[code] - wanted) < 0.006, code
    assert 0.88 < truth["near_share"] < 0.92
    assert abs(truth["live_orders"] - SMALL["live_orders"]) < 1_000


def test_a_steady_day_fills_and_then_stays(tmp_path: Path) -> None:
    path = tmp_path / "day"
    truth = day_stream(path, **SMALL, steady=True)
    data, cut = path.read_bytes(), truth["fill_bytes"]
    engine = Microrisk()
    engine.feed(data[:cut])
    assert engine.decoder.messages == truth["fill_messages"]
    assert engine.engine.live_orders == SMALL["live_orders"]
    engine.feed(data[cut:])
    check(engine, truth, best_of(path))
    assert abs(truth["live_orders"] - SMALL["live_orders"]) < 500


@pytest.mark.parametrize("where", ["near", "uniform"])
def test_depth_stays(where: Any) -> None:
    data, truth, best = depth_stream(400, where, 20_000)
    engine = Microrisk()
    engine.feed(data)
    check(engine, truth, best)
    assert abs(truth["levels"] / 800 - 1) < 0.1
    assert (truth["near_share"] > 0.88) == (where == "near")
    assert np.all(best > 0)
