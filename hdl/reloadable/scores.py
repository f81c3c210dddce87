"""From the lanes to the heads: accumulators that are scores, sums of squares, max|z|."""

from __future__ import annotations

from functools import cache
from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import data

from hdl.graph import Graph
from hdl.layers import inputs, max_abs
from hdl.pipe import Pipe
from hdl.reloadable.banks import LATENT, Banks
from hdl.reloadable.fanout import copies
from hdl.reloadable.lanes import Lanes
from hdl.reloadable.plan import SETS, Plan
from hdl.reloadable.program import FIRST_TURN, Program
from hdl.reloadable.squares import HALVES, PLACES, SUMMED, SumSquares
from hdl.reloadable.stages import ACCUMULATED, REGIONS, SHIFTED
from hdl.schedule import Schedule, schedule
from microrisk.spec.formats import CODE, HEAD
from microrisk.spec.records import N_FEATURES
from microrisk.spec.weightfile import LAYERS

LATENTS = LAYERS["vae.enc.2"][0]
CHOSEN = 3
"""Cycles from the choice of a set until hdl.reloadable.banks shows its exponents."""
SQUARED = SHIFTED + SUMMED + HALVES
"""Cycles from a step's issue until the squares of its layer are in the results."""
PERIOD_NS = 3.2
"""Of the stages of max|z|."""
_MAGNITUDE = HEAD.width - 1
assert LATENTS <= PLACES, "latents are squared in the first half"


def last_cycle(plan: Plan) -> int:
    """How far control words are carried."""
    squared = SQUARED if _summed(plan) else 0
    return max(ACCUMULATED, SHIFTED, squared, 2 + largest().latency if "maxz" in plan.heads else 0)


def shown(plan: Plan) -> int:
    """Cycle, counted from that after the take of an event, in which all results are in their registers."""
    ends = [FIRST_TURN + len(SETS) - 1 + largest().latency + 3] if "maxz" in plan.heads else []
    for k, job in enumerate(plan.jobs):
        behind = ACCUMULATED + 1 if job.activation == "acc" else SQUARED
        ends += [plan.last_issue(k, s) + behind for s in range(len(SETS))]
    return max(ends)


def _summed(plan: Plan) -> bool:
    return bool({"vae", "maha"} & set(plan.heads))


def check_squares(plan: Plan) -> None:
    """A vector takes two cycles in the sums of squares: none may come right behind another."""
    steps = [s for s in plan.program if s]
    for k, step in enumerate(plan.program):
        if step and k and plan.program[k - 1] and plan.jobs[step.job].steps < HALVES and _squared(plan, step.job):
            raise AssertionError(f"{plan.jobs[step.job].name} has {plan.jobs[step.job].steps} step, of {len(steps)}")


def _squared(plan: Plan, job: int) -> bool:
    ends = job + 1 == len(plan.jobs) or plan.jobs[job + 1].first
    return plan.jobs[job].activation == "linear" and (ends or plan.jobs[job + 1].name.startswith("vae.dec"))


class Scores:
    """Result registers of a core and what fills them.

    Parameters
    ----------
    results : signal of the core's payload, set by set
    codes : of the event, held while it is inside
    """

    def __init__(
        self, m: Module, plan: Plan, program: Program, banks: Banks, lanes: Lanes, codes: data.View,
        results: data.View, *, ecp5: bool,
    ) -> None:  # fmt: skip
        self._m, self._program, self._banks, self._lanes = m, program, banks, lanes
        self._codes, self._results, self._ecp5 = codes, results, ecp5
        if any(job.activation == "acc" for job in plan.jobs):
            self._accumulated()
        if _summed(plan):
            check_squares(plan)
            self._squares(plan)
        if "maxz" in plan.heads:
            self._largest()

    def _accumulated(self) -> None:
        done = self._program.at(ACCUMULATED)
        for s in range(len(SETS)):
            with self._m.If(done.flags.score & (done.word.set == s)):
                self._m.d.sync += self._results[s].exposure.eq(self._lanes.accumulators[0])

    # ---- squares ----

    def _squares(self, plan: Plan) -> None:
        """Finished layers go to the sums of squares, with the exponents of their set beside them."""
        m, at = self._m, self._program.at
        m.submodules.squares = unit = SumSquares(ecp5=self._ecp5)
        before = at(SHIFTED - 1).word
        residual = copies(m, "residual", ~before.latent & ~before.plain, REGIONS, ecp5=self._ecp5)
        second = copies(m, "second", at(SHIFTED + 1).flags.square, REGIONS, ecp5=self._ecp5)
        m.d.comb += [unit.b.eq(self._lanes.codes), unit.residual.eq(Cat(residual)), unit.second.eq(Cat(second))]
        m.d.comb += [unit.a[k].eq(self._codes[k]) for k in range(N_FEATURES)]
        early = at(SHIFTED - CHOSEN - 1)
        with m.If(early.flags.square):
            m.d.sync += self._banks.chosen.eq(early.word.set)
        self._weights(unit)
        self._collect(plan, unit.half_sum)

    def _weights(self, unit: SumSquares) -> None:
        """Exponents and places that count, of the first half and in the next cycle of the second."""
        m, banks = self._m, self._banks
        first, later = (self._program.at(SHIFTED + k) for k in range(HALVES))
        second = later.flags.square
        latent = Mux(second, later.word.latent, first.word.latent)
        plain = Mux(second, later.word.plain, first.word.plain)
        for k in range(PLACES):
            here, there = ((banks.exponents[j], banks.mask[j]) if j < N_FEATURES else (Const(0), Const(0))
                           for j in (k, PLACES + k))  # fmt: skip
            exponent = Signal.like(unit.exponents[k], reset_less=True, name=f"exponent_{k}")
            counts = Signal(reset_less=True, name=f"counts_{k}")
            m.d.sync += [
                exponent.eq(Mux(latent | plain, 0, Mux(second, there[0], here[0]))),
                counts.eq(Mux(latent, ~second & (k < LATENTS), plain | Mux(second, there[1], here[1]))),
            ]
            m.d.comb += [unit.exponents[k].eq(exponent), unit.counts[k].eq(counts)]

    def _collect(self, plan: Plan, half_sum: Any) -> None:
        """Whitened features are maha; the vae is its scaled latents and the residual on top."""
        m, at = self._m, self._program.at
        summed = SHIFTED + SUMMED
        latents = self._latents(summed, half_sum) if "vae" in plan.heads else [Const(0)] * len(SETS)
        coming, now, then = at(summed - 1).word, at(summed), at(summed + 1)
        base = Signal(_MAGNITUDE, reset_less=True, name="base")
        m.d.sync += base.eq(Mux(coming.plain | coming.latent, 0, Array(latents)[coming.set]))
        last, total = Signal(_MAGNITUDE, reset_less=True, name="last_half"), Signal(_MAGNITUDE, name="total")
        m.d.comb += total.eq(half_sum + Mux(then.flags.square, last, base))
        m.d.sync += last.eq(total)
        assert now.flags.shape() == then.flags.shape()
        for s in range(len(SETS)):
            mine = then.flags.square & (then.word.set == s)
            if "maha" in plan.heads:
                with m.If(mine & then.word.plain):
                    m.d.sync += self._results[s].maha.eq(total)
            if "vae" in plan.heads:
                with m.If(mine & ~then.word.plain & ~then.word.latent):
                    m.d.sync += self._results[s].vae.eq(total)

    def _latents(self, summed: int, half_sum: Any) -> list[Signal]:
        """Sum of squared latents of each set under its exponent; two steps, there is time."""
        m, at = self._m, self._program.at
        bound = LATENTS * CODE.low**2
        raw = Signal(range(bound + 1), reset_less=True, name="latent_sum")
        coarse, fine = (Signal(_MAGNITUDE, reset_less=True, name=f"latent_{n}") for n in ("coarse", "fine"))
        delayed = [(at(summed).flags.square & at(summed).word.latent, at(summed).word.set)]
        for k in range(3):
            flag, which = Signal(name=f"latent_here_{k}"), Signal.like(delayed[-1][1], name=f"latent_set_{k}")
            m.d.sync += [flag.eq(delayed[-1][0]), which.eq(delayed[-1][1])]
            delayed.append((flag, which))
        exponents = Array(self._banks.latents[s] for s in range(len(SETS)))
        half = LATENT.width // 2
        m.d.sync += [
            raw.eq(half_sum),
            coarse.eq(raw << (exponents[delayed[1][1]][half:] << half)),
            fine.eq(coarse << exponents[delayed[2][1]][:half]),
        ]
        kept = [Signal(_MAGNITUDE, reset_less=True, name=f"latents_{s}") for s in range(len(SETS))]
        for s, place in enumerate(kept):
            with m.If(delayed[3][0] & (delayed[3][1] == s)):
                m.d.sync += place.eq(fine)
        return kept

    # ---- max|z| ----

    def _largest(self) -> None:
        """Masked codes of one set after another."""
        m, at = self._m, self._program.at
        m.submodules.largest = pipe = Pipe(largest(), N_FEATURES)
        mask = Signal(N_FEATURES, reset_less=True, name="largest_mask")
        m.d.sync += mask.eq(Array(self._banks.masks[s] for s in range(len(SETS)))[at(0).word.turn])
        for k in range(N_FEATURES):
            m.d.comb += pipe.i.payload[k].eq(Mux(mask[k], self._codes[k], 0))
        done = at(2 + pipe.latency)
        for s in range(len(SETS)):
            with m.If(done.flags.largest & (done.word.turn == s)):
                m.d.sync += self._results[s].maxz.eq(pipe.o.payload.maxz)


@cache
def largest() -> Schedule:
    """max|z| in stages."""
    graph = Graph()
    graph.outputs["maxz"] = max_abs(graph, inputs(graph, N_FEATURES))
    return schedule(graph, PERIOD_NS)
