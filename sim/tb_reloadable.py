"""cocotb bench of the reloadable core: three models loaded over its bus, events of all patterns, reload amid a stream.

The job's options hold `loads`, for each set the bus writes of its model, and for the reload `fresh`, the writes of each
further model in the order in which they are committed. The expected rows of a reload come in blocks: all rows as scored
before the first commit, all rows after it, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cocotb

from sim.drivers import FallingEdge, Stalled, bit, number, pattern
from sim.runner_side import report
from sim.scoreboard import pack
from sim.tb_stream import PATTERNS, StreamBench
from sim.tb_stream import begin as begin_stream

STATUS_PENDING, STATUS_ERROR = 1, 2


async def write(dut: Any, writes: Sequence[Sequence[int]]) -> None:
    """A word a cycle."""
    for address, word in writes:
        dut.bus__address.value = address
        dut.bus__write_data.value = word
        dut.bus__write.value = 1
        await FallingEdge(dut.clk)
    dut.bus__write.value = 0


async def committed(dut: Any, limit: int) -> None:
    """Wait until no commit waits; raises Stalled at the limit, AssertionError when the core has flagged an error."""
    from hdl.reloadable.banks import READ_CYCLES
    from hdl.reloadable.registers import BY_NAME

    dut.bus__address.value = BY_NAME["STATUS"].address
    for _ in range(limit):
        for _ in range(READ_CYCLES):
            await FallingEdge(dut.clk)
        status = number(dut.bus__read_data)
        assert status is not None, "the status is undefined"
        assert not status & STATUS_ERROR, f"the core flags an error, status {status:#x}"
        if not status & STATUS_PENDING:
            return
    raise Stalled(f"a commit waited for {limit} cycles")


async def begin(dut: Any) -> StreamBench:
    """Clock, reset, and a model in every set."""
    for signal in (dut.bus__address, dut.bus__write_data, dut.bus__write):
        signal.value = 0
    bench = await begin_stream(dut)
    await _load(bench)
    return bench


async def _load(bench: StreamBench) -> None:
    for writes in bench.job.options["loads"]:
        await write(bench.dut, writes)
        await committed(bench.dut, bench.job.limit)


@cocotb.test()
async def full_rate(dut: Any) -> None:
    """Source and sink never wait: events every `interval` cycles, and every latency exact."""
    bench = await begin(dut)
    interval = bench.job.options["interval"]
    with report(bench.job, bench.board, lambda: bench.cycle):
        await bench.run(0, len(bench.rows), pattern("always", ""), pattern("always", ""), exact=True)
        steps = {b - a for a, b in zip(bench.taken_at, bench.taken_at[1:], strict=False)}
        if steps - {interval}:
            bench.board.differ(-1, bench.cycle, f"events were taken every {sorted(steps)} cycles, not every {interval}")


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
    """A reset amid an event: it is forgotten, and after loading again everything is right."""
    bench = await begin(dut)
    n, parts = len(bench.rows), 3
    with report(bench.job, bench.board, lambda: bench.cycle):
        for k in range(parts):
            start, end = n * k // parts, n * (k + 1) // parts
            some = 2 + (bench.job.latency * (2 * k + 1)) // (2 * parts)
            await bench.run(start, end, pattern("always", ""), pattern("always", ""), drain=False, cycles=some)
            await _reset(bench)
            await _load(bench)
            await bench.run(start, end, pattern("always", ""), pattern("mostly", f"{k}"))


async def _reset(bench: StreamBench) -> None:
    dut = bench.dut
    dut.rst.value = 1
    await FallingEdge(dut.clk)
    dut.rst.value = 0
    bench.board.forget()
    bench.rules.reset()
    for _ in range(2 * bench.job.latency):
        if bit(dut.o__valid):
            bench.board.differ(-1, bench.cycle, "a result after the reset of an event from before it")
        bench.cycle += 1
        await FallingEdge(dut.clk)


class Phases(StreamBench):
    """A stream amid which weights change: each event is scored by whole sets, those before a commit or those after it.

    Attributes
    ----------
    phase : commits that the results have shown so far
    switches : number of the first event of each phase after the first
    """

    def __init__(self, dut: Any, bench: StreamBench) -> None:
        super().__init__(dut, bench.job)
        n, every = len(self.rows), pack(self.job.expected)
        self.blocks = [every[k : k + n] for k in range(0, len(every), n)]
        self.phase, self.done = 0, 0
        self.switches: list[int] = []

    def _output(self, ready: bool) -> bool:
        """The next result: of this phase, or the first of the next."""
        valid = bit(self.dut.o__valid)
        payload = number(self.dut.o__payload) if valid else None
        self.rules.see(valid, ready, payload)
        if not (valid and ready):
            return False
        if not self.board.pending:  # one result too many; the scoreboard says so
            self.board.result(payload, self.cycle)
            return True
        k, later = self.done, self.phase + 1
        if payload != self.blocks[self.phase][k] and later < len(self.blocks) and payload == self.blocks[later][k]:
            self.phase = later
            self.switches.append(k)
        self.board.expect_first(self.blocks[self.phase][k])
        self.given_at.append(self.cycle)
        self.board.result(payload, self.cycle)
        self.done += 1
        return True


@cocotb.test()
async def reload_while_streaming(dut: Any) -> None:
    """Sets are replaced one after the other while events stream: none lost, none scored by half a set."""
    bench = Phases(dut, await begin(dut))
    with report(bench.job, bench.board, lambda: bench.cycle) as extra:
        reload = cocotb.start_soon(_reload(bench))
        n = len(bench.rows)
        await bench.run(0, n, pattern("mostly", f"{bench.job.seed}i"), pattern("mostly", f"{bench.job.seed}o"))
        await reload
        extra |= {"switches": bench.switches, "results": bench.done}
        if bench.phase + 1 != len(bench.blocks):
            bench.board.differ(
                -1, bench.cycle, f"{bench.phase} of {len(bench.blocks) - 1} reloads were seen in results"
            )
        if bench.done != n:
            bench.board.differ(-1, bench.cycle, f"{bench.done} results of {n} events")


async def _reload(bench: Phases) -> None:
    for writes in bench.job.options["fresh"]:
        for _ in range(3 * bench.job.latency):
            await FallingEdge(bench.dut.clk)
        await write(bench.dut, writes)
        await committed(bench.dut, bench.job.limit)


@cocotb.test()
async def refused_writes(dut: Any) -> None:
    """Words at and beyond the end of each address range: only those beyond are flagged, and none changes a result."""
    from hdl.reloadable.banks import READ_CYCLES
    from hdl.reloadable.registers import BY_NAME

    bench = await begin(dut)
    with report(bench.job, bench.board, lambda: bench.cycle):
        for address, word, taken in bench.job.options["edges"]:
            await write(dut, [(address, word)])
            dut.bus__address.value = BY_NAME["STATUS"].address
            for _ in range(READ_CYCLES):
                await FallingEdge(dut.clk)
            flagged = bool((number(dut.bus__read_data) or 0) & STATUS_ERROR)
            if flagged == taken:
                verb = "flagged" if flagged else "not flagged"
                bench.board.differ(-1, bench.cycle, f"write of {word:#x} to {address:#x} was {verb}")
            await write(dut, [(BY_NAME["CLEAR"].address, 0)])
        await bench.run(0, min(len(bench.rows), 5), pattern("always", ""), pattern("always", ""))


@cocotb.test()
async def back_pressure(dut: Any) -> None:
    """A sink that never takes: the core stops, the limit ends the wait, and what was inside comes out right."""
    bench = await begin(dut)
    with report(bench.job, bench.board, lambda: bench.cycle) as extra:
        try:
            await bench.run(0, len(bench.rows), pattern("always", ""), pattern("never", ""))
        except Stalled as e:
            extra["stalled"] = str(e)
        extra["inside"] = len(bench.taken_at)
        await FallingEdge(dut.clk)
        await bench.run(len(bench.taken_at), len(bench.rows), pattern("always", ""), pattern("always", ""))
