"""What the reloadable core does in which cycle: computed from the layers, so that another network needs no other words.

Each cycle ROWS x COLUMNS products are made. A layer of more than ROWS/2 outputs takes COLUMNS inputs a cycle; a smaller
one takes twice as many, its second half of the lanes working on the same outputs ("split"). The three weight sets
follow one another, so that the way through multipliers, adders and requantiser of one hides behind the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from hdl.reloadable.stages import COLUMNS, DELAY, ROWS
from microrisk.errors import UsageError
from microrisk.spec.weightfile import HEADS, LAYERS

SETS = ("stable", "current", "experimental")
BANKS = len(SETS) + 1
"""One more than sets: the spare one is written while the others score."""
NETS = {"maxz": (), "maha": ("maha",), "vae": ("vae.enc", "vae.dec"), "exposure": ("exposure",)}
"""Layers of each head, by the beginning of their names."""


@dataclass(frozen=True)
class Job:
    """One layer.

    Attributes
    ----------
    name : in spec.weightfile.LAYERS
    chain : number of the head's activation buffer; a layer reads what the one before it in its chain wrote
    first : reads the codes
    outputs, inputs, activation : as in LAYERS
    """

    name: str
    chain: int
    first: bool
    outputs: int
    inputs: int
    activation: str

    @property
    def split(self) -> bool:
        """Both halves of the lanes work on the same outputs."""
        return self.outputs <= ROWS // 2

    @property
    def columns(self) -> int:
        """Inputs a step."""
        return COLUMNS * (2 if self.split else 1)

    @property
    def steps(self) -> int:
        """Cycles of one set."""
        return -(-self.inputs // self.columns)


@dataclass(frozen=True)
class Step:
    """One cycle's work: set, job, and which group of the job's inputs."""

    weight_set: int
    job: int
    group: int


@dataclass(frozen=True)
class Plan:
    """Jobs of the heads and the cycle of each step.

    Attributes
    ----------
    heads : columns of the result, in the order of spec.weightfile.HEADS
    jobs : layers in the order of their weights in a bank
    program : what is issued in each cycle; None = nothing
    """

    heads: tuple[str, ...]
    jobs: tuple[Job, ...]
    program: tuple[Step | None, ...]

    @cached_property
    def bases(self) -> tuple[int, ...]:
        """First weight address of each job within a bank."""
        out, at = [], 0
        for job in self.jobs:
            out.append(at)
            at += job.steps
        return tuple(out)

    @property
    def depth(self) -> int:
        """Weight addresses of a bank."""
        return sum(job.steps for job in self.jobs)

    def last_issue(self, job: int, weight_set: int) -> int:
        """Cycle of a job's last step."""
        return max(c for c, s in enumerate(self.program) if s and (s.job, s.weight_set) == (job, weight_set))


def make_plan(heads: Sequence[str]) -> Plan:
    """Plan of these heads.

    Raises UsageError for a head that does not exist, and for a layer that does not fit the lanes.
    """
    wanted = tuple(h for h in HEADS if h in heads)
    if not wanted or set(heads) - set(HEADS):
        raise UsageError(f"no head {sorted(set(heads) - set(HEADS)) or list(heads)}; there are {', '.join(HEADS)}")
    jobs = tuple(_jobs(wanted))
    return Plan(wanted, jobs, tuple(_program(jobs)))


def _jobs(heads: Sequence[str]) -> list[Job]:
    jobs: list[Job] = []
    chained = [h for h in heads if NETS[h]]
    for chain, head in enumerate(chained):
        names = [n for net in NETS[head] for n in LAYERS if n.rpartition(".")[0] == net]
        for name in names:
            outputs, inputs, activation = LAYERS[name]
            if outputs > ROWS or inputs > ROWS:
                raise UsageError(f"{name}: {outputs} outputs of {inputs} inputs, the core has {ROWS} rows")
            jobs.append(Job(name, chain, name == names[0], outputs, inputs, activation))
    return jobs


def _program(jobs: Sequence[Job]) -> list[Step | None]:
    """List scheduling: of the jobs whose inputs are there, the one with most work behind it goes first."""
    left = {(k, s) for k in range(len(jobs)) for s in range(len(SETS))}
    ready = {(k, s): 0 if jobs[k].first else None for k, s in left}
    program: list[Step | None] = []
    while left:
        able = [j for j in left if ready[j] is not None and ready[j] <= len(program)]
        if not able:
            program.append(None)
            continue
        k, s = min(able, key=lambda j: (-_behind(jobs, j[0]), j[1], j[0]))
        program += [Step(s, k, g) for g in range(jobs[k].steps)]
        left.remove((k, s))
        if k + 1 < len(jobs) and not jobs[k + 1].first:
            ready[k + 1, s] = len(program) - 1 + DELAY
    return program


def _behind(jobs: Sequence[Job], k: int) -> int:
    """Cycles from the start of job k to the end of its chain."""
    total = jobs[k].steps + DELAY
    while k + 1 < len(jobs) and not jobs[k + 1].first:
        k += 1
        total += jobs[k].steps + DELAY
    return total
