"""The monitor under load in small: what is sent is applied, timed by stage, and judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from microrisk.cli import main
from microrisk.errors import UsageError
from microrisk.market.simulator import simulate
from microrisk.market.write import write_itch
from microrisk.monitor.rated import Plan, at_rate, highest

STAGES = ["receive_taken", "taken_journalled", "journalled_scored", "receive_scored"]


def test_a_run_accounts_for_every_message(tmp_path: Path) -> None:
    path = write_itch(simulate(1, 60.0), tmp_path / "market.itch")
    got = at_rate(Plan(path=path, feeds=3, seconds=1.0), 6000.0)
    assert got["held"]
    assert got["applied"] == got["sent"]["messages"] > 4000
    assert list(got["stages"]) == STAGES
    assert all(0 < s["p50_us"] <= s["p99_us"] <= s["p999_us"] <= s["max_us"] for s in got["stages"].values())
    assert (got["kernel_drops"], got["missing"], got["names"], got["scored"]) == (0, 0, 3, 3)


@pytest.mark.parametrize("limit", [30_000.0, 70_000.0, 260_000.0])
def test_the_highest_rate_is_closed_in_upon(limit: float) -> None:
    asked: list[float] = []

    def run(rate: float) -> dict[str, Any]:
        asked.append(rate)
        return {"asked": rate, "held": rate <= limit, "applied": 0, "sent": {"messages": 1}, "kernel_drops": 1}

    best = highest(run)["asked"]
    assert best <= limit < best * 1.2
    assert len(asked) < 10


def test_a_machine_that_holds_nothing_is_told() -> None:
    lost = {"asked": 1.0, "held": False, "applied": 3, "sent": {"messages": 9}, "kernel_drops": 6}
    with pytest.raises(UsageError, match="3 of 9 applied, 6 dropped"):
        highest(lambda _: lost)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_itch(simulate(1, 60.0), tmp_path / "market.itch")
    words = ["bench", "live", "--rate", "5000", "--seconds", "1", "--feeds", "2", "--input", str(path)]
    assert main(words) == 0
    assert "receive to scored" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["held_messages_per_s"] == 5000.0
    assert told["runs"]["asked"]["held"]
