"""Benchmarks run only when asked for; each record carries machine, commit and workload checksum."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.workloads import Workload, itch_stream


@pytest.fixture(scope="session")
def stream() -> Workload:
    """The generated ITCH stream all feed and book benchmarks share."""
    return itch_stream()


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    machine_info["cpu_model"], machine_info["commit"] = _cpu(), commit.strip()


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    """The record keeps statistics, not every round, and no name of the machine."""
    for row in output_json["benchmarks"]:
        row["stats"].pop("data", None)
    for name in ("node", "cpu"):
        output_json["machine_info"].pop(name, None)
