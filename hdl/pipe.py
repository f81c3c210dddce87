"""A dataflow graph as a free-running pipeline in Amaranth: one result a cycle, no stalls, valid beside the data."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hdl.graph import Node
from hdl.schedule import Schedule
from hdl.shapes import codes, heads, shape_for


class Pipe(wiring.Component):
    """Stages of registers around the operations of a scheduled graph.

    Parameters
    ----------
    schedule : its inputs are the codes 0..n_features-1, its outputs the fields of the result
    n_features : codes in a payload

    Attributes
    ----------
    latency : clock periods from the edge that takes a payload to the edge after which its result is shown; a new
        payload can be taken at every edge
    """

    def __init__(self, schedule: Schedule, n_features: int) -> None:
        self._schedule = schedule
        self.latency = schedule.latency
        self._i, self._o = codes(n_features), heads(tuple(schedule.graph.outputs))
        super().__init__(
            {
                "i": In(stream.Signature(self._i, always_ready=True)),
                "o": Out(stream.Signature(self._o, always_ready=True)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Registers in, stages, registers out."""
        m = Module()
        maker = _Maker(m, self._schedule)
        taken = Signal(data.ArrayLayout(self._i.elem_shape, self._i.length), reset_less=True, name="code")
        m.d.sync += taken.eq(self.i.payload)
        maker.inputs = [taken[k] for k in range(self._i.length)]
        for name, node in self._schedule.graph.outputs.items():
            m.d.comb += self.o.payload[name].eq(maker.at(node, self.latency))
        valid = Signal(self.latency + 1)
        m.d.sync += valid.eq(Cat(self.i.valid, valid))
        m.d.comb += self.o.valid.eq(valid[-1])
        return m


class _Maker:
    """Signals of nodes by stage; registers are made where a later stage asks for a value."""

    def __init__(self, m: Module, schedule: Schedule) -> None:
        self.m, self.graph, self.stage = m, schedule.graph, schedule.stage
        self.inputs: list[Value] = []
        self._made: dict[tuple[int, int], Value] = {}

    def at(self, k: int, stage: int) -> Value:
        """Value of node k as stage `stage` sees it."""
        node = self.graph.nodes[k]
        if node.op == "const":
            return Const(node.numbers[0], shape_for(node.low, node.high))
        if (k, stage) not in self._made:
            # stages are filled upwards: a recursion over all of them would be deeper than Python allows
            for s in range(self.stage[k], stage + 1):
                if (k, s) not in self._made:
                    self._made[k, s] = self._make(k, s)
        return self._made[k, stage]

    def _make(self, k: int, stage: int) -> Value:
        node = self.graph.nodes[k]
        if stage == self.stage[k] or node.op in ("bits", "join"):
            made = self._operation(node, [self.at(a, stage) for a in node.args])
            if node.op in ("input", "bits", "join"):
                return made
            out = Signal(shape_for(node.low, node.high), name=f"{node.op}_{k}")
            self.m.d.comb += out.eq(made)
            return out
        held = Signal(shape_for(node.low, node.high), name=f"{node.op}_{k}_s{stage}", reset_less=True)
        self.m.d.sync += held.eq(self._made[k, stage - 1])
        return held

    def _operation(self, node: Node, x: list[Value]) -> Value:
        n = node.numbers
        match node.op:
            case "input":
                return self.inputs[n[0]]
            case "add":
                return _add(x[0], x[1], n[0], n[1])
            case "rsub":
                return (x[1] << n[0]) - x[0]
            case "clip":
                return _clip(x[0] >> n[0], n[1], n[2])
            case "bits":
                part = _extended(x[0], n[1])[n[0] : n[1]]
                return part.as_signed() if n[2] else part
            case "table":
                return _table(x[0], n[0], n[1:], shape_for(node.low, node.high))
            case "gate":
                return Mux(x[1][n[0]], x[0], 0)
            case "join":
                joined = Cat(_extended(x[0], n[0]), x[1])
                return joined.as_signed() if x[1].shape().signed else joined
            case "max":
                return Mux(x[0] > x[1], x[0], x[1])
            case "abs":
                return Mux(x[0] < 0, -x[0], x[0])
        raise ValueError(f"no operation {node.op!r}")


def _extended(x: Value, width: int) -> Value:
    """At least `width` bits of x, its sign carried on."""
    if len(x) >= width:
        return x[:width]
    fill = x[-1] if x.shape().signed and len(x) else Const(0, 1)
    return Cat(x, fill.replicate(width - len(x)))


def _add(a: Value, b: Value, shift: int, sign: int) -> Value:
    """Sum a + sign * (b << shift): the low bits of a pass, the adder is as long as the rest."""
    upper = a >> shift
    total = upper + b if sign > 0 else upper - b
    if not shift:
        return total
    joined = Cat(_extended(a, shift), total)
    return joined.as_signed() if total.shape().signed else joined


def _clip(x: Value, low: int, high: int) -> Value:
    """Value of x held in low..high, where both ends are of the form that a test of the upper bits decides."""
    kept = high.bit_length()
    if low == 0:
        upper = x[kept:]
        bits = x[:kept]
        over = upper[:-1].any() if x.shape().signed else upper.any()
        filled = (bits | over.replicate(kept)) if len(upper) else bits
        return Mux(x[-1], 0, filled) if x.shape().signed else filled
    if len(x) <= kept + 1:
        return x
    sign, upper = x[-1], x[kept:-1]
    fits = Mux(sign, upper.all(), ~upper.any())
    return Mux(fits, x[: kept + 1].as_signed(), Cat((~sign).replicate(kept), sign).as_signed())


def _table(x: Value, offset: int, values: tuple[int, ...], shape: object) -> Value:
    """Entry values[x - offset]; places that x cannot reach repeat the first value."""
    span = 1 << len(x)
    by_bits = [values[0]] * span
    for k, value in enumerate(values):
        by_bits[(k + offset) % span] = value
    return Array([Const(v, shape) for v in by_bits])[x.as_unsigned()]
