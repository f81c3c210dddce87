"""Write one self-contained HTML page about a run."""

from __future__ import annotations

from pathlib import Path

from microrisk.evaluate.report_data import (
    Alert,
    BookWindow,
    Driver,
    Headline,
    HeadTrace,
    Latency,
    ModelFacts,
    PlantedEpisode,
    Report,
    Trades,
)

__all__ = [
    "Alert",
    "BookWindow",
    "Driver",
    "HeadTrace",
    "Headline",
    "Latency",
    "ModelFacts",
    "PlantedEpisode",
    "Report",
    "Trades",
    "write_report",
]


def write_report(path: str | Path, report: Report) -> Path:
    """Write `report` to `path` (UTF-8, no request leaves the page) and return the path."""
    from microrisk.evaluate.page import page

    target = Path(path)
    target.write_text(page(report), encoding="utf-8")
    return target
