"""Grade the packaged model on fresh simulated sessions and record the table: python -m benchmarks.record_harness.

Writes benchmarks/recorded/harness.json without the outcome of each single episode.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
from pathlib import Path
from typing import Any

from microrisk.evaluate.sessions import run
from microrisk.score.registry import load_model

SESSIONS = 12
OUT = Path(__file__).parent / "recorded" / "harness.json"


def record() -> dict[str, Any]:
    """The result with date and size of the machine, outcomes left out."""
    found = run(load_model("default"), sessions=SESSIONS, say=lambda text: sys.stderr.write(f"{text}\n")).to_json()
    result: dict[str, Any] = json.loads(found) if isinstance(found, str) else found
    for row in result["rows"]:
        for at in row["at"]:
            at.pop("outcomes", None)
    return {"date": dt.datetime.now(dt.UTC).date().isoformat(), "cores": os.cpu_count(), **result}


if __name__ == "__main__":
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(record(), indent=1) + "\n")
