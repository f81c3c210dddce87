"""The one door to the compiled extension: checks that it was built from this specification, then hands it on.

Raises SpecMismatch when records or messages changed since the extension was built.
"""

from __future__ import annotations

from microrisk import _core
from microrisk.errors import SpecMismatch
from microrisk.spec.hashes import abi_hash


def check_abi(built: str, expected: str) -> None:
    """Refuse an extension whose records are not the ones that Python uses."""
    if built != expected:
        raise SpecMismatch(
            f"microrisk._core was built for records {built}, the specification now says {expected}: run "
            "`python -m microrisk.spec.emit_cpp`, then build the extension again with `pip install -e .`"
        )


check_abi(_core.ABI_HASH, abi_hash())

ABI_HASH = _core.ABI_HASH
ALL_INSTRUMENTS = _core.ALL_INSTRUMENTS
Engine = _core.Engine
Heads = _core.Heads
IexCapture = _core.IexCapture
IexDecoder = _core.IexDecoder
ItchDecoder = _core.ItchDecoder
Journal = _core.Journal
LiveFeed = _core.LiveFeed
MoldCapture = _core.MoldCapture
Naming = _core.Naming
Poller = _core.Poller
Table = _core.Table
crc32 = _core.crc32
latency_edges = _core.latency_edges
paced_edges = _core.paced_edges
run_paced = _core.run_paced
spin = _core.spin
udp_datagrams = _core.udp_datagrams

__all__ = [
    "ABI_HASH",
    "ALL_INSTRUMENTS",
    "Engine",
    "Heads",
    "IexCapture",
    "IexDecoder",
    "ItchDecoder",
    "Journal",
    "LiveFeed",
    "MoldCapture",
    "Naming",
    "Poller",
    "Table",
    "check_abi",
    "crc32",
    "latency_edges",
    "paced_edges",
    "run_paced",
    "spin",
    "udp_datagrams",
]
