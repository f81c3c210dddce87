"""Planted off-by-ones: small wrong changes of the hardware, drawn by a seed; the benches must catch every one.

A mutant is made in the elaborated design (a cell of its netlist) or by giving the generator of the hardware weights
that differ in one place; no source is edited, and reference and vectors stay those of the true model. Each runs
through the same benches with the same vectors as the true design. One that no bench catches is put to a proof of
equivalence (Yosys: cone by cone with SAT, then induction). Proved equal, it is replaced by the next draw and listed as
such; not proved, it is listed as survived, and the run fails.

    python -m sim.mutants [--seed S] [--count N]
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdl.verilog import to_verilog
from microrisk.spec.features import ALL_MASK
from microrisk.spec.weightfile import LAYERS
from microrisk.weights import Weights
from sim import catalogue, vectors
from sim.coverage import layers_of
from sim.design import Design, ToolFailed, yosys
from sim.models import extreme, straddling
from sim.netlist import Cell, cells, constant, flat_netlist, literal, put
from sim.runner import run
from sim.tools import BUILD

COUNT = 20
BESIDE = 2
"""Mutants judged beside each other."""
PIPE_BENCHES = (("sim.tb_pipe", "back_to_back"), ("sim.tb_pipe", "reset_in_mid_stream"))
STREAM_BENCHES = tuple(("sim.tb_stream", t) for t in ("patterns", "full_rate", "back_pressure", "reset_in_mid_stream"))

RELOADABLE_BENCHES = tuple(("sim.tb_reloadable", t) for t in ("full_rate", "refused_writes", "reset_in_mid_stream"))


@dataclass(frozen=True)
class Target:
    """A true design with the benches and vectors that it passes.

    Attributes
    ----------
    weights, heads : what the generator makes it from; None where it has no weights
    options : of the benches
    """

    name: str
    design: Design
    codes: NDArray[np.int8]
    expected: NDArray[np.int32]
    benches: Sequence[tuple[str, str]]
    weights: Weights | None = None
    heads: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Mutant:
    """One wrong design: netlist text with what was changed, in words."""

    target: Target
    kind: str
    place: str
    text: str


@dataclass
class Verdict:
    """What became of a mutant: "caught", "equal" (proved) or "survived"."""

    mutant: Mutant
    outcome: str
    by: str = ""
    seconds: float = 0.0


@dataclass
class Campaign:
    """All verdicts of a seed."""

    seed: int
    verdicts: list[Verdict] = field(default_factory=list)

    def count(self, outcome: str) -> int:
        """How many mutants ended so."""
        return sum(v.outcome == outcome for v in self.verdicts)

    def table(self) -> str:
        """Markdown: mutant, where, outcome, caught by."""
        lines = ["| # | design | mutant | where | outcome | caught by | s |", "|---|---|---|---|---|---|---|"]
        for k, v in enumerate(self.verdicts, 1):
            m = v.mutant
            cells_ = (str(k), m.target.name, m.kind, m.place, v.outcome, v.by, f"{v.seconds:.1f}")
            lines.append("| " + " | ".join(c.replace("|", "/") for c in cells_) + " |")
        return "\n".join(lines)


# ---- kinds of change in a netlist; each yields (cell, new text, words) ----

Change = tuple[Cell, str, str]
ARITHMETIC = ("$add", "$sub")


def constant_off_by_one(cell: Cell, rng: random.Random) -> Change | None:
    """A constant operand of an adder (bias with rounding term, offset) is one more or one less."""
    for port in ("A", "B"):
        found = constant(cell.ports.get(port, ""))
        if cell.type in ARITHMETIC and found is not None and found[1]:
            by = rng.choice((-1, 1))
            return cell, cell.connect(port, literal(found[0], found[1] + by)).text(), f"{found[1]} -> {found[1] + by}"
    return None


def width_short(cell: Cell, rng: random.Random) -> Change | None:
    """An adder's result is one bit too narrow: its top bit repeats the one below (signed) or is 0."""
    if cell.type not in ARITHMETIC or cell.number("Y_WIDTH") < 3:
        return None
    width = cell.number("Y_WIDTH")
    wire = f"\\narrow_{cell.name.strip('$')}"
    signed = cell.number("A_SIGNED")
    top = f"{wire} [{width - 2}]" if signed else "1'0"
    narrow = cell.set("Y_WIDTH", width - 1).connect("Y", wire)
    joined = f"  connect {cell.ports['Y']} {{ {top} {wire} }}\n"
    return cell, f"  wire width {width - 1} {wire}\n{narrow.text()}{joined}", f"{width} -> {width - 1} bits"


def add_for_subtract(cell: Cell, rng: random.Random) -> Change | None:
    """An adder subtracts, or the other way round."""
    if cell.type not in ARITHMETIC:
        return None
    other = "$sub" if cell.type == "$add" else "$add"
    return cell, cell.text().replace(f"cell {cell.type} ", f"cell {other} ", 1), f"{cell.type} -> {other}"


def bound_off_by_one(cell: Cell, rng: random.Random) -> Change | None:
    """A constant that a multiplexer chooses (end of a saturation, zero of a ReLU) is one off."""
    ports = [p for p in ("A", "B") if constant(cell.ports.get(p, "")) is not None]
    if cell.type != "$mux" or not ports or "rst" in cell.ports["S"]:
        return None
    port = rng.choice(ports)
    width, value = constant(cell.ports[port]) or (1, 0)
    by = -1 if value else 1
    return cell, cell.connect(port, literal(width, value + by)).text(), f"{value} -> {value + by}"


def overflow_bit_missed(cell: Cell, rng: random.Random) -> Change | None:
    """A test for "any bit above" looks at one bit too few."""
    if cell.type not in ("$reduce_or", "$reduce_and") or cell.number("A_WIDTH") < 2:
        return None
    width = cell.number("A_WIDTH")
    wire = f"\\seen_{cell.name.strip('$')}"
    seen = cell.set("A_WIDTH", width - 1).connect("A", f"{wire} [{width - 1}:1]")
    before = f"  wire width {width} {wire}\n  connect {wire} {cell.ports['A']}\n"
    return cell, before + seen.text(), f"lowest of {width} bits"


def choice_inverted(cell: Cell, rng: random.Random) -> Change | None:
    """A multiplexer (ReLU, saturation, larger of two) takes the other side."""
    if cell.type != "$mux":
        return None
    a, b = cell.ports["A"], cell.ports["B"]
    return cell, cell.connect("A", b).connect("B", a).text(), "sides swapped"


def register_missing(cell: Cell, rng: random.Random) -> Change | None:
    """A register is a wire: its value comes a cycle early."""
    if cell.type not in ("$dff", "$sdff"):
        return None
    return cell, f"  connect {cell.ports['Q']} {cell.ports['D']}\n", f"{cell.number('WIDTH')} bits, one cycle early"


def comparison_edge(cell: Cell, rng: random.Random) -> Change | None:
    """A comparison takes or leaves out equality."""
    swap = {"$gt": "$ge", "$ge": "$gt", "$lt": "$le", "$le": "$lt"}
    if cell.type not in swap:
        return None
    other = swap[cell.type]
    return cell, cell.text().replace(f"cell {cell.type} ", f"cell {other} ", 1), f"{cell.type} -> {other}"


# ---- kinds of change in the weights that the generator gets ----

Tensors = dict[str, NDArray[Any]]


def weight_bit(tensors: Tensors, layer: str, rng: random.Random) -> str:
    """One bit of one weight."""
    weight = tensors[f"{layer}.weight"]
    row, column = rng.choice(np.argwhere(weight).tolist())
    bit = rng.randrange(7)
    before = int(weight[row, column])
    weight[row, column] ^= np.int8(1 << bit)
    return f"{layer}.weight[{row}, {column}] {before} -> {int(weight[row, column])}"


def shift_off_by_one(tensors: Tensors, layer: str, rng: random.Random) -> str:
    """One row is shifted by one more or less."""
    shift = tensors[f"{layer}.shift"]
    row = rng.randrange(len(shift))
    before = int(shift[row])
    shift[row] = before - 1 if before and rng.random() < 0.5 else before + 1
    return f"{layer}.shift[{row}] {before} -> {int(shift[row])}"


def rounding_missing(tensors: Tensors, layer: str, rng: random.Random) -> str:
    """One row rounds down instead of to the nearest: its bias lacks half a step."""
    shift, bias = tensors[f"{layer}.shift"], tensors[f"{layer}.bias"]
    row = rng.choice([k for k, s in enumerate(shift.tolist()) if s > 0])
    bias[row] -= 1 << int(shift[row]) - 1
    return f"{layer} row {row} without its half"


def tie_other_way(tensors: Tensors, layer: str, rng: random.Random) -> str:
    """One row rounds ties down: its rounding constant is one too small."""
    shift, bias = tensors[f"{layer}.shift"], tensors[f"{layer}.bias"]
    row = rng.choice([k for k, s in enumerate(shift.tolist()) if s > 0])
    bias[row] -= 1
    return f"{layer}.bias[{row}] {int(bias[row]) + 1} -> {int(bias[row])}"


NETLIST: dict[str, Callable[[Cell, random.Random], Change | None]] = {
    "constant off by one": constant_off_by_one,
    "width a bit short": width_short,
    "add for subtract": add_for_subtract,
    "bound off by one": bound_off_by_one,
    "overflow bit missed": overflow_bit_missed,
    "choice inverted": choice_inverted,
    "register missing": register_missing,
    "comparison edge": comparison_edge,
}
GENERATOR: dict[str, Callable[[Tensors, str, random.Random], str]] = {
    "weight bit": weight_bit,
    "shift off by one": shift_off_by_one,
    "rounding term missing": rounding_missing,
    "tie the other way": tie_other_way,
}


# ---- drawing ----


def targets(weights: Weights, seed: int) -> list[Target]:
    """Designs that mutants are planted in: two cores, a unit, and the credits around a core."""
    found = []
    for head in ("exposure", "maxz"):
        case = catalogue.core(weights, (head,))
        market = vectors.market(weights, 500, seed)
        codes = vectors.for_core(weights, (head,), 1500, seed, market=market)
        found.append(Target(case.name, case.design(), codes, case.compute(codes), PIPE_BENCHES, weights, (head,)))
    for case in catalogue.units(weights):
        if case.name in ("requantise", "sum_squares"):
            codes = vectors.mixture(2000, seed, case.inputs, extra=[catalogue.rounding_corners(seed, case.inputs)])
            found.append(Target(case.name, case.design(), codes, case.compute(codes), PIPE_BENCHES))
    return [*found, _credited(weights, seed)]


def _credited(weights: Weights, seed: int) -> Target:
    case = catalogue.core(weights, ("maxz",))
    codes = vectors.mixture(300, seed)
    return Target("credited maxz", catalogue.credited(case), codes, case.compute(codes), STREAM_BENCHES)


def reloadable(weights: Weights, seed: int) -> Target:
    """The reloadable core with three models in its sets."""
    heads = ("exposure",)
    models = [(weights, ALL_MASK), (straddling(4), ALL_MASK), (extreme(3), ALL_MASK)]
    codes = np.concatenate([vectors.corners()[:10], vectors.directed(weights, heads, seed), vectors.uniform(40, seed)])
    design = catalogue.reloadable(heads)
    options = {"loads": catalogue.set_writes(models, heads), "edges": catalogue.bus_edges(heads)}
    expected = catalogue.set_rows(models, heads, codes)
    return Target("reloadable exposure", design, codes, expected, RELOADABLE_BENCHES, options=options)


def draw(found: Sequence[Target], seed: int) -> Iterator[Mutant]:
    """Mutants without end: kinds in turn, target and place by the seed; the same seed, the same mutants."""
    rng = random.Random(seed)
    while True:
        kinds = [*NETLIST, *GENERATOR]
        rng.shuffle(kinds)
        for kind in kinds:
            mutant = _generated(kind, found, rng) if kind in GENERATOR else _in_netlist(kind, found, rng)
            if mutant is not None:
                yield mutant


def _in_netlist(kind: str, found: Sequence[Target], rng: random.Random) -> Mutant | None:
    """The kind at a place of a target that has one; None where none has."""
    for target in rng.sample(list(found), len(found)):
        text = flat_netlist(target.design.rtlil)
        for cell in rng.sample(every := cells(text), len(every)):
            change = NETLIST[kind](cell, rng)
            if change is not None:
                where, new, words = change
                return Mutant(target, kind, f"{where.type} {where.result()}: {words}", put(text, where, new))
    return None


def _generated(kind: str, found: Sequence[Target], rng: random.Random) -> Mutant | None:
    target = rng.choice([t for t in found if t.weights is not None and layers_of(t.heads)])
    assert target.weights is not None
    tensors = {k: v.copy() for k, v in target.weights.tensors.items()}
    names = [n for n in LAYERS if n.split(".")[0] in {x.split(".")[0] for x in layers_of(target.heads)}]
    layer = rng.choice([n for n in names if kind == "weight bit" or LAYERS[n][2] != "acc"])
    place = GENERATOR[kind](tensors, layer, rng)
    wrong = Weights(tensors, target.weights.card)
    design = catalogue.core(wrong, target.heads).design()
    return Mutant(target, kind, place, flat_netlist(design.rtlil))


# ---- judging ----


def judge(mutant: Mutant, seed: int) -> Verdict:
    """Run the benches until one catches it; where none does, try to prove it equal."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=_folder(), prefix="mutant-") as made:
        design = Design("mutant", Path(made), mutant.target.design.latency, mutant.target.design.facts)
        design.verilog().write_text(to_verilog(mutant.text))
        verdict = Verdict(mutant, "survived")
        by = next(filter(None, (_caught(design, mutant.target, bench, seed) for bench in mutant.target.benches)), None)
        if by is not None:
            verdict = Verdict(mutant, "caught", by)
        elif equal(flat_netlist(mutant.target.design.rtlil), mutant.text):
            verdict = Verdict(mutant, "equal", "proved by SAT, cone by cone")
    verdict.seconds = time.perf_counter() - began
    return verdict


def _caught(design: Design, target: Target, bench: tuple[str, str], seed: int) -> str | None:
    part = slice(None) if bench[1] in ("back_to_back", "patterns") else slice(200)
    codes, expected = target.codes[part], target.expected[part]
    try:
        more = {"seed": seed, "stop": True, "limit": 200, "limit_s": 300, "options": target.options}
        result = run(design, *bench, codes, expected, **more)
    except ToolFailed as e:
        return f"{bench[1]}: {str(e).splitlines()[0]}"
    return None if result.passed else f"{bench[1]}: {result.message}"


def equal(gold: str, gate: str, *, limit_s: float = 120) -> bool:
    """Whether Yosys proves two netlists of the same structure equal; False when it does not within the limit."""
    with tempfile.TemporaryDirectory() as made:
        scratch = Path(made)
        (scratch / "gold.il").write_text(gold)
        (scratch / "gate.il").write_text(gate)
        commands = [
            f"read_rtlil {scratch / 'gold.il'}", "rename dut gold", f"read_rtlil {scratch / 'gate.il'}",
            "rename dut gate", "memory_map", "equiv_make gold gate equal", "hierarchy -top equal", "opt_clean",
            "equiv_simple -undef", "equiv_induct -undef -seq 3", "equiv_status -assert",
        ]  # fmt: skip
        try:
            yosys(commands, limit_s=limit_s)
        except ToolFailed:
            return False
    return True


def _folder() -> Path:
    folder = BUILD / "mutants"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def campaign(weights: Weights, seed: int, count: int = COUNT) -> Campaign:
    """Draw until `count` mutants are decided that are not proved equal; a survivor counts."""
    done = Campaign(seed)
    drawn = draw(targets(weights, seed), seed)
    with ThreadPoolExecutor(BESIDE) as pool:
        while (short := count - len(done.verdicts) + done.count("equal")) > 0:
            done.verdicts += pool.map(partial(judge, seed=seed), list(islice(drawn, short)))
    return done


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: the table of a seed; exit code 1 when one survived."""
    from microrisk.score.registry import load_model

    parser = argparse.ArgumentParser(prog="python -m sim.mutants", description="plant off-by-ones and catch them")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=COUNT)
    asked = parser.parse_args(arguments)
    done = campaign(load_model("default"), asked.seed, asked.count)
    sys.stdout.write(done.table() + "\n")
    counts = ", ".join(f"{done.count(o)} {o}" for o in ("caught", "equal", "survived"))
    sys.stdout.write(f"seed {asked.seed}: {counts}\n")
    return int(done.count("survived") > 0)


if __name__ == "__main__":
    sys.exit(main())
