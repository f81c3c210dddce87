"""Nasdaq TotalView-ITCH 5.0: length-prefixed files, and captures (pcap, pcapng) of MoldUDP64.

Rules (Nasdaq TotalView-ITCH 5.0 specification, MoldUDP64 1.00):

1. A file is a run of messages, each behind its length in two big-endian bytes; a zero length ends it, unless a known
   type follows: then it is the framing of a writer that leaves the lengths out.
2. Times are nanoseconds since midnight in New York; the session date comes from the file name or from the caller.
3. The instrument of an event is the stock locate, which is valid for one day; its symbol comes from the directory.
4. `seq` is the 1-based number of the message in its file, in a capture the MoldUDP64 sequence.
5. Prices are in 1e-4 dollars, sizes in shares.
6. A file after the first begins anew (with numbers of its own) when it begins with a message; otherwise it goes on in
   the middle of the message in which the file before it stopped.
7. Bytes of a message that is not there in full at the end are one `malformed`, with the offset in a notice.
8. Captures (lines A and B, retransmissions) are merged by time, then by sequence: the first copy counts, later ones
   are `duplicate_seq`, a hole is a `gap`. `ts_recv` is the time of capture. Of a packet that a capture holds only in
   part, the messages that are whole count.

The C++ core decodes; with its engine a file is decoded and applied one message at a time without the events in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from microrisk.core import ItchDecoder, MoldCapture
from microrisk.errors import UsageError
from microrisk.feed.base import (
    CHUNK_EVENTS,
    ChunkFeed,
    Events,
    Instrument,
    empty_events,
    instrument,
    session_day,
    session_midnight,
    venue_of,
)
from microrisk.feed.open import Source, Window
from microrisk.feed.packets import Packets
from microrisk.feed.recognise import is_capture, loose_framing, recognise
from microrisk.spec.features import ALL_MASK
from microrisk.spec.records import Integrity

_DECODER_COUNTS = (Integrity.malformed, Integrity.unknown_type, Integrity.trailing)


def open_sources(
    sources: Sequence[Source], *, date: str | None, venue: str | None, snapshot: Source | None
) -> ChunkFeed:
    """The feed of ITCH files or of captures; both kinds together are refused."""
    if snapshot is not None:
        raise UsageError("itch50 takes no --snapshot: a file begins with the day's first message")
    captures = [is_capture(s.head(4)) for s in sources]
    if any(captures) and not all(captures):
        raise UsageError("captures and ITCH files cannot be one feed")
    days = {day for s in sources if (day := session_day(s.name, date)) is not None}
    if len(days) > 1:
        raise UsageError(f"one feed is one session, these are {', '.join(sorted(map(str, days)))}")
    kind = ItchCapture if captures[0] else ItchFile
    return kind(sources, date, venue_of(venue, "XNAS"))


class _Itch(ChunkFeed):
    """What files and captures share: instruments out of the directories, findings out of the decoders' counts."""

    format = "itch50"
    mask = ALL_MASK

    def __init__(self, sources: Sequence[Source], date: str | None, venue: str) -> None:
        super().__init__()
        self._venue = venue
        self._midnight = session_midnight(sources[0].name, date, self.notices)
        self._symbols: dict[int, str] = {}
        self._named: dict[int, Instrument] = {}
        self._before = 0
        self._in_core = False
        self._seen = dict.fromkeys(_DECODER_COUNTS, 0)
        self._decoder = self._new_decoder(loose=False)

    def _new_decoder(self, *, loose: bool) -> ItchDecoder:
        self._seen = dict.fromkeys(_DECODER_COUNTS, 0)
        return ItchDecoder(midnight_ns=self._midnight, loose_framing=loose)

    def _count_decoder(self) -> None:
        """Hand over what the decoder has counted since the last time, unless the core has counted it already."""
        self.messages = self._before + self._decoder.messages
        for kind in _DECODER_COUNTS:
            now = int(getattr(self._decoder, kind.name))
            self._find(kind, 0 if self._in_core else now - self._seen[kind])
            self._seen[kind] = now

    def instruments(self) -> dict[int, Instrument]:
        """Stock locate -> instrument, every one that the directory or an order has named."""
        for i, symbol in (self._symbols | self._decoder.symbols()).items():
            if symbol and (i not in self._named or self._named[i].symbol != symbol):
                self._named[i] = instrument(symbol, self._venue)
        return dict(self._named)


class ItchFile(_Itch):
    """Length-prefixed files that continue each other."""

    def __init__(self, sources: Sequence[Source], date: str | None, venue: str) -> None:
        super().__init__(sources, date, venue)
        self._runs = _runs(sources)
        self._total = len(self._runs)
        self._window: Window | None = None

    @property
    def progress(self) -> float:
        """Share of the stored bytes read, every run weighing the same."""
        done = self._total - len(self._runs)
        here = self._window.progress if self._window else 1.0
        return min(1.0, (max(done - 1, 0) + here) / self._total) if done else 0.0

    def pump(self, engine: Any) -> bool:
        """Decode and apply the next messages inside the core; an engine without `run_itch` gets the events."""
        if not hasattr(engine, "run_itch"):
            return super().pump(engine)
        self._in_core = True
        more = self._advance(lambda w: int(engine.run_itch(self._decoder, w.data, w.start, CHUNK_EVENTS)))
        for kind, n, index in self.drain():
            engine.count(kind, n, index)
        if not more:
            self._must_have_messages()
        return more

    def _chunk(self) -> Events | None:
        out, n = empty_events(CHUNK_EVENTS), 0

        def decode(w: Window) -> int:
            nonlocal n
            n, offset = self._decoder.decode(w.data, w.start, out)
            return int(offset)

        return out[:n] if self._advance(decode) else None

    def _advance(self, step: Any) -> bool:
        """Let `step(window)` use bytes (it returns the new start); False when every file has been read."""
        while True:
            if self._window is None and not self._open_run():
                return False
            w = self._window
            assert w is not None
            before, start = self._decoder.messages, w.start
            if w.start < len(w.data):
                w.start = step(w)
                w.forget()
            if self._decoder.messages > before or w.start > start:
                self._count_decoder()
                return True
            if not w.grow():
                self._close_run(w)

    def _open_run(self) -> bool:
        if not self._runs:
            return False
        run = self._runs.pop(0)
        self._symbols |= self._decoder.symbols()
        self._before += self._decoder.messages
        self._decoder = self._new_decoder(loose=loose_framing(run[0].head(16)))
        self._window = Window(run)
        return True

    def _close_run(self, w: Window) -> None:
        rest = len(w.data) - w.start
        for cut in w.cuts:
            self.notices.append(cut)
        if rest and not w.cuts:
            self.notices.append(f"the input ends inside a message: {rest} bytes left at offset {w.offset}")
        self._find(Integrity.malformed, max(len(w.cuts), 1 if rest else 0))
        self._count_decoder()
        self._window = None


def _runs(sources: Sequence[Source]) -> list[list[Source]]:
    """Group the files: one that does not begin with a message belongs to the run of the one before it (rule 6)."""
    runs: list[list[Source]] = []
    for source in sources:
        if runs and recognise(source) != "itch50":
            runs[-1].append(source)
        else:
            runs.append([source])
    return runs


class ItchCapture(_Itch):
    """Captures of MoldUDP64, merged by sequence over all files."""

    def __init__(self, sources: Sequence[Source], date: str | None, venue: str) -> None:
        super().__init__(sources, date, venue)
        self._packets = Packets(sources, MoldCapture, _session_name, self._note)

    @property
    def progress(self) -> float:
        """Share of the captures' bytes read."""
        return self._packets.progress

    def _chunk(self) -> Events | None:
        """Messages up to the next gap."""
        if self._packets.done:
            return None
        events = self._packets.read(self._decoder)
        for kind, n in self._packets.findings():
            self._find(kind, n)
        self._count_decoder()
        return events


def _session_name(raw: bytes) -> str:
    return raw.decode("latin-1").strip(" \0")
