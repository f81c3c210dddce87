"""The command line as its users call it: exit codes, clean stdout, one line an error."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microrisk.cli import app, main
from microrisk.evaluate.demo import demo
from microrisk.pipeline import replay
from microrisk.pipeline.bench import quantiles

COMMANDS = {
    *("replay", "features", "score", "convert", "train", "models", "evaluate", "demo", "bench", "doctor", "fetch"),
    *("monitor", "publish"),
}


def call(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "microrisk", *words], capture_output=True, text=True, timeout=120, env=os.environ | env
    )


def test_help_names_every_command_and_loads_little() -> None:
    done = call("--help")
    assert done.returncode == 0
    assert set(re.findall(r"^│ ([a-z]+) ", done.stdout, re.MULTILINE)) >= COMMANDS
    assert "Exit codes: 0 ok" in done.stdout
    heavy = ("numpy", "numba", "torch", "polars", "pyarrow")
    program = f"import sys, microrisk.cli; print([m for m in {heavy} if m in sys.modules])"
    lean = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert lean.stdout.strip() == "[]"


@pytest.mark.parametrize("command", sorted(COMMANDS - {"models"}))
def test_every_option_has_a_line_of_help(command: str, run: Callable[..., Any]) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    assert "Examples:" in out
    options = re.findall(r"│ \*?\s*(--[a-z-]+)(?: [A-Z.]+)?([^│]*)│", out)
    assert options
    assert all(text.strip() for name, text in options), options


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nonsense"], "nonsense"),
        (["replay"], "INPUTS"),
        (["replay", "no_such_file", "--json"], "no_such_file"),
        (["replay", "no_such_file", "--colour"], "--colour"),
        (["score", "x", "--backend", "abacus"], "abacus"),
        (["score", "x", "--check-every", "often"], "often"),
        (["convert", "x", "--to", "csv", "--out", "y"], "csv"),
        (["monitor"], "nothing to monitor"),
        (["monitor", "kraken:BTC/USD?dept=10"], "did you mean depth"),
        (["features"], "--list"),
        (["models", "show", "nobody"], "nobody"),
        (["evaluate", "--model", "nobody"], "nobody"),
    ],
)
def test_usage_errors_end_with_2_and_one_line(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert text in err
    assert err.startswith("microrisk: ")
    assert err.count("\n") == 1
    assert (json.loads(out)["exit"] == 2) if "--json" in words else out == ""


def test_a_format_that_is_not_known(itch: Path, run: Callable[..., Any]) -> None:
    code, _, err = run("replay", itch, "--format", "morse")
    assert code == 2
    assert "unknown format 'morse'" in err


def test_json_is_alone_on_stdout(itch: Path, model: Path, tmp_path: Path) -> None:
    done = call("score", str(itch), "--model", str(model), "--json", "--out", str(tmp_path / "s"))
    assert done.returncode == 0
    assert json.loads(done.stdout)["rows"] > 0
    assert "integrity: nothing found" in done.stderr


def test_the_version(run: Callable[..., Any]) -> None:
    code, out, _ = run("--version")
    assert code == 0
    assert re.match(r"\d+\.\d+", out)


def test_the_table_of_features(run: Callable[..., Any]) -> None:
    code, out, _ = run("features", "--list", "--json")
    assert code == 0
    assert [f["index"] for f in out["features"]] == list(range(32))
    code, text, _ = run("features", "--list")
    assert "sign(f4)" in text


def test_replay_for_people(itch: Path, session: Any, run: Callable[..., Any]) -> None:
    code, out, err = run("replay", itch)
    assert code == 0
    assert "SIM1.XNAS" in out
    assert f"{len(session.events) + 6:,} messages" in out
    assert err == "integrity: nothing found\n"


def test_models_are_promoted_and_listed(model: Path, run: Callable[..., Any]) -> None:
    assert run("models", "promote", model, "--name", "mine", "--json")[0] == 0
    code, out, _ = run("models", "list", "--json")
    assert code == 0
    assert [(m["name"], m["current"]) for m in out["models"] if m["origin"] == "registry"] == [("mine", True)]
    assert run("models", "promote", model, "--name", "mine")[0] == 2
    code, out, _ = run("models", "show", "--json")
    assert out["name"] == "mine"
    assert "format_hash" in out["card"]


def test_a_damaged_model_is_shown_as_such(model: Path, tmp_path: Path, run: Callable[..., Any]) -> None:
    hurt = tmp_path / "hurt"
    hurt.mkdir()
    for file in model.iterdir():
        (hurt / file.name).write_bytes(file.read_bytes()[:-5])
    code, _, err = run("models", "show", hurt)
    assert code == 3
    assert err.startswith("microrisk: ")


def test_doctor_tells_facts(model: Path, run: Callable[..., Any]) -> None:
    run("models", "promote", model, "--name", "mine")
    code, out, _ = run("doctor", "--json")
    assert code == 0, out["problems"]
    assert out["extension"]["abi_hash"] == out["extension"]["expected"]
    assert {s["name"] for s in out["scorers"]} >= {"reference", "cpu", "cuda"}
    assert next(s for s in out["scorers"] if s["name"] == "cpu")["unavailable"] is None
    assert out["numba_cache"]["writable"] in (True, False)
    assert run("doctor")[0] == 0


def test_bench_measures_every_stage(itch: Path, model: Path, run: Callable[..., Any]) -> None:
    words = ("--repeats", "1", "--no-rivals", "--paced-seconds", "0", "--json")
    code, out, _ = run("bench", "--input", itch, "--model", model, *words)
    assert code == 0
    assert all(f["ns_each"] > 0 and f["items"] > 10_000 for f in out["figures"])
    lat = out["tick_to_alert_ns"]
    assert 0 < lat["p50"] <= lat["p99"] <= lat["p99.9"]
    assert lat["messages"] == out["figures"][0]["items"]


def test_quantiles_of_a_histogram() -> None:
    edges, counts = np.array([0, 10, 20, 40]), np.array([50, 49, 1, 0])
    assert quantiles(edges, counts) == {"p50": 10.0, "p99": 20.0, "p99.9": 40.0, "messages": 100}
    assert quantiles(edges, np.zeros(4)) == {"messages": 0}


@pytest.mark.slow
def test_demo_writes_a_report(model: Path, tmp_path: Path) -> None:
    said: list[str] = []
    result = demo(tmp_path / "d", seed=2, minutes=12.0, model=model, say=said.append)
    kinds = Counter(e["kind"] for e in result.episodes)
    assert kinds == dict.fromkeys(("layering", "stuffing", "withdrawal", "ignition", "wash"), 2) | {"gap": 3}
    assert result.found == sum(e["found"] for e in result.episodes) > 0
    # the packets of the last gap are really missing from the capture
    assert replay(result.recording, date="2025-01-06", venue="SIMX").integrity["gap"] == 1
    page = Path(result.report).read_text()
    assert "<html" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert Path(result.recording).exists()
    assert Path(result.scores).exists()
    assert any(c.startswith("microrisk doctor") for c in result.next_commands.values())
    json.dumps(result.to_json())
    again = demo(tmp_path / "e", seed=2, minutes=12.0, model=model)
    assert again.episodes == result.episodes


def test_the_commands_that_are_not_there_yet_are_not_pretended() -> None:
    assert not {"generate", "validate", "stress"} & set(app)
