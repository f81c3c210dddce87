"""The end of a bench inside the simulated process: what it counted goes to the job's result file, pass or fail."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from sim.scoreboard import Job, Mismatch, Scoreboard


@contextlib.contextmanager
def report(job: Job, board: Scoreboard, cycles: Callable[[], int], **more: Any) -> Iterator[dict[str, Any]]:
    """Write counts when the body ends, however it ends; raise Mismatch when there were differences.

    The body may add to the dictionary that it gets.
    """
    extra: dict[str, Any] = dict(more)
    began = time.perf_counter()
    try:
        yield extra
    finally:
        counts = {
            "vectors": board.seen,
            "differences": board.differences,
            "examples": board.examples,
            "first": board.first,
            "cycles": cycles(),
            "seconds": round(time.perf_counter() - began, 3),
            **extra,
        }
        job.result.write_text(json.dumps(counts))
    if board.differences:
        raise Mismatch(f"{board.differences} differences in {board.seen} results; {'; '.join(board.examples)}")
