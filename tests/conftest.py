"""Shared fixtures and Hypothesis profiles; a run says which back ends and recordings it exercised."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("nightly", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real recordings (MICRORISK_DATA); absent = the test is skipped and says so."""
    folder = os.environ.get("MICRORISK_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("real recordings are not here: set MICRORISK_DATA to their folder")
    return Path(folder)


_EXERCISED = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_EXERCISED] = []


@pytest.fixture
def exercised(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """`exercised("book twin: 10,000 sequences")` puts a line into the closing list of the run."""
    return request.config.stash[_EXERCISED].append


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Simulations first: their files are the longest, and two workers are to end together."""
    items.sort(key=lambda item: "tests/sim/" not in item.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist hands its lines to the process that writes the summary."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["exercised"] = session.config.stash[_EXERCISED]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """The lines of a worker that has ended."""
    node.config.stash[_EXERCISED].extend(getattr(node, "workeroutput", {}).get("exercised", []))


def _tally(reports: list[pytest.TestReport]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for r in reports:
        folder = str(Path(r.nodeid.split("::")[0]).parent)
        counts[folder] = counts.get(folder, 0) + 1
    return counts


def _recordings(reports: list[pytest.TestReport]) -> int:
    return sum("realdata" in r.keywords for r in reports)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What this run exercised: tests by folder, real recordings, back ends, and what tests said themselves."""
    passed = [r for r in terminalreporter.stats.get("passed", []) if r.when == "call"]
    if not passed:
        return
    write = terminalreporter.write_line
    terminalreporter.section("what was exercised")
    for folder, n in sorted(_tally(passed).items()):
        write(f"{folder}: {n} passed")
    write(f"on real recordings: {_recordings(passed)} tests")
    try:
        from microrisk.score.backend import list_scorers
    except ImportError:
        return
    for scorer in list_scorers():
        write(f"scorer {scorer.name}: {scorer.unavailable or 'runs here'}")
    for line in sorted(set(config.stash[_EXERCISED])):
        write(line)
