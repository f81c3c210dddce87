"""cocotb bench of a pipe: streams that never stall, one row a cycle, results a fixed number of cycles later.

Run by sim.runner, once per test function; vectors and expected results come from the job.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cocotb

from sim.drivers import FallingEdge, bit, number, pattern, reset, start_clock
from sim.runner_side import report
from sim.scoreboard import Job, Scoreboard, pack


class PipeBench:
    """Drives rows into a pipe and holds its results against the job, latency included.

    A row that is driven after falling edge k is taken by the rising edge of cycle k; its result stands after the
    rising edge `latency` cycles later, and is seen at the falling edge after that.
    """

    def __init__(self, dut: Any, job: Job) -> None:
        self.dut, self.job = dut, job
        self.rows, self.expected = pack(job.codes), pack(job.expected)
        self.board = Scoreboard(stop=job.stop)
        self.cycle = 0

    async def run(self, start: int, end: int, offer: Iterator[bool], *, drain: bool = True) -> None:
        """Rows start..end-1, offered where `offer` says; `drain` waits for the last result."""
        dut, board, rows, expected = self.dut, self.board, self.rows, self.expected
        falling = FallingEdge(dut.clk)
        after = self.job.latency + 1
        payload, valid, given, result = dut.i__payload, dut.i__valid, dut.o__valid, dut.o__payload
        row, left = start, after
        while row < end or (drain and left):
            if row < end and next(offer):
                payload.value = rows[row]
                valid.value = 1
                board.expect(row, expected[row], self.cycle + after)
                row += 1
            else:
                valid.value = 0
                left -= row >= end
            await falling
            self.cycle += 1
            if bit(given):
                board.result(number(result), self.cycle)
        valid.value = 0
        if drain and board.pending:
            lost, _ = board.pending, board.forget()
            board.differ(row - lost, self.cycle, f"{lost} results did not come within {after} cycles of their rows")


async def begin(dut: Any) -> PipeBench:
    """Clock, reset, and a bench that has sent nothing."""
    bench = PipeBench(dut, Job.read())
    dut.i__valid.value = 0
    dut.i__payload.value = 0
    start_clock(dut)
    await reset(dut)
    return bench


SOME = 400
"""Rows of the slower parts."""


async def _back_to_back(bench: PipeBench, n: int) -> None:
    await bench.run(0, n, pattern("always", ""))


async def _gaps(bench: PipeBench, n: int) -> None:
    share = n // 4
    for k, name in enumerate(("half", "bursts", "single", "mostly")):
        await bench.run(k * share, (k + 1) * share, pattern(name, f"{bench.job.seed} {name}"))


async def _reset_in_mid_stream(bench: PipeBench, n: int) -> None:
    for start in range(0, n, max(n // 4, 1)):
        end = min(start + n // 4, n)
        await bench.run(start, min(start + bench.job.latency // 2 + 1, end), pattern("always", ""), drain=False)
        await _reset(bench)
        await bench.run(start, end, pattern("mostly", f"{bench.job.seed} {start}"))


@cocotb.test()
async def back_to_back(dut: Any) -> None:
    """Every row, one a cycle: initiation interval 1, and each result in exactly its cycle."""
    bench = await begin(dut)
    with report(bench.job, bench.board, lambda: bench.cycle):
        await _back_to_back(bench, len(bench.rows))


@cocotb.test()
async def gaps(dut: Any) -> None:
    """Rows with idle cycles between them; each result in exactly its cycle."""
    bench = await begin(dut)
    with report(bench.job, bench.board, lambda: bench.cycle):
        await _gaps(bench, len(bench.rows))


@cocotb.test()
async def reset_in_mid_stream(dut: Any) -> None:
    """A reset with a full pipe: nothing that went in before comes out, everything after is right."""
    bench = await begin(dut)
    with report(bench.job, bench.board, lambda: bench.cycle):
        await _reset_in_mid_stream(bench, len(bench.rows))


@cocotb.test()
async def everything(dut: Any) -> None:
    """All rows back to back, then SOME of them with gaps, then with resets: one start of the simulator."""
    bench = await begin(dut)
    some = min(SOME, len(bench.rows)) // 4 * 4
    with report(bench.job, bench.board, lambda: bench.cycle):
        await _back_to_back(bench, len(bench.rows))
        await _gaps(bench, some)
        await _reset_in_mid_stream(bench, some)


async def _reset(bench: PipeBench) -> None:
    """One cycle of reset; then the pipe must be silent for longer than it is deep."""
    dut = bench.dut
    dut.rst.value = 1
    await FallingEdge(dut.clk)
    dut.rst.value = 0
    bench.board.forget()
    bench.cycle += 1
    for _ in range(bench.job.latency + 2):
        if bit(dut.o__valid):
            bench.board.differ(-1, bench.cycle, "a result after the reset of a row from before it")
        await FallingEdge(dut.clk)
        bench.cycle += 1
