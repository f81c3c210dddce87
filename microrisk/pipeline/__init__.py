"""The only driver of the spine: what the commands of the same names do, as functions that return what they found.

`replay` loads neither Numba nor torch; the others load what they need when they are called.
"""

from __future__ import annotations

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
