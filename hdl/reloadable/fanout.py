"""Registers of one value, one for each place that needs it: a signal that crosses the device does not meet 4 ns."""

from __future__ import annotations

from amaranth.hdl import ClockSignal, Const, Instance, Module, Signal, Value


def copies(m: Module, name: str, value: Value, count: int, *, ecp5: bool) -> list[Signal]:
    """`count` registers that hold `value` of one cycle ago; they have no reset.

    Yosys makes one register of equal ones. For ECP5 they are therefore written as the cells that it would make.
    """
    out = [Signal(len(value), reset_less=True, name=f"{name}_{k}") for k in range(count)]
    for k, copy in enumerate(out):
        if not ecp5:
            m.d.sync += copy.eq(value)
            continue
        for bit in range(len(value)):
            m.submodules[f"{name}_{k}_{bit}"] = _flip_flop(value[bit], copy[bit])
    return out


def _flip_flop(d: Value, q: Value) -> Instance:
    settings = {"GSR": "AUTO", "CEMUX": "1", "CLKMUX": "CLK", "LSRMUX": "LSR", "REGSET": "RESET"}
    return Instance(
        "TRELLIS_FF",
        **{f"p_{k}": v for k, v in settings.items()},
        i_CLK=ClockSignal(),
        i_LSR=Const(0),
        i_DI=d,
        o_Q=q,
    )
