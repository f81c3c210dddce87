"""The unrolled core: the weights of one model as shift-add networks, one event a cycle, no multipliers.

The same Weights object that scores in software makes it; nothing is set by hand, so a new model gives a new core.
"""

from __future__ import annotations

from collections.abc import Sequence

from hdl.heads import heads_graph
from hdl.pipe import Pipe
from hdl.schedule import ECP5, Target, schedule
from microrisk.spec.features import ALL_MASK
from microrisk.spec.records import N_FEATURES
from microrisk.spec.weightfile import HEADS
from microrisk.weights import Weights

PERIOD_NS = 9.0
"""Stage length that the scheduler aims at. Long stages have the least latency: what a register costs on ECP5 is less
its own delay than what is left over in a stage of whole operations (hdl/reports/periods.json)."""


class UnrolledCore(Pipe):
    """Codes in, heads out, equal to `Weights.compute(codes, mask)`.

    Parameters
    ----------
    weights : the model
    heads : which columns; "encoder" is the latents' part of vae alone
    mask : features that the feed carries, a constant of this core
    period_ns, target : stage length and the delays it is filled by
    slack : adder levels that sharing may add to a layer
    """

    def __init__(
        self, weights: Weights, heads: Sequence[str] = HEADS, *, mask: int = ALL_MASK, period_ns: float = PERIOD_NS,
        target: Target = ECP5, slack: int = 0,
    ) -> None:  # fmt: skip
        self.heads = tuple(heads)
        self.graph = heads_graph(weights, self.heads, mask, slack=slack)
        super().__init__(schedule(self.graph, period_ns, target), N_FEATURES)
