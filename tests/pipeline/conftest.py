"""A short simulated day as exchange bytes, and a throw-away model that alarms on it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from microrisk.cli import main
from microrisk.features.normalise import fit_table
from microrisk.feed.encode import encode_message, frame
from microrisk.market.simulator import Session, simulate
from microrisk.market.write import write_itch, write_mold_pcap
from microrisk.model.calibrate import calibrate
from microrisk.model.synthetic import random_weights
from microrisk.pipeline.fitting import scored
from microrisk.pipeline.gather import gather
from microrisk.pipeline.memory import simulated
from microrisk.spec.features import ALL_MASK
from microrisk.weights import GENERIC, Weights

sys.path.insert(0, str(Path(__file__).parent))  # helper modules of this folder

SECONDS = 240.0


@pytest.fixture(scope="session")
def session() -> Session:
    return simulate(3, SECONDS, instruments=2)


@pytest.fixture(scope="session")
def itch(session: Session, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The session as ITCH 5.0; its date is in the name."""
    return write_itch(session, tmp_path_factory.mktemp("itch") / "sim_2025-01-06.itch")


@pytest.fixture(scope="session")
def capture(session: Session, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The session as a capture of MoldUDP64."""
    return write_mold_pcap(session, tmp_path_factory.mktemp("pcap") / "sim_2025-01-06.pcap")


@pytest.fixture(scope="session")
def short() -> Session:
    """Little enough for the naive book."""
    return simulate(6, 45.0, instruments=2)


@pytest.fixture(scope="session")
def weights(session: Session) -> Weights:
    """Random layers, a real generic table, and thresholds that are crossed often."""
    held = simulated(session)
    table = fit_table([r.raw for r in gather(held).by_id.values()])
    made = random_weights(5).with_table(GENERIC, table, tick=0, lot=0)
    often = dict.fromkeys(("maxz", "maha", "vae", "exposure"), 300.0)
    level = calibrate(list(scored(made, held).values()), often).level
    return made.with_level(GENERIC, ALL_MASK, level)


@pytest.fixture(scope="session")
def model(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return weights.save(tmp_path_factory.mktemp("models") / "throwaway")


@pytest.fixture(autouse=True)
def _own_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the registry of the user who runs it."""
    monkeypatch.setenv("MICRORISK_MODELS", str(tmp_path / "registry"))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any, str]]:
    """Call the command line: (exit code, stdout as JSON when --json was among the words, stderr)."""

    def call(*words: str | Path) -> tuple[int, Any, str]:
        texts = [str(w) for w in words]
        capsys.readouterr()
        code = main(texts)
        out, err = capsys.readouterr()
        return code, json.loads(out) if "--json" in texts else out, err

    return call


@pytest.fixture(scope="session")
def itch_message() -> Callable[..., bytes]:
    """One framed ITCH message about locate 1: `itch_message("A", ref=5, side="B", ...)`, stock and times filled in."""

    def made(code: str, **fields: int | str) -> bytes:
        common: dict[str, int | str] = {"locate": 1, "tracking": 0, "timestamp": 34_200_000_000_000}
        if code in "AR":
            common["stock"] = "TEST"
        return frame([encode_message(code, **(common | fields))])

    return made
