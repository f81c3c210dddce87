"""The scorer `fpga`: a board on a serial port (microrisk.spec.uart), made by `python -m hdl.board`.

The board carries some heads of one model for one feature mask. Heads that it does not carry are computed here by the
cpu scorer, so that `score` gives what Weights.compute gives, to the bit, whatever the board carries. A damaged line is
asked again; a board that stays silent raises LinkFailed, which the pipeline answers with the next back end.

The port is locked while it is open: another program's questions would take this one's answers.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microrisk.errors import BackendUnavailable, MicroriskError
from microrisk.score.cpu_scorer import CpuScorer
from microrisk.spec.features import ALL_MASK
from microrisk.spec.records import N_FEATURES
from microrisk.spec.uart import (
    BAUD,
    BITS_PER_BYTE,
    COUNTERS,
    CRC_BYTES,
    FLUSH,
    FRAME_MAX,
    HEAD_BYTES,
    HEADER,
    IDENTITY_BYTES,
    ROWS_MAX,
    SEQUENCES,
    SYNC,
    VERSION,
    WINDOW,
    Refusal,
    Type,
    identity_parts,
)
from microrisk.spec.weightfile import HEADS
from microrisk.weights import FORMAT_HASH, Weights

PORT = "MICRORISK_FPGA_PORT"
"""Environment variable that names the serial port."""
WAIT_S = 1.0
"""Seconds without a byte after which a question counts as lost."""
QUIET_S = 0.05
"""Seconds of silence after which nothing of an old answer is under way any more."""
ATTEMPTS = 3
"""Times that the same rows are asked before the board is given up."""


class LinkFailed(MicroriskError, RuntimeError):
    """The board stays silent, refuses what it is asked, or is another one than at load; the text says which."""


class _Damaged(Exception):
    """An answer is missing or cannot be read."""


_Errors = tuple[type[Exception], ...]
_LOST: _Errors = (OSError,)
"""What a port raises that is not there any more; pyserial's own errors are OSErrors."""
with contextlib.suppress(ImportError):  # Windows has no termios
    _LOST += (importlib.import_module("termios").error,)
_RETRIED: _Errors = (_Damaged, *_LOST)
_NOT_OPENED: _Errors = (ValueError, *_LOST)


@dataclass(frozen=True)
class Identity:
    """What a board says of itself; fields and counters of spec.uart.IDENTITY_FIELDS.

    Attributes
    ----------
    heads : names, in the order of its results
    format_hash, weights_hash : 16 hexadecimal digits
    counters : questions accepted, wrong CRCs, refusals, framing errors and overruns since the board's start
    """

    version: int
    features: int
    heads: tuple[str, ...]
    rows: int
    mask: int
    format_hash: str
    weights_hash: str
    counters: dict[str, int]

    def same(self, other: Identity | None) -> bool:
        """Whether the other is a board of the same make; counters do not matter."""
        return other is not None and replace(other, counters=self.counters) == self


class FpgaScorer:
    """A board as a Scorer.

    Parameters
    ----------
    port : serial port; None = the environment variable MICRORISK_FPGA_PORT
    wait_s : seconds without an answer after which a question is asked again
    quiet_s : seconds of silence after which an old answer is no longer waited for

    Attributes
    ----------
    identity : of the board that answered last, None before
    """

    name = "fpga"

    def __init__(self, port: str | None = None, *, wait_s: float = WAIT_S, quiet_s: float = QUIET_S) -> None:
        self.port, self.wait_s, self.quiet_s = port, wait_s, quiet_s
        self.identity: Identity | None = None
        self._loaded: Identity | None = None
        self._host = CpuScorer()
        self._line: _Line | None = None
        self._lock = threading.Lock()

    def unavailable(self) -> str | None:
        """Why no board can be used, or None."""
        port = self.port or os.environ.get(PORT)
        if not port:
            return f"no port is named: set {PORT}, for instance to /dev/ttyUSB1"
        try:
            self._open(port)
        except (BackendUnavailable, LinkFailed) as e:
            return str(e)
        return None

    def load(self, weights: Weights, mask: int = ALL_MASK) -> None:
        """Check that the board was made from these weights and this mask.

        Raises
        ------
        BackendUnavailable : no board, or one made from something else; the text names both and the remedy
        WeightFileError : the weights must not be used
        """
        reason = self.unavailable()
        if reason:
            raise BackendUnavailable(reason)
        weights.validate()
        board = self.identity
        assert board is not None
        try:
            self._compare(board, weights, mask)
        except BackendUnavailable:
            self.close()  # a board that is of no use here stays free for others
            raise
        self._host.load(weights, mask)
        self._loaded = board

    def _compare(self, board: Identity, weights: Weights, mask: int) -> None:
        for what, theirs, ours in (
            ("format_hash", board.format_hash, FORMAT_HASH),
            ("weights", board.weights_hash, weights.heads_hash()),
            ("feature mask", f"{board.mask:#x}", f"{mask:#x}"),
        ):
            if theirs != ours:
                raise BackendUnavailable(
                    f"the board on {self._port()} was made for {what} {theirs}, this model needs {ours}: "
                    f"python -m hdl.board MODEL --heads {','.join(board.heads)} --mask {mask:#x}, then program it"
                )

    def score(self, codes: NDArray[np.int8]) -> NDArray[np.int32]:
        """int8[n, N_FEATURES] -> int32[n, N_HEADS]; RuntimeError before load, LinkFailed where the board is lost."""
        board = self._loaded
        if board is None:
            raise RuntimeError("score() before load()")
        rows = np.ascontiguousarray(codes)
        if rows.ndim != 2 or rows.shape[1] != N_FEATURES or rows.dtype != np.int8:
            raise LinkFailed(f"codes must be int8[n, {N_FEATURES}], not {rows.dtype}{list(rows.shape)}")
        carried = [HEADS.index(h) for h in board.heads]
        out = np.empty((len(rows), len(HEADS)), np.int32) if len(carried) == len(HEADS) else self._host.score(rows)
        with self._asked(self._port()) as line:
            if line.identity is None:
                line.identify()
            if not board.same(line.identity):
                raise LinkFailed(f"the board on {line.port} is another one than at load: {line.identity}, not {board}")
            out[:, carried] = line.score(rows, board.rows, len(carried))
        return out

    def close(self) -> None:
        """Give the port back; a later call opens it again."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._line is not None:
            self._line.close()
        self._line = None

    def _port(self) -> str:
        return self.port or os.environ.get(PORT) or ""

    @contextlib.contextmanager
    def _asked(self, port: str) -> Iterator[_Line]:
        """The open line; given back where the board is lost, so that the next call opens it anew."""
        with self._lock:
            try:
                if self._line is None or self._line.port != port:
                    self._drop()
                    self._line = _Line(port, self.wait_s, self.quiet_s)
                yield self._line
            except LinkFailed:
                self._drop()
                raise

    def _open(self, port: str) -> None:
        with self._asked(port) as line:
            board = self.identity = line.identify()
        if (board.version, board.features) != (VERSION, N_FEATURES):
            raise BackendUnavailable(
                f"the board on {port} speaks version {board.version} for {board.features} features, "
                f"this driver version {VERSION} for {N_FEATURES}: make and program it again"
            )
        if not board.heads or not 1 <= board.rows <= ROWS_MAX:
            raise BackendUnavailable(
                f"the board on {port} offers {len(board.heads)} heads and {board.rows} rows a frame: at least one head "
                f"and 1 to {ROWS_MAX} rows are needed"
            )


class _Line:
    """Questions and answers on an open port; `identity` is what the board said on it last."""

    def __init__(self, port: str, wait_s: float, quiet_s: float) -> None:
        try:
            serial: Any = importlib.import_module("serial")
        except ImportError as e:
            raise BackendUnavailable("pyserial is not installed: pip install 'microrisk[fpga]'") from e
        self.port, self._wait_s, self._quiet_s, self._sequence = port, wait_s, quiet_s, 0
        self.identity: Identity | None = None
        patience = {"timeout": wait_s, "write_timeout": wait_s + _seconds(FRAME_MAX)}
        try:
            self._serial = serial.Serial(port, BAUD, exclusive=True, **patience)
        except _NOT_OPENED as e:
            raise BackendUnavailable(f"port {port} cannot be opened: {e}") from e
        self._flush()

    def close(self) -> None:
        """Close the port."""
        with contextlib.suppress(*_LOST):
            self._serial.close()

    def identify(self) -> Identity:
        """Ask the board what it is; LinkFailed when it does not say."""
        (payload,) = self._ask([(Type.IDENTIFY, b"")], Type.IDENTITY, [IDENTITY_BYTES])
        fields = identity_parts(payload)
        number = {name: int.from_bytes(raw, "little") for name, raw in fields.items()}
        self.identity = Identity(
            number["version"], number["features"], tuple(h for k, h in enumerate(HEADS) if number["heads"] >> k & 1),
            number["rows"], number["mask"], fields["format_hash"].hex(), fields["weights_hash"].hex(),
            {n: number[n] for n in COUNTERS},
        )  # fmt: skip
        return self.identity

    def score(self, rows: NDArray[np.int8], rows_a_frame: int, heads: int) -> NDArray[np.int32]:
        """Results of rows: int32[n, heads]."""
        parts = [rows[k : k + rows_a_frame] for k in range(0, len(rows), rows_a_frame)]
        sizes = [HEAD_BYTES * heads * len(p) for p in parts]
        answers = self._ask([(Type.SCORE, p.tobytes()) for p in parts], Type.HEADS, sizes)
        return np.frombuffer(b"".join(answers), "<i4").reshape(len(rows), heads)

    def _ask(self, questions: list[tuple[Type, bytes]], expected: Type, sizes: list[int]) -> list[bytes]:
        """Answers in order; after damage it goes on at the first question that has none."""
        answers: list[bytes] = []
        failures, reason = 0, ""
        while len(answers) < len(questions):
            before = len(answers)
            try:
                self._run(questions, expected, sizes, answers)
            except _RETRIED as e:
                failures = 1 if len(answers) > before else failures + 1
                reason = str(e)
                if failures >= ATTEMPTS:
                    raise LinkFailed(f"the board on {self.port} was asked {failures} times: {reason}") from e
                with contextlib.suppress(*_LOST):
                    self._flush()
        return answers

    def _run(self, questions: list[tuple[Type, bytes]], expected: Type, sizes: list[int], answers: list[bytes]) -> None:
        """Keep up to WINDOW questions on the way and collect their answers."""
        waiting: deque[int] = deque()
        asked = len(answers)
        while len(answers) < len(questions):
            while asked < len(questions) and len(waiting) < WINDOW:
                kind, payload = questions[asked]
                self._serial.write(frame(kind, self._sequence, payload))
                waiting.append(self._sequence)
                self._sequence = (self._sequence + 1) % SEQUENCES
                asked += 1
            answers.append(self._answer(expected, waiting[0], sizes[len(answers)]))
            waiting.popleft()

    def _answer(self, expected: Type, sequence: int, size: int) -> bytes:
        kind, theirs, payload = self._frame()
        if kind == Type.REFUSED and payload:
            why = Refusal(payload[0]).name.lower() if payload[0] in list(Refusal) else str(payload[0])
            raise _Damaged(f"it refused a frame: {why}")
        if (kind, theirs, len(payload)) != (expected, sequence, size):
            raise _Damaged(f"answer {theirs} of type {kind:#x} with {len(payload)} bytes came, {sequence} was due")
        return payload

    def _frame(self) -> tuple[int, int, bytes]:
        """The next frame: type, sequence, payload."""
        until = time.monotonic() + self._wait_s
        while (byte := self._read(1)) != bytes([SYNC]):
            if byte != b"\0":
                raise _Damaged(f"byte {byte.hex()} where a frame should begin")
            if time.monotonic() > until:  # a line held low reads as zeros for ever
                raise _Damaged(f"nothing but zeros within {self._wait_s} s")
        head = self._read(len(HEADER))
        rest = self._read(head[2] + CRC_BYTES)
        payload, crc = rest[: head[2]], rest[head[2] :]
        if zlib.crc32(head + payload) != int.from_bytes(crc, "little"):
            raise _Damaged("an answer has a wrong CRC")
        return head[0], head[1], payload

    def _read(self, count: int) -> bytes:
        found: bytes = self._serial.read(count)
        if len(found) < count:
            raise _Damaged(f"no answer within {self._wait_s} s")
        return found

    def _flush(self) -> None:
        """End what was left unfinished on both sides; what goes on sending after `wait_s` is no answer of a board."""
        until = time.monotonic() + self._wait_s
        with contextlib.suppress(*_LOST):
            self._serial.reset_output_buffer()
            self._serial.write(bytes(FLUSH))
            time.sleep(_seconds(FLUSH))
            self._serial.timeout = self._quiet_s
            while self._serial.read(FRAME_MAX) and time.monotonic() < until:
                pass
            self._serial.timeout = self._wait_s


def frame(kind: int, sequence: int, payload: bytes) -> bytes:
    """Bytes of a frame."""
    body = bytes([kind, sequence, len(payload)]) + payload
    return bytes([SYNC]) + body + zlib.crc32(body).to_bytes(CRC_BYTES, "little")


def _seconds(count: int) -> float:
    """Time that bytes take on the line."""
    return count * BITS_PER_BYTE / BAUD
