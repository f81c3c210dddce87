"""The back end `rtl`: the unrolled core, simulated, behind the Scorer interface.

`load` makes the core of a model and a mask (a minute for all four heads, then kept by content), `score` talks through
pipes to one simulator process that lives as long as the scorer, so that a batch pays neither a build nor a start.
Verilator where it runs here, else Icarus, which is some hundred times slower.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from microrisk.errors import BackendUnavailable, MicroriskError
from microrisk.spec.features import ALL_MASK
from microrisk.spec.records import N_FEATURES
from microrisk.spec.weightfile import HEADS
from microrisk.weights import Weights
from sim import tools

STALL_S = 30.0
"""Seconds without a byte from the simulator after which it counts as stalled."""
CHUNKS = {"verilator": 1 << 15, "icarus": 128}
"""Rows a request; Icarus answers while it reads, so its answers must fit the pipe."""
ORDER = ("verilator", "icarus")
RESULT_BYTES = 4 * len(HEADS)


class SimulatorFailed(MicroriskError, RuntimeError):
    """The simulated core stalled, ended, or answered something that cannot be read; the text says which."""


class RtlScorer:
    """The simulated unrolled core as a Scorer.

    Parameters
    ----------
    simulator : "verilator" or "icarus"; None = the first of them that runs here
    stall_s : seconds without an answer after which a call raises SimulatorFailed
    """

    name = "rtl"

    def __init__(self, simulator: str | None = None, *, stall_s: float = STALL_S) -> None:
        self.simulator, self.stall_s = simulator, stall_s
        self._command: list[str] | None = None
        self._process: Process | None = None
        self._lock = threading.Lock()

    def unavailable(self) -> str | None:
        """Which package or simulator is missing and how to install it, or None."""
        for module in ("amaranth", "pyosys"):
            try:
                tools.need_module(module)
            except BackendUnavailable as e:
                return str(e)
        names = ORDER if self.simulator is None else (self.simulator,)
        reasons = [tools.available(name) for name in names]
        return None if None in reasons else "; ".join(r for r in reasons if r)

    def load(self, weights: Weights, mask: int = ALL_MASK) -> None:
        """Make or find the core of these weights and start it.

        Raises
        ------
        WeightFileError : the weights must not be used
        BackendUnavailable : no simulator here, or the core could not be built
        """
        from sim import catalogue, native

        weights.validate()
        name = self._choose()
        try:
            design = catalogue.core(weights, HEADS, mask).design()
            command = native.program(design, name, inputs=N_FEATURES, outputs=RESULT_BYTES, form="fast")
        except MicroriskError as e:
            raise BackendUnavailable(f"the core of these weights cannot be simulated: {e}") from e
        with self._lock:
            self._stop()
            self._command, self._chosen = command, name
            self._start()

    def score(self, codes: NDArray[np.int8]) -> NDArray[np.int32]:
        """int8[n, N_FEATURES] -> int32[n, N_HEADS].

        RuntimeError before load. SimulatorFailed when the process stalled or ended; the next call starts a new one.
        """
        if self._command is None:
            raise RuntimeError("score() before load()")
        rows = np.ascontiguousarray(codes)
        if rows.ndim != 2 or rows.shape[1] != N_FEATURES or rows.dtype != np.int8:
            raise SimulatorFailed(f"codes must be int8[n, {N_FEATURES}], not {rows.dtype}{list(rows.shape)}")
        out = np.empty((len(rows), len(HEADS)), np.int32)
        step = CHUNKS[self._chosen]
        with self._lock:
            for k in range(0, len(rows), step):
                out[k : k + step] = self._exchange(rows[k : k + step])
        return out

    def close(self) -> None:
        """End the simulator; a later score starts it again."""
        with self._lock:
            self._stop()

    # ---- the process ----

    def _choose(self) -> str:
        reason = self.unavailable()
        if reason:
            raise BackendUnavailable(reason)
        return self.simulator or next(name for name in ORDER if tools.available(name) is None)

    def _start(self) -> Process:
        assert self._command is not None
        self._process = Process(self._command, self.stall_s)
        return self._process

    def _stop(self) -> None:
        if self._process is not None:
            self._process.end()
        self._process = None

    def _exchange(self, rows: NDArray[np.int8]) -> NDArray[np.int32]:
        process = self._process or self._start()
        try:
            return _verilator_batch(process, rows) if self._chosen == "verilator" else _icarus_batch(process, rows)
        except BaseException:
            # half an answer may be under way: this process cannot be asked again
            self._stop()
            raise


def _verilator_batch(process: Process, rows: NDArray[np.int8]) -> NDArray[np.int32]:
    answer = process.ask(
        np.uint32(len(rows)).tobytes() + rows.tobytes(), lambda got: len(got) - len(rows) * RESULT_BYTES
    )
    return np.frombuffer(answer, "<i4").reshape(len(rows), len(HEADS))


def _icarus_batch(process: Process, rows: NDArray[np.int8]) -> NDArray[np.int32]:
    lines = [f"{len(rows)}", *(row.tobytes()[::-1].hex() for row in rows)]
    answer = process.ask(("\n".join(lines) + "\n").encode(), lambda got: got.count(b"\n") - len(rows))
    try:
        raw = b"".join(bytes.fromhex(line)[::-1] for line in answer.decode().split())
    except ValueError as e:
        raise SimulatorFailed(f"the simulated core gave no numbers: {answer[:200].decode(errors='replace')}") from e
    return np.frombuffer(raw, "<i4").reshape(len(rows), len(HEADS))


class Process:
    """A program that answers requests on pipes, with a limit on every wait.

    Parameters
    ----------
    command : what to run; it ends with this object
    stall_s : longest wait for the next byte in either direction
    """

    def __init__(self, command: list[str], stall_s: float) -> None:
        self.stall_s = stall_s
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, bufsize=0
        )
        for pipe in (self._child.stdin, self._child.stdout):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
        self._finalize = weakref.finalize(self, _end, self._child, self._errors)

    def ask(self, request: bytes, missing: Callable[[bytearray], int]) -> bytes:
        """Send a request and collect its answer.

        missing : of what has come so far, negative while the answer is not complete, 0 when it is, positive when too
        much came
        """
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        got, left = bytearray(), memoryview(request)
        with selectors.DefaultSelector() as wait:
            wait.register(self._child.stdout, selectors.EVENT_READ)
            wait.register(self._child.stdin, selectors.EVENT_WRITE)
            while (short := missing(got)) < 0:
                ready = wait.select(self.stall_s)
                if not ready:
                    raise SimulatorFailed(f"the simulated core did not answer within {self.stall_s} s{self._said()}")
                for key, _ in ready:
                    if key.fileobj is self._child.stdin:
                        left = self._send(left)
                        if not left:
                            wait.unregister(self._child.stdin)
                    else:
                        got += self._receive()
        if short > 0:
            raise SimulatorFailed("the simulated core gave more than it was asked for")
        return bytes(got)

    def _send(self, left: memoryview) -> memoryview:
        assert self._child.stdin is not None
        try:
            return left[os.write(self._child.stdin.fileno(), left) :]
        except BlockingIOError:
            return left
        except BrokenPipeError as e:
            raise SimulatorFailed(f"the simulated core ended{self._said()}") from e

    def _receive(self) -> bytes:
        assert self._child.stdout is not None
        found = os.read(self._child.stdout.fileno(), 1 << 20)
        if not found:
            raise SimulatorFailed(f"the simulated core ended{self._said()}")
        return found

    def _said(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(0.2)
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace").strip()
        code = self._child.poll()
        return (f" with {code}" if code is not None else "") + (f": {text[-300:]}" if text else "")

    @property
    def pid(self) -> int:
        """Process number."""
        return self._child.pid

    def end(self) -> None:
        """End the program."""
        self._finalize()


def _end(child: subprocess.Popen[Any], errors: IO[bytes]) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    deadline = time.monotonic() + 1
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    if child.poll() is None:
        child.kill()
    child.wait()
    errors.close()
