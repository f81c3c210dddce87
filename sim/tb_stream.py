"""cocotb bench of a component with ready and valid on both sides: nothing lost, doubled or reordered under any pattern.

The stream rules of the output are looked at in every cycle; a side that never moves ends the bench at its limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cocotb

from sim.drivers import FallingEdge, ReadOnly, RuleCheck, Stalled, Watch, bit, number, pattern, reset, start_clock
from sim.runner_side import report
from sim.scoreboard import Job, Scoreboard, pack

PATTERNS = (
    ("always", "always"), ("half", "always"), ("always", "half"), ("bursts", "bursts"), ("single", "mostly"),
    ("mostly", "single"), ("half", "half"), ("always", "rare"),
)  # fmt: skip
"""(offer, take) of the parts of a run."""


class StreamBench:
    """Source, sink and scoreboard around streams `i` and `o`.

    Attributes
    ----------
    cycle : falling edges since the start
    taken_at, given_at : cycle of each handshake at `i` and at `o`
    """

    def __init__(self, dut: Any, job: Job) -> None:
        self.dut, self.job = dut, job
        self.rows, self.expected = pack(job.codes), pack(job.expected)
        self.board = Scoreboard(stop=job.stop)
        self.rules = RuleCheck("o")
        self.cycle = 0
        self.taken_at: list[int] = []
        self.given_at: list[int] = []

    async def run(
        self, start: int, end: int, offer: Iterator[bool], take: Iterator[bool], *, exact: bool = False,
        drain: bool = True, cycles: int | None = None,
    ) -> int:  # fmt: skip
        """Rows start..end-1; returns the next row that was not taken.

        exact : every result is due `latency` cycles after its row; cycles : end after that many; drain : wait for all
        results. Raises Stalled when nothing moves for the job's limit.
        """
        dut, board = self.dut, self.board
        watch = Watch(self.job.limit, "stream")
        falling, settled = FallingEdge(dut.clk), ReadOnly()
        row, offered, last = start, False, None if cycles is None else self.cycle + cycles
        while (row < end or (drain and board.pending)) and self.cycle != last:
            offered = row < end and (offered or next(offer))
            dut.i__valid.value = offered
            dut.i__payload.value = self.rows[row] if offered else 0
            ready = next(take)
            dut.o__ready.value = ready
            await settled
            moved = self._output(ready)
            if offered and bit(dut.i__ready):
                board.expect(row, self.expected[row], self.cycle + self.job.latency + 1 if exact else -1)
                self.taken_at.append(self.cycle)
                row, offered, moved = row + 1, False, True
            watch.step(moved)
            await falling
            self.cycle += 1
        dut.i__valid.value = 0
        dut.o__ready.value = 0
        return row

    def _output(self, ready: bool) -> bool:
        valid = bit(self.dut.o__valid)
        payload = number(self.dut.o__payload) if valid else None
        self.rules.see(valid, ready, payload)
        if valid and ready:
            self.board.result(payload, self.cycle)
            self.given_at.append(self.cycle)
        return bool(valid and ready)


async def begin(dut: Any) -> StreamBench:
    """Clock, reset, and a bench that has sent nothing."""
    bench = StreamBench(dut, Job.read())
    for signal in (dut.i__valid, dut.i__payload, dut.o__ready):
        signal.value = 0
    start_clock(dut)
    await reset(dut)
    return bench


@cocotb.test()
async def full_rate(dut: Any) -> None:
    """Source and sink never wait: the interval between rows is `interval`, and every latency exact."""
    bench = await begin(dut)
    interval = bench.job.options.get("interval", 1)
    with report(bench.job, bench.board, lambda: bench.cycle):
        await bench.run(0, len(bench.rows), pattern("always", ""), pattern("always", ""), exact=True)
        steps = {b - a for a, b in zip(bench.taken_at, bench.taken_at[1:], strict=False)}
        if steps - {interval}:
            bench.board.differ(-1, bench.cycle, f"rows were taken every {sorted(steps)} cycles, not every {interval}")


@cocotb.test()
async def patterns(dut: Any) -> None:
    """Idle and stall patterns of all kinds, one after the other."""
    bench = await begin(dut)
    n = len(bench.rows)
    with report(bench.job, bench.board, lambda: bench.cycle):
        for k, (offer, take) in enumerate(PATTERNS):
            seed = f"{bench.job.seed} {k}"
            start, end = n * k // len(PATTERNS), n * (k + 1) // len(PATTERNS)
            await bench.run(start, end, pattern(offer, seed + "i"), pattern(take, seed + "o"))


@cocotb.test()
async def reset_in_mid_stream(dut: Any) -> None:
    """A reset with rows inside: none of them comes out, and all that follow are right."""
    bench = await begin(dut)
    n, parts = len(bench.rows), 4
    with report(bench.job, bench.board, lambda: bench.cycle):
        for k in range(parts):
            seed = f"{bench.job.seed} {k}"
            start, end = n * k // parts, n * (k + 1) // parts
            some = 3 + (bench.job.latency * (k + 1)) // parts
            await bench.run(start, end, pattern("always", ""), pattern("half", seed), drain=False, cycles=some)
            await _reset(bench)
            await bench.run(start, end, pattern("mostly", seed + "i"), pattern("mostly", seed + "o"))


async def _reset(bench: StreamBench) -> None:
    dut = bench.dut
    dut.rst.value = 1
    await FallingEdge(dut.clk)
    dut.rst.value = 0
    bench.board.forget()
    bench.rules.reset()
    for _ in range(bench.job.latency + 2):
        if bit(dut.o__valid):
            bench.board.differ(-1, bench.cycle, "a result after the reset of a row from before it")
        bench.cycle += 1
        await FallingEdge(dut.clk)


@cocotb.test()
async def back_pressure(dut: Any) -> None:
    """A sink that never takes: `depth` rows go in and no more, the limit ends the wait, and nothing is lost by it."""
    bench = await begin(dut)
    depth, n = bench.job.options["depth"], len(bench.rows)
    with report(bench.job, bench.board, lambda: bench.cycle) as extra:
        try:
            await bench.run(0, n, pattern("always", ""), pattern("never", ""))
        except Stalled as e:
            extra["stalled"] = str(e)
        else:
            bench.board.differ(-1, bench.cycle, "all rows went in although no result was taken")
        if len(bench.taken_at) != depth:
            bench.board.differ(-1, bench.cycle, f"{len(bench.taken_at)} rows went in, there are {depth} places")
        await FallingEdge(dut.clk)
        await bench.run(len(bench.taken_at), n, pattern("always", ""), pattern("always", ""))
