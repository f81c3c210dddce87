"""The user's bench: every figure on their own file, beside rivals whose answers are compared."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import microrisk.pipeline.bench as benchmark
from microrisk.cli.bench_view import bar
from microrisk.errors import OutputError, UsageError
from microrisk.pipeline import bench_input, bench_rivals
from microrisk.pipeline.bench import _Race, bench
from microrisk.pipeline.bench_input import prepare
from microrisk.pipeline.bench_memory import memory
from microrisk.pipeline.bench_stages import OURS, Contender, Done
from microrisk.pipeline.spine import Source

TABLES = ["books", "books + BBO", "books + depth 10", "BBO to Parquet"]
STAGES = ["parse", *TABLES, "features", "heads alone", "whole spine"]


@pytest.fixture(scope="module")
def result(itch: Path, model: Path) -> dict[str, Any]:
    return bench([str(itch)], model=model, repeats=2, paced_seconds=0.05)


def test_every_stage_has_a_figure(result: dict[str, Any]) -> None:
    ours = [f for f in result["figures"] if f["who"] == OURS]
    assert [f["stage"] for f in ours] == STAGES
    assert all(0 < f["ns_low"] <= f["ns_each"] <= f["ns_high"] for f in ours)
    assert len({f["items"] for f in ours if f["unit"] == "messages"}) == 1
    assert all("ratio" not in f for f in ours)
    json.dumps(result)


def test_rivals_agree_on_the_books(result: dict[str, Any]) -> None:
    rivals = {(f["who"], f["stage"]) for f in result["figures"] if f["who"] != OURS}
    assert rivals == {("itchcpp", "parse"), ("itchcpp", "books"), *(("itch-book", s) for s in TABLES)}
    assert all(f["ratio_low"] <= f["ratio"] <= f["ratio_high"] for f in result["figures"] if f["who"] != OURS)
    assert result["disagreements"] == []
    told = "\n".join(result["agreement"])
    assert "itchcpp (books): final best prices and sizes of 2 instruments" in told
    assert "itch-book (books + BBO): final best prices and sizes of 2 instruments" in told
    assert "live orders" in told


def test_memory_and_latency_are_there(result: dict[str, Any]) -> None:
    assert 0 < result["memory"]["anonymous"] < 500e6
    assert result["memory"]["live_orders"] > 0
    runs = result["latency"]["runs"]
    assert [(r["stage"], r["load"]) for r in runs] == [
        (stage, load) for stage in ("books", "books and scoring") for load in (0.1, 0.5, 0.9, 0.5)
    ]
    assert any("too short" in n for n in result["notices"])


def test_tables_for_people(itch: Path, model: Path, run: Callable[..., Any]) -> None:
    words = ("bench", "--input", itch, "--model", model, "--repeats", "1", "--paced-seconds", "0.01")
    code, out, err = run(*words, "--messages", "20000")
    assert code == 0
    assert "paced latency" in out
    assert "resting orders" in out
    assert "only the first 20,000 messages" in err
    words = ("bench", "--input", itch, "--model", model, "--repeats", "1", "--paced-seconds", "0")
    code, out, err = run(*words, "--no-rivals", "--json")
    assert (code, out["latency"]) == (0, None)
    assert {f["who"] for f in out["figures"]} == {OURS}


def test_compressed_input_is_unpacked_once(itch: Path, tmp_path: Path) -> None:
    packed = tmp_path / f"{itch.name}.gz"
    packed.write_bytes(gzip.compress(itch.read_bytes(), 1))
    given = prepare(Source((str(packed),)), tmp_path)
    assert given.itch == tmp_path / itch.name
    assert given.itch.read_bytes() == itch.read_bytes()
    assert "was unpacked once" in given.notices[0]
    assert given.frames[-1] == (itch.stat().st_size, given.frames[-1][1])
    assert b"".join(given.pieces()) == itch.read_bytes()


def test_a_readme_beside_the_recording_is_left_there(itch: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "day.itch").write_bytes(itch.read_bytes())
    (tmp_path / "in" / "README.md").write_text("words")
    given = prepare(Source((str(tmp_path / "in"),)), tmp_path)
    assert [p.name for p in given.files] == ["day.itch"]


def test_no_room_to_unpack(itch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = tmp_path / f"{itch.name}.gz"
    packed.write_bytes(gzip.compress(itch.read_bytes(), 1))
    monkeypatch.setattr(bench_input.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(OutputError, match="set TMPDIR"):
        prepare(Source((str(packed),)), tmp_path)


def test_what_cannot_be_meant(itch: Path, capture: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one"):
        bench([str(itch)], repeats=0)
    with pytest.raises(UsageError, match="--messages shortens"):
        prepare(Source((str(capture),)), tmp_path, 10)
    with pytest.raises(UsageError, match="--messages 0"):
        prepare(Source((str(itch),)), tmp_path, 0)


def test_captures_have_no_rivals(capture: Path, tmp_path: Path) -> None:
    given = prepare(Source((str(capture),)), tmp_path)
    assert given.itch is None
    found, notices = bench_rivals.find_rivals(given, tmp_path)
    assert found == []
    assert "take no part" in notices[0]


def test_a_rival_that_is_not_installed_is_named(itch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_rivals, "find_spec", lambda name: None if name == "itch_book" else object())
    found, notices = bench_rivals.find_rivals(prepare(Source((str(itch),)), tmp_path), tmp_path)
    assert {c.who for c in found} == {"itchcpp"}
    assert notices == ["itch-book is not installed: pip install itch-book"]


def test_a_rival_under_another_name_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"comes from json\.decoder, not from itchcpp"):
        bench_rivals.owned(json.JSONDecoder, "itchcpp")


def contender(who: str, answer: dict[str, Any] | None = None, figure: str = "books", seconds: float = 1.0) -> Contender:
    def go(check: bool) -> Done:
        if answer is None:
            raise ValueError("cannot read this")
        return Done(100, seconds, seconds, answer if check else {})

    return Contender(figure, who, "messages", go)


def test_differences_are_told_and_failures_drop_out() -> None:
    notices: list[str] = []
    ours = {"live_orders": 5, "best": {"A": (1, 1, 2, 2), "B": (0, 0, 3, 3)}}
    theirs = {"live_orders": 6, "best": {"A": (1, 1, 2, 2), "B": (0, 0, 3, 4)}}
    race = _Race([contender(OURS, ours), contender("x", theirs, seconds=3.0), contender("y")], notices, None)
    race.run(2)
    assert race.disagreements == [
        "x (books): best of B (0, 0, 3, 4), ours (0, 0, 3, 3)",
        "x (books): live_orders 6, ours 5",
    ]
    assert notices == ["y (books) dropped out: ValueError: cannot read this"]
    assert [(f["who"], f.get("ratio")) for f in race.figures()] == [(OURS, None), ("x", 3.0)]


def test_our_own_failure_is_not_hidden() -> None:
    with pytest.raises(ValueError, match="cannot read this"):
        _Race([contender(OURS)], [], None).run(1)


def test_memory_says_why_it_is_not_there(tmp_path: Path) -> None:
    assert "ended with 1" in memory(Source((str(tmp_path / "none"),)))["unavailable"]


def test_bars() -> None:
    assert bar(1.0, 1.0, 4) == "████"
    assert bar(0.5, 1.0, 3) == "█▌"
    assert len(bar(0.001, 1.0, 8)) == 1
    assert bar(0.0, 1.0) == bar(1.0, 0.0) == ""


def test_it_makes_its_own_input(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "SIMULATED_SECONDS", 60.0)
    out = benchmark.bench(model=model, repeats=1, paced_seconds=0, rivals=False)
    assert out["input"] == "generated: simulator seed 7, 60 s, ITCH 5.0"


@pytest.mark.realdata
def test_dbn_beside_its_own_package(data_dir: Path, model: Path) -> None:
    path = data_dir / "databento_cme_es" / "esh4-glbx-mdp3-20231224.mbo.dbn.zst"
    out = bench([str(path)], model=model, repeats=1, paced_seconds=0)
    assert out["format"] == "dbn"
    assert any(line.startswith("databento-dbn (parse): ") for line in out["agreement"])
    assert out["disagreements"] == []


@pytest.mark.realdata
def test_lobster_beside_csv_readers(data_dir: Path, model: Path) -> None:
    path = data_dir / "lobster_amzn_aapl" / "AAPL_2012-06-21_34200000_57600000_message_10.csv"
    out = bench([str(path)], model=model, repeats=1, paced_seconds=0)
    assert {f["who"] for f in out["figures"]} == {OURS, "polars", "pyarrow"}
