"""Cuts a dataflow graph into pipeline stages by the time that each operation takes on the target.

Nothing stalls and every path from input to output crosses the same number of registers. An operation goes into the
stage of its latest argument if the sum of the delays on the way still fits the period, else into the next stage; so
short chains share a stage with long ones, and the number of stages follows from carry lengths, not from levels.
"""

from __future__ import annotations

from dataclasses import dataclass

from hdl.graph import Graph, Node

FREE = ("input", "const", "bits", "join")
"""Operations that are only wires."""


@dataclass(frozen=True)
class Target:
    """Delays of a device in ns, as a placed and routed design shows them.

    Attributes
    ----------
    clock_to_q, setup : of a register
    lut : one look-up table of four inputs
    mux : each doubling of a table's inputs after that
    carry_in, carry_bit, carry_out : into a carry chain, along it by one bit, out of it
    route, fanout : a wire with one load, and for each doubling of its loads
    """

    name: str
    clock_to_q: float
    setup: float
    lut: float
    mux: float
    carry_in: float
    carry_bit: float
    carry_out: float
    route: float
    fanout: float


ECP5 = Target(
    "LFE5UM5G-85F-8", clock_to_q=0.31, setup=0.0, lut=0.18, mux=0.24, carry_in=0.28, carry_bit=0.022, carry_out=0.26,
    route=0.80, fanout=0.05,
)  # fmt: skip
"""Fitted to nextpnr-ecp5's own timing of routed cores of this folder; route is its median, not its worst."""


@dataclass(frozen=True)
class Schedule:
    """Where each live node is.

    Attributes
    ----------
    stage : node -> number of registers between it and the input register
    last : stage of the last operation; its result is registered once more
    """

    graph: Graph
    stage: dict[int, int]
    last: int

    @property
    def latency(self) -> int:
        """Clock periods from the edge that loads the input register to the edge that loads the output register."""
        return self.last + 1

    def registers(self) -> int:
        """Register bits, input and output registers included."""
        until = dict.fromkeys(self.stage, 0)
        for k in self.stage:
            for a in self.graph.nodes[k].args:
                until[a] = max(until[a], self.stage[k])
        for k in self.graph.outputs.values():
            until[k] = self.latency
        held = 0
        for k, s in self.stage.items():
            node = self.graph.nodes[k]
            held += (
                node.width * (until[k] - s + (node.op == "input")) if node.op not in ("const", "bits", "join") else 0
            )
        return held


def schedule(graph: Graph, period_ns: float, target: Target = ECP5) -> Schedule:
    """Stages of at most `period_ns`; an operation that takes longer by itself gets a stage of its own."""
    live = graph.live()
    loads = _loads(graph, live)
    stage: dict[int, int] = {}
    ready: dict[int, float] = {}
    for k in live:
        node = graph.nodes[k]
        at = max((stage[a] for a in node.args if graph.nodes[a].op != "const"), default=0)
        spent = delay(node, graph, target)

        def arrival(a: int, at: int = at) -> float:
            if graph.nodes[a].op == "const":
                return 0.0
            return ready[a] if stage[a] == at else target.clock_to_q

        if node.op in FREE:
            stage[k] = at
            ready[k] = max((arrival(a) for a in node.args), default=target.clock_to_q)
            continue
        wires = {a: target.route + target.fanout * (max(loads[a], 1) - 1).bit_length() for a in node.args}
        done = max(arrival(a) + wires[a] for a in node.args) + spent
        if done + target.setup > period_ns and any(arrival(a) > target.clock_to_q for a in node.args):
            at += 1
            done = target.clock_to_q + max(wires.values()) + spent
        stage[k], ready[k] = at, done
    return Schedule(graph, stage, max(stage.values()))


def _loads(graph: Graph, live: list[int]) -> dict[int, int]:
    """How many operations read each node, through wires too."""
    loads = dict.fromkeys(live, 0)
    for k in reversed(live):
        for a in graph.nodes[k].args:
            loads[a] += loads[k] if graph.nodes[k].op in FREE else 1
    return loads


def delay(node: Node, graph: Graph, target: Target) -> float:
    """Time through one operation, wires in front of it left out."""
    match node.op:
        case "add":
            return _chain(node.width - (node.numbers[0] if node.numbers[1] else 0), target)
        case "rsub" | "abs":
            return _chain(node.width, target)
        case "clip":
            return _lookup(_clip_inputs(node, graph), target)
        case "table":
            return _lookup(graph.nodes[node.args[0]].width, target)
        case "gate":
            return target.lut
        case "max":
            return _chain(node.width, target) + target.route + target.lut
    return 0.0


def _chain(bits: int, target: Target) -> float:
    return target.carry_in + max(bits, 1) * target.carry_bit + target.carry_out


def _clip_inputs(node: Node, graph: Graph) -> int:
    """Inputs of the function that makes one bit of a clipped value: that bit, and all above the kept ones."""
    shift, _, high = node.numbers
    above = graph.nodes[node.args[0]].width - shift - high.bit_length()
    return 1 + max(above, 0)


def _lookup(inputs: int, target: Target) -> float:
    if inputs <= 4:
        return target.lut
    if inputs <= 6:
        return target.lut + (inputs - 4) * target.mux
    return 2 * target.lut + target.route
