"""What the fuzz targets keep: inputs that once went wrong, run without a fuzzer; sizes; the recorded figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microrisk.core import Engine, ItchDecoder
from microrisk.feed.reference import ReferenceDecoder
from microrisk.spec.records import EVENT, Action, Flag

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "cpp" / "fuzz" / "corpus"
EDGE = ROOT / "tests" / "fuzz"
RECORD = ROOT / "benchmarks" / "recorded" / "fuzz.json"


@pytest.fixture(scope="module")
def edge() -> Iterator[Any]:
    """tests/fuzz/edge.py, which is found by its folder as atheris' runner finds it."""
    sys.path.insert(0, str(EDGE))
    try:
        import edge as module

        yield module
    finally:
        sys.path.remove(str(EDGE))


@pytest.mark.parametrize("path", sorted((EDGE / "corpus").iterdir()), ids=lambda p: p.name[:40])
def test_a_kept_input_of_the_python_edge_raises_only_our_errors(edge: Any, path: Path) -> None:
    edge.one_input(path.read_bytes())


def test_every_surface_and_every_recording_is_read(edge: Any) -> None:
    """An input of zeros leaves the small recordings whole: each of them must be a feed with messages."""
    assert set(edge._ORDER) == set(edge.SURFACES)
    order = {name: edge._ORDER.index(name) for name in edge.SURFACES}
    for name in ("lines", "binary"):
        for which in range(len(edge.TEXTS if name == "lines" else edge.BINARIES)):
            edge.one_input(bytes([order[name], which, 16 | 32]))


def test_a_finding_of_the_edge_is_not_swallowed(edge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(edge, "open_feed", broken)
    with pytest.raises(ZeroDivisionError):
        edge.feeds(b"\0\0\0abc")


ITCH_STREAMS = [p for p in sorted((KEPT / "decode").iterdir()) if (head := p.read_bytes()[:1]) and head[0] % 5 == 0]


@pytest.mark.parametrize("path", ITCH_STREAMS, ids=lambda p: p.name[:40])
def test_kept_itch_streams_through_both_python_decoders(path: Path) -> None:
    """The inputs of the C++ target whose first byte means ITCH, without the framing of loose writers."""
    wire = path.read_bytes()[8:]
    naive, fast = ReferenceDecoder(), ItchDecoder()
    expected, rest = naive.decode(wire)
    out = np.zeros(len(wire) + 1, EVENT)
    n, offset = fast.decode(wire, 0, out)
    if fast.messages and offset < len(wire):
        n_more, offset = fast.decode(wire, offset, out[n:])
        n += n_more
    assert out[:n].tobytes() == expected.tobytes()
    assert (offset, fast.trailing, fast.ended) == (rest, naive.trailing, naive.ended)
    assert fast.counts() == naive.counts()


def test_a_loose_length_at_the_end_of_a_buffer_is_not_the_end_mark() -> None:
    """Found by the decoder target: `41 42` was consumed as an end mark, and a message behind it was lost."""
    decoder, out = ItchDecoder(loose_framing=True), np.zeros(4, EVENT)
    assert decoder.decode(b"\x00\x05", 0, out) == (0, 0)
    assert not decoder.ended
    assert decoder.decode(b"\x00\x05zzzzz", 0, out) == (0, 7)
    assert (decoder.messages, decoder.unknown_type, decoder.trailing) == (1, 1, 0)


def test_a_reset_book_with_a_sample_due_still_has_its_last_best_price() -> None:
    """Found by the book target: the sample took the change with it, and the BBO kept a price that was gone."""
    engine = Engine()
    engine.record_bbo()
    engine.record_samples(3, 250_000_000)
    event = np.zeros(1, EVENT)
    event["action"], event["order_id"], event["side"], event["px"], event["qty"] = Action.ADD, 7, 1, 100, 5
    event["instrument"], event["flags"], event["ts_event"], event["ts_recv"] = 1, Flag.LAST, 1, -(2**63)
    engine.run_events(event)
    engine.reset_book(1)
    event["instrument"], event["action"], event["ts_event"] = 2, Action.NONE, 10**10
    engine.run_events(event)
    engine.finish()
    assert [int(row["bid_qty"]) for row in engine.take_bbo()] == [5, 0]


@pytest.mark.parametrize("n", [2**28 + 1, 2**62 + 1, 2**63, 2**64 - 1])
def test_room_that_cannot_be_meant_is_refused(n: int) -> None:
    """Found by the edge target: doubling up to such a size never ended."""
    with pytest.raises(ValueError, match="reserve_orders must be at most"):
        Engine(reserve_orders=n)
    with pytest.raises(ValueError, match="reserve_instruments must be at most"):
        Engine(reserve_instruments=n)


def test_what_is_kept_is_small() -> None:
    sizes = [p.stat().st_size for folder in (KEPT, EDGE / "corpus") for p in folder.rglob("*") if p.is_file()]
    assert len(sizes) > 50
    assert sum(sizes) < 300_000


@pytest.mark.skipif(not RECORD.exists(), reason="nox -s fuzz_long has not been recorded yet")
def test_the_recorded_run_found_nothing_and_reached_the_decoders() -> None:
    record = json.loads(RECORD.read_text())
    assert {"decode", "book", "path", "edge"} <= set(record["targets"])
    for name, row in record["targets"].items():
        assert (row["exit"], row["reports"]) == (0, 0), name
        assert row["executions"] > 0, name
    assert record["coverage"]["decoders"]["branches"] >= 90
