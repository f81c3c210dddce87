"""A model as writes to the weight bus: the spare bank filled, then the commit."""

from __future__ import annotations

import numpy as np

from hdl.reloadable.plan import COLUMNS, ROWS, SETS, Plan
from hdl.reloadable.registers import (
    BY_NAME,
    DATA_BITS,
    EXPONENT_BITS,
    EXPONENTS_A_WORD,
    PARAMETERS,
    REGISTER,
    WEIGHTS,
    address,
)
from microrisk.errors import UsageError
from microrisk.spec.features import ALL_MASK
from microrisk.spec.formats import ACC, CODE, WEIGHT
from microrisk.weights import Weights

Writes = list[tuple[int, int]]
"""(address, data)."""


def bus_writes(weights: Weights, plan: Plan, weight_set: int, mask: int = ALL_MASK) -> Writes:
    """Everything that puts a model into a set of the reloadable core.

    Raises
    ------
    UsageError : no such set
    WeightFileError, SpecMismatch : weights that validate() refuses
    """
    if not 0 <= weight_set < len(SETS):
        raise UsageError(f"no weight set {weight_set}; there are {len(SETS)}: {', '.join(SETS)}")
    weights.validate()
    writes: Writes = []
    for number, (job, base) in enumerate(zip(plan.jobs, plan.bases, strict=True)):
        weight, bias, shift = (t.astype(np.int64) for t in weights.layer(job.name))
        writes += _weights(weight, job.columns, base)
        half = np.where((shift > 0) & (job.activation != "acc"), 1 << np.maximum(shift - 1, 0), 0)
        for row, (b, s) in enumerate(zip(bias + half, shift, strict=True)):
            writes.append((address(PARAMETERS, number, row), int(b) % (1 << ACC.width) | int(s) << ACC.width))
    return writes + _registers(weights, mask) + [(BY_NAME["COMMIT"].address, weight_set)]


def _weights(weight: np.ndarray, columns: int, base: int) -> Writes:
    """One layer; in a split one, the second half of a group's columns lies in the upper half of the rows."""
    outputs, inputs = weight.shape
    steps = -(-inputs // columns)
    lanes = np.zeros((steps, ROWS, COLUMNS), np.int64)
    padded = np.zeros((outputs, steps * columns), np.int64)
    padded[:, :inputs] = weight
    for part in range(columns // COLUMNS):
        chosen = padded.reshape(outputs, steps, columns)[:, :, part * COLUMNS : (part + 1) * COLUMNS]
        first = part * ROWS // 2
        lanes[:, first : first + outputs] = chosen.transpose(1, 0, 2)
    words = sum((lanes[:, :, c] % (1 << WEIGHT.width)) << WEIGHT.width * c for c in range(COLUMNS))
    return [(address(WEIGHTS, base + s, r), int(words[s, r])) for s in range(steps) for r in range(ROWS)]


def _registers(weights: Weights, mask: int) -> Writes:
    exponents = weights.tensors["vae.residual_exp"].tolist()
    words = [
        sum(int(e) << EXPONENT_BITS * k for k, e in enumerate(exponents[i : i + EXPONENTS_A_WORD]))
        for i in range(0, len(exponents), EXPONENTS_A_WORD)
    ]
    name = int(weights.heads_hash(), 16)
    values = {"MASK": mask, **{f"EXPONENTS_{k}": w for k, w in enumerate(words)}}
    values |= {"LATENT": int(weights.tensors["vae.latent_exp"][0])}
    values |= {"HASH_LOW": name % (1 << DATA_BITS), "HASH_HIGH": name >> DATA_BITS}
    return [(address(REGISTER, BY_NAME[k].address), v) for k, v in values.items()]


assert WEIGHT.width * COLUMNS == DATA_BITS, "a bus word is the weights of one row and step"
assert CODE.width <= WEIGHT.width
