"""The recipe end to end on short sessions, its grades, and the packaged sparse model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks.measure import RECORDED
from benchmarks.sparse_chart import chart
from microrisk.errors import UsageError
from microrisk.evaluate import sparse_grades, sparse_model
from microrisk.evaluate.default_model import Seeds
from microrisk.evaluate.sessions import simulated_split
from microrisk.evaluate.sparse_grades import HARNESS, REPORTED_ON, TAIL_SESSIONS, Exam, grades, read_exam
from microrisk.evaluate.sparse_model import SHIPPED, make_sparse
from microrisk.model.digits import bill
from microrisk.model.floatnet import FloatNetwork
from microrisk.model.quantise import GATES, order_kept, quantise
from microrisk.model.sparse import Budget
from microrisk.model.synthetic import market_like_codes
from microrisk.score.registry import PACKAGED, find, load_model
from microrisk.spec.features import ALL_MASK
from microrisk.spec.weightfile import HEADS
from microrisk.weights import CARD_FILE, README_FILE, Weights, mask_vector

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
    for parts in (TAIL_SESSIONS.values(), [[seed for seed, _ in sessions] for sessions in HARNESS.values()]):
        every = [number for part in parts for number in part]
        assert len(set(every)) == len(every)
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


def pruned_int8(weights: Weights) -> Weights:
    """The packaged pruned float head, rounded as always: what the digits were spared from."""
    own = quantise(FloatNetwork.load(find("sparse")), weights.card["metrics"]["activation_scales"])
    return Weights({**weights.tensors, **{k: v for k, v in own.items() if k.startswith("exposure.")}}, weights.card)


def test_packaged_model_is_sparse(exercised: Callable[[str], None]) -> None:
    weights = load_model("sparse")
    cost = bill(weights.tensors)
    exercised(f"packaged sparse model, exposure head: {json.dumps(cost.to_json())}")
    assert weights.card["name"] == "sparse"
    assert cost.zeros >= 0.6
    assert cost.digits <= SHIPPED
    assert cost.deepest_row <= 31, "31 digits and a bias are five adder levels"
    stated = weights.card["metrics"]["exposure"]
    assert cost.to_json() == stated["sparse"]
    assert bill(pruned_int8(weights).tensors).to_json() == stated["int8"]


def test_packaged_model_is_small() -> None:
    sizes = {n: (PACKAGED / "sparse" / n).stat().st_size for n in (CARD_FILE, README_FILE)}
    assert all(size < 16_000 for size in sizes.values()), sizes


@pytest.mark.realdata
@pytest.mark.parametrize("recording", ["ES", "Coinbase"])
def test_few_digits_keep_the_order_of_int8(recording: str, data_dir: Path, exercised: Callable[[str], None]) -> None:
    """Second half of each recording; nothing was fitted to these rows."""
    weights = load_model("sparse")
    codes, mask = sparse_grades._halves(weights, data_dir, late=True)[recording]
    x = np.where(mask_vector(mask), codes, 0).astype(np.int64)
    before, after = pruned_int8(weights).exposure(x).astype(np.float64), weights.exposure(x).astype(np.int32)
    found = dict(zip(GATES, order_kept(before, after), strict=True))
    exercised(f"sparse against int8 of the same pruned head, {recording}: {json.dumps(found)}")
    assert found["spearman"] >= GATES["spearman"]
    assert found["tail_spearman"] >= GATES["tail_spearman"]


def test_recorded_curve_draws() -> None:
    record = json.loads((RECORDED / "sparse.json").read_text())
    assert len(record["points"]) >= 6
    assert all("comb" in p for p in record["points"])
    root = ElementTree.fromstring(chart(record))
    drawn = len(root.findall(".//{*}circle"))
    sets = len(record["points"][0][REPORTED_ON]["order"])
    assert drawn == len(record["points"]) * (2 * sets + 4)


def test_packaged_model_is_a_point_of_the_record() -> None:
    record = json.loads((RECORDED / "sparse.json").read_text())
    hashes = {p["name"]: p["heads_hash"] for p in record["points"]}
    assert load_model("sparse").heads_hash() == hashes[str(SHIPPED)]
    assert load_model("sparse").card["parent"]["heads_hash"] == record["parent"]["heads_hash"] == hashes["parent"]
