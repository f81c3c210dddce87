"""The recipe end to end on short sessions, its grades, and the packaged sparse model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from microrisk.errors import UsageError
from microrisk.evaluate import sparse_model
from microrisk.evaluate.default_model import Seeds
from microrisk.evaluate.sessions import simulated_split
from microrisk.evaluate.sparse_grades import CHOSEN_ON, HARNESS, REPORTED_ON, TAIL_SESSIONS, Exam, grades, read_exam
from microrisk.evaluate.sparse_model import SHIPPED, make_sparse
from microrisk.model.digits import bill
from microrisk.model.floatnet import FloatNetwork
from microrisk.model.quantise import quantise
from microrisk.model.sparse import Budget
from microrisk.model.synthetic import market_like_codes
from microrisk.score.registry import PACKAGED, find, load_model
from microrisk.spec.features import ALL_MASK
from microrisk.spec.weightfile import HEADS
from microrisk.weights import CARD_FILE, README_FILE, Weights

MINUTES = 7.0
SHORT = Seeds(clean=(1_000,), exposure=(2_000,), calibration=(3_000,), injected=(4_000,))
SMALL = Budget(digits=300, weights=200, row_digits=12, batch=128, prune_steps=60, sharpen_steps=140)
EXPOSURE = HEADS.index("exposure")


@pytest.fixture(scope="module")
def parent() -> Weights:
    return load_model("default")


@pytest.fixture(scope="module")
def exam(parent: Weights) -> Exam:
    split = simulated_split(parent, sessions=1, minutes=31.0, seed=7, say=lambda _: None)
    tracks = np.concatenate([t.codes for t in split.test])[::20]
    return Exam({"session": (tracks, ALL_MASK)}, [(7, split)])


def dulled(weights: Weights) -> Weights:
    """The same model whose exposure head says one number."""
    nothing = {k: np.zeros_like(v) if k.startswith("exposure.") else v for k, v in weights.tensors.items()}
    return Weights(nothing, weights.card)


def test_the_parent_loses_nothing_against_itself(exam: Exam, parent: Weights) -> None:
    found = grades(exam, parent, parent, parent)
    for reference in ("int8", "parent"):
        assert found["order"]["session"][reference]["tail_spearman"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    (harness,) = found["harness"]
    assert set(harness["episodes"].values()) == {4}
    for at in (a for d in harness["detectors"].values() for a in d["at"].values()):
        assert at["minus_parent"]["recall"]["value"] == 0.0
        assert at["recall"]["value"] > 0.0


def test_a_head_that_says_nothing_loses_all(exam: Exam, parent: Weights) -> None:
    found = grades(exam, dulled(parent), parent, parent)
    assert found["order"]["session"]["int8"]["tail_spearman"]["value"] == 0.0
    at = found["harness"][0]["detectors"]["exposure"]["at"]["10"]
    assert at["recall"]["value"] == 0.0
    assert at["minus_parent"]["recall"]["value"] < 0.0
    lost = [k for k, v in at["minus_parent"]["recall_by_kind"].items() if v["value"] < 0]
    assert lost, "kinds are told apart"


def test_exams_have_nothing_in_common() -> None:
    assert not set(TAIL_SESSIONS[CHOSEN_ON]) & set(TAIL_SESSIONS[REPORTED_ON])
    assert not {s for s, _ in HARNESS[CHOSEN_ON]} & {s for s, _ in HARNESS[REPORTED_ON]}
    taught = [s for part in vars(Seeds()).values() for s in part]
    assert not set(taught) & {s for part in TAIL_SESSIONS.values() for s in part}


def test_an_unknown_exam_is_refused(parent: Weights, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no exam 'tuned on'"):
        read_exam("tuned on", parent, tmp_path, minutes=MINUTES)


def test_recipe_on_short_sessions(tmp_path: Path, parent: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_model, "points", lambda: {300: SMALL})
    told: list[str] = []
    out = tmp_path / "few"
    made = make_sparse(out, find("default"), digits=300, seeds=SHORT, minutes=MINUTES, say=told.append)
    again = Weights.load(out)
    assert again.heads_hash() == made.weights.heads_hash() != parent.heads_hash()
    cost = bill(again.tensors)
    assert cost.digits <= 300
    assert cost.deepest_row <= 12
    codes = market_like_codes(500, 1)
    others = [i for i in range(len(HEADS)) if i != EXPOSURE]
    assert np.array_equal(again.compute(codes)[:, others], parent.compute(codes)[:, others])
    assert again.card["parent"]["heads_hash"] == parent.heads_hash()
    assert again.card["metrics"]["exposure"]["sparse"] == cost.to_json()
    assert again.level_owners() == parent.level_owners()
    own = quantise(FloatNetwork.load(out), again.card["metrics"]["activation_scales"])
    assert all(np.array_equal(own[k], made.int8.tensors[k]) for k in own if k.startswith("exposure."))
    assert any("pruning" in t for t in told)


# ---- the packaged model ----


def test_packaged_model_is_sparse(exercised: Callable[[str], None]) -> None:
    weights = load_model("sparse")
    cost = bill(weights.tensors)
    exercised(f"packaged sparse model, exposure head: {json.dumps(cost.to_json())}")
    assert weights.card["name"] == "sparse"
    assert cost.zeros >= 0.6
    assert cost.digits <= SHIPPED
    assert cost.deepest_row <= 15
    assert cost.to_json() == weights.card["metrics"]["exposure"]["sparse"]


def test_packaged_model_is_small() -> None:
    sizes = {n: (PACKAGED / "sparse" / n).stat().st_size for n in (CARD_FILE, README_FILE)}
    assert all(size < 16_000 for size in sizes.values()), sizes
