"""Lines of recorded websocket and REST sessions, in bounded memory: what all JSON level feeds read.

A line is one message. Three ways of writing down when it came are understood, told line by line:

1. cryptofeed (`sample_data` of that project, and its `AsyncFileCallback`): `URL <-> TIME` opens a connection,
   `URL <- TIME: JSON` was sent to it, `TIME: JSON` came from it; in files of REST answers `URL -> TIME: JSON`, any
   number of URLs in a file. TIME is seconds with up to nine decimals and is taken from its text, never through a float.
2. `NS JSON`: nineteen digits of ns, one space.
3. Bare JSON: there is no receive time (NULL_TS).

Files that continue each other are read one after another. Beside a captured `VENUE.ws.N.M` its REST answers
`VENUE.http.*` are found in the same folder; both are merged by receive time. A line in none of the three forms, one
longer than MAX_LINE, and a stream that breaks off are handed out too, as what they are, with their place.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from microrisk.feed.open import Source, Stream
from microrisk.spec.units import NS_PER_S, NULL_TS

RECEIVED = 0
"""A message of the connection."""
RESPONSE = 1
"""An answer of a REST request; `Line.url` is what was asked."""
SENT = 2
"""What the recorder said to the venue: no message of the feed."""
OPENED = 3
"""The connection was made (again): no message of the feed; the body is empty."""
BROKEN = 4
"""A line that cannot be read; the body says why."""
CUT = 5
"""The stream broke off here: no line of its own; the body says where."""
LOST = 6
"""The connection was lost, or is not believed: nothing that recorders write, live monitoring says so (`live.py`)."""

PIECE = 1 << 20
"""Bytes read at once, and about the most that one batch holds."""
BATCH_LINES = 4096
MAX_LINE = 64 << 20
"""Bytes of the longest line read; full books of thousands of levels take a few MiB."""

_URL_LINE = re.compile(rb"((?:wss?|https?)://\S+) (<->|<-|->) (\d+(?:\.\d+)?)(?:: ?(.*))?", re.DOTALL)
_DIRECTIONS = {b"<->": OPENED, b"<-": SENT, b"->": RESPONSE}
_WS_NAME = re.compile(r"(.+)\.ws\.\d+\.\d+(\..+)?")


class Line(NamedTuple):
    """One line of a capture.

    Attributes
    ----------
    number : 1-based; goes on over files that continue each other (REST answers have a count of their own)
    ts_recv : recorder's time, ns UTC, or NULL_TS
    kind : RECEIVED, RESPONSE, SENT, OPENED, BROKEN, CUT or LOST
    body : the JSON text as written; of BROKEN and CUT a sentence
    url : of a RESPONSE and of SENT its own; of a RECEIVED line that of its connection, "" when no line told it
    place : file name, for notices
    """

    number: int
    ts_recv: int
    kind: int
    body: bytes
    url: str
    place: str


def seconds_ns(text: bytes) -> int:
    """Seconds with up to nine decimals as ns, exactly: b"1633998512.0633569" -> 1633998512063356900.

    Raises
    ------
    ValueError : another form, or a time that does not fit
    """
    whole, dot, frac = text.partition(b".")
    if not whole.isdigit() or len(whole) > 9 + 1 or len(frac) > 9 or bool(dot) != frac.isdigit():
        raise ValueError(f"{text[:40]!r} is not a time in seconds")
    # ten digits of seconds reach the year 2286, past the end of int64 ns
    ns = int(whole) * NS_PER_S + int(frac.ljust(9, b"0"))
    if ns >= 1 << 63:
        raise ValueError(f"{text[:40]!r} is later than 2262")
    return ns


def host_of(url: str) -> str:
    """Host of a URL, "" when it names none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # such as an unclosed bracket
        return ""


def query_of(url: str) -> dict[str, list[str]]:
    """What a URL asks for, by name; empty when it cannot be told."""
    try:
        return parse_qs(urlsplit(url).query)
    except ValueError:
        return {}


def _whole_ns(text: bytes) -> int:
    if len(text) != 19 or not text.isdigit() or int(text) >= 1 << 63:
        raise ValueError(f"{text[:40]!r} is not a time in ns (19 digits)")
    return int(text)


class Capture:
    """Lines of captured sessions, in order of receipt.

    Parameters
    ----------
    sources : files that continue each other, in order; files of REST answers may stand among them and are merged in
    beside : look for REST answers in the folders of the files, too
    """

    def __init__(self, sources: Sequence[Source], *, beside: bool = True) -> None:
        rest = [s for s in sources if s.head(8).startswith(b"http")]
        self._main = [s for s in sources if s not in rest]
        found = [s for m in self._main for s in _rest_beside(m)] if beside else []
        self._rest = rest + [s for s in dict.fromkeys(found) if s not in rest]
        self._streams: list[Stream] = []
        self._total = max(1, sum(s.size() for s in self._main + self._rest))

    @property
    def sources(self) -> list[Source]:
        """Every file read: sessions first, then REST answers."""
        return self._main + self._rest

    @property
    def found(self) -> list[str]:
        """Names of the files of REST answers."""
        return [s.name for s in self._rest]

    @property
    def progress(self) -> float:
        """Share of the stored bytes read, 0..1."""
        return min(1.0, sum(s.consumed for s in self._streams) / self._total)

    @property
    def url(self) -> str:
        """The URL of the first line, "" when the files are not cryptofeed's."""
        for source in self.sources:
            match = _URL_LINE.match(source.head(4096).lstrip(b"\xef\xbb\xbf \t\r\n"))
            if match:
                return match[1].decode("utf-8", "replace")
        return ""

    def batches(self) -> Iterator[list[Line]]:
        """Lists of up to BATCH_LINES lines and about PIECE bytes."""
        batch: list[Line] = []
        size = 0
        for line in self._merged():
            batch.append(line)
            size += len(line.body)
            if len(batch) >= BATCH_LINES or size >= PIECE:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _merged(self) -> Iterator[Line]:
        chains = [self._chain(files) for files in (self._rest, self._main) if files]
        return chains[0] if len(chains) == 1 else heapq.merge(*chains, key=lambda line: line.ts_recv)

    def _chain(self, files: Sequence[Source]) -> Iterator[Line]:
        number, ts = 0, NULL_TS
        for source in files:
            url, place = "", source.name
            stream = source.stream()
            self._streams.append(stream)
            for text in split_lines(stream):
                number += 1
                if text is None:
                    yield Line(number, ts, BROKEN, b"longer than %d bytes" % MAX_LINE, url, place)
                    continue
                if not text or text.isspace():
                    continue
                line = parse_line(text, number, ts, url, place)
                ts = line.ts_recv
                if line.kind == OPENED:
                    url = line.url
                yield line
            if stream.cut:
                yield Line(number + 1, ts, CUT, stream.cut.encode(), url, place)


def parse_line(text: bytes, number: int, ts: int, url: str, place: str) -> Line:
    """One line that is not blank; `ts` and `url` are those of the line before it, for what has none of its own."""
    try:
        first = text[0]
        if 48 <= first <= 57:
            head, _, body = text.partition(b" ")
            if not body:
                raise ValueError("a time, and nothing behind it")
            ns = seconds_ns(head[:-1]) if head[-1] == 58 else _whole_ns(head)
            return Line(number, ns, RECEIVED, body, url, place)
        if first in b"{[":
            return Line(number, NULL_TS, RECEIVED, text, url, place)
        match = _URL_LINE.fullmatch(text.rstrip(b"\r"))
        if match is None:
            raise ValueError(f"neither a time, nor a URL, nor JSON: {text[:40]!r}")
        own, direction, time, body = match.groups()
        kind = _DIRECTIONS[direction]
        if kind != OPENED and not body:
            raise ValueError("a URL, and nothing behind it")
        return Line(number, seconds_ns(time), kind, body or b"", own.decode("utf-8", "replace"), place)
    except ValueError as why:
        return Line(number, ts, BROKEN, str(why).encode(), url, place)


def split_lines(stream: Stream) -> Iterator[bytes | None]:
    """Lines without their ends; None for one longer than MAX_LINE. What a cut leaves of a line is left out."""
    rest, skipping = b"", False
    for piece in _pieces(stream):
        lines = (rest + piece).split(b"\n")
        rest = lines.pop()
        if skipping and lines:
            lines[0:1], skipping = [], False
        elif lines and len(lines[0]) > MAX_LINE:
            lines[0:1] = []
            yield None
        yield from lines
        if skipping or len(rest) > MAX_LINE:
            if not skipping:
                yield None
            rest, skipping = b"", True
    if rest and not stream.cut:
        yield rest


def _pieces(stream: Stream) -> Iterable[bytes]:
    piece = stream.read(PIECE).removeprefix(b"\xef\xbb\xbf")
    while piece:
        yield piece
        piece = stream.read(PIECE)


def _rest_beside(source: Source) -> list[Source]:
    """Files of REST answers that lie beside a captured session: VENUE.ws.N.M -> VENUE.http.*, however compressed."""
    match = _WS_NAME.fullmatch(source.path.name)
    if source.member is not None or match is None:
        return []
    mark = f"{match[1]}.http."
    beside = sorted(p for p in Path(source.path).parent.iterdir() if p.name.startswith(mark) and p.is_file())
    return [s for s in map(Source, beside) if s.head(8).startswith(b"http")]
