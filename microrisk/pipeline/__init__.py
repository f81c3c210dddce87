"""The only driver of the spine: what the commands of the same names do, as functions that return what they found.

`replay` loads neither Numba nor torch; the others load what they need when they are called. The functions themselves
are loaded when they are first asked for: half of the start-up time of a replay would else go into the other commands.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from microrisk.pipeline.coding import FeaturesResult, features
    from microrisk.pipeline.interchange import ConvertResult, convert
    from microrisk.pipeline.rebuild import ReplayResult, replay
    from microrisk.pipeline.scoring import ScoreResult, score
    from microrisk.pipeline.spine import Outcome, Source

__all__ = [
    "ConvertResult",
    "FeaturesResult",
    "Outcome",
    "ReplayResult",
    "ScoreResult",
    "Source",
    "convert",
    "features",
    "replay",
    "score",
]

_HOME = {
    "ConvertResult": "interchange",
    "FeaturesResult": "coding",
    "Outcome": "spine",
    "ReplayResult": "rebuild",
    "ScoreResult": "scoring",
    "Source": "spine",
    "convert": "interchange",
    "features": "coding",
    "replay": "rebuild",
    "score": "scoring",
}


def __getattr__(name: str) -> Any:
    """Load the module of a public name (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
