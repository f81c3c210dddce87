"""What a scorer is, and how one is found by name. Nothing here imports torch.

A scorer turns codes into heads and keeps no memory between calls: smoothing and alarms are score/alert.py.
All scorers give the same integers as Weights.compute, so changing one for another changes speed and nothing else.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from microrisk.errors import BackendUnavailable
from microrisk.spec.features import ALL_MASK
from microrisk.weights import Weights

GROUP = "microrisk.scorers"
"""Entry-point group; other packages may add scorers to it."""
FAILOVER = ("fpga", "rtl", "cuda", "cpu", "reference")
"""Once a back end was named and fails, the next one of this order that runs here takes over."""
CUDA_BATCH = 1 << 16
"""Rows in one call from which `auto` prefers cuda. On an H200 the two meet near 10,000 rows, and at 65,536 cuda is five
times as fast (benchmarks/recorded/gpu.json); a smaller GPU or a slower bus needs the margin."""

_BUILTIN = {
    "reference": "microrisk.score.reference_scorer:ReferenceScorer",
    "cpu": "microrisk.score.cpu_scorer:CpuScorer",
    "cuda": "microrisk.score.torch_scorer:CudaScorer",
    "fpga": "microrisk.score.fpga:FpgaScorer",
}


@runtime_checkable
class Scorer(Protocol):
    """Codes to heads, to the bit.

    Attributes
    ----------
    name : the name by which it is asked for
    """

    name: str

    def unavailable(self) -> str | None:
        """Why it cannot run here, in one clause; None when it can."""

    def load(self, weights: Weights, mask: int = ALL_MASK) -> None:
        """Take a model and the features that the feed carries; replaces what was loaded before."""

    def score(self, codes: NDArray[np.int8]) -> NDArray[np.int32]:
        """int8[n, N_FEATURES] -> int32[n, N_HEADS]; equal to Weights.compute(codes, mask)."""


@dataclass(frozen=True)
class ScorerInfo:
    """One line of `doctor`: a scorer, where it comes from, and why it does not run here (None = it runs)."""

    name: str
    source: str
    unavailable: str | None


def list_scorers() -> list[ScorerInfo]:
    """Every known scorer, runnable or not. Inspecting cuda imports torch where torch is installed."""
    return [_inspect(name)[0] for name in _names()]


def open_scorer(name: str | None = None, *, batch: int = 1) -> Scorer:
    """A scorer that runs here, not loaded yet.

    Parameters
    ----------
    name : a scorer's name; None or "auto" = cpu, or cuda when `batch` rows come at once and it runs; never rtl or fpga
    batch : rows that a call will bring

    Raises
    ------
    BackendUnavailable : the named scorer is unknown or cannot run here; the text says why and what would work
    """
    if name is None or name == "auto":
        return _automatic(batch)
    info, scorer = _inspect(name)
    if scorer is None or info.unavailable is not None:
        raise BackendUnavailable(f"back end {name!r} cannot run here: {info.unavailable}; {_alternatives(name)}")
    return scorer


def failover(name: str) -> Scorer:
    """The scorer that takes over after `name` failed: the next of FAILOVER that runs here.

    Raises
    ------
    BackendUnavailable : nothing is left below `name`
    """
    below = FAILOVER[FAILOVER.index(name) + 1 :] if name in FAILOVER else ("cpu", "reference")
    for candidate in below:
        info, scorer = _inspect(candidate)
        if scorer is not None and info.unavailable is None:
            return scorer
    raise BackendUnavailable(f"back end {name!r} failed and none of {', '.join(below) or 'the others'} runs here")


def _automatic(batch: int) -> Scorer:
    order = ("cuda", "cpu", "reference") if batch >= CUDA_BATCH else ("cpu", "reference")
    reasons = []
    for candidate in order:
        info, scorer = _inspect(candidate)
        if scorer is not None and info.unavailable is None:
            return scorer
        reasons.append(f"{candidate}: {info.unavailable}")
    raise BackendUnavailable("no back end runs here: " + "; ".join(reasons))


def _names() -> list[str]:
    found = {e.name for e in entry_points(group=GROUP)} | set(_BUILTIN) | {"rtl"}
    return sorted(found, key=lambda n: (list(_BUILTIN).index(n) if n in _BUILTIN else len(_BUILTIN), n))


def _inspect(name: str) -> tuple[ScorerInfo, Scorer | None]:
    """The scorer's line and, when its class could be made, the scorer."""
    source, make = _find(name)
    if make is None:
        return ScorerInfo(name, source, source), None
    try:
        scorer = make()
        return ScorerInfo(name, source, scorer.unavailable()), scorer
    except ImportError as e:
        return ScorerInfo(name, source, f"{source} cannot be imported: {e}"), None


def _find(name: str) -> tuple[str, Callable[[], Scorer] | None]:
    """(where it comes from, a function that makes it); (reason, None) for a name that nobody offers."""
    for e in entry_points(group=GROUP):
        if e.name == name:
            return e.value, lambda target=e.value: _import(target)
    if name in _BUILTIN:  # running from a source tree without installation
        return _BUILTIN[name], lambda: _import(_BUILTIN[name])
    if name == "rtl":
        return _checkout_rtl()
    return f"no scorer has the name {name!r}", None


def _import(target: str) -> Scorer:
    module, _, attribute = target.partition(":")
    scorer: Scorer = getattr(importlib.import_module(module), attribute)()
    return scorer


def _checkout_rtl() -> tuple[str, Callable[[], Scorer] | None]:
    """The simulated hardware lives in sim/ of the source checkout and is never installed under that general name."""
    file = Path(__file__).resolve().parents[2] / "sim" / "rtl_scorer.py"
    if not (file.is_file() and (file.parents[1] / "hdl").is_dir()):
        return "rtl runs only from the project's source checkout (folders hdl/ and sim/)", None
    return str(file), lambda: _load_rtl(file)


def _load_rtl(file: Path) -> Scorer:
    root = str(file.parents[1])
    if root not in sys.path:
        sys.path.append(root)  # sim/ and hdl/ import each other by these names
    scorer: Scorer = importlib.import_module("sim.rtl_scorer").RtlScorer()
    return scorer


def _alternatives(name: str) -> str:
    others = [n for n in ("cpu", "reference", "cuda") if n != name and _inspect(n)[0].unavailable is None]
    return f"these would work: {', '.join(others)}" if others else "no other back end runs here"
