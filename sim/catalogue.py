"""What is simulated: each case is a component, the reference that it must equal, and how it is made again.

Inputs are rows of codes and outputs rows of int32, whatever the unit: wider inputs are joined from codes inside the
component, so one bench serves all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdl import layers
from hdl.credit import Credited
from hdl.graph import Graph
from hdl.heads import ENCODER
from hdl.pipe import Pipe
from hdl.schedule import ECP5, schedule
from hdl.unrolled import PERIOD_NS, UnrolledCore
from microrisk import fixed
from microrisk.spec.features import ALL_MASK
from microrisk.spec.formats import ACC, CODE, SHIFT_MAX
from microrisk.spec.records import N_FEATURES
from microrisk.spec.weightfile import HEADS
from microrisk.weights import Weights, mask_vector
from sim.design import Design, make_design

Codes = NDArray[np.int8]
Rows = NDArray[np.int32]
JOINED = ACC.width // CODE.width
"""Codes that make one accumulator."""


@dataclass(frozen=True)
class Case:
    """A component and its reference.

    Attributes
    ----------
    name : as tests and reports call it
    make : makes the component, a pipe from codes to named results of HEAD width
    identity : what `make` depends on besides the sources
    inputs : codes in a row
    compute : int8[n, inputs] -> int32[n, outputs]
    """

    name: str
    make: Callable[[], Any]
    identity: tuple[Any, ...]
    inputs: int
    compute: Callable[[Codes], Rows]

    def design(self) -> Design:
        """Its RTLIL and Verilog, made when they are not there."""
        return make_design(self.make, self.name, *self.identity)


# ---- cores ----


def core(weights: Weights, heads: Sequence[str], mask: int = ALL_MASK) -> Case:
    """The unrolled core of these heads; "encoder" is not part of Weights.compute and has its own reference."""
    names = tuple(heads)
    identity = (weights.heads_hash(), names, f"{mask:08x}")
    make = partial(UnrolledCore, weights, names, mask=mask)
    return Case(f"unrolled {'+'.join(names)}", make, identity, N_FEATURES, partial(head_rows, weights, names, mask))


def head_rows(weights: Weights, heads: Sequence[str], mask: int, codes: Codes) -> Rows:
    """Columns of Weights.compute by name, "encoder" beside them: int32[n, len(heads)]."""
    every = weights.compute(codes, mask)
    columns = [_encoder(weights, codes, mask) if h == ENCODER else every[:, HEADS.index(h)] for h in heads]
    return np.stack(columns, axis=1).astype(np.int32)


def _encoder(weights: Weights, codes: Codes, mask: int) -> NDArray[np.int64]:
    x = np.where(mask_vector(mask), codes, 0).astype(np.int64)
    for name in ("vae.enc.0", "vae.enc.1", "vae.enc.2"):
        w, b, s = weights.layer(name)
        x = fixed.dense(x, w, b, s, relu=name != "vae.enc.2")
    return fixed.sum_squares(x, weights.tensors["vae.latent_exp"][0])


def credited(case: Case) -> Design:
    """The design of a case's pipe behind credits; its fact `depth` is how many rows fit inside."""
    return make_design(partial(_credited, case.make), "credited", case.name, *case.identity)


def _credited(make: Callable[[], Any]) -> Credited:
    return Credited(make())


# ---- the reloadable core ----

Model = tuple[Weights, int]
"""Weights, and the mask that they are scored under."""


def reloadable(heads: Sequence[str]) -> Design:
    """The core whose weights are written while it runs; its fact `interval` is the cycles between two events."""
    from hdl.reloadable.core import ReloadableCore

    return make_design(partial(ReloadableCore, tuple(heads)), "reloadable", tuple(heads))


def set_rows(models: Sequence[Model], heads: Sequence[str], codes: Codes) -> Rows:
    """What it gives for a model in each of its sets: int32[n, sets * heads], sets outermost."""
    names = [h for h in HEADS if h in heads]
    return np.concatenate([head_rows(weights, names, mask, codes) for weights, mask in models], axis=1)


def set_writes(models: Sequence[Model], heads: Sequence[str]) -> list[list[tuple[int, int]]]:
    """Bus writes that load a model into each set, the commit last: one list a set."""
    from hdl.reloadable.image import bus_writes
    from hdl.reloadable.plan import make_plan

    plan = make_plan(tuple(heads))
    return [bus_writes(weights, plan, k, mask) for k, (weights, mask) in enumerate(models)]


def bus_edges(heads: Sequence[str]) -> list[tuple[int, int, bool]]:
    """(address, word, whether the core takes it) around every end of its address ranges."""
    from hdl.reloadable.plan import ROWS, SETS, make_plan
    from hdl.reloadable.registers import BY_NAME, PARAMETERS, WEIGHTS, address

    plan = make_plan(tuple(heads))
    last = [(WEIGHTS, plan.depth - 1), (PARAMETERS, len(plan.jobs) - 1)]
    edges = [(address(kind, index, ROWS - 1), 0, True) for kind, index in last]
    edges += [(address(kind, index + 1), 0, False) for kind, index in last]
    edges += [(BY_NAME["MASK"].address, 1, True), (BY_NAME["STATUS"].address, 1, False)]
    edges += [(BY_NAME["COMMIT"].address, len(SETS), False), (max(r.address for r in BY_NAME.values()) + 1, 0, False)]
    return edges


# ---- units: one line of microrisk.fixed each ----


def units(weights: Weights) -> list[Case]:
    """The parts of the heads, small enough that every path of them is met; layers are those of the model."""
    return [_requantise(), _squares(), _max_abs(), *_dense(weights), _whitening(weights), _residual(weights)]


def _unit(
    name: str, inputs: int, build: Callable[[Graph], None], compute: Callable[[Codes], Any], *identity: Any
) -> Case:
    def rows(codes: Codes) -> Rows:
        return np.asarray(compute(codes)).reshape(len(codes), -1).astype(np.int32)

    return Case(name, partial(_pipe, build, inputs), identity, inputs, rows)


def _pipe(build: Callable[[Graph], None], inputs: int) -> Pipe:
    graph = Graph()
    build(graph)
    return Pipe(schedule(graph, PERIOD_NS, ECP5), inputs)


def accumulators(codes: Codes) -> NDArray[np.int64]:
    """Rows of JOINED codes as accumulators, the first code in the lowest bits: int64[n]."""
    unsigned = codes.astype(np.int64) & (1 << CODE.width) - 1
    joined = sum(unsigned[:, k] << CODE.width * k for k in range(JOINED))
    return np.asarray(np.where(joined > ACC.high, joined - (1 << ACC.width), joined))


def codes_of(accumulator: NDArray[np.int64]) -> Codes:
    """The codes that `accumulators` makes these of: int8[n, JOINED]."""
    parts = [(accumulator >> CODE.width * k).astype(np.int8) for k in range(JOINED)]
    return np.stack(parts, axis=1)


def rounding_corners(seed: int, inputs: int = JOINED) -> Codes:
    """Accumulators next to every half step and to both ends of CODE, for every shift; wider rows repeat them."""
    rng = np.random.default_rng(seed)
    ends = [CODE.low, CODE.high, CODE.low - 1, CODE.high + 1]
    found = [np.array([ACC.low, ACC.high, 0, -1, 1])]
    for shift in range(SHIFT_MAX + 1):
        half = 1 << shift - 1 if shift else 0
        steps = np.concatenate([rng.integers(CODE.low - 3, CODE.high + 4, 6), ends])
        found += [(steps << shift) + half + d for d in (-1, 0, 1)]
    accumulators = np.concatenate(found)
    rows = codes_of(accumulators[(accumulators >= ACC.low) & (accumulators <= ACC.high)])
    return np.tile(rows, -(-inputs // JOINED))[:, :inputs]


def _joined(graph: Graph) -> int:
    """Node of one accumulator over its whole range."""
    nodes = layers.inputs(graph, JOINED)
    total = nodes[-1]
    for node in nodes[-2::-1]:
        total = graph.join(graph.bits(node, 0, CODE.width, signed=False), total, CODE.width)
    return total


def _requantise() -> Case:
    shifts = range(SHIFT_MAX + 1)

    def build(graph: Graph) -> None:
        a = _joined(graph)
        for s in shifts:
            graph.outputs[f"shift_{s}"] = layers.requantise(graph, a, s)

    def compute(codes: Codes) -> Any:
        return fixed.requantise(accumulators(codes)[:, None], np.array(shifts))

    return _unit("requantise", JOINED, build, compute)


def _squares() -> Case:
    exponents = [0, 1, 9, 4]

    def build(graph: Graph) -> None:
        x = layers.inputs(graph, len(exponents))
        graph.outputs["plain"] = layers.sum_squares(graph, x)
        graph.outputs["weighted"] = layers.sum_squares(graph, x, exponents)

    def compute(codes: Codes) -> Any:
        return np.stack([fixed.sum_squares(codes), fixed.sum_squares(codes, exponents)], axis=1)

    return _unit("sum_squares", len(exponents), build, compute)


def _max_abs() -> Case:
    def build(graph: Graph) -> None:
        graph.outputs["maxz"] = layers.max_abs(graph, layers.inputs(graph, N_FEATURES))

    return _unit("max_abs", N_FEATURES, build, lambda codes: np.abs(codes.astype(np.int64)).max(axis=1))


def _dense(weights: Weights) -> list[Case]:
    """A hidden layer with its ReLU and without: activation is the only difference; and the last layer of the vae."""
    return [_layer(weights, *which) for which in (("exposure.1", True), ("exposure.1", False), ("vae.dec.2", False))]


def _layer(weights: Weights, name: str, relu: bool) -> Case:
    weight, bias, shift = weights.layer(name)

    def build(graph: Graph) -> None:
        y = layers.dense(graph, layers.inputs(graph, weight.shape[1]), weight, bias, shift, relu=relu)
        graph.outputs.update({f"row_{k}": node for k, node in enumerate(y)})

    def compute(codes: Codes) -> Any:
        return fixed.dense(codes, weight, bias, shift, relu=relu)

    title = f"dense {name} {'relu' if relu else 'linear'}"
    return _unit(title, weight.shape[1], build, compute, weights.heads_hash())


def _whitening(weights: Weights) -> Case:
    """First eight rows of the whitening layer, and their squares."""
    weight, bias, shift = (t[:8] for t in weights.layer("maha.0"))

    def build(graph: Graph) -> None:
        y = layers.dense(graph, layers.inputs(graph, N_FEATURES), weight, bias, shift)
        graph.outputs["maha"] = layers.sum_squares(graph, y)

    def compute(codes: Codes) -> Any:
        return fixed.sum_squares(fixed.dense(codes, weight, bias, shift))

    return _unit("whitening", N_FEATURES, build, compute, weights.heads_hash())


def _residual(weights: Weights) -> Case:
    """Differences of two codes span nine bits: (x - y)**2 weighted as the vae head does."""
    pairs = 4
    exponents = weights.tensors["vae.residual_exp"][:pairs].tolist()

    def build(graph: Graph) -> None:
        x = layers.inputs(graph, 2 * pairs)
        difference = [graph.add(x[k], x[pairs + k], 0, -1) for k in range(pairs)]
        graph.outputs["residual"] = layers.sum_squares(graph, difference, exponents)

    def compute(codes: Codes) -> Any:
        x = codes.astype(np.int64)
        return fixed.sum_squares(x[:, :pairs] - x[:, pairs:], exponents)

    return _unit("residual", 2 * pairs, build, compute, weights.heads_hash())
