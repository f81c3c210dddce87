"""Addresses of the weight bus: one table that hardware decode, image and documentation read."""

from __future__ import annotations

from dataclasses import dataclass

from hdl.reloadable.plan import ROWS, SETS
from microrisk.spec.formats import RESIDUAL_EXP_MAX
from microrisk.spec.records import N_FEATURES

ADDRESS_BITS, DATA_BITS = 16, 32
KIND_BIT = ADDRESS_BITS - 2
REGISTER, WEIGHTS, PARAMETERS = range(3)
"""What the two highest address bits choose. Weights: step * ROWS + row, COLUMNS int8, the first input lowest.
Parameters: job * ROWS + row, bias with the rounding term in the low bits, the shift above it."""
EXPONENT_BITS = RESIDUAL_EXP_MAX.bit_length()
EXPONENTS_A_WORD = DATA_BITS // EXPONENT_BITS


@dataclass(frozen=True)
class Register:
    """One word; `staged` ones belong to the spare bank and take effect with it."""

    name: str
    address: int
    access: str
    staged: bool
    sentence: str


def _table() -> tuple[Register, ...]:
    words = -(-N_FEATURES // EXPONENTS_A_WORD)
    sets = ", ".join(f"{k} {s}" for k, s in enumerate(SETS))
    rows = [
        ("COMMIT", "w", False, f"number of a set ({sets}): between two events the spare bank takes its place"),
        ("STATUS", "r", False, "bit 0 a commit waits, bit 1 an error was seen, from bit 4 the sets' banks, the spare"),
        ("CLEAR", "w", False, "any value: forget the error"),
        ("MASK", "w", True, "features that the feed carries"),
        *[(f"EXPONENTS_{k}", "w", True, "exponents of vae residuals, lowest feature lowest") for k in range(words)],
        ("LATENT", "w", True, "exponent of the vae's latents"),
        ("HASH_LOW", "w", True, "hash of the weights, lower half"),
        ("HASH_HIGH", "w", True, "upper half"),
        *[(f"HASH_{s.upper()}_{part}", "r", False, f"hash of the {s} set, {part.lower()} half")
          for s in SETS for part in ("LOW", "HIGH")],
    ]  # fmt: skip
    return tuple(Register(name, k, access, staged, words_) for k, (name, access, staged, words_) in enumerate(rows))


TABLE = _table()
BY_NAME = {r.name: r for r in TABLE}


def address(kind: int, index: int = 0, row: int = 0) -> int:
    """Bus address of a register (index), a weight word or a parameter word."""
    return kind << KIND_BIT | (index if kind == REGISTER else index * ROWS + row)


def markdown() -> str:
    """The table for people."""
    lines = ["| address | name | access | what |", "|---|---|---|---|"]
    lines += [
        f"| {r.address:#06x} | {r.name} | {r.access} | {r.sentence}{' (staged)' if r.staged else ''} |" for r in TABLE
    ]
    return "\n".join(lines)
