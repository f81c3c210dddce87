"""Twenty planted off-by-ones, all caught by the benches that the true designs pass; the judge itself is judged too."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from sim import mutants
from sim.netlist import cells, flat_netlist, put

SEED = 1
DRAWS = 4
"""Mutants of a kind at most until one is not proved equal; a proof takes a minute and a half."""


@pytest.fixture(scope="module")
def found(weights):
    return mutants.targets(weights, SEED)


def test_every_mutant_is_caught(weights, exercised):
    done = mutants.campaign(weights, SEED, 20)
    print(done.table())
    assert done.count("survived") == 0, done.table()
    assert done.count("caught") == 20
    kinds = {v.mutant.kind for v in done.verdicts if v.outcome == "caught"}
    assert {"weight bit", "width a bit short", "constant off by one", "tie the other way"} <= kinds
    exercised(f"mutants of hdl, seed {SEED}: 20 caught ({len(kinds)} kinds), {done.count('equal')} proved equal")


def test_a_seed_draws_the_same_mutants_again(found):
    kinds = list(mutants.NETLIST)

    def drawn(seed):
        every = mutants.draw([t for t in found if t.name == "requantise"] + [found[1]], seed)
        return [(m.kind, m.target.name, m.place) for m in islice((m for m in every if m.kind in kinds), 3)]

    generator = dict(mutants.GENERATOR)
    try:
        mutants.GENERATOR.clear()
        assert drawn(1) == drawn(1) != drawn(2)
    finally:
        mutants.GENERATOR.update(generator)


def test_the_true_designs_pass_the_same_benches(found):
    for target in found:
        for bench in target.benches:
            assert mutants._caught(target.design, target, bench, SEED) is None, (target.name, bench)


def test_the_proof_tells_equal_from_different(found):
    (unit,) = (t for t in found if t.name == "requantise")
    text = flat_netlist(unit.design.rtlil)
    adder = next(c for c in cells(text) if c.type == "$add")
    swapped = put(text, adder, adder.connect("A", adder.ports["B"]).connect("B", adder.ports["A"]).set(
        "A_WIDTH", adder.number("B_WIDTH")).set("B_WIDTH", adder.number("A_WIDTH")).text())  # fmt: skip
    assert mutants.equal(text, text)
    assert adder.number("A_SIGNED") == adder.number("B_SIGNED")
    assert mutants.equal(text, swapped), "a + b is b + a"
    changed = mutants.add_for_subtract(adder, None)
    assert not mutants.equal(text, put(text, adder, changed[1]))


def test_mutants_of_the_reloadable_core_are_caught(weights, exercised):
    """Kinds that change a result wherever they are planted; among the others are places that one head never uses."""
    target, rng = mutants.reloadable(weights, SEED), random.Random(SEED)
    for bench in target.benches:
        assert mutants._caught(target.design, target, bench, SEED) is None
    kinds, equal = ("constant off by one", "add for subtract", "overflow bit missed"), 0
    for kind in kinds:
        for _ in range(DRAWS):
            verdict = mutants.judge(mutants._in_netlist(kind, [target], rng), SEED)
            if verdict.outcome != "equal":
                break
            equal += 1
        assert verdict.outcome == "caught", (kind, verdict.mutant.place)
    exercised(f"mutants of the reloadable core: {len(kinds)} of {len(kinds)} caught, {equal} proved equal")
