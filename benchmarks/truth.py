"""What lies beside a generated stream FILE: FILE.json, its truth, and FILE.best.npy, the final bests of every name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def beside(path: Path | str, ending: str) -> Path:
    """The file of that ending beside a stream."""
    return Path(path).with_name(Path(path).name + ending)


def truth_of(path: Path | str) -> dict[str, Any]:
    """The keys that `day_stream` and `depth_stream` return."""
    found: dict[str, Any] = json.loads(beside(path, ".json").read_text())
    return found


def best_of(path: Path | str) -> NDArray[np.int64]:
    """(symbols, 4): bid px, bid qty, ask px, ask qty in 1e-4 dollars and shares; 0, 0 = empty side."""
    best: NDArray[np.int64] = np.load(beside(path, ".best.npy"))
    return best


def write_truth(path: Path | str, truth: dict[str, Any], best: NDArray[np.int64]) -> None:
    """Both files; the truth last, so that a stream with one is whole."""
    np.save(beside(path, ".best.npy"), best)
    beside(path, ".json").write_text(json.dumps(truth, indent=1) + "\n")
