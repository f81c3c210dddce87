"""Sessions as feed bytes: an ITCH 5.0 file, or a capture of MoldUDP64 packets; labels beside them as JSON."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from microrisk.errors import EncodeError
from microrisk.feed.base import midnight_ns
from microrisk.feed.encode import ItchEncoder, encode_message, frame
from microrisk.feed.mold import packetize, timed_messages, write_capture
from microrisk.market.episodes import write_episodes
from microrisk.market.simulator import Session
from microrisk.spec.records import Flag
from microrisk.spec.units import NS_PER_S

OPENING, CLOSING = "OS", "EC"
"""System event codes before the first and behind the last message: messages and system hours begin, and end."""


def session_date(session: Session) -> str:
    """The session's day in New York, YYYY-MM-DD. A reader of the ITCH file needs it (file name or `--date`)."""
    moment = datetime.fromtimestamp(session.start_ns // NS_PER_S, UTC)
    return moment.astimezone(ZoneInfo("America/New_York")).date().isoformat()


def _midnight(session: Session) -> int:
    return midnight_ns(datetime.fromisoformat(session_date(session)).date())


def _wire(session: Session) -> NDArray[np.void]:
    """The events that travel in ITCH: book images after a gap come another way."""
    news: NDArray[np.void] = session.events[(session.events["flags"] & int(Flag.SNAPSHOT)) == 0]
    return news


def _system(codes: str, ts: int) -> bytes:
    return frame([encode_message("S", locate=0, tracking=0, timestamp=ts, event=code) for code in codes])


def _encoded(session: Session) -> tuple[bytes, bytes, bytes]:
    """Opening and directory messages, one message an event, closing messages."""
    midnight, events = _midnight(session), _wire(session)
    names = {index: i.symbol for index, i in session.instruments.items()}
    encoder = ItchEncoder(names, midnight_ns=midnight, on_ts="raise")
    start = session.start_ns - midnight
    end = max(start, int(events["ts_event"][-1]) - midnight) if len(events) else start
    # with nothing to announce them before, the directory messages come with the first chunk
    first = encoder.encode(events[:1])
    directory, first = _split(first, len(names))
    if encoder.counts.total() != 0:
        raise EncodeError("events", dict(encoder.counts), "events that ITCH can say")
    return _system(OPENING, start) + directory, first + encoder.encode(events[1:]), _system(CLOSING, end)


def _split(framed: bytes, messages: int) -> tuple[bytes, bytes]:
    """The first `messages` framed messages, and the rest."""
    at = 0
    for _ in range(messages):
        at += 2 + int.from_bytes(framed[at : at + 2], "big")
    return framed[:at], framed[at:]


def write_itch(session: Session, path: str | Path) -> Path:
    """Write the session as an ITCH 5.0 file, its labels to `<path>.episodes.json`; the file's path.

    A gap shows only as silence and as references nobody knows, because a file has no sequence numbers. Times count from
    midnight in New York: put session_date() into the file's name.
    """
    target = Path(path)
    target.write_bytes(b"".join(_encoded(session)) + b"\0\0")
    write_episodes(session.episodes, target)
    return target


def write_mold_pcap(session: Session, path: str | Path, drop: Collection[int] = ()) -> Path:
    """Write the session as a nanosecond pcap of MoldUDP64 packets, its labels beside it; the file's path.

    Message numbers count what the venue sent: a gap episode is a real hole. drop: indices of packets left out besides.
    """
    target = Path(path)
    write_capture(target, _packets(session), drop=drop)
    write_episodes(session.episodes, target)
    return target


def _packets(session: Session) -> Iterator[tuple[int, bytes]]:
    """Packets of each run of consecutive numbers; only the last run ends the session."""
    midnight = _midnight(session)
    head, body, tail = (list(timed_messages(part, midnight)) for part in _encoded(session))
    if len(body) != len(_wire(session)):
        raise EncodeError("events", len(_wire(session)), f"one message an event, not {len(body)}")
    seq = len(head) + _wire(session)["seq"].astype(np.int64)
    last = len(head) + session.sent + 1
    numbers = np.concatenate([np.arange(1, len(head) + 1), seq, np.arange(last, last + len(tail))])
    messages = head + body + tail
    for begin, end in _runs(numbers):
        packets = list(packetize(messages[begin:end], first=int(numbers[begin])))
        yield from packets if end == len(messages) else packets[:-1]


def _runs(numbers: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """[begin, end) of consecutive numbers."""
    cuts = np.flatnonzero(np.diff(numbers) != 1) + 1
    yield from zip([0, *cuts.tolist()], [*cuts.tolist(), len(numbers)], strict=True)
