"""Makes the packaged sparse model: python -m microrisk.evaluate.sparse_model OUT --data FOLDER --parent MODEL.

Its exposure head is pruned and has few signed digits, so that an unrolled core of it is small; every other head is the
parent's, to the bit. It is taught with the sessions and recordings of the parent (evaluate/default_model.py). Budgets
were chosen on sessions and halves of recordings of their own; what is reported comes from others (sparse_grades.py).
With --curve, a model for each budget is made in OUT/<digits>/ and all figures go to that file; with --confirm, those
models are graded on further sessions, and the file gains that.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from cyclopts import App, Parameter

from microrisk.errors import UsageError
from microrisk.evaluate.default_model import MASKS, MINUTES, SIMULATED, Say, Seeds, calibrated, level_rows
from microrisk.evaluate.recordings import BINANCE, COINBASE, Real, injected, read_real
from microrisk.evaluate.sessions import eventful
from microrisk.evaluate.sparse_grades import CHOSEN_ON, CONFIRMED_ON, REPORTED_ON, Exam, generic, grades, read_exam
from microrisk.features.normalise import expand
from microrisk.market.simulator import simulate
from microrisk.model.digits import bill
from microrisk.model.floatnet import FloatNetwork
from microrisk.model.quantise import quantise
from microrisk.pipeline.fitting import exposure_rows
from microrisk.pipeline.gather import Raw, codes_of, gather
from microrisk.pipeline.memory import simulated
from microrisk.score.registry import find
from microrisk.weights import MODEL_FILE, Weights

if TYPE_CHECKING:
    from microrisk.model.sparse import Budget, Lessons


SHIPPED = 1100
"""Budget of the packaged model, chosen among heads of 620 weights: the smallest that kept the order of its int8 head
on every set that budgets are chosen on (900 did not). Heads of fewer weights need fewer digits to keep their own order,
but lose more of the parent's."""


def points() -> dict[int, Budget]:
    """Budgets of the curve by their digits.

    The small ones have rows of at most 15 digits, which with the bias are four adder levels, the others five levels.
    From 900 digits on they share one pruned head of two fifths of the weights.
    """
    from microrisk.model.sparse import Budget

    def shallow(digits: int, weights: int) -> Budget:
        return Budget(digits=digits, weights=weights, row_digits=15, row_weights=9)

    def deep(digits: int) -> Budget:
        return Budget(digits=digits, weights=620, row_digits=31, row_weights=20)

    small = [shallow(300, 170), shallow(500, 280), shallow(700, 390)]
    return {b.digits: b for b in [*small, deep(900), deep(SHIPPED), deep(1400)]}


@dataclass(frozen=True)
class Made:
    """A sparse model.

    Attributes
    ----------
    weights : few digits, everything else the parent's, levels calibrated anew
    int8 : the pruned head before digits were spared; its own int8 parent
    network : the pruned float head in the parent's float network
    """

    weights: Weights
    int8: Weights
    network: FloatNetwork

    def save(self, folder: str | Path) -> Path:
        """Write the model folder, float.safetensors included."""
        path = self.weights.save(folder)
        self.network.save(path)
        return path


def lessons(parent: Weights, data: Path | None, *, seeds: Seeds, minutes: float, say: Say) -> Lessons:
    """Rows of the parent's sessions and recordings, coded by its generic table."""
    from microrisk.model.sparse import Lessons

    table = generic(parent)
    flat = expand(table)
    say(f"{len(seeds.clean)} clean sessions of {minutes:g} minutes")
    calm = np.concatenate([codes_of(r.raw, flat) for s in seeds.clean for r in _features(simulate(s, minutes * 60))])
    real: Real | None = None if data is None else read_real(data)
    say(f"{len(seeds.exposure)} sessions with episodes")
    taught = [(simulated(s), s.episodes) for s in (eventful(k, minutes * 60) for k in seeds.exposure)]
    exposed = exposure_rows([*taught, *(injected(real.half, seeds.injected) if real else [])], flat)
    clean = [calm] if real is None else [codes_of(real.full.raw, flat), calm]
    return Lessons(clean, exposed, level_rows(real, table), tuple(MASKS.values()))


def _features(session: Any) -> Sequence[Raw]:
    return list(gather(simulated(session)).by_id.values())


def make(
    parent: Weights, network: FloatNetwork, taught: Lessons, budget: Budget, say: Say = lambda _: None,
    pruned: FloatNetwork | None = None,
) -> Made:  # fmt: skip
    """Prune the parent's exposure head and spare digits; levels are still the parent's.

    pruned : what pruning with this budget has made already
    """
    from microrisk.model.sparse import prune, sharpen

    if pruned is None:
        say(f"pruning to {budget.weights} weights")
        pruned = prune(network, taught, budget)
    int8 = rounded(pruned, parent)
    say(f"{bill(int8.tensors).digits} digits as int8, {budget.digits} to keep")
    weights = Weights({**parent.tensors, **sharpen(pruned, taught, budget)}, parent.card)
    for w in (int8, weights):
        w.validate()
    return Made(weights, int8, pruned)


def described(made: Made, parent: Weights, folder: Path, budget: Budget, data: Path | None) -> Weights:
    """The sparse model with a card of its own: what it came from, what it costs; nothing of the parent's metrics."""
    source = f"parts of {COINBASE} and {BINANCE} (MIT)" if data else ""
    taught = f"Taught by the simulator and {source}." if data else SIMULATED
    card = {
        "name": "sparse",
        "description": "The default model with an exposure head of few signed digits, for unrolled hardware. " + taught,
        "parent": {
            "name": parent.card.get("name"),
            "heads_hash": parent.heads_hash(),
            "sha256": hashlib.sha256((folder / MODEL_FILE).read_bytes()).hexdigest(),
        },
        "seeds": parent.card.get("seeds", {}),
        "data": parent.card.get("data", {}),
        "metrics": {
            "activation_scales": parent.card["metrics"]["activation_scales"],
            "exposure": {"sparse": bill(made.weights.tensors).to_json(), "int8": bill(made.int8.tensors).to_json(),
                         "parent": bill(parent.tensors).to_json()},
        },
        "budget": asdict(budget),
    }  # fmt: skip
    return Weights(made.weights.tensors, card)


def make_sparse(
    out: Path, parent: Path, data: Path | None = None, *, digits: int = SHIPPED, seeds: Seeds | None = None,
    minutes: float = MINUTES, say: Say = lambda _: None,
) -> Made:  # fmt: skip
    """Make one sparse model and write it to the folder `out`.

    Parameters
    ----------
    parent : model folder with float.safetensors
    data : folder of recordings; None leaves the real ones out
    digits : one of `points`
    """
    seeds = seeds or Seeds()
    seeds.check()
    weights, network = Weights.load(parent), FloatNetwork.load(parent)
    taught = lessons(weights, data, seeds=seeds, minutes=minutes, say=say)
    made = _finished(make(weights, network, taught, points()[digits], say), weights, parent, points()[digits], data,
                     seeds, minutes)  # fmt: skip
    made.save(out)
    return made


def _finished(
    made: Made, parent: Weights, folder: Path, budget: Budget, data: Path | None, seeds: Seeds, minutes: float
) -> Made:
    """With card and levels; those of the other heads come out as the parent's, from the same sessions."""
    weights, report = calibrated(described(made, parent, folder, budget, data), seeds.calibration, minutes)
    return replace(made, weights=weights.with_card(calibration=report))


def make_curve(
    out: Path, parent: Path, data: Path, record: Path, *, seeds: Seeds | None = None, minutes: float = MINUTES,
    budgets: Sequence[int] = (), say: Say = lambda _: None,
) -> dict[str, Any]:  # fmt: skip
    """A model for every budget in out/<digits>/, graded beside the parent; the record is also written to a file.

    Fields `comb` are left empty: they come from synthesis.
    """
    seeds = seeds or Seeds()
    seeds.check()
    weights, network = Weights.load(parent), FloatNetwork.load(parent)
    taught = lessons(weights, data, seeds=seeds, minutes=minutes, say=say)
    exams = {part: read_exam(part, weights, data, minutes=minutes, say=say) for part in (CHOSEN_ON, REPORTED_ON)}
    rows = [_row(weights, weights, weights, exams, {"name": "parent"})]
    known: dict[Budget, FloatNetwork] = {}
    for digits in budgets or sorted(points(), key=lambda d: d != SHIPPED):
        budget = points()[digits]
        key = replace(budget, digits=1, row_digits=None)  # nothing of these concerns pruning
        raw = make(weights, network, taught, budget, say, known.get(key))
        known[key] = raw.network
        made = _finished(raw, weights, parent, budget, data, seeds, minutes)
        made.save(out / str(digits))
        say(f"grading {digits} digits")
        rows.append(_row(made.weights, made.int8, weights, exams, {"name": str(digits), "budget": asdict(budget)}))
        found = {
            "date": dt.datetime.now(dt.UTC).date().isoformat(),
            "command": "python -m microrisk.evaluate.sparse_model OUT --data FOLDER --parent MODEL --curve RECORD",
            "parent": {"name": weights.card.get("name"), "heads_hash": weights.heads_hash()},
            "shipped": SHIPPED,
            "minutes": minutes,
            "points": rows,
        }
        record.write_text(json.dumps(found, indent=1) + "\n")  # after every point: a run of an hour may be cut short
    return found


def confirm(out: Path, parent: Path, data: Path, record: Path, *, say: Say = lambda _: None) -> dict[str, Any]:
    """Grade the models of a curve on sessions that no choice has seen; every other entry of the record stays.

    Raises UsageError when a model in out/<digits>/ is not the one of the record.
    """
    found: dict[str, Any] = json.loads(record.read_text())
    weights = Weights.load(parent)
    exam = read_exam(CONFIRMED_ON, weights, data, minutes=found["minutes"], say=say)
    for point in found["points"]:
        say(f"grading {point['name']}")
        folder = parent if point["name"] == "parent" else out / point["name"]
        sparse = Weights.load(folder)
        if sparse.heads_hash() != point["heads_hash"]:
            raise UsageError(
                f"{folder} holds heads {sparse.heads_hash()}, the record {point['heads_hash']}; make it again"
            )
        int8 = weights if folder == parent else rounded(FloatNetwork.load(folder), weights)
        point[CONFIRMED_ON] = grades(exam, sparse, int8, weights)
    record.write_text(json.dumps(found, indent=1) + "\n")
    return found


def rounded(pruned: FloatNetwork, parent: Weights) -> Weights:
    """The parent with the pruned exposure head, rounded as always: what digits are spared from."""
    dense = quantise(pruned, parent.card["metrics"]["activation_scales"])
    own = {k: v for k, v in dense.items() if k.startswith("exposure.")}
    return Weights({**parent.tensors, **own}, parent.card)


def _row(
    sparse: Weights, int8: Weights, parent: Weights, exams: dict[str, Exam], about: dict[str, Any]
) -> dict[str, Any]:
    return {
        **about,
        "heads_hash": sparse.heads_hash(),
        "cost": bill(sparse.tensors).to_json(),
        "int8_cost": bill(int8.tensors).to_json(),
        "comb": None,
        **{part: grades(exam, sparse, int8, parent) for part, exam in exams.items()},
    }


def _teller() -> Callable[[str], None]:
    begin = time.perf_counter()
    return lambda text: print(f"{time.perf_counter() - begin:6.1f} s  {text}", file=sys.stderr)  # noqa: T201


def _main(
    out: Path,
    /,
    *,
    data: Annotated[Path, Parameter(help=f"Folder that holds {COINBASE}, {BINANCE} and, for --curve, ES.")],
    parent: Annotated[str, Parameter(help="Model with float.safetensors: a name or a folder.")] = "default",
    digits: int = SHIPPED,
    curve: Annotated[Path | None, Parameter(help="Make every budget and write all figures to this file.")] = None,
    confirm_curve: Annotated[
        Path | None, Parameter(name="--confirm", help="Grade a made curve on further sessions, into this file.")
    ] = None,
) -> None:
    """Make the packaged sparse model, or the whole curve of area against accuracy."""
    say, folder = _teller(), find(parent)
    if confirm_curve is not None:
        confirm(out, folder, data, confirm_curve, say=say)
        return
    if curve is not None:
        make_curve(out, folder, data, curve, say=say)
        return
    made = make_sparse(out, folder, data, digits=digits, say=say)
    say(f"{json.dumps(bill(made.weights.tensors).to_json())} written to {out}")


if __name__ == "__main__":
    App(default_command=_main, help_format="plaintext")()
