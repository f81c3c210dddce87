"""What a bench expects, in order, and what it says about each result; and how jobs and results pass the process border.

Expected values are computed once, in bulk, by the caller, and handed over as an array: the process that simulates
never computes a reference of its own.
"""

from __future__ import annotations

import json
import os
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

JOB_VARIABLE = "MICRORISK_SIM_JOB"
SHOWN = 8
"""Differences that are kept word for word; the rest is counted."""


def pack(rows: NDArray[Any]) -> list[int]:
    """Rows of integers as payloads: the first column in the lowest bits, little-endian two's complement."""
    whole = np.ascontiguousarray(rows)
    width = whole.shape[1] * whole.dtype.itemsize
    raw = whole.astype(whole.dtype.newbyteorder("<"), copy=False).tobytes()
    return [int.from_bytes(raw[k : k + width], "little") for k in range(0, len(raw), width)]


def unpack(payload: int, like: NDArray[Any]) -> NDArray[Any]:
    """One payload as a row of the dtype and length of `like`'s rows."""
    width = like.shape[1] * like.dtype.itemsize
    return np.frombuffer(payload.to_bytes(width, "little"), like.dtype.newbyteorder("<"))


@dataclass
class Job:
    """What a simulated process is to do, read from the file that JOB_VARIABLE names.

    Attributes
    ----------
    codes, expected : rows to drive and rows to see
    latency : cycles from the edge that takes a row to the edge after which its result is shown
    seed : of all patterns
    limit : cycles without any progress after which a bench gives up
    stop : give up at the first difference
    options : anything else that one bench wants to know
    result : file that the bench writes
    """

    codes: NDArray[np.int8]
    expected: NDArray[np.int32]
    latency: int
    seed: int
    limit: int
    stop: bool
    options: dict[str, Any]
    result: Path

    @classmethod
    def read(cls) -> Job:
        """The job of this process."""
        path = Path(os.environ[JOB_VARIABLE])
        about = json.loads(path.read_text())
        arrays = [np.load(path.parent / f"{name}.npy") for name in ("codes", "expected")]
        return cls(*arrays, **about, result=path.parent / "result.json")


def write_job(
    folder: Path, codes: NDArray[np.int8], expected: NDArray[np.int32], *, latency: int, seed: int, limit: int,
    stop: bool, options: dict[str, Any],
) -> Path:  # fmt: skip
    """Put a job into a folder; returns its file."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "codes.npy", codes)
    np.save(folder / "expected.npy", expected)
    about = {"latency": latency, "seed": seed, "limit": limit, "stop": stop, "options": options}
    path = folder / "job.json"
    path.write_text(json.dumps(about))
    return path


class Mismatch(AssertionError):
    """A bench saw something that its reference excludes."""


@dataclass
class Scoreboard:
    """Results against what is expected, in order.

    Attributes
    ----------
    stop : raise at the first difference
    seen, differences : counted since the start
    examples : the first differences in words
    first : (vector, cycle) of the first difference
    """

    stop: bool = False
    seen: int = 0
    differences: int = 0
    examples: list[str] = field(default_factory=list)
    first: tuple[int, int] | None = None
    _queue: deque[tuple[int, int, int]] = field(default_factory=deque)

    def expect(self, vector: int, payload: int, cycle: int) -> None:
        """Result `payload` of vector number `vector` is to come in cycle `cycle`; -1 = in any."""
        self._queue.append((vector, payload, cycle))

    def result(self, payload: int | None, cycle: int) -> None:
        """A result came; None = it holds undefined bits."""
        self.seen += 1
        if not self._queue:
            self.differ(-1, cycle, f"a result that nothing was sent for: {_text(payload)}")
            return
        vector, expected, due = self._queue.popleft()
        if payload != expected:
            self.differ(vector, cycle, f"vector {vector}: {_text(payload)}, reference {expected:#x}")
        elif due not in (-1, cycle):
            self.differ(vector, cycle, f"vector {vector}: result in cycle {cycle}, due in {due}")

    def differ(self, vector: int, cycle: int, text: str) -> None:
        """Count a difference; raise Mismatch where the first one is to end the bench."""
        self.differences += 1
        self.first = self.first or (vector, cycle)
        if len(self.examples) < SHOWN:
            self.examples.append(f"cycle {cycle}: {text}")
        if self.stop:
            raise Mismatch(self.examples[0])

    def forget(self) -> int:
        """Drop what is expected (a reset has emptied the design); returns how many results that were."""
        dropped = len(self._queue)
        self._queue.clear()
        return dropped

    def expect_first(self, payload: int) -> None:
        """The oldest of what is expected is to be this payload after all."""
        if self._queue:
            vector, _, due = self._queue.popleft()
            self._queue.appendleft((vector, payload, due))

    @property
    def pending(self) -> int:
        """Results that are still to come."""
        return len(self._queue)


def _text(payload: int | None) -> str:
    return "undefined bits" if payload is None else f"{payload:#x}"
