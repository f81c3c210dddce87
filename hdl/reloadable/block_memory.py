"""A memory with one write and one read port and a register behind the read: block RAM of the target.

Written once as behaviour; for ECP5 it is DP16KD in its 512 x 36 form with the output register in use, which Yosys does
not take into the block. Without that register reading takes half of a cycle of 4 ns.
"""

from typing import Any

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Signal, Value, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

WIDTH, DEPTH = 36, 512
"""Of DP16KD with both ports at their widest, Lattice TN1264."""
_HALF, _ADDRESSES, _FIRST, _ENABLES = 18, 14, 5, 4


class BlockMemory(wiring.Component):
    """`read_data` is the word at `read_address` of two cycles ago; words are 0 at first.

    A word that is read in the cycle in which it is written may be either.

    Parameters
    ----------
    width, depth : at most WIDTH bits and DEPTH words
    ecp5 : use DP16KD; False = plain memory, for simulation and other targets
    """

    def __init__(self, width: int, depth: int, *, ecp5: bool = False) -> None:
        if width > WIDTH or depth > DEPTH:
            raise ValueError(f"{depth} words of {width} bits, a block holds {DEPTH} of {WIDTH}")
        self._ecp5, self._depth = ecp5, depth
        super().__init__(
            {
                "write": In(1),
                "write_address": In(range(depth)),
                "write_data": In(width),
                "read_address": In(range(depth)),
                "read_data": Out(width),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """The block, or what it does."""
        m = Module()
        if self._ecp5:
            out = Signal(WIDTH)
            m.submodules.block = self._block(out)
            m.d.comb += self.read_data.eq(out)
            return m
        m.submodules.memory = memory = Memory(shape=unsigned(len(self.read_data)), depth=self._depth, init=[])
        write, read = memory.write_port(), memory.read_port()
        late = Signal.like(self.read_data, reset_less=True)
        m.d.comb += [write.addr.eq(self.write_address), write.data.eq(self.write_data), write.en.eq(self.write)]
        m.d.comb += [read.addr.eq(self.read_address), self.read_data.eq(late)]
        m.d.sync += late.eq(read.data)
        return m

    def _block(self, out: Signal) -> Instance:
        parameters: dict[str, Any] = {"p_DATA_WIDTH_A": WIDTH, "p_DATA_WIDTH_B": WIDTH, "p_GSR": "AUTO"}
        parameters |= {"p_REGMODE_A": "OUTREG", "p_REGMODE_B": "OUTREG", "p_RESETMODE": "SYNC"}
        parameters |= {"p_CSDECODE_A": "0b000", "p_CSDECODE_B": "0b000"}
        ports: dict[str, Any] = {"i_CLKA": ClockSignal(), "i_CLKB": ClockSignal(), "i_WEA": Const(1)}
        ports |= {f"i_{name}": Const(1) for name in ("CEA", "CEB", "OCEA", "OCEB")}
        ports |= {f"i_{name}": Const(0) for name in ("RSTA", "RSTB", "WEB")}
        ports |= {f"i_CS{side}{k}": Const(0) for side in "AB" for k in range(3)}
        # in this form the lowest address bits of the writing port are its byte enables
        ports |= self._pins("AD", "A", Cat(self.write.replicate(_ENABLES), Const(0), self.write_address), _ADDRESSES)
        ports |= self._pins("AD", "B", Cat(Const(0, _FIRST), self.read_address), _ADDRESSES)
        ports |= self._pins("DI", "A", self.write_data, _HALF)
        ports |= self._pins("DI", "B", self.write_data[_HALF:], _HALF)
        ports |= {f"o_DO{'AB'[k // _HALF]}{k % _HALF}": out[k] for k in range(WIDTH)}
        return Instance("DP16KD", **parameters, **ports)

    @staticmethod
    def _pins(name: str, side: str, value: Value, count: int) -> dict[str, Any]:
        return {f"i_{name}{side}{k}": value[k] if k < len(value) else Const(0) for k in range(count)}
