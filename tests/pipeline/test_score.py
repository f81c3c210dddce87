"""score and features: every way gives the same rows, and the columns of the contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from microrisk.errors import BackendUnavailable, ModelNotFound
from microrisk.features.normalise import expand, fit_table
from microrisk.pipeline import features, score
from microrisk.pipeline.gather import Units, codes_of, gather
from microrisk.pipeline.memory import simulated
from microrisk.pipeline.rows import tail_probability
from microrisk.pipeline.scoring import Heads, _Tally
from microrisk.pipeline.spine import Spine
from microrisk.pipeline.watch import Stage
from microrisk.score import backend as backends
from microrisk.spec.features import FEATURES, mask
from microrisk.spec.records import ROW
from microrisk.spec.weightfile import HEADS
from microrisk.weights import Weights

COLUMNS = {
    "ts_event": pl.Int64, "ts_recv": pl.Int64, "seq": pl.UInt64, "instrument": pl.Categorical,
    **dict.fromkeys(HEADS, pl.Int32), **{f"{h}_level": pl.Float32 for h in HEADS},
    "alert": pl.Boolean, "drivers": pl.List(pl.Categorical),
}  # fmt: skip


def rows_of(weights: Weights, source: Any, backend: str = "cpu") -> tuple[np.ndarray[Any, Any], Heads]:
    spine = Spine(source)
    heads = Heads(backend, weights, spine.feed.mask)
    stage = Stage(spine, weights, heads.engine_heads)
    return np.concatenate(list(heads.complete(stage, stage.chunks()))), heads


def test_columns_and_marks(itch: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.parquet"
    result = score(itch, model=model, out=out)
    frame = pl.read_parquet(out)
    assert dict(frame.schema) == COLUMNS
    assert len(frame) == result.rows > 10_000
    assert result.ticks > 0
    # a generic table: levels say nothing, alarms are raised all the same
    assert all(frame[f"{h}_level"].null_count() == len(frame) for h in HEADS)
    assert {(i["table"], i["level"], i["mask"]) for i in result.instruments} == {
        ("generic", "uncalibrated", "ffffffff")
    }
    assert result.marks() == ["table=generic level=uncalibrated mask=ffffffff: SIM1.XNAS, SIM2.XNAS"]
    on = frame.filter("alert")
    assert len(on) > 0
    assert on["drivers"].list.len().unique().to_list() == [3]
    assert set(on["drivers"].explode().cast(pl.String)) <= {f.name for f in FEATURES}
    assert frame.filter(~pl.col("alert"))["drivers"].null_count() == len(frame) - len(on)
    assert sum(i["rows"] for i in result.instruments) == result.rows + result.ticks
    assert sum(i["alerts"] for i in result.instruments) == result.alerts["any"] > 0
    assert result.alerts_per_hour["any"] == pytest.approx(result.alerts["any"] / result.hours)
    assert result.hours == pytest.approx(240 / 3600, rel=0.1)  # the warm-up makes no rows


def test_reference_and_engine_give_the_same_file(itch: Path, model: Path, tmp_path: Path) -> None:
    found = {b: score(itch, model=model, backend=b, out=tmp_path / b, ticks=True) for b in ("cpu", "reference")}
    cpu, reference = (pl.read_parquet(tmp_path / b) for b in ("cpu", "reference"))
    assert cpu.columns[-1] == "tick"
    assert cpu["tick"].sum() == found["cpu"].ticks
    assert cpu.cast({"instrument": pl.String}).equals(reference.cast({"instrument": pl.String}))
    assert found["cpu"].alerts == found["reference"].alerts
    assert (found["cpu"].backend, found["reference"].backend) == ("cpu", "reference")


def test_codes_of_the_engine_are_those_of_gather(session: Any, weights: Weights, tmp_path: Path) -> None:
    """An own table must be there before the instrument's first event; warm-up would lose its first thousand."""
    held = simulated(session)
    raw = gather(held, {"SIM1.SIMX": Units(100, 100)}).by_id["SIM1.SIMX"]
    table = fit_table(raw.raw)
    own = weights.with_table("SIM1.SIMX", table, tick=100, lot=100)
    rows, _ = rows_of(own, held)
    mine = rows[rows["instrument"] == 1]
    assert np.array_equal(mine["now"], raw.now)
    assert np.array_equal(mine["codes"], codes_of(raw.raw, expand(table)))


def test_features_file_and_raw_columns(itch: Path, model: Path, weights: Weights, tmp_path: Path) -> None:
    plain = features(itch, model=model, out=tmp_path / "a")
    full = features(itch, model=model, out=tmp_path / "b", raw=True)
    a, b = pl.read_parquet(tmp_path / "a"), pl.read_parquet(tmp_path / "b")
    names = [f.name for f in FEATURES]
    assert a.columns == ["ts_event", "ts_recv", "seq", "instrument", *names]
    assert all(a[n].dtype == pl.Int8 for n in names)
    assert plain.rows == full.rows == len(a)
    assert b.select(a.columns).cast({"instrument": pl.String}).equals(a.cast({"instrument": pl.String}))
    raw = b.select(f"{n}_raw" for n in names).to_numpy().astype(np.int16)
    generic = weights.table_for(None)
    codes = codes_of(raw, expand(generic))  # type: ignore[arg-type]
    assert np.array_equal(codes, b.select(names).to_numpy())


def test_own_levels_are_probabilities(itch: Path, weights: Weights, tmp_path: Path) -> None:
    owner, mask_ = "SIM1.XNAS", 0xFFFFFFFF
    generic = weights.table_for(None)
    made = weights.with_table(owner, generic, tick=100, lot=100).with_level(owner, mask_, weights.level_for(None))
    folder = made.save(tmp_path / "own")
    result = score(itch, model=folder, out=tmp_path / "s", backend="cpu")
    assert [(i["table"], i["level"]) for i in result.instruments] == [
        ("own", "calibrated"),
        ("generic", "uncalibrated"),
    ]
    frame = pl.read_parquet(tmp_path / "s")
    known = frame.filter(pl.col("instrument") == owner)["maxz_level"]
    assert known.null_count() == 0
    assert known.is_between(0, 1).all()
    assert frame.filter(pl.col("instrument") != owner)["maxz_level"].null_count() > 0


def test_tail_probability_is_two_to_the_minus_level() -> None:
    assert tail_probability(np.array([0, 256, 512, 2560], np.int32)).tolist() == [1.0, 0.5, 0.25, 2.0**-10]


def test_masked_features_are_zero_and_drive_nothing(session: Any, weights: Weights) -> None:
    carried = mask("l1", "orders", "trades")
    rows, _ = rows_of(weights, replace(simulated(session), mask=carried))
    absent = [f.index for f in FEATURES if not carried >> f.index & 1]
    assert len(absent) > 5
    assert not rows["codes"][:, absent].any()
    again, _ = rows_of(weights, replace(simulated(session), mask=carried), "reference")
    assert np.array_equal(rows, again)


def test_fail_on_looks_at_alarms_only() -> None:
    rows = np.zeros(3, ROW)
    rows["level"][:, 0] = [256, 2560, 2560]
    rows["alert"][:2] = 1
    tally = _Tally(2.0**-5)
    tally.add(rows)
    assert (tally.below, tally.lowest) == (1, 2.0**-10)
    tally = _Tally(2.0**-10)
    tally.add(rows)
    assert tally.below == 0  # below means below


@pytest.mark.parametrize(("level", "code"), [(1.0, 1), (1e-300, 0)])
def test_exit_code_of_fail_on(run: Callable[..., Any], itch: Path, model: Path, level: float, code: int) -> None:
    got, out, err = run("score", itch, "--model", model, "--fail-on", level, "--json")
    assert got == code
    assert (out["below"] > 0) == bool(code)
    assert "table=generic level=uncalibrated" in err
    assert set(out["alerts"]) == {*HEADS, "any"}


class _Breaks:
    """A scorer that fails at its second batch."""

    name = "rtl"

    def __init__(self) -> None:
        self.calls = 0

    def unavailable(self) -> None:
        return None

    def load(self, weights: Weights, mask: int = 0) -> None:
        self.weights = weights

    def score(self, codes: Any) -> Any:
        self.calls += 1
        if self.calls == 2:
            raise RuntimeError("the board went away")
        return self.weights.compute(codes)


def test_another_back_end_takes_over_without_losing_a_row(
    session: Any, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = rows_of(weights, simulated(session))
    monkeypatch.setattr("microrisk.pipeline.scoring.BATCH", 5_000)
    monkeypatch.setattr(backends, "open_scorer", lambda name: _Breaks())
    rows, heads = rows_of(weights, simulated(session), "rtl")
    assert np.array_equal(rows, expected)
    assert heads.name != "rtl"
    assert len(heads.notices) == 1
    assert "rtl failed (the board went away)" in heads.notices[0]


def test_a_named_back_end_that_is_missing_is_an_error(itch: Path, model: Path, run: Callable[..., Any]) -> None:
    with pytest.raises(BackendUnavailable):
        score(itch, model=model, backend="fpga")
    code, out, err = run("score", itch, "--model", model, "--backend", "fpga", "--json")
    assert code == 2
    assert out["kind"] == "BackendUnavailable"
    assert err.startswith("microrisk: ")


def test_a_model_that_is_missing(itch: Path) -> None:
    with pytest.raises(ModelNotFound, match="no_such_model"):
        score(itch, model="no_such_model")
