"""The board, simulated, on a pseudo-terminal: what the driver of `fpga` opens is a serial port like any other.

A Verilator program turns bytes of its standard input into the line `rx`, bit by bit, and the line `tx` into bytes of
its standard output. A thread carries bytes between the program and the terminal, and can damage or hold them on the
way.
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import threading
import tty
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any

from microrisk.spec.features import ALL_MASK
from microrisk.spec.uart import BITS_PER_BYTE
from microrisk.weights import FORMAT_HASH, Weights
from sim.design import Design, make_design
from sim.native import line_program

DIVISOR = 4
"""Clock cycles a bit in simulation: the least that the receiver takes."""
_TICK_S = 0.05
Damage = Callable[[bytes], bytes]


def design(weights: Weights, heads: Sequence[str], mask: int, format_hash: str, divisor: int) -> Design:
    """The board's top, from the cache where it is there."""
    from hdl.board import LineScorer

    make = partial(LineScorer, weights, tuple(heads), mask=mask, divisor=divisor, format_hash=format_hash)
    return make_design(make, "board", weights.heads_hash(), tuple(heads), mask, format_hash, divisor)


class SimulatedBoard:
    """A board that is there while the `with` block lasts.

    Parameters
    ----------
    weights, heads, mask, format_hash : as of hdl.board.LineScorer

    Attributes
    ----------
    port : name of the serial port
    to_board, from_board : what happens to bytes on their way; bytes come in the parts in which they were written
    held : while set, nothing is carried in either direction
    """

    def __init__(
        self, weights: Weights, heads: Sequence[str] = ("exposure",), *, mask: int = ALL_MASK,
        format_hash: str = FORMAT_HASH,
    ) -> None:  # fmt: skip
        made = design(weights, heads, mask, format_hash, DIVISOR)
        self._command = line_program(made, DIVISOR, BITS_PER_BYTE)
        self.to_board: Damage = bytes
        self.from_board: Damage = bytes
        self.held = threading.Event()
        self._ended = threading.Event()

    def __enter__(self) -> SimulatedBoard:
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        self._program: Any = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._program.kill()
        self._program.wait()
        for pipe in (self._program.stdin, self._program.stdout):
            pipe.close()
        for end in (self._master, self._slave):
            with contextlib.suppress(OSError):
                os.close(end)

    def _carry(self) -> None:
        out, into = self._program.stdout.fileno(), self._program.stdin.fileno()
        while not self._ended.is_set():
            ready, _, _ = select.select([self._master, out], [], [], _TICK_S)
            if self.held.is_set():
                self._ended.wait(_TICK_S)
                continue
            with contextlib.suppress(BrokenPipeError):
                if self._master in ready:
                    os.write(into, self.to_board(os.read(self._master, 4096)))
                if out in ready:
                    os.write(self._master, self.from_board(os.read(out, 4096)))
