"""train, gather and the recipe of the default model: what teaches, what calibrates, and that they stay apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microrisk.errors import UsageError
from microrisk.evaluate.default_model import MASKS, Seeds, calibrated, make_default
from microrisk.evaluate.sessions import eventful
from microrisk.market.episodes import KINDS, Episode
from microrisk.market.simulator import simulate
from microrisk.pipeline import score
from microrisk.pipeline.fitting import episode_labels, scored
from microrisk.pipeline.gather import Units, find_units, gather
from microrisk.pipeline.memory import Recorded, simulated
from microrisk.pipeline.spine import Spine
from microrisk.pipeline.training import TEACHING_SHARE
from microrisk.weights import Weights


def test_tables_only_makes_a_new_calibrated_folder(
    itch: Path, model: Path, weights: Weights, tmp_path: Path, run: Callable[..., Any]
) -> None:
    out = tmp_path / "new"
    code, result, _ = run("train", itch, "--out", out, "--tables-only", "--model", model, "--json")
    assert code == 0
    assert [f["id"] for f in result["fitted"]] == ["SIM1.XNAS", "SIM2.XNAS"]
    made = Weights.load(out)
    assert made.table_owners() == ["SIM1.XNAS", "SIM2.XNAS", "generic"]
    for name, tensor in weights.heads_tensors().items():
        assert np.array_equal(made.tensors[name], tensor)
    data = made.card["data"]
    assert data["taught_ns"][1] == data["calibrated_ns"][0]
    assert list(data["inputs"]) == [itch.name]
    again = score(itch, model=out)
    assert {(i["table"], i["level"]) for i in again.instruments} == {("own", "calibrated")}
    # the later part has about as many alarms as were allowed
    report = made.card["calibration"]["SIM1.XNAS"]
    assert report["hours"] == pytest.approx((1 - TEACHING_SHARE) * 240 / 3600, rel=0.05)


def test_train_overwrites_nothing(itch: Path, model: Path) -> None:
    from microrisk.pipeline.training import train

    with pytest.raises(UsageError, match="exists"):
        train(itch, out=model, tables_only=True, model=model)


def test_too_little_to_learn_from(model: Path, tmp_path: Path) -> None:
    from microrisk.market.write import write_itch
    from microrisk.pipeline.training import train

    short = write_itch(simulate(8, 20.0), tmp_path / "short_2025-01-06.itch")
    with pytest.raises(UsageError, match=r"SIM1.XNAS: .* rows to learn from"):
        train(short, out=tmp_path / "m", tables_only=True, model=model)
    assert not (tmp_path / "m").exists()


def test_units_are_the_simulators(session: Any) -> None:
    units = find_units(simulated(session))
    assert set(units) == {"SIM1.SIMX", "SIM2.SIMX"}
    assert {u.tick for u in units.values()} == {100}


def test_gather_thins_evenly(session: Any) -> None:
    whole = gather(simulated(session), {"SIM1.SIMX": Units(100, 100)})
    thin = gather(simulated(session), {"SIM1.SIMX": Units(100, 100)}, held_rows=len(whole.by_id["SIM1.SIMX"].now) // 3)
    assert (whole.thinned, thin.thinned) == (1, 4)
    full, rest = whole.by_id["SIM1.SIMX"], thin.by_id["SIM1.SIMX"]
    assert len(rest.now) == pytest.approx(len(full.now) / 4, rel=0.02)
    assert np.isin(rest.now, full.now).all()


def test_nothing_to_gather(session: Any) -> None:
    bids = session.events[(session.events["side"] == 1) & (session.events["action"] == 1)]
    with pytest.raises(UsageError, match="two-sided"):
        gather(Recorded(bids, session.instruments))


def test_scored_rows_begin_where_asked(session: Any, weights: Weights) -> None:
    held = simulated(session)
    whole = scored(weights, held)["SIM2.SIMX"]
    start = int(whole.now[len(whole.now) // 2])
    late = scored(weights, held, start=start)["SIM2.SIMX"]
    assert np.array_equal(late.now, whole.now[whole.now >= start])
    assert np.array_equal(late.heads, whole.heads[whole.now >= start])


def test_labels_of_rows() -> None:
    now = np.arange(0, 40) * 10**9
    episodes = [Episode("wash", 5 * 10**9, 8 * 10**9, 1.0, 1), Episode("gap", 10 * 10**9, 12 * 10**9, 1.0, 1)]
    label = episode_labels(now, episodes, KINDS)
    wash, gap = KINDS.index("wash") + 1, KINDS.index("gap") + 1
    assert label[:5].tolist() == [0] * 5
    assert label[5:9].tolist() == [wash] * 4
    assert label[9] == -1
    assert label[10:13].tolist() == [gap] * 3
    assert label[13:18].tolist() == [-1] * 5
    assert not label[18:].any()


def test_a_session_with_episodes_ends_with_a_sound_book() -> None:
    session = eventful(4, 450.0)
    assert sorted(e.kind for e in session.episodes) == sorted(KINDS)
    spine = Spine(simulated(session))
    for _ in spine.chunks():
        pass
    assert not spine.engine.suspect(1)
    assert not any(spine.integrity().values())


def test_a_seed_serves_one_purpose() -> None:
    with pytest.raises(UsageError, match="two purposes"):
        Seeds(clean=(1, 2), exposure=(2,), calibration=(3,)).check()
    Seeds().check()


def test_every_mask_is_calibrated(weights: Weights) -> None:
    made, reports = calibrated(weights, [31], 2.0)
    assert {m for owner, m in made.level_owners() if owner == "generic"} == set(MASKS.values())
    assert all(r["rows"] > 1_000 for r in reports.values())


@pytest.mark.slow
def test_the_recipe_in_small(tmp_path: Path) -> None:
    seeds = Seeds(clean=(1,), exposure=(2,), calibration=(3,))
    short = {"vae_steps": 30, "exposure_steps": 30, "tune_steps": 10, "batch": 128}
    weights = make_default(tmp_path / "m", seeds=seeds, minutes=7.5, grade=False, **short)
    assert Weights.load(tmp_path / "m").card["seeds"]["exposure"] == [2]
    assert weights.card["data"]["recordings"] == {}
    assert set(weights.card["metrics"]["exposure"]["rows"]) == {"1", "2", "3", "4", "5", "6"}


@pytest.mark.slow
def test_a_whole_model_of_a_recording(itch: Path, tmp_path: Path) -> None:
    from microrisk.pipeline.training import train

    short = {"vae_steps": 30, "exposure_steps": 30, "tune_steps": 10, "batch": 128}
    result = train(itch, out=tmp_path / "m", seed=3, settings=short)
    made = Weights.load(tmp_path / "m")
    assert made.table_owners() == ["SIM1.XNAS", "SIM2.XNAS", "generic"]
    assert "vae" in result.metrics
    assert made.level_for("SIM1.XNAS").calibrated
    assert score(itch, model=tmp_path / "m").rows > 10_000
