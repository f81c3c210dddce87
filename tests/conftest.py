"""Shared fixtures and Hypothesis profiles; a run says which back ends and recordings it exercised."""

from __future__ import annotations

import os
from pathlib import Path

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
