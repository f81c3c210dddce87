"""Streams from the side of a bench: when a source offers, when a sink takes, and the four stream rules at every edge.

A cycle of a bench goes from falling edge to falling edge. Inputs change at the falling edge, so that they stand long
before the rising edge that takes them; handshakes are read just after that, when everything combinational has settled.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly

from sim.scoreboard import Mismatch

PERIOD_NS = 10
RESET_CYCLES = 3


class Stalled(AssertionError):
    """A wait reached its limit: the design or the other side of a stream did not move."""


def always() -> Iterator[bool]:
    """In every cycle."""
    while True:
        yield True


def never() -> Iterator[bool]:
    """In no cycle."""
    while True:
        yield False


def at_random(seed: str, share: float) -> Iterator[bool]:
    """In this share of the cycles, independent of each other."""
    draw = random.Random(seed).random
    while True:
        yield draw() < share


def bursts(seed: str, run: int, gap: int) -> Iterator[bool]:
    """Runs of 1..run cycles and gaps of 1..gap between them."""
    rng = random.Random(seed)
    while True:
        yield from [True] * rng.randint(1, run)
        yield from [False] * rng.randint(1, gap)


def pattern(name: str, seed: str) -> Iterator[bool]:
    """A pattern by name: always, never, half, rare, mostly, bursts, single (one cycle, then gaps)."""
    shares = {"half": 0.5, "rare": 0.08, "mostly": 0.9}
    if name in shares:
        return at_random(seed, shares[name])
    if name == "bursts":
        return bursts(seed, 40, 40)
    if name == "single":
        return bursts(seed, 1, 9)
    return {"always": always, "never": never}[name]()


def start_clock(dut: Any) -> None:
    """Clock of the design's only domain, run by the simulator's side of cocotb."""
    Clock(dut.clk, PERIOD_NS, unit="ns").start()


async def reset(dut: Any, cycles: int = RESET_CYCLES) -> None:
    """Hold `rst` over some rising edges; returns at a falling edge."""
    await FallingEdge(dut.clk)
    dut.rst.value = 1
    for _ in range(cycles):
        await FallingEdge(dut.clk)
    dut.rst.value = 0


def number(handle: Any) -> int | None:
    """Value of a signal as an unsigned integer; None when bits of it are undefined."""
    value = handle.value
    return int(value) if value.is_resolvable else None


def bit(handle: Any) -> int:
    """Value of a single bit; an undefined one is an error, not a 0."""
    value = handle.value
    if not value.is_resolvable:
        raise Mismatch(f"{handle._name} is undefined")
    return int(value)


class Watch:
    """Counts cycles without progress and ends the bench when there are too many.

    Parameters
    ----------
    limit : cycles
    what : what the bench is waiting for, for the message
    """

    def __init__(self, limit: int, what: str) -> None:
        self.limit, self.what, self.idle = limit, what, 0

    def step(self, progress: bool) -> None:
        """One cycle; raises Stalled."""
        self.idle = 0 if progress else self.idle + 1
        if self.idle > self.limit:
            raise Stalled(f"{self.what}: nothing moved for {self.limit} cycles")


class RuleCheck:
    """The stream rules of one port, looked at once a cycle: valid sticky, payload stable until it is taken."""

    def __init__(self, name: str) -> None:
        self.name, self.held = name, None

    def see(self, valid: int, ready: int, payload: int | None) -> None:
        """Handshake of this cycle, just before the edge."""
        if self.held is not None and (not valid or payload != self.held):
            was = f"{self.held:#x} was offered and not taken"
            raise Mismatch(f"{self.name}: {was}, next cycle {'another payload' if valid else 'nothing'}")
        self.held = payload if valid and not ready else None

    def reset(self) -> None:
        """Forget what was offered: a reset may take it back."""
        self.held = None


__all__ = ["FallingEdge", "ReadOnly", "RuleCheck", "Stalled", "Watch", "bit", "cocotb", "number", "pattern", "reset",
           "start_clock"]  # fmt: skip
