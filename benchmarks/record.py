"""What a page needs of the records: loading, and figures as Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import RECORDED

__all__ = ["RECORDED", "Record", "flow", "load", "number", "ranged", "table"]
Record = dict[str, Any]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(v: float) -> str:
    """Three significant digits, thousands with commas."""
    if abs(v) >= 1000:
        return f"{v:,.0f}"
    return f"{v:.3g}"


def ranged(s: dict[str, float], unit: str = "") -> str:
    """Median [least to greatest]."""
    return f"{number(s['median'])}{unit} [{number(s['low'])}-{number(s['high'])}]"


def flow(words: str) -> str:
    """One line of a text written over several."""
    return " ".join(words.split())


def load(name: str, folder: Path) -> Record | None:
    """A record, None when it is not there."""
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    record: Record = json.loads(path.read_text())
    return record
