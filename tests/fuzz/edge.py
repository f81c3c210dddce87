"""The Python edge under hostile input: one function a surface, each takes bytes and lets nothing but our errors out.

Run by `run_atheris.py` (coverage-guided) and, on the kept inputs, by tests/test_fuzz_corpus.py. A surface returns
normally or raises; the exceptions that its documentation names are caught here, everything else is a finding.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from seeds import BINARIES, TEXTS

from microrisk.core import Engine, Heads, IexCapture, IexDecoder, ItchDecoder, MoldCapture
from microrisk.errors import MicroriskError
from microrisk.feed import DECODERS, open_feed
from microrisk.feed.text import from_units, iso_ns, to_units
from microrisk.score.registry import PACKAGED
from microrisk.spec.records import BBO, EVENT
from microrisk.weights import CARD_FILE, MODEL_FILE, Weights

Surface = Callable[[bytes], None]
MAX_PUMPS = 200
_SCRATCH = "/dev/shm" if Path("/dev/shm").is_dir() and os.access("/dev/shm", os.W_OK) else None


class Bytes:
    """The input read front to back; zeros behind its end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def rest(self) -> bytes:
        return self._data[self._at :]

    def pick(self, options: Any) -> Any:
        return options[self.byte() % len(options)]


# -- feeds: any bytes in any file ------------------------------------------------------------------------------------

FORMATS = (None, *DECODERS)
NAMES = ("feed", "x_2019-12-30.bin", "AAPL_2012-06-21_message_10.csv", "a.ws", "a.pcap", "BTCUSDT.csv")
CUT = b"\xff\xfe--\xff\xfe"
"""Where one input is two files (a second recording, or the snapshot)."""


def feeds(data: bytes) -> None:
    """open_feed, the whole of the feed through an engine, and the questions one may ask it afterwards."""
    b = Bytes(data)
    name, how, place = b.pick(FORMATS), b.byte(), b.pick(NAMES)
    first, _, second = b.rest().partition(CUT)
    _open(name, how, place, first, second)


def _open(name: str | None, how: int, place: str, first: bytes, second: bytes) -> None:
    """Bits of `how`: the second file is an input and no snapshot; a date is given; events without an engine."""
    with tempfile.TemporaryDirectory(dir=_SCRATCH) as folder:
        paths = [Path(folder) / place, Path(folder) / _partner(place)]
        for path, content in zip(paths, (first, second), strict=True):
            if content or path is paths[0]:
                path.write_bytes(content)
        given = paths if second and how & 1 else paths[:1]
        snapshot = paths[1] if second and not how & 1 else None
        try:
            feed = open_feed(given, format=name, date="2024-01-02" if how & 2 else None, snapshot=snapshot)
            _read(feed, in_core=not how & 4)
        except MicroriskError:
            return


def _partner(place: str) -> str:
    return {"a.ws": "a.http", NAMES[2]: "AAPL_2012-06-21_orderbook_10.csv"}.get(place, "second")


def _read(feed: Any, *, in_core: bool) -> None:
    """Either through the engine's own door, or as EVENT arrays."""
    engine = Engine(always_open=feed.venue_always_open, reserve_orders=64)
    engine.record_bbo()
    try:
        if in_core:
            for _ in range(MAX_PUMPS):
                if not feed.pump(engine):
                    break
        else:
            for events, _ in zip(feed.events(), range(MAX_PUMPS), strict=False):
                assert events.dtype == EVENT
                engine.run_events(events)
    finally:
        engine.finish()
        assert 0.0 <= feed.progress <= 1.0
        assert len(feed.notices) <= 1000
        for index, instrument in feed.instruments().items():
            assert instrument.id == f"{instrument.symbol}.{instrument.venue}"
            for order in engine.orders(index)[:2]:
                assert isinstance(feed.order_label(int(order["order_id"])), str)


# -- feeds: true recordings with wrong values -----------------------------------------------------------------------

VALUES = [
    *("0", "-1", "1", "7", "1e9", "1E-8", "1e400", "1e-400", "NaN", "Infinity", "-0", "0.123456789012", "null", "true"),
    *("[]", "{}", '""', '"x"', '"0"', '"-5"', '"1e9999"', '"9223372036854775807"', '"9223372036854775808"', "1" * 30),
    *("9223372036854775807", "18446744073709551616", "-9223372036854775809", '"\\ud800"', '"é"', "[[]]", "0x10", ""),
    *('"buy"', '"sell"', '"bid"', '"ask"', '"Buy"', '"new"', '"BTC-USD"', '"ETHUSDT"', "92233720368.54775807", " "),
    *("1.5.5", "1_000", "٣", "\x00", ",", "[", "}", '"', "1" * 5000, '{"a":' * 50, "[" * 2000),
]
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?[\d.]+(?:[eE][-+]?\d+)?|true|false|null|[\w-]+')


def _spoiled(lines: list[str], b: Bytes) -> list[str]:
    """The lines with values replaced, lines left out, doubled, exchanged or cut, as the input says."""
    for _ in range(b.byte() % 8):
        at, op = b.byte() % len(lines), b.byte()
        tokens = list(_TOKEN.finditer(lines[at]))
        if op % 16 == 0:
            lines.append(lines[at])
        elif op % 16 == 1 and len(lines) > 1:
            lines.pop(at)
        elif op % 16 == 2:
            other = b.byte() % len(lines)
            lines[at], lines[other] = lines[other], lines[at]
        elif op % 16 == 3:
            lines[at] = lines[at][: b.byte() * len(lines[at]) // 255]
        elif op % 16 == 4:
            other = b.byte() % len(lines)
            lines.insert(at, lines[other])
        elif tokens:
            token = tokens[b.byte() % len(tokens)]
            value = VALUES[b.byte() % len(VALUES)]
            lines[at] = lines[at][: token.start()] + value + lines[at][token.end() :]
    return lines


def lines(data: bytes) -> None:
    """A small true recording of a venue whose values, lines and companions are not what they should be."""
    b = Bytes(data)
    name, first, second = TEXTS[b.pick(sorted(TEXTS))]
    how = b.byte()
    first = "\n".join(_spoiled(first.split("\n"), b))
    second = "\n".join(_spoiled(second.split("\n"), b)) if how & 8 else second
    place = {"cryptofeed": "a.ws", "lobster": NAMES[2]}.get(name, "feed")
    _open(name if how & 16 else None, how & 7, place, _encoded(first), _encoded(second))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def binary(data: bytes) -> None:
    """A small true binary recording with patched bytes, cut, or with a piece of another in the middle."""
    b = Bytes(data)
    name, content = BINARIES[b.pick(sorted(BINARIES))]
    how = b.byte()
    out = bytearray(content)
    for _ in range(b.byte() % 12):
        out[(b.byte() << 8 | b.byte()) % len(out)] = b.byte()
    if how & 8:
        at = (b.byte() << 8 | b.byte()) % len(out)
        out[at : at + b.byte()] = b.rest()
    if how & 16:
        out = out[: (b.byte() << 8 | b.byte()) % len(out)]
    _open(name if how & 32 else None, how & 7, "feed", bytes(out), b"")


# -- the compiled module: wrong arrays, wrong numbers ---------------------------------------------------------------

ODD = (0, 1, -1, 7, 255, 2**16, 2**20, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63))
REFUSED = (MicroriskError, TypeError, ValueError, KeyError, IndexError, RuntimeError, OverflowError, BufferError)
"""What the compiled module may answer to arguments that it cannot mean (_core.pyi)."""


def _events(b: Bytes) -> Any:
    """An EVENT array, or something that only resembles one."""
    n = b.byte() % 9
    raw = (b.rest() + bytes(EVENT.itemsize * 18))[: EVENT.itemsize * 18]
    good = np.frombuffer(raw, EVENT)
    how = b.byte() % 12
    makers: tuple[Callable[[], Any], ...] = (
        lambda: good[:n].copy(),
        lambda: good[:n],
        lambda: good[::2][:n],
        lambda: good[::-1],
        lambda: good[: n * 2].reshape(2, n),
        lambda: good[:n].view(np.uint8),
        lambda: good[:n].astype(EVENT.newbyteorder()),
        lambda: np.zeros(n, BBO),
        lambda: np.zeros((), EVENT),
        lambda: np.frombuffer(raw[1:] + b"\0", EVENT)[:n],
        lambda: np.ndarray((n,), EVENT, buffer=raw + b"\0", offset=1),
        lambda: [tuple(e) for e in good[:n].tolist()],
    )
    return makers[how]()


def core(data: bytes) -> None:
    """A few calls of the engine and the decoders with arguments that nobody should pass."""
    b = Bytes(data)
    try:
        engine = Engine(always_open=bool(b.byte() & 1), reserve_orders=b.pick(ODD), reserve_instruments=b.pick(ODD))
    except (*REFUSED, MemoryError):
        engine = Engine(reserve_orders=4)
    decoder = ItchDecoder(midnight_ns=0, loose_framing=bool(b.byte() & 1))
    for _ in range(min(12, 1 + len(data) // 4)):
        call = _CALLS[b.byte() % len(_CALLS)]
        try:
            call(engine, decoder, b)
        except REFUSED:
            continue
    for index in engine.instruments()[:8].tolist():
        engine.orders(index)
        engine.levels(index)


def _wire(b: Bytes) -> Any:
    """A buffer of bytes in one of its forms."""
    raw = b.rest()
    return b.pick((raw, memoryview(raw), memoryview(raw)[::2], np.frombuffer(raw, np.uint8), bytearray(raw), "text"))


def _out(b: Bytes) -> Any:
    out = np.zeros(1 + b.byte() % 5, EVENT)
    out.flags.writeable = b.byte() % 4 != 0
    return b.pick((out, out[::2], out[:0], np.zeros(3, BBO), np.zeros((2, 2), EVENT)))


def _captures(b: Bytes) -> None:
    raw = b.rest()
    buffers = b.pick(([raw], [raw, raw], [], [b""], "xx", [1]))
    reader: Any = IexCapture(buffers, b.pick(ODD)) if b.byte() & 1 else MoldCapture(buffers, first=b.pick(ODD))
    decoder: Any = IexDecoder(b.pick(ODD)) if b.byte() & 1 else ItchDecoder()
    reader.decode(decoder, _out(b), b.pick(ODD))
    reader.counters()


_CALLS: tuple[Callable[[Any, Any, Bytes], Any], ...] = (
    lambda e, d, b: e.run_events(_events(b)),
    lambda e, d, b: e.run_events(_events(b)),
    lambda e, d, b: e.run_itch(d, _wire(b), b.pick(ODD), b.pick(ODD)),
    lambda e, d, b: d.decode(_wire(b), b.pick(ODD), _out(b)),
    lambda e, d, b: d.message(_wire(b), b.pick(ODD), b.pick(ODD), _out(b)),
    lambda e, d, b: e.count(b.pick(ODD), b.pick(ODD), b.pick((None, *ODD))),
    lambda e, d, b: e.record_views(b.pick(ODD)),
    lambda e, d, b: e.record_depth(b.pick((1, 10, 10_000, 10_001, *ODD))),
    lambda e, d, b: e.queue_position(b.pick(ODD), b.pick(ODD)),
    lambda e, d, b: (e.orders(b.pick(ODD)), e.levels(b.pick(ODD), b.pick(ODD))),
    lambda e, d, b: (e.take_bbo(), e.take_views(), e.take_depth(), e.findings()),
    lambda e, d, b: (e.suspect(b.pick(ODD)), e.reset_book(b.pick(ODD)), e.integrity(b.pick((None, *ODD)))),
    lambda e, d, b: (e.state_of(b.pick(ODD)), e.ticks(True)),
    lambda e, d, b: e.set_table(b.pick(ODD), b.rest()[:64], np.zeros(b.pick(((32, 4096), (4096, 32), (1,))), np.int8)),
    lambda e, d, b: e.watch(0, b.rest()[:64], np.zeros((32, 4096), b.pick((np.int8, np.uint8, np.float32)))),
    lambda e, d, b: Heads({"maha.0.weight": np.zeros(b.pick(((32, 32), (32, 31), (0,))), np.int8)}, b.pick(ODD)),
    lambda e, d, b: _captures(b),
    lambda e, d, b: (e.finish(), d.symbols(), d.counts()),
)


# -- model folders ---------------------------------------------------------------------------------------------------


def model(data: bytes) -> None:
    """A model folder with patched bytes, or with files that are something else altogether."""
    b = Bytes(data)
    how = b.byte()
    files = {name: (PACKAGED / "default" / name).read_bytes() for name in (MODEL_FILE, CARD_FILE)}
    name = MODEL_FILE if how & 1 else CARD_FILE
    content = b.rest()
    if how & 2:
        files[name] = content
    elif how & 4:
        files[name] = _safetensors(content) if how & 1 else _card(files[name], content)
    else:
        files[name] = _patched(files[name], content)
    if how & 8:
        del files[name]
    with tempfile.TemporaryDirectory(dir=_SCRATCH) as folder:
        for each, stored in files.items():
            (Path(folder) / each).write_bytes(stored)
        try:
            weights = Weights.load(folder)
            weights.table_owners()
            weights.level_owners()
        except MicroriskError:
            return


def _patched(stored: bytes, patches: bytes) -> bytes:
    """Three bytes of place and one of value, again and again; an uneven end cuts the file there."""
    out = bytearray(stored)
    for i in range(0, len(patches) - 3, 4):
        out[int.from_bytes(patches[i : i + 3], "little") % len(out)] = patches[i + 3]
    return bytes(out[: len(out) - len(patches) % 4 * 1000])


def _safetensors(content: bytes) -> bytes:
    """A header of the input's own behind a true length."""
    return struct.pack("<Q", len(content)) + content + bytes(64)


def _card(stored: bytes, content: bytes) -> bytes:
    """The true card with some of its values replaced by other JSON."""
    card = json.loads(stored)
    keys = sorted(card)
    values = (None, [], {}, -1, 1e308, "", "\u0000", [[[]]], {"a": {"b": 1}}, True, 2**70)
    for i in range(0, len(content) - 1, 2):
        card[keys[content[i] % len(keys)]] = values[content[i + 1] % len(values)]
    return json.dumps(card).encode()


# -- numbers out of text ---------------------------------------------------------------------------------------------


def text(data: bytes) -> None:
    """Decimal and time strings: exact, or ValueError; whatever was read can be written and read again."""
    b = Bytes(data)
    exp = b.byte() % 20
    words = b.rest().decode("latin-1")
    try:
        units = to_units(words, exp)
        assert to_units(from_units(units, exp), exp) == units
    except ValueError:
        pass
    with contextlib.suppress(ValueError):
        assert isinstance(iso_ns(words), int)


SURFACES: dict[str, Surface] = {
    "feeds": feeds,
    "lines": lines,
    "binary": binary,
    "core": core,
    "model": model,
    "text": text,
}
_ORDER = ("feeds", "feeds", "lines", "lines", "lines", "lines", "binary", "binary", "core", "core", "model", "text")
"""Most inputs go where most of the code is."""


def one_input(data: bytes) -> None:
    """The surface that the first byte names, with the rest."""
    if data:
        SURFACES[_ORDER[data[0] % len(_ORDER)]](data[1:])
