"""The plan as control words: one a cycle from the take of an event on, carried along as far as its step goes."""

from __future__ import annotations

from amaranth.hdl import Array, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data

from hdl.reloadable.activations import GROUPS
from hdl.reloadable.plan import SETS, Plan, Step
from microrisk.errors import UsageError

FLAGS = data.StructLayout({"keep": 1, "score": 1, "square": 1, "largest": 1})
"""What changes something outside the lanes; cleared by reset. keep: the codes go to the activation memory; score: the
accumulator is the result; square: the codes go to the sums of squares; largest: max|z| of set `turn` begins."""
SET = unsigned((len(SETS) - 1).bit_length())
FIRST_TURN = 1
"""Cycle in which max|z| of the first set begins: that of the first word may be repeated."""
AHEAD = 3
"""Words that are read before an event comes: the first waits to be issued, the others behind it."""


def chains(plan: Plan) -> int:
    """Activation buffers of a set."""
    return max((job.chain for job in plan.jobs), default=0) + 1


def word_layout(plan: Plan) -> data.StructLayout:
    """Of the part of a control word that needs no reset.

    address : of the step's weights within a bank; job : of its parameters; slot : activation buffer of set and chain;
    group, split, from_codes : its operands; begins : of a sum; relu : as in the layer; latent, plain : the squares are
    those of the vae's latents, of whitened features; turn : the set whose max|z| begins
    """
    return data.StructLayout(
        {
            "set": SET, "address": range(max(plan.depth, 2)), "job": range(max(len(plan.jobs), 2)),
            "slot": range(max(len(SETS) * chains(plan), 2)), "group": range(GROUPS), "split": 1, "from_codes": 1,
            "begins": 1, "relu": 1, "latent": 1, "plain": 1, "turn": SET,
        }
    )  # fmt: skip


class Control:
    """One control word on its way."""

    def __init__(self, plan: Plan, name: str) -> None:
        self.flags = Signal(FLAGS, name=f"flags_{name}")
        self.word = Signal(word_layout(plan), reset_less=True, name=f"word_{name}")

    def load(self, flags: Value, word: Value) -> list[object]:
        """Statements that give it a value."""
        return [self.flags.eq(flags), self.word.eq(word)]


class Program:
    """Control words by cycle: `at(k)` is that of the step issued k cycles ago, `at(-1)` that of the next one.

    While `running` is low the first word is issued over and over, so that an event finds it on its way already;
    a word that is repeated must have no flag set.

    Parameters
    ----------
    running : an event is inside, from the cycle after its take on
    last : the last cycle k that `at` is asked for
    """

    def __init__(self, m: Module, plan: Plan, running: Value, at_end: Value, last: int) -> None:
        self._plan = plan
        table = _table(plan)
        if any(table[0][0].values()):
            raise UsageError("the first word of a program must have no effect: it is issued while no event is inside")
        self.age = age = Signal(range(max(len(table), last) * 4), init=AHEAD)
        rom, read, coming = (Control(plan, name) for name in ("rom", "read", "coming"))
        flags, words = ([_constant(row[n], shape) for row in table] for n, shape in
                        ((0, FLAGS), (1, word_layout(plan))))  # fmt: skip
        with m.Switch(age):
            for k in range(AHEAD, len(table)):
                with m.Case(k):
                    m.d.comb += rom.load(flags[k], words[k])
        with m.If(running & ~at_end):
            m.d.sync += [age.eq(age + 1), *read.load(rom.flags, rom.word), *coming.load(read.flags, read.word)]
        with m.Else():
            m.d.sync += [age.eq(AHEAD), *read.load(flags[AHEAD - 1], words[AHEAD - 1])]
            m.d.sync += coming.load(flags[AHEAD - 2], words[AHEAD - 2])
        following = Control(plan, "following")
        m.d.comb += following.load(
            Mux(running, coming.flags.as_value(), flags[0]), Mux(running, coming.word.as_value(), words[0])
        )
        self._controls = [following]
        for k in range(last + 1):
            late = Control(plan, str(k))
            m.d.sync += late.load(self._controls[-1].flags, self._controls[-1].word)
            self._controls.append(late)

    def at(self, cycle: int) -> Control:
        """Control word of the step that was issued `cycle` cycles ago."""
        return self._controls[cycle + 1]

    def bank(self, cycle: int, set_banks: data.View) -> Value:
        """Bank of that step's set."""
        return Array(set_banks[k] for k in range(len(SETS)))[self.at(cycle).word.set]


def _constant(fields: dict[str, int], shape: data.StructLayout) -> Value:
    return Const(shape.const(fields).as_value().value, shape.size) if fields else Const(0, shape.size)


def _table(plan: Plan) -> list[tuple[dict[str, int], dict[str, int]]]:
    """Flags and words by cycle."""
    turns = len(SETS) if "maxz" in plan.heads else 0
    rows = [_word(plan, step) for step in plan.program]
    rows += [({}, {}) for _ in range(max(AHEAD, FIRST_TURN + turns) - len(rows))]
    for s in range(turns):
        flags, word = rows[FIRST_TURN + s]
        rows[FIRST_TURN + s] = ({**flags, "largest": 1}, {**word, "turn": s})
    return rows


def _word(plan: Plan, step: Step | None) -> tuple[dict[str, int], dict[str, int]]:
    if step is None:
        return {}, {}
    job = plan.jobs[step.job]
    last = step.group == job.steps - 1
    ends = step.job + 1 == len(plan.jobs) or plan.jobs[step.job + 1].first
    latent = job.name.startswith("vae.enc") and plan.jobs[step.job + 1].name.startswith("vae.dec")
    squared = last and (latent or (ends and job.activation == "linear"))
    flags = {"keep": int(last and not ends), "score": int(last and job.activation == "acc"), "square": int(squared)}
    word = {
        "set": step.weight_set, "job": step.job, "address": plan.bases[step.job] + step.group,
        "slot": step.weight_set * chains(plan) + job.chain, "group": step.group * (2 if job.split else 1),
        "split": int(job.split), "from_codes": int(job.first), "begins": int(step.group == 0),
        "relu": int(job.activation == "relu"), "latent": int(squared and latent),
        "plain": int(squared and job.name.startswith("maha")),
    }  # fmt: skip
    return flags, word
