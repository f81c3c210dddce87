"""IEX in captures of IEX-TP (pcap, pcapng): TOPS 1.6, DEEP 1.0 and DEEP+ 1.0.

Rules (IEX Transport Protocol specification 1.25; IEX TOPS 1.66, DEEP 1.08 and DEEP+ 1.02 specifications):

1. A datagram is one segment: a header of 40 bytes, and messages behind their lengths, all little-endian. A message may
   be longer than its layout, never shorter; an unknown type is skipped by its length.
2. Sequences are numbered per channel and session; lines A and B and retransmissions are merged per message: the first
   copy counts, later ones are `duplicate_seq`, a hole is a `gap`. `seq` is the venue's; `ts_recv` the time of capture.
3. A new session begins at 1, and so does a segment with sequence 1 and stream offset 0 that was sent more than a
   second after everything before it: the venue has restarted the stream. Both are a `session_reset`: every book that
   had an event is cleared, then the messages build it anew.
4. DEEP: a price level update sets the size at a price, 0 removes the level. Bit 0 of its flags says that the event is
   complete (LAST); until then the book is in transition, and a trade in between completes nothing either.
5. TOPS: a quote update replaces both sides of a book of one level; size 0 is an empty side.
6. DEEP+: orders are added, modified, deleted and executed by their ids. A modification with bit 0 keeps its priority,
   without it the order goes to the back of its queue, whatever has changed. C clears the book.
7. A trade report names no side (0); in DEEP+ it is a trade between orders that were not displayed. Sale condition bit
   0x08, a single-price cross, is CROSS. `ref` is the trade id.
8. Trading status: H and P are a halt, O (order acceptance period) an auction, T trading. Everything else is counted by
   type and changes no book: S, D, I, O, P, E, X, A, B.
9. Prices are in 1e-4 dollars, sizes in shares. An instrument is known by its symbol, numbered as it appears.
10. Segments of another message protocol than the first capture's are no part of the feed: `unknown_type`.

IEX's published samples were recorded on its test facility: their DEEP books are crossed most of the time because the
messages say so. The naive twin (`iex_reference`) is the evidence; such findings are the venue's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from microrisk.core import IexCapture, IexDecoder
from microrisk.errors import FeedError, UsageError
from microrisk.feed.base import ChunkFeed, Events, Instrument, instrument, venue_of
from microrisk.feed.open import HEAD, Source
from microrisk.feed.packets import Packets
from microrisk.feed.pcap import iter_udp
from microrisk.spec.features import ALL_MASK, mask
from microrisk.spec.iex import DEEP, DEEP_PLUS, PROTOCOLS, SEGMENT, SEGMENT_VERSION, TOPS
from microrisk.spec.records import Integrity

MASKS = {TOPS: mask("l1", "trades"), DEEP: mask("l1", "l5", "l10", "trades"), DEEP_PLUS: ALL_MASK}
_DECODER_COUNTS = (Integrity.malformed, Integrity.unknown_type)
_AT = SEGMENT["protocol"].offset
# version and reserved, protocol 0x80xx
_SEGMENT = re.compile(rb"%c\0.\x80" % SEGMENT_VERSION, re.DOTALL)


def open_sources(
    sources: Sequence[Source], *, date: str | None, venue: str | None, snapshot: Source | None
) -> ChunkFeed:
    """The feed of captures of one message protocol; `date` is not needed, the messages carry full times.

    Raises UsageError for a protocol without a decoder, and for captures of different protocols.
    """
    if snapshot is not None:
        raise UsageError("iex takes no --snapshot: a session begins with empty books")
    found = {s.label: protocol_of(s) for s in sources}
    for label, protocol in found.items():
        if protocol not in PROTOCOLS:
            known = ", ".join(f"{name} (0x{number:04x})" for number, name in PROTOCOLS.items())
            raise UsageError(f"{label} carries the message protocol 0x{protocol:04x}; there is a decoder for {known}")
    if len(set(found.values())) > 1:
        each = ", ".join(f"{label} is {PROTOCOLS[protocol]}" for label, protocol in found.items())
        raise UsageError(f"captures of different protocols cannot be one feed: {each}")
    return IexFeed(sources, found[sources[0].label], venue_of(venue, "IEXG"))


def protocol_of(source: Source) -> int:
    """Message protocol of the first IEX-TP segment.

    Raises FeedError when the file's beginning has none.
    """
    for datagram in iter_udp(source.head(HEAD)):
        if _SEGMENT.match(datagram.payload):
            return int.from_bytes(datagram.payload[_AT : _AT + 2], "little")
    raise FeedError(f"no IEX-TP segment in the first {HEAD} bytes", path=source.label)


class IexFeed(ChunkFeed):
    """Captures of one message protocol, merged by sequence over all files."""

    format = "iex"

    def __init__(self, sources: Sequence[Source], protocol: int, venue: str) -> None:
        super().__init__()
        self.mask = MASKS[protocol]
        self._protocol, self._venue = protocol, venue
        self._decoder = IexDecoder(protocol)
        self._packets = Packets(sources, lambda views: IexCapture(views, protocol), _session_name, self._note)
        self._seen = dict.fromkeys(_DECODER_COUNTS, 0)
        self._named: list[Instrument] = []
        self._lost = 0

    @property
    def progress(self) -> float:
        """Share of the captures' bytes read."""
        return self._packets.progress

    def counts(self) -> dict[str, int]:
        """Well-formed messages by type code."""
        return self._decoder.counts()

    def instruments(self) -> dict[int, Instrument]:
        """Number in order of appearance -> instrument."""
        symbols = self._decoder.symbols()
        self._named += [instrument(symbol, self._venue) for symbol in symbols[len(self._named) :]]
        return dict(enumerate(self._named))

    def _chunk(self) -> Events | None:
        if self._packets.done:
            return None
        before = self._decoder.synthetic
        events = self._packets.read(self._decoder)
        self.messages, self.synthetic = self._decoder.messages, self._decoder.synthetic
        if self._lost and not self._decoder.clearing:
            self._find(Integrity.gap, self._lost, before=self.synthetic - before)
            self._lost = 0
        self._count()
        return events

    def _count(self) -> None:
        """Hand over what was counted. A gap that a restart begins with marks the books behind their CLEARs."""
        found = self._packets.findings()
        restarted = any(kind == Integrity.session_reset for kind, _ in found)
        for kind, n in found:
            if kind == Integrity.gap and restarted:
                self._lost += n
            else:
                self._find(kind, n)
        for kind in _DECODER_COUNTS:
            now = int(getattr(self._decoder, kind.name))
            self._find(kind, now - self._seen[kind])
            self._seen[kind] = now
        if self._packets.done:
            self._close()

    def _close(self) -> None:
        foreign = self._packets.counters()["foreign"]
        if foreign:
            self._note(f"{foreign} segments of other message protocols than {PROTOCOLS[self._protocol]} were left out")
        self._find(Integrity.unknown_type, foreign)


def _session_name(raw: bytes) -> str:
    return str(int.from_bytes(raw, "little"))
