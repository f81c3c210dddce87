"""The packaged model and its market codes; a missing simulator fails a test with the command that installs it."""

from __future__ import annotations

import pytest

from microrisk.score.registry import load_model


@pytest.fixture(scope="session")
def weights():
    return load_model("default")
