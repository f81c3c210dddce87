"""Public samples over HTTP: found (`wanted`), asked for (`web`), got in pieces (`download`), proved (`proof`)."""

from __future__ import annotations

from microrisk.pipeline.fetching.download import Limits
from microrisk.pipeline.fetching.run import Fetched, fetch, listed
from microrisk.pipeline.fetching.wanted import Choice

__all__ = ["Choice", "Fetched", "Limits", "fetch", "listed"]
