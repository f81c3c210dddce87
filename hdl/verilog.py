"""Verilog of a model's scoring core: python -m hdl.verilog MODEL --core {unrolled,reloadable} --out DIR.

The text is the same for the same model, options and tool versions, and begins with the hashes of format and weights.
It is written by Yosys after `proc`: Icarus 11 leaves combinational logic undefined for ever in what Amaranth writes
itself (a case statement whose selector never changes), and simulates this form faster.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import Const, Signal, Value
from amaranth.lib import wiring

import microrisk
from hdl.yosys import run_passes
from microrisk.errors import MicroriskError, UsageError
from microrisk.spec.features import ALL_MASK
from microrisk.spec.weightfile import HEADS
from microrisk.weights import FORMAT_HASH, Weights

CORES = ("unrolled", "reloadable")


def ports_of(component: wiring.Component) -> list[Signal]:
    """Every signal of a component's interface; members that are constants (always ready) are no ports."""
    return list(_signals(component.signature.flatten(component)))


def _signals(members: Any) -> Iterator[Signal]:
    for _, _, value in members:
        found = Value.cast(value)
        if not isinstance(found, Const):
            yield found


def to_rtlil(component: wiring.Component, name: str) -> str:
    """RTLIL text with `name` as the top module; no source paths in it, so that it depends on the design alone."""
    return rtlil.convert(component, name=name, ports=ports_of(component), emit_src=False)


def to_verilog(text: str, header: Mapping[str, str] | None = None) -> str:
    """Verilog of RTLIL text; `header` becomes comment lines. Raises UsageError when pyosys is not installed."""
    with tempfile.TemporaryDirectory() as scratch:
        source, out = Path(scratch) / "design.il", Path(scratch) / "design.v"
        source.write_text(text)
        run_passes(source, ["proc", "opt_clean", f"write_verilog -noattr {out}"])
        body = out.read_text()
    lines = [f"// {key}: {value}" for key, value in (header or {}).items()]
    return "\n".join([*lines, body]) if lines else body


def make_core(weights: Weights, core: str, heads: Sequence[str], mask: int = ALL_MASK) -> wiring.Component:
    """A core by name; raises UsageError for another name."""
    if core == "unrolled":
        from hdl.unrolled import UnrolledCore

        return UnrolledCore(weights, heads, mask=mask)
    if core == "reloadable":
        from hdl.reloadable.core import ReloadableCore

        return ReloadableCore(heads=tuple(heads))
    raise UsageError(f"no core {core!r}; there are {', '.join(CORES)}")


def write_core(
    weights: Weights,
    core: str,
    out: str | Path,
    *,
    heads: Sequence[str] = HEADS,
    mask: int = ALL_MASK,
    axi: bool = False,
) -> dict[str, Any]:
    """Write NAME.v, NAME.il and NAME.json (interface, hashes, latency) into the folder `out`; returns the last.

    axi : AXI4-Stream shell around the core
    """
    made = make_core(weights, core, heads, mask)
    name, latency = f"microrisk_{core}", made.latency
    if axi:
        from hdl.axi import AxiShell

        made = AxiShell(made, weights.heads_hash() if core == "unrolled" else None)
        name += "_axi"
    text = to_rtlil(made, name)
    facts = {
        "name": name,
        "format_hash": FORMAT_HASH,
        "weights_hash": weights.heads_hash(),
        "heads": list(heads),
        "mask": f"{mask:08x}",
        "latency_cycles": latency,
    }
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    header = {k: str(v) for k, v in facts.items()}
    (folder / f"{name}.il").write_text(text)
    (folder / f"{name}.v").write_text(to_verilog(text, header))
    described = {**facts, "interface": made.metadata.as_json()}
    (folder / f"{name}.json").write_text(json.dumps(described, indent=1, sort_keys=True) + "\n")
    return facts


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hdl.verilog", description=(__doc__ or "").split(":")[0])
    parser.add_argument("model", help="name of a model, such as default, or its folder")
    parser.add_argument("--core", choices=CORES, default="unrolled")
    parser.add_argument("--out", required=True, type=Path, help="folder for NAME.v, NAME.il and NAME.json")
    parser.add_argument("--heads", default=",".join(HEADS), help="comma-separated; of %(default)s, and encoder")
    parser.add_argument("--shell", choices=("none", "axi"), default="none", help="bus around the core")
    parser.add_argument("--mask", type=lambda t: int(t, 16), default=ALL_MASK, help="feature mask, hexadecimal")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    asked = _parser().parse_args(arguments)
    try:
        facts = write_core(
            load(asked.model),
            asked.core,
            asked.out,
            heads=asked.heads.split(","),
            mask=asked.mask,
            axi=asked.shell == "axi",
        )
    except MicroriskError as error:
        sys.stderr.write(f"hdl.verilog: {error}\n")
        return 2
    sys.stdout.write(json.dumps(facts, indent=1) + "\n")
    return 0


def load(model: str) -> Weights:
    """A model by its folder, or by its name among the packaged ones."""
    named = [Path(place) / "score" / "models" / model for place in microrisk.__path__]
    return Weights.load(next((p for p in named if p.is_dir()), Path(model)))


if __name__ == "__main__":
    sys.exit(main())
