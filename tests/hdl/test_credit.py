# amaranth: UnusedElaboratable=no
"""Credits: nothing lost, nothing doubled, in order, one event per cycle, and the four stream rules at every edge."""

from __future__ import annotations

import random

import pytest
from amaranth.hdl import Module, ResetInserter, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from hdl.credit import Chain, Credited, Tagged, queue_depth
from microrisk.errors import UsageError

WIDTH = 16


class Delay(wiring.Component):
    """A pipe that adds one to its payload after `latency + 1` registers."""

    def __init__(self, latency, shape=WIDTH):
        self.latency = latency
        super().__init__(
            {
                "i": In(stream.Signature(shape, always_ready=True)),
                "o": Out(stream.Signature(shape, always_ready=True)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        payload, valid = Value.cast(self.i.payload) + 1, self.i.valid
        for k in range(self.latency + 1):
            p, v = Signal(len(Value.cast(self.o.payload)), name=f"payload_{k}"), Signal(name=f"valid_{k}")
            m.d.sync += [p.eq(payload), v.eq(valid)]
            payload, valid = p, v
        m.d.comb += [Value.cast(self.o.payload).eq(payload), self.o.valid.eq(valid)]
        return m


class Doubler(Delay):
    """A pipe that breaks its contract: one event too many."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.comb += self.o.valid.eq(1)
        return m


def drive(dut, n, *, offer, take, cycles):
    """Send 0..n-1 with the probabilities `offer` and `take`; returns (results, cycle of each take-in and give-out)."""
    rng = random.Random(f"{offer} {take} {n}")
    got, taken_at, given_at = [], [], []

    async def bench(ctx):
        sent, valid, held = 0, False, None
        for cycle in range(cycles):
            valid = valid or (sent < n and rng.random() < offer)
            ready = rng.random() < take
            ctx.set(dut.i.valid, valid)
            ctx.set(dut.i.payload, sent if valid else rng.getrandbits(WIDTH))
            before = ctx.get(dut.o.valid)
            ctx.set(dut.o.ready, ready)
            assert ctx.get(dut.o.valid) == before, "valid must not wait for ready"
            if held is not None:
                assert (ctx.get(dut.o.valid), ctx.get(dut.o.payload)) == (1, held), "taken back before it was taken"
            held = ctx.get(dut.o.payload) if ctx.get(dut.o.valid) and not ready else None
            if ctx.get(dut.o.valid) and ready:
                got.append(ctx.get(dut.o.payload))
                given_at.append(cycle)
            if valid and ctx.get(dut.i.ready):
                taken_at.append(cycle)
                sent, valid = sent + 1, False
            assert ctx.get(dut.lost) == 0
            assert ctx.get(dut.used) == ctx.get(dut.in_flight) + ctx.get(dut.waiting) <= dut.depth
            await ctx.tick()
            if len(got) == n:
                return

    simulate(dut, bench)
    return got, taken_at, given_at


def simulate(dut, *benches):
    sim = Simulator(dut)
    sim.add_clock(1e-8)
    for bench in benches:
        sim.add_testbench(bench)
    sim.run()


@pytest.mark.parametrize("latency", [0, 1, 5, 13])
def test_one_event_per_cycle_at_the_smallest_depth(latency):
    dut = Credited(Delay(latency), depth=latency + 3)
    got, taken, given = drive(dut, 200, offer=1, take=1, cycles=400)
    assert got == list(range(1, 201))
    assert taken == list(range(200)), "an event was held although the consumer took every result"
    assert [b - a for a, b in zip(taken, given, strict=True)] == [dut.latency + 1] * 200


@pytest.mark.parametrize(("offer", "take"), [(0.3, 1), (1, 0.3), (0.7, 0.6), (0.05, 0.9), (1, 0.02)])
@pytest.mark.parametrize("depth", [None, 8])
def test_nothing_lost_or_doubled(offer, take, depth):
    got, _, _ = drive(Credited(Delay(5), depth), 150, offer=offer, take=take, cycles=20000)
    assert got == list(range(1, 151))


def test_a_consumer_that_never_takes_stops_the_input_at_the_depth():
    dut = Credited(Delay(5))
    _, taken, _ = drive(dut, 100, offer=1, take=0, cycles=200)
    assert len(taken) == dut.depth


def test_reset_in_mid_stream_empties_it():
    dut, reset = Credited(Delay(3)), Signal()

    async def bench(ctx):
        ctx.set(dut.i.valid, 1)
        await ctx.tick().repeat(dut.depth + 3)
        assert ctx.get(dut.used) == dut.depth
        ctx.set(dut.i.valid, 0)
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        for _ in range(dut.latency + 2):
            assert (ctx.get(dut.used), ctx.get(dut.o.valid), ctx.get(dut.in_flight)) == (0, 0, 0)
            await ctx.tick()

    simulate(ResetInserter(reset)(dut), bench)


def test_a_pipe_that_answers_unasked_is_noticed():
    dut = Credited(Doubler(0))
    seen = []

    async def bench(ctx):
        for _ in range(dut.depth + 2):
            seen.append(ctx.get(dut.lost))
            await ctx.tick()

    simulate(dut, bench)
    assert seen == [0] * dut.depth + [1, 1]


def test_a_chain_is_a_pipe_of_the_summed_latency():
    chain = Chain(Delay(2), Delay(3), Delay(1))
    got, taken, given = drive(Credited(chain), 40, offer=1, take=1, cycles=100)
    assert got == list(range(3, 43))
    assert chain.latency == 8
    assert given[0] - taken[0] == chain.latency + 2


@pytest.mark.parametrize("latency", [0, 1, 4])
def test_tags_stay_with_their_events(latency):
    pipe = Tagged(Delay(latency, data.ArrayLayout(4, 2)), 5)
    dut = Credited(pipe)
    rng = random.Random(1)
    events = [{"payload": [rng.getrandbits(4), rng.getrandbits(4)], "tag": rng.getrandbits(5)} for _ in range(100)]
    got = []

    async def send(ctx):
        for event in events:
            ctx.set(dut.i.payload, event)
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
            ctx.set(dut.i.valid, 0)
            await ctx.tick().repeat(rng.randrange(1, 4))

    async def receive(ctx):
        for _ in range(2000):
            ctx.set(dut.o.ready, rng.random() < 0.5)
            if ctx.get(dut.o.valid) and ctx.get(dut.o.ready):
                got.append(ctx.get(dut.o.payload))
            await ctx.tick()
            if len(got) == len(events):
                return

    simulate(dut, send, receive)
    assert [g.tag for g in got] == [e["tag"] for e in events]
    plus_one = [e["payload"][0] + 16 * e["payload"][1] + 1 & 0xFF for e in events]
    assert [g.payload[0] + 16 * g.payload[1] for g in got] == plus_one


def test_refusals_name_the_numbers():
    with pytest.raises(UsageError, match="a queue of 6 behind Delay: a latency of 4 cycles needs 7"):
        Credited(Delay(4), depth=6)
    with pytest.raises(UsageError, match="no pipe"):
        Credited(Credited(Delay(4)))
    with pytest.raises(UsageError, match=r"latency is -1"):
        Credited(Delay(-1))
    with pytest.raises(UsageError, match=r"Delay gives .*16.*, Delay takes .*8"):
        Chain(Delay(1), Delay(1, 8))
    with pytest.raises(UsageError, match="at least one"):
        Chain()


def test_depth_covers_the_round_trip():
    for latency in range(70):
        depth = queue_depth(latency)
        assert latency + 3 <= depth < 2 * (latency + 3)
        assert depth & (depth - 1) == 0
